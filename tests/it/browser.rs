//! The whole product as a person meets it: the demo's services under load, the real service with
//! its database, a receiver for the verdict, and the page in a browser that is told nothing else.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rollgate::{
    api::{
        ApiOptions,
        desk::{AnalysisView, ArmOrder, OpenAnalysis},
    },
    deliver::{
        Mechanism, Setting,
        webhook::{self, Shape, Webhook, WebhookOptions},
    },
    demo::{
        receiver::Receiver,
        scenario::{Plan, Scenario},
        stage::Stage,
    },
    outward::tls::TlsOptions,
    service::{self, Service, ServiceOptions, system_clock},
    source::{client::Client, limits::SourceLimits},
    store::sqlite::{SqliteOptions, SqliteStore},
    telemetry::{Telemetry, secret::Secret},
};

use crate::surfer::{NARROW, Surfer, WIDE, check_fits, look, picture, text, until};

/// Time that an analysis has from its order to its verdict on the page.
const PATIENCE: Duration = Duration::from_secs(35);

/// The recommended rules, for a release that takes seconds.
fn rules(plan: &Plan) -> String {
    let recommended = include_str!("../../rules/recommended.yaml");
    let (before, _) = recommended.split_once("\npromote:").unwrap();
    let (after, deadline) = (plan.hold.as_secs(), plan.deadline.as_secs());
    let shortened =
        before.replace("interval: 2s", "interval: 1s").replace("warmup: 30s", "warmup: 2s");
    format!("{shortened}\npromote: {{ after: {after}s, deadline: {deadline}s, otherwise: hold }}\n")
}

async fn start(dir: &Path, receiver: &Receiver) -> Service {
    let options = WebhookOptions {
        name: "deploy-hook".to_owned(),
        url: Secret::new(receiver.url()),
        secrets: vec![Secret::new("a key of at least twenty-four bytes".to_owned())],
        headers: Vec::new(),
        timeout: Duration::from_secs(5),
        tls: TlsOptions::default(),
        shape: Shape::default(),
        mapping: webhook::MAPPING,
    };
    let webhook: Arc<dyn Mechanism> =
        Arc::new(Webhook::new(options, &Setting::live(system_clock())).unwrap());
    let store = SqliteStore::open(&dir.join("test.db"), SqliteOptions::default()).await.unwrap();
    service::start(ServiceOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        store: Arc::new(store),
        rules_dir: dir.to_owned(),
        mechanisms: BTreeMap::from([("deploy-hook".to_owned(), webhook)]),
        prometheus: BTreeMap::new(),
        watch: Vec::new(),
        services: BTreeMap::new(),
        client: Client::new().unwrap(),
        limits: SourceLimits::default(),
        timeout: Duration::from_secs(1),
        api: ApiOptions { shutdown_timeout: Duration::from_secs(1), ..ApiOptions::default() },
        telemetry: Telemetry::new(),
    })
    .await
    .unwrap()
}

/// Orders the analysis as a pipeline would; gives its id.
async fn order(service: &Service, stage: &Stage) -> String {
    let arm = |version: &str, addr: SocketAddr| ArmOrder {
        version: version.to_owned(),
        targets: vec![format!("http://{addr}")],
        ..ArmOrder::default()
    };
    let order = OpenAnalysis {
        service: "shop".to_owned(),
        rules: "shop".to_owned(),
        canary: arm("v2", stage.canary.addr),
        baseline: Some(arm("v1", stage.baseline.addr)),
        mechanisms: vec!["deploy-hook".to_owned()],
        ..OpenAnalysis::default()
    };
    let client = crate::wire::client_builder().build().unwrap();
    let url = format!("http://{}/v1/analyses", service.addr);
    let answer = client.post(url).json(&order).send().await.unwrap();
    let view: AnalysisView = answer.json().await.unwrap();
    view.id
}

/// What the page must come to say of a scenario.
struct Expected {
    /// Becomes true while the analysis runs.
    live: &'static str,
    verdict: &'static str,
    reason: &'static str,
}

const EVIDENCE_GROWS: &str = "[...document.querySelectorAll('[role=meter]')].some(meter => \
     meter.ariaLabel.startsWith('Evidence') && Number(meter.ariaValueNow) > 0)";

async fn check(scenario: Scenario, expected: Expected) {
    // Sooner than in the demo; a fault has as long to be found, and nothing else is waited for.
    let (onset, hold) = match scenario.plan().onset {
        Some(_) => (Some(Duration::from_secs(6)), Duration::from_secs(24)),
        None => (None, Duration::from_secs(12)),
    };
    let plan = Plan { onset, hold, deadline: hold + Duration::from_secs(5), ..scenario.plan() };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("shop.yaml"), rules(&plan)).unwrap();
    let mut receiver = Receiver::start(|_, _| Ok(())).await.unwrap();
    let service = start(dir.path(), &receiver).await;
    let surfer = Surfer::start().await;
    let stage = Stage::play(plan, 1).await.unwrap();
    let id = order(&service, &stage).await;
    let page = surfer.open(&format!("http://{}/#/", service.addr), WIDE, "light").await;
    until(&page, "document.querySelector('.entry') !== null", PATIENCE).await;
    page.evaluate("document.querySelector('.entry').click()").await.unwrap();
    until(&page, "document.querySelector('#link').textContent === 'live'", PATIENCE).await;
    until(&page, expected.live, PATIENCE).await;
    for scheme in ["light", "dark"] {
        look(&page, WIDE, scheme).await;
        picture(&page, &format!("live_{scenario}_{scheme}")).await;
    }
    let is = format!("document.querySelector('#verdict').textContent === {:?}", expected.verdict);
    until(&page, &is, PATIENCE).await;
    let reason = text(&page, "document.querySelector('#reason').textContent").await;
    assert!(reason.contains(expected.reason), "{scenario}: {reason}");
    assert!(receiver.next(PATIENCE).await.is_some(), "{scenario}: nobody was told");
    let delivered = "document.querySelector('.deliveries .state').dataset.state === 'delivered'";
    until(&page, delivered, PATIENCE).await;
    for (width, scheme) in [(WIDE, "light"), (WIDE, "dark"), (NARROW, "light"), (NARROW, "dark")] {
        look(&page, width, scheme).await;
        let name = format!("end_{scenario}_{width}_{scheme}");
        check_fits(&page, &name).await;
        picture(&page, &name).await;
    }
    assert!(page.url().await.unwrap().unwrap().ends_with(&id));
    surfer.close().await;
    stage.stop().await;
    service.stop().await;
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_a_bad_release_being_rolled_back() {
    let expected = Expected {
        live: EVIDENCE_GROWS,
        verdict: "Roll back",
        reason: "error_rate > 1.5x baseline",
    };
    check(Scenario::Errors, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_a_crash() {
    let live = "document.querySelector('.status[data-status=up]') !== null";
    let expected = Expected { live, verdict: "Roll back", reason: "restarts is " };
    check(Scenario::Crash, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_a_good_release_being_promoted() {
    let live = "document.querySelector('.status[data-status=up]') !== null";
    let expected = Expected { live, verdict: "Promote", reason: "Nothing fired" };
    check(Scenario::Healthy, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_why_there_is_no_verdict_without_traffic() {
    let live = "document.querySelector('.missing') !== null";
    let expected = Expected { live, verdict: "Inconclusive", reason: "not enough data" };
    check(Scenario::Idle, expected).await;
}
