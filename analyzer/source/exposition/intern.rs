//! Shares equal strings of one body, since label names and most label values repeat on every line.
//!
//! A fixed table without chains: a string that finds its place taken by another takes it over, so
//! memory and time have bounds whatever the body holds. Forgetting costs a copy, never a wrong name.

use std::sync::Arc;

/// Places; a power of two. A body of 20,000 samples had 300 distinct strings that repeat.
const PLACES: usize = 1024;

/// Positions of a line that are remembered.
const POSITIONS: usize = 32;

/// Longer strings hardly repeat and are not remembered.
const BYTES_MAX: usize = 128;

pub(super) struct Interner {
    places: Vec<Option<Arc<str>>>,
    /// What was last asked for at each position of a line.
    recent: Vec<Arc<str>>,
}

impl Interner {
    pub fn new() -> Self {
        Self { places: Vec::new(), recent: Vec::new() }
    }

    /// The text as a shared string, likely the one that stood at this position of the last line:
    /// names do so on nearly every line.
    pub fn share_at(&mut self, position: usize, text: &str) -> Arc<str> {
        match self.recent.get_mut(position) {
            Some(known) if **known == *text => Arc::clone(known),
            Some(_) => {
                let shared = self.share(text);
                self.recent[position] = Arc::clone(&shared);
                shared
            }
            None => {
                let shared = self.share(text);
                if position == self.recent.len() && position < POSITIONS {
                    self.recent.push(Arc::clone(&shared));
                }
                shared
            }
        }
    }

    /// The text as a shared string.
    pub fn share(&mut self, text: &str) -> Arc<str> {
        if text.len() > BYTES_MAX {
            return Arc::from(text);
        }
        if self.places.is_empty() {
            self.places.resize(PLACES, None);
        }
        let place = &mut self.places[place_of(text.as_bytes())];
        match place {
            Some(known) if **known == *text => Arc::clone(known),
            _ => {
                let fresh: Arc<str> = Arc::from(text);
                *place = Some(Arc::clone(&fresh));
                fresh
            }
        }
    }
}

/// Mixes the length with the first and last bytes, which tell labels apart well enough.
fn place_of(text: &[u8]) -> usize {
    let (head, tail) = match (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
        _ => match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
            (Some(head), Some(tail)) => {
                (u64::from(u32::from_le_bytes(*head)), u64::from(u32::from_le_bytes(*tail)))
            }
            _ => (text.iter().fold(0, |mixed, &byte| (mixed << 8) | u64::from(byte)), 0),
        },
    };
    let mixed =
        (head ^ tail.rotate_left(23) ^ text.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> (u64::BITS - PLACES.ilog2())) as usize
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
        assert_eq!(*interner.share(&"x".repeat(BYTES_MAX + 1)), *"x".repeat(BYTES_MAX + 1));
    }
}
