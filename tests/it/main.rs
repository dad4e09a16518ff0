//! Every test of the product that needs more than one module.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed, and says where")]

mod api;
mod demo_service;
mod display;
mod exposition;
mod fake_desk;
mod grafana;
mod page;
mod rules;
mod story;
mod wire;
