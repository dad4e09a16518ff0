//! The judge: pure, and the same for every source, replica and batch size.
//!
//! Same observations, same verdict, bit for bit. No clock, I/O, async, logging, randomness or
//! serde lives here; `now` is a field of the observation. [`analysis::Analysis::step`] is the way
//! in; the files below it hold one idea each.

pub mod analysis;
pub mod below;
pub mod blame;
pub mod calibration;
pub mod clause;
pub mod compared;
pub mod difference;
pub mod dispersion;
pub mod dwell;
pub mod envelope;
pub mod evidence;
pub mod gauge;
pub mod interval;
pub mod native;
pub mod native_window;
pub mod noise;
pub mod observation;
pub mod profile;
pub mod promotion;
pub mod quantile;
pub mod quantile_profile;
pub mod release;
pub mod residual;
pub mod rule;
pub mod series;
pub mod slope;
pub mod stakes;
pub mod tail;
pub mod theil_sen;
pub mod together;
pub mod track;
pub mod verdict;
pub mod wager;
pub mod window;
