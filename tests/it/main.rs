//! Every test of the product that needs more than one module.

// Helpers of tests are not test functions to the linter, and a test may unwrap.
#![allow(clippy::unwrap_used)]

mod exposition;
mod source_prometheus;
mod source_recording;
mod source_server;
mod source_targets;
