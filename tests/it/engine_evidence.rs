//! Evidence on event rates and the measure of noise: against numbers from another program, over what
//! nobody would call traffic, and by the promise itself, which a process that breaks the rules of
//! betting must be seen to break.
//!
//! `tests/cases/golden_wager.json` is written by `golden_wager.py` beside it, from scipy's
//! probability functions and plain loops.

use std::{path::Path, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::engine::{
    analysis::Analysis,
    calibration::{Calibration, Past, SignalCalibration, calibrate},
    dispersion::{Chance, Slot, measure},
    evidence::{Counts, EFFECTS},
    noise::{KAPPA_PRIOR_SECS, Origin},
    observation::{Missing, Pair, Reading, Time, Value, Why},
    residual::Residual,
    verdict::{Progress, State, Verdict},
    wager::{Beyond, ComparisonEvidence, LimitTerms, LimitWager, Noise, RatioWager, Terms},
};
use serde::Deserialize;

use super::engine_false_alarms::{Law, plausible};
use super::engine_rules::{ERRORS, P95, START, healthy, histogram, missing, rules, share};

#[derive(Deserialize)]
struct Golden {
    effects: Vec<f64>,
    wagers: Vec<WagerCase>,
    noises: Vec<NoiseCase>,
    below: Vec<BelowCase>,
}

#[derive(Deserialize)]
struct WagerCase {
    name: String,
    margin: f64,
    floor: f64,
    horizon: u32,
    noise: f64,
    usual: Option<f64>,
    /// Canary's events and requests, baseline's events and requests.
    looks: Vec<[f64; 4]>,
    ln_e: Vec<f64>,
}

/// A rate that falls short of a limit.
#[derive(Deserialize)]
struct BelowCase {
    name: String,
    limit: f64,
    horizon: u32,
    noise: f64,
    usual: Option<f64>,
    /// Events, and what they are among.
    looks: Vec<[f64; 2]>,
    ln_e: Vec<f64>,
}

#[derive(Deserialize)]
struct NoiseCase {
    name: String,
    secs: f64,
    lag: f64,
    events: Vec<f64>,
    totals: Vec<f64>,
    kappa_secs: f64,
    spread: f64,
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/golden_wager.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn counts([canary_events, canary_total, baseline_events, baseline_total]: [f64; 4]) -> Counts {
    Counts { canary_events, canary_total, baseline_events, baseline_total }
}

#[test]
fn evidence_equals_the_reference_at_every_look() {
    let golden = golden();
    assert_eq!(golden.effects, EFFECTS);
    assert!(golden.wagers.len() >= 9, "{} cases", golden.wagers.len());
    for case in golden.wagers {
        let mut evidence = ComparisonEvidence::new(case.margin, case.floor, case.horizon);
        assert_eq!(case.looks.len(), case.ln_e.len());
        let noise = Noise { baseline: case.noise, floor: case.noise };
        for (number, (look, expected)) in case.looks.iter().zip(&case.ln_e).enumerate() {
            let found = evidence.step(&counts(*look), noise, case.usual);
            let close = (found - expected).abs() <= 1e-8 * (1.0 + expected.abs());
            assert!(close, "{} look {number}: {found}, expected {expected}", case.name);
        }
    }
}

#[test]
fn evidence_of_too_little_equals_the_reference_at_every_look() {
    let golden = golden();
    assert!(golden.below.len() >= 3, "{} cases", golden.below.len());
    for case in golden.below {
        let mut evidence = LimitWager::new(Beyond::Below, case.horizon);
        let terms = LimitTerms { limit: case.limit, noise: case.noise, usual: case.usual };
        assert_eq!(case.looks.len(), case.ln_e.len());
        for (number, ([events, total], expected)) in case.looks.iter().zip(&case.ln_e).enumerate() {
            let found = evidence.step(*events, *total, &terms);
            let close = (found - expected).abs() <= 1e-8 * (1.0 + expected.abs());
            assert!(close, "{} look {number}: {found}, expected {expected}", case.name);
        }
    }
}

/// A rate that is exactly at the limit is not below it, however often one looks.
#[test]
fn a_rate_exactly_at_its_limit_is_not_too_low() {
    let (alarms, is_plausible) = plausible(1_000, 0.01, |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let mean = [0.5, 10.0, 60.0][seed as usize % 3];
        let law = Law::poisson(mean);
        let mut evidence = LimitWager::new(Beyond::Below, 300);
        let terms = LimitTerms { limit: mean, noise: 1.0, usual: None };
        (0..300).any(|_| evidence.step(law.draw(&mut random), 1.0, &terms) >= -f64::ln(0.01))
    });
    assert!(is_plausible, "{alarms} of 1000 at the limit");
}

#[test]
fn noise_equals_the_reference() {
    let golden = golden();
    assert!(golden.noises.len() >= 6, "{} cases", golden.noises.len());
    for case in golden.noises {
        let looks = case.events.iter().zip(&case.totals).enumerate();
        let slots: Vec<Slot> = looks
            .map(|(number, (&events, &total))| Slot {
                end_secs: (number + 1) as f64 * case.secs,
                secs: case.secs,
                events,
                total,
            })
            .collect();
        let found = measure(&slots, Chance::Binomial, case.lag).expect("enough data");
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * (1.0 + b.abs());
        assert!(
            close(found.kappa_secs, case.kappa_secs) && close(found.spread, case.spread),
            "{}: {found:?}, expected {} and {}",
            case.name,
            case.kappa_secs,
            case.spread
        );
    }
}

/// Whatever is observed, evidence stays a number, and what is no count says nothing.
#[test]
fn no_counts_poison_the_evidence() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut evidence = ComparisonEvidence::new(
            1.0 + random.random::<f64>(),
            random.random::<f64>() * 0.01,
            random.random_range(0..2_000),
        );
        for look in 0..300 {
            let mut number = || match random.random_range(0..12) {
                0 => 0.0,
                1 => f64::NAN,
                2 => f64::INFINITY,
                3 => -1.0,
                4 => 1e30,
                5 => 1e-30,
                _ => (random.random::<f64>() * 200.0).floor(),
            };
            let look_counts = counts([number(), number(), number(), number()]);
            let usual = Some(number()).filter(|usual| usual.is_finite());
            let noise = 1.0 + random.random::<f64>();
            let found = evidence.step(&look_counts, Noise { baseline: noise, floor: noise }, usual);
            assert!(found.is_finite(), "seed {seed} look {look}: {found} after {look_counts:?}");
        }
    }
    let mut evidence = RatioWager::new(900);
    let terms = Terms { margin: 1.5, noise: 1.0, usual: None };
    let fresh = evidence.clone();
    for nothing in [
        [5.0, 100.0, f64::NAN, 100.0],
        [-5.0, 100.0, 1.0, 100.0],
        [5.0, f64::INFINITY, 1.0, 100.0],
        [5.0, 0.0, 1.0, 100.0],
        [5.0, 100.0, 0.0, 0.0],
    ] {
        assert_eq!(evidence.step(&counts(nothing), &terms), 0.0, "{nothing:?}");
    }
    assert_eq!(evidence, fresh);
}

