//! Which release a hook of Flagger is about.
//!
//! Of each canary the newest release is kept, under the canary's namespace and name. Hooks name
//! releases by a checksum of what was applied, with one trap: at `confirm-rollout` nothing has been applied yet, so the checksum is that of the
//! release *before*. A release that such a hook began is therefore known by what it follows, until
//! the first hook with another checksum gives it its own. When Flagger meets a newer
//! revision in the middle of a release it starts again without `confirm-rollout`: a
//! `pre-rollout` with a checksum that is not the kept one supersedes the release.
//!
//! Nothing here asks or answers anybody: hooks and what is kept go in, what is to be kept comes out.

use serde::{Deserialize, Serialize};

/// The hooks of Flagger, by their names in a `Canary`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// Before the canary is scaled up.
    ConfirmRollout,
    /// Before it gets traffic.
    PreRollout,
    /// At every interval while it has traffic.
    Rollout,
    /// Before it gets more traffic, the first share included.
    ConfirmTrafficIncrease,
    /// Before it becomes the primary.
    ConfirmPromotion,
    /// At every interval: success means roll back.
    Rollback,
    /// After the end, good or bad.
    PostRollout,
    /// Everything that Flagger reports.
    Event,
}

impl Hook {
    /// Every hook, with its name.
    pub(super) const ALL: [(&str, Self); 8] = [
        ("confirm-rollout", Self::ConfirmRollout),
        ("pre-rollout", Self::PreRollout),
        ("rollout", Self::Rollout),
        ("confirm-traffic-increase", Self::ConfirmTrafficIncrease),
        ("confirm-promotion", Self::ConfirmPromotion),
        ("rollback", Self::Rollback),
        ("post-rollout", Self::PostRollout),
        ("event", Self::Event),
    ];

    /// The hook of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, hook)| *hook)
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, hook)| *hook == self);
        found.map_or("", |(name, _)| name)
    }
}

/// The newest release of one canary, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Release {
    /// Key of its analysis.
    pub key: String,
    /// Checksum of the release before it, where `confirm-rollout` began it.
    pub follows: Option<String>,
    /// Its own checksum, once a hook has named it.
    pub revision: Option<String>,
    /// How many of the rule file's steps were allowed, the first included.
    pub increases: usize,
    /// Whether Flagger has said how it ended.
    pub is_over: bool,
}

impl Release {
    fn new(key: String, follows: Option<&str>, revision: Option<&str>) -> Self {
        let [follows, revision] = [follows, revision].map(|known| known.map(str::to_owned));
        Self { key, follows, revision, increases: 0, is_over: false }
    }

    fn is_of(&self, checksum: &str) -> bool {
        self.revision.as_deref() == Some(checksum)
    }
}

/// How the kept release's analysis stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judging {
    /// It was never opened.
    NotYet,
    /// It runs.
    Runs,
    /// It has a final verdict, or was cancelled.
    Over,
}

/// One hook that was called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Called<'a> {
    /// Which.
    pub hook: Hook,
    /// Of what was applied last.
    pub checksum: &'a str,
    /// Whether Flagger says that the canary is in phase `Progressing`.
    pub is_progressing: bool,
}

/// What a hook is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// The kept release, as it is to be kept from now on.
    Kept(Release),
    /// One that begins here, in the place of the kept one.
    New(Release),
    /// None that is known.
    Nothing,
}

/// Which release a hook is about. `key` is for one that begins.
pub(super) fn about(
    called: Called<'_>,
    kept: Option<(&Release, Judging)>,
    key: impl FnOnce() -> String,
) -> About {
    let Called { hook, checksum, is_progressing } = called;
    match hook {
        Hook::ConfirmRollout => match kept {
            Some((release, _)) if is_confirmed_again(release, checksum, is_progressing) => {
                About::Kept(release.clone())
            }
            Some(_) | None => About::New(Release::new(key(), Some(checksum), None)),
        },
        Hook::PreRollout | Hook::Rollout => match kept {
            Some((release, judging)) if belongs(release, judging, called) => {
                let named = Release { revision: Some(checksum.to_owned()), ..release.clone() };
                // It is called as long as the canary has no traffic: what was allowed before was
                // not done.
                let increases = if hook == Hook::PreRollout { 0 } else { named.increases };
                About::Kept(Release { increases, ..named })
            }
            Some(_) | None => About::New(Release::new(key(), None, Some(checksum))),
        },
        Hook::ConfirmTrafficIncrease | Hook::ConfirmPromotion => match kept {
            Some((release, _)) if release.is_of(checksum) => About::Kept(release.clone()),
            Some((release, _)) if release.revision.is_none() && !release.is_over => {
                About::Kept(Release { revision: Some(checksum.to_owned()), ..release.clone() })
            }
            Some(_) | None => About::Nothing,
        },
        // It comes before `pre-rollout`, when what confirm-rollout began has seen no canary yet.
        Hook::Rollback => match kept {
            Some((release, _)) if release.is_of(checksum) => About::Kept(release.clone()),
            Some(_) | None => About::Nothing,
        },
        Hook::PostRollout => match kept {
            // One that comes late is of the release that the present one follows.
            Some((release, _))
                if release.is_of(checksum)
                    || release.revision.is_none()
                        && release.follows.as_deref() != Some(checksum) =>
            {
                About::Kept(Release { is_over: true, ..release.clone() })
            }
            Some(_) | None => About::Nothing,
        },
        Hook::Event => About::Nothing,
    }
}

