//! What is known of a service before its release: looks at its past become the calibration of an
//! analysis, and the lag at which the past stands in for a baseline.
//!
//! The past comes from the standing watch of the service, else from the metrics server that the
//! order names, else there is none and the stated prior holds. It is gathered once, before the
//! analysis exists, and what came of it is stored with the analysis, so that a replay of the
//! journal begins where the first judging began. Gathering never fails: what cannot be read within
//! [`GATHER_MAX`] is named and left out, and without any the prior holds.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::{
    driver::chain,
    lag::{self, Lag, Question, back},
};
use crate::{
    api::desk::PastView,
    deliver::Clock,
    engine::{
        calibration::{Calibration, Past, calibrate},
        observation::Time,
        rule::RuleSet,
    },
    report::{format, shape::Report},
    signal::{
        carry::Carry,
        past::{PastLook, SignalsKey, Stretch},
        reduce::Reducer,
        spec::SignalSpec,
    },
    source::collector::Collector,
    store::{Filter, HistorySpan, PAGE_MAX, Store, StoredAnalysis, StoredState},
    telemetry::{Telemetry, history::Origin},
};

/// Time the past may take to be gathered: the first look waits for it.
pub const GATHER_MAX: Duration = Duration::from_secs(5);

/// How much of the past noise is measured on; twice that with a lag, an hour at either end.
pub const HISTORY: Duration = Duration::from_secs(3600);

/// Looks at the past that are calibrated with: two hours, one a second.
pub const PAST_LOOKS_MAX: usize = 7200;

/// Releases of a service that are asked how they ended, newest first.
const RELEASES_MAX: u32 = 200;

/// A rollback takes its time after the verdict.
const SETTLING: Duration = Duration::from_secs(120);

/// What is said of a service that nothing is known of.
const NOTHING: &str = "nothing is known of the service before the release";

/// Version of [`PastPlan`] as it is stored.
const VERSION: u32 = 1;

/// What stands for the past of one analysis; stored beside its order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastPlan {
    v: u32,
    /// Where it was read from.
    pub source: PastSource,
    /// Seconds of it that had data.
    pub history_secs: u32,
    /// How the baseline's looks are found; none for a concurrent baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<PlannedLag>,
    /// What was found, or why nothing, in words.
    pub note: String,
}

/// The stretch of the past that stands in for a baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedLag {
    lag_ms: u64,
    after: i64,
    until: i64,
}

impl PlannedLag {
    /// How much older the baseline's looks are than the canary's.
    pub fn lag(self) -> Duration {
        Duration::from_millis(self.lag_ms)
    }

    /// Where they lie.
    pub fn stretch(self) -> Stretch {
        Stretch { after: Time(self.after), until: Time(self.until) }
    }
}

/// Where the past is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PastSource {
    /// The looks of the service's standing watch.
    Watch,
    /// A metrics server.
    Prometheus,
    /// Nowhere.
    Nothing,
}

impl PastPlan {
    /// The plan of a stored analysis.
    ///
    /// # Errors
    /// When it is of another version or shape.
    pub fn read(text: &str) -> anyhow::Result<Self> {
        let plan: Self = serde_json::from_str(text)?;
        anyhow::ensure!(plan.v == VERSION, "it has version {}, expected {VERSION}", plan.v);
        Ok(plan)
    }

    /// Says that nothing was measured after all.
    pub fn unmeasured(&mut self, why: &str) {
        self.history_secs = 0;
        self.note.push_str(&format!("; its noise is not measured: {why}"));
    }

    /// As it is stored.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("strings and whole numbers are always JSON")
    }

    /// As the API shows it.
    pub fn view(&self) -> PastView {
        let source = match self.source {
            PastSource::Watch => "watch",
            PastSource::Prometheus => "prometheus",
            PastSource::Nothing => "none",
        };
        PastView {
            source: source.to_owned(),
            history_secs: f64::from(self.history_secs),
            lag_secs: self.lag.map(|lag| lag.lag().as_secs_f64()),
            note: self.note.clone(),
        }
    }
}

/// Whose past is to be gathered, and from where.
pub struct Gathering<'a> {
    /// The service, as its watch and its releases are known.
    pub service: &'a str,
    /// Its rules.
    pub rules: &'a RuleSet,
    /// Its signals.
    pub specs: Arc<[SignalSpec]>,
    /// When the release began.
    pub started: Time,
    /// The store, where there is one.
    pub store: Option<&'a dyn Store>,
    /// What a metrics server knows of the past, where there is one.
    pub server: Option<Collector>,
    /// The clock.
    pub now: Clock,
    /// What happens is reported here.
    pub telemetry: &'a Telemetry,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// How noisy each signal is.
    pub calibration: Calibration,
    /// What stands for the past.
    pub plan: PastPlan,
}

