//! An analysis in the words of Kayenta's executions.
//!
//! A promotion scores 100, a rollback 0, and what is inconclusive exactly the marginal threshold, which
//! Argo Rollouts takes for inconclusive and Spinnaker for a failure. What the rule file says to do
//! when inconclusive is done.

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        super::{desk::AnalysisView, verdict::SmallVerdict},
        ruling::{self, Ruling},
    },
    execution::{Execution, Thresholds},
};

/// How an execution stands, in capitals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum ExecutionStatus {
    Running,
    Succeeded,
    Terminal,
    Canceled,
}

impl ExecutionStatus {
    fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Terminal => "terminal",
            Self::Canceled => "canceled",
        }
    }
}

/// A canary execution.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct CanaryStatus {
    application: String,
    pipeline_id: String,
    canary_config_id: String,
    complete: bool,
    /// `running`, `succeeded` (with whatever score) or `canceled`.
    status: &'static str,
    /// Not there before it is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<CanaryResult>,
    #[serde(flatten)]
    #[schema(inline)]
    times: Times,
}

/// What came of it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CanaryResult {
    application: String,
    judge_result: JudgeResult,
    canary_execution_request: RequestEcho,
    /// ISO 8601, such as `PT600S`.
    canary_duration: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CanaryJudgeResult)]
struct JudgeResult {
    judge_name: &'static str,
    score: Score,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CanaryScore)]
struct Score {
    /// 100, the marginal threshold, or 0.
    score: f64,
    /// `Pass`, `Marginal` or `Fail`.
    classification: &'static str,
    /// The verdict's reason.
    classification_reason: String,
}

#[derive(Serialize, ToSchema)]
struct RequestEcho {
    /// Always empty: they are in the order.
    scopes: super::Empty,
    thresholds: Thresholds,
}

/// When an execution began and ended.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Times {
    build_time_millis: i64,
    build_time_iso: String,
    start_time_millis: i64,
    start_time_iso: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time_millis: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time_iso: Option<String>,
}

/// A standalone canary analysis.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct StandaloneStatus {
    application: String,
    user: &'static str,
    pipeline_id: String,
    canary_config_id: String,
    stage_status: Vec<StageStatus>,
    complete: bool,
    execution_status: ExecutionStatus,
    /// The same in small letters.
    status: &'static str,
    /// Not there before it is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    canary_analysis_execution_result: Option<StandaloneResult>,
    #[serde(flatten)]
    #[schema(inline)]
    times: Times,
}

