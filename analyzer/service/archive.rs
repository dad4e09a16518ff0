//! Reading what the store holds of analyses, running or over, as everybody outside reads it. It
//! needs a store and nothing that runs: the desk answers by it, and so does who looks into a file.

use std::sync::Arc;

use super::{
    case::{Beside, Case, rules_ref, state_word, stored_report, summary},
    deliveries::{Doings, intervention},
    driver::chain,
};
use crate::{
    api::desk::{
        AnalysisPage, AnalysisView, DeskError, EvidenceHistory, History, InterventionShape,
        ListFilter, RuleText, SignalHistory, Standing,
    },
    report::{shape::Report, timeline::Timeline},
    rulefile,
    store::{Filter, Store, StoreError, StoredAnalysis, StoredState},
};

/// Points of a history; longer ones are thinned evenly.
pub const HISTORY_POINTS_MAX: usize = 720;

/// Analyses on a page when the request does not say.
const PAGE_DEFAULT: u32 = 50;

/// Most analyses on a page.
pub const PAGE_MAX: u32 = 200;

/// What is stored. Cheap to make.
pub struct Archive {
    /// Where analyses live.
    pub store: Arc<dyn Store>,
    /// What mechanisms do, where that is known.
    pub doings: Doings,
}

impl Archive {
    /// Analyses, newest first.
    pub async fn list(&self, filter: ListFilter) -> Result<AnalysisPage, DeskError> {
        let limit = filter.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
        let state = match filter.state.as_deref() {
            None => None,
            Some("running") => Some(StoredState::Running),
            Some("finished") => Some(StoredState::Finished),
            Some("cancelled") => Some(StoredState::Cancelled),
            Some(other) => {
                return Err(DeskError::Refused(vec![format!(
                    "state is {other:?}, expected running, finished or cancelled"
                )]));
            }
        };
        let (service, verdict, after) = (filter.service, filter.verdict, filter.after);
        let filter = Filter { service, state, verdict, after, limit: limit + 1 };
        let mut rows = self.store.list(filter).await.map_err(unavailable)?;
        let has_more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = if has_more { rows.last().map(|row| row.new.id.clone()) } else { None };
        let analyses: anyhow::Result<Vec<_>> = rows.iter().map(summary).collect();
        Ok(AnalysisPage { analyses: analyses.map_err(|error| defect(&error))?, next })
    }

    /// One analysis.
    pub async fn analysis(&self, id: &str) -> Result<AnalysisView, DeskError> {
        self.view(&self.stored(id).await?).await
    }

    /// What is decided of one analysis. Its rules are only read where no report says how it goes.
    pub async fn standing(&self, id: &str) -> Result<Standing, DeskError> {
        let stored = self.stored(id).await?;
        let report = stored_report(&stored).map_err(|error| defect(&error))?;
        let is_stepped = report.is_none()
            && !Case::of(&stored).map_err(|error| defect(&error))?.rules.steps.is_empty();
        let note = stored.cancel_note.as_deref();
        Ok(Standing {
            is_stepped,
            report,
            cancelled: note.map(|note| serde_json::from_str(note).unwrap_or_default()),
            state: state_word(stored.state).to_owned(),
            rules: rules_ref(&stored),
            id: stored.new.id,
            service: stored.new.service,
        })
    }

    /// Estimates over time, thinned to [`HISTORY_POINTS_MAX`].
    pub async fn history(&self, id: &str) -> Result<History, DeskError> {
        let stored = self.stored(id).await?;
        let case = Case::of(&stored).map_err(|error| defect(&error))?;
        let mut history = History { at: Vec::new(), signals: Vec::new(), evidence: Vec::new() };
        let every = (stored.last_look as usize).div_ceil(HISTORY_POINTS_MAX).max(1) as u64;
        let keep = |report: &Report| {
            if report.look.is_multiple_of(every) || report.is_final {
                append(&mut history, report);
            }
        };
        case.refold(&*self.store, keep).await.map_err(|error| defect(&error))?;
        Ok(history)
    }

