//! Facts about requests to our own API.
//!
//! Routes are the router's patterns, never paths, and methods are a closed set, so that no client
//! can grow the label sets. Nothing of a request's body or query is recorded.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{OTHER, tls::TlsMetrics};

const MINUTE: Duration = Duration::from_secs(60);

/// Refused requests that are logged in a minute; all are counted.
pub const REFUSALS_LOGGED_MAX: u32 = 10;

/// Upper bounds in seconds, from a cached asset to a long poll.
const DURATION_EDGES: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0];

/// The group of the HTTP API.
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    duration: Family<RouteLabel, Histogram, fn() -> Histogram>,
    connections: Gauge,
    streams: Gauge,
    refused: Counter,
    panics: Counter,
    unauthorized: Family<[(&'static str, &'static str); 1], Counter>,
    told: Mutex<Told>,
    tls: TlsMetrics,
}

/// How often refused requests were logged in the minute that began then.
struct Told {
    since: Instant,
    times: u32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

impl HttpMetrics {
    /// Registers the group.
    pub fn register(registry: &mut Registry) -> Self {
        let requests = Family::default();
        let duration =
            Family::new_with_constructor((|| Histogram::new(DURATION_EDGES)) as fn() -> _);
        let (connections, streams) = (Gauge::default(), Gauge::default());
        let (refused, panics) = (Counter::default(), Counter::default());
        registry.register(
            "http_requests",
            "Requests answered, by route pattern, method and status",
            requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "Time from the head of a request to the head of its answer",
            Unit::Seconds,
            duration.clone(),
        );
        registry.register("http_connections", "Connections open now", connections.clone());
        registry.register("http_event_streams", "Event streams open now", streams.clone());
        registry.register(
            "http_event_streams_refused",
            "Event streams refused because too many were open",
            refused.clone(),
        );
        registry.register("http_panics", "Requests whose handler panicked", panics.clone());
        let unauthorized = Family::default();
        registry.register(
            "http_unauthorized",
            "Requests refused for want of a token, of its scope, or because they were foreign",
            unauthorized.clone(),
        );
        let told = Mutex::new(Told { since: Instant::now(), times: 0 });
        let tls = TlsMetrics::register(registry);
        Self { requests, duration, connections, streams, refused, panics, unauthorized, told, tls }
    }

    /// A request was answered. `route` is the pattern it matched, None when it matched none.
    pub fn answered(&self, route: Option<&str>, method: &str, status: u16, took: Duration) {
        let route = route.unwrap_or(OTHER).to_owned();
        let labels = RequestLabels { route: route.clone(), method: known_method(method), status };
        tracing::debug!(
            route = %labels.route,
            method = labels.method,
            status,
            took_ms = took.as_secs_f64() * 1000.0,
            "request answered"
        );
        self.requests.get_or_create(&labels).inc();
        self.duration.get_or_create(&RouteLabel { route }).observe(took.as_secs_f64());
    }

    /// A connection was accepted; it is counted until the guard is dropped.
    pub fn connected(&self) -> OpenGuard {
        OpenGuard::new(&self.connections)
    }

    /// An event stream began; it is counted until the guard is dropped.
    pub fn stream_opened(&self) -> OpenGuard {
        OpenGuard::new(&self.streams)
    }

    /// An event stream was refused because `limit` are open.
    pub fn stream_refused(&self, limit: usize) {
        tracing::warn!(limit, "event stream refused: too many are open");
        self.refused.inc();
    }

    /// A request was refused before it reached its route. `why` is one of a few words.
    pub fn unauthorized(&self, route: Option<&str>, why: &'static str) {
        self.unauthorized.get_or_create(&[("reason", why)]).inc();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.since.elapsed() >= MINUTE {
            *told = Told { since: Instant::now(), times: 0 };
        }
        // Whoever tries tokens must not fill the log.
        if told.times < REFUSALS_LOGGED_MAX {
            told.times += 1;
            tracing::warn!(route = route.unwrap_or(OTHER), why, "request refused");
        }
    }

    /// Facts about TLS on our listener.
    pub fn tls(&self) -> &TlsMetrics {
        &self.tls
    }

    /// A handler panicked; its request was answered with 500.
    pub fn panicked(&self, route: Option<&str>, what: &str) {
        tracing::error!(route = route.unwrap_or(OTHER), what, "request handler panicked");
        self.panics.inc();
    }

    /// A connection ended with an error of its own making or the network's.
    pub fn connection_failed(&self, error: &dyn std::error::Error) {
        tracing::debug!(error = %error, "connection ended early");
    }

    /// No connection could be accepted just now.
    pub fn accept_failed(&self, error: &std::io::Error) {
        tracing::warn!(error = %error, "cannot accept a connection");
    }

    /// Connections were still busy when the time to finish them was over.
    pub fn cut_off(&self, after: Duration) {
        tracing::warn!(after_secs = after.as_secs_f64(), "open connections cut off at shutdown");
    }
}

/// Counts one open thing for as long as it lives.
pub struct OpenGuard(Gauge);

impl OpenGuard {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn known_method(method: &str) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::super::Telemetry;
    use super::*;

    #[test]
    fn invented_methods_and_unknown_paths_share_one_label_set() {
        let telemetry = Telemetry::new();
        for number in 0..100 {
            let method = format!("M{number}");
            telemetry.http().answered(None, &method, 404, Duration::from_millis(1));
        }
        let body = telemetry.render();
        let line =
            "rollgate_http_requests_total{route=\"(other)\",method=\"(other)\",status=\"404\"} 100";
        assert!(body.contains(line), "{body}");
    }

    #[test]
    fn open_things_are_counted_until_they_are_dropped() {
        let telemetry = Telemetry::new();
        let guard = telemetry.http().connected();
        assert!(telemetry.render().contains("rollgate_http_connections 1\n"));
        drop(guard);
        assert!(telemetry.render().contains("rollgate_http_connections 0\n"));
    }
}