/// What betting rests on: under the null no bet pays more than it costs, in expectation. The share
/// of runs that ever reach 1/alpha stays below alpha for any choice of bets that looks only back,
/// and a gambler who peeks at the look that he bets on breaks it.
#[test]
fn a_gambler_who_peeks_is_caught() {
    let run = |seed: u64, peeks: bool| {
        let mut random = StdRng::seed_from_u64(seed);
        let mut wealth = 0.0f64;
        let mut last = 0.0;
        (0..900).any(|_| {
            let mut events = || poisson(&mut random, 1.0);
            let (x_c, x_b) = (events(), events());
            // Ratio 2 against ratio 1, equal traffic.
            let nats = x_c * (4.0f64 / 3.0).ln() + x_b * (2.0f64 / 3.0).ln();
            let bet = if peeks { nats > 0.0 } else { last > 0.0 };
            last = nats;
            wealth += if bet { nats } else { 0.0 };
            wealth >= 100.0f64.ln()
        })
    };
    let alarms = |peeks| (0..300).filter(|&seed| run(seed, peeks)).count();
    // Of 300 runs at 1 %, more than 11 have a chance below 0.1 %.
    let (honest, peeking) = (alarms(false), alarms(true));
    assert!(honest <= 11, "{honest} of 300 by honest bets");
    assert!(peeking > 290, "{peeking} of 300 by a gambler who peeks");
}

/// A past of so many looks, `secs` apart, that ends just before the analysis begins; one reading of
/// the signal `errors` each, none where there is none.
fn past(secs: u64, looks: u64, mut reading: impl FnMut(u64) -> Reading) -> Vec<Past> {
    let look = |number: u64| {
        let at = Time(START.0 - i64::try_from((looks - number) * secs * 1000).unwrap());
        let mut readings = vec![Err(Missing::new(Why::NotObserved, "")); P95 + 1];
        let signal = if let Ok(Value::Histogram(_)) = reading(number) { P95 } else { ERRORS };
        readings[signal] = reading(number);
        Past { at, secs: secs as f64, readings }
    };
    (0..looks).map(look).collect()
}

