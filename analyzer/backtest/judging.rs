//! One release of the past, judged look by look as it would have been while it happened.
//!
//! The same reducer and the same engine as live; only time and samples come from the archive. The
//! noise of the service is measured on what came before, as live, and what stands in for a baseline
//! of the past is found by the same lag.

use std::{sync::Arc, time::Duration};

use super::rules::PastRules;
use crate::{
    engine::{
        analysis::Analysis,
        calibration::{Past, calibrate},
        observation::{Missing, Observation, Time, Why},
        rule::RuleSet,
        verdict::{Step, Verdict},
    },
    report::{build, explain, shape::Report},
    service::lag::{Lag, back},
    signal::{
        carry::Carry,
        past::{PastLook, Stretch, nothing_then, stand_in},
        reduce::Reducer,
        sample::{Gathered, InstanceReading},
        spec::SignalSpec,
    },
    simulation::trial::nearness,
    source::{archive::Archive, history},
};

/// Points that a release is drawn with.
pub const POINTS_DRAWN_MAX: usize = 240;

/// What is known of one release.
pub struct Material {
    /// The new version, from the start of the release.
    pub canary: Archive,
    /// What it is compared with.
    pub against: Against,
    /// Looks at the service before the release: what its noise is measured on.
    pub past: Vec<PastLook>,
}

/// What a release is compared with.
pub enum Against {
    /// The old version beside it.
    Beside(Box<Archive>),
    /// The service itself a while ago.
    Before(Box<Archive>, Lag),
    /// Nothing, for this reason.
    Nothing(String),
}

/// When a release is judged.
#[derive(Clone, Copy, Debug)]
pub struct During {
    /// From here.
    pub started: Time,
    /// To here at the latest.
    pub until: Time,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// `promote`, `rollback` or `inconclusive`.
    pub verdict: Ending,
    /// Seconds from the start to the verdict.
    pub secs: f64,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Why, in words.
    pub reason: String,
    /// Looks taken.
    pub looks: u64,
    /// Time between two.
    pub step: Duration,
    /// Time between two scrapes.
    pub resolution: Duration,
    /// Seconds of the past that noise was measured on.
    pub history_secs: f64,
    /// What was seen on the way.
    pub trace: Trace,
}

/// How a past release ends; there is nothing left to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// It would have been rolled back.
    Rollback,
    /// It would have been promoted.
    Promote,
    /// Neither by the deadline, or by the end of what is known.
    Inconclusive,
}

impl Ending {
    /// As verdicts are called everywhere.
    pub fn word(self) -> &'static str {
        match self {
            Ending::Rollback => "rollback",
            Ending::Promote => "promote",
            Ending::Inconclusive => "inconclusive",
        }
    }
}

/// Numbers over the seconds since the start, thinned for drawing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// Evidence of the rollback rules as a share of what they need; 1 is a rollback.
    pub evidence: Vec<[f64; 2]>,
    /// Estimates by signal, in the order of the rule file.
    pub signals: Vec<Lines>,
}

/// Both arms' estimates of one signal over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lines {
    /// Name in the rule file.
    pub name: String,
    /// How to write its numbers.
    pub unit: String,
    /// The new version's.
    pub canary: Vec<[f64; 2]>,
    /// What it is compared with.
    pub baseline: Vec<[f64; 2]>,
}

/// Reads looks at a stretch of an arm's past, oldest first, as they are read before a live release.
pub fn past_looks(archive: &mut Archive, past: &PastRules, stretch: Stretch) -> Vec<PastLook> {
    let step = archive.step(history::STEP);
    let mut reducer = Reducer::new(past.specs.clone(), past.rules.observe.warmup, Carry::default());
    let mut looks = Vec::new();
    let (mut last, mut at) = (stretch.after, stretch.after.after(step));
    while at <= stretch.until {
        let baseline = archive.look(at);
        let gathered = Gathered { at, canary: Vec::new(), baseline, dependencies: Vec::new() };
        let look = PastLook::of(reducer.reduce(&gathered), at.since(last));
        // The next look covers what this one could not.
        if look.has_data() {
            last = look.at;
            looks.push(look);
        }
        at = at.after(step);
    }
    looks
}

/// Judges a release.
///
/// # Errors
/// In words, when there is nothing to be judged.
pub fn judge(past: &PastRules, material: Material, during: During) -> Result<Judged, String> {
    let Material { mut canary, against, past: looks } = material;
    let Some(resolution) = canary.resolution() else {
        return Err("the server has no samples of the new version in that time".to_owned());
    };
    let least = past.rules.observe.interval;
    let step = match &against {
        Against::Beside(other) => canary.step(least).max(other.step(least)),
        Against::Before(other, _) => canary.step(least).max(other.step(least)),
        Against::Nothing(_) => canary.step(least),
    };
    let rules = Arc::new(past.looking_every(step));
    let lag = match &against {
        Against::Before(_, lag) => lag.lag,
        Against::Beside(_) | Against::Nothing(_) => Duration::ZERO,
    };
    let history_secs = looks.iter().map(|look| look.covers.as_secs_f64()).sum();
    let looks: Vec<Past> = looks.into_iter().map(PastLook::into_past).collect();
    let calibration = calibrate(&rules, &looks, lag);
    let mut analysis = Analysis::calibrated(rules.clone(), during.started, &calibration);
    let mut reducer = Reducer::new(past.specs.clone(), rules.observe.warmup, Carry::default());
    let mut against = Beside::of(against, &past.specs, &rules);
    let mut trace = Tracing::default();
    let mut last: Option<Step> = None;
    let mut at = during.started;
    while at <= during.until {
        let (canary, baseline) = (canary.look(at), against.look(at));
        let gathered = Gathered { at, canary, baseline, dependencies: Vec::new() };
        let mut observation = reducer.reduce(&gathered);
        against.stand_in(&mut observation);
        let step = analysis.step(&observation);
        trace.add(&rules, &step);
        let is_over = step.verdict.is_final();
        last = Some(step);
        if is_over {
            break;
        }
        at = at.after(rules.observe.interval);
    }
    let Some(last) = last else { return Err("it had no time: it ended as it began".to_owned()) };
    let report = build::report(&rules, &last);
    let verdict = match last.verdict {
        Verdict::Promote => Ending::Promote,
        Verdict::Rollback { .. } => Ending::Rollback,
        Verdict::Inconclusive { .. }
        | Verdict::Watching
        | Verdict::Investigate { .. }
        | Verdict::Advance { .. } => Ending::Inconclusive,
    };
    Ok(Judged {
        verdict,
        secs: report.elapsed_secs,
        reason: reason(&rules, &report),
        rule: report.rule.filter(|_| verdict == Ending::Rollback),
        looks: last.look,
        step,
        resolution,
        history_secs,
        trace: trace.finish(&rules),
    })
}

