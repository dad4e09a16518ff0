//! Native histograms against single values, which are the slow and obvious reference, against numbers
//! of real servers, and as a rule judges them.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use rollgate::engine::{
    native::{INDEX_MAX, NATIVE_BUCKETS_MAX, NativeHistogram, SCHEMAS, index_of, upper_edge},
    observation::{Observation, Pair, Reading, Value, Why},
    verdict::State::{Clear, Fires, NotEnoughData},
};

use super::engine_rules::{P95, check, histogram, judge, rules};

/// Counts each value where it belongs.
fn of(schema: i32, zero_threshold: f64, values: &[f64]) -> NativeHistogram {
    let mut buckets: BTreeMap<i32, f64> = BTreeMap::new();
    let mut zero_count = 0.0;
    for &value in values {
        if value <= zero_threshold {
            zero_count += 1.0;
        } else {
            *buckets.entry(index_of(schema, value)).or_default() += 1.0;
        }
    }
    NativeHistogram { schema, zero_threshold, zero_count, buckets: buckets.into_iter().collect() }
}

/// Latencies from 1 ms to 10 s, the most between 20 and 200 ms, and now and then one of none.
fn latencies(random: &mut StdRng, count: usize) -> Vec<f64> {
    (0..count)
        .map(|_| match random.random_range(0..20) {
            0 => 0.0,
            1..4 => 0.001 * 10_000_f64.powf(random.random()),
            _ => 0.02 * 10_f64.powf(random.random()),
        })
        .collect()
}

fn random() -> StdRng {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

#[test]
fn the_estimate_is_the_servers() {
    // `histogram_quantile(0.95, sum(rate(prometheus_http_request_duration_seconds[20s])))` as
    // Prometheus 3.5.3 answered it about its own 76 requests of 20 s, of schema 3.
    let buckets = vec![(-60, 70.0), (-55, 3.0), (-53, 1.0), (-52, 1.0), (-47, 1.0)];
    let own = NativeHistogram { schema: 3, zero_threshold: 0.0, zero_count: 0.0, buckets };
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-14, "{a} is not {b}");
    near(own.estimate(0.95).unwrap(), 0.008_325_003_918_972_534);
    // By the server's documentation (`querying/functions`): inside a bucket on a logarithmic scale,
    // in the zero bucket on a linear one, which begins at 0 when nothing is below it.
    let check = |native: &NativeHistogram, q, expected| near(native.estimate(q).unwrap(), expected);
    let two = of(0, 0.5, &[1.5, 1.5, 3.0, 3.0, 0.1, 0.1, 0.1, 0.1]);
    check(&two, 0.25, 0.25);
    check(&two, 0.625, 2_f64.sqrt());
    check(&two, 0.75, 2.0);
    check(&two, 0.875, 8_f64.sqrt());
    check(&two, 1.0, 4.0);
    assert_eq!(two.estimate(0.0), Some(0.0));
    assert_eq!(of(0, 0.5, &[0.1]).estimate(0.0), Some(-0.5));
    assert_eq!(NativeHistogram::empty().estimate(0.5), None);
}

#[test]
fn bounds_are_where_the_format_has_them() {
    // python3 -c "print([2**(i * 2**-s) for s, i in [(3, -73), (3, 8), (8, 1), (-4, 1), (-4, -1)]])"
    let known = [
        (3, -73, 0.001_791_023_521_884_123_3),
        (3, 8, 2.0),
        (8, 1, 1.002_711_275_050_202_5),
        (-4, 1, 65_536.0),
        (-4, -1, 1.52587890625e-05),
    ];
    for (schema, index, bound) in known {
        let found = upper_edge(schema, index);
        assert!((found / bound - 1.0).abs() < 1e-15, "{found} is not {bound}");
    }
    for schema in SCHEMAS {
        for index in -300..300 {
            let edge = upper_edge(schema, index);
            if !edge.is_normal() {
                continue;
            }
            // A bound belongs to the bucket that it ends.
            assert_eq!(index_of(schema, edge), index, "schema {schema}");
            assert_eq!(index_of(schema, edge * (1.0 + 1e-12)), index + 1, "schema {schema}");
        }
    }
    for odd in [0.0, -1.0, f64::MIN_POSITIVE, f64::MAX, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(index_of(8, odd).abs() <= INDEX_MAX);
    }
}

