//! Findings become a verdict, and every verdict carries what it rests on.
//!
//! The order is "worst first": a firing rollback rule ends the analysis; a firing investigate rule
//! blocks promotion; a release is promoted (or goes on to its next step) when the hold is over, every
//! signal had enough data, every margin was shown and nothing fires; at the deadline whatever is
//! left is inconclusive. Missing data never promotes and
//! never, by itself, rolls back. Putting a verdict into words is `report/`'s work.

use std::{fmt, time::Duration};

use super::{
    noise::NoiseUsed,
    observation::{Instances, Missing, Time},
    rule::{Action, Otherwise, Promote, Rule},
};

/// Evidence against a release, in decades, from which on it is not promoted although its margins were
/// shown: a regression may have begun since. A healthy release gets there by chance, and for a
/// while, once in ten times at most.
pub const DOUBT_DECADES: f64 = 1.0;

/// What a verdict depends on beside the findings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// How long the analysis has run.
    pub elapsed: Duration,
    /// Whether the present step has been watched for long enough.
    pub held: bool,
    /// Whether every rule that is awake had enough data.
    pub known: bool,
    /// Whether a canary instance gave nothing at this look.
    pub has_gap: bool,
    /// Whether every margin was shown, and nothing stands against that now.
    pub proven: bool,
    /// The step that follows the present one, in a progressive release.
    pub next_step: Option<usize>,
}

/// The verdict of one look: what the findings, the proofs and the time come to.
pub fn conclude(
    rules: &[Rule],
    findings: &[Finding],
    standing: &Standing,
    promote: &Promote,
) -> Verdict {
    let firing = |action| {
        let mut both = rules.iter().zip(findings);
        both.position(|(rule, finding)| rule.then == action && finding.state == State::Fires)
    };
    if let Some(rule) = firing(Action::Rollback) {
        return Verdict::Rollback { rule };
    }
    let investigate = firing(Action::Investigate);
    let Standing { elapsed, held, known, has_gap, proven, next_step } = *standing;
    let late = elapsed >= promote.deadline;
    if investigate.is_none() && held && known && !has_gap && proven {
        match next_step {
            None => return Verdict::Promote,
            // A step that begins after the deadline could not be watched.
            Some(to) if !late => return Verdict::Advance { to },
            Some(_) => {}
        }
    }
    if late {
        return Verdict::Inconclusive { otherwise: promote.otherwise };
    }
    investigate.map_or(Verdict::Watching, |rule| Verdict::Investigate { rule })
}

/// What one look concluded.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Number of the look, from 1.
    pub look: u64,
    /// When it was taken.
    pub at: Time,
    /// How long the analysis has run.
    pub elapsed: Duration,
    /// One finding per rule, in file order.
    pub findings: Vec<Finding>,
    /// What both arms look like now, one entry per signal: for plots, never for deciding.
    pub estimates: Vec<Estimates>,
    /// Canary instances that gave nothing at this look, when there are some; or, once the hold is
    /// over, a signal without data that only sleeping rules ask for. Blocks promotion.
    pub canary_gap: Option<Missing>,
    /// How many instances there were; none where nobody counted them.
    pub instances: Option<Instances>,
    /// The verdict.
    pub verdict: Verdict,
    /// Index of the present step of a progressive release; 0 without steps. After an advance it is
    /// the step that was gone to.
    pub release_step: usize,
    /// How much longer the present step is watched at least; zero when its hold is over.
    pub hold_left: Duration,
}

/// What is said of one signal: point estimates over the window, and the proof promotion asks for.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Estimates {
    /// The new version's, in the signal's unit.
    pub canary: Option<f64>,
    /// The old version's, in the signal's unit.
    pub baseline: Option<f64>,
    /// How far the proof is that promotion asks for; none where it asks for none.
    pub proof: Option<Proof>,
}

/// The answer to the question every controller asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not final: keep asking.
    Watching,
    /// Not final: something wants a person's eye; blocks promotion.
    Investigate {
        /// Index of the first rule that asks for it.
        rule: usize,
    },
    /// Not final: this step of a progressive release is shown to be good, go on to the next.
    Advance {
        /// Index of the step to go to.
        to: usize,
    },
    /// Final: the new version is good.
    Promote,
    /// Final: go back to the old version.
    Rollback {
        /// Index of the rule that decided.
        rule: usize,
    },
    /// Final: the deadline passed without enough data.
    Inconclusive {
        /// What the rule file says to do then.
        otherwise: Otherwise,
    },
}

impl Verdict {
    /// Whether the analysis is over.
    pub fn is_final(self) -> bool {
        match self {
            Verdict::Watching | Verdict::Investigate { .. } | Verdict::Advance { .. } => false,
            Verdict::Promote | Verdict::Rollback { .. } | Verdict::Inconclusive { .. } => true,
        }
    }

    /// The step to go on to, when that is the verdict.
    pub fn advance_to(self) -> Option<usize> {
        match self {
            Verdict::Advance { to } => Some(to),
            Verdict::Watching
            | Verdict::Investigate { .. }
            | Verdict::Promote
            | Verdict::Rollback { .. }
            | Verdict::Inconclusive { .. } => None,
        }
    }

