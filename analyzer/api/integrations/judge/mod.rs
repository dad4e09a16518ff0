//! Kayenta's remote judge: pairs of series come in, a classification of each and a score go out.
//!
//! Kayenta asked its metrics server already; what it found is judged as it is, by
//! [`crate::engine::series`], and nothing is kept. Field names are Kayenta's. What it sends beside
//! them is left alone, since every version of it sends something else.
//!
//! What is unknown never scores as well as what was shown: a metric without data, or one that cannot
//! be judged, keeps the score below `pass` unless its configuration says `mustHaveData: false`, and it
//! never by itself takes the score down to `marginal`, where Kayenta's users roll back.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::super::{
    Api,
    input::json_within,
    openapi::{Bodies, Full},
    problem::Problem,
};

mod metric;
mod score;

/// Bytes of a request: 30 metrics of 10,000 points each, and a third more.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Pairs of series in one request.
const PAIRS_MAX: usize = 1_000;

/// Requests that are read and judged at once, since their bodies are in memory.
const AT_ONCE: usize = 2;

/// For so long one more waits for its turn.
const TURN_PATIENCE: Duration = Duration::from_secs(5);

/// What we call ourselves.
const JUDGE: &str = "rollgate-series-v1";

static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);

/// What Kayenta sends.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct JudgeRequest {
    canary_config: CanaryConfig,
    /// Those of the configuration when left out.
    #[serde(default)]
    score_thresholds: Option<Thresholds>,
    metric_set_pair_list: Vec<MetricSetPair>,
}

/// The part of a canary configuration that judging needs.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CanaryConfig {
    #[serde(default)]
    metrics: Vec<MetricConfig>,
    #[serde(default)]
    classifier: Option<Classifier>,
}

/// How one metric is to be judged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct MetricConfig {
    name: String,
    #[serde(default)]
    groups: Vec<String>,
    /// Only `canary` is read.
    #[serde(default)]
    analysis_configurations: Option<AnalysisConfigurations>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
struct AnalysisConfigurations {
    #[serde(default)]
    canary: Option<CanaryAnalysis>,
}

/// What of a metric is a fault.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CanaryAnalysis {
    /// `increase`, `decrease` or `either`, which is the default.
    #[serde(default)]
    direction: Option<String>,
    /// `remove` (the default), or `replace` by zero.
    #[serde(default)]
    nan_strategy: Option<String>,
    #[serde(default)]
    critical: Option<bool>,
    #[serde(default)]
    must_have_data: Option<bool>,
    #[serde(default)]
    effect_size: Option<EffectSize>,
    #[serde(default)]
    outliers: Option<Outliers>,
}

/// Multiples of the control's value.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EffectSize {
    /// Only `meanRatio`, the default.
    #[serde(default)]
    measure: Option<String>,
    #[serde(default)]
    allowed_increase: Option<f64>,
    #[serde(default)]
    allowed_decrease: Option<f64>,
    #[serde(default)]
    critical_increase: Option<f64>,
    #[serde(default)]
    critical_decrease: Option<f64>,
}

/// Values far from all others.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Outliers {
    /// `keep` (the default) or `remove`.
    #[serde(default)]
    strategy: Option<String>,
    /// How many interquartile ranges from the quartiles; 3 when left out.
    #[serde(default)]
    outlier_factor: Option<f64>,
}

/// How metrics make a score.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Classifier {
    /// Shares of the score, of 100 together; groups without one share the rest.
    #[serde(default)]
    group_weights: Option<BTreeMap<String, f64>>,
    #[serde(default)]
    score_thresholds: Option<Thresholds>,
}

/// Scores from 0 to 100.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, ToSchema)]
#[schema(as = JudgeThresholds)]
pub(super) struct Thresholds {
    /// From here on it passes.
    pub(super) pass: f64,
    /// From here on it is marginal.
    pub(super) marginal: f64,
}

/// One metric of both versions.
#[derive(Debug, Deserialize, ToSchema)]
struct MetricSetPair {
    name: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    values: Values,
}

/// One value a step.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SeriesValues)]
struct Values {
    #[serde(default)]
    control: Vec<Value>,
    #[serde(default)]
    experiment: Vec<Value>,
}

/// A number, `"NaN"` and the like, or null.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = SeriesValue)]
enum Value {
    Number(f64),
    Word(String),
    Nothing(()),
}

/// What Kayenta reads.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct JudgeResult {
    judge_name: &'static str,
    /// One per pair, and one per configured metric without a pair.
    results: Vec<MetricResult>,
    /// One per group.
    group_scores: Vec<GroupScore>,
    score: Score,
}

