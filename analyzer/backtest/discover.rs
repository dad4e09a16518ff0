//! Releases found by a version label whose values change.
//!
//! What is known is where each version of each service had series, step by step. A value that appears
//! after others is a release; what ran just before it is its baseline. It ends when it is gone or the
//! next one begins. A value that was there before and comes back after another is no release but a
//! return, and is noted at the version that it followed.

use std::{collections::BTreeMap, time::Duration};

use super::{placebo::Quiet, releases::Release};
use crate::{
    engine::observation::Time, service::lag::back, signal::past::Stretch, source::archive::Presence,
};

/// A version that is not seen for so long has ended; less is a gap of the monitoring.
const ABSENCE: Duration = Duration::from_secs(600);

/// How to find releases.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// The expression whose series tell which versions run.
    pub query: String,
    /// The label that holds the version.
    pub version_label: String,
    /// Label matchers that every arm has besides.
    pub selector: String,
}

impl Discovery {
    /// The usual question: which versions of which services have targets.
    pub fn of_targets(selector: &str, version_label: &str, by: &[String]) -> Self {
        let mut labels = by.to_vec();
        labels.push(version_label.to_owned());
        Self {
            query: format!("count by ({}) (up{{{selector}}})", labels.join(", ")),
            version_label: version_label.to_owned(),
            selector: selector.to_owned(),
        }
    }
}

impl Discovery {
    /// The labels that tell one service from another.
    fn service<'a>(&self, presence: &'a Presence) -> Vec<(&'a str, &'a str)> {
        let labels = presence.labels.iter();
        let others =
            labels.filter(|(label, _)| **label != self.version_label && *label != "__name__");
        others.map(|(label, value)| (label.as_str(), value.as_str())).collect()
    }

    /// The first moment at which a release's version was there, among series that were looked for
    /// more closely.
    pub fn first_seen(
        &self,
        presences: &[Presence],
        release: &Release,
        default_service: &str,
    ) -> Option<Time> {
        let of_it = presences.iter().filter(|presence| {
            presence.labels.get(&self.version_label) == Some(&release.version)
                && named(&self.service(presence), default_service) == release.service
        });
        of_it.filter_map(|presence| presence.at.first().copied()).min()
    }
}

/// How a service is called.
fn named(labels: &[(&str, &str)], default: &str) -> String {
    let names: Vec<&str> = labels.iter().map(|(_, value)| *value).collect();
    if names.is_empty() { default.to_owned() } else { names.join("/") }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Releases, oldest first.
    pub releases: Vec<Release>,
    /// Stretches in which one version ran alone, whether or not near a release.
    pub alone: Vec<Quiet>,
}

/// Releases among these series, which were looked for at every `step` of the span.
pub fn releases(
    presences: &[Presence],
    how: &Discovery,
    span: Stretch,
    step: Duration,
    default_service: &str,
) -> Found {
    let mut services: BTreeMap<Vec<(&str, &str)>, Vec<Version>> = BTreeMap::new();
    for presence in presences {
        let Some(version) = presence.labels.get(&how.version_label) else { continue };
        let lives = lives(&presence.at, step);
        let known = services.entry(how.service(presence)).or_default();
        known.push(Version { name: version.clone(), lives });
    }
    let mut found = Found::default();
    for (labels, versions) in services {
        let arms = Arms { how, labels: &labels };
        let service = named(&labels, default_service);
        of_service(&service, &arms, versions, (span, step), &mut found);
    }
    found.releases.sort_by(|a, b| (a.started, &a.service).cmp(&(b.started, &b.service)));
    found
}

/// One version and the stretches in which it ran.
struct Version {
    name: String,
    lives: Vec<Stretch>,
}

impl Version {
    fn first(&self) -> Option<Stretch> {
        self.lives.first().copied()
    }

    fn overlaps(&self, stretch: Stretch) -> bool {
        self.lives.iter().any(|life| life.overlaps(stretch))
    }
}

/// How an arm of one service is selected.
struct Arms<'a> {
    how: &'a Discovery,
    labels: &'a [(&'a str, &'a str)],
}

