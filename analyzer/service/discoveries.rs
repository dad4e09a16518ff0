//! The discoveries that are asked now: each once, whoever looks at it, for as long as somebody does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use reqwest::Url;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{
        discovery::{DNS_PACE, DiscoveryOptions, Way},
        template::Values,
    },
    kubernetes::{Cluster, object::Name},
    source::discovery::{
        Ask, HttpList, Pods,
        dns::{DnsAsk, DnsName, Resolve},
        file_sd::FilesAsk,
        finder::{self, Finder, Pace},
        http_sd::HttpAsk,
        kubernetes::PodsAsk,
    },
    telemetry::Telemetry,
};

/// Discoveries that are asked at once. Releases of one service come to the same one.
pub const RUNNING_MAX: usize = 2048;

/// What discoveries are made of.
pub struct DiscoveryParts {
    /// The configured ones by name.
    pub options: BTreeMap<String, DiscoveryOptions>,
    /// Clusters by name.
    pub clusters: BTreeMap<String, Arc<Cluster>>,
    /// Whom names are asked of.
    pub resolver: Arc<dyn Resolve>,
    /// What happens is reported here.
    pub telemetry: Telemetry,
    /// Tasks that ask.
    pub tasks: TaskTracker,
    /// Ends them all.
    pub stop: CancellationToken,
}

/// Gives discoveries out. Cheap to clone.
#[derive(Clone)]
pub struct Discoveries {
    parts: Arc<DiscoveryParts>,
    running: Arc<Mutex<BTreeMap<String, Weak<Finder>>>>,
}

impl Discoveries {
    /// None is asked yet.
    pub fn new(parts: DiscoveryParts) -> Self {
        Self { parts: Arc::new(parts), running: Arc::default() }
    }

    /// A configured discovery, filled in for one arm of one release.
    ///
    /// # Errors
    /// In words, when there is none of that name, or it cannot be filled in.
    pub fn named(&self, name: &str, values: &Values) -> Result<Arc<Finder>, String> {
        let Some(options) = self.parts.options.get(name) else {
            let known: Vec<&str> = self.parts.options.keys().map(String::as_str).collect();
            let known = known.join(", ");
            return Err(format!("discovery {name:?} is not configured, known are: {known}"));
        };
        let filled = options.way.templates().into_iter().map(|template| template.fill(values));
        let filled: Vec<String> = filled.collect::<Result<_, _>>()?;
        let fault = |words: String| format!("discovery {name}: {words}");
        let key = format!("{name} {}", filled.join(" "));
        let ask = || self.ask(options, &filled).map_err(fault);
        self.running(key, format!("discovery {name}"), options.pace, ask)
    }

    /// Every address of a name.
    ///
    /// # Errors
    /// In words, when it is no name with a port.
    pub fn dns(&self, text: &str) -> Result<Arc<Finder>, String> {
        let name = DnsName::parse(text)?;
        let key = name.url().as_ref().map_or(text, Url::as_str).to_owned();
        let about = format!("dns {}", name.words());
        self.running(key, about, DNS_PACE, || Ok(self.ask_dns(name)))
    }

    fn ask_dns(&self, name: DnsName) -> Box<dyn Ask> {
        Box::new(DnsAsk { name, resolver: self.parts.resolver.clone() })
    }

    fn ask(&self, options: &DiscoveryOptions, filled: &[String]) -> Result<Box<dyn Ask>, String> {
        let [first, ..] = filled else { return Err("there is nothing to ask".to_owned()) };
        Ok(match &options.way {
            Way::Dns(_) => self.ask_dns(DnsName::parse(first)?),
            Way::Files { base, .. } => {
                Box::new(FilesAsk::new(filled.iter().map(|path| base.join(path)).collect()))
            }
            Way::Http { headers, tls, .. } => {
                let url = Url::parse(first).map_err(|error| format!("the url: {error}"))?;
                let list = HttpList { url, headers: headers.clone(), tls: tls.clone() };
                let Pace { refresh, timeout, .. } = options.pace;
                let ask = HttpAsk::new(list, refresh, timeout);
                Box::new(ask.map_err(|error| error.to_string())?)
            }
            Way::Kubernetes { cluster, namespace, port, metrics, .. } => {
                let found = self.parts.clusters.get(cluster);
                let cluster =
                    found.ok_or_else(|| format!("cluster {cluster:?} is not configured"))?.clone();
                let namespace = match namespace {
                    Some(_) => first.as_str(),
                    None => cluster.namespace().unwrap_or("default"),
                };
                let namespace =
                    Name::new(namespace).map_err(|why| format!("the namespace {why}"))?;
                let selector = filled.last().unwrap_or(first).clone();
                let (port, metrics) = (port.clone(), metrics.clone());
                Box::new(PodsAsk(Pods { cluster, namespace, selector, port, metrics }))
            }
        })
    }

    /// The discovery that is asked already, or another one.
    fn running(
        &self,
        key: String,
        about: String,
        pace: Pace,
        ask: impl FnOnce() -> Result<Box<dyn Ask>, String>,
    ) -> Result<Arc<Finder>, String> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(finder) = running.get(&key).and_then(Weak::upgrade) {
            return Ok(finder);
        }
        running.retain(|_, finder| finder.strong_count() > 0);
        if running.len() >= RUNNING_MAX {
            return Err(format!("{about}: {RUNNING_MAX} discoveries are asked already"));
        }
        let parts = &self.parts;
        let (finder, seeker) = finder::pair(about, pace, ask()?, parts.telemetry.clone());
        parts.tasks.spawn(seeker.run(parts.stop.clone()));
        let finder = Arc::new(finder);
        running.insert(key, Arc::downgrade(&finder));
        Ok(finder)
    }
}
