//! The mechanism `gitlab` against receivers that answer as GitLab's documentation says.

use rollgate::{
    deliver::{
        Attempt, Mechanism,
        gitlab::{Gitlab, GitlabOptions, MAPPING},
        payload::DeployAction,
    },
    telemetry::secret::Secret,
};
use serde_json::{Value, json};

use super::receiver::{
    Receiver, Reply, decided, delivered, failed, pattern, peer, refused, setting,
};

const TRIGGER: &str = "glptt-0123456789abcdef";
const TOKEN: &str = "glpat-ABCDEFGHIJKLMNOPQRST";
const CREATED: Reply = Reply::Says("HTTP/1.1 201 Created\r\ncontent-length: 9\r\n\r\n{\"id\":61}");

fn options(receiver: &Receiver) -> GitlabOptions {
    GitlabOptions {
        peer: peer("pipes", receiver.address, "/git"),
        project: "group/sub/shop".to_owned(),
        reference: pattern("main"),
        trigger_token: Some(Secret::new(TRIGGER)),
        token: None,
        variables: vec![("TARGET".to_owned(), pattern("{service}-{baseline_version}"))],
        environment: None,
        mapping: MAPPING,
    }
}

/// With an access token and a check of the environment.
fn checked(receiver: &Receiver) -> Gitlab {
    let options = GitlabOptions {
        trigger_token: None,
        token: Some(Secret::new(TOKEN)),
        environment: Some(pattern("production")),
        ..options(receiver)
    };
    Gitlab::new(options, &setting()).expect("good options")
}

fn deployment(status: &str, reference: &str, sha: &str) -> Value {
    // As GitLab lists them, in short.
    json!({ "id": 42, "iid": 2, "ref": reference, "sha": sha, "status": status,
        "environment": { "id": 9, "name": "production" }, "deployable": { "tag": true } })
}

#[tokio::test]
async fn a_trigger_token_starts_a_pipeline_with_variables() {
    let receiver = Receiver::start(&[CREATED]).await;
    let gitlab = Gitlab::new(options(&receiver), &setting()).expect("good options");
    let attempt = gitlab.deliver(&decided(DeployAction::Advance)).await;
    assert_eq!(attempt, delivered("201 Created: {\"id\":61}"));
    let request = &receiver.requests()[0];
    let line = "POST /git/api/v4/projects/group%2Fsub%2Fshop/trigger/pipeline";
    assert_eq!(request.line, line);
    assert!(!request.headers.contains_key("private-token"));
    let expected = json!({ "token": TRIGGER, "ref": "main", "variables": {
        "TARGET": "shop-v1",
        "ROLLGATE_ACTION": "advance",
        "ROLLGATE_ANALYSIS": "rehearsal",
        "ROLLGATE_BASELINE_VERSION": "v1",
        "ROLLGATE_CANARY_VERSION": "v2",
        "ROLLGATE_KEY": "a1.m",
        "ROLLGATE_REASON": "a rehearsal: nothing was judged",
        "ROLLGATE_SERVICE": "shop",
        "ROLLGATE_VERDICT": "advance",
        "ROLLGATE_STEP": "1",
        "ROLLGATE_WEIGHT": "0.5",
    }});
    assert_eq!(serde_json::from_str::<Value>(&request.body).expect("JSON"), expected);
    assert!(!gitlab.about().takes_tests, "a pipeline would run");
}

#[tokio::test]
async fn an_access_token_reads_first_and_starts_a_pipeline_by_a_header() {
    let list = json!([
        deployment("created", "v3", "0000000000000000"),
        deployment("blocked", "v3", "0000000000000000"),
        deployment("success", "v2", "a91957a858320c0e17f3a0eca7cfacbff50ea29a"),
    ]);
    let receiver = Receiver::start(&[Reply::Json(list.to_string()), CREATED]).await;
    let attempt = checked(&receiver).deliver(&decided(DeployAction::Rollback)).await;
    assert_eq!(attempt, delivered("201 Created: {\"id\":61}"));
    let requests = receiver.requests();
    let project = "/git/api/v4/projects/group%2Fsub%2Fshop";
    let query = "environment=production&order_by=id&sort=desc&per_page=20";
    assert_eq!(requests[0].line, format!("GET {project}/deployments?{query}"));
    assert_eq!(requests[1].line, format!("POST {project}/pipeline"));
    assert!(requests.iter().all(|request| request.headers["private-token"] == TOKEN));
    let body: Value = serde_json::from_str(&requests[1].body).expect("JSON");
    assert_eq!(body["variables"][0], json!({ "key": "ROLLGATE_ACTION", "value": "rollback" }));
    assert_eq!((&body["ref"], &body["token"]), (&json!("main"), &Value::Null));
}

