//! `rollgate.yaml` and the environment become checked options that the parts own.
//!
//! Secrets are never written in the file itself: a `{ env: NAME }` or `{ file: PATH }` says where
//! they are. Unknown keys are refused; every fault says where it is.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::source::prometheus::{PrometheusLimits, PrometheusOptions};

pub mod mechanisms;
mod reading;
pub mod services;
pub mod template;
pub mod watch;

use mechanisms::MechanismOptions;
use reading::{Place, Reading};
use services::KnownService;
use watch::WatchOptions;

/// Largest configuration file.
const CONFIG_BYTES_MAX: u64 = 256 * 1024;

/// What a service is configured to do.
#[derive(Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The SQLite file.
    pub store: PathBuf,
    /// Where rule files are.
    pub rules: PathBuf,
    /// Time one look's sources have.
    pub timeout: Duration,
    /// Mechanisms by name.
    pub mechanisms: BTreeMap<String, MechanismOptions>,
    /// Metrics servers by name.
    pub prometheus: BTreeMap<String, PrometheusOptions>,
    /// What is known of services, by name.
    pub services: BTreeMap<String, KnownService>,
    /// Services that are watched between releases.
    pub watch: Vec<WatchOptions>,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what a configuration looks like.
    #[error("{path}: {found}\n  hint: {hint}")]
    Malformed {
        /// The file.
        path: String,
        /// Where and what.
        found: String,
        /// What to do.
        hint: String,
    },
    /// Values that cannot be used; all of them.
    #[error("{path}: {}", .faults.join("\n  "))]
    Refused {
        /// The file.
        path: String,
        /// One per value.
        faults: Vec<String>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default = "default_listen")]
    listen: String,
    /// Answering beyond loopback needs this word, since requests carry no credentials.
    #[serde(default)]
    allow_remote: bool,
    #[serde(default = "default_store")]
    store: PathBuf,
    #[serde(default = "default_rules")]
    rules: PathBuf,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    mechanisms: BTreeMap<String, mechanisms::Mechanism>,
    #[serde(default)]
    prometheus: BTreeMap<String, Server>,
    #[serde(default)]
    services: BTreeMap<String, services::Service>,
    #[serde(default)]
    watch: BTreeMap<String, watch::Watch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Server {
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, Place>,
    #[serde(default)]
    timeout: Option<String>,
}

fn default_listen() -> String {
    "127.0.0.1:8750".to_owned()
}

fn default_store() -> PathBuf {
    PathBuf::from("rollgate.db")
}

fn default_rules() -> PathBuf {
    PathBuf::from("rules")
}

/// Reads a configuration file. Relative paths in it are taken from where it lies. `env` looks up
/// environment variables.
pub fn read(path: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    let name = path.display().to_string();
    let unreadable = |source| ConfigError::Unreadable { path: name.clone(), source };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > CONFIG_BYTES_MAX {
        return Err(ConfigError::Malformed {
            path: name,
            found: format!("the file has {bytes} bytes, at most {CONFIG_BYTES_MAX} are read"),
            hint: "is this the configuration?".to_owned(),
        });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let file: File = serde_saphyr::from_str(&text).map_err(|error| ConfigError::Malformed {
        path: name.clone(),
        found: error.to_string(),
        hint:
            "keys are listen, allow_remote, store, rules, timeout, mechanisms, prometheus, services, \
               watch; the README shows each"
                .to_owned(),
    })?;
    let base = path.parent().unwrap_or(Path::new("."));
    let mut reading = Reading { base, env: &env, faults: Vec::new() };
    let config = reading.config(file);
    match config {
        Some(config) if reading.faults.is_empty() => Ok(config),
        Some(_) | None => Err(ConfigError::Refused { path: name, faults: reading.faults }),
    }
}

impl Reading<'_> {
    fn config(&mut self, file: File) -> Option<Config> {
        let listen = self.listen(&file.listen, file.allow_remote);
        let timeout = self.duration("timeout", file.timeout.as_deref());
        let mechanisms = self.mechanisms(file.mechanisms);
        let mut prometheus = BTreeMap::new();
        for (name, Server { url, headers, timeout }) in file.prometheus {
            let at = format!("prometheus.{name}");
            let headers = self.headers(&at, &headers);
            let timeout = self.duration(&format!("{at}.timeout"), timeout.as_deref());
            let limits = PrometheusLimits::default();
            prometheus.insert(name, PrometheusOptions { url, headers, timeout, limits });
        }
        let store = self.base.join(file.store);
        let rules = self.base.join(file.rules);
        if !rules.is_dir() {
            self.faults
                .push(format!("rules is {}, expected a directory of rule files", rules.display()));
        }
        let known = services::Known {
            mechanisms: mechanisms.keys().map(String::as_str).collect(),
            prometheus: prometheus.keys().map(String::as_str).collect(),
        };
        let services = self.services(file.services, &known);
        let watch = watch::read(file.watch, &mut self.faults);
        let listen = listen?;
        Some(Config { listen, store, rules, timeout, mechanisms, prometheus, services, watch })
    }

    fn listen(&mut self, text: &str, allow_remote: bool) -> Option<SocketAddr> {
        let Ok(addr) = text.parse::<SocketAddr>() else {
            self.faults
                .push(format!("listen is {text:?}, expected an address such as 127.0.0.1:8750"));
            return None;
        };
        if !addr.ip().is_loopback() && !allow_remote {
            self.faults.push(format!(
                "listen is {addr}, which others can reach, and requests carry no credentials; \
                 set `allow_remote: true` when a proxy in front checks them"
            ));
        }
        Some(addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, expected: Result<&str, &[&str]>) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("rules")).expect("rules");
        let path = dir.path().join("rollgate.yaml");
        std::fs::write(&path, yaml).expect("the file");
        let env = |name: &str| (name == "KEY").then(|| "a-signing-key-of-some-length".to_owned());
        match (read(&path, env), expected) {
            (Ok(config), Ok(listen)) => assert_eq!(config.listen.to_string(), listen, "{yaml}"),
            (Err(error), Err(words)) => {
                let text = error.to_string();
                for word in words {
                    assert!(text.contains(word), "{yaml}\n{text}\nlacks {word:?}");
                }
                assert!(!text.contains("a-signing-key"), "a secret is shown: {text}");
            }
            (Ok(_), Err(words)) => panic!("{yaml}\nwas taken, expected {words:?}"),
            (Err(error), Ok(_)) => panic!("{yaml}\n{error}"),
        }
    }

    #[test]
    fn good_files_are_taken_and_bad_ones_named() {
        check("{}", Ok("127.0.0.1:8750"));
        check(
            "listen: 127.0.0.1:0\nmechanisms: { d: { webhook: { url: 'http://h/', secrets: [{ env: KEY }] } } }",
            Ok("127.0.0.1:0"),
        );
        check("lisen: x", Err(&["lisen", "line 1"]));
        check("listen: 0.0.0.0:80", Err(&["allow_remote"]));
        check("{ listen: '0.0.0.0:80', allow_remote: true }", Ok("0.0.0.0:80"));
        check(
            "timeout: 1h\nlisten: nowhere\nmechanisms: { d: { webhook: { url: 'http://h/', secrets: [{ env: NONE }, {}] } } }",
            Err(&["timeout is", "listen is", "NONE is not set", "expected either"]),
        );
        check(
            "prometheus: { p: { url: 'http://h', headers: { authorization: { file: no } } } }",
            Err(&["cannot be read"]),
        );
    }
}
