//! A look's outcome as everybody outside reads it: one JSON shape for the API, `--json`, the
//! webhook and the stored record, and the numbers' one way of being written for people.
//!
//! Built from the engine's types only; it decides nothing.

pub mod format;
pub mod shape;
