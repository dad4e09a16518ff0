//! Simulated releases: seeded observations of a canary and a baseline whose truth is known.
//!
//! The same generator feeds `rollgate simulate`, `rollgate plan`, the table of operating
//! characteristics and the tests, so that a stated rate is measured on one thing only. It makes
//! observations, as `signal` would, and never judges.
//!
//! Noise is the model the noise factor was made against: the log rate of each arm wanders by an
//! AR(1) process of a stated deviation and correlation time, of its own or shared by both arms.
