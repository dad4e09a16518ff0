//! A signal that is compared with the baseline: how far apart the arms are, and how far the proof is
//! that a promotion asks for.
//!
//! One of these per compared signal is stepped once a look, whatever the number of rules that
//! compare it. The proof of a margin is the turned-round evidence process of `profile.rs`; a margin
//! with an `or` is shown by the mean of both e-values, since a release that is beyond doubt within
//! either is good enough. No rate is split between signals: a promotion needs every proof, so that a
//! release beyond one margin would have to be shown wrongly within that very one (intersection-union
//! test; Berger 1982).
//!
//! A proof that was reached stays: it is about the looks so far. A regression that begins later is
//! the rollback rules' business, and what stands against the signal then keeps a release from being
//! promoted (see [`super::verdict::DOUBT_DECADES`]). Levels are deliberately not asked for proof.

use std::time::Duration;

use super::{
    clause::Look,
    evidence::{Counts, arm_counts},
    observation::{Arm, Histogram, Reading, Value, histogram},
    profile::{CONFIDENCE, ConstantProof, Interval, RateProfile, Side, log_mean_exp},
    promotion::{PROOF_GRID_NATS, TWO_WAYS_NATS, Traffic, time_at},
    quantile_profile::QuantileProfile,
    rule::{Better, Margin, Signal, SignalKind},
    verdict::{Effect, EffectKind, Proof},
};

/// Traffic is smoothed over so many seconds for planning.
const PACE_SECS: f64 = 60.0;

/// What is left of a proof that is not reached is at least this: "0 s more" would be said for long.
const REMAINDER_NATS_MIN: f64 = 0.1;

/// One compared signal over time.
#[derive(Clone, Debug)]
pub struct Compared {
    profile: Profile,
    proof: Option<Proving>,
    /// Requests (or instance seconds) a second of canary and baseline, smoothed.
    pace: [f64; 2],
    paced_secs: f64,
}

#[derive(Clone, Debug)]
enum Profile {
    Rate(Box<RateProfile>),
    Quantile(Box<QuantileProfile>),
}

#[derive(Clone, Debug)]
struct Proving {
    margin: Margin,
    constant: Option<ConstantWay>,
    /// ln of the e-value that shows it.
    needed: f64,
    shown: bool,
}

/// The `or` of a margin: one arm against a constant.
#[derive(Clone, Debug)]
struct ConstantWay {
    proof: ConstantProof,
    constant: f64,
    of: Counted,
}

/// What is counted against the constant.
#[derive(Clone, Copy, Debug)]
enum Counted {
    /// Events among requests.
    Share,
    /// "At least 95 % good" is "at most 5 % not good".
    Others,
    /// Events a second of the arm.
    Rate,
    /// Requests slower than a latency: 5 in 100 of them, and the 95th percentile is that latency.
    Beyond {
        /// The latency, in the histogram's unit.
        limit: f64,
    },
}

impl Compared {
    /// A signal that has not been seen; none for a kind that has no ratio of counts.
    pub fn new(signal: &Signal, false_promotion_rate: f64) -> Option<Self> {
        let side = match signal.better {
            Better::Lower => Side::Below,
            Better::Higher => Side::Above,
        };
        let factor = signal.margin.map(|margin| (margin.factor, side));
        let profile = match signal.kind {
            SignalKind::Ratio { .. } | SignalKind::Rate | SignalKind::Count => {
                Profile::Rate(Box::new(RateProfile::new(factor)))
            }
            SignalKind::Quantile { q } => {
                Profile::Quantile(Box::new(QuantileProfile::new(q, factor)))
            }
            SignalKind::Gauge { .. } | SignalKind::Health | SignalKind::Restarts => return None,
        };
        let proof = signal.margin.map(|margin| Proving {
            margin,
            constant: margin.or.map(|or| ConstantWay::new(signal.kind, side, or)),
            needed: -false_promotion_rate.ln(),
            shown: false,
        });
        Some(Self { profile, proof, pace: [0.0; 2], paced_secs: 0.0 })
    }

