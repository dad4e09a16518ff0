//! Facts about analyses: looks, evidence and verdicts, as gate decisions for dashboards.
//!
//! Series of one analysis exist while it runs and are removed when it ends; only its counters
//! stay. Label sets are bounded by the constants below: what is beyond them is counted, not shown.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::LabelBound;
use crate::engine::verdict::Verdict;

/// Running analyses that have series of their own; later ones are only counted.
pub const SHOWN_ANALYSES_MAX: usize = 200;
/// Evidence clauses of one analysis that have a series.
pub const SHOWN_CLAUSES_MAX: usize = 32;
/// Services that are counted under their own name; later ones are counted as `(other)`.
pub const COUNTED_SERVICES_MAX: usize = 500;

/// Upper bounds in seconds: a look is microseconds of judging and milliseconds of storing.
const LOOK_EDGES: [f64; 9] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 2.0];
/// Upper bounds in seconds, from a crash in the first seconds to an hour of watching.
const DECISION_EDGES: [f64; 10] =
    [5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0];

/// Every verdict word, as label values.
const VERDICTS: [&str; 5] = ["watching", "investigate", "promote", "rollback", "inconclusive"];

/// The group of the analyses.
pub struct AnalysisMetrics {
    running: Gauge,
    not_shown: Gauge,
    opened: Family<ServiceLabel, Counter>,
    cancelled: Family<ServiceLabel, Counter>,
    overridden: Family<ServiceLabel, Counter>,
    looks: Counter,
    look_duration: Histogram,
    verdicts: Family<VerdictLabels, Counter>,
    decision: Family<WordLabel, Histogram, fn() -> Histogram>,
    verdict_now: Family<ShownVerdictLabels, Gauge>,
    decades: Family<ClauseLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    needed: Family<ClauseLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    noise: Family<ClauseLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    shown: Mutex<Shown>,
}

struct Shown {
    services: LabelBound,
    /// What each running analysis shows, by id.
    by_id: BTreeMap<String, ShownAnalysis>,
    running: usize,
}

