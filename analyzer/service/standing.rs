//! Standing watches: services that are looked at between releases, so that there is a past to
//! compare with and to measure noise on, also without a metrics server.
//!
//! One task per watched service, with the collector and the reducer of any other watch. What it
//! sees is kept as the baseline's side of a look; a target that fails costs a gap and nothing else.
//! It goes on during a release: looks at a release that was not found good are left out when the
//! past is read, not when it is written, since nobody knows yet.
//!
//! Deliberately absent: a carry. After a restart the first look sets marks anew.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    discoveries::Discoveries,
    rule_shelf::{RuleShelf, RuleVersion},
};
use crate::{
    api::desk::WatchedService,
    config::{
        template::Values,
        watch::{WatchOptions, WatchedPlace},
    },
    deliver::Clock,
    engine::observation::{Missing, Time, Why},
    rulefile::{self, RuleFile},
    signal::{
        carry::Carry,
        past::{PastLook, SignalsKey},
        reduce::Reducer,
        spec::SignalSpec,
    },
    source::{
        client::Client,
        collector::{ArmSource, Collector, CollectorOptions},
        discovery::Matches,
        found_arm::FoundArm,
        limits::SourceLimits,
    },
    store::{KeepBounds, KeptLook, Store, StoreError},
    telemetry::Telemetry,
};

/// Looks of one service that are kept at most: two weeks, one each 5 s.
pub const HISTORY_LOOKS_MAX: u64 = 250_000;

/// Bytes of their readings at most.
pub const HISTORY_BYTES_MAX: u64 = 64 << 20;

/// Time between two countings of what is kept.
const MEASURE_INTERVAL: Duration = Duration::from_secs(60);

/// Time after which a watch without rules asks for them again.
const RULES_PAUSE: Duration = Duration::from_secs(1);

/// What every standing watch needs.
#[derive(Clone)]
pub struct StandingParts {
    /// Where history is measured.
    pub store: Arc<dyn Store>,
    /// Keeps looks.
    pub keeper: mpsc::Sender<KeptLook>,
    /// The rule files.
    pub shelf: RuleShelf,
    /// Where targets are found.
    pub discoveries: Discoveries,
    /// The client that scrapes.
    pub client: Client,
    /// Limits of the sources.
    pub limits: SourceLimits,
    /// Time one look's sources have.
    pub timeout: Duration,
    /// The clock.
    pub now: Clock,
    /// How the watches stand.
    pub board: StandingBoard,
    /// What happens is reported here.
    pub telemetry: Telemetry,
}

/// How every standing watch stands, for whoever asks.
#[derive(Clone, Default)]
pub struct StandingBoard {
    states: Arc<RwLock<BTreeMap<String, State>>>,
}

#[derive(Clone)]
struct State {
    options: WatchOptions,
    instances: Option<ArmSource>,
    signals: Option<SignalsKey>,
    interval: Duration,
    last_look: Option<Time>,
    last_fault: Option<String>,
}

impl StandingBoard {
    /// Whether a service is watched.
    pub fn is_watched(&self, service: &str) -> bool {
        self.states.read().unwrap_or_else(PoisonError::into_inner).contains_key(service)
    }

    /// Every watched service, with what is kept of it.
    pub async fn services(&self, store: &dyn Store) -> Result<Vec<WatchedService>, StoreError> {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut services = Vec::with_capacity(states.len());
        for (service, state) in states {
            let span = match &state.signals {
                Some(signals) => store.history(&service, signals).await?,
                None => Default::default(),
            };
            let length = span.last.zip(span.first).map(|(last, first)| last.since(first));
            services.push(WatchedService {
                service,
                rules: state.options.rules,
                targets: state.instances.as_ref().map_or(0, count),
                interval_secs: state.interval.as_secs_f64(),
                keep_secs: state.options.keep.as_secs_f64(),
                history_secs: length.unwrap_or_default().as_secs_f64(),
                looks: span.looks,
                bytes: span.bytes,
                last_look_at: state.last_look.or(span.last).map(Time::as_secs_f64),
                last_fault: state.last_fault,
            });
        }
        Ok(services)
    }