    /// Takes one look.
    pub fn step(&mut self, look: &Look<'_>) {
        let secs = look.secs.max(f64::MIN_POSITIVE);
        let totals = Arm::BOTH.map(|arm| exposure(look.pair.of(arm)));
        self.keep_pace(totals, secs);
        match &mut self.profile {
            Profile::Rate(profile) => {
                // Before anything is known of the usual rate there is no telling how noisy it is.
                if let (Some(counts), Some(usual)) = (Counts::of(look.pair), look.usual()) {
                    let of = |total: f64| usual * total / secs;
                    let noise =
                        look.noise.comparison(of(counts.canary_total), of(counts.baseline_total));
                    profile.step(&counts, noise);
                }
            }
            Profile::Quantile(profile) => {
                let (canary, baseline) =
                    (histogram(&look.pair.canary), histogram(&look.pair.baseline));
                profile.step(canary.as_deref(), baseline.as_deref(), &look.noise, secs);
            }
        }
        if let Some(proof) = &mut self.proof {
            proof.step(look, secs, self.profile.log_value());
        }
    }

    /// How far apart the arms are; none before anything happened.
    pub fn effect(&self) -> Option<Effect> {
        let (kind, interval) = match &self.profile {
            Profile::Rate(profile) => (EffectKind::RateRatio, profile.interval()),
            Profile::Quantile(profile) => (EffectKind::QuantileRatio, profile.interval()),
        };
        let Interval { estimate, low, high } = interval?;
        Some(Effect { kind, estimate, low, high, confidence: CONFIDENCE })
    }

    /// How far the proof is; none where none is asked for.
    pub fn proof(&self, look: &Look<'_>) -> Option<Proof> {
        let proof = self.proof.as_ref()?;
        let remaining = if proof.shown { None } else { self.remaining(proof, look) };
        Some(Proof {
            factor: proof.margin.factor,
            or: proof.margin.or,
            decades: proof.log_value(self.profile.log_value()) / std::f64::consts::LN_10,
            needed: proof.needed / std::f64::consts::LN_10,
            shown: proof.shown,
            remaining,
            per_sec: self.pace[0],
        })
    }

    fn keep_pace(&mut self, totals: [f64; 2], secs: f64) {
        self.paced_secs = (self.paced_secs + secs).min(PACE_SECS);
        let weight = (secs / self.paced_secs).min(1.0);
        for (pace, total) in self.pace.iter_mut().zip(totals) {
            *pace += (total / secs - *pace) * weight;
        }
    }