#[derive(Clone, PartialEq)]
struct ShownAnalysis {
    service: String,
    canary_version: String,
    clauses: Vec<ClauseLabels>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServiceLabel {
    service: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WordLabel {
    verdict: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerdictLabels {
    service: String,
    verdict: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ShownVerdictLabels {
    service: String,
    canary_version: String,
    verdict: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClauseLabels {
    service: String,
    canary_version: String,
    rule: String,
}

/// Which analysis a fact is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its id.
    pub id: &'a str,
    /// The service being released.
    pub service: &'a str,
    /// Version of the canary.
    pub canary_version: &'a str,
}

/// One committed look.
#[derive(Clone, Debug)]
pub struct LookFact<'a> {
    /// Its number.
    pub look: u64,
    /// What it concluded.
    pub verdict: Verdict,
    /// In a sentence.
    pub reason: &'a str,
    /// Time from its data to its commit.
    pub took: Duration,
    /// Seconds since the analysis began.
    pub elapsed: Duration,
    /// Evidence clauses, in file order.
    pub evidence: Vec<EvidenceFact<'a>>,
}

/// A person's verdict in the place of the rules'.
#[derive(Clone, Copy, Debug)]
pub struct OverrideFact<'a> {
    /// Its word.
    pub verdict: &'static str,
    /// Seconds since the analysis began.
    pub elapsed: Duration,
    /// Who.
    pub who: &'a str,
    /// Why.
    pub why: &'a str,
}

/// One evidence clause at one look.
#[derive(Clone, Copy, Debug)]
pub struct EvidenceFact<'a> {
    /// The clause as written.
    pub clause: &'a str,
    /// Decades so far.
    pub decades: f64,
    /// Decades needed.
    pub needed: f64,
    /// The noise factor that was reckoned with; 1 where there is none.
    pub noise_factor: f64,
}

impl AnalysisMetrics {
    /// Registers the group.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            running: Gauge::default(),
            not_shown: Gauge::default(),
            opened: Family::default(),
            cancelled: Family::default(),
            overridden: Family::default(),
            looks: Counter::default(),
            look_duration: Histogram::new(LOOK_EDGES),
            verdicts: Family::default(),
            decision: Family::new_with_constructor(|| Histogram::new(DECISION_EDGES)),
            verdict_now: Family::default(),
            decades: Family::default(),
            needed: Family::default(),
            noise: Family::default(),
            shown: Mutex::new(Shown {
                services: LabelBound::new(COUNTED_SERVICES_MAX),
                by_id: BTreeMap::new(),
                running: 0,
            }),
        };
        metrics.register_counts(registry);
        metrics.register_shown(registry);
        metrics
    }

    fn register_counts(&self, registry: &mut Registry) {
        registry.register("analyses_running", "Analyses running now", self.running.clone());
        registry.register("analyses_opened", "Analyses begun", self.opened.clone());
        registry.register("analyses_cancelled", "Analyses ended by hand", self.cancelled.clone());
        registry.register(
            "analyses_overridden",
            "Final verdicts that a person put in the place of the rules'",
            self.overridden.clone(),
        );
        registry.register("looks", "Looks taken and committed", self.looks.clone());
        registry.register_with_unit(
            "look_duration",
            "Time from the data of a look to its commit",
            Unit::Seconds,
            self.look_duration.clone(),
        );
        registry.register("verdicts", "Final verdicts, by service", self.verdicts.clone());
        registry.register_with_unit(
            "decision",
            "Time from the start of an analysis to its final verdict",
            Unit::Seconds,
            self.decision.clone(),
        );
    }

    fn register_shown(&self, registry: &mut Registry) {
        registry.register(
            "analyses_not_shown",
            "Running analyses beyond the limit on series, which are only counted",
            self.not_shown.clone(),
        );
        registry.register(
            "analysis_verdict",
            "1 for the verdict a running analysis stands at, 0 for the others",
            self.verdict_now.clone(),
        );
        registry.register(
            "evidence_decades",
            "Evidence of a running analysis, as log10 of the e-value, by clause",
            self.decades.clone(),
        );
        registry.register(
            "evidence_needed_decades",
            "Evidence at which the clause fires",
            self.needed.clone(),
        );
        registry.register(
            "noise_factor",
            "By how much the clause takes the variance of event counts to exceed Poisson's",
            self.noise.clone(),
        );
    }

    /// An analysis began, or was taken up again after a restart.
    pub fn opened(&self, subject: Subject<'_>, how: Opening) {
        let mut shown = self.lock();
        shown.running += 1;
        let service = shown.services.admit(subject.service).to_owned();
        if shown.by_id.len() < SHOWN_ANALYSES_MAX {
            let entry = ShownAnalysis {
                service: subject.service.to_owned(),
                canary_version: subject.canary_version.to_owned(),
                clauses: Vec::new(),
            };
            shown.by_id.insert(subject.id.to_owned(), entry);
        }
        self.count_running(&shown);
        drop(shown);
        let (id, canary) = (subject.id, subject.canary_version);
        match how {
            Opening::New => {
                self.opened.get_or_create(&ServiceLabel { service }).inc();
                tracing::info!(id, service = subject.service, canary, "analysis begun");
            }
            Opening::Resumed => {
                tracing::info!(id, service = subject.service, canary, "analysis taken up again");
            }
        }
    }

    /// A look was committed. A final verdict is counted and ends the analysis' own series.
    pub fn looked(&self, subject: Subject<'_>, fact: &LookFact<'_>) {
        self.looks.inc();
        self.look_duration.observe(fact.took.as_secs_f64());
        if fact.verdict.is_final() {
            self.decided(subject, fact);
            return;
        }
        let (id, look, verdict) = (subject.id, fact.look, verdict_word(fact.verdict));
        tracing::debug!(id, look, verdict, reason = fact.reason, "look committed");
        let mut shown = self.lock();
        let Some(entry) = shown.by_id.get_mut(subject.id) else { return };
        for word in VERDICTS {
            let labels = entry.verdict_labels(word);
            self.verdict_now.get_or_create(&labels).set(i64::from(word == verdict));
        }
        for evidence in fact.evidence.iter().take(SHOWN_CLAUSES_MAX) {
            let labels = entry.clause_labels(evidence.clause);
            self.decades.get_or_create(&labels).set(evidence.decades);
            self.needed.get_or_create(&labels).set(evidence.needed);
            self.noise.get_or_create(&labels).set(evidence.noise_factor);
            if !entry.clauses.contains(&labels) {
                entry.clauses.push(labels);
            }
        }
    }

    /// An analysis was ended by hand.
    pub fn cancelled(&self, subject: Subject<'_>, who: &str, why: &str) {
        let (id, service) = (subject.id, subject.service);
        tracing::warn!(id, service, who, why, "analysis cancelled");
        let label = ServiceLabel { service: self.lock().services.admit(service).to_owned() };
        self.cancelled.get_or_create(&label).inc();
        self.ended(subject);
    }

    /// A person put a final verdict in the place of the rules'.
    pub fn overridden(&self, subject: Subject<'_>, fact: &OverrideFact<'_>) {
        let OverrideFact { verdict, elapsed, who, why } = *fact;
        let (id, service, elapsed_secs) = (subject.id, subject.service, elapsed.as_secs_f64());
        tracing::warn!(id, service, verdict, elapsed_secs, who, why, "verdict overridden");
        let counted = self.lock().services.admit(service).to_owned();
        self.verdicts.get_or_create(&VerdictLabels { service: counted.clone(), verdict }).inc();
        self.overridden.get_or_create(&ServiceLabel { service: counted }).inc();
        self.ended(subject);
    }

    /// An analysis left this process without a verdict, because the process stops.
    pub fn suspended(&self, subject: Subject<'_>) {
        tracing::info!(id = subject.id, "analysis suspended");
        self.ended(subject);
    }

    fn decided(&self, subject: Subject<'_>, fact: &LookFact<'_>) {
        let (id, service) = (subject.id, subject.service);
        let verdict = verdict_word(fact.verdict);
        let elapsed_secs = fact.elapsed.as_secs_f64();
        tracing::info!(id, service, verdict, elapsed_secs, reason = fact.reason, "verdict");
        let counted = self.lock().services.admit(service).to_owned();
        self.verdicts.get_or_create(&VerdictLabels { service: counted, verdict }).inc();
        self.decision.get_or_create(&WordLabel { verdict }).observe(elapsed_secs);
        self.ended(subject);
    }

    fn ended(&self, subject: Subject<'_>) {
        let mut shown = self.lock();
        shown.running = shown.running.saturating_sub(1);
        if let Some(gone) = shown.by_id.remove(subject.id) {
            self.remove_series(&shown, &gone);
        }
        self.count_running(&shown);
    }

    /// Two releases may carry the same labels: a series stays while another analysis feeds it.
    fn remove_series(&self, shown: &Shown, gone: &ShownAnalysis) {
        let is_fed = shown.by_id.values().any(|other| {
            other.service == gone.service && other.canary_version == gone.canary_version
        });
        if !is_fed {
            for word in VERDICTS {
                self.verdict_now.remove(&gone.verdict_labels(word));
            }
        }
        for labels in &gone.clauses {
            if !shown.by_id.values().any(|other| other.clauses.contains(labels)) {
                self.decades.remove(labels);
                self.needed.remove(labels);
                self.noise.remove(labels);
            }
        }
    }

    fn count_running(&self, shown: &Shown) {
        self.running.set(shown.running as i64);
        self.not_shown.set(shown.running.saturating_sub(shown.by_id.len()) as i64);
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// How an analysis came to run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// By an order.
    New,
    /// From the journal, after a restart.
    Resumed,
}

