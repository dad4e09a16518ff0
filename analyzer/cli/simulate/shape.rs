//! The one shape of a study: what the table, the JSON and the HTML page are written from.
//!
//! Shares are in 0..=1, times in seconds, traffic in requests a second. Keys do not change their
//! meaning within a version.

use serde::Serialize;

use crate::{
    engine::rule::RuleSet,
    simulation::{
        FaultKind, LatencyLaw,
        questions::{Ask, Assumed},
        share::Share,
        study::{Answer, quantile},
    },
};

/// The version of this shape.
pub const SCHEMA: &str = "rollgate.simulation.v1";

/// Times by which it is told what share was found.
pub const WITHIN_SECS: [f64; 5] = [30.0, 60.0, 120.0, 300.0, 600.0];

/// A whole study.
#[derive(Clone, Debug, Serialize)]
pub struct Simulation {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The rule file.
    pub file: String,
    /// Its service.
    pub service: String,
    /// The seed of every draw: the same file, assumptions and seed give the same numbers.
    pub seed: u64,
    /// Runs of a release without a fault.
    pub runs: usize,
    /// Runs of each fault.
    pub runs_per_fault: usize,
    /// What was taken to be true.
    pub assumed: AssumedShape,
    /// What the rule file promises.
    pub stated: StatedShape,
    /// One entry per kind of release: without a difference, at a bound, at a margin, with a fault.
    pub releases: Vec<ReleaseShape>,
    /// Evidence over time of a few runs each.
    pub examples: Vec<ExampleShape>,
}

/// What was taken to be true of the service, and how it is judged.
#[derive(Clone, Debug, Serialize)]
pub struct AssumedShape {
    /// Requests a second of the canary, at the first step.
    pub canary_rps: f64,
    /// Requests a second of the baseline, at the first step.
    pub baseline_rps: f64,
    /// Share of requests that fail on a healthy version.
    pub error_share: f64,
    /// Median latency of a healthy version.
    pub latency_median_secs: f64,
    /// Deviation of each arm's log error rate.
    pub noise_sigma: f64,
    /// Its correlation time.
    pub noise_tau_secs: f64,
    /// Deviation of each arm's log latency.
    pub latency_noise_sigma: f64,
    /// History that noise was measured on; null for none.
    pub history_secs: Option<f64>,
    /// When a fault begins.
    pub onset_secs: f64,
    /// Time between two looks.
    pub interval_secs: f64,
    /// The hold: for a progressive release, of all steps together.
    pub hold_secs: f64,
    /// The deadline.
    pub deadline_secs: f64,
    /// Steps of a progressive release; 0 for none.
    pub steps: usize,
}

/// What the rule file promises.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StatedShape {
    /// Most healthy releases that are rolled back by evidence.
    pub false_rollback_rate: f64,
    /// Most releases beyond a margin that are promoted by its proof.
    pub false_promotion_rate: f64,
}

/// What became of one kind of release.
#[derive(Clone, Debug, Serialize)]
pub struct ReleaseShape {
    /// `healthy`, `rollback_bound`, `promotion_margin` or `fault`.
    pub kind: &'static str,
    /// What it is, in a few words.
    pub name: String,
    /// `errors`, `latency`, `level`, `leak` or `crash`; null without a fault.
    pub fault: Option<&'static str>,
    /// How large: a multiple, or bytes a second for a leak; null where there is no size.
    pub size: Option<f64>,
    /// The signal at its bound or margin; null otherwise.
    pub signal: Option<String>,
    /// Runs.
    pub runs: usize,
    /// How many were rolled back.
    pub rolled_back: ShareShape,
    /// How many of them before the fault began: by chance.
    pub rolled_back_early: usize,
    /// How many were promoted.
    pub promoted: ShareShape,
    /// How many had no verdict at the deadline.
    pub inconclusive: ShareShape,
    /// Time from the fault to its rollback, or to the promotion of a healthy release.
    pub delay: Option<DelayShape>,
    /// Share of all runs whose fault was found within so long.
    pub found_within: Vec<WithinShape>,
    /// Which rules rolled back, the busiest first.
    pub rules: Vec<RuleShape>,
    /// Which rules kept releases from being promoted until the deadline, the busiest first.
    pub blockers: Vec<RuleShape>,
    /// What the file promises of this release, and whether these runs agree; null for nothing.
    pub promise: Option<PromiseShape>,
}

