//! What a metrics server recorded of an arm over a stretch, held in memory: what a backtest judges.
//!
//! The samples themselves are asked for, a chunk of time per selector, and read look by look at the
//! recorded resolution, by the same reading as live answers. Invariants: an archive is whole, or it
//! is not there, with the reason; at most [`QUESTIONS_AT_ONCE`] questions are in flight, whoever
//! asks; no question asks for more points of a series than any server gives.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;

use super::{
    history::whole_scrapes,
    prometheus::{Patience, PrometheusServer, Question, When},
    prometheus_answer::{Data, LongSeries, Newest, POINTS_KEPT, Point, Series},
    prometheus_native::HistogramPoint,
    selector_arm::{BareQuestion, Book, Look, Plan, SelectorArm, plan, readings, scrape_gap},
};
use crate::{
    engine::observation::{Missing, Time, Why},
    signal::{
        past::Stretch,
        sample::InstanceReading,
        spec::{self, SignalSpec},
    },
    telemetry::Telemetry,
};

/// Questions to one server in flight.
pub const QUESTIONS_AT_ONCE: usize = 4;

/// What one question covers. An hour of a service with thousands of series does not fit an answer.
const CHUNK: Duration = Duration::from_secs(900);

/// Points of one arm that are held: 80 MB of numbers.
pub const POINTS_MAX: usize = 5_000_000;

/// A native histogram counts as so many points.
const POINTS_PER_HISTOGRAM: usize = 100;

/// Steps of one question on a grid. Prometheus refuses more than 11,000 a series.
pub const GRID_POINTS_MAX: u64 = 10_000;

/// Asks one server for what it recorded.
pub struct Archivist {
    server: Arc<PrometheusServer>,
    slots: Semaphore,
    timeout: Duration,
    telemetry: Telemetry,
}

/// Where one series of a question on a grid had a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Presence {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The steps at which it was there, ascending.
    pub at: Vec<Time>,
}

impl Archivist {
    /// Asks this server, each question for so long at most.
    pub fn new(server: Arc<PrometheusServer>, timeout: Duration, telemetry: Telemetry) -> Self {
        Self { server, slots: Semaphore::new(QUESTIONS_AT_ONCE), timeout, telemetry }
    }

    /// How the server is called.
    pub fn server(&self) -> &str {
        self.server.name()
    }

    /// Everything about an arm in a stretch that the signals read.
    ///
    /// # Errors
    /// When the server cannot give all of it, or it is too much to be held.
    pub async fn fetch(
        &self,
        matchers: &str,
        specs: &Arc<[SignalSpec]>,
        stretch: Stretch,
    ) -> Result<Archive, Missing> {
        let arm = SelectorArm { server: self.server.clone(), matchers: matchers.to_owned() };
        // What the first look sees lies before it.
        let range = i64::try_from(self.server.range().as_millis()).unwrap_or(i64::MAX);
        let chunks = chunks(Stretch { after: Time(stretch.after.0 - range), ..stretch });
        let mut book = Book::default();
        let last = chunks.last().map_or(CHUNK, |(_, covers)| *covers);
        let plan = plan(&arm, specs, last, &mut book);
        let mut kept: Vec<Kept> = book.questions.iter().map(|_| Kept::default()).collect();
        let mut points = 0;

        let is_sampled = |slot: usize| plan.samples.iter().any(|planned| planned.answer == slot);
        let sampled = chunks.iter().flat_map(|(end, covers)| {
            let mut of_chunk = Book::default();
            super::selector_arm::plan(&arm, specs, *covers, &mut of_chunk);
            let asked = of_chunk.questions.into_iter().enumerate();
            let asked = asked.filter(|(slot, _)| is_sampled(*slot));
            asked.map(|(slot, (_, query))| (slot, query, *end)).collect::<Vec<_>>()
        });
        self.ask_each(sampled.collect(), |slot, answer| {
            points += kept[slot].add(answer?);
            few_enough(points)
        })
        .await?;

        // A histogram without buckets may be a native one, or a summary.
        let mut by_name = Vec::new();
        let mut bare = Vec::new();
        for planned in &plan.samples {
            let Some(native) =
                planned.native.as_ref().filter(|_| kept[planned.answer].series.is_empty())
            else {
                continue;
            };
            let answer = book.index_of(&self.server, native.clone());
            kept.resize_with(book.questions.len(), Kept::default);
            by_name.push(BareQuestion { metric: planned.metric.clone(), answer });
            bare.extend(chunks.iter().map(|(end, covers)| {
                (answer, format!("{native}[{}s]", covers.as_secs().max(1)), *end)
            }));
        }
        self.ask_each(bare, |slot, answer| {
            points += kept[slot].add(answer?);
            few_enough(points)
        })
        .await?;

        let gap_ms = kept.iter().flat_map(|kept| &kept.tracks).filter_map(Track::gap_ms).min();
        let resolution = gap_ms.map(|gap| whole_scrapes(Some(gap), Duration::ZERO));
        let level_step = resolution.unwrap_or(super::history::STEP);
        let levels = chunks.iter().flat_map(|(end, covers)| {
            let questions = &book.questions;
            let (covers, step) = (covers.as_secs().max(1), level_step.as_secs().max(1));
            plan.levels.iter().map(move |(_, slot)| {
                (*slot, format!("({})[{covers}s:{step}s]", questions[*slot].1), *end)
            })
        });
        let levels: Vec<_> = levels.collect();
        self.ask_each(levels, |slot, answer| {
            match answer {
                Ok(answer) => points += kept[slot].add(answer),
                // Without a level only that signal is missing.
                Err(missing) => kept[slot].fault = Some(missing),
            }
            few_enough(points)
        })
        .await?;
        for (_, slot) in &plan.levels {
            kept[*slot].is_level = true;
        }

        book.answers = kept.iter_mut().map(Kept::answer).collect();
        let specs = specs.clone();
        let read = Time(i64::MIN);
        Ok(Archive { arm, specs, plan, by_name, book, kept, resolution, level_step, read })
    }

