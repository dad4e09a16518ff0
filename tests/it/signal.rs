//! From samples to observations, look by look: every defined outcome as a row of data.
//!
//! A look is written `seconds`, then instances separated by `|`, each `name: items` with items
//! separated by `;`. An item is a sample (`m{a="b"} 3`), `!` (the scrape failed), `@9` (the samples
//! are from second 9), `~m 3 0 -20:7` (a native histogram), `?up` (what the health endpoint said, `?unclear` for an answer that cannot
//! be understood), `=0.5` (an answer of a metrics server, or a number of a health answer; `=absent` for
//! none) or `-` (it was never asked). A reading is written in one line.

use std::{sync::Arc, time::Duration};

use regex::Regex;
use rollgate::{
    engine::{
        native::NativeHistogram,
        observation::{Health, Missing, Reading, Time, Value, Why},
    },
    signal::{
        answer::AnswerNumber,
        carry::Carry,
        reduce::Reducer,
        sample::{Gathered, InstanceReading, Labels, Level, Probe, ProbeAnswer, Sample},
        spec::{HealthTarget, MatchTest, Matcher, Reads, Reduce, Selection, Selector, SignalSpec},
    },
};

mod alive;
mod counters;
mod natives;
mod parts;
mod random;
mod readings;

/// Second 0 of every case; process starts in the cases are absolute.
const BEGIN_SECS: f64 = 1_000_000.0;

const RATIO: &str = r#"ratio req{status=~"5.."} / req"#;
const COUNT: &str = "count err_total";
const BUCKETS: &str = "histogram lat";

fn selector(text: &str) -> Selector {
    let text = text.trim();
    let (name, inside) = match text.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}').unwrap()),
        None => (text, ""),
    };
    let matchers = inside.split(',').filter(|part| !part.is_empty()).map(|part| {
        let at = part.find(['=', '!']).unwrap();
        let (op, value) = part[at..].split_once('"').unwrap();
        let value = value.strip_suffix('"').unwrap().to_owned();
        let regex = || Regex::new(&format!("^(?:{value})$")).unwrap();
        let test = match op {
            "=" => MatchTest::Equal(value),
            "!=" => MatchTest::NotEqual(value),
            "=~" => MatchTest::Regex(value.clone(), regex()),
            "!~" => MatchTest::NotRegex(value.clone(), regex()),
            op => panic!("no such operator: {op}"),
        };
        Matcher { label: part[..at].to_owned(), test }
    });
    Selector { name: name.to_owned(), matchers: matchers.collect() }
}

fn selection(text: &str) -> Selection {
    Selection { any_of: text.split(" or ").map(selector).collect() }
}

fn specs(text: &str) -> Arc<[SignalSpec]> {
    let (kind, of) = text.split_once(' ').unwrap_or((text, ""));
    let (first, second) = match of.split_once(" / ") {
        Some((first, second)) => (first, Some(selection(second))),
        None => (of, None),
    };
    let gauge = |reduce| Reads::Gauge { of: selection(first), per: second.clone(), reduce };
    let reads = match kind {
        "ratio" => Reads::Ratio { events: selection(first), total: second.clone().unwrap() },
        "count" => Reads::Counter(selection(of)),
        "histogram" => Reads::Histogram { of: selection(of), q: 0.95 },
        "restarts" => Reads::Restarts(selection(of)),
        "max" => gauge(Reduce::Max),
        "min" => gauge(Reduce::Min),
        "mean" => gauge(Reduce::Mean),
        "sum" => gauge(Reduce::Sum),
        "health" => Reads::Health(HealthTarget::Path("/health".to_owned())),
        "dependency" => Reads::Health(HealthTarget::Url("http://other/health".to_owned())),
        "promql" => Reads::Promql("up".to_owned()),
        "up" => Reads::Up,
        "field" | "least" | "far" => Reads::Answer {
            of: match kind {
                "far" => HealthTarget::Url("http://other/health".to_owned()),
                _ => HealthTarget::Path("/health".to_owned()),
            },
            number: AnswerNumber::Latency,
            reduce: if kind == "least" { Reduce::Min } else { Reduce::Max },
        },
        kind => panic!("no such signal: {kind}"),
    };
    Arc::new([SignalSpec { name: "signal".to_owned(), reads }])
}

fn sample(text: &str) -> Sample {
    let (series, value) = text.trim().rsplit_once(' ').unwrap();
    let Selector { name, matchers } = selector(series);
    let labels = matchers.into_iter().map(|Matcher { label, test }| match test {
        MatchTest::Equal(value) => (label.into(), value.into()),
        test => panic!("not a label: {test:?}"),
    });
    let labels = Labels::new(labels.collect());
    Sample::number(name.into(), labels, value.parse().unwrap())
}

