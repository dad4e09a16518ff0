//! `rollgate replay RECORDING --rules FILE`: the engine over recorded bodies, with recorded time.
//!
//! The same reducer and the same engine as in `serve`; a replay differs only in where samples and
//! time come from, and takes no longer than the work itself.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;

use super::{
    FormatArg, Output, UsageError, conclude, display, load_rules, parse_duration, rules_ref,
};
use crate::{
    engine::{
        analysis::Analysis,
        calibration::{Calibration, calibrate},
        observation::{Observation, Time},
    },
    report::{build, explain, shape::Report},
    rulefile::RuleFile,
    signal::{carry::Carry, past::PastLook, reduce::Reducer, spec::SignalSpec},
    source::{exposition::Format, recording::Recording},
};

/// Time between the start of a recording and its first look.
const LOOK_OFFSET: Duration = Duration::from_millis(500);

/// Arguments of `replay`.
#[derive(Args)]
#[command(after_help = "\
A recording is a directory with `scrapes.ndjson.gz` and `health.ndjson.gz`, one answer a line. It
is judged by the time in it. One that ends before a final verdict is inconclusive (exit code 4).

  rollgate replay tests/cases/recordings/error5 --rules rules/recommended.yaml --hold 2m
  rollgate replay error5 --rules rules/recommended.yaml --history healthy")]
pub struct ReplayArgs {
    /// Directory of the recording.
    recording: PathBuf,
    /// Rule file.
    #[arg(long, value_name = "FILE")]
    rules: PathBuf,
    /// Watch at least this long instead of what the rule file says.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    hold: Option<Duration>,
    /// Look this often instead of what the rule file says.
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
    let mut file = load_rules(&args.rules, args.hold.map(|hold| hold.as_secs_f64()))?;
    if let Some(interval) = args.interval {
        file.rules.observe.interval = interval;
    }
    let open = |path: &PathBuf| {
        let opened = Recording::open(path, Format::from(args.format));
        opened.map_err(|error| UsageError(error.to_string()))
    };
    let recording = open(&args.recording)?;
    let history = args.history.as_ref().map(open).transpose()?;
    let calibration = history.map(|history| measure(&history, &file)).unwrap_or_default();
    let by = rules_ref(&args.rules, &file);
    let report = replay_calibrated(&recording, file, &calibration)?.by(by);
    if !args.output.json {
        let (color, width) = display::stdout_style();
        print!(
            "{}{}",
            display::table(&report, color, width),
            display::sentence(&report, color, width)
        );
    }
    conclude(&report, args.output)
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
pub fn replay(recording: &Recording, file: RuleFile) -> anyhow::Result<Report> {
    replay_calibrated(recording, file, &Calibration::default())
}

/// The same with measured noise.
pub fn replay_calibrated(
    recording: &Recording,
    file: RuleFile,
    calibration: &Calibration,
) -> anyhow::Result<Report> {
    let rules = Arc::new(file.rules.clone());
    let mut analysis = Analysis::calibrated(rules.clone(), recording.start(), calibration);
    let mut last = None;
    for observation in observations(recording, &file) {
        let step = analysis.step(&observation);
        let report = build::report(&rules, &step);
        if report.is_final {
            return Ok(report);
        }
        last = Some(report);
    }
    let mut report = last.ok_or_else(|| UsageError("the recording holds no look".to_owned()))?;
    report.reason = explain::ended_early(&report, rules.promote.after.as_secs_f64());
    "inconclusive".clone_into(&mut report.verdict);
    report.rule = None;
    report.decided_at = Some(report.at);
    Ok(report)
}
