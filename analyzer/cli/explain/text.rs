//! An explanation as text: the verdict in words, the matrix that it rests on, what happened on the
//! way, and who was told. The words are the report's.

use crate::{
    api::desk::{AnalysisSummary, AnalysisView, ArmOrder, DeliveryView, NO_LOOK},
    cli::display::{
        self,
        line::{Line, Tone, clean, left, right, width, wrap},
        matrix::{State, WIDTH_MIN},
    },
    report::{
        format,
        shape::Report,
        timeline::{Change, Timeline},
        words,
    },
};

/// Widest prose and lists; longer lines are hard to read.
const WIDTH_MAX: usize = 120;

/// Columns of the time since the beginning, and of what something became.
const STAMP: usize = 9;
const BECAME: usize = 9;

/// Columns of the names of facts.
const FACT: usize = 9;

/// Lines that one change or fact may take.
const LINES_MAX: usize = 8;

/// Instances of an arm that are named.
const TARGETS_NAMED: usize = 4;

/// Everything about one analysis.
pub fn whole(view: &AnalysisView, timeline: &Timeline, color: bool, columns: usize) -> String {
    let mut text = rendered(&[head(view)], color);
    if let Some(cancelled) = &view.cancelled {
        text.push_str(&rendered(&prose(&cancelled.sentence(), columns), color));
    }
    match &view.report {
        None => text.push_str(&rendered(&prose(NO_LOOK, columns), color)),
        Some(report) => {
            let named = Report { rules: Some(view.rules.clone()), ..report.clone() };
            text.push_str(&display::sentence(&named, color, columns));
            text.push('\n');
            text.push_str(&display::table(report, color, columns));
        }
    }
    let room = columns.clamp(WIDTH_MIN, WIDTH_MAX);
    let sections = [
        ("what happened", happened(timeline, room)),
        ("what it rests on", facts(view, room)),
        ("who was told", told(view, room)),
    ];
    for (title, lines) in sections {
        text.push('\n');
        text.push_str(&rendered(&[Line::of(format!(" {title}"), Tone::Strong)], color));
        text.push_str(&rendered(&lines, color));
    }
    text
}

/// Analyses, a line each.
pub fn list(
    lines: &[AnalysisSummary],
    service: Option<&str>,
    color: bool,
    columns: usize,
) -> String {
    let room = columns.clamp(WIDTH_MIN, WIDTH_MAX);
    if lines.is_empty() {
        let of = service.map(|service| format!(" of {service}")).unwrap_or_default();
        return rendered(&prose(&format!("There is no analysis{of} yet."), room), color);
    }
    let rows = lines.iter().map(|line| {
        let mut row = Line::of(format!(" {}  ", clean(&line.id)), Tone::Plain);
        let word = verdict_word(line);
        row.push(left(word, 12) + "  ", display::verdict_tone(word));
        row.push(left(&format::moment(line.started_at), 23) + "  ", Tone::Dim);
        let what =
            format!("{} {}", line.service, versions(&line.canary_version, &line.baseline_version));
        row.push(clean(&what), Tone::Plain);
        row
    });
    rendered(&rows.collect::<Vec<_>>(), color)
}

/// One of several that may be meant.
pub fn candidate(line: &AnalysisSummary) -> String {
    let what = versions(&line.canary_version, &line.baseline_version);
    clean(&format!("{}  {} {what}, {}", line.id, line.service, verdict_word(line)))
}

/// What came of an analysis: a cancelled one has no verdict.
fn verdict_word(line: &AnalysisSummary) -> &str {
    if line.state == "cancelled" { &line.state } else { &line.verdict }
}

fn versions(canary: &str, baseline: &str) -> String {
    let canary = if canary.is_empty() { "canary" } else { canary };
    match baseline {
        "" => canary.to_owned(),
        baseline => format!("{canary} against {baseline}"),
    }
}

fn head(view: &AnalysisView) -> Line {
    let baseline = view.baseline.as_ref().map_or("", |arm| &arm.version);
    Line::of(format!(" {}", clean(&view.service)), Tone::Strong)
        .and(format!("  {}", clean(&versions(&view.canary.version, baseline))), Tone::Plain)
        .and(format!("  {}, analysis {}", view.state, clean(&view.id)), Tone::Dim)
}

fn happened(timeline: &Timeline, columns: usize) -> Vec<Line> {
    let (mut lines, mut passed) = (Vec::new(), 0);
    for (place, change) in timeline.changes.iter().enumerate() {
        // What people did is told beside the changes that are counted.
        let by_hand = change.kind == "intervention";
        let place = if by_hand { usize::MAX } else { place - passed };
        passed += usize::from(by_hand);
        if timeline.left_out > 0 && place == crate::report::timeline::FIRST_MAX {
            let text = format!("   … {} changes left out …", timeline.left_out);
            lines.push(Line::of(text, Tone::Dim));
        }
        lines.extend(changed(change, columns));
    }
    if lines.is_empty() {
        lines.push(Line::of(format!("   {NO_LOOK}"), Tone::Dim));
    }
    lines
}

