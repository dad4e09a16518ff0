//! Two hundred `kill -9` at random moments of running analyses: no verdict is lost, none is told
//! under two keys, every copy of a telling is the same bytes, and what the journal folds to is what
//! was told.
//!
//! Eight houses are killed at the same time, each again and again. Before every kill one more
//! analysis is opened, so that at any moment some have just begun, some run and some decide. The
//! receiver is slow at times and fails at times, so that kills also fall between a verdict's commit
//! and its delivery, and between a delivery and its record.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::http::StatusCode;
use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    demo::{
        fault::Fault,
        load::Load,
        service::{Service, ServiceOptions},
    },
    report::shape::Report,
    service::case::Case,
    store::{
        DeliveryState, Filter, Store, StoredAnalysis, StoredDelivery, StoredState,
        sqlite::{SqliteOptions, SqliteStore},
    },
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::house::{
    Api, House, Manners, Postbox, Reserved, arm, error_rules, health_rules, webhook,
};

const HOUSES: usize = 8;
const KILLS_PER_HOUSE: usize = 25;

/// Time from the start of a process to its end, in milliseconds: a fifth of them end while they are
/// still starting, the others after looks of several analyses.
const LIVES_MS: [std::ops::Range<u64>; 5] = [1..50, 50..1500, 50..1500, 50..1500, 50..1500];

/// What is judged, and by which rules.
const KINDS: [(&str, &str); 5] = [
    ("errors", "long"),
    ("healthy", "short"),
    ("idle", "brief"),
    ("down", "health"),
    ("stepped", "steps"),
];

/// Steps that the stepped releases go through.
const STEPS: &str = "{ deadline: 5m }\nsteps: [{ weight: 10%, hold: 1s }, { weight: 50%, hold: 1s }, \
                     { weight: 100%, hold: 2s }]";

/// The services that every analysis of the test judges.
struct Town {
    baseline: Service,
    errors: Service,
    healthy: Service,
    idle: Service,
    down: Reserved,
    _loads: Vec<Load>,
}

impl Town {
    async fn start() -> Self {
        let service = async |version: &str, seed| {
            let (name, version) = ("shop".to_owned(), version.to_owned());
            Service::start(ServiceOptions { name, version, seed }).await.unwrap()
        };
        let (baseline, errors) = (service("v1", 1).await, service("v2", 2).await);
        let (healthy, idle) = (service("v3", 3).await, service("v4", 4).await);
        errors.fault.set(Fault::Errors { share: 0.4 });
        let loads = [(&baseline, 40.0), (&errors, 20.0), (&healthy, 20.0)];
        let loads = loads.map(|(service, rps)| Load::start(service.addr, rps, 5).unwrap());
        Self { baseline, errors, healthy, idle, down: Reserved::new(), _loads: loads.into() }
    }

    fn order(&self, (kind, rules): (&str, &str), key: &str) -> Value {
        let canary = match kind {
            "errors" => self.errors.addr,
            "healthy" | "stepped" => self.healthy.addr,
            "idle" => self.idle.addr,
            _ => self.down.addr(),
        };
        json!({
            "service": kind, "rules": rules, "idempotency_key": key, "mechanisms": ["deploys"],
            "canary": arm("v2", &[canary]), "baseline": arm("v1", &[self.baseline.addr]),
        })
    }
}

/// A house whose webhooks go to this postbox.
async fn house(postbox: &Postbox) -> House {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    postbox.serve(listener);
    let rules = [
        ("long", error_rules("{ after: 1m, deadline: 5m }")),
        ("short", error_rules("{ after: 3s, deadline: 5m }")),
        ("brief", error_rules("{ after: 2s, deadline: 4s }")),
        ("health", health_rules("{ after: 1m, deadline: 5m }")),
        ("steps", error_rules(STEPS)),
    ];
    House::new(json!({ "mechanisms": { "deploys": webhook(&url) } }), &rules)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_kills_lose_no_verdict_and_tell_none_twice() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let town = Town::start().await;
    let twins = twins(&town).await;
    for (kind, expected) in [
        ("errors", "rollback"),
        ("healthy", "promote"),
        ("idle", "inconclusive"),
        ("down", "rollback"),
        ("stepped", "promote"),
    ] {
        assert_eq!(twins[kind]["verdict"], expected, "{kind}");
    }
    let houses = join_all((0..HOUSES).map(|number| haunted(&town, &twins, seed, number))).await;
    let total = houses.iter().fold(Seen::default(), |sum, seen| sum.plus(seen));
    println!("{total:?}");
    assert_eq!(total.kills, HOUSES * KILLS_PER_HOUSE);
    assert_eq!(total.verdicts, HOUSES * KILLS_PER_HOUSE);
    // Without these the test would not have met what it is for.
    assert!(total.spanned_lives > HOUSES, "too few analyses outlived a process: {total:?}");
    assert!(total.unborn > 0, "every process came as far as serving: {total:?}");
    assert!(total.repeated > 0, "no webhook was ever sent again: {total:?}");
}

