//! Numbers as people read them, by the unit that a report names: `6.1 %`, `176 ms`, `48.2 MiB`.
//!
//! Pure and short-sighted on purpose: three digits tell a rate from its limit, and whoever needs
//! more reads the JSON. A unit that is not known is written as a plain number.

use super::shape::ProgressShape;

const KIB: f64 = 1024.0;

/// One number with its unit.
pub fn quantity(value: f64, unit: &str) -> String {
    if !value.is_finite() {
        return not_finite(value);
    }
    match unit {
        "share" => share(value),
        "seconds" => seconds(value),
        "bytes" => bytes(value),
        "per_second" => format!("{}/s", plain(value)),
        "count" => count(value),
        "health" => health(value),
        // A slope: nobody thinks in bytes a second when a leak takes an hour.
        _ => match unit.strip_suffix("_per_second") {
            Some(level) => format!("{}/min", quantity(value * 60.0, level)),
            None => plain(value),
        },
    }
}

/// The same for a narrow column, where a slope would not fit: `20M/min`, `0.6%/min`.
pub fn cell(value: f64, unit: &str) -> String {
    let Some(level) = unit.strip_suffix("_per_second").filter(|_| value.is_finite()) else {
        return quantity(value, unit);
    };
    let per_min = value * 60.0;
    let short = match level {
        "bytes" => {
            let bytes = bytes(per_min);
            let (number, unit) = bytes.split_once(' ').unwrap_or((&bytes, ""));
            let number: f64 = number.parse().unwrap_or(per_min);
            let digits = usize::from(number.abs() < 9.95 && unit != "B");
            format!("{number:.digits$}{}", unit.trim_end_matches("iB"))
        }
        level => quantity(per_min, level).replace(' ', ""),
    };
    format!("{short}/min")
}

/// Both ends of an interval, the unit said once where both ends have the same: `4.2–8.4 %`.
pub fn interval([low, high]: [f64; 2], unit: &str) -> String {
    let (low, high) = (quantity(low, unit), quantity(high, unit));
    // Only these are split: a composed duration or a health word has no unit to leave out.
    let suffix = [
        " %", " ms", " s", " KiB", " MiB", " GiB", " TiB", " B", "/s", " KiB/min", " MiB/min",
        " GiB/min", " B/min", " %/min",
    ]
    .into_iter()
    .find(|suffix| low.ends_with(suffix) && high.ends_with(suffix));
    match suffix {
        Some(suffix) if !low.contains(" m ") && !low.contains(" h ") => {
            format!("{}–{high}", low.trim_end_matches(suffix))
        }
        Some(_) | None => format!("{low}–{high}"),
    }
}

/// A length of time: `0 s`, `14 s`, `1 m 20 s`, `2 h 5 m`, `3 d 4 h`. Below a second: `176 ms`.
pub fn duration(secs: f64) -> String {
    if !secs.is_finite() {
        return not_finite(secs);
    }
    if secs < 0.0 {
        return format!("-{}", duration(-secs));
    }
    if secs > 0.0 && secs < 0.9995 {
        return seconds(secs);
    }
    let whole = secs.round() as u64;
    let pair = |large: u64, large_unit, small: u64, small_unit| match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => pair(whole / 60, "m", whole % 60, "s"),
        3600..86_400 => pair(whole / 3600, "h", whole % 3600 / 60, "m"),
        _ => pair(whole / 86_400, "d", whole % 86_400 / 3600, "h"),
    }
}

/// A moment, from unix seconds: `2026-11-21 03:42:20 UTC`. Of one outside of all calendars the number.
pub fn moment(unix_secs: f64) -> String {
    let time = jiff::Timestamp::from_second(unix_secs.floor() as i64);
    time.map_or_else(|_| plain(unix_secs), |time| time.strftime("%F %T UTC").to_string())
}

/// How far a clause is, in words: `3.0 of 3.6 decades`, `12 s of 2 m`, `2 of 3 checks`, `0 of 1`.
pub fn progress(progress: &ProgressShape) -> String {
    let (value, needed) = (progress.value, progress.needed);
    match progress.kind.as_str() {
        "evidence_decades" => format!("{} of {} decades", decades(value), decades(needed)),
        "held_secs" => format!("{} of {}", held(value), duration(needed)),
        "checks" => format!("{} of {} checks", count(value), count(needed)),
        _ => format!("{} of {}", count(value), count(needed)),
    }
}

