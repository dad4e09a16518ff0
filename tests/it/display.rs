//! The decision matrix as the terminal shows it: by snapshot at three widths, in plain lines, and
//! redrawn in place on a small terminal emulation.

use insta::assert_snapshot;
use rollgate::{
    cli::display::{Display, sentence, table},
    report::shape::{
        BlameShape, ClauseShape, EffectShape, FindingShape, MissingShape, NoiseShape,
        ProgressShape, ProofShape, Report, SamplesShape, SignalShape,
    },
};

fn clause(text: &str, state: &str, unit: &str, progress: (&str, f64, f64)) -> ClauseShape {
    let (kind, value, needed) = progress;
    ClauseShape {
        clause: text.into(),
        signal: text.split(' ').next().unwrap_or_default().into(),
        state: state.into(),
        unit: unit.into(),
        estimate: None,
        interval: None,
        baseline: None,
        bound: None,
        progress: ProgressShape {
            kind: kind.into(),
            value,
            needed,
            noise_factor: None,
            noise: None,
        },
        samples: SamplesShape {
            canary_events: 0.0,
            canary_total: 0.0,
            baseline_events: 0.0,
            baseline_total: 0.0,
        },
        missing: None,
        note: None,
        effect: None,
        blame: None,
    }
}

fn finding(then: &str, state: &str, clauses: Vec<ClauseShape>) -> FindingShape {
    let rule: Vec<&str> = clauses.iter().map(|clause| clause.clause.as_str()).collect();
    FindingShape {
        rule: rule.join(" and "),
        then: then.into(),
        reason: None,
        state: state.into(),
        in_state_secs: 3.0,
        clauses,
    }
}

fn missing(mut clause: ClauseShape, why: &str, detail: &str) -> ClauseShape {
    clause.missing = Some(MissingShape { why: why.into(), detail: detail.into() });
    clause
}

