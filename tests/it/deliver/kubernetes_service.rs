//! `kubernetes-service`: blue and green behind one Service.

use rollgate::deliver::{
    Mechanism,
    kubernetes_service::{ACTIONS, KubernetesService, KubernetesServiceOptions, MAPPING},
    mapping::Mapping,
    payload::DeployAction,
    revision::Picked,
};
use serde_json::json;

use super::cluster::{ROLLBACK, Told, assert_is, live, pattern, rehearsed, tell, workload};
use crate::kube_api::{
    KubeApi, Mischief, http,
    templates::{deployment_key, service_key},
};

const PROMOTE: Told<'_> = Told { action: "promote", ..ROLLBACK };

/// v1 is blue, v2 is green, and green is selected.
async fn town() -> KubeApi {
    let api = KubeApi::start().await;
    api.world(|world| {
        world.deploy("shop-blue", "shop:v1", json!({ "version": "blue" }));
        world.deploy("shop-green", "shop:v2", json!({ "version": "green" }));
        world.serve("shop", "green");
    });
    api
}

fn options(api: &KubeApi, mapping: Mapping) -> KubernetesServiceOptions {
    KubernetesServiceOptions {
        service: workload(api, mapping),
        label: "version".to_owned(),
        values: ["blue".to_owned(), "green".to_owned()],
        deployment: Some(pattern("{service}-{value}")),
        scales_down: true,
    }
}

fn switch(api: &KubeApi) -> KubernetesService {
    KubernetesService::new(options(api, MAPPING), &live()).expect("good options")
}

/// What is selected, and how many pods blue and green are to have.
fn seen(api: &KubeApi) -> (String, u64, u64) {
    api.world(|world| {
        (
            world.selected("shop").to_owned(),
            world.replicas("shop-blue"),
            world.replicas("shop-green"),
        )
    })
}

fn is(selected: &str, blue: u64, green: u64) -> (String, u64, u64) {
    (selected.to_owned(), blue, green)
}

#[tokio::test]
async fn a_rollback_switches_first_and_scales_then() {
    let api = town().await;
    let version = |name: &str| {
        let key = if name == "shop" { service_key(name) } else { deployment_key(name) };
        api.world(|world| world.objects[&key]["metadata"]["resourceVersion"].clone())
    };
    let (service, green) = (version("shop"), version("shop-green"));
    let attempt = tell(&switch(&api), ROLLBACK).await;
    assert_is(&attempt, "delivered", "service production/shop selects version=blue");
    assert_is(&attempt, "delivered", "deployment production/shop-green is scaled to 0");
    assert_eq!(seen(&api), is("blue", 3, 0));
    assert_eq!(
        api.writes(),
        [
            (
                "PATCH /api/v1/namespaces/production/services/shop".to_owned(),
                "application/strategic-merge-patch+json".to_owned(),
                json!({ "metadata": { "resourceVersion": service },
                    "spec": { "selector": { "version": "blue" } } }),
            ),
            (
                "PATCH /apis/apps/v1/namespaces/production/deployments/shop-green/scale".to_owned(),
                "application/merge-patch+json".to_owned(),
                json!({ "metadata": { "resourceVersion": green }, "spec": { "replicas": 0 } }),
            ),
        ]
    );
    // The rest of the selector is as it was.
    let selector =
        api.world(|world| world.objects[&service_key("shop")]["spec"]["selector"].clone());
    assert_eq!(selector, json!({ "app": "shop", "version": "blue" }));
    // Told again: nothing more is written.
    let attempt = tell(&switch(&api), ROLLBACK).await;
    assert_is(&attempt, "delivered", "selects version=blue already");
    assert_is(&attempt, "delivered", "is scaled to 0 already");
    assert_eq!(api.writes().len(), 2);
}

