//! `argo-rollouts` and `flagger` against controllers that behave as theirs do.

use rollgate::deliver::{
    Mechanism,
    argo_rollouts::{self, ArgoRollouts},
    flagger::{self, Flagger},
    mapping::Mapping,
    payload::DeployAction,
};
use serde_json::{Value, json};

use super::cluster::{ROLLBACK, Told, assert_is, live, tell, workload};
use crate::kube_api::{
    KubeApi, Mischief, controllers,
    templates::{canary_key, deployment_key, rollout_key, template},
};

const PROMOTE: Told<'_> = Told { action: "promote", ..ROLLBACK };

fn advance(weight: f64) -> Told<'static> {
    Told { action: "advance", weight: Some(weight), ..ROLLBACK }
}

/// v1 is stable, and v2 is paused at 10 %.
async fn rollout() -> KubeApi {
    let api = KubeApi::start().await;
    api.world(|world| world.roll_out("shop", "shop:v1"));
    api.release(&rollout_key("shop"), &["shop:v2"]);
    assert_eq!(status(&api, "phase"), "Paused");
    api
}

fn argo(api: &KubeApi) -> ArgoRollouts {
    ArgoRollouts::new(workload(api, argo_rollouts::MAPPING), &live()).expect("good options")
}

fn status(api: &KubeApi, name: &str) -> Value {
    api.world(|world| world.objects[&rollout_key("shop")]["status"][name].clone())
}

fn image(api: &KubeApi) -> String {
    api.world(|world| world.image(&rollout_key("shop")).to_owned())
}

fn change(api: &KubeApi, change: impl FnOnce(&mut Value)) {
    api.world(|world| world.change(&rollout_key("shop"), change));
}

/// A write without the version that it holds for.
fn plain((line, content_type, mut body): (String, String, Value)) -> (String, String, Value) {
    if let Some(members) = body.as_object_mut() {
        let metadata = members.remove("metadata");
        assert!(metadata.is_none_or(|it| it["resourceVersion"].is_string()));
    }
    (line, content_type, body)
}

#[track_caller]
fn assert_writes(api: &KubeApi, expected: &[(&str, Value)]) {
    let merge = "application/merge-patch+json".to_owned();
    let expected: Vec<_> = expected
        .iter()
        .map(|(path, body)| (format!("PATCH /apis/{path}"), merge.clone(), body.clone()))
        .collect();
    let found: Vec<_> = api.writes().into_iter().map(plain).collect();
    assert_eq!(found, expected);
}

const ROLLOUT: &str = "argoproj.io/v1alpha1/namespaces/production/rollouts/shop";
const ROLLOUT_STATUS: &str = "argoproj.io/v1alpha1/namespaces/production/rollouts/shop/status";

#[tokio::test]
async fn a_rollout_is_aborted_while_it_goes_on() {
    let api = rollout().await;
    assert_is(
        &tell(&argo(&api), ROLLBACK).await,
        "delivered",
        "rollout production/shop is aborted",
    );
    assert_eq!((status(&api, "phase"), status(&api, "abort")), (json!("Degraded"), json!(true)));
    let lines: Vec<String> = api.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(lines, [
        format!("GET /apis/{ROLLOUT}"),
        "GET /apis/apps/v1/namespaces/production/replicasets?limit=250&labelSelector=app%3Dshop".to_owned(),
        format!("PATCH /apis/{ROLLOUT_STATUS}"),
    ]);
    assert_writes(&api, &[(ROLLOUT_STATUS, json!({ "status": { "abort": true } }))]);
    assert_is(&tell(&argo(&api), ROLLBACK).await, "delivered", "was aborted already");
    assert_eq!(api.writes().len(), 1);
}

#[tokio::test]
async fn a_paused_rollout_is_resumed_to_hear_the_abort() {
    let api = rollout().await;
    change(&api, |object| object["spec"]["paused"] = json!(true));
    assert_is(&tell(&argo(&api), ROLLBACK).await, "delivered", "and resumed");
    assert_writes(
        &api,
        &[
            (ROLLOUT_STATUS, json!({ "status": { "abort": true } })),
            (ROLLOUT, json!({ "spec": { "paused": false } })),
        ],
    );
    assert_eq!(status(&api, "phase"), "Degraded");
    // Half of it was done when the connection broke.
    let api = rollout().await;
    change(&api, |object| object["spec"]["paused"] = json!(true));
    api.next("PATCH", Mischief::Outruns(Box::new(|_| {})));
    api.next("PATCH", Mischief::Says(String::new()));
    assert_is(&tell(&argo(&api), ROLLBACK).await, "failed", "connection closed");
    assert_eq!(status(&api, "phase"), "Paused");
    assert_is(&tell(&argo(&api), ROLLBACK).await, "delivered", "and resumed");
    assert_eq!(status(&api, "phase"), "Degraded");
}