    /// How much longer the proof takes if the canary is as good as the baseline from now on, by the
    /// quicker of both ways.
    fn remaining(&self, proof: &Proving, look: &Look<'_>) -> Option<Duration> {
        let [canary_per_sec, baseline_per_sec] = self.pace;
        let [events, total] = look.track.arm(Arm::Baseline).totals;
        let (event_share, factor, lead, noise_share) = match &self.profile {
            Profile::Rate(profile) => {
                let share = if total > 0.0 { events / total } else { 0.0 };
                (share, proof.margin.factor, profile.lead(), 1.0)
            }
            Profile::Quantile(profile) => match profile.leading_edge() {
                Some(edge) => (edge.share, edge.ratio, edge.lead, edge.noise_share),
                None => (0.0, proof.margin.factor, 0.0, 1.0),
            },
        };
        let kappa_secs = look.noise.kappa_secs * noise_share;
        let traffic = Traffic { canary_per_sec, baseline_per_sec, event_share, kappa_secs };
        let price = proof.needed + PROOF_GRID_NATS;
        let both = if proof.constant.is_some() { TWO_WAYS_NATS } else { 0.0 };
        let left = |lead: f64| (price + both - lead).max(REMAINDER_NATS_MIN);
        let by_ratio = time_at(traffic.ratio_nats_per_sec(1.0, factor), left(lead));
        let by_constant = proof.constant.as_ref().and_then(|way| {
            let (truth, canary_per_sec) = way.outlook(event_share, canary_per_sec)?;
            let traffic = Traffic { canary_per_sec, ..traffic };
            let growth = traffic.constant_nats_per_sec(truth, way.constant);
            time_at(growth, left(way.proof.lead(truth)))
        });
        match (by_ratio, by_constant) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

impl Profile {
    fn log_value(&self) -> f64 {
        match self {
            Profile::Rate(profile) => profile.proof(),
            Profile::Quantile(profile) => profile.proof(),
        }
    }
}

impl Proving {
    fn step(&mut self, look: &Look<'_>, secs: f64, by_ratio: f64) {
        if let Some(way) = &mut self.constant {
            way.step(look, secs);
        }
        self.shown |= self.log_value(by_ratio) >= self.needed;
    }

    /// ln of the e-value now: the mean of both ways, where there are two.
    fn log_value(&self, by_ratio: f64) -> f64 {
        match &self.constant {
            Some(way) => log_mean_exp([by_ratio, way.proof.proof()].into_iter()),
            None => by_ratio,
        }
    }
}

impl ConstantWay {
    fn new(kind: SignalKind, side: Side, or: f64) -> Self {
        let (constant, side, of) = match (kind, side) {
            (SignalKind::Quantile { q }, _) => (1.0 - q, side, Counted::Beyond { limit: or }),
            (SignalKind::Ratio { .. }, Side::Above) => (1.0 - or, Side::Below, Counted::Others),
            (SignalKind::Ratio { .. }, Side::Below) => (or, side, Counted::Share),
            (
                SignalKind::Rate
                | SignalKind::Count
                | SignalKind::Gauge { .. }
                | SignalKind::Health
                | SignalKind::Restarts,
                _,
            ) => (or, side, Counted::Rate),
        };
        Self { proof: ConstantProof::new(constant, side), constant, of }
    }

    fn step(&mut self, look: &Look<'_>, secs: f64) {
        let side = self.proof.side();
        let counted = match (&look.pair.canary, self.of) {
            (Ok(Value::Share { events, total }), Counted::Share) => Some((*events, *total)),
            (Ok(Value::Share { events, total }), Counted::Others) => Some((total - events, *total)),
            (Ok(Value::Events { events, instance_secs, instances }), Counted::Rate) => {
                Some((*events, instance_secs / f64::from((*instances).max(1))))
            }
            (reading, Counted::Beyond { limit }) => histogram(reading).and_then(|histogram| {
                beyond(&histogram, limit, side).map(|events| (events, histogram.total()))
            }),
            _ => None,
        };
        if let Some((events, total)) = counted {
            let noise = look.noise.limit(self.constant * total / secs);
            self.proof.step(events, total, noise);
        }
    }

    /// The rate to reckon with, and exposure a second; none when that cannot be said or is no good.
    fn outlook(&self, event_share: f64, canary_per_sec: f64) -> Option<(f64, f64)> {
        let (truth, per_sec) = match self.of {
            Counted::Share => (event_share, canary_per_sec),
            Counted::Others => (1.0 - event_share, canary_per_sec),
            Counted::Rate => (event_share * canary_per_sec, 1.0),
            Counted::Beyond { .. } => (self.proof.rate()?, canary_per_sec),
        };
        let good = match self.proof.side() {
            Side::Below => truth < self.constant,
            Side::Above => truth > self.constant,
        };
        good.then_some((truth, per_sec))
    }
}

/// Requests beyond a latency, counted at the bucket edge on the safe side of it.
fn beyond(histogram: &Histogram, limit: f64, side: Side) -> Option<f64> {
    let above = histogram.edges.partition_point(|&edge| edge < limit);
    let exact = histogram.edges.get(above).is_some_and(|&edge| edge == limit);
    let edge = match side {
        Side::Below if !exact => above.checked_sub(1)?,
        Side::Below | Side::Above => above,
    };
    (edge < histogram.edges.len()).then(|| histogram.above(edge))
}

/// Requests or instance seconds of a look; 0 when there are none.
fn exposure(reading: &Reading) -> f64 {
    match histogram(reading) {
        Some(histogram) => histogram.total(),
        None => arm_counts(reading).map_or(0.0, |(_, total)| total),
    }
}
