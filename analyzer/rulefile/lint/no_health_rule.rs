//! A file that a canary which is dead does not concern.

use super::{Findings, Lint, Subject};
use crate::{
    engine::rule::{Action, Otherwise, SignalKind},
    signal::spec::Reads,
};

pub(super) static LINT: Lint = Lint {
    name: "no-health-rule",
    what: "a file in which no rule asks whether the canary answers at all",
    why: "A canary that is dead gives no data, and missing data never rolls back: the release is \
          held until its deadline.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    let rules = subject.rules;
    let mut clauses = rules
        .rules
        .iter()
        .filter(|rule| rule.then != Action::Ok)
        .flat_map(|rule| rule.when.clauses());
    let asks = clauses.any(|clause| {
        rules.signals[clause.signal].kind == SignalKind::Health || is_up(subject, clause.signal)
    });
    if asks || rules.promote.otherwise == Otherwise::Rollback {
        return;
    }
    found.warn(
        subject.key("rules"),
        "no rule asks whether the canary is up",
        "a canary that answers nothing is missing data, which never rolls back",
        "a rule such as `app is down for 3 checks`, with `app: { health: /health }`",
    );
}

/// Whether the signal is the share of instances that answer.
fn is_up(subject: &Subject, signal: usize) -> bool {
    matches!(subject.specs[signal].reads, Reads::Up)
}
