//! Kayenta's HTTP API, as far as Argo Rollouts' provider, Spinnaker's canary stage and users of its
//! standalone analysis ask it: a canary execution is one analysis of ours.
//!
//! A canary configuration is a rule file, known by its name; `application` is the service. Field
//! names and the shape of answers are Kayenta's. What it is sent beside what is read here, such as the
//! names of storage accounts, is left alone.
//!
//! These clients repeat a request whose answer they lost, so a request is its own idempotency key. The
//! same release may be judged again another day: once its analysis has been over for a while, the same
//! request begins a new one.

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
    http::Uri,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::{
    Api,
    analyses::ask,
    caller::Caller,
    desk::{AnalysisView, CancelAnalysis, DeskError},
    input::{json, query},
    openapi::{Bodies, Full, PROBLEM, UnknownAnalysis},
    problem::Problem,
};

mod answer;
mod begin;
mod execution;
mod request;

use answer::{CanaryStatus, StandaloneStatus};
use begin::begin;
use execution::Execution;
use request::{Accounts, Adhoc, CanaryRequest, Named, StandaloneRequest};

/// A canary configuration in a list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigSummary {
    id: String,
    name: String,
    updated_timestamp: i64,
    updated_timestamp_iso: String,
    applications: Vec<String>,
}

/// A canary configuration: a rule file in Kayenta's words.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KayentaConfig)]
pub(super) struct Config {
    id: String,
    name: String,
    description: String,
    config_version: &'static str,
    applications: Vec<String>,
    judge: ConfigJudge,
    /// Always empty: what is judged is in the rule file.
    metrics: Vec<String>,
    templates: Empty,
    classifier: ConfigClassifier,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ConfigJudge {
    name: &'static str,
    judge_configurations: Empty,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ConfigClassifier {
    group_weights: Empty,
    score_thresholds: execution::Thresholds,
}

#[derive(Serialize, ToSchema)]
#[schema(as = NoMembers)]
pub(super) struct Empty {}

/// Answer to a canary that was begun.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CanaryBegun {
    canary_execution_id: String,
}

/// Answer to a standalone analysis that was begun.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StandaloneBegun {
    canary_analysis_execution_id: String,
}

/// Lists canary configurations: the rule files in use.
#[utoipa::path(
    get, path = "/canaryConfig", tag = "kayenta",
    responses((status = 200, description = "All of them", body = Vec<ConfigSummary>))
)]
pub(super) async fn configs(State(api): State<Api>) -> Result<Json<Vec<ConfigSummary>>, Problem> {
    let files = ask(&api, api.desk.rules()).await?.rules.into_iter();
    let in_use = files.filter_map(|file| {
        let at = file.sha256.and(file.loaded_at)?;
        Some(ConfigSummary {
            id: file.name.clone(),
            name: file.name,
            updated_timestamp: (at * 1000.0) as i64,
            updated_timestamp_iso: answer::iso(at),
            applications: Vec::new(),
        })
    });
    Ok(Json(in_use.collect()))
}

/// One canary configuration.
#[utoipa::path(
    get, path = "/canaryConfig/{id}", tag = "kayenta",
    params(("id" = String, Path, description = "Name of a rule file", example = "recommended")),
    responses(
        (status = 200, description = "The configuration", body = Config),
        (status = 404, description = "No such rule file is in use", body = Problem,
         content_type = PROBLEM),
    )
)]
pub(super) async fn config(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Config>, Problem> {
    let id = segment(id)?;
    ask(&api, api.desk.rule_text(&id)).await?;
    Ok(Json(Config {
        description: format!("What is judged is in the rule file: /v1/rules/{id}"),
        name: id.clone(),
        id,
        config_version: "1",
        applications: Vec::new(),
        judge: ConfigJudge { name: "rollgate", judge_configurations: Empty {} },
        metrics: Vec::new(),
        templates: Empty {},
        classifier: ConfigClassifier {
            group_weights: Empty {},
            score_thresholds: execution::Thresholds::default(),
        },
    }))
}

/// Begins a canary execution.
#[utoipa::path(
    post, path = "/canary/{id}", tag = "kayenta",
    params(("id" = String, Path, description = "Name of a rule file", example = "recommended"), Accounts),
    request_body = CanaryRequest,
    responses((status = 200, description = "It is begun", body = CanaryBegun), Bodies, Full)
)]
pub(super) async fn canary(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
    request: Request,
) -> Result<Json<CanaryBegun>, Problem> {
    let config = segment(id)?;
    let accounts: Accounts = query(&uri)?;
    let request: CanaryRequest = json(&api, request).await?;
    let asked = request::of_canary(&config, &accounts, &request, api.desk.now());
    let asked = asked.map_err(Problem::refused)?;
    let view = begin(&api, asked.order, &("canary", &config, &accounts, &request)).await?;
    let execution = Execution { analysis: view.id, thresholds: asked.thresholds, unread: 0 };
    Ok(Json(CanaryBegun { canary_execution_id: execution.to_string() }))
}

