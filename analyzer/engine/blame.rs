//! Which part is to blame for a comparison's evidence: the instance, the route or the bucket edge
//! that contributes most, and how many such parts are bad by themselves.
//!
//! What counts is what came *since the regression seems to have begun*. A cumulative sum of log
//! likelihood ratios (Page 1954) of the canary's events against the baseline's, for a rate ratio of
//! margin squared against 1, is put back to zero whenever it would fall below. The look at which it
//! last left zero is the likeliest onset; there the tallies begin anew. So what a part did in a quiet
//! hour before neither accuses nor excuses it, and a part is named within seconds.
//!
//! - **Share**: a part's excess is the events it had beyond what the baseline's rate gives for its
//!   requests; its share is of the sum of all positive excesses, those of parts that were left out
//!   included. A route is held against the same route of the baseline, an instance against the arm.
//! - **Bad by itself**: the part's own evidence since the onset that its rate is beyond the rule's
//!   margin and floor, as the clause weighs it for the arm (conditional likelihood ratios mixed over
//!   [`EFFECTS`], divided by the noise factor of the part's own rates), reaches [`BAD_ODDS`]. For one
//!   onset the chance of ever accusing a healthy part is at most the inverse (Ville); it is a
//!   description beside a decision, and decides nothing.
//!
//! Of a quantile the events are requests slower than the lowest bucket edge at or above the
//! baseline's own quantile, the margin is what the rule allows for the tail there.
//!
//! Deliberately absent: memory of looks (two numbers a part), and blame where no rule compares.

use std::sync::Arc;

use super::{
    difference::{Rates, log_likelihood},
    evidence::Counts,
    noise::{comparison_noise, limit_noise},
    observation::{Arm, Histogram, PARTS_MAX, Pair, Part, PartKind, Reading, Value},
    quantile::{self, edge_index},
    rule::{Allowed, Clause, Scope, Signal, SignalKind, Test},
    tail::{Tail, slower},
    verdict::{Blame, BlameBy},
};

/// A part is bad by itself from these odds on.
const BAD_ODDS: f64 = 10.0;

/// Effects a part's own evidence is mixed over, as multiples of the margin.
const EFFECTS: [f64; 3] = [2.0, 5.0, 20.0];

/// ln of each of [`EFFECTS`].
#[allow(clippy::approx_constant, reason = "ln 2 stands among its kind")]
const LN_EFFECTS: [f64; 3] =
    [0.693_147_180_559_945_3, 1.609_437_912_434_100_3, 2.995_732_273_553_991];

/// A route is named rather than an instance when its leading part has so much more beyond its share
/// of the requests: how many instances are bad tells most, unless one route has nearly all.
const ROUTE_LEAD: f64 = 0.2;

/// Smallest ratio that the onset is looked for with; a margin near 1 would make it wander.
const ONSET_RATIO_MIN: f64 = 1.5;

/// The sum that tells the onset grows no further, so that it comes down again once it is over.
const RISE_NATS_MAX: f64 = 30.0;

/// By so much more requests of the baseline the edge of a quantile is chosen anew.
const CHOICE_GROWTH: f64 = 1.1;

/// Requests of the baseline before its quantile is taken to be known.
const QUANTILE_REQUESTS_MIN: f64 = 400.0;

/// Events among exposures (requests, or seconds).
#[derive(Clone, Copy, Debug, PartialEq, Default)]
struct Tally {
    events: f64,
    total: f64,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.events += other.events;
        self.total += other.total;
    }

    fn rate(self) -> f64 {
        if self.total > 0.0 { self.events / self.total } else { 0.0 }
    }

    /// The rate as far as it is known: none so far is not none ever.
    fn usual_rate(self) -> f64 {
        (self.events + 0.5) / self.total
    }

    /// Counts of both arms.
    fn beside(self, baseline: Tally) -> Counts {
        Counts {
            canary_events: self.events,
            canary_total: self.total,
            baseline_events: baseline.events,
            baseline_total: baseline.total,
        }
    }

    /// Events beyond what `rate` gives.
    fn excess(self, rate: f64) -> f64 {
        (self.events - self.total * rate).max(0.0)
    }
}

