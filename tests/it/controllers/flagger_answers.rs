//! `/v1/integrations/flagger/{hook}`: each hook in each state of an analysis, and the Canary file.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::api::ApiOptions;
use serde_json::{Value, json};

use super::{at, documents, flagger::faults_of_canary};
use crate::{
    fake_desk::{BAD, DOWN, QUIET, REFUSED, STEPPED},
    wire::{Answer, Server, request},
};

const HOOKS: [&str; 8] = [
    "confirm-rollout",
    "pre-rollout",
    "rollout",
    "confirm-traffic-increase",
    "confirm-promotion",
    "rollback",
    "post-rollout",
    "event",
];

async fn server() -> Server {
    Server::start(ApiOptions::default()).await
}

async fn call(server: &Server, hook: &str, name: &str, checksum: &str, phase: &str) -> Answer {
    let body = json!({
        "name": name, "namespace": "test", "phase": phase, "checksum": checksum,
        "metadata": { "service": name },
    });
    let answer = server.post(&format!("/v1/integrations/flagger/{hook}"), &body.to_string()).await;
    // The contract of every answer that is one.
    if answer.status == 200 || answer.status == 403 {
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{answer:?}");
        assert_eq!(answer.body.lines().count(), 1, "{hook}: {answer:?}");
        assert!(answer.header("retry-after").is_none() && answer.body.len() < 1_000, "{answer:?}");
    }
    answer
}

#[tokio::test]
async fn every_hook_is_answered_by_how_the_analysis_stands() {
    // Per state, in the order of HOOKS from the second on: pre-rollout, rollout, more traffic,
    // promotion, rollback, post-rollout, event.
    for (state, name, looks, expected) in [
        ("before the first look", "shop", 0, [200, 200, 200, 403, 403, 200, 200]),
        ("watching", "shop", 10, [200, 200, 200, 403, 403, 200, 200]),
        ("investigate", BAD, 44, [200, 200, 403, 403, 403, 200, 200]),
        ("rollback", BAD, 500, [403, 403, 403, 403, 200, 200, 200]),
        ("promote", "shop", 500, [200, 200, 200, 200, 403, 200, 200]),
        ("inconclusive, held", QUIET, 500, [200, 200, 403, 403, 403, 200, 200]),
    ] {
        let server = server().await;
        assert_eq!(call(&server, "pre-rollout", name, "c1", "Progressing").await.status, 200);
        server.desk.advance("new-0", looks);
        for (hook, expected) in HOOKS[1..].iter().zip(expected) {
            let answer = call(&server, hook, name, "c1", "Progressing").await;
            assert_eq!(answer.status, expected, "{state}: {hook}: {answer:?}");
        }
        assert_eq!(server.desk.ids(), ["new-0"], "{state}");
    }
}

#[tokio::test]
async fn the_words_say_why() {
    let server = server().await;
    call(&server, "pre-rollout", BAD, "c1", "Progressing").await;
    server.desk.advance("new-0", 500);
    for hook in ["rollout", "confirm-promotion", "rollback"] {
        let answer = call(&server, hook, BAD, "c1", "Progressing").await;
        assert!(
            answer.body.starts_with("rollback: Roll back: errors of the canary are 6.2 %"),
            "{answer:?}"
        );
    }
    call(&server, "pre-rollout", "shop", "c1", "Progressing").await;
    server.desk.advance("new-1", 30);
    let answer = call(&server, "confirm-promotion", "shop", "c1", "Progressing").await;
    assert!(answer.body.starts_with("not yet: "), "{answer:?}");
    assert!(answer.body.contains("watched for 30 s of 2 m at least"), "{answer:?}");
}

#[tokio::test]
async fn traffic_goes_up_step_by_step() {
    let server = server().await;
    let more =
        async || call(&server, "confirm-traffic-increase", STEPPED, "c1", "Progressing").await;
    call(&server, "pre-rollout", STEPPED, "c1", "Progressing").await;
    assert_eq!(more().await.status, 200, "without traffic");
    // Flagger could not change the routes: there is no traffic yet, and it begins again.
    assert_eq!(more().await.status, 403);
    call(&server, "pre-rollout", STEPPED, "c1", "Progressing").await;
    assert_eq!(more().await.status, 200, "without traffic");
    server.desk.advance("new-0", 10);
    let held = more().await;
    assert_eq!(held.status, 403);
    assert!(held.body.starts_with("step 1 of 3 (10 %) is not passed yet"), "{held:?}");
    server.desk.advance("new-0", 11);
    assert_eq!(more().await.status, 200, "the first step is passed");
    assert_eq!(more().await.status, 403);
    server.desk.advance("new-0", 500);
    assert_eq!(more().await.status, 200, "promoted");
    assert_eq!(more().await.status, 200);
}

