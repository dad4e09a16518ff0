//! The HTTP API: routes, handlers, JSON shapes, server-sent events and the embedded page.
//!
//! It knows nothing of stores and drivers; it speaks to a [`desk::Desk`]. Every error is
//! `application/problem+json` (RFC 9457), every limit is in [`ApiOptions`], and a request that
//! makes a handler panic costs that request only.

use std::{sync::Arc, time::Duration};

use axum::{Router, middleware, routing::get};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

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
mod integrations;
mod openapi;
mod page;
mod probes;
mod stall;
mod validity;
mod verdict;

use access::Access;
use desk::Desk;
use integrations::recent::Recent;
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
    recent: Arc<Recent>,
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
    let recent = Arc::default();
    let api = Api { desk, telemetry, options: Arc::new(options), streams, recent, stop };
    let (routes, _) = routes().split_for_parts();
    let document: Arc<str> = document().into();
    let routes = routes
        .route(openapi::PATH, get(move || async move { openapi::deliver(&document) }))
        .fallback(guard::no_such_path)
        .method_not_allowed_fallback(guard::no_such_method)
        .layer(middleware::from_fn_with_state(api.clone(), access::admit))
        .layer(middleware::from_fn_with_state(api.clone(), guard::guard))
        .with_state(api);
    // Around all of it and not beside the layers above, which run when the path is routed already.
    Router::new().fallback_service(routes).layer(middleware::from_fn(access::strip))
}

/// The OpenAPI 3.1 document of the whole API, as JSON.
pub fn document() -> String {
    let (_, document) = routes().split_for_parts();
    openapi::finished(document).to_json().expect("the document holds only strings and numbers")
}

/// Every route with its description.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(analyses::open, analyses::list))
        .routes(routes!(analyses::view))
        .routes(routes!(analyses::history))
        .routes(routes!(analyses::timeline))
        .routes(routes!(rules::text_of_analysis))
        .routes(routes!(verdict::verdict))
        .routes(routes!(events::events))
        .routes(routes!(analyses::cancel))
        .routes(routes!(analyses::services))
        .routes(routes!(rules::list))
        .routes(routes!(rules::text))
        .routes(routes!(access::access))
        .routes(routes!(probes::metrics))
        .routes(routes!(probes::healthz))
        .routes(routes!(probes::readyz))
        .routes(routes!(page::index))
        .routes(routes!(page::asset))
        .merge(integrations::routes())
}
