//! The outbox worker over a real store: retries, stops, slow receivers and failing disks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rollgate::{
    deliver::{
        Attempt, Clock, Ended, Mechanism, Outbox, Outcome, Parcel,
        payload::DeployAction,
        retry::Schedule,
        sign::ID_HEADER,
        worker::{Worker, WorkerOptions},
    },
    engine::observation::{Observation, Time},
    service::outbox::{parcel, record},
    signal::carry::Carry,
    store::{Decision, DeliveryState, Look, NewAnalysis, NewDelivery, Store, sqlite::SqliteStore},
    telemetry::Telemetry,
};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::receiver::{ERROR, OK, PATIENCE, Receiver, Reply, real_clock, webhook};

/// The store as the service adapts it, with a tap on what is recorded and errors on demand.
struct Tapped {
    store: SqliteStore,
    recorded: mpsc::UnboundedSender<(String, Outcome, String)>,
    due_failures: AtomicU32,
    record_failures: AtomicU32,
}

/// Fails as often as `failures` says.
fn fail(failures: &AtomicU32) -> anyhow::Result<()> {
    let left =
        failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    if left.is_ok() { anyhow::bail!("disk full") } else { Ok(()) }
}

#[async_trait]
impl Outbox for Tapped {
    async fn due(&self, now: Time, limit: u32) -> anyhow::Result<Vec<Parcel>> {
        fail(&self.due_failures)?;
        Ok(self.store.due(now, limit).await?.into_iter().map(parcel).collect())
    }

    async fn next_due(&self) -> anyhow::Result<Option<Time>> {
        Ok(self.store.next_due().await?)
    }

    async fn record(&self, ended: &[Ended]) -> anyhow::Result<()> {
        fail(&self.record_failures)?;
        let records: Vec<_> = ended.iter().map(record).collect();
        assert_eq!(self.store.record_attempts(&records).await?, [""; 0]);
        for one in ended {
            let _ = self.recorded.send((one.key.clone(), one.outcome, one.answer.clone()));
        }
        Ok(())
    }
}

/// A running worker over a store in memory.
pub(crate) struct Bench {
    pub(crate) store: SqliteStore,
    tapped: Arc<Tapped>,
    recorded: mpsc::UnboundedReceiver<(String, Outcome, String)>,
    pub(crate) stop: CancellationToken,
    pub(crate) wake: Arc<Notify>,
    telemetry: Telemetry,
    worker: Option<JoinHandle<()>>,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let store = SqliteStore::in_memory().await.expect("opens");
        let (sender, recorded) = mpsc::unbounded_channel();
        let tapped = Arc::new(Tapped {
            store: store.clone(),
            recorded: sender,
            due_failures: AtomicU32::new(0),
            record_failures: AtomicU32::new(0),
        });
        let (stop, wake) = (CancellationToken::new(), Arc::new(Notify::new()));
        Self { store, tapped, recorded, stop, wake, telemetry: Telemetry::new(), worker: None }
    }

    pub(crate) fn start(
        &mut self,
        mechanisms: Vec<Arc<dyn Mechanism>>,
        options: WorkerOptions,
        now: Clock,
    ) {
        let mechanisms = mechanisms.into_iter().map(|m| (m.name().to_owned(), m)).collect();
        let outbox = Arc::clone(&self.tapped) as Arc<dyn Outbox>;
        let worker = Worker::with_options(outbox, mechanisms, self.telemetry.clone(), now, options);
        self.worker = Some(tokio::spawn(worker.run(self.stop.clone(), Arc::clone(&self.wake))));
    }

    /// Ends an analysis per key and mechanism at a moment.
    pub(crate) async fn decide(
        &self,
        analyses: std::ops::Range<u32>,
        mechanisms: &[&str],
        at: Time,
    ) {
        let mut looks = Vec::new();
        for n in analyses {
            let id = format!("a{n}");
            self.store.create(new(&id, at)).await.expect("creates");
            let deliveries = mechanisms.iter().map(|mechanism| NewDelivery {
                key: format!("{id}.{mechanism}"),
                mechanism: (*mechanism).to_owned(),
                action: "rollback".to_owned(),
                body: "{}".to_owned(),
            });
            let deliveries = deliveries.collect();
            let decision = Some(Decision { at, advance_to: None, deliveries });
            looks.push(look(&id, 1, at, decision));
        }
        self.store.commit(looks).await.expect("commits");
        self.wake.notify_one();
    }

    pub(crate) async fn next(&mut self) -> (String, Outcome, String) {
        let next = tokio::time::timeout(PATIENCE, self.recorded.recv()).await;
        next.expect("in time").expect("the outbox lives")
    }

    pub(crate) async fn finish(mut self) {
        self.stop.cancel();
        let worker = self.worker.take().expect("was started");
        tokio::time::timeout(PATIENCE, worker).await.expect("in time").expect("no panic");
    }
}

