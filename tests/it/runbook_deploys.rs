//! The examples under `rules/deploy/` that change a Kubernetes cluster, as they ship: the real binary,
//! the rule file of the runbook, a service that falls ill, and an API server with its controllers.
//!
//! Nothing of an example is changed but where it listens and stores, and the addresses of its targets.
//! The cluster comes from the kubeconfig in the home directory, as it does for people.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use serde_json::{Value, json};

use crate::{
    house::{Api, House, Server},
    kube_api::{
        KubeApi, TOKEN,
        templates::{NAMESPACE, deployment_key, rollout_key},
    },
};

/// A service with every health endpoint of the runbooks, and a switch.
struct App {
    address: SocketAddr,
    state: Arc<AppState>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct AppState {
    is_ill: AtomicBool,
    requests: AtomicU64,
}

impl App {
    async fn start() -> Self {
        let state = Arc::new(AppState::default());
        let health = get(async |State(state): State<Arc<AppState>>| {
            match state.is_ill.load(Ordering::SeqCst) {
                true => StatusCode::SERVICE_UNAVAILABLE,
                false => StatusCode::OK,
            }
        });
        let metrics = get(async |State(state): State<Arc<AppState>>| {
            let requests = state.requests.fetch_add(100, Ordering::SeqCst) + 100;
            format!(
                "process_start_time_seconds 1700000000\n\
                 http_requests_total{{code=\"200\",status=\"200\"}} {requests}\n\
                 release_manager_requests_total {requests}\n"
            )
        });
        let mut routes = Router::new().route("/metrics", metrics);
        for path in ["/health", "/health/detailed", "/health/database", "/health/dependencies"] {
            routes = routes.route(path, health.clone());
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let routes = routes.with_state(Arc::clone(&state));
        let task = tokio::spawn(async move {
            axum::serve(listener, routes).await.expect("it serves");
        });
        Self { address, state, task }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An example that runs, beside its cluster.
struct Stand {
    cluster: KubeApi,
    /// Whether a release is compared with the service as it was before.
    has_past: bool,
    old: App,
    new: App,
    api: Api,
    _server: Server,
    _house: House,
}

impl Stand {
    async fn start(example: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = root.join("rules/deploy").join(example).join("rollgate.yaml");
        let text = std::fs::read_to_string(path).expect("the example");
        let mut config: Value = serde_saphyr::from_str(&text).expect("YAML");
        let (cluster, old, new) = (KubeApi::start().await, App::start().await, App::start().await);
        config["listen"] = json!("127.0.0.1:0");
        config["rules"] = json!(root.join("rules"));
        if let Some(watched) = config.get_mut("watch").and_then(Value::as_object_mut) {
            for watched in watched.values_mut() {
                watched["targets"] = json!([old.url()]);
            }
        }
        let has_past = config.get("watch").is_some();
        let house = House::new(config, &[]);
        let home = house.path().join("home");
        cluster.kubeconfig(&home.join(".kube"), TOKEN);
        let home = home.to_str().expect("a path").to_owned();
        let (server, api) = house.start_with(&[("HOME", &home)]).await;
        Self { cluster, has_past, old, new, api, _server: server, _house: house }
    }

    /// A release of `canary` that falls ill after its first look: what came of its delivery.
    async fn ill_release(&self, mut order: Value, versions: [&str; 2]) -> Value {
        let [baseline, canary] = versions;
        order["canary"] = json!({ "version": canary, "targets": [self.new.url()] });
        order["baseline"] = match self.has_past {
            true => json!({ "version": baseline }),
            false => json!({ "version": baseline, "targets": [self.old.url()] }),
        };
        self.new.state.is_ill.store(false, Ordering::SeqCst);
        let id = self.api.open(&order).await;
        self.api.until(&id, "a look", |view| view["report"]["look"].as_u64() >= Some(1)).await;
        self.new.state.is_ill.store(true, Ordering::SeqCst);
        let verdict = self.api.verdict(&id).await;
        assert_eq!(verdict["verdict"], "rollback", "{verdict}");
        assert_eq!(verdict["rule"], "app is down for 3 checks", "{verdict}");
        let view = self.api.delivered(&id).await;
        let deliveries = view["deliveries"].as_array().expect("a list");
        let [delivery] = &deliveries[..] else { panic!("{view}") };
        delivery.clone()
    }
}

#[track_caller]
fn assert_delivered(delivery: &Value, mechanism: &str) {
    assert_eq!(delivery["mechanism"], mechanism, "{delivery}");
    assert_eq!(delivery["state"], "delivered", "{delivery}");
}

/// Runbook 000: traffic back to blue, then green down to nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blue_green_release_is_switched_back_and_scaled_down() {
    let stand = Stand::start("blue-green-service").await;
    stand.cluster.world(|world| {
        let colour = |colour: &str| json!({ "version": colour });
        world.deploy("pg-neo-graph-rl-blue", "pg-neo-graph-rl:3f1c2a9", colour("blue"));
        world.deploy("pg-neo-graph-rl-green", "pg-neo-graph-rl:8d5e0b7", colour("green"));
        world.serve("pg-neo-graph-rl", "green");
    });
    let order = json!({ "service": "pg-neo-graph-rl" });
    let delivery = stand.ill_release(order, ["3f1c2a9", "8d5e0b7"]).await;
    assert_delivered(&delivery, "blue-green");
    stand.cluster.world(|world| {
        assert_eq!(world.selected("pg-neo-graph-rl"), "blue");
        assert_eq!(world.replicas("pg-neo-graph-rl-green"), 0);
        assert_eq!(world.replicas("pg-neo-graph-rl-blue"), 3);
    });
    let lines: Vec<String> = stand.cluster.writes().into_iter().map(|write| write.0).collect();
    assert_eq!(
        lines,
        [
            "PATCH /api/v1/namespaces/production/services/pg-neo-graph-rl",
            "PATCH /apis/apps/v1/namespaces/production/deployments/pg-neo-graph-rl-green/scale",
        ]
    );
}

/// Runbook 000, "Immediate Rollback (Emergency)" of a rolling update; and one that comes too late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_update_is_undone_unless_something_newer_runs() {
    let stand = Stand::start("blue-green-service").await;
    let key = deployment_key("pg-neo-graph-rl");
    stand.cluster.world(|world| {
        world.deploy("pg-neo-graph-rl", "pg-neo-graph-rl:3f1c2a9", Value::Null);
    });
    stand.cluster.release(&key, &["pg-neo-graph-rl:8d5e0b7"]);
    let order = json!({ "service": "pg-neo-graph-rl", "mechanisms": ["undo"] });
    let delivery = stand.ill_release(order.clone(), ["3f1c2a9", "8d5e0b7"]).await;
    assert_delivered(&delivery, "undo");
    assert_eq!(
        stand.cluster.world(|world| world.image(&key).to_owned()),
        "pg-neo-graph-rl:3f1c2a9"
    );

    stand.cluster.release(&key, &["pg-neo-graph-rl:aaaaaaa", "pg-neo-graph-rl:bbbbbbb"]);
    let delivery = stand.ill_release(order, ["3f1c2a9", "aaaaaaa"]).await;
    assert_eq!(delivery["state"], "refused", "{delivery}");
    let shown = delivery.to_string();
    assert!(shown.contains("bbbbbbb") && shown.contains("aaaaaaa was judged"), "{shown}");
    assert_eq!(
        stand.cluster.world(|world| world.image(&key).to_owned()),
        "pg-neo-graph-rl:bbbbbbb"
    );
}

/// Runbook 002: the canary's steps are aborted; its manual rollback; its blue and green.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_is_aborted_in_its_own_way() {
    let stand = Stand::start("argo-rollouts").await;
    let (rollout, deployment) = (rollout_key("app-rollout"), deployment_key("app-deployment"));
    stand.cluster.world(|world| {
        world.roll_out("app-rollout", "app:v1");
        world.deploy("app-deployment", "app:v1", Value::Null);
        world.serve("app-service", "green");
    });
    stand.cluster.release(&rollout, &["app:v2"]);
    stand.cluster.release(&deployment, &["app:v2"]);
    let delivery = stand.ill_release(json!({ "service": "app" }), ["v1", "v2"]).await;
    assert_delivered(&delivery, "canary");
    let status = stand.cluster.world(|world| world.objects[&rollout]["status"].clone());
    assert_eq!((&status["abort"], &status["phase"]), (&json!(true), &json!("Degraded")));