#[test]
fn joining_differing_and_adding_agree_with_single_values() {
    let mut random = random();
    for _ in 0..200 {
        let schema = random.random_range(-4..=8);
        let count = random.random_range(1..300);
        let (early, late) = (latencies(&mut random, count), latencies(&mut random, 40));
        let both: Vec<f64> = early.iter().chain(&late).copied().collect();
        let coarse = random.random_range(-4..=schema);
        let mut joined = of(schema, 0.0, &early);
        joined.coarsen(coarse);
        assert_eq!(joined, of(coarse, 0.0, &early));
        let mut sum = of(coarse, 0.0, &late);
        sum.add(&of(schema, 0.0, &early));
        let mut expected = of(coarse, 0.0, &both);
        expected.bound(NATIVE_BUCKETS_MAX);
        assert_eq!(sum, expected);
        // The client halved its resolution between the two readings.
        let since = of(coarse, 0.0, &both).since(&of(schema, 0.0, &early));
        assert_eq!(since, Some(of(coarse, 0.0, &late)));
        let since = of(schema, 0.0, &late).since(&of(coarse, 0.0, &both));
        assert_eq!(since, None, "a count fell");
    }
}

#[test]
fn a_wider_zero_bucket_swallows_what_it_cuts() {
    let values = [0.1, 1.0, 1.5, 2.5, 5.0];
    let mut wide = of(0, 0.0, &values);
    wide.widen_zero(1.2);
    // It cuts the bucket from 1 to 2.
    assert_eq!(wide, of(0, 2.0, &values));
    let mut sum = of(0, 1.2, &values);
    sum.add(&of(0, 0.0, &values));
    let twice: Vec<f64> = values.iter().chain(&values).copied().collect();
    assert_eq!(sum, of(0, 2.0, &twice));
    // A client that widens its zero bucket to save buckets has not begun anew.
    let later: Vec<f64> = values.iter().copied().chain([3.0, 0.2]).collect();
    assert_eq!(of(0, 2.0, &later).since(&of(0, 0.0, &values)), Some(of(0, 2.0, &[3.0, 0.2])));
}

#[test]
fn every_count_of_the_fixed_layout_is_exact() {
    let mut random = random();
    for schema in SCHEMAS {
        let mut values = latencies(&mut random, 500);
        values.extend([1e-9, 1e-12, 40_000.0, 1e9, 1e30, 0.25, 1.0, 8.0]);
        let native = of(schema, 2.938_735_877_055_719e-39, &values);
        let classic = native.classic();
        assert_eq!(classic.counts.len(), classic.edges.len() + 1);
        assert!(classic.edges.is_sorted_by(|a, b| a < b));
        assert!(classic.edges.len() < 160 && classic.edges.contains(&1.0), "schema {schema}");
        for (place, edge) in classic.edges.iter().enumerate() {
            let beyond = values.iter().filter(|value| *value > edge).count();
            assert_eq!(classic.above(place), beyond as f64, "schema {schema}, edge {edge}");
            assert_eq!(native.above(*edge), (*edge, beyond as f64), "schema {schema}");
            // The nearest bound from below of a limit that is one, and of one a little higher.
            let lower = Some((*edge, beyond as f64));
            assert_eq!(native.above_lower(*edge), lower, "schema {schema}");
            assert_eq!(native.above_lower(edge * (1.0 + 1e-9)), lower, "schema {schema}");
        }
        // Looks without the rare values have the same layout.
        assert_eq!(of(schema, 0.0, &[0.1]).classic().edges, classic.edges);
    }
    // Of finer schemas the layouts are alike, so that arms of different resolution compare.
    assert_eq!(of(8, 0.0, &[0.1]).classic().edges, of(2, 0.0, &[0.1]).classic().edges);
}

