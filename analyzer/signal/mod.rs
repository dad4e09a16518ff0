//! Samples become an observation: counter resets, histograms, staleness, restarts and the
//! reduction of instances to one value per arm.
//!
//! Every source ends in the types of [`sample`]; [`reduce::Reducer`] is the way through. Nothing
//! here asks for the time or does I/O.

mod alive;
pub mod answer;
pub mod buckets;
pub mod carry;
pub mod increments;
mod parts;
pub mod past;
pub mod quantile;
pub mod reduce;
pub mod sample;
pub mod spec;
