//! What a signal shows over time, in compact notation: `1/1000 for 2m then 60/1000`.
//!
//! Segments are joined by `then`, or by commas. Each is a value or a ramp `A..B`, and optionally how long it lasts:
//! `for 2m`, or `x 24` looks; what the last one ends with goes on. Time runs from the beginning of the
//! analysis. A level is what it is at a look; a count is what came since the look before, so the look
//! at 2m is still the first segment's. A value is read by what its signal is, in the units of rules.

use std::{ops::Range, time::Duration};

use crate::{
    engine::{
        observation::{Health, Why},
        rule::SignalKind,
    },
    rulefile::{
        fault::{Complaint, excerpt},
        literal::{self, Dimension, Literal, duration_text},
        units::Units,
    },
};

/// Segments of one script.
const SEGMENTS_MAX: usize = 200;
/// Longest script.
const SCRIPT_BYTES_MAX: usize = 8 * 1024;
/// Longest segment: the longest deadline.
const LENGTH_MAX: Duration = Duration::from_secs(14 * 24 * 3600);

/// What a signal of one instance shows, from the beginning of the analysis on; never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    segments: Vec<Segment>,
}

/// A value, or the way from one to another, and how long that lasts.
#[derive(Clone, Debug, PartialEq)]
struct Segment {
    from: Shown,
    to: Option<Shown>,
    length: Option<Duration>,
}

/// What a signal shows at one look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shown {
    /// Events among all requests since the look before.
    Share {
        /// Requests that count as events.
        events: f64,
        /// All requests.
        total: f64,
    },
    /// Events since the look before; of `restarts`, process lives.
    Events(f64),
    /// Requests since the look before, whose quantile this is.
    Latency {
        /// How many.
        requests: f64,
        /// The quantile, in the signal's own unit.
        quantile: f64,
    },
    /// A level, in the signal's own unit.
    Level(f64),
    /// A health endpoint's answer.
    Health {
        /// What it says.
        status: Health,
        /// How long it took.
        latency_secs: Option<f64>,
    },
    /// Nothing, for this reason.
    Missing(Why),
}

/// Words for what is missing.
const MISSING: [(&str, Why); 5] = [
    ("gap", Why::ScrapeFailed),
    ("absent", Why::AbsentSeries),
    ("idle", Why::NoTraffic),
    ("stale", Why::Stale),
    ("unclear", Why::UnclearHealth),
];

impl Script {
    /// What is shown by a level at `time`.
    pub fn level_at(&self, time: Duration) -> Shown {
        self.at(time, |time, end| time < end)
    }

    /// What has been counted in the look that ends at `time`.
    pub fn count_at(&self, time: Duration) -> Shown {
        self.at(time, |time, end| time <= end)
    }

    /// Everything that it ever shows at the ends of its segments.
    pub fn values(&self) -> impl Iterator<Item = Shown> {
        self.segments.iter().flat_map(|segment| [Some(segment.from), segment.to]).flatten()
    }

    fn at(&self, time: Duration, is_within: impl Fn(Duration, Duration) -> bool) -> Shown {
        let mut begin = Duration::ZERO;
        for segment in &self.segments {
            let Some(length) = segment.length else { return segment.after(time, begin) };
            if is_within(time, begin + length) {
                return segment.after(time, begin);
            }
            begin += length;
        }
        let last = self.segments.last().expect("a script has a segment");
        last.to.unwrap_or(last.from)
    }
}

impl Segment {
    fn after(&self, time: Duration, begin: Duration) -> Shown {
        let (Some(to), Some(length)) = (self.to, self.length) else { return self.from };
        let share = time.saturating_sub(begin).as_secs_f64() / length.as_secs_f64();
        self.from.towards(to, share)
    }
}

impl Shown {
    /// So far on the way to another of the same kind.
    fn towards(self, to: Shown, share: f64) -> Shown {
        let mix = |from: f64, to: f64| from + (to - from) * share;
        match (self, to) {
            (
                Shown::Share { events, total },
                Shown::Share { events: to_events, total: to_total },
            ) => Shown::Share { events: mix(events, to_events), total: mix(total, to_total) },
            (Shown::Events(from), Shown::Events(to)) => Shown::Events(mix(from, to)),
            (
                Shown::Latency { requests, quantile },
                Shown::Latency { requests: to_requests, quantile: to_quantile },
            ) => Shown::Latency {
                requests: mix(requests, to_requests),
                quantile: mix(quantile, to_quantile),
            },
            (Shown::Level(from), Shown::Level(to)) => Shown::Level(mix(from, to)),
            // Between other kinds there is no way; the parser refuses it.
            (from, _) => from,
        }
    }
}