/// How often something happened.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ShareShape {
    /// Runs.
    pub count: usize,
    /// Of all.
    pub share: f64,
    /// Lower end of its exact 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// How long something took, over the runs in which it came to pass.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DelayShape {
    /// 5 % were sooner.
    pub p5_secs: f64,
    /// A quarter was sooner.
    pub p25_secs: f64,
    /// Half were sooner.
    pub median_secs: f64,
    /// A quarter was later.
    pub p75_secs: f64,
    /// 5 % were later.
    pub p95_secs: f64,
    /// The last one.
    pub max_secs: f64,
}

/// Share found by a time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WithinShape {
    /// The time, from the fault.
    pub secs: f64,
    /// The share of all runs.
    pub share: f64,
}

/// How often a rule rolled back.
#[derive(Clone, Debug, Serialize)]
pub struct RuleShape {
    /// Its condition as written.
    pub rule: String,
    /// Runs.
    pub count: usize,
}

/// A promise of the rule file.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PromiseShape {
    /// `rolled_back` or `promoted`: what must be rare.
    pub of: &'static str,
    /// At most this share.
    pub at_most: f64,
    /// Whether a true share of at most this could well have given what was counted.
    pub agrees: bool,
}

/// Evidence over time of a few runs of one kind of release.
#[derive(Clone, Debug, Serialize)]
pub struct ExampleShape {
    /// The release's name.
    pub name: String,
    /// Whether it has a fault.
    pub is_faulty: bool,
    /// Per run: seconds since the analysis began, and evidence against the release as a share of
    /// what a rollback needs.
    pub runs: Vec<Vec<[f64; 2]>>,
}

impl Simulation {
    /// The whole study, without examples.
    pub fn new(
        file: String,
        rules: &RuleSet,
        assumed: &Assumed,
        seed: u64,
        answers: &[Answer],
    ) -> Self {
        let runs = |is_fault: bool| {
            let mut asked = answers.iter().map(|answer| &answer.question);
            asked
                .find(|question| matches!(question.ask, Ask::Fault(_)) == is_fault)
                .map_or(0, |question| question.runs)
        };
        Self {
            schema: SCHEMA,
            file,
            service: rules.service.clone(),
            seed,
            runs: runs(false),
            runs_per_fault: runs(true),
            assumed: assumed_shape(rules, assumed),
            stated: StatedShape {
                false_rollback_rate: rules.false_rollback_rate,
                false_promotion_rate: rules.promote.false_promotion_rate,
            },
            releases: answers.iter().map(|answer| release(rules, answer)).collect(),
            examples: Vec::new(),
        }
    }
}

fn assumed_shape(rules: &RuleSet, assumed: &Assumed) -> AssumedShape {
    let hold: f64 = match rules.steps.is_empty() {
        true => rules.promote.after.as_secs_f64(),
        false => rules.steps.iter().map(|step| step.hold.as_secs_f64()).sum(),
    };
    AssumedShape {
        canary_rps: assumed.traffic.canary_rps,
        baseline_rps: assumed.traffic.baseline_rps,
        error_share: assumed.truth.error_share,
        latency_median_secs: median_of(assumed.truth.latency),
        noise_sigma: assumed.noise.sigma,
        noise_tau_secs: assumed.noise.tau_secs,
        latency_noise_sigma: assumed.noise.latency_sigma,
        history_secs: assumed.history.map(|history| history.as_secs_f64()),
        onset_secs: assumed.onset.as_secs_f64(),
        interval_secs: rules.observe.interval.as_secs_f64(),
        hold_secs: hold,
        deadline_secs: rules.promote.deadline.as_secs_f64(),
        steps: rules.steps.len(),
    }
}

fn median_of(law: LatencyLaw) -> f64 {
    match law {
        LatencyLaw::LogNormal { median_secs, .. } | LatencyLaw::Gamma { median_secs, .. } => {
            median_secs
        }
        LatencyLaw::Bimodal { .. } => law.quantile(0.5),
    }
}

