//! `watch:` of the configuration: services that are looked at between releases.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use crate::source::{limits::TARGETS_PER_ARM_MAX, target::Target};

/// Services that may be watched.
pub const WATCHED_MAX: usize = 256;

/// How long looks are kept when the configuration does not say: a week and the day that it is
/// compared with.
const KEEP_DEFAULT: Duration = Duration::from_secs(8 * 24 * 3600);

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// One service that is watched.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Its name, as orders give it.
    pub service: String,
    /// The rule file whose signals are kept, without `.yaml`.
    pub rules: String,
    /// Its instances.
    pub targets: Vec<Target>,
    /// Time between two looks; the rule file's own when the configuration does not say.
    pub interval: Option<Duration>,
    /// Looks that are older are forgotten.
    pub keep: Duration,
}

/// One entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Watch {
    rules: String,
    targets: Vec<String>,
    #[serde(default)]
    interval: Option<String>,
    #[serde(default)]
    keep: Option<String>,
}

/// Checks all entries; what is wrong with them is added to `faults`.
pub(super) fn read(
    entries: BTreeMap<String, Watch>,
    faults: &mut Vec<String>,
) -> Vec<WatchOptions> {
    if entries.len() > WATCHED_MAX {
        faults.push(format!("watch names {} services, at most {WATCHED_MAX}", entries.len()));
    }
    entries.into_iter().map(|(service, entry)| one(service, entry, faults)).collect()
}

fn one(service: String, entry: Watch, faults: &mut Vec<String>) -> WatchOptions {
    let at = format!("watch.{service}");
    let Watch { rules, targets, interval, keep } = entry;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if rules.is_empty() || !rules.chars().all(plain) {
        faults.push(format!(
            "{at}.rules is {rules:?}, expected the name of a rule file without `.yaml`"
        ));
    }
    if targets.is_empty() || targets.len() > TARGETS_PER_ARM_MAX {
        faults.push(format!(
            "{at}.targets has {} entries, expected 1 to {TARGETS_PER_ARM_MAX} URLs of instances",
            targets.len()
        ));
    }
    let parsed = targets.iter().filter_map(|url| {
        let fault = |error| faults.push(format!("{at}.targets: {error}"));
        Target::parse(url).map_err(fault).ok()
    });
    let targets = parsed.collect();
    let mut length = |key: &str, text: Option<String>, least: Duration, most: Duration| {
        let text = text?;
        let found = duration(&text).filter(|found| (least..=most).contains(found));
        if found.is_none() {
            let example = if key == "keep" { "7d" } else { "15s" };
            faults.push(format!(
                "{at}.{key} is {text:?}, expected {}s to {}s, such as `{example}`",
                least.as_secs(),
                most.as_secs()
            ));
        }
        found
    };
    let interval = length("interval", interval, SECOND, HOUR);
    let keep = length("keep", keep, HOUR, 35 * DAY).unwrap_or(KEEP_DEFAULT);
    WatchOptions { service, rules, targets, interval, keep }
}

/// `90s`, `15m`, `12h`, `7d`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let unit = match unit.trim() {
        "s" => SECOND,
        "m" | "min" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        _ => return None,
    };
    unit.checked_mul(number.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_whole_numbers_with_a_unit() {
        for (text, secs) in
            [("15s", 15), (" 2 m", 120), ("5min", 300), ("3h", 10_800), ("7d", 604_800)]
        {
            assert_eq!(duration(text), Some(Duration::from_secs(secs)), "{text}");
        }
        for text in ["", "15", "s", "1.5h", "-1s", "1w", "99999999999999999999s", "4294967295d x"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn every_fault_of_an_entry_is_named() {
        let text = "{ a: { rules: shop, targets: ['http://h:1'], keep: 2d }, \
                    b: { rules: ../x, targets: [], interval: 0s, keep: 1y }, \
                    c: { rules: shop, targets: ['ftp://h'] } }";
        let entries: BTreeMap<String, Watch> = serde_saphyr::from_str(text).expect("the shape");
        let mut faults = Vec::new();
        let options = read(entries, &mut faults);
        assert_eq!((options[0].keep, options[0].interval), (2 * DAY, None));
        assert_eq!(options[0].targets.len(), 1);
        let faults = faults.join("\n");
        for word in [
            "watch.b.rules is \"../x\"",
            "watch.b.targets has 0 entries",
            "watch.b.interval is \"0s\", expected 1s to 3600s, such as `15s`",
            "watch.b.keep is \"1y\", expected 3600s to 3024000s, such as `7d`",
            "watch.c.targets",
        ] {
            assert!(faults.contains(word), "{faults}\nlacks {word:?}");
        }
        assert!(!faults.contains("watch.a"), "{faults}");
    }

    #[test]
    fn no_more_services_are_watched_than_may_be() {
        let entry = |n: usize| format!("s{n}: {{ rules: shop, targets: ['http://h:1'] }}");
        let check = |services: usize, expected: &[&str]| {
            let text: Vec<String> = (0..services).map(entry).collect();
            let entries = serde_saphyr::from_str(&text.join("\n")).expect("the shape");
            let mut faults = Vec::new();
            assert_eq!(read(entries, &mut faults).len(), services);
            assert_eq!(faults, expected);
        };
        check(WATCHED_MAX, &[]);
        check(WATCHED_MAX + 1, &["watch names 257 services, at most 256"]);
    }
}
