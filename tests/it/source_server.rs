//! Loopback servers for the tests of the sources: well-behaved ones by axum, and ones that send
//! exactly the bytes they are told, at the pace they are told, over plain sockets.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use rollgate::signal::spec::{
    HealthTarget, MatchTest, Matcher, Reads, Reduce, Selection, Selector, SignalSpec,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What a hostile server does once the request has come.
#[derive(Clone)]
pub enum Conduct {
    /// Sends these bytes and closes.
    Sends(Vec<u8>),
    /// Never says anything.
    Silent,
    /// Sends a head, then one byte each 100 ms.
    Drips,
    /// Sends a head without a length, then megabytes until nobody listens.
    Floods,
    /// Closes at once, but answers properly on every second connection.
    ClosesEveryOther(Vec<u8>),
}

/// A 200 answer with a body.
pub fn answer(content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Starts a hostile server; it lives as long as the test's runtime.
pub async fn hostile(conduct: Conduct) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut connections = 0_u64;
        while let Ok((socket, _)) = listener.accept().await {
            connections += 1;
            tokio::spawn(misbehave(socket, conduct.clone(), connections));
        }
    });
    address
}

async fn misbehave(mut socket: TcpStream, conduct: Conduct, connection: u64) {
    let mut request = [0; 4096];
    if socket.read(&mut request).await.unwrap_or(0) == 0 {
        return;
    }
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n";
    match conduct {
        Conduct::Sends(bytes) => {
            let _ = socket.write_all(&bytes).await;
        }
        Conduct::Silent => {
            // Ends when the client gives up.
            while socket.read(&mut request).await.unwrap_or(0) > 0 {}
        }
        Conduct::Drips => {
            let _ = socket.write_all(head).await;
            let mut pace = tokio::time::interval(Duration::from_millis(100));
            while socket.write_all(b"#").await.is_ok() {
                pace.tick().await;
            }
        }
        Conduct::Floods => {
            let _ = socket.write_all(head).await;
            let megabyte = vec![b'#'; 1 << 20];
            for _ in 0..100 {
                if socket.write_all(&megabyte).await.is_err() {
                    return;
                }
            }
        }
        Conduct::ClosesEveryOther(bytes) => {
            if connection.is_multiple_of(2) {
                let _ = socket.write_all(&bytes).await;
            }
        }
    }
}

/// A port on which nobody listens.
pub async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A small real service: requests are counted by `hit`, and shown at `/metrics`.
#[derive(Clone, Default)]
pub struct Service {
    ok: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Service {
    /// Counts requests.
    pub fn hit(&self, ok: u64, failed: u64) {
        self.ok.fetch_add(ok, Ordering::SeqCst);
        self.failed.fetch_add(failed, Ordering::SeqCst);
    }

    /// Serves `/metrics` and `/health` on a free port.
    pub async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = self.clone();
        let metrics = move || {
            let (ok, failed) =
                (service.ok.load(Ordering::SeqCst), service.failed.load(Ordering::SeqCst));
            async move {
                let body = format!(
                    "# TYPE requests_total counter\n\
                     requests_total{{code=\"200\"}} {ok}\n\
                     requests_total{{code=\"500\"}} {failed}\n\
                     # TYPE seconds histogram\n\
                     seconds_bucket{{le=\"0.1\"}} {ok}\n\
                     seconds_bucket{{le=\"+Inf\"}} {}\n\
                     # TYPE process_start_time_seconds gauge\n\
                     process_start_time_seconds 1000\n",
                    ok + failed
                );
                ([("content-type", "text/plain; version=0.0.4")], body)
            }
        };
        let app =
            Router::new().route("/metrics", get(metrics)).route("/health", get(|| async { "ok" }));
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }
}

/// A real Prometheus; killed when dropped.
pub struct Prometheus {
    child: Child,
    pub url: String,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes each arm's service once a second, labelled with its version.
    pub async fn start(canary: SocketAddr, baseline: SocketAddr) -> Self {
        let target = |address: SocketAddr, version: &str| {
            let labels = serde_json::json!({ "version": version });
            serde_json::json!({ "targets": [address.to_string()], "labels": labels })
        };
        let targets = serde_json::json!([target(canary, "v2"), target(baseline, "v1")]);
        Self::scraping("shop", targets).await
    }

    /// Starts one that scrapes these targets once a second, and native histograms of them.
    pub async fn scraping(job: &str, targets: serde_json::Value) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), job, targets).await
    }

    /// Starts one that scrapes nothing and knows this past, in OpenMetrics text with times.
    pub async fn remembering(past: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("past.om");
        std::fs::write(&file, past).unwrap();
        let made = Command::new("promtool")
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .arg(&file)
            .arg(dir.path().join("data"))
            .output()
            .expect("promtool, which comes with prometheus");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self::start_in(dir, "nobody", serde_json::json!([])).await
    }

    async fn start_in(dir: tempfile::TempDir, job: &str, targets: serde_json::Value) -> Self {
        let address = closed_port().await;
        let config = serde_json::json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "900ms" },
            "scrape_configs": [{ "job_name": job, "static_configs": targets }],
        });
        let file = dir.path().join("prometheus.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let child = spawn(&file, dir.path(), address);
        let prometheus = Self { child, url: format!("http://{address}"), _dir: dir };
        prometheus.ready().await;
        prometheus
    }

    async fn ready(&self) {
        let begun = Instant::now();
        let client = crate::wire::client_builder().build().unwrap();
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        loop {
            pace.tick().await;
            let asked = client.get(format!("{}/-/ready", self.url)).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "prometheus did not become ready");
        }
    }

    /// Ends it the hard way.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(config: &Path, dir: &Path, address: SocketAddr) -> Child {
    Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--enable-feature=native-histograms")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect(
            "this test needs a real Prometheus: the program `prometheus` was not found in PATH; \
             hint: `make test` installs it, or: apt-get install prometheus",
        )
}

/// A selector with `=` matchers.
pub fn selector(name: &str, matchers: &[(&str, &str)]) -> Selection {
    let matchers = matchers
        .iter()
        .map(|(label, value)| Matcher {
            label: (*label).to_owned(),
            test: MatchTest::Equal((*value).to_owned()),
        })
        .collect();
    Selection { any_of: vec![Selector { name: name.to_owned(), matchers }] }
}

/// The signals that [`Service`] can give.
pub fn specs() -> Vec<SignalSpec> {
    let spec = |name: &str, reads| SignalSpec { name: name.to_owned(), reads };
    vec![
        spec(
            "errors",
            Reads::Ratio {
                events: selector("requests_total", &[("code", "500")]),
                total: selector("requests_total", &[]),
            },
        ),
        spec("latency", Reads::Histogram { of: selector("seconds", &[]), q: 0.95 }),
        spec("app", Reads::Health(HealthTarget::Path("/health".to_owned()))),
        spec(
            "born",
            Reads::Gauge {
                of: selector("process_start_time_seconds", &[]),
                per: None,
                reduce: Reduce::Max,
            },
        ),
    ]
}
