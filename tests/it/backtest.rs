//! `rollgate backtest` end to end: a real Prometheus with recorded hours of three services, whose planted
//! releases have to be found and judged; and servers that lie, hang and refuse.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, http::StatusCode, response::IntoResponse, routing::post};
use serde_json::Value as Json;

use super::{
    house::command,
    past_world::{Fault, Process, recorded},
    source_server::{Conduct, Prometheus, hostile},
};

const SEED: u64 = 20_261_121;

/// Seconds of recorded past.
const WORLD_SECS: i64 = 6 * 3600;

/// Where each release begins, in seconds after the beginning.
const SHOP_V2: i64 = 12_600;
const TILL_V2: i64 = 13_200;
const CART_V2: i64 = 12_900;
const CART_V3: i64 = 18_300;

/// Three services; errors begin ten minutes after the first release, the second is slower, the third
/// is good although an old instance restarts meanwhile, and its successor leaks.
fn world() -> Vec<Process> {
    let one = |job, version, instance, runs, fault| Process { job, version, instance, runs, fault };
    let errors = Fault::Errors(10.0, SHOP_V2 + 600);
    vec![
        one("shop", "v1", "shop-a:80", [0, WORLD_SECS], Fault::None),
        one("shop", "v1", "shop-b:80", [0, WORLD_SECS], Fault::None),
        one("shop", "v2", "shop-c:80", [SHOP_V2, SHOP_V2 + 2700], errors),
        one("till", "v1", "till-a:80", [0, WORLD_SECS], Fault::None),
        one("till", "v1", "till-b:80", [0, WORLD_SECS], Fault::None),
        one("till", "v2", "till-c:80", [TILL_V2, TILL_V2 + 2700], Fault::Slow(2.0)),
        one("cart", "v1", "cart-a:80", [0, CART_V2 + 2700], Fault::None),
        one("cart", "v1", "cart-b:80", [0, CART_V2 + 2700], Fault::Restart(CART_V2 + 1200)),
        one("cart", "v2", "cart-c:80", [CART_V2, WORLD_SECS], Fault::None),
        one("cart", "v2", "cart-d:80", [CART_V2, WORLD_SECS], Fault::None),
        one("cart", "v3", "cart-e:80", [CART_V3, CART_V3 + 2700], Fault::Leak(200e3)),
    ]
}

fn began_secs() -> i64 {
    let now = rollgate::service::system_clock()().0 / 1000;
    (now - WORLD_SECS) / 15 * 15
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

async fn backtest(url: &str, more: &[&str]) -> Output {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/recommended.yaml");
    let begin = ["backtest", "--rules", rules, "--prometheus", url];
    command(&[&begin[..], more].concat()).await
}

/// What a backtest prints as JSON.
async fn judged(url: &str, more: &[&str]) -> Json {
    let output = backtest(url, &[more, &["--json"]].concat()).await;
    let (stdout, stderr) = text(&output);
    serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("no JSON: {stdout}{stderr}"))
}

fn word<'a>(release: &'a Json, member: &str) -> &'a str {
    release[member].as_str().unwrap_or("")
}

