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

use crate::{
    api::{access::policy::Policy, tls::TlsFiles},
    kubernetes::ClusterOptions,
    outward::tls::TlsOptions,
    source::prometheus::{PrometheusLimits, PrometheusOptions},
};

pub mod access;
mod cluster_mechanisms;
mod clusters;
pub mod hook;
pub mod mechanisms;
mod reading;
pub mod services;
pub mod targets;
pub mod template;
pub mod watch;

use mechanisms::MechanismOptions;
use reading::{Place, Reading, Tls};
use services::KnownService;
use targets::TargetOptions;
use watch::WatchOptions;

/// Largest configuration file.
const CONFIG_BYTES_MAX: u64 = 256 * 1024;

/// What lets others reach us.
const TOKENS_HINT: &str = "tokens under `access.tokens`; hint: `rollgate token --name ci --scope \
                           control` makes one and prints its line";

/// What a service is configured to do.
#[derive(Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Who may ask what.
    pub access: Policy,
    /// By which certificate we answer; plain HTTP without.
    pub tls: Option<TlsFiles>,
    /// How targets are asked.
    pub targets: TargetOptions,
    /// The SQLite file.
    pub store: PathBuf,
    /// Where rule files are.
    pub rules: PathBuf,
    /// Time one look's sources have.
    pub timeout: Duration,
    /// Mechanisms by name.
    pub mechanisms: BTreeMap<String, MechanismOptions>,
    /// Kubernetes API servers by name.
    pub clusters: BTreeMap<String, ClusterOptions>,
    /// Metrics servers by name.
    pub prometheus: BTreeMap<String, MetricsServer>,
    /// What is known of services, by name.
    pub services: BTreeMap<String, KnownService>,
    /// Services that are watched between releases.
    pub watch: Vec<WatchOptions>,
}

/// One metrics server.
#[derive(Debug)]
pub struct MetricsServer {
    /// What is asked, and how.
    pub options: PrometheusOptions,
    /// Trust and identity.
    pub tls: TlsOptions,
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
    /// What once let requests without credentials in from anywhere.
    #[serde(default)]
    allow_remote: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    access: access::Access,
    #[serde(default)]
    tls: Option<access::ListenerTls>,
    #[serde(default)]
    targets: targets::Targets,
    #[serde(default = "default_store")]
    store: PathBuf,
    #[serde(default = "default_rules")]
    rules: PathBuf,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    mechanisms: BTreeMap<String, mechanisms::Mechanism>,
    #[serde(default)]
    clusters: BTreeMap<String, clusters::Entry>,
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
    #[serde(default)]
    tls: Option<Tls>,
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

/// Whether secrets are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// From where they are; one that is not there is a fault.
    Read,
    /// Something stands for each of them, so that a configuration can be checked where they are
    /// not. Nothing may be sent with it.
    StandIn,
}

/// A configuration, and what was noticed while it was read.
#[derive(Debug)]
pub struct AtRest {
    /// What it says.
    pub config: Config,
    /// Files with secrets that everybody on the machine may read, by where they are named.
    pub readable: Vec<(String, PathBuf)>,
}

/// Reads a configuration file. Relative paths in it are taken from where it lies. `env` looks up
/// environment variables.
///
/// # Errors
/// With every fault that it has.
pub fn read(path: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    Ok(read_at_rest(path, env, Secrets::Read)?.config)
}

/// [`read`], for who wants to check it and may not have its secrets.
///
/// # Errors
/// As [`read`].
pub fn read_at_rest(
    path: &Path,
    env: impl Fn(&str) -> Option<String>,
    secrets: Secrets,
) -> Result<AtRest, ConfigError> {
    let name = path.display().to_string();
    let text = file_text(path)?;
    // Without an excerpt: a line may hold a URL that is a secret.
    let options = serde_saphyr::options! { with_snippet: false };
    let file: File = serde_saphyr::from_str_with_options(&text, options).map_err(|error| {
        ConfigError::Malformed {
            path: name.clone(),
            found: error.to_string(),
            hint: KEYS.to_owned(),
        }
    })?;
    let base = path.parent().unwrap_or(Path::new("."));
    let mut reading = Reading::new(base, &env, secrets);
    let config = reading.config(file);
    match config {
        Some(config) if reading.faults.is_empty() => {
            Ok(AtRest { config, readable: reading.readable })
        }
        Some(_) | None => Err(ConfigError::Refused { path: name, faults: reading.faults }),
    }
}

/// The keys, for who wrote another one.
const KEYS: &str = "keys are listen, access, tls, store, rules, timeout, mechanisms, clusters, \
                    prometheus, services, targets, watch; the README shows each";

/// The text of a configuration file, which is not large.
fn file_text(path: &Path) -> Result<String, ConfigError> {
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
    std::fs::read_to_string(path).map_err(unreadable)
}

impl Reading<'_> {
    fn config(&mut self, file: File) -> Option<Config> {
        if file.allow_remote.is_some() {
            self.fault(format!(
                "allow_remote is no more: a listener beyond loopback needs {TOKENS_HINT}"
            ));
        }
        let access = self.access(file.access);
        let listen = self.listen(&file.listen, &access);
        let tls = self.listener_tls(file.tls);
        let targets = self.targets(file.targets);
        let timeout = self.duration("timeout", file.timeout.as_deref());
        let clusters = self.clusters(file.clusters);
        let mechanisms = self.mechanisms(file.mechanisms, &clusters);
        let mut prometheus = BTreeMap::new();
        for (name, Server { url, headers, timeout, tls }) in file.prometheus {
            let at = format!("prometheus.{name}");
            let headers = self.headers(&at, &headers);
            let timeout = self.duration(&format!("{at}.timeout"), timeout.as_deref());
            let limits = PrometheusLimits::default();
            let tls = self.tls(&format!("{at}.tls"), tls.as_ref());
            let options = PrometheusOptions { url, headers, timeout, limits };
            prometheus.insert(name, MetricsServer { options, tls });
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
        Some(Config {
            listen: listen?,
            access,
            tls,
            targets,
            store,
            rules,
            timeout,
            mechanisms,
            clusters,
            prometheus,
            services,
            watch,
        })
    }

    fn listen(&mut self, text: &str, access: &Policy) -> Option<SocketAddr> {
        let Ok(addr) = text.parse::<SocketAddr>() else {
            self.faults
                .push(format!("listen is {text:?}, expected an address such as 127.0.0.1:8750"));
            return None;
        };
        if !is_loopback(addr) && access.tokens.is_empty() {
            self.faults.push(format!(
                "listen is {addr}, which others can reach; expected a loopback address, or \
                 {TOKENS_HINT}"
            ));
        }
        Some(addr)
    }
}

/// Whether only this machine can reach an address.
pub fn is_loopback(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_loopback()
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
        let token = format!(
            "access: {{ tokens: [ {{ name: a, scope: read, sha256: {} }} ] }}",
            "ab".repeat(32)
        );
        for listen in ["0.0.0.0:80", "'[::]:80'", "10.0.0.1:80"] {
            check(&format!("listen: {listen}"), Err(&["others can reach", "`rollgate token"]));
            check(&format!("listen: {listen}\n{token}"), Ok(listen.trim_matches('\'')));
        }
        for listen in ["127.9.9.9:80", "'[::1]:80'"] {
            check(&format!("listen: {listen}"), Ok(listen.trim_matches('\'')));
        }
        check("allow_remote: true", Err(&["allow_remote is no more", "access.tokens"]));
        check("tls: { cert: a }", Err(&["key"]));
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
