//! A study as a page: what was asked, what came of it, and how to read it, for somebody who knows
//! neither the command nor the statistics.

use super::{
    shape::{DelayShape, ReleaseShape, ShareShape, Simulation, WITHIN_SECS},
    table::{assumptions, conclusions, grouped},
};
use crate::{
    chart::{
        Page, Scale,
        page::{Figure, Key, Mood, Plot},
        plot::{self, Curve, Marks, Shares, Spread},
        scale::{linear_time, log_time, percent},
    },
    report::format,
};

/// Fills of an ending that should not be, that should, that may, and that is none.
const WRONG: usize = 1;
const RIGHT: usize = 2;
const ALLOWED: usize = 0;
const NO_VERDICT: usize = 4;

/// Times whose curves are drawn; the last curve is "at all".
const SHOWN_WITHIN: [f64; 2] = [60.0, 300.0];

/// The whole page.
pub fn page(study: &Simulation) -> String {
    let title = format!("What {} would do", study.file_name());
    let [service, judged] = assumptions(study);
    let about =
        [format!("Rules for {}, tried on simulated releases.", study.service), service, judged];
    let mut page = Page::new(&title, &about);
    page.figures(&figures(study));
    page.heading("In words");
    for sentence in conclusions(study) {
        page.text(&sentence);
    }
    page.heading("How releases end");
    page.text(
        "Releases are simulated with all their chance and noise and judged by the same engine as real \
         ones. A healthy one should be promoted, one with a fault rolled back. One that is exactly as \
         bad as a rule still allows must not be rolled back, and is the hardest case; one exactly at \
         a margin of promotion must not be promoted.",
    );
    page.plots(&[endings(study, false), endings(study, true)]);
    let found = found(study);
    if !found.is_empty() {
        page.heading("How large a fault must be to be found");
        page.plots(&found);
    }
    page.heading("How long it takes");
    let mut timing = vec![delays(study)];
    timing.extend(evidence(study));
    page.plots(&timing);
    page.heading("The numbers");
    numbers(&mut page, study);
    page.finish()
}

impl Simulation {
    /// The rule file without its folders.
    fn file_name(&self) -> &str {
        self.file.rsplit(['/', '\\']).next().unwrap_or(&self.file)
    }

    fn of_kind(&self, is_fault: bool) -> impl Iterator<Item = &ReleaseShape> {
        self.releases.iter().filter(move |release| (release.kind == "fault") == is_fault)
    }
}

fn as_share(share: f64) -> String {
    format::quantity(share, "share")
}

fn figures(study: &Simulation) -> Vec<Figure> {
    let mut figures = Vec::new();
    if let Some(healthy) = study.releases.iter().find(|release| release.kind == "healthy") {
        let kept = healthy.promise.is_none_or(|promise| promise.agrees);
        figures.push(Figure {
            number: format!("{} of {}", grouped(healthy.rolled_back.count), grouped(healthy.runs)),
            what: format!(
                "healthy releases rolled back; the file states {} at most",
                as_share(study.stated.false_rollback_rate)
            ),
            mood: if kept { Mood::Good } else { Mood::Bad },
        });
        let good = healthy.promoted.share;
        figures.push(Figure {
            number: as_share(good),
            what: match healthy.delay {
                Some(delay) => format!(
                    "of healthy releases promoted, half within {}",
                    format::duration(delay.median_secs)
                ),
                None => "of healthy releases promoted before the deadline".to_owned(),
            },
            mood: if good >= 0.9 { Mood::Good } else { Mood::Warn },
        });
    }
    for (fault, size, what) in [
        ("errors", 10.0, "to find ten times the errors, in half of the cases"),
        ("latency", 2.0, "to find twice the latency, in half of the cases"),
    ] {
        let mut releases = study.of_kind(true);
        let found =
            releases.find(|release| release.fault == Some(fault) && release.size == Some(size));
        let Some(release) = found else { continue };
        let (number, mood) = match release.delay {
            Some(delay) if release.rolled_back.share >= 0.5 => {
                (format::duration(delay.median_secs), Mood::Plain)
            }
            Some(_) | None => ("not found".to_owned(), Mood::Bad),
        };
        figures.push(Figure { number, what: what.to_owned(), mood });
    }
    figures
}

