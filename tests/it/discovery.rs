//! Instances that are found: they come, go and are replaced while a release is judged, and the
//! discovery itself fails.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum::{Router, extract::State, http::StatusCode, routing::get};
use rollgate::{
    engine::{
        analysis::Analysis,
        observation::{Headcount, Time},
        verdict::{Step, Verdict},
    },
    rulefile,
    signal::{carry::Carry, reduce::Reducer},
    source::{
        client::Client,
        collector::{ArmSource, Collector, CollectorOptions},
        discovery::{
            Ask, Listed, Matches,
            finder::{self, Pace, Seeker},
        },
        found_arm::FoundArm,
        limits::SourceLimits,
        target::Target,
    },
    telemetry::Telemetry,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::house::{House, command, error_rules, eventually, webhook};

const RULES: &str = "\
version: 1
service: shop
observe: { interval: 1s, window: 5s, warmup: 0s }
signals:
  error_rate: { ratio: 'http_requests_total{code=~\"5..\"} / http_requests_total', floor: 0.1% }
  app: { health: /health }
  restarts: { restarts: process_start_time_seconds }
  instances_up: { up: true }
rules:
  - { when: error_rate > 3x baseline, then: rollback }
  - { when: app is down for 3 checks, then: rollback }
  - { when: instances_up < 100% for 3s, then: rollback }
  - { when: restarts >= 1, then: rollback }
promote: { after: 1h, deadline: 2h }
";

/// One instance: its counters, and what it showed of them.
#[derive(Default)]
struct Life {
    requests: f64,
    failures: f64,
    first_shown: Option<f64>,
    last_shown: f64,
    is_gone: bool,
    started: f64,
}

#[derive(Clone)]
struct Instance {
    address: SocketAddr,
    life: Arc<Mutex<Life>>,
}

impl Instance {
    async fn start(started: f64) -> Self {
        let life = Arc::new(Mutex::new(Life { started, ..Life::default() }));
        let app = Router::new()
            .route("/metrics", get(metrics))
            .route("/health", get(health))
            .with_state(life.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, life }
    }

    fn serve(&self, requests: f64, failures: f64) {
        let mut life = self.life.lock().unwrap();
        if !life.is_gone {
            (life.requests, life.failures) = (life.requests + requests, life.failures + failures);
        }
    }

    /// From now on it answers nothing; its port is kept, so that nobody else is given it.
    fn end(&self) {
        self.life.lock().unwrap().is_gone = true;
    }
}

async fn metrics(State(life): State<Arc<Mutex<Life>>>) -> String {
    let text = {
        let mut life = life.lock().unwrap();
        if life.is_gone {
            None
        } else {
            let requests = life.requests;
            life.first_shown.get_or_insert(requests);
            life.last_shown = requests;
            let (good, bad) = (life.requests - life.failures, life.failures);
            Some(format!(
                "http_requests_total{{code=\"200\"}} {good}\nhttp_requests_total{{code=\"500\"}} \
                 {bad}\nprocess_start_time_seconds {}\n",
                life.started
            ))
        }
    };
    match text {
        Some(text) => text,
        None => std::future::pending().await,
    }
}

async fn health(State(life): State<Arc<Mutex<Life>>>) -> StatusCode {
    let is_gone = life.lock().unwrap().is_gone;
    if is_gone { std::future::pending().await } else { StatusCode::OK }
}

/// What the discovery says when it is asked.
#[derive(Clone)]
struct Book(Arc<Mutex<Result<Vec<Listed>, String>>>);

impl Default for Book {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Ok(Vec::new()))))
    }
}

#[async_trait]
impl Ask for Book {
    async fn ask(&mut self) -> Result<Vec<Listed>, String> {
        self.0.lock().unwrap().clone()
    }
}

impl Book {
    fn names(&self, all: &[(&Instance, &str)]) {
        let listed = all.iter().map(|(instance, version)| Listed {
            target: Target::parse(&format!("http://{}", instance.address)).unwrap(),
            labels: BTreeMap::from([("version".to_owned(), (*version).to_owned())]),
        });
        *self.0.lock().unwrap() = Ok(listed.collect());
    }
}

/// A release that is judged look by look, a second apart, however fast the test is.
struct Watched {
    book: Book,
    seeker: Seeker,
    collector: Collector,
    reducer: Reducer,
    analysis: Analysis,
    now: Time,
}

