//! Why an API server did not do as it was asked, and whether asking again can help.

use reqwest::StatusCode;
use serde::Deserialize;

/// An answer that is none, or a refusal. In words without secrets, one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// A token or a certificate cannot be read or used.
    #[error("credentials: {0}")]
    Credentials(String),
    /// No answer came; the request may or may not have arrived.
    #[error("{0}")]
    Unreachable(String),
    /// An answer that is not what an API server says.
    #[error("{0}")]
    Malformed(String),
    /// The server refused.
    #[error("{}", words(*.code, .reason, .message))]
    Status {
        /// The HTTP status.
        code: StatusCode,
        /// The reason in one word, such as `Forbidden`; empty when it gives none.
        reason: String,
        /// The message.
        message: String,
        /// `Retry-After` as it came.
        retry_after: Option<String>,
    },
}

/// The part of a `Status` object that says why.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    kind: String,
    reason: String,
    message: String,
}

impl ClusterError {
    /// Reads a refusal. `fallback` is shown when the body is no `Status`; `clean` makes one short
    /// line of what the server wrote.
    pub(super) fn refusal(
        code: StatusCode,
        body: &[u8],
        retry_after: Option<String>,
        fallback: String,
        clean: impl Fn(&str) -> String,
    ) -> Self {
        match serde_json::from_slice::<Status>(body) {
            Ok(status) if status.kind == "Status" => Self::Status {
                code,
                reason: clean(&status.reason),
                message: clean(&status.message),
                retry_after,
            },
            Ok(_) | Err(_) => {
                Self::Status { code, reason: String::new(), message: fallback, retry_after }
            }
        }
    }

    /// The HTTP status of a refusal.
    pub fn code(&self) -> Option<StatusCode> {
        match self {
            Self::Status { code, .. } => Some(*code),
            Self::Credentials(_) | Self::Unreachable(_) | Self::Malformed(_) => None,
        }
    }

    /// What was asked for is not there.
    pub fn is_absent(&self) -> bool {
        self.code() == Some(StatusCode::NOT_FOUND)
    }

    /// What was read has been changed by somebody else since: a conflict (409), or a `test` of a
    /// JSON patch that failed, which an API server answers with 422.
    pub fn is_outrun(&self) -> bool {
        let code = self.code();
        code == Some(StatusCode::CONFLICT) || code == Some(StatusCode::UNPROCESSABLE_ENTITY)
    }

    /// The request itself is wrong: it would be refused for ever.
    pub fn is_final(&self) -> bool {
        const NEVER: [StatusCode; 6] = [
            StatusCode::BAD_REQUEST,
            StatusCode::NOT_FOUND,
            StatusCode::METHOD_NOT_ALLOWED,
            StatusCode::NOT_ACCEPTABLE,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ];
        self.code().is_some_and(|code| NEVER.contains(&code))
    }
}

/// `403 Forbidden: deployments.apps "shop" is forbidden: ...`
fn words(code: StatusCode, reason: &str, message: &str) -> String {
    let known = code.canonical_reason().unwrap_or_default();
    let said = reason.is_empty() || reason.eq_ignore_ascii_case(&known.replace(' ', ""));
    let reason = if said { String::new() } else { format!(" ({reason})") };
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    format!("{code}{reason}{message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u16, body: &str) -> ClusterError {
        let code = StatusCode::from_u16(code).expect("a status");
        let clean = |text: &str| text.to_owned();
        ClusterError::refusal(code, body.as_bytes(), None, "the beginning".to_owned(), clean)
    }

    #[test]
    fn a_status_is_read_into_words() {
        let check = |code, body: &str, expected: &str| {
            assert_eq!(refusal(code, body).to_string(), expected, "{body}");
        };
        let status = |reason: &str, message: &str| {
            format!(r#"{{"kind":"Status","reason":"{reason}","message":"{message}","code":1}}"#)
        };
        check(403, &status("Forbidden", "not you"), "403 Forbidden: not you");
        check(404, &status("NotFound", "no such"), "404 Not Found: no such");
        check(422, &status("Invalid", "no"), "422 Unprocessable Entity (Invalid): no");
        check(409, &status("", ""), "409 Conflict");
        check(500, "<html>", "500 Internal Server Error: the beginning");
        check(500, r#"{"kind":"Pod","message":"x"}"#, "500 Internal Server Error: the beginning");
        check(429, r#"{"kind":"Status","rea"#, "429 Too Many Requests: the beginning");
    }

    #[test]
    fn what_helps_is_told_apart() {
        let check = |code, outrun: bool, is_final: bool| {
            let error = refusal(code, "");
            assert_eq!((error.is_outrun(), error.is_final()), (outrun, is_final), "{code}");
        };
        check(409, true, false);
        check(422, true, false);
        check(400, false, true);
        check(404, false, true);
        check(415, false, true);
        for code in [301, 401, 403, 410, 429, 500, 503] {
            check(code, false, false);
        }
    }
}
