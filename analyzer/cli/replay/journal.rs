//! A stored analysis judged again, by the rules it began with or by others.
//!
//! The journal holds what each *signal* amounted to, not what targets said. So other rules are judged
//! on the signals that the analysis read: a signal of the other file is taken from the journal when
//! it reads the same series, whatever its name. One that reads something else was not observed, and
//! its rules say so. The interval, the warm-up and the baseline are those of the analysis.

use std::{path::Path, sync::Arc};

use crate::{
    cli::UsageError,
    engine::{
        calibration::Calibration,
        observation::{Missing, Observation, Pair, Part, Reading, Value, Why},
    },
    report::shape::{Report, RulesRef},
    rulefile::RuleFile,
    service::case::{Case, override_hold, stored_report},
    signal::spec::{Reads, SignalSpec},
    store::{Filter, Store, StoreError, sqlite::SqliteStore},
};

use super::fold::{Fold, Outcome};

/// Observations read at once.
const PAGE: u32 = 512;

/// Analyses that are offered when the one asked for is not there.
const OFFERED_MAX: u32 = 5;

/// One stored analysis.
pub struct Stored {
    store: SqliteStore,
    case: Case,
    report: Option<Report>,
}

impl Stored {
    /// Finds an analysis in the store at `path`, which is only read.
    ///
    /// # Errors
    /// When there is no such store, no such analysis, or its order or rules cannot be read.
    pub async fn open(path: &Path, id: &str) -> anyhow::Result<Self> {
        let store = SqliteStore::open_to_read(path).await.map_err(|error| match error {
            StoreError::Unusable { .. } => anyhow::Error::from(UsageError(error.to_string())),
            StoreError::Database { .. }
            | StoreError::Unreadable { .. }
            | StoreError::Unwritable { .. }
            | StoreError::OutOfOrder { .. } => error.into(),
        })?;
        let Some(stored) = store.analysis(id).await? else {
            let newest = Filter {
                service: None,
                state: None,
                verdict: None,
                after: None,
                limit: OFFERED_MAX,
            };
            let offered = store.list(newest).await?;
            let offered: Vec<String> = offered
                .iter()
                .map(|stored| format!("{} ({})", stored.new.id, stored.new.service))
                .collect();
            let hint = match offered.is_empty() {
                true => "it holds none".to_owned(),
                false => format!("the newest are {}", offered.join(", ")),
            };
            let at = path.display();
            return Err(UsageError(format!("no analysis {id} in {at}; {hint}")).into());
        };
        let case = Case::of(&stored)?;
        // One that cannot be read is no reason not to judge the looks again.
        let report = stored_report(&stored).ok().flatten();
        Ok(Self { store, case, report })
    }

    /// Name and SHA-256 of the rule file it began with.
    pub fn rules(&self) -> &RulesRef {
        &self.case.rules_ref
    }

    /// What was concluded when it was judged first; none before its first look.
    pub fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    /// Judges it by the rules it began with, and with its own hold unless another is given.
    ///
    /// # Errors
    /// When the journal cannot be read, or is empty.
    pub async fn judge(&self, hold_secs: Option<f64>) -> anyhow::Result<Outcome> {
        let mut rules = self.case.rules.clone();
        if let Some(hold_secs) = hold_secs {
            override_hold(Arc::make_mut(&mut rules), hold_secs);
        }
        let fold = Fold::new(rules, self.case.started, &self.case.calibration);
        self.fold(fold, |observation| observation).await
    }

    /// Judges it by other rules. The hold that was ordered holds for them too, unless another is given.
    ///
    /// # Errors
    /// When the journal cannot be read, or is empty.
    pub async fn judge_by(
        &self,
        file: &RuleFile,
        hold_secs: Option<f64>,
    ) -> anyhow::Result<Outcome> {
        let mut rules = file.rules.clone();
        if let (None, Some(hold_secs)) = (hold_secs, self.case.order.hold_secs) {
            override_hold(&mut rules, hold_secs);
        }
        let read = Read::of(&self.case.specs, &file.specs);
        let calibration = read.calibration(&self.case.calibration);
        let fold = Fold::new(rules.into(), self.case.started, &calibration);
        self.fold(fold, |observation| read.observation(&observation)).await
    }

