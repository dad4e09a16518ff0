//! Believable analyses as a function of the look's number: same look, same numbers.

use rollgate::{
    api::desk::{
        AnalysisView, ArmOrder, DeliveryView, EvidenceHistory, History, RulesRef, SignalHistory,
        StepView,
    },
    report::shape::{
        BlameShape, ClauseShape, EffectShape, FindingShape, MissingShape, NoiseShape,
        ProgressShape, ProofShape, Report, SamplesShape, SignalShape,
    },
};

/// When every story began, in unix seconds.
pub const STARTED_AT: f64 = 1_795_000_000.0;
const RPS: f64 = 90.0;
const NEEDED: f64 = 3.6;
const HOLD_SECS: f64 = 120.0;

/// A tenth of the traffic, half of it, all of it.
const STEPS: [StepView; 3] = [
    StepView { weight: 0.1, hold_secs: 20.0 },
    StepView { weight: 0.5, hold_secs: 40.0 },
    StepView { weight: 1.0, hold_secs: 60.0 },
];

#[derive(Clone)]
pub struct Story {
    pub id: String,
    pub service: String,
    pub canary: ArmOrder,
    plot: Plot,
    has_gap: bool,
    /// Released in three steps instead of at once.
    in_steps: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Plot {
    /// Errors from second 40 on; rolled back some seconds later.
    Errors,
    /// Nothing happens; promoted when the hold is over.
    Healthy,
    /// No requests reach the canary; inconclusive at the deadline.
    Idle,
}

/// Second from which the canary of [`Plot::Errors`] answers errors.
const BAD_FROM: u64 = 40;

impl Story {
    pub fn errors(id: &str, service: &str) -> Self {
        Self::new(id, service, Plot::Errors)
    }

    pub fn healthy(id: &str, service: &str) -> Self {
        Self::new(id, service, Plot::Healthy)
    }

    pub fn idle(id: &str, service: &str) -> Self {
        Self::new(id, service, Plot::Idle)
    }

    fn new(id: &str, service: &str, plot: Plot) -> Self {
        let canary = arm("v2.31.0-rc.4", 2);
        Self {
            id: id.into(),
            service: service.into(),
            canary,
            plot,
            has_gap: false,
            in_steps: false,
        }
    }

    /// One of the canary's instances gives nothing.
    pub fn with_gap(self) -> Self {
        Self { has_gap: true, ..self }
    }

    /// Released step by step, at the second of three.
    pub fn in_steps(self) -> Self {
        Self { in_steps: true, ..self }
    }

    /// Before the first look.
    pub fn view(&self) -> AnalysisView {
        AnalysisView {
            id: self.id.clone(),
            service: self.service.clone(),
            state: "running".into(),
            started_at: STARTED_AT,
            hold_secs: HOLD_SECS,
            deadline_secs: 2.0 * HOLD_SECS,
            interval_secs: 1.0,
            steps: if self.in_steps { STEPS.to_vec() } else { Vec::new() },
            rules: RulesRef { name: "recommended".into(), sha256: "9f".repeat(32) },
            canary: self.canary.clone(),
            baseline: Some(arm("v2.30.2", 6)),
            past: None,
            report: None,
            cancelled: None,
            deliveries: Vec::new(),
        }
    }

    /// One look further.
    pub fn after_look(&self, view: &AnalysisView) -> AnalysisView {
        let look = view.report.as_ref().map_or(0, |report| report.look) + 1;
        let report = self.report(look);
        let mut next = view.clone();
        if report.is_final {
            next.state = "finished".into();
            next.deliveries = vec![
                delivery(&self.id, "deploy-hook", "delivered", 1, "204 No Content"),
                delivery(&self.id, "chat", "pending", 3, "503 Service Unavailable"),
            ];
        }
        next.report = Some(report);
        next
    }

