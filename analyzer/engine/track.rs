//! What is remembered of one signal: totals since the analysis began, and the window that point
//! estimates are taken over.
//!
//! Every clause that names a signal reads the same track, so that two rules cannot disagree about
//! what was seen. Nothing here judges.

use std::{sync::Arc, time::Duration};

use super::{
    native::NativeHistogram,
    native_window::NativeWindow,
    observation::{Arm, Histogram, Missing, Pair, Reading, Time, Value, Why},
    quantile,
    rule::SignalKind,
    window::{BucketWindow, Window},
};

/// A silence in which this many requests would have come at the pace so far is no lull: by chance
/// alone it has a probability of e^-30. An arm that hangs moves no counter, and this is how it shows.
const SILENT_REQUESTS: f64 = 30.0;

/// One signal over both arms.
#[derive(Clone, Debug)]
pub struct Track {
    kind: SignalKind,
    canary: ArmTrack,
    baseline: ArmTrack,
}

/// One signal of one arm.
#[derive(Clone, Debug)]
pub struct ArmTrack {
    /// Events and total since the analysis began, this look included.
    pub totals: [f64; 2],
    /// The same, without this look.
    pub totals_before: [f64; 2],
    /// Point estimate over the window at this look.
    pub estimate: Option<f64>,
    /// Events and total within the window, for shares.
    pub window_counts: Option<(f64, f64)>,
    /// When there first were requests; none of what is not counted in requests.
    first_requests: Option<Time>,
    /// When there last was a value.
    pub last_data: Option<Time>,
    /// Why there is none at this look.
    pub missing: Option<Missing>,
    /// Slowest health answer at this look, in seconds.
    pub latency_secs: Option<f64>,
    /// Whether this quantile comes from a summary, which tells the quantile and no counts.
    pub reads_summary: bool,
    window: Window<3>,
    buckets: Option<Box<Buckets>>,
}

/// The window of a histogram, which other kinds of signal do without.
#[derive(Clone, Debug)]
enum Buckets {
    Classic { window: BucketWindow, edges: Arc<[f64]>, sums: Vec<f64> },
    Native(NativeWindow),
}

impl Buckets {
    /// A window of another kind is begun anew, one of another layout is emptied.
    fn push(&mut self, now: Time, histogram: &Histogram, length: Duration) {
        if let Buckets::Native(_) = self {
            *self = Buckets::classic(histogram, length);
        }
        if let Buckets::Classic { window, edges, .. } = self {
            if **edges != *histogram.edges {
                *edges = histogram.edges.clone();
                window.clear();
            }
            window.push(now, &histogram.counts);
        }
    }

    fn push_native(&mut self, now: Time, histogram: &NativeHistogram, length: Duration) {
        if let Buckets::Classic { .. } = self {
            *self = Buckets::Native(NativeWindow::new(length));
        }
        if let Buckets::Native(window) = self {
            window.push(now, histogram);
        }
    }

    fn classic(histogram: &Histogram, length: Duration) -> Self {
        let (window, edges) = (BucketWindow::new(length), histogram.edges.clone());
        Buckets::Classic { window, edges, sums: Vec::new() }
    }

    fn estimate(&mut self, q: f64, now: Time) -> Option<f64> {
        match self {
            Buckets::Classic { window, edges, sums } => {
                let filled = window.sums_into(now, sums);
                if filled { quantile::estimate(q, edges, sums) } else { None }
            }
            Buckets::Native(window) => window.sum(now)?.estimate(q),
        }
    }
}

/// What is remembered of a signal on both sides: of the arms, or of one instance against the
/// baseline arm.
#[derive(Clone, Copy, Debug)]
pub struct Arms<'a> {
    /// The new version's side.
    pub canary: &'a ArmTrack,
    /// The old version's side.
    pub baseline: &'a ArmTrack,
}

impl<'a> Arms<'a> {
    /// One of both sides.
    pub fn arm(&self, arm: Arm) -> &'a ArmTrack {
        match arm {
            Arm::Canary => self.canary,
            Arm::Baseline => self.baseline,
        }
    }

    /// Whether neither version has ever exposed the signal, as far as one can see.
    pub fn is_absent(&self) -> bool {
        let why = |arm: &ArmTrack| match (&arm.missing, arm.last_data) {
            (Some(missing), None) => Some(missing.why),
            (Some(_) | None, _) => None,
        };
        let nowhere = [Some(Why::AbsentSeries), Some(Why::NotObserved)];
        why(self.canary) == Some(Why::AbsentSeries) && nowhere.contains(&why(self.baseline))
    }
}

impl Track {
    /// An empty track.
    pub fn new(kind: SignalKind, window: Duration) -> Self {
        let arm = ArmTrack::new(window);
        Self { kind, canary: arm.clone(), baseline: arm }
    }

    /// One arm's side.
    pub fn arm(&self, arm: Arm) -> &ArmTrack {
        self.arms().arm(arm)
    }

    /// Both sides, for reading.
    pub fn arms(&self) -> Arms<'_> {
        Arms { canary: &self.canary, baseline: &self.baseline }
    }

    /// Whether neither version has ever exposed the signal, as far as one can see.
    pub fn is_absent(&self) -> bool {
        self.arms().is_absent()
    }

    /// Takes one look.
    pub fn absorb(&mut self, now: Time, pair: &Pair) {
        self.canary.absorb(self.kind, now, &pair.canary);
        self.baseline.absorb(self.kind, now, &pair.baseline);
    }
}

