//! Tests of the recording source over small recordings written on the spot.

use std::{fs, io::Write};

use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::signal::spec::{Selection, Selector};
use crate::source::recording_file::META_BYTES_MAX;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn scrape_row(t: f64, role: &str, fmt: &str, body: &str) -> String {
    let ctype = match fmt {
        "om" => "application/openmetrics-text; version=1.0.0",
        _ => "text/plain; version=0.0.4",
    };
    let row = serde_json::json!({
        "t": t, "role": role, "fmt": fmt, "status": 200, "ctype": ctype, "body": body,
    });
    format!("{row}\n")
}

fn counter(name: &str) -> SignalSpec {
    let selector = Selector { name: name.into(), matchers: Vec::new() };
    SignalSpec { name: name.into(), reads: Reads::Counter(Selection { any_of: vec![selector] }) }
}

fn health(path: &str) -> SignalSpec {
    SignalSpec { name: path.into(), reads: Reads::Health(HealthTarget::Path(path.into())) }
}

fn value(readings: &[InstanceReading]) -> Result<f64, Why> {
    match &readings[0].samples {
        Ok(samples) => Ok(samples[0].value),
        Err(missing) => Err(missing.why),
    }
}

#[test]
fn a_look_sees_the_newest_row_since_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = String::new();
    for second in 0..10 {
        let t = 100.0 + f64::from(second);
        rows += &scrape_row(t, "canary", "text", &format!("m_total {second}\n"));
        rows += &scrape_row(t, "canary", "om", &format!("m_total {}\n# EOF\n", second * 10));
    }
    rows += "{\"t\":110,\"role\":\"canary\",\"fmt\":\"text\",\"error\":\"refused\\nby it\"}\n";
    rows += "{\"t\":111,\"role\":\"canary\",\"fmt\":\"text\",\"status\":500,\"body\":\"\"}\n";
    rows += &scrape_row(100.0, "baseline", "text", "m_total 7\n");
    fs::write(dir.path().join("scrapes.ndjson.gz"), gzip(&rows)).unwrap();
    let specs = [counter("m_total")];
    let text = Recording::open(dir.path(), Format::Text).unwrap();
    assert_eq!((text.start(), text.end()), (Time(100_000), Time(111_000)));
    let look = |now, since| text.gather(&specs, Time(now), Time(since));
    assert_eq!(value(&look(105_500, 104_500).canary), Ok(5.0));
    assert_eq!(look(105_500, 104_500).canary[0].at, Time(105_000));
    assert_eq!(value(&look(105_000, 104_000).canary), Ok(5.0), "the end belongs to the look");
    assert_eq!(value(&look(105_900, 105_000).canary), Err(Why::Stale));
    assert_eq!(value(&look(110_000, 109_000).canary), Err(Why::ScrapeFailed));
    assert_eq!(value(&look(111_000, 110_000).canary), Err(Why::ScrapeFailed));
    assert_eq!(value(&look(105_000, 104_000).baseline), Err(Why::Stale));
    let om = Recording::open(dir.path(), Format::OpenMetrics).unwrap();
    assert_eq!(value(&om.gather(&specs, Time(105_500), Time(104_500)).canary), Ok(50.0));
}

#[test]
fn probes_are_judged_as_live_ones() {
    let dir = tempfile::tempdir().unwrap();
    // Plain files work as well, and instances may be named.
    let scrape =
        "{\"t\":1,\"role\":\"canary\",\"instance\":\"a\",\"fmt\":\"text\",\"error\":\"x\"}\n";
    fs::write(dir.path().join("scrapes.ndjson"), scrape).unwrap();
    let probe = |rest: &str| {
        format!("{{\"t\":1,\"role\":\"canary\",\"instance\":\"a\",\"ms\":12.5,{rest}}}\n")
    };
    let rows = [
        probe("\"path\":\"/up\",\"status\":200,\"body\":\"ok\""),
        probe("\"path\":\"/down\",\"status\":503,\"body\":\"\""),
        probe("\"path\":\"/gone\",\"error\":\"refused\""),
        probe("\"path\":\"/odd\",\"status\":200,\"body\":\"hello\""),
    ];
    fs::write(dir.path().join("health.ndjson"), rows.concat()).unwrap();
    let specs = ["/up", "/down", "/gone", "/odd", "/never"].map(health);
    let recording = Recording::open(dir.path(), Format::Text).unwrap();
    let gathered = recording.gather(&specs, Time(1500), Time(500));
    let found: Vec<_> = gathered.canary[0]
        .probes
        .iter()
        .map(|probe| match &probe.answer {
            Ok(answer) => Ok((answer.status, answer.latency_secs)),
            Err(missing) => Err(missing.why),
        })
        .collect();
    assert_eq!(
        found,
        [
            Ok((Health::Up, Some(0.0125))),
            Ok((Health::Down, Some(0.0125))),
            Ok((Health::Down, None)),
            Err(Why::UnclearHealth),
            Err(Why::NotObserved),
        ]
    );
    let later = recording.gather(&specs, Time(3500), Time(2500));
    let missing = later.canary[0].probes[0].answer.as_ref().unwrap_err();
    assert_eq!(missing.why, Why::Stale);
}