    /// Where the series of an expression had values, over a stretch, step by step.
    ///
    /// # Errors
    /// When the server cannot give all of it.
    pub async fn presence(
        &self,
        query: &str,
        stretch: Stretch,
        step: Duration,
    ) -> Result<Vec<Presence>, Missing> {
        let step_ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
        let steps = i64::try_from(GRID_POINTS_MAX).unwrap_or(i64::MAX) - 1;
        let mut found: BTreeMap<BTreeMap<String, String>, Vec<Time>> = BTreeMap::new();
        let mut after = stretch.after;
        while after <= stretch.until {
            let until = Time(after.0.saturating_add(steps * step_ms)).min(stretch.until);
            let when = When::Grid { stretch: Stretch { after, until }, step };
            for series in self.ask(query, when).await? {
                let times = series.values.iter().map(|point| Time(point.at_ms));
                found.entry(series.metric).or_default().extend(times);
            }
            after = Time(until.0.saturating_add(step_ms));
        }
        Ok(found.into_iter().map(|(labels, at)| Presence { labels, at }).collect())
    }

    /// The instances that had samples for these signals at a moment, sorted.
    ///
    /// # Errors
    /// When the server cannot say.
    pub async fn instances(
        &self,
        matchers: &str,
        specs: &[SignalSpec],
        at: Time,
    ) -> Result<Vec<String>, Missing> {
        let names = spec::wanted_names(specs).join("|");
        let query = format!("count by (instance) ({{__name__=~\"{names}\",{matchers}}})");
        let answer = self.ask(&query, When::At(at)).await?;
        let named = answer.into_iter().filter_map(|mut one| one.metric.remove("instance"));
        let mut names: Vec<String> = named.collect();
        names.sort();
        Ok(names)
    }

    async fn ask(&self, query: &str, when: When) -> Result<Vec<LongSeries>, Missing> {
        let Ok(_slot) = self.slots.acquire().await else {
            return Err(Missing::new(Why::QueryFailed, "no question is asked any more"));
        };
        let question = Question { query, when, timeout: self.timeout, patience: Patience::Again };
        self.server.ask_long(question, &self.telemetry).await
    }

    /// Asks questions at their moments and hands on the answers in order, until one is refused.
    async fn ask_each(
        &self,
        questions: Vec<(usize, String, Time)>,
        mut take: impl FnMut(usize, Result<Vec<LongSeries>, Missing>) -> Result<(), Missing>,
    ) -> Result<(), Missing> {
        let mut answers = stream::iter(questions)
            .map(|(slot, query, at)| async move { (slot, self.ask(&query, When::At(at)).await) })
            .buffered(QUESTIONS_AT_ONCE);
        while let Some((slot, answer)) = answers.next().await {
            take(slot, answer)?;
        }
        Ok(())
    }
}