/// The same for a narrow column: `3.0/3.6`, `12s/2m`, `2/3`.
pub fn progress_short(progress: &ProgressShape) -> String {
    let (value, needed) = (progress.value, progress.needed);
    match progress.kind.as_str() {
        "evidence_decades" => format!("{}/{}", decades(value), decades(needed)),
        "held_secs" => format!("{}/{}", held(value), duration(needed)).replace(' ', ""),
        _ => format!("{}/{}", count(value), count(needed)),
    }
}

/// Evidence never counts against what was shown before, so a negative one reads as none.
fn decades(value: f64) -> String {
    format!("{:.1}", value.max(0.0))
}

/// Time held, in whole seconds: a condition is looked at, not watched by the millisecond.
fn held(secs: f64) -> String {
    duration(secs.floor())
}

fn not_finite(value: f64) -> String {
    if value.is_nan() {
        "?".to_owned()
    } else if value > 0.0 {
        "∞".to_owned()
    } else {
        "-∞".to_owned()
    }
}

fn share(value: f64) -> String {
    let percent = value * 100.0;
    let size = percent.abs();
    if size == 0.0 {
        "0 %".to_owned()
    } else if size < 0.005 {
        (if percent > 0.0 { "<0.01 %" } else { ">-0.01 %" }).to_owned()
    } else if size < 0.995 {
        format!("{} %", trimmed(percent, 2))
    } else {
        format!("{} %", trimmed(percent, 1))
    }
}

fn seconds(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        "0 s".to_owned()
    } else if size < 0.009_95 {
        format!("{} ms", trimmed(value * 1000.0, 1))
    } else if size < 0.9995 {
        format!("{:.0} ms", value * 1000.0)
    } else if size < 9.995 {
        format!("{} s", trimmed(value, 2))
    } else if size < 59.95 {
        format!("{} s", trimmed(value, 1))
    } else {
        duration(value)
    }
}

fn bytes(value: f64) -> String {
    let (mut size, mut unit) = (value, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        // At 1023.95 one decimal would already read as the next unit.
        if size.abs() < KIB - 0.05 {
            break;
        }
        size /= KIB;
        unit = larger;
    }
    if unit == "B" { format!("{size:.0} B") } else { format!("{size:.1} {unit}") }
}

fn count(value: f64) -> String {
    if (value - value.round()).abs() < 0.05 {
        grouped(&format!("{:.0}", value.round() + 0.0))
    } else {
        grouped(&format!("{value:.1}"))
    }
}

/// Health is a level of its own: 0 up, 1 degraded, 2 down; between two, the worse one.
fn health(value: f64) -> String {
    let word = if value <= 0.0 {
        "up"
    } else if value <= 1.0 {
        "degraded"
    } else {
        "down"
    };
    word.to_owned()
}

/// Three digits that matter, thousands grouped.
fn plain(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        "0".to_owned()
    } else if size < 0.000_5 {
        format!("{value:.1e}")
    } else if size < 0.0995 {
        trimmed(value, 3)
    } else if size < 0.995 {
        trimmed(value, 2)
    } else if size < 99.95 {
        trimmed(value, 1)
    } else {
        grouped(&format!("{value:.0}"))
    }
}

