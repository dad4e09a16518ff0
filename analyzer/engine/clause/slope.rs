//! Evidence that a level grows, or falls, too fast.

use std::sync::Arc;

use super::{Look, blank, outage};
use crate::engine::{
    noise::{NoiseUsed, Origin},
    observation::{Arm, Missing, PartKind, Value, Why},
    rule::{Bound, Clause, Op, Scope, SignalKind, Unit},
    slope::{CLEAR_POINTS_MIN, CONFIDENCE, Found, Growth, Level, Question, SlopeEvidence},
    verdict::{Blame, BlameBy, ClauseFinding, Effect, EffectKind, Progress, State},
};

/// A time to the limit beyond this is not worth a word.
const REACHED_SECS_MAX: f64 = 7.0 * 24.0 * 3600.0;

pub(super) fn question(clause: &Clause, op: Op, bound: Bound) -> Question {
    let (beyond_baseline, limit) = match bound {
        Bound::Constant(limit) => (false, limit),
        // `rulefile` writes no multiples of a slope: that of a level service is zero.
        Bound::BaselinePlus(limit) | Bound::TimesBaseline(limit) => (true, limit),
    };
    Question {
        growing: matches!(op, Op::Above | Op::AtLeast),
        beyond_baseline,
        limit,
        most_instances: clause.scope == Scope::MostInstances,
    }
}

pub(super) fn slope_look(
    evidence: &mut SlopeEvidence,
    look: &Look<'_>,
    bound: Bound,
    needed: f64,
    whole: &Arc<str>,
) -> ClauseFinding {
    let compares = !matches!(bound, Bound::Constant(_));
    evidence.step(
        look.now,
        look.secs,
        levels(look, Arm::Canary, whole),
        levels(look, Arm::Baseline, whole),
        needed,
    );
    let missing = outage(look, compares).or_else(|| unfilled(evidence, compares));
    let decades = evidence.found().map_or(0.0, |found| found.decades);
    let state = match (decades >= needed, &missing) {
        (true, _) => State::Fires,
        (false, None) => State::Clear,
        (false, Some(_)) => State::NotEnoughData,
    };
    let missing = missing.filter(|_| state == State::NotEnoughData);
    let Some(found) = evidence.found() else {
        let progress = evidence_progress(0.0, needed, 1.0);
        return ClauseFinding { missing, ..blank(look, state, progress) };
    };
    let (estimate, low, high) = found.effect;
    let kind = if compares { EffectKind::SlopeDifference } else { EffectKind::Slope };
    let limit = match (bound, found.baseline) {
        (Bound::Constant(limit), _) => limit,
        (Bound::BaselinePlus(limit) | Bound::TimesBaseline(limit), baseline) => {
            baseline.unwrap_or(0.0) + limit
        }
    };
    ClauseFinding {
        estimate: Some(found.slope),
        baseline: found.baseline,
        bound: Some(limit),
        missing,
        note: Some(note(look, found)),
        effect: Some(Effect { kind, estimate, low, high, confidence: CONFIDENCE }),
        blame: blame(found),
        ..blank(look, state, evidence_progress(found.decades, needed, found.inflation))
    }
}

/// Each instance's level, or the arm's when it is not known of what it is made.
fn levels<'a>(
    look: &Look<'a>,
    arm: Arm,
    whole: &'a Arc<str>,
) -> impl Iterator<Item = Level<'a>> + use<'a> {
    let parts = look.pair.parts.of(arm).iter().filter_map(|part| match (part.kind, &part.value) {
        (PartKind::Instance, Value::Level(level)) => {
            Some(Level { name: &part.name, started: part.started, level: *level })
        }
        (PartKind::Instance | PartKind::Route, _) => None,
    });
    let known = parts.clone().next().is_some();
    let whole = match look.pair.of(arm) {
        Ok(Value::Level(level)) if !known => {
            Some(Level { name: whole, started: None, level: *level })
        }
        Ok(_) | Err(_) => None,
    };
    parts.chain(whole)
}

/// Why "no leak so far" would not mean "clear": hardly any point of one arm's envelope yet.
fn unfilled(evidence: &SlopeEvidence, compares: bool) -> Option<Missing> {
    let ([canary, baseline], width_secs) = evidence.filled();
    let (arm, points) = if compares && baseline < canary {
        (Arm::Baseline, baseline)
    } else {
        (Arm::Canary, canary)
    };
    let detail = || {
        format!(
            "{arm}: {points} of the {CLEAR_POINTS_MIN} points, {width_secs} s or a look apart, \
                 that a slope has at least"
        )
    };
    (points < CLEAR_POINTS_MIN).then(|| Missing::new(Why::WarmUp, detail()))
}

/// The p-value of the strongest test over its share of alpha, in decades; `rulefile` allows slopes
/// of levels only, so no rate of events and no noise intensity is involved.
fn evidence_progress(decades: f64, needed: f64, inflation: f64) -> Progress {
    let origin = Origin::Analysis { history_secs: 0.0, secs: 0.0 };
    let noise = NoiseUsed { factor: inflation.max(1.0), kappa_secs: 0.0, origin };
    Progress::Evidence { decades, needed, noise }
}

fn note(look: &Look<'_>, found: &Found) -> String {
    let mut note = format!("over the last {}", time_words(found.span_secs));
    match found.growth {
        Growth::Steady => {}
        Growth::Slowing => note.push_str(", slowing down as a heap does that fills"),
        Growth::Young => note.push_str(", of a process too young to tell a leak from a start"),
    }
    if let Some((limit, secs)) = limit_reached(look, found) {
        let limit = quantity_words(limit, look.signal.unit);
        note.push_str(&format!("; reaches its limit of {limit} in {}", time_words(secs)));
    }
    note
}

/// The level's end and how far away it is at this pace, where growing is shown at all.
fn limit_reached(look: &Look<'_>, found: &Found) -> Option<(f64, f64)> {
    let SignalKind::Gauge { limit: Some(limit) } = look.signal.kind else { return None };
    let secs = (limit - found.level) / found.slope;
    let shown = found.effect.1 > 0.0 && found.growth == Growth::Steady;
    (shown && secs > 0.0 && secs <= REACHED_SECS_MAX).then_some((limit, secs))
}

/// Which instance it is, where there are several.
fn blame(found: &Found) -> Option<Blame> {
    (found.bad_of.1 > 1).then(|| Blame {
        by: BlameBy::Instance,
        name: found.instance.to_string(),
        share: found.share,
        bad_of: found.bad_of,
    })
}

fn time_words(secs: f64) -> String {
    match secs {
        secs if secs < 119.5 => format!("{secs:.0} s"),
        secs if secs < 7170.0 => format!("{:.0} min", secs / 60.0),
        secs => format!("{:.0} h", secs / 3600.0),
    }
}

fn quantity_words(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes if value >= 1_073_741_824.0 => format!("{:.1} GiB", value / 1_073_741_824.0),
        Unit::Bytes => format!("{:.0} MiB", value / 1_048_576.0),
        Unit::Share => format!("{:.0} %", value * 100.0),
        Unit::Seconds => format!("{value} s"),
        Unit::PerSecond | Unit::Count | Unit::Health | Unit::Number => format!("{value}"),
    }
}
