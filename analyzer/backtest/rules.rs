//! What of a rule file the past can answer.
//!
//! Health endpoints answer for now: no server keeps what they would have said. A rule on them would
//! stay without data and hold up every promotion, so it is left out, and named. Of `a or b` the part
//! that can be answered stays.

use std::{sync::Arc, time::Duration};

use crate::{
    engine::rule::{Baseline, Clause, Condition, RuleSet},
    rulefile::RuleFile,
    signal::spec::{Reads, SignalSpec},
};

/// Why health endpoints are not judged.
const NO_PAST: &str = "no past of health endpoints";

/// A rule file as it can be judged over the past.
#[derive(Clone, Debug)]
pub struct PastRules {
    /// The rules that are left.
    pub rules: RuleSet,
    /// What each signal is read from.
    pub specs: Arc<[SignalSpec]>,
    /// What is not judged.
    pub left_out: Vec<LeftOut>,
}

/// A rule, or a part of one, that is not judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The rule as written.
    pub rule: String,
    /// The clauses of it that cannot be answered.
    pub clauses: Vec<String>,
    /// Whether the rest of it is judged.
    pub partly: bool,
    /// Why.
    pub why: &'static str,
}

impl PastRules {
    /// Leaves out what the past cannot answer.
    pub fn of(file: RuleFile) -> Self {
        let RuleFile { mut rules, specs, .. } = file;
        let mut left_out = Vec::new();
        let is_answered = |clause: &Clause| specs.get(clause.signal).is_some_and(has_past);
        rules.rules.retain_mut(|rule| {
            let gone = rule.when.clauses().into_iter().filter(|clause| !is_answered(clause));
            let clauses: Vec<String> = gone.map(|clause| clause.text.clone()).collect();
            if clauses.is_empty() {
                return true;
            }
            let kept = answered(&rule.when, &is_answered);
            let (rule_text, partly) = (rule.text.clone(), kept.is_some());
            left_out.push(LeftOut { rule: rule_text, clauses, partly, why: NO_PAST });
            if let Some(kept) = kept {
                rule.when = kept;
            }
            partly
        });
        Self { rules, specs: specs.into(), left_out }
    }

    /// The same, compared with the service itself before.
    pub fn comparing_with_before(&self) -> Self {
        let mut past = self.clone();
        past.rules.baseline = Baseline::Before;
        past
    }

    /// The rules for looks that are this far apart. A window holds two of them at least.
    pub fn looking_every(&self, step: Duration) -> RuleSet {
        let mut rules = self.rules.clone();
        rules.observe.interval = step;
        rules.observe.window = rules.observe.window.max(step * 2);
        rules
    }
}

fn has_past(spec: &SignalSpec) -> bool {
    match &spec.reads {
        Reads::Health(_) | Reads::Answer { .. } => false,
        Reads::Up
        | Reads::Ratio { .. }
        | Reads::Counter(_)
        | Reads::Histogram { .. }
        | Reads::Gauge { .. }
        | Reads::Restarts(_)
        | Reads::Promql(_) => true,
    }
}

/// What is left of a condition; none when it can never be decided to hold.
fn answered(condition: &Condition, is_answered: &impl Fn(&Clause) -> bool) -> Option<Condition> {
    match condition {
        Condition::Clause(clause) => is_answered(clause).then(|| condition.clone()),
        Condition::Not(part) => {
            answered(part, is_answered).filter(|kept| kept == &**part).map(|_| condition.clone())
        }
        Condition::And(parts) => {
            let kept: Option<Vec<_>> =
                parts.iter().map(|part| answered(part, is_answered)).collect();
            kept.map(Condition::And)
        }
        Condition::Or(parts) => {
            let mut kept: Vec<Condition> =
                parts.iter().filter_map(|part| answered(part, is_answered)).collect();
            if kept.len() == 1 {
                kept.pop()
            } else {
                (!kept.is_empty()).then_some(Condition::Or(kept))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rulefile;

    fn check(when: &str, expected: &[&str], left_out: bool) {
        let text = format!(
            "version: 1\nservice: s\nsignals:\n  errors: {{ ratio: 'a_total / b_total' }}\n  \
             app: {{ health: /health }}\nrules:\n  - {{ when: errors > 50%, then: rollback }}\n  - \
             {{ when: '{when}', then: rollback }}\npromote: {{ after: 10m }}\n"
        );
        let past = PastRules::of(rulefile::load("r.yaml", &text).unwrap());
        let clauses = past.rules.rules[1..].iter().flat_map(|rule| rule.when.clauses());
        let clauses: Vec<&str> = clauses.map(|clause| clause.text.as_str()).collect();
        assert_eq!(clauses, expected, "{when}");
        assert_eq!(!past.left_out.is_empty(), left_out, "{when}");
        if let Some(left_out) = past.left_out.first() {
            assert_eq!(left_out.partly, !expected.is_empty(), "{when}");
        }
    }

    #[test]
    fn what_the_past_cannot_answer_is_left_out() {
        check("errors > 5%", &["errors > 5%"], false);
        check("app is down for 3 checks", &[], true);
        check("app is down for 3 checks or errors > 5%", &["errors > 5%"], true);
        check("app is down for 3 checks and errors > 5%", &[], true);
        check("latency(app) > 1s for 1m", &[], true);
        check("not app is up", &[], true);
        check("errors > 5% or errors > 9% or not app is up", &["errors > 5%", "errors > 9%"], true);
    }

    #[test]
    fn a_window_holds_two_looks() {
        let text = "version: 1\nservice: s\nobserve: { interval: 5s, window: 1m }\nsignals:\n  e: { \
                    ratio: 'a_total / b_total' }\nrules:\n  - { when: e > 5%, then: rollback }\npromote: \
                    { after: 10m }\n";
        let past = PastRules::of(rulefile::load("r.yaml", text).unwrap());
        let secs = |step| past.looking_every(Duration::from_secs(step)).observe.window.as_secs();
        assert_eq!((secs(15), secs(60)), (60, 120));
    }
}
