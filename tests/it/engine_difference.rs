//! More than the baseline plus an amount, less than it minus one: against numbers of another program,
//! by the promise itself, and as rules judge it through `Analysis::step`.
//!
//! `tests/cases/golden_difference.json` is written by `golden_difference.py` beside it, which takes
//! likelihood ratios against the nearest pair of rates that the null has. The check that the bets
//! pass must fail one that takes the baseline's rate for known, or it would prove nothing.

use std::path::Path;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::engine::{
    difference::{
        DifferenceEvidence, DifferenceTerms, Greater, Rates, growth, log_likelihood, stake,
    },
    evidence::{Counts, EFFECTS},
    observation::{Observation, Pair, Value, Why},
    verdict::{
        EffectKind,
        State::{Clear, Fires, NotEnoughData},
    },
    wager::{Beyond, LimitTerms, LimitWager, RatioWager, Terms},
};
use serde::Deserialize;

use super::{
    engine_false_alarms::{Law, alarms_max, plausible},
    engine_rules::{
        ALWAYS, ERRORS, P95, POOL, REQUESTS, canary, check, events, histogram, judge, missing,
        rules, share, slow, unchanged,
    },
};

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    amount: f64,
    floor: f64,
    horizon: u32,
    noise: f64,
    usual: f64,
    greater: String,
    /// Canary's events and requests, baseline's events and requests.
    looks: Vec<[f64; 4]>,
    ln_e: Vec<f64>,
}

fn counts([canary_events, canary_total, baseline_events, baseline_total]: [f64; 4]) -> Counts {
    Counts { canary_events, canary_total, baseline_events, baseline_total }
}

#[test]
fn evidence_equals_the_reference_at_every_look() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/golden_difference.json");
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(golden.cases.len() >= 7, "{} cases", golden.cases.len());
    for case in golden.cases {
        let mut evidence = DifferenceEvidence::new(case.amount, case.floor, case.horizon);
        let greater = if case.greater == "canary" { Greater::Canary } else { Greater::Baseline };
        let usual = Some(case.usual);
        let terms = DifferenceTerms { greater, noise: case.noise, floor_noise: case.noise, usual };
        assert_eq!(case.looks.len(), case.ln_e.len());
        for (number, (look, expected)) in case.looks.iter().zip(&case.ln_e).enumerate() {
            let found = evidence.step(&counts(*look), &terms);
            let close = (found - expected).abs() <= 1e-8 * (1.0 + expected.abs());
            assert!(close, "{} look {number}: {found}, expected {expected}", case.name);
        }
    }
}

/// An amount of nothing is a multiple of one: the same bets to the last digits.
#[test]
fn no_amount_is_once_the_baseline() {
    let mut random = StdRng::seed_from_u64(4);
    let mut evidence = DifferenceEvidence::new(0.0, 0.0, 180);
    let mut ratio = RatioWager::new(180);
    for look in 0..300 {
        let mut number = |below: u32| f64::from(random.random_range(0..below));
        let look_counts = counts([number(9), 20.0 + number(50), number(7), 20.0 + number(90)]);
        let (noise, usual) = (1.3, Some(0.05));
        let terms = DifferenceTerms { greater: Greater::Canary, noise, floor_noise: 1.0, usual };
        let found = evidence.step(&look_counts, &terms);
        let expected = ratio.step(&look_counts, &Terms { margin: 1.0, noise, usual });
        assert!((found - expected).abs() < 1e-9 * (1.0 + expected.abs()), "look {look}");
    }
}

/// The stake against a search by hand: no other grows faster, and it is one that can be paid.
#[test]
fn no_stake_grows_faster() {
    let mut random = StdRng::seed_from_u64(5);
    for draw in 0..2_000 {
        let mut between = |low: f64, high: f64| low * (high / low).powf(random.random::<f64>());
        let (greater_total, lesser_total) = (between(0.5, 1e5), between(0.5, 1e5));
        let (lesser, amount) = (between(1e-5, 2.0), between(1e-5, 2.0));
        let greater = (lesser + amount) * between(1.01, 60.0);
        let rates = Rates { greater, lesser };
        let best = stake(greater_total, lesser_total, rates, amount);
        assert!(best > 0.0 && best < lesser_total, "draw {draw}: {best}");
        let grows = |stake: f64| {
            greater_total * greater * (stake / greater_total).ln_1p()
                + lesser_total * lesser * (-stake / lesser_total).ln_1p()
                - stake * amount
        };
        assert!((growth(greater_total, lesser_total, rates, amount) - grows(best)).abs() < 1e-9);
        for other in 1..200 {
            let other = lesser_total * f64::from(other) / 200.0;
            assert!(grows(other) <= grows(best) + 1e-9 * grows(best).abs(), "draw {draw}: {other}");
        }
    }
    let alike = Rates { greater: 0.1, lesser: 0.1 };
    assert_eq!(stake(100.0, 100.0, alike, 0.01), 0.0, "within the null nothing is bet");
    assert_eq!(growth(100.0, 0.0, alike, 0.01), 0.0);
}

