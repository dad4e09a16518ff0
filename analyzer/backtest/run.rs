//! Fetches what each case needs, judges it, and goes on when one cannot be judged.
//!
//! Invariants: a few cases at a time, so that memory does not grow with the span; a server that fails
//! costs the case its name, and after [`GIVE_UP_AFTER`] of them in a row it is not asked any more.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future, stream};
use tokio_util::sync::CancellationToken;

use super::{
    discover::{self, Discovery, without},
    judging::{Against, During, Judged, Material, judge, past_looks},
    outcome::{How, Outcome, Placebo},
    placebo::{Quiet, Window, busy, halves, of_instances, quiet_before},
    releases::{Known, RELEASES_MAX, Release},
    rules::PastRules,
};
use crate::{
    engine::{
        observation::{Missing, Time, Why},
        rule::Baseline,
    },
    service::{
        lag::{self, Question, back},
        past::{HISTORY, began},
    },
    signal::past::{PastLook, Stretch},
    source::archive::{Archive, Archivist},
};

/// Cases that are fetched or judged at once.
pub const CASES_AT_ONCE: usize = 3;

/// Failures of the server in a row after which it is not asked any more.
pub const GIVE_UP_AFTER: usize = 5;

/// A rollback takes its time after the verdict; what a bad release did until then is no good past.
const SETTLING: Duration = Duration::from_secs(120);

/// Steps over the whole span in which versions are looked for, about.
const STEPS: u64 = 20_000;

/// What is judged, by what, and how far back.
pub struct Backtest {
    /// The rules, as far as the past can answer them.
    pub past: PastRules,
    /// Where samples come from.
    pub archivist: Archivist,
    /// The past that is looked at.
    pub span: Stretch,
    /// Ends the work; what is done by then is the outcome.
    pub stop: CancellationToken,
}

/// Both arms of one case.
struct Arms {
    canary: String,
    baseline: Option<String>,
    started: Time,
    ended: Option<Time>,
    /// Whether it says nothing without a past that noise is measured on.
    needs_past: bool,
}

impl Backtest {
    /// Looks for releases, and for times without any.
    ///
    /// # Errors
    /// When the server cannot say what ran, or there are too many releases.
    pub async fn discover(&self, how: &Discovery) -> Result<(Vec<Release>, Vec<Quiet>), String> {
        let secs = (self.span.length().as_secs() / STEPS).clamp(15, 300);
        let step = Duration::from_secs(secs);
        let found = self.archivist.presence(&how.query, self.span, step).await;
        let presences = found.map_err(|missing| missing.detail)?;
        let service = &self.past.rules.service;
        let mut found = discover::releases(&presences, how, self.span, step, service);
        if found.releases.len() > RELEASES_MAX {
            let count = found.releases.len();
            return Err(format!(
                "{count} releases were found, at most {RELEASES_MAX} are judged; hint: a shorter \
                 --since, or a narrower --selector"
            ));
        }
        for release in &mut found.releases {
            let closely = Stretch { after: release.started, until: release.started.after(step) };
            let second = Duration::from_secs(1);
            // Without the closer look the release begins up to a step early, before its first sample.
            if let Ok(closer) = self.archivist.presence(&how.query, closely, second).await {
                let seen = how.first_seen(&closer, release, service);
                release.started = seen.unwrap_or(release.started);
            }
        }
        let deadline = self.past.rules.promote.deadline;
        let lead = self.lead();
        let quiet = found.alone.into_iter().flat_map(|quiet| {
            let of_it = found.releases.iter().filter(|release| release.service == quiet.service);
            let taken = of_it.map(|release| busy(release, deadline)).collect();
            let Quiet { service, matchers, stretch } = quiet;
            let stretch = Stretch { after: stretch.after.after(lead), ..stretch };
            without(stretch, taken).into_iter().map(move |stretch| Quiet {
                service: service.clone(),
                matchers: matchers.clone(),
                stretch,
            })
        });
        let quiet = quiet.collect();
        Ok((found.releases, quiet))
    }

    /// The times between releases that a file names.
    pub fn quiet(&self, releases: &[Release]) -> Vec<Quiet> {
        let span = Stretch { after: self.span.after.after(self.lead()), ..self.span };
        quiet_before(releases, span, self.past.rules.promote.deadline)
    }

    /// What a window has to have behind it: noise is measured there, and it may be the baseline.
    fn lead(&self) -> Duration {
        HISTORY.max(self.past.rules.promote.deadline)
    }

    /// How long a window without a release is.
    pub fn window(&self) -> Duration {
        self.past.rules.promote.deadline + self.past.rules.observe.interval
    }