/// One uninterrupted analysis of each kind on the same services: what it told.
async fn twins(town: &Town) -> BTreeMap<String, Value> {
    let postbox = Postbox::new(Arc::new(|| (Duration::ZERO, StatusCode::OK)));
    let house = house(&postbox).await;
    let (mut server, api) = house.start().await;
    let mut ids = Vec::new();
    for kind in KINDS {
        ids.push(api.open(&town.order(kind, kind.0)).await);
    }
    for id in &ids {
        api.delivered(id).await;
    }
    assert!(server.terminate().await.success());
    let told = postbox.kept();
    let advances = told.keys().filter(|key| key.contains(".step")).count();
    assert_eq!((told.len(), advances), (KINDS.len() + 2, 2));
    told.iter()
        .filter(|(key, _)| !key.contains(".step"))
        .map(|(_, bodies)| bodies)
        .map(|bodies| event(&bodies[0]))
        .map(|data| (word(&data, "service"), data))
        .collect()
}

/// What a house went through.
#[derive(Clone, Debug, Default)]
struct Seen {
    kills: usize,
    verdicts: usize,
    /// Processes that were killed before they served.
    unborn: usize,
    /// Analyses that were taken up again by a later process.
    spanned_lives: usize,
    /// Webhooks that came more than once.
    repeated: usize,
}

impl Seen {
    fn plus(self, other: &Self) -> Self {
        Self {
            kills: self.kills + other.kills,
            verdicts: self.verdicts + other.verdicts,
            unborn: self.unborn + other.unborn,
            spanned_lives: self.spanned_lives + other.spanned_lives,
            repeated: self.repeated + other.repeated,
        }
    }
}

/// Kills one house's service again and again, lets it finish in peace, and checks everything.
async fn haunted(town: &Town, twins: &BTreeMap<String, Value>, seed: u64, number: usize) -> Seen {
    let mut chance = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
    let postbox = Postbox::new(moods(StdRng::seed_from_u64(chance.random())));
    let house = house(&postbox).await;
    let mut seen = Seen::default();
    let mut waiting: Vec<Value> = Vec::new();
    for round in 0..KILLS_PER_HOUSE {
        let kind = KINDS[chance.random_range(0..KINDS.len())];
        waiting.push(town.order(kind, &format!("{number}-{round}")));
        let life = LIVES_MS[chance.random_range(0..LIVES_MS.len())].clone();
        let life = Duration::from_millis(chance.random_range(life));
        let mut server = house.spawn();
        let living = async {
            let line = server.line().await;
            let url = line.trim().strip_prefix("rollgate serves ").expect("it serves");
            open(&Api::new(url), &mut waiting).await;
            std::future::pending::<()>().await;
        };
        let born = tokio::time::timeout(life, living).await;
        assert!(born.is_err(), "a life has no other end");
        seen.unborn += usize::from(!server.has_told());
        server.kill();
        seen.kills += 1;
    }
    let (mut server, api) = house.start().await;
    open(&api, &mut waiting).await;
    assert!(waiting.is_empty(), "{waiting:?}");
    let (_, page) = api.get("/v1/analyses?limit=200").await;
    let rows = page["analyses"].as_array().unwrap();
    assert_eq!(rows.len(), KILLS_PER_HOUSE, "each order is one analysis");
    for row in rows {
        api.delivered(row["id"].as_str().unwrap()).await;
    }
    assert!(server.terminate().await.success(), "{}", house.logged());
    seen.spanned_lives += house.logged().matches("analysis taken up again").count();
    check(&house, &postbox, twins, &mut seen).await;
    seen
}

/// Sends every order that was not taken yet, as a client that was cut off does: with the same key.
async fn open(api: &Api, waiting: &mut Vec<Value>) {
    while let Some(order) = waiting.last() {
        match api.try_post("/v1/analyses", order).await {
            Some((200 | 201, _)) => waiting.pop(),
            Some((status, problem)) => panic!("{status} {problem}"),
            None => return,
        };
    }
}

