//! The rule files that new analyses can begin with: of each the version in use, and what is wrong
//! with what lies on the disk, when something is.
//!
//! A text that loads is in use from then on. One that does not leaves the version before in use, and
//! is named once. A file that is gone is not used for new analyses: who takes a file away means it;
//! should it come back and not load, the version before is still there. Running analyses never ask
//! here: they keep the text that they began with.
//!
//! Nothing here reads a file or the clock: [`super::rule_reload`] does.

use std::{
    collections::BTreeMap,
    panic::catch_unwind,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use super::rule_files::FILES_MAX;
use crate::{
    api::desk::{FaultView, IgnoredFile, RuleFileView, RuleFiles},
    engine::observation::Time,
    rulefile::{self, Fault},
    store::StoredRules,
    telemetry::{Telemetry, rules::VersionFact},
};

/// How long a file that is gone is remembered.
pub const GONE_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Names of other rule files that are told to who asks for one that is not there.
const KNOWN_TOLD_MAX: usize = 20;

/// A text that loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleVersion {
    /// Name of the rule file, as orders give it.
    pub name: String,
    /// Its file in the directory.
    pub file: String,
    /// The whole text.
    pub text: String,
    /// SHA-256 of it, in hex.
    pub sha256: String,
    /// When it was taken into use.
    pub loaded: Time,
    /// What is to be said against it, though it loads.
    pub warnings: Vec<FaultView>,
}

/// What a reading led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing that was not known.
    Same,
    /// This is in use from now on.
    InUse(Arc<RuleVersion>),
    /// It does not load; what was in use stays.
    Refused,
}

/// The shelf. Cheap to clone; clones are the same shelf.
#[derive(Clone)]
pub struct RuleShelf {
    entries: Arc<RwLock<Entries>>,
    telemetry: Telemetry,
}

#[derive(Default)]
struct Entries {
    files: BTreeMap<String, Entry>,
    ignored: Vec<IgnoredFile>,
    directory_fault: Option<String>,
}

struct Entry {
    file: String,
    in_use: Option<Arc<RuleVersion>>,
    state: State,
    since: Time,
}

enum State {
    Good,
    Bad(Refused),
    Gone,
}

/// A text that does not load, or the reason why there is none.
#[derive(Clone, PartialEq)]
struct Refused {
    sha256: Option<String>,
    faults: Vec<FaultView>,
    more: usize,
}

impl RuleShelf {
    /// An empty shelf.
    pub fn new(telemetry: Telemetry) -> Self {
        Self { entries: Arc::default(), telemetry }
    }

    /// Puts back what a run before had in use. What this program no longer loads is left out.
    pub fn restore(&self, stored: Vec<StoredRules>, now: Time) {
        for StoredRules { name, text, loaded } in stored {
            let file = format!("{name}.yaml");
            match load(&file, &text) {
                Ok(warnings) => {
                    let sha256 = rulefile::sha256_hex(&text);
                    let version =
                        RuleVersion { name: name.clone(), file, text, sha256, loaded, warnings };
                    let file = version.file.clone();
                    let in_use = Some(Arc::new(version));
                    // Until its file is found it is not there.
                    let entry = Entry { file, in_use, state: State::Gone, since: now };
                    self.write(|entries| entries.files.insert(name, entry));
                }
                Err(refused) => {
                    self.telemetry.rules().forgotten(&name, &words(&file, &refused).join("; "));
                }
            }
        }
    }

    /// What the directory holds now under a name: a text, or the reason why it cannot be read.
    pub fn take(
        &self,
        name: &str,
        file: &str,
        reading: Result<String, String>,
        now: Time,
    ) -> Taken {
        let sha256 = reading.as_ref().ok().map(|text| rulefile::sha256_hex(text));
        if let Some(taken) = self.is_known(name, file, sha256.as_deref(), now) {
            return taken;
        }
        // Judged without the lock: a large file must not hold up who only reads.
        let judged = match reading {
            Ok(text) => load(file, &text).map(|warnings| (text, warnings)),
            Err(why) => Err(Refused::whole(why)),
        };
        match judged {
            Ok((text, warnings)) => {
                let version = Arc::new(RuleVersion {
                    name: name.to_owned(),
                    file: file.to_owned(),
                    sha256: sha256.unwrap_or_default(),
                    text,
                    loaded: now,
                    warnings,
                });
                let (file, in_use) = (file.to_owned(), Some(version.clone()));
                let entry = Entry { file, in_use, state: State::Good, since: now };
                self.write(|entries| entries.files.insert(name.to_owned(), entry));
                self.telemetry.rules().in_use(name, version.fact());
                Taken::InUse(version)
            }
            Err(refused) => self.refuse(name, file, Refused { sha256, ..refused }, now),
        }
    }

