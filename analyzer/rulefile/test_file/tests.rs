//! The notations against tables, against slow and obvious expansions, and against anything at all.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    notation::{Notation, Script, Shown, script},
    series::{Item, items, value_at},
};
use crate::{
    engine::{
        observation::{Health, Why},
        rule::SignalKind,
    },
    rulefile::{signals::Scale, units::Units},
};

const INTERVAL: Duration = Duration::from_secs(5);
const RATIO: (SignalKind, Scale) = (SignalKind::Ratio { floor: 0.001 }, Scale::Share);
const RATE: (SignalKind, Scale) = (SignalKind::Rate, Scale::PerSecond);
const SECONDS: (SignalKind, Scale) =
    (SignalKind::Quantile { q: 0.95 }, Scale::Time { unit_secs: 1.0 });
const MILLIS: (SignalKind, Scale) =
    (SignalKind::Quantile { q: 0.95 }, Scale::Time { unit_secs: 0.001 });
const BYTES: (SignalKind, Scale) = (SignalKind::Gauge { limit: None }, Scale::Bytes);
const NUMBER: (SignalKind, Scale) = (SignalKind::Gauge { limit: None }, Scale::Any);
const HEALTH: (SignalKind, Scale) = (SignalKind::Health, Scale::Health);
const RESTARTS: (SignalKind, Scale) = (SignalKind::Restarts, Scale::Count);

fn read((kind, scale): (SignalKind, Scale), text: &str) -> Result<Script, String> {
    let units = Units { name: "signal", kind, scale };
    script(text, Some(Notation { units, interval: INTERVAL }))
        .map_err(|complaint| format!("{} at {:?}", complaint.message, complaint.span))
}

fn share(events: f64, total: f64) -> Shown {
    Shown::Share { events, total }
}

