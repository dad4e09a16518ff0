//! What evidence on event rates is made of: the counts of a look, and the effects that are looked for.
//!
//! How they become evidence is told in [`super::wager`].

use super::observation::{Pair, Reading, Value};

/// Alternatives, as multiples of the null rate: from barely beyond the limit to an outage.
pub const EFFECTS: [f64; 9] = [1.3, 1.6, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 50.0];

/// ln of each of [`EFFECTS`]; a test compares them.
#[allow(clippy::approx_constant, reason = "ln 2 and ln 10 stand among their kind")]
pub const LN_EFFECTS: [f64; EFFECTS.len()] = [
    0.262_364_264_467_491_06,
    0.470_003_629_245_735_6,
    0.693_147_180_559_945_3,
    1.098_612_288_668_109_8,
    1.386_294_361_119_890_6,
    1.791_759_469_228_055,
    2.302_585_092_994_046,
    2.995_732_273_553_991,
    3.912_023_005_428_146,
];

/// Counts of one look.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Counts {
    /// Events of the canary.
    pub canary_events: f64,
    /// Requests (or seconds) of the canary.
    pub canary_total: f64,
    /// Events of the baseline.
    pub baseline_events: f64,
    /// Requests (or seconds) of the baseline.
    pub baseline_total: f64,
}

impl Counts {
    /// Of a look at which both arms were counted.
    pub fn of(pair: &Pair) -> Option<Self> {
        let (canary_events, canary_total) = arm_counts(&pair.canary)?;
        let (baseline_events, baseline_total) = arm_counts(&pair.baseline)?;
        Some(Self { canary_events, canary_total, baseline_events, baseline_total })
    }

    /// Events of both arms.
    pub fn events(&self) -> f64 {
        self.canary_events + self.baseline_events
    }

    /// With the arms in each other's place.
    pub fn turned(&self) -> Self {
        Self {
            canary_events: self.baseline_events,
            canary_total: self.baseline_total,
            baseline_events: self.canary_events,
            baseline_total: self.canary_total,
        }
    }

    /// Those of the requests that are no events, in place of those that are.
    pub fn misses(&self) -> Self {
        Self {
            canary_events: self.canary_total - self.canary_events,
            baseline_events: self.baseline_total - self.baseline_events,
            ..*self
        }
    }

    /// The sum of two looks.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            canary_events: self.canary_events + other.canary_events,
            canary_total: self.canary_total + other.canary_total,
            baseline_events: self.baseline_events + other.baseline_events,
            baseline_total: self.baseline_total + other.baseline_total,
        }
    }
}

/// Events and total of a share or a rate.
pub(super) fn arm_counts(reading: &Reading) -> Option<(f64, f64)> {
    match reading {
        Ok(Value::Share { events, total }) => Some((*events, *total)),
        Ok(Value::Events { events, instance_secs, .. }) => Some((*events, *instance_secs)),
        Ok(
            Value::Histogram(_)
            | Value::Native(_)
            | Value::Level(_)
            | Value::Health { .. }
            | Value::Restarts(_),
        )
        | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_the_effects() {
        for (effect, ln_effect) in EFFECTS.iter().zip(LN_EFFECTS) {
            assert!((effect.ln() - ln_effect).abs() < 1e-15, "ln {effect}");
        }
    }
}