#[derive(Serialize, ToSchema)]
struct StageStatus {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'static str,
    status: ExecutionStatus,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StandaloneResult {
    did_pass_thresholds: bool,
    has_warnings: bool,
    canary_score_message: String,
    /// One: we look all the time and judge once.
    canary_scores: Vec<f64>,
    canary_execution_results: Vec<ExecutionResult>,
    #[serde(flatten)]
    #[schema(inline)]
    times: Times,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ExecutionResult {
    execution_id: String,
    execution_status: ExecutionStatus,
    result: CanaryResult,
    judgement_start_time_iso: String,
    judgement_start_time_millis: i64,
    judgement_end_time_iso: String,
    judgement_end_time_millis: i64,
    warnings: Vec<String>,
    #[serde(flatten)]
    #[schema(inline)]
    times: Times,
}

impl CanaryStatus {
    /// Of an analysis.
    pub(super) fn of(execution: &Execution, view: &AnalysisView) -> Self {
        let small = SmallVerdict::of(view);
        let status = judgement_status(view, &small);
        Self {
            application: view.service.clone(),
            pipeline_id: execution.to_string(),
            canary_config_id: view.rules.name.clone(),
            complete: small.is_final,
            status: status.word(),
            result: small.is_final.then(|| result(execution, view, &small)),
            times: Times::of(view, &small),
        }
    }
}

impl StandaloneStatus {
    /// Of an analysis.
    pub(super) fn of(execution: &Execution, view: &AnalysisView) -> Self {
        let small = SmallVerdict::of(view);
        let status = match judgement_status(view, &small) {
            // As Kayenta: what is not above the marginal threshold ends its pipeline.
            ExecutionStatus::Succeeded if Ruling::of(&small) != Ruling::Promote => {
                ExecutionStatus::Terminal
            }
            status => status,
        };
        let result = small.is_final.then(|| standalone_result(execution, view, &small));
        Self {
            application: view.service.clone(),
            user: "anonymous",
            pipeline_id: execution.to_string(),
            canary_config_id: view.rules.name.clone(),
            stage_status: vec![StageStatus { kind: "runCanary", name: "Run Canary #1", status }],
            complete: small.is_final,
            execution_status: status,
            status: status.word(),
            canary_analysis_execution_result: result,
            times: Times::of(view, &small),
        }
    }
}

/// How the judging itself stands, whatever came of it.
fn judgement_status(view: &AnalysisView, small: &SmallVerdict) -> ExecutionStatus {
    match (small.is_final, view.state.as_str()) {
        (_, "cancelled") => ExecutionStatus::Canceled,
        (true, _) => ExecutionStatus::Succeeded,
        (false, _) => ExecutionStatus::Running,
    }
}

fn result(execution: &Execution, view: &AnalysisView, small: &SmallVerdict) -> CanaryResult {
    let thresholds = execution.thresholds;
    let (score, classification) = match Ruling::of(small) {
        Ruling::Promote => (100.0, "Pass"),
        Ruling::Rollback => (0.0, "Fail"),
        Ruling::Held | Ruling::Watching => (thresholds.marginal, "Marginal"),
    };
    let score = Score { score, classification, classification_reason: ruling::reason(small) };
    CanaryResult {
        application: view.service.clone(),
        judge_result: JudgeResult { judge_name: "rollgate", score },
        canary_execution_request: RequestEcho { scopes: super::Empty {}, thresholds },
        canary_duration: format!("PT{:.0}S", small.elapsed_secs.max(0.0)),
    }
}

fn standalone_result(
    execution: &Execution,
    view: &AnalysisView,
    small: &SmallVerdict,
) -> StandaloneResult {
    let result = result(execution, view, small);
    let (times, score) = (Times::of(view, small), result.judge_result.score.score);
    let warnings: Vec<String> = (execution.unread > 0)
        .then(|| {
            format!(
                "{} metrics of the canaryConfig were not read: the rule file {} was judged",
                execution.unread, view.rules.name
            )
        })
        .into_iter()
        .collect();
    let end = times.end_time_millis.unwrap_or(times.start_time_millis);
    StandaloneResult {
        did_pass_thresholds: score >= execution.thresholds.pass,
        has_warnings: !warnings.is_empty(),
        canary_score_message: result.judge_result.score.classification_reason.clone(),
        canary_scores: vec![score],
        canary_execution_results: vec![ExecutionResult {
            execution_id: execution.to_string(),
            execution_status: judgement_status(view, small),
            result,
            judgement_start_time_iso: times.start_time_iso.clone(),
            judgement_start_time_millis: times.start_time_millis,
            judgement_end_time_iso: iso(end as f64 / 1000.0),
            judgement_end_time_millis: end,
            warnings,
            times: times.clone(),
        }],
        times,
    }
}

impl Times {
    fn of(view: &AnalysisView, small: &SmallVerdict) -> Self {
        let millis = |secs: f64| (secs * 1000.0).round() as i64;
        let last = view.report.as_ref().map_or(view.started_at, |report| report.at);
        let ended = small.is_final.then(|| small.decided_at.unwrap_or(last));
        Self {
            build_time_millis: millis(view.started_at),
            build_time_iso: iso(view.started_at),
            start_time_millis: millis(view.started_at),
            start_time_iso: iso(view.started_at),
            end_time_millis: ended.map(millis),
            end_time_iso: ended.map(iso),
        }
    }
}

/// Unix seconds as RFC 3339, in UTC.
pub(super) fn iso(secs: f64) -> String {
    let time = jiff::Timestamp::from_millisecond((secs * 1000.0).round() as i64);
    time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
