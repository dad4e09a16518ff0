//! Counts since the analysis began, and health statuses.

use std::time::Duration;

use super::{Look, blank, outage};
use crate::engine::{
    dwell::Dwell,
    observation::{Arm, Health, Missing, Value, Why},
    rule::{HealthHold, Op},
    verdict::{ClauseFinding, Progress, State},
};

pub(super) fn counted_look(look: &Look<'_>, op: Op, limit: f64) -> ClauseFinding {
    let canary = look.track.arm(Arm::Canary);
    let count = canary.totals[0];
    let missing = outage(look, false);
    // A count that has been reached stays reached, whatever the target does now.
    let state = match (op.holds(count, limit) && canary.last_data.is_some(), &missing) {
        (true, _) => State::Fires,
        (false, None) => State::Clear,
        (false, Some(_)) => State::NotEnoughData,
    };
    let missing = missing.filter(|_| state == State::NotEnoughData);
    let progress = Progress::Count { count, limit };
    let estimate = canary.last_data.map(|_| count);
    ClauseFinding { estimate, bound: Some(limit), missing, ..blank(look, state, progress) }
}

pub(super) fn health_look(
    streak: &mut u32,
    dwell: &mut Dwell,
    look: &Look<'_>,
    status: Health,
    hold: HealthHold,
) -> ClauseFinding {
    let seen = match &look.pair.canary {
        Ok(Value::Health { status, .. }) => Some(*status),
        Ok(_) | Err(_) => None,
    };
    let holds = seen.map(|seen| seen == status);
    match holds {
        Some(true) => *streak = streak.saturating_add(1),
        Some(false) => *streak = 0,
        None => {}
    }
    let held = dwell.look(look.now, holds, look.window).unwrap_or(Duration::ZERO);
    let (enough, progress) = match hold {
        HealthHold::Checks(needed) => {
            (*streak >= needed, Progress::Checks { checks: *streak, needed })
        }
        HealthHold::For(needed) => (held >= needed, Progress::Held { held, needed }),
    };
    let (state, missing) = match holds {
        Some(true) if enough => (State::Fires, None),
        Some(_) => (State::Clear, None),
        None => {
            let unseen = || Missing::new(Why::NotObserved, "canary: no probe at this look");
            (State::NotEnoughData, Some(outage(look, false).unwrap_or_else(unseen)))
        }
    };
    let note = seen.map(|seen| seen.to_string());
    ClauseFinding { missing, note, ..blank(look, state, progress) }
}
