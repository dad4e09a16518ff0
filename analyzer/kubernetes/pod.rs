//! What is known of a pod: enough to ask it for its metrics.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its identity: another one under the same name has another.
    pub uid: String,
    /// Its address; none until it has one.
    pub ip: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: String,
    /// Whether its readiness checks pass.
    pub is_ready: bool,
    /// Whether it has been told to end.
    pub is_ending: bool,
    /// Named ports of its containers.
    pub ports: BTreeMap<String, u16>,
    /// The node that it runs on; empty until it has one.
    pub node: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodObject {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    #[serde(default)]
    name: String,
    container_port: u16,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl From<PodObject> for Pod {
    fn from(PodObject { metadata, spec, status }: PodObject) -> Self {
        let named = |container: Container| container.ports.unwrap_or_default();
        let ports = spec.containers.into_iter().flat_map(named);
        let ports = ports.filter(|port| !port.name.is_empty());
        let mut conditions = status.conditions.unwrap_or_default().into_iter();
        Self {
            name: metadata.name,
            uid: metadata.uid,
            ip: status.pod_ip.filter(|ip| !ip.is_empty()),
            labels: metadata.labels.unwrap_or_default(),
            phase: status.phase,
            is_ready: conditions.any(|found| found.kind == "Ready" && found.status == "True"),
            is_ending: metadata.deletion_timestamp.is_some(),
            ports: ports.map(|port| (port.name, port.container_port)).collect(),
            node: spec.node_name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(text: &str) -> Pod {
        serde_json::from_str::<PodObject>(text).expect("a pod").into()
    }

    #[test]
    fn a_running_pod_and_a_bare_one() {
        let found = pod(r#"{"metadata":{"name":"shop-1","uid":"u1","labels":{"app":"shop"}},
            "spec":{"nodeName":"n1","containers":[{"name":"app","ports":[
                {"name":"metrics","containerPort":9090,"protocol":"TCP"},{"containerPort":8080}]},
                {"name":"proxy"}]},
            "status":{"phase":"Running","podIP":"10.0.0.7","conditions":[
                {"type":"Initialized","status":"True"},{"type":"Ready","status":"True"}]}}"#);
        assert_eq!((found.name.as_str(), found.ip.as_deref()), ("shop-1", Some("10.0.0.7")));
        assert!(found.is_ready && !found.is_ending && found.phase == "Running");
        assert_eq!(found.ports, BTreeMap::from([("metrics".to_owned(), 9090)]));
        assert_eq!((found.labels["app"].as_str(), found.node.as_str()), ("shop", "n1"));

        let bare = pod(r#"{"metadata":{"name":"b","deletionTimestamp":"2026-01-01T00:00:00Z"},
            "status":{"podIP":"","conditions":[{"type":"Ready","status":"False"}]}}"#);
        assert_eq!((bare.ip, bare.is_ready, bare.is_ending), (None, false, true));
    }
}
