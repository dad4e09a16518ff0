//! What a promotion promises in numbers: intervals cover the truth at all looks together, a release
//! beyond its margin is promoted no more often than stated, and one that is as good as the old
//! version is shown to be so in about the time that planning tells.
//!
//! Seeded simulation. The check that passes the profiles must fail a variant that is known to be
//! invalid, or it would prove nothing: an interval that holds for one look at a time, and one that
//! takes no notice of noise.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::engine::{
    calibration::SignalCalibration,
    evidence::Counts,
    noise::comparison_noise,
    profile::{CONFIDENCE, ConstantProof, RateProfile, Side},
    promotion::{Traffic, time_to_show},
    quantile_profile::QuantileProfile,
    rule::{Better, Margin},
};

use super::engine_false_alarms::{Law, Service, Source, plausible};

const LOOKS: usize = 400;

/// Two arms of Poisson events, a second a look.
struct Arms {
    canary_per_sec: f64,
    baseline_per_sec: f64,
    event_share: f64,
    /// Canary's event rate over the baseline's.
    ratio: f64,
    /// Log-normal noise of each arm's rate: standard deviation, and correlation time in seconds.
    noise: Option<(f64, f64)>,
}

impl Arms {
    /// Noise intensity: the integral of the log rate's autocovariance, over both signs of the lag.
    fn kappa_secs(&self) -> f64 {
        self.noise.map_or(0.0, |(sigma, secs)| 2.0 * sigma * sigma * secs)
    }

    fn looks(&self, seed: u64) -> impl Iterator<Item = Counts> {
        let mut random = StdRng::seed_from_u64(seed);
        let of = |per_sec: f64, share: f64| per_sec * share;
        let means = [
            of(self.canary_per_sec, self.event_share * self.ratio),
            of(self.baseline_per_sec, self.event_share),
        ];
        let totals = [self.canary_per_sec, self.baseline_per_sec];
        let fixed = means.map(Law::poisson);
        let noise = self.noise;
        let mut state = [0, 1].map(|_| normal(&mut random));
        (0..LOOKS).map(move |_| {
            let events = match noise {
                None => [fixed[0].draw(&mut random), fixed[1].draw(&mut random)],
                Some((sigma, secs)) => [0, 1].map(|arm| {
                    let keep = (-1.0 / secs).exp();
                    state[arm] =
                        keep * state[arm] + (1.0 - keep * keep).sqrt() * normal(&mut random);
                    let factor = (sigma * state[arm] - 0.5 * sigma * sigma).exp();
                    Law::poisson(means[arm] * factor).draw(&mut random)
                }),
            };
            Counts {
                canary_events: events[0],
                canary_total: totals[0],
                baseline_events: events[1],
                baseline_total: totals[1],
            }
        })
    }

    fn phi(&self) -> f64 {
        let of = |per_sec: f64| per_sec * self.event_share;
        comparison_noise(self.kappa_secs(), of(self.canary_per_sec), of(self.baseline_per_sec))
    }
}

