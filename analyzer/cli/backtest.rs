//! `rollgate backtest --rules FILE --prometheus URL ...`: the engine over past releases, and over times
//! without any.
//!
//! Releases come from a file or are found by a version label whose values change. What cannot be
//! judged is named and costs only itself.

mod page;
mod shape;
mod table;
mod words;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{
    FAILURE, PROMOTE, UsageError, display, load_rules, parse_duration, progress,
    simulate::write_page,
};
use crate::{
    backtest::{
        discover::Discovery,
        outcome::Outcome,
        placebo::{Quiet, Window, windows},
        releases::{self, FILE_BYTES_MAX, Release},
        rules::PastRules,
        run::Backtest,
    },
    service::{lag::back, system_clock},
    signal::past::Stretch,
    source::{
        archive::Archivist,
        client::Client,
        prometheus::{PrometheusLimits, PrometheusOptions, PrometheusServer},
    },
    telemetry::{Telemetry, secret::Secret},
};

/// Windows without a release at most.
pub const PLACEBOS_MAX: usize = 10_000;

/// Longest past that is looked at.
pub const SINCE_MAX: Duration = Duration::from_secs(400 * 86_400);

/// Arguments of `backtest`.
#[derive(Args)]
#[command(after_help = "\
Judges past releases by the engine that judges live ones, over the samples that the server recorded,
and measures how often times without a release would have been rolled back. Nothing is written but
the report. Exit codes: 0 done, whatever was found; 1 nothing could be judged; 2 bad usage.

A file of releases is YAML or JSON, one object each, oldest or newest first:
  - { start: 2026-03-01T09:30:00Z, service: shop, version: v2, canary: 'job=\"shop\",version=\"v2\"',
      baseline: 'job=\"shop\",version=\"v1\"', bad: true, bad_since: 2026-03-01T09:40:00Z }

  rollgate backtest --rules shop.yaml --prometheus http://prometheus:9090 --since 30d \\
      --selector 'job=\"shop\"' --html shop.html
  rollgate backtest --rules shop.yaml --prometheus http://prometheus:9090 --releases past.yaml --json
  rollgate backtest --rules shop.yaml --prometheus https://metrics.example.org/prom \\
      --header authorization=env:METRICS_AUTHORIZATION --selector 'namespace=\"shop\"' --by app --list")]
pub struct BacktestArgs {
    /// Rule file.
    #[arg(long, value_name = "FILE")]
    rules: PathBuf,
    /// The Prometheus-compatible server that has the past.
    #[arg(long, value_name = "URL")]
    prometheus: String,
    /// A header of every request, and where its value is: NAME=env:VARIABLE or NAME=file:PATH.
    #[arg(long, value_name = "NAME=PLACE")]
    header: Vec<String>,
    /// File of past releases.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["selector", "query"])]
    releases: Option<PathBuf>,
    /// Find releases among the targets with these labels: a new value of the version label is one.
    #[arg(long, value_name = "MATCHERS")]
    selector: Option<String>,
    /// Find them by this expression instead, whose series carry the version label.
    #[arg(long, value_name = "PROMQL")]
    query: Option<String>,
    /// The label that holds the version.
    #[arg(long, value_name = "LABEL", default_value = "version")]
    version_label: String,
    /// The label that tells one service from another; repeat for several.
    #[arg(long, value_name = "LABEL", default_value = "job")]
    by: Vec<String>,
    /// How far back to look: 12h, 30d.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_since)]
    since: Duration,
    /// Look no later than this: 2026-03-01T09:30:00Z or unix seconds; now when left out.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Judge times without a release too: auto, none, or so much of it (24h).
    #[arg(long, value_name = "TIME", default_value = "auto", value_parser = parse_placebo)]
    placebo: PlaceboTime,
    /// At most so many windows without a release.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = parse_placebos)]
    placebos: usize,
    /// Watch at least this long instead of what the rule file says.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    hold: Option<Duration>,
    /// Time the server has for one question.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    /// Only say which releases there are.
    #[arg(long)]
    list: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Write a page with plots to this file: one file, nothing loaded from elsewhere.
    #[arg(long, value_name = "OUT.html")]
    html: Option<PathBuf>,
}

/// How much time without a release is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlaceboTime {
    All,
    AtMost(Duration),
}

/// What is judged and by what, for those who put it in words.
struct Asked<'a> {
    file: String,
    backtest: &'a Backtest,
    /// Windows that there would be room for.
    placebos: usize,
    releases: usize,
}

