//! A desk without a service behind it: analyses are told look by look from a fixed story, so that
//! the API and the page can be tested against every state they may meet.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use rollgate::api::desk::{
    AnalysisPage, AnalysisSummary, AnalysisView, AttemptView, CancelAnalysis, DeliveriesPage,
    DeliveryDetail, DeliveryListFilter, DeliveryView, Desk, DeskError, History, InterventionShape,
    ListFilter, OpenAnalysis, Opened, OverrideAnalysis, ResendDelivery, RuleFiles, RuleText,
    Standing, WatchedServices,
};
use rollgate::{
    engine::observation::Time,
    report::{
        intervention::{Overridden, overridden},
        timeline::Timeline,
    },
};
use tokio::sync::watch;

use crate::story::{STARTED_AT, Story};

/// Service names that make the desk misbehave in a named way.
pub const FULL: &str = "full";
pub const DOWN: &str = "down";
pub const REFUSED: &str = "refused";
pub const PANICS: &str = "panics";
pub const SILENT: &str = "silent";

/// Service names of releases that end in another way than well.
pub const BAD: &str = "bad";
pub const QUIET: &str = "quiet";
pub const STEPPED: &str = "stepped";

#[derive(Default)]
pub struct FakeDesk {
    told: Mutex<BTreeMap<String, Told>>,
    rules: Mutex<RuleFiles>,
    unready: Mutex<Option<String>>,
    notes: Mutex<BTreeMap<String, String>>,
    late_secs: Mutex<f64>,
    orders: Mutex<Vec<OpenAnalysis>>,
    is_down: Mutex<bool>,
}

/// One analysis and how far its story has been told.
struct Told {
    story: Story,
    view: AnalysisView,
    key: Option<String>,
    follow: Option<watch::Sender<Arc<AnalysisView>>>,
}

impl FakeDesk {
    /// Adds an analysis that stands before its first look.
    pub fn tell(&self, story: Story) {
        let view = story.view();
        let follow = Some(watch::Sender::new(Arc::new(view.clone())));
        let told = Told { story, view, key: None, follow };
        self.told.lock().unwrap().insert(told.view.id.clone(), told);
    }

    /// Takes `looks` further looks of one analysis, fewer when it ends before.
    pub fn advance(&self, id: &str, looks: u64) {
        let mut all = self.told.lock().unwrap();
        let told = all.get_mut(id).unwrap();
        for _ in 0..looks {
            let Some(follow) = &told.follow else { return };
            told.view = told.story.after_look(&told.view);
            follow.send_replace(Arc::new(told.view.clone()));
            if told.view.state != "running" {
                told.follow = None;
            }
        }
    }

    pub fn set_unready(&self, reason: &str) {
        *self.unready.lock().unwrap() = Some(reason.to_owned());
    }

    /// Every order that was carried out.
    pub fn orders(&self) -> Vec<OpenAnalysis> {
        self.orders.lock().unwrap().clone()
    }

    /// Lets the clock go on; it stands otherwise.
    pub fn later(&self, secs: f64) {
        *self.late_secs.lock().unwrap() += secs;
    }

    /// Whether the store answers; what runs is known without it.
    pub fn set_down(&self, is_down: bool) {
        *self.is_down.lock().unwrap() = is_down;
    }

    fn up(&self) -> Result<(), DeskError> {
        match *self.is_down.lock().unwrap() {
            true => Err(DeskError::Unavailable("the store does not answer".into())),
            false => Ok(()),
        }
    }

    /// Ids of all analyses.
    pub fn ids(&self) -> Vec<String> {
        self.told.lock().unwrap().keys().cloned().collect()
    }

    /// What is said of the rule files.
    pub fn set_rules(&self, rules: RuleFiles) {
        *self.rules.lock().unwrap() = rules;
    }

    fn told<T>(&self, id: &str, read: impl FnOnce(&mut Told) -> T) -> Result<T, DeskError> {
        let mut all = self.told.lock().unwrap();
        all.get_mut(id).map(read).ok_or_else(|| DeskError::Unknown(id.to_owned()))
    }
}

