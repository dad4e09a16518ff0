//! Every test of the product that needs more than one module.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed, and says where")]

mod api;
mod fake_desk;
mod grafana;
mod page;
mod story;
mod wire;
