//! `rollgate check FILE...`: reads rule files and says what each holds, or every fault of it.
//!
//! Results go to `out`, faults to `err`. Every file is read, whatever is wrong with those before
//! it. It judges nothing and asks no target.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{
    engine::rule::{Action, Baseline, Margin, Otherwise, ReleaseStep, RuleSet, Signal},
    report::{build::unit_word, format::quantity},
    rulefile::{self, MAX_FILE_BYTES, duration_text},
};

/// Every file is good.
pub const GOOD: u8 = 0;
/// At least one file has faults or cannot be read.
pub const FAULTY: u8 = 2;

/// Checks every file and returns the exit code: [`GOOD`] or [`FAULTY`].
///
/// # Errors
/// When `out` or `err` cannot be written.
pub fn run(files: &[PathBuf], out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<u8> {
    check(files, Colour::Plain, out, err)
}

/// [`run`], with faults in colour when asked for.
///
/// # Errors
/// When `out` or `err` cannot be written.
pub fn check(
    files: &[PathBuf],
    colour: Colour,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<u8> {
    let mut code = GOOD;
    for file in files {
        let name = file.display().to_string();
        let text = match read(file) {
            Ok(text) => text,
            Err(fault) => {
                writeln!(err, "error: {fault:#}\n").context("write to stderr")?;
                code = FAULTY;
                continue;
            }
        };
        match rulefile::load(&name, &text) {
            Ok(read) => {
                writeln!(out, "{name}: {}", summary(&read.rules)).context("write to stdout")?;
            }
            Err(faults) => {
                let rendered = faults.render(colour == Colour::Styled);
                let count = faults.count();
                let plural = if count == 1 { "fault" } else { "faults" };
                writeln!(err, "{rendered}\n\n{name}: {count} {plural}\n")
                    .context("write to stderr")?;
                code = FAULTY;
            }
        }
    }
    Ok(code)
}

/// Whether faults carry terminal colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    Plain,
    /// Terminal escapes.
    Styled,
}

/// Reads a rule file's text; never more of it than a rule file may have, and one byte to tell.
///
/// # Errors
/// When the file cannot be opened or read, or is not UTF-8.
pub fn read(file: &Path) -> anyhow::Result<String> {
    let limit = MAX_FILE_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(limit).read_to_end(&mut bytes))
        .with_context(|| format!("read rule file {}", file.display()))?;
    if bytes.len() > MAX_FILE_BYTES {
        anyhow::bail!(
            "rule file {} is larger than {} KiB, the most that a rule file may have",
            file.display(),
            MAX_FILE_BYTES / 1024
        );
    }
    String::from_utf8(bytes)
        .with_context(|| format!("rule file {} is not text: UTF-8 is expected", file.display()))
}

/// What a rule file holds, in one line.
fn summary(rules: &RuleSet) -> String {
    let count = |action: Action| rules.rules.iter().filter(|rule| rule.then == action).count();
    let actions: Vec<String> = [Action::Rollback, Action::Investigate, Action::Ok]
        .into_iter()
        .map(|action| (count(action), action))
        .filter(|(count, _)| *count > 0)
        .map(|(count, action)| format!("{count} {action}"))
        .collect();
    let otherwise = match rules.promote.otherwise {
        Otherwise::Hold => "hold",
        Otherwise::Rollback => "roll back",
        Otherwise::Promote => "promote",
    };
    format!(
        "good: {}, {} and {} ({}) looked at every {}{}; promotes after {} at the earliest{}{}, and at \
         {} without enough data{}: {otherwise}",
        rules.service,
        plural(rules.signals.len(), "signal"),
        plural(rules.rules.len(), "rule"),
        actions.join(", "),
        duration_text(rules.observe.interval),
        match rules.baseline {
            Baseline::Concurrent => String::new(),
            Baseline::Before => ", compared with the time before the release".to_owned(),
            Baseline::Offset(offset) => format!(", compared with {} ago", duration_text(offset)),
        },
        duration_text(rules.promote.after),
        steps(rules),
        margins(rules),
        duration_text(rules.promote.deadline),
        if rules.signals.iter().any(|signal| signal.margin.is_some()) { " or proof" } else { "" },
    )
}

/// The steps of a progressive release.
fn steps(rules: &RuleSet) -> String {
    if rules.steps.is_empty() {
        return String::new();
    }
    let step = |step: &ReleaseStep| {
        format!("{} for {}", quantity(step.weight, "share"), duration_text(step.hold))
    };
    let told: Vec<String> = rules.steps.iter().map(step).collect();
    format!(", in {} ({})", plural(told.len(), "step"), told.join(", "))
}

/// What has to be shown before a promotion.
fn margins(rules: &RuleSet) -> String {
    let told = rules.signals.iter().filter_map(|signal| {
        let margin = signal.margin?;
        Some(format!("{} is shown within {}", signal.name, margin_words(signal, margin)))
    });
    let told: Vec<String> = told.collect();
    match told.is_empty() {
        true => String::new(),
        false => format!(" once {}", told.join(" and ")),
    }
}

fn margin_words(signal: &Signal, margin: Margin) -> String {
    let factor = quantity(margin.factor, "number");
    let or = margin.or.map(|or| format!(" or {}", quantity(or, unit_word(signal.unit))));
    format!("{factor}x{}", or.unwrap_or_default())
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
