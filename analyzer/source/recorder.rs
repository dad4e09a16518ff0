//! Writes a recording from live targets, in the layout that `recording` reads.
//!
//! Every interval each target is asked for its metrics in both text formats and for its health; what
//! it says is kept as it came, byte for byte where it is text. An answer that does not come is a row
//! too. Nothing is judged here, and nothing is held back in memory: rows go to disk as they come.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{
    client::{Answer, Bound, Client, FetchError},
    limits::SourceLimits,
    recording_file::{HealthRow, ROWS_MAX, Role, RowFormat, ScrapeRow},
    target::Target,
};
use crate::engine::observation::{Arm, Time};

const ACCEPT_TEXT: &str = "text/plain;version=0.0.4";
const ACCEPT_OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";
const ACCEPT_HEALTH: &str = "application/health+json, application/json, text/plain, */*";

/// What is recorded.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// Instances with the arm that each belongs to.
    pub targets: Vec<(Arm, Target)>,
    /// Health paths, asked of every instance.
    pub health: Vec<String>,
    /// Time between two rounds.
    pub interval: Duration,
    /// How long.
    pub length: Duration,
    /// Time that one answer may take; at most the interval is used.
    pub timeout: Duration,
    /// How large an answer may be.
    pub limits: SourceLimits,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recorded {
    /// When the first round was due.
    pub start: Time,
    /// When the last round was due.
    pub end: Time,
    /// Metrics answers, failed ones included.
    pub scrapes: usize,
    /// Health answers, failed ones included.
    pub probes: usize,
    /// How many of both did not come.
    pub failed: usize,
}

/// Why a recording cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file cannot be made or written.
    #[error("{file}: cannot be written, expected a directory with room")]
    Unwritable {
        /// Which file.
        file: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// There is a recording already.
    #[error("{file}: there is one already; hint: choose another directory, nothing is overwritten")]
    Exists {
        /// Which file.
        file: PathBuf,
    },
    /// It would be longer than a recording can be read back.
    #[error("{rounds} rounds of {answers} answers are over the limit of {ROWS_MAX} rows a file")]
    TooLong {
        /// Rounds asked for.
        rounds: u64,
        /// Rows of each.
        answers: usize,
    },
}

