//! The desk that the API speaks to: orders become analyses, stored rows become views.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, watch},
    task::JoinError,
};
use tokio_util::sync::CancellationToken;

use super::{
    case::{Case, stored_report, summary},
    driver::{Message, Running, chain, subject},
    live::Board,
    rule_files,
    stand_in::marks_of,
    standing::StandingBoard,
    watcher,
};
use crate::{
    api::desk::{
        AnalysisPage, AnalysisView, ArmOrder, CancelAnalysis, Desk, DeskError, EvidenceHistory,
        History, ListFilter, OpenAnalysis, Opened, SignalHistory, WatchedServices,
    },
    deliver::Clock,
    engine::{analysis::Analysis, observation::Arm, rule::Baseline},
    report::shape::Report,
    rulefile,
    signal::carry::Carry,
    source::{
        client::Client,
        collector::{ArmSource, Collector, CollectorOptions},
        limits::SourceLimits,
        prometheus::PrometheusServer,
        target::Target,
    },
    store::{Created, Filter, NewAnalysis, Store, StoredAnalysis, StoredState},
    telemetry::{Telemetry, analysis::Opening},
};

/// Analyses that may run at once.
pub const RUNNING_MAX: usize = 10_000;

/// Points of a history; longer ones are thinned evenly.
const HISTORY_POINTS_MAX: usize = 720;

/// Analyses on a page when the request does not say.
const PAGE_DEFAULT: u32 = 50;

/// Most analyses on a page.
const PAGE_MAX: u32 = 200;

/// Longest name of a service, and longest idempotency key, in characters.
const NAME_CHARS_MAX: usize = 200;

/// Longest hold that may be ordered: a week.
const HOLD_SECS_MAX: f64 = 604_800.0;

/// Everything needed to open, resume and show analyses. Cheap to clone.
#[derive(Clone)]
pub struct ServiceDesk {
    /// Where analyses live.
    pub store: Arc<dyn Store>,
    /// The running ones.
    pub board: Board,
    /// The standing watches.
    pub standing: StandingBoard,
    /// The driver's queue.
    pub driver: mpsc::Sender<Message>,
    /// Where rule files are.
    pub rules_dir: PathBuf,
    /// Names of the configured mechanisms.
    pub mechanisms: BTreeSet<String>,
    /// Metrics servers by name.
    pub prometheus: BTreeMap<String, Arc<PrometheusServer>>,
    /// The client that scrapes.
    pub client: Client,
    /// Limits of the sources.
    pub limits: SourceLimits,
    /// Time one look's sources have.
    pub timeout: Duration,
    /// The clock.
    pub now: Clock,
    /// What happens is reported here.
    pub telemetry: Telemetry,
    /// Ends every watcher.
    pub stop: CancellationToken,
    /// Watchers that run.
    pub tasks: tokio_util::task::TaskTracker,
}

#[async_trait]
impl Desk for ServiceDesk {
    async fn open(&self, order: OpenAnalysis) -> Result<Opened, DeskError> {
        let desk = self.clone();
        self.to_its_end(async move { desk.take(order).await }).await
    }

    async fn list(&self, filter: ListFilter) -> Result<AnalysisPage, DeskError> {
        let limit = filter.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
        let state = match filter.state.as_deref() {
            None => None,
            Some("running") => Some(StoredState::Running),
            Some("finished") => Some(StoredState::Finished),
            Some("cancelled") => Some(StoredState::Cancelled),
            Some(other) => {
                return Err(DeskError::Refused(vec![format!(
                    "state is {other:?}, expected running, finished or cancelled"
                )]));
            }
        };
        let (service, verdict, after) = (filter.service, filter.verdict, filter.after);
        let filter = Filter { service, state, verdict, after, limit: limit + 1 };
        let mut rows = self.store.list(filter).await.map_err(unavailable)?;
        let has_more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = if has_more { rows.last().map(|row| row.new.id.clone()) } else { None };
        let analyses: anyhow::Result<Vec<_>> = rows.iter().map(summary).collect();
        Ok(AnalysisPage { analyses: analyses.map_err(|error| defect(&error))?, next })
    }

    async fn analysis(&self, id: &str) -> Result<AnalysisView, DeskError> {
        self.stored_view(&self.stored(id).await?).await
    }

    async fn history(&self, id: &str) -> Result<History, DeskError> {
        let stored = self.stored(id).await?;
        let case = Case::of(&stored).map_err(|error| defect(&error))?;
        let mut history = History { at: Vec::new(), signals: Vec::new(), evidence: Vec::new() };
        let every = (stored.last_look as usize).div_ceil(HISTORY_POINTS_MAX).max(1) as u64;
        let keep = |report: &Report| {
            if report.look.is_multiple_of(every) || report.is_final {
                append(&mut history, report);
            }
        };
        case.refold(&*self.store, keep).await.map_err(|error| defect(&error))?;
        Ok(history)
    }

