//! The decision matrix as lines: one rule after the other, in file order, in three layouts.
//!
//! From 104 columns everything is in one row; from 76 the interval and the action leave it; below
//! that the numbers go under the rule. A rule of several clauses gets a row for each. Nothing is
//! left out but what a narrower layout says elsewhere; long rules wrap.

use crate::report::{
    format,
    shape::{ClauseShape, FindingShape, MissingShape, ProgressShape, Report},
    words,
};

use super::line::{Line, Tone, clean, left, meter, right, width, wrap};

/// Wider than this the eye loses the row.
pub(super) const WIDTH_MAX: usize = 140;

/// Narrower than this nothing can be laid out; lines may then be longer than the terminal.
pub const WIDTH_MIN: usize = 40;

/// Symbol and word of a state, before the rule.
pub(super) const STATE: usize = 9;

/// Blanks before everything.
pub(super) const MARGIN: usize = 1;

/// Where rules and continuations begin.
pub(super) const INDENT: usize = MARGIN + STATE + 2;

const NUMBER: usize = 8;
const INTERVAL: usize = 13;
const ACTION: usize = 11;
const PROGRESS: usize = 7;

/// Lines that one rule's missing data or reason may take.
const CONTINUATION_LINES_MAX: usize = 3;

/// One rule's lines.
pub struct Block {
    /// The lines.
    pub lines: Vec<Line>,
    /// Whether it may be left out when there is no room: it is clear or asleep.
    pub quiet: bool,
}

/// Head of the matrix; empty in the narrow layout, which names its numbers itself.
pub fn head(columns: usize) -> Option<Line> {
    let layout = Layout::of(columns);
    let mut line = Line::of(" ".repeat(MARGIN) + &left("state", STATE) + "  ", Tone::Dim);
    let rule = left("rule", layout.rule);
    match layout.kind {
        Kind::Narrow => return None,
        Kind::Medium => line.push(rule + "  " + &right("canary", NUMBER), Tone::Dim),
        Kind::Wide => {
            let action = left("leads to", ACTION);
            let canary = right("canary", NUMBER);
            let interval = left("95 % interval", INTERVAL);
            line.push(format!("{rule}  {action}  {canary}  {interval} "), Tone::Dim);
        }
    }
    let (baseline, bound) = (right("baseline", NUMBER), right("bound", NUMBER));
    line.push(format!(" {baseline} {bound}  evidence"), Tone::Dim);
    Some(line)
}

/// One block per rule.
pub fn blocks(report: &Report, columns: usize) -> Vec<Block> {
    let layout = Layout::of(columns);
    report
        .findings
        .iter()
        .map(|finding| {
            let state = State::of(&finding.state);
            Block { lines: layout.finding(finding, state), quiet: state.is_quiet() }
        })
        .collect()
}

/// State of a rule or clause, as the report names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The condition holds.
    Fires,
    /// It does not.
    Clear,
    /// There is no saying; also any word that is not known.
    NotEnoughData,
    /// Out of the game.
    Asleep,
}

impl State {
    /// The state of this name.
    pub fn of(name: &str) -> Self {
        match name {
            "fires" => State::Fires,
            "clear" => State::Clear,
            "asleep" => State::Asleep,
            _ => State::NotEnoughData,
        }
    }

