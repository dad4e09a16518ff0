//! Whole releases, driven by a scripted controller over HTTP against the real binary with its own
//! store, judged on services that really answer, through a `kill -9` and a restart in the middle.

use std::{net::SocketAddr, time::Duration};

use rollgate::demo::{
    fault::Fault,
    load::Load,
    service::{Service, ServiceOptions},
};
use serde_json::{Value, json};

use super::{
    argo::{self, AnalysisRun},
    at, documents,
    flagger::{self, Flagger},
};
use crate::house::{Api, House, PATIENCE, Reserved, Server, error_rules};

/// Time between two turns of a controller: half a minute in production.
const INTERVAL: Duration = Duration::from_millis(500);

/// Two versions of a service, a controller's view of them, and who judges.
struct World {
    house: House,
    server: Server,
    api: Api,
    canary: Service,
    baseline: Service,
    loads: Vec<Load>,
}

impl World {
    async fn start(promote: &str) -> Self {
        let service = async |version: &str, seed| {
            let (name, version) = ("shop".to_owned(), version.to_owned());
            Service::start(ServiceOptions { name, version, seed }).await.unwrap()
        };
        let (baseline, canary) = (service("v1", 1).await, service("v2", 2).await);
        // Controllers know one address, before and after a restart.
        let address: SocketAddr = Reserved::new().addr();
        let targets = |addr: SocketAddr| json!({ "targets": [format!("http://{addr}")] });
        let members = json!({
            "listen": address.to_string(),
            "services": { "shop": {
                "rules": "shop", "canary": targets(canary.addr), "baseline": targets(baseline.addr),
            } },
        });
        let house = House::new(members, &[("shop", error_rules(promote))]);
        let (server, api) = house.start().await;
        let loads = vec![Load::start(baseline.addr, 40.0, 5).unwrap()];
        Self { house, server, api, canary, baseline, loads }
    }

    /// Gives the canary its requests.
    fn traffic(&mut self) {
        if self.loads.len() < 2 {
            self.loads.push(Load::start(self.canary.addr, 40.0, 6).unwrap());
        }
    }

    /// Every analysis there is.
    async fn analyses(&self) -> Vec<Value> {
        let (_, page) = self.api.get("/v1/analyses").await;
        page["analyses"].as_array().unwrap().clone()
    }

    async fn end(mut self) {
        assert!(self.server.terminate().await.success(), "{}", self.house.logged());
        assert_eq!(self.house.logged().matches("analysis taken up again").count(), 1);
        drop(self.baseline);
    }
}

/// Runs of one release beside each other, as a Rollout with a background analysis and a step has
/// them; `act` is called with the number of each round. How the runs ended.
async fn argo(
    world: &mut World,
    act: impl AsyncFn(&mut World, u32),
) -> Vec<(argo::Phase, AnalysisRun)> {
    let path = "/v1/integrations/argo/template.yaml?service=shop&interval=1s&token=";
    let (_, text) = world.api.text(path).await;
    let template = &documents(&text)[0];
    let given = [
        ("canary-hash", "7d4f9"),
        ("stable-hash", "66bc8"),
        ("rollout-uid", "0b5a6f8e"),
        ("revision", "12"),
    ];
    let mut runs: Vec<_> =
        (0..2).map(|_| (argo::Phase::Running, AnalysisRun::new(template, &given))).collect();
    assert_eq!(runs[0].1.interval(), Duration::from_secs(1));
    world.traffic();
    for round in 0.. {
        act(world, round).await;
        for (phase, run) in &mut runs {
            if *phase == argo::Phase::Running {
                *phase = run.measure().await;
            }
        }
        if runs.iter().all(|(phase, _)| *phase != argo::Phase::Running) {
            break;
        }
        assert!(round < 120, "never decided: {:?}", runs[0].1.measurements.last());
        tokio::time::sleep(INTERVAL).await;
    }
    runs
}

/// `kill -9` at a round, and another process on the same store some rounds later.
async fn outage(world: &mut World, round: u32, at: u32, rounds: u32) {
    if round == at {
        world.server.kill();
    }
    if round == at + rounds {
        (world.server, world.api) = world.house.start().await;
    }
}