/// Mostly quick and kind; at times slow, at times failing after it has kept what it was sent.
fn moods(chance: StdRng) -> Manners {
    let chance = Mutex::new(chance);
    Arc::new(move || {
        let mut chance = chance.lock().unwrap();
        let wait = match chance.random_bool(0.5) {
            true => Duration::from_millis(chance.random_range(0..1200)),
            false => Duration::ZERO,
        };
        let status = match chance.random_bool(0.15) {
            true => StatusCode::INTERNAL_SERVER_ERROR,
            false => StatusCode::OK,
        };
        (wait, status)
    })
}

/// Compares what the store holds, what was told, and what the twins told.
async fn check(house: &House, postbox: &Postbox, twins: &BTreeMap<String, Value>, seen: &mut Seen) {
    let path = house.path().join("rollgate.db");
    let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    let told = postbox.kept();
    let stored = store.list(Filter { limit: 200, ..Filter::default() }).await.unwrap();
    assert_eq!(stored.len(), KILLS_PER_HOUSE);
    let keys: BTreeSet<&String> = told.keys().collect();
    let finals = keys.iter().filter(|key| !key.contains(".step")).count();
    assert_eq!(finals, stored.len(), "one key per verdict: {keys:?}");
    let mut unseen = keys;
    for stored in stored {
        assert_eq!(stored.state, StoredState::Finished);
        let deliveries = store.deliveries(&stored.new.id).await.unwrap();
        let (delivery, advances) = deliveries.split_last().expect("a verdict was told");
        check_advances(&stored, advances);
        assert_eq!(delivery.state, DeliveryState::Delivered);
        for delivery in &deliveries {
            // An advance that did not arrive before the next decision may never have been told.
            for body in told.get(&delivery.new.key).into_iter().flatten() {
                assert_eq!(&body[..], delivery.new.body.as_bytes(), "every copy is what was kept");
            }
            unseen.remove(&delivery.new.key);
        }
        let bodies = &told[&delivery.new.key];
        seen.repeated += usize::from(bodies.len() > 1);
        let data = event(&bodies[0]);
        assert_eq!(word(&data, "analysis"), stored.new.id);
        let twin = &twins[&stored.new.service];
        for member in ["verdict", "rule", "action"] {
            assert_eq!(
                data[member], twin[member],
                "{member} of {} and its twin",
                stored.new.service
            );
        }
        check_fold(&store, &stored, &delivery.new.body).await;
        seen.verdicts += 1;
    }
    assert!(unseen.is_empty(), "told and not kept: {unseen:?}");
    store.close().await;
}

/// Each step was gone to once, in order, and told or taken back.
fn check_advances(stored: &StoredAnalysis, advances: &[StoredDelivery]) {
    let expected = if stored.new.service == "stepped" { vec![1, 2] } else { Vec::new() };
    let keys: Vec<&String> = advances.iter().map(|row| &row.new.key).collect();
    let id = &stored.new.id;
    let wanted: Vec<String> = expected.iter().map(|to| format!("{id}.step{to}.deploys")).collect();
    assert_eq!(keys, wanted.iter().collect::<Vec<_>>());
    for (row, to) in advances.iter().zip(expected) {
        let data = event(row.new.body.as_bytes());
        assert_eq!((&data["action"], &data["step"]["index"]), (&json!("advance"), &json!(to)));
        let is_over = matches!(row.state, DeliveryState::Delivered | DeliveryState::TakenBack);
        assert!(is_over, "{row:?}");
    }
}

/// A fresh engine over the journal says, bit for bit, what was stored and told.
async fn check_fold(store: &SqliteStore, stored: &StoredAnalysis, body: &str) {
    let case = Case::of(stored).unwrap();
    let mut last: Option<Report> = None;
    let analysis = case.refold(store, |report| last = Some(report.clone())).await.unwrap();
    assert_eq!(analysis.looks(), stored.last_look);
    let last = last.expect("a verdict rests on a look");
    assert!(last.is_final);
    assert_eq!(Some(&serde_json::to_string(&last).unwrap()), stored.report.as_ref());
    let findings = serde_json::to_string(&last.findings).unwrap();
    assert!(body.contains(&format!("\"findings\":{findings}")), "{body}\nlacks\n{findings}");
    let reason = serde_json::to_string(&last.reason).unwrap();
    assert!(body.contains(&format!("\"reason\":{reason}")), "{body}\nlacks\n{reason}");
    let data = event(body.as_bytes());
    assert_eq!(word(&data, "verdict"), last.verdict);
    let told_at = data["decided_at"].as_f64().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(Some(told_at) == last.decided_at && told_at < now);
}

fn event(body: &[u8]) -> Value {
    serde_json::from_slice::<Value>(body).unwrap()["data"].clone()
}

fn word(data: &Value, member: &str) -> String {
    data[member].as_str().unwrap().to_owned()
}
