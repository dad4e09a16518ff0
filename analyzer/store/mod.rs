//! Where analyses outlive the process: journal, verdicts and outbox, committed together.
//!
//! One trait; SQLite is the embedded default. The store judges nothing and sends nothing; it keeps
//! the promise that a verdict and its outbox rows are one transaction, and that a final verdict is
//! written once.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    engine::observation::{Observation, Time},
    signal::{
        carry::Carry,
        past::{PastLook, SignalsKey, Stretch},
    },
};

pub mod calibration;
mod history;
mod migrations;
pub mod notes;
mod outbox;
mod record;
mod rule_files;
pub mod sqlite;

/// How long an analysis that is over is kept when nothing else is configured: long enough to look
/// back at last month's releases.
pub const RETENTION_DEFAULT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many analyses one [`Store::prune`] removes at most, so that it never holds up the looks.
pub const PRUNE_MAX: u32 = 200;

pub use history::FORGET_MAX;

/// How many rows one page of a journal or a list holds at most, whatever was asked for.
pub const PAGE_MAX: u32 = 1000;

/// What every store can do. All writes are durable when the call returns.
#[async_trait]
pub trait Store: notes::Notes + Send + Sync + 'static {
    /// Creates an analysis, or returns the one that has this idempotency key.
    async fn create(&self, new: NewAnalysis) -> Result<Created, StoreError>;
    /// The analysis that this idempotency key opened.
    async fn with_key(&self, key: &str) -> Result<Option<StoredAnalysis>, StoreError>;
    /// Commits looks of any number of analyses in one transaction: observations, carries, newest
    /// reports, and for those that decide the final verdict or the advance to a next step, with
    /// its outbox rows. A decision takes back what earlier ones of the same analysis have pending:
    /// after a rollback nobody is told any more to go on. Looks of an analysis that is already over, or whose look number is not the next, are refused as a whole
    /// and nothing is written.
    async fn commit(&self, looks: Vec<Look>) -> Result<(), StoreError>;
    /// Every analysis that has no final verdict and is not cancelled.
    async fn running(&self) -> Result<Vec<StoredAnalysis>, StoreError>;
    /// Observations of one analysis after look number `after`, oldest first, at most `limit`.
    async fn journal(
        &self,
        id: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<(u64, Observation)>, StoreError>;
    /// Position in the targets' counters as of the last committed look.
    async fn carry(&self, id: &str) -> Result<Carry, StoreError>;
    /// One analysis.
    async fn analysis(&self, id: &str) -> Result<Option<StoredAnalysis>, StoreError>;
    /// Analyses, newest first.
    async fn list(&self, filter: Filter) -> Result<Vec<StoredAnalysis>, StoreError>;
    /// Ends a running analysis without a verdict. False when it was over already.
    async fn cancel(&self, id: &str, note: &str, at: Time) -> Result<bool, StoreError>;
    /// Deliveries that are due: of each mechanism the one that waits longest first, mechanisms in
    /// turn, so that a page never hides one mechanism behind the backlog of another.
    async fn due(&self, now: Time, limit: u32) -> Result<Vec<StoredDelivery>, StoreError>;
    /// Records what came of an attempt. A delivery that is over stays as it is: an answer that
    /// comes late does not revive it.
    async fn record_attempt(&self, key: &str, attempt: AttemptRecord) -> Result<(), StoreError>;
    /// Every delivery of one analysis.
    async fn deliveries(&self, id: &str) -> Result<Vec<StoredDelivery>, StoreError>;
    /// When the next pending delivery is due.
    async fn next_due(&self) -> Result<Option<Time>, StoreError>;
    /// Counts for `/metrics`: pending and dead deliveries.
    async fn delivery_counts(&self) -> Result<DeliveryCounts, StoreError>;
    /// Forgets analyses that ended before `older_than` and have nothing pending, oldest first and at
    /// most [`PRUNE_MAX`]; says how many they were.
    async fn prune(&self, older_than: Time) -> Result<u64, StoreError>;
    /// Keeps looks of standing watches, and forgets what is beyond their bounds, in one
    /// transaction. Of two looks at one service at one time the first is kept.
    async fn keep(&self, looks: Vec<KeptLook>) -> Result<(), StoreError>;
    /// Looks of a standing watch within a stretch of time, oldest first, at most `limit` (and
    /// [`PAGE_MAX`]).
    async fn kept(
        &self,
        service: &str,
        signals: &SignalsKey,
        stretch: Stretch,
        limit: u32,
    ) -> Result<Vec<PastLook>, StoreError>;
    /// How much history there is of a service.
    async fn history(&self, service: &str, signals: &SignalsKey)
    -> Result<HistorySpan, StoreError>;
    /// Forgets looks of standing watches that are older than they are kept, at most
    /// [`FORGET_MAX`]; says how many they were.
    async fn prune_history(&self, now: Time) -> Result<u64, StoreError>;
    /// Keeps the text of a rule file that loaded, in the place of an older one.
    async fn keep_rules(&self, rules: StoredRules) -> Result<(), StoreError>;
    /// Every rule file that is kept, by name.
    async fn kept_rules(&self) -> Result<Vec<StoredRules>, StoreError>;
    /// Forgets a rule file, when there is one of the name.
    async fn forget_rules(&self, name: &str) -> Result<(), StoreError>;
    /// Writes and reads back a row: the readiness probe.
    async fn ping(&self) -> Result<(), StoreError>;
    /// Finishes outstanding writes and closes files.
    async fn close(&self);
}

