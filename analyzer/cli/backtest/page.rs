//! A backtest as a page, for somebody who knows neither the command nor the statistics.

use super::{
    super::simulate::grouped,
    shape::{Backtested, LinesShape, ReleaseShape, ResultShape},
    words::{about, conclusions, decided, hints, known, moment},
};
use crate::{
    chart::{
        Page, Scale,
        page::{Figure, Key, Mood, Plot},
        plot::{self, Curve, Marks, Shares, Spread},
        scale::{from_zero, linear_time, log_time, percent},
    },
    report::format,
};

/// Fills of an ending: rolled back, promoted, none, not judged.
const ROLLED_BACK: usize = 1;
const PROMOTED: usize = 2;
const UNDECIDED: usize = 3;
const NOT_JUDGED: usize = 4;

/// Releases that are drawn; all are in the table.
const DRAWN_MAX: usize = 24;

/// Column of what is known of a release.
const KNOWN: usize = 4;

/// Bytes are drawn in this unit.
const MIB: f64 = 1024.0 * 1024.0;

/// The whole page.
pub fn page(found: &Backtested) -> String {
    let mut about_lines = vec![format!("Rules for {}, tried on the past.", found.service)];
    about_lines.extend(about(found));
    let mut page = Page::new(&format!("What {} would have done", file_name(found)), &about_lines);
    page.figures(&figures(found));
    page.heading("In words");
    for sentence in conclusions(found) {
        page.text(&sentence);
    }
    for hint in hints(found) {
        page.text(&format!("Hint: {hint}."));
    }
    page.heading("How they end, and when");
    page.text(
        "Every release was judged by the same engine as live ones, look by look, over the samples \
         that the metrics server recorded. A window without a release is judged as if there had been \
         one: whatever is rolled back there is a false alarm.",
    );
    let mut plots = vec![endings(found)];
    plots.extend(times(found));
    page.plots(&plots);
    if !found.releases.is_empty() {
        page.heading("The releases");
        let rows: Vec<Vec<String>> = found.releases.iter().map(row).collect();
        let mut columns =
            vec!["release", "started (UTC)", "verdict", "after", "known", "what decided"];
        let mut rows = rows;
        if rows.iter().all(|row| row[KNOWN].is_empty()) {
            columns.remove(KNOWN);
            for row in &mut rows {
                row.remove(KNOWN);
            }
        }
        page.table(&columns, &rows, true);
        one_by_one(&mut page, found);
    }
    exceptions(&mut page, found);
    page.finish()
}

/// The rule file without its folders.
fn file_name(found: &Backtested) -> &str {
    found.rules.rsplit(['/', '\\']).next().unwrap_or(&found.rules)
}

fn as_share(share: f64) -> String {
    format::quantity(share, "share")
}

fn figures(found: &Backtested) -> Vec<Figure> {
    let mut figures = Vec::new();
    let judged = found.releases.len() - found.verdicts.not_judged;
    figures.push(Figure {
        number: format!("{} of {}", grouped(found.verdicts.rollback), grouped(judged)),
        what: "releases would have been rolled back".to_owned(),
        mood: Mood::Plain,
    });
    if let Some(score) = found.score {
        let bad = score.found + score.missed;
        if bad > 0 {
            figures.push(Figure {
                number: format!("{} of {}", grouped(score.found), grouped(bad)),
                what: "bad releases found".to_owned(),
                mood: if score.missed == 0 { Mood::Good } else { Mood::Bad },
            });
        }
        figures.push(Figure {
            number: grouped(score.false_alarms),
            what: "good releases rolled back".to_owned(),
            mood: if score.false_alarms == 0 { Mood::Good } else { Mood::Bad },
        });
    }
    if let Some(placebo) = found.placebo.as_ref().filter(|placebo| placebo.windows > 0) {
        figures.push(Figure {
            number: format!(
                "{} of {}",
                grouped(placebo.rolled_back.count),
                grouped(placebo.windows)
            ),
            what: format!(
                "windows without a release rolled back; {} at most is stated",
                as_share(placebo.stated)
            ),
            mood: match (placebo.rolled_back.count, placebo.agrees) {
                (0, _) => Mood::Good,
                (_, true) => Mood::Warn,
                (_, false) => Mood::Bad,
            },
        });
    }
    if let Some(half) = middle(&secs_to(found, "rollback")) {
        figures.push(Figure {
            number: format::duration(half),
            what: "to a rollback, in half of the cases".to_owned(),
            mood: Mood::Plain,
        });
    }
    figures
}

