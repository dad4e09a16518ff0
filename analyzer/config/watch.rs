//! `watch:` of the configuration: services that are looked at between releases.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::{discovery::DiscoveryOptions, template::Values};
use crate::source::{discovery::dns::DnsName, limits::TARGETS_PER_ARM_MAX, target::Target};

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
    pub place: WatchedPlace,
    /// Time between two looks; the rule file's own when the configuration does not say.
    pub interval: Option<Duration>,
    /// Looks that are older are forgotten.
    pub keep: Duration,
}

/// Where the instances of a watched service are.
#[derive(Clone, Debug)]
pub enum WatchedPlace {
    /// These.
    Targets(Vec<Target>),
    /// Every address of a name.
    Dns(String),
    /// Those of a discovery that have these labels.
    Discover {
        /// Its name.
        name: String,
        /// The labels.
        labels: BTreeMap<String, String>,
    },
}

/// One entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Watch {
    rules: String,
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    dns: Option<String>,
    #[serde(default)]
    discover: Option<String>,
    #[serde(default, rename = "match")]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    interval: Option<String>,
    #[serde(default)]
    keep: Option<String>,
}

/// Checks all entries; what is wrong with them is added to `faults`.
pub(super) fn read(
    entries: BTreeMap<String, Watch>,
    discoveries: &BTreeMap<String, DiscoveryOptions>,
    faults: &mut Vec<String>,
) -> Vec<WatchOptions> {
    if entries.len() > WATCHED_MAX {
        faults.push(format!("watch names {} services, at most {WATCHED_MAX}", entries.len()));
    }
    let one = |(service, entry)| one(service, entry, discoveries, faults);
    entries.into_iter().map(one).collect()
}

fn one(
    service: String,
    entry: Watch,
    discoveries: &BTreeMap<String, DiscoveryOptions>,
    faults: &mut Vec<String>,
) -> WatchOptions {
    let at = format!("watch.{service}");
    let Watch { rules, targets, dns, discover, labels, interval, keep } = entry;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if rules.is_empty() || !rules.chars().all(plain) {
        faults.push(format!(
            "{at}.rules is {rules:?}, expected the name of a rule file without `.yaml`"
        ));
    }
    let place = match (targets.as_slice(), dns, discover) {
        ([], Some(name), None) => {
            let fault = |fault| faults.push(format!("{at}.dns: {fault}"));
            DnsName::parse(&name).map_err(fault).ok();
            WatchedPlace::Dns(name)
        }
        ([], None, Some(name)) => {
            let filled = fillable(&service, &name, discoveries);
            faults.extend(filled.err().map(|fault| format!("{at}.discover: {fault}")));
            WatchedPlace::Discover { name, labels }
        }
        (_, None, None) => WatchedPlace::Targets(scraped(&at, &targets, faults)),
        _ => {
            faults.push(format!("{at}: expected one of targets, dns, discover"));
            WatchedPlace::Targets(Vec::new())
        }
    };
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
    WatchOptions { service, rules, place, interval, keep }
}

fn scraped(at: &str, urls: &[String], faults: &mut Vec<String>) -> Vec<Target> {
    if urls.is_empty() || urls.len() > TARGETS_PER_ARM_MAX {
        faults.push(format!(
            "{at}.targets has {} entries, expected 1 to {TARGETS_PER_ARM_MAX} URLs of instances",
            urls.len()
        ));
    }
    let parsed = urls.iter().filter_map(|url| {
        let fault = |error| faults.push(format!("{at}.targets: {error}"));
        Target::parse(url).map_err(fault).ok()
    });
    parsed.collect()
}

/// Whether a discovery can be asked when nothing but the service is known.
fn fillable(
    service: &str,
    name: &str,
    discoveries: &BTreeMap<String, DiscoveryOptions>,
) -> Result<(), String> {
    let Some(options) = discoveries.get(name) else {
        let known: Vec<&str> = discoveries.keys().map(String::as_str).collect();
        return Err(format!("{name:?} is not configured, known are: {}", known.join(", ")));
    };
    let values = Values::from([("service".to_owned(), service.to_owned())]);
    options.way.templates().into_iter().try_for_each(|template| template.fill(&values).map(drop))
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
                    c: { rules: shop, targets: ['ftp://h'] }, \
                    d: { rules: shop, dns: 'h:1' }, e: { rules: shop, dns: h }, \
                    f: { rules: shop, discover: pods }, \
                    g: { rules: shop, dns: 'h:1', targets: ['http://h:1'] } }";
        let entries: BTreeMap<String, Watch> = serde_saphyr::from_str(text).expect("the shape");
        let mut faults = Vec::new();
        let options = read(entries, &BTreeMap::new(), &mut faults);
        assert_eq!((options[0].keep, options[0].interval), (2 * DAY, None));
        assert!(matches!(&options[0].place, WatchedPlace::Targets(targets) if targets.len() == 1));
        assert!(matches!(&options[3].place, WatchedPlace::Dns(name) if name == "h:1"));
        let faults = faults.join("\n");
        for word in [
            "watch.b.rules is \"../x\"",
            "watch.b.targets has 0 entries",
            "watch.b.interval is \"0s\", expected 1s to 3600s, such as `15s`",
            "watch.b.keep is \"1y\", expected 3600s to 3024000s, such as `7d`",
            "watch.c.targets",
            "watch.e.dns: \"h\" has no port",
            "watch.f.discover: \"pods\" is not configured",
            "watch.g: expected one of",
        ] {
            assert!(faults.contains(word), "{faults}\nlacks {word:?}");
        }
        assert!(!faults.contains("watch.a") && !faults.contains("watch.d"), "{faults}");
    }

    #[test]
    fn no_more_services_are_watched_than_may_be() {
        let entry = |n: usize| format!("s{n}: {{ rules: shop, targets: ['http://h:1'] }}");
        let check = |services: usize, expected: &[&str]| {
            let text: Vec<String> = (0..services).map(entry).collect();
            let entries = serde_saphyr::from_str(&text.join("\n")).expect("the shape");
            let mut faults = Vec::new();
            assert_eq!(read(entries, &BTreeMap::new(), &mut faults).len(), services);
            assert_eq!(faults, expected);
        };
        check(WATCHED_MAX, &[]);
        check(WATCHED_MAX + 1, &["watch names 257 services, at most 256"]);
    }
}
