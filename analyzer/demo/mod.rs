//! Real workloads for `rollgate demo` and for tests: HTTP services with a fault on a switch, load
//! over HTTP, and a receiver that checks what it is sent.
//!
//! Everything runs on loopback and on free ports, and every task belongs to a value whose `stop`
//! ends it. Nothing here knows how rollgate judges: the analyzer meets these services only over
//! HTTP, as it would meet anybody's.

mod chance;
mod exposition;
pub mod fault;
pub mod load;
pub mod receiver;
pub mod scenario;
mod server;
pub mod service;
pub mod stage;

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time now, in seconds.
fn unix_secs() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