/// Probabilities of 0, 1, ... events in `total`, of Poisson's law or the binomial one.
fn law(total: u32, rate: f64, poisson: bool) -> Vec<f64> {
    let n = f64::from(total);
    let zero = if poisson { (-n * rate).exp() } else { (1.0 - rate).powf(n) };
    let mut term = zero;
    let last = if poisson { total * 3 + 60 } else { total };
    (0..=last)
        .map(|k| {
            let found = term;
            let k = f64::from(k);
            term *= match poisson {
                true => n * rate / (k + 1.0),
                false => (n - k) / (k + 1.0) * rate / (1.0 - rate),
            };
            found
        })
        .collect()
}

/// What a bet is worth on average, when the arms' rates are these.
fn expectation(
    totals: [u32; 2],
    rates: [f64; 2],
    poisson: bool,
    pays: impl Fn(&Counts) -> f64,
) -> f64 {
    let [canary, baseline] = [0, 1].map(|arm| law(totals[arm], rates[arm], poisson));
    let mut sum = 0.0;
    for (x_c, p_c) in canary.iter().enumerate() {
        for (x_b, p_b) in baseline.iter().enumerate() {
            let look = [x_c as f64, f64::from(totals[0]), x_b as f64, f64::from(totals[1])];
            sum += p_c * p_b * pays(&counts(look));
        }
    }
    sum
}

/// Whatever the baseline's rate is and whatever is bet on, no bet of the null pays more than it costs:
/// by summing over everything that can happen. A bet that takes the baseline's rate for known does.
#[test]
fn no_bet_of_the_null_pays_more_than_it_costs() {
    let mut random = StdRng::seed_from_u64(6);
    let mut broken: f64 = 0.0;
    for draw in 0..120 {
        let totals = [random.random_range(1..40), random.random_range(1..40)];
        let (amount, lesser) = (random.random::<f64>() * 0.3, random.random::<f64>() * 0.5);
        // At the bound, or somewhere within it.
        let within = if draw % 3 == 0 { random.random::<f64>() } else { 1.0 };
        let truth = [(lesser + amount) * within, lesser];
        let believed = random.random::<f64>() * 0.5 + 1e-6;
        for effect in EFFECTS {
            let bet = Rates { greater: effect * (believed + amount), lesser: believed };
            let noise = if draw % 2 == 0 { 1.0 } else { 2.5 };
            for poisson in [true, false] {
                let pays = |look: &Counts| (log_likelihood(look, bet, amount) / noise).exp();
                let mean = expectation(totals, truth, poisson, pays);
                assert!(mean <= 1.0 + 1e-9, "draw {draw}, effect {effect}: {mean}");
            }
        }
        let limit = believed + amount;
        let known =
            |look: &Counts| (look.canary_events * 2f64.ln() - look.canary_total * limit).exp();
        broken = broken.max(expectation(totals, truth, true, known));
    }
    assert!(broken > 1.5, "{broken}");
}

const RUNS: usize = 1_000;

/// Alarms of 300 looks at arms that are exactly as far apart as is allowed, with all the learning that
/// a rule does.
fn alarms(alarm: impl Fn(u64, [f64; 4]) -> bool + Sync) -> (usize, bool) {
    plausible(RUNS, 0.01, |seed| {
        // Canary's and baseline's requests a look, the baseline's rate, the amount.
        let (n_c, n_b, rate, amount) = match seed % 4 {
            0 => (20.0, 60.0, 0.002, 0.01),
            1 => (100.0, 100.0, 0.02, 0.005),
            2 => (10.0, 190.0, 0.0, 0.02),
            _ => (60.0, 20.0, 0.1, 0.1),
        };
        alarm(seed, [n_c, n_b, rate, amount])
    })
}

fn look_at(random: &mut StdRng, laws: &[Law; 2], totals: [f64; 2]) -> Counts {
    counts([laws[0].draw(random), totals[0], laws[1].draw(random), totals[1]])
}

