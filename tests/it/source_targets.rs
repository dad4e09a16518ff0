//! Scrapes and probes against real servers that behave well, and badly in every way we know of.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use rollgate::{
    engine::observation::{Health, Missing, Time, Why},
    signal::{
        answer::{AnswerNumber, FieldPath, FieldStep},
        sample::{Gathered, InstanceReading},
        spec::{HealthTarget, Reads, Reduce, SignalSpec},
    },
    source::{
        client::Client,
        collector::{ArmSource, Collector, CollectorOptions},
        limits::{SourceLimits, TARGETS_PER_ARM_MAX},
        target::Target,
    },
    telemetry::Telemetry,
};

use super::source_server::{Conduct, Service, answer, closed_port, hostile, specs};

const NOW: Time = Time(1_000_000);
const TIMEOUT: Duration = Duration::from_secs(2);

fn options(canary: &[String]) -> CollectorOptions {
    let targets = canary.iter().map(|url| Target::parse(url).unwrap()).collect();
    CollectorOptions {
        specs: specs().into(),
        canary: ArmSource::Targets(targets),
        baseline: None,
        timeout: TIMEOUT,
        limits: SourceLimits::default(),
    }
}

async fn gather(options: CollectorOptions) -> Gathered {
    Collector::new(Client::new().unwrap(), options, Telemetry::new()).gather(NOW).await
}

async fn look_at(conduct: Conduct) -> InstanceReading {
    let address = hostile(conduct).await;
    let mut gathered = gather(options(&[format!("http://{address}")])).await;
    assert_eq!(gathered.canary.len(), 1);
    gathered.canary.remove(0)
}