    pub(super) fn begin(&self, options: &WatchOptions, instances: Option<ArmSource>) {
        let state = State {
            options: options.clone(),
            instances,
            signals: None,
            interval: options.interval.unwrap_or_default(),
            last_look: None,
            last_fault: None,
        };
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        states.insert(options.service.clone(), state);
    }

    /// A look was taken and kept, or there was nothing to see.
    pub fn seen(&self, service: &str, at: Time) {
        self.change(service, |state| {
            (state.last_look, state.last_fault) = (Some(at), None);
        });
    }

    /// A look was lost.
    pub fn lost(&self, service: &str, why: &str, telemetry: &Telemetry) {
        let mut is_news = true;
        self.change(service, |state| {
            is_news = state.last_fault.as_deref() != Some(why);
            state.last_fault = Some(why.to_owned());
        });
        telemetry.history().look_lost(service, why, is_news);
    }

    fn change(&self, service: &str, change: impl FnOnce(&mut State)) {
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = states.get_mut(service) {
            change(state);
        }
    }
}

/// What a watch looks with, made from the rule file.
struct Eyes {
    /// Version of the rule file.
    sha256: String,
    signals: SignalsKey,
    interval: Duration,
    collector: Collector,
    reducer: Reducer,
    /// When all that has happened until then was last counted.
    counted: Option<Time>,
}

/// Watches one service until `stop`.
pub async fn watch(options: WatchOptions, parts: StandingParts, stop: CancellationToken) {
    let instances = match instances(&options, &parts.discoveries) {
        Ok(instances) => instances,
        Err(fault) => {
            parts.board.begin(&options, None);
            return parts.board.lost(&options.service, &fault, &parts.telemetry);
        }
    };
    parts.board.begin(&options, Some(instances.clone()));
    let watch = StandingWatch { options, instances, parts };
    tokio::select! {
        () = stop.cancelled() => {}
        () = watch.run() => {}
    }
}

/// Where the instances of a watched service are.
fn instances(options: &WatchOptions, discoveries: &Discoveries) -> Result<ArmSource, String> {
    let (finder, matches) = match &options.place {
        WatchedPlace::Targets(targets) => return Ok(ArmSource::Targets(targets.clone())),
        WatchedPlace::Dns(name) => (discoveries.dns(name)?, Matches::default()),
        WatchedPlace::Discover { name, labels } => {
            let values = Values::from([("service".to_owned(), options.service.clone())]);
            (discoveries.named(name, &values)?, Matches::new(labels))
        }
    };
    Ok(ArmSource::Found(FoundArm::new(finder, matches)))
}

/// Instances that are looked at now.
fn count(instances: &ArmSource) -> usize {
    match instances {
        ArmSource::Targets(targets) => targets.len(),
        ArmSource::Found(found) => found.count(),
        ArmSource::Selector { .. } => 0,
    }
}

struct StandingWatch {
    options: WatchOptions,
    instances: ArmSource,
    parts: StandingParts,
}

impl StandingWatch {
    async fn run(&self) {
        let mut eyes: Option<Eyes> = None;
        let mut measured = Instant::now();
        let mut next = Instant::now();
        loop {
            eyes = self.with_rules(eyes);
            let pause = match &mut eyes {
                None => RULES_PAUSE,
                Some(open) => {
                    let interval = open.interval;
                    let look = AssertUnwindSafe(self.look(open)).catch_unwind();
                    if look.await.is_err() {
                        // What it had read may be half counted.
                        self.lost("a look failed because of a defect of rollgate");
                        eyes = None;
                    } else if measured.elapsed() >= MEASURE_INTERVAL {
                        measured = Instant::now();
                        self.measure(&open.signals).await;
                    }
                    interval
                }
            };
            next = (next + pause).max(Instant::now());
            sleep_until(next).await;
        }
    }