fn release(rules: &RuleSet, answer: &Answer) -> ReleaseShape {
    let ask = answer.question.ask;
    let (kind, fault, size) = match ask {
        Ask::Healthy => ("healthy", None, None),
        Ask::AtRollbackBound { factor, .. } => ("rollback_bound", None, Some(factor)),
        Ask::AtPromotionMargin { factor, .. } => ("promotion_margin", None, Some(factor)),
        Ask::Fault(fault) => {
            let (word, size) = match fault {
                FaultKind::Errors { factor } => ("errors", Some(factor)),
                FaultKind::Latency { factor } => ("latency", Some(factor)),
                FaultKind::Level { factor } => ("level", Some(factor)),
                FaultKind::Leak { bytes_per_sec } => ("leak", Some(bytes_per_sec)),
                FaultKind::Crash { .. } => ("crash", None),
                FaultKind::MissingScrapes { .. } | FaultKind::CounterResets { .. } => {
                    ("scrapes", None)
                }
            };
            ("fault", Some(word), size)
        }
    };
    let signal = match ask {
        Ask::AtRollbackBound { signal, .. } | Ask::AtPromotionMargin { signal, .. } => {
            Some(rules.signals[signal].name.clone())
        }
        Ask::Healthy | Ask::Fault(_) => None,
    };
    let delays = answer.delays_secs();
    let runs = answer.trials.len();
    let within = WITHIN_SECS.map(|secs| WithinShape {
        secs,
        share: delays.iter().filter(|delay| **delay <= secs).count() as f64 / runs.max(1) as f64,
    });
    let told = |counts: Vec<(usize, usize)>| {
        let shape = |(rule, count): (usize, usize)| RuleShape {
            rule: rules.rules[rule].text.clone(),
            count,
        };
        counts.into_iter().map(shape).collect()
    };
    ReleaseShape {
        kind,
        name: name(rules, ask),
        fault,
        size,
        signal,
        runs,
        rolled_back: share(answer.rolled_back()),
        rolled_back_early: answer.rolled_back_early().count,
        promoted: share(answer.promoted()),
        inconclusive: share(answer.inconclusive()),
        delay: delay(&delays),
        found_within: if fault.is_some() { within.to_vec() } else { Vec::new() },
        rules: told(answer.rules()),
        blockers: told(answer.blockers()),
        promise: promise(rules, answer),
    }
}

/// A release in a few words.
pub fn name(rules: &RuleSet, ask: Ask) -> String {
    let signal = |signal: usize| &rules.signals[signal].name;
    match ask {
        Ask::Healthy => "healthy: no difference".to_owned(),
        Ask::AtRollbackBound { signal: at, factor } => {
            format!("{} at {} baseline", signal(at), times(factor))
        }
        Ask::AtPromotionMargin { signal: at, factor } => {
            format!("{} at the margin {}", signal(at), times(factor))
        }
        Ask::Fault(FaultKind::Errors { factor }) => format!("errors {}", times(factor)),
        Ask::Fault(FaultKind::Latency { factor }) => format!("latency {}", times(factor)),
        Ask::Fault(FaultKind::Level { factor }) => format!("gauge {}", times(factor)),
        Ask::Fault(FaultKind::Leak { bytes_per_sec }) => {
            format!("leak {}/min", megabytes(bytes_per_sec * 60.0))
        }
        Ask::Fault(FaultKind::Crash { .. }) => "crash".to_owned(),
        Ask::Fault(FaultKind::MissingScrapes { .. } | FaultKind::CounterResets { .. }) => {
            "scrapes fail".to_owned()
        }
    }
}

fn times(factor: f64) -> String {
    let rounded = (factor * 100.0).round() / 100.0;
    format!("{rounded}x")
}

fn megabytes(bytes: f64) -> String {
    if bytes < 1e6 { format!("{:.0} kB", bytes / 1e3) } else { format!("{:.0} MB", bytes / 1e6) }
}

fn share(share: Share) -> ShareShape {
    let [low, high] = share.interval();
    ShareShape { count: share.count, share: share.value(), low, high }
}

fn delay(ascending: &[f64]) -> Option<DelayShape> {
    let at = |q: f64| quantile(ascending, q);
    Some(DelayShape {
        p5_secs: at(0.05)?,
        p25_secs: at(0.25)?,
        median_secs: at(0.5)?,
        p75_secs: at(0.75)?,
        p95_secs: at(0.95)?,
        max_secs: at(1.0)?,
    })
}

fn promise(rules: &RuleSet, answer: &Answer) -> Option<PromiseShape> {
    let (of, share, at_most) = match answer.question.ask {
        Ask::Healthy | Ask::AtRollbackBound { .. } => {
            ("rolled_back", answer.rolled_back(), rules.false_rollback_rate)
        }
        Ask::AtPromotionMargin { .. } => {
            ("promoted", answer.promoted(), rules.promote.false_promotion_rate)
        }
        Ask::Fault(_) => return None,
    };
    Some(PromiseShape { of, at_most, agrees: share.agrees_with_at_most(at_most) })
}
