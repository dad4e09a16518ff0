//! `for 5m`: a condition that has to hold at every look for a time.
//!
//! A look without data neither confirms nor clears; a gap longer than the window restarts the
//! dwell, since nobody can say what happened in it.

use std::time::Duration;

use super::observation::Time;

/// Since when a condition has held.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Dwell {
    since: Option<Time>,
    last_data: Option<Time>,
}

impl Dwell {
    /// Takes one look: whether the condition held, or none when there was no data. `gap` is the
    /// longest silence that does not restart the dwell. Returns for how long it has held.
    pub fn look(&mut self, now: Time, holds: Option<bool>, gap: Duration) -> Option<Duration> {
        if self.last_data.is_some_and(|last| now.since(last) > gap) {
            self.since = None;
        }
        match holds {
            Some(true) => {
                self.last_data = Some(now);
                self.since.get_or_insert(now);
            }
            Some(false) => {
                self.last_data = Some(now);
                self.since = None;
            }
            None => {}
        }
        self.since.map(|since| now.since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(looks: &[(i64, Option<bool>)], expected_secs: Option<u64>) {
        let mut dwell = Dwell::default();
        let mut held = None;
        for (secs, holds) in looks {
            held = dwell.look(Time(secs * 1000), *holds, Duration::from_secs(60));
        }
        assert_eq!(held, expected_secs.map(Duration::from_secs), "{looks:?}");
    }

    #[test]
    fn holds_from_the_first_look_that_holds() {
        check(&[(0, Some(false)), (10, Some(true)), (70, Some(true))], Some(60));
        check(&[(0, Some(true)), (10, Some(false))], None);
    }

    #[test]
    fn a_look_without_data_neither_confirms_nor_clears() {
        check(&[(0, Some(true)), (30, None), (60, Some(true))], Some(60));
        check(&[(0, Some(false)), (30, None)], None);
    }

    #[test]
    fn a_gap_longer_than_the_window_restarts() {
        check(&[(0, Some(true)), (61, Some(true))], Some(0));
        check(&[(0, Some(true)), (61, None)], None);
    }
}
