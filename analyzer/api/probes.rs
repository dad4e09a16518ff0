//! What machines ask about us: `/metrics`, `/healthz`, `/readyz`.

use axum::{
    Json,
    extract::State,
    http::{Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{
    Api,
    input::{NoParameters, query},
    problem::Problem,
};
use crate::telemetry::OPENMETRICS;

/// `GET /metrics`
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    ([(header::CONTENT_TYPE, OPENMETRICS)], api.telemetry.render()).into_response()
}

/// `GET /healthz`: the process runs and answers; it asks nothing of anybody else.
pub(super) async fn healthz(uri: Uri) -> Result<Response, Problem> {
    let NoParameters {} = query(&uri)?;
    Ok(Json(json!({ "status": "pass" })).into_response())
}

/// `GET /readyz`: work can be taken now.
pub(super) async fn readyz(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    let NoParameters {} = query(&uri)?;
    if api.stop.is_cancelled() {
        return Err(Problem::unavailable("rollgate is shutting down"));
    }
    match tokio::time::timeout(api.options.desk_timeout, api.desk.unready()).await {
        Ok(None) => Ok(Json(json!({ "status": "pass" })).into_response()),
        Ok(Some(reason)) => Err(Problem::unavailable(reason)),
        Err(_) => Err(Problem::unavailable("the readiness check did not end in time")),
    }
}
