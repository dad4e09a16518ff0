//! Clients after their sources drive whole canaries over a real service: Argo Rollouts' Kayenta
//! provider, through a restart, and a user of Spinnaker's standalone analysis.

use std::time::Duration;

use rollgate::demo::{
    fault::Fault,
    scenario::{Plan, Scenario},
    stage::Stage,
};
use serde_json::{Value, json};

use crate::house::{Api, House, error_rules, eventually};

const BAD: Fault = Fault::Errors { share: 0.4 };

fn plan() -> Plan {
    Plan {
        baseline_rps: 60.0,
        canary_rps: 40.0,
        hold: Duration::from_secs(4),
        deadline: Duration::from_secs(30),
        ..Scenario::Healthy.plan()
    }
}

fn house() -> House {
    let targets = |port: &str| json!({ "targets": [format!("http://127.0.0.1:{{{port}}}")] });
    House::new(
        json!({ "services": { "shop": {
            "parameters": { "old_port": null, "new_port": null },
            "canary": targets("new_port"), "baseline": targets("old_port"),
        } } }),
        &[
            ("short", error_rules("{ after: 4s, deadline: 1m }")),
            ("long", error_rules("{ after: 10m, deadline: 20m }")),
        ],
    )
}

/// What came of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Successful,
    Failed,
    Inconclusive,
    Error,
}

/// Argo Rollouts' provider, as far as its source goes: `Run` looks the configuration up by its name
/// and begins an execution, `Resume` asks for its score. Whatever goes wrong is an error, and the
/// fifth in a row would abort the rollout.
struct ArgoProvider {
    config: &'static str,
    pass: i64,
    marginal: i64,
    body: String,
    execution: Option<String>,
    errors: u32,
}

impl ArgoProvider {
    async fn measure(&mut self, api: &Api) -> Phase {
        let phase = match self.execution.clone() {
            None => self.run(api).await,
            Some(execution) => self.resume(api, &execution).await,
        };
        let phase = phase.unwrap_or(Phase::Error);
        if phase == Phase::Error {
            self.errors += 1;
            assert!(self.errors < 5, "the rollout would be aborted");
            // A measurement with an error is over; the next one begins anew.
            self.execution = None;
        } else {
            self.errors = 0;
        }
        phase
    }

    async fn run(&mut self, api: &Api) -> Option<Phase> {
        let lookup = "/canaryConfig?application=shop&configurationAccountName=s";
        let configs = ask(api, reqwest::Method::GET, lookup, "").await?;
        let named = |config: &&Value| config["name"] == self.config;
        let id = configs.as_array()?.iter().find(named)?["id"].as_str()?.to_owned();
        let path = format!(
            "/canary/{id}?application=shop&metricsAccountName=m&configurationAccountName=c&\
             storageAccountName=s"
        );
        let begun = ask(api, reqwest::Method::POST, &path, &self.body).await?;
        self.execution = Some(begun["canaryExecutionId"].as_str()?.to_owned());
        Some(Phase::Running)
    }

    async fn resume(&self, api: &Api, execution: &str) -> Option<Phase> {
        let path = format!("/canary/{execution}");
        let status = ask(api, reqwest::Method::GET, &path, "").await?;
        if !status["complete"].as_bool()? {
            return Some(Phase::Running);
        }
        let score = status["result"]["judgeResult"]["score"]["score"].as_f64()? as i64;
        Some(match score {
            score if score >= self.pass => Phase::Successful,
            score if score >= self.marginal => Phase::Inconclusive,
            _ => Phase::Failed,
        })
    }

    async fn until_over(&mut self, api: &Api) -> Phase {
        eventually("the measurement is over", async || {
            Some(self.measure(api).await)
                .filter(|phase| !matches!(phase, Phase::Running | Phase::Error))
        })
        .await
    }
}

/// One request of the provider's client; none for anything but a 200 with JSON.
async fn ask(api: &Api, method: reqwest::Method, path: &str, body: &str) -> Option<Value> {
    let client = crate::wire::client_builder().timeout(Duration::from_secs(15)).build().unwrap();
    let request = client.request(method, format!("{}{path}", api.url));
    let request = request.header("content-type", "application/json").body(body.to_owned());
    let answer = request.send().await.ok()?;
    if answer.status().as_u16() != 200 {
        return None;
    }
    answer.json().await.ok()
}

