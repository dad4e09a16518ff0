//! How often healthy pairs of series are called apart, and how soon sick ones, over values that hang
//! together in time: first-order autoregressive, alone or below as much white noise.
//!
//! What is published in the manual is asserted here, with room for chance.

use rand::{SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, StandardNormal};
use rollgate::engine::series::Pairs;

/// Pairs of series of each kind.
const RUNS: usize = 2_000;

struct Kind {
    steps: usize,
    /// Correlation of neighbours.
    hold: f64,
    /// Share of the variance that is white noise.
    white: f64,
}

/// A series of mean 0 and variance 1.
fn series(kind: &Kind, random: &mut StdRng) -> Vec<Option<f64>> {
    let mut normal = || -> f64 { StandardNormal.sample(random) };
    let mut held = normal();
    let (slow, fast) = ((1.0 - kind.white).sqrt(), kind.white.sqrt());
    (0..kind.steps)
        .map(|_| {
            held = kind.hold * held + (1.0 - kind.hold * kind.hold).sqrt() * normal();
            Some(100.0 + slow * held + fast * normal())
        })
        .collect()
}

fn is_apart(control: &[Option<f64>], experiment: &[Option<f64>]) -> bool {
    Pairs::new(control, experiment)
        .beyond(0.0)
        .is_ok_and(|apart| apart.low > 0.0 || apart.high < 0.0)
}

/// Shares of runs that are called apart at the end, and at any of six looks at a growing window.
fn alarms(kind: &Kind, shift: impl Fn(usize) -> f64) -> (f64, f64) {
    let mut random = StdRng::seed_from_u64(17);
    let (mut at_the_end, mut ever) = (0, 0);
    for _ in 0..RUNS {
        let control = series(kind, &mut random);
        let mut experiment = series(kind, &mut random);
        for (step, value) in experiment.iter_mut().enumerate() {
            *value = value.map(|value| value + shift(step));
        }
        let looks = (1..=6).map(|look| kind.steps * look / 6).filter(|steps| *steps >= 4);
        let found: Vec<bool> =
            looks.map(|steps| is_apart(&control[..steps], &experiment[..steps])).collect();
        at_the_end += usize::from(found.last() == Some(&true));
        ever += usize::from(found.contains(&true));
    }
    (at_the_end as f64 / RUNS as f64, ever as f64 / RUNS as f64)
}

fn table(shift: impl Fn(usize) -> f64 + Copy, check: impl Fn(&Kind, f64, f64)) {
    for white in [0.0, 0.5] {
        for steps in [60, 180] {
            for hold in [0.0, 0.5, 0.7, 0.8, 0.9] {
                let kind = Kind { steps, hold, white };
                let (once, ever) = alarms(&kind, shift);
                println!("{steps} steps, r {hold}, white {white}: {once:.4} {ever:.4}");
                check(&kind, once, ever);
            }
        }
    }
}

#[test]
fn healthy_pairs_are_seldom_called_apart() {
    table(
        |_| 0.0,
        |kind, once, ever| {
            let Kind { steps, hold, white } = kind;
            let (once_max, ever_max) = match (*hold <= 0.5, *white > 0.0) {
                (true, _) => (0.005, 0.015),
                (false, false) => (0.01, 0.08),
                (false, true) => (0.06, 0.16),
            };
            assert!(once <= once_max, "{steps} steps, r {hold}, white {white}: {once}");
            assert!(ever <= ever_max, "{steps} steps, r {hold}, white {white}: {ever} ever");
        },
    );
}

/// A shift of four standard deviations from the first step on, and one of six from half way on.
#[test]
fn shifted_pairs_are_found() {
    let at = |hold: f64| Kind { steps: 60, hold, white: 0.0 };
    for (hold, share) in [(0.0, 0.99), (0.5, 0.95), (0.7, 0.5)] {
        let (found, _) = alarms(&at(hold), |_| 4.0);
        assert!(found >= share, "r {hold}: {found}");
    }
    for (hold, share) in [(0.0, 0.8), (0.3, 0.2)] {
        let (found, _) = alarms(&at(hold), |step| if step < 30 { 0.0 } else { 6.0 });
        assert!(found >= share, "half way, r {hold}: {found}");
    }
    // A load that rises for both by ten standard deviations hides nothing.
    let mut random = StdRng::seed_from_u64(3);
    let (mut apart, mut alike) = (0, 0);
    for _ in 0..200 {
        let rising = |random: &mut StdRng, more: f64| -> Vec<Option<f64>> {
            let own = series(&at(0.3), random).into_iter().enumerate();
            own.map(|(step, value)| Some(value? + step as f64 / 6.0 + more)).collect()
        };
        let control = rising(&mut random, 0.0);
        alike += usize::from(is_apart(&control, &rising(&mut random, 0.0)));
        apart += usize::from(is_apart(&control, &rising(&mut random, 4.0)));
    }
    assert!(alike <= 3 && apart >= 180, "{alike} {apart}");
}
