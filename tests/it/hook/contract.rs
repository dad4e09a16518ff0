//! Who is listened to, what a command is given, and what is answered.

use rollgate::{
    deliver::{payload::EVENT_BYTES_MAX, sign::Keys},
    telemetry::secret::Secret,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::stand::{KEY, Stand, verdict};

/// Notes that it ran; keeps what it was given.
const KEEPER: &str = "echo ran >> diary; cat > stdin; env | sort > environment; \
                      for word; do echo \"$word\"; done > words; echo 'it is done'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_runs_its_command_once_and_nothing_of_it_is_on_the_command_line() {
    let stand = Stand::with_script("environment: [PASSED_ON, NOT_SET]\n", KEEPER);
    let hook = stand.start();
    let mut event = verdict("a1", "rollback");
    event["data"]["canary_version"] = "$(touch owned)".into();
    event["data"]["reason"] = "'; touch owned; '".into();
    let said = hook.sender.send("a1.deploys", &event).await;
    assert_eq!(said.outcome(), (200, "done"), "{said:?}");
    assert_eq!((&said.body["exit_code"], &said.body["output"]), (&json!(0), &json!("it is done")));
    assert_eq!(stand.read("stdin"), event.to_string());
    assert_eq!(stand.read("words"), "one\ntwo words\n");
    let path = std::env::var("PATH").unwrap();
    let environment = stand.read("environment");
    // What shells set by themselves.
    let of_shells =
        |line: &&str| !["PWD=", "OLDPWD=", "SHLVL=", "_="].iter().any(|own| line.starts_with(own));
    let environment: Vec<&str> = environment.lines().filter(of_shells).collect();
    let home = format!("HOME={}", stand.path("").display());
    assert_eq!(
        environment,
        [
            home.trim_end_matches('/'),
            "PASSED_ON=yes",
            &format!("PATH={}:{path}", stand.path("bin").display()),
            "ROLLGATE_ACTION=rollback",
            "ROLLGATE_ANALYSIS=a1",
            "ROLLGATE_BASELINE_VERSION=v1",
            "ROLLGATE_ID=a1.deploys",
            "ROLLGATE_SERVICE=shop",
            "ROLLGATE_VERDICT=rollback",
        ]
    );
    assert!(!stand.path("owned").exists());
    let again = hook.sender.send("a1.deploys", &event).await;
    assert_eq!((again.status, again.body), (200, said.body));
    assert_eq!(stand.runs(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_fresh_events_of_a_known_key_are_listened_to() {
    let members = "service: shop\n";
    let stand = Stand::with_script(members, KEEPER);
    let second = "another-signing-key-while-one-is-replaced";
    stand.write("second", second);
    let text = stand.read("hook.yaml").replace("HOOK_KEY }", "HOOK_KEY }, { file: second }");
    stand.write("hook.yaml", &text);
    let hook = stand.start();
    let sender = &hook.sender;
    let keys = |key: &str| Keys::new(&[Secret::new(key)]).unwrap();
    let body = verdict("a1", "rollback").to_string();

    let check = async |id: &str, key: &str, secs: i64, signed: &str, expected: (u16, &str)| {
        let headers = sender.headers(id, signed.as_bytes(), &keys(key), secs);
        let said = sender.raw(&headers, body.clone()).await;
        assert!(said.status == expected.0 && said.because(expected.1), "{id}: {said:?}");
    };
    check("wrong key", "a-key-that-nobody-here-knows-of", 0, &body, (401, "of a known secret"))
        .await;
    check("old", KEY, -310, &body, (401, "s from now")).await;
    check("early", KEY, 310, &body, (401, "s from now")).await;
    check("altered", KEY, 0, &body.replace("v2", "v9"), (401, "of a known secret")).await;
    check(&"k".repeat(300), KEY, 0, &body, (400, "300 bytes")).await;
    for missing in 0..3 {
        let mut headers = sender.headers("k", body.as_bytes(), &keys(KEY), 0).to_vec();
        headers.remove(missing);
        let said = sender.raw(&headers, body.clone()).await;
        assert!(said.status == 400 && said.because("there is no webhook-"), "{said:?}");
    }
    let other = |change: fn(&mut Value)| {
        let mut event = verdict("a1", "rollback");
        change(&mut event);
        event
    };
    for (event, words) in [
        (other(|event| event["type"] = "push".into()), "events of type push"),
        (other(|event| event["data"]["service"] = "till".into()), "for shop, not for till"),
        (other(|event| event["data"]["action"] = "destroy".into()), "destroy"),
        (json!("rollback"), "no event"),
    ] {
        let said = sender.send("other", &event).await;
        assert!(said.outcome() == (410, "refused") && said.because(words), "{said:?}");
    }
    let headers = sender.headers("k", b"{\"type\":", &keys(KEY), 0);
    assert_eq!(sender.raw(&headers, "{\"type\":").await.outcome(), (410, "refused"));
    let test = json!({ "type": "rollgate.test.v1", "data": { "action": "rollback" } });
    assert_eq!(sender.send("test", &test).await.outcome(), (200, "nothing"));
    let hold = sender.send("hold", &verdict("a1", "hold")).await;
    assert!(hold.outcome() == (200, "nothing") && hold.because("run on hold"), "{hold:?}");
    assert_eq!(sender.get("/hook").await.0, 405);
    assert_eq!(sender.get("/other").await.0, 404);
    assert_eq!(sender.get("/healthz").await, (200, json!({ "status": "pass" })));
    assert_eq!(stand.runs(), 0, "a command ran for none of these");

    // Within the tolerance, and by the second key.
    let headers = sender.headers("slow", body.as_bytes(), &keys(second), -280);
    assert_eq!(sender.raw(&headers, body.clone()).await.outcome(), (200, "done"));
    assert_eq!(stand.runs(), 1);
    let log = stand.read("stderr.log");
    assert!(!log.contains(KEY) && !log.contains(second), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_and_broken_connections_cost_nothing() {
    let stand = Stand::with_script("", KEEPER);
    let mut hook = stand.start();
    let keys = Keys::new(&[Secret::new(KEY)]).unwrap();
    let large = vec![b' '; EVENT_BYTES_MAX + 1];
    let headers = hook.sender.headers("large", &large, &keys, 0);
    let said = hook.sender.raw(&headers, large.clone()).await;
    assert!(said.status == 413 && said.because("262144 bytes"), "{said:?}");
    // As large as it may be: its command reads none of it.
    stand.script("act.sh", "echo ran >> diary");
    let mut event = verdict("a1", "rollback");
    event["data"]["reason"] = "r".repeat(EVENT_BYTES_MAX - event.to_string().len()).into();
    let said = hook.sender.send("full", &event).await;
    assert_eq!(said.outcome(), (200, "done"), "{said:?}");

    let address =
        hook.sender.url.trim_start_matches("http://").trim_end_matches("/hook").to_owned();
    let body = verdict("a2", "rollback").to_string();
    let raw = |id: &str, length: String, body: &str| {
        let headers = hook.sender.headers(id, body.as_bytes(), &keys, 0);
        let headers: String =
            headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("POST /hook HTTP/1.1\r\nhost: h\r\n{headers}{length}\r\n{body}")
    };
    // A body that never ends is cut at the limit; 100 MB are not taken in.
    let mut endless = TcpStream::connect(&address).await.unwrap();
    let head = raw("endless", "transfer-encoding: chunked\r\n".to_owned(), "");
    endless.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 65536], b"\r\n".to_vec()].concat();
    let mut sent = 0;
    while sent < 100 << 20 && endless.write_all(&chunk).await.is_ok() {
        sent += 65536;
    }
    assert!(sent < 100 << 20, "{sent} bytes were taken");
    // One that breaks off is none.
    let mut broken = TcpStream::connect(&address).await.unwrap();
    let length = format!("content-length: {}\r\n", body.len() + 1);
    broken.write_all(raw("broken", length, &body).as_bytes()).await.unwrap();
    drop(broken);
    // One whose sender has said all and listens on is answered, or repeated; it runs once.
    let mut half = TcpStream::connect(&address).await.unwrap();
    let length = format!("content-length: {}\r\nconnection: close\r\n", body.len());
    half.write_all(raw("half", length, &body).as_bytes()).await.unwrap();
    half.shutdown().await.unwrap();
    let mut answer = String::new();
    let _ = half.read_to_string(&mut answer).await;
    let said = hook.sender.send("half", &verdict("a2", "rollback")).await;
    assert_eq!(said.outcome(), (200, "done"), "{said:?}");
    assert_eq!(stand.runs(), 2, "{answer}");
    assert!(hook.peak_mib() < 64, "{} MiB", hook.peak_mib());
    assert!(hook.terminate().await.success());
}

#[test]
fn what_would_be_run_is_said_at_rest() {
    let stand = Stand::with_script("service: shop\ncheck: [./act.sh, version]\n", "exit 0");
    let output = stand.run(&["--check"]);
    let text = String::from_utf8(output.stdout)
        .unwrap()
        .replace(&*stand.path("").to_string_lossy(), "DIR/");
    assert!(output.status.success());
    assert_eq!(
        text,
        "DIR/hook.yaml  good: a hook for shop on http://127.0.0.1:0/hook\n\n  \
         rollback  DIR/./act.sh one 'two words'\n  \
         promote   DIR/./act.sh one 'two words'\n  \
         advance   DIR/./act.sh one 'two words'\n  \
         hold      nothing\n\n  \
         Before each, DIR/./act.sh version must print the version that was judged.\n  \
         A command runs in DIR/ for 300 s at most,\n  \
         and an event is refused when it has failed 3 times.\n  \
         What the end of the hook cut off is refused.\n  \
         Events are remembered in DIR/hook.memory.\n"
    );
    stand.script("other.sh", "exit 0");
    let text = stand.read("hook.yaml").replace("./act.sh, version", "./gone.sh");
    stand.write("hook.yaml", &text);
    let output = stand.run(&[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("check: there is no file") && text.contains("gone.sh"), "{text}");
}
