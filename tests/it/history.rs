//! The past of services: standing watches over real ones, metrics servers that remember, baselines
//! that are the service itself a while ago, and analyses that begin with a calibration.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use rollgate::{
    demo::{
        fault::Fault,
        load::Load,
        service::{Service, ServiceOptions},
    },
    engine::{
        calibration::{Calibration, SignalCalibration},
        noise::Origin,
        observation::{Missing, Observation, Pair, Time, Value, Why},
    },
    report::shape::Report,
    rulefile,
    service::case::Case,
    signal::{carry::Carry, past::Stretch, reduce::Reducer},
    source::{
        client::Client,
        collector::{ArmSource, Collector, CollectorOptions},
        limits::SourceLimits,
        prometheus::{PrometheusLimits, PrometheusOptions, PrometheusServer},
    },
    store::{
        Look, NewAnalysis, Store, calibration,
        sqlite::{SqliteOptions, SqliteStore},
    },
    telemetry::Telemetry,
};
use serde_json::{Value as Json, json};

use super::{
    house::{Api, House, Reserved, arm, command, error_rules, eventually},
    source_server::{Conduct, Prometheus, hostile},
};

const BAD: Fault = Fault::Errors { share: 0.4 };

async fn service(version: &str, seed: u64) -> Service {
    let (name, version) = ("shop".to_owned(), version.to_owned());
    Service::start(ServiceOptions { name, version, seed }).await.unwrap()
}

/// Rules that compare with something else than what runs beside the canary.
fn rules(baseline: &str, promote: &str) -> String {
    format!("{}baseline: {baseline}\n", error_rules(promote))
}

fn watch(service: &Service, rules: &str) -> Json {
    let target = format!("http://{}", service.addr);
    json!({ "watch": { "shop": { "rules": rules, "targets": [target], "keep": "2h" } } })
}

async fn shop(api: &Api) -> Json {
    let (status, body) = api.get("/v1/services").await;
    assert_eq!(status, 200, "{body}");
    body["services"][0].clone()
}

/// Waits until this much history is there.
async fn remembered(api: &Api, secs: f64) -> Json {
    eventually("enough history", async || {
        Some(shop(api).await).filter(|shop| shop["history_secs"].as_f64() >= Some(secs))
    })
    .await
}

