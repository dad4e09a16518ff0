//! What the API asks of the rest: one trait, implemented by `service/`, and the shapes it speaks.
//!
//! The API never sees the store or the drivers. Everything here is JSON-shaped and public.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::{IntoParams, ToSchema};

pub use super::rules::{FaultView, IgnoredFile, RuleFileView, RuleFiles, RuleText};
pub use super::{
    deliveries::{
        AttemptView, DeliveriesPage, DeliveryDetail, DeliveryListFilter, DeliveryView,
        ResendDelivery,
    },
    interventions::{OverrideAnalysis, OverrideVerdict},
};
pub use crate::report::shape::{InterventionShape, RulesRef};
use crate::{
    engine::observation::Time,
    report::{shape::Report, timeline::Timeline},
};

/// What is said of an analysis before its first look.
pub const NO_LOOK: &str = "No look has been taken yet.";

/// Everything the API can ask for.
#[async_trait]
pub trait Desk: Send + Sync + 'static {
    /// Opens an analysis, or returns the one that this idempotency key already opened.
    async fn open(&self, order: OpenAnalysis) -> Result<Opened, DeskError>;
    /// Analyses, newest first.
    async fn list(&self, filter: ListFilter) -> Result<AnalysisPage, DeskError>;
    /// One analysis.
    async fn analysis(&self, id: &str) -> Result<AnalysisView, DeskError>;
    /// What is decided of an analysis, for those who ask again and again: less to read and to make
    /// than the whole of it.
    async fn standing(&self, id: &str) -> Result<Standing, DeskError>;
    /// The analysis that an order with this idempotency key opened, if any.
    async fn opened_by(&self, key: &str) -> Result<Option<AnalysisView>, DeskError>;
    /// Estimates over time, for plots.
    async fn history(&self, id: &str) -> Result<History, DeskError>;
    /// What changed in the course of an analysis.
    async fn timeline(&self, id: &str) -> Result<Timeline, DeskError>;
    /// The rule file that an analysis began with.
    async fn analysis_rules(&self, id: &str) -> Result<RuleText, DeskError>;
    /// Follows a running analysis: the receiver holds the newest view and changes at every look; it
    /// closes when the analysis is over. None when the analysis is not running.
    fn follow(&self, id: &str) -> Option<watch::Receiver<Arc<AnalysisView>>>;
    /// Ends a running analysis without a verdict.
    async fn cancel(&self, id: &str, order: CancelAnalysis) -> Result<AnalysisView, DeskError>;
    /// Ends a running analysis with a person's verdict.
    async fn override_verdict(
        &self,
        id: &str,
        order: OverrideAnalysis,
    ) -> Result<AnalysisView, DeskError>;
    /// Deliveries, newest first.
    async fn deliveries(&self, filter: DeliveryListFilter) -> Result<DeliveriesPage, DeskError>;
    /// One delivery with its attempts.
    async fn delivery(&self, key: &str) -> Result<DeliveryDetail, DeskError>;
    /// Sends a delivery again.
    async fn resend(&self, key: &str, order: ResendDelivery) -> Result<DeliveryDetail, DeskError>;
    /// Services that are watched between releases.
    async fn services(&self) -> Result<WatchedServices, DeskError>;
    /// What was noted under a name, such as the release that a controller is at.
    async fn note(&self, name: &str) -> Result<Option<String>, DeskError>;
    /// Notes `text` where `before` was noted (none: nothing). False when something else is there by
    /// now: read it, and begin again.
    async fn write_note(
        &self,
        name: &str,
        before: Option<&str>,
        text: &str,
    ) -> Result<bool, DeskError>;
    /// Every rule file that the service holds.
    async fn rules(&self) -> Result<RuleFiles, DeskError>;
    /// The text of a rule file that new analyses use.
    async fn rule_text(&self, name: &str) -> Result<RuleText, DeskError>;
    /// The time, by the only clock there is.
    fn now(&self) -> Time;
    /// Why the service cannot take work now, when it cannot.
    async fn unready(&self) -> Option<String>;
}

/// Why the desk refused. Each kind is one HTTP status.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeskError {
    /// 404.
    #[error("no analysis {0}")]
    Unknown(String),
    /// 404.
    #[error("no delivery {0}")]
    NoDelivery(String),
    /// 404: there is no text of a rule file that new analyses could use; says why.
    #[error("{0}")]
    NoRules(String),
    /// 422: the request is well-formed and cannot be carried out; one entry per fault.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
    /// 409.
    #[error("{0}")]
    Conflict(String),
    /// 429: a limit is reached.
    #[error("{0}")]
    Full(String),
    /// 503: the store did not answer.
    #[error("{0}")]
    Unavailable(String),
}

