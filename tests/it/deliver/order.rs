//! Order and states on the way out: of one analysis a later event never overtakes an earlier one, what
//! a mechanism does nothing on is told apart, and everything that was tried is on record.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rollgate::{
    deliver::{Attempt, Mechanism, Outcome, Parcel, payload::DeployAction, worker::WorkerOptions},
    engine::observation::Time,
    store::{
        Decision, DeliveryFilter, DeliveryState, NewDelivery, PAGE_MAX, Resent, Signed, Store,
    },
};
use tokio::sync::{Semaphore, mpsc};

use super::{
    receiver::{OK, PATIENCE, Receiver, real_clock},
    worker::{Bench, look, new, quick, tallied},
};

/// A receiver that says what comes and goes, and lets go one by one.
struct Door {
    said: mpsc::UnboundedSender<String>,
    leave: Semaphore,
}

impl Door {
    fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<String>) {
        let (said, heard) = mpsc::unbounded_channel();
        (Arc::new(Self { said, leave: Semaphore::new(0) }), heard)
    }
}

#[async_trait]
impl Mechanism for Door {
    fn name(&self) -> &str {
        "door"
    }

    fn does(&self, _: DeployAction) -> Option<String> {
        Some("opens".to_owned())
    }

    async fn deliver(&self, parcel: &Parcel) -> Attempt {
        let _ = self.said.send(format!("{} begins", parcel.key));
        self.leave.acquire().await.expect("never closed").forget();
        let _ = self.said.send(format!("{} ends", parcel.key));
        Attempt::Delivered { answer: "200".to_owned() }
    }
}

/// A decision of an analysis: to go to a step, or the verdict.
async fn decide(bench: &Bench, id: &str, number: u64, advance_to: Option<usize>) {
    let at = real_clock()();
    let key = match advance_to {
        Some(step) => format!("{id}.step{step}.door"),
        None => format!("{id}.door"),
    };
    let (mechanism, action) = ("door".to_owned(), "rollback".to_owned());
    let deliveries = vec![NewDelivery { key, mechanism, action, body: "{}".to_owned() }];
    let decision = Some(Decision { at, advance_to, deliveries });
    bench.store.commit(vec![look(id, number, at, decision)]).await.expect("commits");
    bench.wake.notify_one();
}

async fn heard(door: &mut mpsc::UnboundedReceiver<String>) -> String {
    tokio::time::timeout(PATIENCE, door.recv()).await.expect("in time").expect("it lives")
}

#[tokio::test]
async fn a_rollback_waits_for_the_advance_that_is_under_way_and_nothing_overtakes() {
    let mut bench = Bench::new().await;
    let (door, mut said) = Door::new();
    bench.start(vec![door.clone()], quick(), real_clock());
    bench.store.create(new("a", Time(1))).await.expect("creates");
    bench.store.create(new("b", Time(1))).await.expect("creates");
    decide(&bench, "a", 1, Some(1)).await;
    assert_eq!(heard(&mut said).await, "a.step1.door begins");
    // The rollback is decided while the advance is on its way, and so is another analysis' verdict.
    decide(&bench, "a", 2, None).await;
    decide(&bench, "b", 1, None).await;
    assert_eq!(heard(&mut said).await, "b.door begins", "others do not wait");
    bench.wake.notify_one();
    // Both attempts may leave now; the rollback begins when the advance is over.
    door.leave.add_permits(3);
    let mut order = Vec::new();
    while order.len() < 4 {
        order.push(heard(&mut said).await);
    }
    let place = |word: &str| order.iter().position(|said| said == word).expect(word);
    assert!(place("a.step1.door ends") < place("a.door begins"), "{order:?}");
    assert!(place("a.door begins") < place("a.door ends"), "{order:?}");
    while bench.next().await.0 != "a.door" {}
    let rows = bench.store.deliveries("a").await.expect("reads");
    let states: Vec<_> = rows.iter().map(|row| row.state).collect();
    assert_eq!(states, [DeliveryState::Delivered; 2], "the advance arrived though taken back");
    bench.finish().await;
}

/// Maps every decision to nothing.
struct Idle;

#[async_trait]
impl Mechanism for Idle {
    fn name(&self) -> &str {
        "door"
    }

    fn does(&self, _: DeployAction) -> Option<String> {
        None
    }

    async fn deliver(&self, parcel: &Parcel) -> Attempt {
        panic!("{} has nothing to do", parcel.key)
    }
}

