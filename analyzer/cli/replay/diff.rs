//! Two rule files on the same observations: what would have been different.

use serde::Serialize;

use super::fold::{Course, Outcome};
use crate::{
    cli::display::line::{Line, Tone, clean, left, width, wrap},
    report::{format, shape::Report},
};

/// Columns of one file's side.
const SIDE: usize = 24;

/// Columns of a rule at least.
const RULE_MIN: usize = 24;

/// Columns of a rule at most.
const RULE_MAX: usize = 60;

/// Lines of a reason at most.
const REASON_LINES_MAX: usize = 6;

/// What two rule files make of the same observations.
#[derive(Serialize)]
pub struct Difference {
    /// Whether both come to the same verdict, by the same rule, at the same look.
    pub same: bool,
    /// By the first file.
    pub one: Side,
    /// By the other.
    pub other: Side,
    /// Every rule of either file.
    pub rules: Vec<RulePair>,
}

/// One file's side.
#[derive(Serialize)]
pub struct Side {
    /// The rule file, as given.
    pub rules: String,
    /// What it came to.
    pub report: Report,
}

/// A rule of either file, or of both.
#[derive(Serialize)]
pub struct RulePair {
    /// The condition as written.
    pub rule: String,
    /// In the first file; null when it has no such rule.
    pub one: Option<Course>,
    /// In the other.
    pub other: Option<Course>,
}

impl Difference {
    /// Sets two outcomes beside each other. Rules are the same when their conditions are written alike.
    pub fn of(one: (String, Outcome), other: (String, Outcome)) -> Self {
        let mut rules: Vec<RulePair> = Vec::new();
        for course in one.1.courses {
            let rule = course.rule.clone();
            rules.push(RulePair { rule, one: Some(course), other: None });
        }
        for course in other.1.courses {
            let twin = rules.iter_mut().find(|pair| {
                pair.other.is_none() && pair.one.is_some() && pair.rule == course.rule
            });
            match twin {
                Some(pair) => pair.other = Some(course),
                None => {
                    let rule = course.rule.clone();
                    rules.push(RulePair { rule, one: None, other: Some(course) });
                }
            }
        }
        let key = |report: &Report| {
            (
                report.verdict.clone(),
                report.rule.clone(),
                report.at.to_bits(),
                report.otherwise.clone(),
            )
        };
        Self {
            same: key(&one.1.report) == key(&other.1.report),
            one: Side { rules: one.0, report: one.1.report },
            other: Side { rules: other.0, report: other.1.report },
            rules,
        }
    }

    /// As text for a terminal of so many columns.
    pub fn table(&self, color: bool, columns: usize) -> String {
        let longest = self.rules.iter().map(|pair| width(&pair.rule)).max().unwrap_or(0);
        let room = columns.saturating_sub(1 + 2 * (SIDE + 2)).clamp(RULE_MIN, RULE_MAX);
        let rule = longest.clamp(RULE_MIN, room);
        let row = |head: &str, one: (String, Tone), other: (String, Tone)| {
            Line::of(format!(" {}  ", left(head, rule)), Tone::Plain)
                .and(left(&one.0, SIDE) + "  ", one.1)
                .and(left(&other.0, SIDE), other.1)
        };
        let sides = [&self.one, &self.other];
        let name = |side: &Side| (clean(&tail(&side.rules)), Tone::Strong);
        let mut lines = vec![row("", name(&self.one), name(&self.other))];
        let verdict = |side: &Side| {
            let report = &side.report;
            (
                format!("{} at {}", report.verdict, format::duration(report.elapsed_secs)),
                Tone::Strong,
            )
        };
        lines.push(row("verdict", verdict(&self.one), verdict(&self.other)));
        lines.push(Line::default());
        for pair in &self.rules {
            let cell = |course: &Option<Course>| match course {
                None => ("–".to_owned(), Tone::Dim),
                Some(course) => (course_words(course), tone(course)),
            };
            let mut parts = wrap(&clean(&pair.rule), rule, 4).into_iter();
            let first = parts.next().unwrap_or_default();
            lines.push(row(&first, cell(&pair.one), cell(&pair.other)));
            lines.extend(parts.map(|part| Line::of(format!("   {part}"), Tone::Plain)));
        }
        lines.push(Line::default());
        let said = |lines: &mut Vec<Line>, text: &str, tone: Tone| {
            let room = columns.saturating_sub(2).min(100);
            let parts = wrap(&clean(text), room, REASON_LINES_MAX);
            lines.extend(parts.into_iter().map(|part| Line::of(format!(" {part}"), tone)));
        };
        for side in sides {
            let text = format!("{}: {}", tail(&side.rules), side.report.reason);
            said(&mut lines, &text, Tone::Plain);
        }
        said(&mut lines, &self.conclusion(), Tone::Strong);
        lines.iter().map(|line| line.render(color) + "\n").collect()
    }

    /// What it comes to, in one sentence.
    pub fn conclusion(&self) -> String {
        let (one, other) = (&self.one.report, &self.other.report);
        if self.same {
            return "Nothing would have been different.".to_owned();
        }
        let name = tail(&self.other.rules);
        if one.verdict != other.verdict {
            let (was, by) = (&one.verdict, &other.verdict);
            return format!("With {name} the verdict would have been {by} instead of {was}.");
        }
        let later = other.elapsed_secs - one.elapsed_secs;
        let when = match later {
            0.0 => "at the same look".to_owned(),
            later if later < 0.0 => format!("{} sooner", format::duration(-later)),
            later => format!("{} later", format::duration(later)),
        };
        let by = match (&one.rule, &other.rule) {
            (one, other) if one == other => String::new(),
            (_, Some(rule)) => format!(", by {rule}"),
            (_, None) => String::new(),
        };
        format!("With {name} the same verdict would have come {when}{by}.")
    }
}

fn course_words(course: &Course) -> String {
    let then = &course.then;
    match (course.fired_secs, course.state.as_str()) {
        (Some(secs), _) => format!("{then} at {}", format::duration(secs)),
        (None, "not_enough_data") => format!("no data ({then})"),
        (None, state) => format!("{state} ({then})"),
    }
}

fn tone(course: &Course) -> Tone {
    match course.fired_secs {
        None => Tone::Dim,
        Some(_) => Tone::Plain,
    }
}

/// The file's name without its folders, which both sides mostly share.
fn tail(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}
