//! Arms whose samples a metrics server has: from rule selectors to instance readings.
//!
//! Invariants: an instance's samples are of one moment, also when a scrape came in between two
//! queries; a series that ended is absent, an instance whose newest sample is old is stale, a
//! failed query is never "no series". One query is asked once a look, whoever needs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

use super::{
    collector::{promql_signals, pseudo_instance},
    excerpt::excerpt,
    prometheus::{PrometheusServer, stale_words},
    prometheus_answer::{Data, Series},
    target::Target,
};
use crate::{
    engine::observation::{Missing, Time, Why},
    signal::{
        sample::{InstanceReading, Level, RefusedLines, Sample},
        spec::{PROCESS_START_TIME, Reads, Selection, Selector, SignalSpec},
    },
    telemetry::Telemetry,
};

/// How many scrapes back a bare name is asked for: as many points as are held, and a missed one.
const BARE_RANGE_SCRAPES: u32 = 5;
/// Queries of one look in flight.
pub(super) const QUERIES_AT_ONCE: usize = 8;
/// Instances of one arm whose samples are used.
pub const INSTANCES_PER_ARM_MAX: usize = 512;
/// An instance is stale once its newest sample is older than this many of its scrape intervals.
const STALE_INTERVALS: u32 = 3;
/// And than this: a server that scrapes each second may be busy for some.
const STALE_AGE_MIN: Duration = Duration::from_secs(5);

/// The series by which a metrics server says whether its scrape of an instance was answered.
const UP: &str = "up";

/// One arm.
pub(super) struct SelectorArm {
    pub server: Arc<PrometheusServer>,
    pub matchers: String,
}

/// One look.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub now: Time,
    pub timeout: Duration,
    pub specs: &'a [SignalSpec],
}

/// Reads both arms, canary first.
pub(super) async fn read_arms(
    arms: &[Option<SelectorArm>; 2],
    look: Look<'_>,
    telemetry: &Telemetry,
) -> [Option<Vec<InstanceReading>>; 2] {
    let begun = Instant::now();
    let mut book = Book::default();
    let plans = arms
        .each_ref()
        .map(|arm| arm.as_ref().map(|arm| plan(arm, look.specs, arm.server.range(), &mut book)));
    book.ask_new(look, begun, telemetry).await;
    // A histogram without buckets may be a native one, or a summary; only then is that worth a
    // question.
    let bare = plans.each_ref().map(|plan| match plan {
        None => Vec::new(),
        Some(plan) => bare_questions(plan, &mut book),
    });
    book.ask_new(look, begun, telemetry).await;
    let mut read = [None, None];
    for (((read, arm), plan), bare) in read.iter_mut().zip(arms).zip(&plans).zip(&bare) {
        if let (Some(arm), Some(plan)) = (arm, plan) {
            *read = Some(readings(arm, plan, bare, &book, look));
        }
    }
    read
}

/// All questions of a look, each once, and their answers.
#[derive(Default)]
pub(super) struct Book {
    pub questions: Vec<(Arc<PrometheusServer>, String)>,
    pub answers: Vec<Result<Data, Missing>>,
}

impl Book {
    pub(super) fn index_of(&mut self, server: &Arc<PrometheusServer>, query: String) -> usize {
        let known = self
            .questions
            .iter()
            .position(|(other, asked)| Arc::ptr_eq(other, server) && *asked == query);
        known.unwrap_or_else(|| {
            self.questions.push((server.clone(), query));
            self.questions.len() - 1
        })
    }

    async fn ask_new(&mut self, look: Look<'_>, begun: Instant, telemetry: &Telemetry) {
        // Owned, because a closure over borrowed pairs is not `Send` enough to be spawned.
        let new = self.questions[self.answers.len()..].to_vec();
        let answers: Vec<_> = stream::iter(new)
            .map(|(server, query)| {
                let left = move || look.timeout.saturating_sub(begun.elapsed());
                async move { server.ask(&query, look.now, left(), telemetry).await }
            })
            .buffered(QUERIES_AT_ONCE)
            .collect()
            .await;
        self.answers.extend(answers);
    }
}

