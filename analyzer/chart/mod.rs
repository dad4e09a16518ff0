//! Plots and pages for reports that stand by themselves: one HTML file, drawings inside it, nothing
//! loaded from elsewhere and nothing that runs.
//!
//! It knows numbers and words, not what they are of. Colour never says anything alone: lines differ
//! in their dashes, and every figure has a caption and a text for those who do not see it.

pub mod page;
pub mod plot;
pub mod scale;

pub use page::{Page, escape};
pub use scale::Scale;