/// Body of `POST /v1/analyses`. What is left out is completed by what the configuration knows of the
/// service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "service": "shop", "rules": "recommended",
    "canary": { "version": "v2", "targets": ["http://10.0.0.7:8080"] },
    "baseline": { "version": "v1", "targets": ["http://10.0.0.5:8080"] },
}))]
pub struct OpenAnalysis {
    /// The service being released.
    #[schema(min_length = 1, max_length = 200)]
    pub service: String,
    /// Name of a rule file in the configured directory, without `.yaml`; the service's own when
    /// left out.
    #[serde(default)]
    pub rules: String,
    /// The new version.
    pub canary: ArmOrder,
    /// The old version; none when only absolute rules are to be judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<ArmOrder>,
    /// Name of a configured Prometheus source; needed when arms are given by selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<String>,
    /// Names of configured mechanisms to be told the verdict; the service's own when empty.
    #[serde(default)]
    pub mechanisms: Vec<String>,
    /// What is filled into the texts that the configuration has for the service, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// The client's key: the same key opens the same analysis once.
    #[schema(min_length = 1, max_length = 200)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Watch at least this long instead of what the rule file says, in seconds; all steps together.
    #[schema(exclusive_minimum = 0, maximum = 604800)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_secs: Option<f64>,
}

/// One arm of an order: targets to scrape, a selector for a metrics server, a name to resolve or a
/// discovery of the configuration. With none of them the configuration says where it is found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArmOrder {
    /// Its version, for people and for the mechanism's checks.
    #[serde(default)]
    pub version: String,
    /// Base URLs of its instances (`http://10.0.0.7:8080`), or full URLs of their metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// PromQL label matchers that choose its series: `job="shop",version="v2"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// A name and a port, all of whose addresses are instances: `shop-canary.internal:8080`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    /// Name of a configured discovery that finds its instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discover: Option<String>,
    /// Labels that those of the discovery have which belong to the arm; `!v1` stands for any other
    /// value than `v1`.
    #[serde(default, rename = "match", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl ArmOrder {
    /// Whether it says where its instances are.
    pub fn is_placed(&self) -> bool {
        !self.targets.is_empty()
            || self.selector.is_some()
            || self.dns.is_some()
            || self.discover.is_some()
    }
}

/// Answer to an order.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The analysis as it stands.
    pub view: AnalysisView,
    /// Whether this order opened it, rather than an earlier one with the same key.
    pub is_new: bool,
}

/// Query of `GET /v1/analyses`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListFilter {
    /// Only this service.
    pub service: Option<String>,
    /// Only this state: `running`, `finished`, `cancelled`.
    #[param(pattern = "^(running|finished|cancelled)$")]
    pub state: Option<String>,
    /// Only this verdict.
    #[param(pattern = "^(watching|investigate|promote|rollback|inconclusive)$")]
    pub verdict: Option<String>,
    /// Continue after this id (the `next` of the page before).
    pub after: Option<String>,
    /// At most this many, 1 to 200; 50 when absent.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u32>,
}

/// One page of analyses, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AnalysisPage {
    /// The analyses, without findings.
    pub analyses: Vec<AnalysisSummary>,
    /// Give this as `after` to get the next page; null on the last.
    pub next: Option<String>,
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AnalysisSummary {
    /// Its id.
    pub id: String,
    /// The service being released.
    pub service: String,
    /// `running`, `finished`, `cancelled`.
    pub state: String,
    /// When it began, in unix seconds.
    pub started_at: f64,
    /// Version of the canary.
    pub canary_version: String,
    /// Version of the baseline.
    pub baseline_version: String,
    /// The rule file it began with.
    pub rules: RulesRef,
    /// Newest verdict.
    pub verdict: String,
    /// In a sentence.
    pub reason: String,
    /// When the final verdict was reached, in unix seconds.
    pub decided_at: Option<f64>,
}

/// One analysis with everything but its history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AnalysisView {
    /// Its id.
    pub id: String,
    /// The service being released.
    pub service: String,
    /// `running`, `finished`, `cancelled`.
    pub state: String,
    /// When it began, in unix seconds.
    pub started_at: f64,
    /// Seconds it watches at least.
    pub hold_secs: f64,
    /// Seconds after which it ends at the latest.
    pub deadline_secs: f64,
    /// Seconds between two looks.
    pub interval_secs: f64,
    /// The steps of a progressive release; `report.release_step` says which is the present one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepView>,
    /// The rule file it began with.
    pub rules: RulesRef,
    /// The new version.
    pub canary: ArmOrder,
    /// The old version.
    pub baseline: Option<ArmOrder>,
    /// What is known of the service before the release; absent of an analysis that began before
    /// that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub past: Option<PastView>,
    /// The newest look; null before the first.
    pub report: Option<Report>,
    /// Why it was cancelled, when it was.
    pub cancelled: Option<CancelAnalysis>,
    /// The verdict's way to each mechanism, and that of every advance.
    pub deliveries: Vec<DeliveryView>,
    /// What people did by hand, oldest first.
    #[serde(default)]
    pub interventions: Vec<InterventionShape>,
}