/// Verdict, rule and seconds of each release, by its name.
fn verdicts(judged: &Json) -> BTreeMap<String, (String, String, f64)> {
    let releases = judged["releases"].as_array().unwrap().iter();
    let of = |release: &Json| {
        let name = format!("{} {}", word(release, "service"), word(release, "version"));
        let (verdict, rule) = (word(release, "verdict"), word(release, "rule"));
        let secs = release["after_secs"].as_f64().unwrap_or(-1.0);
        (name, (verdict.to_owned(), rule.to_owned(), secs))
    };
    releases.map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_releases_are_found_and_judged_as_planted() {
    let began = began_secs();
    let prometheus = Prometheus::remembering(&recorded(&world(), began, SEED)).await;
    let url = prometheus.url.as_str();
    let until = (began + WORLD_SECS).to_string();
    let found = ["--selector", "job=~\"shop|till|cart\"", "--since", "6h", "--until", &until];
    let found = [&found[..], &["--hold", "15m"]].concat();
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.html");
    let judged_all = judged(url, &[&found[..], &["--html", page.to_str().unwrap()]].concat()).await;

    // All four, with what was planted in them, and when.
    let of = verdicts(&judged_all);
    assert_eq!(of.len(), 4, "{of:?}");
    let check = |name: &str, verdict: &str, rule: &str, within: std::ops::RangeInclusive<f64>| {
        let (found, by, secs) = &of[name];
        assert_eq!((found.as_str(), by.as_str()), (verdict, rule), "{name} {of:?}");
        assert!(within.contains(secs), "{name} after {secs} s");
    };
    check("shop v2", "rollback", "error_rate > 1.5x baseline", 600.0..=720.0);
    check("till v2", "rollback", "p95_latency > 1.2x baseline", 30.0..=120.0);
    check("cart v2", "promote", "", 900.0..=960.0);
    check("cart v3", "rollback", "slope(memory) > baseline + 1MB/min", 60.0..=900.0);
    for release in judged_all["releases"].as_array().unwrap() {
        let at = release["started_at"].as_f64().unwrap() as i64 - began;
        assert!(
            [SHOP_V2, TILL_V2, CART_V2, CART_V3].iter().any(|planted| (at - planted).abs() <= 2)
        );
        assert_eq!(
            (&release["look_secs"], &release["resolution_secs"]),
            (&15.0.into(), &15.0.into())
        );
        assert!(release["history_secs"].as_f64() > Some(3000.0), "{release}");
    }
    assert_eq!(judged_all["not_judged"][0]["rule"], "app is down for 3 checks");
    let placebo = &judged_all["placebo"];
    assert!(placebo["windows"].as_u64() >= Some(12), "{placebo}");
    assert_eq!((&placebo["by_halves"], &placebo["not_judged"]), (&placebo["windows"], &0.into()));
    assert_eq!(placebo["promoted"]["count"], placebo["windows"], "{placebo}");
    assert_eq!((&placebo["rolled_back"]["count"], &placebo["agrees"]), (&0.into(), &true.into()));

    // The page stands by itself and tells the same.
    let page = std::fs::read_to_string(&page).unwrap();
    for part in ["shop v2: rolled back", "cart v2: promoted", "enough to roll back", "<svg"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("NaN"));

    // The table and the list say it in words.
    let output = backtest(url, &[&found[..], &["--placebo", "none"]].concat()).await;
    let (table, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    for part in ["✗ rollback", "✓ promote", "4 releases: 3 rolled back, 1 promoted.", "15 s apart"]
    {
        assert!(table.contains(part), "{table} lacks {part}");
    }
    let (list, _) = text(&backtest(url, &[&found[..], &["--list"]].concat()).await);
    assert_eq!(list.matches("version=\"v1\"").count(), 3, "{list}");

    // The same releases by name, with what is known of them; one has nothing recorded.
    let file = dir.path().join("releases.yaml");
    let release = |job: &str, started: i64, more: &str| {
        format!(
            "- {{ service: {job}, version: v2, start: {}, canary: 'job=\"{job}\",version=\"v2\"', \
             baseline: 'job=\"{job}\",version=\"v1\"'{more} }}\n",
            began + started
        )
    };
    let since = format!(", bad: true, bad_since: {}", began + SHOP_V2 + 600);
    let text_of = release("shop", SHOP_V2, &since)
        + &release("till", TILL_V2, ", rolled_back: true")
        + &release("cart", CART_V2, ", bad: false")
        + &release("desk", CART_V2, "");
    std::fs::write(&file, text_of).unwrap();
    let named = ["--releases", file.to_str().unwrap(), "--since", "6h", "--until", &until];
    let judged_named = judged(url, &[&named[..], &["--hold", "15m"]].concat()).await;
    let score = &judged_named["score"];
    assert_eq!(
        (&score["found"], &score["right"], &score["missed"]),
        (&2.into(), &1.into(), &0.into())
    );
    let shop = &judged_named["releases"][0];
    assert_eq!(shop["agreement"], "found");
    assert!((0.0..=120.0).contains(&shop["delay_secs"].as_f64().unwrap()), "{shop}");
    let of = verdicts(&judged_named);
    assert_eq!(of["desk v2"].0, "not_judged");
    assert!(judged_named.to_string().contains("no samples of the new version"));
    assert!(judged_named["placebo"]["windows"].as_u64() >= Some(3));

    // A service that is replaced is compared with itself before, by the same command.
    let rules = include_str!("../../rules/recommended.yaml").to_owned() + "\nbaseline: before\n";
    let before = dir.path().join("before.yaml");
    std::fs::write(&before, rules).unwrap();
    let args = ["backtest", "--rules", before.to_str().unwrap(), "--prometheus", url, "--json"];
    let output = command(&[&args[..], &named, &["--placebos", "3"]].concat()).await;
    let (stdout, stderr) = text(&output);
    let judged_before: Json = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stderr}"));
    let of = verdicts(&judged_before);
    assert_eq!((&*of["till v2"].0, &*of["cart v2"].0), ("rollback", "promote"), "{of:?}");
    let placebo = &judged_before["placebo"];
    assert!(placebo["windows"].as_u64() >= Some(2), "{placebo}");
    assert_eq!(placebo["by_halves"], 0, "{placebo}");
    assert_eq!(placebo["rolled_back"]["count"], 0, "{placebo}");
}

/// A server that answers every question by what is made of its form; a status of 0 is no answer.
async fn server(
    answer: impl Fn(&str, &str) -> (u16, String) + Clone + Send + Sync + 'static,
) -> String {
    let on = move |path: &'static str| {
        let answer = answer.clone();
        post(move |body: String| async move {
            let form = reqwest::Url::parse(&format!("http://form.invalid/?{body}")).unwrap();
            let query = form.query_pairs().find(|(name, _)| name == "query");
            let query = query.map(|(_, query)| query.into_owned()).unwrap_or_default();
            let (status, body) = answer(path, &query);
            if status == 0 {
                std::future::pending::<()>().await;
            }
            (StatusCode::from_u16(status).unwrap(), body).into_response()
        })
    };
    let app = Router::new()
        .route("/api/v1/query", on("query"))
        .route("/api/v1/query_range", on("query_range"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

/// Twelve releases of as many services, an hour ago.
fn twelve(dir: &tempfile::TempDir) -> String {
    let start = began_secs() + WORLD_SECS - 7200;
    let entries = (0..12).map(|n| {
        format!("{{\"service\":\"s{n}\",\"start\":{start},\"canary\":\"v=\\\"2\\\"\",\"baseline\":\"v=\\\"1\\\"\"}}\n")
    });
    let file = dir.path().join("twelve.json");
    std::fs::write(&file, entries.collect::<String>()).unwrap();
    file.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_fail_are_named_and_given_up_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let file = twelve(&dir);
    let args = ["--releases", &file, "--placebo", "none", "--timeout", "500ms"];
    let refused = "{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"exceeded maximum resolution of 11,000 points per timeseries\"}";
    let too_many = server(move |_, _| (422, refused.to_owned())).await;
    let liar =
        server(|_, _| (200, "{\"status\":\"success\",\"data\":{\"result\":7}}".to_owned())).await;
    let cut =
        server(|_, _| (200, "{\"status\":\"success\",\"data\":{\"result\":[".to_owned())).await;
    let partial = server(|_, _| {
        (200, "{\"status\":\"success\",\"isPartial\":true,\"data\":{\"result\":[]}}".to_owned())
    })
    .await;
    let silent = format!("http://{}", hostile(Conduct::Silent).await);
    for (url, part) in [
        (&too_many, "11,000 points"),
        (&liar, "expected an answer of the Prometheus API"),
        (&cut, "expected an answer of the Prometheus API"),
        (&partial, "only a part"),
        (&silent, "no whole answer within"),
    ] {
        let output = backtest(url, &[&args[..], &["--json"]].concat()).await;
        let (stdout, stderr) = text(&output);
        assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
        let judged: Json = serde_json::from_str(&stdout).unwrap();
        let releases = judged["releases"].as_array().unwrap();
        assert_eq!(judged["verdicts"]["not_judged"], 12, "{stdout}");
        assert!(word(&releases[0], "reason").contains(part), "{} lacks {part}", releases[0]);
        assert!(word(&releases[11], "reason").contains("5 times in a row"), "{}", releases[11]);
        // Nor can releases be looked for there.
        let output = backtest(url, &["--selector", "job=\"shop\"", "--timeout", "500ms"]).await;
        let (_, stderr) = text(&output);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            stderr.contains("releases cannot be looked for") && stderr.contains(part),
            "{stderr}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_only_busy_is_asked_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let url = server(move |path, _| {
        assert_eq!(path, "query_range");
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => (503, "busy".to_owned()),
            _ => (200, "{\"status\":\"success\",\"data\":{\"result\":[]}}".to_owned()),
        }
    })
    .await;
    let output = backtest(&url, &["--selector", "job=\"shop\"", "--since", "1h"]).await;
    let (stdout, stderr) = text(&output);
    assert!(stdout.contains("There was no release in that time."), "{stdout}{stderr}");
    assert_eq!((output.status.code(), asked.load(Ordering::SeqCst)), (Some(1), 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interruption_ends_with_what_is_done() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    // The first release has no samples; of the others nothing ever comes.
    let url = server(move |_, query| {
        count.fetch_add(1, Ordering::SeqCst);
        let status = if query.contains("first") { 200 } else { 0 };
        (status, "{\"status\":\"success\",\"data\":{\"result\":[]}}".to_owned())
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("releases.yaml");
    let start = began_secs() + WORLD_SECS - 7200;
    let entry = |version: &str| format!("- {{ start: {start}, canary: 'v=\"{version}\"' }}\n");
    std::fs::write(&file, entry("first") + &entry("second")).unwrap();
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/recommended.yaml");
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_rollgate"))
        .args(["backtest", "--rules", rules, "--prometheus", &url, "--json", "--releases"])
        .arg(&file)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    super::house::eventually("the releases are asked for", async || {
        (asked.load(Ordering::SeqCst) >= 4).then_some(())
    })
    .await;
    let id = child.id().to_string();
    let sent = std::process::Command::new("sh").args(["-c", "kill -INT $0", &id]).status();
    assert!(sent.unwrap().success());
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let judged: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &judged["interrupted"]), (Some(1), &true.into()));
    assert!(judged["releases"].as_array().unwrap().len() <= 1, "{judged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_stay_below_the_points_that_a_server_gives() {
    let most = Arc::new(AtomicUsize::new(0));
    let seen = most.clone();
    let url = server(move |_, query| {
        seen.fetch_add(1, Ordering::SeqCst);
        assert!(query.starts_with("count by (job, version) (up{"), "{query}");
        (200, "{\"status\":\"success\",\"data\":{\"result\":[]}}".to_owned())
    })
    .await;
    backtest(&url, &["--selector", "job=\"shop\"", "--since", "30d"]).await;
    // 30 d in steps of 129 s are 20,093 points: three questions of 10,000 at most.
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_usage_says_what_was_expected() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.yaml");
    std::fs::write(&bad, "- { start: yesterday, canary: 'v=\"2\"' }\n").unwrap();
    let bad = bad.to_str().unwrap();
    let check = async |more: &[&str], part: &str| {
        let output = backtest("http://127.0.0.1:9", more).await;
        let (_, stderr) = text(&output);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(part) && !stderr.contains("hunter2"), "{stderr} lacks {part}");
    };
    check(&[], "which releases?").await;
    check(&["--selector", "job=shop"], "label matchers").await;
    check(&["--releases", bad], "yesterday").await;
    check(&["--releases", "/no/such/file"], "cannot be read").await;
    check(&["--selector", "a=\"b\"", "--since", "500d"], "400d").await;
    check(&["--selector", "a=\"b\"", "--header", "authorization=hunter2"], "NAME=env:").await;
    check(&["--selector", "a=\"b\"", "--until", "noon"], "time zone").await;
    let health = dir.path().join("health.yaml");
    std::fs::write(&health, super::house::health_rules("{ after: 5m }")).unwrap();
    let args = ["backtest", "--rules", health.to_str().unwrap(), "--prometheus", "http://x"];
    let output = command(&[&args[..], &["--selector", "a=\"b\""]].concat()).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).1.contains("no rule of it can be judged over the past"));
}