impl ShownAnalysis {
    fn verdict_labels(&self, verdict: &'static str) -> ShownVerdictLabels {
        ShownVerdictLabels {
            service: self.service.clone(),
            canary_version: self.canary_version.clone(),
            verdict,
        }
    }

    fn clause_labels(&self, clause: &str) -> ClauseLabels {
        ClauseLabels {
            service: self.service.clone(),
            canary_version: self.canary_version.clone(),
            rule: clause.to_owned(),
        }
    }
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Watching => "watching",
        Verdict::Investigate { .. } => "investigate",
        Verdict::Advance { .. } => "advance",
        Verdict::Promote => "promote",
        Verdict::Rollback { .. } => "rollback",
        Verdict::Inconclusive { .. } => "inconclusive",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{OTHER, Telemetry};
    use super::*;

    fn subject(id: &str) -> Subject<'_> {
        Subject { id, service: "shop", canary_version: "v2" }
    }

    fn look(verdict: Verdict) -> LookFact<'static> {
        LookFact {
            look: 1,
            verdict,
            reason: "",
            took: Duration::from_millis(2),
            elapsed: Duration::from_secs(20),
            evidence: vec![EvidenceFact {
                clause: "errors > 5%",
                decades: 1.5,
                needed: 3.0,
                noise_factor: 1.0,
            }],
        }
    }

    #[test]
    fn series_of_an_analysis_live_as_long_as_it_runs() {
        let telemetry = Telemetry::new();
        let metrics = telemetry.analysis();
        metrics.opened(subject("a"), Opening::New);
        metrics.looked(subject("a"), &look(Verdict::Watching));
        let body = telemetry.render();
        let labels = "{service=\"shop\",canary_version=\"v2\"";
        for line in [
            "rollgate_analyses_running 1\n".to_owned(),
            format!("rollgate_analysis_verdict{labels},verdict=\"watching\"}} 1\n"),
            format!("rollgate_analysis_verdict{labels},verdict=\"rollback\"}} 0\n"),
            format!("rollgate_evidence_decades{labels},rule=\"errors > 5%\"}} 1.5\n"),
        ] {
            assert!(body.contains(&line), "{line} is not in\n{body}");
        }
        metrics.looked(subject("a"), &look(Verdict::Rollback { rule: 0 }));
        let body = telemetry.render();
        assert!(
            body.contains("verdicts_total{service=\"shop\",verdict=\"rollback\"} 1\n"),
            "{body}"
        );
        assert!(body.contains("rollgate_analyses_running 0\n"), "{body}");
        assert!(!body.contains("rollgate_evidence_decades{"), "{body}");
        assert!(!body.contains("rollgate_analysis_verdict{"), "{body}");
    }

    #[test]
    fn a_series_stays_while_another_analysis_feeds_it() {
        let telemetry = Telemetry::new();
        let metrics = telemetry.analysis();
        for id in ["a", "b"] {
            metrics.opened(subject(id), Opening::Resumed);
            metrics.looked(subject(id), &look(Verdict::Watching));
        }
        metrics.cancelled(subject("a"), "ada", "wrong build");
        assert!(telemetry.render().contains("rollgate_evidence_decades{"));
        metrics.suspended(subject("b"));
        assert!(!telemetry.render().contains("rollgate_evidence_decades{"));
    }

    #[test]
    fn analyses_and_clauses_beyond_the_limits_are_counted_and_not_shown() {
        let telemetry = Telemetry::new();
        let metrics = telemetry.analysis();
        let names: Vec<String> = (0..COUNTED_SERVICES_MAX + 7).map(|n| format!("s{n}")).collect();
        let clauses: Vec<String> = (0..SHOWN_CLAUSES_MAX + 1).map(|n| format!("c{n}")).collect();
        let evidence = |clause: &'static str| EvidenceFact {
            clause,
            decades: 0.0,
            needed: 3.0,
            noise_factor: 1.0,
        };
        for name in &names {
            let subject = Subject { id: name, service: name, canary_version: "v" };
            metrics.opened(subject, Opening::New);
        }
        let body = telemetry.render();
        let not_shown = names.len() - SHOWN_ANALYSES_MAX;
        assert!(body.contains(&format!("rollgate_analyses_not_shown {not_shown}\n")), "{body}");
        let other = format!("rollgate_analyses_opened_total{{service=\"{OTHER}\"}} 7\n");
        assert!(body.contains(&other), "{body}");

        let mut many = look(Verdict::Watching);
        many.evidence =
            clauses.iter().map(|c| EvidenceFact { clause: c, ..evidence("") }).collect();
        metrics.looked(Subject { id: "s0", service: "s0", canary_version: "v" }, &many);
        let series = telemetry.render().matches("rollgate_evidence_decades{").count();
        assert_eq!(series, SHOWN_CLAUSES_MAX);
    }
}