/// How the values of one signal are written.
#[derive(Clone, Copy)]
pub(in crate::rulefile) struct Notation<'c> {
    /// The signal's name and unit.
    pub(in crate::rulefile) units: Units<'c>,
    /// Time between two looks.
    pub(in crate::rulefile) interval: Duration,
}

/// Reads a script. Without a notation only its segments are read: the rule file is not known yet.
/// Spans are of `text`.
pub(in crate::rulefile) fn script(
    text: &str,
    notation: Option<Notation<'_>>,
) -> Result<Script, Complaint> {
    let pieces = split(text, "then");
    if text.len() > SCRIPT_BYTES_MAX || pieces.len() > SEGMENTS_MAX {
        return Err(Complaint::new(
            0..text.len(),
            format!("a script of {} segments and {} bytes", pieces.len(), text.len()),
            format!("at most {SEGMENTS_MAX} segments and {} KiB", SCRIPT_BYTES_MAX / 1024),
        ));
    }
    let interval = notation.map_or(Duration::from_secs(1), |notation| notation.interval);
    let mut segments = Vec::new();
    let count = pieces.len();
    for (index, (at, piece)) in pieces.into_iter().enumerate() {
        let (value, length) = segment_length(piece, interval).map_err(|c| moved(c, at))?;
        let span = at..at + piece.len();
        if length.is_none() && index + 1 < count {
            return Err(Complaint::new(
                span,
                format!("`{}` does not say how long it lasts", excerpt(piece)),
                "`for TIME` or `x LOOKS` on every segment but the last",
            ));
        }
        let (from, to) = value_or_ramp(value, notation).map_err(|c| moved(c, at))?;
        if to.is_some() && length.is_none() {
            return Err(Complaint::new(
                span,
                format!("the ramp `{}` does not say how long it takes", excerpt(piece)),
                format!("such as `{} for 5m`", excerpt(piece)),
            ));
        }
        segments.push(Segment { from, to, length });
    }
    Ok(Script { segments })
}

fn moved(complaint: Complaint, by: usize) -> Complaint {
    complaint.moved(|span| span.start + by..span.end + by)
}

/// Trimmed pieces between commas or the word that may stand for one, with their places. The word is
/// for YAML's `{ }`, where a comma ends the value.
pub(in crate::rulefile) fn split<'t>(text: &'t str, word: &str) -> Vec<(usize, &'t str)> {
    let mut ends: Vec<(usize, usize)> =
        text.match_indices(',').map(|(at, _)| (at, at + 1)).collect();
    let is_blank = |text: &str, from_end: bool| {
        let next = if from_end { text.chars().next_back() } else { text.chars().next() };
        next.is_none_or(char::is_whitespace)
    };
    for (at, _) in text.match_indices(word) {
        let end = at + word.len();
        if is_blank(&text[..at], true) && is_blank(&text[end..], false) {
            ends.push((at, end));
        }
    }
    ends.sort_unstable();
    ends.push((text.len(), text.len()));
    let mut begin = 0;
    let mut pieces = Vec::with_capacity(ends.len());
    for (end, next) in ends {
        let piece = &text[begin..end];
        let lead = piece.len() - piece.trim_start().len();
        pieces.push((begin + lead, piece.trim()));
        begin = next;
    }
    pieces
}

