//! Facts about the past of services: standing watches, and what analyses were calibrated with.
//!
//! Watched services are named in the configuration, which bounds their number, so they are labels.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// The group of the history.
pub struct HistoryMetrics {
    looks: Family<LookLabels, Counter>,
    length: Family<ServiceLabel, Gauge<f64, AtomicU64>>,
    size: Family<ServiceLabel, Gauge<f64, AtomicU64>>,
    calibrations: Family<OriginLabel, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LookLabels {
    service: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServiceLabel {
    service: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OriginLabel {
    origin: &'static str,
}

/// What an analysis was calibrated with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The looks of a standing watch.
    Watch,
    /// A metrics server's samples.
    Prometheus,
    /// Nothing: the stated prior holds.
    Prior,
}

impl HistoryMetrics {
    /// Registers the group.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            looks: Family::default(),
            length: Family::default(),
            size: Family::default(),
            calibrations: Family::default(),
        };
        registry.register(
            "watch_looks",
            "Looks of standing watches, by service and by how they ended",
            metrics.looks.clone(),
        );
        registry.register_with_unit(
            "watch_history",
            "How far back the kept looks of a watched service reach",
            Unit::Seconds,
            metrics.length.clone(),
        );
        registry.register_with_unit(
            "watch_size",
            "What the kept looks of a watched service take in the store",
            Unit::Bytes,
            metrics.size.clone(),
        );
        registry.register(
            "calibrations",
            "Analyses begun, by what their noise was measured on",
            metrics.calibrations.clone(),
        );
        metrics
    }

    /// A standing watch begins.
    pub fn watch_began(&self, service: &str, rules: &str, targets: usize, interval: Duration) {
        let interval_secs = interval.as_secs_f64();
        tracing::info!(service, rules, targets, interval_secs, "watching between releases");
    }

    /// A look was kept.
    pub fn look_kept(&self, service: &str) {
        self.looked(service, "kept");
        tracing::debug!(service, "a look between releases is kept");
    }

    /// A look saw nothing, or could not be kept; the next covers what it missed. `is_news` is false
    /// when the look before said the same.
    pub fn look_lost(&self, service: &str, why: &str, is_news: bool) {
        self.looked(service, "lost");
        if is_news {
            tracing::warn!(service, why, "a look between releases is lost");
        } else {
            tracing::debug!(service, why, "a look between releases is lost");
        }
    }

    /// The rule file of a watch changed, or no longer loads.
    pub fn watch_rules(&self, service: &str, rules: &str, what: &str) {
        tracing::warn!(service, rules, what, "the rule file of a standing watch changed");
    }

    /// How much history there is of a service.
    pub fn measured(&self, service: &str, length: Duration, bytes: u64) {
        let label = ServiceLabel { service: service.to_owned() };
        self.length.get_or_create(&label).set(length.as_secs_f64());
        self.size.get_or_create(&label).set(bytes as f64);
    }

    /// An analysis begins with this much past.
    pub fn calibrated(&self, service: &str, origin: Origin, secs: u32, note: &str) {
        let word = match origin {
            Origin::Watch => "watch",
            Origin::Prometheus => "prometheus",
            Origin::Prior => "prior",
        };
        self.calibrations.get_or_create(&OriginLabel { origin: word }).inc();
        tracing::info!(service, origin = word, history_secs = secs, note, "calibrated");
    }

    /// The past could not be read; the stated prior holds.
    pub fn past_failed(&self, service: &str, why: &str) {
        self.calibrations.get_or_create(&OriginLabel { origin: "prior" }).inc();
        tracing::warn!(service, why, "the past cannot be read, the prior holds");
    }

    fn looked(&self, service: &str, outcome: &'static str) {
        let service = service.to_owned();
        self.looks.get_or_create(&LookLabels { service, outcome }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Telemetry;
    use super::*;

    #[test]
    fn a_fact_moves_its_metric() {
        let telemetry = Telemetry::new();
        let history = telemetry.history();
        history.look_kept("shop");
        history.look_lost("shop", "connection refused", true);
        history.look_lost("shop", "connection refused", false);
        history.measured("shop", Duration::from_secs(90), 4096);
        history.calibrated("shop", Origin::Watch, 90, "");
        history.past_failed("till", "refused");
        let body = telemetry.render();
        for line in [
            "rollgate_watch_looks_total{service=\"shop\",outcome=\"kept\"} 1",
            "rollgate_watch_looks_total{service=\"shop\",outcome=\"lost\"} 2",
            "rollgate_watch_history_seconds{service=\"shop\"} 90.0",
            "rollgate_watch_size_bytes{service=\"shop\"} 4096.0",
            "rollgate_calibrations_total{origin=\"watch\"} 1",
            "rollgate_calibrations_total{origin=\"prior\"} 1",
        ] {
            assert!(body.lines().any(|found| found == line), "{line} in {body}");
        }
    }
}
