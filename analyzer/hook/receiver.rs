//! What the hook answers over HTTP: `POST /hook` takes signed events, `GET /healthz` says that it
//! is alive.
//!
//! Nothing of a body is read as an event before its signature is good. Every answer is one small
//! JSON object, since the sender keeps its beginning.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body as HttpBody,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{
    Answer, HookOptions, Outcome,
    event::{self, Body, Event, ID_BYTES_MAX},
    runner::Ask,
};
use crate::{
    deliver::{
        Clock,
        payload::EVENT_BYTES_MAX,
        sign::{self, ID_HEADER, Keys, SIGNATURE_HEADER, Signed, TIMESTAMP_HEADER},
    },
    engine::observation::Time,
};

/// Where events are sent to.
pub const PATH: &str = "/hook";

/// Time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// Seconds after which a sender that was told "later" may come again.
const RETRY_AFTER_SECS: &str = "5";

/// Time between two log lines about requests whose signature is not good: anybody can send those,
/// and as many as they like.
const UNSIGNED_LOG_INTERVAL: Duration = Duration::from_secs(10);

struct Shared {
    options: Arc<HookOptions>,
    keys: Keys,
    asks: mpsc::Sender<Ask>,
    now: Clock,
    unsigned: Mutex<Unsigned>,
}

/// Requests whose signature was not good, since one was last logged.
#[derive(Default)]
struct Unsigned {
    logged: Option<Time>,
    count: u64,
}

impl Unsigned {
    /// Counts one, and says how many there were when it is time for a log line.
    fn count(&mut self, now: Time) -> Option<u64> {
        self.count += 1;
        if self.logged.is_some_and(|logged| now.since(logged) < UNSIGNED_LOG_INTERVAL) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

/// All routes.
pub(super) fn router(
    options: Arc<HookOptions>,
    keys: Keys,
    asks: mpsc::Sender<Ask>,
    now: Clock,
) -> Router {
    let unsigned = Mutex::default();
    let shared = Arc::new(Shared { options, keys, asks, now, unsigned });
    Router::new()
        .route(PATH, post(take))
        .route("/healthz", get(|| async { say(StatusCode::OK, json!({ "status": "pass" })) }))
        .fallback(|| async { unusable(StatusCode::NOT_FOUND, "events are sent to /hook") })
        .method_not_allowed_fallback(|| async {
            unusable(StatusCode::METHOD_NOT_ALLOWED, "events are sent by POST")
        })
        .with_state(shared)
}

async fn take(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let event = match read(&shared, &head.headers, body).await {
        Ok(event) => event,
        Err(response) => return response,
    };
    let wait = shared.options.wait;
    let (reply, answer) = oneshot::channel();
    if shared.asks.try_send(Ask { event, reply }).is_err() {
        return answered(&Answer::new(Outcome::Later, "too many events at once"));
    }
    match tokio::time::timeout(wait, answer).await {
        Ok(Ok(answer)) => answered(&answer),
        Ok(Err(_)) => answered(&Answer::new(Outcome::Later, "the hook is stopping")),
        Err(_) => {
            let reason =
                format!("no end after {} s; its end is told next time", wait.as_secs_f64());
            answered(&Answer::new(Outcome::Later, reason))
        }
    }
}

/// The event of a request, or what the request is answered because it is none.
async fn read(shared: &Shared, headers: &HeaderMap, body: HttpBody) -> Result<Event, Response> {
    let signed = signed(headers).map_err(|words| unusable(StatusCode::BAD_REQUEST, words))?;
    // Nobody keeps a place for the time of a body with headers that cannot be signed.
    let early = sign::fresh(signed.timestamp, (shared.now)());
    let verified = match early {
        Ok(()) => {
            let body = collect(headers, body).await?;
            shared.keys.verify(signed, &body, (shared.now)()).map(|()| body)
        }
        Err(fault) => Err(fault),
    };
    let body = verified.map_err(|fault| {
        let mut unsigned = shared.unsigned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = unsigned.count((shared.now)()) {
            tracing::warn!(%fault, count, "events were not accepted");
        }
        unusable(StatusCode::UNAUTHORIZED, fault)
    })?;
    let refused = |words: String| {
        tracing::error!(id = signed.id, reason = words, "refused");
        answered(&Answer::new(Outcome::Refused, words))
    };
    let event = match event::read(signed.id, body).map_err(refused)? {
        Body::Event(event) => *event,
        Body::Test => {
            tracing::info!(id = signed.id, "a test arrived");
            return Err(answered(&Answer::new(Outcome::Nothing, "a test: nothing is run")));
        }
    };
    match &shared.options.service {
        Some(ours) if *ours != event.data.service => {
            let theirs: String = event.data.service.escape_debug().take(80).collect();
            Err(refused(format!("this hook is for {ours}, not for {theirs}")))
        }
        Some(_) | None => Ok(event),
    }
}

fn signed(headers: &HeaderMap) -> Result<Signed<'_>, String> {
    let text = |name| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.ok_or_else(|| format!("there is no {name}"))
    };
    let (id, timestamp) = (text(ID_HEADER)?, text(TIMESTAMP_HEADER)?);
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(format!("{ID_HEADER} has {} bytes, expected 1 to {ID_BYTES_MAX}", id.len()));
    }
    Ok(Signed { id, timestamp, signature: text(SIGNATURE_HEADER)? })
}

async fn collect(headers: &HeaderMap, body: HttpBody) -> Result<Bytes, Response> {
    let too_large = || {
        let words = format!("an event has {EVENT_BYTES_MAX} bytes at most");
        unusable(StatusCode::PAYLOAD_TOO_LARGE, words)
    };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length: Option<u64> = length.and_then(|length| length.parse().ok());
    if length.is_some_and(|length| length > EVENT_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let collecting = Limited::new(body, EVENT_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIMEOUT, collecting).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(unusable(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => {
            let words = format!("a body has {} s to arrive", BODY_TIMEOUT.as_secs());
            Err(unusable(StatusCode::REQUEST_TIMEOUT, words))
        }
    }
}

fn answered(answer: &Answer) -> Response {
    let status = match answer.outcome {
        Outcome::Done | Outcome::Nothing => StatusCode::OK,
        Outcome::Refused => StatusCode::GONE,
        Outcome::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        Outcome::Later => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = say(status, answer);
    if answer.outcome == Outcome::Later {
        let after = HeaderValue::from_static(RETRY_AFTER_SECS);
        response.headers_mut().insert(header::RETRY_AFTER, after);
    }
    response
}

/// A request that is no event of ours, whoever sent it.
fn unusable(status: StatusCode, why: impl ToString) -> Response {
    say(status, json!({ "outcome": "unusable", "reason": why.to_string() }))
}

fn say(status: StatusCode, body: impl serde::Serialize) -> Response {
    let mut response = (status, axum::Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A sender has one event and no more; a connection kept open would hold a place of the few.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_unsigned_requests_is_a_line_now_and_then() {
        let mut unsigned = Unsigned::default();
        let found: Vec<_> = [0, 1, 9_999, 10_000, 10_001].map(|at| unsigned.count(Time(at))).into();
        assert_eq!(found, [Some(1), None, None, Some(3), None]);
    }
}