    /// In words, as short as the column.
    pub fn word(self) -> &'static str {
        match self {
            State::Fires => "fires",
            State::Clear => "clear",
            State::NotEnoughData => "no data",
            State::Asleep => "asleep",
        }
    }

    fn symbol(self) -> &'static str {
        match self {
            State::Fires => "▲",
            State::Clear => "✓",
            State::NotEnoughData => "○",
            State::Asleep => "·",
        }
    }

    fn is_quiet(self) -> bool {
        match self {
            State::Clear | State::Asleep => true,
            State::Fires | State::NotEnoughData => false,
        }
    }

    /// How a state reads depends on what it leads to: a firing `ok` rule is nothing bad.
    pub fn tone(self, then: &str) -> Tone {
        match self {
            State::Fires => match then {
                "rollback" => Tone::Bad,
                "investigate" => Tone::Warn,
                _ => Tone::Info,
            },
            State::Clear => Tone::Good,
            State::NotEnoughData => Tone::Warn,
            State::Asleep => Tone::Dim,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Wide,
    Medium,
    Narrow,
}

/// Where everything goes at one width.
struct Layout {
    kind: Kind,
    /// Columns of the rule's text.
    rule: usize,
    /// Columns of the meter.
    meter: usize,
    /// Columns in all.
    width: usize,
}

impl Layout {
    fn of(columns: usize) -> Self {
        let width = columns.clamp(WIDTH_MIN, WIDTH_MAX);
        let numbers = 1 + NUMBER + 1 + NUMBER + 2 + 1 + PROGRESS;
        let (kind, fixed, meter) = match width {
            104.. => (Kind::Wide, 2 + ACTION + 2 + NUMBER + 2 + INTERVAL + 1 + numbers, 10),
            76.. => (Kind::Medium, 2 + NUMBER + numbers, 4),
            _ => (Kind::Narrow, 0, 4),
        };
        let fixed = if kind == Kind::Narrow { INDENT } else { INDENT + fixed + meter };
        Self { kind, rule: width - fixed, meter, width }
    }

    fn finding(&self, finding: &FindingShape, state: State) -> Vec<Line> {
        let tone = state.tone(&finding.then);
        let rule = clean(&finding.rule);
        let mut lines = match finding.clauses.as_slice() {
            [clause] => {
                let lead = Lead { action: clean(&finding.then), ..Lead::of(state, tone) };
                self.clause(lead, &rule, clause, finding)
            }
            clauses => {
                let mut lines = self.title(state, tone, &rule);
                if self.kind == Kind::Wide
                    && let [title] = lines.as_mut_slice()
                {
                    title.push(format!("  {}", clean(&finding.then)), Tone::Dim);
                }
                for clause in clauses {
                    let own = match state {
                        State::Asleep => State::Asleep,
                        State::Fires | State::Clear | State::NotEnoughData => {
                            State::of(&clause.state)
                        }
                    };
                    let mark = right(own.symbol(), STATE);
                    let lead = Lead { mark, ..Lead::of(own, own.tone(&finding.then)) };
                    lines.extend(self.clause(lead, &clean(&clause.clause), clause, finding));
                }
                lines
            }
        };
        if state == State::Fires {
            lines.extend(self.consequence(finding, tone));
        } else {
            lines.extend(finding.clauses.iter().flat_map(|clause| self.suspicion(clause)));
        }
        lines
    }

    /// The whole rule, over the width of the numbers too.
    fn title(&self, state: State, tone: Tone, rule: &str) -> Vec<Line> {
        let mut lines = Vec::new();
        for (place, part) in wrap(rule, self.width - INDENT, 4).into_iter().enumerate() {
            let lead = if place == 0 { Lead::of(state, tone) } else { Lead::blank(state) };
            lines.push(lead.line().and(part, text_tone(state)));
        }
        lines
    }

    /// A clause: its numbers, or in their place the reason why there are none.
    fn clause(
        &self,
        lead: Lead,
        text: &str,
        clause: &ClauseShape,
        finding: &FindingShape,
    ) -> Vec<Line> {
        let state = lead.own;
        let has_numbers = clause.estimate.is_some()
            || words::status(clause).is_some()
            || clause.baseline.is_some()
            || clause.bound.is_some();
        // An asleep rule misses nothing, and a clear one has what it needs.
        let missing = match state {
            State::NotEnoughData => clause.missing.as_ref().map(missing_words),
            State::Fires | State::Clear | State::Asleep => None,
        };
        if has_numbers || (missing.is_none() && state != State::Asleep) {
            let mut lines = self.row(lead, text, clause, finding);
            lines.extend(missing.into_iter().flat_map(|words| self.below(&words, Tone::Warn)));
            // A name that is misspelt must not look like protection.
            if let (State::Clear, false, Some(note)) = (state, has_numbers, &clause.note) {
                lines.extend(self.below(&clean(note), Tone::Dim));
            }
            return lines;
        }
        let words = missing.unwrap_or_default();
        let mut first = lead.line().and(left(text, self.rule), text_tone(state));
        if self.kind == Kind::Wide {
            first.push("  ", Tone::Plain);
            first.push(left(&lead.action, ACTION), Tone::Dim);
        }
        if width(text) <= self.rule && first.width() + 2 + width(&words) <= self.width {
            return vec![first.and(format!("  {words}"), Tone::Warn)];
        }
        let mut lines = if width(text) <= self.rule {
            vec![first]
        } else {
            let parts = wrap(text, self.width - INDENT, 4).into_iter().enumerate();
            let line = |place| if place == 0 { lead.line() } else { Lead::blank(state).line() };
            parts.map(|(place, part)| line(place).and(part, text_tone(state))).collect()
        };
        if !words.is_empty() {
            lines.extend(self.below(&words, Tone::Warn));
        }
        lines
    }

    /// A clause's text with its numbers beside it, or under it.
    fn row(
        &self,
        lead: Lead,
        text: &str,
        clause: &ClauseShape,
        finding: &FindingShape,
    ) -> Vec<Line> {
        let state = lead.own;
        let mut parts = wrap(text, self.rule, 4).into_iter();
        let mut first = lead.line();
        first.push(left(&parts.next().unwrap_or_default(), self.rule), text_tone(state));
        let mut lines = Vec::new();
        match self.kind {
            Kind::Wide | Kind::Medium => {
                self.numbers(&mut first, clause, &lead.action, &finding.then, state);
                lines.push(first);
            }
            Kind::Narrow => lines.push(first),
        }
        for part in parts {
            lines.push(Lead::blank(state).line().and(part, text_tone(state)));
        }
        if self.kind == Kind::Narrow {
            lines.extend(self.numbers_below(clause, &finding.then, state));
        }
        lines
    }

    fn numbers(
        &self,
        line: &mut Line,
        clause: &ClauseShape,
        action: &str,
        then: &str,
        state: State,
    ) {
        let cell = |value: Option<f64>| {
            let text = value.map(|value| format::cell(value, &clause.unit));
            right(text.as_deref().unwrap_or("–"), NUMBER)
        };
        let of = |value: Option<f64>, tone| if value.is_some() { tone } else { Tone::Dim };
        line.push("  ", Tone::Plain);
        if self.kind == Kind::Wide {
            line.push(left(action, ACTION), Tone::Dim);
            line.push("  ", Tone::Plain);
        }
        let tone = estimate_tone(state, then);
        match words::status(clause) {
            Some(word) => line.push(right(&clean(word), NUMBER), tone),
            None => line.push(cell(clause.estimate), of(clause.estimate, tone)),
        }
        if self.kind == Kind::Wide {
            let ends = clause.interval.map(|ends| format::interval(ends, &clause.unit));
            let ends = left(&ends.unwrap_or_default(), INTERVAL);
            line.push(format!("  {ends} "), Tone::Dim);
        }
        line.push(format!(" {}", cell(clause.baseline)), of(clause.baseline, text_tone(state)));
        line.push(format!(" {}  ", cell(clause.bound)), of(clause.bound, text_tone(state)));
        self.evidence(line, &clause.progress, then, state);
    }

    fn evidence(&self, line: &mut Line, progress: &ProgressShape, then: &str, state: State) {
        let share = share(progress);
        let (done, open) = meter(share, self.meter);
        let tone = match state {
            State::Fires | State::Asleep => state.tone(then),
            State::Clear | State::NotEnoughData if share >= 0.5 => Tone::Warn,
            State::Clear | State::NotEnoughData => Tone::Info,
        };
        line.push(done, tone);
        line.push(open, Tone::Dim);
        line.push(" ", Tone::Plain);
        line.push(left(&format::progress_short(progress), PROGRESS), Tone::Dim);
    }

    fn numbers_below(&self, clause: &ClauseShape, then: &str, state: State) -> Vec<Line> {
        let mut line = Lead::blank(state).line();
        self.evidence(&mut line, &clause.progress, then, state);
        let quantity = |value| format::quantity(value, &clause.unit);
        let mut words = match words::status(clause) {
            Some(word) => clean(word),
            None => clause.estimate.map(quantity).unwrap_or_default(),
        };
        if let Some(baseline) = clause.baseline {
            words.push_str(&format!(" vs {}", quantity(baseline)));
        }
        if let Some(bound) = clause.bound {
            words.push_str(&format!(", bound {}", quantity(bound)));
        }
        if line.width() + 2 + width(&words) <= self.width {
            return vec![line.and("  ", Tone::Plain).and(words, text_tone(state))];
        }
        let mut lines = vec![line];
        lines.extend(self.below(&words, text_tone(state)));
        lines
    }

    /// What a firing rule leads to, with the operator's reason and what each clause rests on.
    fn consequence(&self, finding: &FindingShape, tone: Tone) -> Vec<Line> {
        let mut text = format!("→ {}", finding.then);
        if let Some(reason) = &finding.reason {
            text.push_str(": ");
            text.push_str(reason);
        }
        let mut lines = self.below(&clean(&text), tone);
        for clause in finding.clauses.iter().filter(|clause| words::status(clause).is_none()) {
            lines.extend(self.suspicion(clause));
            let effect = clause.effect.as_ref();
            let rests_on = [
                effect.map(|effect| words::effect(effect, &clause.unit)),
                clause.note.clone(),
                words::noise(&clause.progress).filter(|_| clause.progress.noise.is_some()),
            ];
            let rests_on: Vec<String> = rests_on.into_iter().flatten().collect();
            if !rests_on.is_empty() {
                lines.extend(self.below(&clean(&rests_on.join("; ")), Tone::Dim));
            }
        }
        lines
    }

    /// What is to blame for the evidence so far.
    fn suspicion(&self, clause: &ClauseShape) -> Vec<Line> {
        let blame = clause.blame.as_ref().map(words::blame);
        blame.map(|blame| self.below(&clean(&blame), Tone::Plain)).unwrap_or_default()
    }

    fn below(&self, text: &str, tone: Tone) -> Vec<Line> {
        wrap(text, self.width - INDENT, CONTINUATION_LINES_MAX)
            .into_iter()
            .map(|part| Line::of(" ".repeat(INDENT), Tone::Plain).and(part, tone))
            .collect()
    }
}

/// What stands around a rule's text.
struct Lead {
    mark: String,
    tone: Tone,
    own: State,
    /// What the rule leads to; empty where a line above says it.
    action: String,
}

impl Lead {
    fn of(state: State, tone: Tone) -> Self {
        let mark = format!("{} {}", state.symbol(), state.word());
        Self { mark, tone, own: state, action: String::new() }
    }

    fn blank(state: State) -> Self {
        Self { mark: String::new(), tone: Tone::Plain, own: state, action: String::new() }
    }

    fn line(&self) -> Line {
        Line::of(" ".repeat(MARGIN), Tone::Plain).and(left(&self.mark, STATE) + "  ", self.tone)
    }
}

/// Under the matrix: the canary instances that gave nothing, which no rule's row tells.
pub fn gap(report: &Report, columns: usize) -> Vec<Line> {
    let Some(gap) = &report.gap else { return Vec::new() };
    let layout = Layout::of(columns);
    let words = format!("part of the canary gives no data: {}", missing_words(gap));
    let parts = wrap(&words, layout.width - INDENT, CONTINUATION_LINES_MAX).into_iter();
    let lead = |place| match place {
        0 => Lead::of(State::NotEnoughData, Tone::Warn),
        _ => Lead::blank(State::NotEnoughData),
    };
    parts.enumerate().map(|(place, part)| lead(place).line().and(part, Tone::Warn)).collect()
}

fn missing_words(missing: &MissingShape) -> String {
    let why = missing.why.replace('_', " ");
    clean(&match missing.detail.as_str() {
        "" => why,
        detail => format!("{why}: {detail}"),
    })
}

fn text_tone(state: State) -> Tone {
    match state {
        State::Asleep => Tone::Dim,
        State::Fires | State::Clear | State::NotEnoughData => Tone::Plain,
    }
}

fn estimate_tone(state: State, then: &str) -> Tone {
    match state {
        State::Fires => state.tone(then),
        State::Asleep => Tone::Dim,
        State::Clear | State::NotEnoughData => Tone::Strong,
    }
}

fn share(progress: &ProgressShape) -> f64 {
    if progress.needed > 0.0 { progress.value / progress.needed } else { 0.0 }
}
