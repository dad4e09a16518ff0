//! What both arms amounted to since they were last counted together.
//!
//! A comparison needs both arms at once. Arms whose counters move at different looks (a metrics
//! server scrapes them at moments of its own, more rarely than rollgate looks) would never be seen
//! together, and what one arm did while the other could not be read would be lost. So increments
//! wait until the other arm has some too. Whether they wait depends on which readings there are and
//! never on what they say, so that a fair bet stays fair.

use std::{borrow::Cow, time::Duration};

use super::observation::{Histogram, Pair, Reading, Value};

/// Increments of one signal that wait for the other arm.
#[derive(Clone, Debug, Default)]
pub struct Together {
    canary: Option<Value>,
    baseline: Option<Value>,
    waited_secs: f64,
}

/// What a comparison counts at one look.
pub struct Counted<'a> {
    /// Both readings, when both arms have something to count; else as they were read.
    pub pair: Cow<'a, Pair>,
    /// Seconds that they cover.
    pub secs: f64,
}

impl Together {
    /// Takes one look. What waits longer than `patience` is given up: it is of another time than
    /// what it would be compared with.
    pub fn take<'a>(&mut self, pair: &'a Pair, secs: f64, patience: Duration) -> Counted<'a> {
        let as_read = Counted { pair: Cow::Borrowed(pair), secs };
        let is_waiting = self.canary.is_some() || self.baseline.is_some();
        match (is_counted(&pair.canary), is_counted(&pair.baseline)) {
            (Some(_), Some(_)) if !is_waiting => return as_read,
            (None, None) if !is_waiting => return as_read,
            (canary, baseline) => {
                self.waited_secs = if is_waiting { self.waited_secs + secs } else { secs };
                wait(&mut self.canary, canary);
                wait(&mut self.baseline, baseline);
            }
        }
        if self.canary.is_none() || self.baseline.is_none() {
            if self.waited_secs > patience.as_secs_f64() {
                *self = Self::default();
            }
            return as_read;
        }
        let waited = std::mem::take(self);
        match (waited.canary, waited.baseline) {
            (Some(canary), Some(baseline)) => {
                let parts = pair.parts.clone();
                let pair = Pair { parts, ..Pair::new(Ok(canary), Ok(baseline)) };
                Counted { pair: Cow::Owned(pair), secs: waited.waited_secs }
            }
            (Some(_) | None, _) => as_read,
        }
    }
}

/// A reading that adds up over time. A level or a state is of its moment and cannot wait.
fn is_counted(reading: &Reading) -> Option<&Value> {
    match reading.as_ref().ok()? {
        value @ (Value::Share { .. }
        | Value::Events { .. }
        | Value::Histogram(_)
        | Value::Native(_)) => Some(value),
        Value::Level(_) | Value::Health { .. } | Value::Restarts(_) => None,
    }
}

fn wait(waiting: &mut Option<Value>, value: Option<&Value>) {
    if let Some(value) = value {
        *waiting = Some(match waiting.take() {
            None => value.clone(),
            Some(earlier) => joined(earlier, value.clone()),
        });
    }
}

