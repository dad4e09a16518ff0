//! Webhooks to receivers with a shape of their own, and webhooks that are not signed.

use reqwest::Method;
use rollgate::deliver::{
    Attempt, Mechanism, Setting,
    mapping::Mapping,
    payload::DeployAction,
    sample,
    sign::{ID_HEADER, SIGNATURE_HEADER},
    webhook::{Shape, Webhook, WebhookOptions},
};

use super::receiver::{
    NOW, OK, PATIENCE, RELEASE, Receiver, decided, delivered, options, parcel, real_clock, setting,
};

fn webhook(receiver: &Receiver, shape: Shape) -> Result<Webhook, String> {
    let options = WebhookOptions { shape, ..options("own", receiver.address, PATIENCE) };
    Webhook::new(options, &Setting::live(real_clock())).map_err(|error| error.to_string())
}

/// What Jenkins' `buildWithParameters` takes: a form, with an `authorization` header.
#[tokio::test]
async fn a_form_for_a_receiver_that_cannot_verify() {
    let receiver = Receiver::start(&[OK]).await;
    let shape = Shape {
        method: Method::PUT,
        content_type: "application/x-www-form-urlencoded".to_owned(),
        body: Some("SERVICE={{ data.service }}&CAUSE={{ data.reason }}&KEY={{ key }}".to_owned()),
        sign: false,
    };
    let options = WebhookOptions {
        secrets: vec![],
        shape: shape.clone(),
        ..options("own", receiver.address, PATIENCE)
    };
    let own = Webhook::new(options, &setting()).expect("good options");
    assert_eq!(
        own.does(DeployAction::Rollback).as_deref(),
        Some("PUT the unsigned templated body")
    );
    assert!(!own.about().takes_tests, "it could start a build");
    let attempt = own.deliver(&decided(DeployAction::Rollback)).await;
    assert_eq!(attempt, delivered("200 OK: thanks"));
    let request = &receiver.requests()[0];
    assert_eq!(request.line, "PUT /hook/token-in-the-path");
    let body = "SERVICE=shop&CAUSE=a%20rehearsal%3A%20nothing%20was%20judged&KEY=a1.m";
    assert_eq!(request.body, body);
    assert_eq!(request.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(request.headers[ID_HEADER], "a1.m");
    assert!(!request.headers.contains_key(SIGNATURE_HEADER));
    let with_secrets = webhook(&receiver, shape).err().expect("refused");
    assert!(with_secrets.contains("expected none with `sign: false`"), "{with_secrets}");
}

/// What PagerDuty's Events API takes; the signature is that of the body that is sent.
#[tokio::test]
async fn a_templated_body_is_signed_as_it_is_sent() {
    let receiver = Receiver::start(&[OK]).await;
    let body = r#"{"routing_key": "R0", "event_action": "trigger", "dedup_key": {{ key }},
  "payload": {"summary": {{ data.service ~ ": " ~ data.reason }}, "source": "rollgate",
    "severity": {{ "critical" if data.action == "rollback" else "warning" }}}}"#;
    let shape = Shape { body: Some(body.to_owned()), ..Shape::default() };
    let own = webhook(&receiver, shape).expect("good options");
    own.deliver(&decided(DeployAction::Rollback)).await;
    let request = &receiver.requests()[0];
    let found: serde_json::Value = serde_json::from_str(&request.body).expect("JSON");
    assert_eq!(found["payload"]["severity"], "critical");
    assert_eq!(found["payload"]["summary"], "shop: a rehearsal: nothing was judged");
    let oracle = standardwebhooks::Webhook::new(super::receiver::SECRET).expect("a good secret");
    let pairs = request.headers.iter().map(|(name, value)| {
        let name = reqwest::header::HeaderName::try_from(name).expect("a name");
        (name, value.parse().expect("a value"))
    });
    let headers: reqwest::header::HeaderMap = pairs.collect();
    oracle.verify(request.body.as_bytes(), &headers).expect("the oracle accepts it");
}

/// What only fails on an event that no sample looks like is refused, in words.
#[tokio::test]
async fn a_template_that_fails_is_a_refusal() {
    let receiver = Receiver::start(&[OK]).await;
    let body = "{{ data.only_in_this_one if data.service == 'odd' else 1 }}".to_owned();
    let shape = Shape { body: Some(body), ..Shape::default() };
    let own = webhook(&receiver, shape).expect("good options");
    assert_eq!(own.deliver(&decided(DeployAction::Hold)).await, delivered("200 OK: thanks"));
    let odd = sample::Release { service: "odd", ..RELEASE };
    let attempt = own.deliver(&parcel(sample::rehearsal(DeployAction::Hold, &odd, NOW))).await;
    let Attempt::Refused { answer } = &attempt else { panic!("{attempt:?}") };
    assert!(answer.starts_with("the body fails: undefined value"), "{answer}");
    assert_eq!(receiver.requests().len(), 1);
}

/// A template is tried on what it is sent for, and on nothing else.
#[tokio::test]
async fn a_template_need_not_fit_what_it_is_not_sent_for() {
    let receiver = Receiver::start(&[OK]).await;
    let mapping = Mapping { rollback: None, promote: None, advance: Some("send"), hold: None };
    let body = Some("{\"weight\": {{ data.step.weight }}}".to_owned());
    let shape = Shape { body, ..Shape::default() };
    let all = webhook(&receiver, shape.clone()).err().expect("refused");
    assert!(all.starts_with("webhook own: the body fails on rollback: undefined value"), "{all}");
    let options = WebhookOptions { shape, mapping, ..options("own", receiver.address, PATIENCE) };
    let own = Webhook::new(options, &setting()).expect("good options");
    own.deliver(&decided(DeployAction::Advance)).await;
    assert_eq!(receiver.requests()[0].body, "{\"weight\": 0.5}");
}
