//! Times in which nothing was released, cut into windows that are judged as if something had been.
//!
//! Whatever is rolled back there was rolled back wrongly. Half of the instances play the canary, the
//! others the baseline; where there is one instance only it is compared with itself before.

use std::time::Duration;

use super::releases::Release;
use crate::{engine::observation::Time, service::lag::back, signal::past::Stretch};

/// A stretch in which one version of a service ran and nothing was released.
#[derive(Clone, Debug, PartialEq)]
pub struct Quiet {
    /// Of what.
    pub service: String,
    /// Label matchers of its series.
    pub matchers: String,
    /// When.
    pub stretch: Stretch,
}

/// What is judged as if a release had begun.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Of what.
    pub service: String,
    /// Label matchers of its series.
    pub matchers: String,
    /// When it begins.
    pub started: Time,
}

/// Windows of this length, side by side in the quiet stretches; of more than `most` as many, spread
/// evenly. Always the same ones.
pub fn windows(quiet: &[Quiet], length: Duration, most: usize) -> Vec<Window> {
    let mut all = Vec::new();
    for Quiet { service, matchers, stretch } in quiet {
        let mut started = stretch.after;
        while started.after(length) <= stretch.until && !length.is_zero() {
            let (service, matchers) = (service.clone(), matchers.clone());
            all.push(Window { service, matchers, started });
            started = started.after(length);
        }
    }
    if all.len() <= most {
        return all;
    }
    (0..most).map(|place| all[place * all.len() / most].clone()).collect()
}

/// The times before releases that a file names: of the old version, at least a `deadline` away from
/// every release of that service.
pub fn quiet_before(releases: &[Release], span: Stretch, deadline: Duration) -> Vec<Quiet> {
    let mut quiet = Vec::new();
    for release in releases {
        let Some(baseline) = &release.baseline else { continue };
        let others = releases.iter().filter(|other| other.service == release.service);
        // Sorted by time: the last of those before is the newest.
        let busy = others
            .filter(|other| other.started < release.started)
            .map(|other| busy(other, deadline).until)
            .max();
        let after = busy.map_or(span.after, |busy| busy.max(span.after));
        let stretch = Stretch { after, until: back(release.started, deadline).min(span.until) };
        if stretch.after < stretch.until {
            let (service, matchers) = (release.service.clone(), baseline.clone());
            quiet.push(Quiet { service, matchers, stretch });
        }
    }
    quiet
}

/// The time around a release in which there is no placebo.
pub fn busy(release: &Release, deadline: Duration) -> Stretch {
    let over = release.started.after(deadline);
    let over = release.ended.map_or(over, |ended| ended.min(over).max(release.started));
    Stretch { after: back(release.started, deadline), until: over.after(deadline) }
}

/// The instances that play the canary and those that play the baseline; none of one instance. Every
/// other one, so that neighbours (a zone, a node) are in both.
pub fn halves(instances: &[String]) -> Option<[Vec<&str>; 2]> {
    if instances.len() < 2 {
        return None;
    }
    // Of an odd number the baseline has one more, as in a release.
    let of = |rest: usize| instances.iter().skip(rest).step_by(2).map(String::as_str).collect();
    Some([of(1), of(0)])
}

/// Matchers of these instances among those of an arm.
pub fn of_instances(matchers: &str, instances: &[&str]) -> String {
    let names: Vec<String> = instances.iter().map(|name| regex::escape(name)).collect();
    // Once for the regular expression, once for the text that it stands in.
    let names = names.join("|").replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{},instance=~\"{names}\"", matchers.trim().trim_matches(['{', '}', ',']).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn stretch(after: i64, until: i64) -> Stretch {
        Stretch { after: Time(after * MINUTE), until: Time(until * MINUTE) }
    }

    fn release(started: i64, ended: Option<i64>) -> Release {
        Release {
            service: "s".to_owned(),
            version: "v".to_owned(),
            started: Time(started * MINUTE),
            ended: ended.map(|ended| Time(ended * MINUTE)),
            canary: String::new(),
            baseline: Some("v=\"1\"".to_owned()),
            known: None,
            notes: Vec::new(),
        }
    }

    #[test]
    fn windows_lie_side_by_side_and_are_spread_when_there_are_too_many() {
        let quiet = |stretch| Quiet { service: "s".into(), matchers: "m".into(), stretch };
        let all = [quiet(stretch(0, 65)), quiet(stretch(100, 160))];
        let found = |most: usize| -> Vec<i64> {
            let windows = windows(&all, Duration::from_secs(1800), most);
            windows.iter().map(|window| window.started.0 / MINUTE).collect()
        };
        assert_eq!(found(200), [0, 30, 100, 130]);
        assert_eq!(found(2), [0, 100]);
        assert_eq!(found(0), Vec::<i64>::new());
        assert_eq!(windows(&all, Duration::ZERO, 9), []);
    }

    #[test]
    fn nothing_within_a_deadline_of_a_release_is_quiet() {
        let deadline = Duration::from_secs(1800);
        let releases = [release(300, Some(310)), release(600, None)];
        let found = quiet_before(&releases, stretch(0, 1000), deadline);
        let found: Vec<Stretch> = found.into_iter().map(|quiet| quiet.stretch).collect();
        assert_eq!(found, [stretch(0, 270), stretch(340, 570)]);
        assert_eq!(quiet_before(&[release(20, None)], stretch(0, 1000), deadline), []);
    }

    #[test]
    fn instances_are_divided_alike_every_time() {
        let names = |count: usize| -> Vec<String> { (0..count).map(|n| format!("i{n}")).collect() };
        assert_eq!(halves(&names(1)), None);
        let five = names(5);
        assert_eq!(halves(&five), Some([vec!["i1", "i3"], vec!["i0", "i2", "i4"]]));
        assert_eq!(
            of_instances("{job=\"a\"}", &["10.0.0.1:80", "b"]),
            "job=\"a\",instance=~\"10\\\\.0\\\\.0\\\\.1:80|b\""
        );
    }
}
