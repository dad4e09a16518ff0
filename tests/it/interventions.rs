//! People who step in: verdicts overridden, deliveries sent again, and the record of it, through the
//! whole service; and `kill -9` in the middle of it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::http::StatusCode;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::store::{
    Deed, DeliveryState, Filter, Store, StoredState,
    sqlite::{SqliteOptions, SqliteStore},
};
use serde_json::{Value, json};

use crate::house::{
    House, Manners, Postbox, Reserved, arm, command, eventually, health_rules, webhook,
};

const KILLS: usize = 30;

/// A house with an analysis' worth of peers: a canary that nobody answers for, and a receiver.
struct Place {
    house: House,
    postbox: Postbox,
    nobody: Reserved,
}

impl Place {
    fn new(manners: Manners) -> Self {
        let (listening, nobody) = (Reserved::new(), Reserved::new());
        let postbox = Postbox::new(manners);
        let hook = webhook(&format!("http://{}", listening.addr()));
        postbox.serve(listening.listen());
        // Rules that come to no verdict by themselves.
        let calm = health_rules("{ after: 10m, deadline: 20m }").replace("3 checks", "999 checks");
        let house = House::new(json!({ "mechanisms": { "deploys": hook } }), &[("calm", calm)]);
        Self { house, postbox, nobody }
    }

    fn order(&self, key: &str) -> Value {
        json!({
            "service": "shop", "rules": "calm", "mechanisms": ["deploys"], "idempotency_key": key,
            "canary": arm("v2", &[self.nobody.addr()]),
        })
    }

    /// Every copy of a telling, as JSON; all copies are the same bytes.
    fn told(&self, key: &str) -> Vec<Value> {
        let kept = self.postbox.kept();
        let bodies = kept.get(key).cloned().unwrap_or_default();
        assert!(bodies.windows(2).all(|two| two[0] == two[1]), "every copy is the same");
        bodies.iter().map(|body| serde_json::from_slice(body).unwrap()).collect()
    }
}

fn kind() -> Manners {
    Arc::new(|| (Duration::ZERO, StatusCode::OK))
}

