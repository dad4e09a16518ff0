//! Requests to Kayenta's API become orders, and analyses become executions.

use rollgate::api::{
    ApiOptions,
    desk::{ArmOrder, OpenAnalysis, RuleFileView, RuleFiles},
};
use serde_json::{Value, json};

use crate::{
    story::{STARTED_AT, Story},
    wire::{Server, request},
};

/// The time of the fake desk, ten minutes after its stories began.
fn minutes(later: f64) -> String {
    let millis = (1000.0 * (STARTED_AT + 600.0 + 60.0 * later)) as i64;
    jiff::Timestamp::from_millisecond(millis).unwrap().to_string()
}

async fn server() -> Server {
    let server = Server::start(ApiOptions::default()).await;
    let mut rules: RuleFiles = crate::page::rule_files();
    let mut shop: RuleFileView = rules.rules[0].clone();
    shop.name = "shop".to_owned();
    (shop.sha256, shop.loaded_at) = (Some("9f".repeat(32)), Some(STARTED_AT));
    rules.rules.push(shop);
    server.desk.set_rules(rules);
    server
}

/// A body as Argo's provider writes it, with its white space.
fn argo_body(control: &str, experiment: &str, times: [&str; 2]) -> String {
    let scope = |scope: &str| json!({ "scope": scope, "region": "eu", "step": 60, "start": times[0], "end": times[1] });
    format!(
        "\n\t\t{{\n\"scopes\": {{\n\"default\":{{\"controlScope\": {}, \"experimentScope\": {}}}\n}},\n\
         \"thresholds\" : {{\n\"pass\": 90,\n\"marginal\": 60\n}}\n}}",
        scope(control),
        scope(experiment)
    )
}

const ARGO_QUERY: &str =
    "application=till&metricsAccountName=main&configurationAccountName=c&storageAccountName=s";

