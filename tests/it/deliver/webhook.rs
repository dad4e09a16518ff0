//! One attempt of the webhook mechanism, and its signature against an independent implementation.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rollgate::{
    deliver::{
        Attempt, Mechanism, Parcel, Setting,
        sign::{ID_HEADER, Keys, SIGNATURE_HEADER, Signed, TIMESTAMP_HEADER},
        webhook::{Webhook, WebhookOptions},
    },
    engine::observation::Time,
    outward::exchange::WORDS_BYTES_MAX,
    telemetry::secret::Secret,
};
use tokio::net::TcpListener;

use super::receiver::{
    ERROR, OK, PATIENCE, Receiver, Reply, Request, SECRET, TOKEN, options, real_clock, webhook,
};

fn parcel() -> Parcel {
    Parcel {
        key: "a1.hook".to_owned(),
        analysis: "a1".to_owned(),
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
    let [Request { headers, body, .. }] = &receiver.requests()[..] else { panic!("one request") };
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
        let (receiver, began) = (Receiver::start(&[reply]).await, Instant::now());
        let hook = webhook("hook", receiver.address, PATIENCE);
        assert_eq!(hook.deliver(&parcel()).await, expected);
        assert_eq!(receiver.requests().len(), 1);
        assert!(began.elapsed() < PATIENCE / 2, "the rest of a body was waited for");
        // Both sockets' buffers may fill, the rest must not have been read.
        let flooded = receiver.flooded.load(Ordering::SeqCst);
        assert!(flooded < 50_000_000, "{flooded} bytes of an answer were read");
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
    const { assert!(WORDS_BYTES_MAX >= 292) };
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
        let error =
            Webhook::new(options, &Setting::live(real_clock())).err().expect("refused").to_string();
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
