//! `discovery:` of the configuration: where targets are found that nobody types.
//!
//! Names may stand in every place (`{service}`, `{version}`): they are filled in for each arm of each
//! release, and those who come to the same place are answered by one discovery.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{
    reading::{Place, Reading, Tls},
    template::{Purpose, Template},
    watch,
};
use crate::{
    outward::tls::TlsOptions,
    source::discovery::{MetricsPlace, PodPort, REFRESH_MIN, file_sd, finder::Pace},
    telemetry::secret::Secret,
};

/// Discoveries of a configuration.
pub const DISCOVERIES_MAX: usize = 256;

/// Paths of one discovery.
const PATHS_MAX: usize = 32;

/// Time one question may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Age from which on an answer says nothing any more, where nothing is configured.
const STALE_DEFAULT: Duration = Duration::from_secs(300);

/// How a name is asked where an order gives it: resolvers hold what is gone for half a minute.
pub const DNS_PACE: Pace = Pace {
    refresh: Duration::from_secs(30),
    timeout: TIMEOUT,
    stale: STALE_DEFAULT,
    settle: Duration::from_secs(30),
};

/// Whoever writes a list does so some time after the fact.
const LIST_SETTLE: Duration = Duration::from_secs(10);
const FILE_REFRESH: Duration = Duration::from_secs(5);
const HTTP_REFRESH: Duration = Duration::from_secs(30);
/// An API server knows first.
const KUBERNETES_REFRESH: Duration = Duration::from_secs(5);

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// One discovery, ready to be filled in.
#[derive(Clone, Debug)]
pub struct DiscoveryOptions {
    /// Whom to ask.
    pub way: Way,
    /// How often.
    pub pace: Pace,
}

/// Whom to ask.
#[derive(Clone, Debug)]
pub enum Way {
    /// A resolver: `host:port`.
    Dns(Template),
    /// Files.
    Files {
        /// Where relative paths begin.
        base: PathBuf,
        /// The paths.
        paths: Vec<Template>,
    },
    /// A list over HTTP.
    Http {
        /// Where it is.
        url: Template,
        /// Headers of every question.
        headers: Vec<(String, Secret)>,
        /// Whom we trust, and as whom we come.
        tls: TlsOptions,
    },
    /// An API server.
    Kubernetes {
        /// Name of the configured cluster.
        cluster: String,
        /// The namespace; the cluster's own when it is not said.
        namespace: Option<Template>,
        /// Label selector.
        selector: Template,
        /// Port of the metrics.
        port: PodPort,
        /// How they are served.
        metrics: MetricsPlace,
    },
}

impl Way {
    /// Every text that is to be filled in.
    pub fn templates(&self) -> Vec<&Template> {
        match self {
            Way::Dns(name) => vec![name],
            Way::Files { paths, .. } => paths.iter().collect(),
            Way::Http { url, .. } => vec![url],
            Way::Kubernetes { namespace, selector, .. } => {
                namespace.iter().chain([selector]).collect()
            }
        }
    }
}

/// One entry as it is written: its kind is the key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Discovery {
    #[serde(default)]
    dns: Option<String>,
    #[serde(default)]
    files: Option<Vec<String>>,
    #[serde(default)]
    http: Option<Http>,
    #[serde(default)]
    kubernetes: Option<Kubernetes>,
    #[serde(default)]
    refresh: Option<String>,
    #[serde(default)]
    stale: Option<String>,
    #[serde(default)]
    settle: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, Place>,
    #[serde(default)]
    tls: Option<Tls>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kubernetes {
    cluster: String,
    #[serde(default)]
    namespace: Option<String>,
    selector: String,
    port: Port,
    #[serde(default)]
    scheme: Option<String>,
    #[serde(default)]
    path: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u16),
    Named(String),
}

