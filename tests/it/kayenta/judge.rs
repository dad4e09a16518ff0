//! `/judge`: what Kayenta's remote judge is sent, and what it reads.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::api::ApiOptions;
use serde_json::{Value, json};

use crate::wire::{Server, request};

const FIXTURE: &str = include_str!("../../cases/kayenta/judge.json");

async fn judged(body: &Value) -> Value {
    let server = Server::start(ApiOptions::default()).await;
    let answer = server.post("/judge", &body.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// A request about one metric.
fn one(analysis: Value, control: Value, experiment: Value) -> Value {
    json!({
        "canaryConfig": { "metrics": [{ "name": "m", "groups": ["g"],
            "analysisConfigurations": { "canary": analysis } }] },
        "scoreThresholds": { "pass": 95, "marginal": 75 },
        "metricSetPairList": [{ "name": "m", "id": "1", "tags": {},
            "values": { "control": control, "experiment": experiment } }],
    })
}

/// Twelve values around a level.
fn around(level: f64) -> Value {
    let wobble = [0.0, 1.0, -1.0, 0.5, -0.5, 1.0, -1.5, 0.5, 0.0, -0.5, 1.0, -0.5];
    json!(wobble.map(|part: f64| level + part))
}

/// Classification of the metric, classification of all, and the score.
async fn outcome(body: &Value) -> (String, String, f64) {
    let judged = judged(body).await;
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let score = &judged["score"];
    (
        word(&judged["results"][0]["classification"]),
        word(&score["classification"]),
        score["score"].as_f64().unwrap(),
    )
}

#[tokio::test]
async fn a_request_as_kayenta_sends_it_is_answered_as_it_reads() {
    let fixture: Value = serde_json::from_str(FIXTURE).unwrap();
    let answer = judged(&fixture).await;
    insta::assert_snapshot!("judge", serde_json::to_string_pretty(&answer).unwrap());
}

#[tokio::test]
async fn metrics_are_classified_by_what_their_configuration_asks() {
    let check = async |analysis: Value,
                       control: Value,
                       experiment: Value,
                       expected: &str,
                       all: &str,
                       score: f64| {
        let found = outcome(&one(analysis.clone(), control, experiment)).await;
        assert_eq!(found, (expected.to_owned(), all.to_owned(), score), "{analysis}");
    };
    let (low, high) = (around(100.0), around(150.0));
    check(json!({}), low.clone(), high.clone(), "High", "Fail", 0.0).await;
    check(json!({}), high.clone(), low.clone(), "Low", "Fail", 0.0).await;
    check(json!({}), low.clone(), low.clone(), "Pass", "Pass", 100.0).await;
    check(json!({ "direction": "decrease" }), low.clone(), high.clone(), "Pass", "Pass", 100.0)
        .await;
    check(json!({ "direction": "increase" }), high.clone(), low.clone(), "Pass", "Pass", 100.0)
        .await;
    let allowed = |size: Value| json!({ "effectSize": size });
    check(
        allowed(json!({ "allowedIncrease": 1.4 })),
        low.clone(),
        high.clone(),
        "High",
        "Fail",
        0.0,
    )
    .await;
    check(
        allowed(json!({ "allowedIncrease": 1.6 })),
        low.clone(),
        high.clone(),
        "Pass",
        "Pass",
        100.0,
    )
    .await;
    check(
        allowed(json!({ "allowedDecrease": 0.7 })),
        high.clone(),
        low.clone(),
        "Low",
        "Fail",
        0.0,
    )
    .await;
    check(
        allowed(json!({ "allowedDecrease": 0.6 })),
        high.clone(),
        low.clone(),
        "Pass",
        "Pass",
        100.0,
    )
    .await;
    // What is not known is between pass and marginal, unless the configuration decides.
    check(json!({}), json!([]), json!([]), "Nodata", "Nodata", 85.0).await;
    check(json!({ "critical": true }), json!([]), high.clone(), "Nodata", "Nodata", 85.0).await;
    check(json!({ "mustHaveData": false }), low.clone(), json!(["NaN"]), "Nodata", "Nodata", 85.0)
        .await;
    check(json!({ "mustHaveData": true }), low.clone(), json!(["NaN"]), "Nodata", "Fail", 0.0)
        .await;
    check(json!({ "mustHaveData": true }), json!([1, 2]), json!([2, 1]), "Nodata", "Nodata", 85.0)
        .await;
    // Zeros for what is missing, where one version has anything at all.
    let zeros = json!({ "nanStrategy": "replace" });
    let nothing = json!(vec!["NaN"; 12]);
    check(zeros.clone(), low.clone(), json!([]), "Low", "Fail", 0.0).await;
    check(zeros, nothing.clone(), nothing.clone(), "Nodata", "Nodata", 85.0).await;
    // What cannot be judged is said, and never passes.
    for odd in [
        json!({ "direction": "up" }),
        json!({ "nanStrategy": "guess" }),
        json!({ "effectSize": { "allowedIncrease": 0.5 } }),
        json!({ "effectSize": { "measure": "cles" } }),
        json!({ "outliers": { "strategy": "hide" } }),
        json!({ "outliers": { "strategy": "remove", "outlierFactor": -1 } }),
    ] {
        check(odd, low.clone(), low.clone(), "Error", "Nodata", 85.0).await;
    }
    check(json!({}), json!(["many"]), low.clone(), "Error", "Nodata", 85.0).await;
    check(json!({}), json!(["1e400", "Infinity", null]), low.clone(), "Nodata", "Nodata", 85.0)
        .await;
}

#[tokio::test]
async fn one_far_value_counts_until_it_is_taken_out() {
    let mut odd = around(100.0);
    odd[3] = json!(1e9);
    let removed = json!({ "outliers": { "strategy": "remove" }, "direction": "increase" });
    let answer = judged(&one(removed, around(100.0), odd)).await;
    assert_eq!(answer["results"][0]["experimentMetadata"]["stats"]["count"], 11, "{answer}");
    assert_eq!(answer["results"][0]["classification"], "Pass", "{answer}");
}

#[tokio::test]
async fn a_critical_metric_alone_decides() {
    let critical = |more: Value| {
        let mut analysis = json!({ "critical": true, "direction": "increase" });
        analysis["effectSize"] = more;
        one(analysis, around(100.0), around(150.0))
    };
    let mut body = critical(json!({ "criticalIncrease": 1.3 }));
    let well: Vec<Value> = (0..30)
        .map(|at| {
            json!({ "name": "well", "id": format!("w{at}"), "tags": {},
            "values": { "control": around(1.0), "experiment": around(1.0) } })
        })
        .collect();
    let list = body["metricSetPairList"].as_array_mut().unwrap();
    list.extend(well.clone());
    let configured = body["canaryConfig"]["metrics"].as_array_mut().unwrap();
    configured.push(json!({ "name": "well", "groups": ["g"] }));
    let answer = judged(&body).await;
    assert_eq!(answer["results"][0]["critical"], true, "{answer}");
    assert_eq!(answer["score"]["score"], 0.0);
    assert_eq!(answer["score"]["classificationReason"], "critical: m (high)");
    // Not so far that it is critical: one of thirty-one failed.
    let sizes = json!({ "criticalIncrease": 1.7 });
    body["canaryConfig"]["metrics"][0]["analysisConfigurations"]["canary"]["effectSize"] = sizes;
    let answer = judged(&body).await;
    assert_eq!(answer["results"][0]["critical"], false, "{answer}");
    assert_eq!(answer["score"]["classification"], "Pass");
    // A configured metric that did not come at all is unknown.
    let configured = body["canaryConfig"]["metrics"].as_array_mut().unwrap();
    configured.push(json!({ "name": "absent", "groups": ["g"] }));
    let answer = judged(&body).await;
    assert_eq!(answer["results"][31]["classification"], "Nodata");
    assert_eq!(answer["score"]["score"], 85.0);
    assert!(answer["score"]["classificationReason"].as_str().unwrap().contains("absent (no data)"));
}

#[tokio::test]
async fn weights_are_those_of_groups_with_data() {
    let metric = |name: &str, group: &str| {
        json!({ "name": name, "groups": [group],
        "analysisConfigurations": { "canary": { "mustHaveData": false } } })
    };
    let pair = |name: &str, level: f64| {
        json!({ "name": name, "id": name, "tags": {},
        "values": { "control": around(100.0), "experiment": around(level) } })
    };
    let body = json!({
        "canaryConfig": {
            "metrics": [metric("a", "big"), metric("b", "small"), metric("c", "empty"),
                        { "name": "d", "analysisConfigurations": {} }],
            "classifier": { "groupWeights": { "big": 60, "small": 10, "empty": 20 } },
        },
        "scoreThresholds": { "pass": 90, "marginal": 50 },
        "metricSetPairList": [pair("a", 100.0), pair("b", 150.0), pair("d", 100.0),
            { "name": "c", "id": "c", "values": { "control": [], "experiment": [] } }],
    });
    let answer = judged(&body).await;
    // 60 of 60, 0 of 10, 10 of the 10 that are left for the metric without a group: 70 of 80.
    assert_eq!(answer["score"]["score"], 87.5, "{answer}");
    assert_eq!(answer["score"]["classification"], "Marginal");
    let group = |name: &str| {
        let groups = answer["groupScores"].as_array().unwrap();
        groups.iter().find(|group| group["name"] == name).unwrap().clone()
    };
    assert_eq!(group("empty")["classification"], "Nodata");
    assert_eq!(group("small")["classification"], "Fail");
    assert_eq!(group("no group")["score"], 100.0);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_the_reason() {
    let server = Server::start(ApiOptions::default()).await;
    let good = one(json!({}), around(1.0), around(1.0));
    let check = async |change: &dyn Fn(&mut Value), status: u16, words: &str| {
        let mut body = good.clone();
        change(&mut body);
        let answer = server.post("/judge", &body.to_string()).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.body.contains(words), "{answer:?}");
    };
    check(&|body| body["scoreThresholds"] = json!(null), 422, "scoreThresholds: is missing").await;
    check(&|body| body["scoreThresholds"]["marginal"] = json!(0), 422, "expected more than 0")
        .await;
    check(&|body| body["scoreThresholds"]["pass"] = json!(101), 422, "at most 100").await;
    check(&|body| body["metricSetPairList"] = json!({}), 400, "metricSetPairList").await;
    check(
        &|body| body["metricSetPairList"][0]["values"]["control"] = json!([true]),
        400,
        "control",
    )
    .await;
    check(&|body| body["canaryConfig"] = json!("shop"), 400, "canaryConfig").await;
    let weights = json!({ "groupWeights": { "g": -1 } });
    check(&|body| body["canaryConfig"]["classifier"] = weights.clone(), 422, "groupWeights").await;
    let pairs = vec![good["metricSetPairList"][0].clone(); 1_001];
    check(&|body| body["metricSetPairList"] = json!(pairs), 422, "at most 1000 allowed").await;
    let plain = request("POST", "/judge", "Content-Type: text/plain\r\n", "{}");
    assert_eq!(server.send(&plain).await.status, 415);
    let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(17 * 1024 * 1024));
    assert_eq!(server.post("/judge", &huge).await.status, 413);
}

/// Thirty metrics of 10,000 points, an eighth of them NaN.
#[tokio::test]
async fn long_series_are_judged_in_time() {
    let seed = 20_261_121;
    let mut random = StdRng::seed_from_u64(seed);
    let mut series = |level: f64| -> Vec<Value> {
        let mut held = 0.0;
        (0..10_000)
            .map(|_| {
                held = 0.8 * held + random.random_range(-1.0..1.0);
                let is_missing = random.random_range(0..8) == 0;
                if is_missing { json!("NaN") } else { json!((1e3 * (level + held)).round() / 1e3) }
            })
            .collect()
    };
    let mut body = one(json!({}), json!([]), json!([]));
    let pairs: Vec<Value> = (0..30)
        .map(|at| json!({ "name": "m", "id": at.to_string(), "tags": {},
            "values": { "control": series(20.0), "experiment": series(if at == 7 { 21.0 } else { 20.0 }) } }))
        .collect();
    body["metricSetPairList"] = json!(pairs);
    let began = Instant::now();
    let answer = judged(&body).await;
    assert!(began.elapsed() < Duration::from_secs(15), "seed {seed}: {:?}", began.elapsed());
    let results = answer["results"].as_array().unwrap();
    for (at, result) in results.iter().enumerate() {
        let expected = if at == 7 { "High" } else { "Pass" };
        assert_eq!(result["classification"], expected, "seed {seed}: {result}");
    }
}

/// Whatever shape comes, the answer is documented and no pair scores by being odd.
#[tokio::test]
async fn random_requests_are_answered() {
    let seed = 5;
    let mut random = StdRng::seed_from_u64(seed);
    let server = Server::start(ApiOptions::default()).await;
    for round in 0..300 {
        let mut value = || match random.random_range(0..8) {
            0 => json!("NaN"),
            1 => json!(null),
            2 => json!(1e300),
            3 => json!("Infinity"),
            4 => json!(-0.0),
            _ => json!(random.random_range(-1e3..1e3)),
        };
        let lengths = (round % 13, (round * 7) % 11);
        let control: Vec<Value> = (0..lengths.0).map(|_| value()).collect();
        let experiment: Vec<Value> = (0..lengths.1).map(|_| value()).collect();
        let canary = match round % 4 {
            0 => json!({}),
            1 => json!({ "nanStrategy": "replace", "critical": true }),
            2 => json!({ "effectSize": { "allowedIncrease": 1.5, "criticalDecrease": 0.0 } }),
            _ => json!({ "outliers": { "strategy": "remove" }, "mustHaveData": true }),
        };
        let body = one(canary, json!(control), json!(experiment)).to_string();
        let answer = server.post("/judge", &body).await;
        assert_eq!(answer.status, 200, "seed {seed}: {body}: {answer:?}");
        let score = answer.json()["score"]["score"].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&score), "seed {seed}: {body}: {score}");
    }
}
