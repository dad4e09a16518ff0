//! A rollback after a `for` that is shorter than the window.

use super::{Findings, Lint, Subject};
use crate::{
    engine::rule::{Action, SignalKind, Test},
    rulefile::literal::duration_text,
};

pub(super) static LINT: Lint = Lint {
    name: "dwell-within-window",
    what: "a rollback `for` less than `observe.window`",
    why: "What one look saw stays in the window that long: a single burst holds by itself.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    let window = subject.rules.observe.window;
    for (index, rule) in subject.rules.rules.iter().enumerate() {
        if rule.then != Action::Rollback {
            continue;
        }
        for placed in subject.clauses(index) {
            let has_window = match subject.rules.signals[placed.clause.signal].kind {
                SignalKind::Ratio { .. } | SignalKind::Rate | SignalKind::Quantile { .. } => true,
                SignalKind::Count
                | SignalKind::Gauge { .. }
                | SignalKind::Health
                | SignalKind::Restarts => false,
            };
            let hold = match placed.clause.test {
                Test::Dwell { hold, .. } => hold,
                Test::HealthLatency { .. }
                | Test::HealthIs { .. }
                | Test::BeyondConstant { .. }
                | Test::BeyondBaseline { .. }
                | Test::Slope { .. }
                | Test::Counted { .. } => continue,
            };
            if has_window && hold < window {
                found.warn_rule(
                    index,
                    placed.hold,
                    format!(
                        "`for {}` over a window of {}",
                        duration_text(hold),
                        duration_text(window)
                    ),
                    "one burst stays in the window for longer than that, and rolls back by itself",
                    "a `for` of at least the window, or a shorter `observe.window`",
                );
            }
        }
    }
}
