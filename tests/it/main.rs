//! Every test of the product that needs more than one module.

mod api;
mod fake_desk;
mod grafana;
mod page;
mod story;
mod wire;
