//! Who may ask what, over real HTTP: every scope against every route, tokens that must show nowhere,
//! and what a browser sends for other sites.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex},
};

use rollgate::{
    api::{
        ApiOptions,
        access::{
            Access,
            policy::{Policy, Scope, Token},
            routes::{is_listed, needed},
        },
    },
    engine::observation::Time,
    telemetry::http::REFUSALS_LOGGED_MAX,
};
use sha2::{Digest, Sha256};

use crate::{
    story::Story,
    wire::{Answer, Server, request},
};

const NOW: Time = Time(1_800_000_000_000);

const READ: &str = "rgt_read-0123456789012345678901234567890123456789";
const CONTROL: &str = "rgt_control-0123456789012345678901234567890123456";
const OPERATE: &str = "rgt_operate-0123456789012345678901234567890123456";
const PATH: &str = "rgt_path-0123456789012345678901234567890123456789";
const EXPIRED: &str = "rgt_expired-0123456789012345678901234567890123456";

fn token(name: &str, secret: &str, scope: Scope) -> Token {
    let sha256 = Sha256::digest(secret).into();
    Token { name: name.to_owned(), scope, sha256, in_path: false, expires: None }
}

fn policy() -> Policy {
    Policy {
        tokens: vec![
            token("reader", READ, Scope::Read),
            token("pipeline", CONTROL, Scope::Control),
            token("ann", OPERATE, Scope::Operate),
            Token { in_path: true, ..token("flagger", PATH, Scope::Control) },
            Token { expires: Some(NOW), ..token("old", EXPIRED, Scope::Operate) },
        ],
        ..Policy::default()
    }
}

async fn server(policy: Policy) -> Server {
    let access = Access::new(policy, Arc::new(|| NOW));
    let server = Server::start(ApiOptions { access, ..ApiOptions::default() }).await;
    server.desk.tell(Story::errors("a1", "checkout"));
    server.desk.advance("a1", 5);
    server
}

fn bearer(token: &str) -> String {
    format!("Content-Type: application/json\r\nAuthorization: Bearer {token}\r\n")
}

async fn ask(server: &Server, method: &str, path: &str, token: Option<&str>) -> Answer {
    let headers = token.map(bearer).unwrap_or_default();
    server.send(&request(method, path, &headers, "")).await
}

/// A route as it is asked, its pattern, and the least scope that it takes.
const ROUTES: &[(&str, &str, Option<Scope>)] = &[
    ("GET", "/", None),
    ("GET", "/assets/app.js", None),
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
    ("HEAD", "/readyz", None),
    ("GET", "/metrics", Some(Scope::Read)),
    ("GET", "/v1/access", Some(Scope::Read)),
    ("GET", "/v1/analyses", Some(Scope::Read)),
    ("HEAD", "/v1/analyses", Some(Scope::Read)),
    ("GET", "/v1/analyses/a1", Some(Scope::Read)),
    ("GET", "/v1/analyses/a1/history", Some(Scope::Read)),
    ("GET", "/v1/analyses/a1/timeline", Some(Scope::Read)),
    ("GET", "/v1/analyses/a1/rules", Some(Scope::Read)),
    ("GET", "/v1/analyses/a1/verdict", Some(Scope::Read)),
    ("GET", "/v1/analyses/none/events", Some(Scope::Read)),
    ("GET", "/v1/services", Some(Scope::Read)),
    ("GET", "/v1/rules", Some(Scope::Read)),
    ("GET", "/v1/rules/none", Some(Scope::Read)),
    ("GET", "/nowhere", Some(Scope::Read)),
    ("POST", "/v1/analyses", Some(Scope::Control)),
    ("POST", "/v1/analyses/a1/cancel", Some(Scope::Operate)),
    ("DELETE", "/v1/analyses/a1", Some(Scope::Operate)),
    ("OPTIONS", "/v1/analyses", Some(Scope::Operate)),
];

