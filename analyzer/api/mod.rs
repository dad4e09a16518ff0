//! The HTTP API: routes, handlers, JSON shapes, server-sent events and the embedded page.
//!
//! It knows nothing of stores and drivers; it speaks to a [`desk::Desk`]. Every error is
//! `application/problem+json` (RFC 9457), every limit is in [`ApiOptions`], and a request that
//! makes a handler panic costs that request only.

use std::{sync::Arc, time::Duration};

use axum::{
    Router, middleware,
    routing::{get, post},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Telemetry;

pub mod access;
pub mod caller;
pub mod desk;
pub mod problem;
pub mod rules;
pub mod server;
pub mod tls;

mod analyses;
mod events;
mod guard;
mod input;
mod page;
mod probes;
mod stall;
mod validity;
mod verdict;

use access::Access;
use desk::Desk;
use tls::Certificates;

pub use server::serve;

/// Limits of the API, who may use it, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// Who may ask what.
    pub access: Access,
    /// By which certificate connections are served; plain HTTP without.
    pub certificates: Option<Certificates>,
    /// Bytes of a request body; more is 413.
    pub body_bytes_max: usize,
    /// Time for a request's head to arrive, also between two requests of one connection.
    pub header_timeout: Duration,
    /// Time for a request's body to arrive; longer is 408.
    pub body_timeout: Duration,
    /// Time for a client to take what is sent to it; one that does not is cut off.
    pub stall_timeout: Duration,
    /// Connections open at once; more wait to be accepted.
    pub connections_max: usize,
    /// Event streams open at once; more are 429.
    pub streams_max: usize,
    /// An event stream ends after this long; its client comes back by itself.
    pub stream_secs_max: u64,
    /// Time between two comments on a silent event stream.
    pub keep_alive: Duration,
    /// The longest long poll; a longer `wait` is answered after this.
    pub wait_secs_max: u64,
    /// Time for the desk to answer; longer is 503.
    pub desk_timeout: Duration,
    /// Time for open requests to finish at shutdown, before they are cut off.
    pub shutdown_timeout: Duration,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            access: Access::default(),
            certificates: None,
            body_bytes_max: 256 * 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(30),
            connections_max: 1024,
            streams_max: 256,
            stream_secs_max: 3600,
            keep_alive: Duration::from_secs(15),
            wait_secs_max: 60,
            desk_timeout: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

/// What every handler sees.
#[derive(Clone)]
struct Api {
    desk: Arc<dyn Desk>,
    telemetry: Telemetry,
    options: Arc<ApiOptions>,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

/// All routes. `stop` ends event streams and long polls, which would otherwise outlive a shutdown.
pub fn router(
    desk: Arc<dyn Desk>,
    telemetry: Telemetry,
    options: ApiOptions,
    stop: CancellationToken,
) -> Router {
    let streams = Arc::new(Semaphore::new(options.streams_max));
    let api = Api { desk, telemetry, options: Arc::new(options), streams, stop };
    let routes = Router::new()
        .route("/v1/analyses", post(analyses::open).get(analyses::list))
        .route("/v1/analyses/{id}", get(analyses::view))
        .route("/v1/analyses/{id}/history", get(analyses::history))
        .route("/v1/analyses/{id}/timeline", get(analyses::timeline))
        .route("/v1/analyses/{id}/rules", get(rules::text_of_analysis))
        .route("/v1/analyses/{id}/verdict", get(verdict::verdict))
        .route("/v1/analyses/{id}/events", get(events::events))
        .route("/v1/analyses/{id}/cancel", post(analyses::cancel))
        .route("/v1/services", get(analyses::services))
        .route("/v1/rules", get(rules::list))
        .route("/v1/rules/{name}", get(rules::text))
        .route("/v1/access", get(access::access))
        .route("/metrics", get(probes::metrics))
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .route("/", get(page::index))
        .route("/assets/{name}", get(page::asset))
        .fallback(guard::no_such_path)
        .method_not_allowed_fallback(guard::no_such_method)
        .layer(middleware::from_fn_with_state(api.clone(), access::admit))
        .layer(middleware::from_fn_with_state(api.clone(), guard::guard))
        .with_state(api);
    // Around all of it and not beside the layers above, which run when the path is routed already.
    Router::new().fallback_service(routes).layer(middleware::from_fn(access::strip))
}