/// The value of a segment, and how long it lasts.
fn segment_length(piece: &str, interval: Duration) -> Result<(&str, Option<Duration>), Complaint> {
    let empty = |span: Range<usize>| {
        Complaint::new(span, "a segment without a value", "a value, such as `1/1000 for 2m`")
            .hint("segments are joined by `then` or a comma; none follows the last")
    };
    let (value, length) = match (keyword(piece, "for"), keyword(piece, "x")) {
        (Some((value, rest)), _) => {
            let at = piece.len() - rest.len();
            let read = literal::duration(rest).map_err(|complaint| moved(complaint, at));
            (value, Some((read?, at)))
        }
        (None, Some((value, rest))) => {
            let at = piece.len() - rest.len();
            let looks = rest.parse::<u32>().ok().filter(|looks| *looks > 0).ok_or_else(|| {
                let found = format!("`{}` looks", excerpt(rest));
                Complaint::new(at..piece.len(), found, "a number of looks, such as `x 24`")
            })?;
            (value, Some((interval.saturating_mul(looks), at)))
        }
        (None, None) => (piece, None),
    };
    if let Some((length, at)) = length
        && (length.is_zero() || length > LENGTH_MAX)
    {
        return Err(Complaint::new(
            at..piece.len(),
            format!("a segment of {}", duration_text(length)),
            format!("more than none and at most {}", duration_text(LENGTH_MAX)),
        ));
    }
    if value.is_empty() {
        return Err(empty(0..piece.len()));
    }
    Ok((value, length.map(|(length, _)| length)))
}

/// What stands before and after a word of its own; after `x` the blank may be missing.
fn keyword<'t>(piece: &'t str, word: &str) -> Option<(&'t str, &'t str)> {
    piece.rmatch_indices(word).find_map(|(at, _)| {
        let (before, after) = (&piece[..at], &piece[at + word.len()..]);
        let begins = before.is_empty() || before.ends_with(char::is_whitespace);
        let ends = after.starts_with(char::is_whitespace)
            || (word == "x" && after.starts_with(|c: char| c.is_ascii_digit()));
        (begins && ends).then(|| (before.trim_end(), after.trim_start()))
    })
}

fn value_or_ramp(
    text: &str,
    notation: Option<Notation<'_>>,
) -> Result<(Shown, Option<Shown>), Complaint> {
    let Some(notation) = notation else { return Ok((Shown::Missing(Why::NotObserved), None)) };
    let Some((from, to)) = text.split_once("..") else {
        return Ok((notation.value(text)?, None));
    };
    let at = from.len() + 2;
    let to_lead = to.len() - to.trim_start().len();
    let from_value = notation.value(from.trim_end())?;
    let to_value = notation.value(to.trim()).map_err(|c| moved(c, at + to_lead))?;
    let is_number = |shown: Shown| match shown {
        Shown::Share { .. } | Shown::Events(_) | Shown::Latency { .. } | Shown::Level(_) => true,
        Shown::Health { .. } | Shown::Missing(_) => false,
    };
    if !is_number(from_value) || !is_number(to_value) {
        return Err(Complaint::new(
            0..text.len(),
            format!("`{}` is no way from one number to another", excerpt(text)),
            "a ramp between two numbers, such as `100MB..400MB for 10m`",
        ));
    }
    Ok((from_value, Some(to_value)))
}

