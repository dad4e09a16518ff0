//! One release being judged: a fold over observations.
//!
//! `step` is the only way in. Cost and memory of a look do not depend on how many there were.

use std::{sync::Arc, time::Duration};

use super::{
    calibration::{Calibration, SignalCalibration},
    clause::{ClauseState, Look},
    compared::Compared,
    evidence::Counts,
    observation::{Arm, Missing, Observation, Pair, Time, Why},
    release::Release,
    residual::Residual,
    rule::{Action, Clause, Condition, Rule, RuleSet, Test},
    together::{Counted, Together},
    track::Track,
    verdict::{
        ClauseFinding, DOUBT_DECADES, Estimates, Finding, Progress, Standing, State, Step, Verdict,
        conclude,
    },
};

/// One release of one service being judged.
#[derive(Clone, Debug)]
pub struct Analysis {
    rules: Arc<RuleSet>,
    started: Time,
    last_look: Option<Time>,
    looks: u64,
    tracks: Vec<Track>,
    /// By signal: what a comparison has not counted yet.
    together: Vec<Together>,
    states: Vec<RuleState>,
    /// By signal: noise as it is taken at the next look.
    noise: Vec<SignalCalibration>,
    /// By signal: how far apart the arms are, where a rule compares them by evidence or a margin is
    /// to be shown.
    compared: Vec<Option<Compared>>,
    release: Release,
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
        let tracks = rules.signals.iter().map(|signal| Track::new(signal.kind, window)).collect();
        let states = rules
            .rules
            .iter()
            .map(|rule| {
                let alpha = rules.alpha(rule);
                let clauses = rule.when.clauses().into_iter().map(|clause| {
                    ClauseState::new(clause, &rules.signals[clause.signal], alpha, horizon)
                });
                let (clauses, state) = (clauses.collect(), State::NotEnoughData);
                RuleState { clauses, state, since: started }
            })
            .collect();
        let compared = (0..rules.signals.len())
            .map(|index| {
                let signal = &rules.signals[index];
                let is_compared = signal.margin.is_some() || rules.compares_by_evidence(index);
                let rate = rules.promote.false_promotion_rate;
                if is_compared { Compared::new(signal, rate) } else { None }
            })
            .collect();
        let release = Release::new(started);
        let together = vec![Together::default(); rules.signals.len()];
        Self {
            rules,
            started,
            last_look: None,
            looks: 0,
            tracks,
            together,
            states,
            noise,
            residuals,
            compared,
            release,
        }
    }

    /// The rules it is judged by.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// Index of the present step of a progressive release; 0 without steps.
    pub fn release_step(&self) -> usize {
        self.release.step()
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
        let window = self.rules.observe.window;
        let together = self.together.iter_mut().enumerate();
        let counted: Vec<Counted<'_>> =
            together.map(|(signal, together)| together.take(pair(signal), secs, window)).collect();
        let (rules, tracks, noise) = (self.rules.clone(), &self.tracks, &self.noise);
        let look = |signal: usize| Look {
            now,
            secs,
            window,
            signal: &rules.signals[signal],
            pair: pair(signal),
            track: tracks[signal].arms(),
            noise: noise[signal],
            effect: None,
        };
        // What compares the arms is shown what they amounted to since they last were there together.
        let both = |signal: usize| {
            let Counted { pair, secs } = &counted[signal];
            Look { pair, secs: *secs, ..look(signal) }
        };
        for (signal, compared) in self.compared.iter_mut().enumerate() {
            if let Some(compared) = compared {
                compared.step(&both(signal));
            }
        }
        let compared = &self.compared;
        let findings: Vec<Finding> = rules
            .rules
            .iter()
            .zip(&mut self.states)
            .map(|(rule, state)| {
                state.look(rule, elapsed, now, |clause| {
                    let signal = clause.signal;
                    let effect = compared[signal].as_ref().and_then(Compared::effect);
                    let look = match clause.test {
                        Test::BeyondBaseline { .. } => both(signal),
                        Test::Dwell { .. }
                        | Test::BeyondConstant { .. }
                        | Test::Slope { .. }
                        | Test::Counted { .. }
                        | Test::HealthIs { .. }
                        | Test::HealthLatency { .. } => look(signal),
                    };
                    Look { effect, ..look }
                })
            })
            .collect();
        let estimates: Vec<Estimates> = tracks
            .iter()
            .enumerate()
            .map(|(signal, track)| Estimates {
                canary: track.arm(Arm::Canary).estimate,
                baseline: track.arm(Arm::Baseline).estimate,
                proof: compared[signal].as_ref().and_then(|compared| compared.proof(&both(signal))),
            })
            .collect();
        self.learn_noise(&counted);
        let held = self.release.hold_left(&rules, now).is_zero();
        let unseen = if held { self.unseen_by_sleepers(now, &findings) } else { None };
        let canary_gap = observation.canary_gap.clone().or(unseen);
        let standing = Standing {
            elapsed,
            held,
            known: self.is_known(now, &findings),
            has_gap: canary_gap.is_some(),
            proven: is_proven(&rules, &findings, &estimates),
            next_step: self.release.next(&rules),
        };
        let verdict = conclude(&rules.rules, &findings, &standing, &rules.promote);
        if let Verdict::Advance { to } = verdict {
            self.release.advance(to, now);
        }
        Step {
            look: self.looks,
            at: now,
            elapsed,
            findings,
            estimates,
            canary_gap,
            instances: observation.instances,
            verdict,
            release_step: self.release.step(),
            hold_left: self.release.hold_left(&self.rules, now),
        }
    }
}