#[test]
fn a_value_is_read_by_what_its_signal_is() {
    let check = |of, text: &str, expected: Shown| {
        let shown = read(of, text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        assert_eq!(shown.count_at(INTERVAL), expected, "{text}");
    };
    check(RATIO, "60/1000", share(60.0, 1000.0));
    check(RATIO, " 0 / 10 ", share(0.0, 10.0));
    check(RATIO, "5% of 1000", share(50.0, 1000.0));
    check(RATIO, "50% of 20/s", share(50.0, 100.0));
    check(RATE, "60", Shown::Events(60.0));
    check(RATE, "12/s", Shown::Events(60.0));
    check(RATE, "60/min", Shown::Events(5.0));
    check(SECONDS, "1000@250ms", Shown::Latency { requests: 1000.0, quantile: 0.25 });
    check(SECONDS, "4/s @ 2s", Shown::Latency { requests: 20.0, quantile: 2.0 });
    check(MILLIS, "10@250ms", Shown::Latency { requests: 10.0, quantile: 250.0 });
    check(BYTES, "300MB", Shown::Level(3e8));
    check(NUMBER, "-1.5", Shown::Level(-1.5));
    check(HEALTH, "up", Shown::Health { status: Health::Up, latency_secs: None });
    check(HEALTH, "down@2s", Shown::Health { status: Health::Down, latency_secs: Some(2.0) });
    check(HEALTH, "unclear", Shown::Missing(Why::UnclearHealth));
    check(RESTARTS, "1", Shown::Events(1.0));
    check(RATIO, "gap", Shown::Missing(Why::ScrapeFailed));
    check(BYTES, "absent", Shown::Missing(Why::AbsentSeries));
}

#[test]
fn what_a_signal_cannot_show_is_refused() {
    let check = |of, text: &str| assert!(read(of, text).is_err(), "{text}: {:?}", read(of, text));
    for text in ["", ",", "1/10,", "then", "1/10 then", "2/1", "5%", "1/10/s", "up", "1", "-1/10"] {
        check(RATIO, text);
    }
    for text in ["1/10 2/10", "1/10 for", "1/10 for 5", "1/10 x", "1/10 x 0", "1/10 x 1.5"] {
        check(RATIO, text);
    }
    for text in ["1/10, 2/10", "1/10 then 2/10 for 5m then 3/10", "1/10 for 0s", "1/10 for 400h"] {
        check(RATIO, text);
    }
    for text in ["1/10..2/10", "1/10.. for 5m", "gap..1/10 for 5m", "1..2..3 for 5m"] {
        check(RATIO, text);
    }
    for text in ["300ms", "10@0s", "10@5%", "@5s", "10@", "10"] {
        check(SECONDS, text);
    }
    for text in ["300", "5%", "3s", "--3B"] {
        check(BYTES, text);
    }
    for text in ["UP", "gap", "up@", "up@5", "up..down for 5m", "1"] {
        check(HEALTH, text);
    }
    check(RESTARTS, "0.5");
    check(RESTARTS, "1/s");
    check(RATIO, &"1/10 x 1 then ".repeat(300));
}

#[test]
fn a_fault_stands_where_it_is() {
    let check = |of, text: &str, expected: &str| assert_eq!(read(of, text).unwrap_err(), expected);
    check(RATIO, "1/10 for 5m then 20/10", "`signal` shows `20/10` at 17..22");
    check(RATIO, "1/10 for 5y, 2/10", "`5y` has the unknown unit `y` at 9..11");
    check(BYTES, "1MB..2s for 5m", "`signal` is held against a time at 5..7");
    check(SECONDS, "5@1MB", "`signal` is held against an amount of bytes at 2..5");
}

#[test]
fn a_level_is_what_it_is_and_a_count_is_what_came_before() {
    let level = read(BYTES, "1MB for 10s then 2MB").unwrap();
    let levels: Vec<Shown> = [0, 5, 10, 15].map(|s| level.level_at(Duration::from_secs(s))).into();
    assert_eq!(levels, [1e6, 1e6, 2e6, 2e6].map(Shown::Level));

    let count = read(RATE, "1 x 2 then 2").unwrap();
    let counts: Vec<Shown> = [5, 10, 15, 20].map(|s| count.count_at(Duration::from_secs(s))).into();
    assert_eq!(counts, [1.0, 1.0, 2.0, 2.0].map(Shown::Events));

    // A ramp ends where the next begins, and goes on from its end when none does.
    let ramp = read(BYTES, "0MB..4MB for 20s").unwrap();
    let ramps: Vec<Shown> =
        [0, 5, 15, 20, 500].map(|s| ramp.level_at(Duration::from_secs(s))).into();
    assert_eq!(ramps, [0.0, 1e6, 3e6, 4e6, 4e6].map(Shown::Level));
    let ramp = read(RATIO, "0/100..20/100 for 10s then 5/100").unwrap();
    let ramps: Vec<Shown> = [5, 10, 15].map(|s| ramp.count_at(Duration::from_secs(s))).into();
    assert_eq!(ramps, [share(10.0, 100.0), share(20.0, 100.0), share(5.0, 100.0)]);
}

/// Random scripts, written in every spelling, against a list with one value a look.
#[test]
fn random_scripts_show_what_a_list_of_looks_shows() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut text, mut list) = (String::new(), Vec::new());
        let segments = rng.random_range(1..6);
        for segment in 0..segments {
            let (looks, total) = (rng.random_range(1..20), rng.random_range(1..1000));
            let (from, to) = (rng.random_range(0..=total), rng.random_range(0..=total));
            let is_last = segment + 1 == segments;
            let is_ramp = rng.random_bool(0.3);
            text.push_str(&format!("{from}/{total}"));
            if is_ramp {
                text.push_str(&format!("..{to}/{total}"));
            }
            match (is_last && !is_ramp, rng.random_range(0..3)) {
                (true, 0) => {}
                (_, 1) => text.push_str(&format!(" x{looks}")),
                (_, _) => text.push_str(&format!("  for {}s ", looks * 5)),
            }
            if !is_last {
                text.push_str(if rng.random_bool(0.5) { "," } else { " then " });
            }
            for look in 1..=looks {
                let way = f64::from(look) / f64::from(looks);
                let change = if is_ramp { f64::from(to) - f64::from(from) } else { 0.0 };
                list.push(share(f64::from(from) + change * way, f64::from(total)));
            }
        }
        let script = read(RATIO, &text).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        for look in 0..list.len() + 20 {
            let expected = list.get(look).unwrap_or(&list[list.len() - 1]);
            let shown = script.count_at(INTERVAL * (look as u32 + 1));
            let (Shown::Share { events, total }, Shown::Share { events: e, total: t }) =
                (shown, *expected)
            else {
                panic!("seed {seed}: {shown:?}");
            };
            assert!((events - e).abs() < 1e-9 && total == t, "seed {seed}, {text}: look {look}");
        }
    }
}