fn verdict(verdict: &str, why: &str) -> Value {
    json!({ "verdict": verdict, "who": "ann", "why": why })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_overrides_a_verdict_and_everybody_says_so() {
    let place = Place::new(kind());
    let (mut server, api) = place.house.start().await;
    let id = api.open(&place.order("one")).await;
    api.until(&id, "looks", |view| view["report"]["look"].as_u64() >= Some(2)).await;
    let path = format!("/v1/analyses/{id}/override");
    for (body, status) in [
        (json!({ "verdict": "rollback", "who": "ann" }), 422),
        (json!({ "verdict": "rollback", "why": "it is on fire", "who": " " }), 422),
        (json!({ "verdict": "hold", "who": "ann", "why": "x" }), 400),
        (json!({ "who": "ann", "why": "x" }), 400),
        (json!({ "verdict": "rollback", "who": "a".repeat(300), "why": "x" }), 422),
    ] {
        let (found, problem) = api.post(&path, &body).await;
        assert_eq!(found, status, "{problem}");
    }
    let nowhere = api.post("/v1/analyses/none/override", &verdict("promote", "x")).await;
    assert_eq!(nowhere.0, 404);
    let (status, view) = api.post(&path, &verdict("rollback", "it is on fire")).await;
    assert_eq!((status, &view["state"]), (200, &json!("finished")), "{view}");
    let reason = "Overridden by ann: it is on fire. The rules stood at watching.";
    let report = &view["report"];
    assert_eq!((&report["verdict"], &report["final"]), (&json!("rollback"), &json!(true)));
    assert_eq!(report["reason"], reason);
    let by = json!({ "who": "ann", "why": "it is on fire", "instead_of": "watching" });
    assert_eq!(report["overridden"], by);
    assert_eq!(report["findings"][0]["rule"], "app is down for 999 checks");
    let done = &view["interventions"][0];
    assert_eq!((&done["what"], &done["who"]), (&json!("override"), &json!("ann")));
    assert_eq!(done["verdict"], "rollback");
    // A final verdict never changes, and is told like any other.
    let (status, problem) = api.post(&path, &verdict("promote", "no, it is fine")).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().ends_with("is over: rollback"), "{problem}");
    let cancelled = api.post(&format!("/v1/analyses/{id}/cancel"), &json!({})).await;
    assert_eq!(cancelled.0, 409);
    let view = api.delivered(&id).await;
    let told = place.told(&format!("{id}.deploys"));
    let data = &told[0]["data"];
    assert_eq!((&data["action"], &data["verdict"]), (&json!("rollback"), &json!("rollback")));
    assert_eq!(data["overridden_by"], "ann");
    assert_eq!(data["override_reason"], "it is on fire");
    let row = &view["deliveries"][0];
    assert_eq!((&row["state"], &row["action"]), (&json!("delivered"), &json!("rollback")));
    assert!(row["does"].is_string() && row["delivered_at"].is_f64(), "{row}");
    let small = api.verdict(&id).await;
    assert_eq!((&small["verdict"], &small["reason"]), (&json!("rollback"), &json!(reason)));
    let (_, timeline) = api.get(&format!("/v1/analyses/{id}/timeline")).await;
    let last = timeline["changes"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["kind"], &last["to"]), (&json!("intervention"), &json!("override")));
    let metrics = api.text("/metrics").await.1;
    for line in [
        "rollgate_verdicts_total{service=\"shop\",verdict=\"rollback\"} 1\n",
        "rollgate_analyses_overridden_total{service=\"shop\"} 1\n",
        "rollgate_analyses_running 0\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let store = place.house.path().join("rollgate.db");
    let said = async |args: &[&str]| {
        let output = command(&[args, &["--store", store.to_str().unwrap()]].concat()).await;
        String::from_utf8(output.stdout).unwrap()
    };
    let explained = said(&["explain", &id]).await;
    for words in [reason, "by hand", "overridden with rollback by ann: it is on fire"] {
        assert!(explained.contains(words), "{words:?} is not in\n{explained}");
    }
    let replayed = said(&["replay", &id]).await;
    for words in ["ann decided rollback: it is on fire", "same as when it was judged first"] {
        assert!(replayed.contains(words), "{words:?} is not in\n{replayed}");
    }
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_is_sent_again_and_that_is_on_record() {
    let away = Arc::new(Mutex::new(true));
    let gone = away.clone();
    let place = Place::new(Arc::new(move || {
        let status = if *gone.lock().unwrap() { StatusCode::GONE } else { StatusCode::OK };
        (Duration::ZERO, status)
    }));
    let (mut server, api) = place.house.start().await;
    let id = api.open(&place.order("one")).await;
    let (status, _) = api
        .post(&format!("/v1/analyses/{id}/override"), &verdict("promote", "it is a hotfix"))
        .await;
    assert_eq!(status, 200, "before its first look too");
    api.delivered(&id).await;
    let key = format!("{id}.deploys");
    let (status, detail) = api.get(&format!("/v1/deliveries/{key}")).await;
    assert_eq!((status, &detail["state"]), (200, &json!("refused")), "{detail}");
    let attempt = &detail["last_attempts"][0];
    assert_eq!((&attempt["number"], &attempt["outcome"]), (&json!(1), &json!("refused")));
    assert!(attempt["answer"].as_str().unwrap().contains("410"), "{attempt}");
    *away.lock().unwrap() = false;
    let path = format!("/v1/deliveries/{key}/resend");
    let by = json!({ "who": "ann", "why": "the receiver is back" });
    for (path, body, status) in [
        (path.as_str(), json!({}), 422),
        ("/v1/deliveries/none/resend", by.clone(), 404),
        (path.as_str(), json!({ "when": "now" }), 400),
    ] {
        let (found, problem) = api.post(path, &body).await;
        assert_eq!(found, status, "{problem}");
    }
    let (status, detail) = api.post(&path, &by).await;
    assert_eq!((status, &detail["key"]), (200, &json!(key)), "{detail}");
    let view = api.delivered(&id).await;
    assert_eq!(view["deliveries"][0]["state"], "delivered", "{view}");
    assert_eq!(view["deliveries"][0]["attempts"], 2);
    let done: Vec<&Value> = view["interventions"].as_array().unwrap().iter().collect();
    assert_eq!((done.len(), &done[1]["what"]), (2, &json!("resend")));
    assert_eq!(
        (&done[1]["why"], &done[1]["delivery"]),
        (&json!("the receiver is back"), &json!(key))
    );
    assert_eq!(place.told(&key).len(), 2);
    let (_, all) = api.get("/v1/deliveries?state=delivered&mechanism=deploys&limit=1").await;
    assert_eq!((&all["deliveries"][0]["key"], &all["next"]), (&json!(key), &Value::Null));
    let (_, none) = api.get(&format!("/v1/deliveries?state=dead&analysis={id}")).await;
    assert_eq!(none["deliveries"], json!([]));
    for query in ["state=asleep", "limit=0", "after=x", "colour=red"] {
        let (status, problem) = api.get(&format!("/v1/deliveries?{query}")).await;
        assert!([400, 422].contains(&status), "{query}: {status} {problem}");
    }
    let line = "rollgate_deliveries{mechanism=\"deploys\",state=\"delivered\"} 1\n";
    eventually("a count", async || api.text("/metrics").await.1.contains(line).then_some(())).await;
    assert!(server.terminate().await.success());
}

/// A kill between any two steps of an override leaves all of it or nothing: a verdict with its record
/// and its delivery, or an analysis that goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_leave_an_override_whole_or_undone() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let place = Place::new(kind());
    let (mut ids, mut answered) = (Vec::new(), 0);
    for round in 0..KILLS {
        let (mut server, api) = place.house.start().await;
        let id = api.open(&place.order(&round.to_string())).await;
        let path = format!("/v1/analyses/{id}/override");
        let body = verdict("rollback", &format!("round {round}"));
        let asking = tokio::spawn(async move { api.try_post(&path, &body).await });
        tokio::time::sleep(Duration::from_micros(chance.random_range(0..12_000))).await;
        server.kill();
        let answer = asking.await.unwrap();
        assert!(answer.as_ref().is_none_or(|(status, _)| *status == 200), "{answer:?}");
        answered += usize::from(answer.is_some());
        ids.push((id, answer.is_some()));
    }
    let path = place.house.path().join("rollgate.db");
    let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    let mut undone = Vec::new();
    for (id, is_answered) in &ids {
        let stored = store.analysis(id).await.unwrap().unwrap();
        let interventions = store.interventions(id).await.unwrap();
        let deliveries = store.deliveries(id).await.unwrap();
        match stored.state {
            StoredState::Running => {
                assert!(!is_answered, "what was answered stands");
                assert_eq!((interventions.len(), deliveries.len()), (0, 0));
                undone.push(id.clone());
            }
            StoredState::Finished => {
                assert_eq!((interventions.len(), deliveries.len()), (1, 1));
                assert!(matches!(&interventions[0].deed, Deed::Override { .. }));
                assert_eq!(stored.verdict.as_deref(), Some("rollback"));
            }
            StoredState::Cancelled => panic!("nobody cancelled {id}"),
        }
    }
    store.close().await;
    println!("{} undone, {answered} answered", undone.len());
    let (mut server, api) = place.house.start().await;
    for id in &undone {
        let again = verdict("rollback", "again");
        let (status, view) = api.post(&format!("/v1/analyses/{id}/override"), &again).await;
        assert_eq!(status, 200, "{view}");
    }
    for (id, _) in &ids {
        let view = api.delivered(id).await;
        assert_eq!(view["interventions"].as_array().unwrap().len(), 1, "{view}");
    }
    assert!(server.terminate().await.success());
    let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    assert_eq!(store.list(Filter { limit: 99, ..Filter::default() }).await.unwrap().len(), KILLS);
    for (id, _) in &ids {
        let rows = store.deliveries(id).await.unwrap();
        assert_eq!((rows.len(), rows[0].state), (1, DeliveryState::Delivered));
        assert!(!place.told(&rows[0].new.key).is_empty());
    }
    assert_eq!(place.postbox.kept().len(), KILLS, "one key for each");
    store.close().await;
}
