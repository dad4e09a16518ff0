//! What must be asked of a PromQL text before `promql-parser` reads it: its numbers.
//!
//! The parser makes a `Duration` of any number in a range or after `offset`, and panics on one that
//! is too large, infinite or not a number. No signal needs such a number anywhere.

use std::ops::Range;

/// Larger numbers are refused: far above every threshold and time that can be meant.
const NUMBER_MAX: f64 = 1e15;

/// The place of the first number, outside quotes, that the parser must not see.
pub(super) fn unreadable_number(text: &str) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let start = at;
        match byte {
            b'"' | b'\'' | b'`' => at = quote_end(bytes, at),
            b'0'..=b'9' | b'.' => {
                at = number_end(bytes, at);
                if !is_readable(&text[start..at]) {
                    return Some(start..at);
                }
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b == b':';
                at += bytes[at..].iter().take_while(|byte| is_word(byte)).count();
                if ["nan", "inf"].iter().any(|word| text[start..at].eq_ignore_ascii_case(word)) {
                    return Some(start..at);
                }
            }
            _ => at += 1,
        }
    }
    None
}

fn quote_end(bytes: &[u8], open: usize) -> usize {
    let mark = bytes[open];
    let mut at = open + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if mark != b'`' => at += 2,
            byte if *byte == mark => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Where a number ends that begins at `at`: with its letters, and the sign of its exponent.
fn number_end(bytes: &[u8], mut at: usize) -> usize {
    let begin = at;
    while let Some(byte) = bytes.get(at) {
        let signs_exponent = at > begin && matches!(bytes[at - 1], b'e' | b'E');
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' | b'_' => at += 1,
            b'+' | b'-' if signs_exponent => at += 1,
            _ => break,
        }
    }
    at
}

fn is_readable(number: &str) -> bool {
    if number.starts_with("0x") || number.starts_with("0X") {
        return number.len() <= 12;
    }
    // `5m` and `1h30m` are no numbers, and the parser bounds them itself.
    number.replace('_', "").parse::<f64>().map_or(true, |value| value <= NUMBER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_no_duration_can_hold_are_found() {
        let check = |text: &str, expected: Option<&str>| {
            let found = unreadable_number(text).map(|span| &text[span]);
            assert_eq!(found, expected, "{text}");
        };
        check(
            "a[888888888888888880000000010814800900]",
            Some("888888888888888880000000010814800900"),
        );
        check("a offset 1e+30", Some("1e+30"));
        check("a[5m:1E30]", Some("1E30"));
        check("a[0xFFFFFFFFFFFFFFFF]", Some("0xFFFFFFFFFFFFFFFF"));
        check("a[NaN]", Some("NaN"));
        check("a offset inf", Some("inf"));
        check("a offset 1_000_000_000_000_000_000_000", Some("1_000_000_000_000_000_000_000"));
        check(r#"a{le="+Inf",x='1e99'}"#, None);
        check(r#"a{x="\"1e99"}"#, None);
        check("a[1y2w3d4h5m6s7ms] offset 90", None);
        check("job:inf:rate5m > 1e3 + .5e-3", None);
        check("\"1e99", None);
        check("", None);
    }
}
