//! Rule files that change under the running service: the real binary, its directory, its API, its
//! metrics and its log.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::house::{Api, House, Reserved, arm, error_rules, eventually};

/// Three versions of one rule file; the last does not load.
fn good(hold: &str) -> String {
    error_rules(&format!("{{ after: {hold}, deadline: 2h }}"))
}

fn bad() -> String {
    good("10m").replace("then: rollback", "then: rollbak")
}

fn sha256(text: &str) -> String {
    rollgate::rulefile::sha256_hex(text)
}

fn house(rules: &[(&str, String)]) -> House {
    House::new(json!({}), rules)
}

fn order(rules: &str, key: &str) -> Value {
    // Nobody listens there: the analysis goes on without a verdict.
    let nobody = Reserved::new().addr();
    json!({
        "service": "shop", "rules": rules, "mechanisms": [], "idempotency_key": key,
        "canary": arm("v2", &[nobody]), "baseline": arm("v1", &[nobody]),
    })
}

/// The version that an analysis opened now begins with.
async fn opened_by(api: &Api, rules: &str, key: &str) -> Value {
    let id = api.open(&order(rules, key)).await;
    api.view(&id).await["rules"]["sha256"].clone()
}

async fn file(api: &Api, name: &str) -> Value {
    let (status, files) = api.get("/v1/rules").await;
    assert_eq!(status, 200, "{files}");
    let rules = files["rules"].as_array().unwrap();
    rules.iter().find(|file| file["name"] == name).cloned().unwrap_or(Value::Null)
}

async fn until(api: &Api, name: &str, member: &str, expected: &str) -> Value {
    eventually(&format!("{name} with {member} {expected}"), async || {
        Some(file(api, name).await).filter(|file| file[member] == expected)
    })
    .await
}

async fn metric(api: &Api, line: &str) {
    eventually(line, async || {
        let metrics = api.text("/metrics").await.1;
        metrics.lines().any(|found| found == line).then_some(())
    })
    .await;
}

