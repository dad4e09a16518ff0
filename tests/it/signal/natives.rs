//! Native histograms, custom buckets and summaries, look by look.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    engine::{
        native::{NativeHistogram, index_of},
        observation::Value,
    },
    signal::{carry::Carry, reduce::Reducer},
};

use super::{BUCKETS, check, gathered, line, specs};

#[test]
fn native_histograms_are_differenced_bucket_by_bucket() {
    check(
        BUCKETS,
        &[
            (0.0, "i: ~lat 3 2 -20:7 -19:1", "first look: i"),
            (1.0, "i: ~lat 3 2 -20:9 -19:1 4:1", "schema 3, zero 0: -20:2 4:1"),
            (2.0, "i: !", "scrape failed"),
            // Two looks in one, and a bucket that opened in between.
            (3.0, "i: ~lat 3 3 -20:9 -19:2 0:5 4:1", "schema 3, zero 1: -19:1 0:5"),
            (4.0, "i: ~lat 3 3 -20:9 -19:2 0:5 4:1", "no traffic"),
        ],
    );
}

#[test]
fn a_count_that_fell_resets_the_whole_histogram() {
    // One bucket fell while another has passed its old value again.
    check(
        BUCKETS,
        &[
            (0.0, "i: ~lat 3 0 -20:7 4:2", "first look"),
            (1.0, "i: ~lat 3 0 -20:9 4:1", "schema 3, zero 0: -20:9 4:1"),
            (2.0, "i: ~lat 3 0 -20:10 4:1", "schema 3, zero 0: -20:1"),
            // A bucket that is gone fell to nothing.
            (3.0, "i: ~lat 3 0 -20:11", "schema 3, zero 0: -20:11"),
        ],
    );
    check(
        BUCKETS,
        &[
            (0.0, "i: process_start_time_seconds 900000; ~lat 3 0 -20:7", "first look"),
            (
                1.0,
                "i: process_start_time_seconds 999999; ~lat 3 0 -20:8",
                "schema 3, zero 0: -20:8",
            ),
        ],
    );
}

#[test]
fn a_change_of_resolution_is_no_reset() {
    check(
        BUCKETS,
        &[
            // At schema 2 the pairs -21, -20 and -19, -18 are the buckets -10 and -9.
            (0.0, "i: ~lat 3 0 -21:1 -20:7 -19:1", "first look"),
            (1.0, "i: ~lat 2 0 -10:9 -9:1", "schema 2, zero 0: -10:1"),
            // And finer again, which clients do when they begin anew: judged at the coarser one.
            (2.0, "i: ~lat 3 0 -20:4", "schema 3, zero 0: -20:4"),
        ],
    );
    check(
        BUCKETS,
        &[
            (0.0, "a: ~lat 3 0 -20:1 | b: ~lat 2 0 -10:2", "first look"),
            (1.0, "a: ~lat 3 0 -20:4 | b: ~lat 2 0 -10:4 1:1", "schema 2, zero 0: -10:5 1:1"),
        ],
    );
}

