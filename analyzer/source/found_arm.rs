//! An arm whose instances are found: who belongs to it at a look, and whose silence is believed.
//!
//! Between two answers of a discovery an instance may have gone, and whoever scales down or replaces
//! does not wait for us. So the silence of a found instance is missing data until the discovery, asked
//! again since, has named it once more: only then is it an instance that is down. A discovery that
//! does not answer can therefore roll nothing back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    discovery::{Matches, finder::Finder},
    excerpt::in_words,
    target::Target,
};
use crate::{
    engine::observation::{Missing, Why},
    signal::sample::InstanceReading,
};

/// An arm of found instances. Clones share what they know.
#[derive(Clone, Debug)]
pub struct FoundArm {
    finder: Arc<Finder>,
    matches: Matches,
    /// Instances that do not answer, and since when.
    silent: Arc<Mutex<BTreeMap<Arc<str>, Instant>>>,
}

impl FoundArm {
    /// Those of a discovery that match.
    pub fn new(finder: Arc<Finder>, matches: Matches) -> Self {
        Self { finder, matches, silent: Arc::default() }
    }

    /// Its discovery in words: `discovery pods with version=v2`.
    pub fn words(&self) -> String {
        format!("{}{}", self.finder.about(), self.matches.words())
    }

    /// How many instances are known now.
    pub fn count(&self) -> usize {
        let known = self.finder.known();
        known.listed.iter().filter(|listed| self.matches.holds(&listed.labels)).count()
    }

    /// Its instances as far as they are known now. Only the very first answer is waited for.
    pub(super) async fn targets(&self, wait: Duration) -> Result<Vec<Target>, Missing> {
        let known = self.finder.known_within(wait).await;
        let about = self.finder.about();
        let fault = known.fault.as_deref();
        let Some(asked) = known.asked else {
            let words = fault.unwrap_or("has not answered yet");
            return Err(Missing::new(Why::NotObserved, format!("{about}: {words}")));
        };
        let age = asked.elapsed();
        if age > self.finder.pace().stale {
            let words = fault.unwrap_or("is not asked any more");
            let detail = format!("{about}: last answered {} ago: {words}", in_words(age));
            return Err(Missing::new(Why::Stale, detail));
        }
        let mine = known.listed.iter().filter(|listed| self.matches.holds(&listed.labels));
        let mine: Vec<Target> = mine.map(|listed| listed.target.clone()).collect();
        if mine.is_empty() {
            let detail = match known.listed.len() {
                0 => format!("{about}: found no target"),
                all => {
                    format!("{about}: found no target{} (of {all} in all)", self.matches.words())
                }
            };
            return Err(Missing::new(Why::NotObserved, detail));
        }
        Ok(mine)
    }

    /// Takes back the silence of instances that may be gone.
    pub(super) fn weigh(&self, readings: &mut [InstanceReading], begun: Instant) {
        let known = self.finder.known();
        let settle = self.finder.pace().settle;
        let is_named = |name: &str| {
            let mut all = known.listed.iter();
            all.any(|listed| &**listed.target.name() == name && self.matches.holds(&listed.labels))
        };
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|name, _| readings.iter().any(|reading| reading.instance == *name));
        let mut is_doubted = false;
        for reading in readings {
            if !is_silent(reading) {
                silent.remove(&reading.instance);
                continue;
            }
            let since = *silent.entry(reading.instance.clone()).or_insert(begun);
            let is_asked_since = known.asked.is_some_and(|asked| asked > since + settle);
            if !is_named(base_name(&reading.instance)) {
                withdraw(reading, &format!("{} names it no more", self.finder.about()));
            } else if !is_asked_since {
                is_doubted = true;
                let about = self.finder.about();
                withdraw(reading, &format!("{about} has yet to say whether it is still there"));
            }
        }
        drop(silent);
        if is_doubted {
            self.finder.hurry();
        }
    }
}

/// Whether an instance did not answer, be it the scrape or a probe. What it answers is its word.
fn is_silent(reading: &InstanceReading) -> bool {
    let scrape = matches!(&reading.samples, Err(missing) if missing.why == Why::ScrapeFailed);
    scrape || reading.probes.iter().any(|probe| is_unanswered(&probe.answer))
}

fn is_unanswered(answer: &Result<crate::signal::sample::ProbeAnswer, Missing>) -> bool {
    answer.as_ref().is_ok_and(|answer| answer.latency_secs.is_none())
}

fn withdraw(reading: &mut InstanceReading, why: &str) {
    let missing = |words: &str| {
        Missing::new(Why::NotObserved, format!("{}: {words}; {why}", reading.instance))
    };
    if let Err(found) = &reading.samples
        && found.why == Why::ScrapeFailed
    {
        let name = format!("{}: ", reading.instance);
        let words = found.detail.strip_prefix(&name).unwrap_or(&found.detail);
        reading.samples = Err(missing(words));
    }
    for probe in &mut reading.probes {
        if is_unanswered(&probe.answer) {
            probe.answer = Err(Missing::new(
                Why::NotObserved,
                format!("{}: its health endpoint is silent; {why}", reading.instance),
            ));
        }
    }
}

/// The name without what tells two targets of one name apart.
fn base_name(name: &str) -> &str {
    name.rsplit_once('#').map_or(name, |(base, _)| base)
}
