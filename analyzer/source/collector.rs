//! One look at everything an analysis watches, all at once.
//!
//! Invariants: [`Collector::gather`] never fails and returns within its time, whatever the targets
//! do; every instance that was to be asked is in the result, with samples or with a reason. Between
//! two looks it keeps nothing but the format that each target is best asked in: differences are
//! `signal/`'s work.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, join_all};

use super::{
    client::Client,
    exposition::Wanted,
    health,
    history::{self, PastArm},
    limits::SourceLimits,
    prometheus::PrometheusServer,
    scrape::{self, Dialect, Keep},
    selector_arm::{self, SelectorArm},
    target::Target,
};
use crate::{
    engine::observation::{Missing, Time, Why},
    signal::{
        past::Stretch,
        sample::{Gathered, InstanceReading, Level, Probe},
        spec::{self, Reads, SignalSpec},
    },
    telemetry::Telemetry,
};

/// Name of the pseudo-instance that carries the answers of `promql:` signals.
pub const PROMQL_INSTANCE: &str = "promql";

/// Where the samples of one arm come from.
#[derive(Clone, Debug)]
pub enum ArmSource {
    /// Scraped by us.
    Targets(Vec<Target>),
    /// Scraped by a metrics server, which is asked.
    Selector {
        /// The server.
        prometheus: Arc<PrometheusServer>,
        /// Label matchers that pick the arm's series: `version="v2",job="shop"`.
        matchers: String,
    },
}

/// What one analysis watches, and how.
#[derive(Clone, Debug)]
pub struct CollectorOptions {
    /// The signals.
    pub specs: Arc<[SignalSpec]>,
    /// The new version.
    pub canary: ArmSource,
    /// The old version, when it is watched.
    pub baseline: Option<ArmSource>,
    /// Time for one look: the lesser of the configured timeout and the interval between looks.
    pub timeout: Duration,
    /// Limits.
    pub limits: SourceLimits,
}

/// Asks all sources of one analysis.
#[derive(Clone)]
pub struct Collector {
    client: Client,
    options: CollectorOptions,
    wanted: Arc<Wanted>,
    dialects: Arc<BTreeMap<Arc<str>, Dialect>>,
    telemetry: Telemetry,
}

impl Collector {
    /// Sets a collector up; nothing is asked yet.
    pub fn new(client: Client, mut options: CollectorOptions, telemetry: Telemetry) -> Self {
        for arm in [Some(&mut options.canary), options.baseline.as_mut()].into_iter().flatten() {
            if let ArmSource::Targets(targets) = arm {
                *targets = distinct(std::mem::take(targets));
            }
        }
        let wanted = Arc::new(Wanted::names(spec::wanted_names(&options.specs)));
        let arms = [Some(&options.canary), options.baseline.as_ref()];
        let targets = arms.into_iter().flatten().flat_map(|arm| match arm {
            ArmSource::Targets(targets) => targets.as_slice(),
            ArmSource::Selector { .. } => &[],
        });
        let dialects = targets.map(|target| (target.name().clone(), Dialect::default())).collect();
        Self { client, options, wanted, dialects: Arc::new(dialects), telemetry }
    }