#[tokio::test]
async fn a_rollout_that_is_over_is_undone() {
    let api = rollout().await;
    assert_is(&tell(&argo(&api), PROMOTE).await, "delivered", "is promoted");
    assert_writes(&api, &[(ROLLOUT_STATUS, json!({ "status": { "promoteFull": true } }))]);
    assert_eq!(status(&api, "stableRS"), status(&api, "currentPodHash"));
    assert_is(&tell(&argo(&api), PROMOTE).await, "delivered", "fully promoted already");
    let version = api
        .world(|world| world.objects[&rollout_key("shop")]["metadata"]["resourceVersion"].clone());
    assert_is(&tell(&argo(&api), ROLLBACK).await, "delivered", "goes back to shop:v1");
    let (line, content_type, body) = api.writes().pop().expect("a write");
    assert_eq!(
        (line, content_type.as_str()),
        (format!("PATCH /apis/{ROLLOUT}"), "application/json-patch+json")
    );
    assert_eq!(
        body,
        json!([
            { "op": "test", "path": "/metadata/resourceVersion", "value": version },
            { "op": "replace", "path": "/spec/template", "value": template("shop", "shop:v1", &Value::Null) },
        ])
    );
    assert_eq!(image(&api), "shop:v1");
    for baseline in ["v1", ""] {
        let again = tell(&argo(&api), Told { baseline, ..ROLLBACK }).await;
        assert_is(&again, "delivered", "nothing to do");
    }
    assert_eq!(api.writes().len(), 2);
    // Somebody else is faster with a newer release.
    let api = rollout().await;
    tell(&argo(&api), PROMOTE).await;
    api.next(
        "PATCH",
        Mischief::Outruns(Box::new(|world| world.set_image(&rollout_key("shop"), "shop:v3"))),
    );
    assert_is(&tell(&argo(&api), ROLLBACK).await, "refused", "runs shop:v3");
    assert_eq!(image(&api), "shop:v3");
}

#[tokio::test]
async fn a_step_is_taken_once_and_never_too_far() {
    let api = rollout().await;
    assert_is(&tell(&argo(&api), advance(0.5)).await, "delivered", "goes on from 10 % to 50 %");
    assert_eq!(status(&api, "currentStepIndex"), 3);
    assert_writes(&api, &[(ROLLOUT_STATUS, json!({ "status": { "pauseConditions": null } }))]);
    assert_is(&tell(&argo(&api), advance(0.5)).await, "delivered", "is at 50 % already");
    assert_eq!(status(&api, "currentStepIndex"), 3);
    assert_is(
        &tell(&argo(&api), advance(0.7)).await,
        "refused",
        "from 50 % to 100 %, and 70 % was",
    );
    assert_is(&tell(&argo(&api), advance(1.0)).await, "delivered", "goes on from 50 % to 100 %");
    assert_eq!(status(&api, "stableRS"), status(&api, "currentPodHash"));
    assert_is(&tell(&argo(&api), advance(1.0)).await, "delivered", "is at 100 % already");
    assert_eq!(api.writes().len(), 2);
    // Pods of the step are still starting: another time.
    let api = rollout().await;
    api.world(|world| world.has_controllers = false);
    change(&api, |object| object["status"]["pauseConditions"] = Value::Null);
    assert_is(&tell(&argo(&api), advance(0.5)).await, "failed", "not paused so far");
    let api = rollout().await;
    change(&api, |object| object["spec"]["strategy"] = json!({ "blueGreen": {} }));
    assert_is(&tell(&argo(&api), advance(0.5)).await, "refused", "has no steps");
}