fn reason(rules: &RuleSet, report: &Report) -> String {
    if report.is_final {
        return report.reason.clone();
    }
    explain::ended_early(report, rules.promote.after.as_secs_f64())
}

/// What is compared with, as it is read.
enum Beside {
    Running(Archive),
    Lagged { archive: Box<Archive>, reducer: Box<Reducer>, lag: Lag, used: Time },
    Nothing(Missing),
}

impl Beside {
    fn of(against: Against, specs: &Arc<[SignalSpec]>, rules: &RuleSet) -> Self {
        match against {
            Against::Beside(archive) => Beside::Running(*archive),
            Against::Before(archive, lag) => {
                let reducer = Reducer::new(specs.clone(), rules.observe.warmup, Carry::default());
                let (reducer, used) = (Box::new(reducer), lag.stretch.after);
                Beside::Lagged { archive, reducer, lag, used }
            }
            Against::Nothing(why) => Beside::Nothing(nothing_then(why)),
        }
    }

    fn look(&mut self, at: Time) -> Vec<InstanceReading> {
        match self {
            Beside::Running(archive) => archive.look(at),
            Beside::Lagged { .. } | Beside::Nothing(_) => Vec::new(),
        }
    }

    fn stand_in(&mut self, observation: &mut Observation) {
        let (looks, absent) = match self {
            Beside::Running(_) => return,
            Beside::Nothing(missing) => (Vec::new(), missing.clone()),
            Beside::Lagged { archive, reducer, lag, used } => {
                let then = back(observation.at, lag.lag);
                let until = then.min(lag.stretch.until);
                if until > *used || then == lag.stretch.after {
                    let covers = until.since(*used);
                    *used = until;
                    let baseline = archive.look(until);
                    let (canary, dependencies) = (Vec::new(), Vec::new());
                    let gathered = Gathered { at: until, canary, baseline, dependencies };
                    let look = PastLook::of(reducer.reduce(&gathered), covers);
                    (vec![look], nothing_then(lag.note.clone()))
                } else if then > lag.stretch.until {
                    (Vec::new(), nothing_then(lag.note.clone()))
                } else {
                    let detail = "no look at the past falls into this moment";
                    (Vec::new(), Missing::new(Why::NoTraffic, detail))
                }
            }
        };
        stand_in(observation, looks, &absent);
    }
}

/// A trace as it grows.
#[derive(Default)]
struct Tracing {
    evidence: Vec<[f64; 2]>,
    canary: Vec<Vec<[f64; 2]>>,
    baseline: Vec<Vec<[f64; 2]>>,
}

impl Tracing {
    fn add(&mut self, rules: &RuleSet, step: &Step) {
        let secs = step.elapsed.as_secs_f64();
        self.evidence.extend(nearness(rules, step).map(|near| [secs, near]));
        self.canary.resize_with(step.estimates.len(), Vec::new);
        self.baseline.resize_with(step.estimates.len(), Vec::new);
        for (signal, estimates) in step.estimates.iter().enumerate() {
            self.canary[signal].extend(estimates.canary.map(|value| [secs, value]));
            self.baseline[signal].extend(estimates.baseline.map(|value| [secs, value]));
        }
    }

    fn finish(self, rules: &RuleSet) -> Trace {
        let arms = self.canary.into_iter().zip(self.baseline);
        let lines = rules.signals.iter().zip(arms).map(|(signal, (canary, baseline))| Lines {
            name: signal.name.clone(),
            unit: build::unit_word(signal.unit).to_owned(),
            canary: thinned(canary),
            baseline: thinned(baseline),
        });
        let drawn = |lines: &Lines| !lines.canary.is_empty() || !lines.baseline.is_empty();
        Trace { evidence: thinned(self.evidence), signals: lines.filter(drawn).collect() }
    }
}

/// As many points as are drawn, evenly spread, with the last, which decided.
fn thinned(points: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    let every = points.len().div_ceil(POINTS_DRAWN_MAX).max(1);
    let last = points.len().saturating_sub(1);
    let kept = points.into_iter().enumerate();
    kept.filter(|(at, _)| (last - at).is_multiple_of(every)).map(|(_, point)| point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_last_point_and_few_others() {
        let points: Vec<[f64; 2]> = (0..1001).map(|n| [f64::from(n), 0.0]).collect();
        let kept = thinned(points);
        assert!(kept.len() <= POINTS_DRAWN_MAX && kept.len() > POINTS_DRAWN_MAX / 2);
        assert_eq!(kept.last(), Some(&[1000.0, 0.0]));
        assert_eq!(thinned(Vec::new()), Vec::<[f64; 2]>::new());
    }
}
