//! A metrics server with the Prometheus HTTP API.
//!
//! Raw series are asked for with a *range* selector: unlike an instant vector, which repeats a
//! value for five minutes after its target died, a range has the samples' own times. Differences
//! are taken by `signal/`, so that a server and a scrape mean the same. It deliberately has no
//! cache, and asks a second time only where no next look will: over the past.

use std::time::Duration;

use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use super::{
    client::{Bound, Client},
    excerpt::{excerpt, in_words},
    prometheus_answer::{Data, LongSeries, read_answer, read_long_answer},
    target::{TargetError, authority, parse_url},
};
use crate::{
    engine::observation::{Missing, Time, Why},
    signal::past::Stretch,
    telemetry::{Telemetry, secret::Secret},
};

pub use super::prometheus_answer::SERIES_MAX;

/// Waits before a question over the past is asked again; after the last it has failed.
pub const RETRY_WAITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// How a server is reached.
#[derive(Clone, Debug)]
pub struct PrometheusOptions {
    /// Its base URL, without `/api/v1`.
    pub url: String,
    /// Headers of every request: authorization, tenant.
    pub headers: Vec<(String, Secret)>,
    /// The most time one query may take; a look may leave it less.
    pub timeout: Duration,
    /// Limits.
    pub limits: PrometheusLimits,
}

/// Limits of one server.
#[derive(Clone, Debug)]
pub struct PrometheusLimits {
    /// Decoded bytes of one answer.
    pub body_bytes_max: usize,
    /// How far back samples are asked for. Three scrape intervals of one minute: what is older is
    /// stale at any usual interval.
    pub range: Duration,
}

impl Default for PrometheusLimits {
    fn default() -> Self {
        Self { body_bytes_max: 32 << 20, range: Duration::from_secs(180) }
    }
}

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// Its URL is none.
    #[error("the metrics server's URL is not usable")]
    Url(#[from] TargetError),
    /// A header cannot be sent. Its value is not shown.
    #[error(
        "header {name:?} of the metrics server cannot be sent: its {part} has characters that \
         headers may not have; hint: is there a line break at its end?"
    )]
    Header {
        /// Which header.
        name: String,
        /// Name or value.
        part: &'static str,
    },
}

/// One server.
#[derive(Clone, Debug)]
pub struct PrometheusServer {
    client: Client,
    endpoint: Url,
    grid_endpoint: Url,
    name: String,
    headers: HeaderMap,
    timeout: Duration,
    limits: PrometheusLimits,
}

impl PrometheusServer {
    /// Checks the options; nothing is asked yet.
    ///
    /// # Errors
    /// When the URL or a header cannot be used.
    pub fn new(client: Client, options: PrometheusOptions) -> Result<Self, PrometheusError> {
        let base = parse_url(&options.url)?;
        let name = authority(&base);
        let mut endpoint = base;
        let path = format!("{}/api/v1/query", endpoint.path().trim_end_matches('/'));
        endpoint.set_path(&path);
        endpoint.set_fragment(None);
        let mut grid_endpoint = endpoint.clone();
        grid_endpoint.set_path(&format!("{path}_range"));
        let mut headers = HeaderMap::new();
        for (header, secret) in &options.headers {
            let fault = |part| PrometheusError::Header { name: header.clone(), part };
            let key: HeaderName = header.parse().map_err(|_| fault("name"))?;
            let mut value: HeaderValue = secret.expose().parse().map_err(|_| fault("value"))?;
            value.set_sensitive(true);
            headers.append(key, value);
        }
        let PrometheusOptions { timeout, limits, .. } = options;
        Ok(Self { client, endpoint, grid_endpoint, name, headers, timeout, limits })
    }

    /// How far back raw samples are asked for.
    pub(super) fn range(&self) -> Duration {
        self.limits.range
    }

    /// How the server is called where it is spoken of.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Evaluates an expression at a moment.
    pub(super) async fn ask(
        &self,
        query: &str,
        at: Time,
        timeout: Duration,
        telemetry: &Telemetry,
    ) -> Result<Data, Missing> {
        let read = |status, body: &[u8]| {
            let answered = read_answer(status, body)?;
            Ok((answered.data.series().len(), answered.data, answered.warnings))
        };
        let question = Question { query, when: When::At(at), timeout, patience: Patience::Once };
        self.ask_for(question, telemetry, read).await
    }

    /// The same for a range selector of which every point is wanted.
    pub(super) async fn ask_all_points(
        &self,
        query: &str,
        at: Time,
        timeout: Duration,
        telemetry: &Telemetry,
    ) -> Result<Vec<LongSeries>, Missing> {
        let question = Question { query, when: When::At(at), timeout, patience: Patience::Once };
        self.ask_long(question, telemetry).await
    }

    /// Asks for every point of something, with patience where the question says so.
    pub(super) async fn ask_long(
        &self,
        question: Question<'_>,
        telemetry: &Telemetry,
    ) -> Result<Vec<LongSeries>, Missing> {
        let read = |status, body: &[u8]| {
            let (series, warnings) = read_long_answer(status, body)?;
            Ok((series.len(), series, warnings))
        };
        self.ask_for(question, telemetry, read).await
    }