    /// Follows the rule file. Without a version in use the watch stays as it was.
    fn with_rules(&self, eyes: Option<Eyes>) -> Option<Eyes> {
        let (service, rules) = (&self.options.service, &self.options.rules);
        let history = self.parts.telemetry.history();
        let (version, file) = match self.rules(eyes.as_ref()) {
            Ok(Some(found)) => found,
            Ok(None) => return eyes,
            Err(fault) => {
                let mut is_news = false;
                self.parts.board.change(service, |state| {
                    is_news = state.last_fault.as_ref() != Some(&fault);
                    state.last_fault = Some(fault.clone());
                });
                if is_news {
                    history.watch_rules(service, rules, &fault);
                }
                return eyes;
            }
        };
        let signals = SignalsKey::of(&file.specs);
        let interval = self.options.interval.unwrap_or(file.rules.observe.interval);
        match eyes {
            Some(eyes) if eyes.signals == signals && eyes.interval == interval => {
                return Some(Eyes { sha256: version.sha256.clone(), ..eyes });
            }
            Some(eyes) if eyes.signals != signals => {
                history.watch_rules(service, rules, "its signals changed: history begins anew");
            }
            Some(_) => {}
            None => history.watch_began(service, rules, count(&self.instances), interval),
        }
        let specs: Arc<[SignalSpec]> = file.specs.into();
        let collector = CollectorOptions {
            specs: specs.clone(),
            canary: ArmSource::Targets(Vec::new()),
            baseline: Some(self.instances.clone()),
            timeout: self.parts.timeout.min(interval),
            limits: self.parts.limits.clone(),
        };
        let (client, telemetry) = (self.parts.client.clone(), self.parts.telemetry.clone());
        self.parts.board.change(service, |state| {
            (state.signals, state.interval) = (Some(signals.clone()), interval);
            state.last_fault = None;
        });
        Some(Eyes {
            sha256: version.sha256.clone(),
            signals,
            interval,
            collector: Collector::new(client, collector, telemetry),
            reducer: Reducer::new(specs, file.rules.observe.warmup, Carry::default()),
            counted: None,
        })
    }

    /// The version in use, when it is not the one that is looked with.
    fn rules(&self, eyes: Option<&Eyes>) -> Result<Option<(Arc<RuleVersion>, RuleFile)>, String> {
        let version = self.parts.shelf.version(&self.options.rules);
        let version = version.map_err(|faults| faults.join("; "))?;
        if eyes.is_some_and(|eyes| eyes.sha256 == version.sha256) {
            return Ok(None);
        }
        match rulefile::load(&version.file, &version.text) {
            Ok(file) => Ok(Some((version, file))),
            Err(faults) => Err(faults.to_string()),
        }
    }

    async fn look(&self, eyes: &mut Eyes) {
        let at = (self.parts.now)();
        let observation = eyes.reducer.reduce(&eyes.collector.gather(at).await);
        let covers = eyes.counted.map_or(eyes.interval, |counted| at.since(counted));
        let look = PastLook::of(observation, covers);
        let fault = fault(&look);
        if fault.is_none() || look.has_data() {
            eyes.counted = Some(at);
        }
        if !look.has_data() {
            return match fault {
                Some(missing) => self.lost(&missing.to_string()),
                None => self.parts.board.seen(&self.options.service, at),
            };
        }
        let kept = KeptLook {
            service: self.options.service.clone(),
            signals: eyes.signals.clone(),
            look,
            bounds: KeepBounds {
                keep: self.options.keep,
                looks_max: HISTORY_LOOKS_MAX,
                bytes_max: HISTORY_BYTES_MAX,
            },
        };
        if self.parts.keeper.try_send(kept).is_err() {
            self.lost("more looks wait to be kept than may; is the disk slow?");
        }
    }

    fn lost(&self, why: &str) {
        self.parts.board.lost(&self.options.service, why, &self.parts.telemetry);
    }

    async fn measure(&self, signals: &SignalsKey) {
        let service = &self.options.service;
        let Ok(span) = self.parts.store.history(service, signals).await else { return };
        let length = span.last.zip(span.first).map(|(last, first)| last.since(first));
        let length = length.unwrap_or_default();
        self.parts.telemetry.history().measured(service, length, span.bytes);
    }
}

/// What keeps a look from saying anything, when that is not the quiet of a service nobody calls.
fn fault(look: &PastLook) -> Option<&Missing> {
    let missing = look.sides.iter().filter_map(|side| side.reading.as_ref().err());
    let mut faults = missing.filter(|missing| match missing.why {
        Why::FirstLook | Why::NoTraffic | Why::WarmUp => false,
        Why::ScrapeFailed
        | Why::Stale
        | Why::AbsentSeries
        | Why::BadValue
        | Why::UnclearHealth
        | Why::BucketLayout
        | Why::NotObserved
        | Why::QueryFailed => true,
    });
    faults.next()
}
