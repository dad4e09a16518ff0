//! `kubernetes-undo` against a server that behaves as Kubernetes does, and against one that does not.

use std::time::{Duration, Instant};

use rollgate::deliver::{
    Attempt, Checks, Mechanism, Parcel,
    kubernetes_undo::{ACTIONS, KubernetesUndo, MAPPING},
    mapping::Mapping,
    payload::DeployAction,
    revision::Picked,
    sample::{self, Release},
};
use serde_json::{Value, json};

use super::cluster::{
    ROLLBACK, Told, assert_is, cluster, live, parcel, pattern, rehearsed, tell, workload,
};
use crate::kube_api::{
    KubeApi, Mischief, TOKEN, http,
    templates::{NAMESPACE, deployment_key},
};

const RELEASE: Release<'_> =
    Release { service: "shop", canary_version: "v2", baseline_version: "v1" };

/// `shop` went from v0 over v1 to v2.
async fn shop() -> KubeApi {
    let api = KubeApi::start().await;
    api.world(|world| world.deploy("shop", "shop:v0", Value::Null));
    // Others whose revisions are not ours.
    api.world(|world| world.deploy("till", "till:v9", Value::Null));
    api.release(&deployment_key("shop"), &["shop:v1", "shop:v2"]);
    api
}

fn undo(api: &KubeApi) -> KubernetesUndo {
    KubernetesUndo::new(workload(api, MAPPING), &live()).expect("good options")
}

fn image(api: &KubeApi) -> String {
    api.world(|world| world.image(&deployment_key("shop")).to_owned())
}

#[tokio::test]
async fn a_deployment_goes_back_by_the_requests_of_the_contract() {
    let api = shop().await;
    let version = api.world(|world| {
        world.objects[&deployment_key("shop")]["metadata"]["resourceVersion"].clone()
    });
    let undo = undo(&api);
    let attempt = tell(&undo, ROLLBACK).await;
    assert_is(
        &attempt,
        "delivered",
        "deployment production/shop goes back to shop:v1 (revision 2, ",
    );
    assert_eq!(image(&api), "shop:v1");

    let lines: Vec<String> = api.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(
        lines,
        [
            "GET /apis/apps/v1/namespaces/production/deployments/shop",
            "GET /apis/apps/v1/namespaces/production/replicasets?limit=250&labelSelector=app%3Dshop",
            "PATCH /apis/apps/v1/namespaces/production/deployments/shop",
        ]
    );
    for asked in api.asked() {
        assert_eq!(asked.headers["authorization"], format!("Bearer {TOKEN}"));
        assert_eq!(asked.headers["accept"], "application/json");
    }
    let [(_, content_type, body)] = &api.writes()[..] else { panic!("one write") };
    assert_eq!(content_type, "application/json-patch+json");
    let template = json!({ "metadata": { "labels": { "app": "shop" } },
        "spec": { "containers": [{ "name": "shop", "image": "shop:v1",
                  "ports": [{ "name": "http", "containerPort": 8080 }] }] } });
    assert_eq!(
        *body,
        json!([
            { "op": "test", "path": "/metadata/resourceVersion", "value": version },
            { "op": "replace", "path": "/spec/template", "value": template },
        ])
    );

    // Told again, it changes nothing, whether or not it knows the old version's name.
    for baseline in ["v1", ""] {
        let attempt = tell(&undo, Told { baseline, ..ROLLBACK }).await;
        assert_is(&attempt, "delivered", "nothing to do");
    }
    assert_eq!((api.writes().len(), image(&api).as_str()), (1, "shop:v1"));
}

#[tokio::test]
async fn a_revision_is_found_as_it_is_picked() {
    let check = async |picked: &str, canary: &str, ending: &str| {
        let api = shop().await;
        let mut options = workload(&api, MAPPING);
        options.revision = Picked::parse(picked).expect("a form");
        let undo = KubernetesUndo::new(options, &live()).expect("good options");
        assert_is(&tell(&undo, Told { canary, baseline: "", ..ROLLBACK }).await, ending, "shop");
        let gone_back = ending == "delivered";
        assert_eq!(image(&api) == "shop:v1", gone_back, "{picked} {canary}");
    };
    let newest = crate::kube_api::templates::template("shop", "shop:v2", &Value::Null);
    let hash = crate::kube_api::controllers::hash(&newest);
    check("auto", &hash, "delivered").await;
    check("hash", &hash, "delivered").await;
    check("hash", "v2", "refused").await;
    check("auto", "3", "delivered").await;
    check("number", "3", "delivered").await;
    check("number", "2", "refused").await;
    check("image", "v2", "delivered").await;
    check("image:shop", "v2", "delivered").await;
    check("image:proxy", "v2", "refused").await;
    check("label:app", "shop", "refused").await; // the one before has it too
}

