//! What an arm's reading is made of: by scraped instance, and by route where the series tell routes
//! apart.
//!
//! Parts exist so that a finding can say what is to blame and a rule can ask for most instances.
//! They are kept where somebody reads them and left out elsewhere, since each of them lies in the
//! journal at every look:
//!
//! - instances of the canary, when it has several; those of the baseline only of a level, whose
//!   slope is taken process by process on both sides (and of a level a single instance too);
//! - routes of ratios and histograms on both sides, when there are several.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    buckets::Cumulative,
    increments::{Increments, Series},
    sample::Labels,
    spec::{Reads, Reduce},
};
use crate::engine::{
    native::NativeHistogram,
    observation::{Arm, Missing, PARTS_MAX, Part, PartKind, Time, Value},
};

/// Labels that tell routes apart; the first that a series has is its route.
const ROUTE_LABELS: [&str; 6] = ["route", "handler", "path", "uri", "endpoint", "http_route"];

/// Labels that hold the method of a request.
const METHOD_LABELS: [&str; 3] = ["method", "http_method", "http_request_method"];

/// Longest name of a part, in characters: a route may be anything that a client asked for.
const NAME_CHARS_MAX: usize = 120;

/// One instance's piece of one signal.
#[derive(Clone)]
pub(super) enum Piece {
    /// Of a ratio.
    Share { events: f64, total: f64 },
    /// Of a counter.
    Events { events: f64, secs: f64 },
    /// Of a histogram.
    Buckets(Cumulative),
    /// Of a native histogram.
    Native(NativeHistogram),
    /// Of a gauge.
    Level(f64),
    /// Of a restarts signal.
    Restarts(u32),
}

/// Method and route of a request.
type Route<'a> = (&'a str, &'a str);

/// What one signal of one arm gained at one look, before it is joined.
#[derive(Default)]
pub(super) struct Gained<'a> {
    /// One per scraped instance.
    pub(super) pieces: Vec<Result<Piece, Missing>>,
    /// Name and process start of the instances, in the same order.
    whose: Vec<(Arc<str>, Option<Time>)>,
    routes: BTreeMap<Route<'a>, Piece>,
}

impl<'a> Gained<'a> {
    /// Takes what one instance said.
    pub(super) fn push(
        &mut self,
        instance: &Arc<str>,
        started: Option<Time>,
        piece: Result<Piece, Missing>,
    ) {
        self.whose.push((instance.clone(), started));
        self.pieces.push(piece);
    }

