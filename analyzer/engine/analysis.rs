//! One release being judged: a fold over observations.
//!
//! `step` is the only way in. Cost and memory of a look do not depend on how many there were.

use std::{sync::Arc, time::Duration};

use super::{
    calibration::{Calibration, SignalCalibration},
    clause::{ClauseState, Look},
    evidence::Counts,
    observation::{Arm, Missing, Observation, Pair, Time, Why},
    residual::Residual,
    rule::{Condition, Rule, RuleSet},
    track::Track,
    verdict::{ClauseFinding, Estimates, Finding, State, Step, conclude},
};

/// One release of one service being judged.
#[derive(Clone, Debug)]
pub struct Analysis {
    rules: Arc<RuleSet>,
    started: Time,
    last_look: Option<Time>,
    looks: u64,
    tracks: Vec<Track>,
    states: Vec<RuleState>,
    /// By signal: noise as it is taken at the next look.
    noise: Vec<SignalCalibration>,
    /// By signal: what this analysis itself shows of it, where a rule compares event rates.
    residuals: Vec<Option<Residual>>,
}

#[derive(Clone, Debug)]
struct RuleState {
    clauses: Vec<ClauseState>,
    state: State,
    since: Time,
}

impl Analysis {
    /// An analysis that begins at `started`, has seen nothing and knows nothing of the past.
    pub fn new(rules: Arc<RuleSet>, started: Time) -> Self {
        Self::calibrated(rules, started, &Calibration::default())
    }

    /// The same for a service whose past has been measured.
    pub fn calibrated(rules: Arc<RuleSet>, started: Time, calibration: &Calibration) -> Self {
        let noise: Vec<_> = (0..rules.signals.len()).map(|signal| calibration.of(signal)).collect();
        let residuals = noise
            .iter()
            .enumerate()
            .map(|(signal, known)| rules.compares_rates(signal).then(|| Residual::new(*known)))
            .collect();
        let window = rules.observe.window;
        let horizon = horizon_looks(&rules);
        let evidence_clauses = rules
            .rules
            .iter()
            .flat_map(|rule| rule.when.clauses())
            .filter(|clause| ClauseState::is_evidence(&clause.test))
            .count();
        let alpha = rules.false_rollback_rate / evidence_clauses.max(1) as f64;
        let tracks = rules.signals.iter().map(|signal| Track::new(signal.kind, window)).collect();
        let states = rules
            .rules
            .iter()
            .map(|rule| RuleState {
                clauses: rule
                    .when
                    .clauses()
                    .iter()
                    .map(|clause| {
                        ClauseState::new(clause, &rules.signals[clause.signal], alpha, horizon)
                    })
                    .collect(),
                state: State::NotEnoughData,
                since: started,
            })
            .collect();
        Self { rules, started, last_look: None, looks: 0, tracks, states, noise, residuals }
    }

    /// The rules it is judged by.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// Looks taken so far.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// Takes one look and says what it comes to.
    pub fn step(&mut self, observation: &Observation) -> Step {
        let now = observation.at;
        let secs = self
            .last_look
            .map_or(self.rules.observe.interval, |last| now.since(last))
            .as_secs_f64();
        self.last_look = Some(now);
        self.looks += 1;
        let elapsed = now.since(self.started);
        let unseen = unseen_pair();
        let pair = |signal: usize| observation.signals.get(signal).unwrap_or(&unseen);
        for (signal, track) in self.tracks.iter_mut().enumerate() {
            track.absorb(now, pair(signal));
        }
        let (rules, tracks, noise) = (&self.rules, &self.tracks, &self.noise);
        let findings: Vec<Finding> = rules
            .rules
            .iter()
            .zip(&mut self.states)
            .map(|(rule, state)| {
                let looks = |signal: usize| Look {
                    now,
                    secs,
                    window: rules.observe.window,
                    signal: &rules.signals[signal],
                    pair: pair(signal),
                    track: &tracks[signal],
                    noise: noise[signal],
                };
                state.look(rule, elapsed, now, looks)
            })
            .collect();
        self.learn_noise(observation, secs);
        let (rules, tracks) = (&self.rules, &self.tracks);
        let held = elapsed >= rules.promote.after;
        let unseen = if held { self.unseen_by_sleepers(now, &findings) } else { None };
        let canary_gap = observation.canary_gap.clone().or(unseen);
        let verdict =
            conclude(&rules.rules, &findings, elapsed, canary_gap.is_some(), &rules.promote);
        let estimates = tracks
            .iter()
            .map(|track| Estimates {
                canary: track.arm(Arm::Canary).estimate,
                baseline: track.arm(Arm::Baseline).estimate,
                proof: None,
            })
            .collect();
        let look = self.looks;
        let release_step = 0;
        Step { look, at: now, elapsed, findings, estimates, canary_gap, verdict, release_step }
    }
}

