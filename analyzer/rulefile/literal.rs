//! Numbers with units, as people write them: `5%`, `1m30s`, `100MB`, `10/min`, `1.5x`.
//!
//! A literal is read once into the base unit of its dimension (a share of 1, seconds, bytes, events
//! a second). Decimal prefixes are powers of 1000 and binary ones of 1024; `m` is minutes, always.
//! Exponents, thousands separators and bare `M` are deliberately not read: each has two meanings.

use std::time::Duration;

use super::fault::{Complaint, excerpt};

/// Longest number that is read: every such number is finite and exact enough for an `f64`.
const MAX_DIGITS: usize = 15;

/// A number and what it counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Literal {
    /// In the base unit of the dimension.
    pub(super) value: f64,
    pub(super) dimension: Dimension,
}

/// What a literal counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dimension {
    /// No unit.
    Plain,
    /// A share of 1, written in percent.
    Share,
    /// Seconds.
    Time,
    /// Bytes.
    Bytes,
    /// Events a second.
    PerSecond,
    /// Bytes a second.
    BytesPerSecond,
    /// A share of 1 a second: `1%/min`.
    SharePerSecond,
    /// Seconds a second: `10ms/min`.
    TimePerSecond,
    /// A multiple: `1.5x`.
    Factor,
}

const UNITS: [(&str, f64, Dimension); 13] = [
    ("", 1.0, Dimension::Plain),
    ("%", 0.01, Dimension::Share),
    ("x", 1.0, Dimension::Factor),
    ("ms", 0.001, Dimension::Time),
    ("s", 1.0, Dimension::Time),
    ("m", 60.0, Dimension::Time),
    ("h", 3600.0, Dimension::Time),
    ("B", 1.0, Dimension::Bytes),
    ("KB", 1e3, Dimension::Bytes),
    ("MB", 1e6, Dimension::Bytes),
    ("GB", 1e9, Dimension::Bytes),
    ("KiB", 1024.0, Dimension::Bytes),
    ("MiB", 1_048_576.0, Dimension::Bytes),
];
const GIB: (&str, f64, Dimension) = ("GiB", 1_073_741_824.0, Dimension::Bytes);

/// Reads a literal; the complaint's span is relative to `text`.
pub(super) fn parse(text: &str) -> Result<Literal, Complaint> {
    let trimmed = text.trim();
    let lead = text.len() - text.trim_start().len();
    let whole = lead..lead + trimmed.len();
    let at_whole = |complaint: Complaint| Complaint { span: whole.clone(), ..complaint };
    if trimmed.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    {
        let message = format!("`{}` is negative", excerpt(trimmed));
        return Err(Complaint::new(whole, message, "a number from 0"));
    }
    let (amount, per) = match trimmed.split_once('/') {
        Some((amount, per)) => (amount.trim_end(), Some(per.trim_start())),
        None => (trimmed, None),
    };
    let literal = quantity(amount, trimmed).map_err(at_whole)?;
    match per {
        None => Ok(literal),
        Some(per) => rate(literal, per, trimmed).map_err(at_whole),
    }
}

/// Reads a duration, such as `90s` or `1m30s`.
pub(super) fn duration(text: &str) -> Result<Duration, Complaint> {
    let expected = "a duration such as `90s`, `1m30s`, `5m` or `1h`";
    let literal = parse(text)
        .map_err(|complaint| Complaint { expected: expected.to_owned(), ..complaint })?;
    let wrong = |message: String| Complaint::new(0..text.len(), message, expected);
    match literal.dimension {
        Dimension::Time => {}
        Dimension::Plain => {
            let number = text.trim();
            return Err(wrong(format!("`{number}` has no unit"))
                .hint(format!("write `{number}s` for seconds or `{number}m` for minutes")));
        }
        Dimension::Share
        | Dimension::Bytes
        | Dimension::PerSecond
        | Dimension::BytesPerSecond
        | Dimension::SharePerSecond
        | Dimension::TimePerSecond
        | Dimension::Factor => {
            return Err(wrong(format!("`{}` is not a duration", excerpt(text.trim()))));
        }
    }
    // No duration in a rule file is longer than its own limit; this only keeps the cast in range.
    let millis = (literal.value * 1000.0).round().min(1e15);
    Ok(Duration::from_millis(millis as u64))
}