#[tokio::test]
async fn every_scope_opens_its_routes_and_no_others() {
    let server = server(policy()).await;
    let askers = [
        (None, None),
        (Some("rgt_unheard-of"), None),
        (Some(EXPIRED), None),
        (Some(READ), Some(Scope::Read)),
        (Some(CONTROL), Some(Scope::Control)),
        (Some(PATH), Some(Scope::Control)),
        (Some(OPERATE), Some(Scope::Operate)),
    ];
    for (method, path, least) in ROUTES {
        for (token, had) in askers {
            let answer = ask(&server, method, path, token).await;
            let expected = match (least, had) {
                (None, _) => None,
                (Some(_), None) => Some(401),
                (Some(least), Some(had)) if had < *least => Some(403),
                (Some(_), Some(_)) => None,
            };
            let found = [401, 403].contains(&answer.status).then_some(answer.status);
            assert_eq!(found, expected, "{method} {path} by {token:?}: {answer:?}");
            let challenge = answer.header("www-authenticate").unwrap_or_default();
            assert_eq!(expected.is_some(), challenge.starts_with("Bearer "), "{answer:?}");
            assert_ne!(answer.status, 0, "{answer:?}");
            if let Some(status) = expected
                && *method != "HEAD"
            {
                assert_eq!(answer.header("content-type"), Some("application/problem+json"));
                assert_eq!(answer.json()["status"], status);
            }
            if let Some((status, least)) = expected.filter(|status| *status == 403).zip(*least) {
                let detail = format!("needs the scope {least}, the token has");
                assert!(challenge.contains(&format!("scope=\"{least}\"")), "{status} {challenge}");
                assert!(*method == "HEAD" || answer.body.contains(&detail), "{answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn metrics_may_be_open() {
    let server = server(Policy { open_metrics: true, ..policy() }).await;
    assert_eq!(server.get("/metrics").await.status, 200);
    assert_eq!(server.get("/v1/analyses").await.status, 401);
}

#[tokio::test]
async fn the_asker_is_told_and_put_on_record() {
    let server = server(policy()).await;
    let said = ask(&server, "GET", "/v1/access", Some(CONTROL)).await;
    assert_eq!(said.json(), serde_json::json!({ "token": "pipeline", "scope": "control" }));
    let cancel = request(
        "POST",
        "/v1/analyses/a1/cancel",
        &bearer(OPERATE),
        r#"{"who":"bob","why":"wrong build"}"#,
    );
    let view = server.send(&cancel).await.json();
    assert_eq!(view["cancelled"]["who"], "bob (by token ann)", "{view}");
}

#[tokio::test]
async fn a_policy_is_replaced_while_requests_are_answered() {
    let access = Access::new(policy(), Arc::new(|| NOW));
    let options = ApiOptions { access: access.clone(), ..ApiOptions::default() };
    let server = Server::start(options).await;
    assert_eq!(ask(&server, "GET", "/v1/analyses", Some(READ)).await.status, 200);
    let mut rotated = policy();
    rotated.tokens[0] = token("reader", "rgt_another", Scope::Read);
    access.replace(rotated);
    assert_eq!(ask(&server, "GET", "/v1/analyses", Some(READ)).await.status, 401);
    assert_eq!(ask(&server, "GET", "/v1/analyses", Some("rgt_another")).await.status, 200);
}

/// Everything that is logged while it lives, on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        // With one subscriber in the process, a log line that another thread comes upon first is
        // taken to interest nobody.
        std::mem::forget(tracing::Dispatch::new(tracing_subscriber::registry()));
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn a_path_token_opens_what_controllers_ask_and_shows_nowhere() {
    let (log, _guard) = Log::start();
    let server = server(policy()).await;
    let mut shown = String::new();
    for (token, path, expected) in [
        // Below the integrations the token counts; what is not there is 404.
        (PATH, "/v1/integrations/none", 404),
        (PATH, "/v1/integrations/none?x=1", 404),
        (PATH, "/nowhere", 404),
        // The page's files need no token, so one that stands before them does no harm.
        (PATH, "", 200),
        (PATH, "/v1/analyses", 403),
        (PATH, "/metrics", 403),
        (READ, "/v1/integrations/none", 401),
        (OPERATE, "/v1/integrations/none", 401),
        (EXPIRED, "/v1/integrations/none", 401),
        ("rgt_unheard-of-0123456789", "/v1/integrations/none", 401),
        (PATH, &format!("/t/{PATH}/v1/integrations/none"), 404),
    ] {
        let answer = server.get(&format!("/t/{token}{path}")).await;
        assert_eq!(answer.status, expected, "{token} {path}: {answer:?}");
        shown.push_str(&format!("{}\n{}\n", answer.head, answer.body));
    }
    // A token in a wrong place is not repeated either.
    for path in [format!("/v1/{PATH}/x"), format!("//t/{PATH}/v1"), format!("/T/{PATH}")] {
        let answer = ask(&server, "GET", &path, Some(READ)).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        shown.push_str(&answer.body);
    }
    shown.push_str(&ask(&server, "GET", "/metrics", Some(READ)).await.body);
    shown.push_str(&log.text());
    assert!(log.text().contains("request answered"), "the log was not captured");
    for secret in [PATH, READ, OPERATE, EXPIRED, "rgt_unheard-of"] {
        assert!(!shown.contains(secret), "{secret} shows in:\n{shown}");
    }
    let refused = "rollgate_http_unauthorized_total{reason=\"path\"}";
    assert!(shown.contains(refused), "{shown}");
}

#[tokio::test]
async fn a_header_counts_more_than_the_path() {
    let server = server(policy()).await;
    let path = format!("/t/{PATH}/v1/analyses");
    assert_eq!(ask(&server, "GET", &path, Some(READ)).await.status, 200);
    assert_eq!(ask(&server, "GET", &path, Some("rgt_wrong")).await.status, 401);
}

#[tokio::test]
async fn wrong_tokens_are_counted_and_do_not_fill_the_log() {
    let (log, _guard) = Log::start();
    let server = server(policy()).await;
    let attempts = REFUSALS_LOGGED_MAX as usize * 5;
    for number in 0..attempts {
        let token = format!("rgt_guess-{number}");
        assert_eq!(ask(&server, "GET", "/v1/rules", Some(&token)).await.status, 401);
    }
    assert_eq!(log.text().matches("request refused").count(), REFUSALS_LOGGED_MAX as usize);
    let metrics = ask(&server, "GET", "/metrics", Some(READ)).await.body;
    let counted = format!("rollgate_http_unauthorized_total{{reason=\"unknown\"}} {attempts}\n");
    assert!(metrics.contains(&counted), "{metrics}");
}

#[tokio::test]
async fn without_tokens_foreign_pages_are_kept_out() {
    let server = server(Policy::default()).await;
    let check = async |method: &str, path: &str, headers: &str, expected: u16| {
        let bytes = format!(
            "{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}\
             Content-Type: application/json\r\nContent-Length: 0\r\n\r\n"
        );
        let answer = server.send(&bytes).await;
        assert_eq!(answer.status, expected, "{method} {path} {headers:?}: {answer:?}");
        let allowed = answer.head.to_ascii_lowercase().contains("access-control-");
        assert!(!allowed, "no other site may read: {answer:?}");
    };
    check("GET", "/v1/analyses", "Host: localhost\r\n", 200).await;
    check("GET", "/v1/analyses", "Host: 127.0.0.1:8750\r\n", 200).await;
    check("GET", "/v1/analyses", "Host: rebound.example\r\n", 403).await;
    check("GET", "/metrics", "Host: rebound.example\r\n", 403).await;
    check("GET", "http://rebound.example/v1/analyses", "Host: localhost\r\n", 403).await;
    check("POST", "/v1/analyses/a1/cancel", "Host: rebound.example\r\n", 403).await;
    // A probe asks by whatever name it has.
    check("GET", "/healthz", "Host: 10.0.0.7:8750\r\n", 200).await;
    let foreign =
        "Host: localhost\r\nOrigin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n";
    check("POST", "/v1/analyses/a1/cancel", foreign, 403).await;
    check("OPTIONS", "/v1/analyses", foreign, 403).await;
    check("GET", "/v1/analyses", foreign, 403).await;
    let link = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
    check("GET", "/v1/analyses", link, 200).await;
    check("GET", "/v1/integrations/none", link, 404).await;
    let own = "Host: localhost\r\nOrigin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n";
    check("POST", "/v1/analyses/a1/cancel", own, 200).await;
}

#[tokio::test]
async fn with_tokens_the_host_does_not_matter() {
    let server = server(policy()).await;
    let headers = format!("Host: gate.example\r\nOrigin: https://x\r\n{}", bearer(READ));
    let bytes = format!("GET /v1/analyses HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    assert_eq!(server.send(&bytes).await.status, 200);
}

const METHODS: [(&str, &str); 6] = [
    ("get", "GET"),
    ("post", "POST"),
    ("delete", "DELETE"),
    ("put", "PUT"),
    ("patch", "PATCH"),
    ("any", "*"),
];

/// Methods and patterns of a source: those that it hands to the router, and those that it describes.
fn routes_of(text: &str) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let named = |piece: &&str| piece.trim_start().starts_with('"');
    for piece in text.split(".route(").skip(1).filter(named) {
        let mut quoted = piece.splitn(3, '"').skip(1);
        let (pattern, rest) = (quoted.next().unwrap(), quoted.next().unwrap());
        // Up to the end of the call, as far as it goes.
        let rest = rest.split([';', '\n']).next().unwrap();
        let named = METHODS.iter().filter(|(word, _)| rest.contains(&format!("{word}(")));
        found.extend(named.map(|(_, method)| (*method, pattern.to_owned())));
    }
    for piece in text.split("#[utoipa::path(").skip(1) {
        let (head, rest) = piece.split_once("path = \"").unwrap();
        let pattern = rest.split('"').next().unwrap();
        let named = METHODS.iter().filter(|(word, _)| head.contains(&format!("{word},")));
        found.extend(named.map(|(_, method)| (*method, pattern.to_owned())));
    }
    found
}

/// Methods and patterns of all routes.
fn routes_of_the_sources() -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("analyzer/api")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            found.extend(routes_of(&text));
        }
    }
    found
}

#[test]
fn every_route_has_a_line_in_the_table() {
    let routes = routes_of_the_sources();
    assert!(routes.len() >= 17, "{routes:?}");
    for (method, pattern) in &routes {
        assert!(is_listed(method, pattern), "{method} {pattern} is in no table of scopes");
    }
    assert!(!is_listed("GET", "/v1/unheard-of"));
    assert!(
        needed("POST", Some("/v1/unheard-of")) == needed("POST", Some("/v1/analyses/{id}/cancel"))
    );
}

#[test]
fn tokens_are_compared_in_constant_time() {
    let source = include_str!("../../analyzer/api/access/policy.rs");
    let code = source.split("#[cfg(test)]").next().unwrap();
    assert!(code.contains("token.sha256.ct_eq(&digest)"));
    assert!(!code.contains("sha256 =="), "a plain comparison tells by its time");
}
