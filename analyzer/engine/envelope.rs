//! The lower envelope of a level: the least it was, at several time scales, in bounded memory.
//!
//! A collector's saw-tooth, a request that holds a buffer, a cache that is flushed: all of them add
//! to what a process keeps and give it back. What it never goes below is what it keeps for good.
//! So of each sub-window of time only the lowest reading is kept: a point. Sub-windows are 4, 8,
//! 16, 32 and 64 s long, each scale with its own points, because nobody knows beforehand how long
//! the teeth are: a scale whose sub-windows are longer than a tooth does not see the teeth.
//!
//! Each scale also remembers the *give-back*: how far its points have come down from their highest,
//! fading over four windows. A rise that is not larger than that may be given back again.
//!
//! Sub-windows begin at multiples of their length after an origin that all instances share, so that
//! one look closes the same scales for all of them. Nothing here judges.

use std::collections::VecDeque;

use super::observation::Time;

/// Time scales: sub-windows of 4 s times 1, 2, 4, 8 and 16.
pub const SCALES: usize = 5;

/// Shortest sub-window, in seconds. With looks further apart each reading is a point.
pub const SUBWINDOW_SECS: f64 = 4.0;

/// Points that a slope is judged over. At the shortest scale that is 44 s: long enough that one
/// tooth, or one surge, is not taken for growth, and short enough to be done in 90 s.
pub const WINDOW: usize = 12;

/// Points before them that are kept: whether growth slows down shows against these.
pub const BEFORE: usize = 6;

/// A level that is further away than this is taken to be this far away: slopes stay finite.
const LEVEL_MAX: f64 = 1e30;

/// Sub-windows over which a give-back fades: four windows.
const FADE: f32 = 4.0 * WINDOW as f32;

/// The lowest reading of one sub-window. Single precision: seconds since an origin are exact to a
/// sixteenth for six days, and levels are differences to the first reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When its sub-window's first reading was taken, in seconds since the origin.
    pub secs: f32,
    /// Above the first reading of this life, in the signal's unit.
    pub level: f32,
}

/// The lower envelope of one life of one instance.
#[derive(Clone, Debug)]
pub struct Envelope {
    base: f64,
    scales: [Scale; SCALES],
}

#[derive(Clone, Debug, Default)]
struct Scale {
    points: VecDeque<Point>,
    open: Option<(u32, Point)>,
    peak: f32,
    give_back: f32,
}

/// The scales of which a look closed a sub-window, shortest first.
pub type Closed = [bool; SCALES];

impl Envelope {
    /// An envelope that begins at this level.
    pub fn new(level: f64) -> Self {
        let points = || VecDeque::with_capacity(WINDOW + BEFORE);
        let scales = std::array::from_fn(|_| Scale { points: points(), ..Scale::default() });
        Self { base: level, scales }
    }

    /// Takes a reading, `secs` after the origin; says which scales got a new point.
    pub fn push(&mut self, secs: f64, level: f64) -> Closed {
        let above = (level - self.base).clamp(-LEVEL_MAX, LEVEL_MAX);
        let point = Point { secs: secs as f32, level: above as f32 };
        let mut closed = [false; SCALES];
        for (index, scale) in self.scales.iter_mut().enumerate() {
            closed[index] = scale.push((secs / width_secs(index)) as u32, point);
        }
        closed
    }

    /// The points of a scale, oldest first: at most [`BEFORE`] and then [`WINDOW`] of the window;
    /// none until a whole window is there.
    pub fn window(&self, scale: usize) -> Option<([Point; WINDOW], impl Iterator<Item = Point>)> {
        let points = &self.scales[scale].points;
        let from = points.len().checked_sub(WINDOW)?;
        let window = std::array::from_fn(|index| points[from + index]);
        Some((window, points.iter().take(from).copied()))
    }

    /// All of this life: the points of the shortest scale that has lost none yet.
    pub fn life(&self) -> Vec<Point> {
        let whole = self.scales.iter().find(|scale| scale.points.len() < WINDOW + BEFORE);
        whole.unwrap_or(&self.scales[SCALES - 1]).points.iter().copied().collect()
    }

    /// How far the points of a scale have come down lately.
    pub fn give_back(&self, scale: usize) -> f64 {
        f64::from(self.scales[scale].give_back)
    }

    /// Points of a scale so far, up to a window's.
    pub fn filled(&self, scale: usize) -> usize {
        self.scales[scale].points.len().min(WINDOW)
    }
}

impl Scale {
    fn push(&mut self, number: u32, point: Point) -> bool {
        match &mut self.open {
            // An earlier number: the clock went back. Its readings belong to the open sub-window.
            Some((open, lowest)) if number <= *open => {
                lowest.level = lowest.level.min(point.level);
                false
            }
            Some((open, lowest)) => {
                let done = *lowest;
                (*open, *lowest) = (number, point);
                self.close(done);
                true
            }
            None => {
                self.open = Some((number, point));
                self.peak = point.level;
                false
            }
        }
    }

    fn close(&mut self, point: Point) {
        if self.points.len() == WINDOW + BEFORE {
            self.points.pop_front();
        }
        self.points.push_back(point);
        self.give_back = (self.give_back * (1.0 - 1.0 / FADE)).max(self.peak - point.level);
        self.peak = point.level.max(self.peak - (self.peak - point.level) / FADE);
    }
}

/// Length of a scale's sub-windows, in seconds.
pub fn width_secs(scale: usize) -> f64 {
    SUBWINDOW_SECS * f64::from(1u32 << scale)
}

/// Seconds from the origin of all envelopes to now.
pub fn since_origin(origin: Time, now: Time) -> f64 {
    now.since(origin).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(levels: impl Iterator<Item = f64>) -> Envelope {
        let mut envelope = Envelope::new(0.0);
        for (secs, level) in levels.enumerate() {
            envelope.push(secs as f64, level);
        }
        envelope
    }

    #[test]
    fn a_point_is_the_lowest_reading_of_its_sub_window() {
        // Teeth of 10 s: up by 1 a second, back to zero.
        let envelope = filled((0..100).map(|secs| f64::from(secs % 10)));
        let (fine, _) = envelope.window(0).expect("a hundred seconds are two windows");
        assert!(fine.iter().any(|point| point.level >= 5.0), "{fine:?}");
        let points: Vec<f32> = envelope.scales[2].points.iter().map(|point| point.level).collect();
        assert_eq!(points, vec![0.0; 6], "no sub-window of 16 s is without a trough");
        assert!(envelope.give_back(0) > 4.0);
        assert_eq!(envelope.give_back(2), 0.0);
    }

    #[test]
    fn it_is_bounded_and_a_give_back_fades() {
        let mut envelope = filled((0..4000).map(|secs| if secs == 1000 { -50.0 } else { 0.0 }));
        for scale in &envelope.scales {
            assert!(scale.points.len() <= WINDOW + BEFORE);
        }
        let faded = envelope.give_back(0);
        assert!(faded < 1e-3, "{faded}");
        let closed = envelope.push(1e9, 0.0);
        assert_eq!(closed, [true; SCALES]);
        assert_eq!(envelope.push(5.0, 0.0), [false; SCALES], "a clock that went back closes none");
    }
}
