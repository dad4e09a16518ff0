//! Requests become typed values: strict queries, bounded JSON bodies, durations, ids.
//!
//! Unknown members and parameters are refused, so that a misspelt option is never silently
//! without effect. Whether an order makes sense is the desk's question, not this file's.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequestParts, Path, Query, Request, rejection::PathRejection},
    http::{HeaderMap, Uri, header, request::Parts},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::IntoParams;

use super::{
    Api,
    desk::DeskError,
    problem::{Place, Problem},
};

/// No id is longer; what is cannot be one.
const ID_BYTES_MAX: usize = 128;

/// The analysis that a path names.
#[derive(IntoParams)]
#[into_params(names("id"), parameter_in = Path)]
pub(super) struct AnalysisId(pub(super) String);

impl FromRequestParts<Api> for AnalysisId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let path: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, api).await;
        let Path(id) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
        if id.len() > ID_BYTES_MAX || id.chars().any(char::is_control) {
            let shown: String = id.escape_debug().take(40).collect();
            return Err(DeskError::Unknown(format!("{shown}...")).into());
        }
        Ok(Self(id))
    }
}

/// The query of a path that takes none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParameters {}

/// The whole query as `T`, which should deny unknown fields.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let Query(parsed) = Query::try_from_uri(uri)
        .map_err(|error| Problem::bad_request(format!("query: {}", error_text(&error))))?;
    Ok(parsed)
}

/// The innermost message: the outer ones repeat what the title says.
fn error_text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Reads a JSON body within the limits of size and time. An empty body reads as `{}`.
pub(super) async fn json<T: DeserializeOwned>(api: &Api, request: Request) -> Result<T, Problem> {
    json_within(api, request, api.options.body_bytes_max).await
}

/// The same, within a limit of the route's own.
pub(super) async fn json_within<T: DeserializeOwned>(
    api: &Api,
    request: Request,
    bytes_max: usize,
) -> Result<T, Problem> {
    check_content_type(request.headers())?;
    let body = collect(api, request.into_body(), bytes_max).await?;
    let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
    parse_json(text)
}

/// A browser sends this content type to another site only after asking it, so requiring it also
/// keeps foreign pages from opening or cancelling analyses.
fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Err(Problem::not_json("content-type is missing, expected application/json"));
    };
    let found = String::from_utf8_lossy(value.as_bytes());
    let kind = found.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json =
        kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
    if is_json {
        return Ok(());
    }
    let found: String = kind.chars().take(80).collect();
    Err(Problem::not_json(format!("content-type is {found:?}, expected application/json")))
}

/// The whole body, within a limit of size and the time that bodies have.
pub(super) async fn collect(api: &Api, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let collecting = Limited::new(body, limit).collect();
    match tokio::time::timeout(api.options.body_timeout, collecting).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::body_too_large(limit)),
        Ok(Err(_)) => Err(Problem::bad_request("the body broke off")),
        Err(_) => {
            let secs = api.options.body_timeout.as_secs_f64();
            Err(Problem::body_too_slow(format!("a body has {secs} s to arrive")))
        }
    }
}

fn parse_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let fault = |path: String, error: &serde_json::Error| {
        // Where not even a member's name could be read, the place is the whole body.
        let path = if path == "?" { ".".to_owned() } else { path };
        let place = Place { path: path.clone(), line: error.line(), column: error.column() };
        let at = if path == "." { String::new() } else { format!("{path}: ") };
        Problem::bad_body(format!("{at}{error}"), place)
    };
    let parsed = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| fault(error.path().to_string(), error.inner()))?;
    reader.end().map_err(|error| fault(".".to_owned(), &error))?;
    Ok(parsed)
}

/// `500ms`, `30s`, `2m`, `1h`, or plain seconds.
pub(super) fn duration(text: &str) -> Result<Duration, Problem> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_secs = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad_duration(text)),
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match digits.parse::<f64>() {
        Ok(number) if is_number => {
            Duration::try_from_secs_f64(number * unit_secs).map_err(|_| bad_duration(text))
        }
        _ => Err(bad_duration(text)),
    }
}

fn bad_duration(text: &str) -> Problem {
    let found: String = text.chars().take(40).collect();
    Problem::bad_request(format!("{found:?} is not a duration, expected one such as 30s or 2m"))
}

/// The client's key from the `Idempotency-Key` header, bare or as a quoted string.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value
        .to_str()
        .map_err(|_| Problem::bad_request("Idempotency-Key must be printable ASCII"))?
        .trim();
    let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    if bare.is_empty() {
        return Err(Problem::bad_request("Idempotency-Key is empty"));
    }
    Ok(Some(bare.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<f64>| {
            let found = duration(text).ok().map(|duration| duration.as_secs_f64());
            assert_eq!(found, expected, "{text:?}");
        };
        check("30s", Some(30.0));
        check("30", Some(30.0));
        check("1.5m", Some(90.0));
        check("250ms", Some(0.25));
        check("1h", Some(3600.0));
        for bad in ["", "s", "-1s", "1e9", "inf", "NaN", "1d", "1 s", "1s2", "é", "1.2.3s"] {
            check(bad, None);
        }
        check(&format!("{}h", "9".repeat(300)), None);
    }

    #[test]
    fn keys_are_bare_or_quoted() {
        let check = |header: &str, expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", header.parse().expect("a header value"));
            let found = idempotency_key(&headers).ok().flatten();
            assert_eq!(found.as_deref(), expected, "{header:?}");
        };
        check("abc", Some("abc"));
        check("\"abc\"", Some("abc"));
        check(" abc ", Some("abc"));
        check("\"\"", None);
        check("\"", Some("\""));
    }
}
