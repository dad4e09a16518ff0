//! A recording as a source: what a live look would have seen at a recorded moment.
//!
//! Invariants: a look depends on `now` and `since` only; bodies go through the same readers as
//! live ones. It deliberately never invents a probe or a scrape that was not recorded: what is not
//! there is missing with a reason.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{
    excerpt::excerpt,
    exposition::{self, Format, Wanted},
    health::{self, Question, Said},
    health_number::{self, Heard},
    recording_file::{
        FileLimits, HealthRow, Role, RowFormat, ScrapeRow, read_meta, read_rows, rows_path,
    },
    scrape::{self, Exposed, Keep, samples_of},
};
use crate::{
    engine::observation::{Health, Missing, Time, Why},
    signal::{
        sample::{Gathered, InstanceReading, Level, Probe, ProbeAnswer},
        spec::{self, HealthTarget, Reads, SignalSpec},
    },
};

pub use super::recording_file::{FILE_BYTES_MAX, LINE_BYTES_MAX, ROWS_MAX, RecordingError};

const SCRAPE_ROW: &str = concat!(
    r#"a row {"t", "role": "canary"|"baseline", "fmt": "text"|"om", "status", "ctype", "body"}"#,
    r#" or one with "error""#,
);
const HEALTH_ROW: &str = concat!(
    r#"a row {"t", "role": "canary"|"baseline", "path", "status", "ctype", "body", "ms"}"#,
    r#" or one with "error""#,
);

/// A whole recording, in memory.
#[derive(Debug)]
pub struct Recording {
    start: Time,
    end: Time,
    scrapes: BTreeMap<(Role, Arc<str>), Vec<Scrape>>,
    probes: BTreeMap<(Role, Arc<str>, Arc<str>), Vec<Asked>>,
    limits: exposition::Limits,
}

#[derive(Debug)]
struct Scrape {
    at: Time,
    answer: Result<Recorded, String>,
}

#[derive(Debug)]
struct Asked {
    at: Time,
    latency_secs: Option<f64>,
    answer: Result<Recorded, String>,
}

#[derive(Debug)]
struct Recorded {
    status: u16,
    content_type: Option<Arc<str>>,
    body: String,
}

impl Recording {
    /// Reads the recording in a directory; of the scrapes only those in one format.
    ///
    /// # Errors
    /// When a file is missing, cut, too large or not as expected; with file and line.
    pub fn open(dir: &Path, format: Format) -> Result<Self, RecordingError> {
        Self::open_within(dir, format, FileLimits::default())
    }

    fn open_within(dir: &Path, format: Format, limits: FileLimits) -> Result<Self, RecordingError> {
        let wanted = match format {
            Format::Text => RowFormat::Text,
            Format::OpenMetrics => RowFormat::Om,
        };
        let Some(path) = rows_path(dir, "scrapes") else {
            return Err(RecordingError::Empty {
                file: dir.display().to_string(),
                words: "found no scrapes.ndjson.gz, expected the directory of a recording".into(),
            });
        };
        let mut scrapes: BTreeMap<_, Vec<Scrape>> = BTreeMap::new();
        let mut types = BTreeMap::new();
        read_rows(&path, limits, SCRAPE_ROW, |row: ScrapeRow| {
            let at = moment(row.t)?;
            let answer = recorded((row.status, row.ctype, row.body, row.error), &mut types)?;
            if row.fmt == wanted {
                let instance = instance(row.role, row.instance);
                scrapes.entry((row.role, instance)).or_default().push(Scrape { at, answer });
            }
            Ok(())
        })?;
        let mut probes: BTreeMap<_, Vec<Asked>> = BTreeMap::new();
        if let Some(path) = rows_path(dir, "health") {
            read_rows(&path, limits, HEALTH_ROW, |row: HealthRow| {
                let at = moment(row.t)?;
                let answer = recorded((row.status, row.ctype, row.body, row.error), &mut types)?;
                let latency_secs = row.ms.map(|ms| ms / 1000.0);
                let key = (row.role, instance(row.role, row.instance), Arc::from(row.path));
                probes.entry(key).or_default().push(Asked { at, latency_secs, answer });
                Ok(())
            })?;
        }
        scrapes.values_mut().for_each(|rows| rows.sort_by_key(|row| row.at));
        probes.values_mut().for_each(|rows| rows.sort_by_key(|row| row.at));
        let meta = read_meta(dir)?;
        let first = scrapes.values().filter_map(|rows| rows.first()).map(|row| row.at).min();
        let last = scrapes.values().filter_map(|rows| rows.last()).map(|row| row.at).max();
        let (Some(first), Some(last)) = (first, last) else {
            return Err(RecordingError::Empty {
                file: path.display().to_string(),
                words: format!("found no scrapes in the format {format:?}"),
            });
        };
        let told = |secs: Option<f64>| secs.and_then(|secs| moment(secs).ok());
        let start = meta.as_ref().and_then(|meta| told(meta.t_record_start)).unwrap_or(first);
        let end = meta.as_ref().and_then(|meta| told(meta.t_record_end)).unwrap_or(last);
        Ok(Self { start, end, scrapes, probes, limits: exposition::Limits::default() })
    }

