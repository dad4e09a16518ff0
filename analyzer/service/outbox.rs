//! The store's outbox rows as the delivery worker drains them.

use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;

use crate::{
    deliver::{Clock, Outbox, Outcome, Parcel},
    engine::observation::Time,
    store::{AttemptRecord, DeliveryState, Store},
};

/// An outbox over a store.
pub struct StoreOutbox {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Time of an attempt that is not to be repeated.
    pub now: Clock,
}

#[async_trait]
impl Outbox for StoreOutbox {
    async fn due(&self, now: Time, limit: u32) -> anyhow::Result<Vec<Parcel>> {
        let rows = self.store.due(now, limit).await.context("the outbox could not be read")?;
        let parcel = |row: crate::store::StoredDelivery| Parcel {
            key: row.new.key,
            analysis: row.analysis,
            mechanism: row.new.mechanism,
            body: row.new.body,
            attempts: row.attempts,
            created: row.created,
        };
        Ok(rows.into_iter().map(parcel).collect())
    }

    async fn next_due(&self) -> anyhow::Result<Option<Time>> {
        self.store.next_due().await.context("the outbox could not be read")
    }

    async fn record(&self, key: &str, outcome: Outcome, answer: &str) -> anyhow::Result<()> {
        let (state, next_due) = match outcome {
            Outcome::Delivered => (DeliveryState::Delivered, (self.now)()),
            Outcome::Refused => (DeliveryState::Refused, (self.now)()),
            Outcome::Dead => (DeliveryState::Dead, (self.now)()),
            Outcome::Retry(at) => (DeliveryState::Pending, at),
        };
        let attempt = AttemptRecord { state, next_due, answer: answer.to_owned() };
        self.store.record_attempt(key, attempt).await.context("an attempt could not be recorded")
    }
}
