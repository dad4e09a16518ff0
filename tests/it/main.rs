//! Every test of the product that needs more than one module.

mod demo_service;
mod display;
