//! The operating characteristics of what ships: how often a healthy release is rolled back, how soon
//! a bad one is found, and how far that is from the theoretical limit; two styles of other judges on
//! the same data; and the committed recordings.
//!
//! `cargo bench --bench operating_characteristics` writes `benches/operating_characteristics.md` and
//! fails when a required figure is not reached and not explained. `ROLLGATE_SEED` repeats a run to
//! the last digit on any machine; `ROLLGATE_RUNS` makes a short one, which is printed and not kept.

mod bound;
mod markdown;
mod peers;
mod recordings;
mod requirements;
mod rows;
mod runs;

use std::{path::Path, time::Instant};

use markdown::Page;
use requirements::{Requirement, Standing};
use runs::Plan;

/// The seed of the committed page.
const SEED: u64 = 3;

/// Runs for rates, and for delays.
const FALSE_RUNS: usize = 10_000;
const FOUND_RUNS: usize = 1_000;

/// Runs that the peers see, an hour each: the first of ours.
const PEER_RUNS: usize = 500;

fn main() {
    // `cargo test --benches` starts every bench without this argument.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let number = |name: &str| -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, expected a number")))
    };
    let seed = number("ROLLGATE_SEED").unwrap_or(SEED);
    let short = number("ROLLGATE_RUNS").map(|runs| usize::try_from(runs).expect("a count").max(20));
    let plan = Plan {
        seed,
        is_short: short.is_some(),
        false_runs: short.unwrap_or(FALSE_RUNS),
        found_runs: short.unwrap_or(FOUND_RUNS).min(FOUND_RUNS),
        peer_runs: short.unwrap_or(PEER_RUNS).min(PEER_RUNS),
    };
    let begin = Instant::now();
    eprintln!("seed {seed}; repeat with ROLLGATE_SEED={seed}");
    let healthy: Vec<_> = rows::healthy().iter().map(|row| runs::healthy(row, &plan)).collect();
    let faulty: Vec<_> = rows::faulty().iter().map(|row| runs::faulty(row, &plan)).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recordings = recordings::judge_all(root);
    let requirements = requirements::all(&healthy, &faulty, &recordings);
    let page = Page { plan, healthy, faulty, recordings, requirements };
    let text = page.to_string();
    if short.is_some() {
        println!("{text}");
    } else {
        std::fs::write(root.join("benches/operating_characteristics.md"), &text)
            .expect("the page can be written");
    }
    eprintln!("{:.0} s in all", begin.elapsed().as_secs_f64());

    let failed: Vec<&Requirement> = page
        .requirements
        .iter()
        .filter(|requirement| matches!(requirement.standing, Standing::Missed { why: None }))
        .collect();
    for requirement in &failed {
        eprintln!(
            "not reached: {}: {} (required {})",
            requirement.figure, requirement.reached, requirement.required
        );
    }
    // A short run proves nothing either way.
    assert!(failed.is_empty() || short.is_some(), "{} figures are not reached", failed.len());
}
