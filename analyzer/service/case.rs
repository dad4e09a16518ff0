//! One analysis as the service holds it: its order, its rules, and how both become views.
//!
//! Everything that is built from an order goes through here, whether the analysis is new, resumed
//! after a restart or long over.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow};

use super::{known::StoredOrder, past::PastPlan};
use crate::{
    api::desk::{
        AnalysisSummary, AnalysisView, CancelAnalysis, DeliveryView, InterventionShape,
        OpenAnalysis, RulesRef, StepView,
    },
    engine::{
        analysis::Analysis, calibration::Calibration, observation::Time, rule::RuleSet,
        verdict::Step,
    },
    report::{build, shape::Report},
    rulefile,
    signal::spec::SignalSpec,
    store::{Store, StoredAnalysis, StoredState, calibration},
};

/// Observations read from the journal at once while an analysis is rebuilt.
const JOURNAL_PAGE: u32 = 512;

/// What is told of an analysis beside its report.
#[derive(Default)]
pub struct Beside {
    /// Why it was cancelled, when it was.
    pub cancelled: Option<CancelAnalysis>,
    /// Every delivery of it.
    pub deliveries: Vec<DeliveryView>,
    /// What people did by hand.
    pub interventions: Vec<InterventionShape>,
}

/// What an analysis began with.
#[derive(Clone)]
pub struct Case {
    /// Its id.
    pub id: String,
    /// When it began.
    pub started: Time,
    /// What was ordered.
    pub order: OpenAnalysis,
    /// The rules, with the order's own hold.
    pub rules: Arc<RuleSet>,
    /// What to read.
    pub specs: Arc<[SignalSpec]>,
    /// The rule file.
    pub rules_ref: RulesRef,
    /// What was known of the service's noise when it began.
    pub calibration: Calibration,
    /// What stands for its past; none for one that began before there was such a thing.
    pub past: Option<PastPlan>,
}

impl Case {
    /// Reads a stored analysis' order and the rule text it began with.
    pub fn of(stored: &StoredAnalysis) -> anyhow::Result<Self> {
        let order = StoredOrder::read(&stored.new.order)
            .with_context(|| format!("the order of analysis {} cannot be read", stored.new.id))?
            .order;
        let (name, text) = (&stored.new.rules_name, &stored.new.rules_text);
        let file = rulefile::load(&format!("{name}.yaml"), text).map_err(|faults| {
            anyhow!("the rules of analysis {} no longer load: {faults}", stored.new.id)
        })?;
        let mut rules = file.rules;
        if let Some(hold_secs) = order.hold_secs {
            override_hold(&mut rules, hold_secs);
        }
        let calibration = match &stored.new.calibration {
            None => Calibration::default(),
            Some(record) => calibration::read(record).map_err(|why| {
                anyhow!("the calibration of analysis {} cannot be read: {why}", stored.new.id)
            })?,
        };
        let past = stored.new.past.as_deref().map(PastPlan::read).transpose();
        let past =
            past.with_context(|| format!("the past of analysis {} cannot be read", stored.new.id))?;
        Ok(Self {
            id: stored.new.id.clone(),
            started: stored.new.started,
            order,
            rules: Arc::new(rules),
            specs: file.specs.into(),
            rules_ref: RulesRef { name: name.clone(), sha256: file.sha256 },
            calibration,
            past,
        })
    }

    /// Version of the old arm; empty when there is none.
    pub fn baseline_version(&self) -> &str {
        self.order.baseline.as_ref().map_or("", |arm| &arm.version)
    }

    /// The engine before the first look.
    pub fn begun(&self) -> Analysis {
        Analysis::calibrated(self.rules.clone(), self.started, &self.calibration)
    }

    /// The report of one look.
    pub fn report(&self, step: &Step) -> Report {
        build::report(&self.rules, step).by(self.rules_ref.clone())
    }

    /// The engine after every journaled look: the journal is the truth, this is a fold over it.
    /// `each` sees every report on the way.
    pub async fn refold(
        &self,
        store: &dyn Store,
        mut each: impl FnMut(&Report),
    ) -> anyhow::Result<Analysis> {
        let mut analysis = self.begun();
        loop {
            let page = store.journal(&self.id, analysis.looks(), JOURNAL_PAGE).await?;
            if page.is_empty() {
                return Ok(analysis);
            }
            for (look, observation) in &page {
                // A journal that cannot be judged ends this analysis, not the process.
                let step = catch_unwind(AssertUnwindSafe(|| analysis.step(observation)))
                    .map_err(|_| anyhow!("judging look {look} of {} failed", self.id))?;
                each(&self.report(&step));
            }
        }
    }

