//! cli

pub mod display;