fn argo(config: &'static str, stage: &Stage) -> ArgoProvider {
    let scope = |addr| {
        json!({ "scope": format!("http://{addr}"), "region": "eu", "step": 60,
        "start": "", "end": "" })
    };
    let (control, experiment) = (scope(stage.baseline.addr), scope(stage.canary.addr));
    let body = format!(
        "{{ \"scopes\": {{ \"default\":{{\"controlScope\": {control}, \"experimentScope\": {experiment}}} }},\n\
         \"thresholds\" : {{ \"pass\": 95, \"marginal\": 75 }} }}"
    );
    ArgoProvider { config, pass: 95, marginal: 75, body, execution: None, errors: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn argos_provider_promotes_and_rolls_back_through_a_restart() {
    let stage = Stage::play(plan(), 31).await.unwrap();
    let house = house();
    let (mut server, api) = house.start().await;
    assert_eq!(argo("short", &stage).until_over(&api).await, Phase::Successful);

    let mut provider = argo("long", &stage);
    assert_eq!(provider.measure(&api).await, Phase::Running);
    let execution = provider.execution.clone().unwrap();
    let analysis = execution.split('_').next().unwrap().to_owned();
    api.until(&analysis, "a look", |view| view["report"]["look"].as_u64() >= Some(2)).await;
    server.kill();
    assert_eq!(provider.measure(&api).await, Phase::Error);
    assert_eq!(provider.measure(&api).await, Phase::Error);
    let (mut server, api) = house.start().await;
    assert_eq!(provider.measure(&api).await, Phase::Running);
    assert_eq!(provider.execution.as_ref(), Some(&execution), "it is still the same release");
    stage.canary.fault.set(BAD);
    assert_eq!(provider.until_over(&api).await, Phase::Failed);
    let (_, page) = api.get("/v1/analyses").await;
    assert_eq!(page["analyses"].as_array().unwrap().len(), 2, "{page}");
    let metric = "/api/v1/query?query=rollgate_verdict%7Banalysis%3D%22";
    let (_, answer) = api.get(&format!("{metric}{analysis}%22%7D")).await;
    assert_eq!(answer["data"]["result"][0]["value"][1], "-1", "{answer}");
    assert!(server.terminate().await.success());
    stage.stop().await;
}

/// A user of the standalone analysis: begins one and asks until it is complete.
async fn standalone(api: &Api, config: &str, body: &Value) -> Value {
    let path = format!("/standalone_canary_analysis/{config}?application=shop&user=ann");
    let (status, begun) = api.post(&path, body).await;
    assert_eq!(status, 200, "{begun}");
    let id = begun["canaryAnalysisExecutionId"].as_str().unwrap();
    let path = format!("/standalone_canary_analysis/{id}?storageAccountName=s");
    eventually("it is complete", async || {
        let (status, found) = api.get(&path).await;
        assert_eq!(status, 200, "{found}");
        let running = found["executionStatus"] == "RUNNING";
        assert_eq!((found["complete"] == false, found["status"] == "running"), (running, running));
        (found["complete"] == true).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standalone_analysis_promotes_and_rolls_back() {
    let stage = Stage::play(plan(), 32).await.unwrap();
    let house = house();
    let (mut server, api) = house.start().await;
    let (old, new) = (stage.baseline.addr.port(), stage.canary.addr.port());
    let body = json!({
        "scopes": [{ "scopeName": "default", "controlScope": "v1", "controlLocation": "eu",
            "experimentScope": "v2", "experimentLocation": "eu", "step": 60,
            "extendedScopeParams": { "oldPort": old.to_string(), "newPort": new.to_string() } }],
        "thresholds": { "pass": 95, "marginal": 75 },
        "lifetimeDurationMins": 0.1, "beginAfterMins": 0, "lookbackMins": 0, "analysisIntervalMins": 1,
    });
    let good = standalone(&api, "short", &body).await;
    assert_eq!(good["executionStatus"], "SUCCEEDED", "{good}");
    let result = &good["canaryAnalysisExecutionResult"];
    assert_eq!(
        (&result["didPassThresholds"], &result["canaryScores"]),
        (&json!(true), &json!([100.0]))
    );

    stage.canary.fault.set(BAD);
    let bad = standalone(&api, "long", &body).await;
    assert_eq!((&bad["executionStatus"], &bad["status"]), (&json!("TERMINAL"), &json!("terminal")));
    let result = &bad["canaryAnalysisExecutionResult"];
    assert_eq!(
        (&result["didPassThresholds"], &result["canaryScores"]),
        (&json!(false), &json!([0.0]))
    );
    let judged = &result["canaryExecutionResults"][0]["result"]["judgeResult"]["score"];
    assert_eq!(judged["classification"], "Fail");
    assert!(judged["classificationReason"].as_str().unwrap().contains("error_rate"), "{judged}");

    // What the service cannot be found by is refused in words.
    let mut lost = body.clone();
    lost["scopes"][0]["extendedScopeParams"] = json!({});
    let path = "/standalone_canary_analysis/short?application=shop";
    let (status, problem) = api.post(path, &lost).await;
    assert_eq!(status, 422, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("new_port is not given"), "{problem}");
    let (status, problem) = api
        .post(
            "/canary/nosuch?application=shop",
            &json!({ "scopes": {
        "default": { "experimentScope": { "scope": "v2" } } } }),
        )
        .await;
    assert_eq!(status, 422, "{problem}");
    assert!(server.terminate().await.success());
    stage.stop().await;
}