/// What is known of a signal by such a past.
fn known(signal: usize, past: &[Past]) -> SignalCalibration {
    calibrate(&rules(&["when: errors > 1.5x baseline, then: rollback"]), past, Duration::ZERO)
        .of(signal)
}

/// One look's events of `total` at 1 %, every fifth of 20 looks nine times as many when it bursts.
fn bursty(number: u64, total: f64, bursts: bool) -> Reading {
    // A fixed sequence with the variance of chance: 0, 1 and 2 events of 100.
    let calm = [0.0, 1.0, 2.0, 1.0, 0.0, 2.0, 1.0][(number * 5 % 7) as usize];
    let factor = if bursts && (number / 20).is_multiple_of(5) { 9.0 } else { 1.0 };
    share(calm * factor, total)
}

#[test]
fn a_past_that_says_too_little_leaves_the_prior() {
    let prior = SignalCalibration::default();
    assert_eq!((prior.kappa_secs, prior.origin), (KAPPA_PRIOR_SECS, Origin::Prior));
    let failed = |_| missing(Why::ScrapeFailed);
    let of = |past: &[Past]| known(ERRORS, past);
    assert_eq!(of(&[]), prior);
    assert_eq!(of(&past(1, 3600, failed)), prior, "no look had data");
    let no_readings = Past { at: START, secs: 1.0, readings: Vec::new() };
    assert_eq!(of(&[no_readings]), prior);

    // Too short, and too few events: the noise is the prior's, the usual rate is known.
    for (name, short) in [
        ("five minutes less one look", past(1, 299, |n| bursty(n, 100.0, true))),
        ("no events", past(1, 3600, |_| share(0.0, 100.0))),
        (
            "a few events",
            past(15, 240, |n| share(f64::from(u8::from(n.is_multiple_of(20))), 1500.0)),
        ),
        ("everything is an event", past(1, 3600, |_| share(100.0, 100.0))),
    ] {
        let found = of(&short);
        assert_eq!((found.kappa_secs, found.origin), (KAPPA_PRIOR_SECS, Origin::Prior), "{name}");
        assert!(found.usual.rate(0.0, 0.0).is_some_and(|rate| rate > 0.0), "{name}: {found:?}");
    }
    // What is no number is no look.
    for bad in [f64::NAN, f64::INFINITY, -1.0] {
        assert_eq!(of(&past(1, 3600, |_| share(bad, 100.0))), prior, "{bad}");
    }
}

#[test]
fn noise_is_measured_where_there_is_some() {
    let history = |found: SignalCalibration| match found.origin {
        Origin::History { secs } => secs,
        Origin::Prior | Origin::Analysis { .. } => panic!("{found:?}"),
    };
    let calm = known(ERRORS, &past(1, 3600, |n| bursty(n, 100.0, false)));
    assert_eq!((calm.kappa_secs, calm.spread, history(calm)), (0.0, 0.0, 3600.0));
    let usual = calm.usual.rate(0.0, 0.0).unwrap();
    assert!((usual - 0.01).abs() < 2e-4, "{usual}");

    let noisy = known(ERRORS, &past(1, 3600, |n| bursty(n, 100.0, true)));
    assert!(noisy.kappa_secs > 10.0 && noisy.spread > 0.5, "{noisy:?}");

    // Holes, failed looks and a clock that jumps back cost only themselves.
    let mut holed = past(1, 3600, |n| match n % 50 {
        0..5 => missing(Why::ScrapeFailed),
        _ => bursty(n, 100.0, true),
    });
    holed.drain(1000..1500);
    holed[2000].at = Time(0);
    let found = known(ERRORS, &holed);
    assert!(history(found) < 3000.0, "{found:?}");
    assert!((0.4..2.5).contains(&(found.kappa_secs / noisy.kappa_secs)), "{found:?} and {noisy:?}");

    // A quantile is measured by the edge next to it, whatever other layouts there were before.
    let tail = |n: u64| {
        let Ok(Value::Share { events, .. }) = bursty(n, 100.0, true) else { unreachable!() };
        if n < 100 {
            return histogram(&[0.5], &[100.0 - events, events]);
        }
        histogram(
            &[0.1, 0.2, 0.4],
            &[60.0, 40.0 - 5.0 * events.min(8.0), 5.0 * events.min(8.0), 0.0],
        )
    };
    let slow = known(P95, &past(1, 3600, tail));
    assert!(slow.kappa_secs > 1.0 && history(slow) <= 3500.0, "{slow:?}");
}