impl Analysis {
    /// Takes the look that has just been judged into what is known of the noise at the next.
    fn learn_noise(&mut self, observation: &Observation, secs: f64) {
        let readings = observation.signals.iter().zip(&mut self.noise);
        for ((pair, noise), residual) in readings.zip(&mut self.residuals) {
            if let (Some(residual), Some(counts)) = (residual, Counts::of(pair)) {
                residual.step(&counts, secs);
                *noise = residual.noise();
            }
        }
    }

    /// Why a signal that only sleeping rules ask for has no data. Asleep is not clear: without this
    /// a release nobody saw would be promoted once its rules sleep.
    fn unseen_by_sleepers(&self, now: Time, findings: &[Finding]) -> Option<Missing> {
        let rules = self.rules.rules.iter().zip(findings);
        let sleepers = rules.filter(|(_, finding)| finding.state == State::Asleep);
        let mut clauses = sleepers.flat_map(|(rule, _)| rule.when.clauses());
        clauses.find_map(|clause| {
            if self.rules.signals[clause.signal].optional && self.tracks[clause.signal].is_absent()
            {
                return None;
            }
            let canary = self.tracks[clause.signal].arm(Arm::Canary);
            let missing = canary.outage(Arm::Canary, now, self.rules.observe.window)?;
            let name = &self.rules.signals[clause.signal].name;
            Some(Missing::new(missing.why, format!("{name} of {}", missing.detail)))
        })
    }
}

/// Looks in the hold: what the prior over onsets is spread over. Not the deadline, which is often
/// several times as long and would make every detection slower: looks without traffic spend the
/// prior without weighing it down, so an analysis that waits for traffic loses nothing.
fn horizon_looks(rules: &RuleSet) -> u32 {
    let looks = rules.promote.after.as_secs_f64() / rules.observe.interval.as_secs_f64();
    looks.ceil().clamp(1.0, f64::from(u32::MAX)) as u32
}

/// Stands in for a signal that an observation does not hold.
fn unseen_pair() -> Pair {
    let unseen = || Err(Missing::new(Why::NotObserved, "the observation has no such signal"));
    Pair::new(unseen(), unseen())
}

impl RuleState {
    fn look<'a>(
        &mut self,
        rule: &Rule,
        elapsed: Duration,
        now: Time,
        looks: impl Fn(usize) -> Look<'a>,
    ) -> Finding {
        let early = rule.after.is_some_and(|after| elapsed < after);
        let late = rule.until.is_some_and(|until| elapsed >= until);
        // A rule that sleeps sees nothing: what it judges begins when it wakes.
        let (state, clauses) = if early || late {
            (State::Asleep, Vec::new())
        } else {
            let clauses: Vec<ClauseFinding> = rule
                .when
                .clauses()
                .iter()
                .zip(&mut self.clauses)
                .map(|(clause, state)| state.look(&looks(clause.signal)))
                .collect();
            (combine(&rule.when, &mut clauses.iter().map(|clause| clause.state)), clauses)
        };
        if state != self.state {
            self.state = state;
            self.since = now;
        }
        Finding { state, clauses, in_state: now.since(self.since) }
    }
}

/// Three-valued logic (Kleene): "not enough data" stays so unless the rest decides anyway.
/// Consumes one state per clause, left to right.
fn combine(condition: &Condition, states: &mut impl Iterator<Item = State>) -> State {
    match condition {
        Condition::Clause(_) => states.next().unwrap_or(State::NotEnoughData),
        Condition::Not(part) => match combine(part, states) {
            State::Fires => State::Clear,
            State::Clear => State::Fires,
            unknown @ (State::NotEnoughData | State::Asleep) => unknown,
        },
        Condition::And(parts) => fold(parts, states, State::Clear, State::Fires),
        Condition::Or(parts) => fold(parts, states, State::Fires, State::Clear),
    }
}

/// Folds parts of which `decisive` settles the whole and `otherwise` is what is left if all are so.
fn fold(
    parts: &[Condition],
    states: &mut impl Iterator<Item = State>,
    decisive: State,
    otherwise: State,
) -> State {
    // Every part is combined, whatever the first says: each consumes its clauses' states.
    let parts: Vec<State> = parts.iter().map(|part| combine(part, states)).collect();
    if parts.contains(&decisive) {
        decisive
    } else if parts.iter().all(|part| *part == otherwise) {
        otherwise
    } else {
        State::NotEnoughData
    }
}
