//! What a demo service exposes at `/metrics`: its counters, and their two text formats.
//!
//! Written by hand because the same numbers must be had in Prometheus text 0.0.4 and in OpenMetrics
//! 1.0, which client libraries do not both offer. Series of known routes exist from the first
//! scrape on, at zero, as well-behaved clients do it.

use std::{collections::BTreeMap, fmt::Write};

/// Upper bounds of the duration histogram, in seconds.
pub const BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0];

/// The two text formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What an `Accept` header asks for: OpenMetrics when it is named and not ranked below text.
    pub fn accepted(accept: &str) -> Self {
        let rank = |name: &str| {
            accept
                .split(',')
                .filter(|range| range.split(';').next().is_some_and(|kind| kind.trim() == name))
                .map(quality)
                .fold(0.0, f64::max)
        };
        let open_metrics = rank("application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= rank("text/plain") {
            Format::OpenMetrics
        } else {
            Format::Text
        }
    }

    /// The `Content-Type` of a body in this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// A counter's family name: OpenMetrics leaves the `_total` to the samples.
    fn counter_family(self, name: &str) -> &str {
        match self {
            Format::Text => name,
            Format::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
        }
    }

    /// A bucket's bound: OpenMetrics wants a float to look like one.
    fn bound(self, bound: f64) -> String {
        match self {
            Format::Text => format!("{bound}"),
            Format::OpenMetrics => format!("{bound:?}"),
        }
    }
}

/// The `q` of one media range; 1 when it names none.
fn quality(range: &str) -> f64 {
    range
        .split(';')
        .find_map(|part| part.trim().strip_prefix("q="))
        .map_or(1.0, |q| q.trim().parse().unwrap_or(0.0))
}

/// Counters of one life of a process; a restart begins new ones.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    requests: BTreeMap<(Route, u16), u64>,
    durations: BTreeMap<Route, Durations>,
}

/// Method and route of a request. Both are from a fixed list, never from the request itself, so the
/// number of series is bounded.
pub type Route = (&'static str, &'static str);

#[derive(Clone, Debug, Default)]
struct Durations {
    counts: [u64; BUCKETS.len() + 1],
    sum_secs: f64,
}

impl Counters {
    /// Counters at zero, with the series of `routes` already there.
    pub fn at_zero(routes: impl IntoIterator<Item = Route>) -> Self {
        let mut counters = Self::default();
        for route in routes {
            counters.requests.insert((route, 200), 0);
            counters.requests.insert((route, 500), 0);
            counters.durations.insert(route, Durations::default());
        }
        counters
    }

    /// Counts one answered request.
    pub fn record(&mut self, route: Route, code: u16, secs: f64) {
        *self.requests.entry((route, code)).or_default() += 1;
        let durations = self.durations.entry(route).or_default();
        let bucket = BUCKETS.iter().position(|bound| secs <= *bound).unwrap_or(BUCKETS.len());
        durations.counts[bucket] += 1;
        durations.sum_secs += secs;
    }
}

/// Everything that a body is made of.
pub struct Page<'a> {
    /// Requests so far.
    pub counters: &'a Counters,
    /// When the process began, in unix seconds.
    pub started_unix_secs: f64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// The service's name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
}

impl Page<'_> {
    /// The body in `format`.
    pub fn render(&self, format: Format) -> String {
        let mut body = String::with_capacity(8 * 1024);
        self.write(format, &mut body).expect("writing to a String cannot fail");
        body
    }

    fn write(&self, format: Format, out: &mut String) -> std::fmt::Result {
        let family = format.counter_family("http_requests_total");
        writeln!(out, "# HELP {family} Requests answered, by method, route and status code.")?;
        writeln!(out, "# TYPE {family} counter")?;
        for (((method, route), code), count) in &self.counters.requests {
            let labels = format!("method=\"{method}\",route=\"{route}\",code=\"{code}\"");
            writeln!(out, "http_requests_total{{{labels}}} {count}")?;
        }
        self.write_durations(format, out)?;
        let gauges = [
            (
                "process_start_time_seconds",
                "Start of the process, in unix seconds.",
                format!("{:.3}", self.started_unix_secs),
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory, in bytes.",
                self.resident_bytes.to_string(),
            ),
        ];
        for (name, help, value) in gauges {
            writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}")?;
        }
        writeln!(out, "# HELP app_build_info What is running; always 1.")?;
        writeln!(out, "# TYPE app_build_info gauge")?;
        let (name, version) = (escape(self.name), escape(self.version));
        writeln!(out, "app_build_info{{service=\"{name}\",version=\"{version}\"}} 1")?;
        match format {
            Format::Text => Ok(()),
            Format::OpenMetrics => writeln!(out, "# EOF"),
        }
    }

    fn write_durations(&self, format: Format, out: &mut String) -> std::fmt::Result {
        let name = "http_request_duration_seconds";
        writeln!(out, "# HELP {name} Time to answer a request, in seconds.")?;
        writeln!(out, "# TYPE {name} histogram")?;
        for ((method, route), durations) in &self.counters.durations {
            let labels = format!("method=\"{method}\",route=\"{route}\"");
            let mut below = 0;
            for (bound, count) in BUCKETS.iter().zip(durations.counts) {
                below += count;
                let le = format.bound(*bound);
                writeln!(out, "{name}_bucket{{{labels},le=\"{le}\"}} {below}")?;
            }
            let total = below + durations.counts[BUCKETS.len()];
            writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}")?;
            writeln!(out, "{name}_sum{{{labels}}} {:.9}", durations.sum_secs)?;
            writeln!(out, "{name}_count{{{labels}}} {total}")?;
        }
        Ok(())
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_chooses_the_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        for (accept, expected) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            (prometheus, Format::OpenMetrics),
            ("text/plain, application/openmetrics-text;q=0.1", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=nonsense, text/plain;q=0.1", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{accept}");
        }
    }

    #[test]
    fn a_request_lands_in_the_first_bucket_that_holds_it() {
        let route = ("GET", "/a");
        let mut counters = Counters::at_zero([route]);
        for secs in [0.005, 0.0051, 7.0] {
            counters.record(route, 200, secs);
        }
        let page = Page {
            counters: &counters,
            started_unix_secs: 1.5,
            resident_bytes: 3,
            name: "a\"b",
            version: "v1",
        };
        let (text, open) = (page.render(Format::Text), page.render(Format::OpenMetrics));
        for line in [
            "http_request_duration_seconds_bucket{method=\"GET\",route=\"/a\",le=\"0.005\"} 1",
            "http_request_duration_seconds_bucket{method=\"GET\",route=\"/a\",le=\"0.01\"} 2",
            "http_request_duration_seconds_bucket{method=\"GET\",route=\"/a\",le=\"+Inf\"} 3",
            "http_requests_total{method=\"GET\",route=\"/a\",code=\"500\"} 0",
            "app_build_info{service=\"a\\\"b\",version=\"v1\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nnot in\n{text}");
            assert!(open.lines().any(|found| found == line), "{line}\nnot in\n{open}");
        }
        assert!(text.contains("# TYPE http_requests_total counter\n") && text.contains("le=\"1\""));
        assert!(open.contains("# TYPE http_requests counter\n") && open.contains("le=\"1.0\""));
        assert!(open.ends_with("# EOF\n") && !text.contains("EOF"));
    }
}