/// Where in the book the answers of one arm are.
pub(super) struct Plan {
    pub samples: Vec<Planned>,
    pub levels: Vec<(usize, usize)>,
    /// The signals that ask which instances are up, and the answer that tells it.
    up: Option<(Vec<usize>, usize)>,
    /// How far back samples are asked for.
    pub range_secs: u64,
    server: Arc<PrometheusServer>,
}

pub(super) struct Planned {
    pub answer: usize,
    pub metric: String,
    /// Of a histogram's buckets: its bare name, which a native one and a summary have.
    pub native: Option<String>,
}

/// A question that is asked when buckets were not found.
pub(super) struct BareQuestion {
    pub metric: String,
    pub answer: usize,
}

/// What has to be asked of one arm. Samples are asked for as far back as `range`.
pub(super) fn plan(
    arm: &SelectorArm,
    specs: &[SignalSpec],
    range: Duration,
    book: &mut Book,
) -> Plan {
    let matchers = bare(&arm.matchers);
    let range = range.as_secs().max(1);
    let mut samples: Vec<Planned> = Vec::new();
    for wanted in wanted(specs) {
        let bucket = if wanted.histogram { "_bucket" } else { "" };
        let series = series_text(wanted.selector, bucket, matchers);
        let answer = book.index_of(&arm.server, format!("{series}[{range}s]"));
        if samples.iter().all(|planned| planned.answer != answer) {
            let metric = wanted.selector.name.clone();
            let native = wanted.histogram.then(|| series_text(wanted.selector, "", matchers));
            samples.push(Planned { answer, metric, native });
        }
    }
    let start = Selector { name: PROCESS_START_TIME.to_owned(), matchers: Vec::new() };
    let start = format!("{}[{range}s]", series_text(&start, "", matchers));
    let answer = book.index_of(&arm.server, start);
    if samples.iter().all(|planned| planned.answer != answer) {
        samples.push(Planned { answer, metric: PROCESS_START_TIME.to_owned(), native: None });
    }
    let up: Vec<usize> = specs
        .iter()
        .enumerate()
        .filter_map(|(signal, spec)| matches!(spec.reads, Reads::Up).then_some(signal))
        .collect();
    let up = (!up.is_empty()).then(|| {
        let selector = Selector { name: UP.to_owned(), matchers: Vec::new() };
        let series = series_text(&selector, "", matchers);
        (up, book.index_of(&arm.server, format!("{series}[{range}s]")))
    });
    let levels = promql_signals(specs)
        .map(|(signal, expression)| {
            (signal, book.index_of(&arm.server, expression.replace("$arm", matchers)))
        })
        .collect();
    Plan { samples, levels, up, range_secs: range, server: arm.server.clone() }
}

struct Wanted<'a> {
    selector: &'a Selector,
    histogram: bool,
}

/// Every selector that has to be asked for. One without matchers covers its whole metric.
fn wanted(specs: &[SignalSpec]) -> Vec<Wanted<'_>> {
    let mut all = Vec::new();
    for spec in specs {
        match &spec.reads {
            Reads::Ratio { events, total } => {
                all.extend(of(events, false));
                all.extend(of(total, false));
            }
            Reads::Counter(selection) | Reads::Restarts(selection) => {
                all.extend(of(selection, false));
            }
            Reads::Histogram { of: selection, .. } => all.extend(of(selection, true)),
            Reads::Gauge { of: gauge, per, .. } => {
                all.extend(of(gauge, false));
                if let Some(per) = per {
                    all.extend(of(per, false));
                }
            }
            Reads::Health(_) | Reads::Answer { .. } | Reads::Up | Reads::Promql(_) => {}
        }
    }
    let whole: BTreeSet<(&str, bool)> = all
        .iter()
        .filter(|wanted| wanted.selector.matchers.is_empty())
        .map(|wanted| (wanted.selector.name.as_str(), wanted.histogram))
        .collect();
    all.retain(|wanted| {
        wanted.selector.matchers.is_empty()
            || !whole.contains(&(wanted.selector.name.as_str(), wanted.histogram))
    });
    all
}