#[test]
fn exactly_as_far_apart_as_allowed_is_no_alarm() {
    let run = |seed: u64, [n_c, n_b, rate, amount]: [f64; 4], plug_in: bool| {
        let mut random = StdRng::seed_from_u64(seed);
        let laws = [Law::poisson(n_c * (rate + amount)), Law::poisson(n_b * rate)];
        let mut evidence = DifferenceEvidence::new(amount, 0.0, 300);
        let mut limit = LimitWager::new(Beyond::Above, 300);
        let mut before = [0.0; 2];
        (0..300).any(|_| {
            let look = look_at(&mut random, &laws, [n_c, n_b]);
            let usual = (before[1] > 0.0).then(|| (before[0] + 0.5) / before[1]);
            before = [before[0] + look.baseline_events, before[1] + look.baseline_total];
            let value = if plug_in {
                // Takes what the baseline has shown for the truth.
                let limit_rate = before[0] / before[1] + amount;
                let terms = LimitTerms { limit: limit_rate, noise: 1.0, usual };
                limit.step(look.canary_events, look.canary_total, &terms)
            } else {
                let greater = Greater::Canary;
                let terms = DifferenceTerms { greater, noise: 1.0, floor_noise: 1.0, usual };
                evidence.step(&look, &terms)
            };
            value >= -f64::ln(0.01)
        })
    };
    let (found, is_plausible) = alarms(|seed, arms| run(seed, arms, false));
    println!("{found} of {RUNS} at the bound, {} allowed", alarms_max(RUNS, 0.01));
    assert!(is_plausible, "{found} of {RUNS} at the bound");
    let (planted, is_plausible) = alarms(|seed, arms| run(seed, arms, true));
    println!("{planted} of {RUNS} where the baseline's rate is taken for known");
    assert!(
        !is_plausible,
        "the check did not see {planted} of {RUNS} of a process that is invalid"
    );
}

/// Whatever is observed, evidence stays a number.
#[test]
fn no_counts_poison_the_evidence() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let amount = random.random::<f64>() * 0.1;
        let mut evidence = DifferenceEvidence::new(amount, random.random::<f64>() * 0.1, 100);
        let greater = if seed % 2 == 0 { Greater::Canary } else { Greater::Baseline };
        for look in 0..200 {
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
            let terms = DifferenceTerms { greater, noise: 1.5, floor_noise: 1.2, usual };
            let found = evidence.step(&look_counts, &terms);
            assert!(found.is_finite(), "seed {seed} look {look}: {found} after {look_counts:?}");
        }
    }
}

#[test]
fn shares_and_rates_are_judged_by_an_amount() {
    let errors = |failed: f64| canary(ERRORS, 20..99, share(failed, 100.0));
    // One in a hundred on both sides before the 20th second.
    check("errors > baseline + 3%", errors(15.0), &[(19, Clear), (40, Fires)]);
    check("errors > baseline + 3%", errors(4.0), &[(1, Clear), (98, Clear)]);
    check("errors > baseline + 3%", unchanged, &[(99, Clear)]);
    check("errors > baseline + 0%", errors(10.0), &[(19, Clear), (40, Fires)]);
    check("errors >= baseline + 3%", errors(15.0), &[(40, Fires)]);
    let both_bad = |secs: u64, observation: &mut Observation| {
        if secs > 20 {
            let bad = share(20.0, 100.0);
            observation.signals[ERRORS] = Pair::new(bad.clone(), bad);
        }
    };
    check("errors > baseline + 3%", both_bad, &[(99, Clear)]);
    // Less than an amount that is below the floor: nobody is worse off.
    let below_floor = |_: u64, observation: &mut Observation| {
        observation.signals[ERRORS] = Pair::new(share(1.0, 2000.0), share(0.0, 2000.0));
    };
    check("errors > baseline + 0.01%", below_floor, &[(99, Clear)]);
    let silent = |_: u64, observation: &mut Observation| {
        observation.signals[ERRORS].baseline = missing(Why::ScrapeFailed);
    };
    check("errors > baseline + 3%", silent, &[(99, NotEnoughData)]);
    check(
        "requests > baseline + 50/s",
        canary(REQUESTS, 20..99, events(400.0)),
        &[(19, Clear), (60, Fires)],
    );
    check("requests > baseline + 50/s", canary(REQUESTS, 20..99, events(140.0)), &[(98, Clear)]);
    check(
        "requests < baseline - 20/s",
        canary(REQUESTS, 20..99, events(5.0)),
        &[(19, Clear), (60, Fires)],
    );
    check("requests < baseline - 20/s", canary(REQUESTS, 20..99, events(85.0)), &[(98, Clear)]);
    // The baseline has not so much that the canary could fall short of it by this.
    check("requests < baseline - 200/s", canary(REQUESTS, 20..99, events(0.0)), &[(98, Clear)]);
}

