//! The engine's step becomes the public shape. The one place that names its words and units.

use super::{
    explain,
    shape::{
        BlameShape, ClauseShape, EffectShape, FindingShape, MissingShape, NoiseShape,
        ProgressShape, ProofShape, Report, SamplesShape, SignalShape,
    },
};
use crate::engine::{
    interval::share_interval,
    noise::{NoiseUsed, Origin},
    observation::{Missing, Why},
    rule::{Clause, Rule, RuleSet, Test, Unit},
    verdict::{
        Blame, BlameBy, ClauseFinding, Effect, EffectKind, Finding, Progress, Proof, State, Step,
        Verdict,
    },
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
            | Verdict::Advance { .. }
            | Verdict::Promote
            | Verdict::Rollback { .. } => None,
        },
        release_step: (!rules.steps.is_empty()).then_some(step.release_step),
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
                proof: estimates.proof.map(proof_shape),
            })
            .collect(),
        overridden: None,
        rules: None,
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
        unit: match clause.test {
            Test::Slope { .. } => format!("{}_per_second", unit_word(signal.unit)),
            Test::Dwell { .. }
            | Test::BeyondConstant { .. }
            | Test::BeyondBaseline { .. }
            | Test::Counted { .. }
            | Test::HealthIs { .. }
            | Test::HealthLatency { .. } => unit_word(signal.unit).to_owned(),
        },
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
        effect: found.effect.map(effect_shape),
        blame: found.blame.as_ref().map(blame_shape),
    }
}

fn progress_shape(progress: Progress) -> ProgressShape {
    let (kind, value, needed, noise) = match progress {
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
    let noise_factor = noise.map(|noise| noise.factor);
    let noise = noise.map(noise_shape);
    ProgressShape { kind: kind.to_owned(), value, needed, noise_factor, noise }
}

fn noise_shape(noise: NoiseUsed) -> NoiseShape {
    let (origin, history_secs) = match noise.origin {
        Origin::Prior => ("prior", 0.0),
        Origin::History { secs } => ("history", secs),
        Origin::Analysis { history_secs, .. } => ("analysis", history_secs),
    };
    NoiseShape { kappa_secs: noise.kappa_secs, origin: origin.to_owned(), history_secs }
}

fn effect_shape(effect: Effect) -> EffectShape {
    let kind = match effect.kind {
        EffectKind::RateRatio => "rate_ratio",
        EffectKind::QuantileRatio => "quantile_ratio",
        EffectKind::SignShare => "sign_share",
        EffectKind::Slope => "slope",
        EffectKind::SlopeDifference => "slope_difference",
    };
    let finite = |value: f64| value.is_finite().then_some(value);
    EffectShape {
        kind: kind.to_owned(),
        estimate: effect.estimate,
        low: finite(effect.low),
        high: finite(effect.high),
        confidence: effect.confidence,
    }
}

fn blame_shape(blame: &Blame) -> BlameShape {
    let by = match blame.by {
        BlameBy::Instance => "instance",
        BlameBy::Route => "route",
        BlameBy::Edge => "edge",
    };
    let (bad, of) = blame.bad_of;
    BlameShape { by: by.to_owned(), name: blame.name.clone(), share: blame.share, bad, of }
}

fn proof_shape(proof: Proof) -> ProofShape {
    ProofShape {
        factor: proof.factor,
        or: proof.or,
        decades: proof.decades,
        needed: proof.needed,
        shown: proof.shown,
        remaining_secs: proof.remaining.map(|left| left.as_secs_f64()),
        per_sec: proof.per_sec,
    }
}

fn missing_shape(missing: &Missing) -> MissingShape {
    MissingShape { why: why_word(missing.why).to_owned(), detail: missing.detail.clone() }
}