/// A number without the last digits that binary arithmetic adds to it.
pub(super) fn short(value: f64) -> f64 {
    format!("{value:.12}").parse().unwrap_or(value)
}

/// A duration the way it would be written in a rule file.
pub fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (hours, rest) = (millis / 3_600_000, millis % 3_600_000);
    let (minutes, rest) = (rest / 60_000, rest % 60_000);
    let (secs, ms) = (rest / 1000, rest % 1000);
    let mut text = String::new();
    for (amount, unit) in [(hours, "h"), (minutes, "m"), (secs, "s"), (ms, "ms")] {
        if amount > 0 {
            text.push_str(&format!("{amount}{unit}"));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

fn quantity(amount: &str, whole: &str) -> Result<Literal, Complaint> {
    let mut rest = amount;
    let mut total: Option<(Literal, f64)> = None;
    loop {
        let (value, after) = number(rest, whole)?;
        let word_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (word, next) = after.split_at(word_end);
        // "5 %" is how people write it in prose, and it cannot mean anything else.
        let word = if word.trim() == "%" { "%" } else { word };
        let (_, scale, dimension) = UNITS
            .iter()
            .chain([&GIB])
            .find(|(unit, ..)| *unit == word)
            .copied()
            .ok_or_else(|| unknown_unit(word, whole))?;
        let part = Literal { value: value * scale, dimension };
        let both_time = dimension == Dimension::Time;
        total = match total {
            None => Some((part, scale)),
            Some((sum, last)) if both_time && sum.dimension == Dimension::Time && scale < last => {
                Some((Literal { value: sum.value + part.value, dimension }, scale))
            }
            Some(_) => return Err(malformed(whole)),
        };
        if next.is_empty() {
            break;
        }
        if !both_time {
            return Err(malformed(whole));
        }
        rest = next;
    }
    total.map(|(literal, _)| literal).ok_or_else(|| malformed(whole))
}

/// Digits with at most one point between them.
fn number<'t>(text: &'t str, whole: &str) -> Result<(f64, &'t str), Complaint> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.ends_with(|c: char| c.is_ascii_digit())
        && digits.matches('.').count() <= 1;
    if digits.len() > MAX_DIGITS {
        return Err(Complaint::new(
            0..0,
            format!("`{}` has too many digits", excerpt(whole)),
            format!("a number of at most {MAX_DIGITS} digits"),
        ));
    }
    let exponent = rest.strip_prefix(['e', 'E']).is_some_and(|after| {
        after.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit())
    });
    match digits.parse::<f64>() {
        Ok(value) if plain && !exponent => Ok((value, rest)),
        Ok(_) if exponent => Err(Complaint::new(
            0..0,
            format!("`{}` is written with an exponent", excerpt(whole)),
            "a number written out, such as 1000 or 0.001",
        )),
        Ok(_) | Err(_) => Err(malformed(whole)),
    }
}

fn rate(literal: Literal, per: &str, whole: &str) -> Result<Literal, Complaint> {
    let secs = match per {
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        other => {
            let hint = match other {
                "m" => Some("write `/min` for a minute".to_owned()),
                "sec" | "second" => Some("write `/s` for a second".to_owned()),
                "hour" => Some("write `/h` for an hour".to_owned()),
                _ => None,
            };
            return Err(Complaint::new(
                0..0,
                format!("`{}` is not a rate", excerpt(whole)),
                "`/s`, `/min` or `/h` after the number",
            )
            .hint_if(hint));
        }
    };
    let dimension = match literal.dimension {
        Dimension::Plain => Dimension::PerSecond,
        Dimension::Bytes => Dimension::BytesPerSecond,
        Dimension::Share => Dimension::SharePerSecond,
        Dimension::Time => Dimension::TimePerSecond,
        Dimension::PerSecond
        | Dimension::BytesPerSecond
        | Dimension::SharePerSecond
        | Dimension::TimePerSecond
        | Dimension::Factor => return Err(malformed(whole)),
    };
    Ok(Literal { value: literal.value / secs, dimension })
}