    let order = json!({ "service": "app", "mechanisms": ["undo"] });
    assert_delivered(&stand.ill_release(order, ["v1", "v2"]).await, "undo");
    assert_eq!(stand.cluster.world(|world| world.image(&deployment).to_owned()), "app:v1");

    let order = json!({ "service": "app", "mechanisms": ["blue-green"] });
    assert_delivered(&stand.ill_release(order, ["blue", "green"]).await, "blue-green");
    assert_eq!(stand.cluster.world(|world| world.selected("app-service").to_owned()), "blue");
}

/// Runbook 004: `kubectl rollout undo deployment/release-manager-prod -n production`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_undone() {
    let stand = Stand::start("kubernetes-undo").await;
    let key = deployment_key("release-manager-prod");
    stand.cluster.world(|world| {
        world.deploy("release-manager-prod", "release-manager:prod-3f1c2a9", Value::Null);
    });
    stand.cluster.release(&key, &["release-manager:prod-8d5e0b7"]);
    let order = json!({ "service": "release-manager" });
    let delivery = stand.ill_release(order, ["prod-3f1c2a9", "prod-8d5e0b7"]).await;
    assert_delivered(&delivery, "undo");
    let image = stand.cluster.world(|world| world.image(&key).to_owned());
    assert_eq!(image, "release-manager:prod-3f1c2a9");
    let [(line, content_type, body)] = &stand.cluster.writes()[..] else { panic!("one write") };
    assert_eq!(line, "PATCH /apis/apps/v1/namespaces/production/deployments/release-manager-prod");
    assert_eq!(content_type, "application/json-patch+json");
    assert_eq!(body[1]["path"], "/spec/template");
    assert_eq!(NAMESPACE, "production");
}
