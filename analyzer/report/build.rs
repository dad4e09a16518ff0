//! The engine's step becomes the public shape. The one place that names its words and units.

use super::{
    explain,
    shape::{
        ClauseShape, FindingShape, MissingShape, ProgressShape, Report, SamplesShape, SignalShape,
    },
};
use crate::engine::{
    interval::share_interval,
    observation::{Missing, Why},
    rule::{Clause, Rule, RuleSet, Unit},
    verdict::{ClauseFinding, Finding, Progress, State, Step, Verdict},
};

/// The report of one look.
pub fn report(rules: &RuleSet, step: &Step) -> Report {
    let findings: Vec<FindingShape> = rules
        .rules
        .iter()
        .zip(&step.findings)
        .map(|(rule, finding)| finding_shape(rules, rule, finding))
        .collect();
    let at = step.at.as_secs_f64();
    let mut report = Report {
        verdict: step.verdict.to_string(),
        is_final: step.verdict.is_final(),
        decided_at: step.verdict.is_final().then_some(at),
        at,
        elapsed_secs: step.elapsed.as_secs_f64(),
        look: step.look,
        rule: step.verdict.rule().map(|rule| rules.rules[rule].text.clone()),
        reason: String::new(),
        otherwise: match step.verdict {
            Verdict::Inconclusive { otherwise } => Some(otherwise.to_string()),
            Verdict::Watching
            | Verdict::Investigate { .. }
            | Verdict::Promote
            | Verdict::Rollback { .. } => None,
        },
        gap: step.canary_gap.as_ref().map(missing_shape),
        findings,
        signals: rules
            .signals
            .iter()
            .zip(&step.estimates)
            .map(|(signal, estimates)| SignalShape {
                name: signal.name.clone(),
                unit: unit_word(signal.unit).to_owned(),
                canary: estimates.canary,
                baseline: estimates.baseline,
            })
            .collect(),
    };
    report.reason = explain::reason(rules, step, &report);
    report
}

/// The word for a unit.
pub fn unit_word(unit: Unit) -> &'static str {
    match unit {
        Unit::Share => "share",
        Unit::Seconds => "seconds",
        Unit::Bytes => "bytes",
        Unit::PerSecond => "per_second",
        Unit::Count => "count",
        Unit::Health => "health",
        Unit::Number => "number",
    }
}

/// The word for a kind of missing data.
pub fn why_word(why: Why) -> &'static str {
    match why {
        Why::FirstLook => "first_look",
        Why::NoTraffic => "no_traffic",
        Why::ScrapeFailed => "scrape_failed",
        Why::Stale => "stale",
        Why::WarmUp => "warm_up",
        Why::AbsentSeries => "absent_series",
        Why::BadValue => "bad_value",
        Why::UnclearHealth => "unclear_health",
        Why::BucketLayout => "bucket_layout",
        Why::NotObserved => "not_observed",
        Why::QueryFailed => "query_failed",
    }
}

fn state_word(state: State) -> &'static str {
    match state {
        State::Fires => "fires",
        State::Clear => "clear",
        State::NotEnoughData => "not_enough_data",
        State::Asleep => "asleep",
    }
}

fn finding_shape(rules: &RuleSet, rule: &Rule, finding: &Finding) -> FindingShape {
    FindingShape {
        rule: rule.text.clone(),
        then: rule.then.to_string(),
        reason: rule.reason.clone(),
        state: state_word(finding.state).to_owned(),
        in_state_secs: finding.in_state.as_secs_f64(),
        clauses: rule
            .when
            .clauses()
            .iter()
            .zip(&finding.clauses)
            .map(|(clause, found)| clause_shape(rules, clause, found))
            .collect(),
    }
}

fn clause_shape(rules: &RuleSet, clause: &Clause, found: &ClauseFinding) -> ClauseShape {
    let signal = &rules.signals[clause.signal];
    let interval = found.window.and_then(|(events, total)| share_interval(events, total));
    ClauseShape {
        clause: clause.text.clone(),
        signal: signal.name.clone(),
        state: state_word(found.state).to_owned(),
        unit: unit_word(signal.unit).to_owned(),
        estimate: found.estimate,
        interval: interval.map(|(low, high)| [low, high]),
        baseline: found.baseline,
        bound: found.bound,
        progress: progress_shape(found.progress),
        samples: SamplesShape {
            canary_events: found.samples.canary_events,
            canary_total: found.samples.canary_total,
            baseline_events: found.samples.baseline_events,
            baseline_total: found.samples.baseline_total,
        },
        missing: found.missing.as_ref().map(missing_shape),
        note: found.note.clone(),
    }
}

fn progress_shape(progress: Progress) -> ProgressShape {
    let (kind, value, needed, noise_factor) = match progress {
        Progress::Evidence { decades, needed, noise } => {
            ("evidence_decades", decades, needed, Some(noise))
        }
        Progress::Held { held, needed } => {
            ("held_secs", held.as_secs_f64(), needed.as_secs_f64(), None)
        }
        Progress::Checks { checks, needed } => {
            ("checks", f64::from(checks), f64::from(needed), None)
        }
        Progress::Count { count, limit } => ("count", count, limit, None),
    };
    ProgressShape { kind: kind.to_owned(), value, needed, noise_factor }
}

fn missing_shape(missing: &Missing) -> MissingShape {
    MissingShape { why: why_word(missing.why).to_owned(), detail: missing.detail.clone() }
}
