//! The role that ships: every right that is used is granted, and none is granted that is not used.

use std::{collections::BTreeSet, path::Path, time::Duration};

use rollgate::{
    deliver::{
        Mechanism,
        argo_rollouts::{self, ArgoRollouts},
        flagger::{self, Flagger},
        kubernetes_service::{self, KubernetesService, KubernetesServiceOptions},
        kubernetes_undo::{self, KubernetesUndo},
        mapping::Mapping,
    },
    kubernetes::{Cluster, object::Name},
};
use serde_json::{Value, json};

use super::cluster::{ROLLBACK, Told, assert_is, cluster, live, pattern, tell, workload};
use crate::kube_api::{
    KubeApi,
    templates::{NAMESPACE, deployment_key, rollout_key},
};

type Rights = BTreeSet<(String, String, String)>;

/// Verb, group and resource of every rule of the role.
fn granted() -> Rights {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/deploy/kubernetes-rbac.yaml");
    let text = std::fs::read_to_string(path).expect("the file");
    let objects: Vec<Value> =
        text.split("\n---\n").map(|one| serde_saphyr::from_str(one).expect("an object")).collect();
    let kinds: Vec<&str> = objects.iter().filter_map(|one| one["kind"].as_str()).collect();
    assert_eq!(kinds, ["Role", "RoleBinding", "ServiceAccount"]);
    let words = |list: &Value| -> Vec<String> {
        let list = list.as_array().expect("a list").iter();
        list.map(|word| word.as_str().expect("a word").to_owned()).collect()
    };
    let mut rights = Rights::new();
    for rule in objects[0]["rules"].as_array().expect("rules") {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                for verb in words(&rule["verbs"]) {
                    rights.insert((verb, group.clone(), resource.clone()));
                }
            }
        }
    }
    rights
}

#[tokio::test]
async fn the_role_grants_what_is_used_and_no_more() {
    let promote = Told { action: "promote", ..ROLLBACK };
    let api = KubeApi::start().await;
    let delivered = async |mechanism: &dyn Mechanism, told: Told<'_>| {
        let attempt = mechanism.deliver(&super::cluster::parcel(told)).await;
        assert_is(&attempt, "delivered", "shop");
    };
    api.world(|world| world.deploy("shop", "shop:v1", Value::Null));
    api.release(&deployment_key("shop"), &["shop:v2"]);
    let undo = KubernetesUndo::new(workload(&api, kubernetes_undo::MAPPING), &live());
    delivered(&undo.expect("good options"), ROLLBACK).await;

    api.world(|world| {
        world.deploy("shop-blue", "shop:v1", json!({ "version": "blue" }));
        world.deploy("shop-green", "shop:v2", json!({ "version": "green" }));
        world.serve("shop", "green");
        world.roll_out("shop", "shop:v1");
    });
    let options = KubernetesServiceOptions {
        service: workload(&api, kubernetes_service::MAPPING),
        label: "version".to_owned(),
        values: ["blue".to_owned(), "green".to_owned()],
        deployment: Some(pattern("{service}-{value}")),
        scales_down: true,
    };
    let switch = KubernetesService::new(options, &live()).expect("good options");
    delivered(&switch, ROLLBACK).await;

    api.release(&rollout_key("shop"), &["shop:v2"]);
    let steer = ArgoRollouts::new(workload(&api, argo_rollouts::MAPPING), &live());
    let steer = steer.expect("good options");
    delivered(&steer, promote).await;
    delivered(&steer, ROLLBACK).await;

    let other = KubeApi::start().await;
    other.world(|world| world.watch_canary("shop", "shop:v2"));
    let skip = Mapping { promote: Some(flagger::ACTIONS[1]), ..flagger::MAPPING };
    let flagger = Flagger::new(workload(&other, skip), &live()).expect("good options");
    assert_is(&tell(&flagger, promote).await, "failed", "marked");
    delivered(&flagger, promote).await;
    let third = KubeApi::start().await;
    third.world(|world| world.watch_canary("shop", "shop:v2"));
    let flagger = Flagger::new(workload(&third, skip), &live()).expect("good options");
    delivered(&flagger, ROLLBACK).await;

    let pods = Cluster::new(cluster(&api, Duration::from_secs(5)), None).expect("good options");
    pods.list_pods(&Name::new(NAMESPACE).expect("a name"), "app=shop").await.expect("listed");

    let mut used = Rights::new();
    for api in [&api, &other, &third] {
        used.extend(api.rights_used());
    }
    assert_eq!(used, granted());
}
