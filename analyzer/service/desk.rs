//! The desk that the API speaks to: orders become analyses, stored rows become views.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinError,
};
use tokio_util::sync::CancellationToken;

use super::{
    archive::{Archive, defect, unavailable},
    case::{Beside, Case, stored_report},
    deliveries::Doings,
    discoveries::Discoveries,
    driver::{Message, Overruled, Running, chain, subject},
    known::{StoredOrder, completed},
    live::Board,
    order_targets, rule_files,
    rule_reload::RuleAsker,
    rule_shelf::{RuleShelf, RuleVersion},
    stand_in::marks_of,
    standing::StandingBoard,
    watcher,
};
use crate::{
    api::desk::{
        AnalysisPage, AnalysisView, ArmOrder, CancelAnalysis, DeliveriesPage, DeliveryDetail,
        DeliveryListFilter, Desk, DeskError, History, ListFilter, OpenAnalysis, Opened,
        OverrideAnalysis, ResendDelivery, RuleFiles, RuleText, Standing, WatchedServices,
    },
    config::services::KnownService,
    deliver::Clock,
    engine::{
        analysis::Analysis,
        observation::{Arm, Time},
        rule::Baseline,
    },
    report::{shape::Report, timeline::Timeline},
    signal::carry::Carry,
    source::{
        client::Client,
        collector::{Collector, CollectorOptions},
        limits::SourceLimits,
        prometheus::PrometheusServer,
    },
    store::{
        Created, INTERVENTIONS_MAX, NewAnalysis, Resent, Signed, Store, StoreError, StoredAnalysis,
        StoredState, notes::Over,
    },
    telemetry::{Telemetry, analysis::Opening},
};

/// Analyses that may run at once.
pub const RUNNING_MAX: usize = 10_000;

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
    /// The rule files.
    pub shelf: RuleShelf,
    /// Asks for a look at their directory.
    pub ask_rules: RuleAsker,
    /// Names of the configured mechanisms.
    pub mechanisms: BTreeSet<String>,
    /// What they do.
    pub doings: Doings,
    /// Wakes the delivery worker.
    pub wake: Arc<Notify>,
    /// Metrics servers by name.
    pub prometheus: BTreeMap<String, Arc<PrometheusServer>>,
    /// What is known of services, by name.
    pub services: Arc<BTreeMap<String, KnownService>>,
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
        self.archive().list(filter).await
    }

    async fn analysis(&self, id: &str) -> Result<AnalysisView, DeskError> {
        self.archive().analysis(id).await
    }

    async fn standing(&self, id: &str) -> Result<Standing, DeskError> {
        self.archive().standing(id).await
    }

    async fn opened_by(&self, key: &str) -> Result<Option<AnalysisView>, DeskError> {
        match self.store.with_key(key).await.map_err(unavailable)? {
            Some(stored) => self.archive().view(&stored).await.map(Some),
            None => Ok(None),
        }
    }

    async fn history(&self, id: &str) -> Result<History, DeskError> {
        self.archive().history(id).await
    }

    async fn timeline(&self, id: &str) -> Result<Timeline, DeskError> {
        self.archive().timeline(id).await
    }

    async fn analysis_rules(&self, id: &str) -> Result<RuleText, DeskError> {
        self.archive().rules(id).await
    }

    fn follow(&self, id: &str) -> Option<watch::Receiver<Arc<AnalysisView>>> {
        self.board.follow(id)
    }

    async fn cancel(&self, id: &str, order: CancelAnalysis) -> Result<AnalysisView, DeskError> {
        let (desk, id) = (self.clone(), id.to_owned());
        self.to_its_end(async move { desk.give_up(&id, &order).await }).await
    }

    async fn note(&self, name: &str) -> Result<Option<String>, DeskError> {
        self.store.note(name).await.map_err(unavailable)
    }

    async fn write_note(
        &self,
        name: &str,
        before: Option<&str>,
        text: &str,
    ) -> Result<bool, DeskError> {
        let over = Over { before, text };
        self.store.write_note(name, over, (self.now)()).await.map_err(unavailable)
    }

    async fn override_verdict(
        &self,
        id: &str,
        order: OverrideAnalysis,
    ) -> Result<AnalysisView, DeskError> {
        let (desk, id) = (self.clone(), id.to_owned());
        self.to_its_end(async move { desk.overrule(&id, order).await }).await
    }

    async fn deliveries(&self, filter: DeliveryListFilter) -> Result<DeliveriesPage, DeskError> {
        self.archive().deliveries(filter).await
    }

    async fn delivery(&self, key: &str) -> Result<DeliveryDetail, DeskError> {
        self.archive().delivery(key).await
    }

    async fn resend(&self, key: &str, order: ResendDelivery) -> Result<DeliveryDetail, DeskError> {
        let (desk, key) = (self.clone(), key.to_owned());
        self.to_its_end(async move { desk.send_again(&key, order).await }).await
    }

    async fn services(&self) -> Result<WatchedServices, DeskError> {
        let services = self.standing.services(&*self.store).await.map_err(unavailable)?;
        Ok(WatchedServices { services })
    }

    async fn rules(&self) -> Result<RuleFiles, DeskError> {
        Ok(self.shelf.view())
    }

    async fn rule_text(&self, name: &str) -> Result<RuleText, DeskError> {
        let version = self.shelf.version(name);
        let version = version.map_err(|faults| DeskError::NoRules(faults.join("; ")))?;
        Ok(RuleText { text: version.text.clone(), sha256: version.sha256.clone() })
    }

    fn now(&self) -> Time {
        (self.now)()
    }

    async fn unready(&self) -> Option<String> {
        if self.driver.is_closed() {
            return Some("the service is stopping".to_owned());
        }
        self.store.ping().await.err().map(|error| chain(&error))
    }
}

