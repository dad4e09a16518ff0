//! Access of the real binary: what it refuses to start with, tokens that it makes and takes, TLS,
//! and tokens that are rotated while it runs.

use std::{
    fs,
    io::{BufRead, BufReader},
    time::Duration,
};

use reqwest::{Certificate, StatusCode};
use serde_json::{Value, json};

use crate::{
    house::{House, command, error_rules, eventually},
    tls::Authority,
};

fn rules() -> [(&'static str, String); 1] {
    [("shop", error_rules("{ after: 1m, deadline: 5m }"))]
}

/// A token and the configuration's entry for it, as the command makes them.
async fn made(args: &[&str]) -> (String, Value) {
    let ran = command(&[&["token", "--json"], args].concat()).await;
    assert!(ran.status.success(), "{ran:?}");
    let made: Value = serde_json::from_slice(&ran.stdout).unwrap();
    (made["token"].as_str().unwrap().to_owned(), made["access"]["tokens"][0].clone())
}

#[tokio::test]
async fn tokens_are_made_once_and_never_twice() {
    let (first, entry) = made(&["--name", "argo", "--scope", "control"]).await;
    let (second, _) = made(&["--name", "argo", "--scope", "control", "--path"]).await;
    assert_ne!(first, second);
    // 32 bytes in base64 without padding.
    assert!(first.starts_with("rgt_") && first.len() == 4 + 43, "{first}");
    let expected = rollgate::rulefile::sha256_hex(&first);
    assert_eq!(entry, json!({ "name": "argo", "scope": "control", "sha256": expected }));
    let args = ["token", "--name", "x", "--scope", "read", "--path", "--expires", "2030-01-31"];
    let ran = command(&args).await;
    let text = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(text.matches("rgt_").count(), 2, "{text}");
    assert!(text.contains("    - { name: x, scope: read, sha256: "), "{text}");
    assert!(text.contains(", path: true, expires: 2030-01-31 }"), "{text}");
    for (args, part) in [
        (["--name", "a b", "--scope", "read", "--expires", "2030-01-31"], "name is \"a b\""),
        (["--name", "a, path: true", "--scope", "read", "--expires", "2030-01-31"], "name is"),
        (["--name", "a", "--scope", "read", "--expires", "soon"], "expires is \"soon\""),
        (["--name", "a", "--scope", "root", "--expires", "2030-01-31"], "root"),
    ] {
        let ran = command(&[&["token"], args.as_slice()].concat()).await;
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(2), "{ran:?}");
        assert!(said.contains(part), "{said}");
        assert!(ran.stdout.is_empty(), "{ran:?}");
    }
}

#[tokio::test]
async fn beyond_loopback_nothing_is_served_without_tokens() {
    for members in [json!({ "listen": "0.0.0.0:0" }), json!({ "allow_remote": true })] {
        let house = House::new(members, &rules());
        let mut server = house.spawn();
        assert_eq!(server.line().await, "");
        let said = house.logged();
        assert!(said.contains("rollgate token --name ci"), "{said}");
    }
    let entry = json!({ "name": "a", "scope": "read", "sha256": "ab".repeat(32) });
    let members = json!({ "listen": "0.0.0.0:0", "access": { "tokens": [entry] } });
    let house = House::new(members, &rules());
    let (_server, api) = house.start().await;
    let url = api.url.replace("0.0.0.0", "127.0.0.1");
    let client = crate::wire::client_builder().build().unwrap();
    let asked = client.get(format!("{url}/v1/analyses")).send().await.unwrap();
    assert_eq!(asked.status(), StatusCode::UNAUTHORIZED);
    assert!(house.logged().contains("unencrypted"), "{}", house.logged());
}

