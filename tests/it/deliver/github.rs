//! The mechanism `github` against receivers that answer as GitHub's documentation says.

use rollgate::{
    deliver::{
        Attempt, Checks, Mechanism,
        github::{Dispatch, Github, GithubOptions, INPUTS_DEFAULT, MAPPING},
        payload::DeployAction,
        sample,
    },
    outward::exchange::WORDS_BYTES_MAX,
    telemetry::secret::Secret,
};
use serde_json::{Value, json};

use super::receiver::{
    NOW, RELEASE, Receiver, Reply, decided, delivered, failed, parcel, pattern, peer, refused,
    setting,
};

const TOKEN: &str = "github_pat_11AAAAAAA0aaaaaaaaaaaa";
const NO_CONTENT: Reply = Reply::Says("HTTP/1.1 204 No Content\r\n\r\n");

fn repository() -> Dispatch {
    Dispatch::Repository { event_type: pattern("rollgate-{action}") }
}

fn workflow() -> Dispatch {
    let own = |(name, value): (&str, &str)| (name.to_owned(), pattern(value));
    Dispatch::Workflow {
        workflow: "roll back.yml".to_owned(),
        reference: pattern("{baseline_version}"),
        inputs: INPUTS_DEFAULT.into_iter().map(own).collect(),
    }
}

fn options(receiver: &Receiver, dispatch: Dispatch) -> GithubOptions {
    GithubOptions {
        peer: peer("ci", receiver.address, "/api/v3"),
        repository: "acme/shop".to_owned(),
        token: Secret::new(TOKEN),
        dispatch,
        environment: None,
        mapping: MAPPING,
    }
}

fn github(receiver: &Receiver, dispatch: Dispatch) -> Github {
    Github::new(options(receiver, dispatch), &setting()).expect("good options")
}

/// With a check of the environment.
fn checked(receiver: &Receiver) -> Github {
    let environment = Some(pattern("{service} production"));
    let options = GithubOptions { environment, ..options(receiver, repository()) };
    Github::new(options, &setting()).expect("good options")
}

fn deployments(reference: &str, sha: &str) -> Reply {
    // As GitHub lists them, in short.
    let list = json!([{ "url": "https://api.example.com/deployments/1", "id": 1, "sha": sha,
        "ref": reference, "task": "deploy", "payload": {}, "environment": "shop production" }]);
    Reply::Json(list.to_string())
}