    fn report(&self, look: u64) -> Report {
        let decades = self.decades(look);
        let elapsed_secs = look as f64;
        let (verdict, reason) = match self.plot {
            Plot::Errors if decades >= NEEDED => (
                "rollback",
                "Roll back: errors of the canary are 6.2 % against 0.5 % of the baseline, beyond \
                 1.5 times the baseline by all evidence (3.6 of 3.6 decades).",
            ),
            Plot::Healthy if elapsed_secs >= HOLD_SECS => {
                ("promote", "Promote: watched for 2 min, enough data, and no rule fires.")
            }
            Plot::Idle if elapsed_secs >= 2.0 * HOLD_SECS => (
                "inconclusive",
                "Inconclusive: the deadline passed and the canary got no requests.",
            ),
            Plot::Errors if look > BAD_FROM + 3 => {
                ("investigate", "Errors of the canary are beyond 1 %.")
            }
            Plot::Healthy if self.in_steps && look == 20 => {
                ("advance", "Nothing fires and the hold of step 1 of 3 is over. Go on to 50 %.")
            }
            Plot::Idle => ("watching", "Watching: the canary gets no requests."),
            Plot::Errors | Plot::Healthy => ("watching", "Watching: nothing fires."),
        };
        let is_final = matches!(verdict, "rollback" | "promote" | "inconclusive");
        let at = STARTED_AT + elapsed_secs;
        Report {
            rules: Some(RulesRef { name: "recommended".into(), sha256: "9f".repeat(32) }),
            verdict: verdict.into(),
            is_final,
            decided_at: is_final.then_some(at),
            at,
            elapsed_secs,
            look,
            rule: (verdict == "rollback").then(|| "error_rate > 1.5x baseline".into()),
            reason: reason.into(),
            otherwise: (verdict == "inconclusive").then(|| "hold".into()),
            release_step: self.in_steps.then_some(usize::from(look >= 20)),
            gap: self.has_gap.then(|| MissingShape {
                why: "scrape_failed".into(),
                detail: "10.0.2.2:8080: connection refused".into(),
            }),
            findings: self.findings(look),
            signals: vec![
                SignalShape {
                    proof: Some(self.proof(look, 2.0, Some(0.01), 60)),
                    ..signal("error_rate", "share", self.errors_of(look), Some(base_errors(look)))
                },
                SignalShape {
                    proof: Some(self.proof(look, 1.5, None, 100)),
                    ..signal(
                        "p95_latency",
                        "seconds",
                        self.latency_of(look),
                        Some(base_latency(look)),
                    )
                },
                signal("memory", "bytes", Some(memory(look, 1.04)), Some(memory(look, 1.0))),
            ],
        }
    }

    fn findings(&self, look: u64) -> Vec<FindingShape> {
        let at = look as f64;
        let errors = self.errors_of(look);
        let decades = self.decades(look);
        let evidence = ProgressShape {
            kind: "evidence_decades".into(),
            value: decades,
            needed: NEEDED,
            noise_factor: Some(1.7),
            noise: Some(noise("history", 3600.0)),
        };
        let mut versus = self.clause("error_rate > 1.5x baseline", errors, look, evidence);
        versus.baseline = Some(base_errors(look));
        versus.bound = Some(1.5 * base_errors(look));
        if decades >= NEEDED {
            versus.state = "fires".into();
        }
        versus.effect = errors.map(|share| {
            let ratio = share / base_errors(look);
            effect("rate_ratio", ratio, [Some(ratio * 0.5), Some(ratio * 1.9)])
        });
        if decades >= 1.0 {
            versus.blame = Some(BlameShape {
                by: "instance".into(),
                name: "10.0.2.2:8080".into(),
                share: 0.92,
                bad: 1,
                of: 2,
            });
        }
        let over = errors.is_some_and(|share| share > 0.01);
        let held = if over { at - BAD_FROM as f64 } else { 0.0 };
        let dwell = ProgressShape {
            kind: "held_secs".into(),
            value: held,
            needed: 300.0,
            noise_factor: None,
            noise: None,
        };
        let mut five = self.clause("error_rate > 5% for 5m", errors, look, dwell);
        five.bound = Some(0.05);
        let near = ProgressShape {
            kind: "evidence_decades".into(),
            value: 1.2,
            needed: 3.6,
            noise_factor: Some(1.2),
            noise: None,
        };
        let mut slow = self.clause("p95_latency > 5s", self.latency_of(look), look, near);
        "seconds".clone_into(&mut slow.unit);
        slow.bound = Some(5.0);
        slow.interval = slow.estimate.map(|secs| [secs * 0.93, secs * 1.09]);
        let counted = ProgressShape {
            kind: "count".into(),
            value: 0.0,
            needed: 1.0,
            noise_factor: None,
            noise: None,
        };
        let mut crash = self.clause("restarts >= 1", Some(0.0), look, counted);
        "count".clone_into(&mut crash.unit);
        "clear".clone_into(&mut crash.state);
        (crash.interval, crash.bound, crash.missing) = (None, Some(1.0), None);
        let checks = ProgressShape {
            kind: "checks".into(),
            value: 1.0,
            needed: 3.0,
            noise_factor: None,
            noise: None,
        };
        let mut health = self.clause("database is down for 3 checks", None, look, checks);
        "health".clone_into(&mut health.unit);
        "clear".clone_into(&mut health.state);
        (health.interval, health.bound, health.missing) = (None, None, None);
        health.note = Some("up".into());
        let asks = ProgressShape {
            kind: "evidence_decades".into(),
            value: decades * 1.4,
            needed: 2.9,
            noise_factor: Some(1.7),
            noise: None,
        };
        let mut one = self.clause("error_rate > 1%", errors, look, asks);
        one.bound = Some(0.01);
        if over && look > BAD_FROM + 3 {
            one.state = "fires".into();
        }
        vec![
            finding("rollback", versus, at, None),
            finding("rollback", five, at, None),
            finding("rollback", slow, at, None),
            finding("rollback", self.slope(look), at, None),
            finding("rollback", crash, at, Some("the application crashed")),
            finding("rollback", health, at, None),
            finding("investigate", one, at, None),
            self.joined(look),
            self.asleep(look),
        ]
    }