#[tokio::test]
async fn releases_follow_each_other() {
    let server = server().await;
    let shop = async |hook: &str, checksum: &str, phase: &str| {
        call(&server, hook, "shop", checksum, phase).await.status
    };
    // The checksum of confirm-rollout is that of the release before.
    assert_eq!(shop("confirm-rollout", "c0", "Initialized").await, 200);
    assert_eq!(shop("confirm-rollout", "c0", "Waiting").await, 200);
    assert_eq!(shop("rollback", "c1", "Progressing").await, 403);
    assert_eq!(shop("pre-rollout", "c1", "Progressing").await, 200);
    assert_eq!(server.desk.ids(), ["new-0"]);
    // A newer one in the middle: the older analysis ends on record.
    assert_eq!(shop("confirm-promotion", "c2", "Progressing").await, 403);
    assert_eq!(shop("pre-rollout", "c2", "Progressing").await, 200);
    let old = server.get("/v1/analyses/new-0").await.json();
    assert_eq!(old["cancelled"]["who"], "flagger");
    assert_eq!(old["cancelled"]["why"], "Flagger began a newer release of test/shop");
    server.desk.advance("new-1", 500);
    assert_eq!(shop("confirm-promotion", "c2", "Progressing").await, 200);
    assert_eq!(shop("post-rollout", "c2", "Succeeded").await, 200);
    // One that Flagger ends by itself, for the same text as the first.
    assert_eq!(shop("confirm-rollout", "c2", "Succeeded").await, 200);
    assert_eq!(shop("pre-rollout", "c1", "Progressing").await, 200);
    assert_eq!(shop("post-rollout", "c1", "Failed").await, 200);
    let ended = server.get("/v1/analyses/new-2").await.json();
    let why = "Flagger ended the release of test/shop as Failed before there was a verdict";
    assert_eq!(ended["cancelled"]["why"], why);
    assert_eq!(server.desk.ids(), ["new-0", "new-1", "new-2"]);
}

