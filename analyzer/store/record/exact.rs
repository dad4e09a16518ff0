//! Numbers in records, bit for bit.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Whole numbers below this are written as JSON integers: every one of them is an exact `f64`.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// A number that comes back with the same bits. Whole numbers are JSON integers; others are strings
/// with the shortest digits that name them, read by the standard library, because `serde_json` may
/// miss the last bit of a fraction; what is not finite is its bits in hex.
pub(in crate::store) struct Exact(pub(in crate::store) f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = self.0;
        let is_negative_zero = number == 0.0 && number.is_sign_negative();
        if !number.is_finite() {
            serializer.collect_str(&format_args!("x{:016x}", number.to_bits()))
        } else if number.fract() == 0.0 && number.abs() < WHOLE_MAX && !is_negative_zero {
            serializer.serialize_i64(number as i64)
        } else {
            serializer.collect_str(&format_args!("{number:?}"))
        }
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Exact;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer or a string of digits")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Exact, E> {
                Ok(Exact(number as f64))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Exact, E> {
                Ok(Exact(number as f64))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Exact, E> {
                let number = match text.strip_prefix('x') {
                    Some(bits) => u64::from_str_radix(bits, 16).ok().map(f64::from_bits),
                    None => text.parse().ok().filter(|number: &f64| number.is_finite()),
                };
                number.map(Exact).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_a_number_survives() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
        let special = [0.0, -0.0, f64::MIN_POSITIVE, 5e-324, f64::MAX, WHOLE_MAX, -WHOLE_MAX];
        let random = (0..20_000).map(|_| f64::from_bits(rand::RngExt::random(&mut rng)));
        for number in special.into_iter().chain([f64::INFINITY, f64::NAN]).chain(random) {
            let text = serde_json::to_string(&Exact(number)).expect("a number");
            let back: Exact = serde_json::from_str(&text).expect("just written");
            assert_eq!(back.0.to_bits(), number.to_bits(), "{text}");
        }
    }
}