impl Watched {
    fn new(book: Book, stale: Duration) -> Self {
        let file = rulefile::load("shop.yaml", RULES).unwrap();
        let pace = Pace {
            refresh: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            stale,
            settle: Duration::ZERO,
        };
        let about = "discovery pods".to_owned();
        let (finder, seeker) = finder::pair(about, pace, Box::new(book.clone()), Telemetry::new());
        let finder = Arc::new(finder);
        let arm = |version: &str| {
            let labels = BTreeMap::from([("version".to_owned(), version.to_owned())]);
            ArmSource::Found(FoundArm::new(finder.clone(), Matches::new(&labels)))
        };
        let specs: Arc<[_]> = file.specs.into();
        let options = CollectorOptions {
            specs: specs.clone(),
            canary: arm("v2"),
            baseline: Some(arm("v1")),
            timeout: Duration::from_millis(250),
            limits: SourceLimits::default(),
        };
        let collector = Collector::new(Client::new().unwrap(), options, Telemetry::new());
        let now = Time(1_700_000_000_000);
        Self {
            book,
            seeker,
            collector,
            reducer: Reducer::new(specs, Duration::ZERO, Carry::default()),
            analysis: Analysis::new(Arc::new(file.rules), now),
            now,
        }
    }

    async fn look(&mut self) -> Step {
        self.now = Time(self.now.0 + 1000);
        let gathered = self.collector.gather(self.now).await;
        self.analysis.step(&self.reducer.reduce(&gathered))
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound
    }
}

