//! Delivery over loopback: the worker over a real store, webhooks against receivers that behave as
//! badly as receivers do.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use rollgate::{
    deliver::{
        Attempt, Clock, Mechanism, Outbox, Outcome, Parcel,
        retry::Schedule,
        sign::{ID_HEADER, Keys, SIGNATURE_HEADER, Signed, TIMESTAMP_HEADER},
        webhook::{ANSWER_BYTES_MAX, Webhook, WebhookOptions},
        worker::{Worker, WorkerOptions},
    },
    engine::observation::{Observation, Time},
    signal::carry::Carry,
    store::{
        AttemptRecord, Decision, DeliveryState, Look, NewAnalysis, NewDelivery, Store,
        StoredDelivery, sqlite::SqliteStore,
    },
    telemetry::{Telemetry, secret::Secret},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const TOKEN: &str = "Bearer a-very-secret-token";
/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

fn real_clock() -> Clock {
    Arc::new(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        Time(now.as_millis() as i64)
    })
}

/// What a receiver does with a request.
#[derive(Clone)]
enum Reply {
    Says(&'static str),
    /// Sends this and keeps the connection open for ever.
    Hangs(&'static str),
    /// Sends this and closes although more was promised.
    Breaks(&'static str),
    /// Promises and sends 100 MB.
    Floods,
    /// Repeats the request's secrets.
    Echoes,
}

const OK: Reply = Reply::Says("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nthanks");
const ERROR: Reply = Reply::Says("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n");

/// One received request.
#[derive(Clone, Debug)]
struct Request {
    headers: BTreeMap<String, String>,
    body: String,
}

/// A receiver on a free port; the last reply is repeated.
struct Receiver {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    async fn start(replies: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::on(listener, replies)
    }

    fn on(listener: TcpListener, replies: &[Reply]) -> Self {
        let address = listener.local_addr().expect("bound");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, mut replies) = (Arc::clone(&requests), VecDeque::from(replies.to_vec()));
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let reply = replies[0].clone();
                if replies.len() > 1 {
                    replies.pop_front();
                }
                let seen = Arc::clone(&seen);
                open.spawn(async move {
                    let request = read_request(&mut stream).await?;
                    seen.lock().expect("no panic").push(request.clone());
                    answer(stream, reply, &request).await
                });
            }
        });
        Self { address, requests, task }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }

    fn webhook(&self, name: &str) -> Webhook {
        webhook(name, self.address, Duration::from_secs(5))
    }
}

async fn read_request(stream: &mut TcpStream) -> std::io::Result<Request> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let headers: BTreeMap<String, String> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers["content-length"].parse().expect("a number");
    while bytes.len() < head + 4 + length {
        stream.read_buf(&mut bytes).await?;
    }
    Ok(Request { headers, body: String::from_utf8_lossy(&bytes[head + 4..]).into_owned() })
}

async fn answer(mut stream: TcpStream, reply: Reply, request: &Request) -> std::io::Result<()> {
    match reply {
        Reply::Says(text) | Reply::Breaks(text) => stream.write_all(text.as_bytes()).await?,
        Reply::Hangs(text) => {
            stream.write_all(text.as_bytes()).await?;
            std::future::pending::<()>().await;
        }
        Reply::Floods => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
            stream.write_all(head).await?;
            for _ in 0..1000 {
                stream.write_all(&[b'x'; 100_000]).await?;
            }
        }
        Reply::Echoes => {
            let body = format!("{:?} {SECRET} /hook/token-in-the-path", request.headers);
            let head = format!("HTTP/1.1 400 Bad\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await?;
        }
    }
    stream.shutdown().await
}

fn options(name: &str, address: SocketAddr, timeout: Duration) -> WebhookOptions {
    WebhookOptions {
        name: name.to_owned(),
        url: Secret::new(format!("http://{address}/hook/token-in-the-path")),
        secrets: vec![Secret::new(SECRET)],
        headers: vec![("authorization".to_owned(), Secret::new(TOKEN))],
        timeout,
    }
}

fn webhook(name: &str, address: SocketAddr, timeout: Duration) -> Webhook {
    Webhook::new(options(name, address, timeout), real_clock()).expect("good options")
}

fn parcel() -> Parcel {
    Parcel {
        key: "a1.hook".to_owned(),
        mechanism: "hook".to_owned(),
        body: r#"{"type":"rollgate.verdict.v1","ä":1}"#.to_owned(),
        attempts: 0,
        created: real_clock()(),
    }
}