impl Notation<'_> {
    fn value(&self, text: &str) -> Result<Shown, Complaint> {
        if let Some((word, why)) = MISSING.iter().find(|(word, _)| *word == text) {
            return self.missing(word, *why);
        }
        match self.units.kind {
            SignalKind::Ratio { .. } => self.share(text),
            SignalKind::Rate | SignalKind::Count => self.amount(text).map(Shown::Events),
            SignalKind::Quantile { .. } => self.latency(text),
            SignalKind::Gauge { .. } => self.level(text).map(Shown::Level),
            SignalKind::Health => health(text).ok_or_else(|| self.wrong(text)),
            SignalKind::Restarts => match plain(text) {
                Some(lives) if lives.fract() == 0.0 => Ok(Shown::Events(lives)),
                Some(_) | None => Err(self.wrong(text)),
            },
        }
    }

    fn missing(&self, word: &str, why: Why) -> Result<Shown, Complaint> {
        let name = self.units.name;
        let is_health = matches!(self.units.kind, SignalKind::Health);
        match (is_health, why) {
            (true, Why::UnclearHealth) => Ok(Shown::Missing(why)),
            (true, _) => Err(self.wrong(word).hint(
                "an endpoint that does not answer is `down`; one that is not understood is `unclear`",
            )),
            (false, Why::UnclearHealth) => Err(Complaint::new(
                0..word.len(),
                format!("`{name}` is no health endpoint and cannot be `unclear`"),
                "`gap`, `absent`, `idle` or `stale`",
            )),
            (false, _) => Ok(Shown::Missing(why)),
        }
    }

    /// `60/1000`, `6% of 1000` or `6% of 50/s`.
    fn share(&self, text: &str) -> Result<Shown, Complaint> {
        let read = if let Some((percent, of)) = text.split_once(" of ") {
            let share = literal::parse(percent).ok().filter(|l| l.dimension == Dimension::Share);
            let total = self.amount(of.trim()).ok();
            share.zip(total).map(|(share, total)| (share.value * total, total))
        } else {
            let halves = text.split_once('/');
            halves.and_then(|(events, total)| Some((plain(events.trim())?, plain(total.trim())?)))
        };
        match read {
            Some((events, total)) if events <= total => Ok(Shown::Share { events, total }),
            Some(_) => Err(self.wrong(text).hint("there are more events than requests")),
            None => Err(self.wrong(text)),
        }
    }

    /// So many at each look, or in a time.
    fn amount(&self, text: &str) -> Result<f64, Complaint> {
        let literal = literal::parse(text)?;
        match literal.dimension {
            Dimension::Plain => Ok(literal.value),
            Dimension::PerSecond => Ok(literal.value * self.interval.as_secs_f64()),
            Dimension::Share
            | Dimension::Time
            | Dimension::Bytes
            | Dimension::BytesPerSecond
            | Dimension::SharePerSecond
            | Dimension::TimePerSecond
            | Dimension::Factor => Err(self.wrong(text)),
        }
    }

    fn latency(&self, text: &str) -> Result<Shown, Complaint> {
        let Some((requests, quantile)) = text.split_once('@') else {
            return Err(self.wrong(text));
        };
        let requests = self.amount(requests.trim())?;
        let at = text.len() - quantile.trim_start().len();
        let quantile = self.level(quantile.trim()).map_err(|complaint| moved(complaint, at))?;
        if quantile > 0.0 {
            return Ok(Shown::Latency { requests, quantile });
        }
        Err(self.wrong(text).hint("a quantile is above zero"))
    }

    fn level(&self, text: &str) -> Result<f64, Complaint> {
        let (sign, number) = match text.strip_prefix('-') {
            Some(rest) => (-1.0, rest),
            None => (1.0, text),
        };
        let literal: Literal = literal::parse(number)?;
        self.units.in_unit(literal, &(0..text.len())).map(|value| sign * value)
    }

    fn wrong(&self, text: &str) -> Complaint {
        let expected = match self.units.kind {
            SignalKind::Ratio { .. } => {
                "events among all at a look, such as `60/1000` or `6% of 50/s`"
            }
            SignalKind::Rate | SignalKind::Count => "how many at a look, such as `60`, or `12/s`",
            SignalKind::Quantile { .. } => {
                "how many at a look, and their quantile, such as `1000@200ms` or `50/s@200ms`"
            }
            SignalKind::Gauge { .. } => "a level, such as `300MB`, `80%` or `12`",
            SignalKind::Health => "`up`, `degraded`, `down` or `unclear`, such as `up@20ms`",
            SignalKind::Restarts => {
                "a whole number of restarts at a look, such as `0 for 3m then 1 x 1 then 0`"
            }
        };
        let name = self.units.name;
        Complaint::new(0..text.len(), format!("`{name}` shows `{}`", excerpt(text)), expected)
    }
}

fn plain(text: &str) -> Option<f64> {
    let literal = literal::parse(text).ok()?;
    (literal.dimension == Dimension::Plain).then_some(literal.value)
}

/// `up`, `down`, `up@20ms`.
fn health(text: &str) -> Option<Shown> {
    let (word, latency) = match text.split_once('@') {
        Some((word, latency)) => (word.trim(), Some(literal::duration(latency).ok()?)),
        None => (text, None),
    };
    let status = match word {
        "up" => Health::Up,
        "degraded" => Health::Degraded,
        "down" => Health::Down,
        _ => return None,
    };
    Some(Shown::Health { status, latency_secs: latency.map(|latency| latency.as_secs_f64()) })
}