impl Analysis {
    /// Takes the look that has just been judged into what is known of the noise at the next.
    fn learn_noise(&mut self, counted: &[Counted<'_>]) {
        let signals = self.noise.iter_mut().zip(&mut self.residuals).zip(counted);
        for ((noise, residual), Counted { pair, secs }) in signals {
            if let (Some(residual), Some(counts)) = (residual, Counts::of(pair)) {
                residual.step(&counts, *secs);
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

impl Analysis {
    /// Whether every rule that is awake had enough data. Once all traffic goes to the new version
    /// by intention, a comparison that only lacks the old one was judged at the steps before.
    fn is_known(&self, now: Time, findings: &[Finding]) -> bool {
        let whole = self.release.is_whole(&self.rules);
        let window = self.rules.observe.window;
        self.rules.rules.iter().zip(findings).all(|(rule, finding)| match finding.state {
            State::Fires | State::Clear | State::Asleep => true,
            State::NotEnoughData => {
                let mut clauses = rule.when.clauses().into_iter().zip(&finding.clauses);
                whole
                    && clauses.all(|(clause, found)| {
                        let track = &self.tracks[clause.signal];
                        let of = |arm: Arm| track.arm(arm).outage(arm, now, window);
                        found.state != State::NotEnoughData
                            || (clause.test.needs_baseline()
                                && of(Arm::Canary).is_none()
                                && of(Arm::Baseline).is_some())
                    })
            }
        })
    }
}

/// Whether every margin was shown, and no evidence stands against the release. It need not be enough
/// to roll back: with a decade against it a release is not promoted either.
fn is_proven(rules: &RuleSet, findings: &[Finding], estimates: &[Estimates]) -> bool {
    let shown = |estimates: &Estimates| estimates.proof.is_none_or(|proof| proof.shown);
    let asked = rules.signals.iter().zip(estimates);
    // A margin of a signal that cannot be proven is one that is never shown.
    let all = asked.clone().all(|(signal, estimates)| match signal.margin {
        Some(_) => estimates.proof.is_some() && shown(estimates),
        None => true,
    });
    all && !rules.rules.iter().zip(findings).any(|(rule, finding)| {
        let against = matches!(rule.then, Action::Rollback | Action::Investigate);
        let mut clauses = rule.when.clauses().into_iter().zip(&finding.clauses);
        against
            && clauses.any(|(clause, found)| match clause.test {
                Test::BeyondBaseline { .. } | Test::BeyondConstant { .. } => {
                    stands_against(found.progress)
                }
                // What is told of a slope is no e-value: one in ten healthy ones stands at a decade.
                Test::Slope { .. }
                | Test::Dwell { .. }
                | Test::Counted { .. }
                | Test::HealthIs { .. }
                | Test::HealthLatency { .. } => false,
            })
    })
}

fn stands_against(progress: Progress) -> bool {
    match progress {
        Progress::Evidence { decades, .. } => decades >= DOUBT_DECADES,
        Progress::Held { .. } | Progress::Checks { .. } | Progress::Count { .. } => false,
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
        looks: impl Fn(&Clause) -> Look<'a>,
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
                .map(|(clause, state)| state.look(&looks(clause)))
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
