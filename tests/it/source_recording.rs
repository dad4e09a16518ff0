//! The committed recordings through the recording source, in both formats; and the collected
//! health answers, where they are at hand.

use std::{path::Path, time::Duration};

use rollgate::{
    engine::observation::{Health, Time, Why},
    signal::{
        sample::InstanceReading,
        spec::{HealthTarget, Reads, SignalSpec},
    },
    source::{exposition::Format, health, recording::Recording},
};

use super::source_server::selector;

fn specs() -> Vec<SignalSpec> {
    let spec = |name: &str, reads| SignalSpec { name: name.to_owned(), reads };
    vec![
        spec(
            "errors",
            Reads::Ratio {
                events: selector("http_requests_total", &[("code", "500")]),
                total: selector("http_requests_total", &[]),
            },
        ),
        spec(
            "latency",
            Reads::Histogram { of: selector("http_request_duration_seconds", &[]), q: 0.95 },
        ),
        spec("app", Reads::Health(HealthTarget::Path("/healthz".to_owned()))),
        spec("other", Reads::Health(HealthTarget::Path("/nowhere".to_owned()))),
        spec("far", Reads::Health(HealthTarget::Url("http://db/health".to_owned()))),
    ]
}

#[derive(Debug, Default, PartialEq)]
struct Seen {
    looks: u32,
    failed: u32,
    down: u32,
    requests: f64,
}

fn see(seen: &mut Seen, reading: &InstanceReading) {
    seen.looks += 1;
    match &reading.samples {
        Ok(samples) => {
            let total = |name: &str| {
                let of = samples.iter().filter(|sample| &*sample.name == name);
                of.map(|sample| sample.value).sum::<f64>()
            };
            // Of a crashing service the counters begin anew.
            seen.requests = seen.requests.max(total("http_requests_total"));
            assert!(samples.iter().all(|sample| !sample.name.starts_with("python")));
        }
        Err(missing) => {
            assert!(matches!(missing.why, Why::ScrapeFailed | Why::Stale), "{missing}");
            seen.failed += 1;
        }
    }
    let [app, other] = reading.probes.as_slice() else { panic!("{:?}", reading.probes) };
    match &app.answer {
        Ok(answer) => seen.down += u32::from(answer.status == Health::Down),
        Err(missing) => assert_eq!(missing.why, Why::Stale, "{missing}"),
    }
    assert_eq!(other.answer.as_ref().unwrap_err().why, Why::NotObserved);
}

fn replay(name: &str, format: Format) -> (Seen, Seen) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/recordings").join(name);
    let recording = Recording::open(&dir, format).unwrap();
    let specs = specs();
    let (mut canary, mut baseline) = (Seen::default(), Seen::default());
    let step = Duration::from_secs(1);
    // Rows were written a few milliseconds around each full second: looks halfway between two
    // see exactly one each.
    let mut since = Time(recording.start().0 - 500);
    while since.after(step) <= recording.end() {
        let now = since.after(step);
        let gathered = recording.gather(&specs, now, since);
        assert_eq!(gathered.dependencies[0].answer.as_ref().unwrap_err().why, Why::NotObserved);
        see(&mut canary, &gathered.canary[0]);
        see(&mut baseline, &gathered.baseline[0]);
        since = now;
    }
    (canary, baseline)
}

#[test]
fn every_recording_is_read_alike_in_both_formats() {
    let names = ["healthy", "error5", "latency2x", "leak", "shared_dependency", "zero_traffic"];
    for name in names {
        let (canary, baseline) = replay(name, Format::Text);
        for seen in [&canary, &baseline] {
            assert_eq!((seen.looks, seen.down), (180, 0), "{name} {seen:?}");
            assert_eq!(seen.failed, 0, "{name} {seen:?}");
        }
        assert!(baseline.requests > 9000.0, "{name} {baseline:?}");
        assert_eq!(canary.requests == 0.0, name == "zero_traffic", "{name} {canary:?}");
        let (om_canary, om_baseline) = replay(name, Format::OpenMetrics);
        let near = |text: f64, om: f64| (text - om).abs() <= 2.0;
        assert!(near(canary.requests, om_canary.requests), "{name} {om_canary:?}");
        assert!(near(baseline.requests, om_baseline.requests), "{name} {om_baseline:?}");
    }
}

#[test]
fn a_crash_loop_is_failed_scrapes_and_down() {
    let (canary, baseline) = replay("crashloop", Format::Text);
    assert!((40..=50).contains(&canary.failed), "{canary:?}");
    assert!((35..=50).contains(&canary.down), "{canary:?}");
    assert_eq!((baseline.failed, baseline.down), (0, 0));
}

#[test]
fn the_collected_health_answers_are_judged_as_labelled() {
    // Answers collected from specifications and real programs; not part of the repository.
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/health/samples.json");
    let Ok(text) = std::fs::read_to_string(&file) else {
        assert!(std::env::var_os("CI").is_none(), "{} must be there in CI", file.display());
        eprintln!("not checked: {} is absent", file.display());
        return;
    };
    let samples: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut checked = 0;
    for sample in &samples {
        let Some(status) = sample["http"].as_u64() else { continue };
        let said = health::Said {
            status: u16::try_from(status).unwrap(),
            content_type: sample["content_type"].as_str(),
            body: sample["body"].as_str().unwrap_or("").as_bytes(),
        };
        let found = health::judge(said);
        let word = match &found {
            Ok((status, _)) => status.to_string(),
            Err(_) => "unknown".to_owned(),
        };
        assert_eq!(Some(word.as_str()), sample["verdict"].as_str(), "{sample} gave {found:?}");
        checked += 1;
    }
    assert!(checked >= 40, "{checked}");
}