async fn canary(server: &Server, body: &str) -> String {
    let answer = server.post(&format!("/canary/shop?{ARGO_QUERY}"), body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["canaryExecutionId"].as_str().unwrap().to_owned()
}

async fn standalone(server: &Server, path: &str, body: &Value) -> String {
    let answer = server.post(path, &body.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["canaryAnalysisExecutionId"].as_str().unwrap().to_owned()
}

fn last(server: &Server) -> OpenAnalysis {
    server.desk.orders().pop().unwrap()
}

fn version(version: &str) -> ArmOrder {
    ArmOrder { version: version.to_owned(), ..ArmOrder::default() }
}

#[tokio::test]
async fn rule_files_are_canary_configurations() {
    let server = server().await;
    let list = server.get("/canaryConfig?application=till&configurationAccountName=c").await;
    let list = list.json();
    let shop = list.as_array().unwrap().iter().find(|config| config["name"] == "shop").unwrap();
    assert_eq!((&shop["id"], shop["updatedTimestamp"].is_i64()), (&json!("shop"), true));
    let config = server.get("/canaryConfig/shop").await;
    insta::assert_snapshot!("config", serde_json::to_string_pretty(&config.json()).unwrap());
    assert_eq!(server.get("/canaryConfig/none").await.status, 404);
}

#[tokio::test]
async fn a_scope_is_a_version_matchers_or_urls() {
    let server = server().await;
    canary(&server, &argo_body("v1", "v2", ["", ""])).await;
    let order = last(&server);
    let parameters = [("control_location", "eu"), ("location", "eu")];
    let expected = OpenAnalysis {
        service: "till".to_owned(),
        rules: "shop".to_owned(),
        canary: version("v2"),
        baseline: Some(version("v1")),
        parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        idempotency_key: order.idempotency_key.clone(),
        ..OpenAnalysis::default()
    };
    assert_eq!(order, expected);
    assert!(order.idempotency_key.unwrap().starts_with("kayenta/"));

    canary(&server, &argo_body("job=\"a\",v=\"1\"", "job=\"a\",v=\"2\"", ["", ""])).await;
    let order = last(&server);
    assert_eq!(order.canary.selector.as_deref(), Some("job=\"a\",v=\"2\""));
    assert_eq!(order.prometheus.as_deref(), Some("main"));

    canary(&server, &argo_body("http://a:1", "http://b:1, https://c:2", ["", ""])).await;
    let order = last(&server);
    assert_eq!(order.canary.targets, ["http://b:1", "https://c:2"]);
    assert_eq!(
        (order.baseline.unwrap().targets, order.prometheus),
        (vec!["http://a:1".to_owned()], None)
    );
    // One scope for both is no baseline.
    canary(&server, &argo_body("v2", "v2", ["", ""])).await;
    assert_eq!(last(&server).baseline, None);
}

#[tokio::test]
async fn times_are_how_long_it_is_watched() {
    let server = server().await;
    let hold = |server: &Server| last(server).hold_secs.map(f64::round);
    canary(&server, &argo_body("v1", "v2", [&minutes(-5.0), &minutes(30.0)])).await;
    assert_eq!(hold(&server), Some(1_800.0));
    let path = "/standalone_canary_analysis/shop?application=till";
    let scope = |more: Value| {
        let mut scope = json!({ "scopeName": "default", "controlScope": "v1", "controlLocation": "eu",
            "experimentScope": "v2", "experimentLocation": "us", "step": 60,
            "extendedScopeParams": { "resourceType": "pod", "canary_version": "2.0" } });
        scope.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        scope
    };
    let mut body = json!({ "scopes": [scope(json!({}))], "thresholds": { "pass": 95, "marginal": 75 },
        "lifetimeDurationMins": 60, "beginAfterMins": 10, "lookbackMins": 0, "analysisIntervalMins": 10 });
    standalone(&server, path, &body).await;
    let order = last(&server);
    assert_eq!(order.hold_secs, Some(4_200.0));
    assert_eq!(order.canary, version("2.0"));
    let parameter = |name: &str| order.parameters[name].clone();
    assert_eq!((parameter("location"), parameter("control_location")), ("us".into(), "eu".into()));
    assert_eq!(parameter("resource_type"), "pod");
    body["scopes"] = json!([scope(json!({ "startTimeIso": minutes(-20.0) }))]);
    standalone(&server, path, &body).await;
    assert_eq!(hold(&server), Some(3_000.0));
    body["scopes"] = json!([scope(json!({ "endTimeIso": minutes(5.0) }))]);
    standalone(&server, path, &json!({ "executionRequest": body })).await;
    assert_eq!(hold(&server), Some(300.0));
}

#[tokio::test]
async fn the_same_request_is_one_analysis_until_it_is_another_release() {
    let server = server().await;
    let body = argo_body("v1", "v2", ["", ""]);
    let first = canary(&server, &body).await;
    assert_eq!(canary(&server, &body).await, first);
    // White space is no difference, another version is.
    assert_eq!(canary(&server, &body.replace('\n', " ")).await, first);
    let other = canary(&server, &body.replace("v2", "v3")).await;
    assert_ne!(other, first);
    let elsewhere = format!("/canary/shop?{ARGO_QUERY}&parentPipelineExecutionId=7");
    let answer = server.post(&elsewhere, &body).await;
    assert_ne!(answer.json()["canaryExecutionId"], json!(first));
    // While it runs, however long; and some minutes after its end.
    server.desk.later(86_400.0);
    assert_eq!(canary(&server, &body).await, first);
    let analysis = first.split('_').next().unwrap();
    server.desk.later(-86_400.0);
    server.desk.advance(analysis, 1_000);
    assert_eq!(canary(&server, &body).await, first);
    server.desk.later(86_400.0);
    let again = canary(&server, &body).await;
    assert_ne!(again, first);
    assert_eq!(canary(&server, &body).await, again);
    assert_eq!(server.desk.orders().len(), 4);
}

#[tokio::test]
async fn executions_are_answered_in_kayentas_words() {
    let server = server().await;
    server.desk.tell(Story::errors("bad", "till"));
    server.desk.tell(Story::healthy("good", "till"));
    server.desk.tell(Story::idle("idle", "till"));
    server.desk.tell(Story::errors("young", "till"));
    for id in ["bad", "good", "idle"] {
        server.desk.advance(id, 500);
    }
    let shown = |answer: Value| serde_json::to_string_pretty(&answer).unwrap();
    for id in ["bad", "good", "idle", "young"] {
        let status = server.get(&format!("/canary/{id}_90_60_0?storageAccountName=s")).await.json();
        insta::assert_snapshot!(format!("canary_{id}"), shown(status));
        let path = format!("/standalone_canary_analysis/{id}_90_60_2?storageAccountName=s");
        insta::assert_snapshot!(format!("standalone_{id}"), shown(server.get(&path).await.json()));
    }
    for path in ["/canary/none_90_60_0", "/canary/none", "/standalone_canary_analysis/none"] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_cancelled_execution_is_neither_passed_nor_failed() {
    let server = server().await;
    let id = canary(&server, &argo_body("v1", "v2", ["", ""])).await;
    let put = request("PUT", &format!("/pipelines/{id}/cancel"), "", "");
    assert_eq!(server.send(&put).await.status, 200);
    assert_eq!(server.send(&put).await.status, 200, "a second time changes nothing");
    let status = server.get(&format!("/canary/{id}")).await.json();
    assert_eq!((&status["status"], &status["complete"]), (&json!("canceled"), &json!(true)));
    assert_eq!(status["result"]["judgeResult"]["score"]["score"], 60.0);
    let unknown = request("PUT", "/pipelines/none/cancel", "", "");
    assert_eq!(server.send(&unknown).await.status, 404);
}

#[tokio::test]
async fn what_cannot_be_carried_out_is_refused_with_what_to_do() {
    let server = server().await;
    let good: Value = serde_json::from_str(&argo_body("v1", "v2", ["", ""])).unwrap();
    let check = async |path: &str, body: Value, status: u16, words: &str| {
        let answer = server.post(path, &body.to_string()).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.body.contains(words), "{words} is not in {answer:?}");
    };
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = good.clone();
        change(&mut body);
        body
    };
    let path = "/canary/shop?application=till";
    let past =
        with(&|body| body["scopes"]["default"]["experimentScope"]["end"] = json!(minutes(-1.0)));
    check(path, past, 422, "`rollgate backtest` judges past ones").await;
    let odd = with(&|body| body["scopes"]["default"]["experimentScope"]["end"] = json!("tomorrow"));
    check(path, odd, 422, "expected a time such as").await;
    check(path, with(&|body| body["scopes"] = json!({})), 422, "none is given, expected one").await;
    let two = with(&|body| {
        let scopes = body["scopes"].as_object_mut().unwrap();
        let default = scopes.remove("default").unwrap();
        scopes.insert("a".into(), default);
        scopes.insert("b".into(), json!({ "experimentScope": { "scope": "v9" } }));
    });
    check(path, two, 422, "2 different ones are given").await;
    let empty = with(&|body| body["scopes"]["default"]["experimentScope"]["scope"] = json!(" "));
    check(path, empty, 422, "experimentScope: is empty").await;
    for (pass, marginal) in [(95, 0), (95, 95), (101, 50), (50, 75)] {
        let body = with(&|body| body["thresholds"] = json!({ "pass": pass, "marginal": marginal }));
        check(path, body, 422, "a rollback scores 0").await;
    }
    check(path, json!([]), 400, "").await;
    check(path, json!({}), 400, "scopes").await;
    let url =
        with(&|body| body["scopes"]["default"]["experimentScope"]["scope"] = json!("a\u{1}b=c"));
    check(path, url, 422, "control character").await;

    let path = "/standalone_canary_analysis?application=till";
    let request = json!({ "scopes": [{ "controlScope": "v1", "experimentScope": "v2" }] });
    let inline = |config: Value| json!({ "canaryConfig": config, "executionRequest": request });
    let body = inline(json!({ "name": "mine", "metrics": [{ "name": "errors" }] }));
    check(path, body, 422, "have Kayenta fetch the metrics and ask /judge").await;
    check(path, json!({ "executionRequest": request }), 400, "canaryConfig").await;
    let mut long = request.clone();
    long["lifetimeDurationMins"] = json!(-5);
    check("/standalone_canary_analysis/shop", long, 422, "lifetimeDurationMins: -5 found").await;
    check("/standalone_canary_analysis/shop", json!({ "scopes": 1 }), 400, "").await;
    // A configuration that has the name of a rule file is that, and says what it left out.
    let body = inline(json!({ "name": "shop", "metrics": [{ "name": "errors", "query": {} }] }));
    let id = standalone(&server, path, &body).await;
    server.desk.advance(id.split('_').next().unwrap(), 1_000);
    let status = server.get(&format!("/standalone_canary_analysis/{id}")).await.json();
    let result = &status["canaryAnalysisExecutionResult"];
    assert_eq!(result["hasWarnings"], true, "{status}");
    let warning = result["canaryExecutionResults"][0]["warnings"][0].as_str().unwrap();
    assert!(warning.contains("1 metrics of the canaryConfig were not read"), "{warning}");
    let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(300_000));
    assert_eq!(server.post("/canary/shop", &huge).await.status, 413);
}
