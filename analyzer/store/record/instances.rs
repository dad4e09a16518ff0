//! How many instances there were, as an observation and a carry keep it.

use serde::{Deserialize, Serialize};

use crate::{
    engine::observation::{Arm, Headcount, Instances},
    signal::carry::{Carry, Seen},
};

/// Of the canary and of the baseline: how many answered, were there, ever were there.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct InstancesRecord([u32; 3], [u32; 3]);

/// Of the canary and of the baseline: how many there ever were.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct SeenRecord(u32, u32);

impl From<Instances> for InstancesRecord {
    fn from(instances: Instances) -> Self {
        let of = |Headcount { answered, found, seen }| [answered, found, seen];
        Self(of(instances.canary), of(instances.baseline))
    }
}

impl From<InstancesRecord> for Instances {
    fn from(InstancesRecord(canary, baseline): InstancesRecord) -> Self {
        let of = |[answered, found, seen]: [u32; 3]| Headcount { answered, found, seen };
        Self { canary: of(canary), baseline: of(baseline) }
    }
}

impl From<Seen> for SeenRecord {
    fn from(Seen { canary, baseline }: Seen) -> Self {
        Self(canary, baseline)
    }
}

/// Of a carry that was written before anybody counted, those that it remembers.
pub(super) fn seen(record: Option<SeenRecord>, carry: &Carry) -> Seen {
    let count = |arm: Arm| {
        let all = carry.instances.keys().filter(|(found, _)| *found == arm).count();
        u32::try_from(all).unwrap_or(u32::MAX)
    };
    match record {
        Some(SeenRecord(canary, baseline)) => Seen { canary, baseline },
        None => Seen { canary: count(Arm::Canary), baseline: count(Arm::Baseline) },
    }
}