#[tokio::test]
async fn a_changed_rollout_is_refused_by_name() {
    for told in [ROLLBACK, PROMOTE, advance(0.5)] {
        let api = rollout().await;
        api.release(&rollout_key("shop"), &["shop:v3"]);
        assert_is(&tell(&argo(&api), told).await, "refused", "runs shop:v3 (revision 3, ");
        // The spec is newer than what the controller has seen: nobody knows yet what runs.
        let api = rollout().await;
        api.world(|world| world.has_controllers = false);
        api.release(&rollout_key("shop"), &["shop:v3"]);
        assert_is(&tell(&argo(&api), told).await, "failed", "has not seen its newest change");
        assert_eq!(api.writes().len(), 0);
        let unnamed = Told { canary: "", ..told };
        assert_is(&tell(&argo(&api), unnamed).await, "refused", "named no canary version");
        let hash = controllers::hash(&template("shop", "shop:v2", &Value::Null));
        let api = rollout().await;
        assert_is(&tell(&argo(&api), Told { canary: &hash, ..told }).await, "delivered", "shop");
    }
    for (name, words) in [("paused", "was paused by hand"), ("abort", "was aborted")] {
        for told in [PROMOTE, advance(0.5)] {
            let api = rollout().await;
            let part = if name == "paused" { "spec" } else { "status" };
            change(&api, |object| object[part][name] = json!(true));
            assert_is(&tell(&argo(&api), told).await, "refused", words);
            assert_eq!(api.writes().len(), 0);
        }
    }
    let api = rollout().await;
    tell(&argo(&api), PROMOTE).await;
    change(&api, |object| object["spec"]["paused"] = json!(true));
    assert_is(&tell(&argo(&api), ROLLBACK).await, "refused", "is paused");
    change(&api, |object| {
        object["spec"]["paused"] = json!(false);
        object["spec"]["workloadRef"] = json!({ "kind": "Deployment", "name": "shop" });
    });
    assert_is(&tell(&argo(&api), ROLLBACK).await, "refused", "workloadRef");
    // The first one ever has nothing to go back to.
    let api = KubeApi::start().await;
    api.world(|world| world.roll_out("shop", "shop:v2"));
    assert_is(&tell(&argo(&api), ROLLBACK).await, "refused", "no revision to go back to");
}

#[tokio::test]
async fn what_argo_rollouts_does_is_said() {
    let api = rollout().await;
    let does = |action| argo(&api).does(action);
    assert!(does(DeployAction::Rollback).is_some_and(|words| words.starts_with("abort rollout")));
    assert!(does(DeployAction::Advance).is_some_and(|words| words.contains("next step")));
    assert!(does(DeployAction::Promote).is_some_and(|words| words.ends_with("fully")));
    assert_eq!(does(DeployAction::Hold), None);
    let undo = Mapping { rollback: Some(argo_rollouts::ACTIONS[1]), ..argo_rollouts::MAPPING };
    let undo = ArgoRollouts::new(workload(&api, undo), &live()).expect("good options");
    assert_is(&tell(&undo, ROLLBACK).await, "delivered", "goes back to shop:v1");
    assert_eq!(image(&api), "shop:v1");
}

const CANARY: &str = "flagger.app/v1beta1/namespaces/production/canaries/shop";
const CANARY_STATUS: &str = "flagger.app/v1beta1/namespaces/production/canaries/shop/status";

/// v2 is under way, with 1 of 5 failed checks.
async fn canary() -> KubeApi {
    let api = KubeApi::start().await;
    api.world(|world| {
        world.watch_canary("shop", "shop:v2");
        world.deploy("shop-primary", "shop:v1", Value::Null);
    });
    api
}

fn steered(api: &KubeApi, mapping: Mapping) -> Flagger {
    Flagger::new(workload(api, mapping), &live()).expect("good options")
}

fn phase(api: &KubeApi) -> Value {
    api.world(|world| world.objects[&canary_key("shop")]["status"]["phase"].clone())
}

#[tokio::test]
async fn a_canary_fails_by_as_many_checks_as_it_takes() {
    let api = canary().await;
    let flagger = steered(&api, flagger::MAPPING);
    assert_is(
        &tell(&flagger, ROLLBACK).await,
        "delivered",
        "canary production/shop has 5 failed checks",
    );
    assert_writes(&api, &[(CANARY_STATUS, json!({ "status": { "failedChecks": 5 } }))]);
    assert_eq!((phase(&api), api.world(|world| world.replicas("shop"))), (json!("Failed"), 0));
    assert_is(&tell(&flagger, ROLLBACK).await, "delivered", "has been rolled back already");
    assert_eq!(api.writes().len(), 1);
    // An operator that has not looked yet.
    let api = canary().await;
    api.world(|world| world.has_controllers = false);
    let flagger = steered(&api, flagger::MAPPING);
    for words in ["at which Flagger rolls back", "has 5 failed checks already"] {
        assert_is(&tell(&flagger, ROLLBACK).await, "delivered", words);
    }
    // By Flagger's own hash of what it releases.
    let api = canary().await;
    let told = Told { canary: "7d9f8c6b5", ..ROLLBACK };
    assert_is(&tell(&steered(&api, flagger::MAPPING), told).await, "delivered", "5 failed checks");
}

