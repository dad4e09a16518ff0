//! From values to places: linear and logarithmic axes with the marks that people expect.

/// An axis.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Values at both ends, ascending.
    pub range: [f64; 2],
    /// Equal steps are equal factors.
    pub is_log: bool,
    /// Values that are marked, with what is written there.
    pub marks: Vec<(f64, String)>,
    /// What the axis is of.
    pub title: String,
}

impl Scale {
    /// Equal steps are equal differences.
    pub fn linear(title: &str, range: [f64; 2], marks: Vec<(f64, String)>) -> Self {
        Self { range, is_log: false, marks, title: title.to_owned() }
    }

    /// Equal steps are equal factors; values are above zero.
    pub fn log(title: &str, range: [f64; 2], marks: Vec<(f64, String)>) -> Self {
        Self { range, is_log: true, marks, title: title.to_owned() }
    }

    /// Where a value lies, 0 at the lower end and 1 at the upper; what lies beyond is at the end.
    pub fn place(&self, value: f64) -> f64 {
        let [low, high] = self.range;
        let place = if self.is_log {
            (value.max(low) / low).ln() / (high / low).ln()
        } else {
            (value - low) / (high - low)
        };
        if place.is_nan() { 0.0 } else { place.clamp(0.0, 1.0) }
    }
}

/// Times that people count in, in seconds.
const TIMES: [(f64, &str); 16] = [
    (1.0, "1 s"),
    (2.0, "2 s"),
    (5.0, "5 s"),
    (10.0, "10 s"),
    (30.0, "30 s"),
    (60.0, "1 m"),
    (120.0, "2 m"),
    (300.0, "5 m"),
    (600.0, "10 m"),
    (1800.0, "30 m"),
    (3600.0, "1 h"),
    (7200.0, "2 h"),
    (21_600.0, "6 h"),
    (86_400.0, "1 d"),
    (259_200.0, "3 d"),
    (1_209_600.0, "14 d"),
];

/// Least distance of two marks, as a share of the axis.
const MARK_ROOM: f64 = 0.12;

/// A logarithmic axis of times that holds everything from `low_secs` to `high_secs`.
pub fn log_time(title: &str, low_secs: f64, high_secs: f64) -> Scale {
    let first = TIMES.iter().rposition(|(secs, _)| *secs <= low_secs).unwrap_or(0);
    let last = TIMES.iter().position(|(secs, _)| *secs >= high_secs).unwrap_or(TIMES.len() - 1);
    let last = last.max(first + 1).min(TIMES.len() - 1);
    let first = first.min(last - 1);
    let marks = TIMES[first..=last].iter().map(|(secs, text)| (*secs, (*text).to_owned()));
    let mut scale = Scale::log(title, [TIMES[first].0, TIMES[last].0], marks.collect());
    let places: Vec<f64> = scale.marks.iter().map(|(secs, _)| scale.place(*secs)).collect();
    // The upper end is kept, and of the others those that leave room for the next.
    let mut next = f64::INFINITY;
    let mut kept: Vec<bool> = Vec::new();
    for place in places.iter().rev() {
        let has_room = next - place >= MARK_ROOM;
        if has_room {
            next = *place;
        }
        kept.push(has_room);
    }
    let mut kept = kept.into_iter().rev();
    scale.marks.retain(|_| kept.next().unwrap_or(true));
    scale
}

/// A linear axis of times from zero.
pub fn linear_time(title: &str, high_secs: f64) -> Scale {
    let high = high_secs.max(1.0);
    let steps = [
        (1.0, 1.0, "s"),
        (5.0, 1.0, "s"),
        (10.0, 1.0, "s"),
        (30.0, 1.0, "s"),
        (60.0, 60.0, "m"),
        (120.0, 60.0, "m"),
        (300.0, 60.0, "m"),
        (600.0, 60.0, "m"),
        (1800.0, 60.0, "m"),
        (3600.0, 3600.0, "h"),
        (14_400.0, 3600.0, "h"),
        (43_200.0, 3600.0, "h"),
        (86_400.0, 86_400.0, "d"),
        (172_800.0, 86_400.0, "d"),
    ];
    let enough = |(secs, _, _): &&(f64, f64, &str)| high / secs <= 5.0;
    let (step, unit, word) = *steps.iter().find(enough).unwrap_or(&steps[steps.len() - 1]);
    let count = (high / step + 1e-9).floor() as usize;
    let mark = |n: usize| {
        let secs = n as f64 * step;
        (secs, if n == 0 { "0".to_owned() } else { format!("{} {word}", secs / unit) })
    };
    Scale::linear(title, [0.0, high], (0..=count).map(mark).collect())
}

/// A linear axis from zero that holds `high`, with marks at round values that `write` puts in words.
pub fn from_zero(title: &str, high: f64, write: impl Fn(f64) -> String) -> Scale {
    let high = if high.is_finite() && high > 0.0 { high } else { 1.0 };
    let power = 10f64.powf((high / MARKS_ABOUT).log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|round| round * power);
    let step = steps.into_iter().find(|step| high / step <= MARKS_ABOUT).unwrap_or(power * 10.0);
    let count = (high / step).ceil().max(1.0);
    let marks = (0..=count as usize).map(|n| (n as f64 * step, write(n as f64 * step)));
    Scale::linear(title, [0.0, count * step], marks.collect())
}

/// Marks of an axis, about.
const MARKS_ABOUT: f64 = 4.0;

/// An axis of shares from 0 to 100 %.
pub fn percent(title: &str) -> Scale {
    let marks = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| (share, format!("{} %", share * 100.0)));
    Scale::linear(title, [0.0, 1.0], marks.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_marks() {
        let time = log_time("t", 3.0, 250.0);
        assert_eq!(time.range, [2.0, 300.0]);
        assert_eq!(time.place(2.0), 0.0);
        assert_eq!(time.place(1e9), 1.0);
        assert!((time.place(600f64.sqrt()) - 0.5).abs() < 1e-12);
        assert_eq!(log_time("t", 0.0, 0.0).range, [1.0, 2.0]);
        assert_eq!(log_time("t", 1e9, 1e9).range, [259_200.0, 1_209_600.0]);
        assert_eq!(log_time("t", 10.0, 10.0).range, [10.0, 30.0]);
        let marks = |high| -> Vec<String> {
            linear_time("t", high).marks.into_iter().map(|(_, text)| text).collect()
        };
        assert_eq!(marks(1800.0), ["0", "10 m", "20 m", "30 m"]);
        let crowded = log_time("t", 2.0, 1800.0);
        let texts: Vec<&str> = crowded.marks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["2 s", "10 s", "30 s", "2 m", "10 m", "30 m"]);
        assert_eq!(marks(3.0), ["0", "1 s", "2 s", "3 s"]);
        assert!(marks(1e6).len() <= 8);
        let round = |high| -> Vec<String> {
            from_zero("v", high, |value| format!("{value:.3}"))
                .marks
                .into_iter()
                .map(|(_, text)| text)
                .collect()
        };
        assert_eq!(round(7.0), ["0.000", "2.000", "4.000", "6.000", "8.000"]);
        assert_eq!(round(0.012), ["0.000", "0.005", "0.010", "0.015"]);
        assert_eq!(from_zero("v", f64::NAN, |_| String::new()).range, [0.0, 1.0]);
        assert_eq!(percent("p").place(0.25), 0.25);
        assert_eq!(percent("p").place(f64::NAN), 0.0);
    }
}
