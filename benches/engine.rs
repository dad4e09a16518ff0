//! The cost of judging: one evidence step during and after the hold; one whole look of an analysis
//! with ten rules over five signals, at minute 2 and at minute 60; and one look of the dearest case,
//! ten rules by evidence with ten instances an arm and ten routes, while nothing happens and in a
//! regression, when every rule says what is to blame.
//!
//! Targets are asserted on the least of several medians: a busy machine makes a run slower, never
//! faster.

use std::{collections::BTreeMap, hint::black_box, sync::Arc, time::Instant};

use criterion::Criterion;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    engine::{
        analysis::Analysis,
        evidence::Counts,
        native::{NativeHistogram, index_of},
        observation::{Health, Histogram, Observation, Pair, Part, PartKind, Reading, Time, Value},
        rule::RuleSet,
        verdict::Verdict,
        wager::{ComparisonEvidence, Noise},
    },
    rulefile,
};

const SEED: u64 = 900;
const EVIDENCE_NS_MAX: f64 = 400.0;
const LOOK_NS_MAX: f64 = 20_000.0;

/// Where all comparisons are by an amount, in a regression: stakes are solved for, part by part.
const AMOUNTS_LOOK_NS_MAX: f64 = 25_000.0;

/// A look at minute 60 may take this much of one at minute 2; the rest is the clock's noise.
const GROWTH_MAX: f64 = 1.25;

const ROUNDS: usize = 7;
const BLOCKS: usize = 31;

const RULES: &str = "version: 1
service: bench
observe: { interval: 1s, window: 1m, warmup: 0s }
signals:
  errors: { ratio: 'failed_total / asked_total', floor: 0.1% }
  p95: { quantile: 0.95, of: latency_seconds }
  requests: { rate: asked_total }
  restarts: { restarts: process_start_time_seconds }
  app: { health: /health }
rules:
  - { when: errors > 1.5x baseline, then: rollback }
  - { when: errors > 5%, then: rollback }
  - { when: errors > 5% for 5m, then: rollback }
  - { when: p95 > 1.2x baseline, then: rollback }
  - { when: p95 > 1s, then: rollback }
  - { when: p95 > 2x baseline for 2m, then: investigate }
  - { when: requests < 10/s for 1m or requests > 5x baseline, then: investigate }
  - { when: restarts >= 1, then: rollback }
  - { when: app is down for 3 checks, then: rollback }
  - { when: latency(app) > 500ms for 1m and not app is down, then: investigate }
promote: { after: 2h, deadline: 3h, otherwise: hold }
";

/// Rules that end nothing, so that a regression can be looked at for as long as one likes.
const EVIDENCE_RULES: &str = "version: 1
service: bench
observe: { interval: 1s, window: 1m, warmup: 0s }
signals:
  errors: { ratio: 'failed_total / asked_total', floor: 0.1% }
  p95: { quantile: 0.95, of: latency_seconds }
  requests: { rate: asked_total }
rules:
  - { when: errors > 1.2x baseline, then: ok }
  - { when: errors > 1.5x baseline, then: ok }
  - { when: errors > 2x baseline, then: ok }
  - { when: errors > 5%, then: ok }
  - { when: p95 > 1.2x baseline, then: ok }
  - { when: p95 > 1.5x baseline, then: ok }
  - { when: p95 > 1s, then: ok }
  - { when: requests > 1.5x baseline, then: ok }
  - { when: requests > 2x baseline, then: ok }
  - { when: requests > 300/s, then: ok }
promote: { after: 2h, deadline: 3h, otherwise: hold }
";

/// The same with amounts in place of multiples.
const AMOUNTS: [(&str, &str); 7] = [
    ("errors > 1.2x baseline", "errors > baseline + 0.1%"),
    ("errors > 1.5x baseline", "errors > baseline + 0.5%"),
    ("errors > 2x baseline", "errors > baseline + 1%"),
    ("p95 > 1.2x baseline", "p95 > baseline + 20ms"),
    ("p95 > 1.5x baseline", "p95 > baseline + 50ms"),
    ("requests > 1.5x baseline", "requests > baseline + 50/s"),
    ("requests > 2x baseline", "requests > baseline + 100/s"),
];

