//! How long a rule file needs at given traffic, by formula: until a fault is found, and until a
//! healthy release is shown to be one.
//!
//! Evidence is reckoned by [`crate::engine::promotion`]; a dwell takes its time and the part of its
//! window until the estimate is beyond the bound; a state takes its checks. For a quantile the best
//! bucket edge is taken: slower requests are rarer there than the margin allows. Times are about
//! the middle one of many releases; some take twice as long. What no formula is known for (slopes,
//! levels compared by their signs) is said to be so, not guessed.

use std::time::Duration;

use super::{
    latency::{EDGES, LatencyLaw},
    plan::{SignalPlan, plans},
    questions::Assumed,
    scenario::FaultKind,
    trial::calibration,
};
use crate::engine::{
    calibration::Calibration,
    difference::Greater,
    evidence::EFFECTS,
    noise::comparison_noise,
    promotion::{Sought, Traffic, time_at, time_to_find, time_to_show},
    rule::{
        Action, Allowed, Bound, Clause, Condition, HealthHold, Margin, Op, RuleSet, SignalKind,
        Test,
    },
    tail::EDGE_EVENTS_MIN,
};

/// How long something takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wait {
    /// About so long.
    About(Duration),
    /// It does not come to pass: the fault is within the bound, or there is too little traffic.
    Never,
    /// There is no formula for it.
    Unknown,
}

/// What is expected of a rule file.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// By signal: the noise intensity that is reckoned with, in seconds.
    pub kappa_secs: Vec<f64>,
    /// Rules that end a release or ask for a person, with the faults that concern them.
    pub rules: Vec<RuleOutlook>,
    /// What promotion asks to be shown.
    pub proofs: Vec<ProofOutlook>,
    /// Until a healthy release is promoted: the hold, or the longest proof.
    pub promotion: Wait,
}

/// How soon one rule fires.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleOutlook {
    /// Its index.
    pub rule: usize,
    /// Per fault, from its beginning.
    pub faults: Vec<(FaultKind, Wait)>,
}

/// How long one proof takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProofOutlook {
    /// The signal.
    pub signal: usize,
    /// What has to be shown.
    pub margin: Margin,
    /// How long a canary as good as the baseline needs.
    pub wait: Wait,
    /// Where that is longer than the deadline: requests a second of both arms together at which it
    /// would not be; none where more traffic does not help.
    pub rps_needed: Option<f64>,
}

/// Histories that the noise is measured on; the middle one is taken.
const HISTORIES: u64 = 5;

/// More traffic than this many times today's is not asked for.
const MORE_TRAFFIC_MAX: f64 = 1000.0;

const ERROR_FACTORS: [f64; 3] = [2.0, 5.0, 10.0];
const LATENCY_FACTORS: [f64; 3] = [1.5, 2.0, 3.0];

/// A process that is gone for good, and one that is back at once.
const GONE: FaultKind = FaultKind::Crash { every_secs: f64::INFINITY, down_secs: f64::INFINITY };
const RESTART: FaultKind = FaultKind::Crash { every_secs: f64::INFINITY, down_secs: 0.0 };