/// At most this many decimals, without trailing zeros.
fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// `1234567.8` as `1,234,567.8`.
fn grouped(number: &str) -> String {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", number),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, format!(".{fraction}")),
        None => (digits, String::new()),
    };
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_by_their_unit() {
        for (value, unit, expected) in [
            (0.061, "share", "6.1 %"),
            (0.05, "share", "5 %"),
            (0.0006, "share", "0.06 %"),
            (0.000_02, "share", "<0.01 %"),
            (0.0, "share", "0 %"),
            (1.0, "share", "100 %"),
            (-0.02, "share", "-2 %"),
            (0.176, "seconds", "176 ms"),
            (0.0021, "seconds", "2.1 ms"),
            (0.999_7, "seconds", "1 s"),
            (1.756, "seconds", "1.76 s"),
            (12.34, "seconds", "12.3 s"),
            (59.97, "seconds", "1 m"),
            (80.0, "seconds", "1 m 20 s"),
            (50_541_363.0, "bytes", "48.2 MiB"),
            (1023.0, "bytes", "1023 B"),
            (1_048_575.0, "bytes", "1.0 MiB"),
            (3e15, "bytes", "2728.5 TiB"),
            (0.4, "per_second", "0.4/s"),
            (119.6, "per_second", "120/s"),
            (0.0, "per_second", "0/s"),
            (0.000_01, "per_second", "1.0e-5/s"),
            (1204.0, "count", "1,204"),
            (-1_234_567.8, "count", "-1,234,567.8"),
            (-0.01, "count", "0"),
            (0.0, "health", "up"),
            (0.4, "health", "degraded"),
            (2.0, "health", "down"),
            (347_777.0, "bytes_per_second", "19.9 MiB/min"),
            (-0.001, "share_per_second", "-6 %/min"),
            (0.5, "number_per_second", "30/min"),
            (3.25, "number", "3.2"),
            (0.056, "number", "0.056"),
            (98_765.4, "furlongs", "98,765"),
            (f64::NAN, "share", "?"),
            (f64::INFINITY, "seconds", "∞"),
            (f64::NEG_INFINITY, "bytes", "-∞"),
        ] {
            assert_eq!(quantity(value, unit), expected, "{value} {unit}");
        }
    }

    #[test]
    fn slopes_fit_into_a_column() {
        for (value, unit, expected) in [
            (347_777.0, "bytes_per_second", "20M/min"),
            (19_700.0, "bytes_per_second", "1.1M/min"),
            (5_800_000.0, "bytes_per_second", "332M/min"),
            (1.0, "bytes_per_second", "60B/min"),
            (-347_777.0, "bytes_per_second", "-20M/min"),
            (0.0001, "share_per_second", "0.6%/min"),
            (0.5, "number_per_second", "30/min"),
            (f64::INFINITY, "bytes_per_second", "∞"),
            (0.061, "share", "6.1 %"),
        ] {
            assert_eq!(cell(value, unit), expected, "{value} {unit}");
        }
    }

    #[test]
    fn intervals_say_their_unit_once() {
        for (ends, unit, expected) in [
            ([0.042, 0.084], "share", "4.2–8.4 %"),
            ([0.0, 0.0106], "share", "0–1.1 %"),
            ([0.9, 1.1], "seconds", "900 ms–1.1 s"),
            ([0.15, 0.2], "seconds", "150–200 ms"),
            ([61.0, 80.0], "seconds", "1 m 1 s–1 m 20 s"),
            ([1.0, 2.5], "per_second", "1–2.5/s"),
            ([2e5, 4e5], "bytes_per_second", "11.4–22.9 MiB/min"),
            ([0.0, 2.0], "health", "up–down"),
            ([0.15, f64::INFINITY], "seconds", "150 ms–∞"),
        ] {
            assert_eq!(interval(ends, unit), expected, "{ends:?} {unit}");
        }
    }

    #[test]
    fn durations_take_two_units_at_most() {
        for (secs, expected) in [
            (0.0, "0 s"),
            (0.176, "176 ms"),
            (0.9996, "1 s"),
            (14.4, "14 s"),
            (59.6, "1 m"),
            (80.0, "1 m 20 s"),
            (7500.0, "2 h 5 m"),
            (7200.0, "2 h"),
            (277_200.0, "3 d 5 h"),
            (-5.0, "-5 s"),
        ] {
            assert_eq!(duration(secs), expected, "{secs}");
        }
    }

    #[test]
    fn progress_says_what_is_needed() {
        for (kind, value, needed, long, short) in [
            ("evidence_decades", 2.96, 3.6, "3.0 of 3.6 decades", "3.0/3.6"),
            ("evidence_decades", -0.7, 3.0, "0.0 of 3.0 decades", "0.0/3.0"),
            ("held_secs", 12.9, 120.0, "12 s of 2 m", "12s/2m"),
            ("checks", 2.0, 3.0, "2 of 3 checks", "2/3"),
            ("count", 0.0, 1.0, "0 of 1", "0/1"),
            ("count", 1500.0, 10_000.0, "1,500 of 10,000", "1,500/10,000"),
        ] {
            let shape =
                ProgressShape { kind: kind.into(), value, needed, noise_factor: None, noise: None };
            assert_eq!(progress(&shape), long);
            assert_eq!(progress_short(&shape), short);
        }
    }
}
