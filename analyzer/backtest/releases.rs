//! Past releases, and the file that names them.
//!
//! The file is YAML (a list, or a list under `releases:`) or JSON, one object after the other. Every
//! fault says where it is and what was expected.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use crate::engine::observation::Time;

/// Releases of one run.
pub const RELEASES_MAX: usize = 2_000;

/// Largest file of releases.
pub const FILE_BYTES_MAX: usize = 4 << 20;

/// A release of the past.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// What was released.
    pub service: String,
    /// Its version, or how else it is called.
    pub version: String,
    /// When it began.
    pub started: Time,
    /// When it was over: gone, or followed by the next.
    pub ended: Option<Time>,
    /// Label matchers of the new version's series.
    pub canary: String,
    /// Label matchers of the old version's series, when they are known.
    pub baseline: Option<String>,
    /// What it turned out to be, when that is known.
    pub known: Option<Known>,
    /// What was noticed about it.
    pub notes: Vec<String>,
}

/// What a release turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Rightly kept.
    Good,
    /// Rightly rolled back.
    Bad {
        /// When it turned bad, if not from its beginning.
        since: Option<Time>,
    },
}

/// One release as a person writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    service: Option<String>,
    #[serde(default, alias = "name")]
    version: Option<String>,
    start: Moment,
    #[serde(default)]
    end: Option<Moment>,
    canary: String,
    #[serde(default)]
    baseline: Option<String>,
    #[serde(default)]
    bad: Option<bool>,
    #[serde(default)]
    rolled_back: Option<bool>,
    #[serde(default)]
    bad_since: Option<Moment>,
}

/// The same with its members checked against each other, where the reader still knows the place.
#[derive(Deserialize)]
#[serde(try_from = "Entry")]
struct Checked(Entry);

impl TryFrom<Entry> for Checked {
    type Error = String;