/// Verdicts of releases and of windows without any.
fn endings(found: &Backtested) -> Plot {
    let mut rows = Vec::new();
    let total = found.releases.len();
    let of =
        |count: usize, total: usize| if total == 0 { 0.0 } else { count as f64 / total as f64 };
    if total > 0 {
        let verdicts = found.verdicts;
        rows.push(Shares {
            name: "releases".to_owned(),
            note: grouped(total),
            parts: vec![
                (ROLLED_BACK, of(verdicts.rollback, total)),
                (UNDECIDED, of(verdicts.inconclusive, total)),
                (PROMOTED, of(verdicts.promote, total)),
                (NOT_JUDGED, of(verdicts.not_judged, total)),
            ],
        });
    }
    let mut caption = "Each bar is a whole.".to_owned();
    if let Some(placebo) = &found.placebo {
        let total = placebo.windows + placebo.not_judged;
        rows.push(Shares {
            name: "windows without a release".to_owned(),
            note: grouped(total),
            parts: vec![
                (ROLLED_BACK, of(placebo.rolled_back.count, total)),
                (UNDECIDED, of(placebo.inconclusive.count, total)),
                (PROMOTED, of(placebo.promoted.count, total)),
                (NOT_JUDGED, of(placebo.not_judged, total)),
            ],
        });
        caption = format!(
            "Without a release nothing should be red. From {} windows the true share of false \
             alarms lies between {} (95 % confidence); the rule file states {} for rules by evidence.",
            grouped(placebo.windows),
            format::interval([placebo.rolled_back.low, placebo.rolled_back.high], "share"),
            as_share(placebo.stated)
        );
    }
    let title = "Verdicts";
    let key = |kind: usize, name: &str| (Key::Fill(kind), name.to_owned());
    Plot {
        title: title.to_owned(),
        svg: plot::shares(title, &rows),
        legend: vec![
            key(ROLLED_BACK, "rolled back"),
            key(UNDECIDED, "no verdict at the deadline"),
            key(PROMOTED, "promoted"),
            key(NOT_JUDGED, "not judged"),
        ],
        caption,
    }
}

/// Seconds from the start to this verdict, ascending.
fn secs_to(found: &Backtested, verdict: &str) -> Vec<f64> {
    let results = found.releases.iter().filter_map(|release| release.result.as_ref());
    let of = results.filter(|result| result.verdict == verdict);
    let mut secs: Vec<f64> = of.filter_map(|result| result.after_secs).collect();
    secs.sort_by(f64::total_cmp);
    secs
}

fn middle(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}

/// How long verdicts took.
fn times(found: &Backtested) -> Option<Plot> {
    let row = |name: &str, secs: Vec<f64>| {
        let at = |share: f64| secs[((secs.len() - 1) as f64 * share).round() as usize];
        let spread = (!secs.is_empty()).then(|| [0.05, 0.25, 0.5, 0.75, 0.95].map(at));
        Spread {
            name: name.to_owned(),
            note: match middle(&secs) {
                Some(half) => format!("{}, half within {}", secs.len(), format::duration(half)),
                None => "none".to_owned(),
            },
            at: spread,
        }
    };
    let delays = found.releases.iter().filter_map(|release| release.delay_secs);
    let mut delays: Vec<f64> = delays.collect();
    delays.sort_by(f64::total_cmp);
    let mut rows = vec![row("to a rollback", secs_to(found, "rollback"))];
    if !delays.is_empty() {
        rows.push(row("from the fault to its rollback", delays));
    }
    rows.push(row("to a promotion", secs_to(found, "promote")));
    let ends = || rows.iter().filter_map(|row| row.at);
    let (low, high) =
        ends().fold((f64::INFINITY, 1.0_f64), |(low, high), at| (low.min(at[0]), high.max(at[4])));
    if !low.is_finite() {
        return None;
    }
    let title = "Times to a verdict";
    let x = log_time("since the release began", low.min(high), high);
    Some(Plot {
        title: title.to_owned(),
        svg: plot::spreads(title, &x, &rows),
        legend: Vec::new(),
        caption:
            "The upright mark is the middle one, the bar holds half of them, the thin line nine \
                  in ten. Each step to the right is a multiple of the time."
                .to_owned(),
    })
}

fn verdict_words(result: &ResultShape) -> &'static str {
    match result.verdict {
        "rollback" => "rolled back",
        "promote" => "promoted",
        "inconclusive" => "no verdict",
        _ => "not judged",
    }
}

fn row(release: &ReleaseShape) -> Vec<String> {
    let result = release.result.as_ref();
    let after = result.and_then(|result| result.after_secs);
    vec![
        name(release),
        moment(release.started_at),
        result.map_or("", verdict_words).to_owned(),
        after.map_or("-".to_owned(), format::duration),
        known(release),
        decided(release),
    ]
}

fn name(release: &ReleaseShape) -> String {
    format!("{} {}", release.service, release.version)
}

/// Each release by itself: what both versions were like, and the evidence.
fn one_by_one(page: &mut Page, found: &Backtested) {
    let drawn =
        |release: &&ReleaseShape| release.result.as_ref().is_some_and(|result| result.looks > 0);
    let mut releases: Vec<&ReleaseShape> = found.releases.iter().filter(drawn).collect();
    let all = releases.len();
    // What surprises comes first, then what was rolled back.
    releases.sort_by_key(|release| {
        let verdict = release.result.as_ref().map_or("", |result| result.verdict);
        match (release.agreement, verdict) {
            (Some("missed" | "false_alarm"), _) => 0,
            (_, "rollback") => 1,
            (_, "inconclusive") => 2,
            _ => 3,
        }
    });
    releases.truncate(DRAWN_MAX);
    for release in &releases {
        let Some(result) = &release.result else { continue };
        page.heading(&format!("{}: {}", name(release), verdict_words(result)));
        let began = moment(release.started_at);
        page.text(&format!("It began at {began} UTC. {}", result.reason));
        for note in &release.notes {
            page.text(&format!("Noticed: {note}."));
        }
        page.plots(&of_release(release, result));
    }
    if all > releases.len() {
        let count = grouped(all - releases.len());
        page.text(&format!("{count} more are in the table, and in what --json prints."));
    }
}

