//! `rollgate.yaml` at rest: everything that `serve` would refuse, what it would do on each decision,
//! and what should not stay as it is. Nothing is sent, and no cluster, server or target is asked.

use std::path::Path;

use super::{files, summary::plural};
use crate::{
    cli::{hook, serve},
    config::{self, AtRest, Config, ConfigError, Secrets},
    deliver::{About, Checks, Mechanism, Setting, mapping::DECISIONS, payload::DeployAction},
    outward::exchange::Rehearsal,
    rulefile::{
        self, Fault, Faults,
        remark::{self, Place, Remark},
    },
    service::system_clock,
};

/// What is warned of in a configuration.
pub struct Lint {
    /// Its name, in the brackets of a warning.
    pub name: &'static str,
    /// What it finds, as a phrase.
    pub what: &'static str,
    /// What comes of it, as sentences.
    pub why: &'static str,
}

/// Every lint of configurations.
pub static LINTS: [Lint; 5] = [
    Lint {
        name: PLAIN_HTTP,
        what: "a token that is sent over http:// beyond this machine",
        why: "Whoever listens on the way can use the token.",
    },
    Lint {
        name: UNCHECKED_REVISION,
        what: "a mechanism that compares nothing with the version that was judged",
        why: "A verdict that arrives late may change another release.",
    },
    Lint {
        name: DOES_NOTHING,
        what: "a mechanism that does nothing on any decision",
        why: "It is told nothing, whatever is decided.",
    },
    Lint {
        name: READABLE_SECRET,
        what: "a secret in a file that everybody on the machine may read",
        why: "Every process of the machine can act in its name.",
    },
    Lint {
        name: RULE_FILES,
        what: "rule files that do not load, or none at all",
        why: "Orders that name them are refused.",
    },
];

const PLAIN_HTTP: &str = "token-over-http";
const UNCHECKED_REVISION: &str = "unchecked-revision";
const DOES_NOTHING: &str = "does-nothing";
const READABLE_SECRET: &str = "readable-secret";
const RULE_FILES: &str = "rule-files-missing";

/// Keys that only a configuration has at its top.
const KEYS: [&str; 8] =
    ["listen", "store", "mechanisms", "clusters", "services", "prometheus", "watch", "timeout"];

/// Keys that only a rule file has at its top.
const RULE_KEYS: [&str; 3] = ["version", "signals", "service"];

/// A good configuration, for people and machines.
pub struct Picture {
    /// What it says.
    pub config: Config,
    /// In the order of their names.
    pub mechanisms: Vec<Drawn>,
    /// Rule files that load, of those that there are.
    pub rule_files: (usize, usize),
    /// In the order of places.
    pub warnings: Vec<Fault>,
    /// How many more there were than are kept.
    pub warnings_unlisted: usize,
    /// The file as it was.
    pub text: String,
}

/// A mechanism, and what it does.
pub struct Drawn {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: About,
    /// What it does on each decision; none where that is nothing.
    pub does: [(DeployAction, Option<String>); 4],
}

/// Whether a file is a configuration: by its name, or by its keys.
pub fn is_config(path: &Path, text: &str) -> bool {
    let is_named =
        files::stem(path).is_some_and(|stem| stem == "rollgate" || stem.ends_with(".rollgate"));
    let has = |keys: &[&str]| {
        let key = |line: &str| line.split_once(':').map(|(key, _)| key.trim_end().to_owned());
        text.lines().filter_map(key).any(|key| keys.contains(&key.as_str()))
    };
    is_named || has(&KEYS) && !has(&RULE_KEYS) && !is_hook(path, text)
}

/// Whether a file is that of a hook: by its name, or by the keys that only it has.
pub fn is_hook(path: &Path, text: &str) -> bool {
    let is_named = files::stem(path).is_some_and(|stem| stem == "hook" || stem.ends_with(".hook"));
    let has = |key: &str| text.lines().any(|line| line.starts_with(key));
    is_named || has("secrets:") && has("on:")
}

/// Reads the file of a hook and says what it does.
///
/// # Errors
/// With every fault that it has.
pub fn read_hook(path: &Path, name: &str, text: &str, secrets: Secrets) -> Result<String, Faults> {
    let read = config::hook::read(path, |name| std::env::var(name).ok(), secrets);
    let (options, _) = read.map_err(|error| remark::faults(name, text, remarks_of(error)))?;
    Ok(hook::described(path, &options))
}