    /// When the recording begins.
    pub fn start(&self) -> Time {
        self.start
    }

    /// When it ends.
    pub fn end(&self) -> Time {
        self.end
    }

    /// What a look at `now` sees when the previous one was at `since`: of everything the newest
    /// that came after `since` and not after `now`.
    pub fn gather(&self, specs: &[SignalSpec], now: Time, since: Time) -> Gathered {
        let wanted = Wanted::names(spec::wanted_names(specs));
        let keep = Keep { specs, wanted: &wanted, limits: &self.limits };
        let look = Look { keep, now, since };
        Gathered {
            at: now,
            canary: self.arm(Role::Canary, look),
            baseline: self.arm(Role::Baseline, look),
            dependencies: self.dependencies(specs),
        }
    }

    fn arm(&self, role: Role, look: Look<'_>) -> Vec<InstanceReading> {
        self.scrapes
            .iter()
            .filter(|((of, _), _)| *of == role)
            .map(|((_, instance), rows)| {
                let row = newest(rows, |row| row.at, look);
                let reading = scrape::reading(
                    instance.clone(),
                    row.map_or(look.now, |row| row.at),
                    scraped(instance, row, look),
                );
                let (probes, levels) = self.probes(role, instance, look);
                InstanceReading { probes, levels, ..reading }
            })
            .collect()
    }

    fn probes(&self, role: Role, instance: &Arc<str>, look: Look<'_>) -> (Vec<Probe>, Vec<Level>) {
        let (mut probes, mut levels) = (Vec::new(), Vec::new());
        for (signal, spec) in look.keep.specs.iter().enumerate() {
            let Some(path) = spec.health_path() else { continue };
            let question =
                Question { signal, numbers: spec::answer_numbers(look.keep.specs, signal) };
            let rows = self.probes.get(&(role, instance.clone(), Arc::from(path)));
            let row = rows.map(|rows| newest(rows, |row| row.at, look));
            let (probe, numbers) = match row {
                None => {
                    let detail = format!("the recording has no probes of {path}");
                    question.unasked(&Missing::new(Why::NotObserved, detail))
                }
                Some(None) => question.unasked(&stale(instance, &format!("probe of {path}"), look)),
                Some(Some(row)) => answered(&format!("{instance}{path}"), row, &question),
            };
            probes.push(probe);
            levels.extend(numbers);
        }
        (probes, levels)
    }

    fn dependencies(&self, specs: &[SignalSpec]) -> Vec<Probe> {
        let mut probes = Vec::new();
        for (signal, spec) in specs.iter().enumerate() {
            if let Reads::Health(HealthTarget::Url(_)) = &spec.reads {
                let detail = "a recording has no probes of absolute URLs";
                let answer = Err(Missing::new(Why::NotObserved, detail));
                probes.push(Probe { signal, answer });
            }
        }
        probes
    }
}