#[tokio::test]
async fn a_repository_dispatch_carries_the_event() {
    let receiver = Receiver::start(&[NO_CONTENT]).await;
    let parcel = decided(DeployAction::Rollback);
    let attempt = github(&receiver, repository()).deliver(&parcel).await;
    assert_eq!(attempt, delivered("204 No Content"));
    let request = &receiver.requests()[0];
    assert_eq!(request.line, "POST /api/v3/repos/acme/shop/dispatches");
    for (name, value) in [
        ("accept", "application/vnd.github+json"),
        ("authorization", &format!("Bearer {TOKEN}")),
        ("x-github-api-version", "2022-11-28"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(request.headers[name], value, "{name}");
    }
    assert!(request.headers["user-agent"].starts_with("rollgate/"), "GitHub asks for one");
    let body: Value = serde_json::from_str(&request.body).expect("JSON");
    let mut event: Value = serde_json::from_str(&parcel.body).expect("JSON");
    event["key"] = "a1.m".into();
    assert_eq!(body, json!({ "event_type": "rollgate-rollback", "client_payload": event }));
    let payload = body["client_payload"].as_object().expect("an object");
    assert!(payload.len() <= 10, "GitHub takes ten properties");
}

#[tokio::test]
async fn a_workflow_dispatch_names_ref_and_inputs() {
    let receiver = Receiver::start(&[NO_CONTENT]).await;
    let github = github(&receiver, workflow());
    let attempt = github.deliver(&decided(DeployAction::Rollback)).await;
    assert_eq!(attempt, delivered("204 No Content"));
    let request = &receiver.requests()[0];
    let line = "POST /api/v3/repos/acme/shop/actions/workflows/roll%20back.yml/dispatches";
    assert_eq!(request.line, line);
    let expected = json!({ "ref": "v1", "inputs": { "action": "rollback", "service": "shop",
        "canary_version": "v2", "baseline_version": "v1", "key": "a1.m" } });
    assert_eq!(serde_json::from_str::<Value>(&request.body).expect("JSON"), expected);
    assert!(!github.about().takes_tests, "a workflow would run");
    assert_eq!(github.about().checks, Checks::Nobody);
}

#[tokio::test]
async fn a_test_starts_nothing_that_a_decision_would() {
    let receiver = Receiver::start(&[NO_CONTENT]).await;
    let github = github(&receiver, repository());
    assert!(github.about().takes_tests);
    let test = parcel(sample::test(&RELEASE, NOW));
    assert_eq!(github.deliver(&test).await, delivered("204 No Content"));
    let body: Value = serde_json::from_str(&receiver.requests()[0].body).expect("JSON");
    assert_eq!(body["event_type"], "rollgate-test");
    let fixed = Dispatch::Repository { event_type: pattern("deploy") };
    let fixed = Github::new(options(&receiver, fixed), &setting()).expect("good options");
    assert!(!fixed.about().takes_tests, "its type would start the workflow of a decision");
}

#[tokio::test]
async fn what_runs_is_compared_before_anything_is_sent() {
    let sha = "a84d88e7554fc1fa21bcbc4efae3c782a70d2b9d";
    let check = async |reply: Reply, expected: Attempt, requests: usize| {
        let receiver = Receiver::start(&[reply, NO_CONTENT]).await;
        let attempt = checked(&receiver).deliver(&decided(DeployAction::Rollback)).await;
        assert_eq!((attempt, receiver.requests().len()), (expected, requests));
        let first =
            "GET /api/v3/repos/acme/shop/deployments?environment=shop+production&per_page=1";
        assert_eq!(receiver.requests()[0].line, first);
    };
    check(deployments("v2", sha), delivered("204 No Content"), 2).await;
    check(deployments("refs/tags/v2", sha), delivered("204 No Content"), 2).await;
    let now = "shop production runs v3 (a84d88e7554f) now; v2 was judged";
    check(deployments("v3", sha), refused(now), 1).await;
    let none = "shop production has no deployment; v2 was judged";
    check(Reply::Json("[]".to_owned()), refused(none), 1).await;
    let odd = "the deployments of shop production are no list of deployments";
    check(Reply::Json("{\"ok\":true}".to_owned()), failed(odd, None), 1).await;
    check(Reply::Says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n<h"), failed(odd, None), 1)
        .await;
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\n[{\"sha\":";
    let not_whole = "the deployments of shop production were not answered whole";
    check(Reply::Breaks(half), failed(not_whole, None), 1).await;
    check(Reply::Floods, failed(not_whole, None), 1).await;
    let expired = "HTTP/1.1 401 No\r\ncontent-length: 29\r\n\r\n{\"message\":\"Bad credentials\"}";
    let words = "401 Unauthorized: {\"message\":\"Bad credentials\"}";
    check(Reply::Says(expired), failed(words, None), 1).await;
}

#[tokio::test]
async fn a_commit_may_be_named_by_its_beginning() {
    let sha = "a84d88e7554fc1fa21bcbc4efae3c782a70d2b9d";
    let check = async |version: &str, expected: Option<&str>| {
        let receiver = Receiver::start(&[deployments("main", sha), NO_CONTENT]).await;
        let release = sample::Release { canary_version: version, ..RELEASE };
        let body = sample::rehearsal(DeployAction::Rollback, &release, NOW);
        let attempt = checked(&receiver).deliver(&parcel(body)).await;
        let expected = expected.map_or(delivered("204 No Content"), refused);
        assert_eq!(attempt, expected, "{version}");
    };
    check("a84d88e", None).await;
    check("main", None).await;
    check("a84d88f", Some("shop production runs main (a84d88e7554f) now; a84d88f was judged"))
        .await;
    let unknown = "the order names no canary version, and shop production is only changed for the \
                   one it runs";
    check("", Some(unknown)).await;
}

#[tokio::test]
async fn each_answer_means_what_the_table_says() {
    let check = async |head: &'static str, expected: Attempt| {
        let receiver = Receiver::start(&[Reply::Says(head)]).await;
        let attempt =
            github(&receiver, repository()).deliver(&decided(DeployAction::Promote)).await;
        assert_eq!(attempt, expected, "{head}");
    };
    check("HTTP/1.1 401 N\r\ncontent-length: 0\r\n\r\n", failed("401 Unauthorized", None)).await;
    check("HTTP/1.1 403 N\r\ncontent-length: 0\r\n\r\n", failed("403 Forbidden", None)).await;
    check("HTTP/1.1 404 N\r\ncontent-length: 0\r\n\r\n", failed("404 Not Found", None)).await;
    check("HTTP/1.1 409 N\r\ncontent-length: 0\r\n\r\n", failed("409 Conflict", None)).await;
    check("HTTP/1.1 400 N\r\ncontent-length: 0\r\n\r\n", refused("400 Bad Request")).await;
    check("HTTP/1.1 410 N\r\ncontent-length: 0\r\n\r\n", refused("410 Gone")).await;
    let unknown =
        "HTTP/1.1 422 N\r\ncontent-length: 39\r\n\r\n{\"message\":\"Unexpected inputs provided\"}";
    check(
        unknown,
        refused("422 Unprocessable Entity: {\"message\":\"Unexpected inputs provided\""),
    )
    .await;
    let moved = "HTTP/1.1 301 M\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    check(moved, failed("301 Moved Permanently", None)).await;
    let primary = "HTTP/1.1 403 N\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset: 1700000090\r\n\
                   content-length: 0\r\n\r\n";
    check(primary, failed("403 Forbidden", Some(90))).await;
    let told = "HTTP/1.1 429 N\r\nretry-after: 7\r\nx-ratelimit-remaining: 0\r\n\
                x-ratelimit-reset: 1700000090\r\ncontent-length: 0\r\n\r\n";
    check(told, failed("429 Too Many Requests", Some(7))).await;
    let secondary = "HTTP/1.1 403 N\r\ncontent-length: 31\r\n\r\nexceeded a secondary rate limit";
    let words = "403 Forbidden: exceeded a secondary rate limit";
    check(secondary, failed(words, Some(60))).await;
    check("HTTP/1.1 502 N\r\ncontent-length: 0\r\n\r\n", failed("502 Bad Gateway", None)).await;
    const { assert!(WORDS_BYTES_MAX > 100) };
}

#[tokio::test]
async fn the_token_never_shows() {
    let receiver = Receiver::start(&[Reply::Echoes]).await;
    let attempt = github(&receiver, repository()).deliver(&decided(DeployAction::Rollback)).await;
    let shown = format!("{attempt:?} {:?}", options(&receiver, repository()));
    assert!(shown.contains("[redacted]") && !shown.contains("github_pat"), "{shown}");
}

#[test]
fn a_repository_has_an_owner_and_a_name() {
    for wrong in ["shop", "acme/", "/shop", "acme/shop/x", "acme/..", "a me/shop", "acme/sh?op"] {
        let receiver = "127.0.0.1:1".parse().expect("an address");
        let options = GithubOptions {
            peer: peer("ci", receiver, ""),
            repository: wrong.to_owned(),
            token: Secret::new(TOKEN),
            dispatch: repository(),
            environment: None,
            mapping: MAPPING,
        };
        let error = Github::new(options, &setting()).err().expect("refused").to_string();
        assert!(error.starts_with("github ci: repository is") && error.ends_with("owner/name"));
    }
}
