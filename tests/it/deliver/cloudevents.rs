//! The mechanism `cloudevents` against the text of its specification.

use rollgate::deliver::{
    Mechanism,
    cloudevents::{CloudEvents, CloudEventsOptions, MAPPING, Mode, SOURCE_DEFAULT},
    payload::DeployAction,
    sample,
};
use serde_json::{Value, json};

use super::receiver::{
    NOW, OK, RELEASE, Receiver, Reply, decided, delivered, failed, parcel, peer, refused, setting,
};

fn cloudevents(receiver: &Receiver, mode: Mode) -> CloudEvents {
    let peer = peer("broker", receiver.address, "/events");
    let source = "https://rollgate.example.org".to_owned();
    let options = CloudEventsOptions { peer, mode, source, mapping: MAPPING };
    CloudEvents::new(options, &setting()).expect("good options")
}

/// HTTP protocol binding 1.0.2, section 3.1: attributes in headers, the data as the body.
#[tokio::test]
async fn binary_mode_puts_attributes_into_headers() {
    let receiver = Receiver::start(&[OK]).await;
    let parcel = decided(DeployAction::Rollback);
    let attempt = cloudevents(&receiver, Mode::Binary).deliver(&parcel).await;
    assert_eq!(attempt, delivered("200 OK: thanks"));
    let request = &receiver.requests()[0];
    assert_eq!(request.line, "POST /events");
    let ours: Vec<(&str, &str)> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| name.starts_with("ce-") || *name == "content-type")
        .collect();
    let expected = [
        ("ce-action", "rollback"),
        ("ce-analysis", "rehearsal"),
        ("ce-id", "a1.m"),
        ("ce-source", "https://rollgate.example.org"),
        ("ce-specversion", "1.0"),
        ("ce-subject", "shop"),
        ("ce-time", "2023-11-14T22:13:20.000Z"),
        ("ce-type", "rollgate.verdict.v1"),
        ("content-type", "application/json"),
    ];
    assert_eq!(ours, expected);
    let event: Value = serde_json::from_str(&parcel.body).expect("JSON");
    let body: Value = serde_json::from_str(&request.body).expect("JSON");
    assert_eq!(body, event["data"]);
}

/// JSON format 1.0.2: one object, required attributes, `data` as JSON.
#[tokio::test]
async fn structured_mode_is_one_object() {
    let receiver = Receiver::start(&[OK]).await;
    // What a later version of ours adds is passed on.
    let body = sample::rehearsal(DeployAction::Advance, &RELEASE, NOW);
    let body = body.replacen("\"data\":{", "\"data\":{\"added_later\":1.25,", 1);
    let attempt = cloudevents(&receiver, Mode::Structured).deliver(&parcel(body)).await;
    assert_eq!(attempt, delivered("200 OK: thanks"));
    let request = &receiver.requests()[0];
    assert_eq!(request.headers["content-type"], "application/cloudevents+json; charset=utf-8");
    let event: Value = serde_json::from_str(&request.body).expect("JSON");
    let keys: Vec<&str> =
        event.as_object().expect("an object").keys().map(String::as_str).collect();
    let expected = [
        "action",
        "analysis",
        "data",
        "datacontenttype",
        "id",
        "source",
        "specversion",
        "subject",
        "time",
        "type",
    ];
    assert_eq!(keys, expected);
    assert_eq!(event["type"], "rollgate.advance.v1");
    assert_eq!(event["datacontenttype"], "application/json");
    assert_eq!(event["data"]["step"], json!({ "index": 1, "of": 3, "weight": 0.5 }));
    assert_eq!(event["data"]["added_later"], 1.25);
}

#[tokio::test]
async fn a_test_event_is_marked_and_a_repetition_has_its_id() {
    let receiver = Receiver::start(&[OK]).await;
    let broker = cloudevents(&receiver, Mode::Binary);
    assert!(broker.about().takes_tests);
    let test = parcel(sample::test(&RELEASE, NOW));
    for _ in 0..2 {
        assert_eq!(broker.deliver(&test).await, delivered("200 OK: thanks"));
    }
    let requests = receiver.requests();
    assert_eq!(requests[0].headers["ce-type"], "rollgate.test.v1");
    assert_eq!(requests[0].headers["ce-action"], "test");
    assert_eq!(requests[0].headers["ce-id"], requests[1].headers["ce-id"]);
}

#[tokio::test]
async fn each_answer_means_what_the_table_says() {
    let check = async |head: &'static str, expected| {
        let receiver = Receiver::start(&[Reply::Says(head)]).await;
        let attempt =
            cloudevents(&receiver, Mode::Binary).deliver(&decided(DeployAction::Hold)).await;
        assert_eq!(attempt, expected, "{head}");
    };
    check("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n", delivered("202 Accepted")).await;
    check("HTTP/1.1 204 No\r\n\r\n", delivered("204 No Content")).await;
    check("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", refused("410 Gone")).await;
    let media = "HTTP/1.1 415 No\r\ncontent-length: 0\r\n\r\n";
    check(media, refused("415 Unsupported Media Type")).await;
    let slow = "HTTP/1.1 429 Slow\r\nretry-after: 9\r\ncontent-length: 0\r\n\r\n";
    check(slow, failed("429 Too Many Requests", Some(9))).await;
    check("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", failed("401 Unauthorized", None)).await;
    let down = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
    check(down, failed("503 Service Unavailable", None)).await;
}

#[test]
fn a_source_is_a_reference() {
    let address = "127.0.0.1:1".parse().expect("an address");
    for source in ["", "two words", "über"] {
        let options = CloudEventsOptions {
            peer: peer("broker", address, "/"),
            mode: Mode::Binary,
            source: source.to_owned(),
            mapping: MAPPING,
        };
        let error = CloudEvents::new(options, &setting()).err().expect("refused").to_string();
        assert!(error.starts_with("cloudevents broker: source is"), "{error}");
        assert!(error.ends_with(&format!("such as {SOURCE_DEFAULT}")), "{error}");
    }
}