#[tokio::test]
async fn what_was_done_by_half_is_finished() {
    let api = town().await;
    // The switch is made; the scaling meets a server that is going down.
    api.world(|world| {
        world.change(&service_key("shop"), |object| {
            object["spec"]["selector"]["version"] = json!("blue");
        })
    });
    api.next("PATCH", Mischief::Says(http(503, "")));
    assert_is(&tell(&switch(&api), ROLLBACK).await, "failed", "(scale): 503");
    assert_eq!(seen(&api), is("blue", 3, 3));
    assert_is(&tell(&switch(&api), ROLLBACK).await, "delivered", "is scaled to 0");
    assert_eq!(seen(&api), is("blue", 3, 0));
}

#[tokio::test]
async fn somebody_who_was_faster_is_read_anew() {
    // Another pod of green became ready while it was to be scaled.
    let api = town().await;
    api.next("PATCH", Mischief::Outruns(Box::new(|_| {})));
    api.next(
        "PATCH",
        Mischief::Outruns(Box::new(|world| {
            world.change(&deployment_key("shop-green"), |object| {
                object["spec"]["replicas"] = json!(4)
            });
        })),
    );
    assert_is(&tell(&switch(&api), ROLLBACK).await, "delivered", "selects version=blue already");
    assert_eq!(seen(&api), is("blue", 3, 0));
    // Green was replaced by a newer release.
    let api = town().await;
    api.next(
        "PATCH",
        Mischief::Outruns(Box::new(|world| {
            world.change(&service_key("shop"), |object| object["spec"]["ports"] = json!([]));
            world.set_image(&deployment_key("shop-green"), "shop:v3");
        })),
    );
    assert_is(&tell(&switch(&api), ROLLBACK).await, "refused", "neither is v2");
    assert_eq!(seen(&api), is("green", 3, 3));
}

#[tokio::test]
async fn a_changed_world_is_refused_by_name() {
    let check = async |change: &dyn Fn(&KubeApi), told: Told<'_>, ending: &str, words: &str| {
        let api = town().await;
        change(&api);
        let before = seen(&api);
        assert_is(&tell(&switch(&api), told).await, ending, words);
        assert_eq!((api.writes().len(), seen(&api)), (0, before));
    };
    let newer = |api: &KubeApi| api.release(&deployment_key("shop-green"), &["shop:v3"]);
    let words = "deployment production/shop-blue runs shop:v1 (version blue, revision 1) and \
                 deployment production/shop-green runs shop:v3 (version green, revision 2): neither \
                 is v2, which was judged; green is selected";
    check(&newer, ROLLBACK, "refused", words).await;
    let same = |api: &KubeApi| api.release(&deployment_key("shop-blue"), &["shop:v2"]);
    check(&same, ROLLBACK, "refused", "both are v2").await;
    let third = |api: &KubeApi| {
        api.world(|world| {
            world.change(&service_key("shop"), |object| {
                object["spec"]["selector"]["version"] = json!("red");
            })
        });
    };
    check(&third, ROLLBACK, "refused", "selects version=\"red\" now").await;
    let none = |api: &KubeApi| {
        api.world(|world| {
            world.change(&service_key("shop"), |object| {
                object["spec"]["selector"] = json!({ "app": "shop" });
            })
        });
    };
    let check_none = async |words: &str| {
        let api = town().await;
        none(&api);
        assert_is(&tell(&switch(&api), ROLLBACK).await, "refused", words);
    };
    check_none("selects by no label version").await;
    // Traffic is never sent where nobody would answer.
    let idle = |api: &KubeApi| {
        api.world(|world| {
            world.change(&deployment_key("shop-blue"), |object| {
                object["spec"]["replicas"] = json!(0);
            })
        });
    };
    check(&idle, ROLLBACK, "failed", "shop-blue has no ready pod").await;
    let ill = |api: &KubeApi| {
        api.world(|world| {
            world.has_controllers = false;
            world.change(&deployment_key("shop-blue"), |object| {
                object["status"] = json!({ "replicas": 3 });
            });
        });
    };
    check(&ill, ROLLBACK, "failed", "shop-blue has no ready pod").await;
    let unnamed = Told { canary: "", ..ROLLBACK };
    check(&|_| {}, unnamed, "refused", "named no canary version").await;
    let api = town().await;
    api.world(|world| world.objects.remove(&deployment_key("shop-blue")));
    assert_is(
        &tell(&switch(&api), ROLLBACK).await,
        "refused",
        "blue has no deployment to switch to",
    );
}