/// One part since the onset.
#[derive(Clone, Debug)]
struct Suspect {
    kind: PartKind,
    name: Arc<str>,
    canary: Kept,
    /// The same route of the baseline; nothing of an instance.
    baseline: Kept,
}

/// A tally in single precision, of which there are many: exact up to 16 million, and a share is
/// shown with two digits.
#[derive(Clone, Copy, Debug, Default)]
struct Kept([f32; 2]);

impl Kept {
    fn add(&mut self, tally: Tally) {
        let Tally { events, total } = tally;
        self.0[0] = (f64::from(self.0[0]) + events) as f32;
        self.0[1] = (f64::from(self.0[1]) + total) as f32;
    }

    fn tally(self) -> Tally {
        let [events, total] = self.0.map(f64::from);
        Tally { events, total }
    }
}

/// What counts as an event.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    /// What the signal counts.
    Counted,
    /// What it does not count, where higher is better.
    Uncounted,
    /// A request slower than an edge, of the quantile `q`.
    Slower { q: f64 },
}

/// The parts of one comparison, since its regression seems to have begun.
#[derive(Clone, Debug)]
pub struct Suspects {
    event: Event,
    /// How far from the baseline the rule allows.
    bound: Allowed,
    floor: f64,
    /// Cumulative sum that tells the onset, in nats.
    rise: f64,
    secs: f64,
    canary: Tally,
    baseline: Tally,
    /// Sorted by kind and name.
    parts: Vec<Suspect>,
    latencies: Option<Box<Latencies>>,
}

/// What a quantile's events are counted by.
#[derive(Clone, Debug)]
struct Latencies {
    /// All of the baseline before this look.
    edges: Arc<[f64]>,
    counts: Vec<f64>,
    /// The edge, and the margin of the tail beyond it; unchanged since the onset.
    at: Option<(f64, f64)>,
    /// Requests of the baseline that they were chosen by.
    chosen_at: f64,
    /// Since the onset, on the layout of the baseline: both arms per bucket.
    since: [Vec<f64>; 2],
}

impl Suspects {
    /// Suspects of a clause; none where it compares nothing that has parts.
    pub fn of(clause: &Clause, signal: &Signal) -> Option<Self> {
        let Test::BeyondBaseline { op, allowed } = clause.test else { return None };
        match clause.scope {
            Scope::Arm => {}
            // Its own finding says on how many it fires.
            Scope::MostInstances => return None,
        }
        let is_above = op.is_upward();
        let (event, floor) = match signal.kind {
            SignalKind::Ratio { floor } if is_above => (Event::Counted, floor),
            SignalKind::Ratio { .. } => (Event::Uncounted, 0.0),
            SignalKind::Rate | SignalKind::Count if is_above => (Event::Counted, 0.0),
            SignalKind::Quantile { q } if is_above => (Event::Slower { q }, 0.0),
            SignalKind::Rate
            | SignalKind::Count
            | SignalKind::Quantile { .. }
            | SignalKind::Gauge { .. }
            | SignalKind::Health
            | SignalKind::Restarts => return None,
        };
        let latencies = matches!(event, Event::Slower { .. }).then(|| {
            Box::new(Latencies {
                edges: Arc::new([]),
                counts: Vec::new(),
                at: None,
                chosen_at: 0.0,
                since: [Vec::new(), Vec::new()],
            })
        });
        Some(Self {
            event,
            bound: allowed,
            floor,
            rise: 0.0,
            secs: 0.0,
            canary: Tally::default(),
            baseline: Tally::default(),
            parts: Vec::new(),
            latencies,
        })
    }

