//! From a parsed condition to the engine's: names become indices, literals become numbers in the
//! signal's own unit, and each form becomes the one test it stands for.
//!
//! This is where the language is closed: a form that the engine cannot judge is refused by its
//! name, with what to write instead, and a limit that could never or would always hold is refused
//! too. Nothing is guessed: a unit that does not fit the signal is a fault.

use std::{ops::Range, time::Duration};

use super::{
    answers,
    condition::{self, Ask, Bound as Written, Clause as WrittenClause, Length, Tree, Value},
    fault::{Complaint, did_you_mean, excerpt},
    literal::{Dimension, Literal},
    signals::{Scale, Signals},
    table,
    units::Units,
};
use crate::engine::rule::{
    Allowed, Bound, Clause, Condition, HealthHold, Op, Scope, SignalKind, Test,
};

/// Multiples of the baseline beyond this are slips of the finger.
const MARGIN_MAX: f64 = 1000.0;

/// Turns a parsed condition into the engine's; every clause is checked, not only the first. What is
/// asked of a health answer becomes a signal beside the others.
pub(super) fn condition(
    text: &str,
    tree: &Tree,
    signals: &mut Signals,
    out: &mut Vec<Complaint>,
) -> Option<Condition> {
    let mut all = |parts: &[Tree]| {
        let read: Vec<Option<Condition>> =
            parts.iter().map(|part| condition(text, part, signals, out)).collect();
        read.into_iter().collect::<Option<Vec<Condition>>>()
    };
    match tree {
        Tree::And(parts) => all(parts).map(Condition::And),
        Tree::Or(parts) => all(parts).map(Condition::Or),
        Tree::Not(part) => {
            let read = condition(text, part, signals, out)?;
            let known = out.len();
            refuse_negated(part, &read, out);
            (out.len() == known).then(|| Condition::Not(Box::new(read)))
        }
        Tree::Clause(clause) => match read_clause(text, clause, signals) {
            Ok(clause) => clause.map(Condition::Clause),
            Err(complaint) => {
                out.push(complaint);
                None
            }
        },
    }
}

/// Complains about every clause under a `not` that needs time or evidence to hold.
fn refuse_negated(tree: &Tree, read: &Condition, out: &mut Vec<Complaint>) {
    match (tree, read) {
        (Tree::Clause(written), Condition::Clause(clause)) if !clause.test.holds_at_once() => {
            out.push(
                Complaint::new(
                    written.span.clone(),
                    format!("`not` over `{}`, which takes time or evidence to hold", clause.text),
                    "under `not`, a count or a health status that one look decides",
                )
                .hint_if(Some(
                    "not shown yet is not shown not to be: turn the comparison round".into(),
                )),
            );
        }
        (Tree::And(trees) | Tree::Or(trees), Condition::And(parts) | Condition::Or(parts)) => {
            trees.iter().zip(parts).for_each(|(tree, part)| refuse_negated(tree, part, out));
        }
        (Tree::Clause(_) | Tree::And(_) | Tree::Or(_) | Tree::Not(_), _) => {}
    }
}

/// None when the signal itself is faulty, or all of them are: that has been said at its own place.
fn read_clause(
    text: &str,
    clause: &WrittenClause,
    signals: &mut Signals,
) -> Result<Option<Clause>, Complaint> {
    if signals.known.is_empty() {
        return Ok(None);
    }
    let Some(named) = signals.known.iter().position(|known| known.name == clause.signal) else {
        let names: Vec<&str> = signals.named().iter().map(|known| known.name.as_str()).collect();
        let shown = table::list(&names[..names.len().min(12)]);
        let expected = format!("a signal of this file: {shown}");
        return Err(Complaint::new(
            clause.signal_span.clone(),
            format!("unknown signal `{}`", excerpt(&clause.signal)),
            expected,
        )
        .hint_if(did_you_mean(&clause.signal, names.iter().copied())));
    };
    let text = words(&text[clause.span.clone()]);
    let index = match &clause.answer {
        None => named,
        Some(number) => match answers::index_of(signals, named, number, clause)? {
            Some(index) => index,
            None => return Ok(None),
        },
    };
    let Some((kind, scale)) = signals.known[index].meaning else {
        return Ok(None);
    };
    let units = Units { name: &signals.known[index].name, kind, scale };
    let test = Reader { clause, units }.test()?;
    let scope = scope(clause, kind, test)?;
    Ok(Some(Clause { text, signal: index, test, scope }))
}