    /// Asks, and reports what came of it. `read` gives the number of series, what is made of them,
    /// and the warnings.
    async fn ask_for<T>(
        &self,
        question: Question<'_>,
        telemetry: &Telemetry,
        read: impl Fn(u16, &[u8]) -> Result<(usize, T, Vec<String>), String>,
    ) -> Result<T, Missing> {
        let Question { query, when, timeout, patience } = question;
        let bound = Bound { time: timeout.min(self.timeout), bytes: self.limits.body_bytes_max };
        let endpoint = match when {
            When::At(_) => &self.endpoint,
            When::Grid { .. } => &self.grid_endpoint,
        };
        let mut waits = patience.waits().iter();
        loop {
            let form = form(query, when, bound.time);
            let exchanged = self.client.bounded_form(endpoint, &self.headers, form, bound).await;
            let (outcome, may_pass) = match exchanged {
                Err(error) => (Err(error.to_string()), error.may_pass()),
                Ok(answer) => {
                    let may_pass = answer.status == 429 || answer.status >= 500;
                    let read = read(answer.status, &answer.body);
                    (read.map(|read| (read, answer.elapsed)), may_pass)
                }
            };
            match outcome {
                Ok(((series, answered, warnings), elapsed)) => {
                    telemetry.query_answered(query, series, elapsed);
                    for warning in &warnings {
                        telemetry.query_warned(query, warning);
                    }
                    return Ok(answered);
                }
                Err(words) => {
                    if let Some(wait) = waits.next().filter(|_| may_pass) {
                        tokio::time::sleep(*wait).await;
                        continue;
                    }
                    let detail =
                        format!("metrics server {}: {words}, asked {}", self.name, excerpt(query));
                    let missing = Missing::new(Why::QueryFailed, detail);
                    telemetry.query_failed(query, &missing);
                    return Err(missing);
                }
            }
        }
    }
}

/// One question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub query: &'a str,
    pub when: When,
    pub timeout: Duration,
    pub patience: Patience,
}

/// Of when an expression is evaluated.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// At a moment.
    At(Time),
    /// At each step of a stretch.
    Grid { stretch: Stretch, step: Duration },
}

/// Whether a question is asked again when the server has failed in a way that may pass.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// No: the next look is soon.
    Once,
    /// As often as [`RETRY_WAITS`] says: nothing else will ask again.
    Again,
}

impl Patience {
    fn waits(self) -> &'static [Duration] {
        match self {
            Patience::Once => &[],
            Patience::Again => &RETRY_WAITS,
        }
    }
}

/// The form of a query. Thanos and VictoriaMetrics answer with a part of the data unless told not
/// to; Prometheus ignores what it does not know.
fn form(query: &str, when: When, timeout: Duration) -> String {
    let mut url = Url::parse("http://form.invalid/").expect("a constant that is a URL");
    let secs = |at: Time| format!("{:.3}", at.as_secs_f64());
    let mut pairs = url.query_pairs_mut();
    pairs.append_pair("query", query);
    match when {
        When::At(at) => {
            pairs.append_pair("time", &secs(at));
        }
        When::Grid { stretch, step } => {
            pairs.append_pair("start", &secs(stretch.after));
            pairs.append_pair("end", &secs(stretch.until));
            pairs.append_pair("step", &format!("{:.3}", step.as_secs_f64()));
        }
    }
    pairs
        .append_pair("timeout", &format!("{}ms", timeout.as_millis().max(1)))
        .append_pair("partial_response", "false")
        .append_pair("deny_partial_response", "1");
    drop(pairs);
    url.query().unwrap_or("").to_owned()
}

/// What is said of a sample that is too old.
pub(super) fn stale_words(instance: &str, age: Duration, gap: Duration) -> String {
    format!(
        "{instance}: the newest sample is {} old and one came about every {}; hint: is the target \
         down, or the metrics server behind?",
        in_words(age),
        in_words(gap)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str, header: (&str, &str)) -> PrometheusOptions {
        PrometheusOptions {
            url: url.to_owned(),
            headers: vec![(header.0.to_owned(), Secret::new(header.1))],
            timeout: Duration::from_secs(1),
            limits: PrometheusLimits::default(),
        }
    }

    #[test]
    fn the_api_is_below_the_base_url() {
        let client = Client::new().unwrap();
        for (url, expected) in [
            ("http://p:9090", "http://p:9090/api/v1/query"),
            ("http://p:9090/", "http://p:9090/api/v1/query"),
            ("https://m/prometheus/", "https://m/prometheus/api/v1/query"),
        ] {
            let server = PrometheusServer::new(client.clone(), options(url, ("a", "b"))).unwrap();
            assert_eq!(server.endpoint.as_str(), expected);
        }
    }

    #[test]
    fn what_cannot_be_sent_is_named_and_never_shown() {
        let client = Client::new().unwrap();
        let check = |url, header, part: &str| {
            let error = PrometheusServer::new(client.clone(), options(url, header)).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(part), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        };
        check("http://p", ("authorization", "hunter2\n"), "line break");
        check("http://p", ("a b", "hunter2"), "name");
        check("http://u:hunter2@p", ("a", "b"), "Credentials");
        let server = PrometheusServer::new(
            client.clone(),
            options("http://p", ("authorization", "hunter2")),
        );
        assert!(!format!("{server:?}").contains("hunter2"));
    }

    #[test]
    fn forms_are_escaped() {
        let form = form("a{b=\"c&d\"}[5s]", When::At(Time(1_500)), Duration::from_secs(1));
        assert_eq!(
            form,
            "query=a%7Bb%3D%22c%26d%22%7D%5B5s%5D&time=1.500&timeout=1000ms&partial_response=false\
             &deny_partial_response=1"
        );
    }
}
