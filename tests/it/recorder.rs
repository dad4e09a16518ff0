//! What is recorded from live services is what they said, and can be judged again.

use std::{path::Path, process::Command, time::Duration};

use rollgate::{
    demo::{fault::Fault, scenario::Scenario, stage::Stage},
    engine::observation::{Arm, Time},
    service::system_clock,
    source::{
        client::Client,
        exposition::Format,
        limits::SourceLimits,
        recorder::{RecordError, RecordOptions, Recorded, record},
        recording::Recording,
        target::Target,
    },
};

async fn stage() -> Stage {
    Stage::play(Scenario::Healthy.plan(), 11).await.unwrap()
}

fn options(targets: &[(Arm, String)], length: Duration) -> RecordOptions {
    let target = |(arm, url): &(Arm, String)| (*arm, Target::parse(url).unwrap());
    RecordOptions {
        targets: targets.iter().map(target).collect(),
        health: vec!["/health".to_owned(), "/nowhere".to_owned()],
        interval: Duration::from_millis(200),
        length,
        timeout: Duration::from_secs(1),
        limits: SourceLimits::default(),
    }
}

async fn keep(options: &RecordOptions, dir: &Path) -> Result<(Recorded, usize), RecordError> {
    let (clock, mut rounds) = (system_clock(), 0);
    let client = Client::new().unwrap();
    let never = std::future::pending();
    let recorded = record(&client, options, dir, || clock(), never, |_| rounds += 1).await?;
    Ok((recorded, rounds))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_reads_back_and_what_failed_is_a_row() {
    let (stage, dir) = (stage().await, tempfile::tempdir().unwrap());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let targets = [
        (Arm::Canary, format!("http://{}", stage.canary.addr)),
        (Arm::Canary, format!("http://{nobody}")),
        (Arm::Baseline, format!("http://{}", stage.baseline.addr)),
    ];
    let options = options(&targets, Duration::from_secs(2));
    let (recorded, rounds) = keep(&options, dir.path()).await.unwrap();
    assert!((9..=11).contains(&rounds), "{rounds} rounds in 2 s");
    assert_eq!((recorded.scrapes, recorded.probes), (rounds * 6, rounds * 6));
    // Of the one that nobody listens at, every answer failed: two formats and two paths.
    assert_eq!(recorded.failed, rounds * 4);

    for format in [Format::Text, Format::OpenMetrics] {
        let recording = Recording::open(dir.path(), format).unwrap();
        assert!(recording.end().since(recording.start()) >= Duration::from_millis(1700));
        let at = recording.end();
        let specs = [];
        let gathered = recording.gather(&specs, at, Time(0));
        assert_eq!((gathered.canary.len(), gathered.baseline.len()), (2, 1));
        let failed = gathered.canary.iter().filter(|reading| reading.samples.is_err()).count();
        assert_eq!(failed, 1, "{:?}", gathered.canary);
    }

    let again = keep(&options, dir.path()).await.expect_err("nothing is overwritten");
    assert!(matches!(again, RecordError::Exists { .. }), "{again}");
    stage.stop().await;
}

#[tokio::test]
async fn what_could_not_be_read_back_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let target = [(Arm::Canary, "http://127.0.0.1:9".to_owned())];
    let fault = keep(&options(&target, Duration::from_secs(500_000)), dir.path()).await;
    let fault = fault.expect_err("more rows than are read").to_string();
    assert!(fault.contains("2500001 rounds of 2 answers"), "{fault}");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let fault = keep(&options(&target, Duration::from_secs(1)), &file).await.unwrap_err();
    assert!(fault.to_string().contains("cannot be written"), "{fault}");
}

/// Through the program: recorded while the canary fails, judged afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_release_is_judged_again() {
    let (stage, dir) = (stage().await, tempfile::tempdir().unwrap());
    stage.canary.fault.set(Fault::Errors { share: 0.5 });
    let out = dir.path().join("friday");
    let out = out.to_str().unwrap();
    let run = |arguments: Vec<String>| async move {
        tokio::task::spawn_blocking(move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_rollgate"));
            command.current_dir(env!("CARGO_MANIFEST_DIR")).env("NO_COLOR", "1");
            command.args(arguments).output().unwrap()
        })
        .await
        .unwrap()
    };
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (canary, baseline) = (stage.canary.addr, stage.baseline.addr);
    let recorded = run(words(format!(
        "record {out} --canary http://{canary} --baseline http://{baseline} --for 8s"
    )))
    .await;
    let said = String::from_utf8_lossy(&recorded.stdout).into_owned();
    assert!(recorded.status.success(), "{recorded:?}");
    assert!(said.contains("8 s of 2 targets, 36 scrapes, 18 health answers, 0 failed"), "{said}");
    let rules = dir.path().join("rules.yaml");
    let text = std::fs::read_to_string("rules/recommended.yaml").unwrap();
    std::fs::write(&rules, text.replace("warmup: 30s", "warmup: 0s")).unwrap();
    let judged =
        run(words(format!("replay {out} --interval 1s --rules {}", rules.display()))).await;
    assert_eq!(judged.status.code(), Some(3), "{judged:?}");

    for (arguments, expected) in [
        (format!("record {out} --canary nowhere"), "http://nowhere"),
        (format!("record {out} --canary http://{canary} --health health"), "such as /health"),
        (format!("record {out} --canary http://{canary}"), "nothing is overwritten"),
        (format!("demo --scenario idle --record {out}x --traffic 99"), "a factor up to 10"),
    ] {
        let refused = run(words(arguments)).await;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    stage.stop().await;
}
