//! Evidence that a rate, share or quantile is beyond a constant.

use super::{LOOK_SECS_MIN, Look, evidence_finding, scarcity, used};
use crate::engine::{
    observation::{Arm, Histogram, Missing, Value, Why},
    rule::{Op, SignalKind},
    verdict::ClauseFinding,
    wager::{Beyond, LimitTerms, LimitWager},
};

/// On which side of its limit the count of a clause is looked for.
pub(super) fn looked_for(kind: SignalKind, op: Op) -> Beyond {
    match (kind, op) {
        // Of a share that is too low those are counted that it lacks, and they are too many.
        (SignalKind::Ratio { .. }, _) | (_, Op::Above | Op::AtLeast) => Beyond::Above,
        // A quantile is below a latency when fewer requests are slower than that.
        (
            SignalKind::Rate
            | SignalKind::Count
            | SignalKind::Quantile { .. }
            | SignalKind::Gauge { .. }
            | SignalKind::Health
            | SignalKind::Restarts,
            Op::Below | Op::AtMost,
        ) => Beyond::Below,
    }
}

pub(super) fn limit_look(
    evidence: &mut LimitWager,
    look: &Look<'_>,
    op: Op,
    limit: f64,
    needed: f64,
) -> ClauseFinding {
    let mut note = None;
    let side = looked_for(look.signal.kind, op);
    let usual = look.usual();
    let counted: Option<Counted> = match (&look.pair.canary, look.signal.kind, op) {
        (Ok(Value::Share { events, total }), _, Op::Above | Op::AtLeast) => {
            Some(Counted { events: *events, total: *total, limit, usual })
        }
        // "less than 95 % good" is "more than 5 % not good".
        (Ok(Value::Share { events, total }), _, Op::Below | Op::AtMost) => Some(Counted {
            events: total - events,
            total: *total,
            limit: 1.0 - limit,
            usual: usual.map(|usual| 1.0 - usual),
        }),
        (Ok(Value::Events { events, instance_secs, instances }), ..) => {
            let instances = f64::from((*instances).max(1));
            let usual = usual.map(|usual| usual * instances);
            Some(Counted { events: *events, total: instance_secs / instances, limit, usual })
        }
        (Ok(Value::Histogram(histogram)), SignalKind::Quantile { q }, _) => {
            beyond_edge(histogram, side, limit).map(|(edge, above)| {
                note = Some(format!("judged at the bucket edge {edge}"));
                Counted { events: above, total: histogram.total(), limit: 1.0 - q, usual: None }
            })
        }
        (Ok(Value::Native(histogram)), SignalKind::Quantile { q }, _) => {
            let at = match side {
                Beyond::Above => Some(histogram.above(limit)),
                Beyond::Below => histogram.above_lower(limit),
            };
            at.map(|(edge, above)| {
                note = Some(format!("judged at the bucket edge {edge}"));
                Counted { events: above, total: histogram.total(), limit: 1.0 - q, usual: None }
            })
        }
        _ => None,
    };
    let secs = look.secs.max(LOOK_SECS_MIN);
    let mut noise = 1.0;
    if let Some(Counted { events, total, limit, usual }) = counted {
        noise = look.noise.limit(limit * total / secs);
        let limit = limit.max(f64::MIN_POSITIVE);
        evidence.step(events, total, &LimitTerms { limit, noise, usual });
    }
    let log_value = evidence.log_value();
    let is_histogram = matches!(&look.pair.canary, Ok(Value::Histogram(_) | Value::Native(_)));
    let missing = if is_histogram && counted.is_none() {
        let where_from = match side {
            Beyond::Above => "above",
            Beyond::Below => "below",
        };
        Some(Missing::new(Why::BucketLayout, format!("no bucket edge at or {where_from} {limit}")))
    } else {
        scarcity(look, false)
    };
    let canary = look.track.arm(Arm::Canary);
    ClauseFinding {
        estimate: canary.estimate,
        bound: Some(limit),
        window: canary.window_counts,
        note,
        ..evidence_finding(look, log_value, needed, used(look, noise), missing)
    }
}

/// What a look has of what the limit is on.
struct Counted {
    events: f64,
    total: f64,
    /// Allowed events of the total.
    limit: f64,
    /// Usual events of the total, when known.
    usual: Option<f64>,
}

/// A bucket edge and the requests beyond it. Not the nearest: for too many slow requests the lowest
/// at or above the limit, for too few the highest at or below it. Fewer requests are beyond a higher
/// edge, so that evidence there is evidence for the limit.
fn beyond_edge(histogram: &Histogram, side: Beyond, limit: f64) -> Option<(f64, f64)> {
    let edge = match side {
        Beyond::Above => histogram.edges.partition_point(|&edge| edge < limit),
        Beyond::Below => histogram.edges.partition_point(|&edge| edge <= limit).checked_sub(1)?,
    };
    (edge < histogram.edges.len()).then(|| (histogram.edges[edge], histogram.above(edge)))
}