pub(crate) fn new(id: &str, started: Time) -> NewAnalysis {
    NewAnalysis {
        id: id.to_owned(),
        idempotency_key: None,
        service: "shop".to_owned(),
        started,
        order: "{}".to_owned(),
        rules_name: "shop".to_owned(),
        rules_text: String::new(),
        calibration: None,
        past: None,
    }
}

pub(crate) fn look(id: &str, number: u64, at: Time, decision: Option<Decision>) -> Look {
    Look {
        analysis: id.to_owned(),
        look: number,
        observation: Observation { at, signals: vec![], canary_gap: None },
        carry: Carry::default(),
        report: "{}".to_owned(),
        verdict: "rollback".to_owned(),
        decision,
    }
}

/// How many deliveries are in a state.
pub(crate) async fn tallied(store: &SqliteStore, state: DeliveryState) -> u64 {
    let tallies = store.tally().await.expect("counts");
    tallies.iter().filter_map(|tally| tally.by_state.get(&state)).sum()
}

pub(crate) fn quick() -> WorkerOptions {
    let schedule = Schedule { base: Duration::from_millis(5), ..Schedule::default() };
    let outbox_wait = Duration::from_millis(5);
    WorkerOptions { schedule, outbox_wait, ..WorkerOptions::default() }
}

#[tokio::test]
async fn a_failure_is_tried_again_under_the_same_key() {
    let receiver = Receiver::start(&[ERROR, Reply::Breaks(""), ERROR, OK]).await;
    let mut bench = Bench::new().await;
    bench.start(vec![Arc::new(receiver.webhook("hook"))], quick(), real_clock());
    bench.decide(1..2, &["hook"], real_clock()()).await;
    for _ in 0..3 {
        assert!(matches!(bench.next().await.1, Outcome::Retry(_)));
    }
    assert_eq!(bench.next().await.1, Outcome::Delivered);
    let keys: Vec<_> =
        receiver.requests().iter().map(|request| request.headers[ID_HEADER].clone()).collect();
    assert_eq!(keys, ["a1.hook"; 4]);
    let rows = bench.store.deliveries("a1").await.expect("reads");
    assert_eq!((rows[0].state, rows[0].attempts), (DeliveryState::Delivered, 4));
    let metrics = bench.telemetry.render();
    for (outcome, count) in [("Failed", 3), ("Delivered", 1)] {
        let line = format!(
            "rollgate_delivery_attempts_total{{mechanism=\"hook\",outcome=\"{outcome}\"}} {count}"
        );
        assert!(metrics.contains(&line), "{metrics}");
    }
    bench.finish().await;
}

#[tokio::test]
async fn a_receiver_that_was_away_gets_the_verdict_once() {
    let away = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = away.local_addr().expect("bound");
    drop(away);
    let mut bench = Bench::new().await;
    bench.start(vec![Arc::new(webhook("hook", address, PATIENCE))], quick(), real_clock());
    bench.decide(1..2, &["hook"], real_clock()()).await;
    for _ in 0..3 {
        let (_, outcome, answer) = bench.next().await;
        assert!(matches!(outcome, Outcome::Retry(_)) && answer.contains("refused"), "{answer}");
    }
    let receiver = Receiver::on(TcpListener::bind(address).await.expect("still free"), &[OK]);
    while bench.next().await.1 != Outcome::Delivered {}
    assert_eq!(receiver.requests().len(), 1);
    bench.finish().await;
}

#[tokio::test]
async fn what_is_gone_is_refused_and_retry_after_is_kept() {
    let busy = "HTTP/1.1 503 Busy\r\nretry-after: 100\r\ncontent-length: 0\r\n\r\n";
    let gone = Receiver::start(&[Reply::Says("HTTP/1.1 410 Gone\r\n\r\n")]).await;
    let busy = Receiver::start(&[Reply::Says(busy)]).await;
    let mut bench = Bench::new().await;
    bench.start(
        vec![Arc::new(gone.webhook("gone")), Arc::new(busy.webhook("busy"))],
        quick(),
        real_clock(),
    );
    let at = real_clock()();
    bench.decide(1..2, &["gone", "busy", "unknown"], at).await;
    let mut outcomes = BTreeMap::new();
    while outcomes.len() < 3 {
        let (key, outcome, answer) = bench.next().await;
        outcomes.insert(key, (outcome, answer));
    }
    assert_eq!(outcomes["a1.gone"].0, Outcome::Refused);
    let Outcome::Retry(next) = outcomes["a1.busy"].0 else { panic!("{outcomes:?}") };
    assert!(next.since(at) >= Duration::from_secs(100), "{next:?}");
    assert_eq!(outcomes["a1.unknown"].1, "no mechanism unknown is configured");
    assert!(matches!(outcomes["a1.unknown"].0, Outcome::Retry(_)));
    bench.finish().await;
}