fn of(selection: &Selection, histogram: bool) -> impl Iterator<Item = Wanted<'_>> {
    selection.any_of.iter().map(move |selector| Wanted { selector, histogram })
}

/// `name{rule matchers,arm matchers}`.
fn series_text(selector: &Selector, suffix: &str, arm: &str) -> String {
    let mut matchers: Vec<String> = selector.matchers.iter().map(ToString::to_string).collect();
    if !arm.is_empty() {
        matchers.push(arm.to_owned());
    }
    format!("{}{suffix}{{{}}}", selector.name, matchers.join(","))
}

/// An arm's matchers without the braces and commas that some write around them.
fn bare(matchers: &str) -> &str {
    let matchers = matchers.trim();
    let inside = matchers.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    inside.unwrap_or(matchers).trim().trim_end_matches(',').trim_end()
}

/// A range of native histograms is long: it is asked for a few scrapes back only, as far as the
/// other answers tell how often there is one.
fn bare_questions(plan: &Plan, book: &mut Book) -> Vec<BareQuestion> {
    let mut questions = Vec::new();
    let answers =
        plan.samples.iter().filter_map(|planned| book.answers[planned.answer].as_ref().ok());
    let gaps = answers.flat_map(Data::series).filter_map(|series| scrape_gap(&series.times()));
    let enough =
        gaps.max().map(|gap| Duration::from_millis(gap.unsigned_abs()) * BARE_RANGE_SCRAPES);
    let range = enough.map_or(plan.server.range(), |enough| {
        enough.max(STALE_AGE_MIN * 2).min(plan.server.range())
    });
    let range = range.as_secs().max(1);
    for planned in &plan.samples {
        let empty =
            book.answers[planned.answer].as_ref().is_ok_and(|data| data.series().is_empty());
        if let (true, Some(query)) = (empty, &planned.native) {
            let answer = book.index_of(&plan.server, format!("{query}[{range}s]"));
            questions.push(BareQuestion { metric: planned.metric.clone(), answer });
        }
    }
    questions
}

/// What the answers say of each instance of one arm.
pub(super) fn readings(
    arm: &SelectorArm,
    plan: &Plan,
    by_name: &[BareQuestion],
    book: &Book,
    look: Look<'_>,
) -> Vec<InstanceReading> {
    let nameless = format!("{{{}}}", bare(&arm.matchers));
    let mut instances: BTreeMap<&str, Instance<'_>> = BTreeMap::new();
    let mut failed: Option<Missing> = None;
    let planned = plan.samples.iter().map(|planned| (&planned.metric, planned.answer));
    let by_name = by_name.iter().map(|question| (&question.metric, question.answer));
    for (question, (metric, answer)) in planned.chain(by_name).enumerate() {
        match &book.answers[answer] {
            Err(missing) => {
                failed.get_or_insert_with(|| missing.clone());
            }
            Ok(data) => {
                for series in data.series() {
                    let name = series.metric.get("instance").map_or(&*nameless, String::as_str);
                    instances.entry(name).or_default().take(question, metric, series);
                }
            }
        }
    }
    if let Some((_, answer)) = plan.up {
        for series in book.answers[answer].iter().flat_map(Data::series) {
            let name = series.metric.get("instance").map_or(&*nameless, String::as_str);
            instances.entry(name).or_default().up = Some(series);
        }
    }
    if instances.is_empty() {
        // The arm has no series at all, or it could not be asked: one reading says so.
        instances.insert(&nameless, Instance::default());
    }
    let mut readings: Vec<InstanceReading> = instances
        .into_iter()
        .enumerate()
        .map(|(index, (name, instance))| {
            let mut reading = instance.reading(name, plan.server.range(), look.now);
            if let Some(missing) = &failed {
                reading.samples = Err(missing.clone());
            } else if index >= INSTANCES_PER_ARM_MAX {
                let detail =
                    format!("{name}: beyond the limit of {INSTANCES_PER_ARM_MAX} instances an arm");
                reading.samples = Err(Missing::new(Why::NotObserved, detail));
            }
            if let Some((signals, answer)) = &plan.up {
                let up = match &book.answers[*answer] {
                    Ok(_) => instance.up(name, &nameless, plan.server.range(), look.now),
                    Err(missing) => Err(missing.clone()),
                };
                if let (Ok(0.0), Ok(_)) = (&up, &reading.samples) {
                    let detail = format!("{name}: the metrics server cannot scrape it (`up` is 0)");
                    reading.samples = Err(Missing::new(Why::ScrapeFailed, detail));
                }
                let level = |signal: &usize| Level { signal: *signal, value: up.clone() };
                reading.levels = signals.iter().map(level).collect();
            }
            reading
        })
        .collect();
    let levels = plan.levels.iter().map(|(signal, answer)| Level {
        signal: *signal,
        value: level(&book.questions[*answer].1, &book.answers[*answer]),
    });
    readings.extend(pseudo_instance(look.now, levels.collect()));
    readings
}