fn changed(change: &Change, columns: usize) -> Vec<Line> {
    let stamp = right(&format::duration(change.elapsed_secs.max(0.0).floor()), STAMP);
    let (became, tone, words) = match change.kind.as_str() {
        "rule" => {
            let state = State::of(&change.to);
            let then = change.then.as_deref().unwrap_or_default();
            let mut words = change.rule.clone().unwrap_or_default();
            if !change.detail.is_empty() {
                words.push_str(&format!("  ({})", change.detail));
            }
            if state == State::Fires {
                words.push_str(&format!("  -> {then}"));
            }
            (state.word().to_owned(), state.tone(then), words)
        }
        "gap" => {
            let words = format!("part of the canary gives no data: {}", change.detail);
            let words =
                if change.to == "ends" { "all of the canary answers".to_owned() } else { words };
            (format!("gap {}", change.to), Tone::Warn, words)
        }
        "intervention" => ("by hand".to_owned(), Tone::Warn, change.detail.clone()),
        _ => (change.to.clone(), display::verdict_tone(&change.to), change.detail.clone()),
    };
    let became = clean(&became);
    let indent = STAMP + 2 + BECAME.max(width(&became)) + 2;
    let mut lines = Vec::new();
    for (place, part) in wrap(&clean(&words), columns.saturating_sub(indent).max(20), LINES_MAX)
        .into_iter()
        .enumerate()
    {
        let line = match place {
            0 => Line::of(format!("{stamp}  "), Tone::Dim)
                .and(left(&became, BECAME.max(width(&became))) + "  ", tone),
            _ => Line::of(" ".repeat(indent), Tone::Plain),
        };
        lines.push(line.and(part, Tone::Plain));
    }
    lines
}

fn facts(view: &AnalysisView, columns: usize) -> Vec<Line> {
    let every = format::duration(view.interval_secs);
    let mut facts = vec![
        ("rules", format!("{}, sha256 {}", view.rules.name, view.rules.sha256)),
        ("began", format!("{}, a look every {every}", format::moment(view.started_at))),
        (
            "hold",
            format!(
                "{}, deadline {}",
                format::duration(view.hold_secs),
                format::duration(view.deadline_secs)
            ),
        ),
    ];
    if let Some(decided) = view.report.as_ref().and_then(|report| report.decided_at) {
        facts.push(("decided", format::moment(decided)));
    }
    facts.push(("canary", arm(&view.canary)));
    if let Some(baseline) = &view.baseline {
        facts.push(("baseline", arm(baseline)));
    }
    if let Some(past) = &view.past {
        facts.push(("past", past.note.clone()));
    }
    let clauses =
        view.report.iter().flat_map(|report| &report.findings).flat_map(|one| &one.clauses);
    for clause in clauses {
        let noise = clause.progress.noise.as_ref().and_then(|_| words::noise(&clause.progress));
        facts.extend(noise.map(|noise| ("noise", format!("{}: {noise}", clause.clause))));
    }
    facts
        .into_iter()
        .filter(|(_, words)| !words.is_empty())
        .flat_map(|(name, words)| fact(name, &words, columns))
        .collect()
}

fn fact(name: &str, words: &str, columns: usize) -> Vec<Line> {
    let indent = 3 + FACT + 2;
    let parts = wrap(&clean(words), columns.saturating_sub(indent), LINES_MAX);
    let line = |(place, part): (usize, String)| {
        let name = if place == 0 { name } else { "" };
        Line::of(format!("   {}  ", left(name, FACT)), Tone::Dim).and(part, Tone::Plain)
    };
    parts.into_iter().enumerate().map(line).collect()
}

fn arm(arm: &ArmOrder) -> String {
    let version = match arm.version.as_str() {
        "" => String::new(),
        version => format!("{version}: "),
    };
    if let Some(selector) = &arm.selector {
        return format!("{version}{selector}");
    }
    let named: Vec<&str> = arm.targets.iter().take(TARGETS_NAMED).map(String::as_str).collect();
    let more = match arm.targets.len().saturating_sub(TARGETS_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{version}{}{more}", named.join(", "))
}

fn told(view: &AnalysisView, columns: usize) -> Vec<Line> {
    if view.deliveries.is_empty() {
        let words = match view.state.as_str() {
            "running" => "nobody yet: the verdict is sent once it is final",
            _ => "nobody was to be told",
        };
        return vec![Line::of(format!("   {words}"), Tone::Dim)];
    }
    view.deliveries.iter().flat_map(|delivery| delivered(delivery, columns)).collect()
}

fn delivered(delivery: &DeliveryView, columns: usize) -> Vec<Line> {
    let (mark, tone) = match delivery.state.as_str() {
        "delivered" => ("✓", Tone::Good),
        "pending" => ("…", Tone::Warn),
        "nothing" | "taken_back" => ("-", Tone::Dim),
        _ => ("×", Tone::Bad),
    };
    let attempts = if delivery.attempts == 1 { "attempt" } else { "attempts" };
    let what = if delivery.action.is_empty() { "" } else { " " };
    let mut words = format!(
        "{}{what}{}, {} {attempts}",
        delivery.mechanism, delivery.action, delivery.attempts
    );
    if let Some(answer) = &delivery.last_answer {
        words.push_str(&format!(": {answer}"));
    }
    if let Some(next) = delivery.next_attempt_at {
        words.push_str(&format!("; next at {}", format::moment(next)));
    }
    words.push_str(&format!("; webhook-id {}", delivery.key));
    let state = left(&clean(&delivery.state.replace('_', " ")), FACT);
    let indent = 5 + FACT + 2;
    let parts = wrap(&clean(&words), columns.saturating_sub(indent), LINES_MAX);
    let line = |(place, part): (usize, String)| match place {
        0 => Line::of(format!("   {mark} {state}  "), tone).and(part, Tone::Plain),
        _ => Line::of(" ".repeat(indent), Tone::Plain).and(part, Tone::Plain),
    };
    parts.into_iter().enumerate().map(line).collect()
}

fn prose(text: &str, columns: usize) -> Vec<Line> {
    let parts = wrap(&clean(text), columns.clamp(WIDTH_MIN, WIDTH_MAX) - 2, LINES_MAX);
    parts.into_iter().map(|part| Line::of(format!(" {part}"), Tone::Plain)).collect()
}

fn rendered(lines: &[Line], color: bool) -> String {
    lines.iter().map(|line| line.render(color) + "\n").collect()
}
