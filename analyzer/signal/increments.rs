//! Raw counters of one instance become increments since its last reading.
//!
//! Defined outcomes: a counter below its last value was reset, and counts from zero; after a
//! restart every series does; another process at the same address only sets marks, as if a load
//! balancer stood there; a series that was not there at the last reading began at zero; one that
//! was there with a bad value sets its mark first; the first reading of an instance only sets
//! marks; NaN, infinite, negative and absurdly large values are bad and contribute nothing; a
//! series given twice in one body counts once, as first given. In doubt a request is lost, never
//! counted twice.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    carry::InstanceCarry,
    sample::{Labels, Sample},
    spec::Selection,
};
use crate::engine::{
    native::NativeHistogram,
    observation::{Missing, Time, Why},
};

/// Series that vanished are remembered, so that one that comes back is not counted twice: up to
/// this many times the present number of series.
pub const VANISHED_SERIES_FACTOR: usize = 4;

/// So many are remembered in any case: a body that is empty once must not cost the marks.
pub const REMEMBERED_SERIES_MIN: usize = 1_000;

/// Which process answers, against the last reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// The same, as far as is known.
    Same,
    /// One that began since: its counters began at zero.
    New,
    /// One that was there all along: nothing is known of its counters at the last reading.
    Other,
}

/// Largest value of a counter. Nothing counts so far, and whatever is summed over series, instances
/// and looks of smaller ones stays finite.
const COUNTER_MAX: f64 = 1e30;

/// Counters of one instance, before and now.
pub struct Increments<'a> {
    /// By name and labels, each once.
    series: Vec<Series<'a>>,
    /// Buckets of the native histograms at the last reading.
    natives: BTreeMap<(Arc<str>, Labels), Arc<NativeHistogram>>,
    has_mark: bool,
    life: Life,
}

/// One series now, and its value at the last reading.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// The sample of this reading.
    pub sample: &'a Sample,
    /// The mark. NaN says that it was there and had no good value yet.
    before: Option<f64>,
}

impl Series<'_> {
    fn key(&self) -> (&str, &Labels) {
        (&self.sample.name, &self.sample.labels)
    }

    fn good(&self) -> Result<f64, Missing> {
        let value = self.sample.value;
        if is_good(value) {
            return Ok(value);
        }
        Err(Missing::new(Why::BadValue, format!("{} is {value}", self.sample.name)))
    }

    /// The value above the mark; below it a counter was reset and began at zero.
    fn above_mark(&self) -> Result<f64, Missing> {
        let value = self.good()?;
        match self.before {
            Some(before) if before.is_nan() => {
                let detail = format!("{} had no good value before", self.sample.name);
                Err(Missing::new(Why::FirstLook, detail))
            }
            Some(before) if value >= before => Ok(value - before),
            Some(_) | None => Ok(value),
        }
    }

    /// By how much a start time moved since the last reading, in its own unit.
    pub fn moved(&self) -> Option<f64> {
        self.before.map(|before| self.sample.value - before)
    }
}

impl<'a> Increments<'a> {
    /// The samples of this reading against the marks of the last one.
    pub fn new(samples: &'a [Sample], carry: &InstanceCarry, life: Life) -> Self {
        let mut series: Vec<Series<'a>> =
            samples.iter().map(|sample| Series { sample, before: None }).collect();
        // Stable, so that of a series given twice the first stays.
        series.sort_by(|a, b| a.key().cmp(&b.key()));
        series.dedup_by(|later, first| later.key() == first.key());
        let mut marks = carry.counters.iter().peekable();
        for series in &mut series {
            while marks.next_if(|((name, labels), _)| (&**name, labels) < series.key()).is_some() {}
            series.before = marks
                .peek()
                .filter(|((name, labels), _)| (&**name, labels) == series.key())
                .map(|(_, value)| **value);
        }
        let (natives, has_mark) = (carry.natives.clone(), carry.last_read.is_some());
        Self { series, natives, has_mark, life }
    }

