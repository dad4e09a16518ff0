//! Keeps the shelf of rule files true to the directory: looks about once a second, and at once when
//! somebody asks.
//!
//! A changed file is taken when all readings of half a second, two at least, gave the same bytes:
//! editors and deploy tools write in pieces, and half a rule file may load and lack the other half
//! of its rules. So is a file that is gone. At the start what is there is taken as it is.
//! A directory that cannot be listed changes nothing. What is in use is kept in the store, so that a
//! restart beside a broken file goes on with the version before.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    driver::chain,
    rule_files::{self, Stamp},
    rule_shelf::{RuleShelf, Taken},
};
use crate::{
    api::desk::IgnoredFile,
    deliver::Clock,
    rulefile,
    store::{Store, StoredRules},
    telemetry::Telemetry,
};

/// Time between two looks at the directory.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Time for which a file that changed has to hold still.
const SETTLE: Duration = Duration::from_millis(500);

/// How long who asks waits for a look; then what is on the shelf has to do.
const ASK_WAIT: Duration = Duration::from_secs(3);

/// Askers that may wait for the next look; further ones do not wait.
const ASKS_MAX: usize = 1024;

/// Asks for a look at the directory. Cheap to clone.
#[derive(Clone)]
pub struct RuleAsker {
    asks: mpsc::Sender<Ask>,
}

struct Ask {
    how: How,
    done: oneshot::Sender<()>,
}

/// How closely the directory is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Files that seem unchanged are not read.
    Changed,
    /// Every file is read.
    All,
}

impl RuleAsker {
    /// Returns once the shelf holds what the directory holds now, or after some seconds.
    pub async fn refresh(&self) {
        self.ask(How::Changed).await;
    }

    /// The same, and every file is read, whatever its times say.
    pub async fn reload(&self) {
        self.ask(How::All).await;
    }

    async fn ask(&self, how: How) {
        let (done, answer) = oneshot::channel();
        if self.asks.try_send(Ask { how, done }).is_ok() {
            // Too late, or stopping: either way there is nothing to wait for any more.
            let _ = timeout(ASK_WAIT, answer).await;
        }
    }
}

/// The parts of the task.
pub struct RuleReload {
    store: Arc<dyn Store>,
    telemetry: Telemetry,
    asks: mpsc::Receiver<Ask>,
    survey: Survey,
    unsaved: BTreeMap<String, Option<StoredRules>>,
}

/// Takes up what was in use before, reads the directory once, and gives what keeps it true.
pub async fn open(
    directory: PathBuf,
    store: Arc<dyn Store>,
    telemetry: Telemetry,
    now: Clock,
) -> anyhow::Result<(RuleShelf, RuleAsker, RuleReload)> {
    let shelf = RuleShelf::new(telemetry.clone());
    shelf.restore(store.kept_rules().await?, (now)());
    let (asks, waiting) = mpsc::channel(ASKS_MAX);
    let survey = Survey {
        directory,
        shelf: shelf.clone(),
        now,
        seen: BTreeMap::new(),
        missed: BTreeMap::new(),
    };
    let mut reload =
        RuleReload { store, telemetry, asks: waiting, survey, unsaved: BTreeMap::new() };
    reload.round(Round { how: How::All, is_first: true, at: Instant::now() }).await;
    Ok((shelf, RuleAsker { asks }, reload))
}