/// Both arms scale up and down and are replaced, killed before and after the discovery knows, with
/// the discovery out at times: no verdict, and every request that was shown is counted once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_come_and_go_and_nobody_is_blamed() {
    for seed in [1, 2, 3] {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut watched = Watched::new(Book::default(), Duration::from_secs(300));
        let mut arms: [Vec<Instance>; 2] = [Vec::new(), Vec::new()];
        let mut all: Vec<(usize, Instance)> = Vec::new();
        for (arm, instances) in arms.iter_mut().enumerate() {
            for _ in 0..2 {
                let instance = Instance::start(1_600_000_000.0).await;
                all.push((arm, instance.clone()));
                instances.push(instance);
            }
        }
        let mut last = None;
        for look in 0..60 {
            let is_out = look % 20 >= 16;
            let arm = random.below(2);
            match random.below(6) {
                0 | 1 if arms[arm].len() < 5 => {
                    let instance = Instance::start(1_600_000_000.0 + f64::from(look)).await;
                    all.push((arm, instance.clone()));
                    arms[arm].push(instance);
                }
                2 if arms[arm].len() > 1 => {
                    let gone = random.below(arms[arm].len());
                    arms[arm].remove(gone).end();
                }
                3 if look > 30 => {
                    // All of an arm, as a rolling restart does it.
                    for place in 0..arms[arm].len() {
                        let fresh = Instance::start(1_600_000_000.0 + f64::from(look)).await;
                        all.push((arm, fresh.clone()));
                        std::mem::replace(&mut arms[arm][place], fresh).end();
                    }
                }
                _ => {}
            }
            let [v2, v1] = &arms;
            let canary = v2.iter().map(|instance| (instance, "v2"));
            let named: Vec<_> = canary.chain(v1.iter().map(|instance| (instance, "v1"))).collect();
            for (instance, _) in &named {
                let requests = random.below(50) as f64;
                instance.serve(requests, if requests > 40.0 { 1.0 } else { 0.0 });
            }
            if is_out {
                *watched.book.0.lock().unwrap() = Err("out of order".to_owned());
            } else {
                watched.book.names(&named);
            }
            // It is asked before the look, after it, or not at all: the look may see what was.
            let asked = random.below(3);
            if look == 0 || asked == 0 {
                watched.seeker.ask_once().await;
            }
            let step = watched.look().await;
            if asked == 1 {
                watched.seeker.ask_once().await;
            }
            assert!(!step.verdict.is_final(), "look {look}: {:?}", step.verdict);
            let fires = step.findings.iter().any(|found| found.state.to_string() == "fires");
            assert!(!fires, "look {look}: {:?}", step.findings);
            last = Some(step);
        }
        let step = last.unwrap();
        let samples = step.findings[0].clauses[0].samples;
        for (arm, counted) in [samples.canary_total, samples.baseline_total].into_iter().enumerate()
        {
            let mine = all.iter().filter(|(of, _)| *of == arm).map(|(_, instance)| instance);
            let shown: f64 = mine
                .clone()
                .map(|instance| {
                    let life = instance.life.lock().unwrap();
                    life.first_shown.map_or(0.0, |first| life.last_shown - first)
                })
                .sum();
            assert_eq!(counted, shown, "arm {arm}");
            let seen = mine.filter(|one| one.life.lock().unwrap().first_shown.is_some()).count();
            let counts = step.instances.unwrap();
            let count = [counts.canary, counts.baseline][arm];
            assert!(seen > 3 && count.seen as usize >= seen, "{seen} {count:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_believed_once_the_discovery_names_it_again() {
    let mut watched = Watched::new(Book::default(), Duration::from_secs(300));
    let (good, bad, old) =
        (Instance::start(1e9).await, Instance::start(1e9).await, Instance::start(1e9).await);
    let all = [(&good, "v2"), (&bad, "v2"), (&old, "v1")];
    watched.book.names(&all);
    watched.seeker.ask_once().await;
    for _ in 0..3 {
        let step = watched.look().await;
        let two = Headcount { answered: 2, found: 2, seen: 2 };
        assert_eq!(step.instances.unwrap().canary, two);
    }
    bad.end();
    // Nobody knows whether it is still to be there.
    for _ in 0..5 {
        let step = watched.look().await;
        assert_eq!(step.verdict, Verdict::Watching);
        let gap = step.canary_gap.expect("one is silent");
        assert!(gap.detail.contains("has yet to say whether it is still there"), "{gap}");
        let count = step.instances.unwrap().canary;
        assert_eq!(count, Headcount { answered: 1, found: 2, seen: 2 });
    }
    // It is, so it is down.
    watched.seeker.ask_once().await;
    let mut looks = 0;
    let verdict = loop {
        looks += 1;
        let step = watched.look().await;
        if step.verdict.is_final() {
            break step.verdict;
        }
        assert!(looks < 5);
    };
    assert_eq!(verdict, Verdict::Rollback { rule: 1 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_discovery_that_fails_is_missing_data_with_its_reason() {
    let mut watched = Watched::new(Book::default(), Duration::from_millis(600));
    let reason = |step: &Step| {
        assert_eq!(step.verdict, Verdict::Watching, "{:?}", step.findings);
        step.canary_gap.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    *watched.book.0.lock().unwrap() = Err("nobody is there".to_owned());
    watched.seeker.ask_once().await;
    assert!(reason(&watched.look().await).contains("not observed"));
    let (new, old) = (Instance::start(1e9).await, Instance::start(1e9).await);
    watched.book.names(&[(&old, "v1")]);
    watched.seeker.ask_once().await;
    let words = reason(&watched.look().await);
    assert!(words.contains("found no target with version=v2 (of 1 in all)"), "{words}");
    watched.book.names(&[(&new, "v2"), (&old, "v1")]);
    watched.seeker.ask_once().await;
    assert_eq!(reason(&watched.look().await), "");
    // It fails, and the instances are gone besides: that is not for us to say.
    *watched.book.0.lock().unwrap() = Err("out of order".to_owned());
    watched.seeker.ask_once().await;
    new.end();
    old.end();
    let words = reason(&watched.look().await);
    assert!(words.contains("has yet to say"), "{words}");
    tokio::time::sleep(Duration::from_millis(600)).await;
    for _ in 0..5 {
        let step = watched.look().await;
        let words = reason(&step);
        assert!(words.starts_with("stale: ") && words.contains("last answered"), "{words}");
        assert!(words.ends_with("ago: out of order"), "{words}");
        assert_eq!(step.instances.unwrap().canary, Headcount { answered: 0, found: 0, seen: 1 });
    }
}

/// The real binary: an order that says no more than name and version, instances by file, a canary
/// that grows, shrinks and is replaced, and a restart in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_by_name_and_version_follows_its_instances() {
    let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", receiver.local_addr().unwrap());
    let postbox = super::house::Postbox::new(Arc::new(|| (Duration::ZERO, StatusCode::OK)));
    postbox.serve(receiver);
    let config = json!({
        "mechanisms": { "deploys": webhook(&url) },
        "discovery": { "hosts": { "files": ["targets/{service}.json"], "refresh": "1s" } },
        "services": { "shop": {
            "rules": "long", "mechanisms": ["deploys"], "hold": "8s",
            "canary": { "discover": "hosts", "match": { "version": "{canary_version}" } },
            "baseline": { "discover": "hosts", "match": { "version": "!{canary_version}" } },
        } },
    });
    let house = House::new(config, &[("long", error_rules("{ after: 1m, deadline: 10m }"))]);
    std::fs::create_dir(house.path().join("targets")).unwrap();
    let name = |canary: &[&Instance], baseline: &[&Instance]| {
        let group = |all: &[&Instance], version: &str| {
            let targets: Vec<String> = all.iter().map(|one| one.address.to_string()).collect();
            json!({ "targets": targets, "labels": { "version": version } })
        };
        let text = json!([group(canary, "v2"), group(baseline, "v1")]).to_string();
        std::fs::write(house.path().join("targets/shop.json"), text).unwrap();
    };
    let mut fleet = Vec::new();
    for _ in 0..7 {
        let instance = Instance::start(1e9).await;
        let served = instance.clone();
        tokio::spawn(async move {
            loop {
                served.serve(5.0, 0.0);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        fleet.push(instance);
    }
    let [a, b, c, d, e, old, older] = fleet.as_slice() else { panic!("seven") };
    name(&[a, b], &[old, older]);
    let (mut server, api) = house.start().await;
    let order = json!({ "service": "shop", "canary": { "version": "v2" }, "idempotency_key": "k" });
    let id = api.open(&order).await;
    let view = api.view(&id).await;
    assert_eq!(view["canary"]["match"], json!({ "version": "v2" }), "{view}");
    assert_eq!((&view["rules"]["name"], &view["hold_secs"]), (&json!("long"), &json!(8.0)));
    let counted = |view: &Value, answered: u64, seen: u64| {
        let canary = &view["report"]["instances"]["canary"];
        canary["answered"] == answered && canary["found"] == answered && canary["seen"] == seen
    };
    api.until(&id, "two", |view| counted(view, 2, 2)).await;
    name(&[a, b, c, d], &[old, older]);
    api.until(&id, "four", |view| counted(view, 4, 4)).await;
    server.kill();
    // Replaced and scaled down while nobody looked.
    name(&[c, d, e], &[old, older]);
    a.end();
    b.end();
    let (_server, api) = house.start().await;
    let (status, again) = api.post("/v1/analyses", &order).await;
    assert_eq!((status, again["id"].as_str()), (200, Some(&*id)), "{again}");
    api.until(&id, "three of five", |view| counted(view, 3, 5)).await;
    let verdict = api.verdict(&id).await;
    assert_eq!(verdict["verdict"], "promote", "{verdict}");
    let view = api.delivered(&id).await;
    let expected = json!({ "canary": { "answered": 3, "found": 3, "seen": 5 },
                           "baseline": { "answered": 2, "found": 2, "seen": 2 } });
    assert_eq!(view["report"]["instances"], expected);
    let kept = postbox.kept();
    let event: Value = serde_json::from_slice(&kept.values().next().unwrap()[0]).unwrap();
    assert_eq!(event["data"]["instances"], expected, "{event}");
    let told = command(&["explain", &id, "--server", &api.url]).await;
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("canary 3 of 3, 5 in all; baseline 2 of 2"), "{told}");
    assert!(told.contains("found by hosts version=v2"), "{told}");
    let (_, metrics) = api.text("/metrics").await;
    assert!(metrics.contains("rollgate_source_discoveries_total{outcome=\"ok\"}"), "{metrics}");

    for (order, words) in [
        (json!({ "service": "mail", "canary": { "version": "v2" } }), "not among `services`"),
        (json!({ "service": "shop", "canary": {} }), "canary.version is not given"),
        (
            json!({ "service": "shop", "canary": { "version": "v2", "discover": "nobody" } }),
            "discovery \\\"nobody\\\" is not configured, known are: hosts",
        ),
        (json!({ "service": "shop", "canary": { "version": "v2", "dns": "h" } }), "has no port"),
    ] {
        let (status, problem) = api.post("/v1/analyses", &order).await;
        let text = problem.to_string();
        assert!(status == 422 && text.contains(words), "{text}\nlacks {words}");
    }
}

/// `run` with a name whose addresses are asked of the system's resolver.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_follows_a_name() {
    let instance = Instance::start(1e9).await;
    let served = instance.clone();
    tokio::spawn(async move {
        loop {
            served.serve(5.0, 0.0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("shop.yaml");
    std::fs::write(&rules, error_rules("{ after: 3s, deadline: 30s }")).unwrap();
    let port = instance.address.port();
    let (name, url) = (format!("dns+http://127.0.0.1:{port}"), format!("http://127.0.0.1:{port}"));
    let rules = rules.to_str().unwrap();
    let run = ["run", "--rules", rules, "--canary", &name, "--baseline", &url, "--json"];
    let output = eventually("a verdict", async || Some(command(&run).await)).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["instances"]["canary"]["seen"].as_u64() >= Some(1), "{report}");
    let twice = ["run", "--rules", rules, "--canary", &name, "--canary", &url];
    let output = command(&twice).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("expected one name with dns+"));
}