#[tokio::test]
async fn a_service_with_tls_takes_tokens_and_rotates_them() {
    let (old, old_entry) = made(&["--name", "ci", "--scope", "control", "--path"]).await;
    let (new, new_entry) = made(&["--name", "ci-2", "--scope", "read"]).await;
    let authority = Authority::new();
    let pair = authority.server();
    let members = json!({
        "access": { "tokens": [old_entry], "open": ["metrics"] },
        "tls": { "cert": "tls.crt", "key": "tls.key" },
    });
    let house = House::new(members, &rules());
    let put = |name: &str, text: &str| fs::write(house.path().join(name), text).unwrap();
    put("tls.crt", &pair.cert);
    put("tls.key", &pair.key);
    put("ca.crt", &authority.pem);
    put("token", &format!("{old}\n"));
    put("new-token", &new);
    let (server, api) = house.start().await;
    assert!(api.url.starts_with("https://127.0.0.1:"), "{}", api.url);
    let root = Certificate::from_pem(authority.pem.as_bytes()).unwrap();
    let client = crate::wire::client_builder().tls_certs_only([root]).build().unwrap();
    let ask = async |token: &str, path: &str| {
        let asked = client.get(format!("{}{path}", api.url)).bearer_auth(token);
        asked.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask(&old, "/v1/analyses").await, 200);
    assert_eq!(ask(&new, "/v1/analyses").await, 401);
    let open = client.get(format!("{}/metrics", api.url)).send().await.unwrap();
    let metrics = open.text().await.unwrap();
    assert!(metrics.contains("rollgate_tls_not_after_timestamp_seconds{"), "{metrics}");
    let by_path = format!("{}/t/{old}/v1/integrations/none", api.url);
    assert_eq!(client.get(by_path).send().await.unwrap().status(), StatusCode::NOT_FOUND);

    let file = |name: &str| house.path().join(name).to_string_lossy().into_owned();
    let explain = async |token: &str, ca: &str| {
        let (token, ca) = (file(token), file(ca));
        let args = ["explain", "--server", &api.url, "--token-file", &token, "--ca", &ca];
        let ran = command(&args).await;
        (
            ran.status.code(),
            format!(
                "{}{}",
                String::from_utf8_lossy(&ran.stdout),
                String::from_utf8_lossy(&ran.stderr)
            ),
        )
    };
    let (code, said) = explain("token", "ca.crt").await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = explain("new-token", "ca.crt").await;
    assert!(code == Some(1) && said.contains("hint: say the token by ROLLGATE_TOKEN"), "{said}");
    let (code, said) = explain("none", "ca.crt").await;
    assert!(code == Some(2) && said.contains("--token-file"), "{said}");
    let (code, said) = explain("token", "tls.key").await;
    assert!(code == Some(2) && said.contains("no certificate was found"), "{said}");

    // A configuration that does not load leaves the tokens as they are, and says so.
    let good = fs::read_to_string(house.config()).unwrap();
    fs::write(house.config(), good.replace("control", "root")).unwrap();
    server.signal("HUP");
    eventually("it is said", async || {
        house.logged().contains("the tokens before stay in use").then_some(())
    })
    .await;
    assert_eq!(ask(&old, "/v1/analyses").await, 200);
    let mut config: Value = serde_json::from_str(&good).unwrap();
    config["access"]["tokens"] = json!([new_entry]);
    fs::write(house.config(), config.to_string()).unwrap();
    server.signal("HUP");
    eventually("the new one is taken", async || {
        (ask(&new, "/v1/analyses").await == 200).then_some(())
    })
    .await;
    assert_eq!(ask(&old, "/v1/analyses").await, 401);
    // Another certificate, without a restart.
    let other = Authority::new();
    let pair = other.server();
    put("tls.crt", &pair.cert);
    put("tls.key", &pair.key);
    let root = Certificate::from_pem(other.pem.as_bytes()).unwrap();
    let client = crate::wire::client_builder()
        .tls_certs_only([root])
        .timeout(Duration::from_secs(5))
        .pool_max_idle_per_host(0);
    let client = client.build().unwrap();
    eventually("the certificate is taken", async || {
        client.get(format!("{}/healthz", api.url)).send().await.ok()
    })
    .await;
    let logged = house.logged();
    for secret in [&old, &new] {
        assert!(!logged.contains(secret.as_str()), "{logged}");
    }
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_named_at_the_start() {
    let house = House::new(json!({ "tls": { "cert": "none.crt", "key": "none.key" } }), &rules());
    let mut server = house.spawn();
    assert_eq!(server.line().await, "");
    let said = house.logged();
    assert!(said.contains("tls.cert: ") && said.contains("none.crt cannot be read"), "{said}");
}

#[tokio::test]
async fn a_hook_serves_by_tls_too() {
    let authority = Authority::new();
    let pair = authority.server();
    let house = House::new(json!({}), &rules());
    let put = |name: &str, text: &str| fs::write(house.path().join(name), text).unwrap();
    put("tls.crt", &pair.cert);
    put("tls.key", &pair.key);
    put("secret", "a key of at least twenty-four bytes");
    let hook = json!({
        "listen": "127.0.0.1:0", "tls": { "cert": "tls.crt", "key": "tls.key" },
        "secrets": [{ "file": "secret" }], "on": { "rollback": ["/bin/true"] },
    });
    put("hook.yaml", &hook.to_string());
    let config = house.path().join("hook.yaml");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_rollgate"))
        .args(["hook", "--config"])
        .arg(&config)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let url = said.trim().strip_prefix("rollgate hook listens on ").unwrap().to_owned();
    let root = Certificate::from_pem(authority.pem.as_bytes()).unwrap();
    let client = crate::wire::client_builder().tls_certs_only([root]).build().unwrap();
    let unsigned = client.post(&url).json(&json!({})).send().await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    assert_eq!(unsigned.unwrap().status(), StatusCode::UNAUTHORIZED);
}
