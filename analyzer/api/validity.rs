//! When a certificate ends: just enough of DER (ITU-T X.690) and X.509 (RFC 5280, 4.1) to find one
//! field, so that a service can warn before its clients refuse it.
//!
//! It verifies nothing, and says nothing about what it cannot read.

use jiff::civil::DateTime;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` of a certificate in unix seconds; none where that cannot be read.
pub(super) fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, body) = expect(certificate, SEQUENCE)?;
    let (_, mut fields) = expect(body, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        (fields, _) = expect(fields, VERSION)?;
    }
    // Serial number, algorithm and issuer stand before the validity.
    for _ in 0..3 {
        (fields, _, _) = element(fields)?;
    }
    let (_, validity) = expect(fields, SEQUENCE)?;
    let (rest, _, _) = element(validity)?;
    let (_, tag, text) = element(rest)?;
    moment(tag, std::str::from_utf8(text).ok()?)
}

/// One element: what follows it, its tag, its content.
fn element(bytes: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(first) {
        short @ 0..=0x7f => (short, rest),
        // The number of bytes that hold the length; no certificate needs more than four.
        long @ 0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(long - 0x80)?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((rest, tag, content))
}

/// What follows an element of this tag, and its content.
fn expect(bytes: &[u8], expected: u8) -> Option<(&[u8], &[u8])> {
    let (rest, tag, content) = element(bytes)?;
    (tag == expected).then_some((rest, content))
}

/// `YYMMDDHHMMSSZ`, where 50 and more is of the last century, or `YYYYMMDDHHMMSSZ`.
fn moment(tag: u8, text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z')?;
    let digits = match tag {
        UTC_TIME if digits.get(..2)? < "50" => format!("20{digits}"),
        UTC_TIME => format!("19{digits}"),
        GENERALIZED_TIME => digits.to_owned(),
        _ => return None,
    };
    if digits.len() != 14 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| digits.get(from..to)?.parse::<i8>().ok();
    let date = DateTime::new(
        digits.get(..4)?.parse().ok()?,
        number(4, 6)?,
        number(6, 8)?,
        number(8, 10)?,
        number(10, 12)?,
        number(12, 14)?,
        0,
    );
    Some(date.ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 3, 4);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_found() {
        // python3 -c "import datetime as d; print([int(d.datetime(y, 3, 4,
        //     tzinfo=d.timezone.utc).timestamp()) for y in (1999, 2031, 2049, 2050, 2200)])"
        for (year, expected) in [
            (1999, 920_505_600),
            (2031, 1_930_348_800),
            (2049, 2_498_428_800),
            (2050, 2_529_964_800),
            (2200, 7_263_475_200),
        ] {
            assert_eq!(not_after(&certificate(year)), Some(expected), "{year}");
        }
    }

    #[test]
    fn what_is_no_certificate_ends_never_and_breaks_nothing() {
        let seed = 7;
        let mut random = StdRng::seed_from_u64(seed);
        let whole = certificate(2031);
        for length in 0..whole.len() {
            let _ = not_after(&whole[..length]);
        }
        for _ in 0..100_000 {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len().min(200));
                bytes[at] = random.random();
            }
            let _ = not_after(&bytes);
        }
        for text in ["", "300101000000", "300101000000+0100", "301301000000Z", "3001010000Z", "é"]
        {
            assert_eq!(moment(UTC_TIME, text), None, "{text}");
        }
    }
}