    /// Whether taking this text would change nothing.
    pub fn knows(&self, name: &str, sha256: &str) -> bool {
        self.read(|entries| {
            entries.files.get(name).is_some_and(|entry| match &entry.state {
                State::Good => {
                    entry.in_use.as_ref().is_some_and(|version| version.sha256 == sha256)
                }
                State::Bad(refused) => refused.sha256.as_deref() == Some(sha256),
                State::Gone => false,
            })
        })
    }

    /// Whether a text is the one in use, or the one that was refused last.
    fn is_known(&self, name: &str, file: &str, sha256: Option<&str>, now: Time) -> Option<Taken> {
        let sha256 = sha256?;
        let mended = self.write(|entries| {
            let entry = entries.files.get_mut(name)?;
            if matches!(&entry.state, State::Bad(bad) if bad.sha256.as_deref() == Some(sha256)) {
                return Some(None);
            }
            let version = entry.in_use.clone().filter(|version| version.sha256 == sha256)?;
            file.clone_into(&mut entry.file);
            if matches!(entry.state, State::Good) {
                return Some(None);
            }
            (entry.state, entry.since) = (State::Good, now);
            Some(Some(version))
        })?;
        if let Some(version) = mended {
            self.telemetry.rules().in_use(name, version.fact());
        }
        Some(Taken::Same)
    }

    fn refuse(&self, name: &str, file: &str, refused: Refused, now: Time) -> Taken {
        let told = words(file, &refused).join("; ");
        let in_use = self.write(|entries| {
            let entry = entries.files.entry(name.to_owned()).or_insert_with(|| Entry {
                file: file.to_owned(),
                in_use: None,
                state: State::Gone,
                since: now,
            });
            if matches!(&entry.state, State::Bad(before) if *before == refused) {
                return None;
            }
            file.clone_into(&mut entry.file);
            if !matches!(entry.state, State::Bad(_)) {
                entry.since = now;
            }
            entry.state = State::Bad(refused);
            Some(entry.in_use.as_ref().map(|version| version.sha256.clone()))
        });
        match in_use {
            None => Taken::Same,
            Some(in_use) => {
                self.telemetry.rules().refused(name, &told, in_use.as_deref());
                Taken::Refused
            }
        }
    }

    /// A file is not there any more.
    pub fn gone(&self, name: &str, now: Time) {
        let is_news = self.write(|entries| {
            let Some(entry) = entries.files.get_mut(name) else { return false };
            if matches!(entry.state, State::Gone) {
                return false;
            }
            (entry.state, entry.since) = (State::Gone, now);
            true
        });
        if is_news {
            self.telemetry.rules().gone(name);
        }
    }

    /// Forgets files that have been gone for long, and the longest gone when there are too many;
    /// says which.
    pub fn forget_gone(&self, now: Time) -> Vec<String> {
        self.write(|entries| {
            let gone = |entry: &Entry| matches!(entry.state, State::Gone);
            let mut forgotten: Vec<(Time, String)> = entries
                .files
                .iter()
                .filter(|(_, entry)| gone(entry))
                .map(|(name, entry)| (entry.since, name.clone()))
                .collect();
            forgotten.sort();
            let surplus = entries.files.len().saturating_sub(FILES_MAX);
            let old = forgotten.iter().filter(|(since, _)| now.since(*since) >= GONE_KEPT).count();
            forgotten.truncate(surplus.max(old));
            let names: Vec<String> = forgotten.into_iter().map(|(_, name)| name).collect();
            for name in &names {
                entries.files.remove(name);
            }
            names
        })
    }