    /// Takes one look of `secs` seconds. `before` is what the baseline amounted to before it.
    pub fn absorb(&mut self, pair: &Pair, before: [f64; 2], secs: f64) {
        if self.rise <= 0.0
            && let (Event::Slower { q }, Some(latencies)) = (self.event, &mut self.latencies)
        {
            latencies.choose(q, self.bound);
        }
        let edge = self.edge();
        let tallies = self.tally_of(&pair.canary, edge).zip(self.tally_of(&pair.baseline, edge));
        if let Some((canary, baseline)) = tallies {
            self.rise = (self.rise + self.drift(canary, baseline, before)).min(RISE_NATS_MAX);
            if self.rise > 0.0 {
                self.secs += secs;
                self.canary.add(canary);
                self.baseline.add(baseline);
                self.absorb_parts(pair, edge);
                if let Some(latencies) = &mut self.latencies {
                    latencies.absorb(pair);
                }
            } else {
                self.forget();
            }
        }
        if let Some(latencies) = &mut self.latencies
            && let Some(histogram) = pair.baseline.as_ref().ok().and_then(Value::histogram)
            && latencies.remember(&histogram)
        {
            self.forget();
        }
    }

    fn forget(&mut self) {
        (self.rise, self.secs) = (0.0, 0.0);
        (self.canary, self.baseline) = (Tally::default(), Tally::default());
        self.parts.clear();
        if let Some(latencies) = &mut self.latencies {
            latencies.since.iter_mut().for_each(Vec::clear);
        }
    }

    /// The rate ratio that is allowed beside this baseline: the rule's, or that of the tail beyond the
    /// edge.
    fn allowed(&self, baseline: Tally) -> f64 {
        match (self.event, self.bound) {
            (Event::Counted, Allowed::Times(margin)) => margin,
            // "Less than 0.9 times as good" is so many times as bad, by the baseline's share.
            (Event::Uncounted, Allowed::Times(margin)) => {
                let bad = baseline.rate();
                if bad > 0.0 { ((1.0 - margin * (1.0 - bad)) / bad).max(1.0) } else { 1.0 }
            }
            // Beside a baseline without events an amount is no multiple of anything.
            (Event::Counted | Event::Uncounted, Allowed::Plus(amount)) => {
                let rate = baseline.rate();
                if rate > 0.0 { 1.0 + amount.abs() / rate } else { 1.0 }
            }
            (Event::Slower { .. }, _) => {
                let at = self.latencies.as_ref().and_then(|latencies| latencies.at);
                at.map_or(1.0, |(_, allowed)| allowed)
            }
        }
    }

    /// The amount by which event rates may differ, of a rule that allows one.
    fn amount(&self) -> Option<f64> {
        match (self.event, self.bound) {
            (Event::Counted | Event::Uncounted, Allowed::Plus(amount)) => Some(amount.abs()),
            (Event::Slower { .. }, Allowed::Plus(_)) | (_, Allowed::Times(_)) => None,
        }
    }

    fn edge(&self) -> Option<f64> {
        self.latencies.as_ref()?.at.map(|(edge, _)| edge)
    }

    fn tally_of(&self, reading: &Reading, edge: Option<f64>) -> Option<Tally> {
        tally(self.event, reading.as_ref().ok()?, edge)
    }

    /// Log likelihood ratio of one look for a regression against none. To the baseline's events are
    /// added those of the floor, or one of all its requests: silence of both arms counts for health.
    fn drift(&self, canary: Tally, baseline: Tally, before: [f64; 2]) -> f64 {
        let ratio = match self.amount() {
            None => self.allowed(self.baseline).powi(2),
            // An amount may be many times a baseline that hardly has events: it is far enough.
            Some(_) => {
                let [events, total] = before;
                let counted = if self.event == Event::Uncounted { total - events } else { events };
                self.allowed(Tally { events: counted + 0.5, total })
            }
        };
        let ratio = ratio.max(ONSET_RATIO_MIN);
        let rare = if before[1] > 0.0 { 1.0 / before[1] } else { 0.0 };
        let events = canary.events + baseline.events.max(baseline.total * self.floor.max(rare));
        canary.events * ratio.ln() - events * dilution(canary.total, baseline.total, 1.0, ratio)
    }

