//! `/v1/integrations/argo`: one analysis a release, small answers, and files that Argo would take.

use rollgate::api::ApiOptions;
use serde_json::{Value, json};

use super::{argo::faults_of_template, at, documents};
use crate::{
    fake_desk::{BAD, DOWN, FULL, QUIET, REFUSED, SILENT},
    wire::{Answer, Server, request},
};

async fn server() -> Server {
    Server::start(ApiOptions::default()).await
}

fn question(service: &str, version: &str) -> String {
    format!("/v1/integrations/argo?service={service}&canary_version={version}&baseline_version=1")
}

/// What an answer says in the members that a template compares.
fn said(answer: &Answer) -> (u16, String, bool) {
    let json = answer.json();
    let verdict = json["verdict"].as_str().unwrap_or("none").to_owned();
    (answer.status, verdict, json["final"].as_bool().unwrap_or(false))
}

#[tokio::test]
async fn a_release_is_one_analysis_however_often_and_however_it_is_asked_about() {
    let server = server().await;
    let first = server.get(&question("shop", "2")).await;
    assert_eq!(said(&first), (200, "watching".into(), false), "{first:?}");
    let id = first.json()["id"].clone();
    assert_eq!(
        first.json()["link"],
        format!("http://localhost/#/analyses/{}", id.as_str().unwrap())
    );
    let body =
        r#"{"service":"shop","rules":"","canary":{"version":"2"},"baseline":{"version":"1"}}"#;
    let json = "Content-Type: application/json\r\n";
    for again in [
        server.get(&question("shop", "2")).await,
        server.post("/v1/integrations/argo", body).await,
        server.send(&request("PUT", "/v1/integrations/argo", json, body)).await,
    ] {
        assert_eq!((again.status, &again.json()["id"]), (200, &id), "{again:?}");
    }
    let next = server.get(&question("shop", "3")).await;
    assert_ne!(next.json()["id"], id);
    // The same version once more, as another release.
    let later = server.get(&format!("{}&key=uid-7", question("shop", "2"))).await;
    assert_ne!(later.json()["id"], id);
    assert_eq!(server.desk.ids().len(), 3);
}

