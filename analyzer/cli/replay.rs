//! `rollgate replay RECORDING|ANALYSIS`: the engine over recorded bodies or over the looks of a stored
//! analysis, with recorded time; by one rule file, or by two whose difference is told.
//!
//! The same reducer and the same engine as in `serve`; a replay differs only in where samples and
//! time come from, and takes no longer than the work itself.

mod diff;
mod fold;
mod journal;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;

use self::{
    diff::Difference,
    fold::{Fold, Outcome},
    journal::Stored,
};
use super::{
    FAILURE, FormatArg, Output, PROMOTE, UsageError, conclude, display, load_rules, parse_duration,
    rules_ref,
};
use crate::{
    engine::{
        calibration::{Calibration, calibrate},
        observation::{Observation, Time},
    },
    report::{
        format,
        shape::{Report, RulesRef},
    },
    rulefile::RuleFile,
    signal::{carry::Carry, past::PastLook, reduce::Reducer, spec::SignalSpec},
    source::{exposition::Format, recording::Recording},
};

/// Time between the start of a recording and its first look.
const LOOK_OFFSET: Duration = Duration::from_millis(500);

/// Arguments of `replay`.
#[derive(Args)]
#[command(after_help = "\
A recording is a directory with `scrapes.ndjson.gz` and `health.ndjson.gz`, one answer a line
(`rollgate record` writes one). It is judged by the time in it. One that ends before a final verdict
is inconclusive (exit code 4).

A stored analysis is judged again from its journal, which is only read: by the rules it began with,
or by those of --rules. Signals that it did not read are missing data then.

With --diff the exit code is 0 when both rule files come to the same verdict at the same look, and 1
when they do not.

  rollgate replay tests/cases/recordings/error5 --rules rules/recommended.yaml --hold 2m
  rollgate replay error5 --rules rules/recommended.yaml --diff mine.yaml
  rollgate replay error5 --rules rules/recommended.yaml --history healthy
  rollgate replay 0193b2c4-7d1e-7c3a-9b60-5f2a8c1d4e77 --store rollgate.db --diff mine.yaml")]
pub struct ReplayArgs {
    /// Directory of a recording, or the id of a stored analysis.
    #[arg(value_name = "RECORDING|ANALYSIS")]
    subject: PathBuf,
    /// Rule file; of a stored analysis the rules it began with when left out.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Another rule file: say what it would have made different.
    #[arg(long, value_name = "FILE")]
    diff: Option<PathBuf>,
    /// Store of the analysis.
    #[arg(long, value_name = "FILE", default_value = "rollgate.db")]
    store: PathBuf,
    /// Watch at least this long instead of what the rule file says.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    hold: Option<Duration>,
    /// Look this often instead of what the rule file says; only of a recording.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    interval: Option<Duration>,
    /// Another recording of the same service, from before: noise is measured on its baseline.
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    /// Which of the recorded exposition formats to read.
    #[arg(long, value_enum, default_value = "text")]
    format: FormatArg,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub fn main(args: &ReplayArgs) -> anyhow::Result<u8> {
    super::init_logging("warn");
    let subject = args.subject()?;
    let (name, one) = args.judged(&subject, args.rules.as_deref())?;
    let (color, width) = display::stdout_style();
    let Some(other) = &args.diff else {
        if !args.output.json {
            print!(
                "{}{}",
                display::table(&one.report, color, width),
                display::sentence(&one.report, color, width)
            );
            if let Some(note) = subject.compared_to_then(&one.report, args) {
                println!(" {note}");
            }
            if let Some(by) = subject.stepped_in() {
                println!(" {by}");
            }
        }
        return conclude(&one.report, args.output);
    };
    let other = args.judged(&subject, Some(other))?;
    let difference = Difference::of((name, one), other);
    let mut out = io::stdout().lock();
    match args.output.json {
        true => {
            super::print_json(&mut out, &difference)?;
        }
        false => write!(out, "{}", difference.table(color, width))?,
    }
    out.flush()?;
    Ok(if difference.same { PROMOTE } else { FAILURE })
}

/// What is judged.
enum Subject {
    Recording { recording: Box<Recording>, history: Option<Box<Recording>> },
    Stored(Box<Stored>, tokio::runtime::Runtime),
}

impl Subject {
    /// Where a person put another verdict in the place of the rules'.
    fn stepped_in(&self) -> Option<String> {
        let Subject::Stored(stored, _) = self else { return None };
        let then = stored.report()?;
        let by = then.overridden.as_ref()?;
        let (at, verdict) = (format::duration(then.elapsed_secs.floor()), &then.verdict);
        let sentence =
            format!("After look {} ({at}) {} decided {verdict}: {}", then.look, by.who, by.why);
        Some(format!("{sentence}. What is shown is what the rules came to by then."))
    }

    /// Whether a stored analysis, judged by its own rules, comes out as it did then.
    fn compared_to_then(&self, report: &Report, args: &ReplayArgs) -> Option<&'static str> {
        let Subject::Stored(stored, _) = self else { return None };
        let (None, None, Some(then)) = (&args.rules, args.hold, stored.report()) else {
            return None;
        };
        // What the rules found is comparable, and the verdict is a person's.
        if then.overridden.is_some() {
            let is_same = then.findings == report.findings && then.signals == report.signals;
            return Some(match is_same {
                true => "The findings are the same as when it was judged first, bit for bit.",
                false => "This differs from what was stored when it was judged first.",
            });
        }
        // Those of before reports named their rule file are compared without it.
        let rules = report.rules.clone().filter(|_| then.rules.is_some());
        Some(match *then == (Report { rules, ..report.clone() }) {
            true => "The same as when it was judged first, bit for bit.",
            // Only a verdict is comparable: what ends early here was cancelled or still runs.
            false if !then.is_final => "It had no verdict then: it was cancelled, or still runs.",
            false => "This differs from what was stored when it was judged first.",
        })
    }
}

