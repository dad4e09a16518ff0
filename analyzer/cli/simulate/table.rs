//! A study in the terminal.

use super::{
    super::{
        display::line::{Line, Tone, clean, left, right, width, wrap},
        traffic_text,
    },
    shape::{PromiseShape, ReleaseShape, RuleShape, ShareShape, Simulation},
};
use crate::report::format;

/// Columns of a number.
const NUMBER: usize = 12;

/// Columns of a release's name at most.
const NAME_MAX: usize = 36;

/// Lines of prose at most, each.
const PROSE_LINES_MAX: usize = 6;

/// The whole study as text for a terminal of so many columns.
pub fn table(study: &Simulation, color: bool, columns: usize) -> String {
    let mut lines = head(study, columns);
    lines.push(Line::default());
    lines.extend(harmless(study, columns));
    lines.push(Line::default());
    let faults: Vec<&ReleaseShape> =
        study.releases.iter().filter(|release| release.kind == "fault").collect();
    if !faults.is_empty() {
        lines.extend(faulty(&faults, columns));
        lines.push(Line::default());
    }
    for sentence in conclusions(study) {
        lines.extend(prose(&sentence, columns).into_iter().map(|line| Line::of(line, Tone::Plain)));
    }
    lines.iter().map(|line| line.render(color) + "\n").collect()
}

fn prose(text: &str, columns: usize) -> Vec<String> {
    wrap(&clean(text), columns.saturating_sub(2).min(100), PROSE_LINES_MAX)
        .into_iter()
        .map(|line| format!(" {line}"))
        .collect()
}

fn head(study: &Simulation, columns: usize) -> Vec<Line> {
    let mut lines = vec![
        Line::of(format!(" {}", clean(&study.service)), Tone::Strong)
            .and(format!("  {}", clean(&study.file)), Tone::Dim),
    ];
    for text in assumptions(study) {
        lines.extend(prose(&text, columns).into_iter().map(|line| Line::of(line, Tone::Dim)));
    }
    lines
}

/// What was taken to be true, in two sentences.
pub fn assumptions(study: &Simulation) -> [String; 2] {
    let of = &study.assumed;
    let noise = match of.noise_sigma {
        0.0 => "no noise beyond chance".to_owned(),
        sigma => format!("noise {sigma}/{}", format::duration(of.noise_tau_secs)),
    };
    let history = match of.history_secs {
        Some(secs) => format!("{} of history", format::duration(secs)),
        None => "no history".to_owned(),
    };
    let steps = match of.steps {
        0 => String::new(),
        steps => format!(" in {steps} steps"),
    };
    let service = format!(
        "{} to the canary and {} to the baseline, {} errors, median latency {}, {noise}, {history}.",
        traffic_text(of.canary_rps),
        traffic_text(of.baseline_rps),
        format::quantity(of.error_share, "share"),
        format::quantity(of.latency_median_secs, "seconds"),
    );
    let judged = format!(
        "A look every {}; promotion after {} at the earliest{steps}; deadline {}. {} runs, {} of each fault, seed {}.",
        format::duration(of.interval_secs),
        format::duration(of.hold_secs),
        format::duration(of.deadline_secs),
        grouped(study.runs),
        grouped(study.runs_per_fault),
        study.seed,
    );
    [service, judged]
}

/// `12,000`.
pub fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What must not happen: rolling back a healthy release, promoting a bad one.
fn harmless(study: &Simulation, columns: usize) -> Vec<Line> {
    let releases: Vec<&ReleaseShape> =
        study.releases.iter().filter(|release| release.kind != "fault").collect();
    let names = names_width(&releases);
    let titles = ["rolled back", "promoted", "no verdict"];
    let mut lines = vec![header("no fault", names, &titles, "stated")];
    for release in releases {
        let mut line = Line::of(format!(" {}", left(&clean(&release.name), names)), Tone::Plain);
        let kept = |of: &str| release.promise.filter(|promise| promise.of == of);
        line.push(percent(&release.rolled_back), tone_of(kept("rolled_back")));
        line.push(percent(&release.promoted), tone_of(kept("promoted")));
        line.push(percent(&release.inconclusive), Tone::Plain);
        if let Some(promise) = release.promise {
            let (word, tone) =
                if promise.agrees { ("✓", Tone::Good) } else { ("✗", Tone::Bad) };
            line.push(format!("  {word} "), tone);
            line.push(stated(promise), Tone::Dim);
        }
        lines.push(line);
        let healthy = |rules: &[RuleShape], how: &str| {
            let rule = rules.first().filter(|_| release.kind == "healthy")?;
            let text = format!("   {how} {} ({}x)", clean(&rule.rule), rule.count);
            Some(Line::of(left(&text, columns.saturating_sub(1)), Tone::Dim))
        };
        lines.extend(healthy(&release.rules, "by"));
        lines.extend(healthy(&release.blockers, "not promoted because of"));
    }
    lines
}

