//! The parts of an observation's readings: names once a record, values by number.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Edges, ReadingRecord, reading, value_record};
use crate::engine::observation::{Arm, Part, PartKind, Parts, Time};

/// Whose a part is: kind, name, and when its process began.
#[derive(Serialize, Deserialize, PartialEq)]
pub(super) struct NameRecord(
    KindRecord,
    Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")] Option<i64>,
);

/// One signal's parts: number of the signal, then canary and baseline, each a number in the list of
/// names with a value.
#[derive(Serialize, Deserialize)]
pub(super) struct PartsRecord(u32, Vec<(u32, ReadingRecord)>, Vec<(u32, ReadingRecord)>);

words!(KindRecord for PartKind { Instance = "i", Route = "r" });

/// Names of all parts of a record, each once: instances are the same for every signal.
#[derive(Default)]
pub(super) struct Names {
    pub(super) list: Vec<NameRecord>,
}

impl Names {
    fn index(&mut self, part: &Part) -> u32 {
        let name = NameRecord(part.kind.into(), part.name.clone(), part.started.map(|at| at.0));
        let index = self.list.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.list.push(name);
            self.list.len() - 1
        });
        index as u32
    }
}

/// The record of one signal's parts; none where there are none.
pub(super) fn write(
    signal: usize,
    parts: &Parts,
    names: &mut Names,
    edges: &mut Edges,
) -> Result<Option<PartsRecord>, String> {
    if parts.canary.is_empty() && parts.baseline.is_empty() {
        return Ok(None);
    }
    let mut of = |arm: Arm| {
        let record = |part: &Part| {
            let value = value_record(&part.value, edges);
            let value = value.map_err(|fault| {
                format!("{fault} in {} {} of signal {signal} of the {arm}", part.kind, part.name)
            })?;
            Ok((names.index(part), value))
        };
        parts.of(arm).iter().map(record).collect::<Result<Vec<_>, String>>()
    };
    Ok(Some(PartsRecord(signal as u32, of(Arm::Canary)?, of(Arm::Baseline)?)))
}

/// The parts of every signal that has some, by number of the signal.
pub(super) fn read(
    records: Vec<PartsRecord>,
    names: &[NameRecord],
    edges: &[Arc<[f64]>],
) -> Result<Vec<(usize, Parts)>, String> {
    let part = |(name, value): (u32, ReadingRecord)| {
        let Some(NameRecord(kind, name, started)) = names.get(name as usize) else {
            return Err(format!("name {name} of a part is not in the list"));
        };
        let value = reading(value, edges)?.map_err(|_| "a part has no value".to_owned())?;
        let (name, started) = (name.clone(), started.map(Time));
        Ok(Part { kind: (*kind).into(), name, started, value })
    };
    let all = |arm: Vec<(u32, ReadingRecord)>| {
        arm.into_iter().map(part).collect::<Result<Vec<Part>, String>>()
    };
    let one = |PartsRecord(signal, canary, baseline)| {
        Ok((signal as usize, Parts { canary: all(canary)?, baseline: all(baseline)? }))
    };
    records.into_iter().map(one).collect()
}
