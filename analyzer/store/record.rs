//! Shapes in which observations and carries lie in the journal: compact JSON with a version.
//!
//! Reading gives back bit for bit what was written, or says that it cannot: a journal is replayed
//! into verdicts, so a number off by one unit in the last place is a different verdict. Numbers are
//! therefore not left to the JSON library (see [`Exact`]). Words for reasons and states are spelled
//! out here and not derived from the engine's names, so that renaming a variant there does not
//! orphan a journal.
//!
//! Deliberately absent: migration of old records. Version 1 is the only one; another is unreadable.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    engine::observation::{
        Arm, Health, Histogram, Missing, Observation, Pair, Reading, Time, Value, Why,
    },
    signal::{
        carry::{Carry, InstanceCarry},
        sample::Labels,
    },
};

/// Version of both shapes.
const VERSION: u32 = 1;

/// Whole numbers below this are written as JSON integers: every one of them is an exact `f64`.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// The record of an observation, or why it cannot be kept: it holds a number that is not finite.
pub(super) fn write_observation(observation: &Observation) -> Result<String, String> {
    let mut edges = Edges::default();
    let mut signals = Vec::with_capacity(observation.signals.len());
    for (index, pair) in observation.signals.iter().enumerate() {
        let of = |arm: Arm, edges: &mut Edges| {
            reading_record(pair.of(arm), edges)
                .map_err(|fault| format!("{fault} in signal {index} of the {arm}"))
        };
        signals.push((of(Arm::Canary, &mut edges)?, of(Arm::Baseline, &mut edges)?));
    }
    let gap = match &observation.canary_gap {
        Some(missing) => Some(reading_record(&Err(missing.clone()), &mut edges)?),
        None => None,
    };
    let edges = edges.seen.iter().map(|edges| exact(edges)).collect();
    let record = ObservationRecord { v: VERSION, at: observation.at.0, edges, signals, gap };
    serde_json::to_string(&record).map_err(|error| error.to_string())
}

/// The observation of a record, or why it cannot be read.
pub(super) fn read_observation(record: &str) -> Result<Observation, String> {
    let record: ObservationRecord = parse(record)?;
    let edges: Vec<Arc<[f64]>> =
        record.edges.iter().map(|edges| edges.iter().map(|edge| edge.0).collect()).collect();
    let mut signals = Vec::with_capacity(record.signals.len());
    for (canary, baseline) in record.signals {
        signals.push(Pair::new(reading(canary, &edges)?, reading(baseline, &edges)?));
    }
    let canary_gap = match record.gap {
        Some(gap) => reading(gap, &edges)?.err(),
        None => None,
    };
    Ok(Observation { at: Time(record.at), signals, canary_gap })
}

/// The record of a carry. Raw counters may be anything, so any number is kept.
pub(super) fn write_carry(carry: &Carry) -> Result<String, String> {
    let mut words = Words::default();
    let instances = carry
        .instances
        .iter()
        .map(|((arm, instance), carry)| instance_record(*arm, instance, carry, &mut words))
        .collect();
    let record = CarryRecord { v: VERSION, words: words.list, instances };
    serde_json::to_string(&record).map_err(|error| error.to_string())
}

/// The carry of a record, or why it cannot be read.
pub(super) fn read_carry(record: &str) -> Result<Carry, String> {
    let CarryRecord { words, instances: records, v: _ } = parse(record)?;
    let word = |index: u32| {
        words.get(index as usize).cloned().ok_or_else(|| format!("word {index} is not in the list"))
    };
    let mut instances = BTreeMap::new();
    for record in records {
        let mut counters = BTreeMap::new();
        for (name, labels, value) in record.counters {
            let (pairs, []) = labels.as_chunks::<2>() else {
                return Err("a label has no value".to_owned());
            };
            let pairs = pairs
                .iter()
                .map(|[label, value]| Ok((word(*label)?, word(*value)?)))
                .collect::<Result<Vec<_>, String>>()?;
            counters.insert((word(name)?, Labels::new(pairs)), value.0);
        }
        let carry = InstanceCarry {
            first_seen: Time(record.first_seen),
            last_read: record.last_read.map(Time),
            process_start_secs: record.process_start_secs.map(|start| start.0),
            been_up: record.been_up,
            counters,
        };
        instances.insert((record.arm.into(), word(record.instance)?), carry);
    }
    Ok(Carry { instances })
}