/// What two increments in a row come to; of a level or a state the later one.
pub fn joined(earlier: Value, later: Value) -> Value {
    match (earlier, later) {
        (Value::Share { events: a, total: n }, Value::Share { events: b, total: m }) => {
            Value::Share { events: a + b, total: n + m }
        }
        (
            Value::Events { events: a, instance_secs: s, instances: i },
            Value::Events { events: b, instance_secs: t, instances: j },
        ) => Value::Events { events: a + b, instance_secs: s + t, instances: i.max(j) },
        (Value::Histogram(a), Value::Histogram(b)) if *a.edges == *b.edges => {
            let counts = a.counts.iter().zip(&b.counts).map(|(a, b)| a + b).collect();
            Value::Histogram(Histogram { edges: b.edges, counts })
        }
        (Value::Native(mut a), Value::Native(b)) => {
            a.add(&b);
            Value::Native(a)
        }
        (Value::Restarts(a), Value::Restarts(b)) => Value::Restarts(a.saturating_add(b)),
        // Other bucket edges from then on, a level, a state; and two kinds cannot be of one signal.
        (
            _,
            later @ (Value::Share { .. }
            | Value::Events { .. }
            | Value::Histogram(_)
            | Value::Native(_)
            | Value::Level(_)
            | Value::Health { .. }
            | Value::Restarts(_)),
        ) => later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::observation::{Missing, Why};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn share(events: f64, total: f64) -> Reading {
        Ok(Value::Share { events, total })
    }

    fn nothing() -> Reading {
        Err(Missing::new(Why::NoTraffic, "no new sample since the last look"))
    }

    /// Looks of 5 s; what is counted at each, with the seconds it covers.
    fn check(looks: &[(Reading, Reading)], expected: &[Option<(Reading, Reading, f64)>]) {
        let mut together = Together::default();
        for (number, ((canary, baseline), expected)) in looks.iter().zip(expected).enumerate() {
            let pair = Pair::new(canary.clone(), baseline.clone());
            let counted = together.take(&pair, 5.0, PATIENCE);
            let found = (counted.pair.canary.is_ok() && counted.pair.baseline.is_ok()).then(|| {
                (counted.pair.canary.clone(), counted.pair.baseline.clone(), counted.secs)
            });
            assert_eq!(found, *expected, "look {number}");
        }
    }

    #[test]
    fn arms_that_are_always_there_are_counted_as_they_are() {
        let look = (share(1.0, 9.0), share(2.0, 20.0));
        let counted = Some((look.0.clone(), look.1.clone(), 5.0));
        check(&[look.clone(), look], &[counted.clone(), counted]);
    }

    #[test]
    fn arms_that_are_never_there_at_once_are_counted_together_all_the_same() {
        // Scraped every 15 s, the baseline 5 s after the canary.
        let (c, b) = ((share(1.0, 30.0), nothing()), (nothing(), share(2.0, 60.0)));
        let none = (nothing(), nothing());
        let counted = |secs| Some((share(1.0, 30.0), share(2.0, 60.0), secs));
        let looks = [c.clone(), b.clone(), none.clone(), c, b, none];
        check(&looks, &[None, counted(10.0), None, None, counted(10.0), None]);
    }

    #[test]
    fn what_happened_while_the_other_arm_failed_is_not_lost() {
        let look = |canary, baseline| (share(0.0, canary), baseline);
        let looks = [
            look(10.0, share(0.0, 20.0)),
            look(11.0, nothing()),
            look(12.0, nothing()),
            look(13.0, share(1.0, 60.0)),
            look(14.0, share(0.0, 20.0)),
        ];
        let counted = |canary, baseline, secs| Some((share(0.0, canary), baseline, secs));
        check(
            &looks,
            &[
                counted(10.0, share(0.0, 20.0), 5.0),
                None,
                None,
                counted(36.0, share(1.0, 60.0), 15.0),
                counted(14.0, share(0.0, 20.0), 5.0),
            ],
        );
    }

    #[test]
    fn what_waits_too_long_is_given_up() {
        let mut looks = vec![(share(0.0, 10.0), nothing()); 14];
        looks.push((nothing(), share(1.0, 60.0)));
        let mut expected = vec![None; 14];
        // After 65 s thirteen looks are given up, and one waits.
        expected.push(Some((share(0.0, 10.0), share(1.0, 60.0), 10.0)));
        check(&looks, &expected);
    }

    #[test]
    fn levels_are_of_their_moment() {
        let (level, other) = (Ok(Value::Level(1.0)), Ok(Value::Level(2.0)));
        let both = Some((level.clone(), other.clone(), 5.0));
        check(
            &[(level.clone(), nothing()), (nothing(), other.clone()), (level, other)],
            &[None, None, both],
        );
    }
}
