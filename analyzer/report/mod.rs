//! A look's outcome as everybody outside reads it: one JSON shape for the API, `--json`, the
//! webhook and the stored record, its words, and the numbers' one way of being written for people.
//!
//! Built from the engine's types only; it decides nothing.

pub mod build;
pub mod explain;
pub mod format;
pub mod intervention;
pub mod proofs;
pub mod shape;
pub mod timeline;
pub mod words;
