//! What rollgate says about itself: one method per fact, which writes the log line and moves the
//! metric together, so that the two cannot disagree.
//!
//! A part of the program has one group here: a file with a struct that registers its metrics and a
//! method for each fact. To add a group: write `telemetry/NAME.rs` with
//! `fn register(&mut Registry) -> Self`, and add one field and one accessor below. Metrics never
//! steer anything; nobody reads them back but `/metrics`.

use std::{collections::BTreeSet, sync::Arc};

use prometheus_client::{
    metrics::{gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};

pub mod analysis;
pub mod controllers;
pub mod delivery;
pub mod history;
pub mod http;
pub mod rules;
pub mod secret;
pub mod source;
pub mod tls;

use analysis::AnalysisMetrics;
use controllers::ControllerMetrics;
use delivery::DeliveryMetrics;
use history::HistoryMetrics;
use http::HttpMetrics;
use rules::RuleMetrics;
use source::SourceMetrics;

/// Content type of [`Telemetry::render`].
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The label value that stands for everything beyond a limit on label values.
pub const OTHER: &str = "(other)";

/// The handle every part reports facts to. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    analysis: AnalysisMetrics,
    controllers: ControllerMetrics,
    http: HttpMetrics,
    delivery: DeliveryMetrics,
    source: SourceMetrics,
    history: HistoryMetrics,
    rules: RuleMetrics,
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("rollgate");
        register_process(&mut registry);
        let analysis = AnalysisMetrics::register(&mut registry);
        let controllers = ControllerMetrics::register(&mut registry);
        let http = HttpMetrics::register(&mut registry);
        let delivery = DeliveryMetrics::register(&mut registry);
        let source = SourceMetrics::register(&mut registry);
        let history = HistoryMetrics::register(&mut registry);
        let rules = RuleMetrics::register(&mut registry);
        let inner =
            Inner { registry, analysis, controllers, http, delivery, source, history, rules };
        Self { inner: Arc::new(inner) }
    }
}

impl Telemetry {
    /// A fresh set of metrics at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Facts about analyses and their verdicts.
    pub fn analysis(&self) -> &AnalysisMetrics {
        &self.inner.analysis
    }

    /// Facts about controllers that ask.
    pub fn controllers(&self) -> &ControllerMetrics {
        &self.inner.controllers
    }

    /// Facts about the past of services.
    pub fn history(&self) -> &HistoryMetrics {
        &self.inner.history
    }

    /// Facts about rule files.
    pub fn rules(&self) -> &RuleMetrics {
        &self.inner.rules
    }

    /// Facts about requests to our own API.
    pub fn http(&self) -> &HttpMetrics {
        &self.inner.http
    }

    /// Our own `/metrics` body, in OpenMetrics text.
    pub fn render(&self) -> String {
        let mut body = String::new();
        prometheus_client::encoding::text::encode(&mut body, &self.inner.registry)
            .expect("writing to a String cannot fail");
        body
    }
}

fn register_process(registry: &mut Registry) {
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The rollgate that runs", build);
    let started = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64());
    registry.register_with_unit(
        "start_time",
        "When this process began, in unix time",
        Unit::Seconds,
        ConstGauge::new(started),
    );
}

/// Keeps the values of one label below a limit: the first `max` distinct ones keep their name, all
/// later ones become [`OTHER`].
#[derive(Debug)]
pub(crate) struct LabelBound {
    seen: BTreeSet<String>,
    values_max: usize,
}

impl LabelBound {
    pub(crate) fn new(values_max: usize) -> Self {
        Self { seen: BTreeSet::new(), values_max }
    }

    /// The value to use for `value`.
    pub(crate) fn admit<'a>(&mut self, value: &'a str) -> &'a str {
        if self.seen.contains(value) {
            return value;
        }
        if self.seen.len() >= self.values_max {
            return OTHER;
        }
        self.seen.insert(value.to_owned());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_program_runs_and_ends_as_openmetrics_must() {
        let body = Telemetry::new().render();
        assert!(body.contains("rollgate_build_info{version=\""), "{body}");
        assert!(body.contains("rollgate_start_time_seconds "), "{body}");
        assert!(body.ends_with("# EOF\n"), "{body}");
    }

    #[test]
    fn label_values_beyond_the_limit_become_other() {
        let mut bound = LabelBound::new(2);
        let admitted: Vec<_> = ["a", "b", "c", "a", "d"].map(|value| bound.admit(value)).into();
        assert_eq!(admitted, ["a", "b", OTHER, "a", OTHER]);
    }
}