/// Shares that are nearly all, and shares that are hardly any, in both directions.
#[test]
fn what_is_rarer_is_counted() {
    let both = |secs: u64, observation: &mut Observation, old: f64, new: f64| {
        let of = |events| share(events, 100.0);
        let new = if secs >= 20 { new } else { old };
        observation.signals[ERRORS] = Pair::new(of(new), of(old));
    };
    for (rule, old, far, near) in [
        ("errors < baseline - 5%", 95.0, 80.0, 91.0),
        ("errors < baseline - 5%", 20.0, 5.0, 17.0),
        ("errors > baseline + 5%", 80.0, 97.0, 84.0),
        ("errors > baseline + 5%", 5.0, 20.0, 9.0),
    ] {
        let scene = |new: f64| move |secs: u64, it: &mut Observation| both(secs, it, old, new);
        check(rule, scene(far), &[(19, Clear), (98, Fires)]);
        check(rule, scene(near), &[(19, Clear), (98, Clear)]);
    }
}

#[test]
fn levels_and_quantiles_are_judged_by_an_amount() {
    let level = |level: f64| canary(POOL, ALWAYS, Ok(Value::Level(level)));
    check("pool > baseline + 10", level(115.0), &[(19, NotEnoughData), (300, Fires)]);
    check("pool > baseline + 10", level(109.0), &[(300, Clear)]);
    check("pool < baseline - 10", level(85.0), &[(300, Fires)]);
    check("pool < baseline - 10", level(95.0), &[(300, Clear)]);
    check("p95 > baseline + 100ms", canary(P95, 20..99, slow()), &[(19, Clear), (60, Fires)]);
    check("p95 > baseline + 250ms", canary(P95, 20..99, slow()), &[(98, Clear)]);
    check("p95 > baseline + 20ms", unchanged, &[(3, NotEnoughData), (99, Clear)]);
    let was_slow = |_: u64, observation: &mut Observation| {
        observation.signals[P95].baseline = slow();
    };
    check("p95 < 0.8x baseline", was_slow, &[(3, NotEnoughData), (60, Fires)]);
    check("p95 < baseline - 100ms", was_slow, &[(60, Fires)]);
    check("p95 < 0.8x baseline", unchanged, &[(99, Clear)]);
    check("p95 < baseline - 20ms", canary(P95, 20..99, slow()), &[(98, Clear)]);
}

/// Nothing at all is a value, as long as somebody is there to say so: no traffic is too little.
#[test]
fn too_little_is_found_and_nothing_known_is_not_too_little() {
    let falls = |to: f64| canary(REQUESTS, 20..ALWAYS.end, events(to));
    check("requests < 50/s", falls(0.0), &[(19, Clear), (25, Fires)]);
    check("requests <= 50/s", falls(20.0), &[(19, Clear), (60, Fires)]);
    check("requests < 50/s", falls(55.0), &[(99, Clear)]);
    check("requests < 100/s", unchanged, &[(99, Clear)]);
    for why in [Why::ScrapeFailed, Why::AbsentSeries, Why::NoTraffic] {
        let gone = canary(REQUESTS, 20..ALWAYS.end, missing(why));
        check("requests < 50/s", gone, &[(19, Clear), (99, NotEnoughData)]);
    }
    check("p95 < 300ms", unchanged, &[(30, Fires)]);
    // Judged at the edge below, beyond which one request in fifty is; a lower one has 15 of them.
    check("p95 < 250ms", unchanged, &[(30, Fires)]);
    check("p95 < 150ms", unchanged, &[(99, Clear)]);
    check("p95 < 300ms", canary(P95, ALWAYS, slow()), &[(99, Clear)]);
    // Not one edge is as low as that.
    check("p95 < 50ms", unchanged, &[(99, NotEnoughData)]);
    // All requests in the lowest bucket, whose edge is the limit.
    let instant = histogram(&[0.1, 0.2, 0.3, 0.4], &[100.0, 0.0, 0.0, 0.0, 0.0]);
    check("p95 < 100ms", canary(P95, ALWAYS, instant), &[(30, Fires)]);
}

#[test]
fn the_finding_says_what_it_rests_on() {
    let rules = rules(&["when: errors > baseline + 3%, then: rollback"]);
    let steps = judge(rules, 40, canary(ERRORS, 20..99, share(15.0, 100.0)));
    let found = &steps[39].findings[0].clauses[0];
    let (baseline, bound) =
        (found.baseline.expect("it compares"), found.bound.expect("it has one"));
    assert!((bound - baseline - 0.03).abs() < 1e-12);
    let effect = found.effect.expect("how far apart they are");
    assert_eq!(effect.kind, EffectKind::RateRatio);
    assert!(effect.low > 1.0 && effect.estimate > 5.0, "{effect:?}");
}
