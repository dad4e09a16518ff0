//! Raw counters of one instance become increments since its last reading.
//!
//! Defined outcomes: a counter below its last value was reset, and counts from zero; after a
//! restart every series does; a series that was not there at the last reading began at zero; the
//! first reading of an instance only sets the mark; NaN, infinite, negative and absurdly
//! large values are bad and contribute nothing.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    carry::InstanceCarry,
    sample::{Labels, Sample},
    spec::Selection,
};
use crate::engine::observation::{Missing, Why};

/// Series that vanished are remembered, so that one that comes back is not counted twice; beyond
/// this many times the present number of series the memory is dropped.
const VANISHED_SERIES_FACTOR: usize = 4;

/// Largest value of a counter. Nothing counts so far, and whatever is summed over series, instances
/// and looks of smaller ones stays finite.
const COUNTER_MAX: f64 = 1e30;

/// Counters of one instance, before and now.
pub struct Increments<'a> {
    samples: &'a [Sample],
    before: BTreeMap<(Arc<str>, Labels), f64>,
    has_mark: bool,
    restarted: bool,
}

impl<'a> Increments<'a> {
    /// `restarted` says that the process began anew since the last reading.
    pub fn new(samples: &'a [Sample], carry: &InstanceCarry, restarted: bool) -> Self {
        let before = carry.counters.clone();
        Self { samples, before, has_mark: carry.last_read.is_some(), restarted }
    }

    /// The samples a selection reads: of the first of its names that the instance exposes.
    pub fn selected(&self, of: &Selection, suffix: &str) -> Result<Vec<&'a Sample>, Missing> {
        let names = of.names();
        let exposed = names.iter().find(|name| {
            self.samples.iter().any(|sample| sample.name.strip_suffix(suffix) == Some(**name))
        });
        let Some(&name) = exposed else {
            return Err(Missing::new(
                Why::AbsentSeries,
                format!("no {}{suffix}", names.join(" or ")),
            ));
        };
        let of_name =
            self.samples.iter().filter(|sample| sample.name.strip_suffix(suffix) == Some(name));
        let (mut matching, mut others) = (Vec::new(), Vec::new());
        for sample in of_name {
            if of.matches(name, &sample.labels) {
                matching.push(sample)
            } else {
                others.push(sample)
            }
        }
        if matching.is_empty() {
            // A label that no series carries is a wrong selector, not "zero events".
            let unknown_label = |sample: &&Sample| {
                of.any_of.iter().filter(|selector| selector.name == name).any(|selector| {
                    let known = |label: &str| !sample.labels.value(label).is_empty();
                    selector.matchers.iter().all(|matcher| known(&matcher.label))
                })
            };
            if !others.iter().any(unknown_label) {
                let detail =
                    format!("no series of {name}{suffix} has the labels that are selected");
                return Err(Missing::new(Why::AbsentSeries, detail));
            }
        }
        Ok(matching)
    }

    /// Increment of one series since the last reading.
    pub fn of(&self, sample: &Sample) -> Result<f64, Missing> {
        let value = sample.value;
        if !(0.0..=COUNTER_MAX).contains(&value) {
            return Err(Missing::new(Why::BadValue, format!("{} is {value}", sample.name)));
        }
        if !self.has_mark {
            return Err(Missing::new(Why::FirstLook, "one more reading is needed"));
        }
        let before = self.before.get(&(sample.name.clone(), sample.labels.clone()));
        Ok(match before {
            Some(before) if !self.restarted && value >= *before => value - before,
            Some(_) | None => value,
        })
    }

    /// By how much a start time moved since the last reading, in its own unit.
    pub fn moved(&self, sample: &Sample) -> Option<f64> {
        let before = self.before.get(&(sample.name.clone(), sample.labels.clone()))?;
        Some(sample.value - before)
    }

    /// Sum of the increments of several series; a bad one costs only itself when others are good.
    pub fn sum(&self, samples: &[&Sample]) -> Result<f64, Missing> {
        let (mut sum, mut good, mut bad) = (0.0, 0, None);
        for sample in samples {
            match self.of(sample) {
                Ok(increment) => {
                    sum += increment;
                    good += 1;
                }
                Err(missing) => bad = Some(missing),
            }
        }
        match bad {
            Some(missing) if good == 0 => Err(missing),
            Some(_) | None => Ok(sum),
        }
    }

    /// What to remember for the next reading.
    pub fn remember(self, carry: &mut InstanceCarry) {
        let mut counters = if self.restarted { BTreeMap::new() } else { self.before };
        if counters.len() > VANISHED_SERIES_FACTOR * (self.samples.len() + 1) {
            counters.clear();
        }
        for sample in self.samples {
            if sample.value.is_finite() {
                counters.insert((sample.name.clone(), sample.labels.clone()), sample.value);
            }
        }
        carry.counters = counters;
    }
}