/// A new analysis.
#[derive(Clone, Debug, PartialEq)]
pub struct NewAnalysis {
    /// Its id, unique; sorts by time.
    pub id: String,
    /// The client's key, unique when given.
    pub idempotency_key: Option<String>,
    /// The service being released.
    pub service: String,
    /// When it began.
    pub started: Time,
    /// The order as JSON, opaque to the store.
    pub order: String,
    /// Name of the rule file.
    pub rules_name: String,
    /// Its whole text: a running analysis keeps the version it began with.
    pub rules_text: String,
    /// What was known of the service's noise when it began, as [`calibration::write`] puts it down;
    /// none when nothing was.
    pub calibration: Option<String>,
    /// What stands for its past, as JSON, opaque to the store.
    pub past: Option<String>,
}

/// One look of a standing watch.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptLook {
    /// The service that is watched.
    pub service: String,
    /// Which signals the readings are of.
    pub signals: SignalsKey,
    /// The look.
    pub look: PastLook,
    /// How much of this service is kept.
    pub bounds: KeepBounds,
}

/// The newest text of a rule file that loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRules {
    /// Name of the file, without its ending.
    pub name: String,
    /// The whole file.
    pub text: String,
    /// When it was taken into use.
    pub loaded: Time,
}

/// How much of a service's history is kept. What is reached first holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepBounds {
    /// Looks that are older than this are forgotten.
    pub keep: Duration,
    /// Looks at most.
    pub looks_max: u64,
    /// Bytes of all looks' readings at most.
    pub bytes_max: u64,
}

/// How much history there is of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HistorySpan {
    /// Looks on the file, of whatever signals.
    pub looks: u64,
    /// Bytes of their readings.
    pub bytes: u64,
    /// The oldest look at the signals that were asked for.
    pub first: Option<Time>,
    /// The newest of them.
    pub last: Option<Time>,
}

/// Answer to [`Store::create`].
#[derive(Clone, Debug, PartialEq)]
pub enum Created {
    /// It is new.
    New,
    /// This analysis already has the key.
    Existing(Box<StoredAnalysis>),
}

/// An analysis as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAnalysis {
    /// What it began with.
    pub new: NewAnalysis,
    /// Whether it runs.
    pub state: StoredState,
    /// Number of the last committed look; 0 before the first.
    pub last_look: u64,
    /// The newest report as JSON.
    pub report: Option<String>,
    /// The final verdict's word.
    pub verdict: Option<String>,
    /// When it was decided or cancelled.
    pub ended: Option<Time>,
    /// The canceller's note as JSON.
    pub cancel_note: Option<String>,
}

