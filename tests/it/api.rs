//! The API over real HTTP: every route's answers, every limit reached, and its end.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use rollgate::api::ApiOptions;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    fake_desk,
    story::Story,
    wire::{Answer, PATIENCE, Server, request},
};

const ODD_PARAMETERS: &str = r#""parameters":{"Zone":"a","ns":"","z":"\u0007"},"service""#;

const ORDER: &str = r#"{"service":"shop","rules":"recommended",
"canary":{"version":"v2","targets":["http://10.0.0.7:8080"]},
"baseline":{"version":"v1","targets":["http://10.0.0.1:8080"]}}"#;

/// A server with one analysis of each ending and one that runs.
async fn server() -> Server {
    let server = Server::start(ApiOptions::default()).await;
    server.desk.tell(Story::errors("a1", "checkout"));
    server.desk.tell(Story::healthy("a2", "catalog"));
    server.desk.tell(Story::idle("a3", "mail"));
    server.desk.tell(Story::errors("a4", "cart"));
    server.desk.advance("a1", 500);
    server.desk.advance("a2", 500);
    server.desk.advance("a3", 500);
    server.desk.advance("a4", 5);
    server
}

fn order_for(service: &str) -> String {
    ORDER.replace("shop", service)
}

fn pretty(answer: &Answer) -> String {
    let kind = answer.header("content-type").unwrap_or("none");
    let body = serde_json::to_string_pretty(&answer.json()).unwrap();
    format!("{} {kind}\n{body}", answer.status)
}

