//! A person's verdict in the place of the rules'.

use std::fmt;

use axum::{
    Json,
    extract::{Request, State},
    http::Uri,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    analyses::{NAME_BYTES_MAX, WORDS_BYTES_MAX, ask, text_faults},
    caller::Caller,
    desk::AnalysisView,
    input::{AnalysisId, NoParameters, json, query},
    problem::Problem,
};

/// Body of `POST /v1/analyses/{id}/override`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OverrideAnalysis {
    /// The final verdict.
    pub verdict: OverrideVerdict,
    /// Who decides; the token's name when left out.
    #[serde(default)]
    pub who: String,
    /// Why.
    #[serde(default)]
    pub why: String,
}

/// What a person may decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverrideVerdict {
    /// Go back to the old version.
    Rollback,
    /// Go on to the new version.
    Promote,
}

impl OverrideVerdict {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Promote => "promote",
        }
    }
}

impl fmt::Display for OverrideVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(override_verdict))
}

/// Ends a running analysis with a person's verdict, which is final and told like any other.
#[utoipa::path(
    post,
    path = "/v1/analyses/{id}/override",
    tag = "analyses",
    params(("id" = String, Path, description = "Id of the analysis")),
    request_body = OverrideAnalysis,
    responses(
        (status = 200, description = "The analysis, which is over", body = AnalysisView),
        (status = 400, description = "The request cannot be read"),
        (status = 404, description = "There is no such analysis"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 409, description = "The analysis is over: a final verdict never changes"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body is not declared as JSON"),
        (status = 422, description = "Who or why is missing or too long"),
        (status = 503, description = "The store does not answer"),
    )
)]
async fn override_verdict(
    State(api): State<Api>,
    AnalysisId(id): AnalysisId,
    caller: Caller,
    uri: Uri,
    request: Request,
) -> Result<Json<AnalysisView>, Problem> {
    let NoParameters {} = query(&uri)?;
    let mut order: OverrideAnalysis = json(&api, request).await?;
    order.who = caller.on_record(&order.who);
    let faults = signature_faults(&order.who, &order.why);
    if !faults.is_empty() {
        return Err(Problem::refused(faults));
    }
    ask(&api, api.desk.override_verdict(&id, order)).await.map(Json)
}

/// What is wrong with who steps in and why: both are put on record, so both must say something.
pub(super) fn signature_faults(who: &str, why: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (field, text, bytes_max) in [("who", who, NAME_BYTES_MAX), ("why", why, WORDS_BYTES_MAX)] {
        if text.trim().is_empty() {
            faults.push(format!("{field}: is empty, and is put on record"));
        }
        text_faults(field, text, bytes_max, &mut faults);
    }
    faults
}