/// The errors scenario a moment before and at its verdict: one rule of every kind and state.
fn errors(decades: f64) -> Report {
    let state = if decades >= 3.6 { "fires" } else { "clear" };
    let compared = ClauseShape {
        estimate: Some(0.061),
        interval: Some([0.042, 0.0842]),
        baseline: Some(0.0021),
        bound: Some(0.0032),
        effect: Some(effect("rate_ratio", 29.0, 12.2, 80.1)),
        blame: Some(BlameShape {
            by: "instance".into(),
            name: "10.0.0.3:8080".into(),
            share: 0.92,
            bad: 1,
            of: 5,
        }),
        ..clause("error_rate > 1.5x baseline", state, "share", ("evidence_decades", decades, 3.6))
    };
    let compared = with_noise(compared, 1.8, "history", 3600.0);
    let held = ClauseShape {
        estimate: Some(0.061),
        interval: Some([0.042, 0.0842]),
        bound: Some(0.05),
        ..clause("error_rate > 5% for 2m", "clear", "share", ("held_secs", 12.0, 120.0))
    };
    let latency = ClauseShape {
        estimate: Some(0.0921),
        interval: Some([0.088, 0.101]),
        baseline: Some(0.089),
        bound: Some(0.178),
        ..clause("p95_latency > 2x baseline", "clear", "seconds", ("evidence_decades", 0.2, 3.6))
    };
    let memory = ClauseShape {
        estimate: Some(50_541_363.0),
        baseline: Some(50_331_648.0),
        bound: Some(55_364_812.8),
        ..clause("memory > 1.1x baseline for 1m", "clear", "bytes", ("held_secs", 0.0, 60.0))
    };
    let leak = ClauseShape {
        estimate: Some(347_777.0),
        baseline: Some(1_200.0),
        bound: Some(17_876.0),
        effect: Some(effect("slope_difference", 346_577.0, 2e5, 4e5)),
        note: Some("over the last 2 min; reaches its limit of 512 MiB in 23 min".into()),
        ..clause(
            "slope(memory) > baseline + 1MB/min",
            "fires",
            "bytes_per_second",
            ("evidence_decades", 3.7, 3.6),
        )
    };
    let leak = with_noise(leak, 2.3, "analysis", 0.0);
    let restarts = ClauseShape {
        estimate: Some(0.0),
        bound: Some(1.0),
        ..clause("restarts >= 1", "clear", "count", ("count", 0.0, 1.0))
    };
    let database = missing(
        clause("database is down for 3 checks", "not_enough_data", "health", ("checks", 0.0, 3.0)),
        "unclear_health",
        "http://127.0.0.1:40123/health/db answered 200 with a page of HTML",
    );
    let busy = ClauseShape {
        estimate: Some(40.2),
        bound: Some(1.0),
        ..clause("requests < 1/s for 30s", "clear", "per_second", ("held_secs", 0.0, 30.0))
    };
    let late = clause("p95_latency > 1.5s", "clear", "seconds", ("evidence_decades", 0.0, 3.6));
    let mut fires = finding("rollback", state, vec![compared]);
    fires.reason = Some("the canary fails more often than the version it replaces".into());
    Report {
        overridden: None,
        rules: None,
        verdict: if state == "fires" { "rollback" } else { "watching" }.into(),
        is_final: state == "fires",
        decided_at: (state == "fires").then_some(1_790_000_016.0),
        at: 1_790_000_016.0,
        elapsed_secs: 16.0,
        look: 17,
        rule: None,
        reason:
            "The canary's error_rate is 6.1 % against 0.21 % of the baseline: beyond 1.5 times \
                 the baseline with 3.7 of 3.6 decades of evidence."
                .into(),
        otherwise: None,
        release_step: None,
        gap: None,
        findings: vec![
            fires,
            finding("rollback", "clear", vec![held.clone()]),
            finding("investigate", "clear", vec![latency]),
            finding("ok", "clear", vec![memory]),
            finding("ok", "fires", vec![leak]),
            finding("rollback", "clear", vec![restarts]),
            finding("rollback", "not_enough_data", vec![database.clone()]),
            finding("investigate", "not_enough_data", vec![database, busy]),
            finding("investigate", "asleep", vec![late]),
        ],
        signals: vec![
            asked("error_rate", "share", 2.0, Some(0.01), (1.6, true)),
            asked("p95_latency", "seconds", 1.5, None, (0.4, false)),
        ],
    }
}

fn effect(kind: &str, estimate: f64, low: f64, high: f64) -> EffectShape {
    let (low, high) = (Some(low), Some(high));
    EffectShape { kind: kind.into(), estimate, low, high, confidence: 0.95 }
}

fn with_noise(mut clause: ClauseShape, factor: f64, origin: &str, history: f64) -> ClauseShape {
    clause.progress.noise_factor = Some(factor);
    clause.progress.noise =
        Some(NoiseShape { kappa_secs: 0.3, origin: origin.into(), history_secs: history });
    clause
}

/// A signal that promotion asks a proof of.
fn asked(
    name: &str,
    unit: &str,
    factor: f64,
    or: Option<f64>,
    (decades, shown): (f64, bool),
) -> SignalShape {
    let remaining_secs = (!shown).then_some(340.0);
    let proof =
        ProofShape { factor, or, decades, needed: 1.3, shown, remaining_secs, per_sec: 40.0 };
    let (canary, baseline) = (None, None);
    SignalShape { name: name.into(), unit: unit.into(), canary, baseline, proof: Some(proof) }
}

