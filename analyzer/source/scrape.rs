//! One scrape: a target's answer becomes its samples, or the reason why there are none.
//!
//! Invariants: every failure names what was found, what was expected and a hint; an answer that is
//! not metrics is never read as "no series". Recordings are read by the same [`samples_of`], so a
//! replay means what the live scrape meant. It deliberately does not retry: the next look does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    client::{Answer, Bound, Client, FetchError},
    excerpt::excerpt_bytes,
    exposition::{self, Format, Wanted},
    limits::SourceLimits,
    target::Target,
};
use crate::{
    engine::observation::{Missing, Time, Why},
    signal::{
        sample::{InstanceReading, RefusedLines, Sample},
        spec::{self, SignalSpec},
    },
    telemetry::{Telemetry, source::ScrapeFacts},
};

/// OpenMetrics first, then text, which is read fastest and can be kept in recordings.
const ACCEPT_METRICS: &str = "application/openmetrics-text;version=1.0.0;q=0.8,\
                              text/plain;version=0.0.4;q=0.6,text/plain;q=0.4,*/*;q=0.1";

/// Protobuf first: asked for where text had no buckets for a quantile, since only protobuf carries
/// native histograms. A target that does not speak it answers as ever.
const ACCEPT_PROTOBUF: &str = "application/vnd.google.protobuf;\
                               proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.9,\
                               application/openmetrics-text;version=1.0.0;q=0.8,\
                               text/plain;version=0.0.4;q=0.6,text/plain;q=0.4,*/*;q=0.1";

/// In which format a target is asked next. Only a preference: both give the same samples, and native
/// histograms beside them in protobuf.
#[derive(Debug, Default)]
pub(super) struct Dialect {
    protobuf: AtomicBool,
    /// Whether its protobuf could not be read: what text has is better than nothing.
    text_only: AtomicBool,
}

impl Dialect {
    fn accept(&self) -> &'static str {
        if self.protobuf.load(Ordering::Relaxed) { ACCEPT_PROTOBUF } else { ACCEPT_METRICS }
    }

    /// Text lacks buckets: protobuf may have native ones. Neither is needed once buckets are there.
    fn learn(&self, specs: &[SignalSpec], samples: &[Sample]) {
        let has_native = samples.iter().any(|sample| sample.native.is_some());
        let protobuf = has_native || spec::lacks_buckets(specs, samples);
        let protobuf = protobuf && !self.text_only.load(Ordering::Relaxed);
        self.protobuf.store(protobuf, Ordering::Relaxed);
    }

    /// Goes back to text for good after an answer that shows that the target's protobuf is no use.
    fn unlearn(&self, answer: &Answer) {
        let is_protobuf = answer.content_type.as_deref().is_some_and(exposition::is_protobuf);
        if answer.status == 406 || is_protobuf && (200..=299).contains(&answer.status) {
            self.text_only.store(true, Ordering::Relaxed);
            self.protobuf.store(false, Ordering::Relaxed);
        }
    }
}

/// What a body gave.
#[derive(Debug, PartialEq)]
pub struct Scraped {
    /// The samples the specs ask for.
    pub samples: Vec<Sample>,
    /// Lines that could not be read.
    pub refused: Option<RefusedLines>,
}

/// What to keep of a body.
#[derive(Clone, Copy)]
pub struct Keep<'a> {
    /// The signals.
    pub specs: &'a [SignalSpec],
    /// The sample names they read.
    pub wanted: &'a Wanted,
    /// Limits of the reader.
    pub limits: &'a exposition::Limits,
}

/// Status, content type and body, live or recorded.
#[derive(Clone, Copy, Debug)]
pub struct Exposed<'a> {
    /// HTTP status code.
    pub status: u16,
    /// Content type, when given.
    pub content_type: Option<&'a str>,
    /// Where a redirect points.
    pub location: Option<&'a str>,
    /// Decoded body.
    pub body: &'a [u8],
}

/// Asks one target.
pub(super) async fn scrape(
    client: &Client,
    (target, dialect): (&Target, &Dialect),
    keep: Keep<'_>,
    (limits, timeout): (&SourceLimits, Duration),
    telemetry: &Telemetry,
) -> Result<Scraped, Missing> {
    let bound = Bound { time: timeout, bytes: limits.body_bytes_max };
    let outcome = match client.bounded_get(target.metrics_url(), dialect.accept(), bound).await {
        Ok(answer) => samples_of_answer(&answer, keep)
            .inspect_err(|_| dialect.unlearn(&answer))
            .map_err(|words| (Why::ScrapeFailed, words)),
        // What fails on our side says nothing of the target: it is not down.
        Err(error @ (FetchError::Ours { .. } | FetchError::Forbidden { .. })) => {
            Err((Why::NotObserved, fetch_words(&error)))
        }
        Err(error) => Err((Why::ScrapeFailed, fetch_words(&error))),
    };
    match outcome {
        Ok((scraped, elapsed, bytes)) => {
            dialect.learn(keep.specs, &scraped.samples);
            let refused_lines = scraped.refused.as_ref().map_or(0, |refused| refused.lines);
            let samples = scraped.samples.len();
            telemetry
                .scrape_read(target.name(), ScrapeFacts { bytes, samples, refused_lines, elapsed });
            Ok(scraped)
        }
        Err((why, words)) => {
            let missing = Missing::new(why, format!("{}: {words}", target.name()));
            telemetry.scrape_failed(target.name(), &missing);
            Err(missing)
        }
    }
}

