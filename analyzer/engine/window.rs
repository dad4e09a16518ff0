//! A fixed ring of looks for point estimates over the last minute or so.
//!
//! Reads take `now`, so that a silent target ages instead of freezing. Memory is bounded whatever
//! the interval: neighbouring looks share a slot once there would be more than [`SLOTS`] of them.

use std::{collections::VecDeque, time::Duration};

use super::observation::Time;

/// Most slots a window keeps; a one-minute window at one look a second is exact.
pub const SLOTS: usize = 60;

/// Sums of `N` quantities over the last `length`.
#[derive(Clone, Debug, PartialEq)]
pub struct Window<const N: usize> {
    length: Duration,
    slots: VecDeque<(Time, Time, [f64; N])>,
}

impl<const N: usize> Window<N> {
    /// A window of this length.
    pub fn new(length: Duration) -> Self {
        Self { length, slots: VecDeque::new() }
    }

    /// Adds what happened up to `at`.
    pub fn push(&mut self, at: Time, values: [f64; N]) {
        while self.slots.front().is_some_and(|(_, end, _)| at.since(*end) >= self.length) {
            self.slots.pop_front();
        }
        let width = self.length / SLOTS as u32;
        match self.slots.back_mut() {
            Some((start, end, sums)) if at.since(*start) < width => {
                *end = at;
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
            Some(_) | None => self.slots.push_back((at, at, values)),
        }
    }

    /// Sums over the looks that ended within the window before `now`; none when there are none.
    pub fn sums(&self, now: Time) -> Option<[f64; N]> {
        let mut live = self.slots.iter().filter(|(_, end, _)| now.since(*end) < self.length);
        let mut sums = live.next()?.2;
        for (_, _, values) in live {
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        Some(sums)
    }
}

/// The same for a histogram's buckets, whose number is known only at run time.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketWindow {
    length: Duration,
    slots: VecDeque<(Time, Time, Vec<f64>)>,
}

impl BucketWindow {
    /// A window of this length.
    pub fn new(length: Duration) -> Self {
        Self { length, slots: VecDeque::new() }
    }

    /// Adds what happened up to `at`. A change of the number of buckets empties the window.
    pub fn push(&mut self, at: Time, counts: &[f64]) {
        if self.slots.back().is_some_and(|(_, _, sums)| sums.len() != counts.len()) {
            self.slots.clear();
        }
        while self.slots.front().is_some_and(|(_, end, _)| at.since(*end) >= self.length) {
            self.slots.pop_front();
        }
        let width = self.length / SLOTS as u32;
        match self.slots.back_mut() {
            Some((start, end, sums)) if at.since(*start) < width => {
                *end = at;
                sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
            Some(_) | None => self.slots.push_back((at, at, counts.to_vec())),
        }
    }

    /// Forgets everything: the bucket layout changed.
    pub fn clear(&mut self) {
        self.slots.clear();
    }

    /// Sums per bucket into `sums`; false when there is nothing in the window.
    pub fn sums_into(&self, now: Time, sums: &mut Vec<f64>) -> bool {
        sums.clear();
        for (_, end, counts) in &self.slots {
            if now.since(*end) >= self.length {
                continue;
            }
            if sums.is_empty() {
                sums.extend_from_slice(counts);
            } else {
                sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
        }
        !sums.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_target_ages() {
        let mut window = Window::new(Duration::from_secs(60));
        window.push(Time(0), [1.0]);
        window.push(Time(30_000), [2.0]);
        assert_eq!(window.sums(Time(59_999)), Some([3.0]));
        assert_eq!(window.sums(Time(60_000)), Some([2.0]));
        assert_eq!(window.sums(Time(90_000)), None);
    }

    #[test]
    fn slots_are_bounded_and_lose_nothing() {
        let mut window = Window::new(Duration::from_secs(600));
        let mut buckets = BucketWindow::new(Duration::from_secs(600));
        for look in 0..5_000 {
            window.push(Time(look * 1000), [1.0]);
            buckets.push(Time(look * 1000), &[1.0, 0.0]);
            assert!(window.slots.len() <= SLOTS + 1 && buckets.slots.len() <= SLOTS + 1);
        }
        let sum = window.sums(Time(4_999_000)).expect("just filled")[0];
        assert!((590.0..=610.0).contains(&sum), "{sum}");
    }
}