impl Arms<'_> {
    fn matchers(&self, versions: &[&str]) -> String {
        let selector = self.how.selector.trim().trim_matches(['{', '}', ',']).trim();
        let mut all: Vec<String> =
            if selector.is_empty() { Vec::new() } else { vec![selector.to_owned()] };
        let labels = self.labels.iter().map(|(label, value)| format!("{label}={}", quoted(value)));
        all.extend(labels.filter(|matcher| !selector.contains(matcher.as_str())));
        let label = &self.how.version_label;
        all.push(match versions {
            [one] => format!("{label}={}", quoted(one)),
            many => {
                let many: Vec<String> = many.iter().map(|one| regex::escape(one)).collect();
                format!("{label}=~{}", quoted(&many.join("|")))
            }
        });
        all.join(",")
    }
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// The stretches that steps at which something was there make up. A step stands for the time up to
/// the one before it.
fn lives(at: &[Time], step: Duration) -> Vec<Stretch> {
    let mut lives: Vec<Stretch> = Vec::new();
    for at in at {
        match lives.last_mut() {
            Some(life) if at.since(life.until) <= ABSENCE.max(step * 2) => life.until = *at,
            Some(_) | None => lives.push(Stretch { after: back(*at, step), until: *at }),
        }
    }
    lives
}

fn of_service(
    service: &str,
    arms: &Arms<'_>,
    mut versions: Vec<Version>,
    (span, step): (Stretch, Duration),
    found: &mut Found,
) {
    versions.sort_by_key(|version| version.first().map(|life| life.after));
    let began_inside =
        |life: &Stretch| life.after.since(span.after) > ABSENCE && life.after > span.after;
    let starts: Vec<Time> = versions
        .iter()
        .filter_map(Version::first)
        .filter(began_inside)
        .map(|life| life.after)
        .collect();
    for (place, version) in versions.iter().enumerate() {
        let Some(life) = version.first().filter(began_inside) else { continue };
        let just_before =
            Stretch { after: back(life.after, ABSENCE), until: life.after.after(step) };
        let old: Vec<&Version> = versions
            .iter()
            .enumerate()
            .filter(|(other, old)| {
                *other != place
                    && old.first().is_some_and(|first| first.after < life.after)
                    && old.overlaps(just_before)
            })
            .map(|(_, old)| old)
            .collect();
        // The first of its kind replaces nothing.
        if old.is_empty() {
            continue;
        }
        let next = starts.iter().copied().filter(|start| *start > life.after).min();
        let gone = Some(life.until).filter(|until| span.until.since(*until) > ABSENCE);
        let names: Vec<&str> = old.iter().map(|old| old.name.as_str()).collect();
        let mut notes = Vec::new();
        if !old.iter().any(|old| old.overlaps(Stretch { after: life.after.after(step), ..life })) {
            notes.push(
                "the old version was gone when this one came: only `baseline: before` or `offset` \
                 can compare them"
                    .to_owned(),
            );
        }
        let came_back = old.iter().filter(|old| {
            old.lives.iter().skip(1).any(|again| {
                again.after >= life.after && next.is_none_or(|next| again.after <= next)
            })
        });
        notes.extend(came_back.map(|old| format!("{} came back after it", old.name)));
        found.releases.push(Release {
            service: service.to_owned(),
            version: version.name.clone(),
            started: life.after,
            ended: gone.into_iter().chain(next).min(),
            canary: arms.matchers(&[&version.name]),
            baseline: Some(arms.matchers(&names)),
            known: None,
            notes,
        });
    }
    for (place, version) in versions.iter().enumerate() {
        for life in &version.lives {
            let others = versions.iter().enumerate().filter(|(other, _)| *other != place);
            let busy = others.flat_map(|(_, other)| other.lives.clone());
            for stretch in without(*life, busy.collect()) {
                let (service, matchers) = (service.to_owned(), arms.matchers(&[&version.name]));
                found.alone.push(Quiet { service, matchers, stretch });
            }
        }
    }
}

