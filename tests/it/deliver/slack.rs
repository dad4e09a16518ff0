//! The mechanism `slack`: its message, its limits, and the answers of chats.

use rollgate::deliver::{
    Attempt, Mechanism,
    payload::DeployAction,
    sample,
    slack::{MAPPING, Slack, SlackOptions},
};
use serde_json::{Value, json};

use super::receiver::{
    NOW, RELEASE, Receiver, Reply, decided, delivered, failed, parcel, pattern, peer, refused,
    setting,
};

const PATH: &str = "/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX";
const OK: Reply = Reply::Says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");

fn slack(receiver: &Receiver) -> Slack {
    let link = Some(pattern("https://rollgate.example.org/#/analyses/{analysis}"));
    let options =
        SlackOptions { peer: peer("chat", receiver.address, PATH), link, mapping: MAPPING };
    Slack::new(options, &setting()).expect("good options")
}

async fn posted(body: String) -> Value {
    let receiver = Receiver::start(&[OK]).await;
    assert_eq!(slack(&receiver).deliver(&parcel(body)).await, delivered("200 OK: ok"));
    let request = &receiver.requests()[0];
    assert_eq!(request.line, format!("POST {PATH}"));
    assert_eq!(request.headers["content-type"], "application/json; charset=utf-8");
    serde_json::from_str(&request.body).expect("JSON")
}

#[tokio::test]
async fn a_message_says_what_was_decided_and_why() {
    let facts = "Rule: error_rate &gt; 1.5x baseline · Compared with v1 · Analysis rehearsal · \
                 <https://rollgate.example.org/#/analyses/rehearsal|Read more>";
    let said = "*Roll back shop v2*\na rehearsal: nothing was judged";
    let expected = json!({
        "text": format!("{said}\n{facts}"),
        "blocks": [
            { "type": "section", "text": { "type": "mrkdwn", "text": said } },
            { "type": "context", "elements": [{ "type": "mrkdwn", "text": facts }] },
        ],
    });
    let found = posted(sample::rehearsal(DeployAction::Rollback, &RELEASE, NOW)).await;
    assert_eq!(found, expected);
    let test = posted(sample::test(&RELEASE, NOW)).await;
    let text = test["text"].as_str().expect("text");
    assert!(text.starts_with("*A test from rollgate, about shop v2*\n"), "{text}");
}

#[tokio::test]
async fn nobody_is_called_and_nothing_is_too_long() {
    let release = sample::Release { service: "<!channel> & co", ..RELEASE };
    let body = sample::rehearsal(DeployAction::Promote, &release, NOW);
    let body = body.replacen("a rehearsal: nothing was judged", &"<&>ü".repeat(5000), 1);
    let message = posted(body).await;
    let texts = [
        (&message["text"], 4000),
        (&message["blocks"][0]["text"]["text"], 3000),
        (&message["blocks"][1]["elements"][0]["text"], 2000),
    ];
    for (text, most) in texts {
        let text = text.as_str().expect("text");
        assert!(text.chars().count() <= most, "{}", text.chars().count());
        assert!(!text.contains("<!") && !text.contains("<&"), "{text}");
    }
    let text = message["text"].as_str().expect("text");
    assert!(text.starts_with("*Promote &lt;!channel&gt; &amp; co v2*\n&lt;&amp;&gt;ü"), "{text}");
}

#[tokio::test]
async fn each_answer_means_what_the_table_says() {
    let check = async |reply: Reply, expected: Attempt| {
        let receiver = Receiver::start(&[reply]).await;
        assert_eq!(slack(&receiver).deliver(&decided(DeployAction::Rollback)).await, expected);
    };
    let says = |text: &'static str| Reply::Says(text);
    check(
        says("HTTP/1.1 404 N\r\ncontent-length: 10\r\n\r\nno_service"),
        refused("404 Not Found: no_service"),
    )
    .await;
    check(
        says("HTTP/1.1 403 N\r\ncontent-length: 13\r\n\r\ninvalid_token"),
        refused("403 Forbidden: invalid_token"),
    )
    .await;
    check(
        says("HTTP/1.1 410 N\r\ncontent-length: 19\r\n\r\nchannel_is_archived"),
        refused("410 Gone: channel_is_archived"),
    )
    .await;
    check(
        says("HTTP/1.1 400 N\r\ncontent-length: 15\r\n\r\ninvalid_payload"),
        refused("400 Bad Request: invalid_payload"),
    )
    .await;
    check(
        says("HTTP/1.1 429 N\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n"),
        failed("429 Too Many Requests", Some(30)),
    )
    .await;
    check(
        says("HTTP/1.1 500 N\r\ncontent-length: 12\r\n\r\nrollup_error"),
        failed("500 Internal Server Error: rollup_error", None),
    )
    .await;
    check(
        Reply::Json("{\"ok\":false,\"error\":\"invalid_auth\"}".to_owned()),
        refused("200 OK: {\"ok\":false,\"error\":\"invalid_auth\"}"),
    )
    .await;
    check(Reply::Json("{\"ok\":true}".to_owned()), delivered("200 OK: {\"ok\":true}")).await;
}
