//! The whole product as its users meet it: the real binary in a directory of its own, asked over
//! HTTP, with a receiver of webhooks that keeps every request it was sent.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{Router, body::Bytes, http::HeaderMap, http::StatusCode, routing::post};
use rollgate::{
    deliver::sign::{Keys, Signed},
    engine::observation::Time,
    telemetry::secret::Secret,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::oneshot,
};

/// The signing key of every house; no secret.
const KEY: &str = "a-signing-key-for-the-tests-of-the-house";

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One look a second, and a chance of a false rollback that no run of the suite will meet.
const HEAD: &str = "\
version: 1
service: shop
observe: { interval: 1s, window: 5s, warmup: 1s }
false_rollback_rate: 0.0001%
";

/// A rule file on the share of failing requests, compared with the baseline.
pub fn error_rules(promote: &str) -> String {
    format!(
        "{HEAD}signals:\n  error_rate: {{ ratio: 'http_requests_total{{code=~\"5..\"}} / \
         http_requests_total', floor: 0.1% }}\nrules:\n  - {{ when: error_rate > 3x baseline, \
         then: rollback, reason: requests fail more often }}\npromote: {promote}\n"
    )
}

/// A rule file on the health endpoint.
pub fn health_rules(promote: &str) -> String {
    format!(
        "{HEAD}signals:\n  app: {{ health: /health }}\nrules:\n  - {{ when: app is down for 3 \
         checks, then: rollback }}\npromote: {promote}\n"
    )
}

/// A directory with configuration, rule files and a store.
pub struct House {
    dir: tempfile::TempDir,
}

impl House {
    /// A house with these members in its configuration, besides address, store and rules.
    pub fn new(members: Value, rules: &[(&str, String)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config =
            json!({ "listen": "127.0.0.1:0", "store": "rollgate.db", "rules": "rules" });
        for (name, member) in members.as_object().unwrap() {
            config[name] = member.clone();
        }
        std::fs::create_dir(dir.path().join("rules")).unwrap();
        let house = Self { dir };
        std::fs::write(house.config(), config.to_string()).unwrap();
        for (name, text) in rules {
            std::fs::write(house.rule_file(name), text).unwrap();
        }
        house
    }

    /// Where a rule file lies.
    pub fn rule_file(&self, name: &str) -> PathBuf {
        self.path().join(format!("rules/{name}.yaml"))
    }

    /// Where everything lies.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.path().join("rollgate.yaml")
    }

    /// Starts the service without waiting for it.
    pub fn spawn(&self) -> Server {
        self.spawn_with(&[])
    }

    /// The same with these environment variables.
    pub fn spawn_with(&self, env: &[(&str, &str)]) -> Server {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_rollgate"))
            .args(["serve", "--config"])
            .arg(self.config())
            .env("HOUSE_KEY", KEY)
            .env_remove("RUST_LOG")
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (tell, told) = oneshot::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            let _ = tell.send(read.map(|_| line).unwrap_or_default());
        });
        Server { child, told: Some(told), has_told: false }
    }

    /// Starts the service and waits until it serves.
    pub async fn start(&self) -> (Server, Api) {
        self.start_with(&[]).await
    }

    /// The same with these environment variables.
    pub async fn start_with(&self, env: &[(&str, &str)]) -> (Server, Api) {
        let mut server = self.spawn_with(env);
        let line = server.line().await;
        let url = line.trim().strip_prefix("rollgate serves ");
        let url = url.unwrap_or_else(|| panic!("it does not serve: {line:?}\n{}", self.logged()));
        let api = Api::new(url);
        (server, api)
    }

    /// What the service said to stderr, over all its lives.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.path().join("stderr.log")
    }
}

/// A webhook mechanism in a configuration.
pub fn webhook(url: &str) -> Value {
    json!({ "webhook": { "url": url, "secrets": [{ "env": "HOUSE_KEY" }], "timeout": "5s" } })
}

/// Runs the binary to its end, without a terminal.
pub async fn command(args: &[&str]) -> Output {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let run = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollgate"));
        command.args(args).env("HOUSE_KEY", KEY).env_remove("RUST_LOG").output().unwrap()
    };
    tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(run)).await.unwrap().unwrap()
}

/// A running service; killed when dropped.
pub struct Server {
    child: Child,
    told: Option<oneshot::Receiver<String>>,
    has_told: bool,
}

impl Server {
    /// The first line of its stdout; empty when it ended before.
    pub async fn line(&mut self) -> String {
        let told = self.told.take().expect("the line is read once");
        let line = tokio::time::timeout(PATIENCE, told).await.expect("a line in time");
        self.has_told = true;
        line.unwrap_or_default()
    }

    /// Whether that line was read.
    pub fn has_told(&self) -> bool {
        self.has_told
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        eventually("the service ends", async || self.child.try_wait().unwrap()).await
    }
}