/// A baseline that is the service's own past has drift in its noise; one that runs beside it has not.
#[test]
fn drift_over_the_lag_is_noise() {
    let drifting = past(15, 960, |n| {
        // A slow wave: four hours, the rate between 0.5 % and 1.5 %.
        let phase = n as f64 / 960.0 * std::f64::consts::TAU;
        share((1500.0 * 0.01 * (1.0 + 0.5 * phase.sin())).round(), 1500.0)
    });
    let set = rules(&["when: errors > 1.5x baseline, then: rollback"]);
    let kappa =
        |lag: u64| calibrate(&set, &drifting, Duration::from_secs(lag)).of(ERRORS).kappa_secs;
    assert!(kappa(60) < 1.0, "{}", kappa(60));
    assert!(kappa(7200) > 5.0, "{}", kappa(7200));
    // A history shorter than the lag is used as far as it goes.
    assert!(kappa(7 * 86_400) > 5.0, "{}", kappa(7 * 86_400));
}

/// Poisson counts by inversion, a table for each mean.
fn poisson(random: &mut StdRng, mean: f64) -> f64 {
    let (mut term, mut count) = ((-mean).exp(), 0.0);
    let (mut sum, draw) = (term, random.random::<f64>());
    while sum < draw && count < 1_000.0 {
        count += 1.0;
        term *= mean / count;
        sum += term;
    }
    count
}

/// Looks of a second, 10 events each in the mean, times what the two functions say of a second.
fn residual(
    past: SignalCalibration,
    seed: u64,
    canary: impl Fn(u64) -> f64,
    baseline: impl Fn(u64) -> f64,
) -> SignalCalibration {
    let mut random = StdRng::seed_from_u64(seed);
    let mut residual = Residual::new(past);
    for secs in 0..900 {
        let mut arm = |factor: f64| [poisson(&mut random, 10.0 * factor), 1000.0];
        let ([a, n], [b, m]) = (arm(canary(secs)), arm(baseline(secs)));
        residual.step(&counts([a, n, b, m]), 1.0);
    }
    residual.noise()
}

/// Twice as many for half a minute, then half of it.
fn burst(secs: u64, shift: u64) -> f64 {
    if ((secs + shift) / 30).is_multiple_of(2) { 1.6 } else { 0.4 }
}

#[test]
fn an_analysis_learns_of_noise_in_the_ratio_and_of_nothing_else() {
    let none = SignalCalibration { kappa_secs: 0.0, ..SignalCalibration::default() };
    let noisy = SignalCalibration {
        kappa_secs: 20.0,
        spread: 0.36,
        origin: Origin::History { secs: 3600.0 },
        ..SignalCalibration::default()
    };
    for seed in 0..20 {
        let learnt = |canary: &dyn Fn(u64) -> f64, baseline: &dyn Fn(u64) -> f64| {
            residual(none, seed, canary, baseline).kappa_secs
        };
        // Nothing, a constant regression, its onset, and bursts that both arms share: all nothing,
        // but for what chance does once in a while.
        let nearly_none = |kappa: f64| assert!(kappa < 0.1, "seed {seed}: {kappa}");
        nearly_none(learnt(&|_| 1.0, &|_| 1.0));
        nearly_none(learnt(&|_| 5.0, &|_| 1.0));
        nearly_none(learnt(&|secs| if secs < 300 { 1.0 } else { 5.0 }, &|_| 1.0));
        nearly_none(learnt(&|secs| burst(secs, 0), &|secs| burst(secs, 0)));
        // Each arm's own.
        let own = residual(none, seed, |secs| burst(secs, 0), |secs| burst(secs, 15));
        assert!(own.kappa_secs > 1.0, "seed {seed}: {own:?}");
        assert_eq!(own.origin, Origin::Analysis { history_secs: 0.0, secs: 900.0 });

        // A past that was noisy: what both arms share is taken back, what is their own is not.
        let shared = residual(noisy, seed, |secs| burst(secs, 0), |secs| burst(secs, 0));
        assert!(shared.kappa_secs < 10.0, "seed {seed}: {shared:?}");
        assert!(matches!(shared.origin, Origin::Analysis { history_secs: 3600.0, .. }));
        let own = residual(noisy, seed, |secs| burst(secs, 0), |secs| burst(secs, 15));
        assert!(own.kappa_secs >= 20.0, "seed {seed}: {own:?}");
    }
}

