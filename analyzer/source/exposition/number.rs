//! Numbers of expositions: the OpenMetrics grammar, used for both formats.
//!
//! Go's parser, behind many exporters, also takes hexadecimal floats and underscores; Prometheus
//! refuses both, and so do we. A decimal too large for a float is refused rather than read as
//! infinite.

/// The largest integer up to which every integer is a float exactly.
const EXACT_MAX: u64 = 1 << 53;

/// Powers of ten that are floats exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// A sample's value: a real number, `[+-]inf[inity]` or `nan` in any case.
pub(super) fn value(token: &str) -> Option<f64> {
    real(token).or_else(|| special(token))
}

/// A real number in decimal, finite.
pub(super) fn real(token: &str) -> Option<f64> {
    let bytes = token.as_bytes();
    let negative = bytes.first() == Some(&b'-');
    let unsigned = match bytes {
        [b'+' | b'-', rest @ ..] => rest,
        all => all,
    };
    let (mut mantissa, mut digits, mut at) = (0u64, 0usize, 0);
    while let Some(byte @ b'0'..=b'9') = unsigned.get(at) {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
        digits += 1;
        at += 1;
    }
    let mut fraction = 0;
    if unsigned.get(at) == Some(&b'.') {
        at += 1;
        while let Some(byte @ b'0'..=b'9') = unsigned.get(at) {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
            fraction += 1;
            at += 1;
        }
        digits += fraction;
    }
    if digits == 0 {
        return None;
    }
    // An exact integer over an exact power of ten is correctly rounded by one division.
    if at == unsigned.len() && digits <= 19 && mantissa <= EXACT_MAX && fraction < POWERS.len() {
        let magnitude = mantissa as f64 / POWERS[fraction];
        return Some(if negative { -magnitude } else { magnitude });
    }
    if at < unsigned.len() && !is_exponent(&unsigned[at..]) {
        return None;
    }
    token.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// A timestamp of the text format: whole milliseconds.
pub(super) fn millis(token: &str) -> Option<i64> {
    token.parse().ok()
}

fn is_exponent(bytes: &[u8]) -> bool {
    let digits = match bytes {
        [b'e' | b'E', b'+' | b'-', digits @ ..] | [b'e' | b'E', digits @ ..] => digits,
        _ => return false,
    };
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

fn special(token: &str) -> Option<f64> {
    if token.eq_ignore_ascii_case("nan") {
        return Some(f64::NAN);
    }
    let (magnitude, unsigned) = match token.as_bytes() {
        [b'-', rest @ ..] => (f64::NEG_INFINITY, rest),
        [b'+', rest @ ..] => (f64::INFINITY, rest),
        all => (f64::INFINITY, all),
    };
    let infinite =
        unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity");
    infinite.then_some(magnitude)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn numbers_follow_the_grammar() {
        let check = |token: &str, expected: Option<f64>| {
            let found = value(token);
            assert_eq!(found.map(f64::to_bits), expected.map(f64::to_bits), "{token:?}");
        };
        for (token, expected) in [
            ("0", 0.0),
            ("-0", -0.0),
            ("007", 7.0),
            ("+1.5", 1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("1E-3", 0.001),
            ("9007199254740993", 9007199254740992.0),
            ("18446744073709551616", 18446744073709551616.0),
            ("0.1234567890123456789012345", 0.123_456_789_012_345_68),
            ("1e-999", 0.0),
            ("NaN", f64::NAN),
            ("nan", f64::NAN),
            ("+Inf", f64::INFINITY),
            ("-INFINITY", f64::NEG_INFINITY),
            ("inf", f64::INFINITY),
        ] {
            check(token, Some(expected));
        }
        for token in [
            "", "+", "-", ".", "e5", "1e", "1e+", "1_000", "0x1p3", "0x10", "1e999", "-1e999",
            "+nan", "-nan", "infin", "1.2.3", "1,5", "١", "--1", "1f", "NaNs",
        ] {
            check(token, None);
        }
        assert_eq!(real("inf"), None);
        assert_eq!(millis("1700000000000"), Some(1_700_000_000_000));
        assert_eq!(millis("1.5"), None);
    }

    #[test]
    fn short_decimals_read_as_the_standard_library_reads_them() {
        const SEED: u64 = 11;
        let mut random = StdRng::seed_from_u64(SEED);
        for _ in 0..20_000 {
            let whole: u64 = random.random::<u64>() >> random.random_range(0..64);
            let part: u64 = random.random::<u64>() >> random.random_range(0..64);
            let token = format!("-{whole}.{part}");
            let expected: f64 = token.parse().expect("a decimal");
            assert_eq!(value(&token), Some(expected), "seed {SEED}: {token}");
        }
    }
}