#[async_trait]
impl Desk for FakeDesk {
    async fn open(&self, order: OpenAnalysis) -> Result<Opened, DeskError> {
        match order.service.as_str() {
            FULL => return Err(DeskError::Full("10000 analyses run, which is the limit".into())),
            DOWN => return Err(DeskError::Unavailable("the store does not answer".into())),
            REFUSED => {
                let faults = ["rules: no file a.yaml", "mechanisms[0]: unknown name hook"];
                return Err(DeskError::Refused(faults.map(String::from).into()));
            }
            PANICS => panic!("planted"),
            SILENT => std::future::pending::<()>().await,
            _ => {}
        }
        if let Some(key) = &order.idempotency_key {
            let all = self.told.lock().unwrap();
            if let Some(told) = all.values().find(|told| told.key.as_ref() == Some(key)) {
                return Ok(Opened { view: told.view.clone(), is_new: false });
            }
        }
        self.orders.lock().unwrap().push(order.clone());
        let id = format!("new-{}", self.told.lock().unwrap().len());
        let mut story = match order.service.as_str() {
            BAD => Story::errors(&id, BAD),
            QUIET => Story::idle(&id, QUIET),
            STEPPED => Story::healthy(&id, STEPPED).in_steps(),
            service => Story::healthy(&id, service),
        };
        story.canary = order.canary;
        self.tell(story);
        let view = self.told(&id, |told| {
            told.key = order.idempotency_key;
            told.view.clone()
        })?;
        Ok(Opened { view, is_new: true })
    }

    async fn list(&self, filter: ListFilter) -> Result<AnalysisPage, DeskError> {
        let all = self.told.lock().unwrap();
        let limit = filter.limit.unwrap_or(50) as usize;
        let mut analyses: Vec<AnalysisSummary> = all
            .values()
            .rev()
            .map(|told| summary(&told.view))
            .filter(|line| filter.service.as_ref().is_none_or(|service| *service == line.service))
            .filter(|line| filter.state.as_ref().is_none_or(|state| *state == line.state))
            .filter(|line| filter.verdict.as_ref().is_none_or(|word| *word == line.verdict))
            .filter(|line| filter.after.as_ref().is_none_or(|after| line.id < *after))
            .collect();
        let has_more = analyses.len() > limit;
        analyses.truncate(limit);
        let next = analyses.last().filter(|_| has_more).map(|line| line.id.clone());
        Ok(AnalysisPage { analyses, next })
    }

    async fn analysis(&self, id: &str) -> Result<AnalysisView, DeskError> {
        self.told(id, |told| told.view.clone())
    }

    async fn standing(&self, id: &str) -> Result<Standing, DeskError> {
        self.analysis(id).await.map(Standing::from)
    }

    async fn opened_by(&self, key: &str) -> Result<Option<AnalysisView>, DeskError> {
        self.up()?;
        let all = self.told.lock().unwrap();
        let found = all.values().find(|told| told.key.as_deref() == Some(key));
        Ok(found.map(|told| told.view.clone()))
    }

    async fn history(&self, id: &str) -> Result<History, DeskError> {
        self.told(id, |told| {
            told.story.history(told.view.report.as_ref().map_or(0, |report| report.look))
        })
    }

    fn follow(&self, id: &str) -> Option<watch::Receiver<Arc<AnalysisView>>> {
        self.told(id, |told| told.follow.as_ref().map(watch::Sender::subscribe)).ok().flatten()
    }

    async fn cancel(&self, id: &str, order: CancelAnalysis) -> Result<AnalysisView, DeskError> {
        self.told(id, |told| {
            if told.view.state != "running" {
                return Err(DeskError::Conflict(format!("{id} is {} already", told.view.state)));
            }
            told.view.state = "cancelled".into();
            told.view.cancelled = Some(order);
            told.follow = None;
            Ok(told.view.clone())
        })?
    }

    async fn note(&self, name: &str) -> Result<Option<String>, DeskError> {
        self.up()?;
        Ok(self.notes.lock().unwrap().get(name).cloned())
    }

    async fn write_note(
        &self,
        name: &str,
        before: Option<&str>,
        text: &str,
    ) -> Result<bool, DeskError> {
        let mut notes = self.notes.lock().unwrap();
        let is_as_read = notes.get(name).map(String::as_str) == before;
        if is_as_read {
            notes.insert(name.to_owned(), text.to_owned());
        }
        Ok(is_as_read)
    }

    async fn override_verdict(
        &self,
        id: &str,
        order: OverrideAnalysis,
    ) -> Result<AnalysisView, DeskError> {
        self.told(id, |told| {
            if told.view.state != "running" {
                return Err(DeskError::Conflict(format!("{id} is {} already", told.view.state)));
            }
            let by = Overridden {
                verdict: order.verdict.to_string(),
                who: order.who.clone(),
                why: order.why.clone(),
                at: told.view.started_at + 7.0,
                elapsed_secs: 7.0,
                rules: told.view.rules.clone(),
            };
            told.view.report = Some(overridden(told.view.report.take(), by));
            told.view.state = "finished".into();
            told.view.interventions.push(InterventionShape {
                at: told.view.started_at + 7.0,
                what: "override".into(),
                who: order.who,
                why: order.why,
                verdict: Some(order.verdict.to_string()),
                delivery: None,
            });
            told.follow = None;
            Ok(told.view.clone())
        })?
    }

