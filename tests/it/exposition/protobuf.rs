//! The protobuf exposition: bodies of real programs beside their text, and hostile ones.

use std::{collections::BTreeMap, fs};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    engine::native::{NATIVE_BUCKETS_MAX, NativeHistogram},
    signal::sample::Sample,
    source::exposition::{Body, Format, Limits, Refusal, Wanted, is_protobuf, read, read_protobuf},
};

use super::bodies::{data, sorted};
use crate::protobuf::{CONTENT_TYPE, Message, family, metric, native, number};

fn all(body: &[u8]) -> Result<Body, Refusal> {
    read_protobuf(body, &Wanted::all(), &Limits::default())
}

/// Series and values; bounds and quantiles are written in one way.
fn shown(samples: &[Sample]) -> BTreeMap<String, f64> {
    let plain = |(name, value): (&str, &str)| match value.parse::<f64>() {
        Ok(number) if ["le", "quantile"].contains(&name) => format!("{name}={number}"),
        _ => format!("{name}={value}"),
    };
    let series = samples.iter().filter(|sample| sample.native.is_none()).map(|sample| {
        let labels: Vec<String> = sample.labels.iter().map(plain).collect();
        (format!("{}{{{}}}", sample.name, labels.join(",")), sample.value)
    });
    series.collect()
}

#[test]
fn bodies_of_real_programs_say_what_their_text_says() {
    let Some(live) = data("live") else { return };
    let (mut bodies, mut natives) = (0, 0);
    for path in sorted(&live) {
        if path.extension().is_none_or(|extension| extension != "pb") {
            continue;
        }
        bodies += 1;
        let name = path.display();
        let body = fs::read(&path).expect("a body");
        let binary = all(&body).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!(binary.refused, None, "{name}");
        let text = fs::read(path.with_extension("prom")).expect("its text");
        let text = read(&text, Format::Text, &Wanted::all(), |_| true, &Limits::default());
        let (ours, theirs) = (shown(&binary.samples), shown(&text.expect("text").samples));
        // The protobuf was asked for a moment later: what the first request itself counted is new.
        let gone: Vec<&String> = theirs.keys().filter(|one| !ours.contains_key(*one)).collect();
        assert!(gone.is_empty(), "{name}: only in text: {gone:?}");
        let is_of_scrape = |one: &&String| one.contains("/metrics") || one.contains("scrape");
        let new = ours.keys().filter(|one| !theirs.contains_key(*one) && !is_of_scrape(one));
        let new: Vec<&String> = new.collect();
        assert!(new.is_empty(), "{name}: only in protobuf: {new:?}");
        let alike = ours.iter().filter(|(series, value)| {
            theirs.get(*series).is_some_and(|other| other == *value || other.is_nan())
        });
        let (alike, most) = (alike.count(), ours.len());
        assert!(alike * 100 >= most * 60, "{name}: {alike} of {most} values are the same");
        for sample in &binary.samples {
            let Some(native) = &sample.native else { continue };
            natives += 1;
            // A native histogram has counted what the classic one beside it has.
            let metric = sample.name.strip_suffix(" (native)").expect("the name of a native one");
            let of = |other: &&Sample| {
                *other.name == format!("{metric}_count") && other.labels == sample.labels
            };
            let count = binary.samples.iter().find(of).expect("its count").value;
            assert_eq!((native.total(), sample.value), (count, count), "{metric}");
        }
        // A wanted name alone gives what reading everything gives of it.
        let wanted = Wanted::names(["process_start_time_seconds"]);
        let one = read_protobuf(&body, &wanted, &Limits::default()).expect("reads");
        assert_eq!((one.samples.len(), one.lines), (1, 1), "{name}");
    }
    assert_eq!((bodies, natives), (8, 12));
}

fn whole() -> NativeHistogram {
    let buckets = vec![(-70, 3.0), (-69, 1.0), (-3, 200.0), (40, 1.0)];
    NativeHistogram { schema: 3, zero_threshold: 1e-30, zero_count: 2.0, buckets }
}

fn histogram(sparse: Message) -> Vec<u8> {
    family("h", 4, vec![metric(&[("route", "/")], 7, sparse)])
}

