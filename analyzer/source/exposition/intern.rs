//! Shares equal strings of one body, since label names and most label values repeat on every line.
//!
//! A fixed table without chains: a string that finds its place taken by another takes it over, so
//! memory and time have bounds whatever the body holds. Forgetting costs a copy, never a wrong
//! name.

use std::sync::Arc;

/// Places; a power of two. A body of 20,000 samples had 300 distinct strings that repeat.
const PLACES: usize = 1024;

/// Positions of a line that are remembered.
const POSITIONS: usize = 32;

/// Longer strings hardly repeat and are not remembered.
const BYTES_MAX: usize = 128;

pub(super) struct Interner {
    places: Vec<Option<Known>>,
    /// What was last asked for at each position of a line.
    recent: Vec<Known>,
}

impl Interner {
    pub fn new() -> Self {
        Self { places: Vec::new(), recent: Vec::new() }
    }

    /// The text as a shared string, likely the one that stood at this position of the last line:
    /// names do so on nearly every line.
    pub fn share_at(&mut self, position: usize, text: &str) -> Arc<str> {
        let print = Print::of(text);
        match self.recent.get_mut(position) {
            Some(known) if known.is(print, text) => return Arc::clone(&known.text),
            Some(_) | None => {}
        }
        let shared = self.share(text);
        let known = Known { print, text: Arc::clone(&shared) };
        if let Some(place) = self.recent.get_mut(position) {
            *place = known;
        } else if position == self.recent.len() && position < POSITIONS {
            self.recent.push(known);
        }
        shared
    }

    /// The text as a shared string.
    pub fn share(&mut self, text: &str) -> Arc<str> {
        if text.len() > BYTES_MAX {
            return Arc::from(text);
        }
        if self.places.is_empty() {
            self.places.resize(PLACES, None);
        }
        let print = Print::of(text);
        let place = &mut self.places[print.place()];
        match place {
            Some(known) if known.is(print, text) => Arc::clone(&known.text),
            _ => {
                let fresh: Arc<str> = Arc::from(text);
                *place = Some(Known { print, text: Arc::clone(&fresh) });
                fresh
            }
        }
    }
}

#[derive(Clone)]
struct Known {
    print: Print,
    text: Arc<str>,
}

impl Known {
    #[inline]
    fn is(&self, print: Print, text: &str) -> bool {
        self.print == print && (print.is_whole() || *self.text == *text)
    }
}

/// Length, first and last bytes of a text: all of it when it is short, as most are.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Print {
    bytes: usize,
    head: u64,
    tail: u64,
}

impl Print {
    #[inline]
    fn of(text: &str) -> Self {
        let text = text.as_bytes();
        let (head, tail) = match (text.first_chunk::<8>(), text.last_chunk::<8>()) {
            (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
            _ => match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
                (Some(head), Some(tail)) => {
                    (u64::from(u32::from_le_bytes(*head)), u64::from(u32::from_le_bytes(*tail)))
                }
                _ => (text.iter().fold(0, |mixed, &byte| (mixed << 8) | u64::from(byte)), 0),
            },
        };
        Self { bytes: text.len(), head, tail }
    }

    /// Whether the bytes looked at are all there are.
    #[inline]
    fn is_whole(self) -> bool {
        self.bytes <= 16
    }

    #[inline]
    fn place(self) -> usize {
        let mixed = self.head ^ self.tail.rotate_left(23) ^ self.bytes as u64;
        let mixed = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> (u64::BITS - PLACES.ilog2())) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_shared_and_the_table_never_grows() {
        let mut interner = Interner::new();
        let first = interner.share("method");
        assert!(Arc::ptr_eq(&first, &interner.share("method")));
        for number in 0..10 * PLACES {
            let text = format!("value-{number}");
            assert_eq!(*interner.share(&text), *text);
        }
        assert_eq!(interner.places.len(), PLACES);
        for position in 0..2 * POSITIONS {
            assert_eq!(*interner.share_at(position, "name"), *"name");
            assert_eq!(*interner.share_at(position, "other"), *"other");
            assert!(Arc::ptr_eq(&interner.share_at(position, "other"), &interner.share("other")));
        }
        assert_eq!(interner.recent.len(), POSITIONS);
        // Alike at both ends, apart in the middle, at every length that is printed in another way.
        for length in [1, 3, 4, 7, 8, 15, 16, 17, 40] {
            let text = "x".repeat(length);
            let other = format!("{}y{}", &text[..length / 2], &text[length / 2 + 1..]);
            for asked in [&text, &other, &text] {
                assert_eq!(*interner.share_at(0, asked), **asked);
                assert_eq!(*interner.share(asked), **asked);
            }
        }
        assert_eq!(*interner.share(&"x".repeat(BYTES_MAX + 1)), *"x".repeat(BYTES_MAX + 1));
    }
}
