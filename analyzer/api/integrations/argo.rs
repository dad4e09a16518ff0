//! Argo Rollouts' `web` provider: one question, asked again and again, that opens an analysis the first
//! time and answers its verdict from then on.
//!
//! The answer is small, because the whole of it becomes the measurement's value, the only thing of
//! ours that Argo shows. What is not 2xx is an *Error* measurement there, and a few of those in a row
//! abort a rollout: so a known analysis is answered for even when the store is not there, and
//! an order that takes long to open is *watching* meanwhile. A key is one release: asked with
//! the key of another one, there is no answer rather than an old verdict.

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, Uri},
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::{
    super::{
        Api,
        analyses::order_faults,
        desk::{AnalysisView, DeskError, OpenAnalysis},
        input::{NoParameters, idempotency_key, json, query},
        openapi::{Bodies, Full, PROBLEM},
        problem::Problem,
        verdict::SmallVerdict,
    },
    fields::Fields,
    own_address,
    ruling::{self, Ruling},
    soon,
};
use crate::telemetry::controllers::Asked;

/// What Argo Rollouts keeps of one measurement. Field names are part of the public contract.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct ArgoVerdict {
    /// The analysis; null while it is being opened.
    id: Option<String>,
    /// The service being released.
    service: String,
    /// `promote`, `rollback`, `inconclusive` (a person has to decide) or `watching`.
    verdict: &'static str,
    /// Whether it stays so.
    #[serde(rename = "final")]
    is_final: bool,
    /// Why, on one line of at most 300 characters.
    reason: String,
    /// The rule that decided; null when none did.
    rule: Option<String>,
    /// How far it is, in a few words.
    progress: String,
    /// The analysis on the page; null while there is none.
    link: Option<String>,
}

/// Answers for one release, as Argo Rollouts' `web` provider asks by GET; the first question opens its analysis.
#[utoipa::path(
    get, path = "/v1/integrations/argo", tag = "controllers", params(Fields),
    responses(
        (status = 200, description = "The verdict as it stands", body = ArgoVerdict),
        (status = 409, description = "The key is that of another release", body = Problem,
         content_type = PROBLEM),
        (status = 422, description = "The order cannot be carried out", body = Problem,
         content_type = PROBLEM),
        Full,
    )
)]
pub(super) async fn ask_by_query(
    State(api): State<Api>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<ArgoVerdict>, Problem> {
    let fields: Fields = query(&uri)?;
    let order = fields.order("").map_err(Problem::refused)?;
    asked(&api, order, &headers).await.map(Json)
}

/// The same with the order of `POST /v1/analyses` as the body.
#[utoipa::path(
    post, path = "/v1/integrations/argo", tag = "controllers", request_body = OpenAnalysis,
    responses(
        (status = 200, description = "The verdict as it stands", body = ArgoVerdict),
        (status = 409, description = "The key is that of another release", body = Problem,
         content_type = PROBLEM),
        Bodies, Full,
    )
)]
pub(super) async fn ask_by_body(
    State(api): State<Api>,
    uri: Uri,
    request: Request,
) -> Result<Json<ArgoVerdict>, Problem> {
    let NoParameters {} = query(&uri)?;
    let headers = request.headers().clone();
    let header_key = idempotency_key(&headers)?;
    let mut order: OpenAnalysis = json(&api, request).await?;
    order.idempotency_key = order.idempotency_key.or(header_key);
    asked(&api, order, &headers).await.map(Json)
}

/// The same by PUT, which the provider can send too.
#[utoipa::path(
    put, path = "/v1/integrations/argo", tag = "controllers", request_body = OpenAnalysis,
    responses(
        (status = 200, description = "The verdict as it stands", body = ArgoVerdict),
        (status = 409, description = "The key is that of another release", body = Problem,
         content_type = PROBLEM),
        Bodies, Full,
    )
)]
pub(super) async fn ask_by_put(
    state: State<Api>,
    uri: Uri,
    request: Request,
) -> Result<Json<ArgoVerdict>, Problem> {
    ask_by_body(state, uri, request).await
}

/// Answers, and counts what was said.
async fn asked(
    api: &Api,
    order: OpenAnalysis,
    headers: &HeaderMap,
) -> Result<ArgoVerdict, Problem> {
    let object = order.service.clone();
    let answer = answer(api, order, headers).await;
    let (word, words) = match &answer {
        Ok(verdict) => (verdict.verdict, verdict.reason.as_str()),
        Err(_) => ("refused", "no verdict"),
    };
    let (controller, hook, object) = ("argo", "verdict", object.as_str());
    api.telemetry.controllers().answered(Asked { controller, hook, object, answer: word, words });
    answer
}