    /// Memory, which grows a little faster than the baseline's.
    fn slope(&self, look: u64) -> ClauseShape {
        let near = ProgressShape {
            kind: "evidence_decades".into(),
            value: 0.8,
            needed: 3.6,
            noise_factor: Some(2.3),
            noise: Some(noise("analysis", 0.0)),
        };
        let idle = self.plot == Plot::Idle;
        let slope = (!idle).then_some(11_650.0);
        let mut slope = self.clause("slope(memory) > baseline + 1MB/min", slope, look, near);
        "memory".clone_into(&mut slope.signal);
        "bytes_per_second".clone_into(&mut slope.unit);
        (slope.interval, slope.missing) = (None, None);
        "clear".clone_into(&mut slope.state);
        (slope.baseline, slope.bound) = (Some(9_300.0), Some(26_000.0));
        slope.note = Some("over the last 4 min".into());
        slope.effect = Some(effect("slope_difference", 2_350.0, [Some(-900.0), Some(5_600.0)]));
        slope
    }

    /// What promotion asks for, shown at so many looks.
    fn proof(&self, look: u64, factor: f64, or: Option<f64>, at: u64) -> ProofShape {
        let (needed, idle) = (1.3, self.plot == Plot::Idle);
        let decades = if idle { 0.0 } else { needed * look as f64 / at as f64 };
        let shown = decades >= needed;
        let per_sec = if idle { 0.0 } else { RPS };
        let remaining_secs = (!shown && !idle).then(|| at.saturating_sub(look) as f64);
        ProofShape { factor, or, decades, needed, shown, remaining_secs, per_sec }
    }

    /// A rule of two clauses.
    fn joined(&self, look: u64) -> FindingShape {
        let held = |value| ProgressShape {
            kind: "held_secs".into(),
            value,
            needed: 120.0,
            noise_factor: None,
            noise: None,
        };
        let mut errors =
            self.clause("error_rate > 2% for 2m", self.errors_of(look), look, held(0.0));
        errors.bound = Some(0.02);
        let mut slow =
            self.clause("p95_latency > 200ms for 2m", self.latency_of(look), look, held(40.0));
        "seconds".clone_into(&mut slow.unit);
        (slow.bound, slow.interval) = (Some(0.2), None);
        FindingShape {
            rule: format!("{} and {}", errors.clause, slow.clause),
            clauses: vec![errors.clone(), slow],
            ..finding("investigate", errors, look as f64, None)
        }
    }

    /// A rule whose time has not come.
    fn asleep(&self, look: u64) -> FindingShape {
        let near = ProgressShape {
            kind: "evidence_decades".into(),
            value: -0.3,
            needed: 3.6,
            noise_factor: None,
            noise: None,
        };
        let mut late = self.clause("p95_latency > 1.5s", self.latency_of(look), look, near);
        "seconds".clone_into(&mut late.unit);
        (late.bound, late.interval) = (Some(1.5), None);
        let reason = Some("asleep until 15 min have passed");
        FindingShape { state: "asleep".into(), ..finding("ok", late, look as f64, reason) }
    }

    fn clause(
        &self,
        text: &str,
        estimate: Option<f64>,
        look: u64,
        progress: ProgressShape,
    ) -> ClauseShape {
        let total = RPS * look as f64;
        let idle = self.plot == Plot::Idle;
        ClauseShape {
            clause: text.into(),
            signal: text.split(' ').next().unwrap_or_default().into(),
            state: if estimate.is_none() { "not_enough_data" } else { "clear" }.into(),
            unit: "share".into(),
            estimate,
            interval: estimate.map(|share| [(share * 0.8 - 0.001).max(0.0), share * 1.2 + 0.001]),
            baseline: None,
            bound: None,
            progress,
            samples: SamplesShape {
                canary_events: if idle { 0.0 } else { (total * 0.02).round() },
                canary_total: if idle { 0.0 } else { total },
                baseline_events: (total * 0.015).round(),
                baseline_total: total * 3.0,
            },
            missing: estimate.is_none().then(|| MissingShape {
                why: "no_traffic".into(),
                detail: "10.0.0.7:8080 counted no requests since the last look".into(),
            }),
            note: None,
            effect: None,
            blame: None,
        }
    }