/// Reads a configuration and sets up everything in it that can be set up without sending anything.
///
/// # Errors
/// With every fault that it has.
pub fn read(path: &Path, name: &str, text: &str, secrets: Secrets) -> Result<Picture, Faults> {
    let refused = |remarks| remark::faults(name, text, remarks);
    let AtRest { config, faults, readable } =
        config::read_at_rest(path, |name| std::env::var(name).ok(), secrets)
            .map_err(|error| refused(remarks_of(error)))?;
    let is_bad = |place: &str| {
        let begins = |fault: &String| {
            fault.strip_prefix(place).is_some_and(|rest| rest.starts_with(['.', ':', ' ']))
        };
        faults.iter().any(begins)
    };
    let (mut mechanisms, mut warnings, mut more) = (Vec::new(), Vec::new(), Vec::new());
    // Even by mistake nothing could be sent.
    let setting = Setting { now: system_clock(), rehearsal: Some(Rehearsal::default()) };
    for (name, options) in config.iter().flat_map(|config| &config.mechanisms) {
        let place = format!("mechanisms.{name}");
        if is_bad(&place) {
            continue;
        }
        match serve::mechanism(options.clone(), &setting) {
            Ok(mechanism) => {
                let drawn = draw(name, &*mechanism);
                warnings.extend(concerns(&drawn, &place));
                mechanisms.push(drawn);
            }
            Err(error) => more.push(format!("{place}: {error}")),
        }
    }
    let faults: Vec<Remark> = faults.into_iter().chain(more).map(fault).collect();
    let config = match config {
        Some(config) if faults.is_empty() => config,
        Some(_) | None => return Err(refused(faults)),
    };
    for (name, server) in &config.prometheus {
        if !server.options.headers.is_empty() && is_plain_beyond_loopback(&server.options.url) {
            let place = format!("prometheus.{name}.url");
            warnings.push(plain_http(place, &format!("prometheus {name}")));
        }
    }
    warnings.extend(readable.into_iter().map(|(place, file)| Remark {
        place: Place::Keys(place),
        message: format!("everybody on this machine may read {}", file.display()),
        expected: "a file of which only its owner and group have a share".to_owned(),
        hint: Some(format!("chmod o= {}", file.display())),
        warning: warning(READABLE_SECRET),
    }));
    let rule_files = rule_files(&config.rules, &mut warnings);
    let (warnings, warnings_unlisted) = remark::warnings(name, text, warnings);
    let text = text.to_owned();
    Ok(Picture { config, mechanisms, rule_files, warnings, warnings_unlisted, text })
}

fn draw(name: &str, mechanism: &dyn Mechanism) -> Drawn {
    let does = DECISIONS.map(|action| (action, mechanism.does(action)));
    Drawn { name: name.to_owned(), about: mechanism.about(), does }
}

/// What should not stay as it is about a mechanism.
fn concerns(drawn: &Drawn, place: &str) -> Vec<Remark> {
    let Drawn { name, about, does } = drawn;
    let mut concerns = Vec::new();
    if about.carries_token && is_plain_beyond_loopback(&about.to) {
        concerns.push(plain_http(place.to_owned(), &format!("mechanism {name}")));
    }
    let does_something = does.iter().any(|(_, does)| does.is_some());
    if !does_something {
        concerns.push(Remark {
            place: Place::Keys(format!("{place}.on")),
            message: format!("mechanism {name} does nothing on any decision"),
            expected: "an action for at least one of them under `on`".to_owned(),
            hint: None,
            warning: warning(DOES_NOTHING),
        });
    } else if about.checks == Checks::Nobody {
        concerns.push(Remark {
            place: Place::Keys(place.to_owned()),
            message: format!("mechanism {name} compares nothing with the version that was judged"),
            expected: "`environment`, whose newest deployment must be of that version".to_owned(),
            hint: Some("the version goes along: whoever receives it can compare".to_owned()),
            warning: warning(UNCHECKED_REVISION),
        });
    }
    concerns
}

fn plain_http(place: String, who: &str) -> Remark {
    Remark {
        place: Place::Keys(place),
        message: format!("{who} sends a token over http:// to another machine"),
        expected: "https://".to_owned(),
        hint: None,
        warning: warning(PLAIN_HTTP),
    }
}

/// A lint's name and what comes of it.
fn warning(lint: &'static str) -> Option<(&'static str, String)> {
    let why = LINTS.iter().find(|known| known.name == lint).map_or(" ", |known| known.why);
    // A sentence there is a clause here: "so: whoever listens ...".
    let (first, rest) = why.trim_end_matches('.').split_at(1);
    Some((lint, first.to_lowercase() + rest))
}

fn is_plain_beyond_loopback(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    url.scheme() == "http" && !is_loopback
}