#[test]
fn routes_are_summed_and_new_ones_began_at_zero() {
    check(
        BUCKETS,
        &[
            (0.0, r#"i: ~lat{r="/a"} 3 0 1:5"#, "first look"),
            (1.0, r#"i: ~lat{r="/a"} 3 0 1:6; ~lat{r="/b"} 3 0 1:2"#, "schema 3, zero 0: 1:3"),
            (2.0, r#"i: ~lat{r="/b"} 3 0 1:2"#, "no traffic"),
            // It was away for one look.
            (3.0, r#"i: ~lat{r="/a"} 3 0 1:7; ~lat{r="/b"} 3 0 1:2"#, "schema 3, zero 0: 1:1"),
        ],
    );
    check(
        r#"histogram lat{r="/a"}"#,
        &[
            (0.0, r#"i: ~lat{r="/a"} 3 0 1:5; ~lat{r="/b"} 3 0 1:5"#, "first look"),
            (1.0, r#"i: ~lat{r="/a"} 3 0 1:6; ~lat{r="/b"} 3 0 1:9"#, "schema 3, zero 0: 1:1"),
        ],
    );
    check(
        r#"histogram lat{status="200"}"#,
        &[(0.0, r#"i: ~lat{r="/a"} 3 0 1:5"#, "absent series: i: no lat_bucket")],
    );
}

/// A target is asked for protobuf once its text was seen to lack buckets.
#[test]
fn the_format_may_change_between_looks() {
    check(
        BUCKETS,
        &[
            (0.0, r#"i: lat_bucket{le="+Inf"} 500"#, "first look"),
            (1.0, r#"i: lat_bucket{le="+Inf"} 501; ~lat 3 0 1:501"#, "first look: i: lat (native)"),
            (2.0, r#"i: lat_bucket{le="+Inf"} 503; ~lat 3 0 1:503"#, "schema 3, zero 0: 1:2"),
            (
                3.0,
                r#"i: lat_bucket{le="+Inf"} 504"#,
                "bucket layout: i: no bucket but +Inf of lat_bucket",
            ),
            (4.0, r#"i: lat_bucket{le="+Inf"} 506; ~lat 3 0 1:506"#, "schema 3, zero 0: 1:3"),
        ],
    );
    // Buckets go first: text has them too.
    check(
        BUCKETS,
        &[
            (0.0, r#"i: lat_bucket{le="1"} 1; lat_bucket{le="+Inf"} 1"#, "first look"),
            (
                1.0,
                r#"i: lat_bucket{le="1"} 2; lat_bucket{le="+Inf"} 3; ~lat 3 0 1:3"#,
                "[1.0] [1.0, 1.0]",
            ),
        ],
    );
}

#[test]
fn instances_with_buckets_and_with_native_ones_meet_where_both_are_exact() {
    let marks = r#"a: lat_bucket{le="0.1"} 0; lat_bucket{le="0.5"} 0; lat_bucket{le="2"} 0;
                   lat_bucket{le="+Inf"} 0 | b: ~lat 3 0"#;
    // Of the native one the buckets 0 (0.92 to 1) and 9 (2 to 2.2).
    let looks = r#"a: lat_bucket{le="0.1"} 1; lat_bucket{le="0.5"} 5; lat_bucket{le="2"} 6;
                   lat_bucket{le="+Inf"} 7 | b: ~lat 3 0 0:3 9:2"#;
    check(BUCKETS, &[(0.0, marks, "first look"), (1.0, looks, "[0.5, 2.0] [5.0, 4.0, 3.0]")]);
    let marks = r#"a: lat_bucket{le="0.1"} 0; lat_bucket{le="+Inf"} 0 | b: ~lat 3 0"#;
    let looks = r#"a: lat_bucket{le="0.1"} 1; lat_bucket{le="+Inf"} 7 | b: ~lat 3 0 0:3"#;
    check(BUCKETS, &[(0.0, marks, "first look"), (1.0, looks, "bucket layout")]);
}

#[test]
fn custom_buckets_become_a_classic_layout() {
    let bucket = |above: &str, le: &str, count: u32| {
        format!("lat (custom buckets){{above=\"{above}\",le=\"{le}\"}} {count}")
    };
    let low = |count| bucket("-Inf", "0.1", count);
    let first = format!("i: {}; {}", low(3), bucket("0.5", "1", 2));
    let then = format!("i: {}; {}", low(5), bucket("0.5", "1", 2));
    let opened = format!("i: {}; {}; {}", low(5), bucket("0.25", "0.5", 4), bucket("0.5", "1", 3));
    // Another instance has filled other buckets of the same layout.
    let other = format!("{opened} | j: {}; {}", low(1), bucket("1", "+Inf", 7));
    let more = format!(
        "i: {}; {}; {} | j: {}; {}",
        low(6),
        bucket("0.25", "0.5", 5),
        bucket("0.5", "1", 3),
        low(1),
        bucket("1", "+Inf", 9)
    );
    check(
        BUCKETS,
        &[
            (0.0, &first, "first look"),
            (1.0, &then, "[0.1, 0.5, 1.0] [2.0, 0.0, 0.0, 0.0]"),
            (2.0, &opened, "[0.1, 0.25, 0.5, 1.0] [0.0, 0.0, 4.0, 1.0, 0.0]"),
            (3.0, &other, "no traffic"),
            (4.0, &more, "[0.1, 0.25, 0.5, 1.0] [1.0, 0.0, 1.0, 0.0, 2.0]"),
        ],
    );
}

#[test]
fn a_summary_gives_the_quantile_it_tells() {
    check(
        BUCKETS,
        &[
            (
                0.0,
                r#"i: lat{quantile="0.5"} 0.1; lat{quantile="0.95"} 0.3; lat_count 9"#,
                "level 0.3",
            ),
            // The worst series of the worst instance.
            (
                1.0,
                r#"i: lat{r="a",quantile="0.95"} 0.2; lat{r="b",quantile="0.950"} 0.4
                 | j: lat{quantile="0.95"} 0.1"#,
                "level 0.4",
            ),
            (2.0, r#"i: lat{quantile="0.95"} NaN"#, "no traffic: i: the summary lat has seen none"),
            (3.0, r#"i: lat{quantile="0.95"} +Inf"#, "bad value: i: lat is inf"),
            (
                4.0,
                r#"i: lat{quantile="0.9"} 0.2; lat{quantile="0.5"} 0.1"#,
                "absent series: i: lat is a summary with the quantiles 0.5, 0.9, expected 0.95",
            ),
            // A gauge of that name is no summary.
            (5.0, "i: lat 7", "absent series: i: no lat_bucket"),
        ],
    );
}

/// A process that counts, is read, begins anew and gives up resolution, against single values.
#[test]
fn random_lives_of_a_native_histogram_lose_and_double_nothing() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..100 {
        let mut reducer = Reducer::new(specs(BUCKETS), Duration::ZERO, Carry::default());
        let (mut schema, mut counted): (i32, Vec<f64>) = (5, Vec::new());
        let (mut expected, mut seen): (Vec<f64>, Option<NativeHistogram>) = (Vec::new(), None);
        let mut start = 900_000;
        for look in 0..40 {
            // A start that moved by no more than a second is not one.
            let is_new_life = start < 999_999 + look && random.random_bool(0.1);
            if is_new_life {
                counted.clear();
                (schema, start) = (5, 1_000_000 + look);
            }
            let count = random.random_range(0..5);
            let values: Vec<f64> =
                (0..count).map(|_| 0.001 * 1000_f64.powf(random.random())).collect();
            counted.extend(&values);
            if look > 0 {
                expected.extend(&values);
            }
            schema = if random.random_bool(0.1) { (schema - 1).max(0) } else { schema };
            let mut buckets: BTreeMap<i32, u32> = BTreeMap::new();
            counted
                .iter()
                .for_each(|value| *buckets.entry(index_of(schema, *value)).or_default() += 1);
            let buckets = buckets.iter().map(|(index, count)| format!(" {index}:{count}"));
            let buckets: String = buckets.collect();
            let text = format!("i: process_start_time_seconds {start}; ~lat {schema} 0{buckets}");
            // A service that restarts resumes from the carry.
            if random.random_bool(0.2) {
                reducer = Reducer::new(specs(BUCKETS), Duration::ZERO, reducer.carry().clone());
            }
            let observation = reducer.reduce(&gathered(look as f64, &text));
            match &observation.signals[0].canary {
                Ok(Value::Native(native)) => match &mut seen {
                    Some(sum) => sum.add(native),
                    None => seen = Some(native.clone()),
                },
                other => assert!(values.is_empty() || look == 0, "look {look}: {}", line(other)),
            }
        }
        let Some(mut seen) = seen else { continue };
        let mut buckets: BTreeMap<i32, f64> = BTreeMap::new();
        seen.coarsen(0);
        expected.iter().for_each(|value| *buckets.entry(index_of(0, *value)).or_default() += 1.0);
        assert_eq!(seen.buckets, buckets.into_iter().collect::<Vec<_>>());
    }
}
