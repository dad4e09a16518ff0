//! The service end to end: the real binary, real services under load, a real metrics server, and a
//! receiver that checks signatures.

use std::time::Duration;

use rollgate::demo::{
    fault::Fault,
    load::Load,
    receiver::Receiver,
    scenario::{Plan, Scenario},
    service::{Service, ServiceOptions},
    stage::Stage,
};
use serde_json::{Value, json};

use super::{
    house::{
        Api, House, PATIENCE, Reserved, arm, command, error_rules, eventually, health_rules, keys,
        verify, webhook,
    },
    source_server::Prometheus,
};

/// Both arms healthy, until the switches are moved.
fn plan() -> Plan {
    Plan {
        baseline_rps: 60.0,
        canary_rps: 40.0,
        hold: Duration::from_secs(4),
        deadline: Duration::from_secs(30),
        ..Scenario::Healthy.plan()
    }
}

const BAD: Fault = Fault::Errors { share: 0.4 };

async fn receiver() -> Receiver {
    let keys = keys();
    Receiver::start(move |headers, body| verify(&keys, headers, body)).await.unwrap()
}

fn order(rules: &str, stage: &Stage, key: &str) -> Value {
    json!({
        "service": "shop", "rules": rules, "idempotency_key": key, "mechanisms": ["deploys"],
        "canary": arm("v2", &[stage.canary.addr]), "baseline": arm("v1", &[stage.baseline.addr]),
    })
}

