//! Hours of services as a Prometheus would have recorded them, drawn from a seed: three services of
//! several instances, scraped every 15 s, with releases that are planted in them.

use std::fmt::Write as _;

use rand::{SeedableRng, rngs::StdRng};
use rand_distr::{Binomial, Distribution, Poisson};

/// Seconds between two scrapes.
pub const SCRAPE_SECS: i64 = 15;

/// Edges of the latency histogram, in seconds.
const EDGES: [f64; 8] = [0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0];

/// Median latency of a healthy version, and the spread of its logarithm.
const MEDIAN_SECS: f64 = 0.05;
const SPREAD: f64 = 0.6;

/// Requests a second of one instance.
const RPS: f64 = 20.0;

/// Share of them that fails on a healthy version.
const FAILING: f64 = 0.005;

/// One process.
#[derive(Clone, Copy)]
pub struct Process {
    /// Its service.
    pub job: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its instance label.
    pub instance: &'static str,
    /// From when to when it runs, in seconds after the beginning.
    pub runs: [i64; 2],
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a process; times in seconds after the beginning of the world.
#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// So many times the errors from then on.
    Errors(f64, i64),
    /// Requests take so many times as long.
    Slow(f64),
    /// It keeps so many bytes more each second.
    Leak(f64),
    /// It began anew then, and its counters with it.
    Restart(i64),
}

/// What a server would have recorded of these processes from `began` on, in OpenMetrics text.
pub fn recorded(processes: &[Process], began_secs: i64, seed: u64) -> String {
    let mut families: [String; 5] = [
        "# TYPE http_requests counter\n".into(),
        "# TYPE http_request_duration_seconds histogram\n".into(),
        "# TYPE process_resident_memory_bytes gauge\n".into(),
        "# TYPE process_start_time_seconds gauge\n".into(),
        "# TYPE up gauge\n".into(),
    ];
    let mut draw = StdRng::seed_from_u64(seed);
    for process in processes {
        let [requests, latency, memory, start, up] = &mut families;
        let labels = format!(
            "job=\"{}\",instance=\"{}\",version=\"{}\"",
            process.job, process.instance, process.version
        );
        let (mut lines, mut buckets) = ([String::new(), String::new()], vec![String::new(); 9]);
        let (mut failed, mut served) = (0.0, 0.0);
        let mut counts = [0.0; 9];
        let mut born = began_secs + process.runs[0];
        let mut secs = process.runs[0];
        while secs <= process.runs[1] {
            let at = began_secs + secs;
            if process.fault == Fault::Restart(secs) {
                (failed, served, counts, born) = (0.0, 0.0, [0.0; 9], at);
            }
            let all: f64 = Poisson::new(RPS * SCRAPE_SECS as f64).unwrap().sample(&mut draw);
            let share = match process.fault {
                Fault::Errors(factor, from) if secs > from => FAILING * factor,
                _ => FAILING,
            };
            let bad = Binomial::new(all as u64, share).unwrap().sample(&mut draw) as f64;
            (failed, served) = (failed + bad, served + all - bad);
            let factor = if let Fault::Slow(factor) = process.fault { factor } else { 1.0 };
            let mut left = all as u64;
            let mut below = 0.0;
            for (edge, count) in EDGES.iter().zip(&mut counts) {
                let within = normal_below((edge / (MEDIAN_SECS * factor)).ln() / SPREAD);
                let chance = ((within - below) / (1.0 - below)).clamp(0.0, 1.0);
                let here = Binomial::new(left, chance).unwrap().sample(&mut draw);
                (*count, left, below) = (*count + here as f64, left - here, within);
            }
            counts[8] += left as f64;
            for (line, (code, count)) in lines.iter_mut().zip([("200", served), ("500", failed)]) {
                writeln!(line, "http_requests_total{{{labels},code=\"{code}\"}} {count} {at}")
                    .unwrap();
            }
            let mut sum = 0.0;
            for (place, (line, count)) in buckets.iter_mut().zip(&counts).enumerate() {
                sum += count;
                let le = EDGES.get(place).map_or("+Inf".to_owned(), f64::to_string);
                let name = "http_request_duration_seconds_bucket";
                writeln!(line, "{name}{{{labels},le=\"{le}\"}} {sum} {at}").unwrap();
            }
            let kept = match process.fault {
                Fault::Leak(rate) => rate * (secs - process.runs[0]) as f64,
                _ => 0.0,
            };
            // A heap's saw-tooth.
            let bytes = 200e6 + 20e6 * ((secs % 60) as f64 / 60.0) + kept;
            writeln!(memory, "process_resident_memory_bytes{{{labels}}} {bytes} {at}").unwrap();
            writeln!(start, "process_start_time_seconds{{{labels}}} {born} {at}").unwrap();
            writeln!(up, "up{{{labels}}} 1 {at}").unwrap();
            secs += SCRAPE_SECS;
        }
        lines.iter().for_each(|line| requests.push_str(line));
        buckets.iter().for_each(|line| latency.push_str(line));
    }
    families.concat() + "# EOF\n"
}

/// The share of a standard normal below `z`, good to seven digits: Abramowitz and Stegun 7.1.26.
fn normal_below(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let poly = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let sum = poly.iter().fold(0.0, |sum, factor| (sum + factor) * t);
    let erf = 1.0 - sum * (-x * x).exp();
    0.5 * (1.0 + erf * z.signum())
}
