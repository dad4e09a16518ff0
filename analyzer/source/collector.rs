//! One look at everything an analysis watches, all at once.
//!
//! Invariants: [`Collector::gather`] never fails and returns within its time, whatever the targets
//! do; every instance that was to be asked is in the result, with samples or with a reason. Between
//! two looks it keeps nothing but the format that each target is best asked in: differences are
//! `signal/`'s work.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, join_all};

use super::{
    client::Client,
    exposition::Wanted,
    found_arm::FoundArm,
    health::{self, Question},
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

/// Name of the pseudo-instance that carries what is asked once for an arm: answers of `promql:`
/// signals, numbers of a dependency's health answer.
pub const PROMQL_INSTANCE: &str = "promql";

/// Instances of which is known in what format they are best asked.
const DIALECTS_MAX: usize = 1024;

/// Where the samples of one arm come from.
#[derive(Clone, Debug)]
pub enum ArmSource {
    /// Scraped by us.
    Targets(Vec<Target>),
    /// Scraped by us, where a discovery finds them.
    Found(FoundArm),
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
    /// By name of the instance.
    dialects: Arc<Mutex<BTreeMap<Arc<str>, Arc<Dialect>>>>,
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
        let dialects = Arc::default();
        Self { client, options, wanted, dialects, telemetry }
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
        let (canary, baseline, (dependencies, numbers), selected) = tokio::join!(
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
        gathered.canary.extend(pseudo_instance(now, numbers));
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
        let begun = tokio::time::Instant::now();
        let mut readings = match source? {
            ArmSource::Targets(targets) => self.instances(targets, now, self.options.timeout).await,
            ArmSource::Found(found) => match found.targets(self.options.timeout / 2).await {
                Ok(targets) => {
                    let targets = distinct(targets);
                    let left = self.options.timeout.saturating_sub(begun.elapsed());
                    let mut readings = self.instances(&targets, now, left).await;
                    found.weigh(&mut readings, begun);
                    readings
                }
                Err(missing) => vec![self.nobody(found, now, &missing)],
            },
            ArmSource::Selector { .. } => return None,
        };
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

    async fn instances(
        &self,
        targets: &[Target],
        now: Time,
        timeout: Duration,
    ) -> Vec<InstanceReading> {
        let limit = self.options.limits.targets_per_arm_max;
        let asked = targets.iter().take(limit).map(|target| self.instance(target, now, timeout));
        let mut readings = join_all(asked).await;
        readings.extend(targets.iter().skip(limit).map(|target| {
            let detail = format!("{}: beyond the limit of {limit} targets an arm", target.name());
            scrape::reading(target.name().clone(), now, Err(Missing::new(Why::NotObserved, detail)))
        }));
        readings
    }

    /// What stands for the instances of an arm of which none is known.
    fn nobody(&self, found: &FoundArm, now: Time, missing: &Missing) -> InstanceReading {
        let unasked = self.health_paths().map(|(question, _)| question.unasked(missing));
        let (probes, levels) = unzip(unasked.collect());
        let name = format!("{{{}}}", found.words()).into();
        InstanceReading { probes, levels, ..scrape::reading(name, now, Err(missing.clone())) }
    }

    async fn instance(&self, target: &Target, now: Time, timeout: Duration) -> InstanceReading {
        let bounds = (&self.options.limits, timeout);
        let keep = Keep {
            specs: &self.options.specs,
            wanted: &self.wanted,
            limits: &self.options.limits.exposition,
        };
        let dialect = self.dialect(target);
        let paths = self.health_paths().map(|(question, path)| async move {
            let url = target.health_url(path);
            health::probe(&self.client, &url, question, bounds, &self.telemetry).await
        });
        let (scraped, answers) = tokio::join!(
            scrape::scrape(&self.client, (target, &dialect), keep, bounds, &self.telemetry),
            join_all(paths),
        );
        let (probes, levels) = unzip(answers);
        InstanceReading { probes, levels, ..scrape::reading(target.name().clone(), now, scraped) }
    }

    /// In which format a target is best asked, as learnt so far.
    fn dialect(&self, target: &Target) -> Arc<Dialect> {
        let mut dialects = self.dialects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = dialects.get(target.name()) {
            return known.clone();
        }
        // Instances come and go: what was learnt of them all is learnt again, sooner than it grows.
        if dialects.len() >= DIALECTS_MAX {
            dialects.clear();
        }
        dialects.entry(target.name().clone()).or_default().clone()
    }

    /// What is asked once, and the numbers of those answers.
    async fn dependencies(&self) -> (Vec<Probe>, Vec<Level>) {
        let bounds = (&self.options.limits, self.options.timeout);
        let asked = self.options.specs.iter().enumerate().filter_map(|(signal, spec)| {
            let (url, question) = (spec.health_url()?, self.question(signal));
            let (client, telemetry) = (&self.client, &self.telemetry);
            Some(async move { health::probe_url(client, url, question, bounds, telemetry).await })
        });
        unzip(join_all(asked).await)
    }

    /// The readings of the arms that a metrics server knows, canary first.
    async fn selector_arms(&self, now: Time) -> [Option<Vec<InstanceReading>>; 2] {
        let arm = |source: Option<&ArmSource>| match source? {
            ArmSource::Targets(_) | ArmSource::Found(_) => None,
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
            ArmSource::Targets(_) | ArmSource::Found(_) => false,
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
            Some(ArmSource::Targets(_) | ArmSource::Found(_)) | None => return,
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
            let answers = self.health_paths().map(|(question, path)| {
                let target = target.clone();
                async move {
                    match target {
                        Ok(target) => {
                            let url = target.health_url(path);
                            health::probe(&self.client, &url, question, bounds, &self.telemetry)
                                .await
                        }
                        Err(missing) => question.unasked(&missing),
                    }
                }
            });
            let (probes, levels) = unzip(join_all(answers).await);
            reading.probes = probes;
            reading.levels.extend(levels);
        });
        join_all(asked).await;
    }

    /// What every instance is asked, with its path.
    fn health_paths(&self) -> impl Iterator<Item = (Question<'_>, &str)> {
        let specs = self.options.specs.iter().enumerate();
        specs.filter_map(|(signal, spec)| {
            let path = spec.health_path()?;
            Some((self.question(signal), path))
        })
    }

    fn question(&self, signal: usize) -> Question<'_> {
        Question { signal, numbers: spec::answer_numbers(&self.options.specs, signal) }
    }

    fn promql_signals(&self) -> impl Iterator<Item = (usize, &str)> {
        promql_signals(&self.options.specs)
    }
}

fn unzip(answers: Vec<(Probe, Vec<Level>)>) -> (Vec<Probe>, Vec<Level>) {
    let (probes, levels): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    (probes, levels.into_iter().flatten().collect())
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
