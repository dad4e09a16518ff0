//! The command line: one file per command, results to stdout, everything else to stderr.
//!
//! Exit codes are the same everywhere: 0 promote (or all is well), 1 any other failure, 2 bad usage
//! or configuration, 3 rollback, 4 inconclusive.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::{Args, CommandFactory, Parser, Subcommand};
use serde::Serialize;

use crate::{
    report::shape::{Report, RulesRef},
    rulefile,
    source::exposition::Format,
};

pub mod assume;
pub mod backtest;
pub mod check;
pub mod completions;
pub mod demo;
pub mod display;
pub mod explain;
pub mod hook;
pub mod plan;
mod progress;
pub mod record;
pub mod replay;
pub mod run;
pub mod schema;
pub mod serve;
pub mod simulate;
pub mod test;
pub mod token;

/// All is well, or promote.
pub const PROMOTE: u8 = 0;
/// Any failure that is none of the others.
pub const FAILURE: u8 = 1;
/// Bad usage or configuration.
pub const USAGE: u8 = 2;
/// The verdict is rollback.
pub const ROLLBACK: u8 = 3;
/// The verdict is inconclusive.
pub const INCONCLUSIVE: u8 = 4;

const ABOUT: &str = "\
Judges a release while it happens: roll back, promote, or not enough evidence.

rollgate compares the new version (canary) with the old one (baseline) by the rules of a rule file,
looks every few seconds, and keeps a stated false-rollback rate however often it looks.";

const AFTER: &str = "\
Exit codes: 0 promote (or all is well), 1 failure, 2 bad usage or configuration, 3 rollback,
4 inconclusive.

Start here:
  rollgate demo                                         watch a canary turn bad, and be rolled back
  rollgate check rules/recommended.yaml                 what a rule file says, or what is wrong with it
  rollgate run --rules rules/recommended.yaml --canary http://new:8080 --baseline http://old:8080";

/// Judges a release while it happens.
#[derive(Parser)]
#[command(name = "rollgate", version, about = "Judges a release while it happens", long_about = ABOUT,
          after_help = AFTER, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show a release being judged, on two real services under load; needs nothing else.
    Demo(demo::DemoArgs),
    /// Run the service: HTTP API, page, webhooks.
    Serve(serve::ServeArgs),
    /// Run one command a decision on a host without an API.
    Hook(hook::HookArgs),
    /// Make a token that lets somebody ask the service.
    Token(token::TokenArgs),
    /// Judge one release from a CI job and exit with the verdict.
    Run(run::RunArgs),
    /// Judge a recording again.
    Replay(replay::ReplayArgs),
    /// Say of one analysis what was decided and why, and what happened on the way.
    Explain(explain::ExplainArgs),
    /// Keep what live targets say, for `replay`.
    Record(record::RecordArgs),
    /// Measure what a rule file does, on simulated releases.
    Simulate(simulate::SimulateArgs),
    /// Say how long a rule file needs at given traffic.
    Plan(plan::PlanArgs),
    /// Run the tests of rule files.
    Test(test::TestArgs),
    /// Judge past releases that a metrics server recorded, and times without any.
    Backtest(backtest::BacktestArgs),
    /// Check rule files and say what they hold.
    Check(check::CheckArgs),
    /// Print the JSON Schema of rule files, for editors.
    Schema(schema::SchemaArgs),
    /// Print a script that completes commands and options in your shell.
    Completions(completions::CompletionsArgs),
}

/// How a verdict is printed.
#[derive(Args, Clone, Copy)]
pub struct Output {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// The exposition format a recording is read in.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum FormatArg {
    /// Prometheus text.
    Text,
    /// OpenMetrics text.
    Om,
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Text => Format::Text,
            FormatArg::Om => Format::OpenMetrics,
        }
    }
}