#[tokio::test]
async fn a_changed_world_is_refused_by_name() {
    let check = async |change: &dyn Fn(&KubeApi), told: Told<'_>, words: &str| {
        let api = shop().await;
        change(&api);
        let before = image(&api);
        assert_is(&tell(&undo(&api), told).await, "refused", words);
        assert_eq!((api.writes().len(), image(&api)), (0, before));
    };
    let key = deployment_key("shop");
    let newer = |api: &KubeApi| api.release(&key, &["shop:v3"]);
    check(&newer, ROLLBACK, "deployment production/shop runs shop:v3 (revision 4, ").await;
    check(&newer, ROLLBACK, "now; v2 was judged").await;
    let paused = |api: &KubeApi| {
        api.world(|world| world.change(&key, |object| object["spec"]["paused"] = json!(true)));
    };
    check(&paused, ROLLBACK, "is paused").await;
    let gone = |api: &KubeApi| drop(api.world(|world| world.objects.remove(&key)));
    let attempt = "cannot read deployment production/shop: 404 Not Found: ";
    let api = shop().await;
    gone(&api);
    assert_is(&tell(&undo(&api), ROLLBACK).await, "refused", attempt);
    let same = |_: &KubeApi| {};
    check(&same, Told { canary: "", ..ROLLBACK }, "named no canary version").await;
    check(&same, Told { canary: " ", ..ROLLBACK }, "named no canary version").await;
    check(&same, Told { canary: "v1", baseline: "v0", ..ROLLBACK }, "v1 was judged").await;
    // The image is what it was, another line of the template is not.
    let again = |api: &KubeApi| {
        api.world(|world| {
            world.change(&key, |object| {
                object["spec"]["template"]["spec"]["nodeName"] = json!("n1");
            })
        });
    };
    check(&again, ROLLBACK, "which is v2 as well").await;
    let first = |api: &KubeApi| {
        api.world(|world| {
            world.objects.retain(|key, _| key.2 == "deployments" || !key.3.starts_with("shop-"));
        });
    };
    check(&first, ROLLBACK, "has no revision to go back to").await;
}

#[tokio::test]
async fn a_name_that_is_none_never_becomes_a_path() {
    let api = shop().await;
    let mut options = workload(&api, MAPPING);
    options.object = pattern("{service}-{canary_version}");
    let undo = KubernetesUndo::new(options, &live()).expect("good options");
    for canary in ["../../secrets/x", "V2", "a?b", "%2e%2e", "v2#", "ä"] {
        let attempt = tell(&undo, Told { canary, ..ROLLBACK }).await;
        assert_is(&attempt, "refused", "is no name of an object");
    }
    assert!(api.asked().is_empty());
}