    /// Asks everything at once and waits for the last, or for the time to run out.
    ///
    /// Boxed, because the compiler cannot prove `Send` of the nested borrows through an opaque type.
    pub fn gather(&self, now: Time) -> BoxFuture<'_, Gathered> {
        Box::pin(self.gather_all(now))
    }

    /// What a metrics server knows of the baseline as it was at a moment. Health endpoints are not
    /// asked: they answer for now.
    pub async fn gather_past(&self, at: Time) -> Gathered {
        let [_, baseline] = self.selector_arms(at).await;
        let (canary, dependencies) = (Vec::new(), Vec::new());
        Gathered { at, canary, baseline: baseline.unwrap_or_default(), dependencies }
    }

    /// Reads a stretch of the baseline's past from a metrics server, look by look.
    ///
    /// # Errors
    /// When the baseline is scraped, or the server cannot give its past in time.
    pub async fn gather_history(
        &self,
        stretch: Stretch,
        timeout: Duration,
        mut each: impl FnMut(Gathered),
    ) -> Result<(), Missing> {
        let Some(ArmSource::Selector { prometheus, matchers }) = &self.options.baseline else {
            let detail = "only a metrics server knows the past of an arm";
            return Err(Missing::new(Why::NotObserved, detail));
        };
        let (server, matchers) = (prometheus.clone(), matchers.clone());
        let arm = PastArm { server, matchers, specs: &self.options.specs };
        history::read(arm, stretch, timeout, &self.telemetry, |at, baseline| {
            each(Gathered { at, canary: Vec::new(), baseline, dependencies: Vec::new() });
        })
        .await
    }

    async fn gather_all(&self, now: Time) -> Gathered {
        let begun = Instant::now();
        let (canary, baseline, dependencies, selected) = tokio::join!(
            self.scraped_arm(Some(&self.options.canary), now),
            self.scraped_arm(self.options.baseline.as_ref(), now),
            self.dependencies(),
            self.selector_arms(now),
        );
        let [selected_canary, selected_baseline] = selected;
        let mut gathered = Gathered {
            at: now,
            canary: canary.or(selected_canary).unwrap_or_default(),
            baseline: baseline.or(selected_baseline).unwrap_or_default(),
            dependencies,
        };
        if self.probes_selected_instances() {
            let left = self.options.timeout.saturating_sub(begun.elapsed());
            tokio::join!(
                self.probe_selected(Some(&self.options.canary), &mut gathered.canary, left),
                self.probe_selected(self.options.baseline.as_ref(), &mut gathered.baseline, left),
            );
        }
        gathered
    }

    /// The readings of an arm that we scrape; none when it is not such an arm.
    async fn scraped_arm(
        &self,
        source: Option<&ArmSource>,
        now: Time,
    ) -> Option<Vec<InstanceReading>> {
        let targets = match source? {
            ArmSource::Targets(targets) => targets,
            ArmSource::Selector { .. } => return None,
        };
        let limit = self.options.limits.targets_per_arm_max;
        let asked = targets.iter().take(limit).map(|target| self.instance(target, now));
        let mut readings = join_all(asked).await;
        readings.extend(targets.iter().skip(limit).map(|target| {
            let detail = format!("{}: beyond the limit of {limit} targets an arm", target.name());
            scrape::reading(target.name().clone(), now, Err(Missing::new(Why::NotObserved, detail)))
        }));
        let levels: Vec<Level> = self
            .promql_signals()
            .map(|(signal, _)| {
                let detail = "a promql signal needs a metrics server, and this arm is scraped";
                Level { signal, value: Err(Missing::new(Why::NotObserved, detail)) }
            })
            .collect();
        readings.extend(pseudo_instance(now, levels));
        Some(readings)
    }

    async fn instance(&self, target: &Target, now: Time) -> InstanceReading {
        let bounds = (&self.options.limits, self.options.timeout);
        let keep = Keep {
            specs: &self.options.specs,
            wanted: &self.wanted,
            limits: &self.options.limits.exposition,
        };
        let unknown = Dialect::default();
        let dialect = self.dialects.get(target.name()).unwrap_or(&unknown);
        let paths = self.health_paths().map(|(signal, path)| async move {
            let url = target.health_url(path);
            let answer = health::probe(&self.client, &url, bounds, &self.telemetry).await;
            Probe { signal, answer }
        });
        let (scraped, probes) = tokio::join!(
            scrape::scrape(&self.client, (target, dialect), keep, bounds, &self.telemetry),
            join_all(paths),
        );
        InstanceReading { probes, ..scrape::reading(target.name().clone(), now, scraped) }
    }

    async fn dependencies(&self) -> Vec<Probe> {
        let bounds = (&self.options.limits, self.options.timeout);
        let asked = self.options.specs.iter().enumerate().filter_map(|(signal, spec)| {
            let url = spec.health_url()?;
            Some(async move {
                let answer = health::probe_url(&self.client, url, bounds, &self.telemetry);
                Probe { signal, answer: answer.await }
            })
        });
        join_all(asked).await
    }

    /// The readings of the arms that a metrics server knows, canary first.
    async fn selector_arms(&self, now: Time) -> [Option<Vec<InstanceReading>>; 2] {
        let arm = |source: Option<&ArmSource>| match source? {
            ArmSource::Targets(_) => None,
            ArmSource::Selector { prometheus, matchers } => {
                Some(SelectorArm { server: prometheus.clone(), matchers: matchers.clone() })
            }
        };
        let arms = [arm(Some(&self.options.canary)), arm(self.options.baseline.as_ref())];
        if arms.iter().all(Option::is_none) {
            return [None, None];
        }
        // Which instances there are to probe is only known from the answers: each gets half.
        let timeout = if self.probes_selected_instances() {
            self.options.timeout / 2
        } else {
            self.options.timeout
        };
        let look = selector_arm::Look { now, timeout, specs: &self.options.specs };
        selector_arm::read_arms(&arms, look, &self.telemetry).await
    }

    fn probes_selected_instances(&self) -> bool {
        let selected = |source: &ArmSource| match source {
            ArmSource::Targets(_) => false,
            ArmSource::Selector { .. } => true,
        };
        let any =
            selected(&self.options.canary) || self.options.baseline.as_ref().is_some_and(selected);
        any && self.health_paths().next().is_some()
    }

    /// Asks the health paths of instances that a metrics server named. Its `instance` label is an
    /// address by convention only, so anything that does not look like `host:port` is not asked.
    async fn probe_selected(
        &self,
        source: Option<&ArmSource>,
        readings: &mut [InstanceReading],
        timeout: Duration,
    ) {
        match source {
            Some(ArmSource::Selector { .. }) => {}
            Some(ArmSource::Targets(_)) | None => return,
        }
        let limit = self.options.limits.targets_per_arm_max;
        let bounds = (&self.options.limits, timeout);
        let instances = readings.iter_mut().filter(|reading| &*reading.instance != PROMQL_INSTANCE);
        let asked = instances.enumerate().map(|(index, reading)| async move {
            let target = if index < limit {
                selector_arm::address(&reading.instance)
            } else {
                let detail =
                    format!("{}: beyond the limit of {limit} probed instances", reading.instance);
                Err(Missing::new(Why::NotObserved, detail))
            };
            let probes = self.health_paths().map(|(signal, path)| {
                let target = target.clone();
                async move {
                    let answer = match target {
                        Ok(target) => {
                            let url = target.health_url(path);
                            health::probe(&self.client, &url, bounds, &self.telemetry).await
                        }
                        Err(missing) => Err(missing),
                    };
                    Probe { signal, answer }
                }
            });
            reading.probes = join_all(probes).await;
        });
        join_all(asked).await;
    }

    fn health_paths(&self) -> impl Iterator<Item = (usize, &str)> {
        let specs = self.options.specs.iter().enumerate();
        specs.filter_map(|(signal, spec)| Some((signal, spec.health_path()?)))
    }

    fn promql_signals(&self) -> impl Iterator<Item = (usize, &str)> {
        promql_signals(&self.options.specs)
    }
}