    fn absorb_parts(&mut self, pair: &Pair, edge: Option<f64>) {
        let event = self.event;
        for arm in Arm::BOTH {
            let mut from = 0;
            for part in pair.parts.of(arm) {
                let Some(tally) = tally(event, &part.value, edge) else { continue };
                if arm == Arm::Baseline && part.kind == PartKind::Instance {
                    continue;
                }
                let Some(place) = self.place(part, from) else { continue };
                from = place + 1;
                match arm {
                    Arm::Canary => self.parts[place].canary.add(tally),
                    Arm::Baseline => self.parts[place].baseline.add(tally),
                }
            }
        }
    }

    /// Where a part stands, or comes to stand; none when there are too many of its kind. Parts come
    /// sorted, so that the place is seldom far from the last.
    fn place(&mut self, part: &Part, from: usize) -> Option<usize> {
        let key = (part.kind, &part.name);
        if self.parts.get(from).is_some_and(|known| (known.kind, &known.name) == key) {
            return Some(from);
        }
        match self.parts.binary_search_by(|known| (known.kind, &known.name).cmp(&key)) {
            Ok(place) => Some(place),
            Err(place) => {
                let alike = self.parts.iter().filter(|known| known.kind == part.kind).count();
                if alike >= PARTS_MAX {
                    return None;
                }
                let (kind, name) = (part.kind, part.name.clone());
                let (canary, baseline) = (Kept::default(), Kept::default());
                // Doubling would leave half of it unused, and there is one list a clause.
                if self.parts.len() == self.parts.capacity() {
                    self.parts.reserve_exact(PARTS_MAX / 8);
                }
                self.parts.insert(place, Suspect { kind, name, canary, baseline });
                Some(place)
            }
        }
    }

    /// The part that contributes most: an instance, a route where one stands out more, or an edge
    /// where there are neither.
    pub fn blame(&self, kappa_secs: f64) -> Option<Blame> {
        let instance = self.blame_by(PartKind::Instance, kappa_secs);
        let route = self.blame_by(PartKind::Route, kappa_secs);
        let leading = match (instance, route) {
            (Some((of_instance, _)), Some((of_route, route)))
                if of_route > of_instance + ROUTE_LEAD =>
            {
                Some(route)
            }
            (Some((_, instance)), _) => Some(instance),
            // The route with most of the traffic has most of what all routes suffer.
            (None, route) => {
                route.filter(|(beyond, _)| *beyond > ROUTE_LEAD).map(|(_, route)| route)
            }
        };
        leading.or_else(|| self.blame_edge(kappa_secs))
    }

    /// The leading part of one kind, with how far its share is beyond its share of the requests.
    fn blame_by(&self, kind: PartKind, kappa_secs: f64) -> Option<(f64, Blame)> {
        let parts =
            self.parts.iter().filter(|part| part.kind == kind && part.canary.tally().total > 0.0);
        let of = parts.clone().count();
        if of < 2 || self.baseline.total <= 0.0 {
            return None;
        }
        let (mut bad, mut sum, mut known) = (0, 0.0, Tally::default());
        let mut leading: Option<(&Suspect, f64)> = None;
        for part in parts {
            let (own, reference) = (part.canary.tally(), self.reference(part));
            let excess = own.excess(reference.rate());
            let allowed = self.allowed(reference);
            let odds = self.odds(own, reference, allowed, kappa_secs);
            bad += usize::from(odds >= BAD_ODDS);
            sum += excess;
            known.add(own);
            if leading.is_none_or(|(_, most)| excess > most) {
                leading = Some((part, excess));
            }
        }
        // What no part stands for: parts beyond the largest, series without a route.
        let unknown = Tally {
            events: (self.canary.events - known.events).max(0.0),
            total: (self.canary.total - known.total).max(0.0),
        };
        sum += unknown.excess(self.baseline.rate());
        let (part, excess) = leading.filter(|(_, excess)| *excess > 0.0)?;
        let share = excess / sum;
        let by = match kind {
            PartKind::Instance => BlameBy::Instance,
            PartKind::Route => BlameBy::Route,
        };
        let beyond = share - part.canary.tally().total / self.canary.total;
        Some((beyond, Blame { by, name: part.name.to_string(), share, bad_of: (bad, of) }))
    }

