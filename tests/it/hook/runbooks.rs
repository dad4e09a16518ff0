//! Two runbooks end to end, each in its own way: the shipped rule file, the example's
//! configuration, a service that turns bad, the verdict, the hook, and a host that is back on the
//! old version. Only addresses and the time between two looks are put in.

use std::{net::SocketAddr, time::Duration};

use rollgate::demo::{
    fault::Fault,
    load::Load,
    service::{Service, ServiceOptions},
};
use serde_json::{Value, json};

use super::{
    examples::{blue_green, systemd_git},
    stand::{Running, Served, Stand},
};
use crate::house::{Api, arm};

async fn service(name: &str, seed: u64) -> Service {
    let options = ServiceOptions { name: name.to_owned(), version: "v2".to_owned(), seed };
    Service::start(options).await.unwrap()
}

/// Puts the shipped rule file where the example's configuration looks for it, and starts both.
fn start(stand: &Stand, rules: &str, addresses: &[(&str, SocketAddr)]) -> (Running, Served, Api) {
    let shipped = format!("{}/rules/{rules}.yaml", env!("CARGO_MANIFEST_DIR"));
    std::fs::create_dir(stand.path("rules")).unwrap();
    std::fs::copy(shipped, stand.path(&format!("rules/{rules}.yaml"))).unwrap();
    let file = format!("rules/{rules}.yaml");
    stand.replace(&file, &[("interval: 5s", "interval: 1s"), ("warmup: 30s", "warmup: 1s")]);
    let hook = stand.start();
    stand.replace(
        "rollgate.yaml",
        &[
            ("127.0.0.1:8750\n", "127.0.0.1:0\n"),
            ("rules: ../..", "rules: rules"),
            ("http://127.0.0.1:8760/hook", &hook.sender.url),
        ],
    );
    for (address, ours) in addresses {
        let changes = [(*address, &*format!("http://{ours}"))];
        let text = stand.read(&file);
        stand.replace(if text.contains(address) { &file } else { "rollgate.yaml" }, &changes);
    }
    let (served, api) = stand.serve();
    (hook, served, api)
}

/// The rollback of an analysis as it was told, once it was.
async fn rolled_back(api: &Api, id: &str, stand: &Stand) -> Value {
    let verdict = api.verdict(id).await;
    assert_eq!(verdict["verdict"], "rollback", "{verdict}");
    let view = api.delivered(id).await;
    let delivery = view["deliveries"][0].clone();
    assert_eq!(delivery["state"], "delivered", "{delivery}\n{}", stand.read("stderr.log"));
    let answer = delivery["last_answer"].as_str().unwrap();
    assert!(answer.starts_with("200 OK: {\"outcome\":\"done\",\"exit_code\":0"), "{answer}");
    delivery
}

async fn looked(api: &Api, id: &str) {
    api.until(id, "a third look", |view| view["report"]["look"].as_u64() >= Some(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_crashes_goes_back_to_the_commit_before() {
    let bad = service("deia-bot-controller", 1).await;
    let _load = Load::start(bad.addr, 20.0, 2).unwrap();
    let stand = Stand::of_example("systemd-git");
    let (new, _) = systemd_git(&stand);
    let addresses = [("http://127.0.0.1:8000", bad.addr)];
    let (_hook, _served, api) = start(&stand, "deia-bot-controller", &addresses);
    let order = json!({
        "service": "deia-bot-controller", "rules": "deia-bot-controller", "mechanisms": ["host"],
        "canary": arm(&new, &[bad.addr]), "baseline": { "version": "stable" },
    });
    let id = api.open(&order).await;
    looked(&api, &id).await;
    assert_eq!(stand.read("running"), "new\n");
    bad.fault.set(Fault::Crash { every: Duration::from_secs(600) });
    let delivery = rolled_back(&api, &id, &stand).await;
    assert_eq!(delivery["attempts"], 1);
    assert_eq!(stand.read("running"), "old\n");
    assert!(stand.read("calls").contains("systemctl restart deia-bot-controller\n"));
    let rule = api.view(&id).await["report"]["rule"].clone();
    assert!(
        ["restarts >= 1", "database is down for 3 checks"].contains(&rule.as_str().unwrap()),
        "{rule}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_whose_service_is_gone_goes_back_to_blue() {
    let green = service("auth", 1).await;
    let (auth, practice) = (service("auth", 3).await, service("practice", 4).await);
    let _load = Load::start(green.addr, 20.0, 5).unwrap();
    let mut stand = Stand::of_example("blue-green-script");
    blue_green(&mut stand);
    let addresses = [
        ("http://auth-service:3001", auth.addr),
        ("http://practice-service:3002", practice.addr),
        ("http://ml-service:3003", practice.addr),
    ];
    let (_hook, _served, api) = start(&stand, "adaptive-learning", &addresses);
    let order = json!({
        "service": "adaptive-learning-platform", "rules": "adaptive-learning",
        "mechanisms": ["script"],
        "canary": arm("v1.2.3", &[green.addr]), "baseline": { "version": "v1.2.2" },
    });
    let id = api.open(&order).await;
    looked(&api, &id).await;
    assert_eq!(stand.read("cluster/active"), "green\n");
    auth.fault.set(Fault::Hang);
    rolled_back(&api, &id, &stand).await;
    assert_eq!(stand.read("cluster/active"), "blue\n");
    let report = api.view(&id).await["report"].clone();
    assert!(report["rule"].as_str().unwrap().starts_with("auth_service is down"), "{report}");
}