    /// Names of the files that were there at the last look.
    pub fn present(&self) -> Vec<String> {
        self.read(|entries| {
            let there =
                entries.files.iter().filter(|(_, entry)| !matches!(entry.state, State::Gone));
            there.map(|(name, _)| name.clone()).collect()
        })
    }

    /// Whether the directory could be listed, and which of its files are not taken.
    pub fn listed(&self, directory: Result<Vec<IgnoredFile>, String>) {
        let is_news = self.write(|entries| match directory {
            Ok(ignored) => {
                let new: Vec<IgnoredFile> = ignored
                    .iter()
                    .filter(|file| !entries.ignored.contains(file))
                    .cloned()
                    .collect();
                entries.ignored = ignored;
                let was_lost = entries.directory_fault.take().is_some();
                (was_lost.then_some(None), new)
            }
            Err(why) if entries.directory_fault.as_ref() == Some(&why) => (None, Vec::new()),
            Err(why) => {
                entries.directory_fault = Some(why.clone());
                (Some(Some(why)), Vec::new())
            }
        });
        let (directory, ignored) = is_news;
        if let Some(fault) = directory {
            self.telemetry.rules().directory(fault.as_deref());
        }
        for IgnoredFile { file, why } in ignored {
            self.telemetry.rules().ignored(&file, &why);
        }
        let (good, bad) = self.read(|entries| {
            let count = |is: fn(&State) -> bool| {
                entries.files.values().filter(|entry| is(&entry.state)).count()
            };
            (
                count(|state| matches!(state, State::Good)),
                count(|state| matches!(state, State::Bad(_))),
            )
        });
        self.telemetry.rules().counted(good, bad);
    }

    /// The version that a new analysis begins with.
    ///
    /// # Errors
    /// Why there is none, one entry per fault.
    pub fn version(&self, name: &str) -> Result<Arc<RuleVersion>, Vec<String>> {
        self.read(|entries| {
            let Some(entry) = entries.files.get(name) else {
                return Err(vec![entries.unknown(name)]);
            };
            match (&entry.state, &entry.in_use) {
                (State::Good | State::Bad(_), Some(version)) => Ok(version.clone()),
                (State::Bad(refused), None) => Err(words(&entry.file, refused)),
                (State::Gone, _) | (State::Good, None) => Err(vec![format!(
                    "rule file {} is not in the configured directory any more; put it back for new \
                     analyses",
                    entry.file
                )]),
            }
        })
    }