    fn try_from(entry: Entry) -> Result<Self, String> {
        matchers(&entry.canary).map_err(|fault| format!("canary: {fault}"))?;
        if let Some(baseline) = &entry.baseline {
            matchers(baseline).map_err(|fault| format!("baseline: {fault}"))?;
        }
        if entry.end.as_ref().is_some_and(|end| end.0 <= entry.start.0) {
            return Err("end is not after start; hint: are both in the same time zone?".into());
        }
        if entry.bad.is_some() && entry.rolled_back.is_some() {
            return Err("bad and rolled_back say the same; hint: keep one of them".into());
        }
        let is_bad = entry.bad.or(entry.rolled_back);
        if entry.bad_since.is_some() && is_bad == Some(false) {
            return Err("bad_since is given of a release that was not bad".into());
        }
        Ok(Self(entry))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    releases: Vec<Checked>,
}

/// A moment: RFC 3339, or unix seconds.
struct Moment(Time);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Moment;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time such as 2026-03-01T09:30:00Z, or unix seconds")
            }
            fn visit_u64<E: de::Error>(self, secs: u64) -> Result<Moment, E> {
                self.visit_f64(secs as f64)
            }
            fn visit_i64<E: de::Error>(self, secs: i64) -> Result<Moment, E> {
                self.visit_f64(secs as f64)
            }
            fn visit_f64<E: de::Error>(self, secs: f64) -> Result<Moment, E> {
                unix(secs).map(Moment).map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Moment, E> {
                moment(text).map(Moment).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Reads a moment as a person writes it.
///
/// # Errors
/// In words, when it is none.
pub fn moment(text: &str) -> Result<Time, String> {
    if let Ok(secs) = text.trim().parse::<f64>() {
        return unix(secs);
    }
    let read = text.trim().parse::<jiff::Timestamp>();
    read.map(|at| Time(at.as_millisecond())).map_err(|_| {
        format!(
            "found the time {:?}, expected one such as 2026-03-01T09:30:00Z or unix seconds; hint: \
             it needs a time zone, Z or +01:00",
            excerpt(text)
        )
    })
}

/// Seconds, not milliseconds, of a time in which there were metrics.
fn unix(secs: f64) -> Result<Time, String> {
    if (0.0..1e11).contains(&secs) {
        return Ok(Time::from_secs_f64(secs));
    }
    Err(format!("found the time {secs}, expected unix seconds; hint: are these milliseconds?"))
}

/// Checks label matchers.
///
/// # Errors
/// In words, when they are none.
pub fn matchers(text: &str) -> Result<(), String> {
    let inside = text.trim();
    let inside = inside.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(inside);
    let is_empty = inside.trim().is_empty();
    let read = promql_parser::parser::parse(&format!("x{{{inside}}}"));
    match read {
        Ok(promql_parser::parser::Expr::VectorSelector(_)) if !is_empty => Ok(()),
        Ok(_) | Err(_) => Err(format!(
            "found {:?}, expected label matchers such as 'job=\"shop\",version=\"v2\"'",
            excerpt(text)
        )),
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(120).collect()
}

/// Reads a file of releases, oldest first. `service` is whose release it is where none is named.
///
/// # Errors
/// In words, with the place: the first fault.
pub fn read(file_name: &str, text: &str, service: &str) -> Result<Vec<Release>, String> {
    if text.len() > FILE_BYTES_MAX {
        let bytes = text.len();
        return Err(format!("{file_name}: {bytes} bytes, at most {FILE_BYTES_MAX} are read"));
    }
    let hint = "hint: a release is `{ start: 2026-03-01T09:30:00Z, canary: 'version=\"v2\"', \
                baseline: 'version=\"v1\"' }`, with service, version, end, bad (true or false) and \
                bad_since where they are known";
    let named = |fault: String| format!("{file_name}: {fault}\n  {hint}");
    let entries: Vec<Checked> = if text.trim_start().starts_with('{') {
        let stream = serde_json::Deserializer::from_str(text).into_iter::<Checked>();
        stream.collect::<Result<_, _>>().map_err(|fault| named(fault.to_string()))?
    } else if text.lines().any(|line| line.starts_with("releases:")) {
        let whole: Whole =
            serde_saphyr::from_str(text).map_err(|fault| named(fault.to_string()))?;
        whole.releases
    } else {
        serde_saphyr::from_str(text).map_err(|fault| named(fault.to_string()))?
    };
    if entries.len() > RELEASES_MAX {
        let found = entries.len();
        return Err(named(format!("{found} releases, at most {RELEASES_MAX} are judged")));
    }
    let mut releases: Vec<Release> =
        entries.into_iter().map(|Checked(entry)| release(entry, service)).collect();
    releases.sort_by_key(|release| release.started);
    Ok(releases)
}

fn release(entry: Entry, service: &str) -> Release {
    let is_bad = entry.bad.or(entry.rolled_back).or(entry.bad_since.as_ref().map(|_| true));
    let since = entry.bad_since.map(|since| since.0);
    Release {
        service: entry.service.unwrap_or_else(|| service.to_owned()),
        version: entry.version.unwrap_or_else(|| entry.canary.clone()),
        started: entry.start.0,
        ended: entry.end.map(|end| end.0),
        canary: entry.canary,
        baseline: entry.baseline,
        known: is_bad.map(|bad| if bad { Known::Bad { since } } else { Known::Good }),
        notes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_notations_say_the_same() {
        let list = "- { start: 2026-03-01T09:30:00Z, canary: 'v=\"2\"', baseline: 'v=\"1\"', bad: true }\n\
                    - { start: 1772357500, end: 1772359000, canary: '{v=\"3\"}', version: v3, service: till }\n";
        let under = format!("releases:\n{list}");
        let json = r#"{"start":"2026-03-01T10:30:00+01:00","canary":"v=\"2\"","baseline":"v=\"1\"","rolled_back":true}
            {"start":1772357500,"end":1772359000,"canary":"{v=\"3\"}","name":"v3","service":"till"}"#;
        let read = |text: &str| read("r", text, "shop").unwrap();
        let releases = read(list);
        assert_eq!(releases, read(&under));
        assert_eq!(releases, read(json));
        assert_eq!(releases[0].started, Time(1_772_357_400_000));
        assert_eq!(releases[0].known, Some(Known::Bad { since: None }));
        assert_eq!((&*releases[0].service, &*releases[0].version), ("shop", "v=\"2\""));
        assert_eq!((&*releases[1].service, &*releases[1].version), ("till", "v3"));
        assert_eq!(releases[1].ended, Some(Time(1_772_359_000_000)));
        assert_eq!(read("[]"), []);
    }

    #[test]
    fn faults_name_their_place_and_what_was_expected() {
        let check = |text: &str, parts: &[&str]| {
            let fault = read("r.yaml", text, "shop").unwrap_err();
            for part in parts {
                assert!(fault.contains(part), "{fault}\n lacks {part}");
            }
        };
        check("- { start: soon, canary: 'a=\"b\"' }", &["r.yaml", "soon", "time zone", "1:"]);
        check("- { start: 1772357400000, canary: 'a=\"b\"' }", &["milliseconds"]);
        check("\n- { start: 5, canary: 'a=' }", &["canary", "label matchers", "2:"]);
        check("- { start: 5, canary: '{}' }", &["label matchers"]);
        check("- { start: 5 }", &["canary"]);
        check("- { start: 5, canary: 'a=\"b\"', ende: 7 }", &["ende"]);
        check("- { start: 5, canary: 'a=\"b\"', end: 4 }", &["end is not after start"]);
        check("- { start: 5, canary: 'a=\"b\"', bad: true, rolled_back: true }", &["keep one"]);
        check("- { start: 5, canary: 'a=\"b\"', bad: false, bad_since: 9 }", &["not bad"]);
        check("{\"start\":5,\"canary\":\"a=\\\"b\\\"\"}\n{\"start\":6}", &["line 2", "canary"]);
        check("service: shop", &["hint: a release is"]);
        check(&"x".repeat(FILE_BYTES_MAX + 1), &["at most"]);
    }

    #[test]
    fn no_text_panics() {
        use rand::{RngExt, SeedableRng, rngs::StdRng};
        let seed = 4711;
        eprintln!("seed {seed}");
        let mut draw = StdRng::seed_from_u64(seed);
        let good = "releases:\n- { start: 2026-03-01T09:30:00Z, canary: 'v=\"2\"', bad: true }\n";
        for _ in 0..2_000 {
            let mut bytes = good.as_bytes().to_vec();
            for _ in 0..draw.random_range(1..6) {
                let at = draw.random_range(0..bytes.len());
                bytes[at] = b"{}[]:,'\"-0 \n#&*!%z"[draw.random_range(0..18)];
            }
            let _ = read("r", &String::from_utf8_lossy(&bytes), "s");
        }
    }
}
