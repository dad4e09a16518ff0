//! Deliveries and interventions as everybody outside reads them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::archive::{Archive, unavailable};
use crate::{
    api::{
        deliveries::{LIMIT_DEFAULT, LIMIT_MAX},
        desk::{
            AttemptView, DeliveriesPage, DeliveryDetail, DeliveryListFilter, DeliveryView,
            DeskError, InterventionShape,
        },
    },
    deliver::{Mechanism, payload::DeployAction},
    engine::observation::Time,
    store::{
        Deed, DeliveryFilter, DeliveryState, DeliveryTally, Intervention, StoredAttempt,
        StoredDelivery,
    },
    telemetry::delivery::DeliveryCount,
};

/// What every mechanism does on every action, in words. Nothing is known of one that is not
/// configured.
#[derive(Clone, Default)]
pub struct Doings(Arc<BTreeMap<(String, String), String>>);

impl Doings {
    /// As these mechanisms are configured.
    pub fn of(mechanisms: &BTreeMap<String, Arc<dyn Mechanism>>) -> Self {
        let mut doings = BTreeMap::new();
        for (name, mechanism) in mechanisms {
            for action in DeployAction::ALL {
                let does = mechanism.does(action).unwrap_or_else(|| "nothing".to_owned());
                doings.insert((name.clone(), action.to_string()), does);
            }
        }
        Self(Arc::new(doings))
    }

    fn on(&self, mechanism: &str, action: &str) -> Option<String> {
        self.0.get(&(mechanism.to_owned(), action.to_owned())).cloned()
    }
}

impl Archive {
    /// Deliveries, newest first.
    pub async fn deliveries(
        &self,
        filter: DeliveryListFilter,
    ) -> Result<DeliveriesPage, DeskError> {
        let state = filter.state.as_deref().map(state_of).transpose()?;
        let (mechanism, analysis, after) = (filter.mechanism, filter.analysis, filter.after);
        let limit = filter.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
        let filter = DeliveryFilter { state, mechanism, analysis, after, limit };
        let page = self.store.list_deliveries(filter).await.map_err(unavailable)?;
        let deliveries = page.rows.iter().map(|row| self.delivery_view(row)).collect();
        Ok(DeliveriesPage { deliveries, next: page.next })
    }

    /// One delivery with its attempts.
    pub async fn delivery(&self, key: &str) -> Result<DeliveryDetail, DeskError> {
        let stored = self.store.delivery(key).await.map_err(unavailable)?;
        let stored = stored.ok_or_else(|| DeskError::NoDelivery(key.to_owned()))?;
        let attempts = self.store.attempts(key).await.map_err(unavailable)?;
        Ok(DeliveryDetail {
            delivery: self.delivery_view(&stored),
            last_attempts: attempts.into_iter().map(attempt_view).collect(),
        })
    }

    pub(super) fn delivery_view(&self, stored: &StoredDelivery) -> DeliveryView {
        let pending = stored.state == DeliveryState::Pending;
        DeliveryView {
            key: stored.new.key.clone(),
            analysis: stored.analysis.clone(),
            service: stored.service.clone(),
            mechanism: stored.new.mechanism.clone(),
            action: stored.new.action.clone(),
            does: self.doings.on(&stored.new.mechanism, &stored.new.action),
            state: stored.state.word().to_owned(),
            attempts: stored.attempts,
            created_at: stored.created.as_secs_f64(),
            last_attempt_at: stored.last_attempt.map(Time::as_secs_f64),
            delivered_at: stored.delivered.map(Time::as_secs_f64),
            last_answer: stored.last_answer.clone(),
            next_attempt_at: pending.then(|| stored.next_due.as_secs_f64()),
        }
    }
}

fn state_of(word: &str) -> Result<DeliveryState, DeskError> {
    let known = DeliveryState::ALL.into_iter().find(|state| state.word() == word);
    known.ok_or_else(|| {
        let expected = DeliveryState::ALL.map(DeliveryState::word).join(", ");
        let word: String = word.chars().take(40).collect();
        DeskError::Refused(vec![format!("state is {word:?}, expected one of {expected}")])
    })
}

fn attempt_view(attempt: StoredAttempt) -> AttemptView {
    AttemptView {
        number: attempt.number,
        at: attempt.began.as_secs_f64(),
        took_secs: Duration::from_millis(attempt.took_ms).as_secs_f64(),
        outcome: match attempt.outcome {
            DeliveryState::Pending => "failed",
            other => other.word(),
        }
        .to_owned(),
        answer: attempt.answer,
    }
}

/// What a person did, as everybody outside reads it.
pub(super) fn intervention(stored: Intervention) -> InterventionShape {
    let (what, verdict, delivery) = match stored.deed {
        Deed::Cancel => ("cancel", None, None),
        Deed::Override { verdict } => ("override", Some(verdict), None),
        Deed::Resend { delivery } => ("resend", None, Some(delivery)),
    };
    let (at, who, why) = (stored.by.at.as_secs_f64(), stored.by.who, stored.by.why);
    InterventionShape { at, what: what.to_owned(), who, why, verdict, delivery }
}

/// How many deliveries are where, for `/metrics`; of configured mechanisms also that there are none.
pub(super) fn counts<'a>(
    tallies: &'a [DeliveryTally],
    configured: &'a [String],
    now: Time,
) -> Vec<DeliveryCount<'a>> {
    let none = DeliveryTally::default();
    let idle = configured.iter().filter(|name| !tallies.iter().any(|one| one.mechanism == **name));
    let all = tallies.iter().map(|one| (one.mechanism.as_str(), one));
    let all = all.chain(idle.map(|name| (name.as_str(), &none)));
    all.map(|(mechanism, tally)| DeliveryCount {
        mechanism,
        by_state: DeliveryState::ALL
            .map(|state| (state.word(), tally.by_state.get(&state).copied().unwrap_or(0)))
            .to_vec(),
        oldest_pending: tally.oldest_pending.map_or(Duration::ZERO, |since| now.since(since)),
    })
    .collect()
}