async fn answer(
    api: &Api,
    mut order: OpenAnalysis,
    headers: &HeaderMap,
) -> Result<ArgoVerdict, Problem> {
    let mut faults = order_faults(&order);
    if order.idempotency_key.is_none() && order.canary.version.is_empty() {
        faults.push(
            "canary_version: is missing, and there is no key: nothing tells one release from the \
             next"
                .to_owned(),
        );
    }
    if !faults.is_empty() {
        return Err(Problem::refused(faults));
    }
    let key = order.idempotency_key.clone().unwrap_or_else(|| derived_key(&order));
    order.idempotency_key = Some(key.clone());
    match soon(api, api.desk.opened_by(&key)).await {
        Some(Ok(Some(view))) => {
            same_release(&order, &view)?;
            Ok(told(api, &key, &view, headers))
        }
        Some(Ok(None)) => open(api, order, &key, headers).await,
        Some(Err(error)) => from_memory(api, &key, headers).ok_or_else(|| Problem::from(error)),
        None => from_memory(api, &key, headers)
            .ok_or_else(|| Problem::unavailable("no answer from the store in time")),
    }
}

async fn open(
    api: &Api,
    order: OpenAnalysis,
    key: &str,
    headers: &HeaderMap,
) -> Result<ArgoVerdict, Problem> {
    if api.stop.is_cancelled() {
        return Err(Problem::unavailable("rollgate is shutting down"));
    }
    let service = order.service.clone();
    match soon(api, api.desk.open(order)).await {
        Some(Ok(opened)) => Ok(told(api, key, &opened.view, headers)),
        Some(Err(error)) => Err(error.into()),
        // The work goes on, and the next question finds what came of it.
        None => Ok(ArgoVerdict {
            id: None,
            service,
            verdict: Ruling::Watching.word(),
            is_final: false,
            reason: "The analysis is being opened.".to_owned(),
            rule: None,
            progress: "before the first look".to_owned(),
            link: None,
        }),
    }
}

/// What makes a release one and the same where the client does not say: everything that it says, so
/// that no verdict answers for other instances.
fn derived_key(order: &OpenAnalysis) -> String {
    let parts = serde_json::to_string(order).expect("strings and numbers are always JSON");
    let digest = Sha256::digest(parts);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("argo/{hex}")
}

/// A key that stands in a template would give every later release the verdict of the first.
fn same_release(order: &OpenAnalysis, view: &AnalysisView) -> Result<(), DeskError> {
    let versions = (&order.canary.version, &view.canary.version);
    let is_other = !versions.0.is_empty() && !versions.1.is_empty() && versions.0 != versions.1;
    if order.service == view.service && !is_other {
        return Ok(());
    }
    Err(DeskError::Conflict(format!(
        "the key is that of analysis {}, which judged {} {}: a key must be new for every release",
        view.id, view.service, view.canary.version
    )))
}

fn told(api: &Api, key: &str, view: &AnalysisView, headers: &HeaderMap) -> ArgoVerdict {
    let small = SmallVerdict::of(view);
    api.recent.remember(key, &small);
    verdict(&small, ruling::progress(view), headers)
}

/// What is known without the store: how a running analysis stands, or what was told last.
fn from_memory(api: &Api, key: &str, headers: &HeaderMap) -> Option<ArgoVerdict> {
    let last = api.recent.told(key)?;
    if let Some(looks) = api.desk.follow(&last.id).filter(|_| !last.is_final) {
        let view = looks.borrow().clone();
        return Some(verdict(&SmallVerdict::of(&view), ruling::progress(&view), headers));
    }
    let progress = "the store does not answer; as it stood last".to_owned();
    Some(verdict(&last, progress, headers))
}

fn verdict(small: &SmallVerdict, progress: String, headers: &HeaderMap) -> ArgoVerdict {
    let own = own_address(headers).unwrap_or_default();
    ArgoVerdict {
        id: Some(small.id.clone()),
        service: small.service.clone(),
        verdict: Ruling::of(small).word(),
        is_final: small.is_final,
        reason: ruling::reason(small),
        rule: ruling::rule(small),
        progress,
        link: Some(format!("{own}/#/analyses/{}", small.id)),
    }
}