    /// Takes the routes of a ratio of one instance. A route whose series are bad is left out.
    pub(super) fn push_share_routes(
        &mut self,
        increments: &Increments<'a>,
        events: &[Series<'a>],
        total: &[Series<'a>],
    ) {
        let events = by_route(events);
        for (route, series) in by_route(total) {
            let all = increments.sum(&series);
            let bad = events.get(&route).map_or(Ok(0.0), |series| increments.sum(series));
            let (Ok(all), Ok(bad)) = (all, bad) else { continue };
            let piece =
                self.routes.entry(route).or_insert(Piece::Share { events: 0.0, total: 0.0 });
            if let Piece::Share { events, total } = piece {
                *events += bad;
                *total += all;
            }
        }
    }

    /// Takes the routes of a histogram of one instance.
    pub(super) fn push_bucket_routes(
        &mut self,
        increments: &Increments<'a>,
        buckets: &[Series<'a>],
    ) {
        for (route, series) in by_route(buckets) {
            let Ok(one) = Cumulative::read(increments, &series) else { continue };
            let sum = match self.routes.remove(&route) {
                Some(Piece::Buckets(sum)) => sum.plus(one),
                Some(_) | None => one,
            };
            self.routes.insert(route, Piece::Buckets(sum));
        }
    }

    /// The same of a native histogram.
    pub(super) fn push_native_routes(
        &mut self,
        increments: &Increments<'a>,
        natives: &[Series<'a>],
    ) {
        for (route, series) in by_route(natives) {
            let Ok(one) = increments.sum_native(&series) else { continue };
            match self.routes.get_mut(&route) {
                Some(Piece::Native(sum)) => sum.add(&one),
                Some(_) | None => drop(self.routes.insert(route, Piece::Native(one))),
            }
        }
    }

    /// The parts that are worth keeping; `edges` lends its layout where it is the same.
    pub(super) fn parts(&self, arm: Arm, reads: &Reads, edges: &Arc<[f64]>) -> Vec<Part> {
        let by_instance = match (reads, arm) {
            (Reads::Gauge { .. } | Reads::Answer { .. }, _) => true,
            (
                Reads::Ratio { .. } | Reads::Counter(_) | Reads::Histogram { .. } | Reads::Up,
                Arm::Canary,
            ) => self.pieces.len() > 1,
            (
                Reads::Ratio { .. } | Reads::Counter(_) | Reads::Histogram { .. } | Reads::Up,
                Arm::Baseline,
            )
            | (Reads::Health(_) | Reads::Restarts(_) | Reads::Promql(_), _) => false,
        };
        let mut parts = Vec::new();
        if by_instance {
            let named = self.whose.iter().zip(&self.pieces);
            let part = |((name, started), piece): (&(Arc<str>, Option<Time>), &Result<_, _>)| {
                let value = value_of(piece.as_ref().ok()?, edges)?;
                let name = shortened(name).map_or_else(|| name.clone(), Arc::from);
                Some(Part { kind: PartKind::Instance, name, started: *started, value })
            };
            parts.extend(largest(named.filter_map(part).collect(), reads));
        }
        if self.routes.len() > 1 {
            let part = |((method, route), piece): (&Route<'_>, &Piece)| {
                let value = value_of(piece, edges)?;
                let name = match *method {
                    "" => (*route).to_owned(),
                    method => format!("{method} {route}"),
                };
                let name = shortened(&name).unwrap_or(name).into();
                Some(Part { kind: PartKind::Route, name, started: None, value })
            };
            parts.extend(largest(self.routes.iter().filter_map(part).collect(), reads));
        }
        parts
    }
}

/// The series of each route; those without one belong to none.
fn by_route<'a>(series: &[Series<'a>]) -> BTreeMap<Route<'a>, Vec<Series<'a>>> {
    let mut routes: BTreeMap<Route<'a>, Vec<Series<'a>>> = BTreeMap::new();
    for one in series {
        if let Some(route) = route_of(&one.sample.labels) {
            routes.entry(route).or_default().push(*one);
        }
    }
    routes
}

fn route_of(labels: &Labels) -> Option<Route<'_>> {
    let mut found: Option<(usize, &str)> = None;
    let mut method = "";
    for (label, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        if let Some(rank) = ROUTE_LABELS.iter().position(|name| *name == label) {
            if found.is_none_or(|(best, _)| rank < best) {
                found = Some((rank, value));
            }
        } else if METHOD_LABELS.contains(&label) {
            method = value;
        }
    }
    found.map(|(_, route)| (method, route))
}

/// A piece as a value; none where it says nothing.
fn value_of(piece: &Piece, edges: &Arc<[f64]>) -> Option<Value> {
    let value = match piece {
        Piece::Share { events, total } if *total > 0.0 => {
            Value::Share { events: *events, total: *total }
        }
        Piece::Events { events, secs } if *secs > 0.0 => {
            Value::Events { events: *events, instance_secs: *secs, instances: 1 }
        }
        Piece::Buckets(buckets) if buckets.total() > 0.0 => {
            Value::Histogram(buckets.histogram(&mut edges.clone()).ok()?)
        }
        Piece::Native(native) if native.total() > 0.0 => Value::Native(native.clone()),
        Piece::Level(level) => Value::Level(*level),
        Piece::Share { .. }
        | Piece::Events { .. }
        | Piece::Buckets(_)
        | Piece::Native(_)
        | Piece::Restarts(_) => return None,
    };
    value.is_finite().then_some(value)
}

/// The [`PARTS_MAX`] largest by requests, or the worst levels, sorted by name.
fn largest(mut parts: Vec<Part>, reads: &Reads) -> Vec<Part> {
    if parts.len() > PARTS_MAX {
        let weight = |part: &Part| match &part.value {
            Value::Share { total, .. } => *total,
            Value::Events { events, .. } => *events,
            Value::Histogram(histogram) => histogram.total(),
            Value::Native(histogram) => histogram.total(),
            Value::Level(level) => match reads {
                Reads::Gauge { reduce: Reduce::Min, .. }
                | Reads::Answer { reduce: Reduce::Min, .. }
                | Reads::Up => -level,
                _ => *level,
            },
            Value::Health { .. } | Value::Restarts(_) => 0.0,
        };
        parts.sort_by(|a, b| weight(b).total_cmp(&weight(a)).then_with(|| a.name.cmp(&b.name)));
        parts.truncate(PARTS_MAX);
    }
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    // Two names may have become one by being shortened.
    parts.dedup_by(|later, first| later.name == first.name);
    parts
}

fn shortened(name: &str) -> Option<String> {
    let end = name.char_indices().nth(NAME_CHARS_MAX)?.0;
    Some(format!("{}\u{2026}", &name[..end]))
}