#[tokio::test]
async fn a_receiver_that_follows_standard_webhooks_accepts_the_signature() {
    let receiver = Receiver::start(&[OK]).await;
    let attempt = receiver.webhook("hook").deliver(&parcel()).await;
    assert_eq!(attempt, Attempt::Delivered { answer: "200 OK: thanks".to_owned() });
    let [Request { headers, body }] = &receiver.requests()[..] else { panic!("one request") };
    assert_eq!(*body, parcel().body);
    assert_eq!(headers["authorization"], TOKEN);
    assert_eq!(headers["content-type"], "application/json");

    let oracle = standardwebhooks::Webhook::new(SECRET).expect("a good secret");
    let mut map = reqwest_headers(headers);
    oracle.verify(body.as_bytes(), &map).expect("the oracle accepts it");
    map.insert(ID_HEADER, "another".parse().expect("a header"));
    oracle.verify(body.as_bytes(), &map).expect_err("and is no pushover");

    let signed = Signed {
        id: &headers[ID_HEADER],
        timestamp: &headers[TIMESTAMP_HEADER],
        signature: &headers[SIGNATURE_HEADER],
    };
    let keys = Keys::new(&[Secret::new(SECRET)]).expect("a good secret");
    assert_eq!(keys.verify(signed, body.as_bytes(), real_clock()()), Ok(()));
}

fn reqwest_headers(headers: &BTreeMap<String, String>) -> reqwest::header::HeaderMap {
    let pairs = headers.iter().map(|(name, value)| {
        let name = reqwest::header::HeaderName::try_from(name).expect("a name");
        (name, value.parse().expect("a value"))
    });
    pairs.collect()
}

#[test]
fn signatures_equal_those_of_the_oracle() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    for _ in 0..200 {
        let mut word = |bytes: usize| -> String {
            (0..bytes).map(|_| rand::RngExt::random_range(&mut random, ' '..'~')).collect()
        };
        let (secret, id, body) = (word(30), word(9), word(40));
        let at = Time(1_700_000_000_000 + i64::from(rand::RngExt::random::<i32>(&mut random)));
        let raw = secret.clone().into_bytes();
        let oracle = standardwebhooks::Webhook::from_bytes(raw).expect("any bytes");
        let expected = oracle.sign(&id, at.0.div_euclid(1000), body.as_bytes()).expect("signs");
        let keys = Keys::new(&[Secret::new(secret)]).expect("long enough");
        assert_eq!(keys.sign(&id, at, body.as_bytes()), expected);
    }
}

#[tokio::test]
async fn each_answer_means_what_it_says() {
    let check = async |reply: Reply, expected: Attempt| {
        let receiver = Receiver::start(&[reply]).await;
        assert_eq!(receiver.webhook("hook").deliver(&parcel()).await, expected);
        assert_eq!(receiver.requests().len(), 1);
    };
    let failed = |answer: &str, secs: Option<u64>| Attempt::Failed {
        answer: answer.to_owned(),
        retry_after: secs.map(Duration::from_secs),
    };
    let delivered = |answer: &str| Attempt::Delivered { answer: answer.to_owned() };
    check(Reply::Says("HTTP/1.1 204 No Content\r\n\r\n"), delivered("204 No Content")).await;
    check(
        Reply::Says("HTTP/1.1 410 Gone\r\ncontent-length: 5\r\n\r\nnever"),
        Attempt::Refused { answer: "410 Gone: never".to_owned() },
    )
    .await;
    check(ERROR, failed("500 Internal Server Error", None)).await;
    let busy = "HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
    check(Reply::Says(busy), failed("503 Service Unavailable", Some(7))).await;
    let busy = "HTTP/1.1 429 Slow\r\nretry-after: soon\r\ncontent-length: 2\r\n\r\n\r\n";
    check(Reply::Says(busy), failed("429 Too Many Requests", None)).await;
    let moved = "HTTP/1.1 307 Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n";
    check(Reply::Says(moved), failed("307 Temporary Redirect", None)).await;
    // The status decides, whatever becomes of the body.
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\nhalf";
    check(Reply::Breaks(half), delivered("200 OK: half")).await;
    check(Reply::Hangs(half), delivered("200 OK: half")).await;
    check(Reply::Floods, delivered(&format!("200 OK: {}", "x".repeat(292)))).await;
    const { assert!(ANSWER_BYTES_MAX >= 292) };
}

