//! Signatures of webhooks, by the text of Standard Webhooks (symmetric, `v1`): HMAC-SHA256 over
//! `id.timestamp.body`, base64.
//!
//! Every secret signs, so that a receiver can change to a new one while both are configured.
//! Signatures are compared in constant time. Asymmetric signatures (`v1a`) are deliberately absent.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{engine::observation::Time, telemetry::secret::Secret};

/// Header with the idempotency key.
pub const ID_HEADER: &str = "webhook-id";
/// Header with the time of the attempt, in unix seconds.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// Header with the signatures, separated by spaces.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// How far the receiver's clock may be from the sender's, either way: Standard Webhooks says five
/// minutes, which also bounds how long a captured request can be played again.
pub const TOLERANCE_SECS: i64 = 5 * 60;

/// Shortest key, as Standard Webhooks demands.
pub const KEY_BYTES_MIN: usize = 24;

/// Most signatures that are looked at in one header: more is no rotation but an attempt to keep us
/// busy.
pub const SIGNATURES_MAX: usize = 16;

/// Marks a secret whose key is base64.
const PREFIX: &str = "whsec_";
/// Marks a symmetric signature.
const SCHEME: &str = "v1,";

/// Why secrets cannot sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error("no signing secret, expected at least one")]
    None,
    /// It says that it is base64 and is not.
    #[error(
        "signing secret {position} begins with {PREFIX} and the rest is not base64\n  \
         hint: openssl rand -base64 32"
    )]
    NotBase64 {
        /// Which one, from 1.
        position: usize,
    },
    /// Its key is too short to be safe.
    #[error(
        "signing secret {position} has a key of {found} bytes, expected at least {KEY_BYTES_MIN}\n  \
         hint: openssl rand -base64 32"
    )]
    TooShort {
        /// Which one, from 1.
        position: usize,
        /// Bytes of its key.
        found: usize,
    },
}

/// Why a request is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The timestamp is no number of seconds.
    #[error("{TIMESTAMP_HEADER} is not a number of unix seconds")]
    Timestamp,
    /// The timestamp is too far from now.
    #[error("{TIMESTAMP_HEADER} is {secs} s from now, expected at most {TOLERANCE_SECS}")]
    TooFar {
        /// How far; positive when it lies in the future.
        secs: i64,
    },
    /// No signature is of one of the secrets.
    #[error("no signature in {SIGNATURE_HEADER} is of a known secret")]
    NoMatch,
}

/// Keys that sign and verify. Never prints them.
#[derive(Clone)]
pub struct Keys(Vec<Hmac<Sha256>>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} [redacted])", self.0.len())
    }
}

/// The three headers of a webhook, as they came.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`.
    pub timestamp: &'a str,
    /// `webhook-signature`.
    pub signature: &'a str,
}