/// Life of an analysis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredState {
    /// Looks are being taken.
    Running,
    /// A final verdict stands.
    Finished,
    /// Ended by hand, without a verdict.
    Cancelled,
}

/// One look to be committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// Which analysis.
    pub analysis: String,
    /// Number of the look, the one after the last committed.
    pub look: u64,
    /// What it saw.
    pub observation: Observation,
    /// Position in the targets' counters after it.
    pub carry: Carry,
    /// The report as JSON.
    pub report: String,
    /// The verdict's word now, final or not.
    pub verdict: String,
    /// Set when the verdict is final, or an advance.
    pub decision: Option<Decision>,
}

/// A decision and what it sets in motion.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// When.
    pub at: Time,
    /// The step that the release goes on to; none for a final verdict.
    pub advance_to: Option<usize>,
    /// One row per mechanism.
    pub deliveries: Vec<NewDelivery>,
}

impl Decision {
    /// Whether the analysis is over with it.
    pub fn is_final(&self) -> bool {
        self.advance_to.is_none()
    }
}

/// An outbox row.
#[derive(Clone, Debug, PartialEq)]
pub struct NewDelivery {
    /// The idempotency key, the same for ever; unique.
    pub key: String,
    /// Name of the mechanism.
    pub mechanism: String,
    /// The event as JSON, byte for byte what is signed and sent.
    pub body: String,
}

/// An outbox row as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDelivery {
    /// Which analysis.
    pub analysis: String,
    /// What is delivered, to whom, under which key.
    pub new: NewDelivery,
    /// `pending`, `delivered`, `refused`, `dead`.
    pub state: DeliveryState,
    /// Attempts so far.
    pub attempts: u32,
    /// When the row was written.
    pub created: Time,
    /// When it is tried next, while pending.
    pub next_due: Time,
    /// What came of the last attempt, in words.
    pub last_answer: Option<String>,
}

/// Life of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// To be tried (again).
    Pending,
    /// Acknowledged.
    Delivered,
    /// The receiver said never to send it again.
    Refused,
    /// Given up after the last retry.
    Dead,
}

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptRecord {
    /// State after it.
    pub state: DeliveryState,
    /// When to try again, while pending.
    pub next_due: Time,
    /// In words.
    pub answer: String,
}

/// How many deliveries are where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DeliveryCounts {
    /// Waiting for an attempt.
    pub pending: u64,
    /// Given up.
    pub dead: u64,
}

/// Which analyses to list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Only this service.
    pub service: Option<String>,
    /// Only this state.
    pub state: Option<StoredState>,
    /// Only this verdict.
    pub verdict: Option<String>,
    /// Ids that sort strictly before this one.
    pub after: Option<String>,
    /// At most this many.
    pub limit: u32,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or is gone.
    #[error("store: {context}")]
    Database {
        /// What was being done.
        context: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A record of a version or shape that this program cannot read.
    #[error("store: {what} cannot be read: {why}")]
    Unreadable {
        /// Which record.
        what: String,
        /// Why.
        why: String,
    },
    /// A record that could not be read back as it is, and was therefore not written.
    #[error("store: {what} is not written: {why}")]
    Unwritable {
        /// Of which analysis, or which watched service.
        analysis: String,
        /// Which record.
        what: String,
        /// Why.
        why: String,
    },
    /// The file cannot serve as a store.
    #[error("store: {path}: {found}, expected a store of rollgate\n  hint: {hint}")]
    Unusable {
        /// The file.
        path: String,
        /// What is there instead.
        found: String,
        /// What to do about it.
        hint: String,
        /// What the database said, when it was asked.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The analysis is already over, or the look is not the next one.
    #[error("store: analysis {analysis}: look {look} refused: {why}")]
    OutOfOrder {
        /// Which analysis.
        analysis: String,
        /// Which look.
        look: u64,
        /// Why.
        why: String,
    },
}
