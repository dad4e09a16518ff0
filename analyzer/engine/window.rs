//! A fixed ring of looks for point estimates over the last minute or so.
//!
//! Reads take `now`, so that a silent target ages instead of freezing. Memory is bounded whatever
//! the interval: neighbouring looks share a slot once there would be more than the window has.
//! Slots hold single precision, which is exact for counts up to 16 million a slot and keeps six
//! digits beyond: a window is for showing and for `for`, never for evidence.

use std::{collections::VecDeque, time::Duration};

use super::observation::Time;

/// Most slots a window keeps. A one-minute window ends to within three seconds, and one at a look
/// every three seconds or more is exact; with more slots windows would be most of an analysis.
pub const SLOTS: usize = 20;

/// When the looks of a slot were taken.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    last: Time,
    /// From its first look to its last.
    length_ms: u32,
}

impl Span {
    fn of(at: Time) -> Self {
        Self { last: at, length_ms: 0 }
    }

    /// Takes in a look at `at`, unless the slot would then be as long as `width`.
    fn extend(&mut self, at: Time, width: Duration) -> bool {
        let length = Duration::from_millis(self.length_ms.into()) + at.since(self.last);
        if length >= width {
            return false;
        }
        self.length_ms = u32::try_from(length.as_millis()).unwrap_or(u32::MAX);
        self.last = at;
        true
    }

    fn is_over(&self, now: Time, length: Duration) -> bool {
        now.since(self.last) >= length
    }
}

/// Sums of `N` quantities over the last `length`.
#[derive(Clone, Debug, PartialEq)]
pub struct Window<const N: usize> {
    length: Duration,
    slots: VecDeque<(Span, [f32; N])>,
}

impl<const N: usize> Window<N> {
    /// A window of this length.
    pub fn new(length: Duration) -> Self {
        Self { length, slots: VecDeque::new() }
    }

    /// How long it is.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// Adds what happened up to `at`.
    pub fn push(&mut self, at: Time, values: [f64; N]) {
        // A clock that was set back leaves slots that nothing would ever push out.
        if self.slots.back().is_some_and(|(span, _)| at < span.last) {
            self.slots.clear();
        }
        while self.slots.front().is_some_and(|(span, _)| span.is_over(at, self.length)) {
            self.slots.pop_front();
        }
        let width = self.length / SLOTS as u32;
        if !self.slots.back_mut().is_some_and(|(span, _)| span.extend(at, width)) {
            make_room(&mut self.slots, 1);
            self.slots.push_back((Span::of(at), [0.0; N]));
        }
        if let Some((_, sums)) = self.slots.back_mut() {
            add(sums, &values);
        }
    }

    /// Sums over the looks that ended within the window before `now`; none when there are none.
    pub fn sums(&self, now: Time) -> Option<[f64; N]> {
        let mut live = self.slots.iter().filter(|(span, _)| !span.is_over(now, self.length));
        let mut sums = live.next()?.1.map(f64::from);
        for (_, values) in live {
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        Some(sums)
    }
}

/// The same for a histogram's buckets, whose number is known only at run time.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketWindow {
    length: Duration,
    spans: VecDeque<Span>,
    buckets: usize,
    /// One slot after the other, each of as many numbers as there are buckets.
    counts: VecDeque<f32>,
}

impl BucketWindow {
    /// A window of this length.
    pub fn new(length: Duration) -> Self {
        Self { length, spans: VecDeque::new(), buckets: 0, counts: VecDeque::new() }
    }

    /// Adds what happened up to `at`. A change of the number of buckets empties the window.
    pub fn push(&mut self, at: Time, counts: &[f64]) {
        let set_back = self.spans.back().is_some_and(|span| at < span.last);
        if set_back || self.buckets != counts.len() {
            self.clear();
            self.buckets = counts.len();
        }
        while self.spans.front().is_some_and(|span| span.is_over(at, self.length)) {
            self.spans.pop_front();
            self.counts.drain(..self.buckets);
        }
        let width = self.length / SLOTS as u32;
        if !self.spans.back_mut().is_some_and(|span| span.extend(at, width)) {
            make_room(&mut self.spans, 1);
            make_room(&mut self.counts, self.buckets);
            self.spans.push_back(Span::of(at));
            self.counts.resize(self.counts.len() + self.buckets, 0.0);
        }
        let slot = self.counts.len() - self.buckets;
        add(self.counts.iter_mut().skip(slot), counts);
    }

    /// Forgets everything: the bucket layout changed.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.counts.clear();
    }

    /// Sums per bucket into `sums`; false when there is nothing in the window.
    pub fn sums_into(&self, now: Time, sums: &mut Vec<f64>) -> bool {
        let over = self.spans.iter().take_while(|span| span.is_over(now, self.length)).count();
        sums.clear();
        if over == self.spans.len() {
            return false;
        }
        sums.resize(self.buckets, 0.0);
        let mut bucket = 0;
        for count in self.counts.iter().skip(over * self.buckets) {
            sums[bucket] += f64::from(*count);
            bucket = if bucket + 1 == self.buckets { 0 } else { bucket + 1 };
        }
        true
    }
}

/// Makes room for a slot more, by a quarter of them at once: doubling would leave half unused.
fn make_room<T>(slots: &mut VecDeque<T>, width: usize) {
    if slots.len() + width > slots.capacity() {
        slots.reserve_exact(width * SLOTS.div_ceil(4));
    }
}

/// Adds in single precision; what is beyond it stays finite.
fn add<'a>(sums: impl IntoIterator<Item = &'a mut f32>, values: &[f64]) {
    for (sum, value) in sums.into_iter().zip(values) {
        *sum = (f64::from(*sum) + value).clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
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
    fn a_clock_set_back_begins_anew() {
        let mut window = Window::new(Duration::from_secs(60));
        let mut buckets = BucketWindow::new(Duration::from_secs(60));
        for secs in (5_000..5_030).chain(1_000..1_400) {
            window.push(Time(secs * 1000), [1.0]);
            buckets.push(Time(secs * 1000), &[1.0]);
            assert!(window.slots.len() <= SLOTS + 1 && buckets.spans.len() <= SLOTS + 1);
        }
        let sum = window.sums(Time(1_399_000)).expect("just filled")[0];
        assert!((59.0..=63.0).contains(&sum), "more than a slot too much: {sum}");
    }

    #[test]
    fn slots_are_bounded_and_lose_nothing() {
        let mut window = Window::new(Duration::from_secs(600));
        let mut buckets = BucketWindow::new(Duration::from_secs(600));
        for look in 0..5_000 {
            window.push(Time(look * 1000), [1.0]);
            buckets.push(Time(look * 1000), &[1.0, 0.0]);
            assert!(window.slots.len() <= SLOTS + 1 && buckets.spans.len() <= SLOTS + 1);
            assert_eq!(buckets.counts.len(), 2 * buckets.spans.len());
        }
        let sum = window.sums(Time(4_999_000)).expect("just filled")[0];
        assert!((590.0..=630.0).contains(&sum), "more than a slot too much: {sum}");
        let mut sums = Vec::new();
        assert!(buckets.sums_into(Time(4_999_000), &mut sums));
        assert_eq!(sums, [sum, 0.0]);
        assert!(!buckets.sums_into(Time(5_600_000), &mut sums));
    }
}
