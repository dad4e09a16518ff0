//! Opening, listing, reading and cancelling analyses; and the services that are watched.

use std::future::Future;

use axum::{
    Json,
    extract::{Request, State},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

use super::{
    Api,
    caller::Caller,
    desk::{
        AnalysisPage, AnalysisView, ArmOrder, CancelAnalysis, DeskError, History, ListFilter,
        OpenAnalysis, WatchedServices,
    },
    input::{AnalysisId, NoParameters, idempotency_key, json, query},
    openapi::{Bodies, Full, PROBLEM, UnknownAnalysis},
    problem::Problem,
};
use crate::report::timeline::Timeline;

/// Analyses on one page of the list, at most.
const LIMIT_MAX: u32 = 200;
/// Bytes of any name, version or key.
pub(super) const NAME_BYTES_MAX: usize = 256;
/// Bytes of a target's URL or a selector.
const ADDRESS_BYTES_MAX: usize = 2048;
/// Instances of one arm.
const TARGETS_MAX: usize = 256;
/// Mechanisms of one analysis.
const MECHANISMS_MAX: usize = 16;
/// Label tests of one arm.
const LABELS_MAX: usize = 16;
/// Parameters of one order.
const PARAMETERS_MAX: usize = 32;
/// Bytes of a parameter's name.
const PARAMETER_BYTES_MAX: usize = 64;
/// Bytes of the words of a person who steps in.
pub(super) const WORDS_BYTES_MAX: usize = 2000;
/// How the keys begin under which controllers' questions open analyses.
const CONTROLLERS_KEYS: [&str; 3] = ["argo/", "flagger/", "kayenta/"];
/// The longest hold, in seconds: 30 days.
const HOLD_SECS_MAX: f64 = 30.0 * 86_400.0;

const STATES: [&str; 3] = ["running", "finished", "cancelled"];
const VERDICTS: [&str; 5] = ["watching", "investigate", "promote", "rollback", "inconclusive"];

/// Waits for the desk, but not for ever.
pub(super) async fn ask<T>(
    api: &Api,
    answer: impl Future<Output = Result<T, DeskError>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(api.options.desk_timeout, answer).await {
        Ok(answer) => answer.map_err(Problem::from),
        Err(_) => {
            let secs = api.options.desk_timeout.as_secs_f64();
            Err(Problem::unavailable(format!("no answer from the store within {secs} s")))
        }
    }
}

/// Opens an analysis, or returns the one that its idempotency key opened before.
#[utoipa::path(
    post, path = "/v1/analyses", tag = "analyses",
    params(("Idempotency-Key" = Option<String>, Header,
            description = "The same as `idempotency_key` in the body")),
    request_body = OpenAnalysis,
    responses(
        (status = 201, description = "It is new", body = AnalysisView,
         headers(("location" = String, description = "Path of the analysis"))),
        (status = 200, description = "This key opened it before", body = AnalysisView),
        (status = 409, description = "The key opened another order", body = Problem,
         content_type = PROBLEM),
        Bodies, Full,
    )
)]
pub(super) async fn open(
    State(api): State<Api>,
    uri: Uri,
    request: Request,
) -> Result<Response, Problem> {
    let NoParameters {} = query(&uri)?;
    let header_key = idempotency_key(request.headers())?;
    let mut order: OpenAnalysis = json(&api, request).await?;
    if let Some(key) = header_key {
        if order.idempotency_key.as_ref().is_some_and(|named| *named != key) {
            let detail = "Idempotency-Key and the body's idempotency_key are not the same";
            return Err(Problem::bad_request(detail));
        }
        order.idempotency_key = Some(key);
    }
    let mut faults = order_faults(&order);
    let key = order.idempotency_key.as_deref().unwrap_or_default();
    if let Some(taken) = CONTROLLERS_KEYS.iter().find(|taken| key.starts_with(**taken)) {
        faults.push(format!("idempotency_key: begins with {taken}, which keys of controllers do"));
    }
    if !faults.is_empty() {
        return Err(Problem::refused(faults));
    }
    if api.stop.is_cancelled() {
        return Err(Problem::unavailable("rollgate is shutting down"));
    }
    let opened = ask(&api, api.desk.open(order)).await?;
    let status = if opened.is_new { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/v1/analyses/{}", opened.view.id);
    Ok((status, [(header::LOCATION, location)], Json(opened.view)).into_response())
}

/// What can be seen to be wrong without knowing the configuration, all at once.
pub(super) fn order_faults(order: &OpenAnalysis) -> Vec<String> {
    let mut faults = Vec::new();
    name_faults("service", &order.service, &mut faults);
    text_faults("rules", &order.rules, NAME_BYTES_MAX, &mut faults);
    if let Some(key) = &order.idempotency_key {
        name_faults("idempotency_key", key, &mut faults);
    }
    if let Some(prometheus) = &order.prometheus {
        name_faults("prometheus", prometheus, &mut faults);
    }
    arm_faults("canary", &order.canary, &mut faults);
    if let Some(baseline) = &order.baseline {
        arm_faults("baseline", baseline, &mut faults);
    }
    if order.mechanisms.len() > MECHANISMS_MAX {
        let found = order.mechanisms.len();
        faults.push(format!("mechanisms: {found} given, at most {MECHANISMS_MAX} allowed"));
    }
    for (index, mechanism) in order.mechanisms.iter().take(MECHANISMS_MAX).enumerate() {
        name_faults(&format!("mechanisms[{index}]"), mechanism, &mut faults);
    }
    if order.parameters.len() > PARAMETERS_MAX {
        let found = order.parameters.len();
        faults.push(format!("parameters: {found} given, at most {PARAMETERS_MAX} allowed"));
    }
    for (name, value) in order.parameters.iter().take(PARAMETERS_MAX) {
        if !is_parameter(name) {
            let found: String = name.chars().take(60).collect();
            faults.push(format!(
                "parameters: {found:?} found, expected names of small letters, digits and _"
            ));
        } else {
            name_faults(&format!("parameters.{name}"), value, &mut faults);
        }
    }
    if let Some(secs) = order.hold_secs
        && !(0.0..=HOLD_SECS_MAX).contains(&secs)
    {
        faults.push(format!("hold_secs: {secs} found, expected 0 to {HOLD_SECS_MAX}"));
    }
    faults
}

fn is_parameter(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty() && name.len() <= PARAMETER_BYTES_MAX && name.chars().all(is_plain)
}

fn name_faults(field: &str, name: &str, faults: &mut Vec<String>) {
    if name.trim().is_empty() {
        faults.push(format!("{field}: is empty"));
    }
    text_faults(field, name, NAME_BYTES_MAX, faults);
}

pub(super) fn text_faults(field: &str, text: &str, bytes_max: usize, faults: &mut Vec<String>) {
    if text.len() > bytes_max {
        faults.push(format!("{field}: {} bytes found, at most {bytes_max} allowed", text.len()));
    }
    if text.chars().any(char::is_control) {
        faults.push(format!("{field}: holds a control character"));
    }
}

fn arm_faults(arm: &str, order: &ArmOrder, faults: &mut Vec<String>) {
    text_faults(&format!("{arm}.version"), &order.version, NAME_BYTES_MAX, faults);
    let texts = [
        ("selector", &order.selector, ADDRESS_BYTES_MAX),
        ("dns", &order.dns, ADDRESS_BYTES_MAX),
        ("discover", &order.discover, NAME_BYTES_MAX),
    ];
    let mut ways: Vec<&str> = Vec::from_iter((!order.targets.is_empty()).then_some("targets"));
    for (name, text, bytes_max) in texts {
        if let Some(text) = text {
            ways.push(name);
            text_faults(&format!("{arm}.{name}"), text, bytes_max, faults);
        }
    }
    if ways.len() > 1 {
        faults.push(format!("{arm}: {} are given, expected one of them", ways.join(" and ")));
    }
    label_faults(arm, order, faults);
    if order.targets.len() > TARGETS_MAX {
        let found = order.targets.len();
        faults.push(format!("{arm}.targets: {found} given, at most {TARGETS_MAX} allowed"));
    }
    for (index, target) in order.targets.iter().take(TARGETS_MAX).enumerate() {
        let field = format!("{arm}.targets[{index}]");
        text_faults(&field, target, ADDRESS_BYTES_MAX, faults);
        if !target.starts_with("http://") && !target.starts_with("https://") {
            let found: String = target.chars().take(60).collect();
            faults.push(format!("{field}: {found:?} found, expected http://... or https://..."));
        }
    }
}

fn label_faults(arm: &str, order: &ArmOrder, faults: &mut Vec<String>) {
    if order.discover.is_none() && !order.labels.is_empty() {
        faults.push(format!("{arm}.match: is for what `discover` finds, and there is none"));
    }
    if order.labels.len() > LABELS_MAX {
        let found = order.labels.len();
        faults.push(format!("{arm}.match: {found} given, at most {LABELS_MAX} allowed"));
    }
    for (name, value) in order.labels.iter().take(LABELS_MAX) {
        let field = format!("{arm}.match");
        text_faults(&field, name, NAME_BYTES_MAX, faults);
        text_faults(&field, value, NAME_BYTES_MAX, faults);
    }
}

/// Analyses, newest first, page by page.
#[utoipa::path(
    get, path = "/v1/analyses", tag = "analyses", params(ListFilter),
    responses((status = 200, description = "One page", body = AnalysisPage))
)]
pub(super) async fn list(State(api): State<Api>, uri: Uri) -> Result<Json<AnalysisPage>, Problem> {
    let filter: ListFilter = query(&uri)?;
    one_of("state", filter.state.as_deref(), &STATES)?;
    one_of("verdict", filter.verdict.as_deref(), &VERDICTS)?;
    if let Some(limit) = filter.limit
        && !(1..=LIMIT_MAX).contains(&limit)
    {
        let detail = format!("query: limit is {limit}, expected 1 to {LIMIT_MAX}");
        return Err(Problem::bad_request(detail));
    }
    ask(&api, api.desk.list(filter)).await.map(Json)
}