/// Of what is asked: what instances have each by itself can be asked of most of them.
fn scope(clause: &WrittenClause, kind: SignalKind, test: Test) -> Result<Scope, Complaint> {
    let Some(span) = &clause.most_instances else { return Ok(Scope::Arm) };
    let counted = match test {
        Test::Counted { .. } => true,
        Test::HealthIs { .. } | Test::HealthLatency { .. } => true,
        Test::Dwell { .. }
        | Test::BeyondConstant { .. }
        | Test::BeyondBaseline { .. }
        | Test::Slope { .. } => false,
    };
    if !counted {
        return Ok(Scope::MostInstances);
    }
    let what = match kind {
        SignalKind::Health => "health is that of the worst instance",
        SignalKind::Count | SignalKind::Restarts => "a count is that of all instances together",
        SignalKind::Ratio { .. }
        | SignalKind::Rate
        | SignalKind::Quantile { .. }
        | SignalKind::Gauge { .. } => "this is asked of the arm as a whole",
    };
    Err(Complaint::new(
        span.clone(),
        what,
        "`on most instances` after a comparison of a ratio, a rate, a quantile or a level",
    ))
}

/// Text on one line, with single blanks.
pub(super) fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

struct Reader<'c> {
    clause: &'c WrittenClause,
    units: Units<'c>,
}

/// A comparison, taken apart.
struct Comparison {
    op: Op,
    op_span: Range<usize>,
    bound: Written,
    span: Range<usize>,
}

