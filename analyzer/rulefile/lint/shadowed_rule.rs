//! A rule that fires only where a worse one has fired.

use super::{
    Findings, Lint, Subject,
    duplicate_rule::{is_same, is_same_condition},
    implies::implies,
};
use crate::engine::rule::{Action, Rule};

pub(super) static LINT: Lint = Lint {
    name: "shadowed-rule",
    what: "a rule that fires only when another has already decided",
    why: "What it leads to never happens: the other rule ends the release, or says more.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    let rules = &subject.rules.rules;
    for (index, rule) in rules.iter().enumerate() {
        let others = rules.iter().enumerate().filter(|(other, _)| *other != index);
        let hiding = others.into_iter().find(|(_, other)| hides(other, rule));
        let Some((other, hiding)) = hiding else { continue };
        let (message, means) = match hiding.then {
            Action::Rollback => (
                format!(
                    "`{}` on line {} rolls back whenever this rule fires",
                    hiding.text,
                    subject.line(other)
                ),
                format!("`{}` never happens: the release is gone by then", rule.then),
            ),
            Action::Investigate | Action::Ok => (
                format!(
                    "`{}` on line {} asks to {} whenever this rule fires",
                    hiding.text,
                    subject.line(other),
                    hiding.then
                ),
                format!("`{}` changes nothing", rule.then),
            ),
        };
        let expected = match rule.then {
            Action::Rollback => "a condition that holds before the other, or no such rule",
            Action::Investigate => "a lower limit or a shorter `for` than where it is rolled back",
            Action::Ok => "a condition that holds where nothing is done",
        };
        found.warn_rule(index, subject.when(index), message, means, expected);
    }
}

/// Whether the first rule leaves the second nothing to do.
fn hides(first: &Rule, second: &Rule) -> bool {
    let awake_as_long = first.after.unwrap_or_default() <= second.after.unwrap_or_default()
        && first.until.is_none_or(|end| second.until.is_some_and(|until| until <= end));
    // Two that say the same are duplicates, and each would hide the other.
    let is_worse = match first.then {
        Action::Rollback => implies(&second.when, &first.when),
        Action::Investigate => second.then == Action::Ok && is_same_condition(first, second),
        Action::Ok => false,
    };
    let is_pair = second.then == first.then && is_same_condition(first, second);
    awake_as_long && is_worse && !is_same(first, second) && !is_pair
}
