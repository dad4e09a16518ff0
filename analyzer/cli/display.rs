//! The decision matrix in the terminal: redrawn in place while an analysis runs, or, where there is
//! no terminal, plain lines that only say what changed.
//!
//! It shows a [`Report`] and nothing else, so that the terminal, the page and the API say the same.
//! It never reads the clock: times are the report's. It does not hide the cursor or switch screens,
//! since a demo that is interrupted must leave the terminal as it was.

pub(super) mod line;
pub(super) mod matrix;
mod proofs;

use std::{ffi::OsStr, io, io::Write};

use crate::report::{
    format,
    shape::{FindingShape, Report},
    words,
};

use line::{Line, Tone, clean, meter, wrap};
use matrix::State;

/// Between two progress lines where there is no terminal, in seconds of the analysis.
pub const PROGRESS_EVERY_SECS: f64 = 5.0;

/// Assumed where the terminal does not say how wide it is.
pub const WIDTH_DEFAULT: usize = 80;

/// Lines that the running reason may take, so that the matrix does not jump.
const REASON_LINES_MAX: usize = 2;

/// Widest prose; longer lines are hard to read.
const PROSE_WIDTH_MAX: usize = 100;

/// Shows the looks of one analysis on `out`.
pub struct Display<W> {
    out: W,
    mode: Mode,
    color: bool,
    width: usize,
    height: Option<usize>,
}

/// How it shows them, with what it has to remember.
enum Mode {
    /// Redraws in place; how many lines stand there now.
    InPlace { drawn: usize },
    /// Says what changed.
    Plain { last: Option<Said> },
}

/// What the plain lines have already said.
struct Said {
    states: Vec<String>,
    verdict: String,
    progress_at_secs: f64,
}

/// Whether standard output takes colours, and how wide it is.
pub fn stdout_style() -> (bool, usize) {
    let display = Display::stdout();
    (display.color, display.width)
}

impl Display<io::Stdout> {
    /// A display on standard output, as wide and high as the terminal there, if it is one.
    pub fn stdout() -> Self {
        let terminal = console::Term::stdout();
        let size = terminal.size_checked();
        let width = size.map_or(WIDTH_DEFAULT, |(_, columns)| columns.into());
        let display = Self::new(io::stdout(), terminal.is_term(), width);
        match size {
            Some((rows, _)) => display.with_height(rows.into()),
            None => display,
        }
    }
}

