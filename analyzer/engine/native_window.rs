//! A window of native histograms, for point estimates over the last minute or so.
//!
//! What `window::BucketWindow` is for classic ones, where buckets are known only when something falls
//! into them. Reads take `now`; memory is bounded whatever the interval and the resolution.

use std::{collections::VecDeque, time::Duration};

use super::{
    native::{NATIVE_BUCKETS_MAX, NativeHistogram},
    observation::Time,
    window::SLOTS,
};

/// Buckets that a window may hold before its slots grow longer.
const WINDOW_BUCKETS: usize = 512;

/// Least number of slots in a window that holds many buckets.
const SLOTS_MIN: u32 = 8;

/// Buckets from the lowest to the highest that are summed side by side.
const DENSE_BUCKETS_MAX: i32 = 4096;

/// Native histograms of the looks of the last minute or so, as `window::BucketWindow` keeps classic
/// ones: in single precision, and with many buckets neighbouring looks share a slot earlier, so
/// that memory is bounded.
#[derive(Clone, Debug)]
pub struct NativeWindow {
    length: Duration,
    slots: VecDeque<Slot>,
    /// The slot that is still being filled.
    open: Option<(Time, Time, NativeHistogram)>,
}

/// Looks that were taken together, the last of them at `end`.
#[derive(Clone, Debug)]
struct Slot {
    end: Time,
    schema: i32,
    zero_threshold: f64,
    zero_count: f64,
    buckets: Box<[(i32, f32)]>,
}

impl Slot {
    fn of(end: Time, sum: &NativeHistogram) -> Self {
        let NativeHistogram { schema, zero_threshold, zero_count, .. } = *sum;
        // What is beyond single precision stays finite.
        let single = |(index, count): &(i32, f64)| (*index, count.min(f64::from(f32::MAX)) as f32);
        let buckets = sum.buckets.iter().map(single).collect();
        Self { end, schema, zero_threshold, zero_count, buckets }
    }

    fn histogram(&self) -> NativeHistogram {
        let Self { schema, zero_threshold, zero_count, .. } = *self;
        let buckets = self.buckets.iter().map(|(index, count)| (*index, f64::from(*count)));
        NativeHistogram { schema, zero_threshold, zero_count, buckets: buckets.collect() }
    }
}

impl NativeWindow {
    /// A window of this length.
    pub fn new(length: Duration) -> Self {
        Self { length, slots: VecDeque::new(), open: None }
    }

    /// Adds what happened up to `at`.
    pub fn push(&mut self, at: Time, histogram: &NativeHistogram) {
        // A clock that was set back leaves slots that nothing would ever push out.
        if self.open.as_ref().is_some_and(|(_, end, _)| at < *end) {
            self.clear();
        }
        while self.slots.front().is_some_and(|slot| at.since(slot.end) >= self.length) {
            self.slots.pop_front();
        }
        let held: usize = self.slots.iter().map(|slot| slot.buckets.len()).sum();
        let slots = if held < WINDOW_BUCKETS { SLOTS as u32 } else { SLOTS_MIN };
        let width = self.length / slots;
        match &mut self.open {
            Some((start, end, sum)) if at.since(*start) < width => {
                *end = at;
                sum.add(histogram);
            }
            open => {
                if let Some((_, end, sum)) = open.replace((at, at, histogram.clone())) {
                    self.slots.push_back(Slot::of(end, &sum));
                }
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.open = None;
    }

    /// The sum of the looks that ended within the window before `now`; none when there are none.
    pub fn sum(&self, now: Time) -> Option<NativeHistogram> {
        let is_live = |end: Time| now.since(end) < self.length;
        let (_, _, newest) = self.open.as_ref().filter(|(_, end, _)| is_live(*end))?;
        let mut sum = newest.clone();
        let live = || self.slots.iter().filter(|slot| is_live(slot.end));
        let is_like = |slot: &Slot| {
            slot.schema == newest.schema && slot.zero_threshold == newest.zero_threshold
        };
        let firsts = live().filter_map(|slot| slot.buckets.first()).map(|(index, _)| *index);
        let lasts = live().filter_map(|slot| slot.buckets.last()).map(|(index, _)| *index);
        let from = firsts.chain(newest.buckets.first().map(|(index, _)| *index)).min();
        let to = lasts.chain(newest.buckets.last().map(|(index, _)| *index)).max();
        match (from, to) {
            // The usual case, without a copy for each slot.
            (Some(from), Some(to)) if to - from < DENSE_BUCKETS_MAX && live().all(is_like) => {
                let mut counts = vec![0.0; (to - from + 1) as usize];
                let place = |index: i32| (index - from) as usize;
                newest.buckets.iter().for_each(|(index, count)| counts[place(*index)] += count);
                for slot in live() {
                    sum.zero_count += slot.zero_count;
                    for (index, count) in &slot.buckets {
                        counts[place(*index)] += f64::from(*count);
                    }
                }
                let filled = (from..=to).zip(counts).filter(|(_, count)| *count > 0.0);
                sum.buckets = filled.collect();
                sum.bound(NATIVE_BUCKETS_MAX);
            }
            _ => live().for_each(|slot| sum.add(&slot.histogram())),
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 40 requests of look number `look`, in as many buckets as `spread`.
    fn look(look: i64, schema: i32, spread: i32) -> NativeHistogram {
        let buckets =
            (0..spread).map(|bucket| (2 * bucket + look as i32 % 2, 40.0 / f64::from(spread)));
        let zero = f64::from(u8::from(look == 0));
        let buckets = buckets.collect();
        NativeHistogram { schema, zero_threshold: 0.0, zero_count: zero, buckets }
    }

    #[test]
    fn a_window_sums_its_looks_and_stays_small() {
        let mut window = NativeWindow::new(Duration::from_secs(60));
        assert_eq!(window.sum(Time(0)), None);
        for number in 0..400 {
            // Few buckets at first, then many; one look of several is of another resolution.
            let schema = if number % 90 == 30 { 2 } else { 3 };
            let spread = if number < 200 { 5 } else { 160 };
            window.push(Time(number * 1000), &look(number, schema, spread));
            let held: usize = window.slots.iter().map(|slot| slot.buckets.len()).sum();
            let held_max = WINDOW_BUCKETS + (SLOTS_MIN as usize + 2) * NATIVE_BUCKETS_MAX;
            assert!(held <= held_max, "{held} buckets");
            let sum = window.sum(Time(number * 1000)).expect("just filled");
            if number < 50 {
                // Nothing is over yet: the same as adding one by one.
                let mut expected = NativeHistogram::empty();
                for one in 0..=number {
                    expected.add(&look(one, if one % 90 == 30 { 2 } else { 3 }, 5));
                }
                assert_eq!(sum, expected, "look {number}");
            }
            // A slot is over as a whole: at most an eighth of the window is more or less.
            assert!(sum.total() <= 69.0 * 40.0 + 1.0, "look {number}: {}", sum.total());
            assert!(number < 60 || sum.total() >= 52.0 * 40.0, "look {number}: {}", sum.total());
        }
        assert_eq!(window.sum(Time(399_000 + 60_000)), None);
        window.push(Time(500_000), &look(1, 3, 5));
        window.clear();
        assert_eq!(window.sum(Time(500_000)), None);
    }
}
