//! A file by which nothing is ever rolled back.

use super::{Findings, Lint, Subject};
use crate::engine::rule::{Action, Otherwise};

pub(super) static LINT: Lint = Lint {
    name: "no-rollback-rule",
    what: "a file without a rule that rolls back",
    why: "However bad a release is, it is at best not promoted.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    let rules = subject.rules;
    let asks = |action: Action| rules.rules.iter().any(|rule| rule.then == action);
    if asks(Action::Rollback) || rules.promote.otherwise == Otherwise::Rollback {
        return;
    }
    let is_asked_for = rules.signals.iter().any(|signal| signal.margin.is_some());
    let means = match asks(Action::Investigate) || is_asked_for {
        true => "the worst that can happen to a release is that it is not promoted",
        false => "nothing is judged: every release that gives data is promoted",
    };
    found.warn(
        subject.key("rules"),
        "no rule rolls back",
        means,
        "at least one rule with `then: rollback`",
    );
}