fn house(receiver: &Receiver, members: Value) -> House {
    let mut config = json!({ "mechanisms": { "deploys": webhook(&receiver.url()) } });
    for (name, member) in members.as_object().unwrap() {
        config[name] = member.clone();
    }
    House::new(
        config,
        &[
            ("long", error_rules("{ after: 10m, deadline: 20m }")),
            ("short", error_rules("{ after: 4s, deadline: 1m }")),
            ("brief", error_rules("{ after: 2s, deadline: 8s }")),
            (
                "steps",
                error_rules(
                    "{ deadline: 1m }\nsteps: [{ weight: 10%, hold: 3s }, \
                     { weight: 50%, hold: 3s }, { weight: 100%, hold: 3s }]",
                ),
            ),
        ],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_release_is_rolled_back_and_a_good_one_promoted() {
    let stage = Stage::play(plan(), 11).await.unwrap();
    let mut receiver = receiver().await;
    let house = house(&receiver, json!({}));
    let (mut server, api) = house.start().await;
    assert_eq!(api.text("/healthz").await.0, 200);
    assert_eq!(api.text("/readyz").await.0, 200);

    let good = api.open(&order("short", &stage, "good")).await;
    let verdict = api.verdict(&good).await;
    assert_eq!(verdict["verdict"], "promote", "{verdict}");
    check_delivery(&api, &mut receiver, &good, "promote").await;
    // A client that repeats its order is told what became of it, though the rules are gone.
    std::fs::remove_file(house.rule_file("short")).unwrap();
    let (status, again) = api.post("/v1/analyses", &order("short", &stage, "good")).await;
    assert_eq!((status, again["id"].as_str()), (200, Some(&*good)), "{again}");

    let bad = api.open(&order("long", &stage, "bad")).await;
    api.until(&bad, "a look", |view| view["report"]["look"].as_u64() >= Some(2)).await;
    let events = tokio::spawn({
        let (api, path) = (api.clone(), format!("/v1/analyses/{bad}/events"));
        async move { api.text(&path).await }
    });
    stage.canary.fault.set(BAD);
    let verdict = api.verdict(&bad).await;
    assert_eq!(verdict["verdict"], "rollback", "{verdict}");
    assert_eq!(verdict["rule"], "error_rate > 3x baseline");
    check_delivery(&api, &mut receiver, &bad, "rollback").await;

    let (status, events) = events.await.unwrap();
    assert_eq!(status, 200);
    assert!(events.matches("event: look\n").count() >= 2, "{events}");
    let last = events.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.contains("event: verdict\n") && last.contains("\"rollback\""), "{last}");

    let metrics = api.text("/metrics").await.1;
    for line in [
        "rollgate_verdicts_total{service=\"shop\",verdict=\"rollback\"} 1\n",
        "rollgate_verdicts_total{service=\"shop\",verdict=\"promote\"} 1\n",
        "rollgate_analyses_running 0\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let (status, history) = api.get(&format!("/v1/analyses/{bad}/history")).await;
    assert_eq!(status, 200);
    let looks = api.view(&bad).await["report"]["look"].as_u64().unwrap();
    assert_eq!(history["at"].as_array().unwrap().len() as u64, looks);
    assert_eq!(receiver.counts().refused, 0);
    assert!(server.terminate().await.success());
    receiver.stop().await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_in_steps_is_told_each_of_them_once() {
    let stage = Stage::play(plan(), 17).await.unwrap();
    let mut receiver = receiver().await;
    let house = house(&receiver, json!({}));
    let (mut server, api) = house.start().await;
    let id = api.open(&order("steps", &stage, "steps")).await;
    let view = api.view(&id).await;
    assert_eq!(view["steps"][1], json!({ "weight": 0.5, "hold_secs": 3.0 }));
    for (to, weight) in [(1, 0.5), (2, 1.0)] {
        let delivery = receiver.next(PATIENCE).await.expect("a webhook");
        let event: Value = serde_json::from_slice(&delivery.body).unwrap();
        assert_eq!(event["type"], "rollgate.advance.v1");
        assert_eq!(event["data"]["action"], "advance");
        assert_eq!(event["data"]["step"], json!({ "index": to, "of": 3, "weight": weight }));
        assert_eq!(delivery.id, format!("{id}.step{to}.deploys"));
        let (_, small) = api.get(&format!("/v1/analyses/{id}/verdict")).await;
        assert!(small["release_step"].as_u64() >= Some(to) && small["final"] == false, "{small}");
    }
    let verdict = api.verdict(&id).await;
    assert_eq!((&verdict["verdict"], &verdict["release_step"]), (&json!("promote"), &json!(2)));
    let delivery = receiver.next(PATIENCE).await.expect("a webhook");
    assert_eq!(delivery.id, format!("{id}.deploys"));
    let view = api.delivered(&id).await;
    let deliveries = view["deliveries"].as_array().unwrap();
    assert_eq!(deliveries.len(), 3, "{view}");
    assert!(deliveries.iter().all(|row| row["state"] == "delivered"), "{view}");
    assert!(server.terminate().await.success());
    receiver.stop().await;
    stage.stop().await;
}

/// One delivery, of this verdict, under the key that the view names.
async fn check_delivery(api: &Api, receiver: &mut Receiver, id: &str, verdict: &str) {
    let delivery = receiver.next(PATIENCE).await.expect("a webhook");
    let event: Value = serde_json::from_slice(&delivery.body).unwrap();
    assert_eq!(event["type"], "rollgate.verdict.v1");
    assert_eq!(event["data"]["analysis"], id);
    assert_eq!(event["data"]["verdict"], verdict);
    let view = api.delivered(id).await;
    assert_eq!(view["state"], "finished");
    let deliveries = view["deliveries"].as_array().unwrap();
    assert_eq!(deliveries.len(), 1, "{view}");
    assert_eq!(deliveries[0]["state"], "delivered", "{view}");
    assert_eq!(deliveries[0]["key"], delivery.id);
    assert_eq!(view["report"]["reason"], event["data"]["reason"]);
    assert_eq!(view["report"]["findings"], event["data"]["findings"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_carried_out_once_or_refused_with_every_fault() {
    let stage = Stage::play(plan(), 12).await.unwrap();
    let receiver = receiver().await;
    let house = house(&receiver, json!({}));
    let (mut server, api) = house.start().await;
    let first = order("long", &stage, "one");
    let id = api.open(&first).await;

    let (status, view) = api.post("/v1/analyses", &first).await;
    assert_eq!((status, view["id"].as_str()), (200, Some(&*id)), "the same order is the same");
    let (status, problem) = api.post("/v1/analyses", &order("short", &stage, "one")).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(&id), "{problem}");

    let mut unknown = order("nosuch", &stage, "two");
    unknown["mechanisms"] = json!(["deploys", "pager"]);
    unknown["prometheus"] = json!("main");
    unknown["baseline"] = json!({ "version": "v1", "selector": "job=\"shop\"" });
    let (status, problem) = api.post("/v1/analyses", &unknown).await;
    assert_eq!(status, 422, "{problem}");
    let errors = problem["errors"].to_string();
    for word in ["nosuch.yaml", "\\\"pager\\\"", "known are: deploys"] {
        assert!(errors.contains(word), "{word} is not in {errors}");
    }
    unknown["rules"] = json!("long");
    unknown["mechanisms"] = json!([]);
    let (status, problem) = api.post("/v1/analyses", &unknown).await;
    assert_eq!(status, 422);
    assert!(problem["errors"].to_string().contains("\\\"main\\\" is not configured"), "{problem}");
    let mut alone = order("long", &stage, "three");
    alone.as_object_mut().unwrap().remove("baseline");
    let (status, problem) = api.post("/v1/analyses", &alone).await;
    assert_eq!(status, 422);
    assert!(problem["errors"].to_string().contains("baseline is missing"), "{problem}");
    // Its version alone does not say where it is, and this rule file compares with it.
    alone["baseline"] = json!({ "version": "v1" });
    let (status, problem) = api.post("/v1/analyses", &alone).await;
    assert_eq!(status, 422);
    assert!(problem["errors"].to_string().contains("baseline has no targets"), "{problem}");

    let (_, page) = api.get("/v1/analyses").await;
    assert_eq!(page["analyses"].as_array().unwrap().len(), 1, "{page}");
    assert!(server.terminate().await.success());
    receiver.stop().await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn analyses_are_listed_and_cancelled() {
    let stage = Stage::play(plan(), 16).await.unwrap();
    let receiver = receiver().await;
    let house = house(&receiver, json!({}));
    let (mut server, api) = house.start().await;
    let id = api.open(&order("long", &stage, "one")).await;
    let mut ids = vec![id.clone()];
    for key in ["a", "b"] {
        ids.push(api.open(&order("long", &stage, key)).await);
    }
    let mut other = order("long", &stage, "other");
    other["service"] = json!("till");
    ids.push(api.open(&other).await);
    ids.reverse();
    let mut listed = Vec::new();
    let mut path = "/v1/analyses?limit=3".to_owned();
    loop {
        let (_, page) = api.get(&path).await;
        listed.extend(page["analyses"].as_array().unwrap().iter().map(|one| one["id"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/analyses?limit=3&after={next}");
    }
    assert_eq!(Value::from(listed), json!(ids), "newest first, over all pages");
    let (_, page) = api.get("/v1/analyses?service=till").await;
    assert_eq!(page["analyses"].as_array().unwrap().len(), 1);

    let long_poll = tokio::spawn({
        let (api, path) = (api.clone(), format!("/v1/analyses/{id}/verdict?wait=60s"));
        async move { api.get(&path).await }
    });
    let cancel = json!({ "who": "ada", "why": "the wrong build" });
    let (status, view) = api.post(&format!("/v1/analyses/{id}/cancel"), &cancel).await;
    assert_eq!((status, view["state"].as_str()), (200, Some("cancelled")), "{view}");
    let verdict = long_poll.await.unwrap().1;
    assert_eq!(verdict["verdict"], "inconclusive");
    assert_eq!(verdict["reason"], "Cancelled by ada: the wrong build");
    let (status, _) = api.post(&format!("/v1/analyses/{id}/cancel"), &cancel).await;
    assert_eq!(status, 409);
    for (state, expected) in [("running", 3), ("cancelled", 1), ("finished", 0)] {
        let (_, page) = api.get(&format!("/v1/analyses?state={state}")).await;
        assert_eq!(page["analyses"].as_array().unwrap().len(), expected, "{state}: {page}");
    }
    assert!(server.terminate().await.success());
    assert_eq!(receiver.counts().verified, 0, "a cancelled analysis tells nobody anything");
    receiver.stop().await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_service_goes_on_where_it_was() {
    let stage = Stage::play(plan(), 13).await.unwrap();
    let mut receiver = receiver().await;
    let house = house(&receiver, json!({}));
    let (mut server, api) = house.start().await;
    let id = api.open(&order("long", &stage, "one")).await;
    let before =
        api.until(&id, "three looks", |view| view["report"]["look"].as_u64() >= Some(3)).await;
    // A long poll and an event stream under way must not hold up the stop.
    let poll = tokio::spawn({
        let (api, path) = (api.clone(), format!("/v1/analyses/{id}/verdict?wait=60s"));
        async move { api.get(&path).await }
    });
    let stream = tokio::spawn({
        let (api, path) = (api.clone(), format!("/v1/analyses/{id}/events"));
        async move { api.text(&path).await }
    });
    eventually("both are under way", async || {
        let metrics = api.text("/metrics").await.1;
        metrics.contains("rollgate_http_event_streams 1\n").then_some(())
    })
    .await;
    assert!(server.terminate().await.success(), "{}", house.logged());
    let (_, verdict) = poll.await.unwrap();
    assert_eq!(verdict["final"], false, "{verdict}");
    assert_eq!(stream.await.unwrap().0, 200);

    let (mut server, api) = house.start().await;
    let look = before["report"]["look"].as_u64();
    let after = api.until(&id, "a later look", |view| view["report"]["look"].as_u64() > look).await;
    assert_eq!(after["started_at"], before["started_at"]);
    let requests = |view: &Value| {
        view["report"]["findings"][0]["clauses"][0]["samples"]["canary_total"].as_f64().unwrap()
    };
    assert!(requests(&after) >= requests(&before), "what was counted still counts");
    stage.canary.fault.set(BAD);
    assert_eq!(api.verdict(&id).await["verdict"], "rollback");
    check_delivery(&api, &mut receiver, &id, "rollback").await;
    assert!(server.terminate().await.success());
    receiver.stop().await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_is_judged_by_until_it_dies() {
    let stage = Stage::play(plan(), 14).await.unwrap();
    let mut receiver = receiver().await;
    let mut prometheus = Prometheus::start(stage.canary.addr, stage.baseline.addr).await;
    let house = house(&receiver, json!({ "prometheus": { "main": { "url": prometheus.url } } }));
    let (mut server, api) = house.start().await;
    let selected = |rules: &str, key: &str| {
        let arm = |version: &str| {
            let selector = format!("job=\"shop\",version=\"{version}\"");
            json!({ "version": version, "selector": selector })
        };
        json!({
            "service": "shop", "rules": rules, "idempotency_key": key, "mechanisms": ["deploys"],
            "prometheus": "main", "canary": arm("v2"), "baseline": arm("v1"),
        })
    };
    let bad = api.open(&selected("long", "bad")).await;
    let seen = |view: &Value| {
        view["report"]["findings"][0]["clauses"][0]["samples"]["canary_total"].as_f64() > Some(0.0)
    };
    api.until(&bad, "requests through the metrics server", seen).await;
    stage.canary.fault.set(BAD);
    assert_eq!(api.verdict(&bad).await["verdict"], "rollback");
    check_delivery(&api, &mut receiver, &bad, "rollback").await;

    stage.canary.fault.set(Fault::None);
    let orphaned = api.open(&selected("long", "orphaned")).await;
    let short = api.open(&selected("brief", "short")).await;
    prometheus.kill();
    let missing = |view: &Value| view["report"]["findings"][0]["clauses"][0]["missing"].clone();
    let failed = |view: &Value| missing(view)["why"] == "query_failed";
    let view = api.until(&orphaned, "missing data with its reason", failed).await;
    let detail = missing(&view)["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("connection refused"), "{detail}");
    assert_eq!(view["report"]["verdict"], "watching");
    let verdict = api.verdict(&short).await;
    assert_eq!(verdict["verdict"], "inconclusive", "{verdict}");
    assert!(verdict["reason"].as_str().unwrap().contains("query failed"), "{verdict}");
    assert_eq!(api.text("/healthz").await.0, 200);
    assert_eq!(api.view(&orphaned).await["state"], "running");
    assert!(server.terminate().await.success());
    receiver.stop().await;
    stage.stop().await;
}

/// Exit code, what stdout holds, what stderr holds.
async fn check_run(args: &[&str], expected: i32, out: &[&str], err: &[&str]) -> String {
    let output = command(&[&["run"], args].concat()).await;
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(expected), "{args:?}\n{stdout}\n{stderr}");
    for (text, words) in [(&stdout, out), (&stderr, err)] {
        for word in words {
            assert!(text.contains(word), "{args:?}: {word:?} is not in\n{text}");
        }
    }
    assert!(!stdout.contains('\u{1b}') && !stderr.contains('\u{1b}'), "{args:?}: not plain");
    stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_ends_with_the_verdict_as_its_exit_code() {
    let stage = Stage::play(plan(), 15).await.unwrap();
    let idle = ServiceOptions { name: "shop".to_owned(), version: "v3".to_owned(), seed: 1 };
    let idle = Service::start(idle).await.unwrap();
    let bad = ServiceOptions { name: "shop".to_owned(), version: "v4".to_owned(), seed: 2 };
    let bad = Service::start(bad).await.unwrap();
    bad.fault.set(BAD);
    let load = Load::start(bad.addr, 40.0, 3).unwrap();
    let house = House::new(
        json!({}),
        &[
            ("short", error_rules("{ after: 4s, deadline: 1m }")),
            ("brief", error_rules("{ after: 2s, deadline: 4s }")),
            ("health", health_rules("{ after: 10m, deadline: 20m }")),
            ("wrong", error_rules("{ after: 4s, deadlin: 1m }").replace("rollback", "roll")),
        ],
    );
    let file = |name: &str| house.rule_file(name).display().to_string();
    let (short, brief) = (file("short"), file("brief"));
    let [canary, baseline, idle_url, bad_url] =
        [stage.canary.addr, stage.baseline.addr, idle.addr, bad.addr]
            .map(|addr| format!("http://{addr}"));
    let nobody = Reserved::new();
    let nobody_url = format!("http://{}", nobody.addr());
    let base = ["--baseline", &baseline];

    let promote = [&["--rules", &short, "--canary", &canary], &base[..]].concat();
    let rollback = [&["--rules", &short, "--canary", &bad_url, "--json"], &base[..]].concat();
    let inconclusive = [&["--rules", &brief, "--canary", &idle_url], &base[..]].concat();
    let health = file("health");
    let down = ["--rules", &health, "--canary", &nobody_url];
    let (_, json, _, _) = tokio::join!(
        check_run(&promote, 0, &["PROMOTE"], &[]),
        check_run(&rollback, 3, &["\"verdict\": \"rollback\""], &[]),
        check_run(&inconclusive, 4, &["INCONCLUSIVE", "no traffic"], &[]),
        check_run(&down, 3, &["ROLLBACK", "app is down"], &[]),
    );
    let report: Value = serde_json::from_str(&json).expect("one JSON object and nothing else");
    assert_eq!(report["rule"], "error_rate > 3x baseline");

    let wrong = file("wrong");
    check_run(
        &["--rules", &wrong, "--canary", &canary],
        2,
        &[],
        &["wrong.yaml", "deadlin", "roll"],
    )
    .await;
    check_run(&["--rules", &short], 2, &[], &["no canary", "--canary URL"]).await;
    check_run(&["--rules", &short, "--canary", &canary], 2, &[], &["--baseline URL"]).await;
    check_run(&["--rules", "nosuch.yaml", "--canary", &canary], 2, &[], &["nosuch.yaml"]).await;
    let not_a_url = ["--rules", &health, "--canary", "ftp://h/"];
    check_run(&not_a_url, 2, &[], &["canary", "ftp"]).await;
    check_run(&["--rules", &health, "--nonsense"], 2, &[], &["--nonsense"]).await;
    load.stop().await;
    stage.stop().await;
}
