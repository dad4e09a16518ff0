//! `rollgate test rules/`: runs the rule tests beside rule files, and says what did not come as expected.
//!
//! Every file is read and every test is run, whatever is wrong with those before it. Results go to
//! `out`, files that cannot be read or have faults to `err`. Tests are spread over the cores; what is told
//! is in the order of files and tests all the same.

mod coverage;
mod print;
mod shape;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;

use super::{FAILURE, PROMOTE, USAGE, UsageError, check, display};
use crate::{
    rulefile::{self, Faults, RuleFile},
    ruletest::{self, Test, outcome::Outcome},
    simulation::study::on_all_cores,
};

/// Test files of one run.
const FILES_MAX: usize = 1_000;
/// Directories inside one another.
const DEPTH_MAX: usize = 16;
/// What the name of a test file ends in.
const ENDINGS: [&str; 2] = [".test.yaml", ".test.yml"];

/// Arguments of `test`.
#[derive(Args)]
#[command(after_help = "\
A test file `NAME.test.yaml` lies beside the rule file `NAME.yaml`, or names another by `rules:`. It
says what both versions show, look by look, and which verdict and findings are to come of it, and when.

  rollgate test rules/
  rollgate test rules/app.test.yaml --filter promot
  rollgate test rules/ --require-coverage --junit report.xml

Exit codes: 0 every test passed, 1 one failed (or coverage is asked for and lacking), 2 a file is bad.")]
pub struct TestArgs {
    /// Test files, rule files that have one beside them, or directories that are searched.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only tests whose name holds this text.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Fail when some rule is never seen to fire, or never to be clear.
    #[arg(long, conflicts_with = "filter")]
    require_coverage: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Write the results as JUnit XML too, for CI systems.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// One test file that was run.
pub struct Ran {
    /// Its path, as found.
    file: PathBuf,
    /// The rule file's path.
    rules: PathBuf,
    /// What came of its tests.
    outcomes: Vec<Outcome>,
    /// Time spent on them, over all cores.
    took: Duration,
}

/// A file that could not be run.
#[derive(Clone)]
pub enum Bad {
    /// It has faults: its own, or those of its rule file.
    Faults(Faults),
    /// It cannot be read.
    Unreadable(String),
}

/// Runs the command.
pub fn main(args: &TestArgs) -> anyhow::Result<u8> {
    let (color, width) = display::stdout_style();
    run(args, (color, width), &mut io::stdout().lock(), &mut io::stderr().lock())
}

/// Runs the tests and tells what came of them.
///
/// # Errors
/// When nothing is found to run, or a result cannot be written.
pub fn run(
    args: &TestArgs,
    (color, width): (bool, usize),
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<u8> {
    let begun = Instant::now();
    let files = found(&args.paths)?;
    let (mut loaded, mut bad) = (Vec::new(), Vec::new());
    for file in files {
        match load(&file, args.filter.as_deref()) {
            Ok(one) => loaded.push(one),
            Err(fault) => bad.push(fault),
        }
    }
    let ran = run_all(&loaded);
    let coverage = match args.filter {
        None => coverage::of(&loaded, &ran),
        Some(_) => Vec::new(),
    };
    if let Some(path) = &args.junit {
        std::fs::write(path, shape::junit(&ran))
            .with_context(|| format!("write {}", path.display()))?;
    }
    if args.json {
        let shape = shape::Run::of(&ran, &bad, &coverage);
        super::print_json(&mut *out, &shape)?;
    } else {
        for fault in &bad {
            match fault {
                Bad::Faults(faults) => writeln!(err, "{}\n", faults.render(color))?,
                Bad::Unreadable(text) => writeln!(err, "error: {text}\n")?,
            }
        }
        print::Printer { out, color, width }.all(&ran, bad.len(), &coverage, begun.elapsed())?;
    }
    let has_failed = ran.iter().any(|ran| ran.outcomes.iter().any(|outcome| !outcome.passed));
    let is_covered = !args.require_coverage || coverage.iter().all(coverage::Coverage::is_whole);
    Ok(match (bad.is_empty(), has_failed || !is_covered) {
        (false, _) => USAGE,
        (true, true) => FAILURE,
        (true, false) => PROMOTE,
    })
}

/// A test file with its rule file.
struct Loaded {
    file: PathBuf,
    rules_path: PathBuf,
    rules: RuleFile,
    tests: Vec<Test>,
}

/// The test file beside a rule file that was given in its place, as `rules/*.yaml` does.
fn beside(path: &Path) -> Option<PathBuf> {
    let stem = check::stem(path).filter(|_| !check::is_test(path))?;
    let tests = ENDINGS.iter().map(|ending| path.with_file_name(format!("{stem}{ending}")));
    tests.into_iter().find(|tests| tests.is_file())
}

/// The test files that are meant: files as they are given, directories searched in order of names.
fn found(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        if path.is_dir() {
            search(path, 0, &mut files)?;
        } else {
            files.push(beside(path).unwrap_or_else(|| path.clone()));
        }
    }
    let mut known = std::collections::BTreeSet::new();
    files.retain(|file| known.insert(file.clone()));
    if files.is_empty() {
        let places: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let text = format!(
            "found no *.test.yaml in {}\nhint: a test file lies beside its rule file: app.yaml and \
             app.test.yaml",
            places.join(", ")
        );
        return Err(UsageError(text).into());
    }
    Ok(files)
}

fn search(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let unreadable = || format!("read directory {}", dir.display());
    let entries = std::fs::read_dir(dir).with_context(unreadable)?;
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in entries {
        paths.push(entry.with_context(unreadable)?.path());
    }
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let is_hidden = name.starts_with('.');
        // A link may lead back here; what it leads to can be named itself.
        if path.is_dir() && !path.is_symlink() && !is_hidden && depth < DEPTH_MAX {
            search(&path, depth + 1, files)?;
        } else if path.is_file() && ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            if files.len() >= FILES_MAX {
                let text = format!("more than {FILES_MAX} test files; name a smaller directory");
                return Err(UsageError(text).into());
            }
            files.push(path);
        }
    }
    Ok(())
}