impl<W: Write> Display<W> {
    /// A display `width` columns wide. Colours are used on a terminal, unless `NO_COLOR` is set; a
    /// terminal that calls itself dumb is treated as none.
    pub fn new(out: W, is_terminal: bool, width: usize) -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let in_place = is_terminal && !is_dumb;
        let color = in_place && wants_color(std::env::var_os("NO_COLOR").as_deref());
        let mode = if in_place { Mode::InPlace { drawn: 0 } } else { Mode::Plain { last: None } };
        Self { out, mode, color, width, height: None }
    }

    /// The same display on a terminal of so many rows: a frame never gets higher, because what has
    /// scrolled away cannot be redrawn. Rules that are clear or asleep give way first.
    pub fn with_height(mut self, rows: usize) -> Self {
        self.height = Some(rows);
        self
    }

    /// The same display with or without colours, whatever the environment says.
    pub fn with_color(mut self, color: bool) -> Self {
        self.color = color;
        self
    }

    /// Shows one look of a running analysis.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn look(&mut self, report: &Report, hold_secs: f64, deadline_secs: f64) -> io::Result<()> {
        match &self.mode {
            Mode::InPlace { .. } => {
                let top = [progress_line(report, hold_secs, deadline_secs, self.width)];
                let below = self.prose(&report.reason, REASON_LINES_MAX);
                let frame = self.frame(report, &top, below);
                self.redraw(&frame)
            }
            Mode::Plain { .. } => self.say(report, hold_secs, deadline_secs),
        }
    }

    /// Shows how the analysis ended, with the matrix it rests on, and leaves it standing.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn verdict(&mut self, report: &Report) -> io::Result<()> {
        match &self.mode {
            Mode::InPlace { .. } => {
                let words = sentence_lines(report, self.width);
                let frame = self.frame(report, &[], words);
                self.redraw(&frame)?;
                self.mode = Mode::InPlace { drawn: 0 };
                Ok(())
            }
            Mode::Plain { .. } => {
                let at = stamp(report);
                let verdict = clean(&report.verdict.to_uppercase());
                writeln!(self.out, "{at}  {verdict}  {}", clean(&report.reason))?;
                if let Some(instances) = &report.instances {
                    writeln!(self.out, "{at}  instances: {}", words::instances(instances))?;
                }
                if let Some(rules) = &report.rules {
                    writeln!(self.out, "{at}  rules {}", clean(&words::rules(rules)))?;
                }
                self.out.flush()
            }
        }
    }

    fn prose(&self, text: &str, lines_max: usize) -> Vec<Line> {
        wrap(&clean(text), self.width.min(PROSE_WIDTH_MAX).saturating_sub(2), lines_max)
            .into_iter()
            .map(|part| Line::of(format!(" {part}"), Tone::Dim))
            .collect()
    }

    /// Top, matrix and bottom, no higher than the terminal.
    fn frame(&self, report: &Report, top: &[Line], below: Vec<Line>) -> Vec<Line> {
        let mut frame = top.to_vec();
        if !top.is_empty() {
            frame.push(Line::default());
        }
        let others = frame.len() + 1 + below.len() + 1;
        let room = self.height.map(|rows| rows.saturating_sub(others).max(1));
        frame.extend(matrix_lines(report, self.width, room));
        frame.push(Line::default());
        frame.extend(below);
        if let Some(rows) = self.height {
            frame.truncate(rows.saturating_sub(1).max(1));
        }
        frame
    }

    fn redraw(&mut self, frame: &[Line]) -> io::Result<()> {
        let Mode::InPlace { drawn } = &mut self.mode else { return Ok(()) };
        // One write between the marks of a synchronised update: terminals that know them show no
        // half frame, and the others ignore them.
        let mut text = String::from("\x1b[?2026h");
        if *drawn > 0 {
            text.push_str(&format!("\x1b[{drawn}F"));
        }
        for line in frame {
            text.push_str(&line.render(self.color));
            text.push_str("\x1b[K\n");
        }
        text.push_str("\x1b[J\x1b[?2026l");
        *drawn = frame.len();
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// The plain lines of one look: what changed, and every few seconds how far it is.
    fn say(&mut self, report: &Report, hold_secs: f64, deadline_secs: f64) -> io::Result<()> {
        let Mode::Plain { last } = &mut self.mode else { return Ok(()) };
        let at = stamp(report);
        let verdict = clean(&report.verdict);
        let first = last.is_none();
        let said = last.get_or_insert_with(|| Said {
            states: report.findings.iter().map(|finding| finding.state.clone()).collect(),
            verdict: report.verdict.clone(),
            progress_at_secs: report.elapsed_secs,
        });
        for (finding, before) in report.findings.iter().zip(&mut said.states) {
            if finding.state != *before {
                writeln!(self.out, "{at}  {}", change(finding))?;
                before.clone_from(&finding.state);
            }
        }
        let changed = said.verdict != report.verdict;
        let due = report.elapsed_secs - said.progress_at_secs >= PROGRESS_EVERY_SECS;
        if first || changed || due {
            let hold = hold_words(report.elapsed_secs, hold_secs, deadline_secs);
            writeln!(self.out, "{at}  {verdict}: {hold}; {}", tally(report))?;
            said.verdict.clone_from(&report.verdict);
            said.progress_at_secs = report.elapsed_secs;
        }
        self.out.flush()
    }
}

/// The whole matrix of a report, for a command that prints it once.
pub fn table(report: &Report, color: bool, width: usize) -> String {
    rendered(&matrix_lines(report, width, None), color)
}

/// The verdict and its reason, for a command that prints them once.
pub fn sentence(report: &Report, color: bool, width: usize) -> String {
    rendered(&sentence_lines(report, width), color)
}

/// Whether `NO_COLOR` leaves colours on: only when it is unset or empty (no-color.org).
fn wants_color(no_color: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty)
}

fn rendered(lines: &[Line], color: bool) -> String {
    lines.iter().map(|line| line.render(color) + "\n").collect()
}

/// Head and rows; with `room`, quiet rules are left out from the end until the rest fits.
fn matrix_lines(report: &Report, width: usize, room: Option<usize>) -> Vec<Line> {
    let head = matrix::head(width);
    let mut below = matrix::gap(report, width);
    below.extend(proofs::lines(report, width));
    let room = room.map(|rows| rows.saturating_sub(below.len()).max(1));
    let mut blocks = matrix::blocks(report, width);
    let mut height: usize =
        blocks.iter().map(|block| block.lines.len()).sum::<usize>() + usize::from(head.is_some());
    let mut left_out = 0;
    while let Some(room) = room
        && height + usize::from(left_out > 0) > room
        && let Some(place) = blocks.iter().rposition(|block| block.quiet)
    {
        height -= blocks.remove(place).lines.len();
        left_out += 1;
    }
    // Still too high: reasons go before rules do.
    while let Some(room) = room
        && height + usize::from(left_out > 0) > room
        && let Some(block) = blocks.iter_mut().rfind(|block| block.lines.len() > 1)
    {
        height -= block.lines.len() - 1;
        block.lines.truncate(1);
    }
    let mut lines: Vec<Line> = head.into_iter().collect();
    lines.extend(blocks.into_iter().flat_map(|block| block.lines));
    if left_out > 0 {
        let rules = if left_out == 1 { "rule" } else { "rules" };
        lines.push(Line::of(format!(" … {left_out} quiet {rules} not shown"), Tone::Dim));
    }
    if let Some(room) = room {
        lines.truncate(room);
    }
    lines.extend(below);
    lines
}