impl Reading<'_> {
    pub(super) fn discoveries(
        &mut self,
        entries: BTreeMap<String, Discovery>,
        names: &[&str],
        clusters: &[&str],
    ) -> BTreeMap<String, DiscoveryOptions> {
        if entries.len() > DISCOVERIES_MAX {
            let found = entries.len();
            self.fault(format!("discovery has {found} entries, at most {DISCOVERIES_MAX}"));
        }
        let mut options = BTreeMap::new();
        for (name, entry) in entries {
            let at = format!("discovery.{name}");
            if let Some(found) = self.discovery(&at, entry, names, clusters) {
                options.insert(name, found);
            }
        }
        options
    }

    fn discovery(
        &mut self,
        at: &str,
        entry: Discovery,
        names: &[&str],
        clusters: &[&str],
    ) -> Option<DiscoveryOptions> {
        let Discovery { dns, files, http, kubernetes, refresh, stale, settle } = entry;
        let (way, refresh_default, settle_default) = match (dns, files, http, kubernetes) {
            (Some(name), None, None, None) => {
                let name = self.template(&format!("{at}.dns"), &name, names, Purpose::Name);
                (name.map(Way::Dns), DNS_PACE.refresh, DNS_PACE.settle)
            }
            (None, Some(paths), None, None) => {
                (self.files(&format!("{at}.files"), &paths, names), FILE_REFRESH, LIST_SETTLE)
            }
            (None, None, Some(http), None) => {
                (self.http(&format!("{at}.http"), http, names), HTTP_REFRESH, LIST_SETTLE)
            }
            (None, None, None, Some(kubernetes)) => {
                let at = format!("{at}.kubernetes");
                let way = self.kubernetes(&at, kubernetes, names, clusters);
                (way, KUBERNETES_REFRESH, Duration::ZERO)
            }
            _ => {
                self.fault(format!("{at}: expected one of dns, files, http, kubernetes"));
                return None;
            }
        };
        let mut length = |key: &str, text: Option<String>, bounds: (Duration, Duration), or| {
            self.between(&format!("{at}.{key}"), text, bounds).unwrap_or(or)
        };
        let refresh = length("refresh", refresh, (REFRESH_MIN, HOUR), refresh_default);
        let settle = length("settle", settle, (Duration::ZERO, HOUR), settle_default);
        let stale_default = STALE_DEFAULT.max(refresh * 3);
        let stale = length("stale", stale, (refresh, DAY), stale_default);
        Some(DiscoveryOptions {
            way: way?,
            pace: Pace { refresh, timeout: TIMEOUT, stale, settle },
        })
    }

    fn between(
        &mut self,
        at: &str,
        text: Option<String>,
        (least, most): (Duration, Duration),
    ) -> Option<Duration> {
        let text = text?;
        let found = watch::duration(&text).filter(|found| (least..=most).contains(found));
        if found.is_none() {
            self.fault(format!(
                "{at} is {text:?}, expected {}s to {}s, such as `30s`",
                least.as_secs(),
                most.as_secs()
            ));
        }
        found
    }

    fn files(&mut self, at: &str, paths: &[String], names: &[&str]) -> Option<Way> {
        if paths.is_empty() || paths.len() > PATHS_MAX {
            let found = paths.len();
            self.fault(format!("{at} has {found} entries, expected 1 to {PATHS_MAX} paths"));
        }
        let mut templates = Vec::new();
        for path in paths {
            let parent = Path::new(path).parent().unwrap_or(Path::new(""));
            if !file_sd::is_list(Path::new(path)) || parent.to_string_lossy().contains('*') {
                self.fault(format!(
                    "{at} has {path:?}, expected a path that ends in .json, .yml or .yaml, with \
                     `*` in its last part only"
                ));
            }
            templates.extend(self.template(at, path, names, Purpose::Name));
        }
        let base = self.base.to_owned();
        (templates.len() == paths.len()).then_some(Way::Files { base, paths: templates })
    }

    fn http(&mut self, at: &str, http: Http, names: &[&str]) -> Option<Way> {
        let Http { url, headers, tls } = http;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            self.fault(format!("{at}.url does not begin with http:// or https://"));
        }
        let url = self.template(&format!("{at}.url"), &url, names, Purpose::Name);
        let headers = self.headers(at, &headers);
        let tls = self.tls(&format!("{at}.tls"), tls.as_ref());
        Some(Way::Http { url: url?, headers, tls })
    }

    fn kubernetes(
        &mut self,
        at: &str,
        entry: Kubernetes,
        names: &[&str],
        clusters: &[&str],
    ) -> Option<Way> {
        let Kubernetes { cluster, namespace, selector, port, scheme, path } = entry;
        self.among(&format!("{at}.cluster"), &cluster, clusters);
        let namespace = namespace
            .map(|text| self.template(&format!("{at}.namespace"), &text, names, Purpose::Name));
        let selector = self.template(&format!("{at}.selector"), &selector, names, Purpose::Name);
        let port = match port {
            Port::Number(port) if port > 0 => PodPort::Number(port),
            Port::Named(name) if !name.is_empty() => PodPort::Named(name),
            Port::Number(_) | Port::Named(_) => {
                self.fault(format!("{at}.port is empty, expected a number or a port's name"));
                return None;
            }
        };
        let plain = MetricsPlace::default();
        let scheme = scheme.unwrap_or(plain.scheme);
        if !["http", "https"].contains(&scheme.as_str()) {
            self.fault(format!("{at}.scheme is {scheme:?}, expected http or https"));
        }
        let path = path.unwrap_or(plain.path);
        if !path.starts_with('/') {
            self.fault(format!("{at}.path is {path:?}, expected a path that begins with /"));
        }
        let namespace = match namespace {
            None => None,
            Some(found) => Some(found?),
        };
        let metrics = MetricsPlace { scheme, path };
        Some(Way::Kubernetes { cluster, namespace, selector: selector?, port, metrics })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secrets;

    fn read(text: &str) -> (BTreeMap<String, DiscoveryOptions>, String) {
        let entries = serde_saphyr::from_str(text).expect("the shape");
        let env = |_: &str| None;
        let mut reading = Reading::new(Path::new("/etc/x"), &env, Secrets::Read);
        let options = reading.discoveries(entries, &["service", "namespace"], &["main"]);
        (options, reading.faults.join("\n"))
    }

    #[test]
    fn every_kind_is_read() {
        let (options, faults) = read(
            "names: { dns: '{service}.internal:8080', settle: 0s }\n\
             hosts: { files: [targets/*.json, '{service}.yml'], refresh: 1s, stale: 1m }\n\
             list: { http: { url: 'https://h/{namespace}' }, refresh: 2m }\n\
             pods: { kubernetes: { cluster: main, namespace: '{namespace}', \
                     selector: 'app={service}', port: 8080 } }\n\
             more: { kubernetes: { cluster: main, selector: a=b, port: metrics, path: /m } }",
        );
        assert_eq!(faults, "");
        assert_eq!(options["names"].pace, Pace { settle: Duration::ZERO, ..DNS_PACE });
        assert_eq!(options["hosts"].pace.stale, Duration::from_secs(60));
        assert_eq!(options["list"].pace.stale, Duration::from_secs(360));
        let Way::Kubernetes { port, metrics, .. } = &options["more"].way else { panic!("pods") };
        assert_eq!((port, metrics.path.as_str()), (&PodPort::Named("metrics".into()), "/m"));
        assert_eq!(options["pods"].way.templates().len(), 2);
    }

    #[test]
    fn every_fault_is_named() {
        let (_, faults) = read(
            "a: {}\n\
             b: { dns: x, files: [y.json] }\n\
             c: { files: [], refresh: 0s, stale: 2d }\n\
             d: { files: [a/*/b.json, b.txt, '{nope}.json'] }\n\
             e: { http: { url: ftp://x, headers: { a: { env: NONE } } }, settle: 1d }\n\
             f: { kubernetes: { cluster: other, selector: x, port: 0, scheme: s, path: p } }\n\
             g: { kubernetes: { cluster: main, selector: x, port: 1, scheme: s, path: p } }",
        );
        for words in [
            "discovery.a: expected one of dns, files, http, kubernetes",
            "discovery.b: expected one of",
            "discovery.c.files has 0 entries",
            "discovery.c.refresh is \"0s\", expected 1s to 3600s",
            "discovery.c.stale is \"2d\"",
            "discovery.d.files has \"a/*/b.json\"",
            "discovery.d.files has \"b.txt\"",
            "discovery.d.files: {nope} is not known",
            "discovery.e.http.url does not begin",
            "discovery.e.http.headers.a",
            "discovery.e.settle is \"1d\"",
            "discovery.f.kubernetes.cluster names \"other\"",
            "discovery.f.kubernetes.port is empty",
            "discovery.g.kubernetes.scheme is \"s\"",
            "discovery.g.kubernetes.path is \"p\"",
        ] {
            assert!(faults.contains(words), "{faults}\nlacks {words}");
        }
    }
}
