//! What goes wrong outside, all the way through the service: targets that misbehave, a receiver
//! that is down, wrong rule files, and places that cannot be used. Each has a clear message, the
//! service lives, and other analyses do not notice.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::http::StatusCode;
use rollgate::{
    api::ApiOptions,
    demo::{
        scenario::{Plan, Scenario},
        stage::Stage,
    },
    engine::{
        analysis::Analysis,
        observation::{self, Histogram, Observation, Pair, Time},
    },
    service::{
        self, ServiceOptions,
        case::Case,
        driver::{Driver, Message, Running},
        live::Board,
    },
    source::{client::Client, limits::SourceLimits},
    store::{
        NewAnalysis, Store, StoredState,
        sqlite::{SqliteOptions, SqliteStore},
    },
    telemetry::{Telemetry, analysis::Opening},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{
    house::{
        Api, House, Postbox, Reserved, arm, command, error_rules, eventually, health_rules, webhook,
    },
    source_server::{Conduct, answer, hostile},
};

async fn stage(seed: u64) -> Stage {
    let plan = Plan {
        baseline_rps: 40.0,
        canary_rps: 40.0,
        hold: Duration::from_secs(3),
        deadline: Duration::from_secs(6),
        ..Scenario::Healthy.plan()
    };
    Stage::play(plan, seed).await.unwrap()
}

/// Answers properly at the pace of one byte a second.
async fn one_byte_a_second() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(trickle(socket));
        }
    });
    address
}

async fn trickle(mut socket: TcpStream) {
    let _ = socket.read(&mut [0; 4096]).await;
    let bytes = answer("text/plain", b"# TYPE http_requests_total counter\n");
    let mut pace = tokio::time::interval(Duration::from_secs(1));
    for byte in bytes {
        pace.tick().await;
        if socket.write_all(&[byte]).await.is_err() {
            return;
        }
    }
}