async fn one_analysis_of_argo(world: &World, runs: &[(argo::Phase, AnalysisRun)], verdict: &str) {
    let analyses = world.analyses().await;
    assert_eq!(analyses.len(), 1, "{analyses:?}");
    assert_eq!(analyses[0]["verdict"], verdict);
    assert_eq!(analyses[0]["canary_version"], "7d4f9");
    for (_, run) in runs {
        let errors = run.errors();
        assert!((2..=6).contains(&errors), "{errors} errors, of which the outage made three");
        let last = run.measurements.last().unwrap();
        let value: Value = serde_json::from_str(&last.value).unwrap();
        assert_eq!((&value["id"], &value["final"]), (&analyses[0]["id"], &json!(true)));
        assert!(value["reason"].as_str().unwrap().len() > 20, "{value}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn argo_promotes_a_good_release_through_an_outage_of_ours() {
    let mut world = World::start("{ after: 8s, deadline: 5m }").await;
    let runs = argo(&mut world, async |world, round| outage(world, round, 4, 3).await).await;
    assert!(runs.iter().all(|(phase, _)| *phase == argo::Phase::Successful));
    one_analysis_of_argo(&world, &runs, "promote").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn argo_aborts_a_bad_release_through_an_outage_of_ours() {
    let mut world = World::start("{ after: 1m, deadline: 5m }").await;
    let runs = argo(&mut world, async |world, round| {
        outage(world, round, 4, 3).await;
        if round == 6 {
            world.canary.fault.set(Fault::Errors { share: 0.4 });
        }
    })
    .await;
    assert!(runs.iter().all(|(phase, _)| *phase == argo::Phase::Failed));
    one_analysis_of_argo(&world, &runs, "rollback").await;
    // The same release asks again: the same verdict, and no second analysis.
    let again = argo(&mut world, async |_, _| {}).await;
    assert!(
        again
            .iter()
            .all(|(phase, run)| { *phase == argo::Phase::Failed && run.measurements.len() == 1 })
    );
    assert_eq!(world.analyses().await.len(), 1);
    world.end().await;
}

/// The canary of the file that is served, with the interval of the test.
async fn canary(world: &World) -> Value {
    let (status, text) = world.api.text("/v1/integrations/flagger/canary.yaml?name=shop").await;
    assert_eq!(status, 200);
    documents(&text).remove(0)
}

const STEPS: &str = "{ deadline: 5m }\nsteps: [{ weight: 10%, hold: 2s }, { weight: 50%, hold: 3s }, \
                     { weight: 100%, hold: 2s }]";

/// Turns of Flagger that an outage of ours lasts.
const OUTAGE: u32 = 2;

/// Turns until the release is over; `act` is called after each, with how many there were at the
/// present weight.
async fn flagger(
    world: &mut World,
    flagger: &mut Flagger,
    act: impl AsyncFn(&mut World, &mut Flagger, u32),
) {
    let begun = std::time::Instant::now();
    let (mut weight, mut rounds) = (0, 0);
    while flagger.advance().await {
        assert!(begun.elapsed() < PATIENCE, "{:?} {:?}", flagger.phase, flagger.calls.last());
        if flagger.weight > 0 {
            world.traffic();
        }
        rounds = if flagger.weight == weight { rounds + 1 } else { 1 };
        weight = flagger.weight;
        act(world, flagger, rounds).await;
        tokio::time::sleep(INTERVAL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flagger_promotes_a_good_release_step_by_step_through_a_restart() {
    let mut world = World::start(STEPS).await;
    let mut canary = Flagger::new(&canary(&world).await, "v1");
    assert!(!canary.advance().await, "nothing to do");
    canary.apply("v2");
    flagger(&mut world, &mut canary, async |world, canary, round| {
        let round = if canary.weight == 50 { round } else { 0 };
        outage(world, round, 1, OUTAGE).await;
    })
    .await;
    assert_eq!(canary.phase, flagger::Phase::Succeeded, "{:?}", canary.calls.last());
    assert_eq!(canary.weights, [10, 50, 100, 0]);
    // What the outage cost, of the 20 that the file allows.
    assert_eq!(canary.failed_checks, u64::from(OUTAGE));
    let analyses = world.analyses().await;
    assert_eq!((analyses.len(), &analyses[0]["verdict"]), (1, &json!("promote")), "{analyses:?}");
    // Each share of the traffic was asked for again and again, and granted once.
    for weight in [10, 50] {
        let asked: Vec<bool> = canary
            .calls
            .iter()
            .filter(|call| call.kind == "confirm-traffic-increase" && call.weight == weight)
            .map(|call| call.passed)
            .collect();
        assert!(
            asked.len() > 1 && asked.iter().filter(|passed| **passed).count() == 1,
            "{asked:?}"
        );
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flagger_rolls_back_a_bad_release_and_judges_the_next_afresh() {
    let mut world = World::start("{ after: 3s, deadline: 5m }").await;
    let mut canary = Flagger::new(&canary(&world).await, "v1");
    canary.apply("v2");
    flagger(&mut world, &mut canary, async |world, canary, round| {
        let round = if canary.weight == 50 { round } else { 0 };
        outage(world, round, 1, OUTAGE).await;
        if round == 1 {
            world.canary.fault.set(Fault::Errors { share: 0.4 });
        }
    })
    .await;
    assert_eq!(canary.phase, flagger::Phase::Failed);
    let last = canary.calls.iter().rfind(|call| call.kind == "rollback").unwrap();
    assert!(last.passed && last.words.starts_with("rollback: "), "{last:?}");
    assert!(!canary.calls.iter().any(|call| call.kind == "confirm-promotion" && call.passed));
    // A newer text after it, which meets a newer one still in the middle.
    world.canary.fault.set(Fault::None);
    canary.apply("v3");
    let has_changed = std::cell::Cell::new(false);
    flagger(&mut world, &mut canary, async |_, canary, _| {
        if canary.weight == 10 && !has_changed.replace(true) {
            canary.apply("v4");
        }
    })
    .await;
    assert_eq!(canary.phase, flagger::Phase::Succeeded, "{:?}", canary.calls.last());
    let mut analyses = world.analyses().await;
    analyses.reverse();
    let states: Vec<&str> = analyses.iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["finished", "cancelled", "finished"], "{analyses:?}");
    let verdicts = [&analyses[0]["verdict"], &analyses[2]["verdict"]];
    assert_eq!(verdicts, ["rollback", "promote"]);
    let superseded = world.api.view(analyses[1]["id"].as_str().unwrap()).await;
    assert_eq!(at(&superseded, "cancelled.who"), "flagger");
    world.end().await;
}