/// What is left of a stretch.
pub fn without(whole: Stretch, mut taken: Vec<Stretch>) -> Vec<Stretch> {
    taken.sort_by_key(|taken| taken.after);
    let mut left = Vec::new();
    let mut from = whole.after;
    for taken in taken {
        let stretch = Stretch { after: from, until: taken.after.min(whole.until) };
        if stretch.after < stretch.until {
            left.push(stretch);
        }
        from = from.max(taken.until);
    }
    if from < whole.until {
        left.push(Stretch { after: from, until: whole.until });
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const STEP: Duration = Duration::from_secs(60);

    fn stretch(after: i64, until: i64) -> Stretch {
        Stretch { after: Time(after * MINUTE), until: Time(until * MINUTE) }
    }

    fn seen(version: &str, lives: &[(i64, i64)]) -> Presence {
        let label = |label: &str, value: &str| (label.to_owned(), value.to_owned());
        let at = lives.iter().flat_map(|(from, to)| *from..=*to);
        Presence {
            labels: [label("job", "shop"), label("version", version)].into(),
            at: at.map(|minute| Time(minute * MINUTE)).collect(),
        }
    }

    fn find(seen: &[Presence]) -> Found {
        let how = Discovery::of_targets("job=\"shop\"", "version", &["job".to_owned()]);
        assert_eq!(how.query, "count by (job, version) (up{job=\"shop\"})");
        releases(seen, &how, stretch(0, 600), STEP, "default")
    }

    #[test]
    fn a_new_value_beside_the_old_is_a_release() {
        let found =
            find(&[seen("v1", &[(0, 600)]), seen("v2", &[(100, 130)]), seen("v3", &[(300, 600)])]);
        let shown: Vec<_> = found
            .releases
            .iter()
            .map(|one| (&*one.version, one.started.0 / MINUTE, one.ended.map(|at| at.0 / MINUTE)))
            .collect();
        assert_eq!(shown, [("v2", 99, Some(130)), ("v3", 299, None)]);
        let first = &found.releases[0];
        assert_eq!(first.service, "shop");
        assert_eq!(first.canary, "job=\"shop\",version=\"v2\"");
        assert_eq!(first.baseline.as_deref(), Some("job=\"shop\",version=\"v1\""));
        assert_eq!(first.notes, Vec::<String>::new());
        let alone: Vec<Stretch> = found.alone.iter().map(|quiet| quiet.stretch).collect();
        assert_eq!(alone, [stretch(-1, 99), stretch(130, 299)]);
    }

    #[test]
    fn a_replacement_is_a_release_and_a_return_is_none() {
        let found = find(&[seen("v1", &[(0, 100), (200, 600)]), seen("v2", &[(103, 198)])]);
        assert_eq!(found.releases.len(), 1);
        let release = &found.releases[0];
        assert_eq!((&*release.version, release.started), ("v2", Time(102 * MINUTE)));
        assert_eq!(release.notes.len(), 2, "{:?}", release.notes);
        assert!(release.notes[0].contains("only `baseline: before`"));
        assert_eq!(release.notes[1], "v1 came back after it");
    }

    #[test]
    fn the_next_release_ends_the_one_before_and_both_old_ones_are_its_baseline() {
        let found =
            find(&[seen("v1", &[(0, 600)]), seen("v2", &[(100, 600)]), seen("v.3", &[(110, 600)])]);
        assert_eq!(found.releases[0].ended, Some(Time(109 * MINUTE)));
        let baseline = found.releases[1].baseline.as_deref();
        assert_eq!(baseline, Some("job=\"shop\",version=~\"v1|v2\""));
        assert!(found.releases[1].canary.ends_with("version=\"v.3\""));
        assert_eq!(quoted("a\"b\\"), "\"a\\\"b\\\\\"");
    }

    #[test]
    fn what_runs_alone_or_from_the_beginning_is_no_release() {
        assert_eq!(find(&[seen("v1", &[(0, 600)])]).releases, []);
        assert_eq!(find(&[seen("v1", &[(200, 600)])]).releases, []);
        assert_eq!(find(&[seen("v1", &[(0, 100)]), seen("v2", &[(200, 600)])]).releases, []);
        // A gap of the monitoring is no release either.
        assert_eq!(find(&[seen("v1", &[(0, 100), (105, 600)])]).releases, []);
        assert_eq!(find(&[]), Found::default());
    }

    #[test]
    fn stretches_are_cut_out_of_others() {
        let cut = |taken: &[Stretch]| without(stretch(0, 100), taken.to_vec());
        assert_eq!(cut(&[]), [stretch(0, 100)]);
        assert_eq!(cut(&[stretch(50, 60), stretch(-5, 10)]), [stretch(10, 50), stretch(60, 100)]);
        assert_eq!(cut(&[stretch(0, 100)]), []);
        assert_eq!(cut(&[stretch(20, 90), stretch(30, 40)]), [stretch(0, 20), stretch(90, 100)]);
    }
}