fn few_enough(points: usize) -> Result<(), Missing> {
    if points <= POINTS_MAX {
        return Ok(());
    }
    let detail = format!(
        "the arm has more than the {POINTS_MAX} points that are held; hint: select fewer series, or \
         give it a shorter deadline"
    );
    Err(Missing::new(Why::NotObserved, detail))
}

/// Where each question ends and how much it covers, in whole seconds, oldest first.
fn chunks(stretch: Stretch) -> Vec<(Time, Duration)> {
    let mut chunks = Vec::new();
    let mut at = stretch.after;
    while at < stretch.until {
        let end = at.after(CHUNK).min(stretch.until);
        let secs = end.since(at).as_millis().div_ceil(1000);
        chunks.push((end, Duration::from_secs(u64::try_from(secs).unwrap_or(u64::MAX))));
        at = end;
    }
    chunks
}

/// The answers to one question over all chunks.
#[derive(Default)]
struct Kept {
    place: BTreeMap<BTreeMap<String, String>, usize>,
    series: Vec<Series>,
    tracks: Vec<Track>,
    is_level: bool,
    fault: Option<Missing>,
}

impl Kept {
    /// Adds what follows in time, and says how many points that were.
    fn add(&mut self, answer: Vec<LongSeries>) -> usize {
        let mut points = 0;
        for LongSeries { metric, values, histograms } in answer {
            points += values.len() + histograms.len() * POINTS_PER_HISTOGRAM;
            let place = *self.place.entry(metric).or_insert_with_key(|metric| {
                self.series.push(Series::of(metric.clone()));
                self.tracks.push(Track::default());
                self.tracks.len() - 1
            });
            let track = &mut self.tracks[place];
            // Of two chunks that meet both may hold the sample in between.
            append(&mut track.points, values, |point| point.at_ms);
            append(&mut track.histograms, histograms, |point| point.at_ms);
        }
        points
    }

    /// The answer before the first look.
    fn answer(&mut self) -> Result<Data, Missing> {
        match (&self.fault, self.is_level) {
            (Some(missing), _) => Err(missing.clone()),
            (None, true) => Ok(Data::Vector(Vec::new())),
            // The names are needed once; what changes from look to look are the points.
            (None, false) => Ok(Data::Matrix(std::mem::take(&mut self.series))),
        }
    }
}

fn append<P>(known: &mut Vec<P>, more: Vec<P>, at_ms: impl Fn(&P) -> i64) {
    let last = known.last().map_or(i64::MIN, &at_ms);
    known.extend(more.into_iter().filter(|point| at_ms(point) > last));
}

/// The points of one series, and how far each kind has been read.
#[derive(Default)]
struct Track {
    points: Vec<Point>,
    histograms: Vec<HistogramPoint>,
    read: usize,
    histograms_read: usize,
}

impl Track {
    fn gap_ms(&self) -> Option<i64> {
        let points: Vec<i64> = self.points.iter().map(|point| point.at_ms).collect();
        let histograms: Vec<i64> = self.histograms.iter().map(|point| point.at_ms).collect();
        scrape_gap(&points).into_iter().chain(scrape_gap(&histograms)).min()
    }
}

/// The newest points that are not after a moment and not older than the range.
fn newest<'a, P>(
    points: &'a [P],
    read: &mut usize,
    at: Time,
    range: Duration,
    at_ms: impl Fn(&P) -> i64,
) -> &'a [P] {
    while points.get(*read).is_some_and(|point| at_ms(point) <= at.0) {
        *read += 1;
    }
    let oldest = at.0.saturating_sub(i64::try_from(range.as_millis()).unwrap_or(i64::MAX));
    let newest = &points[read.saturating_sub(POINTS_KEPT)..*read];
    &newest[newest.partition_point(|point| at_ms(point) <= oldest)..]
}

/// One arm over a stretch.
pub struct Archive {
    arm: SelectorArm,
    specs: Arc<[SignalSpec]>,
    plan: Plan,
    by_name: Vec<BareQuestion>,
    book: Book,
    kept: Vec<Kept>,
    resolution: Option<Duration>,
    level_step: Duration,
    read: Time,
}

impl Archive {
    /// How often its targets were scraped; none when there is nothing of them.
    pub fn resolution(&self) -> Option<Duration> {
        self.resolution
    }

