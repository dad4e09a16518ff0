//! What machines ask about us: `/metrics`, `/healthz`, `/readyz`.

use axum::{
    Json,
    extract::State,
    http::{Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    input::{NoParameters, query},
    problem::Problem,
};
use crate::telemetry::OPENMETRICS;

/// All is well.
#[derive(Serialize, ToSchema)]
pub(super) struct Pass {
    /// Always `pass`; a failure is a problem.
    status: &'static str,
}

/// What rollgate measures about itself, in OpenMetrics text.
#[utoipa::path(
    get, path = "/metrics", tag = "probes",
    responses((status = 200, description = "All metrics", body = String, content_type = OPENMETRICS))
)]
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    ([(header::CONTENT_TYPE, OPENMETRICS)], api.telemetry.render()).into_response()
}

/// Liveness: the process runs and answers; it asks nothing of anybody else.
#[utoipa::path(
    get, path = "/healthz", tag = "probes",
    responses((status = 200, description = "It lives", body = Pass))
)]
pub(super) async fn healthz(uri: Uri) -> Result<Response, Problem> {
    let NoParameters {} = query(&uri)?;
    Ok(Json(Pass { status: "pass" }).into_response())
}

/// Readiness: work can be taken now.
#[utoipa::path(
    get, path = "/readyz", tag = "probes",
    responses((status = 200, description = "It is ready", body = Pass))
)]
pub(super) async fn readyz(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    let NoParameters {} = query(&uri)?;
    if api.stop.is_cancelled() {
        return Err(Problem::unavailable("rollgate is shutting down"));
    }
    match tokio::time::timeout(api.options.desk_timeout, api.desk.unready()).await {
        Ok(None) => Ok(Json(Pass { status: "pass" }).into_response()),
        Ok(Some(reason)) => Err(Problem::unavailable(reason)),
        Err(_) => Err(Problem::unavailable("the readiness check did not end in time")),
    }
}
