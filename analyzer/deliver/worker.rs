//! The outbox worker: takes due rows, gives each to its mechanism, and writes down what came of it.
//!
//! Invariants: of one analysis a mechanism has one attempt under way at most, so that a later event
//! never overtakes an earlier one, and a key is never under way twice; a mechanism has a bounded
//! number of attempts under way, so that a slow receiver delays nobody else; a row is taken from the
//! outbox only by a recorded outcome. Attempts that end together are recorded together. The worker
//! decides nothing about verdicts and holds no state that a restart could lose: an attempt whose
//! outcome could not be recorded is made again with the same key.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::{
    sync::Notify,
    task::{JoinError, JoinSet},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{
    Attempt, Clock, Ended, Mechanism, Outbox, Outcome, Parcel,
    retry::{Failure, Schedule},
};
use crate::telemetry::{
    Telemetry,
    delivery::{AttemptOutcome, DeliveryAttempt},
};

/// Longest sleep: bounds what a clock that jumps, or a wake that was never sent, can cost.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// Shortest sleep while rows are due and cannot be started because their mechanism is busy.
const SLEEP_BUSY: Duration = Duration::from_millis(200);

/// Fewest rows asked for at once.
const DUE_MIN: u32 = 64;

/// Most outcomes recorded at once.
pub const RECORD_MAX: usize = 256;

/// How the worker works.
#[derive(Clone, Copy, Debug)]
pub struct WorkerOptions {
    /// Attempts under way at once, per mechanism.
    pub concurrency: u32,
    /// When to try again.
    pub schedule: Schedule,
    /// An attempt that takes longer has failed, whatever the mechanism's own time-out.
    pub attempt_time_max: Duration,
    /// How long to wait before the outbox is tried again after an error.
    pub outbox_wait: Duration,
    /// How often recording an outcome is tried once the worker is to stop.
    pub record_tries_at_stop: u32,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            concurrency: 4,
            schedule: Schedule::default(),
            attempt_time_max: Duration::from_secs(60),
            outbox_wait: Duration::from_secs(1),
            record_tries_at_stop: 3,
        }
    }
}

/// Drains an outbox until it is told to stop.
pub struct Worker {
    shared: Arc<Shared>,
    mechanisms: BTreeMap<String, Arc<dyn Mechanism>>,
    /// Analyses of which something is under way, by mechanism.
    under_way: BTreeMap<String, BTreeSet<String>>,
    attempts: JoinSet<Done>,
}

/// What every attempt needs.
struct Shared {
    outbox: Arc<dyn Outbox>,
    telemetry: Telemetry,
    now: Clock,
    options: WorkerOptions,
}

/// An attempt that is over, and not recorded yet.
struct Done {
    mechanism: String,
    analysis: String,
    ended: Ended,
}

impl Worker {
    /// A worker over these mechanisms with the default options.
    pub fn new(
        outbox: Arc<dyn Outbox>,
        mechanisms: BTreeMap<String, Arc<dyn Mechanism>>,
        telemetry: Telemetry,
        now: Clock,
    ) -> Self {
        Self::with_options(outbox, mechanisms, telemetry, now, WorkerOptions::default())
    }

    /// A worker over these mechanisms.
    pub fn with_options(
        outbox: Arc<dyn Outbox>,
        mechanisms: BTreeMap<String, Arc<dyn Mechanism>>,
        telemetry: Telemetry,
        now: Clock,
        options: WorkerOptions,
    ) -> Self {
        let shared = Arc::new(Shared { outbox, telemetry, now, options });
        Self { shared, mechanisms, under_way: BTreeMap::new(), attempts: JoinSet::new() }
    }

    /// Works until `stop`, then finishes the attempts under way. Wake it by `notify_one` when rows
    /// were written.
    pub async fn run(mut self, stop: CancellationToken, wake: Arc<Notify>) {
        while !stop.is_cancelled() {
            let sleep = match self.turn().await {
                Ok(sleep) => sleep,
                Err(error) => {
                    self.shared.telemetry.outbox_failed("reading", &format!("{error:#}"));
                    self.shared.options.outbox_wait
                }
            };
            let first = tokio::select! {
                () = stop.cancelled() => None,
                () = wake.notified() => None,
                done = self.attempts.join_next(), if !self.attempts.is_empty() => done,
                () = time::sleep(sleep) => None,
            };
            self.take(first, &stop).await;
        }
        while let Some(done) = self.attempts.join_next().await {
            self.take(Some(done), &stop).await;
        }
    }

    /// Records what ended together, in one go, and makes room for what waits behind it.
    async fn take(&mut self, first: Option<Result<Done, JoinError>>, stop: &CancellationToken) {
        let mut next = first;
        let (mut places, mut ended) = (Vec::new(), Vec::new());
        while let Some(done) = next.or_else(|| self.attempts.try_join_next()) {
            if let Some(done) = own(done) {
                places.push((done.mechanism, done.analysis));
                ended.push(done.ended);
            }
            if ended.len() == RECORD_MAX {
                break;
            }
            next = None;
        }
        if !ended.is_empty() {
            self.shared.record(&ended, stop).await;
        }
        for (mechanism, analysis) in places {
            if let Some(analyses) = self.under_way.get_mut(&mechanism) {
                analyses.remove(&analysis);
                if analyses.is_empty() {
                    self.under_way.remove(&mechanism);
                }
            }
        }
    }