fn main() {
    let counts = counts();
    let rules = Arc::new(rulefile::load("bench.yaml", RULES).expect("valid rules").rules);
    assert_eq!((rules.rules.len(), rules.signals.len()), (10, 5));
    let looks = looks();
    let all = rulefile::load("bench.yaml", EVIDENCE_RULES).expect("valid rules").rules;
    let (all, parted) = (Arc::new(all), parted_looks());
    let natives = natives(&looks);

    let (mut hold_ns, mut beyond_ns) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let (hold, beyond) = evidence_ns(&counts);
        hold_ns = hold_ns.min(hold);
        beyond_ns = beyond_ns.min(beyond);
    }
    eprintln!("one evidence step: {hold_ns:.0} ns during the hold (at most {EVIDENCE_NS_MAX})");
    eprintln!("after the hold, when the odds are long: {beyond_ns:.0} ns");
    let [mut early_ns, mut late_ns] = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        let (early, late) = look_ns(&rules, &looks);
        early_ns = early_ns.min(early);
        late_ns = late_ns.min(late);
    }
    let [mut calm_ns, mut blaming_ns] = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        let (calm, blaming) = look_ns(&all, &parted);
        calm_ns = calm_ns.min(calm);
        blaming_ns = blaming_ns.min(blaming);
    }
    eprintln!("one look of ten rules by evidence, ten instances an arm and ten routes:");
    eprintln!(
        "{calm_ns:.0} ns when calm, {blaming_ns:.0} ns in a regression (at most {LOOK_NS_MAX})"
    );
    let by_amount = AMOUNTS.iter().fold(EVIDENCE_RULES.to_owned(), |text, (times, plus)| {
        assert!(text.contains(times));
        text.replace(times, plus)
    });
    let by_amount = Arc::new(rulefile::load("bench.yaml", &by_amount).expect("valid rules").rules);
    let [mut calm_amount_ns, mut blaming_amount_ns] = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        let (calm, blaming) = look_ns(&by_amount, &parted);
        calm_amount_ns = calm_amount_ns.min(calm);
        blaming_amount_ns = blaming_amount_ns.min(blaming);
    }
    eprintln!("with amounts: {calm_amount_ns:.0} ns and {blaming_amount_ns:.0} ns");
    let growth = late_ns / early_ns;
    eprintln!("one look of ten rules: {early_ns:.0} ns at minute 2 (at most {LOOK_NS_MAX})");
    eprintln!("at minute 60: {late_ns:.0} ns, {growth:.2} times (at most {GROWTH_MAX})");
    let [mut early_native_ns, mut late_native_ns] = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        let (early, late) = look_ns(&rules, &natives);
        early_native_ns = early_native_ns.min(early);
        late_native_ns = late_native_ns.min(late);
    }
    eprintln!("with a native histogram: {early_native_ns:.0} ns, {late_native_ns:.0} ns");
    let native_ns = early_native_ns.max(late_native_ns);
    let evidence_ns = hold_ns.max(beyond_ns);
    assert!(evidence_ns <= EVIDENCE_NS_MAX, "an evidence step takes {evidence_ns:.0} ns");
    assert!(early_ns.max(late_ns) <= LOOK_NS_MAX, "a look takes {early_ns:.0}, {late_ns:.0} ns");
    let amount_ns = calm_amount_ns.max(blaming_amount_ns);
    let dearest_ns = calm_ns.max(blaming_ns);
    assert!(amount_ns <= AMOUNTS_LOOK_NS_MAX, "a look of ten amounts takes {amount_ns:.0} ns");
    assert!(dearest_ns <= LOOK_NS_MAX, "a look of ten evidence rules takes {dearest_ns:.0} ns");
    assert!(native_ns <= LOOK_NS_MAX, "a look with a native histogram takes {native_ns:.0} ns");
    assert!(growth <= GROWTH_MAX, "a look at minute 60 takes {growth:.2} times as long");

    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("evidence_step", |bench| {
        let mut evidence = ComparisonEvidence::new(1.5, 0.001, 900);
        let mut next = counts.iter().cycle();
        let noise = Noise { baseline: 1.2, floor: 1.1 };
        bench.iter(|| evidence.step(black_box(next.next().expect("endless")), noise, Some(0.005)));
    });
    criterion.bench_function("look_of_ten_rules", |bench| {
        let mut analysis = Analysis::new(rules.clone(), Time(0));
        let mut next = looks.iter().cycle();
        bench.iter(|| analysis.step(black_box(next.next().expect("endless"))));
    });
    criterion.final_summary();
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Nanoseconds of one evidence step, medians over blocks of one hold each: during the hold, and
/// after two more, when the prior is spent and the masses have left the range of a double.
fn evidence_ns(counts: &[Counts]) -> (f64, f64) {
    let noise = Noise { baseline: 1.2, floor: 1.1 };
    let run = |evidence: &mut ComparisonEvidence| {
        let begin = Instant::now();
        let mut last = 0.0;
        for count in counts {
            last = evidence.step(black_box(count), noise, Some(0.005));
        }
        (begin.elapsed().as_secs_f64() * 1e9 / counts.len() as f64, last)
    };
    let block = || {
        let mut evidence = ComparisonEvidence::new(1.5, 0.001, counts.len() as u32);
        let (hold, last) = run(&mut evidence);
        // Equal arms: in the end there is evidence of nothing, and ever less.
        assert!(last < 0.0 && last.is_finite(), "ln e is {last}");
        run(&mut evidence);
        let (beyond, later) = run(&mut evidence);
        assert!(later < last && later.is_finite(), "ln e went from {last} to {later}");
        (hold, beyond)
    };
    let (hold, beyond) = (0..BLOCKS).map(|_| block()).unzip();
    (median(hold), median(beyond))
}

