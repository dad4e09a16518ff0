//! Whether instances are alive, and what they say of themselves: health answers, the numbers in them,
//! and scrapes that are answered or not.
//!
//! One that has never been up is given the warm-up to come up; from its first answer on, silence is an
//! outage. Here alone a failed scrape is a value and not missing data.

use std::time::Duration;

use super::{
    carry::InstanceCarry,
    parts::Piece,
    sample::{InstanceReading, Probe},
};
use crate::engine::observation::{Health, Missing, Reading, Time, Value, Why};

/// Why an instance is not judged yet.
pub(super) fn too_young() -> Missing {
    Missing::new(Why::WarmUp, "younger than the warm-up")
}

/// Why a dependency says nothing of the baseline.
pub(super) fn asked_once(url: &str) -> Missing {
    Missing::new(Why::NotObserved, format!("{url} is asked once, for the canary"))
}

/// Whether one instance answers when it is scraped: 1 or 0. A metrics server says it itself; where
/// we scrape, a scrape that failed says no, and one that was never tried says nothing.
pub(super) fn up_piece(
    signal: usize,
    reading: &InstanceReading,
    carry: &mut InstanceCarry,
    (now, warmup): (Time, Duration),
) -> Result<Piece, Missing> {
    let told = reading.levels.iter().find(|level| level.signal == signal);
    let answers = match (told, &reading.samples) {
        (Some(level), _) => level.value.clone()? > 0.0,
        (None, Ok(_)) => true,
        (None, Err(missing)) if missing.why == Why::ScrapeFailed => false,
        (None, Err(missing)) => return Err(missing.clone()),
    };
    let known = carry.been_up.contains(&signal);
    if answers && !known {
        carry.been_up.push(signal);
    }
    if !answers && !known && now.since(carry.first_seen) < warmup {
        return Err(Missing::new(Why::WarmUp, "has not answered a scrape yet"));
    }
    Ok(Piece::Level(f64::from(u8::from(answers))))
}

/// A number of one instance's health answer.
pub(super) fn answer_piece(
    signal: usize,
    reading: &InstanceReading,
    warm: bool,
) -> Result<Piece, Missing> {
    let told = reading.levels.iter().find(|level| level.signal == signal);
    let unasked = || Missing::new(Why::NotObserved, "no health answer was asked for");
    let level = told.ok_or_else(unasked)?.value.clone()?;
    if warm { Ok(Piece::Level(level)) } else { Err(too_young()) }
}

/// One instance's health. One that has never been up is given the warm-up to come up.
pub(super) fn instance_health(
    probe: &Probe,
    carry: &mut InstanceCarry,
    now: Time,
    warmup: Duration,
) -> Reading {
    let answer = probe.answer.as_ref().map_err(Clone::clone)?;
    let known = carry.been_up.contains(&probe.signal);
    match answer.status {
        Health::Up | Health::Degraded if !known => carry.been_up.push(probe.signal),
        Health::Down if !known && now.since(carry.first_seen) < warmup => {
            return Err(Missing::new(Why::WarmUp, format!("not up yet: {}", answer.detail)));
        }
        Health::Up | Health::Degraded | Health::Down => {}
    }
    Ok(Value::Health { status: answer.status, latency_secs: answer.latency_secs })
}

/// Whether a probe was answered, whatever the answer was.
pub(super) fn is_answered(probe: &Probe) -> bool {
    probe.answer.as_ref().is_ok_and(|answer| answer.latency_secs.is_some())
}

pub(super) fn dependency_reading(probe: &Probe) -> Reading {
    let answer = probe.answer.as_ref().map_err(Clone::clone)?;
    Ok(Value::Health { status: answer.status, latency_secs: answer.latency_secs })
}

/// The worst instance counts. Where none is down, one that cannot be understood leaves the arm
/// unknown: missing data is not health.
pub(super) fn worst_health(answers: Vec<Reading>) -> Reading {
    let (mut worst, mut slowest, mut unknown) = (None, None::<f64>, None);
    for answer in answers {
        match answer {
            Ok(Value::Health { status, latency_secs }) => {
                worst = worst.max(Some(status));
                slowest = match (slowest, latency_secs) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    (a, b) => a.or(b),
                };
            }
            Ok(_) => {}
            Err(missing) => unknown = Some(missing),
        }
    }
    match (worst, unknown) {
        (Some(Health::Down), _) => {
            Ok(Value::Health { status: Health::Down, latency_secs: slowest })
        }
        (_, Some(missing)) => Err(missing),
        (Some(status), None) => Ok(Value::Health { status, latency_secs: slowest }),
        (None, None) => Err(Missing::new(Why::NotObserved, "no instance was probed")),
    }
}
