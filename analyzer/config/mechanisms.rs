//! `mechanisms:` of the configuration: whom verdicts are told, and how. An entry is of one kind,
//! which is its key; what each kind reads is in the file of its name or its family.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use super::{
    cluster_mechanisms::{self, ClusterPlace},
    reading::Reading,
};
use crate::{
    deliver::{
        alertmanager::{self, AlertmanagerOptions},
        argo_rollouts,
        cloudevents::{self, CloudEventsOptions},
        flagger,
        github::{self, GithubOptions},
        gitlab::{self, GitlabOptions},
        kubernetes_service,
        kubernetes_service::KubernetesServiceOptions,
        kubernetes_undo,
        mapping::Mapping,
        slack::{self, SlackOptions},
        webhook::{self, WebhookOptions},
        workload::WorkloadOptions,
    },
    kubernetes::ClusterOptions,
};

mod code_hosts;
mod notices;
mod receivers;

/// Every kind, as an entry writes it.
const KINDS: [&str; 10] = [
    webhook::KIND,
    cloudevents::KIND,
    kubernetes_undo::KIND,
    kubernetes_service::KIND,
    argo_rollouts::KIND,
    flagger::KIND,
    github::KIND,
    gitlab::KIND,
    alertmanager::KIND,
    slack::KIND,
];

/// Most mechanisms of a configuration: each is a label of our own metrics.
pub const MECHANISMS_MAX: usize = 100;

/// One mechanism, ready to be set up.
#[derive(Clone, Debug)]
pub enum MechanismOptions {
    /// A signed POST, or a request of the receiver's own shape.
    Webhook(WebhookOptions),
    /// A CloudEvent.
    CloudEvents(CloudEventsOptions),
    /// A Deployment that is undone.
    KubernetesUndo(WorkloadOptions),
    /// A Service that is switched.
    KubernetesService(KubernetesServiceOptions),
    /// A Rollout that is steered.
    ArgoRollouts(WorkloadOptions),
    /// A Canary that is steered.
    Flagger(WorkloadOptions),
    /// A workflow of GitHub.
    Github(GithubOptions),
    /// A pipeline of GitLab.
    Gitlab(GitlabOptions),
    /// An alert.
    Alertmanager(AlertmanagerOptions),
    /// A message to a chat.
    Slack(SlackOptions),
}

/// One entry as it is written.
pub(super) struct Mechanism {
    /// What it does on which decision, instead of what its kind does.
    on: BTreeMap<String, String>,
    kind: Option<Kind>,
}

/// What stands under the key of the kind.
enum Kind {
    Webhook(receivers::Webhook),
    CloudEvents(receivers::CloudEvents),
    KubernetesUndo(cluster_mechanisms::KubernetesUndo),
    KubernetesService(cluster_mechanisms::KubernetesService),
    ArgoRollouts(cluster_mechanisms::ArgoRollouts),
    Flagger(cluster_mechanisms::Flagger),
    Github(code_hosts::Github),
    Gitlab(code_hosts::Gitlab),
    Alertmanager(notices::Alertmanager),
    Slack(notices::Slack),
}

impl<'de> Deserialize<'de> for Mechanism {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Mechanism;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a kind of mechanism: {}", KINDS.join(", "))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Mechanism, A::Error> {
        let mut entry = Mechanism { on: BTreeMap::new(), kind: None };
        let mut first: Option<String> = None;
        while let Some(key) = map.next_key::<String>()? {
            let kind = match key.as_str() {
                "on" => {
                    entry.on = map.next_value()?;
                    continue;
                }
                webhook::KIND => Kind::Webhook(map.next_value()?),
                cloudevents::KIND => Kind::CloudEvents(map.next_value()?),
                kubernetes_undo::KIND => Kind::KubernetesUndo(map.next_value()?),
                kubernetes_service::KIND => Kind::KubernetesService(map.next_value()?),
                argo_rollouts::KIND => Kind::ArgoRollouts(map.next_value()?),
                flagger::KIND => Kind::Flagger(map.next_value()?),
                github::KIND => Kind::Github(map.next_value()?),
                gitlab::KIND => Kind::Gitlab(map.next_value()?),
                alertmanager::KIND => Kind::Alertmanager(map.next_value()?),
                slack::KIND => Kind::Slack(map.next_value()?),
                other => return Err(A::Error::custom(unknown(other))),
            };
            if let Some(first) = first {
                return Err(A::Error::custom(format!(
                    "the mechanism says two kinds, `{first}` and `{key}`, expected one; \
                     hint: give each an entry of its own"
                )));
            }
            (first, entry.kind) = (Some(key), Some(kind));
        }
        Ok(entry)
    }
}