/// The series of one instance.
#[derive(Default)]
struct Instance<'a> {
    series: Vec<Asked<'a>>,
    /// Whether its scrapes were answered.
    up: Option<&'a Series>,
}

/// One series of an answer.
struct Asked<'a> {
    /// The question that it answers.
    question: usize,
    metric: &'a str,
    series: &'a Series,
    /// When its newest sample was taken.
    last: Option<i64>,
    /// How often it is scraped, as far as its points tell.
    gap: Option<i64>,
}

impl<'a> Instance<'a> {
    fn take(&mut self, question: usize, metric: &'a str, series: &'a Series) {
        let times = series.times();
        let (last, gap) = (times.last().copied(), scrape_gap(&times));
        self.series.push(Asked { question, metric, series, last, gap });
    }

    fn reading(&self, name: &str, range: Duration, now: Time) -> InstanceReading {
        let mut faults = Vec::new();
        let (at, samples) = self.samples(name, range, now, &mut faults);
        let refused = faults.first().map(|first| RefusedLines {
            lines: u32::try_from(faults.len()).unwrap_or(u32::MAX),
            first: excerpt(first),
        });
        InstanceReading {
            instance: name.into(),
            at,
            samples,
            refused,
            probes: Vec::new(),
            levels: Vec::new(),
        }
    }

    /// 1 when the server's last scrape of it was answered, 0 when it was not. A server that does not
    /// try any more says nothing.
    fn up(&self, name: &str, arm: &str, range: Duration, now: Time) -> Result<f64, Missing> {
        let last = self.up.and_then(|series| Some((series, series.values.0.last()?)));
        let Some((series, last)) = last else {
            let detail = format!(
                "{name}: no {UP}{arm}; hint: `up` has the target's own labels only, not those of \
                 its metrics"
            );
            return Err(Missing::new(Why::AbsentSeries, detail));
        };
        let gap = scrape_gap(&series.times()).map(i64::unsigned_abs).map(Duration::from_millis);
        let (age, gap) = (now.since(Time(last.at_ms)), gap.unwrap_or(range / STALE_INTERVALS));
        if age > (gap * STALE_INTERVALS).max(STALE_AGE_MIN) {
            return Err(Missing::new(Why::Stale, stale_words(name, age, gap)));
        }
        Ok(if last.value > 0.0 { 1.0 } else { 0.0 })
    }

