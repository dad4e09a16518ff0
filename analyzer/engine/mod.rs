//! The judge: pure, and the same for every source, replica and batch size.
//!
//! Same observations, same verdict, bit for bit. No clock, I/O, async, logging, randomness or
//! serde lives here; `now` is a field of the observation.

pub mod observation;
pub mod rule;
pub mod verdict;