    /// Judges everything; `done` is told after each case.
    pub async fn run(
        &self,
        releases: Vec<Release>,
        windows: Vec<Window>,
        done: impl Fn(),
    ) -> Outcome {
        let failures = AtomicUsize::new(0);
        let mut outcome = Outcome::default();
        let avoid: Vec<(String, Stretch)> =
            releases.iter().filter_map(|release| self.avoided(release)).collect();
        let (avoid, failures) = (&avoid, &failures);
        let judged = stream::iter(releases).map(|release| async move {
            let arms = Arms {
                canary: release.canary.clone(),
                baseline: release.baseline.clone(),
                started: release.started,
                ended: release.ended,
                needs_past: false,
            };
            let avoid = avoid.iter().filter(|(service, bad)| {
                *service == release.service && bad.after != release.started
            });
            let avoid: Vec<Stretch> = avoid.map(|(_, bad)| *bad).collect();
            let result = self.patiently(failures, self.case(&self.past, arms, &avoid)).await;
            (release, result)
        });
        let mut judged = Box::pin(judged.buffered(CASES_AT_ONCE));
        while let Some((release, result)) = self.unless_stopped(judged.next()).await {
            let (result, secs) = split(result);
            outcome.judging_secs += secs;
            outcome.releases.push((release, result));
            done();
        }
        drop(judged);
        let judged = stream::iter(windows).map(|window| async move {
            let mut how = How::Unknown;
            let work = self.placebo(&window, avoid, &mut how);
            let result = self.patiently(failures, work).await;
            (window, how, result)
        });
        let mut judged = Box::pin(judged.buffered(CASES_AT_ONCE));
        while let Some((window, how, result)) = self.unless_stopped(judged.next()).await {
            let (result, secs) = split(result);
            outcome.judging_secs += secs;
            outcome.placebos.push(Placebo { window, how, result });
            done();
        }
        outcome.interrupted = self.stop.is_cancelled();
        outcome
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = Option<T>>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            done = work => done,
        }
    }

    /// The time of a bad release, which says nothing about how a good version of the service is.
    fn avoided(&self, release: &Release) -> Option<(String, Stretch)> {
        match release.known? {
            Known::Good => None,
            Known::Bad { .. } => {
                let over = release
                    .ended
                    .unwrap_or_else(|| release.started.after(self.past.rules.promote.deadline));
                let stretch = Stretch { after: release.started, until: over.after(SETTLING) };
                Some((release.service.clone(), stretch))
            }
        }
    }

    /// Does the work unless the server has failed too often.
    async fn patiently(
        &self,
        failures: &AtomicUsize,
        work: impl Future<Output = Result<(Judged, f64), Missing>>,
    ) -> Result<(Judged, f64), String> {
        if failures.load(Ordering::Relaxed) >= GIVE_UP_AFTER {
            return Err(format!("not asked: the server failed {GIVE_UP_AFTER} times in a row"));
        }
        let result = work.await;
        let failed = result.as_ref().is_err_and(|missing| missing.why == Why::QueryFailed);
        if failed {
            failures.fetch_add(1, Ordering::Relaxed);
        } else {
            failures.store(0, Ordering::Relaxed);
        }
        result.map_err(|missing| missing.detail)
    }

    /// A window without a release.
    async fn placebo(
        &self,
        window: &Window,
        avoid: &[(String, Stretch)],
        how: &mut How,
    ) -> Result<(Judged, f64), Missing> {
        let Window { service, matchers, started } = window;
        let until = started.after(self.window());
        let avoid = avoid.iter().filter(|(of, _)| of == service).map(|(_, bad)| *bad);
        let avoid: Vec<Stretch> = avoid.collect();
        let beside = self.past.rules.baseline == Baseline::Concurrent;
        let mut arms = Arms {
            canary: matchers.clone(),
            baseline: Some(matchers.clone()),
            started: *started,
            ended: None,
            needs_past: true,
        };
        if !beside {
            *how = How::Itself;
            return self.case(&self.past, arms, &avoid).await;
        }
        let specs = &self.past.specs;
        let first = self.archivist.instances(matchers, specs, started.after(HEAD_START)).await?;
        let last = self.archivist.instances(matchers, specs, until).await?;
        let there: Vec<String> = first.into_iter().filter(|one| last.contains(one)).collect();
        let Some([canary, baseline]) = halves(&there) else {
            *how = How::Itself;
            return self.case(&self.past.comparing_with_before(), arms, &avoid).await;
        };
        *how = How::Halves { canary: canary.len(), baseline: baseline.len() };
        arms.canary = of_instances(matchers, &canary);
        arms.baseline = Some(of_instances(matchers, &baseline));
        self.case(&self.past, arms, &avoid).await
    }

    /// Fetches what one case needs, and judges it.
    async fn case(
        &self,
        past: &PastRules,
        arms: Arms,
        avoid: &[Stretch],
    ) -> Result<(Judged, f64), Missing> {
        let Arms { canary, baseline, started, ended, needs_past } = arms;
        let most = past.rules.promote.deadline + past.rules.observe.interval * 2;
        // Where targets are scraped seldom, the look at the deadline is late.
        let until = started.after(most + LATE_LOOK).min(self.span.until);
        let until = ended.map_or(until, |ended| ended.min(until));
        if until <= started {
            let detail = "it lies outside of the span that is looked at";
            return Err(Missing::new(Why::NotObserved, detail));
        }
        let during = Stretch { after: started, until };
        let before = Stretch { after: back(started, HISTORY), until: started };
        let whole = Stretch { after: before.after, until };
        let canary_work = self.archivist.fetch(&canary, &past.specs, during);
        let fetched = match (past.rules.baseline, &baseline) {
            (Baseline::Concurrent, Some(baseline)) => {
                let baseline_work = self.archivist.fetch(baseline, &past.specs, whole);
                let (canary, baseline) = future::try_join(canary_work, baseline_work).await?;
                Fetched::Beside { canary, baseline }
            }
            (Baseline::Concurrent, None) => {
                let own = self.archivist.fetch(&canary, &past.specs, before);
                let (canary, own) = future::try_join(canary_work, own).await?;
                Fetched::Alone { canary, own }
            }
            (Baseline::Before | Baseline::Offset(_), _) => {
                let of = baseline.as_deref().unwrap_or(&canary);
                let lagged = self.lagged(past, of, before, avoid);
                let (canary, (against, looks)) = future::try_join(canary_work, lagged).await?;
                Fetched::Lagged { canary, against, looks }
            }
        };
        let (past, avoid) = (past.clone(), avoid.to_vec());
        let work = move || {
            let begun = Instant::now();
            let mut material = fetched.material(&past, before);
            material.past.retain(|look| !avoid.iter().any(|avoid| avoid.holds(look.at)));
            let judged = match needs_past && material.past.is_empty() {
                true => Err("nothing is known of the service before".to_owned()),
                false => judge(&past, material, During { started, until }),
            };
            (judged, begun.elapsed().as_secs_f64())
        };
        let judged = tokio::task::spawn_blocking(work).await;
        let (judged, secs) = judged.map_err(|_| {
            Missing::new(Why::NotObserved, "judging failed; this is a defect of rollgate")
        })?;
        Ok((judged.map_err(|why| Missing::new(Why::NotObserved, why))?, secs))
    }

    /// The service itself a while before, and looks at its past on which noise is measured.
    async fn lagged(
        &self,
        past: &PastRules,
        matchers: &str,
        recent: Stretch,
        avoid: &[Stretch],
    ) -> Result<(Against, Vec<PastLook>), Missing> {
        let started = recent.until;
        let mut archive = self.archivist.fetch(matchers, &past.specs, recent).await?;
        let mut looks = past_looks(&mut archive, past, recent);
        let known = if looks.is_empty() { None } else { began(&looks, recent) };
        let question = Question {
            baseline: past.rules.baseline,
            started,
            deadline: past.rules.promote.deadline,
            interval: past.rules.observe.interval,
            known,
            avoid,
        };
        let lag = match lag::choose(question) {
            Ok(Some(lag)) => lag,
            Ok(None) => return Ok((Against::Nothing(String::new()), looks)),
            Err(why) => return Ok((Against::Nothing(why), looks)),
        };
        let older = Stretch { after: back(recent.after, lag.lag), until: back(started, lag.lag) };
        let whole = Stretch { after: older.after, until: lag.stretch.until.max(older.until) };
        let mut archive: Archive = self.archivist.fetch(matchers, &past.specs, whole).await?;
        let until = older.until.min(recent.after);
        let mut before = past_looks(&mut archive, past, Stretch { until, ..older });
        before.append(&mut looks);
        Ok((Against::Before(Box::new(archive), lag), before))
    }
}