/// How releases with or without a fault end.
fn endings(study: &Simulation, is_fault: bool) -> Plot {
    let rows: Vec<Shares> = study
        .of_kind(is_fault)
        .map(|release| {
            let (rolled_back, promoted) = fills(release);
            Shares {
                name: release.name.clone(),
                note: ending_note(release),
                parts: vec![
                    (rolled_back, release.rolled_back.share),
                    (NO_VERDICT, release.inconclusive.share),
                    (promoted, release.promoted.share),
                ],
            }
        })
        .collect();
    let key = |kind: usize, name: &str| (Key::Fill(kind), name.to_owned());
    let (title, mut legend, caption) = match is_fault {
        true => (
            "With a fault",
            vec![key(RIGHT, "rolled back: found"), key(WRONG, "promoted: missed")],
            format!(
                "The fault begins {} into the release, and a bar should be green all along.",
                format::duration(study.assumed.onset_secs)
            ),
        ),
        false => (
            "Without a fault, or exactly at a bound",
            vec![
                key(RIGHT, "promoted, rightly"),
                key(ALLOWED, "neither right nor wrong"),
                key(WRONG, "rolled back or promoted, wrongly"),
            ],
            format!(
                "{} runs of each. The red part has to be as small as the rule file states.",
                grouped(study.runs)
            ),
        ),
    };
    legend.push(key(NO_VERDICT, "no verdict at the deadline"));
    Plot { title: title.to_owned(), svg: plot::shares(title, &rows), legend, caption }
}

/// How a rollback and a promotion of such a release are filled.
fn fills(release: &ReleaseShape) -> (usize, usize) {
    match release.kind {
        "fault" => (RIGHT, WRONG),
        "healthy" => (WRONG, RIGHT),
        "promotion_margin" => (ALLOWED, WRONG),
        _ => (WRONG, ALLOWED),
    }
}

/// The share that matters most.
fn ending_note(release: &ReleaseShape) -> String {
    let (share, what) = match release.kind {
        "fault" => (release.rolled_back, "found"),
        "promotion_margin" => (release.promoted, "promoted"),
        _ => (release.rolled_back, "rolled back"),
    };
    format!("{} {what}", as_share(share.share))
}

/// Share found over the size of the fault, one plot a kind of fault.
fn found(study: &Simulation) -> Vec<Plot> {
    let kinds = [
        ("errors", "More errors", "times as many errors"),
        ("latency", "Slower requests", "times as slow"),
        ("level", "A gauge off its level", "times the level"),
        ("leak", "A memory leak", "MB a minute"),
    ];
    let mut plots = Vec::new();
    for (fault, title, axis) in kinds {
        let releases: Vec<&ReleaseShape> =
            study.of_kind(true).filter(|release| release.fault == Some(fault)).collect();
        let size = |release: &ReleaseShape| match fault {
            "leak" => release.size.unwrap_or(1.0) * 60.0 / 1e6,
            _ => release.size.unwrap_or(1.0),
        };
        let [Some(first), Some(last)] = [releases.first(), releases.last()] else { continue };
        let (low, high) = (size(first).min(size(last)), size(first).max(size(last)));
        if !(low > 0.0 && high > low) {
            continue;
        }
        let marks = releases.iter().map(|release| {
            let rounded = (size(release) * 100.0).round() / 100.0;
            (size(release), rounded.to_string())
        });
        // A little room, so that no point sits on the frame.
        let room = (high / low).powf(0.06);
        let x = Scale::log(axis, [low / room, high * room], marks.collect());
        let curve = |kind: usize, share: &dyn Fn(&ReleaseShape) -> f64| Curve {
            kind,
            points: releases.iter().map(|release| [size(release), share(release)]).collect(),
            dots: true,
        };
        let mut curves = vec![curve(0, &|release| release.rolled_back.share)];
        let mut legend = vec![(Key::Line(0), "found before the end".to_owned())];
        for (kind, secs) in SHOWN_WITHIN.into_iter().enumerate().rev() {
            let within = move |release: &ReleaseShape| {
                let at = WITHIN_SECS.iter().position(|time| *time == secs);
                at.and_then(|at| release.found_within.get(at)).map_or(0.0, |found| found.share)
            };
            curves.push(curve(kind + 1, &within));
            legend.push((Key::Line(kind + 1), format!("within {}", format::duration(secs))));
        }
        plots.push(Plot {
            title: title.to_owned(),
            svg: plot::curves(title, &x, &percent("found"), &curves, Marks::default()),
            legend,
            caption: "Higher is better. A curve that is low at the left says which faults are too \
                      small for this traffic, and how much longer watching helps."
                .to_owned(),
        });
    }
    plots
}