#[tokio::test]
async fn somebody_who_was_faster_is_read_anew() {
    let key = deployment_key("shop");
    // A change that is not about the version: the undo is decided anew, and done.
    let api = shop().await;
    let scaled = key.clone();
    api.next(
        "PATCH",
        Mischief::Outruns(Box::new(move |world| {
            world.change(&scaled, |object| object["spec"]["replicas"] = json!(5));
        })),
    );
    assert_is(&tell(&undo(&api), ROLLBACK).await, "delivered", "goes back to shop:v1");
    assert_eq!((api.writes().len(), api.world(|world| world.replicas("shop"))), (2, 5));
    // A newer release: refused, not undone.
    let api = shop().await;
    let newer = key.clone();
    api.next("PATCH", Mischief::Outruns(Box::new(move |world| world.set_image(&newer, "shop:v3"))));
    assert_is(&tell(&undo(&api), ROLLBACK).await, "refused", "v2 was judged");
    assert_eq!(image(&api), "shop:v3");
    // One who is always faster: another time.
    let api = shop().await;
    for replicas in 10..20 {
        let scaled = key.clone();
        api.next(
            "PATCH",
            Mischief::Outruns(Box::new(move |world| {
                world.change(&scaled, |object| object["spec"]["replicas"] = json!(replicas));
            })),
        );
    }
    let attempt = tell(&undo(&api), ROLLBACK).await;
    assert_is(&attempt, "failed", "read and decided anew 5 times");
    assert_eq!((api.writes().len(), image(&api).as_str()), (5, "shop:v2"));
    // Invalid whoever writes: refused for good.
    let api = shop().await;
    let invalid = r#"{"kind":"Status","reason":"Invalid","message":"admission says no"}"#;
    for _ in 0..2 {
        api.next("PATCH", Mischief::Says(http(422, invalid)));
    }
    assert_is(&tell(&undo(&api), ROLLBACK).await, "refused", "(Invalid): admission says no");
    assert_eq!(api.writes().len(), 2);
}

#[tokio::test]
async fn a_controller_that_lags_does_not_lead_astray() {
    let api = shop().await;
    api.world(|world| world.has_controllers = false);
    // Undone, and the revisions still say otherwise: told again, nothing is done.
    assert_is(&tell(&undo(&api), ROLLBACK).await, "delivered", "goes back to shop:v1");
    let attempt = tell(&undo(&api), Told { baseline: "", ..ROLLBACK }).await;
    assert_is(&attempt, "delivered", "nothing to do");
    assert_eq!(image(&api), "shop:v1");
    // Released a moment ago: it goes back to what ran before, and not one too far.
    api.release(&deployment_key("shop"), &["shop:v2", "shop:v5"]);
    let attempt = tell(&undo(&api), Told { canary: "v5", ..ROLLBACK }).await;
    assert_is(&attempt, "delivered", "goes back to shop:v2");
}

/// What each answer means, to the first read and to the write.
#[tokio::test]
async fn each_refusal_of_a_server_has_its_meaning() {
    let check = async |method: &'static str, said: String, ending: &str, words: &str| {
        let api = shop().await;
        api.next(method, Mischief::Says(said.clone()));
        let attempt = tell(&undo(&api), ROLLBACK).await;
        assert_is(&attempt, ending, words);
        assert_eq!(image(&api), "shop:v2", "{said}");
        attempt
    };
    let status = |code: u16, reason: &str, message: &str| {
        let body = json!({ "kind": "Status", "reason": reason, "message": message, "code": code });
        http(code, &body.to_string())
    };
    for method in ["GET", "PATCH"] {
        let (read, change) = ("cannot read deployment", "cannot change deployment");
        let what = if method == "GET" { read } else { change };
        check(method, status(401, "Unauthorized", "Unauthorized"), "failed", what).await;
        check(
            method,
            status(403, "Forbidden", "no such right"),
            "failed",
            "403 Forbidden: no such",
        )
        .await;
        check(method, status(404, "NotFound", "gone"), "refused", "404 Not Found: gone").await;
        check(method, status(410, "Gone", "expired"), "failed", "410 Gone: expired").await;
        check(method, status(400, "BadRequest", "what?"), "refused", "400 Bad Request: what?")
            .await;
        check(method, status(415, "", "patch?"), "refused", "415 Unsupported Media Type").await;
        check(method, http(500, "<html>"), "failed", "500 Internal Server Error: <html>").await;
        check(method, http(503, ""), "failed", "503 Service Unavailable").await;
        let moved =
            "HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        check(method, moved.to_owned(), "failed", "307 Temporary Redirect").await;
        check(method, String::new(), "failed", "connection closed").await;
        check(method, "SSH-2.0-OpenSSH\r\n\r\n".to_owned(), "failed", "invalid HTTP version").await;
        // The server repeats the token: it is not shown.
        check(method, status(403, "Forbidden", TOKEN), "failed", "[redacted]").await;
        let busy = "HTTP/1.1 429 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n".to_owned();
        let attempt = check(method, busy, "failed", "429 Too Many Requests").await;
        let Attempt::Failed { retry_after, .. } = attempt else { panic!("{attempt:?}") };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
    }
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\n{\"metadata\":";
    check("GET", half.to_owned(), "failed", "the answer breaks off").await;
    check("GET", http(200, "{\"metadata\":"), "failed", "the answer cannot be read").await;
    check("GET", http(200, "[]"), "failed", "the answer is no deployment").await;
    check("GET", http(200, "{}"), "failed", "it has no selector").await;
}