pub(super) fn one_of(
    parameter: &str,
    found: Option<&str>,
    expected: &[&str],
) -> Result<(), Problem> {
    match found {
        Some(word) if !expected.contains(&word) => {
            let word: String = word.chars().take(40).collect();
            let expected = expected.join(", ");
            let detail = format!("query: {parameter} is {word:?}, expected one of {expected}");
            Err(Problem::bad_request(detail))
        }
        Some(_) | None => Ok(()),
    }
}

/// Services that are watched between releases.
#[utoipa::path(
    get, path = "/v1/services", tag = "services",
    responses((status = 200, description = "All of them", body = WatchedServices))
)]
pub(super) async fn services(
    State(api): State<Api>,
    uri: Uri,
) -> Result<Json<WatchedServices>, Problem> {
    let NoParameters {} = query(&uri)?;
    ask(&api, api.desk.services()).await.map(Json)
}

/// One analysis with its findings, its evidence and its deliveries.
#[utoipa::path(
    get, path = "/v1/analyses/{id}", tag = "analyses", params(AnalysisId),
    responses((status = 200, description = "The analysis", body = AnalysisView), UnknownAnalysis)
)]
pub(super) async fn view(
    State(api): State<Api>,
    AnalysisId(id): AnalysisId,
    uri: Uri,
) -> Result<Json<AnalysisView>, Problem> {
    let NoParameters {} = query(&uri)?;
    ask(&api, api.desk.analysis(&id)).await.map(Json)
}

