//! The exposition reader on a 2 MB body of 20,000 samples: 20 samples wanted, and all wanted.
//!
//! Beside it, on the same body in the same run, stand prometheus-parse and a bare count of line
//! feeds, which is as fast as a body can be looked at. The four are timed in turns and compared by
//! their medians, so that a noisy machine disturbs all of them alike; the ratios are asserted.
//!
//! What 20 wanted samples cost depends on how many lines belong to siblings of the wanted names,
//! since each of those is looked at twice. Measured on two shared EPYC cores, in newline counts:
//! 1.5 with no sibling, 1.7 with one family in ten (this body), 2.3 with one in five. So the
//! target of 2 is kept on this body and not on every one.
//!
//! All wanted stands near its target and not safely above it: 5.2 to 7.1 times prometheus-parse in
//! a dozen runs, the low ones while others used the machine. Lexing is a third of it; the rest is
//! memory for the samples handed over, whose reference counts and page faults suffer most from
//! company.

use std::{hint::black_box, time::Instant};

use criterion::Criterion;
use memchr::memchr_iter;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use rollgate::source::exposition::{Format, Limits, Wanted, read};

const SEED: u64 = 20_000;
const SAMPLES: usize = 20_000;
const ROUNDS: usize = 25;

/// Three families, so that the search is not helped by there being but one, and siblings of each
/// among the others.
const WANTED: [&str; 3] =
    ["http_requests_total", "http_request_duration_seconds_bucket", "process_start_time_seconds"];
const WANTED_SAMPLES: usize = 20;

fn main() {
    let body = body();
    let text = std::str::from_utf8(&body).expect("the body is text");
    assert!((1_900_000..2_400_000).contains(&body.len()), "{} bytes", body.len());
    let few = Wanted::names(WANTED);
    let all = Wanted::all();

    ratios(&body, text, &few, &all);

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("exposition_2mb");
    group.throughput(criterion::Throughput::Bytes(body.len() as u64));
    group.bench_function("newlines", |bench| bench.iter(|| newlines(black_box(&body))));
    group.bench_function("20_wanted", |bench| bench.iter(|| ours(black_box(&body), &few)));
    group.bench_function("all_wanted", |bench| bench.iter(|| ours(black_box(&body), &all)));
    group.sample_size(10);
    group.bench_function("prometheus_parse", |bench| bench.iter(|| theirs(black_box(text))));
    group.finish();
    criterion.final_summary();
}

/// Times all four in turns, prints the ratios and asserts them.
fn ratios(body: &[u8], text: &str, few: &Wanted, all: &Wanted) {
    let comments = text.lines().filter(|line| line.starts_with('#')).count();
    let mut micros: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        micros[0].push(timed(20, SAMPLES + comments, || newlines(black_box(body))));
        micros[1].push(timed(20, WANTED_SAMPLES, || ours(black_box(body), few)));
        micros[2].push(timed(1, SAMPLES, || ours(black_box(body), all)));
        micros[3].push(timed(1, SAMPLES, || theirs(black_box(text))));
    }
    let [newlines, few, all, theirs] = micros.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    eprintln!(
        "medians: newlines {newlines:.1} us, 20 wanted {few:.1} us, all wanted {all:.0} us, \
         prometheus-parse {theirs:.0} us"
    );
    let few_vs_theirs = theirs / few;
    let few_vs_newlines = few / newlines;
    let all_vs_theirs = theirs / all;
    eprintln!("20 wanted: {few_vs_theirs:.0} times prometheus-parse (at least 100)");
    eprintln!("20 wanted: {few_vs_newlines:.2} of the newline count (at most 2)");
    eprintln!("all wanted: {all_vs_theirs:.1} times prometheus-parse (at least 6)");
    assert!(few_vs_theirs >= 100.0, "20 wanted is only {few_vs_theirs:.0} times the peer");
    assert!(few_vs_newlines <= 2.0, "20 wanted takes {few_vs_newlines:.2} newline counts");
    assert!(all_vs_theirs >= 6.0, "all wanted is only {all_vs_theirs:.1} times the peer");
}

/// Microseconds of one run among `runs`, each of which must answer `expected`.
fn timed(runs: usize, expected: usize, mut run: impl FnMut() -> usize) -> f64 {
    let begin = Instant::now();
    for _ in 0..runs {
        assert_eq!(run(), expected);
    }
    begin.elapsed().as_secs_f64() * 1e6 / runs as f64
}

fn newlines(body: &[u8]) -> usize {
    memchr_iter(b'\n', body).count()
}

fn ours(body: &[u8], wanted: &Wanted) -> usize {
    let read = read(body, Format::Text, wanted, |_| true, &Limits::default()).expect("reads");
    assert_eq!(read.refused, None);
    read.samples.len()
}

fn theirs(text: &str) -> usize {
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    prometheus_parse::Scrape::parse(lines).expect("parses").samples.len()
}

/// A service's body by seed: label sets of about 100 bytes a line, HELP and TYPE before each
/// family, the wanted families in the midst of others. One family in ten shares a stretch of its
/// name with a wanted one and is looked at more closely for that.
fn body() -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(SEED);
    let siblings = [
        "http_requests_in_flight",
        "http_request_size_bytes_sum",
        "http_client_requests_total",
        "http_client_request_duration_seconds_sum",
        "process_start_attempts_total",
    ];
    let stems = [
        "grpc_server_handled_total",
        "db_client_connections_usage",
        "jvm_memory_used_bytes",
        "kafka_consumer_records_lag",
        "cache_lookups_total",
        "queue_depth",
        "worker_busy_ratio",
        "rpc_latency_seconds_bucket",
        "node_network_receive_bytes_total",
        "disk_io_time_seconds_total",
        "scheduler_tasks_pending",
        "tls_handshakes_total",
        "pool_connections_idle",
        "mail_messages_sent_total",
        "gc_pause_seconds_sum",
    ];
    let mut text = String::new();
    let mut wanted = 0;
    let mut others = 0;
    for family in 0.. {
        if others == SAMPLES - WANTED_SAMPLES {
            break;
        }
        let kin = if random.random_ratio(1, 10) { &siblings[..] } else { &stems[..] };
        let stem = kin.choose(&mut random).expect("a stem");
        header(&mut text, &format!("{stem}_{family}"));
        for _ in 0..random.random_range(40..200).min(SAMPLES - WANTED_SAMPLES - others) {
            let method = ["GET", "POST", "PUT", "DELETE"].choose(&mut random).expect("a method");
            let (route, shard) = (random.random_range(0..60), random.random_range(0..16));
            let status = random.random_range(200..205);
            let value = random.random_range(0..10_000_000);
            text.push_str(&format!(
                "{stem}_{family}{{method=\"{method}\",route=\"/api/v1/r{route}\",\
                 status=\"{status}\",shard=\"{shard}\"}} {}\n",
                f64::from(value) / 8.0
            ));
            others += 1;
        }
        // Nine counters, ten buckets and a start time, spread over the body.
        if family % 8 == 3 && wanted < WANTED_SAMPLES {
            let (name, count) = [(WANTED[0], 9), (WANTED[1], 10), (WANTED[2], 1)][wanted / 9];
            header(&mut text, name);
            for index in 0..count {
                text.push_str(&format!("{name}{{le=\"{index}\",code=\"200\"}} {index}\n"));
            }
            wanted += count;
        }
    }
    assert_eq!(wanted, WANTED_SAMPLES);
    text.into_bytes()
}

fn header(text: &mut String, name: &str) {
    text.push_str(&format!("# HELP {name} How many, or how long.\n# TYPE {name} untyped\n"));
}
