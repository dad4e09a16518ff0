//! Rule tests: a rule file judged on what a test file shows, look by look, against what it expects.
//!
//! The way of a test: `scene` makes each look's observation, through the reducer of every other source
//! where series are given; `run` folds the engine over them and holds every step against the test;
//! `outcome` is what is told of it. Pure: files in as text, outcomes out; no clock, and the same outcome
//! every time. Noise is the stated prior, as in an analysis without a past.

mod latency;
pub mod outcome;
mod run;
mod scene;

pub use self::{run::run, scene::Scene};
pub use crate::rulefile::test_file::{Outline, Test, bind, load, rules_named};