/// What is said of a kind that there is none of.
fn unknown(found: &str) -> String {
    let near = |kind: &&&str| strsim::osa_distance(found, kind) <= kind.len() / 3;
    let nearest = KINDS.iter().filter(near).min_by_key(|kind| strsim::osa_distance(found, kind));
    let hint = nearest.map(|kind| format!("; hint: did you mean `{kind}`?")).unwrap_or_default();
    let shown: String = found.chars().take(60).collect();
    format!("`{shown}` is no kind of mechanism, expected `on` or one of {}{hint}", KINDS.join(", "))
}

impl Reading<'_> {
    pub(super) fn mechanisms(
        &mut self,
        entries: BTreeMap<String, Mechanism>,
        clusters: &BTreeMap<String, ClusterOptions>,
    ) -> BTreeMap<String, MechanismOptions> {
        if entries.len() > MECHANISMS_MAX {
            self.fault(format!(
                "mechanisms has {} entries, expected at most {MECHANISMS_MAX}",
                entries.len()
            ));
        }
        let read = entries.into_iter().filter_map(|(name, Mechanism { on, kind })| {
            let at = format!("mechanisms.{name}");
            let Some(kind) = kind else {
                self.fault(format!("{at} says no kind, expected one of {}", KINDS.join(", ")));
                return None;
            };
            let place = ClusterPlace { at: &at, name: &name, on: &on, clusters };
            let options = self.mechanism(&place, kind)?;
            Some((name, options))
        });
        read.collect()
    }

    fn mechanism(&mut self, place: &ClusterPlace<'_>, kind: Kind) -> Option<MechanismOptions> {
        let ClusterPlace { at, name, on, clusters: _ } = *place;
        Some(match kind {
            Kind::Webhook(entry) => {
                let mapping = self.mapping(at, on, webhook::MAPPING, &webhook::ACTIONS);
                MechanismOptions::Webhook(self.webhook(at, name, entry, mapping))
            }
            Kind::CloudEvents(entry) => {
                let mapping = self.mapping(at, on, cloudevents::MAPPING, &cloudevents::ACTIONS);
                MechanismOptions::CloudEvents(self.cloudevents(at, name, entry, mapping))
            }
            Kind::KubernetesUndo(entry) => return self.kubernetes_undo(place, entry),
            Kind::KubernetesService(entry) => return self.kubernetes_service(place, entry),
            Kind::ArgoRollouts(entry) => return self.argo_rollouts(place, entry),
            Kind::Flagger(entry) => return self.flagger(place, entry),
            Kind::Github(entry) => {
                let mapping = self.mapping(at, on, github::MAPPING, &github::ACTIONS);
                MechanismOptions::Github(self.github(at, name, entry, mapping))
            }
            Kind::Gitlab(entry) => {
                let mapping = self.mapping(at, on, gitlab::MAPPING, &gitlab::ACTIONS);
                MechanismOptions::Gitlab(self.gitlab(at, name, entry, mapping))
            }
            Kind::Alertmanager(entry) => {
                let mapping = self.mapping(at, on, alertmanager::MAPPING, &alertmanager::ACTIONS);
                MechanismOptions::Alertmanager(self.alertmanager(at, name, entry, mapping))
            }
            Kind::Slack(entry) => {
                let mapping = self.mapping(at, on, slack::MAPPING, &slack::ACTIONS);
                MechanismOptions::Slack(self.slack(at, name, entry, mapping))
            }
        })
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
}

#[cfg(test)]
mod tests {
    use super::unknown;

    #[test]
    fn an_unknown_kind_is_told_what_it_may_be() {
        let all =
            "expected `on` or one of webhook, cloudevents, github, gitlab, alertmanager, slack";
        let check = |found: &str, hint: &str| {
            assert_eq!(unknown(found), format!("`{found}` is no kind of mechanism, {all}{hint}"));
        };
        check("slak", "; hint: did you mean `slack`?");
        check("webhok", "; hint: did you mean `webhook`?");
        check("cloudevent", "; hint: did you mean `cloudevents`?");
        check("gitlub", "; hint: did you mean `github`?");
        check("pigeon", "");
    }
}