#[tokio::test]
async fn every_verdict_is_a_small_object_with_its_reason() {
    let server = server().await;
    for (service, expected, reason) in [
        ("shop", "promote", "Promote: watched for 2 min"),
        (BAD, "rollback", "Roll back: errors of the canary"),
        (QUIET, "inconclusive", "Inconclusive: the deadline passed"),
    ] {
        let ask = question(service, "2");
        let id = server.get(&ask).await.json()["id"].as_str().unwrap().to_owned();
        server.desk.advance(&id, 10);
        let early = server.get(&ask).await;
        assert_eq!(said(&early), (200, "watching".into(), false), "{early:?}");
        server.desk.advance(&id, 500);
        let answer = server.get(&ask).await;
        assert_eq!(said(&answer), (200, expected.into(), true), "{answer:?}");
        let json = answer.json();
        assert!(json["reason"].as_str().unwrap().starts_with(reason), "{json}");
        assert!(answer.body.len() < 1_024, "{} bytes", answer.body.len());
        let members: Vec<&String> = json.as_object().unwrap().keys().collect();
        let known = ["final", "id", "link", "progress", "reason", "rule", "service", "verdict"];
        assert_eq!(members, known);
    }
    let cancelled = server.get(&question("till", "2")).await.json()["id"].clone();
    let path = format!("/v1/analyses/{}/cancel", cancelled.as_str().unwrap());
    server.post(&path, r#"{"who":"ann","why":"wrong branch"}"#).await;
    let answer = server.get(&question("till", "2")).await;
    assert_eq!(said(&answer), (200, "inconclusive".into(), true));
    assert_eq!(answer.json()["reason"], "Cancelled by ann: wrong branch");
}

#[tokio::test]
async fn what_cannot_be_carried_out_is_said_with_every_fault() {
    let server = server().await;
    let check = async |path: &str, status: u16, words: &[&str]| {
        let answer = server.get(path).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        for word in words {
            assert!(answer.body.contains(word), "{path}: {} lacks {word}", answer.body);
        }
    };
    check("/v1/integrations/argo", 422, &["service", "canary_version"]).await;
    check("/v1/integrations/argo?service=shop", 422, &["tells one release from the next"]).await;
    check(&format!("{}&hold=soon", question("shop", "2")), 422, &["hold", "soon"]).await;
    check(&format!("{}&ruels=x", question("shop", "2")), 400, &["ruels"]).await;
    check(&question(REFUSED, "2"), 422, &["no file a.yaml", "unknown name hook"]).await;
    check(&question(FULL, "2"), 429, &["limit"]).await;
    check(&question(DOWN, "2"), 503, &["does not answer"]).await;
    let bad = server.post("/v1/integrations/argo", r#"{"service":"shop","canary":{},"x":1}"#).await;
    assert_eq!(bad.status, 400, "{bad:?}");
    let large = format!(r#"{{"service":"{}"}}"#, "x".repeat(300 * 1024));
    assert_eq!(server.post("/v1/integrations/argo", &large).await.status, 413);
    // A key that stands in a template as it is would give this release the verdict of the last.
    let keyed = |version: &str| format!("{}&key=fixed", question("shop", version));
    assert_eq!(server.get(&keyed("2")).await.status, 200);
    check(&keyed("3"), 409, &["must be new for every release"]).await;
    check(&format!("{}&key=fixed", question("till", "2")), 409, &["shop"]).await;
}

#[tokio::test]
async fn a_known_analysis_is_answered_for_without_the_store() {
    let server = server().await;
    let (runs, ended) = (question("shop", "2"), question(BAD, "2"));
    let id = server.get(&runs).await.json()["id"].as_str().unwrap().to_owned();
    let over = server.get(&ended).await.json()["id"].as_str().unwrap().to_owned();
    server.desk.advance(&over, 500);
    server.get(&ended).await;
    server.desk.set_down(true);
    server.desk.advance(&id, 10);
    let answer = server.get(&runs).await;
    assert_eq!(said(&answer), (200, "watching".into(), false), "{answer:?}");
    assert!(answer.json()["progress"].as_str().unwrap().contains("watched for 10 s"));
    assert_eq!(said(&server.get(&ended).await), (200, "rollback".into(), true));
    let unknown = server.get(&question("shop", "9")).await;
    assert_eq!(unknown.status, 503, "{unknown:?}");
}

#[tokio::test]
async fn an_order_that_takes_long_is_watching_meanwhile() {
    let desk_timeout = std::time::Duration::from_millis(100);
    let server = Server::start(ApiOptions { desk_timeout, ..ApiOptions::default() }).await;
    let answer = server.get(&question(SILENT, "2")).await;
    assert_eq!(said(&answer), (200, "watching".into(), false), "{answer:?}");
    assert_eq!(answer.json()["id"], Value::Null);
}

#[tokio::test]
async fn argo_takes_the_template_and_the_rollout_that_use_it() {
    let server = server().await;
    let path = "/v1/integrations/argo/template.yaml";
    let plain = server.get(&format!("{path}?service=shop&rules=recommended")).await;
    assert_eq!(plain.header("content-type"), Some("application/yaml"));
    insta::assert_snapshot!("argo_template", plain.body);
    let both = documents(&plain.body);
    let kinds: Vec<&Value> = both.iter().map(|one| &one["kind"]).collect();
    assert_eq!(kinds, ["AnalysisTemplate", "ClusterAnalysisTemplate"]);
    for template in &both {
        assert_eq!(faults_of_template(template), [""; 0]);
        let metric = at(template, "spec.metrics.0");
        assert_eq!(metric["successCondition"], "result.verdict == \"promote\"");
        assert_eq!(metric["failureCondition"], "result.verdict == \"rollback\"");
        assert_eq!(
            (&metric["consecutiveErrorLimit"], &metric["failureLimit"]),
            (&json!(30), &json!(0))
        );
        assert_eq!(metric["count"], Value::Null);
        assert!(metric["inconclusiveLimit"].as_u64().unwrap() >= 10_000);
        assert_eq!(at(metric, "provider.web.jsonPath"), "{$}");
    }
    let asked = format!(
        "{path}?service=shop&interval=5s&deadline=30m&token=&argo=1.7&name=judge&address=https://r.ops/"
    );
    let other = server.get(&asked).await;
    let template = &documents(&other.body)[0];
    assert_eq!(faults_of_template(template), [""; 0]);
    let metric = at(template, "spec.metrics.0");
    assert_eq!((&metric["inconclusiveLimit"], &metric["interval"]), (&json!(390), &json!("5s")));
    assert_eq!(metric["consecutiveSuccessLimit"], Value::Null);
    assert_eq!(at(metric, "provider.web.headers"), &Value::Null);
    assert!(at(metric, "provider.web.url").as_str().unwrap().starts_with("https://r.ops/v1/"));
    assert!(!other.body.contains("token"), "{}", other.body);
    let rollout = server.get("/v1/integrations/argo/rollout.yaml?service=shop").await;
    let rollout = &documents(&rollout.body)[0];
    // Every argument that the template leaves open is given, and none that it does not have.
    let args = |value: &Value| value.as_array().unwrap().clone();
    let known = args(at(&both[0], "spec.args"));
    for path in ["spec.strategy.canary.analysis.args", "spec.strategy.canary.steps.3.analysis.args"]
    {
        let given: Vec<Value> =
            args(at(rollout, path)).iter().map(|arg| arg["name"].clone()).collect();
        for arg in &known {
            let is_open = arg["value"].is_null() && arg["valueFrom"].is_null();
            assert!(!is_open || given.contains(&arg["name"]), "{path}: {arg}");
        }
        assert!(given.iter().all(|name| known.iter().any(|arg| arg["name"] == *name)), "{path}");
    }
    let open = &documents(&server.get(path).await.body)[0];
    assert_eq!(at(open, "spec.args.0"), &json!({ "name": "service" }));
    for bad in ["address=x", "service=a%20b", "interval=0s", "interval=x", "deadline=99999h", "x=1"]
    {
        assert_eq!(server.get(&format!("{path}?{bad}")).await.status, 400, "{bad}");
    }
}