impl Gathering<'_> {
    /// Gathers the past, as far as there is time for it.
    pub async fn gather(&self) -> Gathered {
        match self.attempt().await {
            Ok((mut gathered, faults)) => {
                let why = faults.join("; ");
                let PastPlan { source, history_secs, note, .. } = &mut gathered.plan;
                if !faults.is_empty() {
                    let and = if note.is_empty() { "" } else { "; " };
                    note.push_str(&format!("{and}the past cannot be read: {why}"));
                }
                let origin = match source {
                    _ if *history_secs == 0 => Origin::Prior,
                    PastSource::Watch => Origin::Watch,
                    PastSource::Prometheus => Origin::Prometheus,
                    PastSource::Nothing => Origin::Prior,
                };
                let history = self.telemetry.history();
                if faults.is_empty() || *history_secs > 0 {
                    history.calibrated(self.service, origin, *history_secs, note);
                } else {
                    history.past_failed(self.service, &why);
                }
                gathered
            }
            Err(note) => {
                self.telemetry.history().past_failed(self.service, &note);
                let (source, lag) = (PastSource::Nothing, None);
                let plan = PastPlan { v: VERSION, source, history_secs: 0, lag, note };
                Gathered { calibration: Calibration::default(), plan }
            }
        }
    }

    /// The past as far as it can be read, and what could not be.
    async fn attempt(&self) -> Result<(Gathered, Vec<String>), String> {
        let latest = Instant::now() + GATHER_MAX;
        let mut faults = Vec::new();
        let span = self.span().await?;
        let source = match (span.last, &self.server) {
            (Some(_), _) => PastSource::Watch,
            (None, Some(_)) => PastSource::Prometheus,
            (None, None) => PastSource::Nothing,
        };
        let avoid = self.avoided().await?;
        // A watch that was stopped a while ago still says how noisy the service is.
        let newest = span.last.map_or(self.started, |last| last.min(self.started));
        let recent = Stretch { after: back(newest, HISTORY), until: newest };
        let mut looks = self.looks(source, recent, latest, &mut faults).await;
        let known = match source {
            PastSource::Watch => {
                let first = span.first.map(|first| back(first, self.rules.observe.interval));
                first.zip(span.last).map(|(after, until)| Stretch { after, until })
            }
            PastSource::Prometheus if looks.is_empty() => None,
            PastSource::Prometheus | PastSource::Nothing => began(&looks, recent),
        };
        let question = Question {
            baseline: self.rules.baseline,
            started: self.started,
            deadline: self.rules.promote.deadline,
            interval: self.rules.observe.interval,
            known,
            avoid: &avoid,
        };
        let (lag, mut note) = match (source, lag::choose(question)) {
            (PastSource::Nothing, _) => (None, NOTHING.to_owned()),
            (_, Ok(None)) => (None, String::new()),
            (_, Ok(Some(Lag { lag, stretch, note }))) => (Some((lag, stretch)), note),
            (_, Err(why)) => (None, why),
        };
        if let Some((lag, _)) = lag {
            let older = Stretch { after: back(recent.after, lag), until: back(recent.until, lag) };
            let until = older.until.min(recent.after);
            let older = Stretch { until, ..older };
            let mut before = self.looks(source, older, latest, &mut faults).await;
            before.append(&mut looks);
            looks = before;
        }
        looks.retain(|look| !avoid.iter().any(|avoid| avoid.holds(look.at)) && look.has_data());
        let surplus = looks.len().saturating_sub(PAST_LOOKS_MAX);
        looks.drain(..surplus);
        if lag.is_some() && source == PastSource::Watch {
            let apart = too_far_apart(&looks, self.rules.observe.interval);
            note.push_str(&apart.unwrap_or_default());
        }
        let history_secs = looks.iter().map(|look| look.covers.as_secs_f64()).sum::<f64>() as u32;
        if note.is_empty() && looks.is_empty() {
            NOTHING.clone_into(&mut note);
        }
        let past: Vec<Past> = looks.into_iter().map(PastLook::into_past).collect();
        let calibration = calibrate(self.rules, &past, lag.map_or(Duration::ZERO, |(lag, _)| lag));
        let lag = lag.map(|(lag, stretch)| PlannedLag {
            lag_ms: u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
            after: stretch.after.0,
            until: stretch.until.0,
        });
        let plan = PastPlan { v: VERSION, source, history_secs, lag, note };
        Ok((Gathered { calibration, plan }, faults))
    }

    async fn span(&self) -> Result<HistorySpan, String> {
        let Some(store) = self.store else { return Ok(HistorySpan::default()) };
        let span = store.history(self.service, &SignalsKey::of(&self.specs)).await;
        span.map_err(|error| chain(&error))
    }

    /// Stretches in which a release of the service was not, or not yet, found good.
    async fn avoided(&self) -> Result<Vec<Stretch>, String> {
        let Some(store) = self.store else { return Ok(Vec::new()) };
        let service = Some(self.service.to_owned());
        let filter = Filter { service, limit: RELEASES_MAX, ..Filter::default() };
        let releases = store.list(filter).await.map_err(|error| chain(&error))?;
        let now = (self.now)();
        let avoided = releases.iter().filter(|release| must_be_avoided(release));
        let stretch = |release: &StoredAnalysis| Stretch {
            after: release.new.started,
            until: release.ended.map_or(now, |ended| ended.after(SETTLING)),
        };
        Ok(avoided.map(stretch).collect())
    }

    /// Looks at a stretch of the past, oldest first, as far as they can be read in time.
    async fn looks(
        &self,
        source: PastSource,
        stretch: Stretch,
        latest: Instant,
        faults: &mut Vec<String>,
    ) -> Vec<PastLook> {
        let mut looks = Vec::new();
        let reading = async {
            match (source, self.store, &self.server) {
                (PastSource::Watch, Some(store), _) => self.kept(store, stretch, &mut looks).await,
                (PastSource::Prometheus, _, Some(server)) => {
                    self.served(server, stretch, &mut looks).await
                }
                (PastSource::Watch | PastSource::Prometheus | PastSource::Nothing, _, _) => Ok(()),
            }
        };
        match timeout_at(latest, reading).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => faults.push(why),
            Err(_) => {
                let (until, secs) =
                    (looks.last().map_or(stretch.after, |look| look.at), GATHER_MAX);
                faults.push(format!(
                    "{} of {} were read within {} s",
                    format::duration(until.since(stretch.after).as_secs_f64()),
                    format::duration(stretch.length().as_secs_f64()),
                    secs.as_secs()
                ));
            }
        }
        looks
    }

    async fn kept(
        &self,
        store: &dyn Store,
        stretch: Stretch,
        looks: &mut Vec<PastLook>,
    ) -> Result<(), String> {
        let key = SignalsKey::of(&self.specs);
        let mut after = stretch.after;
        loop {
            let rest = Stretch { after, until: stretch.until };
            let page = store.kept(self.service, &key, rest, PAGE_MAX).await;
            let page = page.map_err(|error| chain(&error))?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.at;
            looks.extend(page);
            // What would be dropped anyway is not held either.
            let surplus = looks.len().saturating_sub(PAST_LOOKS_MAX);
            looks.drain(..surplus);
        }
    }

    async fn served(
        &self,
        server: &Collector,
        stretch: Stretch,
        looks: &mut Vec<PastLook>,
    ) -> Result<(), String> {
        let mut reducer =
            Reducer::new(self.specs.clone(), self.rules.observe.warmup, Carry::default());
        let mut last = stretch.after;
        // Whoever waits for this ends it in time, and says how far it came.
        let read = server.gather_history(stretch, 2 * GATHER_MAX, |gathered| {
            let look = PastLook::of(reducer.reduce(&gathered), gathered.at.since(last));
            // The next look covers what this one could not.
            if look.has_data() {
                last = look.at;
                looks.push(look);
            }
        });
        read.await.map_err(|missing| missing.to_string())
    }
}