    /// The whole view.
    pub fn view(&self, state: StoredState, report: Option<Report>, beside: Beside) -> AnalysisView {
        AnalysisView {
            id: self.id.clone(),
            service: self.order.service.clone(),
            state: state_word(state).to_owned(),
            started_at: self.started.as_secs_f64(),
            hold_secs: self.rules.promote.after.as_secs_f64(),
            deadline_secs: self.rules.promote.deadline.as_secs_f64(),
            interval_secs: self.rules.observe.interval.as_secs_f64(),
            steps: self
                .rules
                .steps
                .iter()
                .map(|step| StepView { weight: step.weight, hold_secs: step.hold.as_secs_f64() })
                .collect(),
            rules: self.rules_ref.clone(),
            canary: self.order.canary.clone(),
            baseline: self.order.baseline.clone(),
            past: self.past.as_ref().map(PastPlan::view),
            report,
            cancelled: beside.cancelled,
            deliveries: beside.deliveries,
            interventions: beside.interventions,
        }
    }
}

/// Puts another hold into the rules; a deadline that it overtakes moves along. Of a release in steps
/// it is the hold of all together, and each keeps its share of it.
pub fn override_hold(rules: &mut RuleSet, hold_secs: f64) {
    let mut hold = Duration::from_secs_f64(hold_secs);
    let whole = rules.promote.after.as_secs_f64();
    for step in &mut rules.steps {
        step.hold = step.hold.mul_f64(hold_secs / whole);
    }
    if !rules.steps.is_empty() {
        hold = rules.steps.iter().map(|step| step.hold).sum();
    }
    if rules.promote.deadline < hold || rules.promote.deadline <= rules.promote.after {
        rules.promote.deadline = hold * 2;
    }
    rules.promote.after = hold;
}

/// The word for a state.
pub fn state_word(state: StoredState) -> &'static str {
    match state {
        StoredState::Running => "running",
        StoredState::Finished => "finished",
        StoredState::Cancelled => "cancelled",
    }
}

/// The rule file that a stored analysis began with.
pub fn rules_ref(stored: &StoredAnalysis) -> RulesRef {
    let sha256 = rulefile::sha256_hex(&stored.new.rules_text);
    RulesRef { name: stored.new.rules_name.clone(), sha256 }
}

/// A line of the list.
pub fn summary(stored: &StoredAnalysis) -> anyhow::Result<AnalysisSummary> {
    let order = StoredOrder::read(&stored.new.order)?.order;
    // One report that cannot be read must not take the whole list with it.
    let report = stored_report(stored).ok().flatten();
    Ok(AnalysisSummary {
        id: stored.new.id.clone(),
        service: stored.new.service.clone(),
        state: state_word(stored.state).to_owned(),
        started_at: stored.new.started.as_secs_f64(),
        canary_version: order.canary.version,
        baseline_version: order.baseline.map(|arm| arm.version).unwrap_or_default(),
        rules: rules_ref(stored),
        verdict: match stored.state {
            // Over without a verdict, as it is told where the verdict is asked for.
            StoredState::Cancelled => "inconclusive".to_owned(),
            StoredState::Running | StoredState::Finished => {
                report.as_ref().map_or_else(|| "watching".into(), |report| report.verdict.clone())
            }
        },
        reason: match &stored.cancel_note {
            Some(note) => {
                serde_json::from_str::<CancelAnalysis>(note).unwrap_or_default().sentence()
            }
            None => report.as_ref().map(|report| report.reason.clone()).unwrap_or_default(),
        },
        decided_at: report.and_then(|report| report.decided_at),
    })
}

/// The newest report of a stored analysis.
pub fn stored_report(stored: &StoredAnalysis) -> anyhow::Result<Option<Report>> {
    let parse =
        |text: &String| serde_json::from_str(text).context("the stored report is unreadable");
    stored.report.as_ref().map(parse).transpose()
}