    /// Everything, for who asks.
    pub fn view(&self) -> RuleFiles {
        self.read(|entries| RuleFiles {
            directory_fault: entries.directory_fault.clone(),
            rules: entries.files.iter().map(|(name, entry)| entry.view(name)).collect(),
            ignored: entries.ignored.clone(),
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Entries) -> T) -> T {
        read(&self.entries.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, write: impl FnOnce(&mut Entries) -> T) -> T {
        write(&mut self.entries.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Entries {
    fn unknown(&self, name: &str) -> String {
        let known: Vec<&str> = self
            .files
            .iter()
            .filter(|(_, entry)| !matches!(entry.state, State::Gone))
            .map(|(name, _)| name.as_str())
            .collect();
        let told = match (known.len(), &self.directory_fault) {
            (0, Some(fault)) => format!("which cannot be read: {fault}"),
            (0, None) => "which holds no rule file".to_owned(),
            (1..=KNOWN_TOLD_MAX, _) => format!("known are: {}", known.join(", ")),
            (more, _) => format!("{more} others are"),
        };
        format!("rule file {name}.yaml is not in the configured directory, {told}")
    }
}

impl Entry {
    fn view(&self, name: &str) -> RuleFileView {
        let (state, refused) = match &self.state {
            State::Good => ("good", None),
            State::Bad(refused) => ("bad", Some(refused)),
            State::Gone => ("gone", None),
        };
        // What is gone is not in use, though it is remembered.
        let in_use = self.in_use.as_ref().filter(|_| !matches!(self.state, State::Gone));
        RuleFileView {
            name: name.to_owned(),
            file: self.file.clone(),
            state: state.to_owned(),
            since: self.since.as_secs_f64(),
            sha256: in_use.map(|version| version.sha256.clone()),
            loaded_at: in_use.map(|version| version.loaded.as_secs_f64()),
            refused_sha256: refused.and_then(|refused| refused.sha256.clone()),
            faults: refused.map(|refused| refused.faults.clone()).unwrap_or_default(),
            more_faults: refused.map_or(0, |refused| refused.more),
            warnings: in_use.map(|version| version.warnings.clone()).unwrap_or_default(),
        }
    }
}

impl Refused {
    /// A fault of the file as a whole.
    fn whole(message: String) -> Self {
        let fault = FaultView {
            line: None,
            column: None,
            lint: None,
            message,
            means: None,
            expected: None,
            hint: None,
        };
        Self { sha256: None, faults: vec![fault], more: 0 }
    }
}

impl RuleVersion {
    fn fact(&self) -> VersionFact<'_> {
        VersionFact {
            sha256: &self.sha256,
            loaded_secs: self.loaded.as_secs_f64(),
            warnings: self.warnings.len(),
        }
    }
}

/// The warnings about a text that loads, or why it does not.
fn load(file: &str, text: &str) -> Result<Vec<FaultView>, Refused> {
    // A defect met in one file must not keep the others from being read.
    match catch_unwind(|| rulefile::load(file, text)) {
        Ok(Ok(file)) => Ok(file.warnings.iter().map(fault_view).collect()),
        Ok(Err(faults)) => {
            let views: Vec<FaultView> = faults.iter().map(fault_view).collect();
            let more = faults.count() - views.len();
            Err(Refused { sha256: None, faults: views, more })
        }
        Err(_) => Err(Refused::whole("reading it met a defect of rollgate".to_owned())),
    }
}

fn fault_view(fault: &Fault) -> FaultView {
    FaultView {
        line: Some(fault.line),
        column: Some(fault.column),
        lint: fault.lint.map(str::to_owned),
        message: fault.message.clone(),
        means: fault.means.clone(),
        expected: Some(fault.expected.clone()),
        hint: fault.hint.clone(),
    }
}

/// A refusal in words, a line for each fault.
fn words(file: &str, refused: &Refused) -> Vec<String> {
    let mut words: Vec<String> =
        refused.faults.iter().map(|fault| fault_words(file, fault)).collect();
    if refused.more > 0 {
        words.push(format!("{file}: and {} more faults", refused.more));
    }
    words
}

fn fault_words(file: &str, fault: &FaultView) -> String {
    let place = match (fault.line, fault.column) {
        (Some(line), Some(column)) => format!("{file}:{line}:{column}"),
        (_, _) => file.to_owned(),
    };
    let expected = fault.expected.as_ref().map(|expected| format!("; expected {expected}"));
    let hint = fault.hint.as_ref().map(|hint| format!(" (hint: {hint})"));
    format!(
        "{place}: {}{}{}",
        fault.message,
        expected.unwrap_or_default(),
        hint.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(limit: &str) -> String {
        format!(
            "version: 1\nservice: shop\nsignals:\n  up: {{ health: /health }}\nrules:\n  \
             - {{ when: up is down for {limit} checks, then: rollback }}\npromote: {{ after: 1m }}\n"
        )
    }

    fn shelf() -> RuleShelf {
        RuleShelf::new(Telemetry::new())
    }

    fn state(shelf: &RuleShelf) -> (String, bool, usize) {
        let view = shelf.view();
        let file = &view.rules[0];
        (file.state.clone(), file.sha256.is_some(), file.faults.len())
    }

    #[test]
    fn a_bad_text_leaves_the_good_one_in_use() {
        let (shelf, good) = (shelf(), rules("3"));
        assert!(matches!(
            shelf.take("shop", "shop.yaml", Ok(good.clone()), Time(1)),
            Taken::InUse(_)
        ));
        assert_eq!(shelf.take("shop", "shop.yaml", Ok(good.clone()), Time(2)), Taken::Same);
        assert_eq!(state(&shelf), ("good".to_owned(), true, 0));
        let bad = rules("3").replace("rollback", "roll");
        assert_eq!(shelf.take("shop", "shop.yaml", Ok(bad.clone()), Time(3000)), Taken::Refused);
        assert_eq!(shelf.take("shop", "shop.yaml", Ok(bad.clone()), Time(4000)), Taken::Same);
        assert_eq!(state(&shelf), ("bad".to_owned(), true, 1));
        let view = shelf.view().rules.remove(0);
        assert_eq!((view.since, view.loaded_at), (3.0, Some(0.001)));
        assert_eq!(view.refused_sha256, Some(rulefile::sha256_hex(&bad)));
        assert_eq!((view.faults[0].line, view.faults[0].column), (Some(6), Some(44)));
        assert_eq!(shelf.version("shop").expect("in use").text, good);
        // Another bad text is news, and bad since the first.
        let unread = Err("it cannot be read: permission denied".to_owned());
        assert_eq!(shelf.take("shop", "shop.yaml", unread.clone(), Time(5000)), Taken::Refused);
        assert_eq!(shelf.take("shop", "shop.yaml", unread, Time(6000)), Taken::Same);
        assert_eq!(shelf.view().rules[0].since, 3.0);
        // The good one again is not loaded anew, another one is.
        assert_eq!(shelf.take("shop", "shop.yaml", Ok(good), Time(7000)), Taken::Same);
        assert_eq!(state(&shelf), ("good".to_owned(), true, 0));
        assert!(matches!(
            shelf.take("shop", "shop.yaml", Ok(rules("4")), Time(8)),
            Taken::InUse(_)
        ));
    }

    #[test]
    fn a_file_that_never_loaded_is_refused_with_its_faults() {
        let shelf = shelf();
        shelf.take("shop", "shop.yaml", Ok("version: 2\n".to_owned()), Time(1));
        let faults = shelf.version("shop").expect_err("bad from the start");
        assert!(faults[0].starts_with("shop.yaml:1:"), "{faults:?}");
        let faults = shelf.version("till").expect_err("not there");
        assert!(
            faults[0].contains("till.yaml is not in the configured directory, known are: shop")
        );
    }

    #[test]
    fn a_file_that_is_gone_is_remembered_for_a_day() {
        let shelf = shelf();
        shelf.take("shop", "shop.yml", Ok(rules("3")), Time(0));
        shelf.gone("shop", Time(1000));
        assert_eq!(state(&shelf), ("gone".to_owned(), false, 0));
        let why = shelf.version("shop").expect_err("gone");
        assert!(why[0].contains("shop.yml is not in the configured directory any more"), "{why:?}");
        // It comes back and does not load: the version before is still there.
        assert_eq!(shelf.take("shop", "shop.yml", Ok(String::new()), Time(2000)), Taken::Refused);
        assert_eq!(shelf.version("shop").expect("in use").text, rules("3"));
        shelf.gone("shop", Time(3000));
        let day = 24 * 3600 * 1000;
        assert!(shelf.forget_gone(Time(2000 + day)).is_empty());
        assert_eq!(shelf.forget_gone(Time(3000 + day)), ["shop"]);
        assert!(shelf.view().rules.is_empty());
    }

    #[test]
    fn a_restart_beside_a_broken_file_keeps_the_version_before() {
        let shelf = shelf();
        let stored = |name: &str, text: String| StoredRules {
            name: name.to_owned(),
            text,
            loaded: Time(5000),
        };
        shelf.restore(
            vec![stored("old", "version: 0".to_owned()), stored("shop", rules("3"))],
            Time(9),
        );
        assert_eq!(shelf.view().rules.len(), 1, "what does not load any more is forgotten");
        assert_eq!(state(&shelf).0, "gone", "until the directory is read");
        shelf.take("shop", "shop.yaml", Ok("broken".to_owned()), Time(9000));
        assert_eq!(shelf.version("shop").expect("in use").loaded, Time(5000));
        assert_eq!(shelf.view().rules[0].loaded_at, Some(5.0));
    }
}