impl Reader<'_> {
    fn test(&self) -> Result<Test, Complaint> {
        let name = self.units.name;
        let at_signal = |message: String, expected: String| {
            Err(Complaint::new(self.clause.signal_span.clone(), message, expected))
        };
        match (self.units.kind, self.clause.value, &self.clause.ask) {
            (SignalKind::Health, Value::Itself, Ask::Is { status, .. }) => Ok(Test::HealthIs {
                status: *status,
                hold: match self.clause.hold.as_ref().map(|hold| hold.length) {
                    None => HealthHold::Checks(1),
                    Some(Length::Checks(checks)) => HealthHold::Checks(checks),
                    Some(Length::For(time)) => HealthHold::For(time),
                },
            }),
            (SignalKind::Health, Value::Itself, Ask::Compare { op, bound, bound_span, .. })
                if self.clause.answer.is_some() =>
            {
                self.health_latency(*op, *bound, bound_span)
            }
            (SignalKind::Health, Value::Itself, Ask::Compare { bound, .. }) => at_signal(
                match bound {
                    Written::Constant(_) => {
                        format!("`{name}` is a health signal: it has a status, not a number")
                    }
                    Written::TimesBaseline(_) | Written::BaselinePlus(_) => {
                        format!("`{name}` is a health signal, which has no baseline to compare")
                    }
                },
                format!("`{name} is down for 3 checks`, or `latency({name}) > 500ms for 1m`"),
            ),
            (SignalKind::Gauge { .. }, Value::Slope, _) if self.units.scale == Scale::Instances => {
                at_signal(
                    format!("`{name}` counts instances, and a few of them have no slope"),
                    format!("a limit, such as `{name} < 100% for 1m`"),
                )
            }
            (
                SignalKind::Gauge { .. },
                Value::Slope,
                Ask::Compare { op, bound, bound_span, .. },
            ) => self.slope(*op, *bound, bound_span),
            (SignalKind::Gauge { .. }, Value::Slope, Ask::Is { span, .. }) => Err(Complaint::new(
                span.clone(),
                "a slope is not up or down: it is a number",
                format!("`slope({name}) > {}/min`", self.units.literal()),
            )),
            (_, Value::Slope, _) => at_signal(
                format!("`{name}` is not a level, and only a level has a slope"),
                "a `gauge:`, a `promql:` or a number of a health answer inside `slope(...)`"
                    .to_owned(),
            ),
            (_, Value::Itself, Ask::Is { .. }) => at_signal(
                format!("`{name}` is not a health signal: it has a number, not a status"),
                format!("a comparison, such as `{name} {}`", self.units.example()),
            ),
            (_, Value::Itself, Ask::Compare { op, op_span, bound, bound_span }) => {
                let (op, bound) = (*op, *bound);
                let comparison =
                    Comparison { op, op_span: op_span.clone(), bound, span: bound_span.clone() };
                match self.hold()? {
                    Some(hold) => self.dwell(&comparison, hold),
                    None => self.immediate(&comparison),
                }
            }
        }
    }

    /// The `for` of a numeric clause, which is a time.
    fn hold(&self) -> Result<Option<Duration>, Complaint> {
        match &self.clause.hold {
            None => Ok(None),
            Some(condition::Hold { length: Length::For(time), .. }) => Ok(Some(*time)),
            Some(condition::Hold { length: Length::Checks(_), span }) => Err(Complaint::new(
                span.clone(),
                "only a health status is counted in checks",
                "a duration, such as `for 1m`",
            )),
        }
    }

    fn dwell(&self, asked: &Comparison, hold: Duration) -> Result<Test, Complaint> {
        if let SignalKind::Count | SignalKind::Restarts = self.units.kind {
            let span = self.clause.hold.as_ref().map_or(asked.span.clone(), |h| h.span.clone());
            return Err(Complaint::new(
                span,
                format!("`{}` is counted since the analysis began", self.units.name),
                "no `for`: what has happened stays happened",
            )
            .hint("for a recent pace, define a `rate:` signal"));
        }
        let bound = match asked.bound {
            Written::Constant(literal) => {
                let limit = self.units.in_unit(literal, &asked.span)?;
                self.possible(asked.op, limit, &asked.span)?;
                Bound::Constant(limit)
            }
            Written::TimesBaseline(margin) if margin > 0.0 && margin <= MARGIN_MAX => {
                Bound::TimesBaseline(margin)
            }
            Written::TimesBaseline(_) => {
                return Err(Complaint::new(
                    asked.span.clone(),
                    "a multiple that cannot be meant",
                    format!("a multiple above 0 and at most {MARGIN_MAX}"),
                ));
            }
            Written::BaselinePlus(literal) => {
                Bound::BaselinePlus(self.units.in_unit(literal, &asked.span)?)
            }
        };
        Ok(Test::Dwell { op: asked.op, bound, hold })
    }

    fn immediate(&self, asked: &Comparison) -> Result<Test, Complaint> {
        match (self.units.kind, asked.bound) {
            (SignalKind::Count | SignalKind::Restarts, Written::Constant(literal)) => {
                self.counted(asked, literal)
            }
            (SignalKind::Count | SignalKind::Restarts, _) => Err(Complaint::new(
                asked.span.clone(),
                format!(
                    "`{}` is a count, which is not compared with the baseline",
                    self.units.name
                ),
                format!("a whole number, such as `{} >= 1`", self.units.name),
            )
            .hint("define a `rate:` or a `ratio:` of the same counter and compare that")),
            (
                SignalKind::Ratio { .. }
                | SignalKind::Rate
                | SignalKind::Quantile { .. }
                | SignalKind::Gauge { .. },
                bound,
            ) => match bound {
                Written::Constant(literal) => self.beyond_constant(asked, literal),
                Written::TimesBaseline(margin) => self.beyond_baseline(asked, margin),
                Written::BaselinePlus(literal) => self.beyond_amount(asked, literal),
            },
            (SignalKind::Health, _) => Err(Complaint::new(
                self.clause.span.clone(),
                "a health signal is not compared",
                format!("`{} is down`", self.units.name),
            )),
        }
    }

    fn counted(&self, asked: &Comparison, literal: Literal) -> Result<Test, Complaint> {
        let limit = self.units.in_unit(literal, &asked.span)?;
        if limit < 0.0 || limit.fract() != 0.0 {
            return Err(Complaint::new(
                asked.span.clone(),
                "a count is a whole number from 0",
                format!("such as `{} >= 1`", self.units.name),
            ));
        }
        match asked.op {
            Op::AtLeast if limit == 0.0 => Err(Complaint::new(
                asked.op_span.start..asked.span.end,
                "a count is always at least 0: this fires at once, for every release",
                "`>= 1` or `> 0`",
            )),
            Op::Below if limit == 0.0 => Err(Complaint::new(
                asked.op_span.start..asked.span.end,
                "a count is never below 0: this can never fire",
                "a limit of at least 1",
            )),
            op @ (Op::Above | Op::AtLeast | Op::Below | Op::AtMost) => {
                Ok(Test::Counted { op, limit })
            }
        }
    }

    fn beyond_constant(&self, asked: &Comparison, literal: Literal) -> Result<Test, Complaint> {
        let limit = self.units.in_unit(literal, &asked.span)?;
        if let SignalKind::Gauge { .. } = self.units.kind {
            self.possible(asked.op, limit, &asked.span)?;
            return Ok(Test::BeyondConstant { op: asked.op, limit });
        }
        let ratio = matches!(self.units.kind, SignalKind::Ratio { .. });
        self.possible(asked.op, limit, &asked.span)?;
        if limit <= 0.0 {
            return Err(Complaint::new(
                asked.span.clone(),
                "against a limit of zero a single event would be proof",
                "a limit above zero",
            )
            .hint("to act on the first event, define a `count:` signal and ask `>= 1`"));
        }
        if ratio && limit >= 1.0 {
            return Err(Complaint::new(
                asked.span.clone(),
                "against a limit of 100% a single request would be proof",
                "a limit below 100%",
            ));
        }
        Ok(Test::BeyondConstant { op: asked.op, limit })
    }

    fn beyond_baseline(&self, asked: &Comparison, margin: f64) -> Result<Test, Complaint> {
        let allowed = Allowed::Times(margin);
        match asked.op {
            Op::Above | Op::AtLeast if (1.0..=MARGIN_MAX).contains(&margin) => {
                Ok(Test::BeyondBaseline { op: Op::Above, allowed })
            }
            Op::Above | Op::AtLeast => Err(Complaint::new(
                asked.span.clone(),
                "evidence is asked for being above the baseline",
                format!("a multiple from 1x to {MARGIN_MAX}x"),
            )
            .hint("`1.5x baseline` means: half as much again as the old version")),
            Op::Below | Op::AtMost if margin > 0.0 && margin <= 1.0 => {
                Ok(Test::BeyondBaseline { op: Op::Below, allowed })
            }
            Op::Below | Op::AtMost => Err(Complaint::new(
                asked.span.clone(),
                "evidence is asked for being below the baseline",
                "a multiple above 0x and at most 1x",
            )
            .hint("`0.9x baseline` means: a tenth less than the old version")),
        }
    }

    /// `baseline + 1%`, `baseline - 5%`: an amount more for what must not be above, less for what must
    /// not be below.
    fn beyond_amount(&self, asked: &Comparison, literal: Literal) -> Result<Test, Complaint> {
        let amount = self.units.in_unit(literal, &asked.span)?;
        let (op, sign, fits) = match asked.op {
            Op::Above | Op::AtLeast => (Op::Above, "+", amount >= 0.0),
            Op::Below | Op::AtMost => (Op::Below, "-", amount <= 0.0),
        };
        if !fits {
            return Err(Complaint::new(
                asked.span.clone(),
                "evidence is asked for being further from the baseline, not nearer to it",
                format!("`baseline {sign}` and an amount"),
            )
            .hint("a version that is as good as the old one would be beyond this bound"));
        }
        if matches!(self.units.kind, SignalKind::Ratio { .. }) && amount.abs() >= 1.0 {
            return Err(Complaint::new(
                asked.span.clone(),
                "two shares are never 100% apart: this can never fire",
                "an amount below 100%",
            ));
        }
        Ok(Test::BeyondBaseline { op, allowed: Allowed::Plus(amount) })
    }

    fn slope(&self, op: Op, bound: Written, span: &Range<usize>) -> Result<Test, Complaint> {
        if let Some(hold) = &self.clause.hold {
            return Err(Complaint::new(
                hold.span.clone(),
                "a slope is shown by evidence, as soon as there is enough of it",
                "no `for`",
            ));
        }
        let bound = match bound {
            Written::Constant(literal) => {
                Bound::Constant(self.units.in_unit_per_second(literal, span)?)
            }
            Written::BaselinePlus(literal) => {
                Bound::BaselinePlus(self.units.in_unit_per_second(literal, span)?)
            }
            Written::TimesBaseline(_) => {
                return Err(Complaint::new(
                    span.clone(),
                    "a multiple of the baseline's slope: that of a level service is zero",
                    format!("an amount more, such as `baseline + {}/min`", self.units.literal()),
                ));
            }
        };
        Ok(Test::Slope { op, bound })
    }

    /// An answer time that is beyond a constant for some time: the health signal's own readings
    /// say it.
    fn health_latency(
        &self,
        op: Op,
        bound: Written,
        span: &Range<usize>,
    ) -> Result<Test, Complaint> {
        match (bound, self.hold()?) {
            (Written::Constant(literal), Some(hold))
                if literal.dimension == Dimension::Time && literal.value >= 0.0 =>
            {
                Ok(Test::HealthLatency { op, limit_secs: literal.value, hold })
            }
            (Written::Constant(_) | Written::TimesBaseline(_) | Written::BaselinePlus(_), _) => {
                Err(Complaint::new(
                    span.clone(),
                    "an answer time is held against a time",
                    "a time, such as `500ms` or `2s`",
                ))
            }
        }
    }

    /// Refuses limits that could never or would always be exceeded.
    fn possible(&self, op: Op, limit: f64, span: &Range<usize>) -> Result<(), Complaint> {
        let bounded = self.units.is_bounded();
        let never_negative = match self.units.kind {
            SignalKind::Ratio { .. } | SignalKind::Rate | SignalKind::Quantile { .. } => true,
            // Another level, or an expression, may be below zero.
            SignalKind::Gauge { .. } => bounded,
            SignalKind::Count | SignalKind::Restarts | SignalKind::Health => true,
        };
        let complain = |message: &str| {
            let expected =
                if bounded { "a share between 0% and 100%" } else { "a limit above zero" };
            Err(Complaint::new(span.clone(), message, expected))
        };
        if never_negative && limit < 0.0 {
            return complain("this is never below zero");
        }
        match op {
            Op::AtLeast if never_negative && limit == 0.0 => {
                complain("it is always at least zero: this fires for every release")
            }
            Op::Below if never_negative && limit == 0.0 => {
                complain("it is never below zero: this can never fire")
            }
            Op::Above if bounded && limit >= 1.0 => {
                complain("it is never above 100%: this can never fire")
            }
            Op::AtMost if bounded && limit >= 1.0 => {
                complain("it is always at most 100%: this fires for every release")
            }
            Op::Above | Op::AtLeast | Op::Below | Op::AtMost => Ok(()),
        }
    }
}
