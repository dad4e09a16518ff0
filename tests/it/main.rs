//! Every test of the product that needs more than one module, in one binary.
#![allow(clippy::unwrap_used, reason = "a test that fails to set up should stop at once")]

mod api;
mod architecture;
mod bad_input;
mod browser;
mod deliver;
mod demo_service;
mod display;
mod engine_below;
mod engine_evidence;
mod engine_false_alarms;
mod engine_golden;
mod engine_rules;
mod engine_slope;
mod exposition;
mod fake_desk;
mod grafana;
mod house;
mod kill;
mod page;
mod recordings;
mod rules;
mod service;
mod signal;
mod source_prometheus;
mod source_recording;
mod source_server;
mod source_targets;
mod store;
mod story;
mod surfer;
mod wire;
