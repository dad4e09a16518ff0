//! Every test of the product that needs more than one module.

mod api;
mod demo_service;
mod display;
mod exposition;
mod fake_desk;
mod page;
mod rules;
mod story;
mod wire;
