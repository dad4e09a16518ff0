//! A `for` that is shorter than the time between two looks.

use super::{Findings, Lint, Subject};
use crate::{
    engine::rule::{HealthHold, Test},
    rulefile::literal::duration_text,
};

pub(super) static LINT: Lint = Lint {
    name: "dwell-of-one-look",
    what: "a `for` that is shorter than `observe.interval`",
    why: "Nobody looks in between: it takes two looks in any case, or one where it is `for 0s`.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    let interval = subject.rules.observe.interval;
    for index in 0..subject.rules.rules.len() {
        for placed in subject.clauses(index) {
            let hold = match placed.clause.test {
                Test::Dwell { hold, .. } | Test::HealthLatency { hold, .. } => hold,
                Test::HealthIs { hold: HealthHold::For(hold), .. } => hold,
                Test::HealthIs { hold: HealthHold::Checks(_), .. }
                | Test::BeyondConstant { .. }
                | Test::BeyondBaseline { .. }
                | Test::Slope { .. }
                | Test::Counted { .. } => continue,
            };
            if hold < interval {
                let means = match hold.is_zero() {
                    true => "one look decides, whatever chance put into it".to_owned(),
                    false => format!("it takes two looks, which is {}", duration_text(interval)),
                };
                found.warn_rule(
                    index,
                    placed.hold,
                    format!(
                        "`for {}`, and there is a look every {}",
                        duration_text(hold),
                        duration_text(interval)
                    ),
                    means,
                    format!("`for {}` at least", duration_text(2 * interval)),
                );
            }
        }
    }
}
