//! `rollgate deliver`: dry runs that print what would be sent, and tests that ask for nothing.

use std::{
    fs,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::IntoResponse,
    routing::any,
};
use rollgate::{
    deliver::payload::{TEST_EVENT, VerdictEvent},
    engine::observation::{Observation, Time},
    signal::carry::Carry,
    store::{
        Decision, Look, NewAnalysis, NewDelivery, Store,
        sqlite::{SqliteOptions, SqliteStore},
    },
};
use serde_json::Value;
use tokio::{net::TcpListener, process::Command};

const KEY: &str = "a-signing-key-of-some-length";
const TOKEN: &str = "github_pat_0123456789";

type Seen = Arc<Mutex<Vec<(String, HeaderMap, String)>>>;

/// A peer that keeps what it is asked; deployments are of this version.
async fn peer(version: &'static str) -> (String, Seen) {
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let answer = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
        let text = String::from_utf8_lossy(&body).into_owned();
        kept.lock().unwrap().push((format!("{method} {uri}"), headers, text));
        async move {
            match uri.path().ends_with("/deployments") {
                true => {
                    let list = format!("[{{\"sha\":\"0123456789abcdef\",\"ref\":\"{version}\"}}]");
                    list.into_response()
                }
                false => StatusCode::OK.into_response(),
            }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        axum::serve(listener, Router::new().fallback(any(answer))).await.unwrap();
    });
    (format!("http://{address}"), seen)
}

fn folder(peer: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("rules")).unwrap();
    let config = format!(
        "mechanisms:\n  chat: {{ on: {{ promote: nothing }}, slack: {{ url: \
         '{peer}/services/a-secret-of-some-length' }} }}\n  ci: {{ github: {{ url: '{peer}', \
         repository: acme/shop, token: {{ env: TOKEN }}, environment: production }} }}\n  deploy: \
         {{ webhook: {{ url: '{peer}/deploy', secrets: [{{ env: KEY }}] }} }}\n  pipes: {{ gitlab: \
         {{ url: '{peer}', project: shop, ref: main, trigger_token: {{ env: TOKEN }} }} }}\n"
    );
    fs::write(folder.path().join("rollgate.yaml"), config).unwrap();
    folder
}

/// The exit code, and what was said to both sides.
async fn deliver(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_rollgate"))
        .arg("deliver")
        .args(args)
        .current_dir(folder)
        .env_clear()
        .envs([("NO_COLOR", "1"), ("KEY", KEY), ("TOKEN", TOKEN)])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (run.status.code(), text(run.stdout), text(run.stderr))
}

/// What was asked so far.
fn lines(seen: &Seen) -> Vec<String> {
    seen.lock().unwrap().drain(..).map(|(line, _, _)| line).collect()
}

const DEPLOYMENTS: &str = "GET /repos/acme/shop/deployments?environment=production&per_page=1";

#[tokio::test]
async fn a_dry_run_prints_the_requests_and_writes_nothing() {
    let (url, seen) = peer("v2").await;
    let folder = folder(&url);
    let args = ["--dry-run", "--service", "shop", "--canary-version", "v2"];
    let (code, out, err) = deliver(folder.path(), &args).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert_eq!(lines(&seen), [DEPLOYMENTS], "only what is read was asked");
    for line in [
        "ci  github  on rollback: dispatch rollgate-rollback to acme/shop",
        &format!("  GET {url}{}  (really asked)", &DEPLOYMENTS[4..]),
        "    authorization: [redacted]",
        "    answered 200 OK: [{\"sha\":",
        &format!("  POST {url}/repos/acme/shop/dispatches"),
        &format!("  POST {url}/[redacted]"),
        "    webhook-signature: [redacted]",
        "\"token\":\"[redacted]\"",
        "  ✓ would be sent",
    ] {
        assert!(out.contains(line), "{out}\nlacks {line}");
    }
    for secret in [KEY, TOKEN, "a-secret-of"] {
        assert!(!out.contains(secret), "{out}");
    }
    let args = ["--dry-run", "--verdict", "promote", "--mechanism", "chat", "--json"];
    let (code, out, _) = deliver(folder.path(), &args).await;
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &said["good"], &said["mode"]), (Some(0), &true.into(), &"dry_run".into()));
    let [chat] = &said["deliveries"].as_array().unwrap()[..] else { panic!("{out}") };
    assert_eq!((&chat["outcome"], &chat["does"]), (&"nothing".into(), &Value::Null));
}

#[tokio::test]
async fn a_changed_world_would_be_refused() {
    let (url, seen) = peer("v3").await;
    let folder = folder(&url);
    let args = ["--dry-run", "--mechanism", "ci", "--canary-version", "v2"];
    let (code, out, _) = deliver(folder.path(), &args).await;
    assert_eq!(code, Some(1));
    let words = "✗ would be refused: production runs v3 (0123456789ab) now; v2 was judged";
    assert!(out.contains(words), "{out}");
    assert_eq!(lines(&seen), [DEPLOYMENTS]);
}

