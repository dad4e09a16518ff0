//! `rollgate simulate FILE --traffic RATE`: what a rule file does, measured on simulated releases.
//!
//! Every run is a whole analysis by the engine that judges real releases, over observations whose
//! truth is known. The same file, assumptions and seed give the same numbers on any machine.

mod page;
mod shape;
mod table;

pub(super) use table::grouped;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, bail};
use clap::Args;

use super::{PROMOTE, UsageError, assume::Assumptions, display, progress};
use crate::{
    engine::{calibration::Calibration, rule::RuleSet},
    simulation::{
        questions::{Ask, Assumed, questions},
        study::{Answer, answer, mix, work_of},
        trial::{calibration, judge, looks_max, nearness},
    },
};
use shape::{ExampleShape, Simulation};

/// Runs of one kind of release at most.
pub const RUNS_MAX: usize = 100_000;

/// Looks that a study may come to if no release ends before its deadline; about three hours.
pub const LOOKS_MAX: u64 = 2_000_000_000;

/// A fault is run this much less often than a release without one: what is rare needs more runs.
const RUNS_PER_FAULT: usize = 4;

/// And at least so often, if there are that many runs at all.
const FAULT_RUNS_MIN: usize = 100;

/// Runs that the page shows look by look, of each kind.
const EXAMPLES: usize = 5;

/// Points that one of them is drawn with.
const EXAMPLE_POINTS_MAX: usize = 240;

/// Arguments of `simulate`.
#[derive(Args)]
#[command(after_help = "\
Simulates whole releases and counts what the rule file makes of them: how often a healthy one is
rolled back, how often one that is exactly as bad as a rule or a margin allows goes wrong, and how
often and how soon faults of several sizes are found. Faults begin two minutes into the analysis.
The exit code is 0 whatever is found; read the table.

  rollgate simulate rules/recommended.yaml --traffic 50rps
  rollgate simulate shop.yaml --traffic 5/s --baseline-traffic 95/s --errors 0.1% --html shop.html
  rollgate simulate shop.yaml --traffic 600/min --noise wild --history none --runs 10000 --json")]