/// The samples of one case.
enum Fetched {
    Beside { canary: Archive, baseline: Archive },
    Alone { canary: Archive, own: Archive },
    Lagged { canary: Archive, against: Against, looks: Vec<PastLook> },
}

impl Fetched {
    /// What is judged; noise is measured on the stretch `before` the release.
    fn material(self, past: &PastRules, before: Stretch) -> Material {
        match self {
            Fetched::Beside { canary, mut baseline } => {
                let looks = past_looks(&mut baseline, past, before);
                let is_absent = baseline.resolution().is_none() && past.rules.needs_baseline();
                let why = "the server has no samples of the old version in that time";
                let against = match is_absent {
                    true => Against::Nothing(why.to_owned()),
                    false => Against::Beside(Box::new(baseline)),
                };
                Material { canary, against, past: looks }
            }
            Fetched::Alone { canary, mut own } => {
                let against = Against::Nothing("the release names no baseline".to_owned());
                Material { canary, against, past: past_looks(&mut own, past, before) }
            }
            Fetched::Lagged { canary, against, looks } => Material { canary, against, past: looks },
        }
    }
}

/// Instances of a window are looked for a little after it began: a scrape has to have been.
const HEAD_START: Duration = Duration::from_secs(60);

/// How late the look at the deadline may be.
const LATE_LOOK: Duration = Duration::from_secs(300);

fn split(result: Result<(Judged, f64), String>) -> (Result<Judged, String>, f64) {
    match result {
        Ok((judged, secs)) => (Ok(judged), secs),
        Err(why) => (Err(why), 0.0),
    }
}