#[tokio::test]
async fn after_the_last_retry_a_delivery_is_dead() {
    let receiver = Receiver::start(&[ERROR]).await;
    let mut bench = Bench::new().await;
    let clock = Arc::new(AtomicI64::new(1_000_000));
    let ticking = Arc::clone(&clock);
    let now: Clock = Arc::new(move || Time(ticking.load(Ordering::SeqCst)));
    bench.start(vec![Arc::new(receiver.webhook("hook"))], quick(), now);
    bench.decide(1..2, &["hook"], Time(1_000_000)).await;
    assert!(matches!(bench.next().await.1, Outcome::Retry(_)));
    clock.fetch_add(24 * 3600 * 1000, Ordering::SeqCst);
    bench.wake.notify_one();
    assert_eq!(bench.next().await.1, Outcome::Dead);
    assert_eq!(tallied(&bench.store, DeliveryState::Dead).await, 1);
    bench.finish().await;
}

#[tokio::test]
async fn a_store_that_fails_loses_nothing() {
    let receiver = Receiver::start(&[OK]).await;
    let mut bench = Bench::new().await;
    bench.tapped.due_failures.store(2, Ordering::SeqCst);
    bench.tapped.record_failures.store(3, Ordering::SeqCst);
    bench.decide(1..2, &["hook"], real_clock()()).await;
    bench.start(vec![Arc::new(receiver.webhook("hook"))], quick(), real_clock());
    assert_eq!(bench.next().await.1, Outcome::Delivered);
    let errors = bench.telemetry.render();
    assert!(errors.contains("rollgate_outbox_errors_total 5"), "{errors}");
    assert_eq!(receiver.requests().len(), 1, "an outcome was not kept until it was recorded");
    bench.finish().await;
}

#[tokio::test]
async fn a_store_that_is_gone_does_not_hold_up_the_stop_and_the_row_stays() {
    let receiver = Receiver::start(&[OK]).await;
    let mut bench = Bench::new().await;
    bench.tapped.record_failures.store(u32::MAX, Ordering::SeqCst);
    bench.decide(1..2, &["hook"], real_clock()()).await;
    let (gate, mut began) = Gate::new("hook", 1);
    bench.start(vec![gate], quick(), real_clock());
    began.recv().await.expect("under way");
    let store = bench.store.clone();
    bench.finish().await;
    assert_eq!(tallied(&store, DeliveryState::Pending).await, 1);

    let mut next = Bench { store: store.clone(), ..Bench::new().await };
    next.tapped = Arc::new(Tapped {
        store,
        recorded: next.tapped.recorded.clone(),
        due_failures: AtomicU32::new(0),
        record_failures: AtomicU32::new(0),
    });
    next.start(vec![Arc::new(receiver.webhook("hook"))], quick(), real_clock());
    assert_eq!(
        next.next().await,
        ("a1.hook".to_owned(), Outcome::Delivered, "200 OK: thanks".to_owned())
    );
    next.finish().await;
}

/// A mechanism that counts what is under way and waits for leave.
struct Gate {
    name: &'static str,
    leave: tokio::sync::Semaphore,
    began: mpsc::UnboundedSender<String>,
    under_way: Mutex<BTreeSet<String>>,
    most: AtomicU32,
}

impl Gate {
    fn new(name: &'static str, leave: usize) -> (Arc<Self>, mpsc::UnboundedReceiver<String>) {
        let (began, receiver) = mpsc::unbounded_channel();
        let (under_way, most) = (Mutex::default(), AtomicU32::new(0));
        let leave = tokio::sync::Semaphore::new(leave);
        (Arc::new(Self { name, leave, began, under_way, most }), receiver)
    }
}

#[async_trait]
impl Mechanism for Gate {
    fn name(&self) -> &str {
        self.name
    }

    fn does(&self, _: DeployAction) -> Option<String> {
        Some("something".to_owned())
    }

    async fn deliver(&self, parcel: &Parcel) -> Attempt {
        {
            let mut under_way = self.under_way.lock().expect("no panic");
            assert!(under_way.insert(parcel.key.clone()), "{} is under way twice", parcel.key);
            self.most.fetch_max(under_way.len() as u32, Ordering::SeqCst);
        }
        let _ = self.began.send(parcel.key.clone());
        self.leave.acquire().await.expect("never closed").forget();
        self.under_way.lock().expect("no panic").remove(&parcel.key);
        Attempt::Delivered { answer: String::new() }
    }
}