#[test]
fn a_series_is_read_as_prometheus_reads_it() {
    let check = |text: &str, expected: &[Option<f64>]| {
        let items = items(text).unwrap_or_else(|fault| panic!("{text}: {}", fault.message));
        let values: Vec<Option<f64>> =
            (0..expected.len()).map(|look| value_at(&items, look)).collect();
        assert_eq!(values, expected, "{text}");
    };
    // The examples of Prometheus' own page on unit tests, and what comes after their end.
    check("-2+4x3", &[Some(-2.0), Some(2.0), Some(6.0), Some(10.0), None]);
    check(" 1-2x4", &[Some(1.0), Some(-1.0), Some(-3.0), Some(-5.0), Some(-7.0), None]);
    check("1x4", &[Some(1.0), Some(1.0), Some(1.0), Some(1.0), Some(1.0), None]);
    check("1 _x3 5x1", &[Some(1.0), None, None, None, Some(5.0), Some(5.0), None]);
    check(
        "1+0x3 3 stale 8x1",
        &[Some(1.0), Some(1.0), Some(1.0), Some(1.0), Some(3.0), None, Some(8.0), Some(8.0), None],
    );
    // What is ours.
    check("7", &[Some(7.0), Some(7.0), Some(7.0)]);
    check("0+5", &[Some(0.0), Some(5.0), Some(10.0)]);
    check("0 ..+2x2 ..+10", &[Some(0.0), Some(2.0), Some(4.0), Some(14.0), Some(24.0)]);
    check("1.5e1 -2.5x1 _", &[Some(15.0), Some(-2.5), Some(-2.5), None, None]);
    check("0x1 _ ..+5", &[Some(0.0), Some(0.0), None, Some(5.0), Some(10.0)]);
}

#[test]
fn a_series_that_says_nothing_clear_is_refused() {
    for text in [
        "",
        " ",
        "x3",
        "1x",
        "1x-3",
        "1x0",
        "1xx3",
        "a",
        "1+",
        "1+x3",
        "..+5",
        "1 ..5",
        "1 ..+5+5",
        "1+5 2",
        "1 2,3",
        "1.",
        ".5",
        "1x9999999",
        "{{schema:1}}",
        "1x99999999999999999999",
    ] {
        assert!(items(text).is_err(), "{text}: {:?}", items(text));
    }
    assert!(items(&"1 ".repeat(2000)).is_err());
}

/// Random series, written item by item, against a list with one value a look.
#[test]
fn random_series_show_what_a_list_of_looks_shows() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut text, mut list, mut last) = (String::new(), Vec::new(), 0.0);
        for _ in 0..rng.random_range(1..8) {
            let count = rng.random_range(1..12usize);
            let (first, step) = (rng.random_range(0..100), rng.random_range(-9..10));
            let run = |first: f64, count: usize| {
                (0..count).map(move |index| Some(first + f64::from(step) * index as f64))
            };
            match rng.random_range(0..4) {
                0 => {
                    text.push_str(&format!("_x{count} "));
                    list.extend(vec![None; count]);
                    continue;
                }
                1 if !list.iter().all(Option::is_none) => {
                    text.push_str(&format!("..{step:+}x{count} "));
                    list.extend(run(last + f64::from(step), count));
                }
                2 => {
                    text.push_str(&format!("{first}x{count} "));
                    list.extend(vec![Some(f64::from(first)); count + 1]);
                }
                _ => {
                    text.push_str(&format!("{first}{step:+}x{count} "));
                    list.extend(run(f64::from(first), count + 1));
                }
            }
            last = list.iter().rev().flatten().next().copied().unwrap_or(0.0);
        }
        let items = items(&text).unwrap_or_else(|f| panic!("seed {seed}: {text}: {}", f.message));
        for look in 0..list.len() + 5 {
            let expected = list.get(look).copied().flatten();
            assert_eq!(value_at(&items, look), expected, "seed {seed}: {text}: look {look}");
        }
        assert!(items.iter().all(|item| !matches!(item, Item::Run { count: None, .. })));
    }
}

/// Whatever is written, reading it ends, and a fault stands within the text.
#[test]
fn random_texts_are_read_or_refused() {
    let words = [
        "1/10", "x", "for", "then", ",", "..", "5m", "@", "100", "ms", "MB", "%", " ", "of", "/s",
        "up", "gap", "_", "+", "-", "0+5x60", "ü", "\u{0}", "\n", "'", "1e9", "NaN", "stale",
    ];
    for seed in 0..4000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let text: String = (0..rng.random_range(0..12))
            .map(|_| words[rng.random_range(0..words.len())])
            .collect::<Vec<_>>()
            .join(if rng.random_bool(0.5) { " " } else { "" });
        for (kind, scale) in [RATIO, RATE, SECONDS, BYTES, HEALTH, RESTARTS] {
            let units = Units { name: "signal", kind, scale };
            let read = script(&text, Some(Notation { units, interval: INTERVAL }));
            if let Err(complaint) = read {
                let span = complaint.span;
                let is_within = span.start <= span.end && span.end <= text.len();
                assert!(is_within, "seed {seed}: {text:?}: {span:?}");
            }
        }
        if let Ok(items) = items(&text) {
            assert!(!items.is_empty());
            for look in [0, 1, 100, 1_000_000] {
                let _ = value_at(&items, look);
            }
        }
    }
}
