//! Two rules with one condition that lead to the same.

use super::{Findings, Lint, Subject, implies::implies};
use crate::engine::rule::Rule;

pub(super) static LINT: Lint = Lint {
    name: "duplicate-rule",
    what: "a rule whose condition and action an earlier rule has too",
    why: "The second changes nothing, and takes its share of `false_rollback_rate`.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    let rules = &subject.rules.rules;
    for (index, rule) in rules.iter().enumerate() {
        if let Some(first) = rules[..index].iter().position(|earlier| is_same(earlier, rule)) {
            found.warn_rule(
                index,
                subject.when(index),
                format!("the rule on line {} has this condition and action", subject.line(first)),
                "the second of them changes nothing",
                "each condition once",
            );
        }
    }
}

pub(super) fn is_same(first: &Rule, second: &Rule) -> bool {
    let waking = |rule: &Rule| (rule.after.unwrap_or_default(), rule.until);
    first.then == second.then && waking(first) == waking(second) && is_same_condition(first, second)
}

pub(super) fn is_same_condition(first: &Rule, second: &Rule) -> bool {
    implies(&first.when, &second.when) && implies(&second.when, &first.when)
}
