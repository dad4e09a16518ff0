//! `rollgate explain`, end to end: of an analysis that runs and of one that is over, from the service
//! and from its file, and the hash of the rule file on every surface.

use rollgate::rulefile::sha256_hex;
use serde_json::{Value, json};

use crate::house::{House, Manners, Postbox, Reserved, arm, command, health_rules, webhook};

async fn said(args: &[&str]) -> (Option<i32>, String, String) {
    let output = command(&[&["explain"], args].concat()).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

async fn check(args: &[&str], expected: &[&str]) -> String {
    let (code, out, err) = said(args).await;
    assert_eq!(code, Some(0), "{args:?}\n{out}\n{err}");
    for words in expected {
        assert!(out.contains(words), "{args:?}: {words:?} is not in\n{out}");
    }
    assert!(!out.contains('\u{1b}'), "{args:?}: not plain");
    out
}

async fn refuse(args: &[&str], code: i32, expected: &[&str]) {
    let (found, out, err) = said(args).await;
    assert_eq!(found, Some(code), "{args:?}\n{out}\n{err}");
    for words in expected {
        assert!(err.contains(words), "{args:?}: {words:?} is not in\n{err}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_analysis_is_explained_from_the_service_and_from_its_file() {
    let manners: Manners =
        std::sync::Arc::new(|| (std::time::Duration::ZERO, axum::http::StatusCode::OK));
    let postbox = Postbox::new(manners);
    let (listening, nobody) = (Reserved::new(), Reserved::new());
    let hook = webhook(&format!("http://{}", listening.addr()));
    postbox.serve(listening.listen());
    let rules = health_rules("{ after: 10m, deadline: 20m }").replace(
        "then: rollback }",
        "then: rollback, reason: the app is gone, runbook: 'https://wiki.example.org/004' }",
    );
    let calm = health_rules("{ after: 10m, deadline: 20m }").replace("3 checks", "999 checks");
    let house = House::new(
        json!({ "mechanisms": { "deploys": hook } }),
        &[("shop", rules.clone()), ("calm", calm)],
    );
    let (mut server, api) = house.start().await;
    let order = |rules: &str, service: &str, key: &str| {
        json!({
            "service": service, "rules": rules, "mechanisms": ["deploys"], "idempotency_key": key,
            "canary": arm("v2", &[nobody.addr()]),
        })
    };
    let id = api.open(&order("shop", "shop", "one")).await;
    let running = api.open(&order("calm", "till", "two")).await;
    let verdict = api.verdict(&id).await;
    let over = api.delivered(&id).await;
    let at = ["--server", &api.url];

    let whole = check(
        &[&[id.as_str()], &at[..]].concat(),
        &[
            "ROLLBACK",
            "The app is gone; see https://wiki.example.org/004.",
            "▲ fires",
            "app is down for 3 checks",
            "what happened",
            "rollback   ",
            "-> rollback",
            "what it rests on",
            &sha256_hex(&rules),
            "✓ delivered",
            "deploys rollback, 1 attempt: 200 OK",
            &format!("analysis {id}"),
        ],
    )
    .await;
    assert!(whole.lines().all(|line| line.chars().count() <= 120), "{whole}");
    let of_running = [&[running.as_str()], &at[..]].concat();
    check(&of_running, &["running", "WATCHING", "nobody yet"]).await;
    check(&[&["latest"], &at[..]].concat(), &[&running]).await;
    check(&[&["latest", "--service", "shop"], &at[..]].concat(), &[&id]).await;
    check(&at, &[&id, &running, "rollback", "watching", "till"]).await;
    check(&[&["--service", "till"], &at[..]].concat(), &[&running]).await;
    let text = check(&[&[id.as_str(), "--rules"], &at[..]].concat(), &[]).await;
    assert_eq!(text, rules);

    // Ids are times: two of one minute begin alike.
    let both = id.chars().zip(running.chars()).take_while(|(a, b)| a == b).count();
    check(&[&[&id[..=both]], &at[..]].concat(), &[&id]).await;
    refuse(&[&[&id[..both]], &at[..]].concat(), 2, &["several analyses", &id, &running]).await;
    refuse(&[&["ffff"], &at[..]].concat(), 2, &["no analysis has an id", "the nearest are", &id])
        .await;
    refuse(&[&["latest", "--service", "none"], &at[..]].concat(), 2, &["no analysis of none"])
        .await;
    let nowhere = format!("http://{}", nobody.addr());
    refuse(&["latest", "--server", &nowhere], 1, &["no rollgate answers", "--store"]).await;
    refuse(&["latest", "--server", "nowhere"], 2, &["expected a URL"]).await;
    refuse(&["--rules"], 2, &["ID"]).await;

    let json = check(&[&[id.as_str(), "--json"], &at[..]].concat(), &[]).await;
    let asked: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(asked["analysis"], over);
    let changes = asked["timeline"]["changes"].as_array().unwrap();
    let last = changes.last().unwrap();
    assert_eq!((&last["kind"], &last["to"]), (&json!("verdict"), &json!("rollback")));
    assert_eq!((&last["at"], &last["detail"]), (&verdict["decided_at"], &verdict["reason"]));
    let fired = changes.iter().find(|change| change["to"] == "fires").unwrap();
    assert_eq!((&fired["rule"], &fired["then"]), (&verdict["rule"], &json!("rollback")));

    // The hash of the rule file is in every verdict.
    let sha256 = json!(sha256_hex(&rules));
    let list = api.get("/v1/analyses?service=shop").await.1;
    let body = postbox.kept().into_values().next().unwrap().remove(0);
    let event: Value = serde_json::from_slice(&body).unwrap();
    for found in [
        &over["rules"],
        &over["report"]["rules"],
        &verdict["rules"],
        &list["analyses"][0]["rules"],
        &event["data"]["rules"],
    ] {
        assert_eq!((&found["name"], &found["sha256"]), (&json!("shop"), &sha256), "{found}");
    }

    // What a mechanism does is in the configuration, which the file does not hold.
    let mut asked_of_file = asked;
    asked_of_file["analysis"]["deliveries"][0]["does"] = Value::Null;

    // The same from the file, while the service runs and when it does not.
    let store = house.path().join("rollgate.db").display().to_string();
    let from_file = ["--store", &store];
    let json = check(&[&[id.as_str(), "--json"], &from_file[..]].concat(), &[]).await;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), asked_of_file);
    assert!(server.terminate().await.success());
    let before = std::fs::read(&store).unwrap();
    let json = check(&[&[id.as_str(), "--json"], &from_file[..]].concat(), &[]).await;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), asked_of_file);
    assert_eq!(check(&[&[id.as_str()], &from_file[..]].concat(), &[]).await, whole);
    check(&from_file, &[&id, &running]).await;
    check(&[&["latest", "--rules"], &from_file[..]].concat(), &["999 checks"]).await;
    assert_eq!(std::fs::read(&store).unwrap(), before, "a file that is explained is not changed");

    let empty = house.path().join("none.db").display().to_string();
    refuse(&["latest", "--store", &empty], 2, &["none.db", "no file", "hint"]).await;
    assert!(!std::path::Path::new(&empty).exists());
    let config = house.config().display().to_string();
    refuse(&["latest", "--store", &config], 2, &["not a SQLite database"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_and_replay_name_the_rule_file_too() {
    let house = House::new(json!({}), &[("brief", health_rules("{ after: 10m, deadline: 20m }"))]);
    let (rules, nobody) = (house.rule_file("brief").display().to_string(), Reserved::new());
    let canary = format!("http://{}", nobody.addr());
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/recordings/error5");
    let recommended = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/recommended.yaml");
    for (args, path, name) in [
        (vec!["run", "--rules", &rules, "--canary", &canary], rules.as_str(), "brief"),
        (
            vec!["replay", recording, "--rules", recommended, "--hold", "2m"],
            recommended,
            "recommended",
        ),
    ] {
        let sha256 = sha256_hex(&std::fs::read_to_string(path).unwrap());
        let said = command(&[&args[..], &["--json"]].concat()).await;
        assert_eq!(said.status.code(), Some(3), "{said:?}");
        let report: Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!(report["rules"], json!({ "name": name, "sha256": sha256 }));
        let said = command(&args).await;
        let text = String::from_utf8(said.stdout).unwrap();
        assert!(text.contains(&format!("rules {name}, sha256 {}", &sha256[..12])), "{text}");
    }
}