#[test]
fn the_estimate_is_in_the_bucket_of_the_exact_quantile() {
    let mut random = random();
    for _ in 0..200 {
        let schema = random.random_range(-2..=8);
        let count = random.random_range(1..400);
        let mut values = latencies(&mut random, count);
        let q: f64 = random.random_range(0.01..0.999);
        let found = of(schema, 0.0, &values).estimate(q).unwrap();
        values.sort_by(f64::total_cmp);
        // The two values around the rank, which may be in neighbouring buckets.
        let rank = q * values.len() as f64;
        let around = [rank.ceil() as usize, rank.floor() as usize + 1];
        let near = around.map(|place| values[place.clamp(1, values.len()) - 1]);
        let inside = near.iter().any(|exact| {
            let index = index_of(schema, *exact);
            *exact == 0.0 && found == 0.0
                || (upper_edge(schema, index - 1) * (1.0 - 1e-12)
                    ..=upper_edge(schema, index) * (1.0 + 1e-12))
                    .contains(&found)
        });
        assert!(inside, "{found} is not near {near:?} of {}", values.len());
    }
}

#[test]
fn resolution_is_given_up_for_a_bounded_size() {
    let values: Vec<f64> = (0..5_000).map(|i| 1e-6 * 1.005_f64.powi(i)).collect();
    let mut native = of(8, 0.0, &values);
    assert!(native.buckets.len() > 1_000);
    native.bound(NATIVE_BUCKETS_MAX);
    assert!(native.buckets.len() <= NATIVE_BUCKETS_MAX && native.buckets.len() > 60);
    assert_eq!(native, of(native.schema, 0.0, &values));
}

/// 100 requests of one look: between 20 and 200 ms, the 95th percentile at 178 ms.
fn requests(secs: u64, scale: f64) -> Vec<f64> {
    let spread = |i: u64| 10_f64.powf(((i * 37 + secs * 11) % 100) as f64 / 100.0);
    (0..100).map(|i| scale * 0.02 * spread(i)).collect()
}

fn sparse(schema: i32, secs: u64, scale: f64) -> Reading {
    Ok(Value::Native(of(schema, 0.0, &requests(secs, scale))))
}

/// The canary is `scale` times as slow from second 30 on, at another resolution than the baseline.
fn slower(scale: f64) -> impl Fn(u64, &mut Observation) {
    move |secs, observation| {
        let scale = if secs >= 30 { scale } else { 1.0 };
        observation.signals[P95] = Pair::new(sparse(4, secs, scale), sparse(3, secs, 1.0));
    }
}

#[test]
fn rules_judge_native_histograms_as_they_judge_buckets() {
    check("p95 > 300ms for 5s", slower(2.0), &[(29, Clear), (45, Fires)]);
    check("p95 > 1.5x baseline for 5s", slower(2.0), &[(29, Clear), (45, Fires)]);
    check("p95 > 1.5x baseline for 5s", slower(1.2), &[(29, Clear), (110, Clear)]);
    check("p95 > 300ms", slower(2.0), &[(29, Clear), (45, Fires)]);
    check("p95 > 1.2x baseline", slower(2.0), &[(29, Clear), (60, Fires)]);
    check("p95 > 1.2x baseline", slower(1.0), &[(29, Clear), (119, Clear)]);
    let steps = judge(rules(&["when: p95 > 300ms, then: investigate"]), 20, slower(1.0));
    let finding = &steps[19].findings[0].clauses[0];
    // Of schema 4 the lowest bound at or above 300 ms is 2^(-27/16).
    let note = finding.note.as_deref().unwrap();
    assert!(note.starts_with("judged at the bucket edge 0.310"), "{note}");
    let estimate = finding.estimate.unwrap();
    assert!((0.17..0.186).contains(&estimate), "{estimate}");
}