fn samples_of_answer(
    answer: &Answer,
    keep: Keep<'_>,
) -> Result<(Scraped, Duration, usize), String> {
    let exposed = Exposed {
        status: answer.status,
        content_type: answer.content_type.as_deref(),
        location: answer.location.as_deref(),
        body: &answer.body,
    };
    let scraped = samples_of(exposed, keep)?;
    Ok((scraped, answer.elapsed, answer.body.len()))
}

/// Reads an answer as metrics.
///
/// # Errors
/// In words: what was found, what was expected, a hint.
pub fn samples_of(exposed: Exposed<'_>, keep: Keep<'_>) -> Result<Scraped, String> {
    match exposed.status {
        200..=299 => {}
        300..=399 => {
            let to = exposed.location.unwrap_or("nowhere");
            return Err(format!(
                "found status {} (a redirect to {to:?}), expected 200; hint: redirects are not \
                 followed, give the final URL",
                exposed.status
            ));
        }
        401 | 403 | 407 => {
            return Err(format!(
                "found status {} (an auth wall answered), expected 200; hint: let this host read \
                 the metrics without credentials",
                exposed.status
            ));
        }
        404 => {
            return Err("found status 404, expected 200; hint: are the metrics at another path? \
                        give the whole URL"
                .to_owned());
        }
        status => return Err(format!("found status {status}, expected 200")),
    }
    let body = if exposed.content_type.is_some_and(exposition::is_protobuf) {
        exposition::read_protobuf(exposed.body, keep.wanted, keep.limits)
    } else {
        let format = format_of(exposed)?;
        exposition::read(exposed.body, format, keep.wanted, |_| true, keep.limits)
    };
    let body = body.map_err(|refusal| {
        format!("the body is not metrics: {refusal}; hint: {}", refusal.hint())
    })?;
    let mut samples = body.samples;
    spec::retain_wanted(keep.specs, &mut samples);
    Ok(Scraped { samples, refused: body.refused })
}

/// Which format the body is in, or why it cannot be metrics at all.
fn format_of(exposed: Exposed<'_>) -> Result<Format, String> {
    let first = exposed.body.iter().find(|byte| !byte.is_ascii_whitespace());
    let html = || {
        format!(
            "found an HTML page ({:?}), expected metrics; hint: is this the metrics path, and is \
             there a login page in front of it?",
            excerpt_bytes(exposed.body)
        )
    };
    match first {
        None => return Err("found an empty body, expected metrics".to_owned()),
        // No exposition line can begin so; HTML under text/plain is common.
        Some(b'<') => return Err(html()),
        Some(_) => {}
    }
    let Some(content_type) = exposed.content_type else { return Ok(Format::Text) };
    if let Some(format) = Format::of_content_type(content_type) {
        return Ok(format);
    }
    let media = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match media.as_str() {
        // File servers call a file without a known ending so; the reader is strict enough.
        "" | "application/octet-stream" => Ok(Format::Text),
        "text/html" => Err(html()),
        _ => Err(format!(
            "found the content type {content_type:?}, expected text/plain, \
             application/openmetrics-text or delimited protobuf"
        )),
    }
}

/// A failed exchange in words that fit behind the target's name.
fn fetch_words(error: &FetchError) -> String {
    match error {
        FetchError::TooLarge { .. } => {
            format!("{error}; hint: scrape fewer metrics, or is this the metrics path?")
        }
        FetchError::Refused { .. } => format!("{error}; hint: is it running, at this port?"),
        FetchError::Timeout { .. }
        | FetchError::Cut { .. }
        | FetchError::Name { .. }
        | FetchError::Tls { .. }
        | FetchError::Forbidden { .. }
        | FetchError::Ours { .. } => error.to_string(),
    }
}

/// The reading of one instance, before its probes.
pub(super) fn reading(
    instance: Arc<str>,
    at: Time,
    scraped: Result<Scraped, Missing>,
) -> InstanceReading {
    let (samples, refused) = match scraped {
        Ok(scraped) => (Ok(scraped.samples), scraped.refused),
        Err(missing) => (Err(missing), None),
    };
    InstanceReading { instance, at, samples, refused, probes: Vec::new(), levels: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_that_is_not_metrics_is_named() {
        let wanted = Wanted::names(["m"]);
        let limits = exposition::Limits::default();
        let keep = Keep { specs: &[], wanted: &wanted, limits: &limits };
        let check = |status, content_type, location, body: &str, part: &str| {
            let exposed = Exposed { status, content_type, location, body: body.as_bytes() };
            let words = samples_of(exposed, keep).unwrap_err();
            assert!(words.contains(part), "{words}");
        };
        let text = Some("text/plain; version=0.0.4");
        check(500, text, None, "m 1\n", "status 500");
        check(404, text, None, "", "another path");
        check(401, None, None, "", "auth wall");
        check(302, None, Some("/login"), "", "\"/login\"");
        check(200, text, None, " \n\n", "empty body");
        check(200, text, None, "<!doctype html><p>hi", "HTML page");
        check(200, Some("text/html"), None, "m 1\n", "HTML page");
        check(200, Some("application/json"), None, "{}", "application/json");
        check(200, Some("application/openmetrics-text"), None, "m 1\n", "EOF");
    }

    #[test]
    fn metrics_without_a_content_type_are_read_as_text() {
        let wanted = Wanted::names(["m"]);
        let limits = exposition::Limits::default();
        let keep = Keep { specs: &[], wanted: &wanted, limits: &limits };
        for content_type in [None, Some(""), Some("application/octet-stream"), Some("text/plain")] {
            let exposed = Exposed { status: 200, content_type, location: None, body: b"m 1\n" };
            assert_eq!(samples_of(exposed, keep).unwrap().refused, None, "{content_type:?}");
        }
    }
}