#[derive(Clone, Copy)]
struct Look<'a> {
    keep: Keep<'a>,
    now: Time,
    since: Time,
}

/// The newest row after `since` and not after `now`.
fn newest<'r, R>(rows: &'r [R], at: impl Fn(&R) -> Time, look: Look<'_>) -> Option<&'r R> {
    let later = rows.partition_point(|row| at(row) <= look.now);
    rows[..later].last().filter(|row| at(row) > look.since)
}

fn scraped(
    instance: &str,
    row: Option<&Scrape>,
    look: Look<'_>,
) -> Result<scrape::Scraped, Missing> {
    let failed = |words: &str| Missing::new(Why::ScrapeFailed, format!("{instance}: {words}"));
    let Some(row) = row else { return Err(stale(instance, "scrape", look)) };
    let recorded = row.answer.as_ref().map_err(|error| failed(error))?;
    let exposed = Exposed {
        status: recorded.status,
        content_type: recorded.content_type.as_deref(),
        location: None,
        body: recorded.body.as_bytes(),
    };
    samples_of(exposed, look.keep).map_err(|words| failed(&words))
}

fn answered(endpoint: &str, row: &Asked, question: &Question<'_>) -> (Probe, Vec<Level>) {
    let latency_secs = row.latency_secs;
    let (answer, levels) = match &row.answer {
        Err(error) => {
            let missing = Missing::new(Why::ScrapeFailed, format!("{endpoint}: {error}"));
            let (status, detail) = (Health::Down, error.clone());
            let answer = Ok(ProbeAnswer { status, latency_secs: None, detail });
            (answer, health_number::all_missing(&question.numbers, &missing))
        }
        Ok(recorded) => {
            let said = Said {
                status: recorded.status,
                content_type: recorded.content_type.as_deref(),
                body: recorded.body.as_bytes(),
            };
            let answer = match health::judge(said) {
                Ok((status, detail)) => Ok(ProbeAnswer { status, latency_secs, detail }),
                Err(words) => Err(Missing::new(Why::UnclearHealth, format!("{endpoint}: {words}"))),
            };
            let heard = Heard { endpoint, said, latency_secs };
            (answer, health_number::read(&question.numbers, heard))
        }
    };
    (Probe { signal: question.signal, answer }, levels)
}

fn stale(instance: &str, what: &str, look: Look<'_>) -> Missing {
    let secs = look.now.since(look.since).as_secs_f64();
    let detail = format!("{instance}: no {what} was recorded in the {secs:.1} s before the look");
    Missing::new(Why::Stale, detail)
}

/// A recording has one instance a role unless its rows name them.
fn instance(role: Role, named: Option<String>) -> Arc<str> {
    match (named, role) {
        (Some(name), _) => name.into(),
        (None, Role::Canary) => "canary".into(),
        (None, Role::Baseline) => "baseline".into(),
    }
}

fn moment(secs: f64) -> Result<Time, String> {
    // Up to the year 9999; what is beyond is milliseconds or a mistake.
    if secs.is_finite() && (0.0..253_402_300_800.0).contains(&secs) {
        Ok(Time::from_secs_f64(secs))
    } else {
        Err(format!("the time {secs}"))
    }
}

type RowAnswer = (Option<u16>, Option<String>, Option<String>, Option<String>);

/// An answer or an error; content types repeat in every row and are kept once.
fn recorded(
    (status, content_type, body, error): RowAnswer,
    types: &mut BTreeMap<String, Arc<str>>,
) -> Result<Result<Recorded, String>, String> {
    match (error, status) {
        (Some(error), _) => Ok(Err(excerpt(&error))),
        (None, Some(status)) => {
            let content_type = content_type.map(|found| {
                types.entry(found).or_insert_with_key(|found| found.as_str().into()).clone()
            });
            Ok(Ok(Recorded { status, content_type, body: body.unwrap_or_default() }))
        }
        (None, None) => Err("neither \"status\" nor \"error\"".to_owned()),
    }
}

#[cfg(test)]
#[path = "recording_tests.rs"]
mod tests;
