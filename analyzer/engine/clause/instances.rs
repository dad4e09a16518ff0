//! A clause asked `on most instances`: judged on each instance by itself, against the same bound or
//! the same baseline arm, and firing while it fires on more than half of them.
//!
//! An instance is counted from its first look on and while it has been seen within the last window.
//! With fewer than two the arm is judged as a whole.
//!
//! **What becomes of alpha.** Of `n` instances, each with a process that a healthy release carries to
//! its threshold with a chance of at most `a`, on average `n a` get there. That more than half do has
//! then a chance below `2 a`, however the instances depend on each other (Markov). So each gets a
//! quarter of the clause's alpha and the arm as a whole a half: together the clause keeps its share,
//! and with instances that err independently it is far below. This holds for instances that stay;
//! a set that is replaced as a whole is a new bet.
//!
//! The finding shows the arm's numbers, and of the evidence (or the time held) what the instance has
//! that decides: the least of the larger half.

use std::{sync::Arc, time::Duration};

use super::{ClauseState, Look};
use crate::engine::{
    observation::{Missing, PARTS_MAX, Pair, PartKind, Reading, Time, Value, Why},
    rule::{Clause, Scope, Signal, Test},
    track::{ArmTrack, Arms},
    verdict::{ClauseFinding, Progress, State},
};

/// Share of the clause's alpha for the arm as a whole.
const ARM_ALPHA: f64 = 0.5;

/// Share of the clause's alpha for each instance.
const INSTANCE_ALPHA: f64 = 0.25;

/// One clause on every instance of the canary.
#[derive(Clone, Debug)]
pub(super) struct Instances {
    arm: ClauseState,
    /// What a new instance begins with.
    fresh: ClauseState,
    members: Vec<Member>,
}

#[derive(Clone, Debug)]
struct Member {
    name: Arc<str>,
    seen: Time,
    track: ArmTrack,
    state: ClauseState,
}

impl Instances {
    /// The same clause on instances that are yet to be seen; none where the clause is asked of the
    /// arm, or is of a form that takes instances apart itself.
    pub(super) fn of(clause: &Clause, signal: &Signal, alpha: f64, horizon: u32) -> Option<Self> {
        match (clause.scope, clause.test) {
            (
                Scope::MostInstances,
                Test::Dwell { .. } | Test::BeyondConstant { .. } | Test::BeyondBaseline { .. },
            ) => {}
            (Scope::Arm, _)
            | (
                Scope::MostInstances,
                Test::Slope { .. }
                | Test::Counted { .. }
                | Test::HealthIs { .. }
                | Test::HealthLatency { .. },
            ) => return None,
        }
        let whole = Clause { scope: Scope::Arm, ..clause.clone() };
        let state = |share: f64| ClauseState::new(&whole, signal, alpha * share, horizon);
        Some(Self { arm: state(ARM_ALPHA), fresh: state(INSTANCE_ALPHA), members: Vec::new() })
    }

    /// Takes one look.
    pub(super) fn look(&mut self, look: &Look<'_>) -> ClauseFinding {
        let whole = self.arm.look(look);
        self.meet(look);
        let silent = || -> Reading { Err(Missing::new(Why::NoTraffic, "no data of it")) };
        let mut pair = Pair::new(silent(), look.pair.baseline.clone());
        let mut findings: Vec<(&Arc<str>, ClauseFinding)> = Vec::with_capacity(self.members.len());
        for member in &mut self.members {
            pair.canary =
                part(look.pair, &member.name).map_or_else(silent, |part| Ok(part.clone()));
            member.track.absorb(look.signal.kind, look.now, &pair.canary);
            let track = Arms { canary: &member.track, baseline: look.track.baseline };
            let own = Look { pair: &pair, track, ..*look };
            findings.push((&member.name, member.state.look(&own)));
        }
        if findings.len() < 2 {
            return whole;
        }
        most(whole, findings)
    }

    /// Takes in the instances that are new and lets go those that have not been seen for a window.
    fn meet(&mut self, look: &Look<'_>) {
        // Evidence needs no window of its own, and an instance's would be its largest part.
        let is_dwell = matches!(self.fresh.test, Test::Dwell { .. });
        let window = if is_dwell { look.window } else { Duration::ZERO };
        let instances = look.pair.parts.canary.iter();
        for part in instances.filter(|part| part.kind == PartKind::Instance) {
            match self.members.binary_search_by(|member| member.name.cmp(&part.name)) {
                Ok(place) => self.members[place].seen = look.now,
                Err(place) if self.members.len() < PARTS_MAX => {
                    let track = ArmTrack::new(window);
                    let (name, state) = (part.name.clone(), self.fresh.clone());
                    self.members.insert(place, Member { name, seen: look.now, track, state });
                }
                Err(_) => {}
            }
        }
        self.members.retain(|member| look.now.since(member.seen) < look.window);
    }
}

fn part<'a>(pair: &'a Pair, name: &str) -> Option<&'a Value> {
    let parts = &pair.parts.canary;
    let key = (PartKind::Instance, name);
    let place = parts.binary_search_by(|part| (part.kind, &*part.name).cmp(&key)).ok()?;
    Some(&parts[place].value)
}

/// The arm's finding with the state of the larger half.
fn most(whole: ClauseFinding, mut findings: Vec<(&Arc<str>, ClauseFinding)>) -> ClauseFinding {
    let (of, needed) = (findings.len(), findings.len() / 2 + 1);
    let count = |state| findings.iter().filter(|(_, finding)| finding.state == state).count();
    let (firing, clear) = (count(State::Fires), count(State::Clear));
    let state = if firing >= needed {
        State::Fires
    } else if of - clear >= needed {
        State::NotEnoughData
    } else {
        State::Clear
    };
    let unknown = findings.iter().find_map(|(name, finding)| {
        let missing = finding.missing.as_ref()?;
        Some(Missing::new(missing.why, format!("{name}: {}", missing.detail)))
    });
    let far = |finding: &ClauseFinding| (finding.state == State::Fires, reached(finding.progress));
    findings.sort_by(|(_, a), (_, b)| {
        let ((a_fires, a_share), (b_fires, b_share)) = (far(a), far(b));
        b_fires.cmp(&a_fires).then(b_share.total_cmp(&a_share))
    });
    ClauseFinding {
        state,
        progress: findings[needed - 1].1.progress,
        missing: unknown.filter(|_| state == State::NotEnoughData),
        note: Some(format!("holds on {firing} of {of} instances, needs {needed}")),
        blame: None,
        ..whole
    }
}

/// How much of what it needs to fire.
fn reached(progress: Progress) -> f64 {
    let (value, needed) = match progress {
        Progress::Evidence { decades, needed, .. } => (decades, needed),
        Progress::Held { held, needed } => (held.as_secs_f64(), needed.as_secs_f64()),
        Progress::Checks { checks, needed } => (f64::from(checks), f64::from(needed)),
        Progress::Count { count, limit } => (count, limit),
    };
    if needed > 0.0 { value / needed } else { value }
}