fn stated(promise: PromiseShape) -> String {
    let what = if promise.of == "promoted" { "promoted" } else { "back" };
    format!("≤ {} {what}", format::quantity(promise.at_most, "share"))
}

fn tone_of(promise: Option<PromiseShape>) -> Tone {
    match promise {
        Some(promise) if promise.agrees => Tone::Good,
        Some(_) => Tone::Bad,
        None => Tone::Plain,
    }
}

/// What must happen: finding a fault, and soon.
fn faulty(releases: &[&ReleaseShape], columns: usize) -> Vec<Line> {
    let titles = ["found", "half within", "95 % within"];
    let names = names_width(releases);
    let mut lines = vec![header("with a fault", names, &titles, "mostly by")];
    for release in releases {
        let found = release.rolled_back.share;
        let tone = match found {
            found if found >= 0.95 => Tone::Good,
            found if found >= 0.5 => Tone::Warn,
            _ => Tone::Bad,
        };
        let mut line = Line::of(format!(" {}", left(&clean(&release.name), names)), Tone::Plain);
        line.push(percent(&release.rolled_back), tone);
        let times = release.delay.map(|delay| [delay.median_secs, delay.p95_secs]);
        for place in 0..2 {
            let text = times.map_or("-".to_owned(), |times| format::duration(times[place]));
            line.push(right(&text, NUMBER), Tone::Plain);
        }
        if let Some(rule) = release.rules.first() {
            let room = columns.saturating_sub(line.width() + 3);
            line.push("  ", Tone::Plain);
            line.push(left(&clean(&rule.rule), room), Tone::Dim);
        }
        lines.push(line);
    }
    lines
}

/// Columns of the longest name and two more.
fn names_width(releases: &[&ReleaseShape]) -> usize {
    let longest = releases.iter().map(|release| width(&clean(&release.name))).max();
    longest.unwrap_or(0).clamp(12, NAME_MAX) + 1
}

fn header(first: &str, names: usize, numbers: &[&str], last: &str) -> Line {
    let mut text = format!(" {}", left(first, names));
    for number in numbers {
        text += &right(number, NUMBER);
    }
    Line::of(text + &format!("  {last}"), Tone::Strong)
}

fn percent(share: &ShareShape) -> String {
    right(&format::quantity(share.share, "share"), NUMBER)
}

/// What the numbers come to, in sentences.
pub fn conclusions(study: &Simulation) -> Vec<String> {
    let mut sentences = Vec::new();
    let as_share = |share: f64| format::quantity(share, "share");
    if let Some(healthy) = study.releases.iter().find(|release| release.kind == "healthy") {
        let rolled = healthy.rolled_back;
        sentences.push(format!(
            "A healthy release was rolled back in {} of {} runs: the true share is {} at most (with \
             95 % confidence), {} is stated. {}",
            grouped(rolled.count),
            grouped(healthy.runs),
            as_share(rolled.high),
            as_share(study.stated.false_rollback_rate),
            promoted(healthy),
        ));
    }
    for release in
        study.releases.iter().filter(|release| release.promise.is_some_and(|p| !p.agrees))
    {
        let Some(promise) = release.promise else { continue };
        let (found, what) = match promise.of {
            "promoted" => (release.promoted, "promoted"),
            _ => (release.rolled_back, "rolled back"),
        };
        sentences.push(format!(
            "Not as stated: {} was {what} in {} of the runs, {} is stated. {}",
            release.name,
            as_share(found.share),
            as_share(promise.at_most),
            reason(study, release),
        ));
    }
    let weak: Vec<&str> = study
        .releases
        .iter()
        .filter(|release| release.kind == "fault" && release.rolled_back.share < 0.5)
        .map(|release| release.name.as_str())
        .collect();
    if !weak.is_empty() {
        sentences.push(format!(
            "Found in less than half of the runs: {}. More traffic, a longer hold or a tighter rule \
             would find more.",
            weak.join(", ")
        ));
    }
    sentences
}

/// Why a promise may not hold.
fn reason(study: &Simulation, release: &ReleaseShape) -> &'static str {
    if study.assumed.history_secs.is_none() && study.assumed.noise_sigma > 0.0 {
        return "Without history the service's noise is not known: watch it before (--history 1h).";
    }
    match release.kind {
        "healthy" => {
            "Either the service is noisier than what is learnt of it, or a rule minds what is \
             simulated as healthy: see by which."
        }
        _ => "Exactly at a bound is the hardest case; a healthy release is far from it.",
    }
}

fn promoted(healthy: &ReleaseShape) -> String {
    let share = format::quantity(healthy.promoted.share, "share");
    match healthy.delay {
        Some(delay) => format!(
            "{share} were promoted, half of them within {}, 95 % within {}.",
            format::duration(delay.median_secs),
            format::duration(delay.p95_secs)
        ),
        None => "None was promoted.".to_owned(),
    }
}
