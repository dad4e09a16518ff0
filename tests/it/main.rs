//! Every test of the product that needs more than one module.

mod api;
mod fake_desk;
mod page;
mod story;
mod wire;
mod exposition;
mod rules;
mod demo_service;
mod display;