/// What is decided of an analysis.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Its id.
    pub id: String,
    /// The service being released.
    pub service: String,
    /// `running`, `finished`, `cancelled`.
    pub state: String,
    /// The rule file it began with.
    pub rules: RulesRef,
    /// Whether the release goes in steps; only said before the first look.
    pub is_stepped: bool,
    /// The newest look; none before the first.
    pub report: Option<Report>,
    /// Why it was cancelled, when it was.
    pub cancelled: Option<CancelAnalysis>,
}

impl From<AnalysisView> for Standing {
    fn from(view: AnalysisView) -> Self {
        let is_stepped = !view.steps.is_empty();
        let AnalysisView { id, service, state, rules, report, cancelled, .. } = view;
        Self { id, service, state, rules, is_stepped, report, cancelled }
    }
}

/// One step of a progressive release.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// The canary's share of the traffic, 0..1.
    pub weight: f64,
    /// Seconds it is watched at least.
    pub hold_secs: f64,
}

/// What is known of a service before its release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PastView {
    /// Where it was read from: `watch`, `prometheus` or `none`.
    pub source: String,
    /// Seconds of it that had data; 0 where the stated prior stands for it.
    pub history_secs: f64,
    /// How much older the baseline's looks are than the canary's; null for one that runs beside it.
    pub lag_secs: Option<f64>,
    /// What was found, or why nothing, in words.
    pub note: String,
}

/// Answer to `GET /v1/services`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WatchedServices {
    /// Every service with a standing watch, by name.
    pub services: Vec<WatchedService>,
}

/// A service that is watched between releases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WatchedService {
    /// Its name, as orders give it.
    pub service: String,
    /// The rule file whose signals are kept.
    pub rules: String,
    /// Instances that are scraped.
    pub targets: usize,
    /// Seconds between two looks.
    pub interval_secs: f64,
    /// Seconds for which looks are kept.
    pub keep_secs: f64,
    /// Seconds from the oldest kept look at the present signals to the newest.
    pub history_secs: f64,
    /// Looks on the file, and bytes of their readings.
    pub looks: u64,
    /// See `looks`.
    pub bytes: u64,
    /// When the last look with data was taken, in unix seconds; null before the first.
    pub last_look_at: Option<f64>,
    /// Why the last look was lost, in words; null when it was not.
    pub last_fault: Option<String>,
}

/// Body of `POST /v1/analyses/{id}/cancel`, and what is kept of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelAnalysis {
    /// Who cancels.
    #[schema(max_length = 256)]
    #[serde(default)]
    pub who: String,
    /// Why.
    #[schema(max_length = 2000)]
    #[serde(default)]
    pub why: String,
}

impl CancelAnalysis {
    /// What became of the analysis, in a sentence.
    pub fn sentence(&self) -> String {
        let (who, why) = (self.who.trim(), self.why.trim());
        match (who.is_empty(), why.is_empty()) {
            (true, true) => "Cancelled.".to_owned(),
            (false, true) => format!("Cancelled by {who}."),
            (true, false) => format!("Cancelled: {why}"),
            (false, false) => format!("Cancelled by {who}: {why}"),
        }
    }
}

/// Estimates of every signal over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// Unix seconds of each kept look.
    pub at: Vec<f64>,
    /// One per signal, in file order.
    pub signals: Vec<SignalHistory>,
    /// Evidence of each evidence clause over time.
    pub evidence: Vec<EvidenceHistory>,
}

/// One signal over time; entries align with [`History::at`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SignalHistory {
    /// Name in the rule file.
    pub name: String,
    /// How to write its numbers.
    pub unit: String,
    /// The canary's estimates; null where there was none.
    pub canary: Vec<Option<f64>>,
    /// The baseline's estimates.
    pub baseline: Vec<Option<f64>>,
}

/// One evidence clause over time, in decades; entries align with [`History::at`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvidenceHistory {
    /// The clause as written.
    pub clause: String,
    /// Decades needed.
    pub needed: f64,
    /// Decades at each look.
    pub decades: Vec<Option<f64>>,
}
