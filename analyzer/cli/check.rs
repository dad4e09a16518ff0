//! `rollgate check FILE...`: reads rule files and configurations and says what each holds, or every
//! fault of it, and what should not stay as it is.
//!
//! As text, what good files hold goes to `out`, faults and warnings to `err`; what is made for
//! machines goes to `out` whole. Every file is read, whatever is wrong with those before it. It
//! judges nothing and asks no target.

mod config;
mod config_summary;
mod files;
mod github;
mod json;
mod sarif;
mod summary;

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, ValueEnum};

pub use self::files::{MAX_FILES, read};
pub(super) use self::files::{is_test, stem};
use self::summary::plural;
use super::{
    UsageError,
    assume::parse_traffic,
    display::{
        self,
        line::{Line, Tone, wrap},
    },
};
use crate::{
    config::Secrets,
    rulefile::{self, Fault, Faults, RuleFile, StatedTraffic, lint},
    ruletest,
};

/// Every file is good.
pub const GOOD: u8 = 0;
/// At least one file has faults or cannot be read, or has warnings that are denied.
pub const FAULTY: u8 = 2;

/// Arguments of `check`.
#[derive(Args)]
#[command(after_help = "\
Faults make a file bad: exit code 2. Warnings do not, unless they are denied: each has a name, in
brackets, by which a rule (`allow: NAME`) or the whole file (`allow: [NAME, ...]`) does without it.
With the traffic stated, here or in the file (`observe: { traffic: 20/s }`), it also warns of what
cannot be decided at that traffic. Of a directory, `*.test.yaml` is left out; given by name,
it is read as tests, without running them. A configuration (`rollgate.yaml`, `*.rollgate.yaml`, or
known by its keys) is read with its secrets, and shown with what each mechanism does; nothing is
sent.

  rollgate check rules/                                   every rule file of a directory
  rollgate check --deny warnings --format github rules/   annotations in a GitHub job
  rollgate check --traffic 2/s shop.yaml                  would it ever be promoted?
  rollgate check --no-secrets rollgate.yaml               where the secrets are not at hand")]
pub struct CheckArgs {
    /// Rule files, configurations, or directories of them.
    #[arg(required_unless_present = "list_lints", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How the result is written.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
    /// Exit with 2 when there is a warning.
    #[arg(long, value_enum, value_name = "WHAT")]
    deny: Option<Deny>,
    /// Requests that the canary gets: 50rps, 50/s, 3000/min. With `steps`, the whole service.
    #[arg(long, value_name = "RATE", value_parser = parse_traffic)]
    traffic: Option<f64>,
    /// Requests that the baseline gets; the same as the canary unless given.
    #[arg(long, value_name = "RATE", value_parser = parse_traffic, requires = "traffic")]
    baseline_traffic: Option<f64>,
    /// Say what a good file holds in one line.
    #[arg(short, long)]
    quiet: bool,
    /// Check configurations without reading their secrets.
    #[arg(long)]
    no_secrets: bool,
    /// Name every lint, and what it is for.
    #[arg(long)]
    list_lints: bool,
}

/// How the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
    /// A log of SARIF 2.1.0, for code scanners and editors.
    Sarif,
    /// Annotations of a GitHub job.
    Github,
}

/// What is taken for a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Deny {
    /// Every warning.
    Warnings,
}

/// How files are checked, and how that is said.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How the result is written.
    pub format: Format,
    /// Whether a warning makes the exit code [`FAULTY`].
    pub deny_warnings: bool,
    /// Whether a good file is told in one line.
    pub quiet: bool,
    /// Whether a configuration's secrets are read.
    pub secrets: Secrets,
    /// What the lints reckon with, in the place of what a file states.
    pub traffic: Option<StatedTraffic>,
    /// How what good files hold is written.
    pub out: Style,
    /// How faults and warnings are written.
    pub err: Style,
}

/// Colours, and how much room there is.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Whether there are colours.
    pub color: bool,
    /// Columns of a line.
    pub columns: usize,
}

impl Style {
    /// Where there is no terminal.
    pub const PLAIN: Self = Self { color: false, columns: display::WIDTH_DEFAULT };
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: Format::Text,
            deny_warnings: false,
            quiet: false,
            secrets: Secrets::Read,
            traffic: None,
            out: Style::PLAIN,
            err: Style::PLAIN,
        }
    }
}

/// Runs the command.
pub fn main(args: &CheckArgs) -> anyhow::Result<u8> {
    let (color, columns) = display::stdout_style();
    let out = Style { color, columns };
    if args.list_lints {
        list_lints(out, &mut io::stdout())?;
        return Ok(GOOD);
    }
    let colored = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let options = Options {
        format: args.format,
        deny_warnings: args.deny == Some(Deny::Warnings),
        quiet: args.quiet,
        secrets: if args.no_secrets { Secrets::StandIn } else { Secrets::Read },
        traffic: args.traffic.map(|rps| StatedTraffic { rps, baseline_rps: args.baseline_traffic }),
        out,
        err: Style { color: colored, columns },
    };
    check(&args.files, &options, &mut io::stdout(), &mut io::stderr())
}