/// What became of one metric.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct MetricResult {
    name: String,
    id: String,
    tags: BTreeMap<String, String>,
    classification: Class,
    classification_reason: String,
    groups: Vec<String>,
    experiment_metadata: Metadata,
    control_metadata: Metadata,
    result_metadata: ResultMetadata,
    /// Whether this alone takes the score to 0.
    critical: bool,
}

/// Of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = MetricClass)]
enum Class {
    Pass,
    High,
    Low,
    Nodata,
    Error,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SeriesMetadata)]
struct Metadata {
    stats: Stats,
}

/// Of the values that were judged; null without any.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SeriesStats)]
struct Stats {
    count: usize,
    mean: Option<f64>,
    std: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct ResultMetadata {
    /// The experiment's mean over the control's; null where that is zero or unknown.
    ratio: Option<f64>,
    /// The experiment's mean less the control's.
    difference: Option<f64>,
    /// Ends of the difference's interval, which aims at holding at all looks together; how far it does is measured.
    interval: Option<[f64; 2]>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct GroupScore {
    name: String,
    score: f64,
    classification: Grade,
    classification_reason: String,
}

#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = JudgeScore)]
struct Score {
    score: f64,
    classification: Grade,
    classification_reason: String,
}

/// Of a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
enum Grade {
    Pass,
    Marginal,
    Fail,
    Nodata,
}

/// Judges pairs of series as Kayenta's remote judge.
#[utoipa::path(
    post, path = "/judge", tag = "kayenta",
    request_body = JudgeRequest,
    responses((status = 200, description = "What became of each metric", body = JudgeResult), Bodies,
              Full)
)]
pub(super) async fn judge(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<JudgeResult>, Problem> {
    let request: JudgeRequest = json_within(&api, request, BODY_BYTES_MAX).await?;
    let Ok(Ok(_place)) = tokio::time::timeout(TURN_PATIENCE, PLACES.acquire()).await else {
        return Err(Problem::full(format!("{AT_ONCE} requests are being judged")));
    };
    // Millions of values take a tenth of a second, in which other requests are answered.
    let judged = tokio::task::spawn_blocking(move || judged(request)).await;
    judged.map_err(|_| Problem::defect())?.map(Json).map_err(Problem::refused)
}

/// Judges a request.
///
/// # Errors
/// Every fault of what all metrics share.
fn judged(request: JudgeRequest) -> Result<JudgeResult, Vec<String>> {
    let pairs = request.metric_set_pair_list;
    let mut faults = Vec::new();
    if pairs.len() > PAIRS_MAX {
        let found = pairs.len();
        faults.push(format!("metricSetPairList: {found} pairs given, at most {PAIRS_MAX} allowed"));
    }
    let configured = request.canary_config.metrics;
    if configured.len() > PAIRS_MAX {
        let found = configured.len();
        faults.push(format!("metrics: {found} given, at most {PAIRS_MAX} allowed"));
    }
    let classifier = request.canary_config.classifier.unwrap_or_default();
    let weights = classifier.group_weights.unwrap_or_default();
    faults.extend(score::weight_faults(&weights));
    let thresholds = request.score_thresholds.or(classifier.score_thresholds);
    match thresholds {
        None => faults.push("scoreThresholds: is missing, expected pass and marginal".to_owned()),
        Some(thresholds) => faults.extend(thresholds.faults("scoreThresholds")),
    }
    let Some(thresholds) = thresholds.filter(|_| faults.is_empty()) else { return Err(faults) };

    let by_name: BTreeMap<&str, &MetricConfig> =
        configured.iter().map(|metric| (metric.name.as_str(), metric)).collect();
    let mut judged: Vec<metric::Judged> =
        pairs.iter().map(|pair| metric::judge(by_name.get(&*pair.name).copied(), pair)).collect();
    let unseen = |metric: &&MetricConfig| !pairs.iter().any(|pair| pair.name == metric.name);
    judged.extend(configured.iter().filter(unseen).map(metric::absent));

    let (group_scores, score) = score::score(&judged, &weights, thresholds);
    let results = judged.into_iter().map(|judged| judged.result).collect();
    Ok(JudgeResult { judge_name: JUDGE, results, group_scores, score })
}

impl Thresholds {
    /// What is wrong with them. Zero is no threshold: a rollback scores zero.
    pub(super) fn faults(self, at: &str) -> Vec<String> {
        let Self { pass, marginal } = self;
        let mut faults = Vec::new();
        if !(pass > 0.0 && pass <= 100.0) {
            faults.push(format!("{at}.pass: {pass} found, expected more than 0 and at most 100"));
        }
        if !(marginal > 0.0 && marginal <= pass) {
            faults.push(format!(
                "{at}.marginal: {marginal} found, expected more than 0 and at most pass"
            ));
        }
        faults
    }
}
