//! Every delivery, what became of it, and having one sent again.

use axum::{
    Json,
    extract::{FromRequestParts, Path, Request, State, rejection::PathRejection},
    http::{Uri, request::Parts},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    analyses::ask,
    caller::Caller,
    desk::DeskError,
    input::{NoParameters, json, query},
    interventions::signature_faults,
    problem::Problem,
};

/// Deliveries on one page of the list, at most.
pub const LIMIT_MAX: u32 = 200;

/// Deliveries on a page when the request does not say.
pub const LIMIT_DEFAULT: u32 = 50;

/// No key is longer; what is cannot be one.
const KEY_BYTES_MAX: usize = 512;

/// Query of `GET /v1/deliveries`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeliveryListFilter {
    /// Only those in this state: `pending`, `delivered`, `refused`, `dead`, `nothing`, `taken_back`.
    pub state: Option<String>,
    /// Only those to this mechanism.
    pub mechanism: Option<String>,
    /// Only those of this analysis.
    pub analysis: Option<String>,
    /// Continue where a page ended (the `next` of the page before).
    pub after: Option<i64>,
    /// At most this many, 1 to 200; 50 when absent.
    pub limit: Option<u32>,
}

/// One decision on its way to one mechanism.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryView {
    /// The idempotency key (`webhook-id`), the same for ever.
    pub key: String,
    /// Id of the analysis.
    #[serde(default)]
    pub analysis: String,
    /// The service being released.
    #[serde(default)]
    pub service: String,
    /// Name of the mechanism.
    pub mechanism: String,
    /// What is to be done: `rollback`, `promote`, `hold` or `advance`.
    #[serde(default)]
    pub action: String,
    /// What the mechanism does on that, in words, as it is configured now; null where that is not
    /// known.
    #[serde(default)]
    pub does: Option<String>,
    /// `pending`: to be tried (again). `delivered`: acknowledged. `refused`: the receiver said never
    /// again. `dead`: given up. `nothing`: the mechanism does nothing on this decision.
    /// `taken_back`: a later decision stands, or the analysis was cancelled, before it arrived.
    pub state: String,
    /// Attempts so far.
    pub attempts: u32,
    /// When it was decided, in unix seconds.
    #[serde(default)]
    pub created_at: f64,
    /// When the last attempt began, in unix seconds; null before the first.
    #[serde(default)]
    pub last_attempt_at: Option<f64>,
    /// When it was acknowledged, in unix seconds; null before.
    #[serde(default)]
    pub delivered_at: Option<f64>,
    /// What came of the last attempt, in words.
    pub last_answer: Option<String>,
    /// When it is tried next, in unix seconds; null unless it is pending.
    pub next_attempt_at: Option<f64>,
}

/// One page of deliveries, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeliveriesPage {
    /// The deliveries.
    pub deliveries: Vec<DeliveryView>,
    /// Give this as `after` to get the next page; null on the last.
    pub next: Option<i64>,
}

/// One delivery with its attempts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryDetail {
    /// The delivery.
    #[serde(flatten)]
    pub delivery: DeliveryView,
    /// The last 20 attempts, oldest first.
    pub last_attempts: Vec<AttemptView>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    /// Its number, from 1.
    pub number: u32,
    /// When it began, in unix seconds.
    pub at: f64,
    /// Seconds it took.
    pub took_secs: f64,
    /// `delivered`, `refused`, `failed` (to be tried again) or `dead` (the last).
    pub outcome: String,
    /// What came of it, in words.
    pub answer: String,
}

/// Body of `POST /v1/deliveries/{key}/resend`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResendDelivery {
    /// Who wants it; the token's name when left out.
    #[serde(default)]
    pub who: String,
    /// Why.
    #[serde(default)]
    pub why: String,
}

/// The delivery that a path names.
struct DeliveryKey(String);

impl FromRequestParts<Api> for DeliveryKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let path: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, api).await;
        let Path(key) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
        if key.len() > KEY_BYTES_MAX || key.chars().any(char::is_control) {
            let shown: String = key.escape_debug().take(40).collect();
            return Err(DeskError::NoDelivery(format!("{shown}...")).into());
        }
        Ok(Self(key))
    }
}

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one)).routes(routes!(resend))
}

/// Deliveries, newest first.
#[utoipa::path(
    get,
    path = "/v1/deliveries",
    tag = "deliveries",
    params(DeliveryListFilter),
    responses(
        (status = 200, description = "One page of deliveries", body = DeliveriesPage),
        (status = 400, description = "A parameter is unknown or cannot be read"),
        (status = 503, description = "The store does not answer"),
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    uri: Uri,
) -> Result<Json<DeliveriesPage>, Problem> {
    let filter: DeliveryListFilter = query(&uri)?;
    if let Some(limit) = filter.limit
        && !(1..=LIMIT_MAX).contains(&limit)
    {
        let detail = format!("query: limit is {limit}, expected 1 to {LIMIT_MAX}");
        return Err(Problem::bad_request(detail));
    }
    ask(&api, api.desk.deliveries(filter)).await.map(Json)
}

/// One delivery with its attempts.
#[utoipa::path(
    get,
    path = "/v1/deliveries/{key}",
    tag = "deliveries",
    params(("key" = String, Path, description = "Its idempotency key")),
    responses(
        (status = 200, description = "The delivery", body = DeliveryDetail),
        (status = 400, description = "There are parameters, or the path cannot be read"),
        (status = 404, description = "There is no such delivery"),
        (status = 503, description = "The store does not answer"),
    )
)]
async fn one(
    State(api): State<Api>,
    DeliveryKey(key): DeliveryKey,
    uri: Uri,
) -> Result<Json<DeliveryDetail>, Problem> {
    let NoParameters {} = query(&uri)?;
    ask(&api, api.desk.delivery(&key)).await.map(Json)
}

/// Sends a delivery again, under the same key and with fresh patience. One that is pending is tried
/// at once.
#[utoipa::path(
    post,
    path = "/v1/deliveries/{key}/resend",
    tag = "deliveries",
    params(("key" = String, Path, description = "Its idempotency key")),
    request_body = ResendDelivery,
    responses(
        (status = 200, description = "It is pending and due", body = DeliveryDetail),
        (status = 400, description = "The request cannot be read"),
        (status = 404, description = "There is no such delivery"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 409, description = "A later decision of its analysis stands"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body is not declared as JSON"),
        (status = 422, description = "Who or why is missing or too long"),
        (status = 429, description = "The analysis keeps no more interventions"),
        (status = 503, description = "The store does not answer"),
    )
)]
async fn resend(
    State(api): State<Api>,
    DeliveryKey(key): DeliveryKey,
    caller: Caller,
    uri: Uri,
    request: Request,
) -> Result<Json<DeliveryDetail>, Problem> {
    let NoParameters {} = query(&uri)?;
    let mut order: ResendDelivery = json(&api, request).await?;
    order.who = caller.on_record(&order.who);
    let faults = signature_faults(&order.who, &order.why);
    if !faults.is_empty() {
        return Err(Problem::refused(faults));
    }
    ask(&api, api.desk.resend(&key, order)).await.map(Json)
}