/// Checks every file and returns the exit code: [`GOOD`] or [`FAULTY`].
///
/// # Errors
/// When `out` or `err` cannot be written, or the stated traffic does not fit a file.
pub fn check(
    paths: &[PathBuf],
    options: &Options,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<u8> {
    let mut checked = Vec::new();
    for (path, listed) in files::named(paths) {
        let name = path.display().to_string();
        let outcome = match listed.and_then(|()| read(&path)) {
            Ok(text) if is_test(&path) => tests(&path, &name, &text),
            Ok(text) if config::is_config(&path, &text) => {
                match config::read(&path, &name, &text, options.secrets) {
                    Ok(picture) => Outcome::Config(Box::new(picture)),
                    Err(faults) => Outcome::Faulty(faults),
                }
            }
            Ok(text) if config::is_hook(&path, &text) => {
                match config::read_hook(&path, &name, &text, options.secrets) {
                    Ok(hook) => Outcome::Hook(hook),
                    Err(faults) => Outcome::Faulty(faults),
                }
            }
            Ok(text) => match rulefile::load_at(&name, &text, options.traffic) {
                Ok(file) => Outcome::Good(Box::new(file)),
                Err(faults) => Outcome::Faulty(faults),
            },
            Err(error) => Outcome::Unreadable(format!("{error:#}")),
        };
        refuse_traffic(&name, &outcome, options.traffic)?;
        checked.push(Checked { name, outcome });
    }
    let faults: usize = checked.iter().map(|checked| checked.outcome.faults()).sum();
    let warnings: usize = checked.iter().map(|checked| checked.outcome.warnings()).sum();
    let is_good = faults == 0 && !(options.deny_warnings && warnings > 0);
    match options.format {
        Format::Text => {
            for checked in &checked {
                say(checked, options, out, err)?;
            }
            if checked.len() > 1 && faults + warnings > 0 {
                let told = tally(faults, warnings);
                writeln!(err, "{} files: {told}", checked.len()).context("write to stderr")?;
            }
        }
        Format::Json => write_out(out, &json::render(&checked, is_good))?,
        Format::Sarif => write_out(out, &sarif::render(&checked))?,
        Format::Github => write_out(out, &github::render(&checked))?,
    }
    Ok(if is_good { GOOD } else { FAULTY })
}

/// Reads a file of rule tests, with the rule file that it is about.
fn tests(path: &Path, name: &str, text: &str) -> Outcome {
    let outline = match ruletest::load(name, text) {
        Ok(outline) => outline,
        Err(faults) => return Outcome::Faulty(faults),
    };
    let rules = match super::test::rules_of(path, outline.rules()) {
        Ok(rules) => rules,
        Err(error) => return Outcome::Unreadable(error),
    };
    let rules_name = rules.display().to_string();
    let text = match read(&rules) {
        Ok(text) => text,
        Err(error) => return Outcome::Unreadable(format!("{name}: {error:#}")),
    };
    let Ok(file) = rulefile::load(&rules_name, &text) else {
        let error = format!("{name}: its rule file {rules_name} has faults; check that first");
        return Outcome::Unreadable(error);
    };
    match outline.bind(&file) {
        Ok(tests) => Outcome::Tests { rules: rules_name, count: tests.len() },
        Err(faults) => Outcome::Faulty(faults),
    }
}

/// A file, and what came of reading it.
struct Checked {
    name: String,
    outcome: Outcome,
}

enum Outcome {
    Good(Box<RuleFile>),
    /// A configuration without faults.
    Config(Box<config::Picture>),
    /// A hook's file without faults, and what the hook does.
    Hook(String),
    /// So many tests of a rule file, without faults.
    Tests {
        rules: String,
        count: usize,
    },
    Faulty(Faults),
    /// Why it could not be read.
    Unreadable(String),
}

impl Outcome {
    fn faults(&self) -> usize {
        match self {
            Outcome::Good(_) | Outcome::Config(_) | Outcome::Hook(_) | Outcome::Tests { .. } => 0,
            Outcome::Faulty(faults) => faults.count(),
            Outcome::Unreadable(_) => 1,
        }
    }

    fn warnings(&self) -> usize {
        match self {
            Outcome::Good(file) => file.warnings.len() + file.warnings_unlisted,
            Outcome::Config(picture) => picture.warnings.len() + picture.warnings_unlisted,
            Outcome::Hook(_)
            | Outcome::Tests { .. }
            | Outcome::Faulty(_)
            | Outcome::Unreadable(_) => 0,
        }
    }

    /// Faults and warnings that are counted and not kept.
    fn unlisted(&self) -> usize {
        match self {
            Outcome::Good(file) => file.warnings_unlisted,
            Outcome::Config(picture) => picture.warnings_unlisted,
            Outcome::Faulty(faults) => faults.count() - faults.iter().count(),
            Outcome::Hook(_) | Outcome::Tests { .. } | Outcome::Unreadable(_) => 0,
        }
    }
}

/// With steps there is no traffic of the baseline by itself.
fn refuse_traffic(
    name: &str,
    outcome: &Outcome,
    traffic: Option<StatedTraffic>,
) -> anyhow::Result<()> {
    let stated = traffic.is_some_and(|traffic| traffic.baseline_rps.is_some());
    match outcome {
        Outcome::Good(file) if stated && !file.rules.steps.is_empty() => {
            Err(UsageError(format!("{name} has `steps`: {}", super::assume::STEPS_DIVIDE)).into())
        }
        Outcome::Good(_)
        | Outcome::Config(_)
        | Outcome::Hook(_)
        | Outcome::Tests { .. }
        | Outcome::Faulty(_)
        | Outcome::Unreadable(_) => Ok(()),
    }
}

/// One file, for people.
fn say(
    checked: &Checked,
    options: &Options,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<()> {
    let name = &checked.name;
    let told = tally(checked.outcome.faults(), checked.outcome.warnings());
    let said = match &checked.outcome {
        Outcome::Good(file) => {
            let held = match options.quiet {
                true => format!("{name}: {}\n", summary::sentence(&file.rules)),
                false => {
                    let lines = summary::table(name, file, options.out.columns);
                    rendered(&lines, options.out.color) + "\n"
                }
            };
            write_out(out, &held)?;
            let warnings = (file.warnings.as_slice(), file.warnings_unlisted);
            match warned(warnings, &file.text, options.err.color) {
                Some(warned) => format!("{warned}\n\n{name}: {told}\n\n"),
                None => return Ok(()),
            }
        }
        Outcome::Config(picture) => {
            let held = match options.quiet {
                true => format!("{name}: {}\n", config_summary::sentence(picture)),
                false => {
                    let lines = config_summary::table(name, picture, options.out.columns);
                    rendered(&lines, options.out.color) + "\n"
                }
            };
            write_out(out, &held)?;
            let warnings = (picture.warnings.as_slice(), picture.warnings_unlisted);
            match warned(warnings, &picture.text, options.err.color) {
                Some(warned) => format!("{warned}\n\n{name}: {told}\n\n"),
                None => return Ok(()),
            }
        }
        Outcome::Hook(_) if options.quiet => {
            return write_out(out, &format!("{name}: good: a hook\n"));
        }
        Outcome::Hook(does) => return write_out(out, does),
        Outcome::Tests { rules, count } => {
            let told = plural(*count, "test");
            return write_out(out, &format!("{name}: good: {told} of {rules}\n"));
        }
        Outcome::Faulty(faults) => {
            format!("{}\n\n{name}: {told}\n\n", faults.render(options.err.color))
        }
        Outcome::Unreadable(error) => format!("error: {error}\n\n"),
    };
    err.write_all(said.as_bytes()).context("write to stderr")
}

/// Warnings for a terminal, and how many more there are; none without any.
fn warned((warnings, unlisted): (&[Fault], usize), text: &str, color: bool) -> Option<String> {
    let mut parts: Vec<String> = warnings.iter().map(|fault| fault.render(text, color)).collect();
    if parts.is_empty() {
        return None;
    }
    if unlisted > 0 {
        parts.push(format!("and {unlisted} more after these"));
    }
    Some(parts.join("\n\n"))
}

/// Everything that a fault says but its place, one thing a line.
fn paragraph(fault: &Fault) -> String {
    let mut text = fault.message.clone();
    if let Some(means) = &fault.means {
        text += &format!("\nso: {means}");
    }
    text += &format!("\nexpected: {}", fault.expected);
    if let Some(hint) = &fault.hint {
        text += &format!("\nhint: {hint}");
    }
    text
}

fn tally(faults: usize, warnings: usize) -> String {
    match (faults, warnings) {
        (faults, 0) => plural(faults, "fault"),
        (0, warnings) => plural(warnings, "warning"),
        (faults, warnings) => {
            format!("{} and {}", plural(faults, "fault"), plural(warnings, "warning"))
        }
    }
}

fn list_lints(style: Style, out: &mut dyn Write) -> anyhow::Result<()> {
    let room = style.columns.saturating_sub(4).clamp(20, 96);
    let mut lines = Vec::new();
    let of_rules = lint::ALL.iter().map(|lint| (lint.name, lint.what, lint.why));
    let of_configs = config::LINTS.iter().map(|lint| (lint.name, lint.what, lint.why));
    for (name, what, why) in of_rules.chain(of_configs) {
        lines.push(Line::of(name, Tone::Strong));
        for text in [what, why] {
            let wrapped = wrap(text, room, usize::MAX).into_iter();
            lines.extend(wrapped.map(|text| Line::of(format!("    {text}"), Tone::Plain)));
        }
    }
    write_out(out, &rendered(&lines, style.color))
}

fn rendered(lines: &[Line], color: bool) -> String {
    lines.iter().map(|line| line.render(color) + "\n").collect()
}

fn write_out(out: &mut dyn Write, text: &str) -> anyhow::Result<()> {
    out.write_all(text.as_bytes()).context("write to stdout")
}
