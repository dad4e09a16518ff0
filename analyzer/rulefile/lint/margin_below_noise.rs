//! A margin that noise alone keeps from being shown.

use super::{
    Findings, Lint, Subject,
    reckon::{Noise, proof, time_text},
};

pub(super) static LINT: Lint = Lint {
    name: "margin-below-noise",
    what: "a margin that could not be shown before the deadline with any traffic",
    why: "Rates waver by themselves, in each version on its own. What is closer than that is not \
          told apart by more requests, only by more time: every release ends inconclusive.",
    needs_traffic: false,
    look,
};

/// As good as unlimited.
const RPS: f64 = 1e6;

fn look(subject: &Subject, found: &mut Findings) {
    let rules = subject.rules;
    for signal in &rules.signals {
        let Some(margin) = signal.margin else { continue };
        let time = proof(rules, signal, margin, (RPS, RPS), Noise::Prior);
        if time.is_none_or(|time| time > rules.promote.deadline) {
            found.warn(
                subject.margin(&signal.name),
                format!(
                    "showing `{}` within {}x takes {} at any traffic",
                    signal.name,
                    margin.factor,
                    time_text(time)
                ),
                "a healthy release is never shown good before the deadline, and ends inconclusive",
                "a looser margin, or an `or`: a value that is good enough anyway",
            );
        }
    }
}
