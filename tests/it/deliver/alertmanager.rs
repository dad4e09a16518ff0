//! The mechanism `alertmanager`: the alert byte for byte, and a real Alertmanager that takes it.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rollgate::{
    deliver::{
        Attempt, Mechanism, Setting,
        alertmanager::{Alertmanager, AlertmanagerOptions, MAPPING},
        payload::DeployAction,
        sample,
    },
    engine::observation::Time,
};
use serde_json::{Value, json};

use super::receiver::{
    NOW, OK, PATIENCE, RELEASE, Receiver, Reply, decided, delivered, failed, parcel, pattern, peer,
    real_clock, refused, setting,
};

fn options(address: SocketAddr, prefix: &str) -> AlertmanagerOptions {
    AlertmanagerOptions {
        peer: peer("pager", address, prefix),
        labels: vec![
            ("team".to_owned(), pattern("{service}-team")),
            ("empty".to_owned(), pattern("{rule}")),
        ],
        lasts: Duration::from_secs(1800),
        link: Some(pattern("https://rollgate.example.org/#/analyses/{analysis}")),
        mapping: MAPPING,
    }
}

#[tokio::test]
async fn an_alert_says_what_was_decided() {
    let check = async |body: String, expected: Value| {
        let receiver = Receiver::start(&[OK]).await;
        let pager = Alertmanager::new(options(receiver.address, "/am/"), &setting());
        let pager = pager.expect("good options");
        assert_eq!(pager.deliver(&parcel(body)).await, delivered("200 OK: thanks"));
        let request = &receiver.requests()[0];
        assert_eq!(request.line, "POST /am/api/v2/alerts");
        assert_eq!(request.headers["content-type"], "application/json");
        assert_eq!(serde_json::from_str::<Value>(&request.body).expect("JSON"), expected);
    };
    let times = ("2023-11-14T22:13:20.000Z", "2023-11-14T22:43:20.000Z");
    let link = "https://rollgate.example.org/#/analyses/rehearsal";
    check(
        sample::rehearsal(DeployAction::Rollback, &RELEASE, NOW),
        json!([{
            "labels": { "alertname": "RollgateRollback", "service": "shop", "analysis": "rehearsal",
                "severity": "critical", "team": "shop-team", "empty": "error_rate > 1.5x baseline" },
            "annotations": { "summary": "Roll back shop v2", "rule": "error_rate > 1.5x baseline",
                "description": "a rehearsal: nothing was judged", "canary_version": "v2",
                "baseline_version": "v1" },
            "startsAt": times.0, "endsAt": times.1, "generatorURL": link,
        }]),
    )
    .await;
    check(
        sample::rehearsal(DeployAction::Hold, &RELEASE, NOW),
        json!([{
            "labels": { "alertname": "RollgateHold", "service": "shop", "analysis": "rehearsal",
                "severity": "warning", "team": "shop-team" },
            "annotations": { "summary": "Leave shop v2 as it is: not enough evidence",
                "description": "a rehearsal: nothing was judged", "canary_version": "v2",
                "baseline_version": "v1" },
            "startsAt": times.0, "endsAt": times.1, "generatorURL": link,
        }]),
    )
    .await;
}

/// One that arrives after an outage of hours has not ended before it came.
#[tokio::test]
async fn an_alert_lasts_from_when_it_is_sent() {
    let receiver = Receiver::start(&[OK]).await;
    let late = Setting::live(Arc::new(|| Time(NOW.0 + 6 * 3_600_000)));
    let pager = Alertmanager::new(options(receiver.address, ""), &late).expect("good options");
    pager.deliver(&decided(DeployAction::Rollback)).await;
    let alerts: Value = serde_json::from_str(&receiver.requests()[0].body).expect("JSON");
    assert_eq!(alerts[0]["startsAt"], "2023-11-14T22:13:20.000Z");
    assert_eq!(alerts[0]["endsAt"], "2023-11-15T04:43:20.000Z");
}