#[tokio::test]
async fn a_changed_world_is_refused() {
    let check = async |reply: Reply, expected: Attempt| {
        let receiver = Receiver::start(&[reply, CREATED]).await;
        let attempt = checked(&receiver).deliver(&decided(DeployAction::Rollback)).await;
        assert_eq!((attempt, receiver.requests().len()), (expected, 1));
    };
    let list = |deployment: Value| Reply::Json(json!([deployment]).to_string());
    let v3 = list(deployment("running", "v3", "a91957a858320c0e17f3"));
    check(v3, refused("production runs v3 (a91957a85832) now; v2 was judged")).await;
    let none = "production has no deployment; v2 was judged";
    check(Reply::Json("[]".to_owned()), refused(none)).await;
    check(list(deployment("created", "v2", "a91957a8")), refused(none)).await;
    let odd = "the deployments of production are no list of deployments";
    check(Reply::Json("null".to_owned()), failed(odd, None)).await;
    check(Reply::Floods, failed("the deployments of production were not answered whole", None))
        .await;
}

#[tokio::test]
async fn each_answer_means_what_the_table_says() {
    let check = async |head: &'static str, expected: Attempt| {
        let receiver = Receiver::start(&[Reply::Says(head)]).await;
        let gitlab = Gitlab::new(options(&receiver), &setting()).expect("good options");
        assert_eq!(gitlab.deliver(&decided(DeployAction::Promote)).await, expected, "{head}");
    };
    check("HTTP/1.1 401 N\r\ncontent-length: 0\r\n\r\n", failed("401 Unauthorized", None)).await;
    check("HTTP/1.1 403 N\r\ncontent-length: 0\r\n\r\n", failed("403 Forbidden", None)).await;
    check("HTTP/1.1 404 N\r\ncontent-length: 0\r\n\r\n", failed("404 Not Found", None)).await;
    let no_ref = "HTTP/1.1 400 N\r\ncontent-length: 48\r\n\r\n\
                  {\"message\":{\"base\":[\"Reference not found\"]}}     ";
    let words = "400 Bad Request: {\"message\":{\"base\":[\"Reference not found\"]}}";
    check(no_ref, refused(words)).await;
    check("HTTP/1.1 422 N\r\ncontent-length: 0\r\n\r\n", refused("422 Unprocessable Entity")).await;
    let slow = "HTTP/1.1 429 N\r\nretry-after: 11\r\ncontent-length: 0\r\n\r\n";
    check(slow, failed("429 Too Many Requests", Some(11))).await;
    check("HTTP/1.1 500 N\r\ncontent-length: 0\r\n\r\n", failed("500 Internal Server Error", None))
        .await;
    check("HTTP/1.1 302 M\r\nlocation: /users/sign_in\r\ncontent-length: 0\r\n\r\n", {
        failed("302 Found", None)
    })
    .await;
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let address = "127.0.0.1:1".parse().expect("an address");
    let check = |change: &dyn Fn(&mut GitlabOptions), expected: &str| {
        let mut options = GitlabOptions {
            peer: peer("pipes", address, ""),
            project: "42".to_owned(),
            reference: pattern("main"),
            trigger_token: Some(Secret::new(TRIGGER)),
            token: None,
            variables: vec![],
            environment: None,
            mapping: MAPPING,
        };
        change(&mut options);
        let error = Gitlab::new(options, &setting()).err().expect("refused").to_string();
        assert!(error.starts_with(expected), "{error}");
    };
    check(&|o| o.project = "/".to_owned(), "gitlab pipes: project is");
    check(&|o| o.trigger_token = None, "gitlab pipes: there is no token");
    check(&|o| o.environment = Some(pattern("p")), "gitlab pipes: environment needs `token`");
}