    async fn fold(
        &self,
        mut fold: Fold,
        read: impl Fn(Observation) -> Observation,
    ) -> anyhow::Result<Outcome> {
        loop {
            let page = self.store.journal(&self.case.id, fold.looks(), PAGE).await?;
            if page.is_empty() {
                return fold.end();
            }
            for (_, observation) in page {
                if !fold.look(&read(observation)) {
                    return fold.end();
                }
            }
        }
    }
}

/// Where each signal of another rule file stands in the journal.
struct Read {
    places: Vec<Place>,
}

enum Place {
    /// At this index, as it is.
    Same(usize),
    /// At this index, as another quantile: of what was counted, not of what a summary told.
    OtherQuantile(usize),
    Nowhere,
}

impl Read {
    fn of(journaled: &[SignalSpec], asked: &[SignalSpec]) -> Self {
        let place = |asked: &SignalSpec| {
            let find = |same: fn(&Reads, &Reads) -> bool| {
                journaled.iter().position(|known| same(&known.reads, &asked.reads))
            };
            match find(reads_alike) {
                Some(index) => Place::Same(index),
                None => find(counts_alike).map_or(Place::Nowhere, Place::OtherQuantile),
            }
        };
        Self { places: asked.iter().map(place).collect() }
    }

    fn observation(&self, observation: &Observation) -> Observation {
        let signals = self.places.iter().map(|place| place.pair(&observation.signals));
        Observation {
            at: observation.at,
            signals: signals.collect(),
            canary_gap: observation.canary_gap.clone(),
            instances: observation.instances,
        }
    }

    fn calibration(&self, calibration: &Calibration) -> Calibration {
        let signals = self.places.iter().map(|place| match place {
            Place::Same(index) => calibration.signals.get(*index).copied().flatten(),
            Place::OtherQuantile(_) | Place::Nowhere => None,
        });
        Calibration { signals: signals.collect() }
    }
}

impl Place {
    fn pair(&self, journaled: &[Pair]) -> Pair {
        let nowhere = || Missing::new(Why::NotObserved, "the analysis read no such series");
        match self {
            Place::Same(index) => match journaled.get(*index) {
                Some(pair) => pair.clone(),
                None => Pair::new(Err(nowhere()), Err(nowhere())),
            },
            Place::OtherQuantile(index) => match journaled.get(*index) {
                Some(pair) => {
                    let mut pair = pair.clone();
                    pair.canary = counted(pair.canary);
                    pair.baseline = counted(pair.baseline);
                    let is_counted = |part: &Part| part.value.histogram().is_some();
                    pair.parts.canary.retain(is_counted);
                    pair.parts.baseline.retain(is_counted);
                    pair
                }
                None => Pair::new(Err(nowhere()), Err(nowhere())),
            },
            Place::Nowhere => Pair::new(Err(nowhere()), Err(nowhere())),
        }
    }
}

/// A reading that holds whatever quantile is asked.
fn counted(reading: Reading) -> Reading {
    match reading {
        Ok(Value::Level(_)) => Err(Missing::new(
            Why::NotObserved,
            "a summary told another quantile, and the analysis kept no other",
        )),
        counted => counted,
    }
}

/// Whether both read the same series in the same way. A compiled pattern is equal to another when its
/// text is.
fn reads_alike(one: &Reads, other: &Reads) -> bool {
    format!("{one:?}") == format!("{other:?}")
}

/// Whether both count the same histogram, whatever quantile of it they ask for.
fn counts_alike(one: &Reads, other: &Reads) -> bool {
    match (one, other) {
        (Reads::Histogram { of: one, .. }, Reads::Histogram { of: other, .. }) => {
            format!("{one:?}") == format!("{other:?}")
        }
        _ => false,
    }
}
