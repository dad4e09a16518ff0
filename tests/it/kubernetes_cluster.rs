//! What is asked of an API server beside single objects: lists page by page, pods, tokens that
//! expire, a private authority, and role rules that say no.

use std::time::Duration;

use rollgate::kubernetes::{
    Cluster, ClusterOptions,
    credentials::{Credentials, Held},
    kubeconfig,
    object::{DEPLOYMENTS, Name, Object, PODS},
};
use rollgate::telemetry::secret::Secret;
use serde_json::{Value, json};

use crate::kube_api::{KubeApi, Mischief, TOKEN, http, templates::NAMESPACE};

fn options(api: &KubeApi, token: Held) -> ClusterOptions {
    ClusterOptions {
        server: api.url(),
        credentials: Credentials { token: Some(token), ..Credentials::default() },
        namespace: None,
        timeout: Duration::from_secs(5),
    }
}

fn cluster(api: &KubeApi) -> Cluster {
    Cluster::new(options(api, Held::Text(Secret::new(TOKEN))), None).expect("good options")
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn pods(api: &KubeApi, count: usize) {
    api.world(|world| {
        for number in 0..count {
            let version = if number % 2 == 0 { "v1" } else { "v2" };
            let pod = json!({
                "metadata": { "name": format!("shop-{number:05}"), "namespace": NAMESPACE,
                              "labels": { "app": "shop", "version": version } },
                "spec": { "nodeName": "n1", "containers": [{ "name": "app", "ports": [
                    { "name": "http", "containerPort": 8080 }] }] },
                "status": { "phase": "Running", "podIP": format!("10.0.{}.{}", number / 250, number % 250),
                            "conditions": [{ "type": "Ready", "status": "True" }] },
            });
            let key = crate::kube_api::world::key("api/v1", NAMESPACE, "pods", &format!("shop-{number:05}"));
            world.store(key, pod);
        }
    });
}

#[tokio::test]
async fn pods_are_listed_page_by_page() {
    let api = KubeApi::start().await;
    pods(&api, 700);
    let cluster = cluster(&api);
    let all = cluster.list_pods(&name(NAMESPACE), "app=shop").await.expect("listed");
    assert_eq!(all.len(), 700);
    assert_eq!((all[0].ip.as_deref(), all[0].is_ready), (Some("10.0.0.0"), true));
    let lines: Vec<String> = api.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(
        lines,
        [
            "GET /api/v1/namespaces/production/pods?limit=250&labelSelector=app%3Dshop",
            "GET /api/v1/namespaces/production/pods?limit=250&labelSelector=app%3Dshop&continue=250",
            "GET /api/v1/namespaces/production/pods?limit=250&labelSelector=app%3Dshop&continue=500",
        ]
    );
    let canary = cluster.list_pods(&name(NAMESPACE), "app in (shop,till),version=v2").await;
    assert_eq!(canary.expect("listed").len(), 350);
    assert_eq!(cluster.list_pods(&name("elsewhere"), "").await.expect("listed").len(), 0);
}

#[tokio::test]
async fn a_list_that_expires_is_begun_again_and_one_without_end_is_refused() {
    let api = KubeApi::start().await;
    pods(&api, 300);
    let expired = http(410, r#"{"kind":"Status","reason":"Expired","message":"too old"}"#);
    // The second page is gone, twice.
    let first = http(200, r#"{"items":[],"metadata":{"continue":"9"}}"#);
    for said in [&first, &expired, &first, &expired] {
        api.next("GET", Mischief::Says(said.clone()));
    }
    let found = cluster(&api).list_pods(&name(NAMESPACE), "").await.expect("begun again");
    assert_eq!((found.len(), api.asked().len()), (300, 6));
    for _ in 0..3 {
        api.next("GET", Mischief::Says(expired.clone()));
    }
    let error = cluster(&api).list_pods(&name(NAMESPACE), "").await.expect_err("enough");
    assert_eq!(error.to_string(), "410 Gone (Expired): too old");

    pods(&api, 10_001);
    let error = cluster(&api).list_pods(&name(NAMESPACE), "").await.expect_err("too many");
    assert_eq!(error.to_string(), "more than 10000 pods match");
    // A server that never ends.
    let before = api.asked().len();
    let again = r#"{"items":[],"metadata":{"continue":"1"}}"#;
    for _ in 0..200 {
        api.next("GET", Mischief::Says(http(200, again)));
    }
    let error = cluster(&api).list_pods(&name(NAMESPACE), "").await.expect_err("no end");
    assert!(error.to_string().contains("pages"), "{error}");
    assert!(api.asked().len() - before < 100);
}

#[tokio::test]
async fn a_token_that_was_renewed_is_read_again() {
    let api = KubeApi::start().await;
    pods(&api, 1);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("token");
    std::fs::write(&path, "old").expect("written");
    let cluster =
        Cluster::new(options(&api, Held::File(path.clone())), None).expect("good options");
    let error = cluster.list_pods(&name(NAMESPACE), "").await.expect_err("not taken");
    assert_eq!(
        (error.to_string().as_str(), api.asked().len()),
        ("401 Unauthorized: Unauthorized", 1)
    );
    std::fs::write(&path, TOKEN).expect("written");
    assert_eq!(cluster.list_pods(&name(NAMESPACE), "").await.expect("taken").len(), 1);
    // It expires, and is renewed while a request is on its way.
    api.takes(&["fresh"]);
    let renewed = path.clone();
    api.next(
        "GET",
        Mischief::Outruns(Box::new(move |_| {
            std::fs::write(&renewed, "fresh").expect("written");
        })),
    );
    assert_eq!(cluster.list_pods(&name(NAMESPACE), "").await.expect("taken").len(), 1);
    let last = api.asked().pop().expect("one");
    assert_eq!(last.headers["authorization"], "Bearer fresh");
    std::fs::remove_file(&path).expect("removed");
    let error = cluster.list_pods(&name(NAMESPACE), "").await.expect_err("no token");
    assert!(error.to_string().starts_with("credentials: "), "{error}");
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

#[tokio::test]
async fn a_kubeconfig_leads_to_its_server() {
    let api = KubeApi::start().await;
    pods(&api, 2);
    let dir = tempfile::tempdir().expect("a directory");
    let path = api.kubeconfig(dir.path(), TOKEN);
    let options = kubeconfig::options(&path, Some("test"), Duration::from_secs(5)).expect("read");
    let cluster = Cluster::new(options, None).expect("good options");
    assert_eq!(cluster.list_pods(&name(NAMESPACE), "app=shop").await.expect("listed").len(), 2);
    assert_eq!((cluster.place(), cluster.namespace()), (api.url(), Some(NAMESPACE)));
}

#[tokio::test]
async fn a_role_that_says_no_is_shown_in_its_words() {
    let api = KubeApi::start().await;
    api.forbids("list", "pods");
    let error = cluster(&api).list_pods(&name(NAMESPACE), "").await.expect_err("no right");
    let words = error.to_string();
    assert!(
        words.starts_with("403 Forbidden: pods. is forbidden: User \"system:service"),
        "{words}"
    );
    let object = Object { kind: DEPLOYMENTS, namespace: name(NAMESPACE), name: name("gone") };
    let error = cluster(&api).read(&object).await.expect_err("none");
    assert!(
        error.is_absent() && error.to_string() == "404 Not Found: deployments \"gone\" not found"
    );
}

#[tokio::test]
async fn lists_that_are_none_are_named() {
    let api = KubeApi::start().await;
    let cluster = cluster(&api);
    for (said, words) in [
        (http(200, "[]"), "the answer cannot be read"),
        (http(200, r#"{"items":[{"spec":{}}]}"#), "the answer cannot be read"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"items\":[".to_owned(), "breaks off"),
    ] {
        api.next("GET", Mischief::Says(said));
        let error = cluster.list_pods(&name(NAMESPACE), "").await.expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    }
    api.next("GET", Mischief::Floods);
    let error = cluster.list_pods(&name(NAMESPACE), "").await.expect_err("too large");
    assert_eq!(error.to_string(), "the answer has more than 16777216 bytes");
    api.next("GET", Mischief::Says(http(200, r#"{"items":null}"#)));
    let none: Vec<Value> = cluster.list(PODS, &name(NAMESPACE), "").await.expect("nothing");
    assert!(none.is_empty());
}