impl Server {
    /// Sends a signal, by its name.
    pub fn signal(&self, name: &str) {
        let (kill, id) = (format!("kill -{name} $0"), self.child.id().to_string());
        let sent = Command::new("sh").args(["-c", &kill, &id]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks again and again until there is something; fails after [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    loop {
        pace.tick().await;
        if let Some(found) = ask().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
    }
}

/// The API of a running service.
#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    pub url: String,
}

impl Api {
    /// The API at this URL.
    pub fn new(url: &str) -> Self {
        let client = crate::wire::client_builder().timeout(PATIENCE).build().unwrap();
        Self { client, url: url.to_owned() }
    }

    /// Sends JSON; none when nobody answers.
    pub async fn try_post(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let answer =
            self.client.post(format!("{}{path}", self.url)).json(body).send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.json().await.ok()?))
    }

    /// Sends JSON.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.try_post(path, body).await.expect("an answer")
    }

    /// Status and text.
    pub async fn text(&self, path: &str) -> (u16, String) {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Status and JSON.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let (status, text) = self.text(path).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}")))
    }

    /// Opens an analysis that must be taken, and gives its id.
    pub async fn open(&self, order: &Value) -> String {
        let (status, view) = self.post("/v1/analyses", order).await;
        assert_eq!(status, 201, "{view}");
        view["id"].as_str().unwrap().to_owned()
    }

    /// One analysis.
    pub async fn view(&self, id: &str) -> Value {
        let (status, view) = self.get(&format!("/v1/analyses/{id}")).await;
        assert_eq!(status, 200, "{view}");
        view
    }

    /// Polls, as a controller does, until the verdict is final.
    pub async fn verdict(&self, id: &str) -> Value {
        let path = format!("/v1/analyses/{id}/verdict?wait=30s");
        eventually("a final verdict", async || {
            let (status, verdict) = self.get(&path).await;
            assert_eq!(status, 200, "{verdict}");
            (verdict["final"] == true).then_some(verdict)
        })
        .await
    }

    /// Looks until the analysis is as expected.
    pub async fn until(&self, id: &str, what: &str, expected: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || Some(self.view(id).await).filter(&expected)).await
    }

    /// Looks until it is over and no delivery is pending.
    pub async fn delivered(&self, id: &str) -> Value {
        let over = |view: &Value| {
            let deliveries = view["deliveries"].as_array().unwrap();
            view["state"] != "running"
                && !deliveries.is_empty()
                && deliveries.iter().all(|one| one["state"] != "pending")
        };
        self.until(id, "a delivery", over).await
    }
}

/// An arm of an order, by targets.
pub fn arm(version: &str, targets: &[std::net::SocketAddr]) -> Value {
    let targets: Vec<String> = targets.iter().map(|target| format!("http://{target}")).collect();
    json!({ "version": version, "targets": targets })
}

/// A port that refuses connections, and that nobody else is given, until it is told to listen.
pub struct Reserved(TcpSocket);

impl Reserved {
    /// A free one.
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    /// Its address.
    pub fn addr(&self) -> std::net::SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Listens from now on.
    pub fn listen(self) -> TcpListener {
        self.0.listen(128).unwrap()
    }
}

/// What a postbox says to one request: after how long, and whether it keeps what it was sent.
pub type Manners = Arc<dyn Fn() -> (Duration, StatusCode) + Send + Sync>;

/// A receiver that checks every signature, keeps every body under its key, and has its moods.
#[derive(Clone)]
pub struct Postbox {
    keys: Keys,
    manners: Manners,
    kept: Arc<Mutex<BTreeMap<String, Vec<Bytes>>>>,
}

impl Postbox {
    /// A postbox with these manners.
    pub fn new(manners: Manners) -> Self {
        Self { keys: keys(), manners, kept: Arc::default() }
    }

    /// Serves until the test's runtime ends.
    pub fn serve(&self, listener: TcpListener) {
        let postbox = self.clone();
        let take = move |headers: HeaderMap, body: Bytes| {
            let postbox = postbox.clone();
            async move { postbox.take(&headers, body).await }
        };
        let app = Router::new().route("/", post(take));
        tokio::spawn(async move { axum::serve(listener, app).await });
    }

    /// Every body that came, by key, in order of arrival.
    pub fn kept(&self) -> BTreeMap<String, Vec<Bytes>> {
        self.kept.lock().unwrap().clone()
    }

    async fn take(&self, headers: &HeaderMap, body: Bytes) -> StatusCode {
        if verify(&self.keys, headers, &body).is_err() {
            return StatusCode::UNAUTHORIZED;
        }
        let id = headers["webhook-id"].to_str().unwrap().to_owned();
        self.kept.lock().unwrap().entry(id).or_default().push(body);
        let (wait, status) = (self.manners)();
        tokio::time::sleep(wait).await;
        status
    }
}

/// The keys of every house.
pub fn keys() -> Keys {
    Keys::new(&[Secret::new(KEY)]).unwrap()
}

/// Checks the signature of a webhook, as its receiver.
pub fn verify(keys: &Keys, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    let word = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let signed = Signed {
        id: word("webhook-id"),
        timestamp: word("webhook-timestamp"),
        signature: word("webhook-signature"),
    };
    let secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    keys.verify(signed, body, Time::from_secs_f64(secs)).map_err(|error| error.to_string())
}