/// Runs the command.
pub fn main(args: &BacktestArgs) -> anyhow::Result<u8> {
    super::init_logging("error");
    let file = load_rules(&args.rules, args.hold.map(|hold| hold.as_secs_f64()))?;
    let past = PastRules::of(file);
    if past.rules.rules.is_empty() {
        let fault = format!(
            "{}: no rule of it can be judged over the past: health endpoints have none",
            args.rules.display()
        );
        return Err(UsageError(fault).into());
    }
    let until = match &args.until {
        Some(text) => releases::moment(text).map_err(|fault| usage("--until", &fault))?,
        None => system_clock()(),
    };
    let span = Stretch { after: back(until, args.since), until };
    let stop = CancellationToken::new();
    let backtest = Backtest { past, archivist: args.archivist()?, span, stop: stop.clone() };
    let how = args.how()?;
    super::runtime()?.block_on(async {
        let work = run(args, &backtest, how);
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => done,
            _ = tokio::signal::ctrl_c() => {
                // What is done by now is told.
                stop.cancel();
                work.await
            }
        }
    })
}

/// Where releases come from.
enum Source {
    File(Vec<Release>),
    Found(Discovery),
}

impl BacktestArgs {
    fn how(&self) -> anyhow::Result<Source> {
        if let Some(path) = &self.releases {
            let name = path.display().to_string();
            let text = read_releases(path)?;
            let service = load_rules(&self.rules, None)?.rules.service;
            let read = releases::read(&name, &text, &service);
            return Ok(Source::File(read.map_err(UsageError)?));
        }
        if let Some(selector) = &self.selector {
            releases::matchers(selector).map_err(|fault| usage("--selector", &fault))?;
        }
        let how = match (&self.query, &self.selector) {
            (Some(query), selector) => Discovery {
                query: query.clone(),
                version_label: self.version_label.clone(),
                selector: selector.clone().unwrap_or_default(),
            },
            (None, Some(selector)) => {
                Discovery::of_targets(selector, &self.version_label, &self.by)
            }
            (None, None) => {
                let fault = "which releases? give --releases FILE, or --selector 'job=\"shop\"' to \
                             find them by the version label of its targets";
                return Err(UsageError(fault.to_owned()).into());
            }
        };
        Ok(Source::Found(how))
    }

    fn archivist(&self) -> anyhow::Result<Archivist> {
        let client = Client::new().context("the http client cannot be set up")?;
        let headers: anyhow::Result<Vec<_>> =
            self.header.iter().map(|header| read_header(header)).collect();
        let options = PrometheusOptions {
            url: self.prometheus.clone(),
            headers: headers?,
            timeout: self.timeout,
            limits: PrometheusLimits::default(),
        };
        let server = PrometheusServer::new(client, options);
        let server = server.map_err(|error| UsageError(format!("--prometheus: {error}")))?;
        Ok(Archivist::new(Arc::new(server), self.timeout, Telemetry::new()))
    }

    /// The windows without a release that are judged.
    fn windows(&self, quiet: &[Quiet], length: Duration) -> Vec<Window> {
        let most = match self.placebo {
            PlaceboTime::All => self.placebos,
            PlaceboTime::AtMost(time) => {
                let fit = time.as_secs_f64() / length.as_secs_f64();
                self.placebos.min(fit.floor() as usize)
            }
        };
        windows(quiet, length, most)
    }
}

async fn run(args: &BacktestArgs, backtest: &Backtest, how: Source) -> anyhow::Result<u8> {
    let (releases, quiet) = match how {
        Source::File(releases) => {
            let quiet = backtest.quiet(&releases);
            (releases, quiet)
        }
        Source::Found(how) => {
            let found = tokio::select! {
                () = backtest.stop.cancelled() => Err("interrupted".to_owned()),
                found = backtest.discover(&how) => found,
            };
            match found {
                Ok(found) => found,
                Err(why) => {
                    eprintln!("error: releases cannot be looked for: {why}");
                    return Ok(FAILURE);
                }
            }
        }
    };
    let (color, columns) = display::stdout_style();
    let mut out = io::stdout().lock();
    if args.list {
        if args.json {
            let listed: Vec<_> = releases.iter().map(shape::release).collect();
            super::print_json(&mut out, &listed)?;
        } else {
            write!(out, "{}", table::list(&releases, color, columns))?;
        }
        out.flush()?;
        return Ok(PROMOTE);
    }
    let windows = args.windows(&quiet, backtest.window());
    let asked = Asked {
        file: args.rules.display().to_string(),
        backtest,
        placebos: windows.len(),
        releases: releases.len(),
    };
    let work = (releases.len() + windows.len()) as u64;
    let bar = progress::bar(work, "{pos} of {len} releases and windows, {eta} left");
    let outcome: Outcome = backtest.run(releases, windows, || bar.inc(1)).await;
    bar.finish_and_clear();
    let found = shape::Backtested::new(&asked, &outcome);
    if let Some(path) = &args.html {
        write_page(path, &page::page(&found))?;
    }
    if args.json {
        super::print_json(&mut out, &found)?;
    } else {
        write!(out, "{}", table::table(&found, color, columns))?;
        if let Some(path) = &args.html {
            writeln!(out, " The page is in {}.", path.display())?;
        }
    }
    out.flush()?;
    Ok(if outcome.judged().next().is_some() { PROMOTE } else { FAILURE })
}

