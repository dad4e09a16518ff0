//! The store's outbox rows as the delivery worker drains them.

use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;

use crate::{
    deliver::{Ended, Outbox, Outcome, Parcel},
    engine::observation::Time,
    store::{AttemptRecord, DeliveryState, Store, StoredDelivery},
    telemetry::Telemetry,
};

/// An outbox over a store.
pub struct StoreOutbox {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What happens is reported here.
    pub telemetry: Telemetry,
}

#[async_trait]
impl Outbox for StoreOutbox {
    async fn due(&self, now: Time, limit: u32) -> anyhow::Result<Vec<Parcel>> {
        let rows = self.store.due(now, limit).await.context("the outbox could not be read")?;
        Ok(rows.into_iter().map(parcel).collect())
    }

    async fn next_due(&self) -> anyhow::Result<Option<Time>> {
        self.store.next_due().await.context("the outbox could not be read")
    }

    async fn record(&self, ended: &[Ended]) -> anyhow::Result<()> {
        let records: Vec<AttemptRecord> = ended.iter().map(record).collect();
        let unknown = self.store.record_attempts(&records).await;
        for key in unknown.context("attempts could not be recorded")? {
            self.telemetry.outbox_failed("recording", &format!("delivery {key} is gone"));
        }
        Ok(())
    }
}

/// A due row as the worker takes it.
pub fn parcel(row: StoredDelivery) -> Parcel {
    Parcel {
        key: row.new.key,
        analysis: row.analysis,
        mechanism: row.new.mechanism,
        body: row.new.body,
        attempts: row.tries,
        created: row.tried_since,
    }
}

/// What came of an attempt as the store keeps it.
pub fn record(ended: &Ended) -> AttemptRecord {
    let after = ended.began.after(ended.took);
    let (state, next_due) = match ended.outcome {
        Outcome::Delivered => (DeliveryState::Delivered, after),
        Outcome::Refused => (DeliveryState::Refused, after),
        Outcome::Dead => (DeliveryState::Dead, after),
        Outcome::Nothing => (DeliveryState::Nothing, after),
        Outcome::Retry(at) => (DeliveryState::Pending, at),
    };
    AttemptRecord {
        key: ended.key.clone(),
        began: ended.began,
        took_ms: u64::try_from(ended.took.as_millis()).unwrap_or(u64::MAX),
        state,
        next_due,
        answer: ended.answer.clone(),
    }
}