fn load(file: &Path, filter: Option<&str>) -> Result<Loaded, Bad> {
    let name = file.display().to_string();
    let unreadable = |error: anyhow::Error| Bad::Unreadable(format!("{error:#}"));
    let text = check::read(file).map_err(unreadable)?;
    // Without its rule file only the faults of its shape can be told.
    let shape = ruletest::load(&name, &text).map_err(Bad::Faults);
    let bad = |text: String| shape.as_ref().err().map_or(Bad::Unreadable(text), Bad::clone);
    let rules_path = rules_of(file, ruletest::rules_named(&text).as_deref()).map_err(bad)?;
    let rules_text = check::read(&rules_path).map_err(|error| bad(format!("{name}: {error:#}")))?;
    let rules = rulefile::load(&rules_path.display().to_string(), &rules_text);
    let rules = rules.map_err(Bad::Faults)?;
    let mut tests = ruletest::bind(&name, &text, &rules).map_err(Bad::Faults)?;
    if let Some(filter) = filter {
        tests.retain(|test| test.name.contains(filter));
    }
    Ok(Loaded { file: file.to_owned(), rules_path, rules, tests })
}

/// The rule file that a test file is about.
pub(super) fn rules_of(file: &Path, named: Option<&str>) -> Result<PathBuf, String> {
    if let Some(named) = named {
        return Ok(file.with_file_name(named));
    }
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)).ok_or_else(|| {
        format!(
            "{}: a test file that says no `rules: FILE` is called NAME.test.yaml, beside NAME.yaml",
            file.display()
        )
    })?;
    let candidates = ["yaml", "yml"].map(|ending| file.with_file_name(format!("{stem}.{ending}")));
    let first = candidates[0].display().to_string();
    candidates.into_iter().find(|path| path.exists()).ok_or_else(|| {
        format!(
            "{}: there is no rule file {first}; hint: name it by `rules: FILE` in the test file",
            file.display()
        )
    })
}

/// Runs every test, as many at once as there are cores.
fn run_all(loaded: &[Loaded]) -> Vec<Ran> {
    let jobs: Vec<(usize, usize)> = loaded
        .iter()
        .enumerate()
        .flat_map(|(file, one)| (0..one.tests.len()).map(move |test| (file, test)))
        .collect();
    let run = |job: usize| {
        let begun = Instant::now();
        let (file, test) = jobs[job];
        let outcome = ruletest::run(&loaded[file].tests[test], &loaded[file].rules);
        (outcome, begun.elapsed())
    };
    let done = on_all_cores(jobs.len(), &AtomicBool::new(false), run).unwrap_or_default();
    let mut ran: Vec<Ran> = loaded
        .iter()
        .map(|one| Ran {
            file: one.file.clone(),
            rules: one.rules_path.clone(),
            outcomes: Vec::new(),
            took: Duration::ZERO,
        })
        .collect();
    for (&(file, _), (outcome, took)) in jobs.iter().zip(done) {
        ran[file].outcomes.push(outcome);
        ran[file].took += took;
    }
    ran
}
