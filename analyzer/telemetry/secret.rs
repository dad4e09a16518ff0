//! Words that must never be seen: signing keys, tokens, header values.
//!
//! A secret prints itself as `[redacted]` everywhere; whoever needs the text says `expose`, which
//! is easy to search for. It deliberately has no serde and no `PartialEq`.

use std::fmt;

/// A word that never prints itself.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps the word.
    pub fn new(word: impl Into<String>) -> Self {
        Self(word.into())
    }

    /// The word itself, for the one place that has to send or compare it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
