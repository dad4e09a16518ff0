//! Looks at a service's own past, and how they stand in for the baseline of a look.
//!
//! A release without a concurrent baseline is compared with the service's own looks some *lag*
//! earlier. Looks of the past and of the present need not fall together: every look of the past is
//! used once, by the look whose lagged interval holds its end, and several become one.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::Arc,
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::spec::SignalSpec;
use crate::engine::{
    calibration::Past,
    observation::{Missing, Observation, PARTS_MAX, Pair, Part, PartKind, Reading, Time, Why},
    together,
};

/// A stretch of time: after its first moment, up to and including its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Not in it any more.
    pub after: Time,
    /// The last moment in it.
    pub until: Time,
}

impl Stretch {
    /// How long it is; zero when it ends before it begins.
    pub fn length(self) -> Duration {
        self.until.since(self.after)
    }

    /// Whether a moment lies in it.
    pub fn holds(self, at: Time) -> bool {
        self.after < at && at <= self.until
    }

    /// Whether both have a moment in common.
    pub fn overlaps(self, other: Stretch) -> bool {
        self.after < other.until && other.after < self.until
    }
}

/// One look at a service between releases.
#[derive(Clone, Debug, PartialEq)]
pub struct PastLook {
    /// When it was taken.
    pub at: Time,
    /// What its increments cover.
    pub covers: Duration,
    /// One entry per signal, in the order of the specs.
    pub sides: Vec<Side>,
}

/// The baseline's side of one signal.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// The whole arm's reading.
    pub reading: Reading,
    /// What it is made of.
    pub parts: Vec<Part>,
}

impl Side {
    fn missing(missing: &Missing) -> Self {
        Self { reading: Err(missing.clone()), parts: Vec::new() }
    }
}

impl PastLook {
    /// The baseline's side of an observation.
    pub fn of(observation: Observation, covers: Duration) -> Self {
        let side = |pair: Pair| Side { reading: pair.baseline, parts: pair.parts.baseline };
        Self {
            at: observation.at,
            covers,
            sides: observation.signals.into_iter().map(side).collect(),
        }
    }

    /// Whether it says anything at all.
    pub fn has_data(&self) -> bool {
        self.sides.iter().any(|side| side.reading.is_ok())
    }

    /// The same look as calibration takes it.
    pub fn into_past(self) -> Past {
        let readings = self.sides.into_iter().map(|side| side.reading).collect();
        Past { at: self.at, secs: self.covers.as_secs_f64(), readings }
    }
}

/// Puts looks of the past, oldest first, in the place of an observation's baseline. Without any the
/// baseline is missing for `absent`.
pub fn stand_in(observation: &mut Observation, looks: Vec<PastLook>, absent: &Missing) {
    let mut sides: Vec<Option<Side>> = vec![None; observation.signals.len()];
    for look in looks {
        for (sum, side) in sides.iter_mut().zip(look.sides) {
            *sum = Some(match sum.take() {
                None => side,
                Some(earlier) => joined(earlier, side),
            });
        }
    }
    for (pair, side) in observation.signals.iter_mut().zip(sides) {
        let side = side.unwrap_or_else(|| Side::missing(absent));
        (pair.baseline, pair.parts.baseline) = (side.reading, side.parts);
    }
}

/// Two sides in a row as one. A gap between two readings costs only itself.
fn joined(earlier: Side, later: Side) -> Side {
    let reading = match (earlier.reading, later.reading) {
        (Ok(earlier), Ok(later)) => Ok(together::joined(earlier, later)),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
        (Err(_), Err(missing)) => Err(missing),
    };
    Side { reading, parts: joined_parts(earlier.parts, later.parts) }
}

fn joined_parts(earlier: Vec<Part>, later: Vec<Part>) -> Vec<Part> {
    let mut sum: BTreeMap<(PartKind, Arc<str>), Part> = BTreeMap::new();
    for part in earlier.into_iter().chain(later) {
        match sum.entry((part.kind, part.name.clone())) {
            Entry::Vacant(place) => {
                place.insert(part);
            }
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                let value = together::joined(known.value.clone(), part.value);
                *known = Part { value, ..part };
            }
        }
    }
    let mut kept: BTreeMap<PartKind, usize> = BTreeMap::new();
    let fits = |part: &Part| {
        let kept = kept.entry(part.kind).or_default();
        *kept += 1;
        *kept <= PARTS_MAX
    };
    let mut parts: Vec<Part> = sum.into_values().collect();
    parts.retain(fits);
    parts
}

/// By what looks of a standing watch are found again: two rule files that read the same signals in
/// the same order share a history, a changed selector begins a new one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SignalsKey(String);

/// Hex digits of a key: 64 bits tell the rule files of one service apart.
const KEY_DIGITS: usize = 16;

