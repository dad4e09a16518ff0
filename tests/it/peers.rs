//! The two other styles of judging that the bench `operating_characteristics` sets beside ours: they
//! must be what they claim to be, or the comparison is worth nothing.

#[path = "../../benches/operating_characteristics/peers.rs"]
mod styles;

use statrs::distribution::{ContinuousCDF, Normal};
use styles::{FAILED_LOOKS_MAX, JUDGEMENT_MINUTES, Judge, Shift, Threshold, is_high, z};

/// Experiment, control, and by scipy 1.15 the p-value of `mannwhitneyu(x, y, method='asymptotic')`
/// with and without `use_continuity`, and both ends of the 98 % interval, where `scipy.optimize.bisect`
/// finds the signed `norm.isf(p / 2)` of `mannwhitneyu(x - d, y)` to be `norm.ppf(0.99)` and minus it.
type Golden = (&'static [f64], &'static [f64], [f64; 2], [f64; 2]);

const GOLDEN: [Golden; 3] = [
    (
        &[
            0.034193, 1.359748, 1.224721, -0.510307, -0.29797, -0.527384, 0.569726, -0.056064,
            0.746886, -1.847325,
        ],
        &[
            1.566549, -0.096432, 0.680378, -0.136566, -0.379099, 0.46311, 0.824514, -0.20253,
            -0.152786, 0.685699,
        ],
        [0.6231762238821174, 0.5967012167293563],
        [-1.207762, 0.761611],
    ),
    // Ties.
    (
        &[
            0.8, 0.7, 1.6, -0.8, -0.2, -0.3, -1.2, 0.6, 1.0, -0.2, 1.9, 1.3, 1.1, 0.9, 1.5, -0.8,
            1.1, 1.1, -1.3, 0.8,
        ],
        &[0.3, -0.3, 0.8, -0.4, 0.0, -0.9, 0.6, -0.1, 0.5, -0.5, 1.1, 0.6, -0.2, 0.6, 1.3],
        [0.2103067314424113, 0.20428937469954034],
        [-0.5, 1.1],
    ),
    (
        &[3.0, 1.0, 5.0, 1.0, 3.0],
        &[1.0, -1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0],
        [0.011560692434969912, 0.009273559779649448],
        [0.0, 5.0],
    ),
];

#[test]
fn the_rank_test_equals_scipy() {
    let normal = Normal::standard();
    for (experiment, control, p, interval) in GOLDEN {
        for (continuity, p) in [true, false].into_iter().zip(p) {
            let found = 2.0 * normal.sf(z(experiment, control, 0.0, continuity).abs());
            assert!((found - p).abs() < 1e-9, "p is {found}, expected {p}");
        }
        let shift = Shift::of(experiment, control).expect("values differ");
        for (found, expected) in [shift.low, shift.high].into_iter().zip(interval) {
            assert!((found - expected).abs() < 1e-6, "{shift:?}, expected {interval:?}");
        }
        assert!((shift.low..=shift.high).contains(&shift.estimate), "{shift:?}");
    }
}

#[test]
fn the_judge_wants_a_shift_beyond_a_quarter_of_its_estimate() {
    let control: Vec<f64> = (0..10).map(|minute| f64::from(minute % 5)).collect();
    let shifted = |by: f64| control.iter().map(|value| value + by).collect::<Vec<f64>>();
    // Identical series, none at all, and a small shift pass; one that clears the spread does not.
    assert!(!is_high(&control, &control));
    assert!(!is_high(&[], &control) && !is_high(&control, &[]));
    assert!(!is_high(&[1.0; 10], &[1.0; 10]));
    assert!(!is_high(&shifted(1.0), &control));
    assert!(is_high(&shifted(5.0), &control));
    // Lower is not "high".
    assert!(!is_high(&shifted(-5.0), &control));

    // Only at the tenth minute, and a minute without data is not one with zero.
    let mut judge = Judge::default();
    let says: Vec<bool> = (0..JUDGEMENT_MINUTES)
        .map(|minute| {
            judge.minute(Some(control[minute] + 5.0), (minute != 3).then_some(control[minute]))
        })
        .collect();
    assert_eq!(says.iter().position(|says| *says), Some(JUDGEMENT_MINUTES - 1), "{says:?}");
}

#[test]
fn the_threshold_counts_failures_and_never_forgets() {
    let mut threshold = Threshold::new(0.01);
    let minutes = [0.02, 0.0, 0.02, 0.01, 0.02, 0.0, 0.02];
    let says: Vec<bool> = minutes.iter().map(|share| threshold.minute(Some(*share))).collect();
    assert_eq!(FAILED_LOOKS_MAX, 3);
    assert_eq!(says, [false, false, false, false, false, false, true]);
    assert!(!Threshold::new(0.01).minute(None));
}
