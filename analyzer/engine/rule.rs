//! Typed rules: what a rule file means once it has been read. Valid by construction: `rulefile/`
//! has checked units against signals and refused what the engine cannot judge, so a clause that
//! exists here can be evaluated.
//!
//! Deliberately absent: selectors and paths (that is `signal/`'s business, addressed here only by
//! a signal's index) and any text that would have to be parsed again.

use std::{fmt, time::Duration};

use super::observation::Health;

/// A whole rule file, as the engine sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSet {
    /// The service the file is for, for people.
    pub service: String,
    /// Signals by index; clauses refer to them by position.
    pub signals: Vec<Signal>,
    /// Rules in file order.
    pub rules: Vec<Rule>,
    /// How to look.
    pub observe: Observe,
    /// Probability that a healthy release is rolled back by evidence, over the whole analysis.
    pub false_rollback_rate: f64,
    /// When to promote.
    pub promote: Promote,
    /// The steps of a progressive release; empty for a release that is judged as a whole.
    pub steps: Vec<ReleaseStep>,
    /// What the canary is compared with.
    pub baseline: Baseline,
}

/// What the canary is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// The old version, which runs beside the new one.
    Concurrent,
    /// The service's own past, just before the release began.
    Before,
    /// The service's own past, so long ago: yesterday or last week at this time of day.
    Offset(Duration),
}

/// One step of a progressive release.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReleaseStep {
    /// Share of the traffic that the canary gets, in 0..=1. Shown, never verified.
    pub weight: f64,
    /// Watch at least this long before the next step.
    pub hold: Duration,
}

impl RuleSet {
    /// Whether any rule compares a signal's event rates by evidence, arm beside arm.
    pub fn compares_rates(&self, signal: usize) -> bool {
        let counted = match self.signals[signal].kind {
            SignalKind::Ratio { .. } | SignalKind::Rate | SignalKind::Count => true,
            SignalKind::Quantile { .. }
            | SignalKind::Gauge { .. }
            | SignalKind::Health
            | SignalKind::Restarts => false,
        };
        let mut clauses = self.rules.iter().flat_map(|rule| rule.when.clauses());
        counted
            && self.baseline == Baseline::Concurrent
            && clauses.any(|clause| {
                clause.signal == signal && matches!(clause.test, Test::BeyondBaseline { .. })
            })
    }

    /// The share of the false-rollback rate that each evidence clause of this rule gets: all shares
    /// together are that rate, each as large as its rule's weight.
    pub fn alpha(&self, rule: &Rule) -> f64 {
        let weights: f64 = self.rules.iter().map(Rule::evidence_weight).sum();
        let all = if weights > 0.0 { weights } else { rule.weight };
        self.false_rollback_rate * rule.weight / all
    }

    /// Whether any rule compares with the old version.
    pub fn needs_baseline(&self) -> bool {
        self.rules.iter().any(|rule| rule.when.needs_baseline())
    }

    /// Whether any rule compares this signal with the old version by evidence.
    pub fn compares_by_evidence(&self, signal: usize) -> bool {
        let clauses = self.rules.iter().flat_map(|rule| rule.when.clauses());
        clauses.into_iter().any(|clause| clause.signal == signal && clause.test.is_comparison())
    }
}

/// A named quantity.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Its name in the rule file.
    pub name: String,
    /// What it is and how its numbers are to be read.
    pub kind: SignalKind,
    /// What its numbers are of.
    pub unit: Unit,
    /// Which direction is the bad one.
    pub better: Better,
    /// How close to the baseline it must be shown to be before a release is promoted; none where
    /// no rule compares it, or where the file asks for no such proof.
    pub margin: Option<Margin>,
    /// Whether a service may do without it: where neither version has ever exposed it, what asks
    /// for it is clear. One that only the new version lacks is still missing data.
    pub optional: bool,
}

/// Which direction of a signal is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More is worse: errors, latency, memory.
    Lower,
    /// Less is worse: cache hits, reward, login success.
    Higher,
}

/// What has to be shown before promotion: the canary is within `factor` times the baseline, or
/// beyond doubt better than `or`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margin {
    /// Multiple of the baseline: above 1 where lower is better, below 1 where higher is.
    pub factor: f64,
    /// A value in the signal's own unit that is good enough whatever the baseline does.
    pub or: Option<f64>,
}

/// What a signal's numbers are of: limits were checked against it, and surfaces write by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// A share of something, 0..1.
    Share,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Events per second.
    PerSecond,
    /// A number of events.
    Count,
    /// A health status.
    Health,
    /// A plain number.
    Number,
}

