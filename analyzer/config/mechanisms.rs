//! `mechanisms:` of the configuration: whom verdicts are told, and how.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    cluster_mechanisms::{ArgoRollouts, ClusterPlace, Flagger, KubernetesService, KubernetesUndo},
    reading::{Place, Reading, Tls},
};
use crate::{
    deliver::{
        kubernetes_service::KubernetesServiceOptions,
        mapping::Mapping,
        webhook::{self, WebhookOptions},
        workload::WorkloadOptions,
    },
    kubernetes::ClusterOptions,
    telemetry::secret::Secret,
};

/// Every kind there is.
const KINDS: &str = "webhook, kubernetes-undo, kubernetes-service, argo-rollouts, flagger";

/// One mechanism, ready to be set up.
#[derive(Clone, Debug)]
pub enum MechanismOptions {
    /// A signed POST.
    Webhook(WebhookOptions),
    /// A Deployment that is undone.
    KubernetesUndo(WorkloadOptions),
    /// A Service that is switched.
    KubernetesService(KubernetesServiceOptions),
    /// A Rollout that is steered.
    ArgoRollouts(WorkloadOptions),
    /// A Canary that is steered.
    Flagger(WorkloadOptions),
}

/// One entry as it is written: its kind is the key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mechanism {
    /// What it does on which decision, instead of what its kind does.
    #[serde(default)]
    on: BTreeMap<String, String>,
    #[serde(default)]
    webhook: Option<Webhook>,
    #[serde(default, rename = "kubernetes-undo")]
    kubernetes_undo: Option<KubernetesUndo>,
    #[serde(default, rename = "kubernetes-service")]
    kubernetes_service: Option<KubernetesService>,
    #[serde(default, rename = "argo-rollouts")]
    argo_rollouts: Option<ArgoRollouts>,
    #[serde(default)]
    flagger: Option<Flagger>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Webhook {
    url: String,
    /// Signing keys; several while one is being replaced.
    secrets: Vec<Place>,
    #[serde(default)]
    headers: BTreeMap<String, Place>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    tls: Option<Tls>,
}

impl Reading<'_> {
    pub(super) fn mechanisms(
        &mut self,
        entries: BTreeMap<String, Mechanism>,
        clusters: &BTreeMap<String, ClusterOptions>,
    ) -> BTreeMap<String, MechanismOptions> {
        let mut options = BTreeMap::new();
        for (name, entry) in entries {
            if let Some(mechanism) = self.mechanism(&name, entry, clusters) {
                options.insert(name, mechanism);
            }
        }
        options
    }

    fn mechanism(
        &mut self,
        name: &str,
        entry: Mechanism,
        clusters: &BTreeMap<String, ClusterOptions>,
    ) -> Option<MechanismOptions> {
        let at = format!("mechanisms.{name}");
        let Mechanism { on, webhook, kubernetes_undo, kubernetes_service, argo_rollouts, flagger } =
            entry;
        let kinds = [
            webhook.is_some(),
            kubernetes_undo.is_some(),
            kubernetes_service.is_some(),
            argo_rollouts.is_some(),
            flagger.is_some(),
        ];
        match kinds.into_iter().filter(|is_there| *is_there).count() {
            1 => {}
            0 => self.fault(format!("{at} says no kind, expected one of {KINDS}")),
            _ => self.fault(format!("{at} says more than one kind, expected one of {KINDS}")),
        }
        if let Some(webhook) = webhook {
            let mapping = self.mapping(&at, &on, webhook::MAPPING, &webhook::ACTIONS);
            return Some(MechanismOptions::Webhook(self.webhook(&at, name, webhook, mapping)));
        }
        let place = ClusterPlace { at: &at, name, on: &on, clusters };
        let undo = kubernetes_undo.map(|entry| self.kubernetes_undo(&place, entry));
        let service = kubernetes_service.map(|entry| self.kubernetes_service(&place, entry));
        let argo = argo_rollouts.map(|entry| self.argo_rollouts(&place, entry));
        let flagger = flagger.map(|entry| self.flagger(&place, entry));
        undo.or(service).or(argo).or(flagger).flatten()
    }

    pub(super) fn mapping(
        &mut self,
        at: &str,
        on: &BTreeMap<String, String>,
        default: Mapping,
        actions: &[&'static str],
    ) -> Mapping {
        default.with(on, actions).unwrap_or_else(|faults| {
            self.faults.extend(faults.iter().map(|fault| format!("{at}.{fault}")));
            default
        })
    }

    fn webhook(
        &mut self,
        at: &str,
        name: &str,
        webhook: Webhook,
        mapping: Mapping,
    ) -> WebhookOptions {
        let Webhook { url, secrets, headers, timeout, tls } = webhook;
        let at = format!("{at}.webhook");
        if secrets.is_empty() {
            self.fault(format!("{at}.secrets is empty, expected a place of a signing key"));
        }
        let secrets = secrets.iter().filter_map(|place| self.secret(&at, place)).collect();
        let headers = self.headers(&at, &headers);
        let timeout = self.duration(&format!("{at}.timeout"), timeout.as_deref());
        let tls = self.tls(&format!("{at}.tls"), tls.as_ref());
        let (name, url) = (name.to_owned(), Secret::new(url));
        WebhookOptions { name, url, secrets, headers, timeout, tls, mapping }
    }
}