fn sentence_lines(report: &Report, width: usize) -> Vec<Line> {
    let tone = verdict_tone(&report.verdict);
    let after = format::duration(report.elapsed_secs.round());
    let looks = if report.look == 1 { "look" } else { "looks" };
    let first = Line::of(format!(" {}", clean(&report.verdict.to_uppercase())), bold(tone))
        .and(format!("  after {after}, {} {looks}", report.look), Tone::Dim);
    let mut lines = vec![first];
    let columns = width.clamp(20, PROSE_WIDTH_MAX) - 2;
    for part in wrap(&clean(&report.reason), columns, usize::MAX) {
        lines.push(Line::of(format!(" {part}"), Tone::Plain));
    }
    if let Some(otherwise) = &report.otherwise {
        let text = format!(" otherwise: {}, as the rule file says", clean(otherwise));
        lines.push(Line::of(text, Tone::Dim));
    }
    if let Some(instances) = &report.instances {
        let text = format!(" instances: {}", words::instances(instances));
        lines.push(Line::of(text, Tone::Dim));
    }
    if let Some(rules) = &report.rules {
        let text = format!(" rules {}", clean(&words::rules(rules)));
        lines.push(Line::of(text, Tone::Dim));
    }
    lines
}

fn progress_line(report: &Report, hold_secs: f64, deadline_secs: f64, width: usize) -> Line {
    let words = hold_words(report.elapsed_secs, hold_secs, deadline_secs);
    let step = report.release_step.map(|step| format!(" · step {}", step + 1));
    let look = format!("{} · look {}", step.unwrap_or_default(), report.look);
    let verdict = clean(&report.verdict);
    let taken = 1 + line::width(&verdict) + 2 + 2 + line::width(&words) + line::width(&look);
    let columns = width.saturating_sub(taken).min(40);
    let share = if hold_secs > 0.0 { report.elapsed_secs / hold_secs } else { 1.0 };
    let (done, open) = meter(share, columns);
    let tone = verdict_tone(&report.verdict);
    Line::of(format!(" {verdict}  "), bold(tone))
        .and(done, tone)
        .and(open, Tone::Dim)
        .and(format!("  {words}"), Tone::Plain)
        .and(look, Tone::Dim)
}

/// How far the hold is; after it, how far the deadline.
fn hold_words(elapsed_secs: f64, hold_secs: f64, deadline_secs: f64) -> String {
    let elapsed = format::duration(elapsed_secs.max(0.0).floor());
    if elapsed_secs < hold_secs {
        format!("{elapsed} of {} hold", format::duration(hold_secs))
    } else {
        format!("hold over, {elapsed} of {} deadline", format::duration(deadline_secs))
    }
}

pub(super) fn verdict_tone(verdict: &str) -> Tone {
    match verdict {
        "promote" | "advance" => Tone::Good,
        "rollback" => Tone::Bad,
        "investigate" | "inconclusive" => Tone::Warn,
        _ => Tone::Info,
    }
}

/// The verdict's word stands out; a tone that is bold already stays as it is.
fn bold(tone: Tone) -> Tone {
    match tone {
        Tone::Plain | Tone::Dim | Tone::Strong | Tone::Info => Tone::Strong,
        Tone::Good | Tone::Warn | Tone::Bad => tone,
    }
}

/// Time of a plain line: since the analysis began, at the right of its column.
fn stamp(report: &Report) -> String {
    line::right(&format::duration(report.elapsed_secs.max(0.0).floor()), 9)
}

/// A finding that changed: state, rule, numbers, and what it leads to when it fires.
fn change(finding: &FindingShape) -> String {
    let state = State::of(&finding.state);
    let mut text = format!("{}  {}", line::left(state.word(), 7), clean(&finding.rule));
    let numbers: Vec<String> = finding.clauses.iter().filter_map(words::numbers).collect();
    if state != State::Asleep && !numbers.is_empty() {
        text.push_str(&format!("  ({})", clean(&numbers.join("; "))));
    }
    if state == State::Fires {
        text.push_str(&format!("  -> {}", clean(&finding.then)));
    }
    text
}

/// How many rules are in which state.
fn tally(report: &Report) -> String {
    let states = [State::Fires, State::Clear, State::NotEnoughData, State::Asleep];
    let counts = states.map(|state| {
        report.findings.iter().filter(|finding| State::of(&finding.state) == state).count()
    });
    let words: Vec<String> = states
        .into_iter()
        .zip(counts)
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{count} {}", state.word()))
        .collect();
    if words.is_empty() { "no rules".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_counts_when_it_is_not_empty() {
        for (value, expected) in [(None, true), (Some(""), true), (Some("1"), false)] {
            assert_eq!(wants_color(value.map(OsStr::new)), expected, "{value:?}");
        }
    }

    #[test]
    fn the_hold_gives_way_to_the_deadline() {
        for (elapsed, expected) in [
            (0.0, "0 s of 30 s hold"),
            (29.9, "29 s of 30 s hold"),
            (30.0, "hold over, 30 s of 1 m 15 s deadline"),
        ] {
            assert_eq!(hold_words(elapsed, 30.0, 75.0), expected);
        }
    }
}
