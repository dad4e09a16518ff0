//! Past releases judged again: the engine over what a metrics server recorded.
//!
//! The way: [`releases`] are read from a file, or [`discover`]ed as a version label whose values
//! change; [`placebo`] finds windows in which nothing was released; [`judging`] takes the samples of
//! one case through the reducer and the engine that judge live releases; [`run`] fetches and joins it
//! all; [`outcome`] counts what came of it. What the past cannot tell is left out by [`rules`], and
//! named. It deliberately writes nothing, and the end of the span is told: only the work is timed.

pub mod discover;
pub mod judging;
pub mod outcome;
pub mod placebo;
pub mod releases;
pub mod rules;
pub mod run;