/// Buckets of one arm, native histograms of the other.
#[test]
fn arms_of_different_kinds_meet_where_both_are_exact() {
    let classic = |edges: &[f64], secs: u64, scale: f64| {
        let mut counts = vec![0.0; edges.len() + 1];
        for value in requests(secs, scale) {
            counts[edges.partition_point(|edge| *edge < value)] += 1.0;
        }
        histogram(edges, &counts)
    };
    let arms = |edges: &'static [f64], scale: f64| {
        move |secs, observation: &mut Observation| {
            let scale = if secs >= 30 { scale } else { 1.0 };
            observation.signals[P95] = Pair::new(classic(edges, secs, scale), sparse(3, secs, 1.0));
        }
    };
    // The native one has a bound at each power of two, and the usual buckets at 125 ms.
    const SHARED: &[f64] = &[0.01, 0.05, 0.1, 0.125, 0.5];
    check("p95 > 1.2x baseline", arms(SHARED, 3.0), &[(29, Clear), (60, Fires)]);
    check("p95 > 1.2x baseline", arms(SHARED, 1.0), &[(29, Clear), (119, Clear)]);
    const FOREIGN: &[f64] = &[0.01, 0.05, 0.1, 0.3];
    check("p95 > 1.2x baseline", arms(FOREIGN, 3.0), &[(60, NotEnoughData)]);
    let steps = judge(rules(&["when: p95 > 1.2x baseline, then: ok"]), 60, arms(FOREIGN, 3.0));
    let missing = steps[59].findings[0].clauses[0].missing.as_ref().unwrap();
    assert_eq!(missing.why, Why::BucketLayout, "{missing}");
    // A point estimate needs no bound in common.
    const FINE: &[f64] = &[0.03, 0.06, 0.11, 0.15, 0.19, 0.24, 0.3, 0.6];
    check("p95 > 1.5x baseline for 5s", arms(FINE, 3.0), &[(29, Clear), (60, Fires)]);
}

#[test]
fn a_summary_is_judged_by_for_and_says_why_it_is_not_by_evidence() {
    let told = |secs: u64, observation: &mut Observation| {
        let slow = if secs >= 30 { 0.4 } else { 0.2 };
        let level = |level| Ok(Value::Level(level));
        observation.signals[P95] = Pair::new(level(slow), level(0.2));
    };
    check("p95 > 300ms for 5s", told, &[(29, Clear), (36, Fires)]);
    check("p95 > 1.5x baseline for 5s", told, &[(29, Clear), (36, Fires)]);
    for rule in ["p95 > 300ms", "p95 > 1.5x baseline"] {
        check(rule, told, &[(29, NotEnoughData), (100, NotEnoughData)]);
        let steps = judge(rules(&[&format!("when: {rule}, then: ok")]), 60, told);
        let missing = steps[59].findings[0].clauses[0].missing.as_ref().unwrap().to_string();
        assert!(
            missing.contains("canary: a summary tells its quantile and no counts"),
            "{missing}"
        );
    }
}

#[test]
fn a_change_of_kind_begins_a_new_window() {
    let change = |secs: u64, observation: &mut Observation| {
        let kinds: [Reading; 3] = [
            sparse(3, secs, 4.0),
            histogram(&[0.1, 0.2], &[0.0, 100.0, 0.0]),
            Ok(Value::Level(0.15)),
        ];
        let kind = (secs / 20) as usize % kinds.len();
        observation.signals[P95].canary = kinds[kind].clone();
    };
    let steps = judge(rules(&["when: p95 > 1s for 5s, then: ok"]), 100, change);
    let estimate = |secs: usize| steps[secs - 1].findings[0].clauses[0].estimate.unwrap();
    for (secs, from, to) in [(19, 0.6, 0.8), (20, 0.19, 0.2), (41, 0.15, 0.15), (60, 0.6, 0.8)] {
        assert!((from..=to).contains(&estimate(secs)), "second {secs}: {}", estimate(secs));
    }
}
