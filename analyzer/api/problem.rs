//! Every error answer: `application/problem+json` by RFC 9457.
//!
//! `type` is a URN that programs may branch on; `detail` is for people. A problem never carries a
//! source chain of ours, only what the client can act on.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::desk::DeskError;

/// Seconds after which a client may try again when we are full or unavailable.
const RETRY_AFTER_SECS: &str = "2";

/// One error answer.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// What kind, as a URN: `urn:rollgate:problem:unknown-analysis`.
    #[serde(rename = "type", serialize_with = "urn")]
    #[schema(value_type = String)]
    kind: &'static str,
    /// The kind in words, the same for every occurrence.
    title: &'static str,
    #[serde(serialize_with = "status_number")]
    #[schema(value_type = u16)]
    status: StatusCode,
    /// This occurrence in words.
    detail: String,
    /// One entry per fault, when there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
    /// Member of the body that was being read: `canary.targets[0]`; of bad bodies only.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<Box<str>>,
    /// Line of the body, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    /// Column, from 1; 0 before the first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
}

/// Where a body went wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Member that was being read: `canary.targets[0]`.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// From 1; 0 before the first byte.
    pub column: usize,
}

fn urn<S: serde::Serializer>(kind: &str, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("urn:rollgate:problem:{kind}"))
}

fn status_number<S: serde::Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}

impl Problem {
    fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            title,
            status,
            detail: detail.into(),
            errors: Vec::new(),
            path: None,
            line: None,
            column: None,
        }
    }

    /// 400: the query or a header cannot be read.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request cannot be read", detail)
    }

    /// 400: the body is not the JSON that is expected.
    pub fn bad_body(detail: impl Into<String>, place: Place) -> Self {
        let title = "The body is not the JSON that is expected";
        let problem = Self::new(StatusCode::BAD_REQUEST, "bad-body", title, detail);
        // No body is long enough for more, and a refusal should be small to hand on.
        let number = |number: usize| Some(u32::try_from(number).unwrap_or(u32::MAX));
        let (line, column) = (number(place.line), number(place.column));
        Self { path: Some(place.path.into()), line, column, ..problem }
    }

    /// 401: no token, or none that counts.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "This needs a token", detail)
    }

    /// 403: it is known who asks, or from where, and that may not be.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "This may not be asked", detail)
    }

    /// 404: nothing lives at this path.
    pub fn unknown_path(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown-path", "There is nothing at this path", detail)
    }

    /// 405: this path does not take this method.
    pub fn method_not_allowed(detail: impl Into<String>) -> Self {
        let title = "This path does not take this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", title, detail)
    }

    /// 408: the body did not arrive in time.
    pub fn body_too_slow(detail: impl Into<String>) -> Self {
        let title = "The body did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", title, detail)
    }

    /// 413: the body is over the limit.
    pub fn body_too_large(limit_bytes: usize) -> Self {
        let detail = format!("a body may have {limit_bytes} bytes at most");
        let title = "The body is too large";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", title, detail)
    }

    /// 415: the body is not declared as JSON.
    pub fn not_json(detail: impl Into<String>) -> Self {
        let title = "The body must be JSON";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", title, detail)
    }

    /// 422: understood, and it cannot be carried out. `errors` is never empty.
    pub fn refused(errors: Vec<String>) -> Self {
        let title = "The request is understood and cannot be carried out";
        let detail = match errors.as_slice() {
            [only] => only.clone(),
            several => format!("{} faults: {}", several.len(), several.join("; ")),
        };
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", title, detail);
        Self { errors, ..problem }
    }

    /// 429: a limit is reached.
    pub fn full(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "full", "A limit is reached", detail)
    }

    /// 500: a defect of ours.
    pub fn defect() -> Self {
        let detail = "this is a defect of rollgate; its log names the place";
        let title = "The request met a defect";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "defect", title, detail)
    }

    /// 503: not now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let title = "This cannot be answered now";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title, detail)
    }
}

impl Problem {
    /// This occurrence in words.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl From<DeskError> for Problem {
    fn from(error: DeskError) -> Self {
        let detail = error.to_string();
        match error {
            DeskError::Unknown(_) => {
                let title = "There is no such analysis";
                Self::new(StatusCode::NOT_FOUND, "unknown-analysis", title, detail)
            }
            DeskError::NoDelivery(_) => {
                let title = "There is no such delivery";
                Self::new(StatusCode::NOT_FOUND, "unknown-delivery", title, detail)
            }
            DeskError::NoRules(_) => {
                let title = "There is no such rule file in use";
                Self::new(StatusCode::NOT_FOUND, "unknown-rules", title, detail)
            }
            DeskError::Refused(errors) => Self::refused(errors),
            DeskError::Conflict(_) => {
                let title = "The request conflicts with what is there";
                Self::new(StatusCode::CONFLICT, "conflict", title, detail)
            }
            DeskError::Full(_) => Self::full(detail),
            DeskError::Unavailable(_) => Self::unavailable(detail),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).expect("a problem holds only strings and numbers");
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        let may_retry = self.status == StatusCode::TOO_MANY_REQUESTS
            || self.status == StatusCode::SERVICE_UNAVAILABLE;
        if may_retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECS));
        }
        response
    }
}
