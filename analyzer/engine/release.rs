//! Where a progressive release stands: which step, since when, and whether its hold is over.
//!
//! A release without steps is one step whose hold is `promote.after`. Evidence, windows and proofs
//! are not kept here: they carry over from step to step.

use std::time::Duration;

use super::{observation::Time, rule::RuleSet};

/// The present step of a release.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Release {
    step: usize,
    began: Time,
}

impl Release {
    /// A release that begins with its first step.
    pub fn new(began: Time) -> Self {
        Self { step: 0, began }
    }

    /// Index of the present step; 0 without steps.
    pub fn step(&self) -> usize {
        self.step
    }

    /// The step that follows; none at the last one.
    pub fn next(&self, rules: &RuleSet) -> Option<usize> {
        let next = self.step + 1;
        (next < rules.steps.len()).then_some(next)
    }

    /// How much longer the present step must be watched; zero when its hold is over.
    pub fn hold_left(&self, rules: &RuleSet, now: Time) -> Duration {
        let hold = rules.steps.get(self.step).map_or(rules.promote.after, |step| step.hold);
        hold.saturating_sub(now.since(self.began))
    }

    /// Whether the old version is without traffic by intention: a later step gave all of it to the
    /// new one. What can then no longer be compared was judged at the steps before.
    pub fn is_whole(&self, rules: &RuleSet) -> bool {
        self.step > 0 && rules.steps.get(self.step).is_some_and(|step| step.weight >= 1.0)
    }

    /// Goes on to the next step.
    pub fn advance(&mut self, to: usize, now: Time) {
        *self = Self { step: to, began: now };
    }
}