    /// Starts what can be started and says how long nothing else will be due.
    async fn turn(&mut self) -> anyhow::Result<Duration> {
        let now = (self.shared.now)();
        for parcel in self.shared.outbox.due(now, self.page()).await? {
            self.start(parcel);
        }
        let wait = match self.shared.outbox.next_due().await? {
            None => SLEEP_MAX,
            Some(next) => next.since((self.shared.now)()).min(SLEEP_MAX),
        };
        // Rows that stay due although nothing can start them must not make a busy loop.
        Ok(if self.attempts.is_empty() { wait } else { wait.max(SLEEP_BUSY) })
    }

    /// Enough rows to see past those under way and those that wait for them: of one analysis and
    /// mechanism the outbox has one row at most, and it takes mechanisms in turn.
    fn page(&self) -> u32 {
        let mechanisms = (self.mechanisms.len() as u32).saturating_add(1);
        let each = self.shared.options.concurrency.saturating_mul(2);
        mechanisms.saturating_mul(each).max(DUE_MIN)
    }

    fn start(&mut self, parcel: Parcel) {
        let under_way = self.under_way.entry(parcel.mechanism.clone()).or_default();
        let is_full = under_way.len() >= self.shared.options.concurrency.max(1) as usize;
        if is_full || !under_way.insert(parcel.analysis.clone()) {
            return;
        }
        let mechanism = self.mechanisms.get(&parcel.mechanism).cloned();
        self.attempts.spawn(Arc::clone(&self.shared).attempt(parcel, mechanism));
    }
}

/// Mechanisms' panics are caught inside the attempt; one of our own is a bug that must show.
fn own(done: Result<Done, JoinError>) -> Option<Done> {
    match done.map_err(JoinError::try_into_panic) {
        Ok(done) => Some(done),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // Cancelled: the runtime itself is going down.
        Err(Err(_)) => None,
    }
}

impl Shared {
    async fn attempt(
        self: Arc<Self>,
        parcel: Parcel,
        mechanism: Option<Arc<dyn Mechanism>>,
    ) -> Done {
        let (began, clock) = ((self.now)(), Instant::now());
        let attempt = match mechanism {
            Some(mechanism) => match nothing_to_do(&*mechanism, &parcel) {
                Some(attempt) => attempt,
                None => self.guarded(&*mechanism, &parcel).await,
            },
            None => failed(format!("no mechanism {} is configured", parcel.mechanism)),
        };
        let (outcome, answer) = self.judge(&parcel, attempt);
        let took = clock.elapsed();
        self.telemetry.delivery_attempted(DeliveryAttempt {
            key: &parcel.key,
            mechanism: &parcel.mechanism,
            attempt: parcel.attempts.saturating_add(1),
            outcome: match outcome {
                Outcome::Delivered => AttemptOutcome::Delivered,
                Outcome::Refused => AttemptOutcome::Refused,
                Outcome::Retry(_) => AttemptOutcome::Failed,
                Outcome::Dead => AttemptOutcome::Dead,
                Outcome::Nothing => AttemptOutcome::Nothing,
            },
            answer: &answer,
            took,
        });
        let ended = Ended { key: parcel.key, began, took, outcome, answer };
        Done { mechanism: parcel.mechanism, analysis: parcel.analysis, ended }
    }

    /// One attempt that ends in time and does not take the worker with it.
    async fn guarded(&self, mechanism: &dyn Mechanism, parcel: &Parcel) -> Attempt {
        let limit = self.options.attempt_time_max;
        let attempt = AssertUnwindSafe(mechanism.deliver(parcel)).catch_unwind();
        match time::timeout(limit, attempt).await {
            Ok(Ok(attempt)) => attempt,
            Ok(Err(panic)) => failed(format!("the mechanism panicked: {}", words(&*panic))),
            Err(_) => failed(format!("no end after {} s", limit.as_secs_f64())),
        }
    }

    fn judge(&self, parcel: &Parcel, attempt: Attempt) -> (Outcome, String) {
        match attempt {
            Attempt::Delivered { answer } => (Outcome::Delivered, answer),
            Attempt::Nothing { answer } => (Outcome::Nothing, answer),
            Attempt::Refused { answer } => (Outcome::Refused, answer),
            Attempt::Failed { answer, retry_after } => {
                let now = (self.now)();
                let wait = self.options.schedule.wait(Failure {
                    attempts: parcel.attempts.saturating_add(1),
                    age: now.since(parcel.created),
                    retry_after,
                    dice: rand::random(),
                });
                (wait.map_or(Outcome::Dead, |wait| Outcome::Retry(now.after(wait))), answer)
            }
        }
    }

    /// Records outcomes, again and again: a delivery that is not recorded is made once more, so the
    /// wait here is the cheaper one. Only a stop ends it early.
    async fn record(&self, ended: &[Ended], stop: &CancellationToken) {
        let mut tries_at_stop = 0;
        while let Err(error) = self.outbox.record(ended).await {
            let of = ended.first().map_or("", |first| &first.key);
            self.telemetry.outbox_failed("recording", &format!("{of}: {error:#}"));
            if stop.is_cancelled() {
                tries_at_stop += 1;
                if tries_at_stop >= self.options.record_tries_at_stop {
                    return;
                }
                time::sleep(self.options.outbox_wait).await;
            } else {
                tokio::select! {
                    () = time::sleep(self.options.outbox_wait) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }
}

/// Said without asking the mechanism when it maps the decision to nothing.
fn nothing_to_do(mechanism: &dyn Mechanism, parcel: &Parcel) -> Option<Attempt> {
    let action = parcel.event().ok()?.data.action;
    let answer = || format!("nothing to do: {} does nothing on {action}", mechanism.name());
    mechanism.does(action).is_none().then(|| Attempt::Nothing { answer: answer() })
}

fn failed(answer: String) -> Attempt {
    Attempt::Failed { answer, retry_after: None }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}
