//! Samples become an observation: counter resets, histograms, staleness, restarts and the
//! reduction of instances to one value per arm.

pub mod carry;
pub mod sample;
pub mod spec;