#[tokio::test]
async fn each_answer_means_what_the_table_says() {
    let check = async |head: &'static str, expected: Attempt| {
        let receiver = Receiver::start(&[Reply::Says(head)]).await;
        let pager = Alertmanager::new(options(receiver.address, ""), &setting());
        let attempt = pager.expect("good options").deliver(&decided(DeployAction::Rollback)).await;
        assert_eq!(attempt, expected, "{head}");
    };
    check("HTTP/1.1 400 N\r\ncontent-length: 0\r\n\r\n", refused("400 Bad Request")).await;
    check("HTTP/1.1 401 N\r\ncontent-length: 0\r\n\r\n", failed("401 Unauthorized", None)).await;
    check("HTTP/1.1 404 N\r\ncontent-length: 0\r\n\r\n", failed("404 Not Found", None)).await;
    check("HTTP/1.1 500 N\r\ncontent-length: 0\r\n\r\n", failed("500 Internal Server Error", None))
        .await;
}

/// A real one that is stopped with the test.
struct Real {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Real {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let config = dir.path().join("am.yml");
        let text = "route: { receiver: none, group_wait: 1s }\nreceivers: [{ name: none }]\n";
        std::fs::write(&config, text).expect("it can be written");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("bound");
        drop(free);
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect(
                "this test needs a real Alertmanager: the program `prometheus-alertmanager` was \
                 not found in PATH; hint: `make test` installs it, or: apt-get install \
                 prometheus-alertmanager",
            );
        let real = Self { child, address, _dir: dir };
        let begun = Instant::now();
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        while real.get("/-/ready").await.is_none() {
            assert!(begun.elapsed() < PATIENCE, "alertmanager did not become ready");
            pace.tick().await;
        }
        real
    }

    async fn get(&self, path: &str) -> Option<String> {
        let answer = reqwest::get(format!("http://{}{path}", self.address)).await.ok()?;
        if answer.status().is_success() { answer.text().await.ok() } else { None }
    }

    /// Alerts as it holds them, when there are so many.
    async fn alerts(&self, count: usize) -> Vec<Value> {
        let begun = Instant::now();
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        loop {
            let text = self.get("/api/v2/alerts").await.unwrap_or_default();
            let alerts: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
            if alerts.len() == count {
                return alerts;
            }
            assert!(begun.elapsed() < PATIENCE, "{count} alerts did not come: {text}");
            pace.tick().await;
        }
    }
}

#[tokio::test]
async fn a_real_alertmanager_holds_the_alert() {
    rollgate::outward::tls::install();
    let real = Real::start().await;
    let pager = Alertmanager::new(options(real.address, ""), &Setting::live(real_clock()))
        .expect("good options");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let now = Time(now.as_millis() as i64);
    let rollback = sample::rehearsal(DeployAction::Rollback, &RELEASE, now);
    // Twice, as after a crash: it is still one alert.
    for _ in 0..2 {
        assert_eq!(pager.deliver(&parcel(rollback.clone())).await, delivered("200 OK"));
    }
    let alerts = real.alerts(1).await;
    let labels = json!({ "alertname": "RollgateRollback", "service": "shop",
        "analysis": "rehearsal", "severity": "critical", "team": "shop-team",
        "empty": "error_rate > 1.5x baseline" });
    assert_eq!(alerts[0]["labels"], labels);
    assert_eq!(alerts[0]["annotations"]["summary"], "Roll back shop v2");
    assert_eq!(alerts[0]["status"]["state"], "active");
    assert_eq!(alerts[0]["generatorURL"], "https://rollgate.example.org/#/analyses/rehearsal");
    let hold = sample::rehearsal(DeployAction::Hold, &RELEASE, now);
    assert_eq!(pager.deliver(&parcel(hold)).await, delivered("200 OK"));
    let test = sample::test(&RELEASE, now);
    assert_eq!(pager.deliver(&parcel(test)).await, delivered("200 OK"));
    let mut severities: Vec<String> = real
        .alerts(3)
        .await
        .iter()
        .map(|alert| alert["labels"]["severity"].as_str().unwrap_or_default().to_owned())
        .collect();
    severities.sort();
    assert_eq!(severities, ["critical", "info", "warning"]);
    // What it does not take, it refuses, and so do we.
    let broken = rollback.replacen("\"timestamp\":\"", "\"timestamp\":\"not ", 1);
    let attempt = pager.deliver(&parcel(broken)).await;
    assert!(
        matches!(&attempt, Attempt::Refused { answer } if answer.contains("startsAt")
        || answer.contains("400") || answer.contains("422")),
        "{attempt:?}"
    );
}
