//! What the tests of mechanisms that change a cluster have in common: a server with objects, and
//! deliveries of every decision to it.

use std::time::Duration;

use rollgate::{
    deliver::{
        Attempt, Mechanism, Parcel, Setting,
        mapping::Mapping,
        revision::Picked,
        workload::{NAMES, WorkloadOptions},
    },
    kubernetes::{
        ClusterOptions,
        credentials::{Credentials, Held},
    },
    outward::{exchange::Rehearsal, pattern::Pattern},
    telemetry::secret::Secret,
};
use serde_json::json;

use super::receiver::real_clock;
use crate::kube_api::{KubeApi, TOKEN, templates::NAMESPACE};

/// What a delivery is about.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) action: &'a str,
    pub(super) canary: &'a str,
    pub(super) baseline: &'a str,
    /// The weight of the step that an advance goes on to.
    pub(super) weight: Option<f64>,
}

pub(super) const ROLLBACK: Told<'_> =
    Told { action: "rollback", canary: "v2", baseline: "v1", weight: None };

pub(super) fn parcel(told: Told<'_>) -> Parcel {
    let Told { action, canary, baseline, weight } = told;
    let mut event = json!({
        "type": "rollgate.verdict.v1", "timestamp": "2026-01-01T00:00:00.000Z",
        "data": {
            "analysis": "a1", "service": "shop", "canary_version": canary,
            "baseline_version": baseline, "verdict": action, "action": action,
            "reason": "because", "rule": null, "decided_at": 1.0, "elapsed_secs": 1.0,
            "rules": { "name": "shop", "sha256": "00" }, "findings": [],
        },
    });
    if let Some(weight) = weight {
        event["data"]["step"] = json!({ "index": 1, "of": 3, "weight": weight });
    }
    Parcel {
        key: "a1.deploy".to_owned(),
        analysis: "a1".to_owned(),
        mechanism: "deploy".to_owned(),
        body: event.to_string(),
        attempts: 0,
        created: real_clock()(),
    }
}

pub(super) fn cluster(api: &KubeApi, timeout: Duration) -> ClusterOptions {
    let token = Some(Held::Text(Secret::new(TOKEN)));
    ClusterOptions {
        server: api.url(),
        credentials: Credentials { token, ..Credentials::default() },
        namespace: Some(NAMESPACE.to_owned()),
        timeout,
    }
}

pub(super) fn workload(api: &KubeApi, mapping: Mapping) -> WorkloadOptions {
    WorkloadOptions {
        name: "deploy".to_owned(),
        cluster: cluster(api, Duration::from_secs(5)),
        namespace: None,
        object: pattern("{service}"),
        revision: Picked::Auto,
        mapping,
    }
}

pub(super) fn pattern(text: &str) -> Pattern {
    let names = [&NAMES[..], &["value"]].concat();
    Pattern::parse(text, &names).expect("a pattern")
}

pub(super) fn live() -> Setting {
    Setting::live(real_clock())
}

pub(super) fn rehearsed() -> (Setting, Rehearsal) {
    let rehearsal = Rehearsal::default();
    (Setting { rehearsal: Some(rehearsal.clone()), ..live() }, rehearsal)
}

pub(super) async fn tell(mechanism: &impl Mechanism, told: Told<'_>) -> Attempt {
    mechanism.deliver(&parcel(told)).await
}

/// That an attempt ended in this way, with this in its words and no secret.
#[track_caller]
pub(super) fn assert_is(attempt: &Attempt, ending: &str, words: &str) {
    let (found, answer) = match attempt {
        Attempt::Delivered { answer } => ("delivered", answer),
        Attempt::Refused { answer } => ("refused", answer),
        Attempt::Failed { answer, .. } => ("failed", answer),
        Attempt::Nothing { answer } => ("nothing", answer),
    };
    assert!(found == ending && answer.contains(words), "{attempt:?} is not {ending}: {words}");
    assert!(!answer.contains(TOKEN) && !answer.contains('\n'), "{answer}");
}