    /// A whole number of scrapes that is no less than this.
    pub fn step(&self, least: Duration) -> Duration {
        let gap = self.resolution.and_then(|gap| i64::try_from(gap.as_millis()).ok());
        whole_scrapes(gap, least)
    }

    /// What a live look would have found at a moment. Moments that ascend are read fastest.
    pub fn look(&mut self, at: Time) -> Vec<InstanceReading> {
        if at < self.read {
            for track in self.kept.iter_mut().flat_map(|kept| &mut kept.tracks) {
                (track.read, track.histograms_read) = (0, 0);
            }
        }
        self.read = at;
        let range = self.arm.server.range();
        for (answer, kept) in self.book.answers.iter_mut().zip(&mut self.kept) {
            match answer {
                Ok(Data::Matrix(series)) => {
                    for (series, track) in series.iter_mut().zip(&mut kept.tracks) {
                        let Track { points, histograms, read, histograms_read } = track;
                        let of = |point: &Point| point.at_ms;
                        refill(&mut series.values, newest(points, read, at, range, of));
                        let of = |point: &HistogramPoint| point.at_ms;
                        let found = newest(histograms, histograms_read, at, range, of);
                        refill(&mut series.histograms, found);
                    }
                }
                Ok(Data::Vector(valued)) => {
                    valued.clear();
                    for (series, track) in kept.series.iter().zip(&mut kept.tracks) {
                        let of = |point: &Point| point.at_ms;
                        let step = self.level_step;
                        let found = newest(&track.points, &mut track.read, at, step, of).last();
                        // An expression that gave nothing at a step had no value then.
                        valued.extend(found.map(|point| {
                            let mut series = series.clone();
                            series.value = Some(*point);
                            series
                        }));
                    }
                }
                Ok(Data::Scalar(_) | Data::String(_)) | Err(_) => {}
            }
        }
        let look = Look { now: at, timeout: Duration::ZERO, specs: &self.specs };
        let mut seen = readings(&self.arm, &self.plan, &self.by_name, &self.book, look);
        // An instance of which nothing is left in the window had ended by then.
        seen.retain(|one| {
            !one.levels.is_empty() || one.samples.as_ref().map_or(true, |all| !all.is_empty())
        });
        seen
    }
}

fn refill<P: Clone>(held: &mut Newest<P>, points: &[P]) {
    held.0.clear();
    held.0.extend_from_slice(points);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(labels: &[(&str, &str)], points: &[i64]) -> LongSeries {
        let pair = |(label, value): &(&str, &str)| ((*label).to_owned(), (*value).to_owned());
        LongSeries {
            metric: labels.iter().map(pair).collect(),
            values: points.iter().map(|at| Point { at_ms: *at, value: *at as f64 }).collect(),
            histograms: Vec::new(),
        }
    }

    #[test]
    fn chunks_meet_and_cover_the_stretch_in_whole_seconds() {
        let found = chunks(Stretch { after: Time(500), until: Time(1_900_250) });
        let secs: Vec<u64> = found.iter().map(|(_, covers)| covers.as_secs()).collect();
        assert_eq!(secs, [900, 900, 100]);
        assert_eq!(found.last().unwrap().0, Time(1_900_250));
        assert_eq!(chunks(Stretch { after: Time(5), until: Time(5) }), []);
    }

    #[test]
    fn answers_of_chunks_become_one_and_meet_without_a_double() {
        let mut kept = Kept::default();
        assert_eq!(kept.add(vec![long(&[("a", "1")], &[1000, 2000])]), 2);
        let more = vec![long(&[("a", "2")], &[2000]), long(&[("a", "1")], &[2000, 3000])];
        assert_eq!(kept.add(more), 3);
        let times = |track: &Track| track.points.iter().map(|p| p.at_ms).collect::<Vec<_>>();
        assert_eq!(times(&kept.tracks[0]), [1000, 2000, 3000]);
        assert_eq!(times(&kept.tracks[1]), [2000]);
        assert_eq!(kept.tracks[0].gap_ms(), Some(1000));
    }

    #[test]
    fn too_much_is_refused_by_name() {
        assert!(few_enough(POINTS_MAX).is_ok());
        assert!(few_enough(POINTS_MAX + 1).unwrap_err().detail.contains("5000000 points"));
    }
}
