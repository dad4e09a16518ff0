//! Facts about verdicts on their way out, each a log line and a metric at once.
//!
//! Labels are mechanism names, which come from the configuration and are therefore few. Bodies,
//! URLs and secrets are no part of any fact.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::Telemetry;

/// Upper bounds of the attempt histogram, in seconds: a healthy receiver answers in the first
/// three, and the last is the longest time-out anybody configures.
const ATTEMPT_SECS: [f64; 9] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What came of an attempt, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum AttemptOutcome {
    /// Acknowledged.
    Delivered,
    /// The receiver said never again.
    Refused,
    /// To be tried again.
    Failed,
    /// Given up.
    Dead,
    /// There was nothing to do, and nobody was asked.
    Nothing,
}

/// One attempt to deliver.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryAttempt<'a> {
    /// The idempotency key.
    pub key: &'a str,
    /// To whom.
    pub mechanism: &'a str,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// What came of it.
    pub outcome: AttemptOutcome,
    /// In words, already free of secrets.
    pub answer: &'a str,
    /// How long it took.
    pub took: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    mechanism: String,
    outcome: AttemptOutcome,
}

/// Deliveries of one mechanism.
#[derive(Clone, Debug)]
pub struct DeliveryCount<'a> {
    /// Its name.
    pub mechanism: &'a str,
    /// How many are in each state, of every state.
    pub by_state: Vec<(&'static str, u64)>,
    /// How long the oldest pending one has waited; zero where none does.
    pub oldest_pending: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    mechanism: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MechanismLabel {
    mechanism: String,
}

/// The metrics behind the facts of this file.
#[derive(Clone)]
pub(super) struct DeliveryMetrics {
    attempts: Family<AttemptLabels, Counter>,
    took: Family<MechanismLabel, Histogram, fn() -> Histogram>,
    by_state: Family<StateLabels, Gauge>,
    oldest: Family<MechanismLabel, Gauge<f64, AtomicU64>>,
    /// Mechanisms that have series.
    counted: Arc<Mutex<BTreeSet<String>>>,
    pending: Gauge,
    dead: Gauge,
    outbox_errors: Counter,
}

impl DeliveryMetrics {
    /// Metrics at zero, made known to the registry.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(ATTEMPT_SECS);
        let metrics = Self {
            attempts: Family::default(),
            took: Family::new_with_constructor(histogram),
            by_state: Family::default(),
            oldest: Family::default(),
            counted: Arc::default(),
            pending: Gauge::default(),
            dead: Gauge::default(),
            outbox_errors: Counter::default(),
        };
        registry.register(
            "delivery_attempts",
            "Attempts to tell a mechanism a verdict",
            metrics.attempts.clone(),
        );
        registry.register(
            "delivery_attempt_seconds",
            "Time of one attempt to tell a mechanism a verdict",
            metrics.took.clone(),
        );
        registry.register(
            "deliveries",
            "Decisions for a mechanism, by what became of them",
            metrics.by_state.clone(),
        );
        registry.register_with_unit(
            "delivery_oldest_pending",
            "How long the oldest decision has waited to be told to a mechanism",
            Unit::Seconds,
            metrics.oldest.clone(),
        );
        registry.register(
            "deliveries_pending",
            "Verdicts waiting to be told to a mechanism",
            metrics.pending.clone(),
        );
        registry.register(
            "deliveries_dead",
            "Verdicts that were given up on",
            metrics.dead.clone(),
        );
        registry.register(
            "outbox_errors",
            "Times the outbox could not be read or written",
            metrics.outbox_errors.clone(),
        );
        metrics
    }
}

impl Telemetry {
    /// A mechanism was told a verdict, or could not be.
    pub fn delivery_attempted(&self, fact: DeliveryAttempt<'_>) {
        let DeliveryAttempt { key, mechanism, attempt, outcome, answer, took } = fact;
        let took_ms = took.as_millis() as u64;
        match outcome {
            AttemptOutcome::Delivered => {
                tracing::info!(key, mechanism, attempt, answer, took_ms, "verdict delivered");
            }
            AttemptOutcome::Failed => {
                tracing::warn!(key, mechanism, attempt, answer, took_ms, "delivery failed");
            }
            AttemptOutcome::Nothing => {
                tracing::info!(key, mechanism, answer, "nothing to deliver");
            }
            AttemptOutcome::Refused => {
                tracing::error!(key, mechanism, attempt, answer, took_ms, "delivery refused");
            }
            AttemptOutcome::Dead => {
                tracing::error!(key, mechanism, attempt, answer, took_ms, "delivery given up");
            }
        }
        let labels = AttemptLabels { mechanism: mechanism.to_owned(), outcome };
        self.inner.delivery.attempts.get_or_create(&labels).inc();
        let label = MechanismLabel { mechanism: mechanism.to_owned() };
        self.inner.delivery.took.get_or_create(&label).observe(took.as_secs_f64());
    }

    /// A person has a delivery sent again.
    pub fn delivery_resent(&self, key: &str, who: &str, why: &str) {
        tracing::warn!(key, who, why, "delivery sent again by hand");
    }

    /// The outbox could not be read or written; it is tried again.
    pub fn outbox_failed(&self, doing: &str, error: &str) {
        tracing::error!(doing, error, "outbox failed, trying again");
        self.inner.delivery.outbox_errors.inc();
    }

    /// How many deliveries are where.
    pub fn deliveries_counted(&self, counts: &[DeliveryCount<'_>]) {
        let metrics = &self.inner.delivery;
        let sum = |wanted: &str| -> u64 {
            let all = counts.iter().flat_map(|count| &count.by_state);
            all.filter(|(state, _)| *state == wanted).map(|(_, count)| count).sum()
        };
        let (pending, dead) = (sum("pending"), sum("dead"));
        tracing::trace!(pending, dead, "deliveries counted");
        metrics.pending.set(gauge(pending));
        metrics.dead.set(gauge(dead));
        let mut counted = metrics.counted.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        counted.retain(|mechanism| {
            let is_there = counts.iter().any(|count| count.mechanism == mechanism);
            if !is_there {
                metrics.gone(mechanism);
            }
            is_there
        });
        for count in counts {
            let mechanism = count.mechanism.to_owned();
            for (state, count) in &count.by_state {
                let labels = StateLabels { mechanism: mechanism.clone(), state };
                metrics.by_state.get_or_create(&labels).set(gauge(*count));
            }
            let label = MechanismLabel { mechanism: mechanism.clone() };
            metrics.oldest.get_or_create(&label).set(count.oldest_pending.as_secs_f64());
            counted.insert(mechanism);
        }
    }
}

impl DeliveryMetrics {
    /// Takes the series of a mechanism off that has no deliveries any more.
    fn gone(&self, mechanism: &str) {
        for state in ["pending", "delivered", "refused", "dead", "nothing", "taken_back"] {
            self.by_state.remove(&StateLabels { mechanism: mechanism.to_owned(), state });
        }
        self.oldest.remove(&MechanismLabel { mechanism: mechanism.to_owned() });
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
