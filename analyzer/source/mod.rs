//! Where samples come from: scraped targets, a metrics server, health endpoints, recordings.
//!
//! A source that fails gives missing data with a reason; it never gives zero, never health, and
//! never takes the service down.

pub mod archive;
pub mod client;
pub mod collector;
pub mod discovery;
mod excerpt;
pub mod exposition;
pub mod found_arm;
pub mod health;
pub mod health_body;
mod health_number;
pub mod history;
pub mod limits;
pub mod prometheus;
mod prometheus_answer;
mod prometheus_native;
pub mod recorder;
pub mod recording;
mod recording_file;
pub mod scrape;
mod selector_arm;
pub mod target;