/// Estimates and evidence over time, for plots.
#[utoipa::path(
    get, path = "/v1/analyses/{id}/history", tag = "analyses", params(AnalysisId),
    responses((status = 200, description = "The kept looks", body = History), UnknownAnalysis)
)]
pub(super) async fn history(
    State(api): State<Api>,
    AnalysisId(id): AnalysisId,
    uri: Uri,
) -> Result<Json<History>, Problem> {
    let NoParameters {} = query(&uri)?;
    ask(&api, api.desk.history(&id)).await.map(Json)
}

/// What changed in the course of an analysis.
#[utoipa::path(
    get, path = "/v1/analyses/{id}/timeline", tag = "analyses", params(AnalysisId),
    responses((status = 200, description = "The changes", body = Timeline), UnknownAnalysis)
)]
pub(super) async fn timeline(
    State(api): State<Api>,
    AnalysisId(id): AnalysisId,
    uri: Uri,
) -> Result<Json<Timeline>, Problem> {
    let NoParameters {} = query(&uri)?;
    ask(&api, api.desk.timeline(&id)).await.map(Json)
}

/// Ends a running analysis without a verdict.
#[utoipa::path(
    post, path = "/v1/analyses/{id}/cancel", tag = "analyses", params(AnalysisId),
    request_body = CancelAnalysis,
    responses(
        (status = 200, description = "It is cancelled", body = AnalysisView),
        (status = 409, description = "It is over already", body = Problem, content_type = PROBLEM),
        UnknownAnalysis, Bodies,
    )
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    AnalysisId(id): AnalysisId,
    caller: Caller,
    uri: Uri,
    request: Request,
) -> Result<Json<AnalysisView>, Problem> {
    let NoParameters {} = query(&uri)?;
    let mut order: CancelAnalysis = json(&api, request).await?;
    order.who = caller.on_record(&order.who);
    let mut faults = Vec::new();
    text_faults("who", &order.who, NAME_BYTES_MAX, &mut faults);
    text_faults("why", &order.why, WORDS_BYTES_MAX, &mut faults);
    if !faults.is_empty() {
        return Err(Problem::refused(faults));
    }
    ask(&api, api.desk.cancel(&id, order)).await.map(Json)
}
