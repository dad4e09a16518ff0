//! A stretch of the past of an arm that a metrics server knows, look by look.
//!
//! The server is asked for the samples themselves, a chunk of time per selector, and the looks are
//! read from them as live ones are: same series, same staleness, same instances. It deliberately
//! does not ask for values on a grid (`query_range`): between two scrapes those repeat, so that
//! counters seem to stand still and then to jump, which reads as noise that is not there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

use super::{
    collector::PROMQL_INSTANCE,
    prometheus::PrometheusServer,
    prometheus_answer::{Data, LongSeries, Newest, POINTS_KEPT, Point, Series},
    selector_arm::{Book, Look, Plan, QUERIES_AT_ONCE, SelectorArm, plan, readings, scrape_gap},
};
use crate::{
    engine::observation::{Missing, Time, Why},
    signal::{past::Stretch, sample::InstanceReading, spec::SignalSpec},
    telemetry::Telemetry,
};

/// Time between two looks at the past; more where targets are scraped less often.
pub const STEP: Duration = Duration::from_secs(15);

/// What one question covers. An hour of a service with thousands of series does not fit an answer.
const CHUNK: Duration = Duration::from_secs(900);

/// Longest stretch that is read, and so looks at the past: two hours, one a step.
pub const STRETCH_MAX: Duration = Duration::from_secs(2 * 3600);

/// Looks between two moments at which others are let to work.
const LOOKS_AT_ONCE: u32 = 16;

/// What to read.
pub struct PastArm<'a> {
    /// The server.
    pub server: Arc<PrometheusServer>,
    /// Label matchers that pick the arm's series.
    pub matchers: String,
    /// The signals.
    pub specs: &'a [SignalSpec],
}

