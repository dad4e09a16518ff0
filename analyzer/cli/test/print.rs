//! The results as text: a line a file, then each failed test with what was expected, what came, the
//! verdicts over time and the findings at the look that shows it; at the end what no test has seen.

use std::{io, io::Write, time::Duration};

use owo_colors::{OwoColorize, Style};

use super::{
    Ran,
    coverage::{Coverage, Unseen},
};
use crate::{
    cli::display::line::wrap,
    report::{
        format::{self, quantity},
        shape::{ClauseShape, FindingShape, Report},
    },
    rulefile::duration_text,
    ruletest::outcome::{Failure, Outcome, Turn},
};

/// Turns of a timeline that are shown; the ones in the middle are left out.
const TURNS_MAX: usize = 12;

/// Lines of one finding or reason.
const LINES_MAX: usize = 6;

/// Writes results to `out`.
pub(super) struct Printer<'o> {
    pub(super) out: &'o mut dyn Write,
    pub(super) color: bool,
    pub(super) width: usize,
}

impl Printer<'_> {
    pub(super) fn all(
        mut self,
        ran: &[Ran],
        bad: usize,
        coverage: &[Coverage],
        took: Duration,
    ) -> io::Result<()> {
        let longest = ran.iter().map(|ran| ran.file.display().to_string().chars().count()).max();
        for ran in ran {
            self.file(ran, longest.unwrap_or(0))?;
        }
        for ran in ran {
            for outcome in ran.outcomes.iter().filter(|outcome| !outcome.passed) {
                self.failed(ran, outcome)?;
            }
        }
        self.coverage(coverage)?;
        let outcomes = || ran.iter().flat_map(|ran| &ran.outcomes);
        let failed = outcomes().filter(|outcome| !outcome.passed).count();
        let passed = outcomes().count() - failed;
        let mut told = vec![format!("{passed} passed")];
        if failed > 0 {
            told.push(format!("{failed} failed"));
        }
        if bad > 0 {
            told.push(format!("{} could not be run", plural(bad, "file")));
        }
        let style = if failed + bad > 0 { Style::new().red() } else { Style::new().green() };
        let told = self.styled(&told.join(", "), style.bold());
        writeln!(self.out, "\n{told} in {}", time_text(took))
    }

    fn file(&mut self, ran: &Ran, longest: usize) -> io::Result<()> {
        let count = ran.outcomes.len();
        let failed = ran.outcomes.iter().filter(|outcome| !outcome.passed).count();
        let (mark, told) = match failed {
            0 => (self.styled("ok  ", Style::new().green()), plural(count, "test")),
            _ => (
                self.styled("FAIL", Style::new().red().bold()),
                format!("{failed} of {} failed", plural(count, "test")),
            ),
        };
        let file = ran.file.display().to_string();
        writeln!(self.out, "{mark}  {file:longest$}  {told} in {}", time_text(ran.took))
    }

    fn failed(&mut self, ran: &Ran, outcome: &Outcome) -> io::Result<()> {
        let place = format!("{}:{}", ran.file.display(), outcome.line);
        let name = self.styled(&outcome.name, Style::new().bold());
        writeln!(self.out, "\n{place}: {name}")?;
        for failure in &outcome.failures {
            self.failure(failure)?;
        }
        writeln!(self.out, "  verdicts  {}", timeline(&outcome.timeline))?;
        self.wrapped("  the end   ", &outcome.reason)
    }

    fn failure(&mut self, failure: &Failure) -> io::Result<()> {
        let Failure { line, expected, found, hint, rule, look, .. } = failure;
        let expected = self.styled(expected, Style::new().green());
        writeln!(self.out, "  expected  {expected} (line {line})")?;
        let found = self.styled(found, Style::new().red());
        writeln!(self.out, "  found     {found}")?;
        if let Some(hint) = hint {
            writeln!(self.out, "  hint      {hint}")?;
        }
        if let Some(turns) = rule {
            writeln!(self.out, "  rule {:<4} {}", turns.number, timeline(&turns.timeline))?;
        }
        let Some(look) = look else { return Ok(()) };
        let only = rule.as_ref().map(|turns| turns.number - 1);
        self.findings(look, only)
    }

    /// What the rules found at a look; of a failure about one rule that rule alone.
    fn findings(&mut self, look: &Report, only: Option<usize>) -> io::Result<()> {
        let at = duration_text(Duration::from_secs_f64(look.elapsed_secs));
        writeln!(self.out, "  at {at} (look {}):", look.look)?;
        let shown =
            || look.findings.iter().enumerate().filter(|(n, _)| only.is_none_or(|o| o == *n));
        let column = shown().map(|(_, finding)| finding.state.len()).max().unwrap_or(0);
        for (number, finding) in shown() {
            let state = format!("{:column$}", finding.state.replace('_', " "));
            let state = self.styled(&state, state_style(finding));
            let FindingShape { rule, then, .. } = finding;
            writeln!(self.out, "    {state} {:>3}  {rule} -> {then}", number + 1)?;
            if !finding.clauses.is_empty() {
                let clauses: Vec<String> = finding.clauses.iter().map(clause_words).collect();
                self.wrapped(&" ".repeat(column + 10), &clauses.join("; "))?;
            }
        }
        if let Some(gap) = &look.gap {
            writeln!(self.out, "    gap: {}, {}", gap.why.replace('_', " "), gap.detail)?;
        }
        Ok(())
    }

    fn wrapped(&mut self, head: &str, text: &str) -> io::Result<()> {
        let indent = head.chars().count();
        for (index, line) in wrap(text, self.width.max(60) - indent, LINES_MAX).iter().enumerate() {
            let head = if index == 0 { head.to_owned() } else { " ".repeat(indent) };
            writeln!(self.out, "{head}{line}")?;
        }
        Ok(())
    }

    fn coverage(&mut self, coverage: &[Coverage]) -> io::Result<()> {
        for one in coverage.iter().filter(|one| !one.is_whole()) {
            let Coverage { rules, count, never_fires, never_clear } = one;
            writeln!(self.out, "\n{rules}: not every rule of {count} is tested both ways")?;
            let lists: [(&str, &[Unseen]); 2] =
                [("never fires", never_fires), ("never clear", never_clear)];
            for (what, unseen) in lists {
                for Unseen { number, rule } in unseen {
                    writeln!(self.out, "  {what}  {number:>3}  {rule}")?;
                }
            }
        }
        Ok(())
    }

    fn styled(&self, text: &str, style: Style) -> String {
        if self.color { text.style(style).to_string() } else { text.to_owned() }
    }
}