/// A metric, the schema, the zero count, then buckets: `lat{route="/"} 3 5 -20:7 -19:1`.
fn native(text: &str) -> Sample {
    let mut words = text.split_whitespace();
    let Sample { name, labels, .. } = sample(&format!("{} 0", words.next().unwrap()));
    let histogram = NativeHistogram {
        schema: words.next().unwrap().parse().unwrap(),
        zero_threshold: 0.0,
        zero_count: words.next().unwrap().parse().unwrap(),
        buckets: words
            .map(|word| word.split_once(':').unwrap())
            .map(|(index, count)| (index.parse().unwrap(), count.parse().unwrap()))
            .collect(),
    };
    Sample::native(&name, labels, histogram)
}

fn probe(text: &str) -> Probe {
    let status = match text {
        "up" => Ok(Health::Up),
        "degraded" => Ok(Health::Degraded),
        "down" => Ok(Health::Down),
        _ => Err(Missing::new(Why::UnclearHealth, text)),
    };
    let answer = |status| ProbeAnswer { status, latency_secs: Some(0.25), detail: text.to_owned() };
    Probe { signal: 0, answer: status.map(answer) }
}

fn instance(text: &str, now: Time) -> InstanceReading {
    let (name, items) = text.trim().split_once(':').unwrap();
    let mut reading = InstanceReading {
        instance: name.into(),
        at: now,
        samples: Ok(Vec::new()),
        refused: None,
        probes: Vec::new(),
        levels: Vec::new(),
    };
    for item in items.split(';').map(str::trim).filter(|item| !item.is_empty()) {
        match item.as_bytes()[0] {
            b'!' => reading.samples = Err(Missing::new(Why::ScrapeFailed, "refused")),
            b'@' => reading.at = at(item[1..].parse().unwrap()),
            b'?' => reading.probes.push(probe(&item[1..])),
            b'=' => {
                let absent = || Missing::new(Why::AbsentSeries, item);
                let value = item[1..].parse().map_err(|_| absent());
                reading.levels.push(Level { signal: 0, value });
            }
            b'-' => reading.samples = Err(Missing::new(Why::Stale, "not asked any more")),
            b'~' => reading.samples.as_mut().unwrap().push(native(&item[1..])),
            _ => reading.samples.as_mut().unwrap().push(sample(item)),
        }
    }
    reading
}

fn at(secs: f64) -> Time {
    Time::from_secs_f64(BEGIN_SECS + secs)
}

fn gathered(secs: f64, text: &str) -> Gathered {
    let now = at(secs);
    let canary = text.split('|').filter(|part| !part.trim().is_empty());
    let canary = canary.map(|part| instance(part, now)).collect();
    Gathered { at: now, canary, baseline: Vec::new(), dependencies: Vec::new() }
}

fn line(reading: &Reading) -> String {
    match reading {
        Ok(Value::Share { events, total }) => format!("{events} of {total}"),
        Ok(Value::Events { events, instance_secs, instances }) => {
            format!("{events} in {instance_secs}s over {instances}")
        }
        Ok(Value::Histogram(histogram)) => format!("{:?} {:?}", histogram.edges, histogram.counts),
        Ok(Value::Native(native)) => {
            let NativeHistogram { schema, zero_count, buckets, .. } = native;
            let buckets = buckets.iter().map(|(index, count)| format!(" {index}:{count}"));
            format!("schema {schema}, zero {zero_count}:{}", buckets.collect::<String>())
        }
        Ok(Value::Level(level)) => format!("level {level}"),
        Ok(Value::Health { status, .. }) => status.to_string(),
        Ok(Value::Restarts(restarts)) => format!("{restarts} restarts"),
        Err(missing) => missing.to_string(),
    }
}

/// Each look's canary reading; for a missing one the expectation may leave the end out.
#[track_caller]
fn check_warm(spec: &str, warmup_secs: u64, looks: &[(f64, &str, &str)]) {
    let mut reducer = Reducer::new(specs(spec), Duration::from_secs(warmup_secs), Carry::default());
    for (secs, text, expected) in looks {
        let seen = reducer.reduce(&gathered(*secs, text));
        let reading = &seen.signals[0].canary;
        let said = line(reading);
        let good = if reading.is_ok() { said == *expected } else { said.starts_with(expected) };
        assert!(good, "{spec}, second {secs}, {text}: {said:?}, expected {expected:?}");
    }
}

#[track_caller]
fn check(spec: &str, looks: &[(f64, &str, &str)]) {
    check_warm(spec, 0, looks);
}