#[tokio::test]
async fn a_slow_receiver_delays_nobody_else_and_a_key_is_under_way_once() {
    let mut bench = Bench::new().await;
    let (slow, mut began) = Gate::new("slow", 0);
    let (fast, _fast_began) = Gate::new("fast", 10_000);
    let now = real_clock()();
    // The slow one's rows are all older, and many times what one page holds.
    bench.decide(0..500, &["slow"], Time(now.0 - 60_000)).await;
    bench.decide(500..800, &["fast"], now).await;
    bench.start(vec![slow.clone(), fast], quick(), real_clock());
    let mut fast_ones = BTreeSet::new();
    while fast_ones.len() < 300 {
        let (key, outcome, _) = bench.next().await;
        assert!(key.ends_with(".fast") && outcome == Outcome::Delivered, "{key}");
        assert!(fast_ones.insert(key));
        bench.wake.notify_one();
    }
    let concurrency = WorkerOptions::default().concurrency;
    assert_eq!(slow.most.load(Ordering::SeqCst), concurrency);
    for _ in 0..concurrency {
        began.try_recv().expect("under way");
    }
    began.try_recv().expect_err("no more than that");
    slow.leave.add_permits(500);
    let mut slow_ones = BTreeSet::new();
    while slow_ones.len() < 500 {
        assert!(slow_ones.insert(bench.next().await.0));
    }
    assert_eq!(slow.most.load(Ordering::SeqCst), concurrency);
    bench.finish().await;
}

#[tokio::test]
async fn a_thousand_pending_are_drained_each_once() {
    let receiver = Receiver::start(&[OK]).await;
    let mut bench = Bench::new().await;
    bench.decide(0..1000, &["hook"], real_clock()()).await;
    bench.start(vec![Arc::new(receiver.webhook("hook"))], quick(), real_clock());
    for _ in 0..1000 {
        assert_eq!(bench.next().await.1, Outcome::Delivered);
    }
    let keys: BTreeSet<_> =
        receiver.requests().iter().map(|request| request.headers[ID_HEADER].clone()).collect();
    assert_eq!((receiver.requests().len(), keys.len()), (1000, 1000));
    assert_eq!(bench.store.next_due().await.expect("reads"), None);
    bench.finish().await;
}

#[tokio::test]
async fn a_stop_finishes_what_is_under_way_and_begins_nothing() {
    let mut bench = Bench::new().await;
    let (gate, mut began) = Gate::new("gate", 0);
    bench.decide(0..10, &["gate"], real_clock()()).await;
    bench.start(vec![gate.clone()], quick(), real_clock());
    let concurrency = WorkerOptions::default().concurrency as usize;
    for _ in 0..concurrency {
        began.recv().await.expect("under way");
    }
    bench.stop.cancel();
    gate.leave.add_permits(10);
    let store = bench.store.clone();
    bench.finish().await;
    let pending = tallied(&store, DeliveryState::Pending).await;
    assert_eq!(pending as usize, 10 - concurrency);
}

/// A mechanism with a bug.
struct Broken(&'static str);

#[async_trait]
impl Mechanism for Broken {
    fn name(&self) -> &str {
        self.0
    }

    fn does(&self, _: DeployAction) -> Option<String> {
        Some("something".to_owned())
    }

    async fn deliver(&self, _: &Parcel) -> Attempt {
        if self.0 == "panics" { panic!("a bug") } else { std::future::pending().await }
    }
}

#[tokio::test]
async fn a_mechanism_with_a_bug_is_a_failed_attempt() {
    let mut bench = Bench::new().await;
    let options = WorkerOptions { attempt_time_max: Duration::from_millis(50), ..quick() };
    let mechanisms: Vec<Arc<dyn Mechanism>> =
        vec![Arc::new(Broken("panics")), Arc::new(Broken("sleeps"))];
    bench.start(mechanisms, options, real_clock());
    bench.decide(1..2, &["panics", "sleeps"], real_clock()()).await;
    let mut answers = BTreeMap::new();
    while answers.len() < 2 {
        let (key, outcome, answer) = bench.next().await;
        assert!(matches!(outcome, Outcome::Retry(_)));
        answers.insert(key, answer);
    }
    assert_eq!(answers["a1.panics"], "the mechanism panicked: a bug");
    assert_eq!(answers["a1.sleeps"], "no end after 0.05 s");
    bench.finish().await;
}
