//! Series in the notation of Prometheus' own unit tests: `0+60x20 _x3 1300+60x10`.
//!
//! One value a look, the first at the beginning of the analysis. `a+bxn` is `a` and then `n` more, each
//! `b` higher; `axn` is `a` and then `n` more of the same; `_` is a look without the series, `_xn` so
//! many, `stale` the same as `_`. Two things are ours: `..+bxn` goes on from the value before, `n` times,
//! and a last item without `x` goes on to the end.

use crate::{
    rulefile::{
        fault::{Complaint, excerpt},
        test_file::notation::Script,
    },
    signal::sample::Labels,
};

/// Items of one series.
const ITEMS_MAX: usize = 1_000;
/// Looks that one item lasts.
const REPEATS_MAX: usize = 1_000_000;

const EXPECTED: &str =
    "values like `0+60x20` (21 values, each 60 higher), `5x3`, `..+60x20`, `_x2` or `12`";

/// A series of one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name as exposed.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// What it shows.
    pub values: Values,
}

/// What a series shows over time.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Look by look, as they are.
    Listed(Vec<Item>),
    /// The buckets of a histogram, from requests with their quantile.
    Histogram {
        /// Which signal reads it.
        signal: usize,
        /// What it counts.
        script: std::sync::Arc<Script>,
    },
}

/// Some values of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item {
    /// So many looks without it.
    Absent(usize),
    /// So many values, or all that follow, from this one on, each so much higher.
    Run {
        /// The first of them.
        first: f64,
        /// How much each is higher than the one before.
        step: f64,
        /// How many; none for all that follow.
        count: Option<usize>,
    },
}

/// The value at a look, counted from 0; none where the series is not there.
pub fn value_at(items: &[Item], look: usize) -> Option<f64> {
    let mut left = look;
    for item in items {
        match *item {
            Item::Absent(count) if left < count => return None,
            Item::Absent(count) => left -= count,
            Item::Run { first, step, count } => match count {
                Some(count) if left >= count => left -= count,
                Some(_) | None => return Some(first + step * left as f64),
            },
        }
    }
    None
}

/// Reads the values of a series; spans are of `text`.
pub(in crate::rulefile) fn items(text: &str) -> Result<Vec<Item>, Complaint> {
    let mut items: Vec<Item> = Vec::new();
    let mut last: Option<f64> = None;
    let count = text.split_whitespace().count();
    if count == 0 || count > ITEMS_MAX {
        return Err(Complaint::new(
            0..text.len(),
            format!("a series of {count} items"),
            format!("1 to {ITEMS_MAX} of them"),
        ));
    }
    for (index, word) in text.split_whitespace().enumerate() {
        let at = word.as_ptr() as usize - text.as_ptr() as usize;
        let is_last = index + 1 == count;
        let item = item(word, last, is_last).map_err(|complaint| {
            let complaint = complaint.unwrap_or_else(|| {
                Complaint::new(0..word.len(), format!("`{}` in a series", excerpt(word)), EXPECTED)
            });
            complaint.moved(|span| span.start + at..span.end + at)
        })?;
        if let Item::Run { first, step, count } = item {
            last = Some(first + step * count.map_or(0, |count| count - 1) as f64);
        }
        items.push(item);
    }
    Ok(items)
}

/// One item. A complaint of its own, or none for the usual one.
fn item(word: &str, last: Option<f64>, is_last: bool) -> Result<Item, Option<Complaint>> {
    let (body, repeats) = match word.rsplit_once('x') {
        Some((body, repeats)) => (body, Some(repeats_of(word, repeats)?)),
        None => (word, None),
    };
    if body == "_" || body == "stale" {
        return Ok(Item::Absent(repeats.unwrap_or(1)));
    }
    if let Some(change) = body.strip_prefix("..") {
        let Some(last) = last else {
            return Err(Some(Complaint::new(
                0..word.len(),
                format!("`{}` goes on from a value, and none stands before it", excerpt(word)),
                "a value before it, such as `0 ..+60x20`",
            )));
        };
        let (step, rest) = signed(change).ok_or(None)?;
        if !rest.is_empty() || !change.starts_with(['+', '-']) {
            return Err(None);
        }
        let count = if is_last { repeats } else { Some(repeats.unwrap_or(1)) };
        return Ok(Item::Run { first: last + step, step, count });
    }
    let (first, change) = signed(body).ok_or(None)?;
    if change.is_empty() {
        // `axn` is one more than n values, as with Prometheus.
        let count = repeats.map(|more| more + 1).or(if is_last { None } else { Some(1) });
        return Ok(Item::Run { first, step: 0.0, count });
    }
    let (step, rest) = signed(change).ok_or(None)?;
    if !rest.is_empty() || !change.starts_with(['+', '-']) {
        return Err(None);
    }
    let count = match repeats {
        Some(more) => Some(more + 1),
        None if is_last => None,
        None => {
            return Err(Some(Complaint::new(
                0..word.len(),
                format!("`{}` does not say how often", excerpt(word)),
                format!("such as `{}x20`; only the last goes on by itself", excerpt(word)),
            )));
        }
    };
    Ok(Item::Run { first, step, count })
}

fn repeats_of(word: &str, text: &str) -> Result<usize, Option<Complaint>> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let count = text.parse::<usize>().ok().filter(|count| is_number && *count <= REPEATS_MAX);
    count.filter(|count| *count > 0).ok_or_else(|| {
        is_number.then(|| {
            Complaint::new(
                0..word.len(),
                format!("`{}` lasts {} looks", excerpt(word), excerpt(text)),
                format!("1 to {REPEATS_MAX} looks"),
            )
        })
    })
}

/// A number at the beginning of a text, with its sign, and what follows it.
fn signed(text: &str) -> Option<(f64, &str)> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    for (name, value) in [("NaN", f64::NAN), ("Inf", f64::INFINITY)] {
        if let Some(rest) = unsigned.strip_prefix(name) {
            return Some((sign * value, rest));
        }
    }
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut end = digits(unsigned);
    if end == 0 {
        return None;
    }
    if unsigned[end..].starts_with('.') {
        let decimals = digits(&unsigned[end + 1..]);
        if decimals == 0 {
            return None;
        }
        end += 1 + decimals;
    }
    if let Some(exponent) = unsigned[end..].strip_prefix(['e', 'E']) {
        let signs = usize::from(exponent.starts_with(['+', '-']));
        let power = digits(&exponent[signs..]);
        if power > 0 {
            end += 1 + signs + power;
        }
    }
    let value: f64 = unsigned[..end].parse().ok()?;
    Some((sign * value, &unsigned[end..]))
}