/// What is expected of a rule file under these assumptions.
pub fn outlook(rules: &RuleSet, assumed: &Assumed, seed: u64) -> Outlook {
    let kappa_secs = kappas(rules, assumed, seed);
    let mut eye = Eye { rules, assumed, plans: plans(rules), kappa_secs, scale: 1.0 };
    let found = rules
        .rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| rule.then != Action::Ok)
        .map(|(index, rule)| {
            let faults = eye.faults_of(&rule.when).into_iter();
            let alpha = rules.alpha(rule);
            let until = |fault| eye.until(&rule.when, Asked { fault, alpha });
            let faults = faults.map(|fault| (fault, until(fault))).collect();
            RuleOutlook { rule: index, faults }
        })
        .collect();
    let deadline = rules.promote.deadline;
    let margins = rules.signals.iter().enumerate();
    let margins: Vec<(usize, Margin)> =
        margins.filter_map(|(index, signal)| Some((index, signal.margin?))).collect();
    let mut proofs = Vec::new();
    for (signal, margin) in margins {
        let wait = eye.until_shown(signal, margin);
        let late = match wait {
            Wait::About(time) => time > deadline,
            Wait::Never => true,
            Wait::Unknown => false,
        };
        let rps_needed = if late { eye.rps_needed(signal, margin, deadline) } else { None };
        proofs.push(ProofOutlook { signal, margin, wait, rps_needed });
    }
    let hold = match rules.steps.first() {
        Some(first) => first.hold,
        None => rules.promote.after,
    };
    // Later steps begin with the proof in hand.
    let later: Duration = rules.steps.iter().skip(1).map(|step| step.hold).sum();
    let mut promotion = Wait::About(hold);
    for proof in &proofs {
        promotion = longest(promotion, proof.wait);
    }
    if let Wait::About(time) = promotion {
        promotion = Wait::About(time + later);
    }
    Outlook { kappa_secs: eye.kappa_secs, rules: found, proofs, promotion }
}

/// The noise that the engine would learn of such a service.
fn kappas(rules: &RuleSet, assumed: &Assumed, seed: u64) -> Vec<f64> {
    let known: Vec<Calibration> = match assumed.history {
        Some(history) => (0..HISTORIES)
            .map(|run| calibration(rules, &assumed.healthy(), history, seed.wrapping_add(run)))
            .collect(),
        None => vec![Calibration::default()],
    };
    let of = |signal: usize| {
        let mut kappas: Vec<f64> = known.iter().map(|one| one.of(signal).kappa_secs).collect();
        kappas.sort_by(f64::total_cmp);
        kappas[kappas.len() / 2]
    };
    (0..rules.signals.len()).map(of).collect()
}

fn longest(a: Wait, b: Wait) -> Wait {
    match (a, b) {
        (Wait::Never, _) | (_, Wait::Never) => Wait::Never,
        (Wait::Unknown, _) | (_, Wait::Unknown) => Wait::Unknown,
        (Wait::About(a), Wait::About(b)) => Wait::About(a.max(b)),
    }
}

fn soonest(a: Wait, b: Wait) -> Wait {
    match (a, b) {
        (Wait::About(a), Wait::About(b)) => Wait::About(a.min(b)),
        (Wait::About(a), _) | (_, Wait::About(a)) => Wait::About(a),
        (Wait::Unknown, _) | (_, Wait::Unknown) => Wait::Unknown,
        (Wait::Never, Wait::Never) => Wait::Never,
    }
}

fn about(time: Option<Duration>) -> Wait {
    time.map_or(Wait::Never, Wait::About)
}

/// What a clause is to find, and with which share of the false-rollback rate.
#[derive(Clone, Copy)]
struct Asked {
    fault: FaultKind,
    alpha: f64,
}

/// Everything that the times depend on.
struct Eye<'a> {
    rules: &'a RuleSet,
    assumed: &'a Assumed,
    plans: Vec<SignalPlan>,
    kappa_secs: Vec<f64>,
    /// How many times today's traffic is looked at.
    scale: f64,
}

