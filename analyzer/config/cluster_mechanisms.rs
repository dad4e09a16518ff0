//! The mechanisms of `mechanisms:` that change objects of a Kubernetes cluster.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{mechanisms::MechanismOptions, reading::Reading};
use crate::{
    deliver::{
        argo_rollouts, flagger,
        kubernetes_service::{self, KubernetesServiceOptions},
        kubernetes_undo,
        mapping::Mapping,
        revision::Picked,
        workload::{self, WorkloadOptions},
    },
    kubernetes::ClusterOptions,
    outward::pattern::Pattern,
};

/// The object's name when none is written: that of the service.
const OBJECT_DEFAULT: &str = "{service}";

/// `kubernetes-undo`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KubernetesUndo {
    #[serde(default)]
    cluster: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    deployment: Option<String>,
    #[serde(default)]
    revision: Option<String>,
}

/// `kubernetes-service`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KubernetesService {
    #[serde(default)]
    cluster: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    service: Option<String>,
    /// The label of the selector that is switched.
    label: String,
    /// Its two values.
    values: [String; 2],
    #[serde(default)]
    deployment: Option<String>,
    #[serde(default)]
    scale_down: Option<bool>,
    #[serde(default)]
    revision: Option<String>,
}

/// `argo-rollouts`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArgoRollouts {
    #[serde(default)]
    cluster: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    rollout: Option<String>,
    #[serde(default)]
    revision: Option<String>,
}

/// `flagger`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flagger {
    #[serde(default)]
    cluster: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    canary: Option<String>,
    #[serde(default)]
    revision: Option<String>,
}

/// Where an entry stands, and what it may refer to.
pub(super) struct ClusterPlace<'a> {
    /// `mechanisms.NAME`.
    pub(super) at: &'a str,
    /// Its name.
    pub(super) name: &'a str,
    /// What it does on which decision.
    pub(super) on: &'a BTreeMap<String, String>,
    /// Clusters by name.
    pub(super) clusters: &'a BTreeMap<String, ClusterOptions>,
}

/// What all four kinds have.
struct Common {
    kind: &'static str,
    cluster: Option<String>,
    namespace: Option<String>,
    /// The key of the object's name, and what it says.
    object: (&'static str, Option<String>),
    revision: Option<String>,
}

impl Reading<'_> {
    pub(super) fn kubernetes_undo(
        &mut self,
        place: &ClusterPlace<'_>,
        entry: KubernetesUndo,
    ) -> Option<MechanismOptions> {
        let KubernetesUndo { cluster, namespace, deployment, revision } = entry;
        let object = ("deployment", deployment);
        let common = Common { kind: kubernetes_undo::KIND, cluster, namespace, object, revision };
        let (mapping, actions) = (kubernetes_undo::MAPPING, &kubernetes_undo::ACTIONS);
        self.workload(place, common, mapping, actions).map(MechanismOptions::KubernetesUndo)
    }

    pub(super) fn argo_rollouts(
        &mut self,
        place: &ClusterPlace<'_>,
        entry: ArgoRollouts,
    ) -> Option<MechanismOptions> {
        let ArgoRollouts { cluster, namespace, rollout, revision } = entry;
        let object = ("rollout", rollout);
        let common = Common { kind: argo_rollouts::KIND, cluster, namespace, object, revision };
        let (mapping, actions) = (argo_rollouts::MAPPING, &argo_rollouts::ACTIONS);
        self.workload(place, common, mapping, actions).map(MechanismOptions::ArgoRollouts)
    }

    pub(super) fn flagger(
        &mut self,
        place: &ClusterPlace<'_>,
        entry: Flagger,
    ) -> Option<MechanismOptions> {
        let Flagger { cluster, namespace, canary, revision } = entry;
        let object = ("canary", canary);
        let common = Common { kind: flagger::KIND, cluster, namespace, object, revision };
        let (mapping, actions) = (flagger::MAPPING, &flagger::ACTIONS);
        self.workload(place, common, mapping, actions).map(MechanismOptions::Flagger)
    }

    pub(super) fn kubernetes_service(
        &mut self,
        place: &ClusterPlace<'_>,
        entry: KubernetesService,
    ) -> Option<MechanismOptions> {
        let KubernetesService {
            cluster,
            namespace,
            service,
            label,
            values,
            deployment,
            scale_down,
            revision,
        } = entry;
        let kind = kubernetes_service::KIND;
        let at = format!("{}.{kind}", place.at);
        if scale_down == Some(true) && deployment.is_none() {
            self.fault(format!("{at}.scale_down is true without a deployment to scale"));
        }
        let deployment = deployment.map(|text| {
            let at = format!("{at}.deployment");
            self.pattern_of(&at, &text, &kubernetes_service::DEPLOYMENT_NAMES)
        });
        let common = Common { kind, cluster, namespace, object: ("service", service), revision };
        let (mapping, actions) = (kubernetes_service::MAPPING, &kubernetes_service::ACTIONS);
        let service = self.workload(place, common, mapping, actions)?;
        let deployment = match deployment {
            Some(pattern) => Some(pattern?),
            None => None,
        };
        let scales_down = scale_down.unwrap_or(true);
        Some(MechanismOptions::KubernetesService(KubernetesServiceOptions {
            service,
            label,
            values,
            deployment,
            scales_down,
        }))
    }

    fn workload(
        &mut self,
        place: &ClusterPlace<'_>,
        common: Common,
        mapping: Mapping,
        actions: &[&'static str],
    ) -> Option<WorkloadOptions> {
        let Common { kind, cluster, namespace, object: (key, object), revision } = common;
        let mapping = self.mapping(place.at, place.on, mapping, actions);
        let at = format!("{}.{kind}", place.at);
        let cluster = self.named_cluster(&at, cluster.as_deref(), place.clusters);
        let names = &workload::NAMES;
        let object = object.as_deref().unwrap_or(OBJECT_DEFAULT);
        let object = self.pattern_of(&format!("{at}.{key}"), object, names);
        let is_missing = namespace.is_none();
        let namespace =
            namespace.and_then(|text| self.pattern_of(&format!("{at}.namespace"), &text, names));
        if is_missing && cluster.as_ref().is_some_and(|cluster| cluster.namespace.is_none()) {
            self.fault(format!("{at}.namespace is missing, and the cluster has none of its own"));
        }
        let revision = revision.as_deref().map_or(Ok(Picked::default()), Picked::parse);
        let revision = revision.map_err(|why| self.fault(format!("{at}.revision {why}"))).ok();
        let name = place.name.to_owned();
        let (cluster, object, revision) = (cluster?, object?, revision?);
        Some(WorkloadOptions { name, cluster, namespace, object, revision, mapping })
    }

    /// The cluster of this name; the only one there is when none is said.
    fn named_cluster(
        &mut self,
        at: &str,
        name: Option<&str>,
        clusters: &BTreeMap<String, ClusterOptions>,
    ) -> Option<ClusterOptions> {
        let known = clusters.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "none is usable".to_owned() } else { known };
        let found = match name {
            Some(name) => clusters.get(name),
            None if clusters.len() == 1 => clusters.values().next(),
            None => None,
        };
        if found.is_none() {
            let name = name.map_or("missing".to_owned(), |name| format!("{name:?}"));
            self.fault(format!("{at}.cluster is {name}, expected one of `clusters:`: {known}"));
        }
        found.cloned()
    }

    fn pattern_of(&mut self, at: &str, text: &str, names: &[&str]) -> Option<Pattern> {
        Pattern::parse(text, names).map_err(|why| self.fault(format!("{at}: {why}"))).ok()
    }
}