#[tokio::test]
async fn no_answer_is_a_failure() {
    let check = async |reply: Reply, expected: &str| {
        let receiver = Receiver::start(&[reply]).await;
        let hook = webhook("hook", receiver.address, Duration::from_millis(200));
        let attempt = hook.deliver(&parcel()).await;
        let Attempt::Failed { answer, retry_after: None } = &attempt else { panic!("{attempt:?}") };
        assert!(answer.contains(expected) && !answer.contains("token"), "{answer}");
    };
    check(Reply::Hangs(""), "timed out").await;
    check(Reply::Hangs("HTTP/1.1 200"), "timed out").await;
    check(Reply::Breaks(""), "connection closed").await;
    check(Reply::Breaks("SSH-2.0-OpenSSH\r\n\r\n"), "invalid HTTP version").await;
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = closed.local_addr().expect("bound");
    drop(closed);
    let attempt = webhook("hook", address, PATIENCE).deliver(&parcel()).await;
    let Attempt::Failed { answer, .. } = &attempt else { panic!("{attempt:?}") };
    assert!(answer.contains("refused") && !answer.contains("token"), "{answer}");
}

#[tokio::test]
async fn secrets_are_not_repeated() {
    let receiver = Receiver::start(&[Reply::Echoes]).await;
    let Attempt::Failed { answer, .. } = receiver.webhook("hook").deliver(&parcel()).await else {
        panic!("400 is a failure")
    };
    assert!(answer.contains("[redacted]"), "{answer}");
    let shown = format!("{answer} {:?}", options("hook", receiver.address, PATIENCE));
    for word in [SECRET, TOKEN, "token-in-the-path"] {
        assert!(!shown.contains(word), "{shown}");
    }
}

#[test]
fn bad_options_are_refused_without_showing_them() {
    let address = "127.0.0.1:1".parse().expect("an address");
    let check = |change: &dyn Fn(&mut WebhookOptions), expected: &str| {
        let mut options = options("deploy", address, PATIENCE);
        change(&mut options);
        let error = Webhook::new(options, real_clock()).err().expect("refused").to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    };
    let url = |url: &'static str| move |o: &mut WebhookOptions| o.url = Secret::new(url);
    check(&url("hunter2"), "webhook deploy: the url is not one");
    check(&url("ftp://hunter2/"), "webhook deploy: the url begins with ftp:");
    check(&|o| o.secrets.clear(), "webhook deploy: no signing secret");
    check(&|o| o.secrets = vec![Secret::new("hunter2")], "webhook deploy: signing secret 1");
    let header = |name: &'static str, value: &'static str| {
        move |o: &mut WebhookOptions| o.headers = vec![(name.to_owned(), Secret::new(value))]
    };
    check(&header("Webhook-Id", "1"), "webhook deploy: header Webhook-Id is set by rollgate");
    check(&header("a b", "1"), "webhook deploy: header a b is not a header name");
    check(&header("x", "hunter2\n"), "webhook deploy: header x has a value with a control");
}

/// The store as the service adapts it, with a tap on what is recorded and errors on demand.
struct Tapped {
    store: SqliteStore,
    recorded: mpsc::UnboundedSender<(String, Outcome, String)>,
    failures: AtomicU32,
}

impl Tapped {
    fn fail(&self) -> anyhow::Result<()> {
        let left = self
            .failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { anyhow::bail!("disk full") } else { Ok(()) }
    }
}

#[async_trait]
impl Outbox for Tapped {
    async fn due(&self, now: Time, limit: u32) -> anyhow::Result<Vec<Parcel>> {
        self.fail()?;
        let parcel = |row: StoredDelivery| Parcel {
            key: row.new.key,
            mechanism: row.new.mechanism,
            body: row.new.body,
            attempts: row.attempts,
            created: row.created,
        };
        Ok(self.store.due(now, limit).await?.into_iter().map(parcel).collect())
    }

    async fn next_due(&self) -> anyhow::Result<Option<Time>> {
        Ok(self.store.next_due().await?)
    }

    async fn record(&self, key: &str, outcome: Outcome, answer: &str) -> anyhow::Result<()> {
        self.fail()?;
        let (state, next_due) = match outcome {
            Outcome::Delivered => (DeliveryState::Delivered, Time(0)),
            Outcome::Refused => (DeliveryState::Refused, Time(0)),
            Outcome::Retry(at) => (DeliveryState::Pending, at),
            Outcome::Dead => (DeliveryState::Dead, Time(0)),
        };
        let attempt = AttemptRecord { state, next_due, answer: answer.to_owned() };
        self.store.record_attempt(key, attempt).await?;
        let _ = self.recorded.send((key.to_owned(), outcome, answer.to_owned()));
        Ok(())
    }
}

