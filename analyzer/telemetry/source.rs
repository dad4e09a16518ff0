//! Facts about the sources: scrapes, probes and queries, and how they ended.
//!
//! Label values are words of a fixed list, never target names or details: the number of series
//! does not grow with what is watched. Names and details go to the log line.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::Telemetry;
use crate::engine::observation::{Health, Missing, Why};

type Labelled<const N: usize> = Family<[(&'static str, &'static str); N], Counter>;

/// Metrics of the sources.
#[derive(Clone)]
pub struct SourceMetrics {
    scrapes: Labelled<1>,
    scrape_seconds: Histogram,
    scrape_bytes: Counter,
    refused_lines: Counter,
    probes: Labelled<1>,
    queries: Labelled<1>,
    query_seconds: Histogram,
    query_warnings: Counter,
    discoveries: Labelled<1>,
}

impl SourceMetrics {
    /// Registers them at zero.
    pub fn register(registry: &mut Registry) -> Self {
        const EDGES_SECS: [f64; 10] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
        let metrics = Self {
            scrapes: Family::default(),
            scrape_seconds: Histogram::new(EDGES_SECS),
            scrape_bytes: Counter::default(),
            refused_lines: Counter::default(),
            probes: Family::default(),
            queries: Family::default(),
            query_seconds: Histogram::new(EDGES_SECS),
            query_warnings: Counter::default(),
            discoveries: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("source");
        registry.register("scrapes", "Scrapes, by how they ended", metrics.scrapes.clone());
        registry.register_with_unit(
            "scrape",
            "Time a successful scrape took",
            Unit::Seconds,
            metrics.scrape_seconds.clone(),
        );
        registry.register_with_unit(
            "scrape_read",
            "Decoded bytes of successful scrapes",
            Unit::Bytes,
            metrics.scrape_bytes.clone(),
        );
        registry.register(
            "refused_lines",
            "Lines of metrics bodies that could not be read",
            metrics.refused_lines.clone(),
        );
        registry.register("probes", "Health probes, by what they said", metrics.probes.clone());
        registry.register(
            "queries",
            "Queries to metrics servers, by how they ended",
            metrics.queries.clone(),
        );
        registry.register_with_unit(
            "query",
            "Time a successful query took",
            Unit::Seconds,
            metrics.query_seconds.clone(),
        );
        registry.register(
            "query_warnings",
            "Warnings that came with successful queries",
            metrics.query_warnings.clone(),
        );
        registry.register(
            "discoveries",
            "Questions where targets are, by how they ended",
            metrics.discoveries.clone(),
        );
        metrics
    }
}

/// What a successful scrape amounted to.
#[derive(Clone, Copy, Debug)]
pub struct ScrapeFacts {
    /// Decoded bytes of the body.
    pub bytes: usize,
    /// Samples kept.
    pub samples: usize,
    /// Lines refused.
    pub refused_lines: u32,
    /// From the request to the end of the body.
    pub elapsed: Duration,
}

impl Telemetry {
    /// A target answered with metrics.
    pub fn scrape_read(&self, instance: &Arc<str>, facts: ScrapeFacts) {
        self.inner.source.scrapes.get_or_create(&[("outcome", "ok")]).inc();
        self.inner.source.scrape_seconds.observe(facts.elapsed.as_secs_f64());
        self.inner.source.scrape_bytes.inc_by(facts.bytes as u64);
        self.inner.source.refused_lines.inc_by(u64::from(facts.refused_lines));
        tracing::debug!(
            %instance,
            bytes = facts.bytes,
            samples = facts.samples,
            refused_lines = facts.refused_lines,
            elapsed_ms = facts.elapsed.as_millis() as u64,
            "scraped"
        );
    }

    /// A target did not answer, or not with metrics.
    pub fn scrape_failed(&self, instance: &Arc<str>, missing: &Missing) {
        self.inner.source.scrapes.get_or_create(&[("outcome", outcome(missing.why))]).inc();
        tracing::warn!(%instance, detail = %missing.detail, "scrape failed");
    }

