//! Keeps foreign web pages out where no token does: a browser on this machine reaches loopback, and
//! any page it shows can send requests there.
//!
//! A page whose name was made to point at us (DNS rebinding) gives itself away by the `Host` it
//! asks for. Another site's request gives itself away by what browsers say of it and pages cannot
//! change (`Sec-Fetch-Site`, `Origin`). Where tokens are configured none of this matters: browsers
//! add tokens to nothing by themselves, and there are no cookies.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, Uri, header, uri::Authority};

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// It asks for a host that we are not.
    Host(String),
    /// Another site's page sent it.
    Site,
}

/// Whether a request without a token may come from where it comes from. `is_read` says that it
/// changes nothing: following a link here from another site is then well.
///
/// # Errors
/// With what gave it away.
pub fn check(
    uri: &Uri,
    headers: &HeaderMap,
    hosts: &[String],
    is_read: bool,
) -> Result<(), Foreign> {
    let ours = |name: &str| is_loopback(name) || hosts.iter().any(|host| is_same(host, name));
    // Who speaks without a host is no browser.
    if let Some(host) = host(uri, headers) {
        let name = host.parse::<Authority>().ok();
        if !name.as_ref().is_some_and(|name| ours(name.host())) {
            return Err(Foreign::Host(host.chars().take(100).collect()));
        }
    }
    let text = |name: &HeaderName| headers.get(name).map(|value| value.as_bytes());
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
    let is_link = is_read && text(&MODE) == Some(b"navigate");
    let is_near = matches!(text(&SITE), None | Some(b"same-origin" | b"none"));
    let origin = headers.get(header::ORIGIN).map(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
        origin.as_ref().and_then(Uri::host).is_some_and(ours)
    });
    match (is_near || is_link) && origin.unwrap_or(true) {
        true => Ok(()),
        false => Err(Foreign::Site),
    }
}

/// What is asked for; a URI with an authority counts more than the header.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let named = uri.authority().map(ToString::to_string);
    let headers = headers.get_all(header::HOST).iter();
    let all: Vec<String> =
        headers.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
    named.or_else(|| (!all.is_empty()).then(|| all.join(",")))
}

fn is_loopback(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse::<IpAddr>().map(|address| address.to_canonical().is_loopback()).unwrap_or_else(
        |_| {
            let name = bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        },
    )
}

fn is_same(configured: &str, name: &str) -> bool {
    configured.eq_ignore_ascii_case(name.strip_suffix('.').unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_hosts_and_sites_are_told_apart_from_ours() {
        let sees = |is_read: bool, lines: &[(&str, &str)], expected: bool| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                let name: HeaderName = name.parse().unwrap();
                headers.append(name, value.parse().unwrap());
            }
            let hosts = ["gate.example.org".to_owned()];
            let uri = Uri::from_static("/v1/analyses");
            let found = check(&uri, &headers, &hosts, is_read);
            assert_eq!(found.is_ok(), expected, "{is_read} {lines:?}: {found:?}");
        };
        for host in [
            "127.0.0.1:8750",
            "127.9.9.9",
            "[::1]:8750",
            "localhost:8750",
            "LOCALHOST",
            "localhost.",
            "shop.localhost:1",
            "gate.example.org",
            "Gate.Example.org:443",
        ] {
            sees(false, &[("host", host)], true);
        }
        for host in [
            "evil.example",
            "10.0.0.1:8750",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "127.0.0.1,evil.example",
            "evil.example@127.0.0.1.evil.example",
            "",
            "[::1",
            "0.0.0.0:8750",
        ] {
            sees(true, &[("host", host)], false);
        }
        sees(true, &[], true);
        sees(true, &[("host", "localhost"), ("host", "evil.example")], false);
        let at = ("host", "localhost:8750");
        sees(false, &[at, ("sec-fetch-site", "same-origin")], true);
        sees(false, &[at, ("sec-fetch-site", "none")], true);
        for site in ["cross-site", "same-site", "invented"] {
            sees(true, &[at, ("sec-fetch-site", site)], false);
            let link = [at, ("sec-fetch-site", site), ("sec-fetch-mode", "navigate")];
            sees(true, &link, true);
            sees(false, &link, false);
        }
        sees(false, &[at, ("origin", "http://localhost:8750")], true);
        sees(false, &[at, ("origin", "https://gate.example.org")], true);
        for origin in ["null", "https://evil.example", "http://localhost.evil.example", ""] {
            sees(false, &[at, ("origin", origin)], false);
        }
    }

    #[test]
    fn the_uri_counts_more_than_the_header() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost".parse().unwrap());
        let uri = Uri::from_static("http://evil.example/v1/analyses");
        assert!(check(&uri, &headers, &[], true).is_err());
    }
}