/// Of when a metrics server knows the past, when that begins within the stretch that was read.
pub fn began(looks: &[PastLook], stretch: Stretch) -> Option<Stretch> {
    let first = looks.first().map_or(stretch.until, |look| look.at);
    // Within a tenth of it the beginning is the server's own granularity.
    let is_late = first.since(stretch.after) > stretch.length() / 10;
    is_late.then_some(Stretch { after: first, until: stretch.until })
}

/// Says that looks of the past are further apart than those of the release, when they are: then
/// some of the release's looks have nothing to be compared with.
fn too_far_apart(looks: &[PastLook], interval: Duration) -> Option<String> {
    let mut covers: Vec<Duration> = looks.iter().map(|look| look.covers).collect();
    covers.sort();
    let usual = *covers.get(covers.len() / 2)?;
    (usual > interval * 3 / 2).then(|| {
        format!(
            "; its looks are {} apart, those of the release {}",
            format::duration(usual.as_secs_f64()),
            format::duration(interval.as_secs_f64())
        )
    })
}

/// Whether what a service did during a release says nothing about a good version of it.
fn must_be_avoided(release: &StoredAnalysis) -> bool {
    match release.state {
        StoredState::Running => true,
        StoredState::Cancelled => false,
        StoredState::Finished => match release.verdict.as_deref() {
            Some("rollback") => true,
            Some("inconclusive") => {
                let report = release.report.as_deref().unwrap_or_default();
                let report = serde_json::from_str::<Report>(report).ok();
                report.is_some_and(|report| report.otherwise.as_deref() == Some("rollback"))
            }
            Some(_) | None => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::observation::{Missing, Value, Why},
        signal::past::Side,
        store::NewAnalysis,
    };

    fn look(at_secs: i64, covers_secs: u64) -> PastLook {
        let side = |reading| Side { reading, parts: Vec::new() };
        let missing = Err(Missing::new(Why::NoTraffic, ""));
        PastLook {
            at: Time(at_secs * 1000),
            covers: Duration::from_secs(covers_secs),
            sides: vec![side(Ok(Value::Level(1.0))), side(missing)],
        }
    }

    #[test]
    fn a_plan_is_stored_and_shown() {
        let lag = PlannedLag { lag_ms: 1_800_000, after: -5, until: 7 };
        let plan = PastPlan {
            v: VERSION,
            source: PastSource::Watch,
            history_secs: 3590,
            lag: Some(lag),
            note: "a \"note\"".to_owned(),
        };
        let text = r#"{"v":1,"source":"watch","history_secs":3590,"lag":{"lag_ms":1800000,"after":-5,"until":7},"note":"a \"note\""}"#;
        assert_eq!(plan.text(), text);
        assert_eq!(PastPlan::read(text).unwrap(), plan);
        assert_eq!(plan.view().lag_secs, Some(1800.0));
        let later = text.replace("\"v\":1", "\"v\":2");
        assert!(PastPlan::read(&later).unwrap_err().to_string().contains("version 2"));
        assert!(PastPlan::read("{}").is_err());
    }

    #[test]
    fn a_past_that_begins_late_is_known_from_there() {
        let hour = Stretch { after: Time(0), until: Time(3_600_000) };
        assert_eq!(began(&[look(15, 15), look(30, 15)], hour), None);
        assert_eq!(began(&[look(300, 15)], hour), None);
        let from = |secs: i64| Some(Stretch { after: Time(secs * 1000), until: hour.until });
        assert_eq!(began(&[look(1200, 15)], hour), from(1200));
        assert_eq!(began(&[], hour), from(3600));
    }

    #[test]
    fn looks_that_are_too_far_apart_are_named() {
        let apart = |covers: &[u64], secs| {
            let looks: Vec<PastLook> = covers.iter().map(|covers| look(0, *covers)).collect();
            too_far_apart(&looks, Duration::from_secs(secs))
        };
        assert_eq!(apart(&[5, 5, 60], 5), None);
        assert_eq!(apart(&[], 5), None);
        let words = "; its looks are 15 s apart, those of the release 5 s";
        assert_eq!(apart(&[15, 15, 5], 5).as_deref(), Some(words));
    }

    #[test]
    fn releases_that_were_rolled_back_or_still_run_are_avoided() {
        let check = |state, verdict: Option<&str>, otherwise: Option<&str>, expected| {
            let report = otherwise.map(|otherwise| {
                format!(
                    r#"{{"verdict":"inconclusive","final":true,"decided_at":1.0,"at":1.0,"elapsed_secs":1.0,"look":1,"rule":null,"reason":"","otherwise":"{otherwise}","findings":[],"signals":[]}}"#
                )
            });
            let new = NewAnalysis {
                id: "a".to_owned(),
                idempotency_key: None,
                service: "shop".to_owned(),
                started: Time(0),
                order: String::new(),
                rules_name: String::new(),
                rules_text: String::new(),
                calibration: None,
                past: None,
            };
            let stored = StoredAnalysis {
                new,
                state,
                last_look: 1,
                report,
                verdict: verdict.map(str::to_owned),
                ended: None,
                cancel_note: None,
            };
            assert_eq!(must_be_avoided(&stored), expected, "{stored:?}");
        };
        check(StoredState::Running, None, None, true);
        check(StoredState::Cancelled, None, None, false);
        check(StoredState::Finished, Some("rollback"), None, true);
        check(StoredState::Finished, Some("promote"), None, false);
        check(StoredState::Finished, Some("inconclusive"), Some("rollback"), true);
        check(StoredState::Finished, Some("inconclusive"), Some("hold"), false);
        check(StoredState::Finished, Some("inconclusive"), None, false);
    }
}