/// How many rule files load, of how many.
fn rule_files(directory: &Path, warnings: &mut Vec<Remark>) -> (usize, usize) {
    let mut warn = |message: String, hint: Option<String>| {
        warnings.push(Remark {
            place: Place::Keys("rules".to_owned()),
            message,
            expected: "a directory of rule files that load".to_owned(),
            hint,
            warning: warning(RULE_FILES),
        });
    };
    let listed = match files::list(directory) {
        Ok(listed) => listed,
        Err(error) => {
            warn(format!("{error:#}"), None);
            return (0, 0);
        }
    };
    // A configuration that lies among its rule files is none of them.
    let texts = listed.into_iter().map(|file| (files::read(&file).ok(), file));
    let texts: Vec<(Option<String>, std::path::PathBuf)> = texts
        .filter(|(text, file)| text.as_ref().is_none_or(|text| !is_config(file, text)))
        .collect();
    let bad: Vec<String> = texts
        .iter()
        .filter(|(text, _)| text.as_ref().is_none_or(|text| rulefile::load("", text).is_err()))
        .filter_map(|(_, file)| Some(file.file_name()?.to_string_lossy().into_owned()))
        .collect();
    if !bad.is_empty() {
        let hint = format!("rollgate check {} says what is wrong", directory.display());
        warn(format!("{} not load: {}", does_not(bad.len()), shown(&bad)), Some(hint));
    }
    (texts.len() - bad.len(), texts.len())
}

fn does_not(count: usize) -> String {
    format!("{} {}", plural(count, "rule file"), if count == 1 { "does" } else { "do" })
}

/// The first names of a list.
fn shown(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let more = names.len().saturating_sub(SHOWN);
    let first = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}

/// The faults of a configuration that is refused.
fn remarks_of(error: ConfigError) -> Vec<Remark> {
    match error {
        ConfigError::Unreadable { path, source } => {
            vec![fault(format!("{path} cannot be read: {source}"))]
        }
        ConfigError::Malformed { found, place, hint, .. } => {
            // The place is said where the line is shown.
            let told = place.map(|(line, column)| format!(" at line {line}, column {column}"));
            let short = told.and_then(|told| found.strip_suffix(&told).map(str::to_owned));
            let mut remark = fault(short.unwrap_or(found));
            remark.hint = remark.hint.or(Some(hint));
            if let Some((line, column)) = place {
                remark.place = Place::Position(line, column);
            }
            vec![remark]
        }
        ConfigError::Refused { faults, .. } => faults.into_iter().map(fault).collect(),
    }
}

/// A fault as it is put down while a configuration is read, `KEYS is FOUND, expected THIS; hint:
/// THAT`, in its parts.
fn fault(text: String) -> Remark {
    let (text, hint) = match text.split_once("; hint: ").or(text.split_once("\n  hint: ")) {
        Some((text, hint)) => (text, Some(hint.to_owned())),
        None => (text.as_str(), None),
    };
    let (message, expected) = match text.rsplit_once(", expected ") {
        Some((message, expected)) => (message, expected),
        None => (text, "a value that can be used"),
    };
    let keys = message.split([' ', ':']).next().unwrap_or_default();
    let (place, message) = (Place::Keys(keys.to_owned()), message.to_owned());
    Remark { place, message, expected: expected.to_owned(), hint, warning: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_known_by_its_name_or_its_keys() {
        let check = |path: &str, text: &str, expected: bool| {
            assert_eq!(is_config(Path::new(path), text), expected, "{path} {text}");
        };
        check("/etc/rollgate/rollgate.yaml", "", true);
        check("000.rollgate.yml", "", true);
        check("shop.yaml", "listen: 127.0.0.1:1", true);
        check("shop.yaml", "# mechanisms\nmechanisms:\n  a: {}", true);
        check("shop.yaml", "version: 1\nsignals:\n", false);
        check("shop.yaml", "version: 1\nwatch: odd\n", false);
        check("shop.yaml", "rules:\n  watch: {}\n", false);
        check("rollgate.test.yaml", "", false);
    }

    #[test]
    fn loopback_needs_no_encryption() {
        let check =
            |url: &str, expected| assert_eq!(is_plain_beyond_loopback(url), expected, "{url}");
        check("http://127.0.0.1:9", false);
        check("http://127.8.0.1:9", false);
        check("http://[::1]:9/x", false);
        check("http://localhost", false);
        check("https://h", false);
        check("http://h", true);
        check("http://10.0.0.1:80", true);
        check("http://localhost.evil.example", true);
    }

    #[test]
    fn faults_are_taken_apart() {
        let check = |text: &str, keys: &str, message: &str, expected: &str, hint: Option<&str>| {
            let found = fault(text.to_owned());
            assert_eq!(found.place, Place::Keys(keys.to_owned()));
            assert_eq!((found.message.as_str(), found.expected.as_str()), (message, expected));
            assert_eq!(found.hint.as_deref(), hint);
        };
        check(
            "timeout is \"1h\", expected 1ms to 300s, such as `10s`",
            "timeout",
            "timeout is \"1h\"",
            "1ms to 300s, such as `10s`",
            None,
        );
        check(
            "mechanisms.d: webhook d: signing secret 1 is short, expected 24\n  hint: openssl",
            "mechanisms.d",
            "mechanisms.d: webhook d: signing secret 1 is short",
            "24",
            Some("openssl"),
        );
        check("odd", "odd", "odd", "a value that can be used", None);
    }
}