/// Nanoseconds of one look in the second minute and in the sixtieth.
fn look_ns(rules: &Arc<RuleSet>, looks: &[Observation]) -> (f64, f64) {
    let mut analysis = Analysis::new(rules.clone(), Time(0));
    let mut minutes = Vec::new();
    for minute in looks.chunks(60) {
        let mut times = Vec::new();
        for look in minute {
            let begin = Instant::now();
            let step = black_box(analysis.step(black_box(look)));
            times.push(begin.elapsed().as_secs_f64() * 1e9);
            assert_eq!(step.verdict, Verdict::Watching, "look {}", step.look);
        }
        minutes.push(median(times));
    }
    assert_eq!(analysis.looks(), looks.len() as u64);
    (minutes[1], minutes[minutes.len() - 1])
}

/// Equal arms at 100 requests a second, 0.5 % failures.
fn counts() -> Vec<Counts> {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut failed = || f64::from((0..100).filter(|_| random.random_bool(0.005)).count() as u32);
    let mut look = |_| Counts {
        canary_events: failed(),
        canary_total: 100.0,
        baseline_events: failed(),
        baseline_total: 100.0,
    };
    (0..900).map(&mut look).collect()
}

/// An hour of looks at a healthy service with the default buckets.
fn looks() -> Vec<Observation> {
    let mut random = StdRng::seed_from_u64(SEED);
    let edges: Arc<[f64]> = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0].into();
    let shares = [0.02, 0.05, 0.2, 0.35, 0.25, 0.1, 0.02, 0.01, 0.0, 0.0, 0.0, 0.0];
    let mut reading = |signal: usize| -> Reading {
        let mut among = |n: u32, share: f64| {
            f64::from((0..n).filter(|_| random.random_bool(share)).count() as u32)
        };
        Ok(match signal {
            0 => Value::Share { events: among(100, 0.005), total: 100.0 },
            1 => Value::Histogram(Histogram {
                edges: edges.clone(),
                counts: shares.iter().map(|share| among(100, *share)).collect(),
            }),
            2 => Value::Events { events: 100.0 + among(10, 0.5), instance_secs: 2.0, instances: 2 },
            3 => Value::Restarts(0),
            _ => Value::Health { status: Health::Up, latency_secs: Some(0.003) },
        })
    };
    let mut look = |secs: i64| {
        let signals = (0..5).map(|signal| Pair::new(reading(signal), reading(signal)));
        Observation {
            at: Time(secs * 1000),
            signals: signals.collect(),
            canary_gap: None,
            instances: None,
        }
    };
    (1..=3600).map(&mut look).collect()
}

