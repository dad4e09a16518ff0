//! Pods by label selector, asked of an API server.
//!
//! A pod counts as an instance while it runs, is not told to end, and has an address, ready or not: a
//! canary that never gets ready must not be left out for it. Pods are told apart by their identity,
//! not by their address, so that one which takes over an address is another instance.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Ask, LISTED_MAX, Listed, PodPort, Pods};
use crate::kubernetes::Pod;

/// Asks for pods.
pub struct PodsAsk(pub Pods);

#[async_trait]
impl Ask for PodsAsk {
    async fn ask(&mut self) -> Result<Vec<Listed>, String> {
        let Pods { cluster, namespace, selector, .. } = &self.0;
        let found = cluster.list_pods(namespace, selector).await;
        let found = found.map_err(|error| error.to_string())?;
        let running: Vec<&Pod> = found.iter().filter(|pod| runs(pod)).collect();
        if running.len() > LISTED_MAX {
            return Err(format!("more than {LISTED_MAX} pods match"));
        }
        running.into_iter().map(|pod| listed(pod, &self.0)).collect()
    }
}

fn runs(pod: &Pod) -> bool {
    pod.phase == "Running" && !pod.is_ending && pod.ip.is_some()
}

fn listed(pod: &Pod, pods: &Pods) -> Result<Listed, String> {
    let port = match &pods.port {
        PodPort::Number(port) => *port,
        PodPort::Named(name) => match pod.ports.get(name) {
            Some(port) => *port,
            None => {
                let known: Vec<&str> = pod.ports.keys().map(String::as_str).collect();
                return Err(format!(
                    "pod {} has no port {name:?}, known are: {}",
                    pod.name,
                    known.join(", ")
                ));
            }
        },
    };
    let ip = pod.ip.as_deref().unwrap_or_default();
    let address = if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    let target = pods.metrics.target(&address)?.renamed(instance_name(pod));
    let meta = |name: &str| format!("__meta_kubernetes_{name}");
    let mut labels: BTreeMap<String, String> = pod.labels.clone();
    labels.extend([
        ("__address__".to_owned(), address),
        (meta("namespace"), pods.namespace.to_string()),
        (meta("pod_name"), pod.name.clone()),
        (meta("pod_uid"), pod.uid.clone()),
        (meta("pod_node_name"), pod.node.clone()),
        (meta("pod_ready"), pod.is_ready.to_string()),
    ]);
    Ok(Listed { target, labels })
}

/// The pod's name; of one that ends in a number, whose name its successor takes over, with the
/// beginning of its identity.
fn instance_name(pod: &Pod) -> String {
    let is_ordinal = |end: &str| !end.is_empty() && end.chars().all(|c| c.is_ascii_digit());
    let identity: String = pod.uid.chars().take(8).collect();
    match pod.name.rsplit_once('-') {
        Some((_, end)) if is_ordinal(end) && !identity.is_empty() => {
            format!("{}@{identity}", pod.name)
        }
        Some(_) | None => pod.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Pod {
        Pod {
            name: name.to_owned(),
            uid: "0123456789abcdef".to_owned(),
            ip: Some("10.0.0.7".to_owned()),
            labels: BTreeMap::from([("version".to_owned(), "v2".to_owned())]),
            phase: "Running".to_owned(),
            is_ready: false,
            is_ending: false,
            ports: BTreeMap::from([("metrics".to_owned(), 9090)]),
            node: "n1".to_owned(),
        }
    }

    #[test]
    fn a_pod_that_runs_is_an_instance() {
        assert!(runs(&pod("shop-7c9-x")));
        for phase in ["Pending", "Succeeded", "Failed", "Unknown"] {
            assert!(!runs(&Pod { phase: phase.to_owned(), ..pod("a") }), "{phase}");
        }
        assert!(!runs(&Pod { is_ending: true, ..pod("a") }));
        assert!(!runs(&Pod { ip: None, ..pod("a") }));
    }

    #[test]
    fn a_successor_under_the_same_name_is_another_instance() {
        for (name, expected) in [
            ("shop-7c9-x2v", "shop-7c9-x2v"),
            ("shop-0", "shop-0@01234567"),
            ("shop", "shop"),
            ("shop-", "shop-"),
        ] {
            assert_eq!(instance_name(&pod(name)), expected);
        }
    }
}
