//! What the reducer must remember between two looks: raw counters as last seen.
//!
//! It is stored beside the journal in the same transaction, so that a restarted analysis takes the
//! difference to the last committed look and neither loses nor doubles a request.

use std::{collections::BTreeMap, sync::Arc};

use super::sample::Labels;
use crate::engine::{
    native::NativeHistogram,
    observation::{Arm, Time},
};

/// Position of one analysis in its targets' counters.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Carry {
    /// Per arm and instance.
    pub instances: BTreeMap<(Arm, Arc<str>), InstanceCarry>,
    /// Instances that there ever were. One that was forgotten and comes back counts again.
    pub seen: Seen,
}

/// How many instances of each arm there ever were in one analysis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Of the new version.
    pub canary: u32,
    /// Of the old version.
    pub baseline: u32,
}

impl Seen {
    /// Those of one arm.
    pub fn of(&mut self, arm: Arm) -> &mut u32 {
        match arm {
            Arm::Canary => &mut self.canary,
            Arm::Baseline => &mut self.baseline,
        }
    }
}

/// What is remembered of one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceCarry {
    /// When this analysis first saw it.
    pub first_seen: Time,
    /// When its samples were last read.
    pub last_read: Option<Time>,
    /// Its process start, in unix seconds, when it exposes one.
    pub process_start_secs: Option<f64>,
    /// The same as it was first read of the present process: targets that reckon it from a clock
    /// waver by a second, and a life has one beginning.
    pub life_began: Option<Time>,
    /// The health and `up` signals by which it has ever been up in this analysis, by index.
    pub been_up: Vec<usize>,
    /// Counter values by sample name and labels.
    pub counters: BTreeMap<(Arc<str>, Labels), f64>,
    /// Buckets of the native histograms among them.
    pub natives: BTreeMap<(Arc<str>, Labels), Arc<NativeHistogram>>,
}