/// Receivers that could act on it are sent nothing.
#[tokio::test]
async fn a_test_event_is_marked_and_makes_nobody_act() {
    let (url, seen) = peer("v2").await;
    let folder = folder(&url);
    let (code, out, err) = deliver(folder.path(), &["--test", "--json"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let said: Value = serde_json::from_str(&out).unwrap();
    let outcomes: Vec<&str> = said["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|delivery| delivery["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["delivered", "delivered", "delivered", "only_read"]);
    let seen = seen.lock().unwrap().clone();
    let asked: Vec<&str> = seen.iter().map(|(line, _, _)| line.as_str()).collect();
    let expected = [
        "POST /services/a-secret-of-some-length",
        DEPLOYMENTS,
        "POST /repos/acme/shop/dispatches",
        "POST /deploy",
    ];
    assert_eq!(asked, expected);
    let dispatched: Value = serde_json::from_str(&seen[2].2).unwrap();
    assert_eq!(dispatched["event_type"], "rollgate-test");
    let event: VerdictEvent = serde_json::from_str(&seen[3].2).unwrap();
    assert_eq!((event.kind.as_str(), event.data.test), (TEST_EVENT, Some(true)));
    assert_eq!(event.data.action.to_string(), "hold");
    assert!(seen[3].1.contains_key("webhook-signature"));
}

#[tokio::test]
async fn what_an_analysis_decided_is_taken_as_it_was_stored() {
    let (url, seen) = peer("v7").await;
    let folder = folder(&url);
    let path = folder.path().join("rollgate.db");
    let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    let release = rollgate::deliver::sample::Release {
        service: "till",
        canary_version: "v7",
        baseline_version: "v6",
    };
    let body = rollgate::deliver::sample::rehearsal(
        rollgate::deliver::payload::DeployAction::Rollback,
        &release,
        Time(1_700_000_000_000),
    );
    let id = stored(&store, &body).await;
    store.close().await;
    let (code, out, err) =
        deliver(folder.path(), &["--dry-run", "--json", "--analysis", &id]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let said: Value = serde_json::from_str(&out).unwrap();
    let [deploy] = &said["deliveries"].as_array().unwrap()[..] else { panic!("{out}") };
    assert_eq!(deploy["requests"][0]["body"], body);
    assert_eq!(deploy["requests"][0]["headers"]["webhook-id"], format!("{id}.deploy"));
    let (code, _, err) =
        deliver(folder.path(), &["--dry-run", "--analysis", &id, "--verdict", "promote"]).await;
    assert_eq!(code, Some(2));
    assert!(err.contains("told nobody of these to promote"), "{err}");
    let (code, _, err) = deliver(folder.path(), &["--dry-run", "--analysis", "nope"]).await;
    assert_eq!(code, Some(2));
    assert!(err.contains("no analysis has the id \"nope\""), "{err}");
    assert_eq!(lines(&seen).len(), 0);
}

/// An analysis that has told `deploy` this.
async fn stored(store: &SqliteStore, body: &str) -> String {
    let id = "a1".to_owned();
    let new = NewAnalysis {
        id: id.clone(),
        idempotency_key: None,
        service: "till".to_owned(),
        started: Time(1_699_999_000_000),
        order: "{}".to_owned(),
        rules_name: "till".to_owned(),
        rules_text: String::new(),
        calibration: None,
        past: None,
    };
    store.create(new).await.unwrap();
    let delivery = NewDelivery {
        key: format!("{id}.deploy"),
        mechanism: "deploy".to_owned(),
        action: "rollback".to_owned(),
        body: body.to_owned(),
    };
    let at = Time(1_700_000_000_000);
    let decision = Decision { at, advance_to: None, deliveries: vec![delivery] };
    let look = Look {
        analysis: id.clone(),
        look: 1,
        observation: Observation { at, signals: vec![], canary_gap: None },
        carry: Carry::default(),
        report: "{}".to_owned(),
        verdict: "rollback".to_owned(),
        decision: Some(decision),
    };
    store.commit(vec![look]).await.unwrap();
    id
}

#[tokio::test]
async fn bad_usage_is_named() {
    let (url, _) = peer("v2").await;
    let folder = folder(&url);
    let check = async |args: &[&str], expected: &str| {
        let (code, out, err) = deliver(folder.path(), args).await;
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains(expected), "{err}\nlacks {expected}");
    };
    check(&[], "--dry-run").await;
    check(&["--dry-run", "--test"], "cannot be used with").await;
    check(&["--test", "--verdict", "rollback"], "cannot be used with").await;
    let names = "expected one of chat, ci, deploy, pipes";
    check(&["--dry-run", "--mechanism", "nobody"], names).await;
    check(&["--dry-run", "--config", "none.yaml"], "none.yaml: cannot be read").await;
    check(&["--dry-run", "--analysis", "a1"], "no file, expected a store of rollgate").await;
}
