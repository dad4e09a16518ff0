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
pub mod discovery;
pub mod hook;
pub mod mechanisms;
mod reading;
pub mod services;
pub mod targets;
pub mod template;
pub mod watch;

use discovery::DiscoveryOptions;
use mechanisms::MechanismOptions;
use reading::{Place, Reading, Tls};
use services::KnownService;
use targets::TargetOptions;
use template::NAMES;
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
    /// Where targets are found, by name.
    pub discovery: BTreeMap<String, DiscoveryOptions>,
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
        /// Line and column, from 1, where they are known.
        place: Option<(usize, usize)>,
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
    discovery: BTreeMap<String, discovery::Discovery>,
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
    /// What it says, as far as it can be told; not to be used while there are faults.
    pub config: Option<Config>,
    /// Values that cannot be used; all of them.
    pub faults: Vec<String>,
    /// Files with secrets that everybody on the machine may read, by where they are named.
    pub readable: Vec<(String, PathBuf)>,
}

/// Reads a configuration file. Relative paths in it are taken from where it lies. `env` looks up
/// environment variables.
///
/// # Errors
/// With every fault that it has.
pub fn read(path: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    match read_at_rest(path, env, Secrets::Read)? {
        AtRest { config: Some(config), faults, .. } if faults.is_empty() => Ok(config),
        AtRest { faults, .. } => {
            Err(ConfigError::Refused { path: path.display().to_string(), faults })
        }
    }
}

/// [`read`], for who wants to check it and may not have its secrets.
///
/// # Errors
/// When it cannot be read, or is not what a configuration looks like.
pub fn read_at_rest(
    path: &Path,
    env: impl Fn(&str) -> Option<String>,
    secrets: Secrets,
) -> Result<AtRest, ConfigError> {
    let name = path.display().to_string();
    let text = file_text(path)?;
    // Without an excerpt: a line may hold a URL that is a secret.
    let options = serde_saphyr::options! { with_snippet: false };
    let file: File = serde_saphyr::from_str_with_options(&text, options)
        .map_err(|error| malformed(&name, &error, KEYS))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let mut reading = Reading::new(base, &env, secrets);
    let config = reading.config(file);
    Ok(AtRest { config, faults: reading.faults, readable: reading.readable })
}

/// The keys, for who wrote another one.
const KEYS: &str = "keys are listen, access, tls, store, rules, timeout, mechanisms, clusters, \
                    discovery, prometheus, services, targets, watch; the README shows each";

/// What a file is refused with that is not of the shape of a configuration.
fn malformed(path: &str, error: &serde_saphyr::Error, hint: &str) -> ConfigError {
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let place = error.location().map(|at| (number(at.line()), number(at.column())));
    let (path, found, hint) = (path.to_owned(), error.to_string(), hint.to_owned());
    ConfigError::Malformed { path, found, place, hint }
}

/// The text of a configuration file, which is not large.
fn file_text(path: &Path) -> Result<String, ConfigError> {
    let name = path.display().to_string();
    let unreadable = |source| ConfigError::Unreadable { path: name.clone(), source };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > CONFIG_BYTES_MAX {
        return Err(ConfigError::Malformed {
            path: name,
            found: format!("the file has {bytes} bytes, at most {CONFIG_BYTES_MAX} are read"),
            place: None,
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
        let mut names = NAMES.to_vec();
        names.extend(file.services.values().flat_map(services::Service::parameters));
        let known: Vec<&str> = clusters.keys().map(String::as_str).collect();
        let discovery = self.discoveries(file.discovery, &names, &known);
        let known = services::Known {
            discoveries: discovery.keys().map(String::as_str).collect(),
            mechanisms: mechanisms.keys().map(String::as_str).collect(),
            prometheus: prometheus.keys().map(String::as_str).collect(),
        };
        let services = self.services(file.services, &known);
        let watch = watch::read(file.watch, &discovery, &mut self.faults);
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
            discovery,
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

    /// A cluster and a mechanism in it.
    fn with_cluster(cluster: &str, mechanism: &str) -> String {
        format!("clusters: {{ lab: {{ {cluster} }} }}\nmechanisms: {{ d: {{ {mechanism} }} }}")
    }

    #[test]
    fn clusters_and_what_is_changed_in_them() {
        const OURS: &str = "server: 'https://10.0.0.1:6443', token: { env: KEY }, namespace: prod";
        let good = |mechanism: &str| check(&with_cluster(OURS, mechanism), Ok("127.0.0.1:8750"));
        good("kubernetes-undo: {}");
        good(
            "kubernetes-undo: { cluster: lab, namespace: 'p-{service}', deployment: x, revision: image }",
        );
        good(
            "kubernetes-service: { label: version, values: [blue, green] }, on: { promote: nothing }",
        );
        good("kubernetes-service: { label: v, values: [a, b], deployment: '{service}-{value}' }");
        good("argo-rollouts: { rollout: '{service}-rollout' }, on: { hold: abort }");
        good("flagger: {}, on: { promote: skip-analysis }");
        let bad = |cluster: &str, mechanism: &str, words: &[&str]| {
            check(&with_cluster(cluster, mechanism), Err(words));
        };
        let undo = "kubernetes-undo: {}";
        bad(
            OURS,
            "kubernetes-undo: { cluster: x }",
            &["undo.cluster is \"x\", expected one of `clusters:`: lab"],
        );
        bad(
            OURS,
            "kubernetes-undo: { deployment: '{colour}' }",
            &["d.kubernetes-undo.deployment: {colour} is not known"],
        );
        bad(
            OURS,
            "kubernetes-undo: { revision: tag }",
            &["d.kubernetes-undo.revision is \"tag\", expected auto, hash"],
        );
        bad(
            OURS,
            "kubernetes-undo: {}, on: { promote: redo }",
            &["d.on.promote is \"redo\", expected undo"],
        );
        bad(
            OURS,
            "kubernetes-service: { label: v, values: [a] }",
            &["d.kubernetes-service.values are 1, expected two"],
        );
        bad(
            OURS,
            "kubernetes-service: { label: v, values: [a, b], scale_down: true }",
            &["without a deployment"],
        );
        bad("server: 'https://h'", undo, &["undo.namespace is missing"]);
        bad(
            "server: 'http://h', token: { env: KEY }",
            undo,
            &["clusters.lab: the server begins with http:"],
        );
        bad("server: 'ftp://h'", undo, &["clusters.lab: the server begins with ftp:"]);
        bad(
            "server: 'https://h', token: { env: NONE }",
            undo,
            &["clusters.lab.token", "NONE is not set"],
        );
        bad("kubeconfig: gone", undo, &["clusters.lab: ", "gone cannot be read"]);
        bad("in_cluster: true", undo, &["KUBERNETES_SERVICE_HOST is not set"]);
        bad("in_cluster: true, kubeconfig: x", undo, &["expected one of `in_cluster: true`"]);
        bad("server: 'https://h', context: x", undo, &["context is there without kubeconfig"]);
        bad("in_cluster: true, token: { env: KEY }", undo, &["token or tls without server"]);
        bad("in_cluster: true, colour: x", undo, &["colour"]);
    }
}