fn order(rules: &str, canary: &Service, key: &str) -> Json {
    json!({
        "service": "shop", "rules": rules, "idempotency_key": key, "mechanisms": [],
        "canary": arm("v2", &[canary.addr]),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_service_has_a_history_that_outlives_the_process() {
    let (old, new) = (service("v1", 61).await, service("v2", 62).await);
    let _loads = [(&old, 40.0), (&new, 40.0)].map(|(one, rps)| Load::start(one.addr, rps, 63));
    let house =
        House::new(watch(&old, "shop"), &[("shop", error_rules("{ after: 3s, deadline: 1m }"))]);
    let (mut server, api) = house.start().await;
    let before = remembered(&api, 3.0).await;
    assert_eq!((&before["service"], &before["rules"]), (&json!("shop"), &json!("shop")));
    assert_eq!((&before["interval_secs"], &before["keep_secs"]), (&json!(1.0), &json!(7200.0)));
    assert_eq!(before["last_fault"], Json::Null, "{before}");
    assert!(before["last_look_at"].as_f64() > Some(1.7e9), "{before}");
    server.kill();

    let (mut server, api) = house.start().await;
    let (had, at) = (before["looks"].as_u64(), before["last_look_at"].as_f64());
    let grown = |shop: &Json| shop["looks"].as_u64() > had && shop["last_look_at"].as_f64() > at;
    eventually("more history", async || Some(shop(&api).await).filter(&grown)).await;

    // What is known of the past is known of the analysis, and it is judged as ever.
    let mut concurrent = order("shop", &new, "one");
    concurrent["baseline"] = arm("v1", &[old.addr]);
    let id = api.open(&concurrent).await;
    let past = api.view(&id).await["past"].clone();
    assert_eq!((&past["source"], &past["lag_secs"]), (&json!("watch"), &Json::Null), "{past}");
    assert!(past["history_secs"].as_f64() >= Some(3.0), "{past}");
    assert_eq!(api.verdict(&id).await["verdict"], "promote");
    let metrics = api.text("/metrics").await.1;
    assert!(metrics.contains("rollgate_calibrations_total{origin=\"watch\"} 1\n"), "{metrics}");
    let kept = "rollgate_watch_looks_total{service=\"shop\",outcome=\"kept\"}";
    assert!(metrics.contains(kept), "{metrics}");

    // A service that is gone leaves a gap and is named.
    let looks = |shop: &Json| shop["looks"].as_u64();
    old.stop().await;
    let gone = eventually("a fault", async || {
        Some(shop(&api).await).filter(|shop| shop["last_fault"].is_string())
    })
    .await;
    assert!(gone["last_fault"].as_str().unwrap().contains("scrape failed"), "{gone}");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(looks(&shop(&api).await), looks(&gone), "a gap takes no room");
    assert_eq!(api.text("/healthz").await.0, 200);
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_instance_is_compared_with_itself_before() {
    let shop_service = service("v1", 71).await;
    let _load = Load::start(shop_service.addr, 60.0, 72).unwrap();
    let before = rules("before", "{ after: 5s, deadline: 14s }");
    let house = House::new(watch(&shop_service, "before"), &[("before", before)]);
    let (mut server, api) = house.start().await;
    // Before there is enough of a past, what there is of it is used, and said to be short.
    remembered(&api, 2.0).await;
    let early = api.open(&order("before", &shop_service, "early")).await;
    let past = api.view(&early).await["past"].clone();
    assert!(past["note"].as_str().unwrap().contains("the past before the release is only"));
    assert!(past["lag_secs"].as_f64() < Some(15.0), "{past}");
    let verdict = api.verdict(&early).await;
    assert_eq!(verdict["verdict"], "inconclusive", "{verdict}");
    assert!(verdict["reason"].as_str().unwrap().contains("only"), "{verdict}");

    remembered(&api, 32.0).await;
    shop_service.fault.set(BAD);
    let bad = api.open(&order("before", &shop_service, "bad")).await;
    let past = api.view(&bad).await["past"].clone();
    assert_eq!(past["source"], "watch", "{past}");
    assert!((15.0..18.0).contains(&past["lag_secs"].as_f64().unwrap()), "{past}");
    let verdict = api.verdict(&bad).await;
    assert_eq!(verdict["verdict"], "rollback", "{verdict}");

    // The next one is as good as ever, and is not compared with the one that was rolled back.
    shop_service.fault.set(Fault::None);
    let good = api.open(&order("before", &shop_service, "good")).await;
    let past = api.view(&good).await["past"].clone();
    assert!(past["note"].as_str().unwrap().contains("that were rolled back"), "{past}");
    api.until(&good, "two looks", |view| view["report"]["look"].as_u64() >= Some(2)).await;
    // A process that dies on the way leaves lag and stretch as they were.
    server.kill();
    let (mut server, api) = house.start().await;
    assert_eq!(api.view(&good).await["past"], past);
    let verdict = api.verdict(&good).await;
    assert_eq!(verdict["verdict"], "promote", "{verdict} {}", api.view(&good).await);
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_whose_past_nobody_keeps_is_refused() {
    let shop_service = service("v1", 81).await;
    let before = rules("before", "{ after: 5s, deadline: 14s }");
    let house = House::new(watch(&shop_service, "before"), &[("before", before)]);
    let (mut server, api) = house.start().await;
    let refused = async |order: &Json, words: &str| {
        let (status, problem) = api.post("/v1/analyses", order).await;
        assert_eq!(status, 422, "{problem}");
        assert!(problem["errors"].to_string().contains(words), "{problem} lacks {words}");
    };
    let mut beside = order("before", &shop_service, "beside");
    beside["baseline"] = arm("v1", &[shop_service.addr]);
    refused(&beside, "compares with the service's own past; leave baseline out").await;
    let mut unknown = order("before", &shop_service, "unknown");
    unknown["service"] = json!("till");
    refused(&unknown, "the past of till, which nobody keeps; name till under `watch`").await;
    assert!(server.terminate().await.success());
}

/// An hour of a service with 40 requests a second, of which one in 500 fails, and the ten minutes
/// to come, so that a slow machine does not run out of past.
fn hour(now_secs: i64) -> String {
    let mut text = String::from("# TYPE http_requests counter\n");
    for code in ["200", "500"] {
        for second in 0..=4200_i64 {
            let requests = if code == "500" { second * 40 / 500 } else { second * 40 };
            let at = now_secs - 3600 + second;
            let labels = format!("job=\"shop\",instance=\"old:1\",code=\"{code}\"");
            writeln!(text, "http_requests_total{{{labels}}} {requests} {at}").unwrap();
        }
    }
    text.push_str("# EOF\n");
    text
}

fn unix_secs() -> i64 {
    rollgate::service::system_clock()().0 / 1000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_metrics_server_remembers_what_the_release_is_compared_with() {
    let (good, bad) = (service("v2", 91).await, service("v3", 92).await);
    bad.fault.set(BAD);
    let _loads = [&good, &bad].map(|one| Load::start(one.addr, 40.0, 93).unwrap());
    let prometheus = Prometheus::remembering(&hour(unix_secs())).await;
    history_is_what_happened(&prometheus).await;

    let offset = rules("offset 1m", "{ after: 5s, deadline: 45s }");
    let house = House::new(
        json!({ "prometheus": { "main": { "url": prometheus.url } } }),
        &[("offset", offset)],
    );
    let (mut server, api) = house.start().await;
    let ordered = |canary: &Service, key: &str| {
        let mut order = order("offset", canary, key);
        order["prometheus"] = json!("main");
        order["baseline"] = json!({ "version": "v1", "selector": "job=\"shop\"" });
        order
    };
    let (healthy, broken) =
        (api.open(&ordered(&good, "good")).await, api.open(&ordered(&bad, "bad")).await);
    for id in [&healthy, &broken] {
        let past = api.view(id).await["past"].clone();
        assert_eq!(past["source"], "prometheus", "{past}");
        assert!(past["history_secs"].as_f64() > Some(3000.0), "{past}");
    }
    assert_eq!(api.view(&healthy).await["past"]["lag_secs"], 60.0);
    assert_eq!(api.verdict(&broken).await["verdict"], "rollback");
    let verdict = api.verdict(&healthy).await;
    assert_eq!(verdict["verdict"], "promote", "{verdict} {}", api.view(&healthy).await);
    assert!(server.terminate().await.success());

    let (file, canary) = (house.rule_file("offset"), format!("http://{}", bad.addr));
    let file = file.display().to_string();
    let run = async |more: &[&str]| {
        let begin = ["run", "--rules", &file, "--canary", &canary, "--json"];
        let output = command(&[&begin[..], more].concat()).await;
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let past = ["--prometheus", &prometheus.url, "--baseline-selector", "job=\"shop\""];
    assert_eq!(run(&past).await.0, Some(3));
    let (code, words) = run(&[]).await;
    assert_eq!(code, Some(2));
    assert!(words.contains("the service's own past, which only a metrics server knows"), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_past_that_cannot_be_had_is_named_and_does_not_hold_up_the_release() {
    let (nobody, silent) = (Reserved::new(), hostile(Conduct::Silent).await);
    let server = |addr| json!({ "url": format!("http://{addr}") });
    let house = House::new(
        json!({ "prometheus": { "refusing": server(nobody.addr()), "silent": server(silent) } }),
        &[("shop", error_rules("{ after: 3s, deadline: 1m }"))],
    );
    let (mut process, api) = house.start().await;
    for (prometheus, words) in [("refusing", "connection refused"), ("silent", "within 5")] {
        let arm = |version: &str| json!({ "version": version, "selector": "job=\"shop\"" });
        let order = json!({
            "service": "shop", "rules": "shop", "prometheus": prometheus,
            "canary": arm("v2"), "baseline": arm("v1"),
        });
        let begun = std::time::Instant::now();
        let id = api.open(&order).await;
        assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
        let past = api.view(&id).await["past"].clone();
        assert_eq!(past["history_secs"], 0.0, "{past}");
        assert!(past["note"].as_str().unwrap().contains(words), "{past}");
    }
    let metrics = api.text("/metrics").await.1;
    assert!(metrics.contains("rollgate_calibrations_total{origin=\"prior\"} 2\n"), "{metrics}");
    assert!(process.terminate().await.success());
}

/// Every request of the hour is in the looks once, as in a live watch of it.
async fn history_is_what_happened(prometheus: &Prometheus) {
    let file = rulefile::load("shop.yaml", &error_rules("{ after: 5s }")).unwrap();
    let options = PrometheusOptions {
        url: prometheus.url.clone(),
        headers: Vec::new(),
        timeout: Duration::from_secs(10),
        limits: PrometheusLimits::default(),
    };
    let client = Client::new().unwrap();
    let server = Arc::new(PrometheusServer::new(client.clone(), options).unwrap());
    let options = CollectorOptions {
        specs: file.specs.clone().into(),
        canary: ArmSource::Targets(Vec::new()),
        baseline: Some(ArmSource::Selector {
            prometheus: server,
            matchers: "job=\"shop\"".to_owned(),
        }),
        timeout: Duration::from_secs(10),
        limits: SourceLimits::default(),
    };
    let collector = Collector::new(client, options, Telemetry::new());
    let mut reducer = Reducer::new(file.specs.into(), Duration::ZERO, Carry::default());
    let now = unix_secs();
    // 40 min in three chunks that end where no look does.
    let stretch = Stretch { after: Time((now - 2700) * 1000), until: Time((now - 300) * 1000) };
    let (mut requests, mut errors, mut looks) = (0.0, 0.0, 0);
    let read = collector.gather_history(stretch, Duration::from_secs(10), |gathered| {
        looks += 1;
        if let Ok(Value::Share { events, total }) = reducer.reduce(&gathered).signals[0].baseline {
            (errors, requests) = (errors + events, requests + total);
        }
    });
    read.await.unwrap();
    let long = Stretch { after: Time(stretch.until.0 - 7_201_000), ..stretch };
    let refused = collector.gather_history(long, Duration::from_secs(10), |_| {}).await;
    assert!(refused.unwrap_err().detail.contains("at most"));
    // The first look sets marks.
    assert_eq!(looks, 2400 / 15);
    let secs = f64::from(looks - 1) * 15.0;
    assert!((requests - 40.0 * secs * (1.0 + 1.0 / 500.0)).abs() <= 1.0, "{requests}");
    assert!((errors - 0.08 * secs).abs() <= 1.0, "{errors}");
}

#[tokio::test]
async fn a_calibration_is_part_of_the_fold_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rollgate.db");
    let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    let measured = Calibration {
        signals: vec![Some(SignalCalibration {
            kappa_secs: 1.7 + 0.1 + 0.2,
            origin: Origin::History { secs: 3599.9 },
            ..SignalCalibration::default()
        })],
    };
    let target = json!({ "targets": ["http://h:1"] });
    let order = json!({ "service": "shop", "rules": "shop", "canary": target, "baseline": target });
    for (id, calibration) in [("measured", &measured), ("prior", &Calibration::default())] {
        let new = NewAnalysis {
            id: id.to_owned(),
            idempotency_key: None,
            service: "shop".to_owned(),
            started: Time(0),
            order: order.to_string(),
            rules_name: "shop".to_owned(),
            rules_text: error_rules("{ after: 10m, deadline: 20m }"),
            calibration: Some(calibration::write(calibration).unwrap()),
            past: None,
        };
        store.create(new).await.unwrap();
    }
    let share = |events, total| Ok(Value::Share { events, total });
    let observation = |n: i64| Observation {
        at: Time(n * 1000),
        signals: vec![match n % 7 {
            0 => Pair::new(Err(Missing::new(Why::NoTraffic, "")), share(1.0, 9.0)),
            _ => Pair::new(share((n % 3) as f64, 21.0), share((n % 2) as f64, 60.0)),
        }],
        canary_gap: None,
        instances: None,
    };
    let mut live: Vec<Report> = Vec::new();
    for id in ["measured", "prior"] {
        let case = Case::of(&store.analysis(id).await.unwrap().unwrap()).unwrap();
        let mut analysis = case.begun();
        for n in 1..=60 {
            let step = analysis.step(&observation(n));
            let report = case.report(&step);
            let look = Look {
                analysis: id.to_owned(),
                look: step.look,
                observation: observation(n),
                carry: Carry::default(),
                report: serde_json::to_string(&report).unwrap(),
                verdict: report.verdict.clone(),
                decision: None,
            };
            store.commit(vec![look]).await.unwrap();
            if n == 60 {
                live.push(report);
            }
        }
    }
    store.close().await;

    let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    for (id, live) in ["measured", "prior"].into_iter().zip(&live) {
        let case = Case::of(&store.analysis(id).await.unwrap().unwrap()).unwrap();
        let mut last = None;
        case.refold(&store, |report| last = Some(report.clone())).await.unwrap();
        assert_eq!(last.as_ref(), Some(live), "{id}");
    }
    // And it does make a difference.
    let noise = |report: &Report| report.findings[0].clauses[0].progress.noise.clone().unwrap();
    assert!(noise(&live[0]).kappa_secs > noise(&live[1]).kappa_secs);
    assert_ne!(live[0].findings[0].clauses[0].progress, live[1].findings[0].clauses[0].progress);
}

#[tokio::test]
async fn a_recording_is_judged_with_another_one_as_its_past() {
    let path = |name: &str| {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        root.join("tests/cases/recordings").join(name).display().to_string()
    };
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/recommended.yaml");
    let (bad, healthy) = (path("error5"), path("healthy"));
    let replay = async |history: &str| {
        let args = ["replay", &bad, "--rules", rules, "--interval", "1s", "--history", history];
        command(&args).await
    };
    assert_eq!(replay(&healthy).await.status.code(), Some(3));
    let nowhere = replay("nowhere").await;
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("nowhere"));
}