    fn errors_of(&self, look: u64) -> Option<f64> {
        match self.plot {
            Plot::Idle => None,
            Plot::Healthy => Some(0.005 + 0.0015 * wave(look, 5.0)),
            Plot::Errors if look <= BAD_FROM => Some(0.005 + 0.0015 * wave(look, 5.0)),
            Plot::Errors => {
                let rise = ((look - BAD_FROM) as f64 / 10.0).min(1.0);
                Some(0.005 + 0.057 * rise + 0.002 * wave(look, 3.0))
            }
        }
    }

    fn latency_of(&self, look: u64) -> Option<f64> {
        (self.plot != Plot::Idle).then(|| 0.232 + 0.012 * wave(look, 4.0))
    }

    fn decades(&self, look: u64) -> f64 {
        match self.plot {
            Plot::Idle => 0.0,
            Plot::Errors if look > BAD_FROM => 0.1 + 0.24 * ((look - BAD_FROM) as f64).powf(1.1),
            Plot::Errors | Plot::Healthy => 0.15 + 0.15 * wave(look, 9.0),
        }
    }

    /// Every look up to `looks`.
    pub fn history(&self, looks: u64) -> History {
        let column = |of: &dyn Fn(u64) -> Option<f64>| (1..=looks).map(of).collect::<Vec<_>>();
        let signal = |name: &str, unit: &str, canary, baseline| SignalHistory {
            name: name.into(),
            unit: unit.into(),
            canary,
            baseline,
        };
        History {
            at: (1..=looks).map(|look| STARTED_AT + look as f64).collect(),
            signals: vec![
                signal(
                    "error_rate",
                    "share",
                    column(&|look| self.errors_of(look)),
                    column(&|look| Some(base_errors(look))),
                ),
                signal(
                    "p95_latency",
                    "seconds",
                    column(&|look| self.latency_of(look)),
                    column(&|look| Some(base_latency(look))),
                ),
                signal(
                    "memory",
                    "bytes",
                    column(&|look| Some(memory(look, 1.04))),
                    column(&|look| Some(memory(look, 1.0))),
                ),
            ],
            evidence: vec![
                EvidenceHistory {
                    clause: "error_rate > 1.5x baseline".into(),
                    needed: NEEDED,
                    decades: column(&|look| Some(self.decades(look))),
                },
                EvidenceHistory {
                    clause: "p95_latency > 5s".into(),
                    needed: NEEDED,
                    decades: column(&|_| Some(1.2)),
                },
            ],
        }
    }
}

fn arm(version: &str, instances: u32) -> ArmOrder {
    let targets = (1..=instances).map(|n| format!("http://10.0.{instances}.{n}:8080")).collect();
    ArmOrder { version: version.into(), targets, ..ArmOrder::default() }
}

fn delivery(id: &str, mechanism: &str, state: &str, attempts: u32, answer: &str) -> DeliveryView {
    DeliveryView {
        key: format!("{id}.{mechanism}"),
        mechanism: mechanism.into(),
        state: state.into(),
        attempts,
        last_answer: Some(answer.into()),
        next_attempt_at: (state == "pending").then_some(STARTED_AT + 90.0),
    }
}

fn signal(name: &str, unit: &str, canary: Option<f64>, baseline: Option<f64>) -> SignalShape {
    SignalShape { name: name.into(), unit: unit.into(), canary, baseline, proof: None }
}

fn noise(origin: &str, history_secs: f64) -> NoiseShape {
    NoiseShape { kappa_secs: 0.4, origin: origin.into(), history_secs }
}

fn effect(kind: &str, estimate: f64, [low, high]: [Option<f64>; 2]) -> EffectShape {
    EffectShape { kind: kind.into(), estimate, low, high, confidence: 0.95 }
}

fn finding(then: &str, clause: ClauseShape, at: f64, reason: Option<&str>) -> FindingShape {
    FindingShape {
        rule: clause.clause.clone(),
        then: then.into(),
        reason: reason.map(str::to_owned),
        state: clause.state.clone(),
        in_state_secs: at.min(33.0),
        clauses: vec![clause],
    }
}

fn base_errors(look: u64) -> f64 {
    0.005 + 0.001 * wave(look, 7.0)
}

fn base_latency(look: u64) -> f64 {
    0.228 + 0.008 * wave(look, 6.0)
}

fn memory(look: u64, scale: f64) -> f64 {
    scale * (412_000_000.0 + 6_000_000.0 * wave(look, 40.0) + 40_000.0 * look as f64)
}

/// Between -1 and 1, smooth with a ragged edge.
fn wave(look: u64, period: f64) -> f64 {
    let at = look as f64;
    0.6 * (at / period).sin() + 0.4 * (at * 1.7).sin()
}
