//! Ten thousand pending deliveries drain to a receiver on loopback, while controllers ask for verdicts
//! over HTTP and releases are judged beside it: how long it takes, how long verdicts take meanwhile,
//! and that every delivery arrives and is recorded once.
//!
//! The service is the whole one, with its store in a file. Targets are asserted on the best of several
//! rounds: a busy machine makes a run slower, never faster. What arrived is asserted in each.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, http::HeaderMap, routing};
use rollgate::{
    api::{
        ApiOptions,
        desk::{ArmOrder, OpenAnalysis},
    },
    deliver::{
        Mechanism, Setting,
        payload::{DeployAction, VerdictParts, delivery_key, verdict_event},
        sign::ID_HEADER,
        webhook::{self, Webhook, WebhookOptions},
    },
    engine::observation::{Histogram, Observation, Pair, Time, Value},
    outward::tls::TlsOptions,
    report::shape::Report,
    service::{self, ServiceOptions, case::Case, system_clock},
    signal::carry::Carry,
    source::{client::Client, limits::SourceLimits},
    store::{
        Decision, DeliveryFilter, DeliveryState, Look, NewAnalysis, NewDelivery, PAGE_MAX, Store,
        StoredAnalysis, StoredState,
        sqlite::{SqliteOptions, SqliteStore},
    },
    telemetry::{Telemetry, secret::Secret},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// All of them have to be delivered in this time.
const DRAIN_SECS_MAX: f64 = 30.0;

/// Of a hundred verdicts, 99 have to be answered in this time.
const P99_MS_MAX: f64 = 5.0;

const ROUNDS: usize = 3;
const PENDING: usize = 10_000;
/// Releases that are judged meanwhile.
const RUNNING: usize = 20;
/// Looks in the journal of each analysis that is over.
const LOOKS: u64 = 5;
/// Those who ask for verdicts, and how often each does.
const ASKERS: usize = 4;
const ASK_EVERY: Duration = Duration::from_millis(20);

const RULES: &str = "version: 1
service: bench
observe: { interval: 2s, window: 1m, warmup: 0s }
signals:
  errors: { ratio: 'requests_total{code=~\"5..\"} / requests_total', floor: 0.1% }
  p95: { quantile: 0.95, of: latency_seconds }
  memory: { gauge: process_resident_memory_bytes }
  restarts: { restarts: process_start_time_seconds }
rules:
  - { when: errors > 1.5x baseline, then: rollback }
  - { when: errors > 50% for 2m, then: rollback }
  - { when: p95 > 1.2x baseline, then: rollback }
  - { when: slope(memory) > baseline + 1MB/min, then: rollback }
  - { when: restarts >= 1, then: rollback }
promote: { after: 1h, deadline: 2h }
";

const METRICS: &str = "requests_total{code=\"200\"} 100
requests_total{code=\"500\"} 1
latency_seconds_bucket{le=\"0.1\"} 90
latency_seconds_bucket{le=\"1\"} 100
latency_seconds_bucket{le=\"+Inf\"} 101
latency_seconds_count 101
process_resident_memory_bytes 1000000
process_start_time_seconds 1700000000
";

/// What one round measured.
struct Measured {
    drain_secs: f64,
    p50_ms: f64,
    p99_ms: f64,
    asked: usize,
}

/// How often each key arrived.
type Arrived = Arc<Mutex<BTreeMap<String, u32>>>;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("rules")).expect("a folder");
    std::fs::write(folder.path().join("rules/bench.yaml"), RULES).expect("writes");
    let ids = runtime.block_on(filled(folder.path()));
    let rounds: Vec<Measured> =
        (0..ROUNDS).map(|_| runtime.block_on(round(folder.path(), &ids))).collect();
    for one in &rounds {
        eprintln!(
            "{PENDING} deliveries in {:.1} s; {} verdicts meanwhile, p50 {:.2} ms, p99 {:.2} ms",
            one.drain_secs, one.asked, one.p50_ms, one.p99_ms
        );
    }
    let best = |of: fn(&Measured) -> f64| rounds.iter().map(of).fold(f64::INFINITY, f64::min);
    let (drain_secs, p99_ms) = (best(|one| one.drain_secs), best(|one| one.p99_ms));
    assert!(drain_secs <= DRAIN_SECS_MAX, "{drain_secs:.1} s to drain");
    assert!(p99_ms <= P99_MS_MAX, "p99 of verdicts {p99_ms:.2} ms");
}

/// A store with analyses that are over and have a delivery pending, and some that run. Their ids.
async fn filled(folder: &Path) -> Vec<String> {
    let targets = serve(Router::new().route("/metrics", routing::get(async || METRICS))).await;
    let store = open(&folder.join("filled.db")).await;
    let now = system_clock()();
    let first = new("x", now, targets);
    let case = Case::of(&stored(first)).expect("a good order");
    let mut analysis = case.begun();
    let mut reports: Vec<Report> = Vec::new();
    for look in 1..=LOOKS {
        reports.push(case.report(&analysis.step(&observation(now, look))));
    }
    let mut ids = Vec::new();
    let mut looks = Vec::new();
    for n in 0..PENDING {
        let id = format!("{n:06}");
        store.create(new(&id, now, targets)).await.expect("creates");
        for (look, report) in (1..).zip(&reports) {
            looks.push(taken(&id, look, report, now, &case));
        }
        if looks.len() > 1000 {
            store.commit(std::mem::take(&mut looks)).await.expect("commits");
        }
        ids.push(id);
    }
    store.commit(looks).await.expect("commits");
    for n in 0..RUNNING {
        let id = format!("r{n:05}");
        store.create(new(&id, now, targets)).await.expect("creates");
        ids.push(id);
    }
    store.close().await;
    let bytes = std::fs::metadata(folder.join("filled.db")).expect("is there").len();
    eprintln!("a store of {} MiB", bytes >> 20);
    ids
}

fn new(id: &str, now: Time, targets: SocketAddr) -> NewAnalysis {
    let arm = |version: &str| ArmOrder {
        version: version.to_owned(),
        targets: vec![format!("http://{targets}")],
        selector: None,
    };
    let order = OpenAnalysis {
        service: "bench".to_owned(),
        rules: "bench".to_owned(),
        canary: arm("v2"),
        baseline: Some(arm("v1")),
        prometheus: None,
        mechanisms: vec!["deploy".to_owned()],
        idempotency_key: None,
        hold_secs: None,
        parameters: BTreeMap::new(),
    };
    NewAnalysis {
        id: id.to_owned(),
        idempotency_key: None,
        service: "bench".to_owned(),
        started: now,
        order: serde_json::to_string(&order).expect("JSON"),
        rules_name: "bench".to_owned(),
        rules_text: RULES.to_owned(),
        calibration: None,
        past: None,
    }
}

fn stored(new: NewAnalysis) -> StoredAnalysis {
    StoredAnalysis {
        new,
        state: StoredState::Running,
        last_look: 0,
        report: None,
        verdict: None,
        ended: None,
        cancel_note: None,
    }
}

fn observation(now: Time, look: u64) -> Observation {
    let both = |value: Value| Pair::new(Ok(value.clone()), Ok(value));
    let edges: Arc<[f64]> = (1..=12).map(|edge| f64::from(edge) / 10.0).collect();
    Observation {
        at: now.after(Duration::from_secs(2 * look)),
        signals: vec![
            both(Value::Share { events: 3.0, total: 400.0 }),
            both(Value::Histogram(Histogram { edges, counts: vec![30.0; 13] })),
            both(Value::Level(1e8)),
            both(Value::Restarts(0)),
        ],
        canary_gap: None,
    }
}

/// One look; the last is a rollback with its delivery.
fn taken(id: &str, look: u64, report: &Report, now: Time, case: &Case) -> Look {
    let observation = observation(now, look);
    let (mut report, mut decision) = (report.clone(), None);
    if look == LOOKS {
        (report.verdict, report.is_final) = ("rollback".to_owned(), true);
        let body = verdict_event(VerdictParts {
            analysis: id,
            service: "bench",
            canary_version: "v2",
            baseline_version: "v1",
            action: DeployAction::Rollback,
            advance_to: None,
            steps: &[],
            decided: observation.at,
            report: &report,
            rules: case.rules_ref.clone(),
        });
        let key = delivery_key(id, None, "deploy");
        let action = DeployAction::Rollback.to_string();
        let delivery = NewDelivery { key, mechanism: "deploy".to_owned(), action, body };
        let deliveries = vec![delivery];
        decision = Some(Decision { at: now, advance_to: None, deliveries });
    }
    Look {
        analysis: id.to_owned(),
        look,
        observation,
        carry: Carry::default(),
        verdict: report.verdict.clone(),
        report: serde_json::to_string(&report).expect("JSON"),
        decision,
    }
}

async fn round(folder: &Path, ids: &[String]) -> Measured {
    let path = folder.join("rollgate.db");
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.join(format!("rollgate.db{ending}")));
    }
    std::fs::copy(folder.join("filled.db"), &path).expect("copies");
    let store = open(&path).await;
    let arrived = Arrived::default();
    let began = Instant::now();
    let service = start(folder, &store, receiver(arrived.clone()).await).await;
    let askers: Vec<_> = (0..ASKERS)
        .map(|nth| tokio::spawn(ask(service.addr, ids.to_vec(), nth, store.clone())))
        .collect();
    let mut took = Vec::new();
    for asker in askers {
        took.extend(asker.await.expect("no panic"));
    }
    let drain_secs = began.elapsed().as_secs_f64();
    let arrived = arrived.lock().expect("no panic").clone();
    assert_eq!(arrived.len(), PENDING, "every delivery arrives");
    check(&store).await;
    service.stop().await;
    took.sort_unstable();
    let at = |share: f64| took[(took.len() as f64 * share) as usize].as_secs_f64() * 1e3;
    Measured { drain_secs, p50_ms: at(0.5), p99_ms: at(0.99), asked: took.len() }
}

/// Every delivery was recorded, and once.
async fn check(store: &SqliteStore) {
    let (mut after, mut seen) = (None, 0);
    loop {
        let filter = DeliveryFilter { after, limit: PAGE_MAX, ..DeliveryFilter::default() };
        let page = store.list_deliveries(filter).await.expect("reads");
        for row in &page.rows {
            assert_eq!((row.state, row.attempts), (DeliveryState::Delivered, 1), "{row:?}");
        }
        seen += page.rows.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, PENDING);
}

/// Asks for verdicts until everything is delivered; how long each took.
async fn ask(
    address: SocketAddr,
    ids: Vec<String>,
    nth: usize,
    store: SqliteStore,
) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let mut every = tokio::time::interval(ASK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0.. {
        every.tick().await;
        // A large prime apart, so that the same pages are not read again and again.
        let id = &ids[(round * 7919 + nth * 1231) % ids.len()];
        let began = Instant::now();
        verdict(&mut stream, id).await;
        took.push(began.elapsed());
        if round % 10 == 9 && is_drained(&store).await {
            break;
        }
    }
    took
}

async fn is_drained(store: &SqliteStore) -> bool {
    store.next_due().await.expect("reads").is_none()
}

/// One question over a connection that stays open.
async fn verdict(stream: &mut TcpStream, id: &str) {
    let question = format!("GET /v1/analyses/{id}/verdict HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(question.as_bytes()).await.expect("writes");
    let mut answer = Vec::new();
    loop {
        assert!(stream.read_buf(&mut answer).await.expect("reads") > 0, "it closed");
        let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
        assert!(text.starts_with("http/1.1 200"), "{text}");
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.expect("it has one").parse().expect("a number");
        if answer.len() >= head + 4 + length {
            return;
        }
    }
}

async fn start(folder: &Path, store: &SqliteStore, receiver: SocketAddr) -> service::Service {
    let options = WebhookOptions {
        name: "deploy".to_owned(),
        url: Secret::new(format!("http://{receiver}/hook")),
        secrets: vec![Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
        headers: Vec::new(),
        timeout: Duration::from_secs(10),
        tls: TlsOptions::default(),
        mapping: webhook::MAPPING,
        shape: webhook::Shape::default(),
    };
    let webhook = Webhook::new(options, &Setting::live(system_clock())).expect("good options");
    let webhook: Arc<dyn Mechanism> = Arc::new(webhook);
    let service = service::start(ServiceOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        store: Arc::new(store.clone()),
        rules_dir: folder.join("rules"),
        mechanisms: BTreeMap::from([("deploy".to_owned(), webhook)]),
        prometheus: BTreeMap::new(),
        services: BTreeMap::new(),
        client: Client::new().expect("a client"),
        limits: SourceLimits::default(),
        timeout: Duration::from_secs(2),
        watch: Vec::new(),
        api: ApiOptions::default(),
        telemetry: Telemetry::new(),
    });
    service.await.expect("starts")
}

async fn receiver(arrived: Arrived) -> SocketAddr {
    let hook = async move |headers: HeaderMap| {
        let key = headers[ID_HEADER].to_str().expect("text").to_owned();
        *arrived.lock().expect("no panic").entry(key).or_default() += 1;
    };
    serve(Router::new().route("/hook", routing::post(hook))).await
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, SqliteOptions::default()).await.expect("opens")
}