fn malformed(whole: &str) -> Complaint {
    Complaint::new(
        0..0,
        format!("`{}` is not a number with a unit", excerpt(whole)),
        "such as 5%, 1.5x, 200ms, 1m30s, 100MB, 1MB/min, 10/min or 42",
    )
}

fn unknown_unit(word: &str, whole: &str) -> Complaint {
    let complaint = Complaint::new(
        0..0,
        format!("`{}` has the unknown unit `{}`", excerpt(whole), excerpt(word.trim())),
        "one of %, ms, s, m, h, B, KB, MB, GB, KiB, MiB, GiB, x, or no unit",
    );
    let trimmed = word.trim();
    let hint = if trimmed != word && UNITS.iter().any(|(unit, ..)| *unit == trimmed) {
        "no blank between a number and its unit".to_owned()
    } else {
        match trimmed.to_ascii_lowercase().as_str() {
            "k" | "kb" | "kib" | "ki" => "write KB (1000) or KiB (1024)".to_owned(),
            "mb" | "mib" | "mi" => "write MB (1000 KB) or MiB (1024 KiB)".to_owned(),
            "m" => "write `m` for minutes, MB or MiB for bytes".to_owned(),
            "g" | "gb" | "gib" | "gi" => "write GB (1000 MB) or GiB (1024 MiB)".to_owned(),
            "sec" | "secs" | "second" | "seconds" => "write `s` for seconds".to_owned(),
            "min" | "mins" | "minute" | "minutes" => "write `m` for minutes".to_owned(),
            "hr" | "hour" | "hours" => "write `h` for hours".to_owned(),
            "d" | "day" | "days" => "write days in hours: one day is `24h`".to_owned(),
            "us" | "ns" | "µs" => "write it in ms, with a point: `0.5ms`".to_owned(),
            "percent" | "pct" => "write `%`".to_owned(),
            _ => return complaint,
        }
    };
    complaint.hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_become_base_units() {
        let check = |text: &str, value: f64, dimension: Dimension| {
            let literal = parse(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
            assert!((literal.value - value).abs() <= value.abs() * 1e-12, "{text}: {literal:?}");
            assert_eq!(literal.dimension, dimension, "{text}");
        };
        check("5%", 0.05, Dimension::Share);
        check("5 %", 0.05, Dimension::Share);
        check("0.1%", 0.001, Dimension::Share);
        check("42", 42.0, Dimension::Plain);
        check("1.5x", 1.5, Dimension::Factor);
        check("200ms", 0.2, Dimension::Time);
        check("1m30s", 90.0, Dimension::Time);
        check("1h30m", 5400.0, Dimension::Time);
        check("1.5m", 90.0, Dimension::Time);
        check("100MB", 1e8, Dimension::Bytes);
        check("1KiB", 1024.0, Dimension::Bytes);
        check("2GiB", 2_147_483_648.0, Dimension::Bytes);
        check("120/min", 2.0, Dimension::PerSecond);
        check("3600 / h", 1.0, Dimension::PerSecond);
        check("60MB/min", 1e6, Dimension::BytesPerSecond);
        check("6%/min", 0.001, Dimension::SharePerSecond);
        check("6s/min", 0.1, Dimension::TimePerSecond);
    }

    #[test]
    fn other_spellings_are_refused() {
        let check = |text: &str| {
            let read = parse(text);
            assert!(read.is_err(), "{text}: {read:?}");
        };
        for text in [
            "",
            " ",
            "x",
            "%",
            ".5",
            "5.",
            "1..2",
            "1.2.3",
            "1e999",
            "1e3",
            "1E-3",
            "NaN",
            "inf",
            "-5",
            "+5",
            "0x10",
            "1,000",
            "1_000",
            "5M",
            "5mb",
            "5min",
            "5 s",
            "5d",
            "30s1m",
            "1m1m",
            "5%5%",
            "5%s",
            "1x2",
            "5/fortnight",
            "1.5x/s",
            "5%/%",
            "1/2/s",
            "٣",
            "5µs",
            "99999999999999999999",
        ] {
            check(text);
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0s", "1ms", "90ms", "1s", "1m30s", "5m", "1h", "23h59m59s999ms"] {
            let read = duration(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
            assert_eq!(duration_text(read), text);
        }
        assert!(duration("5").is_err() && duration("5%").is_err() && duration("5MB").is_err());
    }
}