/// Reads the looks of a stretch, oldest first, and gives each to `each`.
///
/// # Errors
/// When the server does not answer a question in time, refuses it, or the stretch is too long.
pub async fn read(
    arm: PastArm<'_>,
    stretch: Stretch,
    timeout: Duration,
    telemetry: &Telemetry,
    mut each: impl FnMut(Time, Vec<InstanceReading>),
) -> Result<(), Missing> {
    if stretch.length() > STRETCH_MAX {
        let detail = format!("{:?} of history, at most {STRETCH_MAX:?} are read", stretch.length());
        return Err(Missing::new(Why::NotObserved, detail));
    }
    let begun = Instant::now();
    let (specs, selector) = (arm.specs, SelectorArm { server: arm.server, matchers: arm.matchers });
    let mut step: Option<Duration> = None;
    let mut at = stretch.after;
    while at < stretch.until {
        let end = at.after(CHUNK).min(stretch.until);
        let mut book = Book::default();
        // What a look sees may lie before the chunk it is in.
        let range = end.since(at) + selector.server.range();
        let plan = plan(&selector, specs, range, &mut book);
        let left = move || timeout.saturating_sub(begun.elapsed());
        let mut long = ask(&plan, &book, end, left, telemetry).await?;
        let step = *step.get_or_insert_with(|| step_of(&long));
        book.answers = long.iter_mut().map(Long::answer).collect();
        let mut looks = 0;
        while at.after(step) <= end {
            at = at.after(step);
            for (answer, long) in book.answers.iter_mut().zip(&mut long) {
                long.window(answer, at, selector.server.range());
            }
            let look = Look { now: at, timeout, specs };
            let mut seen = readings(&selector, &plan, &[], &book, look);
            // An instance of which nothing is left in the window had ended by then.
            seen.retain(|one| {
                one.levels.iter().any(|level| level.value.is_ok())
                    || &*one.instance == PROMQL_INSTANCE
                    || one.samples.as_ref().map_or(true, |all| !all.is_empty())
            });
            each(at, seen);
            looks += 1;
            if looks % LOOKS_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        if looks == 0 {
            // What is left is shorter than a step.
            return Ok(());
        }
    }
    Ok(())
}

/// The answer to one question: its series, and how far each has been read.
enum Long {
    /// Series that are summed up by instance.
    Samples(Vec<(Vec<Point>, usize)>, Vec<Series>),
    /// What an expression gave.
    Level(Vec<(Vec<Point>, usize)>, Vec<Series>),
    /// Nothing.
    Failed(Missing),
}

impl Long {
    fn of(answer: Result<Vec<LongSeries>, Missing>, is_level: bool) -> Self {
        let answer = match answer {
            Ok(answer) => answer,
            Err(missing) => return Self::Failed(missing),
        };
        let unread = |one: LongSeries| ((one.values, 0), Series::of(one.metric));
        let (points, series) = answer.into_iter().map(unread).unzip();
        if is_level { Self::Level(points, series) } else { Self::Samples(points, series) }
    }

    fn points(&self) -> &[(Vec<Point>, usize)] {
        match self {
            Long::Samples(points, _) | Long::Level(points, _) => points,
            Long::Failed(_) => &[],
        }
    }

    /// The answer before the first look.
    fn answer(&mut self) -> Result<Data, Missing> {
        match self {
            // The names are needed once; what changes from look to look are the points.
            Long::Samples(_, series) => Ok(Data::Matrix(std::mem::take(series))),
            Long::Level(..) => Ok(Data::Vector(Vec::new())),
            Long::Failed(missing) => Err(missing.clone()),
        }
    }

    /// Makes the answer what a question asked at this moment would have found.
    fn window(&mut self, answer: &mut Result<Data, Missing>, at: Time, range: Duration) {
        match (self, answer) {
            (Long::Samples(points, _), Ok(Data::Matrix(series))) => {
                for (series, points) in series.iter_mut().zip(points) {
                    series.values = Newest(newest(points, at, range).to_vec());
                }
            }
            (Long::Level(points, series), Ok(data)) => {
                // An expression that gave nothing at a step had no value then.
                let valued = series.iter().zip(points).filter_map(|(series, points)| {
                    let mut valued = series.clone();
                    valued.value = Some(*newest(points, at, STEP).last()?);
                    Some(valued)
                });
                *data = Data::Vector(valued.collect());
            }
            (Long::Samples(..) | Long::Level(..) | Long::Failed(_), _) => {}
        }
    }
}

/// The newest points that are not after a moment and not older than the range.
fn newest((points, read): &mut (Vec<Point>, usize), at: Time, range: Duration) -> &[Point] {
    while points.get(*read).is_some_and(|point| point.at_ms <= at.0) {
        *read += 1;
    }
    let oldest = at.0.saturating_sub(i64::try_from(range.as_millis()).unwrap_or(i64::MAX));
    let newest = &points[read.saturating_sub(POINTS_KEPT)..*read];
    &newest[newest.partition_point(|point| point.at_ms <= oldest)..]
}

async fn ask(
    plan: &Plan,
    book: &Book,
    end: Time,
    left: impl Fn() -> Duration + Copy,
    telemetry: &Telemetry,
) -> Result<Vec<Long>, Missing> {
    let range = plan.range_secs;
    let is_level = |index: usize| plan.levels.iter().any(|(_, answer)| *answer == index);
    let questions: Vec<(Arc<PrometheusServer>, String)> = book
        .questions
        .iter()
        .enumerate()
        .map(|(index, (server, query))| {
            let query = if is_level(index) {
                format!("({query})[{range}s:{}s]", STEP.as_secs())
            } else {
                query.clone()
            };
            (server.clone(), query)
        })
        .collect();
    let answers: Vec<_> = stream::iter(questions)
        .map(|(server, query)| async move {
            server.ask_all_points(&query, end, left(), telemetry).await
        })
        .buffered(QUERIES_AT_ONCE)
        .collect()
        .await;
    // Without one kind of series an instance is not understood; without a level only that is missing.
    let failed = plan.samples.iter().find_map(|planned| answers[planned.answer].as_ref().err());
    if let Some(missing) = failed {
        return Err(missing.clone());
    }
    let long = answers.into_iter().enumerate();
    Ok(long.map(|(index, answer)| Long::of(answer, is_level(index))).collect())
}

/// A whole number of scrapes: a step that holds now one and now two would read as noise.
fn step_of(long: &[Long]) -> Duration {
    let points = long.iter().flat_map(Long::points);
    let gap = points.filter_map(|(points, _)| {
        let times: Vec<i64> = points.iter().map(|point| point.at_ms).collect();
        scrape_gap(&times)
    });
    whole_scrapes(gap.min(), STEP)
}

/// The least time that is a whole number of scrapes and no less than `least`; `least` itself where
/// it is not known how often targets are scraped.
pub(super) fn whole_scrapes(gap_ms: Option<i64>, least: Duration) -> Duration {
    let gap_ms = gap_ms.and_then(|gap| u64::try_from(gap).ok()).filter(|gap| *gap > 0);
    let Some(gap_ms) = gap_ms else { return least };
    // Scrapes are stamped with some jitter; the interval itself is whole seconds, or less than one.
    let gap_ms = ((gap_ms + 500) / 1000).max(1) * 1000;
    let least_ms = u64::try_from(least.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(least_ms.div_ceil(gap_ms).max(1).saturating_mul(gap_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(points: &[(i64, f64)]) -> (Vec<Point>, usize) {
        (points.iter().map(|&(secs, value)| Point { at_ms: secs * 1000, value }).collect(), 0)
    }

    #[test]
    fn a_window_holds_what_a_live_question_would_have_found() {
        let points: Vec<(i64, f64)> = (1..=20).map(|n| (n * 10, n as f64)).collect();
        let mut long = long(&points);
        let mut check = |secs: i64, expected: &[f64]| {
            let range = Duration::from_secs(30);
            let found = newest(&mut long, Time(secs * 1000), range);
            let found: Vec<f64> = found.iter().map(|point| point.value).collect();
            assert_eq!(found, expected, "at {secs} s");
        };
        check(5, &[]);
        check(10, &[1.0]);
        check(35, &[1.0, 2.0, 3.0]);
        check(40, &[2.0, 3.0, 4.0]);
        check(225, &[20.0]);
        check(230, &[]);
    }

    #[test]
    fn a_step_is_a_whole_number_of_scrapes() {
        let check = |gap_ms: i64, expected_secs: u64| {
            let points = (0..5).map(|n| Point { at_ms: n * gap_ms, value: 0.0 }).collect();
            let long = [Long::Samples(vec![(points, 0)], Vec::new())];
            assert_eq!(step_of(&long), Duration::from_secs(expected_secs), "{gap_ms} ms");
        };
        check(200, 15);
        check(1000, 15);
        check(4003, 16);
        check(9_998, 20);
        check(15_001, 15);
        check(60_000, 60);
        assert_eq!(step_of(&[]), STEP);
    }
}