/// Ten minutes of an arm of ten instances with ten routes; the last three are a regression.
fn parted_looks() -> Vec<Observation> {
    const PARTS: usize = 10;
    let mut random = StdRng::seed_from_u64(SEED);
    let edges: Arc<[f64]> = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0].into();
    let mut value = |signal: usize, is_bad: bool| -> Value {
        let mut among = |n: u32, share: f64| {
            f64::from((0..n).filter(|_| random.random_bool(share)).count() as u32)
        };
        match signal {
            0 => Value::Share { events: among(10, if is_bad { 0.2 } else { 0.005 }), total: 10.0 },
            1 => {
                let mut counts = vec![0.0; edges.len() + 1];
                for _ in 0..10 {
                    counts[2 + 2 * usize::from(is_bad) + among(6, 0.4) as usize] += 1.0;
                }
                Value::Histogram(Histogram { edges: edges.clone(), counts })
            }
            _ => Value::Events {
                events: among(if is_bad { 40 } else { 10 }, 0.9),
                instance_secs: 1.0,
                instances: 1,
            },
        }
    };
    let named = |kind, values: &[Value]| -> Vec<Part> {
        let part = |(n, value): (usize, &Value)| {
            let name = match kind {
                PartKind::Instance => format!("10.0.0.{n}:8080"),
                PartKind::Route => format!("GET /v1/products/{n}"),
            };
            Part { kind, name: name.into(), started: None, value: value.clone() }
        };
        values.iter().enumerate().map(part).collect()
    };
    let mut look = |secs: i64| {
        let mut pair = |signal: usize| {
            let [canary, baseline] = [secs > 420, false]
                .map(|is_bad| (0..PARTS).map(|_| value(signal, is_bad)).collect::<Vec<Value>>());
            let mut pair = Pair::new(Ok(sum(&canary)), Ok(sum(&baseline)));
            pair.parts.canary = named(PartKind::Instance, &canary);
            if signal < 2 {
                pair.parts.canary.extend(named(PartKind::Route, &canary));
                pair.parts.baseline = named(PartKind::Route, &baseline);
            }
            pair
        };
        let signals = (0..3).map(&mut pair).collect();
        Observation { at: Time(secs * 1000), signals, canary_gap: None, instances: None }
    };
    (1..=600).map(&mut look).collect()
}

/// What all parts amount to.
fn sum(parts: &[Value]) -> Value {
    let mut sum = parts[0].clone();
    for part in &parts[1..] {
        match (&mut sum, part) {
            (Value::Share { events, total }, Value::Share { events: more, total: all }) => {
                (*events, *total) = (*events + more, *total + all);
            }
            (Value::Histogram(sum), Value::Histogram(one)) => {
                sum.counts.iter_mut().zip(&one.counts).for_each(|(sum, count)| *sum += count);
            }
            (
                Value::Events { events, instance_secs, instances },
                Value::Events { events: more, instance_secs: secs, .. },
            ) => {
                (*events, *instance_secs) = (*events + more, *instance_secs + secs);
                *instances += 1;
            }
            (sum, part) => panic!("{sum:?} and {part:?} are of two signals"),
        }
    }
    sum
}

/// The same looks with a native histogram of schema 3 for the latencies, as the client libraries have
/// it: 100 log-normal latencies a look and arm.
fn natives(looks: &[Observation]) -> Vec<Observation> {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut reading = || -> Reading {
        let mut counts: BTreeMap<i32, f64> = BTreeMap::new();
        for _ in 0..100 {
            // Twelve evens are near enough to a normal score.
            let score: f64 = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
            *counts.entry(index_of(3, 0.05 * (0.7 * score).exp())).or_default() += 1.0;
        }
        Ok(Value::Native(NativeHistogram {
            schema: 3,
            zero_threshold: 2.938735877055719e-39,
            zero_count: 0.0,
            buckets: counts.into_iter().collect(),
        }))
    };
    let mut look = |look: &Observation| {
        let mut look = look.clone();
        look.signals[1] = Pair::new(reading(), reading());
        look
    };
    looks.iter().map(&mut look).collect()
}
