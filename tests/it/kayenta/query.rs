//! `/api/v1/query`, asked as Flagger's and Argo Rollouts' Prometheus providers ask.

use rollgate::api::ApiOptions;
use serde_json::{Value, json};

use crate::{
    story::Story,
    wire::{Answer, Server, request},
};

async fn server() -> Server {
    let server = Server::start(ApiOptions::default()).await;
    server.desk.tell(Story::errors("a1", "checkout"));
    server.desk.tell(Story::healthy("a2", "catalog"));
    server.desk.tell(Story::idle("a3", "mail"));
    server.desk.tell(Story::errors("a4", "cart"));
    for id in ["a1", "a2", "a3"] {
        server.desk.advance(id, 500);
    }
    server.desk.advance("a4", 5);
    server
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| match byte {
            b' ' => "+".to_owned(),
            byte if plain(byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// As Flagger's provider: GET, the query escaped for a form.
async fn by_flagger(server: &Server, query: &str) -> Answer {
    server.get(&format!("/api/v1/query?query={}", escaped(query))).await
}

/// As the Go client of Prometheus, which Argo Rollouts uses: POST of a form with the time.
async fn by_argo(server: &Server, query: &str) -> Answer {
    let body = format!("query={}&time=1795000123.456", escaped(query));
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    server.send(&request("POST", "/api/v1/query", form, &body)).await
}

/// The values as Flagger's provider reads them: the last one counts, and none is an error.
fn as_flagger_reads(answer: &Answer) -> Option<f64> {
    assert!(answer.status < 400, "{answer:?}");
    let answer = answer.json();
    let result = answer["data"]["result"].as_array().unwrap();
    result.iter().filter_map(|series| series["value"][1].as_str()?.parse().ok()).next_back()
}

/// The vector as Argo's conditions see it.
fn as_argo_reads(answer: &Answer) -> Vec<f64> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!(
        (&answer["status"], &answer["data"]["resultType"]),
        (&json!("success"), &json!("vector"))
    );
    let result = answer["data"]["result"].as_array().unwrap();
    result.iter().map(|series| series["value"][1].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn verdicts_are_read_by_either_provider() {
    let server = server().await;
    let check = async |query: &str, expected: &[f64]| {
        assert_eq!(as_argo_reads(&by_argo(&server, query).await), expected, "{query}");
        let last = as_flagger_reads(&by_flagger(&server, query).await);
        assert_eq!(last, expected.last().copied(), "{query}");
    };
    check("rollgate_verdict{service=\"checkout\"}", &[-1.0]).await;
    check("rollgate_verdict{service=\"catalog\"}", &[1.0]).await;
    check("rollgate_verdict{service=\"mail\"}", &[0.0]).await;
    check("rollgate_verdict_final{service=\"mail\"}", &[1.0]).await;
    check("rollgate_verdict{service=\"cart\"}", &[0.0]).await;
    check("rollgate_verdict_final{service=\"cart\"}", &[0.0]).await;
    check("rollgate_verdict{service=\"nobody\"}", &[]).await;
    check("rollgate_verdict{service=~\"c.*\",state!=\"running\"}", &[1.0, -1.0]).await;
    check("rollgate_verdict{analysis=\"a1\"}", &[-1.0]).await;
    check("rollgate_verdict{analysis=\"none\"}", &[]).await;
    check("up", &[]).await;
    check("vector(1)", &[1.0]).await;
}

#[tokio::test]
async fn a_series_says_what_it_is_of() {
    let server = server().await;
    let answer = by_flagger(&server, "rollgate_verdict{service=\"checkout\"}").await;
    let series = answer.json()["data"]["result"][0].clone();
    insta::assert_snapshot!("query", serde_json::to_string_pretty(&series).unwrap());
    let answer = by_flagger(&server, "{service=\"checkout\"}").await;
    let names: Vec<Value> = answer.json()["data"]["result"]
        .as_array()
        .unwrap()
        .iter()
        .map(|series| series["metric"]["__name__"].clone())
        .collect();
    assert_eq!(names, [json!("rollgate_verdict"), json!("rollgate_verdict_final")]);
}

#[tokio::test]
async fn the_newest_analysis_of_a_version_counts() {
    let server = server().await;
    let version = |version: &str| {
        let mut story = Story::healthy(&format!("b-{version}"), "shop");
        story.canary.version = version.to_owned();
        story
    };
    server.desk.tell(version("1"));
    server.desk.advance("b-1", 500);
    let mut again = Story::errors("c", "shop");
    again.canary.version = "1".to_owned();
    server.desk.tell(again);
    server.desk.tell(version("2"));
    let values = as_argo_reads(&by_argo(&server, "rollgate_verdict_final{service=\"shop\"}").await);
    assert_eq!(values, [0.0, 0.0], "the analysis of version 1 that is over is not the newest");
    let newest = by_flagger(&server, "rollgate_verdict{service=\"shop\",newest=\"true\"}").await;
    assert_eq!(newest.json()["data"]["result"][0]["metric"]["analysis"], "c", "{newest:?}");
    let by_id = "rollgate_verdict{analysis=\"b-1\",newest=\"false\"}";
    assert_eq!(as_argo_reads(&by_argo(&server, by_id).await), [1.0]);
    let query = "rollgate_verdict{service=\"shop\",canary_version=\"2\"}";
    assert_eq!(as_argo_reads(&by_argo(&server, query).await), [0.0]);
}

#[tokio::test]
async fn more_than_an_answer_holds_is_said() {
    let server = server().await;
    for at in 0..1_300 {
        server.desk.tell(Story::healthy(&format!("m{at:04}"), &format!("s{}", at % 300)));
    }
    let answer = by_argo(&server, "rollgate_verdict").await;
    assert_eq!(as_argo_reads(&answer).len(), 200);
    assert!(answer.json()["warnings"][0].as_str().unwrap().contains("only the newest"));
    let query = "rollgate_verdict{service=\"s299\"}";
    assert_eq!(as_argo_reads(&by_argo(&server, query).await).len(), 1);
}

#[tokio::test]
async fn errors_are_those_that_its_clients_read() {
    let server = server().await;
    let check = async |answer: Answer, words: &str| {
        assert_eq!(answer.status, 400, "{answer:?}");
        let body = answer.json();
        assert_eq!((&body["status"], &body["errorType"]), (&json!("error"), &json!("bad_data")));
        assert!(body["error"].as_str().unwrap().contains(words), "{body}");
    };
    for query in
        ["", "sum(rollgate_verdict)", "rollgate_verdict[5m]", "rollgate_verdict{service=~\"(\"}"]
    {
        check(by_flagger(&server, query).await, "invalid parameter \"query\"").await;
        check(by_argo(&server, query).await, "invalid parameter \"query\"").await;
    }
    check(server.get("/api/v1/query").await, "expected a metric name").await;
    check(server.get("/api/v1/query?query=up&time=soon").await, "invalid parameter \"time\"").await;
    for time in ["1795000000", "2026-11-21T07:00:00Z", ""] {
        let answer = server.get(&format!("/api/v1/query?query=up&time={time}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let odd = server.send(&request("POST", "/api/v1/query", form, "query=\u{1}")).await;
    check(odd, "the form cannot be read").await;
    let huge = "x".repeat(100_000);
    assert_eq!(server.send(&request("POST", "/api/v1/query", form, &huge)).await.status, 413);
    assert_eq!(server.get("/api/v1/query_range?query=up").await.status, 404);
}