impl Keys {
    /// Reads secrets: `whsec_` and base64, or any other text as it is.
    pub fn new(secrets: &[Secret]) -> Result<Self, KeyError> {
        if secrets.is_empty() {
            return Err(KeyError::None);
        }
        let keys = secrets.iter().zip(1..).map(|(secret, position)| key(secret, position));
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// The signature header of a body that is sent at `at`: one signature per secret.
    pub fn sign(&self, id: &str, at: Time, body: &[u8]) -> String {
        let timestamp = unix_secs(at).to_string();
        let sign = |key: &Hmac<Sha256>| {
            let mac = covered(key, id, &timestamp, body).finalize().into_bytes();
            format!("{SCHEME}{}", STANDARD.encode(mac))
        };
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }

    /// Whether a request was signed with one of the secrets, not long ago.
    pub fn verify(&self, signed: Signed<'_>, body: &[u8], now: Time) -> Result<(), VerifyError> {
        let Signed { id, timestamp, signature } = signed;
        let is_number = !timestamp.is_empty() && timestamp.bytes().all(|b| b.is_ascii_digit());
        let at: i64 = timestamp.parse().ok().filter(|_| is_number).ok_or(VerifyError::Timestamp)?;
        near(at, now)?;
        let given: Vec<Vec<u8>> = signature
            .split(' ')
            .take(SIGNATURES_MAX)
            .filter_map(|signature| STANDARD.decode(signature.strip_prefix(SCHEME)?).ok())
            .collect();
        let is_of = |key: &Hmac<Sha256>| {
            let mac = covered(key, id, timestamp, body);
            given.iter().any(|given| mac.clone().verify_slice(given).is_ok())
        };
        if self.0.iter().any(is_of) { Ok(()) } else { Err(VerifyError::NoMatch) }
    }
}

/// Whether a timestamp is near enough, before any body is read for it.
///
/// # Errors
/// When it is no number of seconds, or too far from now.
pub fn fresh(timestamp: &str, now: Time) -> Result<(), VerifyError> {
    near(timestamp.parse().map_err(|_| VerifyError::Timestamp)?, now)
}

fn near(at: i64, now: Time) -> Result<(), VerifyError> {
    let secs = at.saturating_sub(unix_secs(now));
    if secs.saturating_abs() > TOLERANCE_SECS { Err(VerifyError::TooFar { secs }) } else { Ok(()) }
}

/// The `webhook-timestamp` of a moment.
pub fn unix_secs(at: Time) -> i64 {
    at.0.div_euclid(1000)
}

fn key(secret: &Secret, position: usize) -> Result<Hmac<Sha256>, KeyError> {
    let bytes = match secret.expose().strip_prefix(PREFIX) {
        Some(base64) => STANDARD.decode(base64).map_err(|_| KeyError::NotBase64 { position })?,
        None => secret.expose().as_bytes().to_vec(),
    };
    if bytes.len() < KEY_BYTES_MIN {
        return Err(KeyError::TooShort { position, found: bytes.len() });
    }
    Ok(Hmac::new_from_slice(&bytes).expect("HMAC takes a key of any length"))
}

fn covered(key: &Hmac<Sha256>, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = key.clone();
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "a raw secret of enough bytes";
    const AT: Time = Time(1_614_265_330_999);

    fn keys(secrets: &[&str]) -> Keys {
        let secrets: Vec<Secret> = secrets.iter().copied().map(Secret::new).collect();
        Keys::new(&secrets).expect("good secrets")
    }

    fn signed(signature: &str) -> Signed<'_> {
        Signed { id: "msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp: "1614265330", signature }
    }

    #[test]
    fn the_published_example_has_the_published_signature() {
        let body = br#"{"test": 2432232314}"#;
        let signature = keys(&[SECRET]).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", AT, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(keys(&[SECRET]).verify(signed(&signature), body, AT), Ok(()));
    }

    #[test]
    fn while_secrets_rotate_either_verifies() {
        let both = keys(&[SECRET, OTHER]).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", AT, b"body");
        for secret in [SECRET, OTHER] {
            assert_eq!(keys(&[secret]).verify(signed(&both), b"body", AT), Ok(()));
        }
        let stranger = keys(&["a third secret, equally long"]);
        assert_eq!(stranger.verify(signed(&both), b"body", AT), Err(VerifyError::NoMatch));
    }

    #[test]
    fn what_was_changed_is_refused() {
        let keys = keys(&[SECRET]);
        let good = keys.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", AT, b"body");
        let check = |signed: Signed<'_>, body: &[u8], now: i64, expected| {
            assert_eq!(keys.verify(signed, body, Time(now * 1000)), expected, "{signed:?}");
        };
        let now = 1_614_265_330;
        let no_match = Err(VerifyError::NoMatch);
        check(signed(&good), b"body", now + 300, Ok(()));
        check(signed(&good), b"body", now + 301, Err(VerifyError::TooFar { secs: -301 }));
        check(signed(&good), b"body", now - 300, Ok(()));
        check(signed(&good), b"body", now - 301, Err(VerifyError::TooFar { secs: 301 }));
        check(signed(&good), b"body ", now, no_match.clone());
        check(Signed { id: "another", ..signed(&good) }, b"body", now, no_match.clone());
        check(Signed { timestamp: "1614265331", ..signed(&good) }, b"body", now, no_match.clone());
        for timestamp in ["", "soon", "-1", "+1614265330", "99999999999999999999"] {
            let signed = Signed { timestamp, ..signed(&good) };
            check(signed, b"body", now, Err(VerifyError::Timestamp));
        }
        for signature in ["", "v1,", "v1,!", "v2,AAAA", &good[3..], &good[..good.len() - 1]] {
            check(signed(signature), b"body", now, no_match.clone());
        }
        let late = format!("{}{good}", "v1,AAAA ".repeat(SIGNATURES_MAX));
        check(signed(&late), b"body", now, no_match);
        let last = format!("{}{good}", "v1,AAAA ".repeat(SIGNATURES_MAX - 1));
        check(signed(&last), b"body", now, Ok(()));
    }

    #[test]
    fn bad_secrets_are_named_by_position_and_never_shown() {
        let check = |secrets: &[&str], expected: KeyError| {
            let secrets: Vec<Secret> = secrets.iter().copied().map(Secret::new).collect();
            let error = Keys::new(&secrets).expect_err("bad secrets");
            assert_eq!(error, expected);
            let shown = format!("{error} {error:?} {secrets:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
        };
        check(&[], KeyError::None);
        check(&[SECRET, "whsec_hunter2!"], KeyError::NotBase64 { position: 2 });
        check(&["hunter2"], KeyError::TooShort { position: 1, found: 7 });
        assert_eq!(format!("{:?}", keys(&[SECRET])), "Keys(1 [redacted])");
    }
}
