//! Every test of the product that needs more than one module.

mod deliver;
mod store;