fn normal(random: &mut StdRng) -> f64 {
    let (a, b): (f64, f64) = (random.random(), random.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// Whether the interval misses the truth at any look.
fn misses(arms: &Arms, phi: f64, seed: u64) -> bool {
    let mut profile = RateProfile::new(None);
    arms.looks(seed).any(|counts| {
        profile.step(&counts, phi);
        profile.interval().is_some_and(|it| !(it.low..=it.high).contains(&arms.ratio))
    })
}

fn arms(ratio: f64, noise: Option<(f64, f64)>) -> Arms {
    Arms { canary_per_sec: 50.0, baseline_per_sec: 150.0, event_share: 0.02, ratio, noise }
}

#[test]
fn intervals_cover_the_truth_at_all_looks_together() {
    for (ratio, noise) in
        [(1.0, None), (0.4, None), (3.0, None), (1.0, Some((0.3, 10.0))), (2.0, Some((0.5, 30.0)))]
    {
        let arms = arms(ratio, noise);
        let (missed, ok) = plausible(600, 1.0 - CONFIDENCE, |seed| misses(&arms, arms.phi(), seed));
        println!("ratio {ratio}, noise {noise:?}: {missed} of 600 intervals miss the truth");
        assert!(ok, "ratio {ratio}, noise {noise:?}: {missed} of 600");
    }
}

#[test]
fn invalid_intervals_are_caught() {
    let noisy = arms(1.0, Some((0.3, 10.0)));
    let (missed, ok) = plausible(400, 1.0 - CONFIDENCE, |seed| misses(&noisy, 1.0, seed));
    assert!(!ok, "without a noise factor {missed} of 400 miss, and that looked plausible");
    // The usual interval of a log ratio, read at every look.
    let (missed, ok) = plausible(400, 1.0 - CONFIDENCE, |seed| {
        let arms = arms(1.0, None);
        let (mut of_canary, mut of_baseline) = (0.0, 0.0);
        arms.looks(seed).any(|counts| {
            of_canary += counts.canary_events;
            of_baseline += counts.baseline_events;
            let ratio: f64 = of_canary / of_baseline * arms.baseline_per_sec / arms.canary_per_sec;
            let deviation = 1.96 * f64::sqrt(1.0 / of_canary + 1.0 / of_baseline);
            of_canary > 10.0 && ratio.ln().abs() > deviation
        })
    });
    assert!(!ok, "of fixed-sample intervals {missed} of 400 miss, and that looked plausible");
}

#[test]
fn a_release_at_its_margin_is_shown_good_no_more_often_than_stated() {
    let needed = -0.05f64.ln();
    for (factor, side, noise) in
        [(1.5, Side::Below, None), (1.5, Side::Below, Some((0.3, 10.0))), (0.7, Side::Above, None)]
    {
        let arms = arms(factor, noise);
        let (shown, ok) = plausible(600, 0.05, |seed| {
            let mut profile = RateProfile::new(Some((factor, side)));
            arms.looks(seed).any(|counts| {
                profile.step(&counts, arms.phi());
                profile.proof() >= needed
            })
        });
        println!("margin {factor}, noise {noise:?}: {shown} of 600 shown");
        assert!(ok, "margin {factor}, noise {noise:?}: {shown} of 600");
    }
    // Against a constant: the canary's rate is just what is not good enough any more.
    let arms = arms(1.0, None);
    let (shown, ok) = plausible(600, 0.05, |seed| {
        let mut proof = ConstantProof::new(arms.event_share, Side::Below);
        arms.looks(seed).any(|counts| {
            proof.step(counts.canary_events, counts.canary_total, 1.0);
            proof.proof() >= needed
        })
    });
    assert!(ok, "constant: {shown} of 600");
}

/// Looks until it is shown, median of some runs; none when most are not.
fn median_looks(arms: &Arms, margin: Margin) -> Option<usize> {
    let looks = |seed| {
        let mut profile = RateProfile::new(Some((margin.factor, Side::Below)));
        let mut constant = margin.or.map(|or| ConstantProof::new(or, Side::Below));
        arms.looks(seed).position(|counts| {
            profile.step(&counts, 1.0);
            let mut value = profile.proof().exp();
            if let Some(constant) = &mut constant {
                constant.step(counts.canary_events, counts.canary_total, 1.0);
                value = 0.5 * (value + constant.proof().exp());
            }
            value >= 20.0
        })
    };
    let mut found: Vec<usize> = (0..201).map(|seed| looks(seed).unwrap_or(usize::MAX)).collect();
    found.sort_unstable();
    (found[100] < usize::MAX).then_some(found[100] + 1)
}

#[test]
fn an_equal_release_is_shown_good_in_about_the_planned_time() {
    for (event_share, margin) in [
        (0.02, Margin { factor: 2.0, or: None }),
        (0.05, Margin { factor: 1.5, or: None }),
        (0.002, Margin { factor: 2.0, or: Some(0.01) }),
        (0.0, Margin { factor: 2.0, or: Some(0.01) }),
    ] {
        let arms = Arms { event_share, ..arms(1.0, None) };
        let traffic = Traffic {
            canary_per_sec: arms.canary_per_sec,
            baseline_per_sec: arms.baseline_per_sec,
            event_share,
            kappa_secs: 0.0,
        };
        let planned = time_to_show(&traffic, margin, Better::Lower, 0.05).expect("it can be shown");
        let took = median_looks(&arms, margin).expect("it is shown") as f64;
        println!("{event_share} {margin:?}: planned {planned:?}, took {took} s");
        let ratio = took / planned.as_secs_f64();
        assert!((0.6..1.4).contains(&ratio), "{event_share} {margin:?}: {took} s, {planned:?}");
    }
}

fn latencies(rps: f64, slower: f64) -> Source {
    Source::new(Service { rps, failing: 0.0, median_secs: 0.05 * slower }, false)
}

#[test]
fn quantile_intervals_cover_and_margins_hold() {
    // Latencies that are 1.5 times as long; the margin is at just that.
    let needed = -0.05f64.ln();
    let calm = SignalCalibration { kappa_secs: 0.0, ..SignalCalibration::default() };
    for slower in [1.0, 1.5] {
        let (canary, baseline) = (latencies(30.0, slower), latencies(90.0, 1.0));
        let run = |seed: u64, alarm: &dyn Fn(&QuantileProfile) -> bool| {
            let mut random = StdRng::seed_from_u64(seed);
            let mut profile = QuantileProfile::new(0.95, Some((1.5, Side::Below)));
            (0..300).any(|_| {
                let both = (canary.histogram(&mut random), baseline.histogram(&mut random));
                profile.step(Some(&both.0), Some(&both.1), &calm, 1.0);
                alarm(&profile)
            })
        };
        let (missed, covers) = plausible(300, 1.0 - CONFIDENCE, |seed| {
            run(seed, &|profile| {
                profile.interval().is_some_and(|it| !(it.low..=it.high).contains(&slower))
            })
        });
        let (shown, holds) =
            plausible(300, 0.05, |seed| run(seed, &|profile| profile.proof() >= needed));
        println!("{slower} times as slow: {missed} of 300 miss, {shown} of 300 shown");
        assert!(covers, "{slower} times as slow: {missed} of 300 intervals miss");
        assert_eq!(holds, slower >= 1.5, "{slower} times as slow: {shown} of 300 shown");
    }
}