    fn follow(&self, id: &str) -> Option<watch::Receiver<Arc<AnalysisView>>> {
        self.board.follow(id)
    }

    async fn cancel(&self, id: &str, order: CancelAnalysis) -> Result<AnalysisView, DeskError> {
        let (desk, id) = (self.clone(), id.to_owned());
        self.to_its_end(async move { desk.give_up(&id, &order).await }).await
    }

    async fn services(&self) -> Result<WatchedServices, DeskError> {
        let services = self.standing.services(&*self.store).await.map_err(unavailable)?;
        Ok(WatchedServices { services })
    }

    async fn unready(&self) -> Option<String> {
        if self.driver.is_closed() {
            return Some("the service is stopping".to_owned());
        }
        self.store.ping().await.err().map(|error| chain(&error))
    }
}

impl ServiceDesk {
    /// Does work that must not stop half-way when whoever asked for it goes away: an analysis that
    /// is stored and not begun would be watched by nobody until the next start.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, DeskError>> + Send + 'static,
    ) -> Result<T, DeskError> {
        match self.tasks.spawn(work).await.map_err(JoinError::try_into_panic) {
            Ok(done) => done,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(_)) => Err(DeskError::Unavailable("the service is stopping".to_owned())),
        }
    }

    async fn take(&self, order: OpenAnalysis) -> Result<Opened, DeskError> {
        // A repeated order is answered before anything else is looked at: its rule file may have
        // changed since, or there may be no room for another analysis.
        if let Some(key) = &order.idempotency_key
            && let Some(stored) = self.store.with_key(key).await.map_err(unavailable)?
        {
            return self.opened_before(&order, &stored).await;
        }
        if self.board.len() >= RUNNING_MAX {
            return Err(DeskError::Full(format!("{RUNNING_MAX} analyses are running already")));
        }
        let (new, case) = self.checked(&order).await?;
        let (new, case) = self.with_past(new, case).await;
        match self.store.create(new).await.map_err(unavailable)? {
            Created::Existing(stored) => self.opened_before(&order, &stored).await,
            Created::New => {
                let view = case.view(StoredState::Running, None, None, &[]);
                let analysis = case.begun();
                self.begin(case, analysis, None, Carry::default(), Opening::New).await?;
                Ok(Opened { view, is_new: true })
            }
        }
    }

    /// The analysis that the order's key opened, when it was by the same order.
    async fn opened_before(
        &self,
        order: &OpenAnalysis,
        stored: &StoredAnalysis,
    ) -> Result<Opened, DeskError> {
        if stored.new.order != order_text(order) {
            return Err(DeskError::Conflict(format!(
                "the idempotency key already opened analysis {} with another order",
                stored.new.id
            )));
        }
        Ok(Opened { view: self.stored_view(stored).await?, is_new: false })
    }

    async fn give_up(&self, id: &str, order: &CancelAnalysis) -> Result<AnalysisView, DeskError> {
        let stored = self.stored(id).await?;
        let note = serde_json::to_string(order).expect("strings are always JSON");
        if !self.store.cancel(id, &note, (self.now)()).await.map_err(unavailable)? {
            return Err(DeskError::Conflict(format!(
                "analysis {id} is over: {}",
                stored.verdict.as_deref().unwrap_or("cancelled")
            )));
        }
        if let Ok(case) = Case::of(&stored) {
            self.telemetry.analysis().cancelled(subject(&case), &order.who, &order.why);
        }
        if self.driver.send(Message::Drop(id.to_owned())).await.is_err() {
            return Err(DeskError::Unavailable("the service is stopping".to_owned()));
        }
        self.analysis(id).await
    }

    /// Takes up every analysis that was running when the process ended.
    pub async fn resume(&self) -> anyhow::Result<usize> {
        let stored = self.store.running().await?;
        let count = stored.len();
        for stored in stored {
            let id = stored.new.id.clone();
            if let Err(error) = self.resume_one(&stored).await {
                tracing::error!(id, error = format!("{error:#}"), "an analysis cannot be taken up");
                let why = format!("it could not be taken up after a restart: {error:#}");
                let note = CancelAnalysis { who: "rollgate".to_owned(), why };
                let note = serde_json::to_string(&note).expect("strings are always JSON");
                self.store.cancel(&id, &note, (self.now)()).await?;
            }
        }
        Ok(count)
    }

    async fn resume_one(&self, stored: &StoredAnalysis) -> anyhow::Result<()> {
        let case = Case::of(stored)?;
        let analysis = case.refold(&*self.store, |_| {}).await?;
        let carry = self.store.carry(&case.id).await?;
        let report = stored_report(stored)?;
        self.begin(case, analysis, report, carry, Opening::Resumed).await?;
        Ok(())
    }

    async fn begin(
        &self,
        case: Case,
        analysis: Analysis,
        report: Option<Report>,
        carry: Carry,
        how: Opening,
    ) -> Result<(), DeskError> {
        let collector = self.collector(&case).map_err(DeskError::Refused)?;
        let past = self.stand_in(&case, &carry, report.as_ref().map(|report| report.at));
        // What the past counts from lies with the past.
        let carry = if past.is_some() { marks_of(&carry, Arm::Canary) } else { carry };
        let stop = self.stop.child_token();
        let watch = watcher::Watch {
            id: case.id.clone(),
            specs: case.specs.clone(),
            interval: case.rules.observe.interval,
            warmup: case.rules.observe.warmup,
            carry,
            collector,
            past,
            now: self.now.clone(),
        };
        let running = Running { case, analysis, report, stop: stop.clone() };
        let gone = |_| DeskError::Unavailable("the service is stopping".to_owned());
        self.driver.send(Message::Start(Box::new(running), how)).await.map_err(gone)?;
        self.tasks.spawn(watcher::watch(watch, self.driver.clone(), stop));
        Ok(())
    }

    fn collector(&self, case: &Case) -> Result<Collector, Vec<String>> {
        let mut faults = Vec::new();
        let order = &case.order;
        let server = order.prometheus.as_deref();
        let canary = self.arm("canary", &order.canary, server, &mut faults);
        let beside = case.rules.baseline == Baseline::Concurrent;
        let baseline = order.baseline.as_ref().filter(|_| beside);
        let baseline = baseline.and_then(|arm| self.arm("baseline", arm, server, &mut faults));
        match canary {
            Some(canary) if faults.is_empty() => {
                let options = CollectorOptions {
                    specs: case.specs.clone(),
                    canary,
                    baseline,
                    timeout: self.timeout.min(case.rules.observe.interval),
                    limits: self.limits.clone(),
                };
                Ok(Collector::new(self.client.clone(), options, self.telemetry.clone()))
            }
            Some(_) | None => Err(faults),
        }
    }

    pub(super) fn arm(
        &self,
        name: &str,
        arm: &ArmOrder,
        server: Option<&str>,
        faults: &mut Vec<String>,
    ) -> Option<ArmSource> {
        match (&arm.selector, arm.targets.is_empty()) {
            (Some(_), false) => {
                faults.push(format!("{name} has targets and a selector, expected one of them"));
                None
            }
            (None, true) => {
                faults.push(format!("{name} has no targets and no selector, expected one of them"));
                None
            }
            (Some(matchers), true) => {
                let Some(server) = server else {
                    faults.push(format!("{name} is given by selector, which needs `prometheus`"));
                    return None;
                };
                let Some(prometheus) = self.prometheus.get(server) else {
                    let known: Vec<&str> = self.prometheus.keys().map(String::as_str).collect();
                    faults.push(format!(
                        "prometheus {server:?} is not configured, known are: {}",
                        known.join(", ")
                    ));
                    return None;
                };
                let prometheus = prometheus.clone();
                Some(ArmSource::Selector { prometheus, matchers: matchers.clone() })
            }
            (None, false) => {
                let targets: Vec<Target> = arm
                    .targets
                    .iter()
                    .filter_map(|url| {
                        let fault = |error| faults.push(format!("{name}: {error}"));
                        Target::parse(url).map_err(fault).ok()
                    })
                    .collect();
                (targets.len() == arm.targets.len()).then_some(ArmSource::Targets(targets))
            }
        }
    }

    /// Every fault of an order at once, or the row to be written and the case that it makes.
    async fn checked(&self, order: &OpenAnalysis) -> Result<(NewAnalysis, Case), DeskError> {
        let mut faults = Vec::new();
        let names = [
            ("service", Some(&order.service)),
            ("idempotency_key", order.idempotency_key.as_ref()),
        ];
        for (name, value) in names {
            let bad = |value: &&String| value.is_empty() || value.chars().count() > NAME_CHARS_MAX;
            if value.as_ref().is_some_and(|value| bad(&&**value)) {
                faults.push(format!("{name} must have 1 to {NAME_CHARS_MAX} characters"));
            }
        }
        for mechanism in &order.mechanisms {
            if !self.mechanisms.contains(mechanism) {
                let known: Vec<&str> = self.mechanisms.iter().map(String::as_str).collect();
                faults.push(format!(
                    "mechanism {mechanism:?} is not configured, known are: {}",
                    known.join(", ")
                ));
            }
        }
        let distinct: BTreeSet<&String> = order.mechanisms.iter().collect();
        if distinct.len() < order.mechanisms.len() {
            faults.push("mechanisms names one twice".to_owned());
        }
        if order.hold_secs.is_some_and(|secs| !(secs > 0.0 && secs <= HOLD_SECS_MAX)) {
            faults.push(format!("hold_secs must be above 0 and at most {HOLD_SECS_MAX}"));
        }
        let text = self.rules_text(&order.rules).await;
        let text = text.map_err(|found| faults.extend(found)).ok();
        let new = NewAnalysis {
            id: uuid::Uuid::now_v7().simple().to_string(),
            idempotency_key: order.idempotency_key.clone(),
            service: order.service.clone(),
            started: (self.now)(),
            order: order_text(order),
            rules_name: order.rules.clone(),
            rules_text: text.unwrap_or_default(),
            calibration: None,
            past: None,
        };
        if !faults.is_empty() {
            return Err(DeskError::Refused(faults));
        }
        let case = Case::of(&fresh(new.clone()))
            .map_err(|error| DeskError::Refused(vec![format!("{error:#}")]))?;
        faults.extend(self.collector(&case).err().unwrap_or_default());
        faults.extend(self.baseline_faults(&case));
        if faults.is_empty() { Ok((new, case)) } else { Err(DeskError::Refused(faults)) }
    }

    /// The text of a rule file that loads, or everything that is wrong with it.
    async fn rules_text(&self, name: &str) -> Result<String, Vec<String>> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(vec![format!(
                "rules is {name:?}, expected the name of a rule file without `.yaml`: letters, \
                 digits, - and _"
            )]);
        }
        let file = format!("{name}.yaml");
        let text =
            rule_files::read_bounded(&self.rules_dir.join(&file)).await.map_err(|error| {
                vec![format!(
                    "rule file {file} cannot be read from the configured directory: {error}"
                )]
            })?;
        match rulefile::load(&file, &text) {
            Ok(_) => Ok(text),
            Err(faults) => Err(faults.iter().map(ToString::to_string).collect()),
        }
    }

    async fn stored(&self, id: &str) -> Result<StoredAnalysis, DeskError> {
        let stored = self.store.analysis(id).await.map_err(unavailable)?;
        stored.ok_or_else(|| DeskError::Unknown(id.to_owned()))
    }

    async fn stored_view(&self, stored: &StoredAnalysis) -> Result<AnalysisView, DeskError> {
        let case = Case::of(stored).map_err(|error| defect(&error))?;
        let report = stored_report(stored).map_err(|error| defect(&error))?;
        let deliveries = self.store.deliveries(&stored.new.id).await.map_err(unavailable)?;
        let note = stored.cancel_note.as_deref();
        let cancelled = note.map(|note| serde_json::from_str(note).unwrap_or_default());
        Ok(case.view(stored.state, report, cancelled, &deliveries))
    }
}