/// Through the analysis: the factor and its origin are in the finding, and a measured past makes a
/// noisy service wait where a quiet one is rolled back.
#[test]
fn findings_say_which_noise_was_used() {
    let set = rules(&["when: errors > 1.5x baseline, then: rollback"]);
    let found = |calibration: &Calibration| {
        let mut analysis = Analysis::calibrated(set.clone(), START, calibration);
        let mut last = None;
        for secs in 1..=30 {
            let mut observation = healthy(secs);
            observation.signals[ERRORS].canary = share(6.0, 100.0);
            let step = analysis.step(&observation);
            let Progress::Evidence { noise, .. } = step.findings[0].clauses[0].progress else {
                panic!("{:?}", step.findings[0]);
            };
            last = Some((noise, step.verdict));
            if step.verdict != Verdict::Watching {
                break;
            }
        }
        last.unwrap()
    };
    let (noise, verdict) = found(&Calibration::default());
    assert_eq!((noise.origin, noise.kappa_secs), (Origin::Prior, KAPPA_PRIOR_SECS));
    // By hand: 1 % of 100 requests a second in both arms, 1 + 2 * 0.25 * 1 / 2, a little less as
    // "none so far" counts half an event.
    assert!((1.2..1.3).contains(&noise.factor), "{noise:?}");
    assert_eq!(verdict, Verdict::Rollback { rule: 0 });

    let quiet = calibrate(&set, &past(1, 3600, |n| bursty(n, 100.0, false)), Duration::ZERO);
    let (noise, verdict) = found(&quiet);
    assert_eq!((noise.factor, noise.origin), (1.0, Origin::History { secs: 3600.0 }));
    assert_eq!(verdict, Verdict::Rollback { rule: 0 });

    let noisy = calibrate(&set, &past(1, 3600, |n| bursty(n, 100.0, true)), Duration::ZERO);
    let (noise, verdict) = found(&noisy);
    assert!(noise.factor > 10.0, "{noise:?}");
    assert_eq!(verdict, Verdict::Watching);
}

/// Data that nobody would call traffic has an outcome that is said, and none is a rollback.
#[test]
fn scarce_data_is_said_to_be_scarce() {
    let set = rules(&["when: errors > 1.5x baseline, then: rollback"]);
    let nothing = || missing(Why::NoTraffic);
    let run = |canary: &dyn Fn(u64) -> Reading,
               baseline: &dyn Fn(u64) -> Reading,
               at: &dyn Fn(u64) -> i64| {
        let mut analysis = Analysis::new(set.clone(), START);
        let mut step = None;
        for secs in 1..=59 {
            let mut observation = healthy(secs);
            observation.at = Time(START.0 + at(secs) * 1000);
            observation.signals[ERRORS] = Pair::new(canary(secs), baseline(secs));
            let now = analysis.step(&observation);
            assert!(!matches!(now.verdict, Verdict::Rollback { .. }), "at {secs} s");
            step = Some(now);
        }
        let step = step.unwrap();
        (step.findings[0].state, step.findings[0].clauses[0].missing.clone())
    };
    let steady = |secs: u64| i64::try_from(secs).unwrap();
    let (state, why) = run(&|_| share(1.0, 100.0), &|_| nothing(), &steady);
    assert_eq!(state, State::NotEnoughData);
    assert_eq!(why.unwrap().detail, "baseline");

    // One request a minute cannot be clear of anything.
    let rare = |secs: u64| if secs == 30 { share(0.0, 1.0) } else { nothing() };
    let (state, why) = run(&rare, &|_| share(1.0, 100.0), &steady);
    assert_eq!(state, State::NotEnoughData);
    assert!(why.is_some());

    // A baseline without errors, and a canary whose errors stay below the floor.
    let few = |secs: u64| share(f64::from(u8::from(secs.is_multiple_of(20))), 100.0);
    let (state, why) = run(&few, &|_| share(0.0, 100.0), &steady);
    assert_eq!((state, why), (State::Clear, None));

    // Clocks that jump back an hour and forward again.
    let jumping = |secs: u64| steady(secs) + if (20..30).contains(&secs) { -3600 } else { 0 };
    let (state, _) = run(&|_| share(1.0, 100.0), &|_| share(1.0, 100.0), &jumping);
    assert_eq!(state, State::Clear);
}
