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
            Some((release, _)) if release.is_of(checksum) || release.revision.is_none() => {
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
