//! How much more event counts vary than chance alone makes them: the index of dispersion.
//!
//! Counts of consecutive looks are put into blocks of one length. With `x_i` events among `n_i` in
//! block `i`, `p` their share over all blocks and `v_i` the variance that chance alone gives (`p n_i`
//! for Poisson counts, `p (1 - p) n_i` for a share of requests), the index is
//! `D = sum (x_i - p n_i)^2 / v_i / (blocks - 1)`: 1 when there is chance only. If the rate wanders
//! with variance `s2` and correlation time `tau`, then `D - 1 = e kappa g(B / tau)` with `e` the
//! events per second, `kappa = 2 s2 tau` and `g` rising from 0 to 1 with the block length `B`: long
//! blocks see all of the noise, by few blocks. Between a service and its own past of some time ago
//! the same is asked of pairs of blocks so far apart, of which half the squared difference counts.
//!
//! What is measured is uncertain: `D` has the standard error `sqrt((2 + 1 / mean events) / blocks)`.
//! An excess that is within [`DOUBT_ERRORS`] of them is taken for none and a larger one is shrunk
//! (James and Stein 1961, positive part), so that a service without noise is not made to pay for
//! doubt; then one standard error is added, since noise that is taken for too small breaks a promise.
//! The largest intensity over all block lengths is used.
//!
//! Sources: Fisher 1950 (index of dispersion); Cox and Lewis 1966 (variance-time curves); James and
//! Stein 1961 (shrinkage); McCullagh and Nelder 1989 (quasi-likelihood: dividing by the index).

/// Lengths of blocks, in seconds.
pub const BLOCK_SECS: [f64; 7] = [5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 240.0];

/// Fewer blocks say nothing of a variance.
const BLOCKS_MIN: usize = 8;

/// An excess of so many standard errors is taken for none.
const DOUBT_ERRORS: f64 = 2.0;

/// The variance of the rate itself is read off blocks no longer than this: long ones average it out.
const SPREAD_BLOCK_SECS_MAX: f64 = 40.0;

/// Of a block's length, what its looks must cover for it to count: looks do not divide every length.
const FILL_MIN: f64 = 0.75;

/// What happened between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Slot {
    /// Seconds since an arbitrary origin, at its end.
    pub end_secs: f64,
    /// Seconds it covers.
    pub secs: f64,
    /// Events.
    pub events: f64,
    /// Requests (or instance seconds) they are among.
    pub total: f64,
}

/// How events vary by chance alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chance {
    /// Any number of them.
    Poisson,
    /// At most as many as there are requests.
    Binomial,
}

/// Noise of an event rate.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Dispersion {
    /// Intensity in seconds: what the variance exceeds chance by, per event a second.
    pub kappa_secs: f64,
    /// Variance of the rate about its mean, as a multiple of the mean squared.
    pub spread: f64,
}

/// Measures noise over slots in order of time; `lag_secs` above 0 compares blocks that far apart.
/// None when there are too few blocks, or no events.
pub fn measure(slots: &[Slot], chance: Chance, lag_secs: f64) -> Option<Dispersion> {
    let events: f64 = slots.iter().map(|slot| slot.events).sum();
    let total: f64 = slots.iter().map(|slot| slot.total).sum();
    let secs: f64 = slots.iter().map(|slot| slot.secs).sum();
    let share = events / total;
    // Where everything is an event there is nothing that could vary.
    let chance_share = match chance {
        Chance::Poisson => 1.0,
        Chance::Binomial => 1.0 - share,
    };
    if !(events > 0.0 && total > 0.0 && secs > 0.0 && chance_share > 0.0) {
        return None;
    }
    let per_sec = events / secs;
    let longest_look = slots.iter().map(|slot| slot.secs).fold(0.0, f64::max);
    let short = SPREAD_BLOCK_SECS_MAX.max(2.0 * longest_look);
    let mut found: Option<Dispersion> = None;
    for length in BLOCK_SECS {
        let blocks = blocks(slots, length);
        let index = if lag_secs > 0.0 {
            lagged_index(&blocks, chance_share, lag_secs)
        } else {
            index(&blocks, share, chance_share)
        };
        let mean_secs = blocks.iter().map(|block| block.secs).sum::<f64>() / blocks.len() as f64;
        let Some(excess) = index.and_then(Index::excess) else { continue };
        let found = found.get_or_insert_default();
        let kappa_secs = excess * chance_share / per_sec;
        found.kappa_secs = found.kappa_secs.max(kappa_secs);
        if length <= short {
            found.spread = found.spread.max(kappa_secs / mean_secs);
        }
    }
    found
}

