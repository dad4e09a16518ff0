//! A rule that can only fire once the release may be promoted.

use super::{Findings, Lint, Subject};
use crate::{
    engine::rule::{Action, HealthHold, Test},
    rulefile::literal::duration_text,
};

pub(super) static LINT: Lint = Lint {
    name: "fires-after-promotion",
    what: "a rule that needs longer than the release is watched (`promote.after`, or all steps)",
    why: "A release that is bad from its beginning can be promoted before the rule could fire.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    let hold = subject.rules.promote.after;
    let watched = duration_text(hold);
    for (index, rule) in subject.rules.rules.iter().enumerate() {
        if rule.then == Action::Ok {
            continue;
        }
        let wakes = rule.after.unwrap_or_default();
        let evidence = rule.when.clauses().into_iter().all(|clause| clause.test.is_evidence());
        if wakes > hold || wakes == hold && evidence {
            let span = subject.rule_value(index, "after").map(|node| node.span.clone());
            found.warn_rule(
                index,
                span.unwrap_or_else(|| subject.when(index)),
                format!(
                    "the rule wakes at {}, and the release can be promoted at {watched}",
                    duration_text(wakes)
                ),
                "a release is promoted before the rule has judged it",
                "an earlier `after`, or a longer `promote.after`",
            );
            continue;
        }
        for placed in subject.clauses(index) {
            let lasts = match placed.clause.test {
                Test::Dwell { hold, .. } | Test::HealthLatency { hold, .. } => hold,
                Test::HealthIs { hold: HealthHold::For(time), .. } => time,
                Test::HealthIs { hold: HealthHold::Checks(checks), .. } => {
                    subject.rules.observe.interval * checks.saturating_sub(1)
                }
                Test::BeyondConstant { .. }
                | Test::BeyondBaseline { .. }
                | Test::Slope { .. }
                | Test::Counted { .. } => continue,
            };
            if wakes + lasts > hold {
                let since = match wakes.is_zero() {
                    true => String::new(),
                    false => format!(" from {} on", duration_text(wakes)),
                };
                found.warn_rule(
                    index,
                    placed.hold,
                    format!(
                        "this must hold for {}{since}, and the release can be promoted at {watched}",
                        duration_text(lasts)
                    ),
                    "a release that is bad from its beginning is promoted before the rule can fire",
                    "a shorter `for`, or a longer `promote.after`",
                );
            }
        }
    }
}
