//! Every mechanism over HTTP against receivers that behave as badly as receivers do.

use std::{
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rollgate::{
    deliver::{
        Attempt, Mechanism, Setting,
        alertmanager::{self, Alertmanager, AlertmanagerOptions},
        cloudevents::{self, CloudEvents, CloudEventsOptions, Mode},
        github::{self, Dispatch, Github, GithubOptions},
        gitlab::{self, Gitlab, GitlabOptions},
        payload::DeployAction,
        slack::{self, Slack, SlackOptions},
    },
    outward::exchange::Rehearsal,
    telemetry::secret::Secret,
};

use super::receiver::{PATIENCE, Receiver, Reply, decided, parcel, pattern, peer, setting};

const TOKEN: &str = "a-very-secret-token-0123";

/// One of each kind; none checks a revision first.
fn all(address: SocketAddr, timeout: Duration, setting: &Setting) -> Vec<Box<dyn Mechanism>> {
    let peer = |name: &str| {
        let mut peer = peer(name, address, "/hook/token-in-the-path");
        peer.timeout = timeout;
        peer
    };
    let broker = CloudEventsOptions {
        peer: peer("cloudevents"),
        mode: Mode::Binary,
        source: "/rollgate".to_owned(),
        mapping: cloudevents::MAPPING,
    };
    let ci = GithubOptions {
        peer: peer("github"),
        repository: "acme/shop".to_owned(),
        token: Secret::new(TOKEN),
        dispatch: Dispatch::Repository { event_type: pattern("rollgate-{action}") },
        environment: None,
        mapping: github::MAPPING,
    };
    let pipes = GitlabOptions {
        peer: peer("gitlab"),
        project: "42".to_owned(),
        reference: pattern("main"),
        trigger_token: Some(Secret::new(TOKEN)),
        token: None,
        variables: vec![],
        environment: None,
        mapping: gitlab::MAPPING,
    };
    let pager = AlertmanagerOptions {
        peer: peer("alertmanager"),
        labels: vec![],
        lasts: Duration::from_secs(60),
        link: None,
        mapping: alertmanager::MAPPING,
    };
    let chat = SlackOptions { peer: peer("slack"), link: None, mapping: slack::MAPPING };
    vec![
        Box::new(CloudEvents::new(broker, setting).expect("good options")),
        Box::new(Github::new(ci, setting).expect("good options")),
        Box::new(Gitlab::new(pipes, setting).expect("good options")),
        Box::new(Alertmanager::new(pager, setting).expect("good options")),
        Box::new(Slack::new(chat, setting).expect("good options")),
    ]
}

#[tokio::test]
async fn the_status_decides_whatever_becomes_of_the_body() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\nhalf";
    for reply in [Reply::Breaks(half), Reply::Hangs(half), Reply::Floods] {
        let (receiver, began) = (Receiver::start(&[reply]).await, Instant::now());
        for mechanism in all(receiver.address, PATIENCE, &setting()) {
            let attempt = mechanism.deliver(&decided(DeployAction::Rollback)).await;
            let is_delivered = matches!(attempt, Attempt::Delivered { .. });
            assert!(is_delivered, "{}: {attempt:?}", mechanism.name());
        }
        assert!(began.elapsed() < PATIENCE, "the rest of a body was waited for");
        let flooded = receiver.flooded.load(Ordering::SeqCst);
        assert!(flooded < 250_000_000, "{flooded} bytes of five answers were read");
    }
}

#[tokio::test]
async fn no_answer_has_failed_and_is_tried_again() {
    let replies = [
        (Reply::Hangs(""), "timed out"),
        (Reply::Hangs("HTTP/1.1 200"), "timed out"),
        (Reply::Breaks(""), "connection closed"),
        (Reply::Breaks("SSH-2.0-OpenSSH\r\n\r\n"), "invalid HTTP version"),
    ];
    for (reply, words) in replies {
        let receiver = Receiver::start(&[reply]).await;
        for mechanism in all(receiver.address, Duration::from_millis(300), &setting()) {
            let attempt = mechanism.deliver(&decided(DeployAction::Rollback)).await;
            let Attempt::Failed { answer, retry_after: None } = &attempt else {
                panic!("{}: {attempt:?}", mechanism.name())
            };
            assert!(answer.contains(words) && !answer.contains("token"), "{answer}");
        }
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Receiver::start(&[super::receiver::OK]).await;
    let moved = format!(
        "HTTP/1.1 307 Moved\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n",
        elsewhere.address
    );
    let receiver = Receiver::start(&[Reply::Says(moved.leak())]).await;
    for mechanism in all(receiver.address, PATIENCE, &setting()) {
        let attempt = mechanism.deliver(&decided(DeployAction::Rollback)).await;
        assert!(matches!(attempt, Attempt::Failed { .. }), "{}: {attempt:?}", mechanism.name());
    }
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn what_is_no_event_of_ours_is_refused() {
    let receiver = Receiver::start(&[super::receiver::OK]).await;
    for mechanism in all(receiver.address, PATIENCE, &setting()) {
        for body in ["", "{}", "[1]", "{\"type\":\"x\",\"data\":7}"] {
            let attempt = mechanism.deliver(&parcel(body.to_owned())).await;
            let Attempt::Refused { answer } = &attempt else { panic!("{attempt:?}") };
            assert!(answer.starts_with("the stored event cannot be read"), "{answer}");
        }
    }
    assert_eq!(receiver.requests().len(), 0);
}

/// In a rehearsal nothing is sent, and what is put down holds no secret but shows where to.
#[tokio::test]
async fn a_rehearsal_sends_nothing_and_shows_no_secret() {
    let receiver = Receiver::start(&[super::receiver::OK]).await;
    let rehearsal = Rehearsal::default();
    let quiet = Setting { rehearsal: Some(rehearsal.clone()), ..setting() };
    for mechanism in all(receiver.address, PATIENCE, &quiet) {
        for action in [DeployAction::Rollback, DeployAction::Advance] {
            let attempt = mechanism.deliver(&decided(action)).await;
            let expected = Attempt::Delivered { answer: "not sent: a rehearsal".to_owned() };
            assert_eq!(attempt, expected, "{}", mechanism.name());
        }
        let [first, second] = &rehearsal.take()[..] else { panic!("two requests") };
        for request in [first, second] {
            let begins = format!("http://{}/", receiver.address);
            assert!(request.url.starts_with(&begins), "{}", request.url);
            assert!(!format!("{request:?}").contains(TOKEN), "{request:?}");
            assert_eq!(request.answer, None);
        }
        assert_ne!(first.body, second.body, "{}", mechanism.name());
    }
    assert_eq!(receiver.requests().len(), 0);
}