/// How long each fault took to be found.
fn delays(study: &Simulation) -> Plot {
    let at = |delay: DelayShape| {
        [delay.p5_secs, delay.p25_secs, delay.median_secs, delay.p75_secs, delay.p95_secs]
    };
    let rows: Vec<Spread> = study
        .of_kind(true)
        .map(|release| Spread {
            name: release.name.clone(),
            note: release.delay.map_or("never found".to_owned(), |delay| {
                format!("half within {}", format::duration(delay.median_secs))
            }),
            at: release.delay.map(at),
        })
        .collect();
    let ends = || rows.iter().filter_map(|row| row.at);
    let low = ends().map(|at| at[0]).fold(f64::INFINITY, f64::min);
    let high = ends().map(|at| at[4]).fold(1.0, f64::max);
    let x = log_time("from the fault to its rollback", low.min(high), high);
    Plot {
        title: "From the fault to its rollback".to_owned(),
        svg: plot::spreads("From the fault to its rollback", &x, &rows),
        legend: Vec::new(),
        caption:
            "Of the runs in which the fault was found: the upright mark is the middle one, the \
                  bar holds half of them, the thin line nine in ten. Each step to the right is a \
                  multiple of the time."
                .to_owned(),
    }
}

/// Evidence over time of a few runs.
fn evidence(study: &Simulation) -> Option<Plot> {
    let points = || study.examples.iter().flat_map(|example| example.runs.iter().flatten());
    let longest = points().map(|point| point[0]).fold(0.0, f64::max);
    if longest <= 0.0 {
        return None;
    }
    let kind = |is_faulty: bool| if is_faulty { 1 } else { 0 };
    let curves: Vec<Curve> = study
        .examples
        .iter()
        .flat_map(|example| {
            example.runs.iter().map(|run| Curve {
                kind: kind(example.is_faulty),
                points: run.clone(),
                dots: false,
            })
        })
        .collect();
    let x = linear_time("since the release began", longest);
    let y = Scale { range: [0.0, 1.12], ..percent("evidence") };
    let title = "Evidence while it gathers".to_owned();
    let needed = Marks { across: Some((1.0, "rolled back")), down: None };
    Some(Plot {
        svg: plot::curves(&title, &x, &y, &curves, needed),
        title,
        legend: study
            .examples
            .iter()
            .map(|example| (Key::Line(kind(example.is_faulty)), example.name.clone()))
            .collect(),
        caption: format!(
            "A few runs each. Evidence against a release as a share of what a rollback needs. Chance \
             alone reaches the line in {} of healthy releases at most, however often one looks.",
            as_share(study.stated.false_rollback_rate)
        ),
    })
}

fn numbers(page: &mut Page, study: &Simulation) {
    let harmless: Vec<Vec<String>> = study.of_kind(false).map(harmless_row).collect();
    let columns =
        ["no fault", "runs", "rolled back", "promoted", "no verdict", "half within", "stated"];
    page.table(&columns, &harmless, true);
    let faulty: Vec<Vec<String>> = study.of_kind(true).map(faulty_row).collect();
    let columns = [
        "with a fault",
        "runs",
        "found",
        "half within",
        "95 % within",
        "promoted",
        "no verdict",
        "mostly by",
    ];
    page.table(&columns, &faulty, true);
    page.text(
        "In brackets: where the true share lies with 95 % confidence. Times are from the fault to \
         its rollback, over the runs that found it, and from the beginning to the promotion for a \
         healthy release.",
    );
    let seed = study.seed;
    page.text(&format!(
        "The same file, assumptions and seed ({seed}) give the same numbers. With --json the command \
         prints them all."
    ));
}

fn harmless_row(release: &ReleaseShape) -> Vec<String> {
    let stated = release.promise.map_or(String::new(), |promise| {
        let what = if promise.of == "promoted" { "promoted" } else { "rolled back" };
        let kept = if promise.agrees { "" } else { ": not kept" };
        format!("≤ {} {what}{kept}", as_share(promise.at_most))
    });
    vec![
        release.name.clone(),
        grouped(release.runs),
        with_interval(release.rolled_back),
        with_interval(release.promoted),
        as_share(release.inconclusive.share),
        time(release, |delay| delay.median_secs),
        stated,
    ]
}

fn faulty_row(release: &ReleaseShape) -> Vec<String> {
    vec![
        release.name.clone(),
        grouped(release.runs),
        with_interval(release.rolled_back),
        time(release, |delay| delay.median_secs),
        time(release, |delay| delay.p95_secs),
        as_share(release.promoted.share),
        as_share(release.inconclusive.share),
        release.rules.first().map_or(String::new(), |rule| rule.rule.clone()),
    ]
}

fn with_interval(share: ShareShape) -> String {
    let ends = format::interval([share.low, share.high], "share");
    format!("{} ({ends})", as_share(share.share))
}

fn time(release: &ReleaseShape, secs: fn(DelayShape) -> f64) -> String {
    release.delay.map_or("-".to_owned(), |delay| format::duration(secs(delay)))
}