/// As editors do it: a file beside it, then a new name for it.
fn replace(house: &House, name: &str, text: &str) {
    let beside = house.path().join("rules/.new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, house.rule_file(name)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_version_is_named_and_the_good_one_goes_on() {
    let (first, second, third) = (good("10m"), good("20m"), good("30m"));
    let house = house(&[("shop", first.clone())]);
    let (mut server, api) = house.start().await;
    let old = api.open(&order("shop", "old")).await;
    assert_eq!(api.view(&old).await["rules"]["sha256"], sha256(&first));

    // An order takes what the directory holds when it comes.
    fs::write(house.rule_file("shop"), &second).unwrap();
    assert_eq!(opened_by(&api, "shop", "second").await, sha256(&second));
    assert_eq!(file(&api, "shop").await["state"], "good");
    assert_eq!(
        api.view(&old).await["rules"]["sha256"],
        sha256(&first),
        "a running one keeps its own"
    );
    let (status, text) = api.text(&format!("/v1/analyses/{old}/rules")).await;
    assert_eq!((status, text.as_str()), (200, first.as_str()));

    fs::write(house.rule_file("shop"), bad()).unwrap();
    let shown = until(&api, "shop", "state", "bad").await;
    assert_eq!(shown["sha256"], sha256(&second), "{shown}");
    assert_eq!(shown["refused_sha256"], sha256(&bad()), "{shown}");
    let fault = &shown["faults"][0];
    assert_eq!((fault["line"].as_u64(), fault["column"].as_u64()), (Some(8), Some(45)), "{shown}");
    assert!(fault["message"].as_str().unwrap().contains("rollbak"), "{shown}");
    assert!(fault["hint"].as_str().unwrap().contains("rollback"), "{shown}");
    assert!(shown["since"].as_f64() > shown["loaded_at"].as_f64(), "{shown}");
    assert_eq!(opened_by(&api, "shop", "third").await, sha256(&second));
    let info = format!("rollgate_rule_file_info{{file=\"shop\",sha256=\"{}\"}} 1", sha256(&second));
    metric(&api, &info).await;
    metric(&api, "rollgate_rule_file_good{file=\"shop\"} 0").await;
    metric(&api, "rollgate_rule_files{state=\"bad\"} 1").await;
    // Once for each version, however often it is looked at.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(house.logged().matches("rule file does not load").count(), 1, "{}", house.logged());
    fs::write(house.rule_file("shop"), bad() + "\n").unwrap();
    eventually("the second bad version in the log", async || {
        (house.logged().matches("rule file does not load").count() == 2).then_some(())
    })
    .await;

    replace(&house, "shop", &third);
    until(&api, "shop", "sha256", &sha256(&third)).await;
    assert_eq!(file(&api, "shop").await["faults"], json!([]));
    metric(&api, "rollgate_rule_file_good{file=\"shop\"} 1").await;
    let (status, text) = api.text("/v1/rules/shop").await;
    assert_eq!((status, text.as_str()), (200, third.as_str()));
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_amid_writing_take_whole_versions_only() {
    let (old, new) = (good("10m"), good("20m") + "# and a long tail\n");
    let house = house(&[("shop", old.clone())]);
    let (mut server, api) = house.start().await;
    let path = house.rule_file("shop");
    let (written, pieces) = (path.clone(), new.clone());
    // Truncated and written in pieces over two seconds; a piece in the middle would load.
    let writing = std::thread::spawn(move || {
        for end in (0..pieces.len()).step_by(pieces.len() / 9).chain([pieces.len()]) {
            fs::write(&written, &pieces[..end]).unwrap();
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    let begun = Instant::now();
    let mut versions = Vec::new();
    while begun.elapsed() < Duration::from_secs(4) {
        let key = versions.len().to_string();
        versions.push(opened_by(&api, "shop", &key).await);
    }
    writing.join().unwrap();
    assert_eq!(opened_by(&api, "shop", "last").await, sha256(&new));
    let whole = |version: &&Value| **version == sha256(&old) || **version == sha256(&new);
    assert_eq!(versions.iter().filter(whole).count(), versions.len(), "{versions:?}");
    assert!(versions.iter().any(|version| *version == sha256(&old)), "{versions:?}");
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_gone_is_refused_and_comes_back() {
    let house = house(&[("shop", good("10m")), ("till", good("10m"))]);
    let (mut server, api) = house.start().await;
    let running = api.open(&order("shop", "running")).await;
    fs::remove_file(house.rule_file("shop")).unwrap();
    until(&api, "shop", "state", "gone").await;
    let (status, problem) = api.post("/v1/analyses", &order("shop", "refused")).await;
    assert_eq!(status, 422, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("shop.yaml is not in the configured directory any more"), "{detail}");
    assert_eq!(api.get("/v1/rules/shop").await.0, 404);
    assert!(!api.text("/metrics").await.1.contains("rule_file_good{file=\"shop\"}"));
    assert_eq!(api.view(&running).await["state"], "running");
    let (_, problem) = api.post("/v1/analyses", &order("shp", "unknown")).await;
    assert!(problem["detail"].as_str().unwrap().contains("known are: till"), "{problem}");
    fs::write(house.rule_file("shop"), good("20m")).unwrap();
    assert_eq!(opened_by(&api, "shop", "again").await, sha256(&good("20m")));
    assert!(server.terminate().await.success());
}

/// A directory as Kubernetes mounts a ConfigMap: links to links, of which one is swapped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swapped_link_is_seen() {
    let house = house(&[]);
    let rules = house.path().join("rules");
    let version = |name: &str, text: &str| {
        fs::create_dir(rules.join(name)).unwrap();
        fs::write(rules.join(name).join("shop.yaml"), text).unwrap();
    };
    version("..2026_01", &good("10m"));
    symlink("..2026_01", rules.join("..data")).unwrap();
    symlink("..data/shop.yaml", rules.join("shop.yaml")).unwrap();
    let (mut server, api) = house.start().await;
    assert_eq!(file(&api, "shop").await["sha256"], sha256(&good("10m")));
    version("..2026_02", &good("20m"));
    symlink("..2026_02", rules.join("..data_tmp")).unwrap();
    fs::rename(rules.join("..data_tmp"), rules.join("..data")).unwrap();
    fs::remove_dir_all(rules.join("..2026_01")).unwrap();
    until(&api, "shop", "sha256", &sha256(&good("20m"))).await;
    assert_eq!(opened_by(&api, "shop", "new").await, sha256(&good("20m")));
    assert!(!house.logged().contains("gone"), "{}", house.logged());
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_beside_a_broken_file_goes_on_with_the_version_before() {
    let house = house(&[("shop", good("10m"))]);
    let (mut server, api) = house.start().await;
    fs::write(house.rule_file("shop"), good("20m")).unwrap();
    let loaded = until(&api, "shop", "sha256", &sha256(&good("20m"))).await["loaded_at"].clone();
    // Whether it was told to stop or not.
    for (end, text) in [("stop", bad()), ("kill", "half a fi".to_owned())] {
        match end {
            "kill" => server.kill(),
            _ => assert!(server.terminate().await.success()),
        }
        fs::write(house.rule_file("shop"), &text).unwrap();
        fs::write(house.rule_file("fresh"), &text).unwrap();
        let (next, api) = house.start().await;
        server = next;
        let shown = file(&api, "shop").await;
        assert_eq!((&shown["state"], &shown["loaded_at"]), (&json!("bad"), &loaded), "{shown}");
        assert_eq!(opened_by(&api, "shop", end).await, sha256(&good("20m")));
        // One that never loaded has nothing to go on with.
        let (status, problem) = api.post("/v1/analyses", &order("fresh", "fresh")).await;
        assert_eq!(status, 422, "{problem}");
        assert!(problem["errors"][0].as_str().unwrap().starts_with("fresh.yaml:"), "{problem}");
        assert_eq!(api.get("/v1/rules/fresh").await.0, 404);
    }
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_reads_a_hundred_files_at_once() {
    let rules: Vec<(String, String)> =
        (0..100).map(|number| (format!("r{number}"), good("10m"))).collect();
    let named: Vec<(&str, String)> =
        rules.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    let house = house(&named);
    // What is no rule file of a service is left alone.
    fs::write(house.path().join("rules/r1.test.yaml"), "tests: []").unwrap();
    fs::write(house.path().join("rules/not a name.yaml"), good("10m")).unwrap();
    let (mut server, api) = house.start().await;
    metric(&api, "rollgate_rule_files{state=\"good\"} 100").await;
    let (_, files) = api.get("/v1/rules").await;
    assert_eq!(files["ignored"][0]["file"], "not a name.yaml", "{}", files["ignored"]);
    assert_eq!(files["ignored"].as_array().unwrap().len(), 1);
    for number in 0..50 {
        let text = if number == 7 { bad() } else { good("20m") };
        replace(&house, &format!("r{number}"), &text);
    }
    server.signal("HUP");
    eventually("the signal in the log", async || {
        house.logged().contains("rule files read again").then_some(())
    })
    .await;
    let (_, files) = api.get("/v1/rules").await;
    let files = files["rules"].as_array().unwrap();
    let new = files.iter().filter(|file| file["sha256"] == sha256(&good("20m"))).count();
    assert_eq!((files.len(), new), (100, 49), "all that changed is taken before it is said");
    assert_eq!(file(&api, "r7").await["state"], "bad");
    metric(&api, "rollgate_rule_files{state=\"bad\"} 1").await;
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_lost_leaves_everything_in_use() {
    let house = house(&[("shop", good("10m"))]);
    let (mut server, api) = house.start().await;
    let (rules, away) = (house.path().join("rules"), house.path().join("away"));
    fs::rename(&rules, &away).unwrap();
    metric(&api, "rollgate_rule_directory_readable 0").await;
    let fault = api.get("/v1/rules").await.1["directory_fault"].clone();
    assert!(fault.as_str().unwrap().contains("rules cannot be listed"), "{fault}");
    assert_eq!(opened_by(&api, "shop", "one").await, sha256(&good("10m")));
    fs::rename(&away, &rules).unwrap();
    metric(&api, "rollgate_rule_directory_readable 1").await;
    assert_eq!(api.get("/v1/rules").await.1["directory_fault"], Value::Null);
    assert!(server.terminate().await.success());
}

/// Files that no rule file should be: each is refused in words, none holds up the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_files_are_refused_in_words() {
    let house = house(&[("shop", good("10m"))]);
    let (mut server, api) = house.start().await;
    let write = |name: &str, bytes: &[u8]| fs::write(house.rule_file(name), bytes).unwrap();
    write("large", "a: b\n".repeat(2_000_000).as_bytes());
    write("latin", b"version: 1\nservice: caf\xe9\n");
    write("nested", "[".repeat(100_000).as_bytes());
    write("zero", &[0; 4096]);
    write("empty", b"");
    fs::create_dir(house.rule_file("folder")).unwrap();
    symlink("/dev/zero", house.rule_file("endless")).unwrap();
    let pipe = house.rule_file("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    symlink("loop.yaml", house.rule_file("loop")).unwrap();
    for (name, words) in [
        ("large", "bytes"),
        ("latin", "byte 24 is not UTF-8"),
        ("nested", "recursion limit"),
        ("zero", ""),
        ("empty", ""),
    ] {
        let shown = until(&api, name, "state", "bad").await;
        let message = shown["faults"][0]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(words) && !message.is_empty(), "{shown}");
    }
    let (_, files) = api.get("/v1/rules").await;
    let names: Vec<&str> = files["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["empty", "large", "latin", "nested", "shop", "zero"]);
    assert_eq!(opened_by(&api, "shop", "one").await, sha256(&good("10m")));
    for name in ["../rollgate", "shop.yaml", "", ".", "a/b", "%2e%2e"] {
        let (status, problem) = api.post("/v1/analyses", &order(name, "path")).await;
        assert_eq!(status, 422, "{name}: {problem}");
        let path = format!("/v1/rules/{}", name.replace('/', "%2f"));
        assert_eq!(api.text(&path).await.0, 404, "{name}");
    }
    assert!(Path::new(&pipe).exists());
    assert!(server.terminate().await.success());
}

/// A standing watch looks with the rules that are in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standing_watch_follows_its_rule_file() {
    let target = format!("http://{}", Reserved::new().addr());
    let members = json!({ "watch": { "shop": { "rules": "shop", "targets": [target] } } });
    let house = House::new(members, &[("shop", good("10m"))]);
    let (mut server, api) = house.start().await;
    let interval = async |expected: f64| {
        eventually("the interval of the watch", async || {
            let (_, services) = api.get("/v1/services").await;
            (services["services"][0]["interval_secs"] == expected).then_some(())
        })
        .await;
    };
    interval(1.0).await;
    fs::write(house.rule_file("shop"), good("10m").replace("interval: 1s", "interval: 2s"))
        .unwrap();
    interval(2.0).await;
    fs::write(house.rule_file("shop"), bad()).unwrap();
    until(&api, "shop", "state", "bad").await;
    interval(2.0).await;
    assert!(server.terminate().await.success());
}
