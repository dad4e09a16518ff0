//! TLS on our own listener, against real clients: private authorities, client certificates, clients
//! that stall or speak something else, and files that change under the running service.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{Router, routing::get};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use reqwest::{Certificate, Identity};
use rollgate::{
    api::{
        ApiOptions,
        tls::{Certificates, TlsFiles},
    },
    outward::tls::TlsOptions,
    source::{
        client::{Client, ClientOptions},
        prometheus::{PrometheusLimits, PrometheusOptions, PrometheusServer},
    },
    telemetry::{Telemetry, secret::Secret},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::wire::{PATIENCE, client_builder};

/// An authority that signs what it is asked to.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its key, PEM.
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Authorities of one name would be taken for each other, up to their signatures.
        params.distinguished_name.push(DnType::CommonName, uuid::Uuid::new_v4().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub fn server(&self) -> Pair {
        self.sign(2100, ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub fn client(&self) -> Pair {
        self.sign(2100, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, until: i32, purpose: ExtendedKeyUsagePurpose) -> Pair {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until, 3, 4);
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }
}

fn write(dir: &Path, pair: &Pair) -> TlsFiles {
    let files = TlsFiles { cert: dir.join("tls.crt"), key: dir.join("tls.key"), client_ca: None };
    fs::write(&files.cert, &pair.cert).unwrap();
    fs::write(&files.key, &pair.key).unwrap();
    files
}

/// A server of one route.
pub struct TlsServer {
    pub port: u16,
    pub telemetry: Telemetry,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    _dir: tempfile::TempDir,
}

impl TlsServer {
    pub async fn start(pair: &Pair, client_ca: Option<&str>, options: ApiOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut files = write(dir.path(), pair);
        files.client_ca = client_ca.map(|pem| {
            let path = dir.path().join("ca.crt");
            fs::write(&path, pem).unwrap();
            path
        });
        let telemetry = Telemetry::new();
        let certificates = Some(Certificates::open(files, Duration::from_millis(20)).unwrap());
        let options = ApiOptions { certificates, ..options };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hello = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/metrics", get(|| async { "m 1\n" }))
            .route("/api/v1/query", axum::routing::post(|| async { QUERY_ANSWER }));
        let stop = CancellationToken::new();
        let serving =
            rollgate::api::serve(listener, hello, telemetry.clone(), options, stop.clone());
        Self { port, telemetry, stop, task: tokio::spawn(serving), _dir: dir }
    }

    fn dir(&self) -> &Path {
        self._dir.path()
    }

    async fn get(&self, client: &reqwest::Client) -> Result<String, String> {
        let url = format!("https://localhost:{}/", self.port);
        let sent = client.get(url).send().await.map_err(|error| format!("{error:?}"))?;
        assert_eq!(sent.version(), reqwest::Version::HTTP_11);
        sent.text().await.map_err(|error| format!("{error:?}"))
    }

    /// A number of our metrics.
    fn count(&self, line: &str) -> u64 {
        let body = self.telemetry.render();
        let found = body.lines().find_map(|found| found.strip_prefix(line));
        found.map_or(0, |value| value.trim().parse().unwrap())
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it ends").unwrap().unwrap();
    }
}

const NOT_AFTER: &str = "rollgate_tls_not_after_timestamp_seconds{certificate=\"listener\"}";

const QUERY_ANSWER: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

/// A client that trusts one authority. It makes a new connection for each request.
fn client(ca: &str, identity: Option<&Pair>) -> reqwest::Client {
    let roots = Certificate::from_pem_bundle(ca.as_bytes()).unwrap();
    let mut client = client_builder().tls_certs_only(roots).pool_max_idle_per_host(0);
    if let Some(Pair { cert, key }) = identity {
        let pem = format!("{cert}\n{key}");
        client = client.identity(Identity::from_pem(pem.as_bytes()).unwrap());
    }
    client.build().unwrap()
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_private_authority_is_trusted_and_another_is_not() {
    let (ours, other) = (Authority::new(), Authority::new());
    let server = TlsServer::start(&ours.server(), None, ApiOptions::default()).await;
    assert_eq!(server.get(&client(&ours.pem, None)).await.unwrap(), "hello");
    let refused = server.get(&client(&other.pem, None)).await.unwrap_err();
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    // The client tells us so before it goes.
    let failed = "rollgate_tls_handshakes_failed_total{reason=\"client_refused\"}";
    until("it is counted", async || server.count(failed) == 1).await;
    // python3 -c "import datetime as d; print(int(d.datetime(2100, 3, 4,
    //     tzinfo=d.timezone.utc).timestamp()))"
    let ends = server.count(NOT_AFTER);
    assert_eq!(ends, 4_107_801_600, "{}", server.telemetry.render());
    server.end().await;
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_authority_are_let_in() {
    let (ours, theirs, other) = (Authority::new(), Authority::new(), Authority::new());
    let options = ApiOptions::default();
    let server = TlsServer::start(&ours.server(), Some(&theirs.pem), options).await;
    let with = |pair: Option<&Pair>| client(&ours.pem, pair);
    assert_eq!(server.get(&with(Some(&theirs.client()))).await.unwrap(), "hello");
    let expired = theirs.sign(2020, ExtendedKeyUsagePurpose::ClientAuth);
    let wrong_use = theirs.server();
    for pair in [None, Some(&other.client()), Some(&expired), Some(&wrong_use)] {
        server.get(&with(pair)).await.unwrap_err();
    }
    let failed = |what: &str| format!("rollgate_tls_handshakes_failed_total{{reason=\"{what}\"}}");
    let (none, bad) = (failed("no_client_certificate"), failed("client_certificate"));
    until("all are counted", async || (server.count(&none), server.count(&bad)) == (1, 3)).await;
    server.end().await;
}

#[tokio::test]
async fn an_expired_certificate_of_ours_is_served_and_said() {
    let ours = Authority::new();
    let expired = ours.sign(2020, ExtendedKeyUsagePurpose::ServerAuth);
    let server = TlsServer::start(&expired, None, ApiOptions::default()).await;
    let refused = server.get(&client(&ours.pem, None)).await.unwrap_err();
    assert!(refused.contains("Expired"), "{refused}");
    // python3 -c "import datetime as d; print(int(d.datetime(2020, 3, 4,
    //     tzinfo=d.timezone.utc).timestamp()))"
    let ends = NOT_AFTER;
    until("it is said", async || server.count(ends) == 1_583_280_000).await;
    server.end().await;
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_and_who_says_nothing_is_cut_off() {
    let ours = Authority::new();
    let options = ApiOptions {
        connections_max: 1,
        header_timeout: Duration::from_millis(300),
        ..ApiOptions::default()
    };
    let server = TlsServer::start(&ours.server(), None, options).await;
    let mut plain = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut said = String::new();
    plain.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    assert!(said.ends_with("\r\n\r\nthis port speaks TLS, ask it by https://"), "{said}");
    // One connection is all there may be, and it stalls at each stage; then it is the next one's.
    for begun in [b"".as_slice(), &[0x16, 0x03, 0x01], &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]] {
        let mut stalled = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
        stalled.write_all(begun).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stalled.read_to_end(&mut rest)).await;
        let _ = ended.expect("it is cut off");
    }
    assert_eq!(server.get(&client(&ours.pem, None)).await.unwrap(), "hello");
    let failed = "rollgate_tls_handshakes_failed_total{reason=\"slow\"}";
    assert_eq!(server.count(failed), 3, "{}", server.telemetry.render());
    // A client in the middle of its handshake holds up no shutdown.
    let _waiting = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn changed_files_are_taken_when_they_fit() {
    let (first, second, third) = (Authority::new(), Authority::new(), Authority::new());
    let server = TlsServer::start(&first.server(), None, ApiOptions::default()).await;
    let (by_first, by_second) = (client(&first.pem, None), client(&second.pem, None));
    assert_eq!(server.get(&by_first).await.unwrap(), "hello");
    // The certificate comes before its key: for a while the two do not fit.
    let renewed = second.server();
    fs::write(server.dir().join("tls.crt"), &renewed.cert).unwrap();
    let failed = "rollgate_tls_reloads_total{outcome=\"failed\"}";
    until("it is noticed", async || server.count(failed) == 1).await;
    assert_eq!(server.get(&by_first).await.unwrap(), "hello");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.count(failed), 1, "each state of the files is told once");
    fs::write(server.dir().join("tls.key"), &renewed.key).unwrap();
    until("it is in use", async || server.get(&by_second).await.is_ok()).await;
    server.get(&by_first).await.unwrap_err();
    // A file that is gone, and one that is no certificate.
    fs::remove_file(server.dir().join("tls.key")).unwrap();
    until("it is missed", async || server.count(failed) == 2).await;
    fs::write(server.dir().join("tls.key"), "nothing").unwrap();
    until("it is refused", async || server.count(failed) == 3).await;
    assert_eq!(server.get(&by_second).await.unwrap(), "hello");
    // As a mounted Kubernetes secret changes: links are swapped, the names stay.
    let pair = third.server();
    for (name, text) in [("tls.crt", &pair.cert), ("tls.key", &pair.key)] {
        fs::write(server.dir().join(format!("new-{name}")), text).unwrap();
        let link = server.dir().join(format!("link-{name}"));
        std::os::unix::fs::symlink(format!("new-{name}"), &link).unwrap();
        fs::rename(link, server.dir().join(name)).unwrap();
    }
    let by_third = client(&third.pem, None);
    until("it is in use", async || server.get(&by_third).await.is_ok()).await;
    server.end().await;
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (ours, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let pair = ours.server();
    let good = write(dir.path(), &pair);
    let file = |name: &str, text: &str| -> PathBuf {
        fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name)
    };
    let check = |files: TlsFiles, part: &str| {
        let fault = Certificates::open(files, Duration::from_secs(1)).unwrap_err().to_string();
        assert!(fault.contains(part), "{fault}");
        assert!(!fault.contains("PRIVATE"), "{fault}");
    };
    Certificates::open(good.clone(), Duration::from_secs(1)).unwrap();
    check(TlsFiles { cert: dir.path().join("none"), ..good.clone() }, "tls.cert: ");
    check(TlsFiles { cert: file("a", ""), ..good.clone() }, "holds no certificate");
    check(TlsFiles { cert: file("b", &pair.key), ..good.clone() }, "holds no certificate");
    check(TlsFiles { key: file("c", &pair.cert), ..good.clone() }, "holds no key");
    check(TlsFiles { key: file("d", &ours.server().key), ..good.clone() }, "does not fit");
    check(TlsFiles { key: dir.path().to_owned(), ..good.clone() }, "tls.key: ");
    let big = "x".repeat((1 << 20) + 1);
    check(TlsFiles { cert: file("e", &big), ..good.clone() }, "more than 1048576 bytes");
    check(TlsFiles { client_ca: Some(file("f", "x")), ..good }, "tls.client_ca: ");
}

/// Trust and identity outward, with our own listener as the peer.
#[tokio::test]
async fn targets_and_metrics_servers_are_asked_by_tls() {
    let (ours, theirs, other) = (Authority::new(), Authority::new(), Authority::new());
    let server = TlsServer::start(&ours.server(), Some(&theirs.pem), ApiOptions::default()).await;
    let check = async |ca: Option<&Authority>, pair: Option<Pair>, expected: Result<(), &str>| {
        let identity = pair.map(|pair| Secret::new(format!("{}\n{}", pair.cert, pair.key)));
        let tls = TlsOptions { ca: ca.map(|ca| ca.pem.clone()), identity };
        let client = Client::with(ClientOptions { tls, ..ClientOptions::default() }).unwrap();
        let bound = rollgate::source::client::Bound { time: PATIENCE, bytes: 1000 };
        let url = format!("https://127.0.0.1:{}/metrics", server.port).parse().unwrap();
        let found = client.bounded_get(&url, "text/plain", bound).await;
        match (&found, expected) {
            (Ok(answer), Ok(())) => assert_eq!(answer.body, b"m 1\n"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            _ => panic!("{found:?}, expected {expected:?}"),
        }
        let options = PrometheusOptions {
            url: format!("https://127.0.0.1:{}", server.port),
            headers: Vec::new(),
            timeout: PATIENCE,
            limits: PrometheusLimits::default(),
        };
        PrometheusServer::new(client, options).unwrap();
    };
    check(Some(&ours), Some(theirs.client()), Ok(())).await;
    check(Some(&other), Some(theirs.client()), Err("TLS failed: invalid peer certificate")).await;
    check(None, Some(theirs.client()), Err("TLS failed")).await;
    check(Some(&ours), None, Err("")).await;
    check(Some(&ours), Some(other.client()), Err("")).await;
    server.end().await;
}