    /// What a part is held against: its own route, where the baseline has it, or the arm.
    fn reference(&self, part: &Suspect) -> Tally {
        let own = part.baseline.tally();
        if own.total > 0.0 { own } else { self.baseline }
    }

    /// Odds that these tallies give against the null of at most `allowed` times the baseline's rate,
    /// or that plus the rule's amount, and at most the floor: the smaller of both.
    fn odds(&self, canary: Tally, baseline: Tally, allowed: f64, kappa_secs: f64) -> f64 {
        if canary.total <= 0.0 || baseline.total <= 0.0 || canary.events <= 0.0 {
            return 0.0;
        }
        let secs = self.secs.max(f64::MIN_POSITIVE);
        let per_sec = |total: f64, rate: f64| rate * total / secs;
        let rate = baseline.rate().max(self.floor);
        let rates = [canary.total, baseline.total].map(|total| per_sec(total, rate));
        let by_amount = self.amount().map(|amount| (amount, baseline.usual_rate()));
        let versus_baseline_noise = match by_amount {
            None => comparison_noise(kappa_secs, rates[0], rates[1]),
            Some((amount, usual)) => limit_noise(kappa_secs, per_sec(canary.total, usual + amount)),
        };
        let versus_floor_noise = limit_noise(kappa_secs, per_sec(canary.total, self.floor));
        let events = canary.events + baseline.events;
        let [mut versus_baseline, mut versus_floor] = [0.0; 2];
        for (effect, ln_effect) in EFFECTS.into_iter().zip(LN_EFFECTS) {
            let nats = match by_amount {
                None => {
                    let lost = dilution(canary.total, baseline.total, allowed, allowed * effect);
                    canary.events * ln_effect - events * lost
                }
                Some((amount, lesser)) => {
                    let rates = Rates { greater: effect * (lesser + amount), lesser };
                    log_likelihood(&canary.beside(baseline), rates, amount)
                }
            };
            versus_baseline += (nats / versus_baseline_noise).exp();
            let expected = canary.total * self.floor;
            let nats = canary.events * ln_effect - expected * (effect - 1.0);
            versus_floor += (nats / versus_floor_noise).exp();
        }
        versus_baseline.min(versus_floor) / EFFECTS.len() as f64
    }

    /// Without parts a quantile still has edges: the one with most of the evidence, by the tails of
    /// both arms beyond each.
    fn blame_edge(&self, kappa_secs: f64) -> Option<Blame> {
        let Event::Slower { q } = self.event else { return None };
        let latencies = self.latencies.as_ref()?;
        let [canary, baseline] = latencies.since.each_ref();
        let (mut bad, mut of, mut sum) = (0, 0, 0.0);
        let mut leading: Option<(f64, f64)> = None;
        let beyond = slower(&latencies.counts);
        let tail = Tail::new(&latencies.edges, &beyond, latencies.counts.iter().sum());
        for (index, &edge) in latencies.edges.iter().enumerate() {
            let is_usable = tail.is_usable(index, q, self.bound);
            let margin = tail.margin(index, q, self.bound).filter(|_| is_usable);
            let Some((_, allowed)) = margin else { continue };
            let [canary, baseline] = [canary, baseline].map(|counts| Tally {
                events: counts.iter().skip(index + 1).sum(),
                total: counts.iter().sum(),
            });
            let odds = self.odds(canary, baseline, allowed, kappa_secs).min(f64::MAX);
            bad += usize::from(odds >= BAD_ODDS);
            of += 1;
            sum += odds;
            if leading.is_none_or(|(_, most)| odds > most) {
                leading = Some((edge, odds));
            }
        }
        let (edge, odds) = leading.filter(|(_, odds)| *odds > 1.0)?;
        let (name, share) = (format!("{edge} s"), if sum.is_finite() { odds / sum } else { 1.0 });
        Some(Blame { by: BlameBy::Edge, name, share, bad_of: (bad, of) })
    }
}