/// The `promql:` signals among the specs.
pub(super) fn promql_signals(specs: &[SignalSpec]) -> impl Iterator<Item = (usize, &str)> {
    specs.iter().enumerate().filter_map(|(signal, spec)| match &spec.reads {
        Reads::Promql(expression) => Some((signal, expression.as_str())),
        Reads::Health(_)
        | Reads::Answer { .. }
        | Reads::Up
        | Reads::Ratio { .. }
        | Reads::Counter(_)
        | Reads::Histogram { .. }
        | Reads::Gauge { .. }
        | Reads::Restarts(_) => None,
    })
}

/// The reading that carries levels; none when there are none.
pub(super) fn pseudo_instance(now: Time, levels: Vec<Level>) -> Option<InstanceReading> {
    (!levels.is_empty()).then(|| InstanceReading {
        instance: PROMQL_INSTANCE.into(),
        at: now,
        samples: Ok(Vec::new()),
        refused: None,
        probes: Vec::new(),
        levels,
    })
}

/// The same target given twice must not count its requests twice, and two targets that differ in
/// what a name does not show (the query) must not share one.
fn distinct(targets: Vec<Target>) -> Vec<Target> {
    let mut urls = BTreeSet::new();
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut distinct = Vec::with_capacity(targets.len());
    for target in targets {
        if !urls.insert(target.metrics_url().to_string()) {
            continue;
        }
        let mut name = target.name().to_string();
        let mut copy = 2;
        while !names.insert(name.clone()) {
            name = format!("{}#{copy}", target.name());
            copy += 1;
        }
        distinct.push(target.renamed(name));
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_asked_once_and_named_apart() {
        let targets = ["http://h:1", "http://h:1/metrics", "http://h:1/metrics?a=1", "http://h:2"];
        let targets = targets.iter().map(|url| Target::parse(url).unwrap()).collect();
        let names: Vec<_> =
            distinct(targets).iter().map(|target| target.name().to_string()).collect();
        assert_eq!(names, ["h:1", "h:1#2", "h:2"]);
    }
}