/// How a canary execution stands.
#[utoipa::path(
    get, path = "/canary/{id}", tag = "kayenta",
    params(("id" = String, Path, description = "As it was given when it was begun")),
    responses((status = 200, description = "The execution", body = CanaryStatus), UnknownAnalysis)
)]
pub(super) async fn canary_status(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<CanaryStatus>, Problem> {
    let (execution, view) = found(&api, segment(id)?).await?;
    Ok(Json(CanaryStatus::of(&execution, &view)))
}

/// Begins a standalone canary analysis by a rule file.
#[utoipa::path(
    post, path = "/standalone_canary_analysis/{id}", tag = "kayenta",
    params(("id" = String, Path, description = "Name of a rule file", example = "recommended"), Accounts),
    request_body = StandaloneRequest,
    responses((status = 200, description = "It is begun", body = StandaloneBegun), Bodies, Full)
)]
pub(super) async fn standalone(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
    request: Request,
) -> Result<Json<StandaloneBegun>, Problem> {
    let config = segment(id)?;
    let request: Named = json(&api, request).await?;
    begin_standalone(&api, &uri, &config, &request.into_request(), 0).await
}

/// Begins a standalone canary analysis with a configuration of its own, which must have the name of a
/// rule file: its metrics are not read.
#[utoipa::path(
    post, path = "/standalone_canary_analysis", tag = "kayenta", params(Accounts),
    request_body = Adhoc,
    responses((status = 200, description = "It is begun", body = StandaloneBegun), Bodies, Full)
)]
pub(super) async fn standalone_adhoc(
    State(api): State<Api>,
    uri: Uri,
    request: Request,
) -> Result<Json<StandaloneBegun>, Problem> {
    let adhoc: Adhoc = json(&api, request).await?;
    let files = ask(&api, api.desk.rules()).await?.rules;
    let known: Vec<&str> =
        files.iter().filter(|file| file.sha256.is_some()).map(|file| &*file.name).collect();
    let (config, unread) =
        adhoc.canary_config.rule_file(&known).map_err(|fault| Problem::refused(vec![fault]))?;
    begin_standalone(&api, &uri, &config, &adhoc.execution_request, unread).await
}

/// How a standalone canary analysis stands.
#[utoipa::path(
    get, path = "/standalone_canary_analysis/{id}", tag = "kayenta",
    params(("id" = String, Path, description = "As it was given when it was begun")),
    responses((status = 200, description = "The analysis", body = StandaloneStatus), UnknownAnalysis)
)]
pub(super) async fn standalone_status(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<StandaloneStatus>, Problem> {
    let (execution, view) = found(&api, segment(id)?).await?;
    Ok(Json(StandaloneStatus::of(&execution, &view)))
}

/// Ends an execution without a verdict, as Spinnaker does when its pipeline is cancelled. One that is
/// over stays as it is.
#[utoipa::path(
    put, path = "/pipelines/{executionId}/cancel", tag = "kayenta",
    params(("executionId" = String, Path, description = "As it was given when it was begun")),
    responses((status = 200, description = "It is over", body = Empty), UnknownAnalysis)
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
    caller: Caller,
) -> Result<Json<Empty>, Problem> {
    let execution = Execution::parse(&segment(id)?);
    let who = caller.on_record("a client of the Kayenta API");
    let order = CancelAnalysis { who, why: "its pipeline was cancelled".to_owned() };
    let cancelled = ask(&api, async {
        match api.desk.cancel(&execution.analysis, order).await {
            Ok(_) | Err(DeskError::Conflict(_)) => Ok(Empty {}),
            Err(error) => Err(error),
        }
    });
    cancelled.await.map(Json)
}

async fn begin_standalone(
    api: &Api,
    uri: &Uri,
    config: &str,
    request: &StandaloneRequest,
    unread: usize,
) -> Result<Json<StandaloneBegun>, Problem> {
    let accounts: Accounts = query(uri)?;
    let asked = request::of_standalone(config, &accounts, request, api.desk.now());
    let asked = asked.map_err(Problem::refused)?;
    let view = begin(api, asked.order, &("standalone", config, &accounts, request)).await?;
    let execution = Execution { analysis: view.id, thresholds: asked.thresholds, unread };
    Ok(Json(StandaloneBegun { canary_analysis_execution_id: execution.to_string() }))
}

/// The analysis that an execution is.
async fn found(api: &Api, id: String) -> Result<(Execution, AnalysisView), Problem> {
    let execution = Execution::parse(&id);
    let view = ask(api, api.desk.analysis(&execution.analysis)).await?;
    Ok((execution, view))
}

/// One segment of a path.
fn segment(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let Path(segment) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    if segment.len() > 256 || segment.chars().any(char::is_control) {
        return Err(Problem::bad_request("the path names nothing that there could be"));
    }
    Ok(segment)
}