/// The idle scenario at its end: nothing but reasons.
fn idle() -> Report {
    let none = |text: &str, unit: &str| {
        missing(
            clause(text, "not_enough_data", unit, ("evidence_decades", 0.0, 3.3)),
            "no_traffic",
            "the canary got no requests for 20 s",
        )
    };
    Report {
        overridden: None,
        rules: None,
        verdict: "inconclusive".into(),
        is_final: true,
        elapsed_secs: 20.0,
        look: 21,
        reason: "Not enough data at the deadline: error_rate (no traffic).".into(),
        otherwise: Some("hold".into()),
        findings: vec![
            finding(
                "rollback",
                "not_enough_data",
                vec![none("error_rate > 1.5x baseline", "share")],
            ),
            finding("rollback", "not_enough_data", vec![none("p95_latency > 2s", "seconds")]),
        ],
        ..errors(0.0)
    }
}

/// A frame as a terminal would hold it after all that was written: enough of one to know the
/// sequences that the display uses, and to fail on any other.
fn screen(written: &[u8]) -> String {
    let text = std::str::from_utf8(written).expect("UTF-8");
    let mut rows = vec![String::new()];
    let mut row = 0;
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        match letter {
            '\n' => {
                row += 1;
                if row == rows.len() {
                    rows.push(String::new());
                }
            }
            '\x1b' => {
                let end = rest.find(|c: char| c.is_ascii_alphabetic()).expect("a whole sequence");
                let sequence = &rest[..=end];
                rest = &rest[end + 1..];
                match sequence {
                    "[?2026h" | "[?2026l" | "[K" => {}
                    "[J" => rows.truncate(row),
                    up if up.ends_with('F') => {
                        let lines: usize = up[1..up.len() - 1].parse().expect("a number");
                        row = row.checked_sub(lines).expect("never above the first line");
                        rows[row].clear();
                    }
                    other => panic!("an unknown sequence {other:?}"),
                }
                if row == rows.len() {
                    rows.push(String::new());
                }
                continue;
            }
            letter => rows[row].push(letter),
        }
        if letter == '\n' {
            rows[row].clear();
        }
    }
    rows.join("\n")
}

fn assert_fits(text: &str, width: usize) {
    for line in text.lines() {
        assert!(line.chars().count() <= width, "{} > {width}: {line}", line.chars().count());
        assert_eq!(line, line.trim_end());
    }
}

#[test]
fn the_matrix_at_120_columns() {
    let text = table(&errors(3.7), false, 120);
    assert_fits(&text, 120);
    assert_snapshot!(text);
}

#[test]
fn the_matrix_at_80_columns() {
    let text = table(&errors(3.7), false, 80);
    assert_fits(&text, 80);
    assert_snapshot!(text);
}

#[test]
fn the_matrix_at_60_columns() {
    let text = table(&errors(3.7), false, 60);
    assert_fits(&text, 60);
    assert_snapshot!(text);
}

#[test]
fn the_matrix_fits_every_width() {
    for width in 40..=200 {
        assert_fits(&table(&errors(3.7), false, width), width);
        assert_fits(&table(&idle(), false, width), width);
        assert_fits(&sentence(&errors(3.7), false, width), width);
    }
}

#[test]
fn an_idle_canary_at_80_columns() {
    assert_snapshot!(table(&idle(), false, 80) + "\n" + &sentence(&idle(), false, 80));
}

/// Health has a word in place of a number, and a part of the canary that gives nothing is told.
#[test]
fn health_words_and_gaps_are_shown() {
    let down = ClauseShape {
        note: Some("down".into()),
        ..clause("app is down for 3 checks", "fires", "health", ("checks", 3.0, 3.0))
    };
    let report = Report {
        findings: vec![finding("rollback", "fires", vec![down])],
        release_step: None,
        gap: Some(MissingShape {
            why: "scrape_failed".into(),
            detail: "10.0.2.2:8080: connection refused".into(),
        }),
        ..errors(0.0)
    };
    for width in 40..=200 {
        assert_fits(&table(&report, false, width), width);
    }
    assert_snapshot!(table(&report, false, 120) + "\n" + &table(&report, false, 60));
}