fn usage(of: &str, fault: &str) -> UsageError {
    UsageError(format!("{of}: {fault}"))
}

fn read_releases(path: &Path) -> anyhow::Result<String> {
    let unreadable =
        |error: io::Error| UsageError(format!("{} cannot be read: {error}", path.display()));
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    if bytes > FILE_BYTES_MAX as u64 {
        let fault = format!("{}: {bytes} bytes, at most {FILE_BYTES_MAX} are read", path.display());
        return Err(UsageError(fault).into());
    }
    Ok(fs::read_to_string(path).map_err(unreadable)?)
}

/// Reads `NAME=env:VARIABLE` or `NAME=file:PATH`; the value itself is never on the command line,
/// where every process can read it.
fn read_header(text: &str) -> anyhow::Result<(String, Secret)> {
    let expected = "expected NAME=env:VARIABLE or NAME=file:PATH, so that a secret is never on the \
                    command line";
    let (name, place) = text.split_once('=').ok_or_else(|| usage("--header", expected))?;
    let value = match place.split_once(':') {
        Some(("env", variable)) => std::env::var(variable)
            .map_err(|_| usage("--header", &format!("environment variable {variable} is not set"))),
        Some(("file", path)) => fs::read_to_string(path)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| usage("--header", &format!("{path} cannot be read: {error}"))),
        Some(_) | None => Err(usage("--header", expected)),
    }?;
    if value.is_empty() {
        return Err(usage("--header", &format!("the value of {name} is empty")).into());
    }
    Ok((name.to_owned(), Secret::new(value)))
}

fn parse_since(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<f64>().ok());
    let time = match days {
        Some(days) if days > 0.0 && days <= 1e6 => Duration::from_secs_f64(days * 86_400.0),
        Some(_) => return Err("expected a time such as 12h or 30d, above 0".to_owned()),
        None => parse_duration(text).map_err(|_| "expected a time such as 12h or 30d")?,
    };
    if time > SINCE_MAX {
        return Err("expected at most 400d".to_owned());
    }
    Ok(time)
}

fn parse_placebo(text: &str) -> Result<PlaceboTime, String> {
    match text {
        "auto" => Ok(PlaceboTime::All),
        "none" => Ok(PlaceboTime::AtMost(Duration::ZERO)),
        _ => parse_since(text)
            .map(PlaceboTime::AtMost)
            .map_err(|_| "expected auto, none, or a time such as 24h".to_owned()),
    }
}

fn parse_placebos(text: &str) -> Result<usize, String> {
    let most = text.parse().ok().filter(|most| *most <= PLACEBOS_MAX);
    most.ok_or_else(|| format!("expected a number of windows from 0 to {PLACEBOS_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_places_are_read_or_refused() {
        assert_eq!(parse_since("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_since("12h"), Ok(Duration::from_secs(12 * 3600)));
        for bad in ["", "d", "-1d", "0d", "401d", "x", "NaNd", "1e99d"] {
            assert!(parse_since(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_placebo("auto"), Ok(PlaceboTime::All));
        assert_eq!(parse_placebo("none"), Ok(PlaceboTime::AtMost(Duration::ZERO)));
        assert_eq!(parse_placebo("1d"), Ok(PlaceboTime::AtMost(Duration::from_secs(86_400))));
        assert!(parse_placebo("some").is_err() && parse_placebos("10001").is_err());
        for (bad, part) in [
            ("authorization", "NAME=env:"),
            ("authorization=hunter2", "NAME=env:"),
            ("a=env:ROLLGATE_NO_SUCH_VARIABLE", "is not set"),
            ("a=file:/no/such/file", "cannot be read"),
        ] {
            let fault = read_header(bad).unwrap_err().to_string();
            assert!(fault.contains(part) && !fault.contains("hunter2"), "{fault}");
        }
    }
}