impl Latencies {
    /// Chooses the edge for a new onset, anew whenever so much more of the baseline is known.
    fn choose(&mut self, q: f64, bound: Allowed) {
        let requests: f64 = self.counts.iter().sum();
        if requests < QUANTILE_REQUESTS_MIN || requests < self.chosen_at * CHOICE_GROWTH {
            return;
        }
        self.chosen_at = requests;
        self.at = None;
        let Some(usual) = quantile::estimate(q, &self.edges, &self.counts) else { return };
        let index = self.edges.partition_point(|&edge| edge < usual);
        let Some(&edge) = self.edges.get(index) else { return };
        let beyond = slower(&self.counts);
        let margin = Tail::new(&self.edges, &beyond, requests).margin(index, q, bound);
        self.at = margin.map(|(_, allowed)| (edge, allowed));
    }

    /// Takes what both arms said since the onset. A canary of another layout has no edges to blame.
    fn absorb(&mut self, pair: &Pair) {
        for (arm, since) in Arm::BOTH.into_iter().zip(&mut self.since) {
            let histogram = pair.of(arm).as_ref().ok().and_then(Value::histogram);
            let Some(histogram) = histogram else { continue };
            if *histogram.edges == *self.edges {
                since.resize(histogram.counts.len(), 0.0);
                since.iter_mut().zip(&histogram.counts).for_each(|(sum, count)| *sum += count);
            }
        }
    }

    /// Takes the baseline's look; true when its layout is another and nothing known holds any more.
    fn remember(&mut self, baseline: &Histogram) -> bool {
        if *self.edges == *baseline.edges {
            self.counts.iter_mut().zip(&baseline.counts).for_each(|(sum, count)| *sum += count);
            return false;
        }
        self.edges = baseline.edges.clone();
        self.counts.clone_from(&baseline.counts);
        (self.at, self.chosen_at) = (None, 0.0);
        true
    }
}

fn tally(event: Event, value: &Value, edge: Option<f64>) -> Option<Tally> {
    match (event, value) {
        (Event::Counted, Value::Share { events, total }) => {
            Some(Tally { events: *events, total: *total })
        }
        (Event::Uncounted, Value::Share { events, total }) => {
            Some(Tally { events: total - events, total: *total })
        }
        (Event::Counted, Value::Events { events, instance_secs, .. }) => {
            Some(Tally { events: *events, total: *instance_secs })
        }
        (Event::Slower { .. }, Value::Histogram(histogram)) => {
            let index = edge_index(&histogram.edges, edge?)?;
            Some(Tally { events: histogram.above(index), total: histogram.total() })
        }
        (Event::Slower { .. }, Value::Native(histogram)) => {
            let (edge, (bound, events)) = (edge?, histogram.above(edge?));
            (bound == edge).then(|| Tally { events, total: histogram.total() })
        }
        (Event::Counted | Event::Uncounted | Event::Slower { .. }, _) => None,
    }
}

/// ln((b n_c + n_b) / (a n_c + n_b)): what each event counts against the ratio `b`, beside `a`.
fn dilution(canary_total: f64, baseline_total: f64, a: f64, b: f64) -> f64 {
    ((b * canary_total + baseline_total) / (a * canary_total + baseline_total)).ln()
}