fn of_release(release: &ReleaseShape, result: &ResultShape) -> Vec<Plot> {
    let ends = result.evidence.iter().map(|point| point[0]).chain(result.after_secs);
    let longest = ends.fold(1.0, f64::max);
    // A little room behind the verdict.
    let x = linear_time("since the release began", longest * 1.03);
    let decision = result.after_secs.map(|secs| (secs, verdict_words(result)));
    let mut plots: Vec<Plot> =
        shown(result).into_iter().map(|lines| signal(release, lines, &x, decision)).collect();
    if !result.evidence.is_empty() {
        let title = format!("{}: evidence against it", name(release));
        let y = Scale { range: [0.0, 1.12], ..percent("evidence") };
        let curve = Curve { kind: 1, points: result.evidence.clone(), dots: false };
        let marks = Marks { across: Some((1.0, "enough to roll back")), down: decision };
        plots.push(Plot {
            svg: plot::curves(&title, &x, &y, &[curve], marks),
            title: "Evidence against it".to_owned(),
            legend: Vec::new(),
            caption:
                "The strongest rule by evidence, as a share of what it needs to roll back. Rules \
                      with `for` and counts are not in it."
                    .to_owned(),
        });
    }
    plots
}

/// The signals that are drawn: what the deciding rule asks for, then a share and a time.
fn shown(result: &ResultShape) -> Vec<&LinesShape> {
    let mut shown: Vec<&LinesShape> = Vec::new();
    let rule = result.rule.as_deref().unwrap_or("");
    let deciding = result.signals.iter().find(|lines| {
        rule.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == lines.name)
    });
    let of_unit = |unit: &str| result.signals.iter().find(|lines| lines.unit == unit);
    let first = result.signals.first();
    for lines in [deciding, of_unit("share"), of_unit("seconds"), first].into_iter().flatten() {
        if shown.len() < 2 && !shown.iter().any(|known| known.name == lines.name) {
            shown.push(lines);
        }
    }
    shown
}

fn signal(
    release: &ReleaseShape,
    lines: &LinesShape,
    x: &Scale,
    decision: Option<(f64, &str)>,
) -> Plot {
    let (axis, per) = if lines.unit == "bytes" { ("MiB", MIB) } else { ("", 1.0) };
    let values = || lines.canary.iter().chain(&lines.baseline).map(|point| point[1] / per);
    let y = from_zero("", values().fold(0.0, f64::max), |value| match axis {
        "" => format::cell(value, &lines.unit).replace(' ', ""),
        _ => format::quantity(value, "number"),
    });
    let title = format!("{}: {}", name(release), lines.name);
    let curve = |kind: usize, points: &[[f64; 2]]| Curve {
        kind,
        points: points.iter().map(|[secs, value]| [*secs, value / per]).collect(),
        // One point makes no line.
        dots: points.len() == 1,
    };
    let curves = [curve(1, &lines.canary), curve(0, &lines.baseline)];
    let marks = Marks { across: None, down: decision };
    let mut legend = vec![(Key::Line(1), "new version".to_owned())];
    if !lines.baseline.is_empty() {
        legend.push((Key::Line(0), "what it is compared with".to_owned()));
    }
    Plot {
        svg: plot::curves(&title, x, &y, &curves, marks),
        title: match axis {
            "" => lines.name.clone(),
            axis => format!("{} in {axis}", lines.name),
        },
        legend,
        caption: "Over the rule file's window, at each look until the verdict.".to_owned(),
    }
}

/// Windows without a release that were not promoted.
fn exceptions(page: &mut Page, found: &Backtested) {
    let Some(placebo) = found.placebo.as_ref().filter(|one| !one.exceptions.is_empty()) else {
        return;
    };
    page.heading("Windows without a release that were not promoted");
    let rows: Vec<Vec<String>> = placebo
        .exceptions
        .iter()
        .take(EXCEPTIONS_MAX)
        .map(|window| {
            vec![
                window.service.clone(),
                moment(window.started_at),
                window.verdict.to_owned(),
                format::duration(window.after_secs),
                window.rule.clone().unwrap_or_else(|| window.reason.clone()),
            ]
        })
        .collect();
    page.table(&["service", "began (UTC)", "verdict", "after", "what decided"], &rows, true);
    if placebo.exceptions.len() > EXCEPTIONS_MAX {
        page.text(&format!("{} in all.", grouped(placebo.exceptions.len())));
    }
}

/// Rows of the last table.
const EXCEPTIONS_MAX: usize = 50;