    /// A health endpoint was asked.
    pub fn probed(&self, endpoint: &str, said: Result<(Health, &str), &Missing>) {
        let word = match said {
            Ok((Health::Up, _)) => "up",
            Ok((Health::Degraded, _)) => "degraded",
            Ok((Health::Down, _)) => "down",
            Err(missing) => outcome(missing.why),
        };
        self.inner.source.probes.get_or_create(&[("answer", word)]).inc();
        match said {
            Ok((Health::Up, _)) => tracing::debug!(endpoint, "health is up"),
            Ok((status @ (Health::Degraded | Health::Down), detail)) => {
                tracing::info!(endpoint, %status, detail, "health is not up");
            }
            Err(missing) => tracing::warn!(endpoint, reason = %missing, "health is not known"),
        }
    }

    /// A metrics server answered a query.
    pub fn query_answered(&self, query: &str, series: usize, elapsed: Duration) {
        self.inner.source.queries.get_or_create(&[("outcome", "ok")]).inc();
        self.inner.source.query_seconds.observe(elapsed.as_secs_f64());
        tracing::debug!(query, series, elapsed_ms = elapsed.as_millis() as u64, "queried");
    }

    /// A metrics server answered, and complained.
    pub fn query_warned(&self, query: &str, warning: &str) {
        self.inner.source.query_warnings.inc();
        tracing::info!(query, warning, "the metrics server warned");
    }

    /// A metrics server did not answer, or refused the query.
    pub fn query_failed(&self, query: &str, missing: &Missing) {
        self.inner.source.queries.get_or_create(&[("outcome", outcome(missing.why))]).inc();
        tracing::warn!(query, detail = %missing.detail, "query failed");
    }
}

impl Telemetry {
    /// A discovery said where targets are.
    pub fn discovery_answered(&self, about: &str, targets: usize, is_news: bool) {
        self.inner.source.discoveries.get_or_create(&[("outcome", "ok")]).inc();
        if is_news {
            tracing::info!(about, targets, "targets found");
        }
    }

    /// A discovery did not answer, or not so that it can be believed.
    pub fn discovery_failed(&self, about: &str, why: &str, is_news: bool) {
        self.inner.source.discoveries.get_or_create(&[("outcome", "failed")]).inc();
        if is_news {
            tracing::warn!(about, why, "targets cannot be found");
        }
    }
}

fn outcome(why: Why) -> &'static str {
    match why {
        Why::FirstLook => "first_look",
        Why::NoTraffic => "no_traffic",
        Why::ScrapeFailed | Why::QueryFailed => "failed",
        Why::Stale => "stale",
        Why::WarmUp => "warm_up",
        Why::AbsentSeries => "absent_series",
        Why::BadValue => "bad_value",
        Why::UnclearHealth => "unclear",
        Why::BucketLayout => "bucket_layout",
        Why::NotObserved => "not_asked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_moves_its_metric() {
        let telemetry = Telemetry::new();
        let instance: Arc<str> = "h:1".into();
        let facts = ScrapeFacts {
            bytes: 10,
            samples: 1,
            refused_lines: 3,
            elapsed: Duration::from_millis(3),
        };
        telemetry.scrape_read(&instance, facts);
        telemetry.scrape_failed(&instance, &Missing::new(Why::ScrapeFailed, "refused"));
        telemetry.probed("http://h:1/health", Ok((Health::Down, "connection refused")));
        telemetry.query_answered("up", 1, Duration::from_millis(3));
        telemetry.query_warned("up", "partial");
        telemetry.query_failed("up", &Missing::new(Why::QueryFailed, "refused"));
        telemetry.discovery_answered("discovery pods", 3, true);
        telemetry.discovery_failed("discovery pods", "refused", false);
        let body = telemetry.render();
        for line in [
            "rollgate_source_scrapes_total{outcome=\"ok\"} 1",
            "rollgate_source_scrapes_total{outcome=\"failed\"} 1",
            "rollgate_source_scrape_read_bytes_total 10",
            "rollgate_source_scrape_seconds_count 1",
            "rollgate_source_refused_lines_total 3",
            "rollgate_source_probes_total{answer=\"down\"} 1",
            "rollgate_source_queries_total{outcome=\"ok\"} 1",
            "rollgate_source_queries_total{outcome=\"failed\"} 1",
            "rollgate_source_query_warnings_total 1",
            "rollgate_source_discoveries_total{outcome=\"ok\"} 1",
            "rollgate_source_discoveries_total{outcome=\"failed\"} 1",
        ] {
            assert!(body.lines().any(|found| found == line), "{line} in {body}");
        }
        assert!(!body.contains("h:1"), "no target names in labels");
    }
}
