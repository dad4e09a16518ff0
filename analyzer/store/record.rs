//! Shapes in which observations and carries lie in the journal: compact JSON with a version.
//!
//! Reading gives back bit for bit what was written, or says that it cannot: a journal is replayed
//! into verdicts, so a number off by one unit in the last place is a different verdict. Numbers are
//! therefore not left to the JSON library (see `exact`). Words for reasons and states are spelled
//! out here and not derived from the engine's names, so that renaming a variant there does not
//! orphan a journal.
//!
//! Parts of readings came later: a record without them is one whose readings were not taken apart. So
//! did instances: without them nobody counted.
//!
//! Deliberately absent: migration of old records. Version 1 is the only one; another is unreadable.

/// Writes one enum of the engine as words that stay when its variants are renamed.
macro_rules! words {
    ($record:ident for $ours:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        #[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
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

mod exact;
mod instances;
mod native;
mod parts;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    engine::observation::{
        Arm, Health, Histogram, Instances, Missing, Observation, Pair, Reading, Time, Value, Why,
    },
    signal::{
        carry::{Carry, InstanceCarry, Seen},
        sample::Labels,
    },
};

pub(super) use exact::Exact;
use instances::{InstancesRecord, SeenRecord};
use native::NativeRecord;
use parts::{NameRecord, Names, PartsRecord};

/// Version of both shapes.
const VERSION: u32 = 1;

/// The record of an observation, or why it cannot be kept: it holds a number that is not finite.
pub(super) fn write_observation(observation: &Observation) -> Result<String, String> {
    let (mut edges, mut names) = (Edges::default(), Names::default());
    let mut signals = Vec::with_capacity(observation.signals.len());
    let mut parts = Vec::new();
    for (index, pair) in observation.signals.iter().enumerate() {
        let of = |arm: Arm, edges: &mut Edges| {
            reading_record(pair.of(arm), edges)
                .map_err(|fault| format!("{fault} in signal {index} of the {arm}"))
        };
        signals.push((of(Arm::Canary, &mut edges)?, of(Arm::Baseline, &mut edges)?));
        parts.extend(parts::write(index, &pair.parts, &mut names, &mut edges)?);
    }
    let gap = match &observation.canary_gap {
        Some(missing) => Some(reading_record(&Err(missing.clone()), &mut edges)?),
        None => None,
    };
    let edges = edges.seen.iter().map(|edges| exact(edges)).collect();
    let (v, at, names) = (VERSION, observation.at.0, names.list);
    let instances = observation.instances.map(Into::into);
    let record = ObservationRecord { v, at, edges, signals, names, parts, gap, instances };
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
    for (signal, parts) in parts::read(record.parts, &record.names, &edges)? {
        let Some(pair) = signals.get_mut(signal) else {
            return Err(format!("parts of signal {signal}, which is not in the record"));
        };
        pair.parts = parts;
    }
    let canary_gap = match record.gap {
        Some(gap) => reading(gap, &edges)?.err(),
        None => None,
    };
    let (at, instances) = (Time(record.at), record.instances.map(Instances::from));
    Ok(Observation { at, signals, canary_gap, instances })
}

/// The record of a carry. Raw counters may be anything, so any number is kept.
pub(super) fn write_carry(carry: &Carry) -> Result<String, String> {
    let mut words = Words::default();
    let instances = carry
        .instances
        .iter()
        .map(|((arm, instance), carry)| instance_record(*arm, instance, carry, &mut words))
        .collect();
    let seen = Some(carry.seen.into());
    let record = CarryRecord { v: VERSION, words: words.list, instances, seen };
    serde_json::to_string(&record).map_err(|error| error.to_string())
}

/// The carry of a record, or why it cannot be read.
pub(super) fn read_carry(record: &str) -> Result<Carry, String> {
    let CarryRecord { words, instances: records, seen, v: _ } = parse(record)?;
    let word = |index: u32| {
        words.get(index as usize).cloned().ok_or_else(|| format!("word {index} is not in the list"))
    };
    let mut instances = BTreeMap::new();
    for record in records {
        let (mut counters, mut natives) = (BTreeMap::new(), BTreeMap::new());
        let mut records = record.natives.into_iter().peekable();
        for (place, (name, labels, value)) in record.counters.into_iter().enumerate() {
            let (pairs, []) = labels.as_chunks::<2>() else {
                return Err("a label has no value".to_owned());
            };
            let pairs = pairs
                .iter()
                .map(|[label, value]| Ok((word(*label)?, word(*value)?)))
                .collect::<Result<Vec<_>, String>>()?;
            let key = (word(name)?, Labels::new(pairs));
            if let Some((_, native)) = records.next_if(|(at, _)| *at as usize == place) {
                natives.insert(key.clone(), Arc::new(native.histogram()?));
            }
            counters.insert(key, value.0);
        }
        let carry = InstanceCarry {
            first_seen: Time(record.first_seen),
            last_read: record.last_read.map(Time),
            process_start_secs: record.process_start_secs.map(|start| start.0),
            life_began: record.life_began.map(Time),
            been_up: record.been_up,
            counters,
            natives,
        };
        instances.insert((record.arm.into(), word(record.instance)?), carry);
    }
    let carry = Carry { instances, seen: Seen::default() };
    Ok(Carry { seen: instances::seen(seen, &carry), ..carry })
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
    /// Names of parts, each once.
    #[serde(rename = "n", default, skip_serializing_if = "Vec::is_empty")]
    names: Vec<NameRecord>,
    /// What some signals' readings are made of.
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<PartsRecord>,
    /// Why some canary instances gave nothing; written like a missing reading.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    gap: Option<ReadingRecord>,
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    instances: Option<InstancesRecord>,
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
    #[serde(rename = "n")]
    Native(NativeRecord),
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
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    seen: Option<SeenRecord>,
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
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    life_began: Option<i64>,
    #[serde(rename = "u", default, skip_serializing_if = "Vec::is_empty")]
    been_up: Vec<usize>,
    /// Name, labels and their values in turn, value.
    #[serde(rename = "c")]
    counters: Vec<(u32, Vec<u32>, Exact)>,
    /// Buckets of the native histograms among them, by their place in the list.
    #[serde(rename = "h", default, skip_serializing_if = "Vec::is_empty")]
    natives: Vec<(u32, NativeRecord)>,
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
    let natives = carry.counters.keys().enumerate().filter_map(|(place, key)| {
        let native = carry.natives.get(key)?;
        Some((place as u32, NativeRecord::raw(native)))
    });
    let natives = natives.collect();
    InstanceRecord {
        arm: arm.into(),
        instance: words.index(instance),
        first_seen: carry.first_seen.0,
        last_read: carry.last_read.map(|at| at.0),
        process_start_secs: carry.process_start_secs.map(Exact),
        life_began: carry.life_began.map(|at| at.0),
        been_up: carry.been_up.clone(),
        counters,
        natives,
    }
}

fn reading_record(reading: &Reading, edges: &mut Edges) -> Result<ReadingRecord, String> {
    match reading {
        Ok(value) => value_record(value, edges),
        Err(Missing { why, detail }) => Ok(ReadingRecord::Missing((*why).into(), detail.clone())),
    }
}

fn value_record(value: &Value, edges: &mut Edges) -> Result<ReadingRecord, String> {
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
        Value::Native(native) => ReadingRecord::Native(NativeRecord::of(native)?),
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
        ReadingRecord::Native(native) => Value::Native(native.histogram()?),
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

#[cfg(test)]
mod tests;
