//! A quantile over a window that holds hardly a request beyond it.

use super::{Findings, Lint, Subject, reckon::rate_text};
use crate::{
    engine::rule::{Action, SignalKind, Test},
    rulefile::literal::duration_text,
};

pub(super) static LINT: Lint = Lint {
    name: "quantile-of-few",
    what: "a quantile with `for` over a window with fewer than three requests beyond it, at the \
           stated traffic",
    why: "One slow request is then the quantile: the rule judges the slowest user, not the service.",
    needs_traffic: true,
    look,
};

/// Requests beyond the quantile in one window.
const BEYOND_MIN: f64 = 3.0;

fn look(subject: &Subject, found: &mut Findings) {
    let rules = subject.rules;
    let Some(traffic) = subject.traffic else { return };
    let rps = traffic.arms(rules).iter().map(|arms| arms.0).fold(0.0, f64::max);
    let window = rules.observe.window;
    for (index, rule) in rules.rules.iter().enumerate() {
        if rule.then == Action::Ok {
            continue;
        }
        for placed in subject.clauses(index) {
            let SignalKind::Quantile { q } = rules.signals[placed.clause.signal].kind else {
                continue;
            };
            let Test::Dwell { .. } = placed.clause.test else { continue };
            let seen = rps * window.as_secs_f64();
            if seen * (1.0 - q) < BEYOND_MIN {
                let secs = (BEYOND_MIN / (1.0 - q) / rps).ceil();
                found.warn_rule(
                    index,
                    placed.span,
                    format!(
                        "a window of {} holds about {seen:.0} requests at {}, and {:.1} beyond the \
                         quantile",
                        duration_text(window),
                        rate_text(rps),
                        seen * (1.0 - q)
                    ),
                    "one slow request decides, not the service",
                    format!("a window of {secs:.0}s, a lower quantile, or evidence: without `for`"),
                );
            }
        }
    }
}
