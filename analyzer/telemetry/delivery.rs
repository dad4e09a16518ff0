//! Facts about verdicts on their way out, each a log line and a metric at once.
//!
//! Labels are mechanism names, which come from the configuration and are therefore few. Bodies,
//! URLs and secrets are no part of any fact.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MechanismLabel {
    mechanism: String,
}

/// The metrics behind the facts of this file.
#[derive(Clone)]
pub(super) struct DeliveryMetrics {
    attempts: Family<AttemptLabels, Counter>,
    took: Family<MechanismLabel, Histogram, fn() -> Histogram>,
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

    /// The outbox could not be read or written; it is tried again.
    pub fn outbox_failed(&self, doing: &str, error: &str) {
        tracing::error!(doing, error, "outbox failed, trying again");
        self.inner.delivery.outbox_errors.inc();
    }

    /// How many deliveries wait, and how many were given up on.
    pub fn deliveries_counted(&self, pending: u64, dead: u64) {
        tracing::trace!(pending, dead, "deliveries counted");
        self.inner.delivery.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.inner.delivery.dead.set(i64::try_from(dead).unwrap_or(i64::MAX));
    }
}