impl Eye<'_> {
    /// Faults that a condition's signals can show.
    fn faults_of(&self, condition: &Condition) -> Vec<FaultKind> {
        let mut faults = Vec::new();
        let mut add = |fault: FaultKind| {
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        };
        for clause in condition.clauses() {
            match self.plans[clause.signal] {
                SignalPlan::Failing
                | SignalPlan::Succeeding
                | SignalPlan::FailingOverTime
                | SignalPlan::Excess => {
                    ERROR_FACTORS.into_iter().for_each(|factor| add(FaultKind::Errors { factor }));
                }
                SignalPlan::Latency => {
                    let faults = LATENCY_FACTORS.into_iter();
                    faults.for_each(|factor| add(FaultKind::Latency { factor }));
                }
                SignalPlan::Health | SignalPlan::Up => add(GONE),
                SignalPlan::Restarts => add(RESTART),
                SignalPlan::Level { .. } | SignalPlan::Throughput => {}
            }
        }
        faults
    }

    /// Until a condition holds under a fault.
    fn until(&self, condition: &Condition, asked: Asked) -> Wait {
        match condition {
            Condition::Clause(clause) => self.until_clause(clause, asked),
            Condition::And(parts) => {
                let parts = parts.iter().map(|part| self.until(part, asked));
                parts.reduce(longest).unwrap_or(Wait::Never)
            }
            Condition::Or(parts) => {
                let parts = parts.iter().map(|part| self.until(part, asked));
                parts.reduce(soonest).unwrap_or(Wait::Never)
            }
            // Only what one look decides may be turned round, and it says nothing of time.
            Condition::Not(_) => Wait::Unknown,
        }
    }

    fn until_clause(&self, clause: &Clause, asked: Asked) -> Wait {
        let fault = asked.fault;
        let interval = self.rules.observe.interval;
        match clause.test {
            Test::BeyondBaseline { op, allowed } => match allowed {
                Allowed::Times(margin) => self.until_beyond(clause, asked, op, margin),
                Allowed::Plus(amount) => self.until_apart(clause, asked, op, amount),
            },
            Test::BeyondConstant { op, limit } => self.until_limit(clause, asked, op, limit),
            Test::Dwell { op, bound, hold } => self.until_held(clause, fault, op, bound, hold),
            Test::Counted { limit, .. } => self.until_counted(clause, fault, limit),
            Test::HealthIs { hold, .. } if fault == GONE => match hold {
                HealthHold::Checks(checks) => Wait::About(interval * checks),
                HealthHold::For(time) => Wait::About(interval + time),
            },
            Test::HealthIs { .. } => Wait::Never,
            Test::Slope { .. } | Test::HealthLatency { .. } => Wait::Unknown,
        }
    }

    /// Traffic as the formulas take it, with this share of events.
    fn traffic(&self, signal: usize, event_share: f64) -> Traffic {
        let is_over_time = matches!(
            self.plans[signal],
            SignalPlan::FailingOverTime | SignalPlan::Throughput | SignalPlan::Excess
        );
        let of = &self.assumed.traffic;
        let kappa_secs = self.kappa_secs[signal];
        if is_over_time {
            // Exposure is time; events come with the traffic.
            let event_share = event_share * of.baseline_rps * self.scale;
            return Traffic { canary_per_sec: 1.0, baseline_per_sec: 1.0, event_share, kappa_secs };
        }
        Traffic {
            canary_per_sec: of.canary_rps * self.scale,
            baseline_per_sec: of.baseline_rps * self.scale,
            event_share,
            kappa_secs,
        }
    }

    fn until_beyond(&self, clause: &Clause, asked: Asked, op: Op, margin: f64) -> Wait {
        let Asked { fault, alpha } = asked;
        let failing = self.assumed.truth.error_share;
        let is_above = matches!(op, Op::Above | Op::AtLeast);
        let signal = &self.rules.signals[clause.signal];
        match (self.plans[clause.signal], fault) {
            (SignalPlan::Failing | SignalPlan::FailingOverTime, FaultKind::Errors { factor })
                if is_above =>
            {
                let floor = match signal.kind {
                    SignalKind::Ratio { floor } => floor,
                    _ => 0.0,
                };
                let effect = factor.min(1.0 / failing);
                let sought = Sought { margin, floor, alpha };
                about(time_to_find(&self.traffic(clause.signal, failing), sought, effect))
            }
            (SignalPlan::Succeeding, FaultKind::Errors { factor }) if !is_above => {
                let good = 1.0 - failing;
                let effect = (1.0 - (factor * failing).min(1.0)) / good;
                if effect >= margin {
                    return Wait::Never;
                }
                let nats = self.traffic(clause.signal, good).ratio_nats_per_sec(effect, margin);
                about(time_at(nats, self.price(alpha, 1)))
            }
            (SignalPlan::Latency, FaultKind::Latency { factor }) if is_above => {
                if factor <= margin {
                    return Wait::Never;
                }
                about(self.until_slower(clause.signal, Allowed::Times(margin), asked))
            }
            (SignalPlan::Level { .. } | SignalPlan::Up, _) => Wait::Unknown,
            _ => Wait::Never,
        }
    }

    /// Nats until evidence is enough: alpha, the grid of effects at so many edges, the onset.
    fn price(&self, alpha: f64, edges: usize) -> f64 {
        ((EFFECTS.len() * edges) as f64).ln() + std::f64::consts::LN_2 - alpha.ln()
    }

    /// By the edge that shows it soonest.
    fn until_slower(&self, signal: usize, allowed: Allowed, asked: Asked) -> Option<Duration> {
        let (FaultKind::Latency { factor }, SignalKind::Quantile { q }) =
            (asked.fault, self.rules.signals[signal].kind)
        else {
            return None;
        };
        let law = self.assumed.truth.latency;
        let usual = law.quantile(q);
        let bound = |edge: f64| match allowed {
            Allowed::Times(margin) => edge / margin,
            // As the engine allows it: all by that much slower, or all in proportion.
            Allowed::Plus(amount) => (edge - amount).min(edge * usual / (usual + amount)),
        };
        let beyond = |edge: f64| 1.0 - law.below(edge.max(0.0));
        let edges: Vec<f64> = match allowed {
            Allowed::Times(_) => usable_edges(law).collect(),
            // By an amount an edge counts by what is allowed there, once it has been learnt.
            Allowed::Plus(_) => {
                let learnt = self.assumed.traffic.baseline_rps
                    * self.scale
                    * self.rules.promote.after.as_secs_f64();
                let is_usable = |edge: &f64| {
                    beyond(*edge) <= 0.4
                        && beyond(bound(*edge)) >= 0.005
                        && beyond(*edge) * learnt >= EDGE_EVENTS_MIN
                };
                EDGES.into_iter().filter(is_usable).collect()
            }
        };
        let nats = edges.iter().map(|edge| {
            let slow = beyond(*edge);
            let of = |before: f64| beyond(before) / slow;
            self.edge_nats(signal, slow, of(edge / factor), of(bound(*edge)))
        });
        time_at(nats.fold(0.0, f64::max), self.price(asked.alpha, edges.len().max(1)))
    }

    /// Until the arms are shown to be further apart than an amount.
    fn until_apart(&self, clause: &Clause, asked: Asked, op: Op, amount: f64) -> Wait {
        let Asked { fault, alpha } = asked;
        let signal = clause.signal;
        if let SignalPlan::Level { .. } = self.plans[signal] {
            return Wait::Unknown;
        }
        let Some((healthy, faulty)) = self.values(signal, fault) else { return Wait::Unknown };
        if !op.holds(faulty, healthy + amount) {
            return Wait::Never;
        }
        let failing = self.assumed.truth.error_share;
        let (worse, amount) = (faulty - healthy, amount.abs());
        match (self.plans[signal], fault) {
            // Counted are failures, whichever of both the signal shows.
            (SignalPlan::Failing | SignalPlan::Succeeding, FaultKind::Errors { .. }) => {
                let floor = match self.rules.signals[signal].kind {
                    SignalKind::Ratio { floor } if op.is_upward() && amount < floor => floor,
                    _ => 0.0,
                };
                let (traffic, truth) = (self.traffic(signal, failing), failing + worse.abs());
                let mut nats = traffic.difference_nats_per_sec(truth, amount, Greater::Canary);
                if floor > 0.0 {
                    nats = nats.min(traffic.constant_nats_per_sec(truth, floor));
                }
                about(time_at(nats, self.price(alpha, 1)))
            }
            (SignalPlan::FailingOverTime, FaultKind::Errors { factor }) => {
                let traffic = self.traffic(signal, failing);
                let truth = factor * traffic.event_share;
                let nats = traffic.difference_nats_per_sec(truth, amount, Greater::Canary);
                about(time_at(nats, self.price(alpha, 1)))
            }
            (SignalPlan::Latency, FaultKind::Latency { .. }) => {
                about(self.until_slower(signal, Allowed::Plus(amount), asked))
            }
            _ => Wait::Unknown,
        }
    }

    /// Nats a second at an edge beyond which a share `slow` of the baseline's requests lies, when
    /// there are `truth` times as many and `null` times as many are to be rejected: slow requests are
    /// more, and fast ones fewer.
    fn edge_nats(&self, signal: usize, slow: f64, truth: f64, null: f64) -> f64 {
        let traffic = self.traffic(signal, slow);
        let pure = |event_share: f64| Traffic { event_share, kappa_secs: 0.0, ..traffic };
        let fast = |ratio: f64| ((1.0 - ratio * slow) / (1.0 - slow)).max(1e-6);
        let nats = pure(slow).ratio_nats_per_sec(truth, null)
            + pure(1.0 - slow).ratio_nats_per_sec(fast(truth), fast(null));
        let (canary, baseline) = (traffic.canary_per_sec, traffic.baseline_per_sec);
        let noise = comparison_noise(traffic.kappa_secs, slow * canary, slow * baseline);
        nats / (1.0 + (noise - 1.0) / (1.0 - slow))
    }

    fn until_limit(&self, clause: &Clause, asked: Asked, op: Op, limit: f64) -> Wait {
        let Asked { fault, alpha } = asked;
        let Some((_, faulty)) = self.values(clause.signal, fault) else { return Wait::Unknown };
        if !op.holds(faulty, limit) {
            return Wait::Never;
        }
        let price = self.price(alpha, 1);
        match (self.plans[clause.signal], self.rules.signals[clause.signal].kind) {
            (SignalPlan::Failing | SignalPlan::Succeeding, _) => {
                let traffic = self.traffic(clause.signal, limit);
                about(time_at(traffic.constant_nats_per_sec(faulty, limit), price))
            }
            (SignalPlan::Latency, SignalKind::Quantile { q }) => {
                let law = self.assumed.truth.latency;
                let factor = match fault {
                    FaultKind::Latency { factor } => factor,
                    _ => 1.0,
                };
                let edge = EDGES.into_iter().find(|edge| *edge >= limit);
                let Some(edge) = edge else { return Wait::Never };
                let (slow, allowed) = (1.0 - law.below(edge / factor), 1.0 - q);
                if slow <= allowed {
                    return Wait::Never;
                }
                let traffic = self.traffic(clause.signal, allowed);
                about(time_at(traffic.constant_nats_per_sec(slow, allowed), price))
            }
            _ => Wait::Unknown,
        }
    }

    fn until_held(
        &self,
        clause: &Clause,
        fault: FaultKind,
        op: Op,
        bound: Bound,
        hold: Duration,
    ) -> Wait {
        let Some((healthy, faulty)) = self.values(clause.signal, fault) else {
            return Wait::Unknown;
        };
        let bound = match bound {
            Bound::Constant(bound) => bound,
            Bound::TimesBaseline(times) => times * healthy,
            Bound::BaselinePlus(more) => healthy + more,
        };
        if op.holds(healthy, bound) {
            return Wait::About(hold);
        }
        if !op.holds(faulty, bound) {
            return Wait::Never;
        }
        // The estimate is a mean over the window, of which the fault fills ever more.
        let filled = ((bound - healthy) / (faulty - healthy)).clamp(0.0, 1.0);
        Wait::About(hold + self.rules.observe.window.mul_f64(filled))
    }

    fn until_counted(&self, clause: &Clause, fault: FaultKind, limit: f64) -> Wait {
        let interval = self.rules.observe.interval;
        let per_sec = match (self.plans[clause.signal], fault) {
            (SignalPlan::Restarts, fault) if fault == RESTART => {
                return if limit <= 1.0 { Wait::About(interval) } else { Wait::Never };
            }
            (SignalPlan::Excess, FaultKind::Errors { factor }) => factor - 1.0,
            (SignalPlan::FailingOverTime, FaultKind::Errors { factor }) => factor,
            _ => return Wait::Never,
        };
        let of = self.assumed;
        let per_sec = per_sec * of.truth.error_share * of.traffic.canary_rps * self.scale;
        about(time_at(per_sec, limit.max(1.0)).map(|time| time.max(interval)))
    }

    /// What a signal shows when all is well, and under a fault; none where no number says it.
    fn values(&self, signal: usize, fault: FaultKind) -> Option<(f64, f64)> {
        let truth = self.assumed.truth;
        let failing = truth.error_share;
        let more = match fault {
            FaultKind::Errors { factor } => factor,
            _ => 1.0,
        };
        let worse = (failing * more).min(1.0);
        let rps = self.assumed.traffic.canary_rps * self.scale;
        match (self.plans[signal], self.rules.signals[signal].kind) {
            (SignalPlan::Failing, _) => Some((failing, worse)),
            (SignalPlan::Succeeding, _) => Some((1.0 - failing, 1.0 - worse)),
            (SignalPlan::FailingOverTime, SignalKind::Rate) => Some((failing * rps, worse * rps)),
            (SignalPlan::Throughput, SignalKind::Rate) => Some((rps, rps)),
            (SignalPlan::Latency, SignalKind::Quantile { q }) => {
                let healthy = truth.latency.quantile(q);
                let slower = match fault {
                    FaultKind::Latency { factor } => factor,
                    _ => 1.0,
                };
                Some((healthy, healthy * slower))
            }
            _ => None,
        }
    }

    /// Until a canary as good as the baseline is shown to be within a margin.
    fn until_shown(&self, signal: usize, margin: Margin) -> Wait {
        let rate = self.rules.promote.false_promotion_rate;
        let failing = self.assumed.truth.error_share;
        let better = self.rules.signals[signal].better;
        let show = |event_share: f64, margin: Margin| {
            time_to_show(&self.traffic(signal, event_share), margin, better, rate)
        };
        match self.plans[signal] {
            SignalPlan::Failing | SignalPlan::FailingOverTime => about(show(failing, margin)),
            SignalPlan::Succeeding => about(show(1.0 - failing, margin)),
            SignalPlan::Latency => {
                let law = self.assumed.truth.latency;
                let times = usable_edges(law).filter_map(|edge| {
                    let slow = 1.0 - law.below(edge);
                    let ratio = (1.0 - law.below(edge / margin.factor)) / slow;
                    show(slow, Margin { factor: ratio, or: None })
                });
                about(times.min())
            }
            SignalPlan::Throughput
            | SignalPlan::Excess
            | SignalPlan::Level { .. }
            | SignalPlan::Up
            | SignalPlan::Health
            | SignalPlan::Restarts => Wait::Unknown,
        }
    }

    /// Requests a second of both arms at which a proof takes no longer than the deadline.
    fn rps_needed(&mut self, signal: usize, margin: Margin, deadline: Duration) -> Option<f64> {
        let in_time = |eye: &mut Self, scale: f64| {
            eye.scale = scale;
            let wait = eye.until_shown(signal, margin);
            eye.scale = 1.0;
            matches!(wait, Wait::About(time) if time <= deadline)
        };
        if !in_time(self, MORE_TRAFFIC_MAX) {
            return None;
        }
        let (mut low, mut high) = (0.0f64, MORE_TRAFFIC_MAX.ln());
        for _ in 0..40 {
            let middle = 0.5 * (low + high);
            if in_time(self, middle.exp()) { high = middle } else { low = middle }
        }
        let today = self.assumed.traffic.canary_rps + self.assumed.traffic.baseline_rps;
        Some(today * high.exp())
    }
}

/// Edges beyond which 0.5 % to 40 % of the requests lie: where quantiles are compared.
fn usable_edges(law: LatencyLaw) -> impl Iterator<Item = f64> {
    EDGES.into_iter().filter(move |edge| (0.005..=0.4).contains(&(1.0 - law.below(*edge))))
}
