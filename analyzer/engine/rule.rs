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
}

impl RuleSet {
    /// Whether any rule compares with the old version.
    pub fn needs_baseline(&self) -> bool {
        self.rules.iter().any(|rule| rule.when.needs_baseline())
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
    Gauge,
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
        self.clauses().iter().any(|clause| match clause.test {
            Test::BeyondBaseline { .. } => true,
            Test::Dwell { bound, .. } => match bound {
                Bound::TimesBaseline(_) | Bound::BaselinePlus(_) => true,
                Bound::Constant(_) => false,
            },
            Test::BeyondConstant { .. }
            | Test::Counted { .. }
            | Test::HealthIs { .. }
            | Test::HealthLatency { .. } => false,
        })
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
    /// `error_rate > 1.5x baseline`: evidence that it is beyond a multiple of the baseline's.
    BeyondBaseline {
        /// The multiple, at least 1.
        margin: f64,
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
    /// Whether one look decides it. The others need time or evidence, and "not shown yet" is not
    /// "shown not to be": they cannot be turned round by `not`.
    pub fn holds_at_once(self) -> bool {
        match self {
            Test::Counted { .. } | Test::HealthIs { hold: HealthHold::Checks(1), .. } => true,
            Test::Dwell { .. }
            | Test::BeyondConstant { .. }
            | Test::BeyondBaseline { .. }
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
