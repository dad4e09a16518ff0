//! A study: every question's releases judged on all cores, and what became of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    questions::{Ask, Question},
    share::Share,
    trial::{Ending, Trial, calibration, judge},
};
use crate::engine::{calibration::Calibration, rule::RuleSet};

/// What became of all runs of one question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Which question this answers.
    pub question: Question,
    /// One entry per run, in the order of their seeds.
    pub trials: Vec<Trial>,
}

impl Answer {
    /// Seconds between the fault and its rollback, ascending; a release rolled back before its
    /// fault is not among them. Without a fault: seconds to the promotion.
    pub fn delays_secs(&self) -> Vec<f64> {
        let onset = self.onset_secs();
        let mut delays: Vec<f64> = self
            .trials
            .iter()
            .filter_map(|trial| match (self.question.ask, trial.ending) {
                (Ask::Fault(_), Ending::Rollback { .. }) => {
                    (trial.secs > onset).then_some(trial.secs - onset)
                }
                (Ask::Healthy, Ending::Promote) => Some(trial.secs),
                _ => None,
            })
            .collect();
        delays.sort_by(f64::total_cmp);
        delays
    }

    /// When the fault begins, in seconds; 0 without one.
    pub fn onset_secs(&self) -> f64 {
        match self.question.ask {
            Ask::Fault(_) => self.question.scenario.faults.first().map_or(0.0, |f| f.onset_secs),
            Ask::Healthy | Ask::AtRollbackBound { .. } | Ask::AtPromotionMargin { .. } => 0.0,
        }
    }

    /// How often it was rolled back, at whatever time.
    pub fn rolled_back(&self) -> Share {
        self.share(|trial| matches!(trial.ending, Ending::Rollback { .. }))
    }

    /// How often it was rolled back before its fault began: by chance.
    pub fn rolled_back_early(&self) -> Share {
        let onset = self.onset_secs();
        self.share(|trial| matches!(trial.ending, Ending::Rollback { .. }) && trial.secs <= onset)
    }

    /// How often it was promoted.
    pub fn promoted(&self) -> Share {
        self.share(|trial| trial.ending == Ending::Promote)
    }

    /// How often the deadline passed.
    pub fn inconclusive(&self) -> Share {
        self.share(|trial| trial.ending == Ending::Inconclusive)
    }

    /// Which rules rolled back and how often, the busiest first.
    pub fn rules(&self) -> Vec<(usize, usize)> {
        counted(self.trials.iter().filter_map(|trial| match trial.ending {
            Ending::Rollback { rule } => Some(rule),
            Ending::Promote | Ending::Inconclusive => None,
        }))
    }

    /// Which rules kept releases from being promoted and how often, the busiest first.
    pub fn blockers(&self) -> Vec<(usize, usize)> {
        counted(self.trials.iter().filter_map(|trial| trial.blocked_by))
    }

    fn share(&self, is: impl Fn(&Trial) -> bool) -> Share {
        Share { count: self.trials.iter().filter(|trial| is(trial)).count(), of: self.trials.len() }
    }
}

/// How often each rule occurs, the busiest first.
fn counted(rules: impl Iterator<Item = usize>) -> Vec<(usize, usize)> {
    let mut counts: Vec<(usize, usize)> = Vec::new();
    for rule in rules {
        match counts.iter_mut().find(|(known, _)| *known == rule) {
            Some((_, count)) => *count += 1,
            None => counts.push((rule, 1)),
        }
    }
    counts.sort_by_key(|(rule, count)| (std::cmp::Reverse(*count), *rule));
    counts
}

/// The value that a share `q` of ascending values stays within; none of none.
pub fn quantile(ascending: &[f64], q: f64) -> Option<f64> {
    let rank = (q * ascending.len() as f64).ceil() as usize;
    ascending.get(rank.saturating_sub(1)).copied()
}

/// Runs every question on all cores and gives the answers in the same order, the same for the same
/// seed whatever the cores; none when `stop` was set. `done` is told of each
/// finished piece of work, [`work_of`] says how many there are.
pub fn answer(
    rules: &Arc<RuleSet>,
    questions: Vec<Question>,
    history: Option<Duration>,
    seed: u64,
    done: &(dyn Fn() + Sync),
    stop: &AtomicBool,
) -> Option<Vec<Answer>> {
    let histories = histories(&questions);
    let calibrations: Vec<Calibration> = match (history, questions.first()) {
        (Some(history), Some(question)) => on_all_cores(histories, stop, |run| {
            let measured =
                calibration(rules, &question.scenario, history, mix(seed, u64::MAX, run));
            done();
            measured
        })?,
        (None, _) | (_, None) => vec![Calibration::default(); histories],
    };
    let jobs: Vec<(usize, usize)> = questions
        .iter()
        .enumerate()
        .flat_map(|(number, question)| (0..question.runs).map(move |run| (number, run)))
        .collect();
    let mut trials = on_all_cores(jobs.len(), stop, |job| {
        let (number, run) = jobs[job];
        let seed = mix(seed, number as u64, run);
        let trial = judge(rules, &questions[number].scenario, &calibrations[run], seed, |_| {});
        done();
        trial
    })?
    .into_iter();
    let with_trials = questions.into_iter().map(|question| {
        let trials = trials.by_ref().take(question.runs).collect();
        Answer { question, trials }
    });
    Some(with_trials.collect())
}

/// Pieces of work in a study: one a run, and one a measured history.
pub fn work_of(questions: &[Question], history: Option<Duration>) -> usize {
    let runs: usize = questions.iter().map(|question| question.runs).sum();
    runs + history.map_or(0, |_| histories(questions))
}

/// Every run has a history of its own, which the same run of each question shares.
fn histories(questions: &[Question]) -> usize {
    questions.iter().map(|question| question.runs).max().unwrap_or(0)
}

/// The seed of one run.
pub fn mix(seed: u64, question: u64, run: usize) -> u64 {
    // Steele, Lea and Flood 2014 (SplitMix64): neighbouring inputs give unrelated seeds.
    let mut mixed = seed;
    for part in [question, run as u64] {
        mixed = (mixed ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
    }
    mixed
}

/// Threads at most, however many cores there are.
const THREADS_MAX: usize = 16;

/// `work(0)` to `work(count - 1)` on all cores, in this order; none when `stop` was set.
pub fn on_all_cores<T: Send>(
    count: usize,
    stop: &AtomicBool,
    work: impl Fn(usize) -> T + Sync,
) -> Option<Vec<T>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let job = next.fetch_add(1, Ordering::Relaxed);
            if job >= count {
                break;
            }
            done.push((job, work(job)));
        }
        done
    };
    let mut all: Vec<(usize, T)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(take)).collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    });
    if all.len() < count {
        return None;
    }
    all.sort_by_key(|(job, _)| *job);
    Some(all.into_iter().map(|(_, result)| result).collect())
}