/// A body with a kind of everything.
fn everything() -> Vec<u8> {
    let quantile = |q, value| Message::default().double(1, q).double(2, value);
    let summary = Message::default().varint(1, 5).double(2, 0.5);
    let summary = summary.message(3, quantile(0.95, 0.25)).message(3, quantile(1.0, f64::NAN));
    let bucket = |count, bound| Message::default().varint(1, count).double(2, bound);
    let classic = native(&whole()).message(3, bucket(4, 0.5)).message(3, bucket(6, 2.0));
    let timed = metric(&[], 3, number(7.0)).varint(6, 1_700_000_000_000);
    // Fields that do not exist yet: an integer, a 64-bit and a 32-bit number, a message.
    let mut strange = Message::default().varint(90, 1).double(91, 1.0).bytes(92, "?");
    strange.0.extend([(93 << 3 | 5) as u8 | 0x80, 5, 0, 0, 0, 0]);
    strange.0.extend(metric(&[("a", "b")], 2, number(-1.5)).0);
    [
        family("c_total", 0, vec![timed]),
        family("g", 1, vec![strange]),
        family("u", 3, vec![metric(&[], 5, number(f64::INFINITY))]),
        family("s", 2, vec![metric(&[], 4, summary)]),
        family("h", 4, vec![metric(&[("route", "/")], 7, classic)]),
        family("skipped", 3, vec![metric(&[], 5, number(1.0))]),
    ]
    .concat()
}

#[test]
fn every_kind_gives_the_samples_that_text_would() {
    let body = all(&everything()).unwrap();
    assert_eq!((body.refused, body.lines), (None, 6));
    let text: Vec<String> = body
        .samples
        .iter()
        .map(|sample| {
            let labels: Vec<_> = sample.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
            format!("{}{{{}}} {}", sample.name, labels.join(","), sample.value)
        })
        .collect();
    assert_eq!(
        text,
        [
            "c_total{} 7",
            "g{a=b} -1.5",
            "u{} inf",
            "s{quantile=0.95} 0.25",
            "s{quantile=1} NaN",
            "s_sum{} 0.5",
            "s_count{} 5",
            "h_bucket{le=0.5,route=/} 4",
            "h_bucket{le=2,route=/} 6",
            "h_bucket{le=+Inf,route=/} 207",
            "h_sum{route=/} 1",
            "h_count{route=/} 207",
            "h (native){route=/} 207",
            "skipped{} 1",
        ]
    );
    assert_eq!(body.samples[12].native.as_deref(), Some(&whole()));
    let wanted = Wanted::names(["h_bucket", "s"]);
    let some = read_protobuf(&everything(), &wanted, &Limits::default()).unwrap();
    let names: Vec<&str> = some.samples.iter().map(|sample| &*sample.name).collect();
    assert_eq!(names, ["s", "s", "h_bucket", "h_bucket", "h_bucket", "h (native)"]);
}

#[test]
fn counts_may_be_floats_and_numbers_may_be_packed() {
    let span = |offset, length| Message::default().zigzag(1, offset).varint(2, length);
    let floats = Message::default().double(4, 2.5).zigzag(5, 0).double(8, 0.5);
    let packed: Vec<u8> =
        [1.5_f64, 0.0, 0.5].iter().flat_map(|count| count.to_le_bytes()).collect();
    let floats = floats.message(12, span(-1, 3)).bytes(14, packed);
    let native = all(&histogram(floats)).unwrap().samples.pop().unwrap().native.unwrap();
    assert_eq!((native.zero_count, &*native.buckets), (0.5, &[(-1, 1.5), (1, 0.5)][..]));
    // Deltas 2, -1 packed, and below zero a bucket of 3, which is counted as zero.
    let whole = Message::default().zigzag(5, 0).message(12, span(4, 2)).bytes(13, [4, 1]);
    let whole = whole.message(9, span(2, 1)).bytes(10, [6]);
    let native = all(&histogram(whole)).unwrap().samples.pop().unwrap().native.unwrap();
    assert_eq!((native.zero_count, &*native.buckets), (3.0, &[(4, 2.0), (5, 1.0)][..]));
    // An empty native histogram says so by a span of nothing; without one there is none.
    let empty = Message::default().zigzag(5, 3).message(12, span(0, 0));
    assert_eq!(all(&histogram(empty)).unwrap().samples.pop().unwrap().name.as_ref(), "h (native)");
    let none = Message::default().zigzag(5, 3);
    assert_eq!(all(&histogram(none)).unwrap().samples.pop().unwrap().name.as_ref(), "h_count");
    // Of a gauge histogram, whose counts may fall, no increments can be told.
    let gauge = family("h", 5, vec![metric(&[], 7, crate::protobuf::native(&self::whole()))]);
    assert!(all(&gauge).unwrap().samples.iter().all(|sample| sample.native.is_none()));
}

