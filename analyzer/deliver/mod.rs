//! Verdicts on their way out: the outbox worker, signing, the retry schedule, and one file per
//! deploy mechanism.
//!
//! Delivery is at least once with a key that never changes. Nothing here decides what is sent;
//! `service/` writes outbox rows with the verdict, and adapts its store to [`Outbox`].

use async_trait::async_trait;

use crate::engine::observation::Time;

/// The rows this worker drains. Implemented by `service/` over its store.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Rows that are due, oldest first.
    async fn due(&self, now: Time, limit: u32) -> anyhow::Result<Vec<Parcel>>;
    /// When the next row is due.
    async fn next_due(&self) -> anyhow::Result<Option<Time>>;
    /// Records what came of an attempt.
    async fn record(&self, key: &str, outcome: Outcome, answer: &str) -> anyhow::Result<()>;
}

/// One verdict for one mechanism.
#[derive(Clone, Debug, PartialEq)]
pub struct Parcel {
    /// The idempotency key (`webhook-id`).
    pub key: String,
    /// Name of the mechanism.
    pub mechanism: String,
    /// The event, byte for byte what is signed and sent.
    pub body: String,
    /// Attempts before this one.
    pub attempts: u32,
    /// When the row was written.
    pub created: Time,
}

/// What is to become of a parcel after an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Acknowledged.
    Delivered,
    /// Never to be sent again: the receiver said so.
    Refused,
    /// To be tried again then.
    Retry(Time),
    /// Given up.
    Dead,
}