    async fn deliveries(&self, filter: DeliveryListFilter) -> Result<DeliveriesPage, DeskError> {
        let all = self.told.lock().unwrap();
        let rows = all.values().rev().flat_map(|told| told.view.deliveries.iter().rev());
        let wanted = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        let rows = rows
            .filter(|row| wanted(&filter.state, &row.state))
            .filter(|row| wanted(&filter.mechanism, &row.mechanism))
            .filter(|row| wanted(&filter.analysis, &row.analysis));
        // Places are counted down, as rows of a table are.
        let (limit, skip) = (filter.limit.unwrap_or(50) as usize, filter.after.map_or(0, |it| -it));
        let mut rows: Vec<DeliveryView> = rows.skip(skip as usize).cloned().collect();
        let next = (rows.len() > limit).then_some(-(skip + limit as i64));
        rows.truncate(limit);
        Ok(DeliveriesPage { deliveries: rows, next })
    }

    async fn delivery(&self, key: &str) -> Result<DeliveryDetail, DeskError> {
        let all = self.told.lock().unwrap();
        let mut rows = all.values().flat_map(|told| &told.view.deliveries);
        let found = rows.find(|row| row.key == key);
        let row = found.ok_or_else(|| DeskError::NoDelivery(key.to_owned()))?;
        let attempt = |number| AttemptView {
            number,
            at: row.created_at + f64::from(number),
            took_secs: 0.012,
            outcome: "failed".into(),
            answer: "503 Service Unavailable".into(),
        };
        let last_attempts = (1..=row.attempts).map(attempt).collect();
        Ok(DeliveryDetail { delivery: row.clone(), last_attempts })
    }

    async fn resend(&self, key: &str, order: ResendDelivery) -> Result<DeliveryDetail, DeskError> {
        {
            let mut all = self.told.lock().unwrap();
            let find = |told: &&mut Told| told.view.deliveries.iter().any(|row| row.key == key);
            let found = all.values_mut().find(find);
            let told = found.ok_or_else(|| DeskError::NoDelivery(key.to_owned()))?;
            let at = told.view.started_at + 90.0;
            for row in told.view.deliveries.iter_mut().filter(|row| row.key == key) {
                if row.state == "taken_back" {
                    let why = format!("{key} is not sent again: a later decision stands");
                    return Err(DeskError::Conflict(why));
                }
                row.state = "pending".into();
                row.next_attempt_at = Some(at);
            }
            told.view.interventions.push(InterventionShape {
                at,
                what: "resend".into(),
                who: order.who,
                why: order.why,
                verdict: None,
                delivery: Some(key.to_owned()),
            });
        }
        self.delivery(key).await
    }

    async fn services(&self) -> Result<WatchedServices, DeskError> {
        Ok(WatchedServices { services: Vec::new() })
    }

    async fn timeline(&self, id: &str) -> Result<Timeline, DeskError> {
        self.told(id, |told| {
            let mut timeline = Timeline::default();
            let mut view = told.story.view();
            for _ in 0..told.view.report.as_ref().map_or(0, |report| report.look) {
                view = told.story.after_look(&view);
                timeline.see(view.report.as_ref().unwrap());
            }
            timeline
        })
    }

    async fn analysis_rules(&self, id: &str) -> Result<RuleText, DeskError> {
        self.told(id, |told| RuleText {
            text: "version: 1\n".into(),
            sha256: told.view.rules.sha256.clone(),
        })
    }

    async fn rules(&self) -> Result<RuleFiles, DeskError> {
        Ok(self.rules.lock().unwrap().clone())
    }

    async fn rule_text(&self, name: &str) -> Result<RuleText, DeskError> {
        let rules = self.rules.lock().unwrap();
        let file = rules.rules.iter().find(|file| file.name == name);
        let sha256 = file.and_then(|file| file.sha256.clone());
        let none = || DeskError::NoRules(format!("rule file {name}.yaml is not there"));
        sha256.map(|sha256| RuleText { text: "version: 1\n".into(), sha256 }).ok_or_else(none)
    }

    fn now(&self) -> Time {
        Time::from_secs_f64(STARTED_AT + 600.0 + *self.late_secs.lock().unwrap())
    }

    async fn unready(&self) -> Option<String> {
        self.unready.lock().unwrap().clone()
    }
}

fn summary(view: &AnalysisView) -> AnalysisSummary {
    let report = view.report.as_ref();
    AnalysisSummary {
        id: view.id.clone(),
        service: view.service.clone(),
        state: view.state.clone(),
        started_at: view.started_at,
        canary_version: view.canary.version.clone(),
        baseline_version: view.baseline.as_ref().map_or("", |arm| &arm.version).to_owned(),
        rules: view.rules.clone(),
        verdict: report.map_or("watching", |report| &report.verdict).to_owned(),
        reason: report.map_or("", |report| &report.reason).to_owned(),
        decided_at: report.and_then(|report| report.decided_at),
    }
}
