//! The past of an ordered release: whether its rules can be served, and from where.
//!
//! A rule file that compares with the service's own past needs a standing watch of the service or a
//! metrics server; scraped targets of an old version would be another baseline than the one that
//! was asked for, so an order that names some is refused rather than half obeyed.

use super::{
    case::Case,
    desk::ServiceDesk,
    past::{Gathering, PastSource},
    stand_in::{Source, StandIn, marks_of},
};
use crate::{
    engine::{
        observation::{Arm, Time},
        rule::Baseline,
    },
    signal::{carry::Carry, past::SignalsKey},
    source::collector::{ArmSource, Collector, CollectorOptions},
    store::{NewAnalysis, calibration},
};

impl ServiceDesk {
    /// Gathers the past of a new analysis, and puts it beside its order.
    pub(super) async fn with_past(&self, new: NewAnalysis, case: Case) -> (NewAnalysis, Case) {
        let gathering = Gathering {
            service: &case.order.service,
            rules: &case.rules,
            specs: case.specs.clone(),
            started: case.started,
            store: Some(&*self.store),
            server: self.past_collector(&case),
            now: self.now.clone(),
            telemetry: &self.telemetry,
        };
        let gathered = gathering.gather().await;
        let (calibration, mut plan) = (gathered.calibration, gathered.plan);
        let (record, calibration) = match calibration::write(&calibration) {
            Ok(record) => (Some(record), calibration),
            // A number that cannot be kept would not be the same after a restart.
            Err(why) => {
                self.telemetry.history().past_failed(&case.order.service, &why);
                plan.unmeasured(&why);
                (None, Default::default())
            }
        };
        let new = NewAnalysis { calibration: record, past: Some(plan.text()), ..new };
        (new, Case { calibration, past: Some(plan), ..case })
    }

    /// What is wrong with the baseline of an order.
    pub(super) fn baseline_faults(&self, case: &Case) -> Option<String> {
        if !case.rules.needs_baseline() {
            return None;
        }
        let (order, rules) = (&case.order, &case.rules_ref.name);
        match case.rules.baseline {
            Baseline::Concurrent => order
                .baseline
                .is_none()
                .then(|| format!("baseline is missing, and rule file {rules} compares with it")),
            Baseline::Before | Baseline::Offset(_) => {
                if order.baseline.as_ref().is_some_and(|arm| !arm.targets.is_empty()) {
                    return Some(format!(
                        "baseline has targets, and rule file {rules} compares with the service's \
                         own past; leave baseline out, or give its selector at a metrics server"
                    ));
                }
                let is_known =
                    self.standing.is_watched(&order.service) || self.past_collector(case).is_some();
                (!is_known).then(|| {
                    format!(
                        "rule file {rules} compares with the past of {service}, which nobody \
                         keeps; name {service} under `watch` in the configuration, or give \
                         `prometheus` and a selector",
                        service = order.service
                    )
                })
            }
        }
    }

    /// Asks a metrics server for the past: of the old version where the order names its series,
    /// else of the series that the release replaces.
    fn past_collector(&self, case: &Case) -> Option<Collector> {
        let order = &case.order;
        let old = order.baseline.as_ref().filter(|arm| arm.is_placed());
        let arm = old.unwrap_or(&order.canary);
        let source = self.arm("baseline", arm, order.prometheus.as_deref(), &mut Vec::new())?;
        match source {
            ArmSource::Selector { .. } => {}
            ArmSource::Targets(_) => return None,
        }
        let options = CollectorOptions {
            specs: case.specs.clone(),
            canary: ArmSource::Targets(Vec::new()),
            baseline: Some(source),
            timeout: self.timeout.min(case.rules.observe.interval),
            limits: self.limits.clone(),
        };
        Some(Collector::new(self.client.clone(), options, self.telemetry.clone()))
    }

    /// What stands in for the baseline; none when one runs beside the canary. `last_look` is when
    /// the last committed look was taken, in unix seconds.
    pub(super) fn stand_in(
        &self,
        case: &Case,
        carry: &Carry,
        last_look: Option<f64>,
    ) -> Option<StandIn> {
        let source = |source| match source {
            PastSource::Watch => Some(Source::Watch {
                store: self.store.clone(),
                service: case.order.service.clone(),
                signals: SignalsKey::of(&case.specs),
            }),
            PastSource::Prometheus => {
                let marks = marks_of(carry, Arm::Baseline);
                let (specs, warmup) = (case.specs.clone(), case.rules.observe.warmup);
                self.past_collector(case)
                    .map(|collector| Source::server(collector, specs, warmup, marks))
            }
            PastSource::Nothing => None,
        };
        let last_look = last_look.map(Time::from_secs_f64);
        StandIn::by(case.past.as_ref(), &case.rules, source, last_look)
    }
}