#[tokio::test]
async fn hooks_at_once_open_one_analysis() {
    let server = server().await;
    let one = || call(&server, "pre-rollout", "shop", "c1", "Progressing");
    let answers = tokio::join!(one(), one(), one(), one(), one(), one(), one(), one());
    let answers =
        [answers.0, answers.1, answers.2, answers.3, answers.4, answers.5, answers.6, answers.7];
    assert!(answers.iter().any(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(server.desk.ids(), ["new-0"]);
}

#[tokio::test]
async fn what_is_wrong_is_said_and_nothing_of_ours_is_held_against_a_release() {
    let server = server().await;
    let refused = call(&server, "pre-rollout", REFUSED, "c1", "Progressing").await;
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("no file a.yaml; mechanisms[0]: unknown"), "{refused:?}");
    let down = call(&server, "pre-rollout", DOWN, "c1", "Progressing").await;
    assert_eq!((down.status, down.body.contains("does not answer")), (403, true), "{down:?}");
    let nothing = call(&server, "rollback", "shop", "c1", "Progressing").await;
    assert_eq!((nothing.status, nothing.body.contains("pre-rollout begins")), (403, true));
    call(&server, "pre-rollout", "shop", "c1", "Progressing").await;
    server.desk.set_down(true);
    for (hook, expected) in HOOKS.iter().zip([403, 403, 200, 403, 403, 403, 403, 200]) {
        let answer = call(&server, hook, "shop", "c1", "Progressing").await;
        assert_eq!(answer.status, expected, "{hook}: {answer:?}");
    }
    let old = call(&server, "pre-rollout", "shop", "", "Progressing").await;
    assert_eq!((old.status, old.body.contains("1.34")), (403, true), "{old:?}");
}

#[tokio::test]
async fn an_order_that_was_refused_may_be_mended() {
    let server = server().await;
    let call = async |hook: &str, service: &str| {
        let body = json!({
            "name": "shop", "namespace": "test", "phase": "Progressing", "checksum": "c1",
            "metadata": { "service": service },
        });
        let path = format!("/v1/integrations/flagger/{hook}");
        server.post(&path, &body.to_string()).await.status
    };
    assert_eq!(call("pre-rollout", REFUSED).await, 403);
    // The release is known by now, and not judged: as after a crash between the two.
    assert_eq!(call("rollback", "shop").await, 403);
    assert_eq!(call("confirm-promotion", "shop").await, 403);
    assert_eq!(call("pre-rollout", "shop").await, 200);
    assert_eq!(call("rollout", "shop").await, 200);
    assert_eq!(server.desk.ids(), ["new-0"]);
}

/// Whatever is sent, it is answered as the document says, and by no 5xx.
#[tokio::test]
async fn random_bodies_are_answered_as_documented() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let server = server().await;
    let good = r#"{"name":"shop","namespace":"test","phase":"Progressing","checksum":"c1","metadata":{"service":"shop","hold":"10m","canary_targets":"http://a:1"}}"#;
    let parts = ["\"", "{", "}", "null", "1e999", "\\u0000", "é", ",", ":", "[]", "hold", "\u{7f}"];
    for _ in 0..400 {
        let mut body = good.to_owned();
        for _ in 0..chance.random_range(0..4) {
            let mut at = chance.random_range(0..body.len());
            while !body.is_char_boundary(at) {
                at -= 1;
            }
            match chance.random_bool(0.5) {
                true => body.insert_str(at, parts[chance.random_range(0..parts.len())]),
                false => drop(body.remove(at)),
            }
        }
        let hook = HOOKS[chance.random_range(0..HOOKS.len())];
        let answer = server.post(&format!("/v1/integrations/flagger/{hook}"), &body).await;
        let expected = [200, 400, 403, 422].contains(&answer.status);
        assert!(expected, "seed {seed}: {hook} {body}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_no_hook_is_a_problem() {
    let server = server().await;
    let check = async |hook: &str, body: &str, status: u16, words: &str| {
        let answer = server.post(&format!("/v1/integrations/flagger/{hook}"), body).await;
        assert_eq!(answer.status, status, "{hook} {body:.80}: {answer:?}");
        assert!(answer.body.contains(words), "{hook}: {answer:?}");
        assert_eq!(answer.body.lines().count(), 1, "Flagger shows it on one line");
    };
    let good = r#"{"name":"a","namespace":"b","phase":"","checksum":"c","later":[1]}"#;
    check("pre-rollout", good, 200, "watching").await;
    check("pre-rollouts", good, 404, "known are: confirm-rollout").await;
    check("rollout", "{", 400, "EOF").await;
    check("rollout", "[]", 400, "").await;
    check("rollout", "{}", 400, "name").await;
    check("rollout", r#"{"name":"A b","namespace":"","checksum":"é"}"#, 422, "3 faults").await;
    check("rollout", r#"{"name":"a","namespace":"b","metadata":{"x":1}}"#, 400, "metadata").await;
    let many: Vec<String> = (0..65).map(|n| format!("\"k{n}\":\"\"")).collect();
    let many = format!(r#"{{"name":"a","namespace":"b","metadata":{{{}}}}}"#, many.join(","));
    check("rollout", &many, 422, "at most 64").await;
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(300 * 1024));
    check("rollout", &large, 413, "").await;
    let misspelt = r#"{"name":"x","namespace":"b","checksum":"c","metadata":{"ruels":"y"}}"#;
    check("pre-rollout", misspelt, 403, "ruels").await;
    let path = "/v1/integrations/flagger/rollout";
    assert_eq!(server.send(&request("POST", path, "", good)).await.status, 415);
    assert_eq!(server.get(path).await.status, 405);
}

#[tokio::test]
async fn flagger_takes_the_canary_file() {
    let server = server().await;
    let path = "/v1/integrations/flagger/canary.yaml";
    let plain = server.get(&format!("{path}?name=shop&namespace=web&rules=recommended")).await;
    insta::assert_snapshot!("flagger_canary", plain.body);
    let canary = &documents(&plain.body)[0];
    assert_eq!(faults_of_canary(canary), [""; 0]);
    let hooks = at(canary, "spec.analysis.webhooks").as_array().unwrap();
    for hook in hooks {
        let url = hook["url"].as_str().unwrap();
        let expected =
            format!("http://localhost/v1/integrations/flagger/{}", hook["type"].as_str().unwrap());
        assert_eq!(url, expected);
    }
    assert_eq!(hooks.len(), 7);
    let token = server.get(&format!("{path}?path_token=true&address=https://r.ops")).await;
    assert!(token.body.contains("url: https://r.ops/t/TOKEN/v1/integrations/flagger/rollback"));
    assert_eq!(faults_of_canary(&documents(&token.body)[0]), [""; 0]);
    assert_eq!(server.get(&format!("{path}?name=a%0Ab")).await.status, 400);
    let numbers = server.get(&format!("{path}?name=7&service=true&namespace=1e3")).await;
    let canary = &documents(&numbers.body)[0];
    let metadata = at(canary, "spec.analysis.webhooks.0.metadata.service");
    assert_eq!((&canary["metadata"]["name"], metadata), (&Value::from("7"), &Value::from("true")));
}
