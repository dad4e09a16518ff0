//! Where samples come from: scraped targets, a metrics server, health endpoints, recordings.
//!
//! A source that fails gives missing data with a reason; it never gives zero, never health, and
//! never takes the service down.

pub mod exposition;
