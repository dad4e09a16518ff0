//! rollgate judges a release while it happens.
//!
//! What follows is the architecture: the way of the data, who may import whom, invariants, limits.
//! Nothing but the list of modules lives here.
#![doc = include_str!("ARCHITECTURE.md")]

pub mod api;
pub mod backtest;
pub mod chart;
pub mod cli;
pub mod config;
pub mod deliver;
pub mod demo;
pub mod engine;
pub mod hook;
pub mod kubernetes;
pub mod outward;
pub mod report;
pub mod rulefile;
pub mod ruletest;
pub mod service;
pub mod signal;
pub mod simulation;
pub mod source;
pub mod store;
pub mod telemetry;
