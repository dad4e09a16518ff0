//! Simulated releases: seeded observations of a canary and a baseline whose truth is known.
//!
//! The same generator feeds `rollgate simulate`, `rollgate plan`, the table of operating
//! characteristics and the tests, so that a stated rate is measured on one thing only. It makes
//! observations, as `signal` would; judging them is the engine's work, of which [`trial`] and
//! [`study`] only count the verdicts.
//!
//! Noise is the model the noise factor was made against: the log rate of each arm wanders by an
//! AR(1) process of a stated deviation and correlation time, of its own or shared by both arms.
//!
//! [`scenario::Scenario`] says what is true, [`release::Release`] is one release of it look by
//! look, and [`release::past`] is the old version's history before it. [`questions`] says what is
//! asked of a rule file.

pub mod draw;
mod instance;
pub mod latency;
pub mod noise;
pub mod outlook;
mod plan;
pub mod questions;
pub mod release;
pub mod scenario;
pub mod share;
pub mod study;
pub mod trial;

pub use latency::LatencyLaw;
pub use noise::NoiseModel;
pub use release::{Release, START, past};
pub use scenario::{
    Arrivals, Fault, FaultKind, Hits, LevelLaw, Scenario, Traffic, TrafficStep, Truth,
};