#[test]
fn colours_change_nothing_but_colours() {
    for width in [60, 80, 120] {
        let (plain, colored) =
            (table(&errors(3.7), false, width), table(&errors(3.7), true, width));
        assert_ne!(plain, colored);
        assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
    }
}

#[test]
fn the_terminal_is_redrawn_in_place() {
    let mut out = Vec::new();
    let mut display = Display::new(&mut out, true, 80).with_color(false);
    for decades in [0.4, 1.9, 3.1] {
        display.look(&errors(decades), 30.0, 36.0).expect("a Vec takes everything");
    }
    drop(display);
    let running = screen(&out);
    assert_fits(&running, 80);
    assert_snapshot!("running_at_80", running);

    let mut out = Vec::new();
    let mut display = Display::new(&mut out, true, 80).with_color(false);
    display.look(&errors(3.1), 30.0, 36.0).expect("a Vec takes everything");
    display.verdict(&errors(3.7)).expect("a Vec takes everything");
    drop(display);
    assert_snapshot!("ended_at_80", screen(&out));
}

#[test]
fn a_low_terminal_shows_what_matters_and_never_scrolls() {
    for rows in 3..40 {
        let mut out = Vec::new();
        let mut display = Display::new(&mut out, true, 80).with_color(false).with_height(rows);
        for decades in [0.4, 3.7] {
            display.look(&errors(decades), 30.0, 36.0).expect("a Vec takes everything");
        }
        drop(display);
        let shown = screen(&out);
        assert!(shown.trim_end().lines().count() < rows, "{rows} rows:\n{shown}");
        if rows == 16 {
            assert_snapshot!("running_at_80_by_16", shown);
        }
    }
}

#[test]
fn without_a_terminal_only_changes_are_said() {
    let mut out = Vec::new();
    let mut display = Display::new(&mut out, false, 80);
    for second in 0..=14 {
        let decades = if second < 13 { 0.2 } else { 3.7 };
        let mut report = errors(decades);
        report.elapsed_secs = f64::from(second);
        report.verdict = if second == 14 { "investigate" } else { "watching" }.into();
        if second >= 7 {
            report.findings[5].state = "clear".into();
        }
        display.look(&report, 30.0, 36.0).expect("a Vec takes everything");
    }
    display.verdict(&errors(3.7)).expect("a Vec takes everything");
    drop(display);
    let text = String::from_utf8(out).expect("UTF-8");
    assert!(!text.contains('\x1b'), "{text}");
    assert_snapshot!(text);
}

#[test]
fn foreign_text_cannot_steer_the_terminal() {
    let mut report = errors(3.7);
    report.reason = "\x1b[2Jgone".into();
    report.verdict = "\x1b]0;title\x07".into();
    for finding in &mut report.findings {
        finding.rule = "\x1b[31mred".into();
        finding.then = "\x1b[1A".into();
        finding.reason = Some("\r\x1b[K".into());
        for clause in &mut finding.clauses {
            clause.clause = "\x07bell".into();
            clause.note = Some("\x1b[5m".into());
            if let Some(missing) = &mut clause.missing {
                missing.why = "\x1b[6n".into();
                missing.detail = "\u{9b}31m\x08\x08".into();
            }
        }
    }
    let mut out = Vec::new();
    let mut display = Display::new(&mut out, false, 80);
    display.look(&report, 30.0, 36.0).expect("a Vec takes everything");
    report.findings[1].state = "fires".into();
    display.look(&report, 30.0, 36.0).expect("a Vec takes everything");
    display.verdict(&report).expect("a Vec takes everything");
    drop(display);
    let plain = String::from_utf8(out).expect("UTF-8");
    for text in [plain, table(&report, false, 120), table(&report, false, 60)] {
        let escapes: Vec<char> = text.chars().filter(|c| c.is_control() && *c != '\n').collect();
        assert!(escapes.is_empty(), "{escapes:?} in {text}");
    }
}