/// Whether `confirm-rollout` asks again about a release that it began. Flagger asks at every
/// interval until all gates are open. Versions of it that take the checksum after applying name
/// the release itself, and are in phase `Progressing` then.
fn is_confirmed_again(release: &Release, checksum: &str, is_progressing: bool) -> bool {
    let is_same = match &release.revision {
        None => release.follows.as_deref() == Some(checksum),
        Some(revision) => is_progressing && revision == checksum,
    };
    is_same && !release.is_over
}

/// Whether a hook with traffic in sight is about the kept release.
fn belongs(release: &Release, judging: Judging, called: Called<'_>) -> bool {
    match &release.revision {
        // What was decided before the canary was there says nothing about it.
        None => !release.is_over && judging != Judging::Over,
        Some(revision) if revision != called.checksum => false,
        // After the end only a latecomer asks; `pre-rollout` is the same revision once more.
        Some(_) => !release.is_over || called.hook == Hook::Rollout,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    const PRE: Hook = Hook::PreRollout;

    /// A canary whose hooks are called one after the other; gives the keys that they were about.
    #[derive(Default)]
    struct Canary {
        kept: Option<Release>,
        over: BTreeMap<String, bool>,
        keys: usize,
    }

    impl Canary {
        fn call(&mut self, hook: Hook, checksum: &str, is_progressing: bool) -> Option<String> {
            let called = Called { hook, checksum, is_progressing };
            let judging = |release: &Release| match self.over.get(&release.key) {
                None => Judging::NotYet,
                Some(false) => Judging::Runs,
                Some(true) => Judging::Over,
            };
            let kept = self.kept.as_ref().map(|release| (release, judging(release)));
            let (keys, number) = (self.keys, &mut self.keys);
            let found = about(called, kept, || {
                *number += 1;
                format!("k{}", keys + 1)
            });
            match found {
                About::Nothing => None,
                About::Kept(release) | About::New(release) => {
                    self.over.entry(release.key.clone()).or_insert(false);
                    Some(self.kept.insert(release).key.clone())
                }
            }
        }

        /// Calls in order, each with what it is expected to be about; empty for nothing.
        fn check(&mut self, calls: &[(Hook, &str, &str)]) {
            for (number, (hook, checksum, expected)) in calls.iter().enumerate() {
                let is_progressing = *hook != Hook::ConfirmRollout;
                let found = self.call(*hook, checksum, is_progressing).unwrap_or_default();
                assert_eq!(found, *expected, "call {number}: {hook:?} {checksum}");
            }
        }
    }

    #[test]
    fn confirm_rollout_names_the_release_before() {
        Canary::default().check(&[
            (Hook::ConfirmRollout, "c0", "k1"),
            (Hook::ConfirmRollout, "c0", "k1"),
            (Hook::Rollback, "c1", ""),
            (PRE, "c1", "k1"),
            (Hook::ConfirmTrafficIncrease, "c1", "k1"),
            (Hook::Rollback, "c1", "k1"),
            (Hook::Rollout, "c1", "k1"),
            (Hook::ConfirmPromotion, "c1", "k1"),
            (Hook::PostRollout, "c1", "k1"),
            (Hook::ConfirmRollout, "c1", "k2"),
            (PRE, "c2", "k2"),
            // Without a word about the end of the second.
            (Hook::ConfirmRollout, "c2", "k3"),
            (PRE, "c3", "k3"),
        ]);
    }

    #[test]
    fn a_newer_revision_in_the_middle_supersedes() {
        Canary::default().check(&[
            (PRE, "c1", "k1"),
            (Hook::Rollout, "c1", "k1"),
            (Hook::Rollback, "c2", ""),
            (Hook::ConfirmPromotion, "c2", ""),
            (PRE, "c2", "k2"),
            (PRE, "c2", "k2"),
            (Hook::Rollout, "c2", "k2"),
            // Back to the first text, whose checksum is the same as before.
            (PRE, "c1", "k3"),
            (Hook::PostRollout, "c2", ""),
            (Hook::PostRollout, "c1", "k3"),
        ]);
    }

    #[test]
    fn hooks_that_begin_nothing_know_nothing() {
        Canary::default().check(&[
            (Hook::Rollback, "c1", ""),
            (Hook::ConfirmTrafficIncrease, "c1", ""),
            (Hook::ConfirmPromotion, "c1", ""),
            (Hook::PostRollout, "c1", ""),
            (Hook::Event, "c1", ""),
            (Hook::Rollout, "c1", "k1"),
        ]);
    }

    #[test]
    fn what_was_decided_before_the_canary_was_there_does_not_count() {
        let mut canary = Canary::default();
        canary.check(&[(Hook::ConfirmRollout, "c0", "k1")]);
        canary.over.insert("k1".to_owned(), true);
        canary.check(&[(Hook::ConfirmRollout, "c0", "k1"), (PRE, "c1", "k2"), (PRE, "c1", "k2")]);
        // What was decided of the canary itself does.
        canary.over.insert("k2".to_owned(), true);
        canary.check(&[(PRE, "c1", "k2"), (Hook::Rollout, "c1", "k2")]);
    }

    #[test]
    fn without_traffic_no_step_was_allowed() {
        let mut canary = Canary::default();
        canary.check(&[(PRE, "c1", "k1")]);
        canary.kept.as_mut().expect("a release").increases = 1;
        canary.check(&[(Hook::Rollout, "c1", "k1")]);
        assert_eq!(canary.kept.as_ref().expect("a release").increases, 1);
        canary.check(&[(PRE, "c1", "k1")]);
        assert_eq!(canary.kept.expect("a release").increases, 0);
    }

    /// Whatever releases follow each other, with whichever hooks configured, no hook is ever about
    /// another release than the one that Flagger is at, and each has one analysis.
    #[test]
    fn random_releases_are_told_apart() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut chance = StdRng::seed_from_u64(seed);
        for _ in 0..2_000 {
            let mut canary = Canary::default();
            let has_confirm = chance.random_bool(0.5);
            let has_post = chance.random_bool(0.5);
            let names_itself = chance.random_bool(0.3);
            let mut applied = "c0".to_owned();
            let mut seen: BTreeMap<String, usize> = BTreeMap::new();
            for release in 0..6 {
                // Often a text that was there before; never the one that is applied.
                let mut next = format!("c{}", chance.random_range(0..4));
                if next == applied {
                    next = format!("{next}x");
                }
                let restarts = release > 0 && chance.random_bool(0.3);
                let mut about_it: Vec<Option<String>> = Vec::new();
                if has_confirm && !restarts {
                    let checksum = if names_itself { &next } else { &applied };
                    for _ in 0..chance.random_range(1..3) {
                        let found = canary.call(Hook::ConfirmRollout, checksum, names_itself);
                        about_it.push(Some(found.expect("confirm-rollout begins")));
                    }
                }
                applied.clone_from(&next);
                // Before it begins nothing is rolled back by an older verdict.
                if let Some(found) = canary.call(Hook::Rollback, &applied, true) {
                    assert!(!seen.contains_key(&found), "seed {seed}: rolled back by {found}");
                }
                about_it.push(canary.call(PRE, &applied, true));
                for _ in 0..chance.random_range(0..5) {
                    let hooks = [
                        Hook::Rollout,
                        Hook::Rollback,
                        Hook::ConfirmTrafficIncrease,
                        Hook::ConfirmPromotion,
                    ];
                    let hook = hooks[chance.random_range(0..hooks.len())];
                    about_it.push(canary.call(hook, &applied, true));
                }
                if has_post && chance.random_bool(0.9) {
                    about_it.push(canary.call(Hook::PostRollout, &applied, false));
                }
                let key = about_it[0].clone().expect("a release has an analysis");
                assert!(about_it.iter().all(|found| found.as_ref() == Some(&key)), "seed {seed}");
                assert_eq!(seen.insert(key, release), None, "seed {seed}: judged twice");
            }
        }
    }
}