#[test]
fn numbers_of_recorded_health_answers_are_read_as_live_ones() {
    use crate::signal::{
        answer::{AnswerNumber, FieldPath, FieldStep},
        spec::Reduce,
    };
    let dir = tempfile::tempdir().unwrap();
    let scrape =
        "{\"t\":1,\"role\":\"canary\",\"instance\":\"a\",\"fmt\":\"text\",\"error\":\"x\"}\n";
    fs::write(dir.path().join("scrapes.ndjson"), scrape).unwrap();
    let row = |t: u32, rest: serde_json::Value| {
        let mut row =
            serde_json::json!({ "t": t, "role": "canary", "instance": "a", "path": "/h" });
        row.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        format!("{row}\n")
    };
    let rows = [
        row(1, serde_json::json!({ "status": 200, "body": "{\"n\": 5}", "ms": 12.5 })),
        row(2, serde_json::json!({ "status": 503, "body": "{\"n\": \"6.5\"}" })),
        row(3, serde_json::json!({ "status": 200, "body": "ok", "ms": 1 })),
        row(4, serde_json::json!({ "error": "refused" })),
    ];
    fs::write(dir.path().join("health.ndjson"), rows.concat()).unwrap();
    let answer = |number| SignalSpec {
        name: "s".into(),
        reads: Reads::Answer { of: HealthTarget::Path("/h".into()), number, reduce: Reduce::Max },
    };
    let path = FieldPath::new(vec![FieldStep::Name("n".into())]).unwrap();
    let up = SignalSpec { name: "up".into(), reads: Reads::Up };
    let specs =
        [health("/h"), answer(AnswerNumber::Field(path)), answer(AnswerNumber::Latency), up];
    let recording = Recording::open(dir.path(), Format::Text).unwrap();
    let check = |second: i64, field: Result<f64, Why>, latency: Result<f64, Why>| {
        let (now, since) = (Time(second * 1000 + 500), Time(second * 1000 - 500));
        let gathered = recording.gather(&specs, now, since);
        let told: Vec<_> = gathered.canary[0]
            .levels
            .iter()
            .map(|level| (level.signal, level.value.clone().map_err(|missing| missing.why)))
            .collect();
        assert_eq!(told, [(1, field), (2, latency)], "second {second}");
    };
    check(1, Ok(5.0), Ok(0.0125));
    check(2, Ok(6.5), Err(Why::NotObserved));
    check(3, Err(Why::BadValue), Ok(0.001));
    check(4, Err(Why::ScrapeFailed), Err(Why::ScrapeFailed));
    check(5, Err(Why::Stale), Err(Why::Stale));
    // What a row of scrapes says, or that there is none, is what `up` says.
    let reduced = |second: i64| {
        let (now, since) = (Time(second * 1000 + 500), Time(second * 1000 - 500));
        let gathered = recording.gather(&specs, now, since);
        let warmup = std::time::Duration::ZERO;
        let carry = crate::signal::carry::Carry::default();
        let mut reducer = crate::signal::reduce::Reducer::new(specs.to_vec().into(), warmup, carry);
        reducer.reduce(&gathered).signals[3].canary.clone().map_err(|missing| missing.why)
    };
    assert_eq!(reduced(1), Ok(crate::engine::observation::Value::Level(0.0)));
    assert_eq!(reduced(2), Err(Why::Stale));
}

#[test]
fn faults_name_file_and_line() {
    let good = scrape_row(1.0, "canary", "text", "m 1\n");
    let limits = FileLimits { line_bytes: 500, file_bytes: 1500, rows: 4 };
    let check = |name: &str, bytes: &[u8], part: &str| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), bytes).unwrap();
        let error = Recording::open_within(dir.path(), Format::Text, limits).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    let zipped = gzip(&format!("{good}{good}"));
    check("scrapes.ndjson.gz", &zipped[..zipped.len() - 10], "the file is cut or damaged");
    check("scrapes.ndjson.gz", good.as_bytes(), "scrapes.ndjson.gz:1: the file is cut");
    check("scrapes.ndjson", format!("{good}nonsense\n").as_bytes(), "scrapes.ndjson:2: found");
    check("scrapes.ndjson", good.replace("canary", "third").as_bytes(), "unknown variant");
    check("scrapes.ndjson", good.replace("1.0", "1e300").as_bytes(), "the time");
    check("scrapes.ndjson", good.replace("\"status\"", "\"code\"").as_bytes(), "neither");
    check("scrapes.ndjson", b"\xff\xfe\n", "scrapes.ndjson:1");
    check("scrapes.ndjson", b"", "found no scrapes in the format Text");
    check("nothing", b"", "found no scrapes.ndjson.gz");
    check(
        "scrapes.ndjson",
        good.repeat(5).as_bytes(),
        "scrapes.ndjson:5: beyond the limit of 4 rows",
    );
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("scrapes.ndjson"), &good).unwrap();
    let meta = format!("{{\"scenario\": \"{}\"}}", "x".repeat(META_BYTES_MAX as usize));
    fs::write(dir.path().join("meta.json"), meta).unwrap();
    let error = Recording::open(dir.path(), Format::Text).unwrap_err().to_string();
    assert!(error.contains("meta.json:1: found") && error.contains("EOF"), "{error}");
    let long = scrape_row(1.0, "canary", "text", &"x".repeat(600));
    check("scrapes.ndjson", long.as_bytes(), "beyond the limit of 500 bytes a line");
    let wide = scrape_row(1.0, "canary", "text", &"x".repeat(300));
    check("scrapes.ndjson.gz", &gzip(&wide.repeat(4)), "beyond the limit of 1500 bytes a file");
}