#[tokio::test]
async fn colours_may_be_what_is_judged() {
    // Without Deployments the version is the colour itself, and nothing is scaled.
    let api = town().await;
    let options = KubernetesServiceOptions { deployment: None, ..options(&api, MAPPING) };
    let switch = KubernetesService::new(options, &live()).expect("good options");
    assert_is(&tell(&switch, ROLLBACK).await, "refused", "neither is v2");
    let green = Told { canary: "green", baseline: "blue", ..ROLLBACK };
    assert_is(&tell(&switch, green).await, "delivered", "selects version=blue");
    assert_eq!(seen(&api), is("blue", 3, 3));
}

#[tokio::test]
async fn a_promotion_switches_and_may_retire_the_old_one() {
    let api = town().await;
    assert_is(&tell(&switch(&api), PROMOTE).await, "delivered", "selects version=green already");
    assert_eq!((api.writes().len(), seen(&api)), (0, is("green", 3, 3)));
    // Judged before it had any traffic.
    api.world(|world| {
        world.change(&service_key("shop"), |object| {
            object["spec"]["selector"]["version"] = json!("blue");
        })
    });
    assert_is(&tell(&switch(&api), PROMOTE).await, "delivered", "selects version=green");
    assert_eq!(seen(&api), is("green", 3, 3));
    let retire = Mapping { promote: Some(ACTIONS[2]), ..MAPPING };
    let retire = KubernetesService::new(options(&api, retire), &live()).expect("good options");
    assert_is(&tell(&retire, PROMOTE).await, "delivered", "shop-blue is scaled to 0");
    assert_eq!(seen(&api), is("green", 0, 3));
    for action in ["hold", "advance"] {
        assert_is(&tell(&retire, Told { action, ..ROLLBACK }).await, "nothing", action);
    }
}

#[tokio::test]
async fn what_it_does_is_said_and_rehearsed() {
    let api = town().await;
    let (setting, rehearsal) = rehearsed();
    let switch = KubernetesService::new(options(&api, MAPPING), &setting).expect("good options");
    let words = switch.does(DeployAction::Rollback).expect("something");
    assert_eq!(
        words,
        "switch service production/{service} back (version: blue or green), then \
                       scale {service}-{value} to 0"
    );
    assert_is(&tell(&switch, ROLLBACK).await, "delivered", "is scaled to 0");
    let put_down: Vec<String> = rehearsal.take().into_iter().map(|one| one.method).collect();
    assert_eq!(put_down, ["GET", "GET", "GET", "PATCH", "PATCH"]);
    assert_eq!((api.writes().len(), seen(&api)), (0, is("green", 3, 3)));
}

#[tokio::test]
async fn options_that_cannot_work_are_refused() {
    let api = town().await;
    let check = |change: &dyn Fn(&mut KubernetesServiceOptions), words: &str| {
        let mut options = options(&api, MAPPING);
        change(&mut options);
        let error = KubernetesService::new(options, &live()).err().expect(words).to_string();
        assert!(
            error.starts_with("kubernetes-service deploy: ") && error.contains(words),
            "{error}"
        );
    };
    check(&|o| o.values[1] = "blue".to_owned(), "twice");
    check(&|o| o.deployment = Some(pattern("{service}")), "lacks {value}");
    check(&|o| o.service.revision = Picked::Hash, "revision is hash");
    check(&|o| o.service.cluster.server = "ftp://h".to_owned(), "begins with ftp:");
    check(&|o| o.service.cluster.server = "http://10.0.0.1".to_owned(), "in the clear");
    check(&|o| o.service.cluster.namespace = None, "namespace is missing");
}