#[tokio::test]
async fn what_a_mechanism_does_nothing_on_is_no_attempt() {
    let mut bench = Bench::new().await;
    bench.start(vec![Arc::new(Idle)], quick(), real_clock());
    bench.store.create(new("a", Time(1))).await.expect("creates");
    let at = real_clock()();
    let body = serde_json::json!({
        "type": "rollgate.verdict.v1", "timestamp": "2023-11-14T22:13:20.500Z",
        "data": {
            "analysis": "a", "service": "shop", "canary_version": "v2", "baseline_version": "v1",
            "verdict": "inconclusive", "action": "hold", "reason": "no traffic", "rule": null,
            "decided_at": 1.5, "elapsed_secs": 61.0, "findings": [],
            "rules": { "name": "shop", "sha256": "00ff" },
        },
    });
    let body = body.to_string();
    let (key, mechanism, action) = ("a.door".to_owned(), "door".to_owned(), "hold".to_owned());
    let deliveries = vec![NewDelivery { key, mechanism, action, body }];
    let decision = Some(Decision { at, advance_to: None, deliveries });
    bench.store.commit(vec![look("a", 1, at, decision)]).await.expect("commits");
    bench.wake.notify_one();
    let words = "nothing to do: door does nothing on hold".to_owned();
    assert_eq!(bench.next().await, ("a.door".to_owned(), Outcome::Nothing, words));
    let row = bench.store.delivery("a.door").await.expect("reads").expect("is there");
    assert_eq!((row.state, row.attempts), (DeliveryState::Nothing, 0));
    assert!(bench.store.attempts("a.door").await.expect("reads").is_empty());
    bench.finish().await;
}

#[tokio::test]
async fn what_was_delivered_is_sent_again_under_the_same_key() {
    let receiver = Receiver::start(&[OK]).await;
    let mut bench = Bench::new().await;
    bench.start(vec![Arc::new(receiver.webhook("hook"))], quick(), real_clock());
    bench.decide(1..2, &["hook"], real_clock()()).await;
    assert_eq!(bench.next().await.1, Outcome::Delivered);
    let by = Signed { who: "ann".to_owned(), why: "it lost it".to_owned(), at: real_clock()() };
    assert_eq!(bench.store.resend("a1.hook", &by).await.expect("answers"), Resent::Again);
    bench.wake.notify_one();
    assert_eq!(bench.next().await.1, Outcome::Delivered);
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].body, requests[1].body);
    assert_eq!(requests[0].headers["webhook-id"], requests[1].headers["webhook-id"]);
    assert_eq!(bench.store.attempts("a1.hook").await.expect("reads").len(), 2);
    bench.finish().await;
}

/// Fails at once, or never ends.
struct Bad(bool);

#[async_trait]
impl Mechanism for Bad {
    fn name(&self) -> &str {
        if self.0 { "fails" } else { "hangs" }
    }

    fn does(&self, _: DeployAction) -> Option<String> {
        Some("something".to_owned())
    }

    async fn deliver(&self, _: &Parcel) -> Attempt {
        if self.0 {
            Attempt::Failed { answer: "500".to_owned(), retry_after: None }
        } else {
            std::future::pending().await
        }
    }
}

#[tokio::test]
async fn broken_receivers_starve_nobody_and_each_delivery_is_recorded_once() {
    let receiver = Receiver::start(&[OK]).await;
    let mut bench = Bench::new().await;
    let now = real_clock()();
    let old = Time(now.0 - 60_000);
    bench.decide(0..400, &["fails", "hangs"], old).await;
    bench.decide(400..900, &["good"], now).await;
    let options = WorkerOptions { attempt_time_max: Duration::from_millis(500), ..quick() };
    let good = Arc::new(receiver.webhook("good"));
    let all: Vec<Arc<dyn Mechanism>> = vec![Arc::new(Bad(true)), Arc::new(Bad(false)), good];
    bench.start(all, options, real_clock());
    let mut delivered = 0;
    while delivered < 500 {
        delivered += usize::from(bench.next().await.1 == Outcome::Delivered);
    }
    assert_eq!(receiver.requests().len(), 500);
    let filter = DeliveryFilter {
        mechanism: Some("good".to_owned()),
        limit: PAGE_MAX,
        ..DeliveryFilter::default()
    };
    let rows = bench.store.list_deliveries(filter).await.expect("reads").rows;
    assert_eq!(rows.len(), 500);
    assert!(rows.iter().all(|row| row.state == DeliveryState::Delivered && row.attempts == 1));
    assert_eq!(tallied(&bench.store, DeliveryState::Pending).await, 800);
    bench.stop.cancel();
    bench.finish().await;
}