    fn samples(
        &self,
        name: &str,
        range: Duration,
        now: Time,
        faults: &mut Vec<String>,
    ) -> (Time, Result<Vec<Sample>, Missing>) {
        let range_ms = i64::try_from(range.as_millis()).unwrap_or(i64::MAX);
        // Of a series with one point the interval is that of the others; when all are new it is
        // not known, and the range is three of the longest.
        let least = self.series.iter().filter_map(|asked| asked.gap).min();
        let least_gap = least.unwrap_or(range_ms / i64::from(STALE_INTERVALS));
        let gap = |asked: &Asked<'_>| asked.gap.unwrap_or(least_gap);
        let Some(newest) = self.series.iter().filter_map(|asked| asked.last).max() else {
            return (now, Ok(Vec::new()));
        };
        let age = now.since(Time(newest));
        let least_gap = Duration::from_millis(least_gap.unsigned_abs());
        if age > (least_gap * STALE_INTERVALS).max(STALE_AGE_MIN) {
            let missing = Missing::new(Why::Stale, stale_words(name, age, least_gap));
            return (Time(newest), Err(missing));
        }
        // The newest scrape that the answers of all questions have. A question whose series have
        // ended does not hold the others back.
        let mut seen: BTreeMap<usize, i64> = BTreeMap::new();
        for asked in &self.series {
            let is_live = |last: &i64| newest - last <= gap(asked) * 3 / 2;
            if let Some(last) = asked.last.filter(is_live) {
                let seen = seen.entry(asked.question).or_insert(last);
                *seen = last.max(*seen);
            }
        }
        let at = seen.into_values().min().unwrap_or(newest);
        let mut samples: Vec<Sample> = Vec::with_capacity(self.series.len());
        for asked in &self.series {
            let Asked { series, metric, .. } = asked;
            let is_live = |at_ms: i64| at_ms <= at && at - at_ms <= gap(asked) * 3 / 2;
            if let Some(point) = series.values.0.iter().rfind(|point| is_live(point.at_ms)) {
                samples.push(Sample { value: point.value, ..series.blank().clone() });
            } else if let Some(point) =
                series.histograms.0.iter().rfind(|point| is_live(point.at_ms))
            {
                match point.histogram.samples(metric, &series.blank().labels) {
                    Ok(read) => samples.extend(read),
                    Err(fault) => faults.push(format!("{metric}: {fault}")),
                }
            }
        }
        // Two questions may have one series in common: it is one sample, as last answered.
        samples.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
        samples.dedup_by(|later, first| {
            let is_same = (&later.name, &later.labels) == (&first.name, &first.labels);
            if is_same {
                std::mem::swap(later, first);
            }
            is_same
        });
        (Time(at), Ok(samples))
    }
}

/// The shortest time between two points: a missed scrape makes the others longer.
pub(super) fn scrape_gap(times: &[i64]) -> Option<i64> {
    times.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 0).min()
}

/// The one number an expression is expected to give.
fn level(query: &str, answer: &Result<Data, Missing>) -> Result<f64, Missing> {
    let asked = excerpt(query);
    let value = match answer {
        Err(missing) => return Err(missing.clone()),
        Ok(Data::Scalar(point)) => point.value,
        Ok(Data::Vector(series)) => match series.as_slice() {
            [] => return Err(Missing::new(Why::AbsentSeries, format!("{asked} gave nothing"))),
            [one] => match one.value {
                Some(point) => point.value,
                None => {
                    let detail = format!("{asked} gave a native histogram, expected a number");
                    return Err(Missing::new(Why::BadValue, detail));
                }
            },
            many => {
                let detail = format!(
                    "{asked} gave {} elements, expected one; hint: wrap it in sum() or max()",
                    many.len()
                );
                return Err(Missing::new(Why::BadValue, detail));
            }
        },
        Ok(Data::Matrix(_) | Data::String(_)) => {
            let detail = format!("{asked} gave a range or a string, expected one number");
            return Err(Missing::new(Why::BadValue, detail));
        }
    };
    if value.is_finite() {
        Ok(value)
    } else {
        Err(Missing::new(Why::BadValue, format!("{asked} gave {value}")))
    }
}

/// The address that an `instance` label is by convention.
pub(super) fn address(instance: &str) -> Result<Target, Missing> {
    let looks = instance.rsplit_once(':').is_some_and(|(host, port)| {
        let odd = |c: char| c.is_whitespace() || "/@?#{}\\".contains(c);
        !host.is_empty() && !host.contains(odd) && port.parse::<u16>().is_ok()
    });
    let target = looks.then(|| Target::parse(&format!("http://{instance}")).ok()).flatten();
    target.ok_or_else(|| {
        let detail = format!(
            "the instance label {instance:?} is not host:port, so its health cannot be asked; \
             hint: give the health signal an absolute URL"
        );
        Missing::new(Why::NotObserved, detail)
    })
}

#[cfg(test)]
#[path = "selector_arm_tests.rs"]
mod tests;
