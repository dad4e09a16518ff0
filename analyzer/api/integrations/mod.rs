//! Controllers that ask: their own requests become orders, and a verdict becomes the answer that they
//! understand.
//!
//! One file per controller. None of them decides anything: what is asked is the [`super::desk::Desk`],
//! and what is answered is its verdict in another shape. An outage of ours is never an answer against
//! a release.

use std::{future::Future, time::Duration};

use axum::http::{HeaderMap, header};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, desk::DeskError};

mod argo;
mod fields;
mod flagger;
mod flagger_answer;
mod flagger_release;
mod judge;
mod kayenta;
mod query;
pub(super) mod recent;
mod ruling;
mod samples;

/// Time for the desk to answer a controller once, so that two answers of it come in less than the 10 s that
/// Argo Rollouts and Flagger wait when nothing else is said.
const PATIENCE: Duration = Duration::from_secs(4);

/// The routes of every controller.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(argo::ask_by_query, argo::ask_by_body, argo::ask_by_put))
        .routes(routes!(samples::argo_template))
        .routes(routes!(samples::argo_rollout))
        .routes(routes!(flagger::hook))
        .routes(routes!(samples::flagger_canary))
        .routes(routes!(kayenta::configs))
        .routes(routes!(kayenta::config))
        .routes(routes!(kayenta::canary, kayenta::canary_status))
        .routes(routes!(kayenta::standalone, kayenta::standalone_status))
        .routes(routes!(kayenta::standalone_adhoc))
        .routes(routes!(kayenta::cancel))
        .routes(routes!(judge::judge))
        .routes(routes!(query::query_by_get, query::query_by_form))
}

/// Waits for the desk, and not longer than a controller waits for us. None when it took longer; what
/// was begun goes on.
async fn soon<T>(
    api: &Api,
    answer: impl Future<Output = Result<T, DeskError>>,
) -> Option<Result<T, DeskError>> {
    tokio::time::timeout(PATIENCE.min(api.options.desk_timeout), answer).await.ok()
}

/// Where we were asked, as `http://host:port`; none when the request names no host that could be
/// written into a file.
fn own_address(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if host.is_empty() || host.len() > 255 || !host.chars().all(is_plain) {
        return None;
    }
    let forwarded = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
    let scheme = if forwarded == Some("https") { "https" } else { "http" };
    Some(format!("{scheme}://{host}"))
}

/// Text on one line, and not longer than so many characters.
fn one_line(text: &str, chars_max: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut line: String = text.chars().map(plain).take(chars_max + 1).collect();
    if let Some((at, _)) = line.char_indices().nth(chars_max) {
        let end = line[..at].char_indices().next_back().map_or(0, |(last, _)| last);
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_between_characters() {
        let check = |text: &str, max: usize, expected: &str| {
            assert_eq!(one_line(text, max), expected, "{text:?}");
        };
        check("short", 5, "short");
        check("longer", 5, "long…");
        check("äöüäöü", 3, "äö…");
        check("two\nlines\r\0", 20, "two lines  ");
        check("", 3, "");
    }

    #[test]
    fn only_plain_hosts_are_written_into_files() {
        let check = |host: &str, expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("a header value"));
            assert_eq!(own_address(&headers).as_deref(), expected, "{host:?}");
        };
        check("rollgate.ops:8750", Some("http://rollgate.ops:8750"));
        check("[::1]:8750", Some("http://[::1]:8750"));
        check("a b", None);
        check("x\"y", None);
        check("", None);
    }
}