    /// The series a selection reads: of the first of its names that the instance exposes.
    pub fn selected(&self, of: &Selection, suffix: &str) -> Result<Vec<Series<'a>>, Missing> {
        let names = of.names();
        let exposed = names
            .iter()
            .map(|name| (*name, self.named(&format!("{name}{suffix}"))))
            .find(|(_, series)| !series.is_empty());
        let Some((name, series)) = exposed else {
            let detail = format!("no {}{suffix}", names.join(" or "));
            return Err(Missing::new(Why::AbsentSeries, detail));
        };
        let labels = |series: &Series<'a>| &series.sample.labels;
        let matching: Vec<Series<'a>> =
            series.iter().filter(|series| of.matches(name, labels(series))).copied().collect();
        // A label that no series carries is a wrong selector, not "zero events".
        if matching.is_empty() && !series.iter().any(|series| of.could_match(name, labels(series)))
        {
            let detail = format!("no series of {name}{suffix} has the labels that are selected");
            return Err(Missing::new(Why::AbsentSeries, detail));
        }
        Ok(matching)
    }

    fn named(&self, name: &str) -> &[Series<'a>] {
        let from = self.series.partition_point(|series| *series.sample.name < *name);
        let rest = &self.series[from..];
        &rest[..rest.partition_point(|series| *series.sample.name == *name)]
    }

    /// Increment of one series since the last reading.
    pub fn of(&self, series: &Series<'_>) -> Result<f64, Missing> {
        let value = series.good()?;
        self.marked()?;
        match self.life {
            Life::New => Ok(value),
            Life::Same | Life::Other => series.above_mark(),
        }
    }

    /// Increment of a counter that outlives the process which it counts the lives of.
    pub fn of_outliving(&self, series: &Series<'_>) -> Result<f64, Missing> {
        series.good()?;
        self.marked()?;
        series.above_mark()
    }

    /// Increments of series that live and die together, as the buckets of one histogram do: when
    /// one of them was reset, all were, also one that has passed its old value again.
    pub fn of_group(&self, group: &[Series<'_>]) -> Result<Vec<f64>, Missing> {
        let fell = |series: &Series<'_>| series.before > Some(series.sample.value);
        if group.iter().any(fell) {
            self.marked()?;
            return group.iter().map(Series::good).collect();
        }
        group.iter().map(|series| self.of(series)).collect()
    }

    /// Increments of a native histogram. A bucket below its mark was reset, and all with it.
    pub fn of_native(
        &self,
        series: &Series<'_>,
        now: &NativeHistogram,
    ) -> Result<NativeHistogram, Missing> {
        series.good()?;
        self.marked()?;
        match self.life {
            Life::New => return Ok(now.clone()),
            Life::Same | Life::Other => {}
        }
        let sample = series.sample;
        match self.natives.get(&(sample.name.clone(), sample.labels.clone())) {
            Some(before) => Ok(now.since(before).unwrap_or_else(|| now.clone())),
            // The last reading may have been of a format that carries none.
            None if self.natives.is_empty() => {
                let detail = format!("{} was not read before", series.sample.name);
                Err(Missing::new(Why::FirstLook, detail))
            }
            // Then its count says why: it is new, or was bad.
            None => series.above_mark().map(|_| now.clone()),
        }
    }

    /// Sum of the increments of native histograms; a bad one costs only itself when others are good.
    pub fn sum_native(&self, series: &[Series<'_>]) -> Result<NativeHistogram, Missing> {
        let (mut sum, mut fault): (Option<NativeHistogram>, Option<Missing>) = (None, None);
        for one in series {
            let Some(now) = &one.sample.native else { continue };
            match (self.of_native(one, now), &mut sum) {
                (Ok(one), Some(sum)) => sum.add(&one),
                (Ok(one), None) => sum = Some(one),
                (Err(missing), _) => fault = Some(missing),
            }
        }
        let none = || Missing::new(Why::NoTraffic, "no native histogram has appeared yet");
        sum.ok_or_else(|| fault.unwrap_or_else(none))
    }

    /// Sum of the increments of several series; a bad one costs only itself when others are good.
    pub fn sum(&self, series: &[Series<'_>]) -> Result<f64, Missing> {
        self.marked()?;
        let (mut sum, mut good, mut bad) = (0.0, 0, None);
        for one in series {
            match self.of(one) {
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

    fn marked(&self) -> Result<(), Missing> {
        let detail = match self.life {
            Life::Same | Life::New if self.has_mark => return Ok(()),
            Life::Same | Life::New => "",
            Life::Other => "another process answered at the last look",
        };
        Err(Missing::new(Why::FirstLook, detail))
    }

    /// What to remember for the next reading.
    ///
    /// When too many series have vanished to be remembered the marks are set anew by the next
    /// reading: to forget some of them would count their whole past when they come back.
    pub fn remember(self, carry: &mut InstanceCarry, at: Time) {
        carry.last_read = Some(at);
        match self.life {
            Life::Same => {}
            Life::New | Life::Other => {
                carry.counters.clear();
                carry.natives.clear();
            }
        }
        for Series { sample, .. } in &self.series {
            if let Some(native) = sample.native.as_ref().filter(|_| is_good(sample.value)) {
                let key = (sample.name.clone(), sample.labels.clone());
                carry.natives.insert(key, native.clone());
            }
        }
        let mut fresh = Vec::new();
        let mut marks = carry.counters.iter_mut().peekable();
        for series in &self.series {
            while marks.next_if(|((name, labels), _)| (&**name, labels) < series.key()).is_some() {}
            let value = series.sample.value;
            match marks.next_if(|((name, labels), _)| (&**name, labels) == series.key()) {
                Some((_, mark)) if is_good(value) => *mark = value,
                // The last good value stays the mark: what came since is counted when it is good.
                Some(_) => {}
                None => fresh.push((series.sample, if is_good(value) { value } else { f64::NAN })),
            }
        }
        let keyed = |sample: &Sample| (sample.name.clone(), sample.labels.clone());
        carry.counters.extend(fresh.into_iter().map(|(sample, value)| (keyed(sample), value)));
        let remembered_max = REMEMBERED_SERIES_MIN.max(VANISHED_SERIES_FACTOR * self.series.len());
        if carry.counters.len() > remembered_max {
            carry.counters = BTreeMap::new();
            carry.natives = BTreeMap::new();
            carry.last_read = None;
        }
    }
}

fn is_good(value: f64) -> bool {
    (0.0..=COUNTER_MAX).contains(&value)
}