#[test]
fn what_means_nothing_costs_its_series_and_is_named() {
    let span = |offset, length| Message::default().zigzag(1, offset).varint(2, length);
    let check = |sparse: Message, part: &str| {
        let good = metric(&[("route", "/good")], 7, native(&whole()));
        let body = family("h", 4, vec![metric(&[], 7, sparse), good]);
        let read = all(&body).unwrap();
        let refused = read.refused.expect(part);
        assert_eq!(refused.lines, 1);
        assert!(refused.first.contains(part), "{}", refused.first);
        assert!(refused.first.starts_with("h at byte "), "{}", refused.first);
        assert_eq!(read.samples.iter().filter(|sample| sample.native.is_some()).count(), 1);
    };
    let of = |schema| Message::default().zigzag(5, schema);
    check(of(9).message(12, span(0, 1)).zigzag(13, 1), "schema 9, expected -4 to 8");
    check(of(-53).message(12, span(0, 1)).zigzag(13, 1), "schema -53");
    check(of(i64::MIN).message(12, span(0, 1)).zigzag(13, 1), "schema -9223372036854775808");
    check(of(3).message(12, span(0, 2)).zigzag(13, 1), "found 1 counts, expected 2 by the spans");
    check(of(3).message(12, span(0, u64::MAX)), "found 0 counts");
    check(of(3).message(12, span(0, 1)).zigzag(13, -1), "found the count -1");
    check(of(3).message(12, span(0, 1)).double(14, f64::NAN), "found the count NaN");
    check(of(3).double(6, f64::NAN).message(12, span(0, 0)), "found the count NaN");
    let overflow = of(3).message(12, span(0, 2)).zigzag(13, i64::MAX).zigzag(13, i64::MAX);
    check(overflow, "beyond 64 bits");
    check(of(3).message(12, span(1 << 40, 1)).zigzag(13, 1), "no number falls in");
    check(of(3).message(12, span(-(1 << 40), 1)).zigzag(13, 1), "no number falls in");
    let back = of(3).message(12, span(5, 1)).message(12, span(-5, 1)).zigzag(13, 1).zigzag(13, 1);
    check(back, "no number falls in");
    let many = (0..20_000).fold(of(3).message(12, span(0, 20_000)), |m, _| m.zigzag(13, 0));
    check(many, "more than 16000 buckets");
    let bucket = || Message::default().varint(1, 1).double(2, 1.0);
    check((0..20_000).fold(of(3), |m, _| m.message(3, bucket())), "more than 16000 buckets");
    let labels: Vec<(String, String)> = (0..200).map(|i| (format!("l{i}"), "v".into())).collect();
    let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (&**n, &**v)).collect();
    let read = all(&family("g", 1, vec![metric(&labels, 2, number(1.0))])).unwrap();
    assert!(read.refused.unwrap().first.contains("more than 128 labels"));
}

#[test]
fn many_buckets_are_read_at_a_coarser_resolution() {
    let buckets = (0..1000).map(|index| (index, 1.0)).collect();
    let fine = NativeHistogram { schema: 8, zero_threshold: 0.0, zero_count: 0.0, buckets };
    let read = all(&histogram(native(&fine))).unwrap().samples.pop().unwrap().native.unwrap();
    assert_eq!((read.schema, read.total()), (5, 1000.0));
    assert!(read.buckets.len() <= NATIVE_BUCKETS_MAX);
}

