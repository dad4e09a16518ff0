//! What the store keeps of a delivery: one decision on its way to one mechanism.

use std::collections::BTreeMap;

use crate::engine::observation::Time;

/// Attempts of a delivery that are kept, the last ones.
pub const ATTEMPTS_KEPT: u32 = 20;

/// An outbox row.
#[derive(Clone, Debug, PartialEq)]
pub struct NewDelivery {
    /// The idempotency key, the same for ever; unique.
    pub key: String,
    /// Name of the mechanism.
    pub mechanism: String,
    /// What is to be done: `rollback`, `promote`, `hold` or `advance`.
    pub action: String,
    /// The event as JSON, byte for byte what is signed and sent.
    pub body: String,
}

/// An outbox row as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDelivery {
    /// Which analysis.
    pub analysis: String,
    /// The service that it judges.
    pub service: String,
    /// What is delivered, to whom, under which key.
    pub new: NewDelivery,
    /// Where it is.
    pub state: DeliveryState,
    /// Attempts so far.
    pub attempts: u32,
    /// When the row was written.
    pub created: Time,
    /// Since when it is tried: when it was written, or put back among the pending ones.
    pub tried_since: Time,
    /// Attempts since then.
    pub tries: u32,
    /// When it is tried next, while pending.
    pub next_due: Time,
    /// When the last attempt began.
    pub last_attempt: Option<Time>,
    /// When it was acknowledged last.
    pub delivered: Option<Time>,
    /// What came of the last attempt, in words.
    pub last_answer: Option<String>,
}

/// Life of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeliveryState {
    /// To be tried (again).
    Pending,
    /// Acknowledged.
    Delivered,
    /// The receiver said never to send it again.
    Refused,
    /// Given up after the last retry.
    Dead,
    /// The mechanism does nothing on this decision.
    Nothing,
    /// A later decision stands, or the analysis was cancelled, before it arrived.
    TakenBack,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Delivered, Self::Refused, Self::Dead, Self::Nothing, Self::TakenBack];

    /// Its word in API, metrics and page.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Refused => "refused",
            Self::Dead => "dead",
            Self::Nothing => "nothing",
            Self::TakenBack => "taken_back",
        }
    }
}

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptRecord {
    /// Key of the delivery.
    pub key: String,
    /// When it began.
    pub began: Time,
    /// Milliseconds it took.
    pub took_ms: u64,
    /// State of the delivery after it; never [`DeliveryState::TakenBack`].
    pub state: DeliveryState,
    /// When to try again, while pending.
    pub next_due: Time,
    /// In words.
    pub answer: String,
}

/// One attempt as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAttempt {
    /// Its number, from 1.
    pub number: u32,
    /// When it began.
    pub began: Time,
    /// Milliseconds it took.
    pub took_ms: u64,
    /// What the delivery was to become: pending is a failure that is followed by another attempt.
    pub outcome: DeliveryState,
    /// In words.
    pub answer: String,
}

/// Which deliveries to list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeliveryFilter {
    /// Only those in this state.
    pub state: Option<DeliveryState>,
    /// Only those to this mechanism.
    pub mechanism: Option<String>,
    /// Only those of this analysis.
    pub analysis: Option<String>,
    /// Continue where a page ended.
    pub after: Option<i64>,
    /// At most this many.
    pub limit: u32,
}

/// One page of deliveries, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeliveryPage {
    /// The rows, with empty bodies.
    pub rows: Vec<StoredDelivery>,
    /// Where the next page goes on; none on the last.
    pub next: Option<i64>,
}

/// How many deliveries of one mechanism are where.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeliveryTally {
    /// The mechanism.
    pub mechanism: String,
    /// Deliveries by state; states without one are left out.
    pub by_state: BTreeMap<DeliveryState, u64>,
    /// When the oldest pending one was written.
    pub oldest_pending: Option<Time>,
}

/// Answer to a re-send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resent {
    /// It is pending and due.
    Again,
    /// There is no such delivery.
    Unknown,
    /// A later decision of its analysis stands, or the analysis was cancelled; says which.
    Superseded(String),
    /// As many interventions in this analysis as are kept.
    Full,
}