fn state_style(finding: &FindingShape) -> Style {
    match finding.state.as_str() {
        "fires" => Style::new().yellow().bold(),
        "clear" => Style::new().green(),
        _ => Style::new().dimmed(),
    }
}

/// What a clause rests on: `6 % (bound 5 %), held 4 m 55 s of 5 m`.
fn clause_words(clause: &ClauseShape) -> String {
    if let Some(missing) = &clause.missing {
        return format!("{}, {}", missing.why.replace('_', " "), missing.detail);
    }
    let number = |value: f64| quantity(value, &clause.unit);
    let mut parts = Vec::new();
    let estimate = clause.estimate.filter(|_| clause.unit != "health").map(number);
    let against = [
        clause.baseline.map(|baseline| format!("baseline {}", number(baseline))),
        clause.bound.map(|bound| format!("bound {}", number(bound))),
    ];
    let against: Vec<String> = against.into_iter().flatten().collect();
    match (estimate, against.is_empty()) {
        (Some(estimate), true) => parts.push(estimate),
        (Some(estimate), false) => parts.push(format!("{estimate} ({})", against.join(", "))),
        (None, _) => {}
    }
    let progress = format::progress(&clause.progress);
    parts.push(match clause.progress.kind.as_str() {
        "evidence_decades" => format!("evidence {progress}"),
        "held_secs" => format!("held {progress}"),
        _ => progress,
    });
    parts.join(", ")
}

/// `watching 0s, investigate 2m, rollback 7m`
fn timeline(turns: &[Turn]) -> String {
    let told = |turn: &Turn| {
        format!("{} {}", duration_text(Duration::from_secs_f64(turn.at_secs)), turn.is)
    };
    let half = TURNS_MAX / 2;
    let told: Vec<String> = if turns.len() > TURNS_MAX {
        let (head, tail) = (&turns[..half], &turns[turns.len() - half..]);
        let between = format!("{} more", turns.len() - TURNS_MAX);
        head.iter().map(told).chain([between]).chain(tail.iter().map(told)).collect()
    } else {
        turns.iter().map(told).collect()
    };
    told.join(", ")
}

fn time_text(took: Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
