//! The small answer that controllers ask for again and again, with a long poll.
//!
//! It is always JSON and always 200 while the analysis is known: a controller that reads an empty
//! or foreign body may take it for a success.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, http::Uri};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};
use utoipa::ToSchema;

use super::{
    Api,
    analyses::ask,
    desk::{AnalysisView, CancelAnalysis, NO_LOOK, RulesRef, Standing},
    input::{AnalysisId, duration, query},
    openapi::UnknownAnalysis,
    problem::Problem,
};

use crate::report::shape::Report;

/// A verdict without its findings. Field names are part of the public contract.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct SmallVerdict {
    pub(super) id: String,
    pub(super) service: String,
    /// `running`, `finished`, `cancelled`.
    pub(super) state: String,
    pub(super) verdict: String,
    #[serde(rename = "final")]
    pub(super) is_final: bool,
    pub(super) reason: String,
    pub(super) rule: Option<String>,
    /// What to do when inconclusive: `hold`, `rollback`, `promote`.
    pub(super) otherwise: Option<String>,
    pub(super) decided_at: Option<f64>,
    pub(super) elapsed_secs: f64,
    /// Index of the present step of a progressive release; null without steps.
    pub(super) release_step: Option<usize>,
    /// The rule file it was reached by.
    pub(super) rules: RulesRef,
}

impl SmallVerdict {
    /// What a view says.
    pub(super) fn of(view: &AnalysisView) -> Self {
        let AnalysisView { id, service, state, rules, report, cancelled, steps, .. } = view;
        let small = Self::begun(id, service, state, rules, !steps.is_empty());
        small.told(report.as_ref(), cancelled.as_ref())
    }

    /// What stands.
    fn standing(standing: &Standing) -> Self {
        let Standing { id, service, state, rules, is_stepped, report, cancelled } = standing;
        let small = Self::begun(id, service, state, rules, *is_stepped);
        small.told(report.as_ref(), cancelled.as_ref())
    }

    fn begun(id: &str, service: &str, state: &str, rules: &RulesRef, is_stepped: bool) -> Self {
        Self {
            id: id.to_owned(),
            service: service.to_owned(),
            state: state.to_owned(),
            verdict: "watching".to_owned(),
            is_final: false,
            reason: NO_LOOK.to_owned(),
            rule: None,
            otherwise: None,
            decided_at: None,
            elapsed_secs: 0.0,
            release_step: is_stepped.then_some(0),
            rules: rules.clone(),
        }
    }

    /// A cancelled analysis is over without a verdict: inconclusive, and hold.
    fn told(mut self, report: Option<&Report>, cancelled: Option<&CancelAnalysis>) -> Self {
        if let Some(report) = report {
            self.verdict.clone_from(&report.verdict);
            self.is_final = report.is_final;
            self.reason.clone_from(&report.reason);
            self.rule.clone_from(&report.rule);
            self.otherwise.clone_from(&report.otherwise);
            self.decided_at = report.decided_at;
            self.elapsed_secs = report.elapsed_secs;
            self.release_step = report.release_step;
        }
        if self.state == "cancelled" {
            self.verdict = "inconclusive".to_owned();
            self.is_final = true;
            self.reason = cancelled.cloned().unwrap_or_default().sentence();
            self.rule = None;
            self.otherwise = Some("hold".to_owned());
        }
        self
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WaitQuery {
    /// How long to wait for a final verdict, such as `30s` or `1m`; at most a minute.
    #[param(pattern = "^[0-9]{1,4}(\\.[0-9]{1,3})?(ms|s|m|h)?$")]
    wait: Option<String>,
}

/// The verdict alone; waits for a final one when asked to.
#[utoipa::path(
    get, path = "/v1/analyses/{id}/verdict", tag = "analyses",
    params(AnalysisId, WaitQuery),
    responses((status = 200, description = "As it stands", body = SmallVerdict), UnknownAnalysis)
)]
pub(super) async fn verdict(
    State(api): State<Api>,
    AnalysisId(id): AnalysisId,
    uri: Uri,
) -> Result<Json<SmallVerdict>, Problem> {
    let WaitQuery { wait } = query(&uri)?;
    let wait = wait.as_deref().map(duration).transpose()?.unwrap_or(Duration::ZERO);
    let wait = wait.min(Duration::from_secs(api.options.wait_secs_max));
    let small = SmallVerdict::standing(&ask(&api, api.desk.standing(&id)).await?);
    if small.is_final || wait.is_zero() {
        return Ok(Json(small));
    }
    // An analysis that ended since it was read is not followed any more: it is read once more.
    if let Some(looks) = api.desk.follow(&id) {
        until_final(&api, looks, Instant::now() + wait).await;
    }
    Ok(Json(SmallVerdict::standing(&ask(&api, api.desk.standing(&id)).await?)))
}

/// Returns when the verdict is final, the analysis over, the time up, or the service stopping.
async fn until_final(api: &Api, mut looks: watch::Receiver<Arc<AnalysisView>>, end: Instant) {
    loop {
        if SmallVerdict::of(&looks.borrow_and_update()).is_final {
            return;
        }
        tokio::select! {
            changed = looks.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(end) => return,
            () = api.stop.cancelled() => return,
        }
    }
}