    /// The rule that decided, when one did.
    pub fn rule(self) -> Option<usize> {
        match self {
            Verdict::Investigate { rule } | Verdict::Rollback { rule } => Some(rule),
            Verdict::Watching
            | Verdict::Advance { .. }
            | Verdict::Promote
            | Verdict::Inconclusive { .. } => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Watching => "watching",
            Verdict::Investigate { .. } => "investigate",
            Verdict::Advance { .. } => "advance",
            Verdict::Promote => "promote",
            Verdict::Rollback { .. } => "rollback",
            Verdict::Inconclusive { .. } => "inconclusive",
        })
    }
}

/// What one rule found at one look.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Fires, clear, or not enough data.
    pub state: State,
    /// One entry per clause of the condition, left to right.
    pub clauses: Vec<ClauseFinding>,
    /// How long it has been in this state.
    pub in_state: Duration,
}

/// State of a rule or of a clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The condition holds.
    Fires,
    /// The condition does not hold, and there was data to say so.
    Clear,
    /// There is no saying.
    NotEnoughData,
    /// `after` or `until` keep the rule out of the game.
    Asleep,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Fires => "fires",
            State::Clear => "clear",
            State::NotEnoughData => "not enough data",
            State::Asleep => "asleep",
        })
    }
}

/// What one clause found, with everything it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct ClauseFinding {
    /// Its state. Never [`State::Asleep`].
    pub state: State,
    /// The canary's point estimate, in the signal's unit.
    pub estimate: Option<f64>,
    /// The baseline's point estimate, where the clause compares.
    pub baseline: Option<f64>,
    /// What the estimate is held against now, in the signal's unit.
    pub bound: Option<f64>,
    /// The canary's events and total within the window, where the estimate is a share of counts.
    pub window: Option<(f64, f64)>,
    /// What the clause needs to fire, and how far it is.
    pub progress: Progress,
    /// Requests and events behind it since the analysis began.
    pub samples: Samples,
    /// Why there is not enough data, when there is not.
    pub missing: Option<Missing>,
    /// Anything else a reader should know (which edge, which bucket layout).
    pub note: Option<String>,
    /// How much worse the canary is, with an interval that holds at every look; none where the
    /// clause is not judged by evidence.
    pub effect: Option<Effect>,
    /// The part that contributes most, where the signal is known by parts.
    pub blame: Option<Blame>,
}

/// An estimated effect with an anytime-valid interval: it covers the truth at *all* looks together
/// with the stated probability, so that it may be read whenever one likes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// What is estimated.
    pub kind: EffectKind,
    /// The estimate.
    pub estimate: f64,
    /// Lower end; 0 or minus infinity when nothing is known below.
    pub low: f64,
    /// Upper end; infinite when nothing is known above.
    pub high: f64,
    /// Probability that the interval covers the truth at all looks, such as 0.95.
    pub confidence: f64,
}

/// What an effect is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectKind {
    /// Canary's event rate over the baseline's.
    RateRatio,
    /// Canary's quantile over the baseline's.
    QuantileRatio,
    /// Share of looks at which the canary is beyond the bound; a half when the arms are alike.
    SignShare,
    /// Units per second that the level grows by.
    Slope,
    /// Slope of the canary less the baseline's.
    SlopeDifference,
}

/// The part of a signal that contributes most to the evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Blame {
    /// An instance, a route or a bucket edge.
    pub by: BlameBy,
    /// Its name.
    pub name: String,
    /// Its share of what all parts together contribute, in 0..=1.
    pub share: f64,
    /// How many such parts there are, and how many of them are bad by themselves.
    pub bad_of: (usize, usize),
}

/// What a blamed part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlameBy {
    /// One scraped process.
    Instance,
    /// One route.
    Route,
    /// One bucket edge: latencies beyond it.
    Edge,
}

/// How far the proof is that promotion asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proof {
    /// Multiple of the baseline that the canary is to be shown within.
    pub factor: f64,
    /// Value that is good enough whatever the baseline does, in the signal's unit.
    pub or: Option<f64>,
    /// log10 of the e-value now, of the better of both ways.
    pub decades: f64,
    /// log10 of what is needed. Once reached, the proof stays.
    pub needed: f64,
    /// Whether it has been reached.
    pub shown: bool,
    /// How much longer it would take at today's traffic if the canary is as good as the baseline;
    /// none when it is shown, or when that cannot be said.
    pub remaining: Option<Duration>,
    /// Requests (or looks) a second that `remaining` was reckoned with.
    pub per_sec: f64,
}

/// How far a clause is from firing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// Evidence, in decades (log10 of the e-value), against what is needed.
    Evidence {
        /// log10 of the e-value now.
        decades: f64,
        /// log10 of 1/alpha for this clause.
        needed: f64,
        /// The noise factor at this look, and where it came from.
        noise: NoiseUsed,
    },
    /// Time the condition has held, against what is needed.
    Held {
        /// So far.
        held: Duration,
        /// Needed.
        needed: Duration,
    },
    /// Consecutive probes, against what is needed.
    Checks {
        /// So far.
        checks: u32,
        /// Needed.
        needed: u32,
    },
    /// A count, against the limit.
    Count {
        /// So far.
        count: f64,
        /// Limit.
        limit: f64,
    },
}

/// What a clause's numbers rest on, since the analysis began.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Samples {
    /// Events of the canary.
    pub canary_events: f64,
    /// Requests (or instance seconds) of the canary.
    pub canary_total: f64,
    /// Events of the baseline.
    pub baseline_events: f64,
    /// Requests (or instance seconds) of the baseline.
    pub baseline_total: f64,
}
