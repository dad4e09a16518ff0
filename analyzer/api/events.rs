//! `GET /v1/analyses/{id}/events`: an analysis as server-sent events.
//!
//! `look` carries the newest report and has the look's number as id; `verdict` carries the small
//! verdict once it is final and ends the stream. A slow reader gets the newest look, not every
//! one: nothing is queued. Streams are bounded in number and time and end when the service stops.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::Instant,
};

use utoipa::ToSchema;

use super::{
    Api,
    analyses::ask,
    desk::AnalysisView,
    input::{AnalysisId, NoParameters, query},
    openapi::{Full, UnknownAnalysis},
    problem::Problem,
    verdict::SmallVerdict,
};
use crate::telemetry::http::OpenGuard;

/// How long a client waits before it connects again.
const RECONNECT: Duration = Duration::from_secs(2);
/// The id of the `verdict` event ends so. A client that comes back with it has seen everything.
const FINAL_SUFFIX: &str = ".final";

/// One event as it is sent, for the API's description.
#[derive(ToSchema)]
#[allow(dead_code, reason = "events are written field by field")]
pub(super) struct SentEvent {
    /// `look` or `verdict`.
    event: String,
    /// Number of the look; of the verdict with `.final` behind it.
    id: String,
    /// Milliseconds to wait before coming back.
    retry: Option<u32>,
    /// JSON: a report, or the small verdict.
    data: String,
}

/// One open stream.
struct Follower {
    id: String,
    api: Api,
    /// The newest view, as read when the stream began or ended.
    view: Arc<AnalysisView>,
    /// None once the analysis is over.
    looks: Option<watch::Receiver<Arc<AnalysisView>>>,
    look_sent: Option<u64>,
    is_done: bool,
    ends_at: Instant,
    _permit: OwnedSemaphorePermit,
    _counted: OpenGuard,
}

/// Follows an analysis as server-sent events: `look` carries a report, `verdict` the small verdict
/// and the end. A browser that reconnects after the final event is told 204, which stops it.
#[utoipa::path(
    get, path = "/v1/analyses/{id}/events", tag = "analyses",
    params(AnalysisId, ("Last-Event-ID" = Option<String>, Header,
           description = "Set by clients that come back")),
    responses(
        (status = 200, description = "The stream", body = SentEvent,
         content_type = "text/event-stream"),
        (status = 204, description = "Everything was seen"),
        UnknownAnalysis, Full,
    )
)]
pub(super) async fn events(
    State(api): State<Api>,
    AnalysisId(id): AnalysisId,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let NoParameters {} = query(&uri)?;
    // Followed before it is read, so that no look can fall between the two.
    let looks = api.desk.follow(&id);
    let view = Arc::new(ask(&api, api.desk.analysis(&id)).await?);
    let last_seen = headers.get("last-event-id").map(|value| value.as_bytes());
    if last_seen.is_some_and(|last| last.ends_with(FINAL_SUFFIX.as_bytes())) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let Ok(permit) = Arc::clone(&api.streams).try_acquire_owned() else {
        let limit = api.options.streams_max;
        api.telemetry.http().stream_refused(limit);
        return Err(Problem::full(format!("{limit} event streams are open, which is the limit")));
    };
    let follower = Follower {
        id,
        view,
        looks,
        look_sent: None,
        is_done: false,
        ends_at: Instant::now() + Duration::from_secs(api.options.stream_secs_max),
        _permit: permit,
        _counted: api.telemetry.http().stream_opened(),
        api: api.clone(),
    };
    let events = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    let keep_alive = KeepAlive::new().interval(api.options.keep_alive);
    // Proxies that buffer would hold looks back.
    let unbuffered = [(header::HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((unbuffered, Sse::new(events).keep_alive(keep_alive)).into_response())
}

impl Follower {
    /// The next event; None ends the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.is_done {
                return None;
            }
            if let Some(event) = self.due() {
                return Some(event);
            }
            let Some(looks) = &mut self.looks else { return None };
            let is_open = tokio::select! {
                changed = looks.changed() => changed.is_ok(),
                () = tokio::time::sleep_until(self.ends_at) => return None,
                () = self.api.stop.cancelled() => return None,
            };
            if is_open {
                self.view = looks.borrow_and_update().clone();
            } else {
                self.looks = None;
                self.view = Arc::new(ask(&self.api, self.api.desk.analysis(&self.id)).await.ok()?);
            }
        }
    }

    /// What the view in hand holds that was not sent yet.
    fn due(&mut self) -> Option<Event> {
        if let Some(report) = &self.view.report
            && self.look_sent.is_none_or(|sent| report.look > sent)
        {
            self.look_sent = Some(report.look);
            let event = Event::default().event("look").id(report.look.to_string());
            return event.retry(RECONNECT).json_data(report).ok();
        }
        let small = SmallVerdict::of(&self.view);
        if !small.is_final {
            return None;
        }
        self.is_done = true;
        let id = format!("{}{FINAL_SUFFIX}", self.look_sent.unwrap_or(0));
        Event::default().event("verdict").id(id).json_data(small).ok()
    }
}
