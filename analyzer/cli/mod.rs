//! cli

pub mod check;
pub mod display;
