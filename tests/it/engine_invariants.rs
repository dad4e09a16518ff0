//! The invariants the engine answers for: 1 (same observations, same verdict), 3 (missing data
//! decides nothing), 5 (a look costs the same).

use std::fmt::Write;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::engine::{
    analysis::Analysis,
    observation::{Missing, Observation, Pair, Time, Why},
    verdict::{Step, Verdict},
};

use super::engine_rules::{EVERY_FORM, START, any_reading, healthy, missing, rules};

/// Observations of all kinds, seconds apart.
fn any_looks(seed: u64, looks: u64) -> Vec<Observation> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut look = |secs| {
        let mut observation = healthy(secs);
        for pair in &mut observation.signals {
            if random.random_bool(0.3) {
                pair.canary = any_reading(&mut random);
            }
            if random.random_bool(0.1) {
                pair.baseline = any_reading(&mut random);
            }
        }
        observation
    };
    (1..=looks).map(&mut look).collect()
}

/// Every bit of a step: its debug text writes each number so that it reads back the same.
fn bits(step: &Step) -> String {
    format!("{step:?}")
}

#[test]
fn invariant_1_same_observations_same_verdict() {
    let every = rules(&EVERY_FORM);
    for seed in 0..40 {
        let looks = any_looks(seed, 130);
        let mut first = Analysis::new(every.clone(), START);
        // A second analysis, of rules read anew, and one that goes on from a copy midway.
        let mut second = Analysis::new(rules(&EVERY_FORM), START);
        let mut copy = None;
        for (number, look) in looks.iter().enumerate() {
            if number == looks.len() / 2 {
                copy = Some(first.clone());
            }
            let step = bits(&first.step(look));
            assert_eq!(step, bits(&second.step(look)), "seed {seed} look {number}");
            if let Some(copy) = &mut copy {
                assert_eq!(step, bits(&copy.step(look)), "copy, seed {seed} look {number}");
            }
        }
    }
}

#[test]
fn invariant_3_missing_data_alone_never_promotes_and_never_rolls_back() {
    let every = rules(&EVERY_FORM);
    for seed in 0..100 {
        let mut random = StdRng::seed_from_u64(seed);
        // Any subset of the rules but the empty one.
        let mut chosen = (*every).clone();
        chosen.rules.retain(|_| random.random_bool(0.3));
        if chosen.rules.is_empty() {
            chosen.rules.push(every.rules[seed as usize % every.rules.len()].clone());
        }
        let mut analysis = Analysis::new(chosen.into(), START);
        for secs in 1..=130 {
            let mut none = || missing(Why::ALL[random.random_range(0..Why::ALL.len())]);
            let mut observation = healthy(secs);
            for pair in &mut observation.signals {
                *pair = Pair::new(none(), none());
            }
            match analysis.step(&observation).verdict {
                Verdict::Watching => assert!(secs < 120, "seed {seed}: watching at {secs}"),
                Verdict::Inconclusive { .. } => assert!(secs >= 120, "seed {seed} at {secs}"),
                other => panic!("seed {seed}: {other} at {secs} s without any data"),
            }
        }
    }
}

#[test]
fn invariant_3_holes_in_healthy_data_never_roll_back_and_block_promotion() {
    // Rules that a healthy service keeps clear.
    let calm: Vec<&str> =
        EVERY_FORM.into_iter().filter(|rule| !rule.contains("requests > 1000")).collect();
    let calm = rules(&calm);
    for seed in 0..100 {
        let mut random = StdRng::seed_from_u64(seed);
        let share = random.random_range(0.0..1.0);
        let mut analysis = Analysis::new(calm.clone(), START);
        for secs in 1..=119 {
            let mut observation = healthy(secs);
            let mut silent = false;
            for pair in &mut observation.signals {
                if random.random_bool(share) {
                    pair.canary = missing(Why::ScrapeFailed);
                    silent = true;
                }
                if random.random_bool(share) {
                    pair.baseline = missing(Why::Stale);
                }
            }
            if random.random_bool(0.1) {
                observation.canary_gap = Some(Missing::new(Why::Stale, "one of two"));
                silent = true;
            }
            let verdict = analysis.step(&observation).verdict;
            assert!(
                matches!(verdict, Verdict::Watching | Verdict::Promote),
                "seed {seed}: {verdict} at {secs} s"
            );
            assert!(
                verdict == Verdict::Watching || !silent,
                "seed {seed}: promoted at {secs} s while a signal of the canary was missing"
            );
        }
    }
}

/// Memory stands for cost here: a step walks all of its state and nothing else. The bench
/// `engine` measures the time itself.
#[test]
fn invariant_5_state_does_not_grow_with_looks() {
    let mut analysis = Analysis::new(rules(&EVERY_FORM), START);
    let mut sizes = Vec::new();
    for secs in 1..=3600 {
        analysis.step(&healthy(secs));
        if secs % 60 == 0 {
            // Every field and element of the state is followed by one comma in its alternate
            // debug form, whatever its digits.
            let mut text = String::new();
            write!(text, "{analysis:#?}").unwrap();
            sizes.push(text.matches(",\n").count());
        }
    }
    assert_eq!(sizes.len(), 60);
    assert!(sizes[0] > 100, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size == sizes[0]), "{sizes:?}");
}

/// A look an hour late, or two at one moment, still counts once; time never runs backwards in it.
#[test]
fn elapsed_time_is_never_negative() {
    let mut analysis = Analysis::new(rules(&EVERY_FORM), START);
    let mut early = healthy(1);
    early.at = Time(START.0 - 5_000);
    let step = analysis.step(&early);
    assert_eq!((step.look, step.elapsed.as_secs()), (1, 0));
}