    /// What changed in the course of it.
    pub async fn timeline(&self, id: &str) -> Result<Timeline, DeskError> {
        let case = Case::of(&self.stored(id).await?).map_err(|error| defect(&error))?;
        let (mut timeline, store) = (Timeline::default(), &*self.store);
        let folded = case.refold(store, |report| timeline.see(report)).await;
        folded.map_err(|error| defect(&error))?;
        for by in self.interventions(id).await? {
            let elapsed_secs = (by.at - case.started.as_secs_f64()).max(0.0);
            timeline.stepped_in(&by, elapsed_secs);
        }
        Ok(timeline)
    }

    /// The rule file that it began with.
    pub async fn rules(&self, id: &str) -> Result<RuleText, DeskError> {
        let text = self.stored(id).await?.new.rules_text;
        let sha256 = rulefile::sha256_hex(&text);
        Ok(RuleText { text, sha256 })
    }

    /// One analysis as it is stored.
    pub(super) async fn stored(&self, id: &str) -> Result<StoredAnalysis, DeskError> {
        let stored = self.store.analysis(id).await.map_err(unavailable)?;
        stored.ok_or_else(|| DeskError::Unknown(id.to_owned()))
    }

    /// The same as everybody outside reads it.
    pub(super) async fn view(&self, stored: &StoredAnalysis) -> Result<AnalysisView, DeskError> {
        let case = Case::of(stored).map_err(|error| defect(&error))?;
        let report = stored_report(stored).map_err(|error| defect(&error))?;
        let deliveries = self.store.deliveries(&stored.new.id).await.map_err(unavailable)?;
        let note = stored.cancel_note.as_deref();
        let beside = Beside {
            cancelled: note.map(|note| serde_json::from_str(note).unwrap_or_default()),
            deliveries: deliveries.iter().map(|row| self.delivery_view(row)).collect(),
            interventions: self.interventions(&stored.new.id).await?,
        };
        Ok(case.view(stored.state, report, beside))
    }

    async fn interventions(&self, id: &str) -> Result<Vec<InterventionShape>, DeskError> {
        let stored = self.store.interventions(id).await.map_err(unavailable)?;
        Ok(stored.into_iter().map(intervention).collect())
    }
}

fn append(history: &mut History, report: &Report) {
    let points = history.at.len();
    history.at.push(report.at);
    for (index, signal) in report.signals.iter().enumerate() {
        if history.signals.len() <= index {
            history.signals.push(SignalHistory {
                name: signal.name.clone(),
                unit: signal.unit.clone(),
                canary: vec![None; points],
                baseline: vec![None; points],
            });
        }
        history.signals[index].canary.push(signal.canary);
        history.signals[index].baseline.push(signal.baseline);
    }
    for clause in report.findings.iter().flat_map(|finding| &finding.clauses) {
        if clause.progress.kind != "evidence_decades" {
            continue;
        }
        let known = history.evidence.iter().position(|known| known.clause == clause.clause);
        let index = known.unwrap_or_else(|| {
            history.evidence.push(EvidenceHistory {
                clause: clause.clause.clone(),
                needed: clause.progress.needed,
                decades: vec![None; points],
            });
            history.evidence.len() - 1
        });
        if history.evidence[index].decades.len() == points {
            history.evidence[index].decades.push(Some(clause.progress.value));
        }
    }
    for evidence in &mut history.evidence {
        evidence.decades.resize(points + 1, None);
    }
}

/// A store that does not answer.
pub(super) fn unavailable(error: StoreError) -> DeskError {
    DeskError::Unavailable(chain(&error))
}

/// A stored analysis that this program cannot read.
pub(super) fn defect(error: &anyhow::Error) -> DeskError {
    DeskError::Unavailable(format!("{error:#}"))
}