impl ArmTrack {
    /// An empty track of one arm, or of one instance.
    pub fn new(window: Duration) -> Self {
        Self {
            totals: [0.0; 2],
            totals_before: [0.0; 2],
            estimate: None,
            window_counts: None,
            first_requests: None,
            last_data: None,
            missing: None,
            latency_secs: None,
            reads_summary: false,
            window: Window::new(window),
            buckets: None,
        }
    }

    /// Takes one look.
    pub fn absorb(&mut self, kind: SignalKind, now: Time, reading: &Reading) {
        self.totals_before = self.totals;
        self.latency_secs = None;
        self.missing = None;
        match reading {
            Ok(value) => {
                self.last_data = Some(now);
                self.take(kind, now, value);
            }
            Err(missing) => self.missing = Some(missing.clone()),
        }
        self.read(kind, now);
    }

    fn take(&mut self, kind: SignalKind, now: Time, value: &Value) {
        // Counts and restarts are taken since the analysis began: no window is read of them.
        let has_window = matches!(kind, SignalKind::Ratio { .. } | SignalKind::Rate);
        let mut add = |events: f64, total: f64, third: f64| {
            self.totals[0] += events;
            self.totals[1] += total;
            if has_window {
                self.window.push(now, [events, total, third]);
            }
        };
        match value {
            Value::Share { events, total } => {
                add(*events, *total, 0.0);
                self.first_requests = self.first_requests.or(Some(now));
            }
            Value::Events { events, instance_secs, instances } => {
                add(*events, *instance_secs, instance_secs / f64::from((*instances).max(1)));
            }
            Value::Restarts(restarts) => add(f64::from(*restarts), 0.0, 0.0),
            Value::Level(level) => {
                self.estimate = Some(*level);
                self.reads_summary = matches!(kind, SignalKind::Quantile { .. });
            }
            Value::Health { latency_secs, .. } => self.latency_secs = *latency_secs,
            Value::Histogram(histogram) => {
                self.totals[1] += histogram.total();
                self.reads_summary = false;
                self.first_requests = self.first_requests.or(Some(now));
                let length = self.window.length();
                let empty = || Box::new(Buckets::classic(histogram, length));
                self.buckets.get_or_insert_with(empty).push(now, histogram, length);
            }
            Value::Native(histogram) => {
                self.totals[1] += histogram.total();
                self.first_requests = self.first_requests.or(Some(now));
                self.reads_summary = false;
                let length = self.window.length();
                let empty = || Box::new(Buckets::Native(NativeWindow::new(length)));
                self.buckets.get_or_insert_with(empty).push_native(now, histogram, length);
            }
        }
    }

    /// Refreshes the point estimate. A level is as old as its reading; the rest is of the window.
    fn read(&mut self, kind: SignalKind, now: Time) {
        match kind {
            SignalKind::Ratio { .. } => {
                let sums = self.window.sums(now).filter(|sums| sums[1] > 0.0);
                self.window_counts = sums.map(|sums| (sums[0], sums[1]));
                self.estimate = sums.map(|sums| sums[0] / sums[1]);
            }
            SignalKind::Rate => {
                let sums = self.window.sums(now).filter(|sums| sums[2] > 0.0);
                self.estimate = sums.map(|sums| sums[0] / sums[2]);
            }
            SignalKind::Count | SignalKind::Restarts => {
                self.estimate = self.last_data.map(|_| self.totals[0]);
            }
            // Of a summary: its own quantile, which is as old as its reading.
            SignalKind::Quantile { .. } if self.reads_summary => {
                self.estimate = self.estimate.filter(|_| self.missing.is_none());
            }
            SignalKind::Quantile { q } => {
                self.estimate = self.buckets.as_mut().and_then(|buckets| buckets.estimate(q, now));
            }
            SignalKind::Gauge { .. } if self.missing.is_some() => self.estimate = None,
            SignalKind::Gauge { .. } | SignalKind::Health => {}
        }
    }

    /// Rate per instance and second within the window, for comparing arms of different size.
    pub fn rate_per_instance(&self, now: Time) -> Option<f64> {
        let sums = self.window.sums(now)?;
        (sums[1] > 0.0).then(|| sums[0] / sums[1])
    }

    /// Why this look's data is not current: a failed read counts at once, a look without traffic
    /// only when the whole window had none, or when so many requests would have come by now that
    /// it is no lull.
    pub fn outage(&self, arm: Arm, now: Time, window: Duration) -> Option<Missing> {
        let name = match arm {
            Arm::Canary => "canary",
            Arm::Baseline => "baseline",
        };
        let named = |missing: &Missing| {
            let detail = match missing.detail.as_str() {
                "" => name.to_owned(),
                // In a recording the instances are named by their role.
                detail if detail.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')) => {
                    detail.to_owned()
                }
                detail => format!("{name}: {detail}"),
            };
            Missing::new(missing.why, detail)
        };
        match &self.missing {
            Some(missing) if missing.why != Why::NoTraffic => Some(named(missing)),
            Some(missing) => match self.silence(now) {
                Some(detail) => Some(named(&Missing::new(Why::NoTraffic, detail))),
                None if self.last_data.is_none_or(|last| now.since(last) >= window) => {
                    Some(named(missing))
                }
                None => None,
            },
            None => None,
        }
    }

    /// A silence that is too long for the pace so far, in words.
    fn silence(&self, now: Time) -> Option<String> {
        let (first, last) = (self.first_requests?, self.last_data?);
        let silent = now.since(last).as_secs_f64();
        let expected = silent * self.totals[1] / last.since(first).as_secs_f64().max(1.0);
        (expected >= SILENT_REQUESTS).then(|| {
            format!("no requests for {silent:.0} s, where {expected:.0} would have come before")
        })
    }
}