async fn check_failed(conduct: Conduct, part: &str) {
    let begun = Instant::now();
    let reading = look_at(conduct).await;
    assert!(begun.elapsed() < TIMEOUT + Duration::from_millis(500), "{:?}", begun.elapsed());
    let missing = reading.samples.unwrap_err();
    assert_eq!(missing.why, Why::ScrapeFailed, "{missing}");
    assert!(missing.detail.starts_with(&*reading.instance), "{missing}");
    assert!(missing.detail.contains(part), "{missing}");
    assert!(!missing.detail.contains('\n'), "{missing}");
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzip_answer(body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-encoding: gzip\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn sample(reading: &InstanceReading, name: &str, code: &str) -> f64 {
    let samples = reading.samples.as_ref().unwrap();
    samples
        .iter()
        .find(|sample| &*sample.name == name && sample.labels.value("code") == code)
        .map(|sample| sample.value)
        .unwrap()
}

#[tokio::test]
async fn two_instances_are_read_with_their_health() {
    let services = [Service::default(), Service::default()];
    services[0].hit(10, 1);
    services[1].hit(20, 2);
    let mut urls = Vec::new();
    for service in &services {
        urls.push(format!("http://{}", service.start().await));
    }
    let gathered = gather(options(&urls)).await;
    for (reading, (ok, failed)) in gathered.canary.iter().zip([(10.0, 1.0), (20.0, 2.0)]) {
        assert_eq!(sample(reading, "requests_total", "200"), ok);
        assert_eq!(sample(reading, "requests_total", "500"), failed);
        assert_eq!(reading.at, NOW);
        let probe = reading.probes[0].answer.as_ref().unwrap();
        assert_eq!(probe.status, Health::Up);
        assert!(probe.latency_secs.unwrap() > 0.0);
    }
    assert_eq!((gathered.canary.len(), gathered.baseline.len()), (2, 0));
}

#[tokio::test]
async fn bad_targets_are_missing_in_plain_words() {
    let sends = |head: &str| Conduct::Sends(format!("HTTP/1.1 {head}\r\n\r\n").into_bytes());
    check_failed(sends("500 Oops\r\ncontent-length: 0"), "status 500").await;
    check_failed(sends("404 No\r\ncontent-length: 0"), "another path").await;
    let redirect = "302 Found\r\nlocation: http://x/login?token=s3cret\r\ncontent-length: 0";
    check_failed(sends(redirect), "http://x/login").await;
    let html = answer("text/html", b"<!doctype html><title>Sign in</title>");
    check_failed(Conduct::Sends(html), "HTML page").await;
    check_failed(Conduct::Sends(answer("text/plain", b"")), "empty body").await;
    let cut = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 99\r\n\r\nm 1\n";
    check_failed(Conduct::Sends(cut.to_vec()), "broke off after 4 bytes").await;
    check_failed(Conduct::Sends(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "broke off").await;
    check_failed(Conduct::Sends(Vec::new()), "broke off").await;
    check_failed(Conduct::Sends(gzip_answer(b"this is no gzip")), "broke off").await;
    let big = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 104857600\r\n\r\n";
    check_failed(Conduct::Sends(big.to_vec()), "limit of 16777216 bytes").await;
    check_failed(Conduct::Floods, "limit of 16777216 bytes").await;
}

#[tokio::test]
async fn health_answers_that_say_nothing_of_the_service_are_unclear() {
    let check = async |url: String, part: &str| {
        let gathered = gather(options(&[url])).await;
        let missing = gathered.canary[0].probes[0].answer.as_ref().unwrap_err();
        assert_eq!(missing.why, Why::UnclearHealth);
        assert!(missing.detail.contains(part), "{missing}");
    };
    let sends = |bytes: &[u8]| Conduct::Sends(bytes.to_vec());
    let floods = hostile(Conduct::Floods).await;
    check(format!("http://{floods}"), "limit of 262144 bytes").await;
    let plain = hostile(sends(&answer("text/plain", b"ok"))).await;
    check(format!("https://{plain}"), "TLS failed").await;
    let busy = b"HTTP/1.1 429 Slow Down\r\ncontent-length: 0\r\n\r\n";
    check(format!("http://{}", hostile(sends(busy)).await), "rate limiter").await;
    let login = answer("text/html", b"<title>Sign in</title><form></form>");
    check(format!("http://{}", hostile(sends(&login)).await), "login page").await;
}

#[tokio::test]
async fn slow_targets_end_with_the_time() {
    let (silent, drips) = tokio::join!(
        check_failed(Conduct::Silent, "no whole answer within 2.0 s (nothing came"),
        check_failed(Conduct::Drips, "bytes came"),
    );
    let ((), ()) = (silent, drips);
    let down = look_at(Conduct::Silent).await.probes.remove(0).answer.unwrap();
    assert_eq!((down.status, down.latency_secs), (Health::Down, None));
}

#[tokio::test]
async fn a_compressed_bomb_stops_at_the_limit() {
    let bomb = gzip_answer(&gzipped(&vec![b'#'; 200 << 20]));
    assert!(bomb.len() < 1 << 20, "the wire carries {} bytes", bomb.len());
    let begun = Instant::now();
    check_failed(Conduct::Sends(bomb), "limit of 16777216 bytes").await;
    assert!(begun.elapsed() < TIMEOUT);
    let small = gzip_answer(&gzipped(b"requests_total{code=\"200\"} 5\n"));
    let reading = look_at(Conduct::Sends(small)).await;
    assert_eq!(sample(&reading, "requests_total", "200"), 5.0);
}

#[tokio::test]
async fn nobody_listening_is_no_data_and_down() {
    let address = closed_port().await;
    let gathered = gather(options(&[format!("http://{address}")])).await;
    let reading = &gathered.canary[0];
    let missing = reading.samples.as_ref().unwrap_err();
    assert_eq!(missing.why, Why::ScrapeFailed);
    assert!(missing.detail.contains("connection refused"), "{missing}");
    let probe = reading.probes[0].answer.as_ref().unwrap();
    assert_eq!((probe.status, probe.latency_secs), (Health::Down, None));
    assert!(probe.detail.contains("refused"), "{}", probe.detail);
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_says_nothing_about_health() {
    let gathered = gather(options(&["http://rollgate-test.invalid:1".to_owned()])).await;
    let missing = gathered.canary[0].probes[0].answer.as_ref().unwrap_err();
    assert_eq!(missing.why, Why::UnclearHealth, "{missing}");
}

#[tokio::test]
async fn a_connection_that_was_closed_before_is_tried_once_more() {
    let body = answer("text/plain", b"requests_total{code=\"200\"} 5\n");
    let address = hostile(Conduct::ClosesEveryOther(body)).await;
    let mut options = options(&[format!("http://{address}")]);
    options.specs = specs().into_iter().take(1).collect();
    let gathered = gather(options).await;
    assert_eq!(sample(&gathered.canary[0], "requests_total", "200"), 5.0);
}

#[tokio::test]
async fn one_bad_target_does_not_touch_the_others() {
    let good = Service::default();
    good.hit(3, 0);
    let urls = [
        format!("http://{}", hostile(Conduct::Silent).await),
        format!("http://{}", good.start().await),
    ];
    let gathered = gather(options(&urls)).await;
    assert!(gathered.canary[0].samples.is_err());
    assert_eq!(sample(&gathered.canary[1], "requests_total", "200"), 3.0);
}

#[tokio::test]
async fn the_limit_of_targets_is_named() {
    let address = closed_port().await;
    let urls: Vec<String> =
        (0..TARGETS_PER_ARM_MAX + 2).map(|i| format!("http://{address}/metrics?i={i}")).collect();
    let gathered = gather(options(&urls)).await;
    let beyond = |reading: &InstanceReading| match &reading.samples {
        Ok(_) => false,
        Err(Missing { why, detail }) => {
            *why == Why::NotObserved && detail.contains("limit of 128 targets")
        }
    };
    assert_eq!(gathered.canary.iter().filter(|reading| beyond(reading)).count(), 2);
    assert_eq!(gathered.canary.len(), TARGETS_PER_ARM_MAX + 2);
}

#[tokio::test]
async fn requests_in_flight_are_bounded_and_the_fault_is_ours() {
    let silent = hostile(Conduct::Silent).await;
    let mut options = options(&[format!("http://{silent}")]);
    options.timeout = Duration::from_millis(600);
    // The scrape takes the only slot; the probe finds none.
    let client = Client::with_slots(1).unwrap();
    let gathered = Collector::new(client, options, Telemetry::new()).gather(NOW).await;
    let missing = gathered.canary[0].probes[0].answer.as_ref().unwrap_err();
    assert_eq!(missing.why, Why::UnclearHealth);
    assert!(missing.detail.contains("too many requests in flight"), "{missing}");
}

#[tokio::test]
async fn dependencies_are_asked_once_and_promql_needs_a_server() {
    let service = Service::default();
    let address = service.start().await;
    let spec = |reads| SignalSpec { name: "s".to_owned(), reads };
    let mut options = options(&[format!("http://{address}")]);
    options.specs = [
        spec(Reads::Health(HealthTarget::Url(format!("http://{address}/health")))),
        spec(Reads::Health(HealthTarget::Url("nonsense".to_owned()))),
        spec(Reads::Promql("up".to_owned())),
    ]
    .into();
    let gathered = gather(options).await;
    assert_eq!(gathered.dependencies.len(), 2);
    assert_eq!(gathered.dependencies[0].answer.as_ref().unwrap().status, Health::Up);
    assert_eq!(gathered.dependencies[1].answer.as_ref().unwrap_err().why, Why::UnclearHealth);
    let level = &gathered.canary[1].levels[0];
    assert_eq!((level.signal, level.value.as_ref().unwrap_err().why), (2, Why::NotObserved));
}

/// A service without metrics, whose health answer says no and tells numbers; it counts the questions.
async fn talkative() -> (std::net::SocketAddr, std::sync::Arc<std::sync::atomic::AtomicU32>) {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let health = move || {
        count.fetch_add(1, Ordering::SeqCst);
        async {
            let body = "{\"status\": \"down\", \"pool\": {\"in_use\": 41, \"size\": \"50\"}}";
            (axum::http::StatusCode::SERVICE_UNAVAILABLE, body)
        }
    };
    let app = axum::Router::new().route("/health", axum::routing::get(health));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, asked)
}

fn number(of: HealthTarget, names: &[&str]) -> SignalSpec {
    let steps = names.iter().map(|name| FieldStep::Name((*name).to_owned())).collect();
    let number = FieldPath::new(steps).map_or(AnswerNumber::Latency, AnswerNumber::Field);
    let reads = Reads::Answer { of, number, reduce: Reduce::Max };
    SignalSpec { name: "number".to_owned(), reads }
}

#[tokio::test]
async fn one_question_tells_the_status_and_every_number() {
    let (address, asked) = talkative().await;
    let health = |target| SignalSpec { name: "app".to_owned(), reads: Reads::Health(target) };
    let told = |reading: &InstanceReading| -> Vec<(usize, Result<f64, Why>)> {
        let why = |missing: Missing| missing.why;
        reading.levels.iter().map(|one| (one.signal, one.value.clone().map_err(why))).collect()
    };
    let numbers = |of: HealthTarget| {
        [
            health(of.clone()),
            number(of.clone(), &["pool", "in_use"]),
            number(of.clone(), &["pool", "size"]),
            number(of.clone(), &["pool", "free"]),
            number(of, &[]),
        ]
    };
    let mut own = options(&[format!("http://{address}")]);
    own.specs = numbers(HealthTarget::Path("/health".to_owned())).into();
    let gathered = gather(own).await;
    let (reading, levels) = (&gathered.canary[0], told(&gathered.canary[0]));
    assert_eq!(reading.samples.as_ref().unwrap_err().why, Why::ScrapeFailed);
    assert_eq!(reading.probes[0].answer.as_ref().unwrap().status, Health::Down);
    assert_eq!(levels[..3], [(1, Ok(41.0)), (2, Ok(50.0)), (3, Err(Why::AbsentSeries))]);
    assert!(matches!(levels[3], (4, Ok(secs)) if secs > 0.0 && secs < 2.0), "{levels:?}");
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1, "one question");
    // A dependency is asked once, and what it tells is no instance's.
    let mut far = options(&[format!("http://{}", closed_port().await)]);
    far.specs = numbers(HealthTarget::Url(format!("http://{address}/health"))).into();
    let gathered = gather(far).await;
    assert_eq!((gathered.canary.len(), gathered.dependencies.len()), (2, 1));
    assert_eq!(told(&gathered.canary[1])[0], (1, Ok(41.0)));
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2);
    // Nobody there: every number is missing, with the reason.
    let mut gone = options(&[format!("http://{}", closed_port().await)]);
    gone.specs = numbers(HealthTarget::Path("/health".to_owned())).into();
    let levels = told(&gather(gone).await.canary[0]);
    assert_eq!(levels.len(), 4);
    assert!(levels.iter().all(|(_, told)| *told == Err(Why::ScrapeFailed)), "{levels:?}");
}
