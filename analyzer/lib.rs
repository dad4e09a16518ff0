//! rollgate judges a release while it happens.
//!
//! Modules in reading order: the way of the data first, then what surrounds it.

pub mod api;
pub mod cli;
pub mod config;
pub mod deliver;
pub mod demo;
pub mod engine;
pub mod report;
pub mod rulefile;
pub mod service;
pub mod signal;
pub mod source;
pub mod store;
pub mod telemetry;