fn order(rules: &str, canary: &[SocketAddr], baseline: SocketAddr) -> Value {
    json!({
        "service": "shop", "rules": rules, "mechanisms": [],
        "canary": arm("v2", canary), "baseline": arm("v1", &[baseline]),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_misbehaves_is_named_and_harms_nobody_else() {
    let stage = stage(21).await;
    let (good, baseline) = (stage.canary.addr, stage.baseline.addr);
    let house = House::new(
        json!({}),
        &[
            ("brief", error_rules("{ after: 3s, deadline: 6s }")),
            ("good", error_rules("{ after: 3s, deadline: 1m }")),
        ],
    );
    let (mut server, api) = house.start().await;
    let page = b"<!doctype html><html><body>Sign in</body></html>";
    let failing = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\
                    connection: close\r\n\r\noops";
    let nobody = Reserved::new();
    let cases: [(&str, SocketAddr, &[&str]); 7] = [
        ("html", hostile(Conduct::Sends(answer("text/html", page))).await, &["html"]),
        ("500", hostile(Conduct::Sends(failing.to_vec())).await, &["500"]),
        ("100 MB", hostile(Conduct::Floods).await, &["16", "limit"]),
        ("nothing", hostile(Conduct::Silent).await, &["within 1"]),
        ("empty", hostile(Conduct::Sends(Vec::new())).await, &["closed"]),
        ("slow", one_byte_a_second().await, &["within 1"]),
        ("refused", nobody.addr(), &["connection refused"]),
    ];
    let healthy = api.open(&order("good", &[good], baseline)).await;
    let mut opened = Vec::new();
    for (name, target, words) in &cases {
        let alone = api.open(&order("brief", &[*target], baseline)).await;
        let beside = api.open(&order("brief", &[good, *target], baseline)).await;
        opened.push((name, target, words, alone, beside));
    }
    let verdict = api.verdict(&healthy).await;
    assert_eq!(verdict["verdict"], "promote", "{verdict}");
    for (name, target, words, alone, beside) in opened {
        let missing = |view: &Value| view["report"]["findings"][0]["clauses"][0]["missing"].clone();
        let view = ended(&api, &alone).await;
        check_named(name, target, words, &missing(&view));
        // An instance that gives nothing beside one that is well keeps the release from promotion.
        let view = ended(&api, &beside).await;
        check_named(name, target, words, &view["report"]["gap"]);
    }
    assert_eq!(api.text("/healthz").await.0, 200);
    assert_eq!(api.text("/readyz").await.0, 200);
    assert!(server.terminate().await.success());
    stage.stop().await;
}

async fn ended(api: &Api, id: &str) -> Value {
    let verdict = api.verdict(id).await;
    assert_eq!(verdict["verdict"], "inconclusive", "{verdict}");
    api.view(id).await
}

fn check_named(name: &str, target: &SocketAddr, words: &[&str], missing: &Value) {
    assert_eq!(missing["why"], "scrape_failed", "{name}: {missing}");
    let detail = missing["detail"].as_str().unwrap().to_lowercase();
    let target = target.to_string();
    for word in words.iter().copied().chain([target.as_str()]) {
        assert!(detail.contains(word), "{name}: {word:?} is not in {detail:?}");
    }
}

/// Shows counters at zero, and at every scrape after the first near the end of what a number holds.
async fn huge() -> SocketAddr {
    let scrapes = Arc::new(AtomicU64::new(0));
    let metrics = move || {
        let value = if scrapes.fetch_add(1, Ordering::SeqCst) == 0 { "0" } else { "1.7e308" };
        let mut body = "# TYPE http_requests_total counter\n".to_owned();
        for code in ["200", "201", "500", "503"] {
            body.push_str(&format!("http_requests_total{{code=\"{code}\"}} {value}\n"));
        }
        async move { ([("content-type", "text/plain; version=0.0.4")], body) }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().route("/metrics", axum::routing::get(metrics));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_beyond_all_bounds_end_their_own_analysis_only() {
    let stage = stage(22).await;
    let (good, baseline) = (stage.canary.addr, stage.baseline.addr);
    let rules = [
        ("good", error_rules("{ after: 3s, deadline: 1m }")),
        ("brief", error_rules("{ after: 3s, deadline: 6s }")),
    ];
    let house = House::new(json!({}), &rules);
    let (mut server, api) = house.start().await;
    let absurd = api.open(&order("brief", &[huge().await], baseline)).await;
    let healthy = api.open(&order("good", &[good], baseline)).await;
    assert_eq!(api.verdict(&healthy).await["verdict"], "promote");
    let verdict = api.verdict(&absurd).await;
    assert_eq!(verdict["verdict"], "inconclusive", "{verdict}");
    assert_eq!(api.view(&absurd).await["state"], "finished");
    let (status, page) = api.get("/v1/analyses").await;
    assert_eq!((status, page["analyses"].as_array().map(Vec::len)), (200, Some(2)), "{page}");
    assert!(server.terminate().await.success());
    stage.stop().await;
}

/// Three analyses over one driver: one is given a look that no engine can judge, one a look that no
/// store keeps.
#[tokio::test]
async fn a_panic_while_judging_ends_that_analysis_and_nothing_else() {
    let rules = "version: 1\nservice: shop\nsignals:\n  p95: { quantile: 0.95, of: request_seconds }\n\
                 rules:\n  - { when: p95 > 500ms, then: rollback }\n\
                 promote: { after: 1m, deadline: 5m }\n";
    let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory().await.unwrap());
    let board = Board::default();
    let driver = Driver {
        store: store.clone(),
        board: board.clone(),
        telemetry: Telemetry::new(),
        wake: Arc::default(),
    };
    let (messages, queue) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let driving = tokio::spawn(driver.run(queue, stop));
    let edges: Arc<[f64]> = vec![0.1, 0.5, 1.0].into();
    let counts = [vec![], vec![f64::INFINITY, 1.0, 0.0, 0.0], vec![9.0, 1.0, 0.0, 0.0]];
    for (id, counts) in ["broken", "endless", "sound"].into_iter().zip(counts) {
        let nobody = Reserved::new().addr();
        let mut body = order("any", &[nobody], nobody);
        body["mechanisms"] = json!(["deploys"]);
        let new = NewAnalysis {
            id: id.to_owned(),
            idempotency_key: None,
            service: "shop".to_owned(),
            started: Time(0),
            order: body.to_string(),
            rules_name: "any".to_owned(),
            rules_text: rules.to_owned(),
            calibration: None,
            past: None,
        };
        store.create(new).await.unwrap();
        let case = Case::of(&store.analysis(id).await.unwrap().unwrap()).unwrap();
        let analysis = Analysis::new(case.rules.clone(), case.started);
        let stop = CancellationToken::new();
        let running = Running { case, analysis, report: None, stop };
        messages.send(Message::Start(Box::new(running), Opening::New)).await.unwrap();
        let histogram = observation::Value::Histogram(Histogram { edges: edges.clone(), counts });
        let reading = Pair::new(Ok(histogram.clone()), Ok(histogram));
        let observation = Observation { at: Time(2000), signals: vec![reading], canary_gap: None };
        let (observation, carry) = (Box::new(observation), Box::default());
        messages.send(Message::Look { id: id.to_owned(), observation, carry }).await.unwrap();
    }
    drop(messages);
    driving.await.expect("the driver lives");
    for id in ["broken", "endless"] {
        let failed = store.analysis(id).await.unwrap().unwrap();
        assert_eq!(failed.verdict.as_deref(), Some("inconclusive"), "{id}");
        assert!(failed.report.unwrap().contains("Judging this look failed inside rollgate"));
        let deliveries = store.deliveries(id).await.unwrap();
        let [delivery] = &deliveries[..] else { panic!("one delivery: {deliveries:?}") };
        assert!(delivery.new.body.contains("\"action\":\"hold\""), "{delivery:?}");
    }
    let sound = store.analysis("sound").await.unwrap().unwrap();
    assert_eq!((sound.last_look, sound.state), (1, StoredState::Running));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_down_is_told_once_it_is_up() {
    let (down, receiver) = (Reserved::new(), Reserved::new());
    let url = format!("http://{}/", receiver.addr());
    let postbox = Postbox::new(Arc::new(|| (Duration::ZERO, StatusCode::OK)));
    let house = House::new(
        json!({ "mechanisms": { "deploys": webhook(&url) } }),
        &[("health", health_rules("{ after: 1m, deadline: 5m }"))],
    );
    let (mut server, api) = house.start().await;
    let order = json!({
        "service": "shop", "rules": "health", "mechanisms": ["deploys"],
        "canary": arm("v2", &[down.addr()]),
    });
    let id = api.open(&order).await;
    let verdict = api.verdict(&id).await;
    assert_eq!(verdict["verdict"], "rollback", "{verdict}");
    let failed = |view: &Value| view["deliveries"][0]["attempts"].as_u64() >= Some(2);
    let view = api.until(&id, "two attempts", failed).await;
    let delivery = &view["deliveries"][0];
    assert_eq!(delivery["state"], "pending", "{delivery}");
    let answer = delivery["last_answer"].as_str().unwrap();
    assert!(answer.to_lowercase().contains("connection refused"), "{answer}");
    assert!(delivery["next_attempt_at"].is_number(), "{delivery}");
    // What is not told yet outlives the process.
    server.kill();
    let (mut server, api) = house.start().await;
    postbox.serve(receiver.listen());
    let view = api.delivered(&id).await;
    assert_eq!(view["deliveries"][0]["state"], "delivered", "{view}");
    let kept = postbox.kept();
    let (key, bodies) = kept.first_key_value().expect("a webhook");
    assert_eq!((kept.len(), bodies.len()), (1, 1));
    assert_eq!(view["deliveries"][0]["key"], **key);
    assert_eq!(delivery["key"], **key);
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_a_slow_receiver() {
    let (down, receiver) = (Reserved::new(), Reserved::new());
    let url = format!("http://{}/", receiver.addr());
    let postbox = Postbox::new(Arc::new(|| (Duration::from_secs(2), StatusCode::OK)));
    postbox.serve(receiver.listen());
    let house = House::new(
        json!({ "mechanisms": { "deploys": webhook(&url) } }),
        &[("health", health_rules("{ after: 1m, deadline: 5m }"))],
    );
    let (mut server, api) = house.start().await;
    let mut order = order("health", &[down.addr()], down.addr());
    order["mechanisms"] = json!(["deploys"]);
    let id = api.open(&order).await;
    eventually("the webhook is under way", async || (!postbox.kept().is_empty()).then_some(()))
        .await;
    assert!(server.terminate().await.success(), "{}", house.logged());
    let (mut server, api) = house.start().await;
    let view = api.view(&id).await;
    assert_eq!(view["deliveries"][0]["state"], "delivered", "{view}");
    assert_eq!(view["deliveries"][0]["attempts"], 1, "{view}");
    assert!(server.terminate().await.success());
    assert_eq!(postbox.kept().values().map(Vec::len).sum::<usize>(), 1);
}

/// A store that takes no more: the service lives and says so, and goes on once there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_is_said_and_nothing_is_lost() {
    let down = Reserved::new();
    let house = House::new(json!({}), &[("health", health_rules("{ after: 1m, deadline: 5m }"))]);
    let path = house.path().join("rollgate.db");
    let full = SqliteOptions { pages_max: Some(48), ..SqliteOptions::default() };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path, full).await.unwrap());
    let service = service::start(ServiceOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        store: store.clone(),
        rules_dir: house.path().join("rules"),
        mechanisms: BTreeMap::new(),
        prometheus: BTreeMap::new(),
        watch: Vec::new(),
        services: BTreeMap::new(),
        client: Client::new().unwrap(),
        limits: SourceLimits::default(),
        timeout: Duration::from_secs(1),
        api: ApiOptions::default(),
        telemetry: Telemetry::new(),
    })
    .await
    .unwrap();
    let api = Api::new(&format!("http://{}", service.addr));
    let mut order = order("health", &[down.addr()], down.addr());
    let id = api.open(&order).await;
    // Orders fill what is left of the file.
    order["canary"]["version"] = json!("v".repeat(200));
    let refused = eventually("the file is full", async || {
        let (status, problem) = api.post("/v1/analyses", &order).await;
        (status != 201).then_some((status, problem))
    })
    .await;
    assert_eq!(refused.0, 503, "{refused:?}");
    assert!(refused.1["detail"].as_str().unwrap().contains("full"), "{refused:?}");
    assert_eq!(api.text("/healthz").await.0, 200);
    let (status, again) = api.post("/v1/analyses", &order).await;
    assert_eq!(status, 503, "{again}");
    let detail = again["detail"].as_str().unwrap();
    assert_eq!(detail.matches("full").count(), 1, "the same fault, said once: {detail}");
    service.stop().await;
    let (mut server, api) = house.start().await;
    api.open(&order).await;
    assert_eq!(api.verdict(&id).await["verdict"], "rollback");
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_rule_file_is_refused_with_every_fault() {
    let wrong = error_rules("{ after: 1m, deadlin: 5m }").replace("rollback,", "roll,");
    let house = House::new(
        json!({}),
        &[
            ("wrong", wrong),
            ("cut", "version: 1\nsignals: {".to_owned()),
            ("large", "#".repeat(300 * 1024)),
            ("good", error_rules("{ after: 1m, deadline: 5m }")),
        ],
    );
    std::fs::create_dir(house.rule_file("folder")).unwrap();
    std::fs::write(house.rule_file("bytes"), [0xff, 0xfe, 0x00]).unwrap();
    let (mut server, api) = house.start().await;
    let nobody = Reserved::new().addr();
    let check = async |name: &str, expected: &[&str]| {
        let (status, problem) = api.post("/v1/analyses", &order(name, &[nobody], nobody)).await;
        assert_eq!(status, 422, "{name}: {problem}");
        let errors = problem["errors"].as_array().unwrap();
        assert_eq!(errors.len(), expected.len(), "{name}: {problem:#}");
        for (error, word) in errors.iter().zip(expected) {
            let error = error.as_str().unwrap();
            assert!(error.contains(word), "{name}: {word:?} is not in {error:?}");
        }
    };
    check("wrong", &["wrong.yaml:8:45: ", "wrong.yaml:9:23: "]).await;
    check("cut", &["cut.yaml:2:"]).await;
    check("large", &["at most 256 KiB"]).await;
    check("bytes", &["bytes.yaml"]).await;
    check("folder", &["folder.yaml"]).await;
    check("nosuch", &["nosuch.yaml"]).await;
    check("../../etc/passwd", &["letters, digits"]).await;
    let (_, page) = api.get("/v1/analyses").await;
    assert_eq!(page["analyses"], json!([]), "nothing was begun");
    api.open(&order("good", &[nobody], nobody)).await;
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_change_on_disk_leave_a_running_analysis_alone() {
    let house = House::new(json!({}), &[("good", error_rules("{ after: 1m, deadline: 5m }"))]);
    let (mut server, api) = house.start().await;
    let nobody = Reserved::new().addr();
    let id = api.open(&order("good", &[nobody], nobody)).await;
    std::fs::write(house.rule_file("good"), "nonsense").unwrap();
    server.kill();
    let (mut server, api) = house.start().await;
    let view = api.until(&id, "a look", |view| !view["report"].is_null()).await;
    assert_eq!((&view["state"], &view["hold_secs"]), (&json!("running"), &json!(60.0)));
    assert!(server.terminate().await.success());
}

/// `serve` must end with this code and say these words on stderr, and nothing on stdout.
async fn check_serve(house: &House, expected: i32, words: &[&str]) {
    let config = house.config().display().to_string();
    let output = command(&["serve", "--config", &config]).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(expected), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in {stderr}");
    }
    assert!(output.stdout.is_empty());
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_started_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let house = House::new(json!({ "listen": taken }), &[]);
    check_serve(&house, 1, &[&taken, "is another rollgate running?"]).await;

    let house = House::new(json!({ "store": "nosuch/deep/rollgate.db" }), &[]);
    check_serve(&house, 2, &["nosuch/deep/rollgate.db", "hint: "]).await;
    let house = House::new(json!({ "store": "rules" }), &[]);
    check_serve(&house, 2, &["rules", "hint: "]).await;
    let house = House::new(json!({ "store": "foreign.db" }), &[]);
    std::fs::write(house.path().join("foreign.db"), b"not a database at all, but a letter")
        .unwrap();
    check_serve(&house, 2, &["foreign.db", "hint: "]).await;

    let unset =
        json!({ "webhook": { "url": "http://h/", "secrets": [{ "env": "HOUSE_NO_KEY" }] } });
    let short = json!({ "webhook": { "url": "ftp://h/", "secrets": [{ "env": "HOUSE_KEY" }] } });
    for (config, words) in [
        (json!({ "listen": "nowhere" }), &["rollgate.yaml", "listen is \"nowhere\""][..]),
        (json!({ "lisen": "127.0.0.1:0" }), &["lisen", "line 1"]),
        (json!({ "rules": "nosuch" }), &["nosuch", "expected a directory of rule files"]),
        (json!({ "mechanisms": { "deploys": unset } }), &["HOUSE_NO_KEY is not set"]),
        (json!({ "mechanisms": { "deploys": short } }), &["deploys", "ftp"]),
        (json!({ "prometheus": { "main": { "url": "nowhere" } } }), &["prometheus main"]),
    ] {
        check_serve(&House::new(config, &[]), 2, words).await;
    }
    let house = House::new(json!({}), &[]);
    std::fs::remove_file(house.config()).unwrap();
    check_serve(&house, 2, &["rollgate.yaml", "cannot be read"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_carried_out_although_its_client_went_away() {
    let house = House::new(json!({}), &[("good", error_rules("{ after: 1m, deadline: 5m }"))]);
    let (mut server, api) = house.start().await;
    let nobody = Reserved::new().addr();
    let body = order("good", &[nobody], nobody).to_string();
    let host = api.url.strip_prefix("http://").unwrap();
    let head = format!(
        "POST /v1/analyses HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    const CLIENTS: usize = 20;
    for _ in 0..CLIENTS {
        let mut socket = TcpStream::connect(host).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        drop(socket);
    }
    // Whether an order was read before its client was gone is chance; what was taken is watched.
    api.open(&order("good", &[nobody], nobody)).await;
    let (_, page) = api.get("/v1/analyses?limit=200").await;
    for one in page["analyses"].as_array().unwrap() {
        let id = one["id"].as_str().unwrap();
        api.until(id, "a look", |view| !view["report"].is_null()).await;
    }
    assert!(server.terminate().await.success());
}