fn parse<'a, T: Deserialize<'a>>(record: &'a str) -> Result<T, String> {
    let found = serde_json::from_str::<Version>(record)
        .map_err(|error| format!("no version in the record: {error}"))?;
    if found.v != VERSION {
        return Err(format!(
            "the record has version {}, this program reads version {VERSION}",
            found.v
        ));
    }
    serde_json::from_str(record).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ObservationRecord {
    v: u32,
    at: i64,
    /// Bucket layouts, each once; both arms usually have the same.
    #[serde(rename = "e", default, skip_serializing_if = "Vec::is_empty")]
    edges: Vec<Vec<Exact>>,
    /// Canary and baseline of each signal.
    #[serde(rename = "s")]
    signals: Vec<(ReadingRecord, ReadingRecord)>,
    /// Why some canary instances gave nothing; written like a missing reading.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    gap: Option<ReadingRecord>,
}

#[derive(Serialize, Deserialize)]
enum ReadingRecord {
    #[serde(rename = "s")]
    Share(Exact, Exact),
    #[serde(rename = "e")]
    Events(Exact, Exact, u32),
    #[serde(rename = "h")]
    Histogram(u32, Vec<Exact>),
    #[serde(rename = "l")]
    Level(Exact),
    #[serde(rename = "p")]
    Probe(HealthRecord, Option<Exact>),
    #[serde(rename = "r")]
    Restarts(u32),
    #[serde(rename = "m")]
    Missing(WhyRecord, String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CarryRecord {
    v: u32,
    /// Every name, label and value, each once: a histogram's series differ in one word only.
    #[serde(rename = "w")]
    words: Vec<Arc<str>>,
    #[serde(rename = "i")]
    instances: Vec<InstanceRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InstanceRecord {
    #[serde(rename = "a")]
    arm: ArmRecord,
    #[serde(rename = "n")]
    instance: u32,
    #[serde(rename = "f")]
    first_seen: i64,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    last_read: Option<i64>,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    process_start_secs: Option<Exact>,
    #[serde(rename = "u", default, skip_serializing_if = "Vec::is_empty")]
    been_up: Vec<usize>,
    /// Name, labels and their values in turn, value.
    #[serde(rename = "c")]
    counters: Vec<(u32, Vec<u32>, Exact)>,
}

/// Writes one enum of the engine as words that stay when its variants are renamed.
macro_rules! words {
    ($record:ident for $ours:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        #[derive(Serialize, Deserialize)]
        enum $record {
            $(#[serde(rename = $word)] $variant,)*
        }

        impl From<$ours> for $record {
            fn from(ours: $ours) -> Self {
                match ours {
                    $($ours::$variant => Self::$variant,)*
                }
            }
        }

        impl From<$record> for $ours {
            fn from(record: $record) -> Self {
                match record {
                    $($record::$variant => Self::$variant,)*
                }
            }
        }
    };
}

words!(ArmRecord for Arm { Canary = "c", Baseline = "b" });
words!(HealthRecord for Health { Up = "up", Degraded = "degraded", Down = "down" });
words!(WhyRecord for Why {
    FirstLook = "first_look",
    NoTraffic = "no_traffic",
    ScrapeFailed = "scrape_failed",
    Stale = "stale",
    WarmUp = "warm_up",
    AbsentSeries = "absent_series",
    BadValue = "bad_value",
    UnclearHealth = "unclear_health",
    BucketLayout = "bucket_layout",
    NotObserved = "not_observed",
    QueryFailed = "query_failed",
});

#[derive(Default)]
struct Edges {
    seen: Vec<Arc<[f64]>>,
}

impl Edges {
    fn index(&mut self, edges: &Arc<[f64]>) -> u32 {
        let same = |seen: &Arc<[f64]>| {
            Arc::ptr_eq(seen, edges)
                || seen.len() == edges.len()
                    && seen.iter().zip(edges.iter()).all(|(a, b)| a.to_bits() == b.to_bits())
        };
        let index = self.seen.iter().position(same).unwrap_or_else(|| {
            self.seen.push(Arc::clone(edges));
            self.seen.len() - 1
        });
        index as u32
    }
}

#[derive(Default)]
struct Words {
    list: Vec<Arc<str>>,
    index: BTreeMap<Arc<str>, u32>,
}

impl Words {
    fn index(&mut self, word: &str) -> u32 {
        if let Some(index) = self.index.get(word) {
            return *index;
        }
        let (index, word) = (self.list.len() as u32, Arc::<str>::from(word));
        self.list.push(Arc::clone(&word));
        self.index.insert(word, index);
        index
    }
}

fn instance_record(
    arm: Arm,
    instance: &str,
    carry: &InstanceCarry,
    words: &mut Words,
) -> InstanceRecord {
    let counters = carry.counters.iter().map(|((name, labels), value)| {
        let name = words.index(name);
        let pairs = labels.iter().flat_map(|(label, value)| [label, value]);
        (name, pairs.map(|word| words.index(word)).collect(), Exact(*value))
    });
    let counters = counters.collect();
    InstanceRecord {
        arm: arm.into(),
        instance: words.index(instance),
        first_seen: carry.first_seen.0,
        last_read: carry.last_read.map(|at| at.0),
        process_start_secs: carry.process_start_secs.map(Exact),
        been_up: carry.been_up.clone(),
        counters,
    }
}

fn reading_record(reading: &Reading, edges: &mut Edges) -> Result<ReadingRecord, String> {
    let value = match reading {
        Ok(value) => value,
        Err(Missing { why, detail }) => {
            return Ok(ReadingRecord::Missing((*why).into(), detail.clone()));
        }
    };
    Ok(match value {
        Value::Share { events, total } => ReadingRecord::Share(finite(*events)?, finite(*total)?),
        Value::Events { events, instance_secs, instances } => {
            ReadingRecord::Events(finite(*events)?, finite(*instance_secs)?, *instances)
        }
        Value::Histogram(Histogram { edges: layout, counts }) => {
            all_finite(layout)?;
            all_finite(counts)?;
            same_layout(layout.len(), counts.len())?;
            ReadingRecord::Histogram(edges.index(layout), exact(counts))
        }
        Value::Level(level) => ReadingRecord::Level(finite(*level)?),
        Value::Health { status, latency_secs } => {
            ReadingRecord::Probe((*status).into(), latency_secs.map(finite).transpose()?)
        }
        Value::Restarts(restarts) => ReadingRecord::Restarts(*restarts),
    })
}

fn reading(record: ReadingRecord, edges: &[Arc<[f64]>]) -> Result<Reading, String> {
    Ok(Ok(match record {
        ReadingRecord::Share(events, total) => Value::Share { events: events.0, total: total.0 },
        ReadingRecord::Events(events, instance_secs, instances) => {
            Value::Events { events: events.0, instance_secs: instance_secs.0, instances }
        }
        ReadingRecord::Histogram(layout, counts) => {
            let Some(edges) = edges.get(layout as usize) else {
                return Err(format!("bucket layout {layout} is not in the record"));
            };
            same_layout(edges.len(), counts.len())?;
            let counts = counts.into_iter().map(|count| count.0).collect();
            Value::Histogram(Histogram { edges: Arc::clone(edges), counts })
        }
        ReadingRecord::Level(level) => Value::Level(level.0),
        ReadingRecord::Probe(status, latency) => {
            Value::Health { status: status.into(), latency_secs: latency.map(|secs| secs.0) }
        }
        ReadingRecord::Restarts(restarts) => Value::Restarts(restarts),
        ReadingRecord::Missing(why, detail) => return Ok(Err(Missing::new(why.into(), detail))),
    }))
}

fn same_layout(edges: usize, counts: usize) -> Result<(), String> {
    if counts == edges + 1 {
        Ok(())
    } else {
        Err(format!("a histogram has {counts} buckets for {edges} edges"))
    }
}

pub(super) fn finite(number: f64) -> Result<Exact, String> {
    if number.is_finite() { Ok(Exact(number)) } else { Err(format!("found {number}")) }
}

fn all_finite(numbers: &[f64]) -> Result<(), String> {
    numbers.iter().try_for_each(|number| finite(*number).map(|_| ()))
}

fn exact(numbers: &[f64]) -> Vec<Exact> {
    numbers.iter().copied().map(Exact).collect()
}

/// A number that comes back with the same bits. Whole numbers are JSON integers; others are strings
/// with the shortest digits that name them, read by the standard library, because `serde_json` may
/// miss the last bit of a fraction; what is not finite is its bits in hex.
pub(super) struct Exact(pub(super) f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = self.0;
        let is_negative_zero = number == 0.0 && number.is_sign_negative();
        if !number.is_finite() {
            serializer.collect_str(&format_args!("x{:016x}", number.to_bits()))
        } else if number.fract() == 0.0 && number.abs() < WHOLE_MAX && !is_negative_zero {
            serializer.serialize_i64(number as i64)
        } else {
            serializer.collect_str(&format_args!("{number:?}"))
        }
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Exact;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer or a string of digits")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Exact, E> {
                Ok(Exact(number as f64))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Exact, E> {
                Ok(Exact(number as f64))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Exact, E> {
                let number = match text.strip_prefix('x') {
                    Some(bits) => u64::from_str_radix(bits, 16).ok().map(f64::from_bits),
                    None => text.parse().ok().filter(|number: &f64| number.is_finite()),
                };
                number.map(Exact).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(reading: Reading) -> Observation {
        let pair = Pair::new(reading.clone(), reading);
        Observation { at: Time(1_700_000_000_123), signals: vec![pair], canary_gap: None }
    }

    fn check(reading: Reading, expected: &str) {
        let observation = one(reading);
        let record = write_observation(&observation).expect("finite");
        assert_eq!(record, expected);
        assert_eq!(read_observation(&record).expect("just written"), observation);
    }

    #[test]
    fn an_observation_is_a_compact_record() {
        let head = r#"{"v":1,"at":1700000000123,"#;
        let twice = |reading: &str| format!(r#"{head}"s":[[{reading},{reading}]]}}"#);
        check(
            Ok(Value::Share { events: 3.0, total: 0.1 + 0.2 }),
            &twice(r#"{"s":[3,"0.30000000000000004"]}"#),
        );
        check(
            Ok(Value::Events { events: 1e300, instance_secs: -0.0, instances: 7 }),
            &twice(r#"{"e":["1e300","-0.0",7]}"#),
        );
        check(Ok(Value::Level(-2.0)), &twice(r#"{"l":-2}"#));
        check(Ok(Value::Restarts(2)), &twice(r#"{"r":2}"#));
        check(
            Ok(Value::Health { status: Health::Degraded, latency_secs: None }),
            &twice(r#"{"p":["degraded",null]}"#),
        );
        check(
            Ok(Value::Histogram(Histogram {
                edges: [0.5, 1.0].into(),
                counts: vec![1.0, 2.0, 0.0],
            })),
            &format!(r#"{head}"e":[["0.5",1]],"s":[[{{"h":[0,[1,2,0]]}},{{"h":[0,[1,2,0]]}}]]}}"#),
        );
        for why in Why::ALL {
            let observation = one(Err(Missing::new(why, "a \"quoted\" ä\n")));
            let record = write_observation(&observation).expect("nothing to refuse");
            assert_eq!(read_observation(&record).expect("just written"), observation);
        }
    }

    #[test]
    fn every_bit_of_a_number_survives() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
        let special = [0.0, -0.0, f64::MIN_POSITIVE, 5e-324, f64::MAX, WHOLE_MAX, -WHOLE_MAX];
        let random = (0..20_000).map(|_| f64::from_bits(rand::RngExt::random(&mut rng)));
        for number in special.into_iter().chain([f64::INFINITY, f64::NAN]).chain(random) {
            let text = serde_json::to_string(&Exact(number)).expect("a number");
            let back: Exact = serde_json::from_str(&text).expect("just written");
            assert_eq!(back.0.to_bits(), number.to_bits(), "{text}");
        }
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let observation = one(Ok(Value::Level(bad)));
            let why = write_observation(&observation).expect_err("not finite");
            assert_eq!(why, format!("found {bad} in signal 0 of the canary"));
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let check = |record: &str, expected: &str| {
            let why = read_observation(record).expect_err("unreadable");
            assert!(why.starts_with(expected), "{record}: {why}");
        };
        check(r#"{"v":2,"later":true}"#, "the record has version 2, this program reads version 1");
        check("", "no version in the record");
        check(r#"{"at":1}"#, "no version in the record");
        check(r#"{"v":1,"at":1}"#, "missing field `s`");
        check(r#"{"v":1,"at":1,"s":[[{"l":1.5},{"l":1}]]}"#, "invalid type: floating point");
        check(r#"{"v":1,"at":1,"s":[[{"l":"inf"},{"l":1}]]}"#, "invalid value: string \"inf\"");
        check(r#"{"v":1,"at":1,"s":[[{"h":[0,[1]]},{"l":1}]]}"#, "bucket layout 0");
        check(r#"{"v":1,"at":1,"e":[[1]],"s":[[{"h":[0,[1]]},{"l":1}]]}"#, "a histogram has 1");
        let labels = r#"{"v":1,"w":["a"],"i":[{"a":"c","n":0,"f":0,"c":[[0,[0],1]]}]}"#;
        assert_eq!(read_carry(labels).expect_err("odd"), "a label has no value");
        let word = r#"{"v":1,"w":[],"i":[{"a":"c","n":4,"f":0,"c":[]}]}"#;
        assert_eq!(read_carry(word).expect_err("no word"), "word 4 is not in the list");
    }

    #[test]
    fn a_carry_comes_back_with_strange_counters() {
        let labels = Labels::new(vec![("le".into(), "0.5".into()), ("path".into(), "/ä".into())]);
        let counters = BTreeMap::from([
            (("m_bucket".into(), labels), 0.1),
            (("m_count".into(), Labels::default()), f64::INFINITY),
        ]);
        let carry = InstanceCarry {
            first_seen: Time(-5),
            last_read: Some(Time(9)),
            process_start_secs: Some(1.7e9 + 0.25),
            been_up: vec![0, 3],
            counters,
        };
        let empty = InstanceCarry {
            first_seen: Time(0),
            last_read: None,
            process_start_secs: None,
            been_up: vec![],
            counters: BTreeMap::new(),
        };
        let instances = BTreeMap::from([
            ((Arm::Canary, "10.0.0.7:8080".into()), carry),
            ((Arm::Baseline, "le".into()), empty),
        ]);
        let carry = Carry { instances };
        let record = write_carry(&carry).expect("any carry can be written");
        assert_eq!(read_carry(&record).expect("just written"), carry);
    }
}