/// The kinds of signal this engine can judge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SignalKind {
    /// Events among all requests. `floor` is the share below which nobody cares.
    Ratio {
        /// Share of events below which a comparison never fires; in 0..1.
        floor: f64,
    },
    /// Events a second over the arm.
    Rate,
    /// Events since the analysis began.
    Count,
    /// A quantile of a classic histogram, `q` in 0..1.
    Quantile {
        /// Which quantile.
        q: f64,
    },
    /// A level.
    Gauge {
        /// Where it ends (a memory limit, a full pool), in the signal's own unit, when it is known.
        limit: Option<f64>,
    },
    /// A health endpoint.
    Health,
    /// Process lives that began since the analysis began.
    Restarts,
}

/// How to look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observe {
    /// Time between two looks.
    pub interval: Duration,
    /// What a rate or a quantile is taken over, for point estimates.
    pub window: Duration,
    /// An instance younger than this is not judged.
    pub warmup: Duration,
}

/// When a release is promoted, and what happens when it cannot be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Promote {
    /// The hold: watch at least this long.
    pub after: Duration,
    /// No later than this the analysis ends.
    pub deadline: Duration,
    /// What to do at the deadline without enough data.
    pub otherwise: Otherwise,
    /// Probability that a release beyond the margins is promoted by the proof that they ask for.
    pub false_promotion_rate: f64,
}

/// What to carry out when an analysis ends inconclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Otherwise {
    /// Leave everything as it is.
    Hold,
    /// Roll back.
    Rollback,
    /// Promote.
    Promote,
}

impl fmt::Display for Otherwise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Otherwise::Hold => "hold",
            Otherwise::Rollback => "rollback",
            Otherwise::Promote => "promote",
        })
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The condition as the operator wrote it.
    pub text: String,
    /// The condition.
    pub when: Condition,
    /// What it leads to.
    pub then: Action,
    /// The operator's words for why, when given.
    pub reason: Option<String>,
    /// Asleep before this much of the analysis has passed.
    pub after: Option<Duration>,
    /// Asleep once this much of the analysis has passed.
    pub until: Option<Duration>,
    /// How much of the false-rollback rate each of its evidence clauses gets, beside the others';
    /// above 0, and 1 unless the file says otherwise.
    pub weight: f64,
}

impl Rule {
    /// The weights of all its evidence clauses together.
    fn evidence_weight(&self) -> f64 {
        let clauses = self.when.clauses().into_iter();
        self.weight * clauses.filter(|clause| clause.test.is_evidence()).count() as f64
    }
}

/// What a firing rule leads to, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// End the analysis and roll back.
    Rollback,
    /// Not final; blocks promotion.
    Investigate,
    /// Only a note.
    Ok,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Rollback => "rollback",
            Action::Investigate => "investigate",
            Action::Ok => "ok",
        })
    }
}

/// Clauses joined by words.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// One clause.
    Clause(Clause),
    /// All of them.
    And(Vec<Condition>),
    /// Any of them.
    Or(Vec<Condition>),
    /// Not this.
    Not(Box<Condition>),
}

impl Condition {
    /// Every clause, left to right.
    pub fn clauses(&self) -> Vec<&Clause> {
        match self {
            Condition::Clause(clause) => vec![clause],
            Condition::And(parts) | Condition::Or(parts) => {
                parts.iter().flat_map(Condition::clauses).collect()
            }
            Condition::Not(part) => part.clauses(),
        }
    }
}

impl Condition {
    /// Whether any clause compares with the old version.
    fn needs_baseline(&self) -> bool {
        self.clauses().iter().any(|clause| clause.test.needs_baseline())
    }
}

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    /// The clause as written, without the joining words.
    pub text: String,
    /// Index into [`RuleSet::signals`].
    pub signal: usize,
    /// What is asked of it.
    pub test: Test,
    /// Of what it is asked.
    pub scope: Scope,
}

/// Of what a clause is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Of the arm as a whole.
    Arm,
    /// Of each instance: `on most instances` holds when it holds on more than half of them.
    MostInstances,
}

/// What a clause asks. Each variant is one form of the rule language.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Test {
    /// `error_rate > 5% for 5m`: the point estimate over the window, at every look for a time.
    Dwell {
        /// Direction.
        op: Op,
        /// Against what.
        bound: Bound,
        /// For how long.
        hold: Duration,
    },
    /// `error_rate > 5%`: evidence that the true value is beyond a constant.
    BeyondConstant {
        /// Direction.
        op: Op,
        /// The constant, in the signal's own unit.
        limit: f64,
    },
    /// `error_rate > 1.5x baseline`, `error_rate > baseline + 1%`: evidence that it is beyond that.
    BeyondBaseline {
        /// Direction: below where higher is better.
        op: Op,
        /// How far from the baseline's is still allowed.
        allowed: Allowed,
    },
    /// `slope(memory) > 100MB/min`: evidence that a level grows (or falls) faster than this.
    Slope {
        /// Direction.
        op: Op,
        /// Per second, in the signal's own unit: a constant, or the baseline's slope plus one.
        bound: Bound,
    },
    /// `restarts >= 1`, `log_errors >= 10`: counted since the analysis began.
    Counted {
        /// Direction.
        op: Op,
        /// The count.
        limit: f64,
    },
    /// `database is down for 3 checks`.
    HealthIs {
        /// The status asked for.
        status: Health,
        /// How long it must be so.
        hold: HealthHold,
    },
    /// `latency(app) > 500ms for 1m`: the health endpoint's own answer time, in seconds.
    HealthLatency {
        /// Direction.
        op: Op,
        /// The limit, in seconds.
        limit_secs: f64,
        /// For how long.
        hold: Duration,
    },
}

