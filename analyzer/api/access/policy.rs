//! Tokens and what they allow: who asks, and whether the asker may.
//!
//! A token is 256 random bits, so nobody can try them all, and one fast hash is enough to keep: slow
//! hashes are for what people can remember. Only the SHA-256 is known here. A presented token is
//! compared with all of them in constant time, so that the time of a refusal tells nothing.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::engine::observation::Time;

/// Tokens that may be configured.
pub const TOKENS_MAX: usize = 256;

/// Bytes a presented token may have; a longer one is none of ours and is not hashed.
const TOKEN_BYTES_MAX: usize = 512;

/// What a token may do. Each scope includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// See everything.
    Read,
    /// Open analyses, as controllers and pipelines do.
    Control,
    /// Step in: cancel, override, send again.
    Operate,
}

impl Scope {
    /// All of them, the smallest first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Control, Self::Operate];

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Control => "control",
            Self::Operate => "operate",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One token, as far as we know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is called, in logs and on record.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// SHA-256 of the whole token.
    pub sha256: [u8; 32],
    /// Whether it may stand in a path, for controllers that cannot send headers.
    pub in_path: bool,
    /// From when on it is none any more.
    pub expires: Option<Time>,
}

/// What is allowed to whom. The default has no tokens and is for loopback only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// All tokens; everything is open to whoever reaches us when there are none.
    pub tokens: Vec<Token>,
    /// Whether `/metrics` needs no token.
    pub open_metrics: bool,
    /// Names besides loopback ones under which browsers may reach us without tokens.
    pub hosts: Vec<String>,
}

/// A token as it came.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// Its bytes.
    pub token: &'a [u8],
    /// Whether it stood in the path.
    pub in_path: bool,
}

/// Why a presented token, or none, does not let a request in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There was none.
    Missing,
    /// It is not one of ours.
    Unknown,
    /// It was one.
    Expired,
    /// It may not stand in a path.
    NotInPath,
}

impl Policy {
    /// The token that a request came with.
    ///
    /// # Errors
    /// When it is none that counts at this time, in this place.
    pub fn known(&self, presented: Option<Presented<'_>>, now: Time) -> Result<&Token, Denied> {
        let presented = presented.ok_or(Denied::Missing)?;
        if presented.token.len() > TOKEN_BYTES_MAX {
            return Err(Denied::Unknown);
        }
        let digest: [u8; 32] = Sha256::digest(presented.token).into();
        // All are compared, and the place of the equal one is chosen without a branch.
        let (mut at, mut is_known) = (0_u64, Choice::from(0));
        for (index, token) in (0_u64..).zip(&self.tokens) {
            let is_equal = token.sha256.ct_eq(&digest);
            at.conditional_assign(&index, is_equal);
            is_known |= is_equal;
        }
        if !bool::from(is_known) {
            return Err(Denied::Unknown);
        }
        let token = &self.tokens[usize::try_from(at).expect("it counted entries of a list")];
        if token.expires.is_some_and(|end| end <= now) {
            return Err(Denied::Expired);
        }
        if presented.in_path && !token.in_path {
            return Err(Denied::NotInPath);
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, secret: &str, in_path: bool, expires: Option<Time>) -> Token {
        let sha256 = Sha256::digest(secret).into();
        Token { name: name.to_owned(), scope: Scope::Control, sha256, in_path, expires }
    }

    #[test]
    fn a_token_counts_whole_in_time_and_in_its_place() {
        let policy = Policy {
            tokens: vec![
                token("first", "rgt_one", false, None),
                token("second", "rgt_two", true, Some(Time(1_000))),
                token("third", "rgt_three", true, None),
            ],
            ..Policy::default()
        };
        let check = |secret: Option<&str>, in_path, now, expected: Result<&str, Denied>| {
            let presented = secret.map(|secret| Presented { token: secret.as_bytes(), in_path });
            let found = policy.known(presented, Time(now)).map(|token| token.name.as_str());
            assert_eq!(found, expected, "{secret:?} {in_path} {now}");
        };
        check(Some("rgt_one"), false, 0, Ok("first"));
        check(Some("rgt_two"), false, 999, Ok("second"));
        check(Some("rgt_three"), true, 5_000, Ok("third"));
        check(Some("rgt_one"), true, 0, Err(Denied::NotInPath));
        check(Some("rgt_two"), true, 1_000, Err(Denied::Expired));
        for wrong in ["", "rgt_on", "rgt_one ", "RGT_ONE", "rgt_four"] {
            check(Some(wrong), false, 0, Err(Denied::Unknown));
        }
        check(Some(&"x".repeat(TOKEN_BYTES_MAX + 1)), false, 0, Err(Denied::Unknown));
        check(None, false, 0, Err(Denied::Missing));
        assert_eq!(Policy::default().known(None, Time(0)), Err(Denied::Missing));
    }

    #[test]
    fn scopes_are_a_ladder() {
        assert!(Scope::ALL.is_sorted());
        assert_eq!(Scope::ALL.map(Scope::word), ["read", "control", "operate"]);
    }
}