impl RuleReload {
    /// Works until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut is_settled = true;
        let mut asked = Vec::with_capacity(ASKS_MAX);
        loop {
            let pause = if is_settled { POLL_INTERVAL } else { SETTLE };
            tokio::select! {
                () = stop.cancelled() => return,
                taken = self.asks.recv_many(&mut asked, ASKS_MAX) => if taken == 0 { return },
                () = sleep(pause) => {}
            }
            let reads_all = asked.iter().any(|ask| ask.how == How::All);
            let how = if reads_all { How::All } else { How::Changed };
            is_settled = self.round(Round { how, is_first: false, at: Instant::now() }).await;
            if !asked.is_empty() && !is_settled {
                sleep(SETTLE).await;
                let round = Round { how: How::Changed, is_first: false, at: Instant::now() };
                is_settled = self.round(round).await;
            }
            for ask in asked.drain(..) {
                // Who does not wait any more needs no answer.
                let _ = ask.done.send(());
            }
        }
    }

    /// One look at the directory; false when something changed and is to be read once more.
    async fn round(&mut self, round: Round) -> bool {
        let mut survey = self.survey.clone();
        // Reading files may take long on a network mount: not on a thread that others wait for.
        let looked = tokio::task::spawn_blocking(move || {
            let outcome = survey.look(round);
            (survey, outcome)
        });
        let Ok((survey, outcome)) = looked.await else { return true };
        self.survey = survey;
        self.unsaved.extend(outcome.to_save);
        self.save().await;
        outcome.is_settled
    }

    /// Writes what changed. A store that fails is tried again at the next look: what is in use is so
    /// whether or not a restart would know.
    async fn save(&mut self) {
        while let Some((name, rules)) = self.unsaved.pop_first() {
            let saved = match rules.clone() {
                Some(rules) => self.store.keep_rules(rules).await,
                None => self.store.forget_rules(&name).await,
            };
            if let Err(error) = saved {
                self.telemetry.rules().unsaved(&name, &chain(&error));
                self.unsaved.insert(name, rules);
                return;
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Round {
    how: How,
    is_first: bool,
    at: Instant,
}

/// What is remembered of the directory from look to look.
#[derive(Clone)]
struct Survey {
    directory: PathBuf,
    shelf: RuleShelf,
    now: Clock,
    seen: BTreeMap<String, Seen>,
    /// Files that were not there at the last look, and since when.
    missed: BTreeMap<String, Instant>,
}

#[derive(Clone, Default)]
struct Seen {
    /// Of the reading that was taken.
    taken: Option<Stamp>,
    /// What the last reading gave, and the first that gave the same, when that has to be confirmed.
    unconfirmed: Option<(Result<String, String>, Instant)>,
}

struct Outcome {
    is_settled: bool,
    to_save: Vec<(String, Option<StoredRules>)>,
}

impl Survey {
    fn look(&mut self, round: Round) -> Outcome {
        let mut outcome = Outcome { is_settled: true, to_save: Vec::new() };
        let listing = match rule_files::list(&self.directory) {
            Ok(listing) => listing,
            Err(error) => {
                let directory = self.directory.display();
                self.shelf.listed(Err(format!("{directory} cannot be listed: {error}")));
                return outcome;
            }
        };
        self.seen.retain(|name, _| listing.files.contains_key(name));
        for (name, listed) in &listing.files {
            let seen = self.seen.entry(name.clone()).or_default();
            if round.how == How::Changed && seen.taken == Some(listed.stamp) {
                seen.unconfirmed = None;
                continue;
            }
            let reading = rule_files::read(&listed.path);
            let digest = match &reading {
                Ok(text) => Ok(rulefile::sha256_hex(text)),
                Err(why) => Err(why.clone()),
            };
            // Looks that are asked for may come soon after one another.
            let same = seen.unconfirmed.take().filter(|(before, _)| *before == digest);
            let since = same.as_ref().map_or(round.at, |(_, since)| *since);
            let is_confirmed = same.is_some() && round.at.duration_since(since) >= SETTLE;
            let is_known = digest.as_ref().is_ok_and(|digest| self.shelf.knows(name, digest));
            // What was read once only is read once more, whatever came of it.
            seen.taken = is_confirmed.then_some(listed.stamp);
            seen.unconfirmed = (!is_confirmed).then_some((digest, since));
            if is_known {
                continue;
            }
            if !is_confirmed && !round.is_first {
                outcome.is_settled = false;
                continue;
            }
            if let Taken::InUse(version) =
                self.shelf.take(name, &listed.file, reading, (self.now)())
            {
                let (text, loaded) = (version.text.clone(), version.loaded);
                let stored = StoredRules { name: name.clone(), text, loaded };
                outcome.to_save.push((name.clone(), Some(stored)));
            }
        }
        self.look_for_gone(round, &listing.files.into_keys().collect(), &mut outcome);
        let ignored = listing.ignored.into_iter().map(|(file, why)| IgnoredFile { file, why });
        self.shelf.listed(Ok(ignored.collect()));
        outcome
    }

    /// A file that is swapped for another may be missing for a moment: what is not there for as long
    /// as a file has to hold still is gone.
    fn look_for_gone(&mut self, round: Round, there: &BTreeSet<String>, outcome: &mut Outcome) {
        let now = (self.now)();
        let missing = self.shelf.present().into_iter().filter(|name| !there.contains(name));
        let missed: BTreeMap<String, Instant> = missing
            .map(|name| {
                let since = self.missed.get(&name).copied().unwrap_or(round.at);
                (name, since)
            })
            .collect();
        for (name, since) in &missed {
            if round.is_first || round.at.duration_since(*since) >= SETTLE {
                self.shelf.gone(name, now);
            } else {
                outcome.is_settled = false;
            }
        }
        self.missed = missed;
        let forgotten = self.shelf.forget_gone(now);
        outcome.to_save.extend(forgotten.into_iter().map(|name| (name, None)));
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::{api::desk::RuleFileView, engine::observation::Time, store::sqlite::SqliteStore};

    /// A file of so many rules; a piece of it that ends with a rule loads too.
    fn rules(count: usize) -> String {
        let head = "version: 1\nservice: shop\npromote: { after: 1m }\nsignals:\n  app: { health: /health }\nrules:\n";
        let rule =
            |number| format!("  - {{ when: app is down for {number} checks, then: rollback }}\n");
        head.to_owned() + &(3..3 + count).map(rule).collect::<String>()
    }

    /// One look, so long after the last.
    async fn look(reload: &mut RuleReload, at: &mut Instant, after: Duration) -> bool {
        *at += after;
        reload.round(Round { how: How::Changed, is_first: false, at: *at }).await
    }

    async fn opened(directory: &Path, store: &Arc<dyn Store>) -> (RuleShelf, RuleReload) {
        let now: Clock = Arc::new(|| Time(1000));
        let (directory, store) = (directory.to_owned(), store.clone());
        let opened = open(directory, store, Telemetry::new(), now).await.expect("opens");
        (opened.0, opened.2)
    }

    async fn memory() -> Arc<dyn Store> {
        Arc::new(SqliteStore::in_memory().await.expect("a store"))
    }

    async fn settle(reload: &mut RuleReload, at: &mut Instant) {
        for _ in 0..4 {
            look(reload, at, SETTLE).await;
        }
    }

    fn only(shelf: &RuleShelf) -> RuleFileView {
        shelf.view().rules.remove(0)
    }

    #[tokio::test]
    async fn half_a_file_is_never_taken() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("shop.yaml");
        let (old, whole, half) = (rules(1), rules(4), rules(2));
        assert!(whole.starts_with(&half) && rulefile::load("f", &half).is_ok());
        fs::write(&path, &old).expect("writes");
        let (shelf, mut reload) = opened(dir.path(), &memory().await).await;
        let mut at = Instant::now();
        let in_use = || shelf.version("shop").map(|version| version.text.clone());
        assert_eq!(in_use(), Ok(old.clone()), "at the start what is there is taken");
        // Truncated, then written in pieces, each seen once.
        for piece in ["", &half, &whole[..half.len() + 9], &whole] {
            fs::write(&path, piece).expect("writes");
            assert!(!look(&mut reload, &mut at, SETTLE).await, "{piece}");
            assert_eq!(in_use(), Ok(old.clone()), "{piece}");
        }
        assert!(look(&mut reload, &mut at, SETTLE).await);
        assert_eq!(in_use(), Ok(whole.clone()));
        // However many looks are asked for in between.
        fs::write(&path, &half).expect("writes");
        for _ in 0..9 {
            assert!(!look(&mut reload, &mut at, SETTLE / 10).await);
            assert_eq!(in_use(), Ok(whole.clone()));
        }
        fs::write(&path, &whole).expect("writes");
        settle(&mut reload, &mut at).await;
        // A file that vanishes for one look only, as when it is swapped for another.
        fs::remove_file(&path).expect("removes");
        assert!(!look(&mut reload, &mut at, SETTLE).await);
        fs::write(&path, &whole).expect("writes");
        settle(&mut reload, &mut at).await;
        assert_eq!(only(&shelf).state, "good");
    }

    #[tokio::test]
    async fn a_file_that_did_not_change_is_not_read_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("shop.yaml"), rules(1)).expect("writes");
        let (_, mut reload) = opened(dir.path(), &memory().await).await;
        let mut at = Instant::now();
        let taken = |reload: &RuleReload| reload.survey.seen["shop"].taken;
        // What is in use is settled, and yet confirmed by a second reading.
        assert_eq!(taken(&reload), None);
        assert!(look(&mut reload, &mut at, SETTLE).await);
        assert!(taken(&reload).is_some());
        // When all are asked for, times count for nothing.
        assert!(reload.round(Round { how: How::All, is_first: false, at }).await);
        assert_eq!(taken(&reload), None);
    }

    /// Whatever is done to a directory, the shelf ends where a plain account of it does, and so does
    /// one that is opened anew.
    #[tokio::test]
    async fn the_shelf_follows_any_changes() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = memory().await;
        let (mut shelf, mut reload) = opened(dir.path(), &store).await;
        let mut at = Instant::now();
        // Of each file the text on the disk and the last that loaded.
        let mut account: BTreeMap<&str, (Option<String>, Option<String>)> = BTreeMap::new();
        for step in 0..120 {
            let name = ["shop", "till", "mail"][rng.random_range(0..3)];
            let path = dir.path().join(format!("{name}.yaml"));
            let text = match rng.random_range(0..6) {
                0 => None,
                1 => Some("version: 2\n".to_owned()),
                2 => Some("rules: [".repeat(rng.random_range(1..4))),
                _ => Some(rules(rng.random_range(1..4))),
            };
            match &text {
                None => drop(fs::remove_file(&path)),
                Some(text) if rng.random_bool(0.5) => fs::write(&path, text).expect("writes"),
                Some(text) => {
                    let beside = dir.path().join(".new");
                    fs::write(&beside, text).expect("writes");
                    fs::rename(&beside, &path).expect("renames");
                }
            }
            let known = account.entry(name).or_default();
            let is_good = text.as_ref().is_some_and(|text| rulefile::load("f", text).is_ok());
            known.1 = if is_good { text.clone() } else { known.1.take() };
            known.0 = text;
            if rng.random_bool(0.1) {
                (shelf, reload) = opened(dir.path(), &store).await;
            }
            settle(&mut reload, &mut at).await;
            for (name, (on_disk, last_good)) in &account {
                let found = shelf.version(name).map(|version| version.text.clone()).ok();
                let expected = on_disk.as_ref().and(last_good.clone());
                assert_eq!(found, expected, "{name} at step {step} of seed {seed}");
            }
        }
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_listed_changes_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (rules_dir, away) = (dir.path().join("rules"), dir.path().join("away"));
        fs::create_dir(&rules_dir).expect("a directory");
        fs::write(rules_dir.join("shop.yaml"), rules(1)).expect("writes");
        let (shelf, mut reload) = opened(&rules_dir, &memory().await).await;
        let mut at = Instant::now();
        fs::rename(&rules_dir, &away).expect("renames");
        settle(&mut reload, &mut at).await;
        assert!(
            shelf.view().directory_fault.is_some_and(|fault| fault.contains("cannot be listed"))
        );
        assert_eq!(only(&shelf).state, "good");
        assert!(shelf.version("shop").is_ok());
        let unknown = shelf.version("till").expect_err("never was");
        assert!(unknown[0].contains("known are: shop"), "{unknown:?}");
        fs::rename(&away, &rules_dir).expect("renames");
        settle(&mut reload, &mut at).await;
        assert_eq!(shelf.view().directory_fault, None);
    }
}