impl ServiceDesk {
    fn archive(&self) -> Archive {
        Archive { store: self.store.clone(), doings: self.doings.clone() }
    }

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
                let view = case.view(StoredState::Running, None, Beside::default());
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
        let before = StoredOrder::read(&stored.new.order).map_err(|error| defect(&error))?;
        if before.asked != *order {
            return Err(DeskError::Conflict(format!(
                "the idempotency key already opened analysis {} with another order",
                stored.new.id
            )));
        }
        Ok(Opened { view: self.archive().view(stored).await?, is_new: false })
    }

    async fn give_up(&self, id: &str, order: &CancelAnalysis) -> Result<AnalysisView, DeskError> {
        let stored = self.archive().stored(id).await?;
        if !self.cancelled(id, order).await.map_err(unavailable)? {
            return Err(over(&stored));
        }
        if let Ok(case) = Case::of(&stored) {
            self.telemetry.analysis().cancelled(subject(&case), &order.who, &order.why);
        }
        if self.driver.send(Message::Drop(id.to_owned())).await.is_err() {
            return Err(DeskError::Unavailable("the service is stopping".to_owned()));
        }
        self.analysis(id).await
    }

    async fn cancelled(&self, id: &str, order: &CancelAnalysis) -> Result<bool, StoreError> {
        let note = serde_json::to_string(order).expect("strings are always JSON");
        let (who, why, at) = (order.who.clone(), order.why.clone(), (self.now)());
        self.store.cancel(id, &note, &Signed { who, why, at }).await
    }

    async fn overrule(&self, id: &str, order: OverrideAnalysis) -> Result<AnalysisView, DeskError> {
        let stored = self.archive().stored(id).await?;
        if stored.state != StoredState::Running {
            return Err(over(&stored));
        }
        let stopping = || DeskError::Unavailable("the service is stopping".to_owned());
        let (answer, overruled) = oneshot::channel();
        let (id, at) = (id.to_owned(), (self.now)());
        let message = Message::Override { id: id.clone(), order, at, answer };
        self.driver.send(message).await.map_err(|_| stopping())?;
        match overruled.await.map_err(|_| stopping())? {
            Overruled::Stands => self.analysis(&id).await,
            Overruled::Over => Err(over(&self.archive().stored(&id).await?)),
            Overruled::Failed(error) => Err(unavailable(error)),
        }
    }

    async fn send_again(
        &self,
        key: &str,
        order: ResendDelivery,
    ) -> Result<DeliveryDetail, DeskError> {
        let by = Signed { who: order.who, why: order.why, at: (self.now)() };
        match self.store.resend(key, &by).await.map_err(unavailable)? {
            Resent::Again => {}
            Resent::Unknown => return Err(DeskError::NoDelivery(key.to_owned())),
            Resent::Superseded(later) => {
                return Err(DeskError::Conflict(format!("{key} is not sent again: {later}")));
            }
            Resent::Full => {
                let full = format!("an analysis keeps {INTERVENTIONS_MAX} interventions");
                return Err(DeskError::Full(full));
            }
        }
        self.telemetry.delivery_resent(key, &by.who, &by.why);
        self.wake.notify_one();
        self.delivery(key).await
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
                self.cancelled(&id, &note).await?;
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
        let canary = self.arm("canary", &order.canary, order, &mut faults);
        let beside = case.rules.baseline == Baseline::Concurrent;
        // A version alone says what comes back in a rollback; it is enough where nothing is compared.
        let is_asked = |arm: &&ArmOrder| arm.is_placed() || case.rules.needs_baseline();
        let baseline = order.baseline.as_ref().filter(|_| beside).filter(is_asked);
        let baseline = baseline.and_then(|arm| self.arm("baseline", arm, order, &mut faults));
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

    /// Every fault of an order at once, or the row to be written and the case that it makes.
    async fn checked(&self, asked: &OpenAnalysis) -> Result<(NewAnalysis, Case), DeskError> {
        let mut faults = Vec::new();
        let order = completed(asked, &self.services);
        let order = &order.map_err(|found| faults.extend(found)).unwrap_or_else(|()| asked.clone());
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
        let rules = match order.rules.is_empty() {
            true => None,
            false => self.version(&order.rules).await.map_err(|found| faults.extend(found)).ok(),
        };
        let new = NewAnalysis {
            id: uuid::Uuid::now_v7().simple().to_string(),
            idempotency_key: order.idempotency_key.clone(),
            service: order.service.clone(),
            started: (self.now)(),
            order: StoredOrder { asked: asked.clone(), order: order.clone() }.text(),
            rules_name: order.rules.clone(),
            rules_text: rules.map(|rules| rules.text.clone()).unwrap_or_default(),
            calibration: None,
            past: None,
        };
        if !faults.is_empty() {
            return Err(DeskError::Refused(faults));
        }
        let case = Case::of(&fresh(new.clone()))
            .map_err(|error| DeskError::Refused(vec![format!("{error:#}")]))?;
        faults.extend(self.collector(&case).err().unwrap_or_default());
        faults.extend(order_targets::forbidden(&self.client, &case.order).await);
        faults.extend(self.baseline_faults(&case));
        if faults.is_empty() { Ok((new, case)) } else { Err(DeskError::Refused(faults)) }
    }

    /// The version of a rule file that is used now, as the directory has it now.
    async fn version(&self, name: &str) -> Result<Arc<RuleVersion>, Vec<String>> {
        if !rule_files::is_plain(name) {
            return Err(vec![format!(
                "rules is {name:?}, expected the name of a rule file without `.yaml`: letters, \
                 digits, - and _"
            )]);
        }
        self.ask_rules.refresh().await;
        self.shelf.version(name)
    }
}

/// Why nothing can be done to an analysis any more.
fn over(stored: &StoredAnalysis) -> DeskError {
    let id = &stored.new.id;
    let how = match (stored.state, &stored.verdict) {
        // It is just beginning, or just ending.
        (StoredState::Running, _) => {
            return DeskError::Conflict(format!("{id} is not running yet"));
        }
        (StoredState::Finished, Some(verdict)) => verdict,
        (StoredState::Finished | StoredState::Cancelled, _) => "cancelled",
    };
    DeskError::Conflict(format!("analysis {id} is over: {how}"))
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