/// Records until the time is over, or until `stop` resolves; `each` hears of every round.
///
/// # Errors
/// When a file cannot be written, exists already, or would be too long to be read back.
pub async fn record(
    client: &Client,
    options: &RecordOptions,
    dir: &Path,
    now: impl Fn() -> Time,
    stop: impl Future<Output = ()>,
    mut each: impl FnMut(&Recorded),
) -> Result<Recorded, RecordError> {
    let rounds = 1 + (options.length.as_secs_f64() / options.interval.as_secs_f64()) as u64;
    let answers = options.targets.len() * options.health.len().max(2);
    if rounds.saturating_mul(answers as u64) > ROWS_MAX as u64 {
        return Err(RecordError::TooLong { rounds, answers });
    }
    let mut scrapes = Rows::create(dir, "scrapes")?;
    let mut probes = Rows::create(dir, "health")?;
    let start = now();
    let mut done = Recorded { start, end: start, scrapes: 0, probes: 0, failed: 0 };
    let mut ticks = interval_at(Instant::now(), options.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tokio::pin!(stop);
    for _ in 0..rounds {
        tokio::select! {
            () = &mut stop => break,
            _ = ticks.tick() => {}
        }
        done.end = now();
        let (of_metrics, of_health) =
            tokio::join!(round_of_metrics(client, options), round_of_health(client, options));
        let t = done.end.as_secs_f64();
        for row in of_metrics {
            done.scrapes += 1;
            done.failed += usize::from(row.error.is_some());
            scrapes.write(&ScrapeRow { t, ..row })?;
        }
        for row in of_health {
            done.probes += 1;
            done.failed += usize::from(row.error.is_some());
            probes.write(&HealthRow { t, ..row })?;
        }
        each(&done);
    }
    scrapes.finish()?;
    probes.finish()?;
    let meta = json!({
        "t_record_start": done.start.as_secs_f64(),
        "t_record_end": done.end.as_secs_f64(),
        "counts": {"scrapes": done.scrapes, "health": done.probes, "failed": done.failed},
    });
    write_meta(dir, &meta)?;
    Ok(done)
}

/// Writes what is known about the whole, for people and for `replay`.
///
/// # Errors
/// When the file cannot be written.
pub fn write_meta(dir: &Path, meta: &serde_json::Value) -> Result<(), RecordError> {
    let file = dir.join("meta.json");
    std::fs::write(&file, format!("{meta:#}\n"))
        .map_err(|source| RecordError::Unwritable { file, source })
}

async fn round_of_metrics(client: &Client, options: &RecordOptions) -> Vec<ScrapeRow> {
    let formats = [(RowFormat::Text, ACCEPT_TEXT), (RowFormat::Om, ACCEPT_OPEN_METRICS)];
    let ask = |(arm, target): &(Arm, Target)| {
        let (role, target) = (Role::from(*arm), target.clone());
        formats.map(move |(fmt, accept)| {
            let target = target.clone();
            async move {
                let bound = bound(options, options.limits.body_bytes_max);
                let said = client.bounded_get(target.metrics_url(), accept, bound).await;
                let Said { status, ctype, body, error, ms } = Said::of(said);
                let instance = Some(target.name().to_string());
                ScrapeRow { t: 0.0, role, instance, fmt, status, ctype, body, error, ms }
            }
        })
    };
    join_all(options.targets.iter().flat_map(ask)).await
}

async fn round_of_health(client: &Client, options: &RecordOptions) -> Vec<HealthRow> {
    let pairs = options
        .targets
        .iter()
        .flat_map(|target| options.health.iter().map(move |path| (target, path)));
    let ask = |((arm, target), path): (&(Arm, Target), &String)| {
        let (role, url) = (Role::from(*arm), target.health_url(path));
        let (instance, path) = (Some(target.name().to_string()), path.clone());
        async move {
            let bound = bound(options, options.limits.health_bytes_max);
            let said = client.bounded_get(&url, ACCEPT_HEALTH, bound).await;
            let Said { status, ctype, body, error, ms } = Said::of(said);
            HealthRow { t: 0.0, role, instance, path, status, ctype, body, error, ms }
        }
    };
    join_all(pairs.map(ask)).await
}

fn bound(options: &RecordOptions, bytes: usize) -> Bound {
    Bound { time: options.timeout.min(options.interval), bytes }
}

struct Said {
    status: Option<u16>,
    ctype: Option<String>,
    body: Option<String>,
    error: Option<String>,
    ms: Option<f64>,
}

impl Said {
    fn of(said: Result<Answer, FetchError>) -> Self {
        match said {
            Ok(answer) => Self {
                status: Some(answer.status),
                ctype: answer.content_type,
                // A row is text. What is not UTF-8 could not have been read by anybody.
                body: Some(String::from_utf8_lossy(&answer.body).into_owned()),
                error: None,
                ms: Some(answer.elapsed.as_secs_f64() * 1000.0),
            },
            Err(error) => Self {
                status: None,
                ctype: None,
                body: None,
                error: Some(error.to_string()),
                ms: None,
            },
        }
    }
}

/// One file of rows.
struct Rows {
    file: PathBuf,
    out: GzEncoder<BufWriter<File>>,
}

impl Rows {
    fn create(dir: &Path, name: &str) -> Result<Self, RecordError> {
        let file = dir.join(format!("{name}.ndjson.gz"));
        let unwritable = |source| RecordError::Unwritable { file: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(unwritable)?;
        match File::create_new(&file) {
            Ok(made) => {
                Ok(Self { file, out: GzEncoder::new(BufWriter::new(made), Compression::best()) })
            }
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                Err(RecordError::Exists { file })
            }
            Err(source) => Err(RecordError::Unwritable { file, source }),
        }
    }

    fn write(&mut self, row: &impl serde::Serialize) -> Result<(), RecordError> {
        let written = serde_json::to_writer(&mut self.out, row)
            .map_err(io::Error::from)
            .and_then(|()| self.out.write_all(b"\n"));
        written.map_err(|source| RecordError::Unwritable { file: self.file.clone(), source })
    }

    fn finish(self) -> Result<(), RecordError> {
        let file = self.file;
        let ended = self.out.finish().and_then(|mut out| out.flush());
        ended.map_err(|source| RecordError::Unwritable { file, source })
    }
}