/// A running worker over a store in memory.
struct Bench {
    store: SqliteStore,
    tapped: Arc<Tapped>,
    recorded: mpsc::UnboundedReceiver<(String, Outcome, String)>,
    stop: CancellationToken,
    wake: Arc<Notify>,
    telemetry: Telemetry,
    worker: Option<JoinHandle<()>>,
}

impl Bench {
    async fn new() -> Self {
        let store = SqliteStore::in_memory().await.expect("opens");
        let (sender, recorded) = mpsc::unbounded_channel();
        let failures = AtomicU32::new(0);
        let tapped = Arc::new(Tapped { store: store.clone(), recorded: sender, failures });
        let (stop, wake) = (CancellationToken::new(), Arc::new(Notify::new()));
        Self { store, tapped, recorded, stop, wake, telemetry: Telemetry::new(), worker: None }
    }

    fn start(&mut self, mechanisms: Vec<Arc<dyn Mechanism>>, options: WorkerOptions, now: Clock) {
        let mechanisms = mechanisms.into_iter().map(|m| (m.name().to_owned(), m)).collect();
        let outbox = Arc::clone(&self.tapped) as Arc<dyn Outbox>;
        let worker = Worker::with_options(outbox, mechanisms, self.telemetry.clone(), now, options);
        self.worker = Some(tokio::spawn(worker.run(self.stop.clone(), Arc::clone(&self.wake))));
    }

    /// Ends an analysis per key and mechanism at a moment.
    async fn decide(&self, analyses: std::ops::Range<u32>, mechanisms: &[&str], at: Time) {
        let mut looks = Vec::new();
        for n in analyses {
            let id = format!("a{n}");
            let new = NewAnalysis {
                id: id.clone(),
                idempotency_key: None,
                service: "shop".to_owned(),
                started: at,
                order: "{}".to_owned(),
                rules_name: "shop".to_owned(),
                rules_text: String::new(),
            };
            self.store.create(new).await.expect("creates");
            let deliveries = mechanisms.iter().map(|mechanism| NewDelivery {
                key: format!("{id}.{mechanism}"),
                mechanism: (*mechanism).to_owned(),
                body: "{}".to_owned(),
            });
            looks.push(Look {
                analysis: id.clone(),
                look: 1,
                observation: Observation { at, signals: vec![] },
                carry: Carry::default(),
                report: "{}".to_owned(),
                verdict: "rollback".to_owned(),
                decision: Some(Decision { at, deliveries: deliveries.collect() }),
            });
        }
        self.store.commit(looks).await.expect("commits");
        self.wake.notify_one();
    }

    async fn next(&mut self) -> (String, Outcome, String) {
        let next = tokio::time::timeout(PATIENCE, self.recorded.recv()).await;
        next.expect("in time").expect("the outbox lives")
    }

    async fn finish(mut self) {
        self.stop.cancel();
        let worker = self.worker.take().expect("was started");
        tokio::time::timeout(PATIENCE, worker).await.expect("in time").expect("no panic");
    }
}

fn quick() -> WorkerOptions {
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
    assert_eq!(bench.store.delivery_counts().await.expect("counts").dead, 1);
    bench.finish().await;
}

#[tokio::test]
async fn a_store_that_fails_loses_nothing() {
    let receiver = Receiver::start(&[OK]).await;
    let mut bench = Bench::new().await;
    bench.tapped.failures.store(5, Ordering::SeqCst);
    bench.decide(1..2, &["hook"], real_clock()()).await;
    bench.start(vec![Arc::new(receiver.webhook("hook"))], quick(), real_clock());
    assert_eq!(bench.next().await.1, Outcome::Delivered);
    let errors = bench.telemetry.render();
    assert!(errors.contains("rollgate_outbox_errors_total 5"), "{errors}");
    bench.finish().await;
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
    let pending = store.delivery_counts().await.expect("counts").pending;
    assert_eq!(pending as usize, 10 - concurrency);
}

/// A mechanism with a bug.
struct Broken(&'static str);

#[async_trait]
impl Mechanism for Broken {
    fn name(&self) -> &str {
        self.0
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