/// An index of dispersion, and its standard error when there is chance only.
#[derive(Clone, Copy, Debug)]
pub struct Index {
    /// 1 when there is chance only.
    pub value: f64,
    /// One standard error.
    pub error: f64,
}

impl Index {
    /// By how much it is above 1, in doubt none, and beyond doubt a little more. None for what is not
    /// a number.
    pub fn excess(self) -> Option<f64> {
        let excess = self.value - 1.0;
        if excess <= DOUBT_ERRORS * self.error {
            return excess.is_finite().then_some(0.0);
        }
        let kept = 1.0 - (DOUBT_ERRORS * self.error / excess).powi(2);
        let value = excess * kept * (1.0 + self.error);
        value.is_finite().then_some(value)
    }
}

/// Slots put together until they cover about `length` seconds. A hole in time ends a block, and one
/// that is not full then is left out.
fn blocks(slots: &[Slot], length: f64) -> Vec<Slot> {
    let mut blocks = Vec::new();
    let mut open = Slot::default();
    for slot in slots {
        if slot.secs > length {
            // A look that covers more than a block cannot show what happens within one.
            open = Slot::default();
            continue;
        }
        let begin = slot.end_secs - slot.secs;
        let hole = (begin - open.end_secs).abs() > 0.5 * slot.secs.max(1.0);
        if open.secs > 0.0 && (hole || open.secs + 0.5 * slot.secs > length) {
            if open.secs >= FILL_MIN * length {
                blocks.push(open);
            }
            open = Slot::default();
        }
        open.end_secs = slot.end_secs;
        open.secs += slot.secs;
        open.events += slot.events;
        open.total += slot.total;
    }
    if open.secs >= FILL_MIN * length {
        blocks.push(open);
    }
    blocks.retain(|block| block.total > 0.0);
    blocks
}

fn index(blocks: &[Slot], share: f64, chance_share: f64) -> Option<Index> {
    if blocks.len() < BLOCKS_MIN {
        return None;
    }
    let squares = blocks.iter().map(|block| {
        let expected = share * block.total;
        (block.events - expected).powi(2) / (expected * chance_share)
    });
    let freedom = (blocks.len() - 1) as f64;
    let value = squares.sum::<f64>() / freedom;
    let mean = blocks.iter().map(|block| share * block.total).sum::<f64>() / blocks.len() as f64;
    Some(Index { value, error: ((2.0 + 1.0 / mean) / freedom).sqrt() })
}

/// Of pairs of blocks `lag_secs` apart, or as far as the history goes: half of it at most.
fn lagged_index(blocks: &[Slot], chance_share: f64, lag_secs: f64) -> Option<Index> {
    let (first, last) = (blocks.first()?, blocks.last()?);
    let lag_secs = lag_secs.min(0.5 * (last.end_secs - first.end_secs));
    let (mut sum, mut mean, mut pairs, mut next) = (0.0, 0.0, 0usize, 0);
    for early in blocks {
        let wanted = early.end_secs + lag_secs;
        while blocks.get(next).is_some_and(|late| late.end_secs < wanted - 0.5 * early.secs) {
            next += 1;
        }
        let Some(late) = blocks.get(next) else { break };
        let events = early.events + late.events;
        let apart = late.end_secs - wanted;
        if events <= 0.0 || apart > early.secs || late.end_secs <= early.end_secs {
            continue;
        }
        // A two-by-two table: given all events, the early block has them by its share of the total.
        let expected = events * early.total / (early.total + late.total);
        let variance = expected * late.total / (early.total + late.total) * chance_share;
        sum += (early.events - expected).powi(2) / variance;
        mean += 0.5 * events;
        pairs += 1;
    }
    if pairs < BLOCKS_MIN {
        return None;
    }
    let count = pairs as f64;
    // A block is in two pairs, so that neighbours are not independent: half as many are.
    let error = ((2.0 + count / mean) * 2.0 / count).sqrt();
    Some(Index { value: sum / count, error })
}