/// Runs a command line and gives the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { PROMOTE });
        }
    };
    let result = match cli.command {
        Command::Demo(args) => demo::main(args),
        Command::Serve(args) => serve::main(args),
        Command::Hook(args) => hook::main(args),
        Command::Token(args) => token::main(&args),
        Command::Run(args) => run::main(&args),
        Command::Replay(args) => replay::main(&args),
        Command::Explain(args) => explain::main(&args),
        Command::Record(args) => record::main(&args),
        Command::Simulate(args) => simulate::main(&args),
        Command::Plan(args) => plan::main(&args),
        Command::Test(args) => test::main(&args),
        Command::Backtest(args) => backtest::main(&args),
        Command::Check(args) => check::main(&args),
        Command::Schema(args) => schema::main(&args),
        Command::Completions(args) => completions::main(&args, Cli::command()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Faults of a rule file say themselves that they are errors.
            let text = format!("{error:#}");
            eprintln!("error: {}", text.strip_prefix("error: ").unwrap_or(&text));
            ExitCode::from(if error.is::<UsageError>() { USAGE } else { FAILURE })
        }
    }
}

/// Something the person at the keyboard has to mend: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// A reader such as `head` that went away is not a failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(kind)
}

/// Loads a rule file, with every fault of it as a usage error.
fn load_rules(
    path: &std::path::Path,
    hold_secs: Option<f64>,
) -> anyhow::Result<rulefile::RuleFile> {
    let name = path.display().to_string();
    let text = check::read(path).map_err(|error| UsageError(format!("{error:#}")))?;
    let mut file =
        rulefile::load(&name, &text).map_err(|faults| UsageError(format!("{faults}")))?;
    if let Some(hold_secs) = hold_secs {
        crate::service::case::override_hold(&mut file.rules, hold_secs);
    }
    Ok(file)
}

/// Which rule file, as a verdict names it.
fn rules_ref(path: &std::path::Path, file: &rulefile::RuleFile) -> RulesRef {
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    RulesRef { name, sha256: file.sha256.clone() }
}

/// Reads `90s`, `2m`, `1h`, for command-line arguments.
fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let unit = |suffix: &str| text.strip_suffix(suffix).and_then(|n| n.parse::<f64>().ok());
    let secs = unit("ms")
        .map(|millis| millis / 1000.0)
        .or_else(|| unit("s"))
        .or_else(|| unit("m").map(|minutes| minutes * 60.0))
        .or_else(|| unit("h").map(|hours| hours * 3600.0));
    match secs {
        Some(secs) if secs > 0.0 && secs <= 604_800.0 => {
            Ok(std::time::Duration::from_secs_f64(secs))
        }
        Some(_) | None => Err("expected a time such as 90s, 2m or 1h, at most a week".to_owned()),
    }
}

/// Traffic as people say it: `50 requests/s`, `12.5 requests/min`, `3 requests/h`.
fn traffic_text(rps: f64) -> String {
    let (amount, unit) = match rps {
        rps if rps >= 0.5 => (rps, "s"),
        rps if rps >= 0.5 / 60.0 => (rps * 60.0, "min"),
        _ => (rps * 3600.0, "h"),
    };
    let scale = if amount >= 100.0 { 1.0 } else { 10.0 };
    format!("{} requests/{unit}", (amount * scale).round() / scale)
}

/// Prints one JSON object, for people too.
fn print_json(out: &mut (impl Write + ?Sized), value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Prints the outcome and gives its exit code.
fn conclude(report: &Report, output: Output) -> anyhow::Result<u8> {
    let mut out = io::stdout().lock();
    if output.json {
        print_json(&mut out, report)?;
    }
    out.flush()?;
    Ok(exit_code(report))
}

/// The exit code of a verdict.
fn exit_code(report: &Report) -> u8 {
    match report.verdict.as_str() {
        "promote" => PROMOTE,
        "rollback" => ROLLBACK,
        _ => INCONCLUSIVE,
    }
}

/// Log lines go to stderr; `RUST_LOG` chooses how many.
fn init_logging(default: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let ansi = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(ansi);
    // A second subscriber in one process (tests) is refused; the first stays.
    let _ = subscriber.try_init();
}

/// The runtime that commands with I/O run on.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
