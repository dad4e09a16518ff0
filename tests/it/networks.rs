//! Where targets may be: addresses and names that lead to forbidden ones are not asked, whoever
//! names them, and a name is judged each time a connection is made.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rollgate::{
    api::{
        ApiOptions,
        desk::{DeskError, OpenAnalysis},
    },
    engine::observation::{Time, Why},
    outward::networks::{Networks, network},
    service::{self, ServiceOptions},
    signal::spec::{HealthTarget, Reads},
    source::{
        client::{Bound, Client, ClientOptions, FetchError},
        collector::{ArmSource, Collector, CollectorOptions},
        limits::SourceLimits,
        target::Target,
    },
    store::sqlite::{SqliteOptions, SqliteStore},
    telemetry::Telemetry,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{house::error_rules, source_server::specs};

const BOUND: Bound = Bound { time: Duration::from_secs(5), bytes: 1000 };

/// A resolver that says what it is told, and counts how often it is asked.
#[derive(Default)]
struct Names {
    /// Addresses of a name; the next list at each question, the last one for ever.
    known: BTreeMap<&'static str, Vec<Vec<&'static str>>>,
    asked: AtomicUsize,
}

impl Names {
    fn new(known: &[(&'static str, &[&[&'static str]])]) -> Arc<Self> {
        let known = known
            .iter()
            .map(|(name, lists)| (*name, lists.iter().map(|list| list.to_vec()).collect()));
        Arc::new(Self { known: known.collect(), asked: AtomicUsize::new(0) })
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let time = self.asked.fetch_add(1, Ordering::SeqCst);
        let lists = self.known.get(name.as_str());
        let found = lists.map(|lists| lists[time.min(lists.len() - 1)].clone());
        Box::pin(async move {
            let found = found.ok_or("no such name")?;
            let socket = |text: &&str| SocketAddr::new(text.parse().unwrap(), 0);
            let found: Vec<SocketAddr> = found.iter().map(socket).collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn client(names: Arc<Names>, allow: &[&str]) -> Client {
    let allow = allow.iter().map(|text| network(text).unwrap()).collect();
    let networks = Some(Networks { allow, deny: Vec::new() });
    Client::with(ClientOptions { networks, names, ..ClientOptions::default() }).unwrap()
}

/// A target that closes each connection after one answer, and how often it was asked.
async fn target(answer: &'static str) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, asked)
}

const METRICS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\
                       connection: close\r\n\r\nm 1\n";

async fn ask(client: &Client, url: &str) -> Result<u16, FetchError> {
    let answer = client.bounded_get(&url.parse().unwrap(), "text/plain", BOUND).await;
    answer.map(|answer| answer.status)
}

fn forbidden(found: &Result<u16, FetchError>) -> &str {
    match found {
        Err(FetchError::Forbidden { why }) => why,
        other => panic!("{other:?} is not forbidden"),
    }
}

#[tokio::test]
async fn a_name_is_judged_by_where_it_leads_each_time() {
    let (port, asked) = target(METRICS).await;
    // It leads to the target first, and to the metadata service then: a rebound name.
    let names = Names::new(&[("shop", &[&["127.0.0.1"], &["169.254.169.254"], &["127.0.0.1"]])]);
    let client = client(names.clone(), &[]);
    let url = format!("http://shop:{port}/metrics");
    assert_eq!(ask(&client, &url).await, Ok(200));
    let refused = ask(&client, &url).await;
    assert!(forbidden(&refused).contains("169.254.169.254 is among 169.254.0.0/16"), "{refused:?}");
    assert_eq!(ask(&client, &url).await, Ok(200));
    assert_eq!((asked.load(Ordering::SeqCst), names.asked.load(Ordering::SeqCst)), (2, 3));
}

#[tokio::test]
async fn of_several_addresses_only_permitted_ones_are_connected_to() {
    let (port, asked) = target(METRICS).await;
    let names = Names::new(&[
        ("both", &[&["169.254.169.254", "fd00:ec2::254", "127.0.0.1"]]),
        ("mapped", &[&["::ffff:169.254.169.254"]]),
        ("none", &[&["0.0.0.0", "224.0.0.1"]]),
    ]);
    let client = client(names, &[]);
    assert_eq!(ask(&client, &format!("http://both:{port}/")).await, Ok(200));
    for name in ["mapped", "none"] {
        let found = ask(&client, &format!("http://{name}:{port}/")).await;
        assert!(!forbidden(&found).is_empty());
    }
    let unknown = ask(&client, &format!("http://unknown:{port}/")).await;
    assert!(matches!(unknown, Err(FetchError::Name { .. })), "{unknown:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn addresses_in_urls_are_judged_without_the_resolver() {
    let (port, asked) = target(METRICS).await;
    let names = Names::new(&[]);
    let only = client(names.clone(), &["10.0.0.0/8"]);
    let spellings = ["127.0.0.1", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "0177.0.0.1"];
    for host in spellings {
        let url = format!("http://{host}:{port}/metrics");
        let found = ask(&only, &url).await;
        assert!(forbidden(&found).contains("none of the networks"), "{host}: {found:?}");
        let open = client(names.clone(), &["127.0.0.0/8"]);
        // A socket of one family does not take the other's mapped addresses on every machine.
        if !host.starts_with('[') {
            assert_eq!(ask(&open, &url).await, Ok(200), "{host}");
        }
    }
    assert_eq!(names.asked.load(Ordering::SeqCst), 0);
    assert_eq!(asked.load(Ordering::SeqCst), spellings.len() - 1);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    const REDIRECT: &str = "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest\r\n\
                            content-length: 0\r\nconnection: close\r\n\r\n";
    let (port, asked) = target(REDIRECT).await;
    let client = client(Names::new(&[]), &[]);
    assert_eq!(ask(&client, &format!("http://127.0.0.1:{port}/metrics")).await, Ok(302));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_forbidden_target_is_not_observed_and_never_down() {
    let names = Names::new(&[("shop", &[&["169.254.169.254"]])]);
    let mut specs = specs();
    for spec in &mut specs {
        if let Reads::Health(HealthTarget::Url(url)) = &mut spec.reads {
            "http://shop:1/health".clone_into(url);
        }
    }
    let options = CollectorOptions {
        specs: specs.into(),
        canary: ArmSource::Targets(vec![Target::parse("http://shop:1").unwrap()]),
        baseline: None,
        timeout: Duration::from_secs(2),
        limits: SourceLimits::default(),
    };
    let client = client(names, &[]);
    let gathered = Collector::new(client, options, Telemetry::new()).gather(Time(1_000)).await;
    let reading = &gathered.canary[0];
    let missing = reading.samples.as_ref().unwrap_err();
    assert_eq!(missing.why, Why::NotObserved);
    assert!(missing.detail.contains("may not be asked: 169.254.169.254"), "{missing}");
    for probe in &reading.probes {
        assert_eq!(probe.answer.as_ref().unwrap_err().why, Why::UnclearHealth);
    }
}

#[tokio::test]
async fn an_order_that_names_forbidden_targets_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("shop.yaml"), error_rules("{ after: 1m, deadline: 5m }"))
        .unwrap();
    let names = Names::new(&[("meta", &[&["169.254.169.254"]]), ("shop", &[&["10.0.0.7"]])]);
    let store = SqliteStore::open(&dir.path().join("a.db"), SqliteOptions::default()).await;
    let service = service::start(ServiceOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        store: Arc::new(store.unwrap()),
        rules_dir: dir.path().to_owned(),
        mechanisms: BTreeMap::new(),
        prometheus: BTreeMap::new(),
        services: BTreeMap::new(),
        watch: Vec::new(),
        client: client(names, &["10.0.0.0/8", "127.0.0.0/8"]),
        limits: SourceLimits::default(),
        timeout: Duration::from_secs(1),
        api: ApiOptions::default(),
        telemetry: Telemetry::new(),
    })
    .await
    .unwrap();
    let order = |canary: &str, baseline: &str| -> OpenAnalysis {
        let arm = |version: &str, target: &str| json!({ "version": version, "targets": [target] });
        let (canary, baseline) = (arm("v2", canary), arm("v1", baseline));
        let order =
            json!({ "service": "shop", "rules": "shop", "canary": canary, "baseline": baseline });
        serde_json::from_value(order).unwrap()
    };
    let refused = service.desk.open(order("http://meta:1", "http://192.168.0.1:1/x")).await;
    let Err(DeskError::Refused(faults)) = refused else { panic!("{refused:?}") };
    assert_eq!(
        faults,
        [
            "canary: target meta:1 may not be asked: 169.254.169.254 is among 169.254.0.0/16, \
             link-local addresses, where clouds keep credentials, which are not asked unless \
             `targets.allow` names them",
            "baseline: target 192.168.0.1:1/x may not be asked: 192.168.0.1 is in none of the \
             networks that `targets.allow` names",
        ]
    );
    // A name that nobody knows just now may be known at the first look.
    for canary in ["http://shop:1", "http://127.0.0.1:1", "http://unheard-of:1"] {
        service.desk.open(order(canary, "http://127.0.0.1:1")).await.unwrap();
    }
    service.stop().await;
}