#[tokio::test]
async fn an_order_opens_an_analysis_once_per_key() {
    let server = server().await;
    let headers = "Content-Type: application/json\r\nIdempotency-Key: \"k1\"\r\n";
    let order = request("POST", "/v1/analyses", headers, ORDER);
    let first = server.send(&order).await;
    assert_eq!(first.status, 201, "{first:?}");
    let id = first.json()["id"].as_str().unwrap().to_owned();
    let location = format!("/v1/analyses/{id}");
    assert_eq!(first.header("location"), Some(location.as_str()));
    let again = server.send(&order).await;
    assert_eq!((again.status, again.json()["id"].as_str()), (200, Some(id.as_str())));
    let by_body = ORDER.replacen('{', r#"{"idempotency_key":"k1","#, 1);
    assert_eq!(server.post("/v1/analyses", &by_body).await.status, 200);
    assert_eq!(server.post("/v1/analyses", ORDER).await.status, 201);
    let torn = request("POST", "/v1/analyses", headers, &by_body.replace("k1", "k2"));
    let torn = server.send(&torn).await;
    assert_eq!(torn.status, 400, "{torn:?}");
}

#[tokio::test]
async fn answers_are_as_published() {
    let server = server().await;
    server.desk.set_rules(crate::page::rule_files());
    for (name, path) in [
        ("list", "/v1/analyses"),
        ("list_running", "/v1/analyses?state=running"),
        ("list_page", "/v1/analyses?limit=1&after=a3"),
        ("verdict_rollback", "/v1/analyses/a1/verdict"),
        ("verdict_promote", "/v1/analyses/a2/verdict"),
        ("verdict_inconclusive", "/v1/analyses/a3/verdict"),
        ("verdict_watching", "/v1/analyses/a4/verdict"),
        ("view", "/v1/analyses/a4"),
        ("history", "/v1/analyses/a4/history"),
        ("timeline", "/v1/analyses/a1/timeline"),
        ("rules", "/v1/rules"),
        ("healthz", "/healthz"),
        ("readyz", "/readyz"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        insta::assert_snapshot!(name, pretty(&answer));
    }
}

#[tokio::test]
async fn the_text_of_a_rule_file_is_sent_once() {
    let server = server().await;
    server.desk.set_rules(crate::page::rule_files());
    for path in ["/v1/rules/mail", "/v1/analyses/a4/rules"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "version: 1\n"), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/yaml"));
        let known = format!("If-None-Match: {}\r\n", answer.header("etag").unwrap());
        let again = server.send(&request("GET", path, &known, "")).await;
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{again:?}");
        let browser = "If-None-Match: \"00\"\r\nAccept: text/html,*/*\r\n";
        let shown = server.send(&request("GET", path, browser, "")).await;
        assert_eq!(shown.header("content-type"), Some("text/plain; charset=utf-8"), "{shown:?}");
    }
}

#[tokio::test]
async fn refusals_are_problems_that_say_what_was_wrong() {
    let server = server().await;
    for (name, path) in [
        ("unknown_path", "/v2/analyses"),
        ("unknown_asset", "/assets/none.js"),
        ("unknown_analysis", "/v1/analyses/none"),
        ("unknown_rules", "/v1/rules/none"),
        ("unknown_timeline", "/v1/analyses/none/timeline"),
        ("unknown_events", "/v1/analyses/none/events"),
        ("unknown_parameter", "/v1/analyses?page=2"),
        ("wrong_limit", "/v1/analyses?limit=0"),
        ("wrong_number", "/v1/analyses?limit=many"),
        ("wrong_state", "/v1/analyses?state=done"),
        ("wrong_verdict", "/v1/analyses?verdict=maybe"),
        ("wrong_wait", "/v1/analyses/a4/verdict?wait=soon"),
        ("wrong_id", "/v1/analyses/%ff"),
    ] {
        insta::assert_snapshot!(name, pretty(&server.get(path).await));
    }
    for (name, body) in [
        ("body_is_not_json", "{\n  nonsense".to_owned()),
        ("body_is_too_short", r#"{"service":"shop"}"#.to_owned()),
        ("body_has_wrong_type", ORDER.replace("\"http://10.0.0.7:8080\"", "7")),
        ("body_has_unknown_member", ORDER.replace("\"rules\"", "\"rule\"")),
        ("body_goes_on", format!("{ORDER} {{}}")),
        ("order_with_odd_parameters", ORDER.replace("\"service\"", ODD_PARAMETERS)),
        ("order_with_faults", ORDER.replace("http://10", "10").replace("shop", " ")),
        ("desk_refuses", order_for(fake_desk::REFUSED)),
        ("desk_is_full", order_for(fake_desk::FULL)),
        ("desk_is_down", order_for(fake_desk::DOWN)),
    ] {
        insta::assert_snapshot!(name, pretty(&server.post("/v1/analyses", &body).await));
    }
    let plain = request("POST", "/v1/analyses", "Content-Type: text/plain\r\n", ORDER);
    insta::assert_snapshot!("not_json", pretty(&server.send(&plain).await));
    let bare = request("POST", "/v1/analyses/a4/cancel", "", "");
    insta::assert_snapshot!("no_content_type", pretty(&server.send(&bare).await));
}

#[tokio::test]
async fn another_method_is_refused_and_told_which_are_allowed() {
    let server = server().await;
    let check = async |method: &str, path: &str, allow: &str| {
        let answer = server.send(&request(method, path, "", "")).await;
        assert_eq!(answer.status, 405, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let mut found: Vec<_> = answer.header("allow").unwrap_or("").split(',').collect();
        found.sort_unstable();
        assert_eq!(found.join(","), allow, "{method} {path}");
    };
    check("DELETE", "/v1/analyses", "GET,HEAD,POST").await;
    check("PUT", "/v1/analyses/a1", "GET,HEAD").await;
    check("GET", "/v1/analyses/a1/cancel", "POST").await;
    check("POST", "/", "GET,HEAD").await;
}

#[tokio::test]
async fn head_answers_like_get_without_a_body() {
    let server = server().await;
    for path in ["/", "/v1/analyses", "/v1/analyses/a1/events", "/metrics", "/assets/app.js"] {
        let answer = server.send(&request("HEAD", path, "", "")).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    let server = server().await;
    let answer = server.post("/v1/analyses", &order_for(fake_desk::PANICS)).await;
    insta::assert_snapshot!("panic", pretty(&answer));
    assert!(!answer.body.contains("planted"));
    assert_eq!(server.get("/healthz").await.status, 200);
    assert!(server.telemetry.render().contains("rollgate_http_panics_total 1\n"));
}

#[tokio::test]
async fn an_unready_service_says_why_and_still_answers_verdicts() {
    let server = server().await;
    server.desk.set_unready("the store is read-only");
    insta::assert_snapshot!("unready", pretty(&server.get("/readyz").await));
    assert_eq!(server.get("/healthz").await.status, 200);
    assert_eq!(server.get("/v1/analyses/a1/verdict").await.status, 200);
}

#[tokio::test]
async fn a_cancelled_analysis_is_over_and_cannot_be_cancelled_again() {
    let server = server().await;
    let mut events = server.events("a4").await;
    events.until("event: look").await;
    let words = r#"{"who":"ada","why":"wrong build"}"#;
    let cancelled = server.post("/v1/analyses/a4/cancel", words).await;
    assert_eq!(cancelled.json()["state"], "cancelled");
    let again = server.post("/v1/analyses/a4/cancel", words).await;
    insta::assert_snapshot!("cancel_again", pretty(&again));
    insta::assert_snapshot!(
        "verdict_cancelled",
        pretty(&server.get("/v1/analyses/a4/verdict").await)
    );
    let text = events.rest().await;
    assert!(text.contains("Cancelled by ada: wrong build"), "{text}");
    let long = format!(r#"{{"who":"{}"}}"#, "a".repeat(300));
    assert_eq!(server.post("/v1/analyses/a4/cancel", &long).await.status, 422);
}

#[tokio::test]
async fn a_long_poll_ends_with_the_verdict() {
    let server = server().await;
    let polling = server.get("/v1/analyses/a4/verdict?wait=60s");
    let telling = async {
        // The poll is under way once its connection is open; its answer then needs the verdict.
        wait_for(|| server.telemetry.render().contains("rollgate_http_connections 1\n")).await;
        server.desk.advance("a4", 3);
        server.desk.advance("a4", 500);
    };
    let (answer, ()) = tokio::join!(polling, telling);
    assert_eq!(answer.json()["verdict"], "rollback");
    assert_eq!(answer.json()["final"], true);
}

#[tokio::test]
async fn a_long_poll_ends_when_the_wait_is_over_or_its_limit_reached() {
    let server = server().await;
    let began = Instant::now();
    let answer = server.get("/v1/analyses/a4/verdict?wait=300ms").await;
    assert_eq!(answer.json()["final"], false);
    assert!(began.elapsed() >= Duration::from_millis(300));
    let short = Server::start(ApiOptions { wait_secs_max: 0, ..ApiOptions::default() }).await;
    short.desk.tell(Story::healthy("a", "shop"));
    let answer = short.get("/v1/analyses/a/verdict?wait=1h").await;
    assert_eq!(answer.json()["reason"], "No look has been taken yet.");
}

#[tokio::test]
async fn events_tell_every_look_and_end_with_the_verdict() {
    let server = server().await;
    let mut events = server.events("a4").await;
    events.until("id: 5\n").await;
    server.desk.advance("a4", 1);
    let text = events.until("id: 6\n").await;
    assert!(text.contains("content-type: text/event-stream"), "{text}");
    server.desk.advance("a4", 500);
    let text = events.rest().await;
    assert!(text.contains("event: verdict"), "{text}");
    assert!(text.contains(r#""verdict":"rollback""#), "{text}");

    let over = server.events("a1").await.rest().await;
    assert!(over.contains("event: look") && over.contains("event: verdict"), "{over}");
    let resumed = request("GET", "/v1/analyses/a1/events", "Last-Event-ID: 53.final\r\n", "");
    assert_eq!(server.send(&resumed).await.status, 204);
}

#[tokio::test]
async fn event_streams_are_bounded_in_number_and_time_and_kept_alive() {
    let options = ApiOptions {
        streams_max: 1,
        stream_secs_max: 2,
        keep_alive: Duration::from_millis(100),
        ..ApiOptions::default()
    };
    let server = Server::start(options).await;
    server.desk.tell(Story::healthy("a", "shop"));
    let mut events = server.events("a").await;
    // Before the first look the only thing to say is that the stream lives.
    events.until("\n\n").await;
    let refused = server.get("/v1/analyses/a/events").await;
    insta::assert_snapshot!("too_many_streams", pretty(&refused));
    assert_eq!(refused.header("retry-after"), Some("2"));
    assert!(server.telemetry.render().contains("rollgate_http_event_streams_refused_total 1\n"));
    let text = events.rest().await;
    assert!(!text.contains("event:"), "{text}");
    wait_for(|| server.telemetry.render().contains("rollgate_http_event_streams 0\n")).await;
}

#[tokio::test]
async fn a_body_over_the_limit_or_too_slow_is_refused() {
    let options = ApiOptions {
        body_bytes_max: 1000,
        body_timeout: Duration::from_millis(200),
        ..ApiOptions::default()
    };
    let server = Server::start(options).await;
    let large = format!("{}{}", " ".repeat(1001), ORDER);
    let answer = server.post("/v1/analyses", &large).await;
    insta::assert_snapshot!("body_too_large", pretty(&answer));
    let unfinished = "POST /v1/analyses HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                      Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    insta::assert_snapshot!("body_too_slow", pretty(&server.send(unfinished).await));
}

#[tokio::test]
async fn a_client_that_never_finishes_its_head_is_cut_off() {
    let options =
        ApiOptions { header_timeout: Duration::from_millis(200), ..ApiOptions::default() };
    let server = Server::start(options).await;
    for begun in ["", "GET / HTTP/1.1\r\nHost:"] {
        let read = server.exchange(begun.as_bytes()).await;
        assert!(!String::from_utf8_lossy(&read).contains("200 OK"));
    }
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    let server = server().await;
    let long = format!("X-Long: {}\r\n", "a".repeat(100_000));
    assert_eq!(server.send(&request("GET", "/", &long, "")).await.status, 431);
}

#[tokio::test]
async fn connections_over_the_limit_wait_their_turn() {
    let server = Server::start(ApiOptions { connections_max: 1, ..ApiOptions::default() }).await;
    let first = TcpStream::connect(server.address).await.unwrap();
    wait_for(|| server.telemetry.render().contains("rollgate_http_connections 1\n")).await;
    let (answer, ()) = tokio::join!(server.get("/healthz"), async { drop(first) });
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_desk_that_does_not_answer_is_unavailable() {
    let options = ApiOptions { desk_timeout: Duration::from_millis(100), ..ApiOptions::default() };
    let server = Server::start(options).await;
    let answer = server.post("/v1/analyses", &order_for(fake_desk::SILENT)).await;
    insta::assert_snapshot!("desk_is_silent", pretty(&answer));
}

#[tokio::test]
async fn shutdown_ends_streams_and_polls_and_lets_requests_finish() {
    let server = server().await;
    let mut events = server.events("a4").await;
    events.until("id: 5\n").await;
    let stop = server.stop.clone();
    let polling = server.get("/v1/analyses/a4/verdict?wait=60s");
    let stopping = async {
        wait_for(|| server.telemetry.render().contains("rollgate_http_connections 2\n")).await;
        stop.cancel();
    };
    let (answer, ()) = tokio::join!(polling, stopping);
    assert_eq!(answer.json()["final"], false);
    events.rest().await;
    let ended = tokio::time::timeout(PATIENCE, server.task).await;
    ended.expect("serve did not return").unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "still accepting");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_request_that_never_ends() {
    let options = ApiOptions {
        shutdown_timeout: Duration::from_millis(200),
        desk_timeout: Duration::from_secs(3600),
        ..ApiOptions::default()
    };
    let server = Server::start(options).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let body = order_for(fake_desk::SILENT);
    let bytes = request("POST", "/v1/analyses", "Content-Type: application/json\r\n", &body);
    stream.write_all(bytes.as_bytes()).await.unwrap();
    wait_for(|| server.telemetry.render().contains("rollgate_http_connections 1\n")).await;
    server.stop.cancel();
    let ended = tokio::time::timeout(PATIENCE, server.task).await;
    ended.expect("serve did not return").unwrap().unwrap();
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read).await;
    assert!(read.is_empty(), "{}", String::from_utf8_lossy(&read));
}

#[tokio::test]
async fn metrics_are_openmetrics_and_count_by_route() {
    let server = server().await;
    server.get("/v1/analyses/a1").await;
    server.get("/nowhere").await;
    let answer = server.get("/metrics").await;
    let kind = answer.header("content-type").unwrap();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    let body = &answer.body;
    for line in [
        r#"http_requests_total{route="/v1/analyses/{id}",method="GET",status="200"} 1"#,
        r#"http_requests_total{route="(other)",method="GET",status="404"} 1"#,
    ] {
        assert!(body.contains(line), "{line} is not in\n{body}");
    }
}

#[tokio::test]
async fn the_page_is_cached_by_tag_and_may_load_nothing_foreign() {
    let server = server().await;
    for path in ["/", "/assets/app.js", "/assets/style.css", "/assets/icon.svg"] {
        let answer = server.get(path).await;
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let tag = format!("If-None-Match: {}\r\n", answer.header("etag").unwrap());
        let again = server.send(&request("GET", path, &tag, "")).await;
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
    }
}

/// Nothing a client sends is our defect: 500 and 503 never come, and the server lives.
#[tokio::test]
async fn random_requests_never_meet_a_defect() {
    let seed = std::env::var("ROLLGATE_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let options = ApiOptions {
        header_timeout: Duration::from_millis(50),
        // A length that was damaged promises more than comes.
        body_timeout: Duration::from_millis(50),
        wait_secs_max: 0,
        ..ApiOptions::default()
    };
    let server = Server::start(options).await;
    server.desk.tell(Story::errors("a4", "cart"));
    server.desk.advance("a4", 500);
    for _ in 0..1500 {
        let bytes = random_request(&mut random);
        let read = server.exchange(&bytes).await;
        let head = String::from_utf8_lossy(&read[..read.len().min(12)]).into_owned();
        let is_fine = head.is_empty() || head.starts_with("HTTP/1.") && !head[9..].starts_with('5');
        assert!(is_fine, "seed {seed}: {head} for {:?}", String::from_utf8_lossy(&bytes));
    }
    assert_eq!(server.get("/healthz").await.status, 200);
}

/// A request put together from parts that are right, each broken now and then.
fn random_request(random: &mut StdRng) -> Vec<u8> {
    const METHODS: [&str; 6] = ["GET", "POST", "HEAD", "PUT", "OPTIONS", "X"];
    const PATHS: [&str; 12] = [
        "/",
        "/v1/analyses",
        "/v1/analyses/a4",
        "/v1/analyses/a4/verdict",
        "/metrics",
        "/v1/analyses/a4/events",
        "/v1/analyses/a4/cancel",
        "/v1/analyses/a4/history",
        "/assets/app.js",
        "/readyz",
        "/%00/..%2f",
        "/v1/analyses/%e2%28",
    ];
    const QUERIES: [&str; 8] = [
        "",
        "?wait=1h",
        "?wait=%ff",
        "?limit=99999999999",
        "?limit=2&limit=3",
        "?after=%00",
        "?state=running",
        "?&&==",
    ];
    const BODIES: [&str; 6] = ["", "{}", "[", "null", "{\"who\":\"\\u0000\"}", ORDER];
    let headers = "Content-Type: application/json\r\n";
    let mut bytes = request(
        METHODS[random.random_range(0..METHODS.len())],
        &format!(
            "{}{}",
            PATHS[random.random_range(0..PATHS.len())],
            QUERIES[random.random_range(0..QUERIES.len())]
        ),
        if random.random_bool(0.8) { headers } else { "Content-Type: \u{e9}\r\n" },
        BODIES[random.random_range(0..BODIES.len())],
    )
    .into_bytes();
    if random.random_bool(0.4) {
        for _ in 0..random.random_range(1..5) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = (random.next_u32() & 0xff) as u8;
        }
    }
    if random.random_bool(0.1) {
        bytes.truncate(random.random_range(0..bytes.len()));
    }
    bytes
}

/// Yields until something that is under way has come about.
async fn wait_for(mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "it did not come about");
        tokio::task::yield_now().await;
    }
}