#[test]
fn what_breaks_the_format_is_refused_with_its_place() {
    let good = family("g", 1, vec![metric(&[], 2, number(1.0))]);
    let check = |tail: &[u8], expected: &str| {
        let words = all(&[&good, tail].concat()).unwrap_err().to_string();
        let place = format!("at byte {}", good.len());
        assert!(words.contains(expected) && words.contains("at byte"), "{words}");
        assert!(!expected.contains("length") || words.contains(&place), "{words}");
    };
    check(&[200], "a varint of at most 64 bits");
    check(&[0xff; 11], "a varint of at most 64 bits");
    check(&[5, 0], "a length that ends in the body");
    check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "a length that ends");
    check(&[1, 0x0b], "a field key");
    check(&[2, 0x00, 0x00], "a field number above 0");
    check(&[3, 0x09, 0, 0], "a 64-bit number");
    check(&[3, 0x0d, 0, 0], "a 32-bit number");
    check(&[4, 0x0a, 2, b'a', 0xff], "UTF-8");
    assert_eq!(all(b""), Err(Refusal::Empty));
    let limits = Limits { body_bytes: 10, ..Limits::default() };
    let large = read_protobuf(&everything(), &Wanted::all(), &limits);
    assert_eq!(large, Err(Refusal::TooLarge { found: everything().len(), limit: 10 }));
    let limits = Limits { samples: 13, ..Limits::default() };
    let many = read_protobuf(&everything(), &Wanted::all(), &limits);
    assert_eq!(many, Err(Refusal::TooManySamples { limit: 13 }));
    // Text in place of protobuf, and a body cut anywhere but between two families.
    assert!(matches!(all(b"g 1\n# TYPE h counter\n"), Err(Refusal::NotProtobuf { .. })));
    let whole = everything();
    let cut = (1..whole.len()).filter(|end| all(&whole[..*end]).is_ok()).count();
    assert_eq!(cut, 5);
}

#[test]
fn mutated_bodies_never_panic_and_cost_no_more_than_their_size() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let whole = everything();
    let wanted = [Wanted::all(), Wanted::names(["h_bucket", "s", "g"])];
    let (mut read, mut refused) = (0, 0);
    for round in 0..30_000 {
        let mut body = whole.clone();
        for _ in 0..random.random_range(0..5) {
            let at = random.random_range(0..body.len());
            match random.random_range(0..4) {
                0 => body[at] = random.random(),
                1 => body[at] ^= 1 << random.random_range(0..8),
                2 => drop(body.remove(at)),
                _ => body.insert(at, random.random()),
            }
        }
        match read_protobuf(&body, &wanted[round % 2], &Limits::default()) {
            Ok(found) => {
                read += 1;
                assert!(found.samples.len() <= body.len());
                for native in found.samples.iter().filter_map(|sample| sample.native.as_ref()) {
                    assert!(native.buckets.is_sorted_by(|a, b| a.0 < b.0));
                    assert!(native.buckets.iter().all(|(_, count)| *count > 0.0));
                    assert_eq!(native.total(), native.classic().total());
                    let _ = native.estimate(0.95);
                }
            }
            Err(refusal) => {
                refused += 1;
                assert!(refusal.to_string().contains("expected"), "{refusal}");
            }
        }
    }
    assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused");
}

#[test]
fn only_delimited_families_are_announced() {
    let check = |content_type: &str, is: bool| assert_eq!(is_protobuf(content_type), is);
    check(CONTENT_TYPE, true);
    check(&format!("{CONTENT_TYPE}; escaping=underscores"), true);
    check(&CONTENT_TYPE.replace("delimited", "text"), false);
    check("application/vnd.google.protobuf", false);
    check("text/plain; proto=io.prometheus.client.MetricFamily; encoding=delimited", false);
}

#[test]
fn a_native_histogram_in_text_is_refused_by_name() {
    // As drafts of OpenMetrics 2.0 write it.
    for line in [
        "h {count:12,sum:100.0,schema:3,zero_threshold:0,zero_count:2,positive_spans:[0:1]}",
        "h{route=\"/\"} {count:12,sum:100.0,schema:3,positive_spans:[0:1],positive_buckets:[10]}",
    ] {
        let body = format!("good 1\n{line}\n");
        for (format, body) in
            [(Format::Text, body.clone()), (Format::OpenMetrics, format!("{body}# EOF\n"))]
        {
            let read = read(body.as_bytes(), format, &Wanted::all(), |_| true, &Limits::default());
            let refused = read.unwrap().refused.expect(line);
            assert!(
                refused.first.contains("read from protobuf, not from text"),
                "{}",
                refused.first
            );
        }
    }
}