#[tokio::test]
async fn answers_are_bounded_in_bytes_and_time() {
    let api = shop().await;
    api.next("GET", Mischief::Floods);
    let began = Instant::now();
    let attempt = tell(&undo(&api), ROLLBACK).await;
    assert_is(&attempt, "failed", "the answer has more than 4194304 bytes");
    // The status of a write has decided; the rest of its answer is nobody's business.
    api.next("PATCH", Mischief::Floods);
    assert_is(&tell(&undo(&api), ROLLBACK).await, "delivered", "goes back");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    for said in ["", "HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\n{"] {
        let api = shop().await;
        let mut options = workload(&api, MAPPING);
        options.cluster = cluster(&api, Duration::from_millis(200));
        let undo = KubernetesUndo::new(options, &live()).expect("good options");
        api.next("GET", Mischief::Hangs(said));
        assert_is(&tell(&undo, ROLLBACK).await, "failed", "cannot read deployment");
    }
}

#[tokio::test]
async fn what_is_not_its_business_is_left_alone() {
    let api = shop().await;
    let undo = undo(&api);
    for action in ["promote", "hold", "advance"] {
        let attempt = tell(&undo, Told { action, ..ROLLBACK }).await;
        assert_is(&attempt, "nothing", "nothing is done");
    }
    let mut strange = parcel(ROLLBACK);
    strange.body = "{}".to_owned();
    assert_is(&undo.deliver(&strange).await, "refused", "the event cannot be read");
    assert!(api.asked().is_empty());
    let words = undo.does(DeployAction::Rollback);
    assert_eq!(words.as_deref(), Some("undo deployment production/{service}"));
    assert_eq!(undo.does(DeployAction::Promote), None);
    let about = undo.about();
    assert_eq!((about.kind, about.to, about.carries_token), ("kubernetes-undo", api.url(), true));
    assert_eq!(
        about.checks,
        Checks::Itself("what runs now, by hash, image, version label or number".to_owned())
    );
    // A test event looks, and changes nothing, whatever is done on a decision.
    let test =
        Parcel { body: sample::test(&RELEASE, parcel(ROLLBACK).created), ..parcel(ROLLBACK) };
    let hold = Mapping { hold: Some(ACTIONS[0]), ..MAPPING };
    let told = KubernetesUndo::new(workload(&api, hold), &live()).expect("good options");
    let words = "a test: deployment production/shop was read, and nothing is changed";
    assert_is(&told.deliver(&test).await, "delivered", words);
    api.takes(&[]);
    assert_is(&told.deliver(&test).await, "failed", "401 Unauthorized");
    assert_eq!(api.writes().len(), 0);
    let all = Mapping { promote: Some(ACTIONS[0]), ..MAPPING };
    let told = KubernetesUndo::new(workload(&api, all), &live()).expect("good options");
    assert!(told.does(DeployAction::Promote).is_some());
}

#[tokio::test]
async fn a_rehearsal_reads_and_changes_nothing() {
    let api = shop().await;
    let (setting, rehearsal) = rehearsed();
    let undo = KubernetesUndo::new(workload(&api, MAPPING), &setting).expect("good options");
    assert_is(&tell(&undo, ROLLBACK).await, "delivered", "goes back to shop:v1");
    assert_eq!((api.writes().len(), image(&api).as_str()), (0, "shop:v2"));
    let put_down = rehearsal.take();
    let methods: Vec<&str> = put_down.iter().map(|one| one.method.as_str()).collect();
    assert_eq!(methods, ["GET", "GET", "PATCH"]);
    let [.., patch] = &put_down[..] else { panic!("a patch") };
    assert!(patch.body.as_deref().is_some_and(|body| body.contains("shop:v1")), "{patch:?}");
    assert!(!format!("{put_down:?}").contains(TOKEN));
    assert!(patch.url.ends_with(&format!("namespaces/{NAMESPACE}/deployments/shop")));
}