/// A new analysis as the store will give it back.
fn fresh(new: NewAnalysis) -> StoredAnalysis {
    StoredAnalysis {
        new,
        state: StoredState::Running,
        last_look: 0,
        report: None,
        verdict: None,
        ended: None,
        cancel_note: None,
    }
}

fn append(history: &mut History, report: &Report) {
    let points = history.at.len();
    history.at.push(report.at);
    for (index, signal) in report.signals.iter().enumerate() {
        if history.signals.len() <= index {
            history.signals.push(SignalHistory {
                name: signal.name.clone(),
                unit: signal.unit.clone(),
                canary: vec![None; points],
                baseline: vec![None; points],
            });
        }
        history.signals[index].canary.push(signal.canary);
        history.signals[index].baseline.push(signal.baseline);
    }
    for clause in report.findings.iter().flat_map(|finding| &finding.clauses) {
        if clause.progress.kind != "evidence_decades" {
            continue;
        }
        let known = history.evidence.iter().position(|known| known.clause == clause.clause);
        let index = known.unwrap_or_else(|| {
            history.evidence.push(EvidenceHistory {
                clause: clause.clause.clone(),
                needed: clause.progress.needed,
                decades: vec![None; points],
            });
            history.evidence.len() - 1
        });
        if history.evidence[index].decades.len() == points {
            history.evidence[index].decades.push(Some(clause.progress.value));
        }
    }
    for evidence in &mut history.evidence {
        evidence.decades.resize(points + 1, None);
    }
}

/// An order as it is stored.
fn order_text(order: &OpenAnalysis) -> String {
    serde_json::to_string(order).expect("strings and numbers are always JSON")
}

fn unavailable(error: crate::store::StoreError) -> DeskError {
    DeskError::Unavailable(chain(&error))
}

fn defect(error: &anyhow::Error) -> DeskError {
    DeskError::Unavailable(format!("{error:#}"))
}
