//! A backtest in the terminal.

use super::{
    super::display::line::{Line, Tone, clean, left, right, width, wrap},
    shape::{Backtested, ReleaseShape},
    words::{about, conclusions, decided, hints, known, moment},
};
use crate::{backtest::releases::Release, report::format};

/// Columns of a release's name at most.
const NAME_MAX: usize = 28;

/// Columns of a moment, a verdict and a time.
const MOMENT: usize = 17;
const VERDICT: usize = 15;
const AFTER: usize = 12;

/// Columns of what is known.
const KNOWN_MAX: usize = 24;

/// Lines of prose at most, each.
const PROSE_LINES_MAX: usize = 6;

/// The whole backtest as text for a terminal of so many columns.
pub fn table(found: &Backtested, color: bool, columns: usize) -> String {
    let mut lines = vec![
        Line::of(format!(" {}", clean(&found.service)), Tone::Strong)
            .and(format!("  {}", clean(&found.rules)), Tone::Dim),
    ];
    for text in about(found) {
        lines.extend(prose(&text, columns, Tone::Dim));
    }
    lines.push(Line::default());
    if !found.releases.is_empty() {
        lines.extend(releases(&found.releases, columns));
        lines.push(Line::default());
    }
    for sentence in conclusions(found) {
        lines.extend(prose(&sentence, columns, Tone::Plain));
    }
    for hint in hints(found) {
        lines.extend(prose(&format!("hint: {hint}"), columns, Tone::Info));
    }
    lines.iter().map(|line| line.render(color) + "\n").collect()
}

/// Releases without verdicts.
pub fn list(releases: &[Release], color: bool, columns: usize) -> String {
    if releases.is_empty() {
        return " There was no release in that time.\n".to_owned();
    }
    let mut lines = Vec::new();
    for release in releases {
        let name = format!("{} {}", release.service, release.version);
        let started = moment(release.started.as_secs_f64());
        let mut line = Line::of(format!(" {started}  "), Tone::Dim);
        line.push(clean(&name), Tone::Strong);
        let ended = release.ended.map(|ended| {
            let secs = ended.since(release.started).as_secs_f64();
            format!("  over after {}", format::duration(secs))
        });
        line.push(ended.unwrap_or_default(), Tone::Plain);
        lines.push(line);
        let baseline = release.baseline.as_deref().unwrap_or("nothing");
        let arms = format!("{} against {baseline}", release.canary);
        let texts = std::iter::once(&arms).chain(&release.notes);
        for text in texts {
            let wrapped = wrap(&clean(text), columns.saturating_sub(4), PROSE_LINES_MAX);
            lines.extend(wrapped.into_iter().map(|text| Line::of(format!("   {text}"), Tone::Dim)));
        }
    }
    lines.iter().map(|line| line.render(color) + "\n").collect()
}

fn prose(text: &str, columns: usize, tone: Tone) -> Vec<Line> {
    wrap(&clean(text), columns.saturating_sub(2).min(100), PROSE_LINES_MAX)
        .into_iter()
        .map(|line| Line::of(format!(" {line}"), tone))
        .collect()
}

fn releases(releases: &[ReleaseShape], columns: usize) -> Vec<Line> {
    let name = |release: &ReleaseShape| clean(&format!("{} {}", release.service, release.version));
    let widest =
        |texts: &mut dyn Iterator<Item = String>| texts.map(|text| width(&text)).max().unwrap_or(0);
    let names = widest(&mut releases.iter().map(name)).clamp(7, NAME_MAX) + 1;
    let knowns = widest(&mut releases.iter().map(known)).min(KNOWN_MAX);
    let fixed = 1 + names + MOMENT + VERDICT + AFTER + 2 + knowns + 2;
    let room = columns.saturating_sub(fixed).max(12);
    let mut header = format!(
        " {}{}{}{}  {}",
        left("release", names),
        left("started (UTC)", MOMENT),
        left("  verdict", VERDICT),
        right("after", AFTER),
        left("what decided", room)
    );
    if knowns > 0 {
        header.push_str("  known");
    }
    let mut lines = vec![Line::of(header, Tone::Strong)];
    for release in releases {
        let Some(result) = &release.result else { continue };
        let (sign, word, tone) = match result.verdict {
            "rollback" => ("✗", "rollback", Tone::Bad),
            "promote" => ("✓", "promote", Tone::Good),
            "inconclusive" => ("?", "no verdict", Tone::Warn),
            _ => ("-", "not judged", Tone::Warn),
        };
        let after = result.after_secs.map_or("-".to_owned(), format::duration);
        let mut line = Line::of(format!(" {}", left(&name(release), names)), Tone::Plain);
        line.push(left(&moment(release.started_at), MOMENT), Tone::Dim);
        line.push(left(&format!("{sign} {word}"), VERDICT), tone);
        line.push(right(&after, AFTER), Tone::Plain);
        line.push("  ", Tone::Plain);
        line.push(left(&clean(&decided(release)), room), Tone::Dim);
        let tone = match release.agreement {
            Some("found" | "right") => Tone::Good,
            Some("missed" | "false_alarm") => Tone::Bad,
            Some(_) | None => Tone::Plain,
        };
        line.push(format!("  {}", left(&clean(&known(release)), knowns)), tone);
        lines.push(line);
    }
    lines
}