pub struct SimulateArgs {
    #[command(flatten)]
    assumptions: Assumptions,
    /// Releases of each kind without a fault; a quarter of it of each fault.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = parse_runs)]
    runs: usize,
    /// Seed of every draw.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write a page with plots to this file: one file, nothing loaded from elsewhere.
    #[arg(long, value_name = "OUT.html")]
    html: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn main(args: &SimulateArgs) -> anyhow::Result<u8> {
    let (rules, assumed) = args.assumptions.read()?;
    let rules = Arc::new(rules);
    let stop = Arc::new(AtomicBool::new(false));
    let answers = super::runtime()?.block_on(async {
        let (rules, assumed, stopped) = (rules.clone(), assumed.clone(), stop.clone());
        let (runs, seed) = (args.runs, args.seed);
        let work = move || study(&rules, &assumed, runs, seed, &stopped);
        let mut work = tokio::task::spawn_blocking(work);
        tokio::select! {
            done = &mut work => done.context("the simulation ended early")?,
            _ = tokio::signal::ctrl_c() => {
                stop.store(true, Ordering::Relaxed);
                work.await.context("the simulation ended early")?
            }
        }
    })?;
    let Some(answers) = answers else { bail!("interrupted") };
    let name = args.assumptions.file.display().to_string();
    let mut found = Simulation::new(name, &rules, &assumed, args.seed, &answers);
    found.examples = examples(&rules, &assumed, args.seed, &answers);
    if let Some(path) = &args.html {
        write_page(path, &page::page(&found))?;
    }
    let mut out = io::stdout().lock();
    if args.json {
        super::print_json(&mut out, &found)?;
    } else {
        let (color, columns) = display::stdout_style();
        write!(out, "{}", table::table(&found, color, columns))?;
        if let Some(path) = &args.html {
            writeln!(out, " The page is in {}.", path.display())?;
        }
    }
    out.flush()?;
    Ok(PROMOTE)
}

/// Runs the whole study with a progress bar on standard error; none when it was stopped.
fn study(
    rules: &Arc<RuleSet>,
    assumed: &Assumed,
    runs: usize,
    seed: u64,
    stop: &AtomicBool,
) -> anyhow::Result<Option<Vec<Answer>>> {
    let per_fault = (runs / RUNS_PER_FAULT).max(FAULT_RUNS_MIN).min(runs);
    let asked = questions(rules, assumed, runs, per_fault);
    let work = work_of(&asked, assumed.history);
    let looks = (work as u64).saturating_mul(looks_max(rules));
    if looks > LOOKS_MAX {
        let fault = format!(
            "this would take up to {looks} looks and at most {LOOKS_MAX} are simulated: choose \
             fewer --runs or a shorter --hold"
        );
        return Err(UsageError(fault).into());
    }
    let bar = progress::bar(work as u64, "{pos} of {len} releases, {eta} left");
    let answers = answer(rules, asked, assumed.history, seed, &|| bar.inc(1), stop);
    bar.finish_and_clear();
    Ok(answers)
}

/// A few runs look by look: the healthy release, and the smallest fault of each kind that is found
/// as a rule, most often the first.
fn examples(
    rules: &Arc<RuleSet>,
    assumed: &Assumed,
    seed: u64,
    answers: &[Answer],
) -> Vec<ExampleShape> {
    let is_found = |answer: &Answer| {
        matches!(answer.question.ask, Ask::Fault(_)) && answer.rolled_back().value() > 0.9
    };
    let healthy = answers.iter().position(|answer| answer.question.ask == Ask::Healthy);
    let faulty = answers.iter().position(is_found);
    let shown = [healthy, faulty].into_iter().flatten();
    shown
        .map(|number| {
            let answer = &answers[number];
            let count = EXAMPLES.min(answer.question.runs);
            let runs = (0..count).map(|run| trace(rules, assumed, seed, answer, number, run));
            ExampleShape {
                name: shape::name(rules, answer.question.ask),
                is_faulty: matches!(answer.question.ask, Ask::Fault(_)),
                runs: runs.collect(),
            }
        })
        .collect()
}

/// One run of the study once more, with evidence as it goes.
fn trace(
    rules: &Arc<RuleSet>,
    assumed: &Assumed,
    seed: u64,
    answer: &Answer,
    number: usize,
    run: usize,
) -> Vec<[f64; 2]> {
    let scenario = &answer.question.scenario;
    let known = match assumed.history {
        Some(history) => calibration(rules, scenario, history, mix(seed, u64::MAX, run)),
        None => Calibration::default(),
    };
    let mut points = Vec::new();
    judge(rules, scenario, &known, mix(seed, number as u64, run), |step| {
        if let Some(near) = nearness(rules, step) {
            points.push([step.elapsed.as_secs_f64(), (near * 1e4).round() / 1e4]);
        }
    });
    let every = points.len().div_ceil(EXAMPLE_POINTS_MAX).max(1);
    // The last point decided, so it is kept whatever the stride.
    let last = points.len().saturating_sub(1);
    let kept = points.iter().enumerate().filter(|(at, _)| (last - at).is_multiple_of(every));
    kept.map(|(_, point)| *point).collect()
}

/// Writes the page beside its place first, so that a reader never sees half of it.
pub(super) fn write_page(path: &Path, page: &str) -> anyhow::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    fs::write(&beside, page)
        .and_then(|()| fs::rename(&beside, path))
        .with_context(|| format!("write the page {}", path.display()))
}

fn parse_runs(text: &str) -> Result<usize, String> {
    let runs = text.parse().ok().filter(|runs| (1..=RUNS_MAX).contains(runs));
    runs.ok_or_else(|| format!("expected a number of runs from 1 to {RUNS_MAX}"))
}