impl ReplayArgs {
    fn subject(&self) -> anyhow::Result<Subject> {
        // An id is never a path that exists; a path with folders in it is never an id.
        let is_id = !self.subject.exists() && self.subject.components().count() == 1;
        let id = self.subject.to_str().filter(|id| is_id && !id.contains('.'));
        if let Some(id) = id.filter(|_| self.store.exists()) {
            for (given, option) in
                [(self.interval.is_some(), "--interval"), (self.history.is_some(), "--history")]
            {
                if given {
                    let fault = format!(
                        "{option} means nothing to a stored analysis: its looks \
                                         are what they were"
                    );
                    return Err(UsageError(fault).into());
                }
            }
            let runtime = super::runtime()?;
            let stored = runtime.block_on(Stored::open(&self.store, id))?;
            return Ok(Subject::Stored(Box::new(stored), runtime));
        }
        let open = |path: &Path| {
            let opened = Recording::open(path, Format::from(self.format));
            opened.map(Box::new).map_err(|error| {
                let hint = match id {
                    Some(_) => format!(
                        "; if it is the id of an analysis, give its store with --store ({} does \
                         not exist)",
                        self.store.display()
                    ),
                    None => String::new(),
                };
                UsageError(format!("{error}{hint}"))
            })
        };
        let recording = open(&self.subject)?;
        let history = self.history.as_deref().map(open).transpose()?;
        Ok(Subject::Recording { recording, history })
    }

    /// Judges it by a rule file, or by its own; with the name of the rules.
    fn judged(&self, subject: &Subject, rules: Option<&Path>) -> anyhow::Result<(String, Outcome)> {
        let hold_secs = self.hold.map(|hold| hold.as_secs_f64());
        let load = |path: &Path| -> anyhow::Result<(String, RulesRef, RuleFile)> {
            let mut file = load_rules(path, hold_secs)?;
            if let Some(interval) = self.interval {
                file.rules.observe.interval = interval;
            }
            Ok((path.display().to_string(), rules_ref(path, &file), file))
        };
        match (subject, rules) {
            (Subject::Recording { .. }, None) => {
                Err(UsageError("a recording has no rules of its own: give --rules FILE".into())
                    .into())
            }
            (Subject::Recording { recording, history }, Some(path)) => {
                let (name, by, file) = load(path)?;
                let calibration = history.as_ref().map(|history| measure(history, &file));
                let outcome = fold(recording, &file, &calibration.unwrap_or_default())?;
                Ok((name, outcome.by(by)))
            }
            (Subject::Stored(stored, runtime), None) => {
                let by = stored.rules().clone();
                let name = format!("{} ({})", by.name, &by.sha256[..by.sha256.len().min(8)]);
                Ok((name, runtime.block_on(stored.judge(hold_secs))?.by(by)))
            }
            (Subject::Stored(stored, runtime), Some(path)) => {
                let (name, by, file) = load(path)?;
                Ok((name, runtime.block_on(stored.judge_by(&file, hold_secs))?.by(by)))
            }
        }
    }
}

/// The noise of the old version in a recording.
fn measure(history: &Recording, file: &RuleFile) -> Calibration {
    let mut counted = None;
    let past = observations(history, file).filter_map(|observation| {
        let at = observation.at;
        let covers = counted.map_or(file.rules.observe.interval, |counted| at.since(counted));
        let look = PastLook::of(observation, covers);
        look.has_data().then(|| {
            counted = Some(at);
            look.into_past()
        })
    });
    calibrate(&file.rules, &past.collect::<Vec<_>>(), Duration::ZERO)
}

/// Every look at a recording, by the recorded time.
fn observations(recording: &Recording, file: &RuleFile) -> impl Iterator<Item = Observation> {
    let specs: Arc<[SignalSpec]> = file.specs.clone().into();
    let mut reducer = Reducer::new(specs.clone(), file.rules.observe.warmup, Carry::default());
    let interval = file.rules.observe.interval;
    // Answers were recorded on the full second, give or take some milliseconds; looks on the full
    // second would now and then miss one and see two at the next.
    let mut at = recording.start().after(LOOK_OFFSET);
    let mut since = Time(at.0 - i64::try_from(interval.as_millis()).unwrap_or(i64::MAX));
    std::iter::from_fn(move || {
        (at <= recording.end()).then(|| {
            let observation = reducer.reduce(&recording.gather(&specs, at, since));
            (since, at) = (at, at.after(interval));
            observation
        })
    })
}

/// Judges a whole recording, by the stated prior of the noise. A recording that ends before a final
/// verdict is inconclusive.
///
/// # Errors
/// When the recording holds no look.
pub fn replay(recording: &Recording, file: RuleFile) -> anyhow::Result<Report> {
    replay_calibrated(recording, file, &Calibration::default())
}

/// The same with measured noise.
///
/// # Errors
/// When the recording holds no look.
pub fn replay_calibrated(
    recording: &Recording,
    file: RuleFile,
    calibration: &Calibration,
) -> anyhow::Result<Report> {
    Ok(fold(recording, &file, calibration)?.report)
}

fn fold(
    recording: &Recording,
    file: &RuleFile,
    calibration: &Calibration,
) -> anyhow::Result<Outcome> {
    let mut fold = Fold::new(Arc::new(file.rules.clone()), recording.start(), calibration);
    for observation in observations(recording, file) {
        if !fold.look(&observation) {
            break;
        }
    }
    fold.end()
}