impl Test {
    /// Whether it compares with the old version.
    pub fn needs_baseline(self) -> bool {
        match self {
            Test::BeyondBaseline { .. } => true,
            Test::Dwell { bound, .. } | Test::Slope { bound, .. } => match bound {
                Bound::TimesBaseline(_) | Bound::BaselinePlus(_) => true,
                Bound::Constant(_) => false,
            },
            Test::BeyondConstant { .. }
            | Test::Counted { .. }
            | Test::HealthIs { .. }
            | Test::HealthLatency { .. } => false,
        }
    }

    /// Whether it takes a share of the false-rollback rate.
    pub fn is_evidence(self) -> bool {
        match self {
            Test::BeyondConstant { .. } | Test::BeyondBaseline { .. } | Test::Slope { .. } => true,
            Test::Dwell { .. }
            | Test::Counted { .. }
            | Test::HealthIs { .. }
            | Test::HealthLatency { .. } => false,
        }
    }

    /// Whether it is evidence on the ratio of both versions.
    pub fn is_comparison(self) -> bool {
        match self {
            Test::BeyondBaseline { .. } => true,
            Test::BeyondConstant { .. }
            | Test::Dwell { .. }
            | Test::Slope { .. }
            | Test::Counted { .. }
            | Test::HealthIs { .. }
            | Test::HealthLatency { .. } => false,
        }
    }

    /// Whether one look decides it. The others need time or evidence, and "not shown yet" is not
    /// "shown not to be": they cannot be turned round by `not`.
    pub fn holds_at_once(self) -> bool {
        match self {
            Test::Counted { .. } | Test::HealthIs { hold: HealthHold::Checks(1), .. } => true,
            Test::Dwell { .. }
            | Test::BeyondConstant { .. }
            | Test::BeyondBaseline { .. }
            | Test::Slope { .. }
            | Test::HealthIs { .. }
            | Test::HealthLatency { .. } => false,
        }
    }
}

/// How long a health status must last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthHold {
    /// This many consecutive probes; 1 is "at once".
    Checks(u32),
    /// Every probe for this long.
    For(Duration),
}

/// What a point estimate is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// A constant, in the signal's own unit.
    Constant(f64),
    /// A multiple of the baseline's estimate.
    TimesBaseline(f64),
    /// The baseline's estimate plus this, in the signal's own unit; negative for minus.
    BaselinePlus(f64),
}

/// How far from the baseline's value is allowed before a comparison by evidence fires.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    /// So many times the baseline's: at least 1 for above, at most 1 for below.
    Times(f64),
    /// So much more than the baseline's, in the signal's own unit; at least 0 for above, at most 0
    /// for below.
    Plus(f64),
}

impl Allowed {
    /// The bound beside this value of the baseline.
    pub fn bound(self, baseline: f64) -> f64 {
        match self {
            Allowed::Times(margin) => baseline * margin,
            Allowed::Plus(amount) => baseline + amount,
        }
    }

    /// The same with the arms in each other's place: what the baseline is then allowed beside the
    /// canary.
    pub fn turned(self) -> Self {
        match self {
            Allowed::Times(margin) => Allowed::Times(margin.recip()),
            Allowed::Plus(amount) => Allowed::Plus(-amount),
        }
    }
}

impl From<Allowed> for Bound {
    fn from(allowed: Allowed) -> Self {
        match allowed {
            Allowed::Times(margin) => Bound::TimesBaseline(margin),
            Allowed::Plus(amount) => Bound::BaselinePlus(amount),
        }
    }
}

/// Direction of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
}

impl Op {
    /// Whether too much is asked about, rather than too little.
    pub fn is_upward(self) -> bool {
        match self {
            Op::Above | Op::AtLeast => true,
            Op::Below | Op::AtMost => false,
        }
    }

    /// Whether `value op bound` holds.
    pub fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Op::Above => value > bound,
            Op::AtLeast => value >= bound,
            Op::Below => value < bound,
            Op::AtMost => value <= bound,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Above => ">",
            Op::AtLeast => ">=",
            Op::Below => "<",
            Op::AtMost => "<=",
        })
    }
}
