//! A scraped process: where its metrics are, and how it is called.
//!
//! Invariant: neither name nor URL holds credentials. It deliberately does not resolve anything.

use std::sync::Arc;

use reqwest::Url;

/// Bytes a target's URL may have.
pub const URL_BYTES_MAX: usize = 2048;

/// One instance of an arm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    name: Arc<str>,
    metrics: Url,
}

/// Why a text is not a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It cannot be read as a URL.
    #[error(
        "target {found:?} is not a URL ({why}), expected http://HOST:PORT or \
         http://HOST:PORT/PATH; hint: write http://{found}"
    )]
    NotUrl {
        /// What was found.
        found: String,
        /// The fault.
        why: String,
    },
    /// It is not for HTTP.
    #[error("target {found:?} has the scheme {scheme:?}, expected http or https")]
    Scheme {
        /// What was found.
        found: String,
        /// Its scheme.
        scheme: String,
    },
    /// It carries a name or a password. The URL itself is not repeated here.
    #[error("target at host {host:?} has credentials in its URL, expected none")]
    Credentials {
        /// Its host.
        host: String,
    },
    /// It is too long.
    #[error("target URL has {bytes} bytes, expected at most {URL_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl Target {
    /// Reads a URL. Without a path its metrics are at `/metrics`.
    ///
    /// # Errors
    /// When it is not an HTTP URL, or holds credentials.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        let url = parse_url(url)?;
        let mut metrics = url;
        metrics.set_fragment(None);
        if metrics.path() == "/" {
            metrics.set_path("/metrics");
        }
        let mut name = authority(&metrics);
        if metrics.path() != "/metrics" {
            name.push_str(metrics.path());
        }
        Ok(Self { name: name.into(), metrics })
    }

    /// `host:port`, followed by the path when that is not `/metrics`; never the query.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Where its metrics are.
    pub fn metrics_url(&self) -> &Url {
        &self.metrics
    }

    /// Where a health path of it is: at the origin, whatever the path of its metrics.
    pub fn health_url(&self, path: &str) -> Url {
        at_origin(&self.metrics, path)
    }

    pub(super) fn renamed(mut self, name: String) -> Self {
        self.name = name.into();
        self
    }
}

/// Reads an HTTP URL without credentials.
pub(super) fn parse_url(found: &str) -> Result<Url, TargetError> {
    if found.len() > URL_BYTES_MAX {
        return Err(TargetError::TooLong { bytes: found.len() });
    }
    // `localhost:9100` reads as a URL of the scheme "localhost".
    let url = match Url::parse(found) {
        Ok(url) if url.host_str().is_some() || found.contains("://") => url,
        Ok(_) => {
            let why = "it has no host".to_owned();
            return Err(TargetError::NotUrl { found: unkeyed(found), why });
        }
        Err(error) => {
            let why = error.to_string();
            return Err(TargetError::NotUrl { found: unkeyed(found), why });
        }
    };
    let host = url.host_str().unwrap_or("").to_owned();
    if !url.username().is_empty() || url.password().is_some() {
        return Err(TargetError::Credentials { host });
    }
    match url.scheme() {
        "http" | "https" => Ok(url),
        scheme => Err(TargetError::Scheme { found: unkeyed(found), scheme: scheme.to_owned() }),
    }
}

/// A text that failed to be a URL, without what may be a password or a token in it.
fn unkeyed(found: &str) -> String {
    let found = found.split(['?', '#']).next().unwrap_or("");
    super::excerpt::excerpt(found.rsplit_once('@').map_or(found, |(_, rest)| rest))
}

pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or("");
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Another path at the same origin. The path cannot name another host.
pub(super) fn at_origin(url: &Url, path: &str) -> Url {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let mut url = url.clone();
    url.set_path(path);
    url.set_query(query);
    url.set_fragment(None);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls() {
        let check = |url: &str, name: &str, metrics: &str| {
            let target = Target::parse(url).unwrap();
            assert_eq!((&**target.name(), target.metrics_url().as_str()), (name, metrics));
        };
        check("http://h:9100", "h:9100", "http://h:9100/metrics");
        check("http://h:9100/", "h:9100", "http://h:9100/metrics");
        check("https://h", "h:443", "https://h/metrics");
        check(
            "http://h:1/actuator/prometheus",
            "h:1/actuator/prometheus",
            "http://h:1/actuator/prometheus",
        );
        check("http://h:1/metrics?token=x#y", "h:1", "http://h:1/metrics?token=x");
        check("http://[::1]:9100", "[::1]:9100", "http://[::1]:9100/metrics");
    }

    #[test]
    fn refuses_what_is_no_target() {
        let check = |url: &str, part: &str| {
            let error = Target::parse(url).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        };
        check("localhost:9100", "http://localhost:9100");
        check("", "not a URL");
        check("ftp://h", "ftp");
        check("http://me:hunter2@h:1", "credentials");
        check("ftp://me:hunter2@h:1", "credentials");
        check("http://me:hunter2@h:99999", "invalid port");
        check("http://h:99999/?key=hunter2", "invalid port");
        check(&format!("http://h/{}", "x".repeat(URL_BYTES_MAX)), "at most 2048");
    }

    #[test]
    fn health_paths_stay_at_the_origin() {
        let target = Target::parse("http://h:1/a/metrics?x=1").unwrap();
        let check = |path: &str, url: &str| assert_eq!(target.health_url(path).as_str(), url);
        check("/health/db", "http://h:1/health/db");
        check("/health?full=1", "http://h:1/health?full=1");
        check("//evil.example/x", "http://h:1//evil.example/x");
        check("health", "http://h:1/health");
    }
}