#[tokio::test]
async fn a_changed_canary_is_refused_by_name() {
    let check = async |change: &dyn Fn(&mut Value), ending: &str, words: &str| {
        let api = canary().await;
        api.world(|world| {
            world.has_controllers = false;
            world.change(&canary_key("shop"), change);
        });
        assert_is(&tell(&steered(&api, flagger::MAPPING), ROLLBACK).await, ending, words);
        assert_eq!(api.writes().len(), 0);
    };
    let phase =
        |phase: &'static str| move |object: &mut Value| object["status"]["phase"] = json!(phase);
    check(&phase("Succeeded"), "refused", "is Succeeded").await;
    check(&phase("Promoting"), "refused", "is Promoting").await;
    check(&phase("Initialized"), "refused", "only rolls back what is Progressing").await;
    check(&phase("Waiting"), "failed", "has not begun so far").await;
    check(
        &|object| object["spec"]["targetRef"]["kind"] = json!("DaemonSet"),
        "refused",
        "releases a DaemonSet",
    )
    .await;
    check(&|object| object["spec"]["targetRef"]["name"] = json!("../x"), "refused", "no name")
        .await;
    check(
        &|object| object["spec"]["targetRef"]["name"] = json!("gone"),
        "refused",
        "404 Not Found",
    )
    .await;
    let api = canary().await;
    api.release(&deployment_key("shop"), &["shop:v3"]);
    let flagger = steered(&api, flagger::MAPPING);
    assert_is(
        &tell(&flagger, ROLLBACK).await,
        "refused",
        "runs shop:v3 (revision 2, 7d9f8c6b5) now; v2 was",
    );
    // Between the look and the write: Flagger wrote its own status.
    let api = canary().await;
    api.next(
        "PATCH",
        Mischief::Outruns(Box::new(|world| {
            world
                .change(&canary_key("shop"), |object| object["status"]["canaryWeight"] = json!(20));
        })),
    );
    assert_is(&tell(&steered(&api, flagger::MAPPING), ROLLBACK).await, "delivered", "5 failed");
    assert_eq!(api.writes().len(), 2);
}

#[tokio::test]
async fn a_skipped_analysis_is_only_skipped_once() {
    let api = canary().await;
    let mapping = Mapping { promote: Some(flagger::ACTIONS[1]), ..flagger::MAPPING };
    let flagger = steered(&api, mapping);
    assert_is(&tell(&flagger, PROMOTE).await, "failed", "is marked to skip its analysis");
    assert_writes(&api, &[(CANARY, json!({ "spec": { "skipAnalysis": true } }))]);
    assert_eq!(phase(&api), "Succeeded");
    assert_eq!(
        api.world(|world| world.image(&deployment_key("shop-primary")).to_owned()),
        "shop:v2"
    );
    assert_is(&tell(&flagger, PROMOTE).await, "delivered", "later releases are analyzed again");
    let marked =
        api.world(|world| world.objects[&canary_key("shop")]["spec"]["skipAnalysis"].clone());
    assert_eq!(marked, false);
    assert_is(&tell(&flagger, PROMOTE).await, "delivered", "is promoted already");
    assert_eq!(api.writes().len(), 2);
    // While Flagger has not looked, the mark is set once.
    let api = canary().await;
    api.world(|world| world.has_controllers = false);
    let flagger = steered(&api, mapping);
    for _ in 0..3 {
        assert_is(&tell(&flagger, PROMOTE).await, "failed", "it is Progressing");
    }
    assert_eq!(api.writes().len(), 1);
    api.world(|world| {
        world.change(&canary_key("shop"), |object| object["status"]["phase"] = json!("Failed"))
    });
    assert_is(&tell(&flagger, PROMOTE).await, "refused", "has been rolled back");
    let quiet = steered(&api, flagger::MAPPING);
    assert_eq!(quiet.does(DeployAction::Promote), None);
    assert_is(&tell(&quiet, PROMOTE).await, "nothing", "promote");
}