impl SignalsKey {
    /// The key of these signals.
    pub fn of(specs: &[SignalSpec]) -> Self {
        let mut text = format!("{:x}", HexOf(&Sha256::digest(format!("{specs:?}"))));
        text.truncate(KEY_DIGITS);
        Self(text)
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SignalsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

struct HexOf<'a>(&'a [u8]);

impl fmt::LowerHex for HexOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a baseline from the past is missing at one look.
pub fn nothing_then(detail: impl Into<String>) -> Missing {
    Missing::new(Why::NotObserved, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::observation::{Health, Histogram, Value};

    fn look(at: i64, reading: Reading) -> PastLook {
        let sides = vec![Side { reading, parts: Vec::new() }];
        PastLook { at: Time(at), covers: Duration::from_secs(5), sides }
    }

    fn check(readings: Vec<Reading>, expected: Reading) {
        let canary = Ok(Value::Level(7.0));
        let nobody = Err(nothing_then("nobody"));
        let mut observation = Observation {
            at: Time(9000),
            signals: vec![Pair::new(canary.clone(), nobody)],
            canary_gap: None,
            instances: None,
        };
        let looks = readings.into_iter().zip(1..).map(|(one, at)| look(at, one)).collect();
        stand_in(&mut observation, looks, &nothing_then("no past"));
        assert_eq!(observation.signals, [Pair::new(canary, expected)]);
    }

    fn share(events: f64, total: f64) -> Reading {
        Ok(Value::Share { events, total })
    }

    fn histogram(edges: &[f64], counts: &[f64]) -> Reading {
        Ok(Value::Histogram(Histogram { edges: edges.into(), counts: counts.to_vec() }))
    }

    #[test]
    fn looks_in_a_row_are_one_baseline() {
        let gone = || Err(Missing::new(Why::ScrapeFailed, "refused"));
        check(vec![], Err(nothing_then("no past")));
        check(vec![share(1.0, 10.0)], share(1.0, 10.0));
        check(vec![share(1.0, 10.0), gone(), share(2.0, 5.0)], share(3.0, 15.0));
        check(vec![gone()], gone());
        let events = |events, instance_secs, instances| {
            Ok(Value::Events { events, instance_secs, instances })
        };
        check(vec![events(1.0, 5.0, 1), events(2.0, 10.0, 2)], events(3.0, 15.0, 2));
        check(vec![Ok(Value::Level(1.0)), Ok(Value::Level(2.0))], Ok(Value::Level(2.0)));
        check(vec![Ok(Value::Restarts(1)), Ok(Value::Restarts(2))], Ok(Value::Restarts(3)));
        let up = Ok(Value::Health { status: Health::Up, latency_secs: None });
        check(vec![up.clone(), up.clone()], up);
        check(
            vec![histogram(&[1.0], &[2.0, 1.0]), histogram(&[1.0], &[3.0, 0.0])],
            histogram(&[1.0], &[5.0, 1.0]),
        );
        // Other edges from then on: what was counted by the old ones cannot be added.
        check(
            vec![histogram(&[1.0], &[2.0, 1.0]), histogram(&[2.0], &[3.0, 0.0])],
            histogram(&[2.0], &[3.0, 0.0]),
        );
    }

    #[test]
    fn parts_are_joined_by_name_and_stay_few() {
        let part = |name: &str, level: f64| Part {
            kind: PartKind::Instance,
            name: name.into(),
            started: None,
            value: Value::Share { events: level, total: 1.0 },
        };
        let joined = joined_parts(vec![part("a", 1.0), part("b", 2.0)], vec![part("b", 3.0)]);
        assert_eq!(joined.len(), 2);
        assert_eq!(joined[1].value, Value::Share { events: 5.0, total: 2.0 });
        let many = |from: usize| (from..from + 30).map(|n| part(&format!("{n:03}"), 1.0)).collect();
        assert_eq!(joined_parts(many(0), many(20)).len(), PARTS_MAX);
    }

    #[test]
    fn stretches_hold_their_end_and_not_their_beginning() {
        let stretch = |after, until| Stretch { after: Time(after), until: Time(until) };
        assert!(!stretch(1, 3).holds(Time(1)) && stretch(1, 3).holds(Time(3)));
        assert!(stretch(1, 3).overlaps(stretch(2, 9)) && !stretch(1, 3).overlaps(stretch(3, 9)));
        assert_eq!(stretch(3, 1).length(), Duration::ZERO);
    }

    #[test]
    fn a_key_tells_signals_apart() {
        use crate::signal::spec::{Reads, Selection, Selector};
        let spec = |name: &str, metric: &str| SignalSpec {
            name: name.to_owned(),
            reads: Reads::Counter(Selection {
                any_of: vec![Selector { name: metric.to_owned(), matchers: Vec::new() }],
            }),
        };
        let (one, two) = (spec("a", "x_total"), spec("b", "y_total"));
        let key = |specs: &[SignalSpec]| SignalsKey::of(specs);
        assert_eq!(key(&[one.clone(), two.clone()]), key(&[one.clone(), two.clone()]));
        assert_ne!(key(&[one.clone(), two.clone()]), key(&[two, one.clone()]));
        assert_ne!(key(std::slice::from_ref(&one)), key(&[spec("a", "z_total")]));
        assert_eq!(key(&[one]).as_str().len(), KEY_DIGITS);
    }
}
