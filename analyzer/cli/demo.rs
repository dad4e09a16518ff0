//! `rollgate demo`: a release judged before one's eyes, on real parts.
//!
//! Two HTTP services under load, the service with its SQLite store, a receiver that verifies the
//! signature: everything is as in production, only on one machine and sooner.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anstream::println;
use anyhow::{Context, bail};
use clap::Args;
use owo_colors::OwoColorize;

use super::{FAILURE, PROMOTE, UsageError, display::Display};
use crate::{
    api::{
        ApiOptions,
        desk::{AnalysisView, ArmOrder, OpenAnalysis},
    },
    deliver::{
        Mechanism, Setting,
        sign::{Keys, Signed},
        webhook::{self, Shape, Webhook, WebhookOptions},
    },
    demo::{
        receiver::{Delivery, Receiver},
        scenario::{Plan, Scenario},
        stage::Stage,
    },
    engine::observation::Arm,
    outward::tls::TlsOptions,
    report::{format, shape::Report},
    service::{self, Service, ServiceOptions, system_clock},
    source::{
        client::Client,
        limits::SourceLimits,
        recorder::{RecordOptions, write_meta},
        target::Target,
    },
    store::sqlite::{SqliteOptions, SqliteStore},
    telemetry::{Telemetry, secret::Secret},
};

/// The rule file that the demo shortens; what it judges by is what is recommended to anybody.
const RECOMMENDED: &str = include_str!("../../rules/recommended.yaml");

/// Lines of it that the demo replaces: a release that takes half a minute has no ten minutes hold,
/// and services that were started a moment ago must not be too young to be judged.
fn shortened(plan: &Plan) -> [(&'static str, String); 2] {
    [
        ("interval: 2s", "interval: 1s".to_owned()),
        ("warmup: 30s", format!("warmup: {}s", plan.warmup.as_secs())),
    ]
}

/// Time that a verdict has to arrive at the receiver.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Name of the demo's mechanism.
const MECHANISM: &str = "demo-receiver";

/// Arguments of `demo`.
#[derive(Args)]
#[command(after_help = "\
Without --scenario two stories are told, `errors` and then `healthy`. The exit code is 0 when the
scenario ended as it should. While it runs, the page it prints shows the same in the browser.")]
pub struct DemoArgs {
    /// Which story.
    #[arg(long, value_enum)]
    scenario: Option<Scenario>,
    /// Seed of traffic and faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Judge nothing, but keep what both arms say in this directory, for `replay`.
    #[arg(long, value_name = "DIR", requires = "scenario")]
    record: Option<PathBuf>,
    /// How long to record; a fault sets in after a third of it.
    #[arg(long = "for", value_name = "TIME", value_parser = super::parse_duration,
          default_value = "3m", requires = "record")]
    length: Duration,
    /// Times the story's usual traffic, of both arms.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, requires = "record")]
    traffic: f64,
    /// Port of the page; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// Runs the command.
pub fn main(args: DemoArgs) -> anyhow::Result<u8> {
    super::init_logging("off");
    let scenarios = match args.scenario {
        Some(scenario) => vec![scenario],
        None => vec![Scenario::Errors, Scenario::Healthy],
    };
    if let (Some(dir), Some(scenario)) = (&args.record, args.scenario) {
        super::runtime()?.block_on(keep(scenario, dir, &args))?;
        return Ok(PROMOTE);
    }
    super::runtime()?.block_on(async {
        let mut all_right = true;
        for scenario in scenarios {
            tokio::select! {
                right = tell(scenario, &args) => all_right &= right?,
                _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            }
        }
        Ok(if all_right { PROMOTE } else { FAILURE })
    })
}

/// Tells one story; whether it ended as it should.
async fn tell(scenario: Scenario, args: &DemoArgs) -> anyhow::Result<bool> {
    let plan = scenario.plan();
    let dir = tempfile::tempdir().context("no temporary directory for the demo's store")?;
    std::fs::write(dir.path().join("demo.yaml"), demo_rules(&plan))?;
    let key = Secret::new(uuid::Uuid::new_v4().simple().to_string());
    let mut receiver = receiver(&key).await?;
    let service = start_service(dir.path(), &receiver, key, args.port).await?;
    let stage = Stage::start(scenario, args.seed).await?;
    println!("{} {}", "scenario".dimmed(), scenario.name().bold());
    println!("{}", scenario.description());
    println!("  baseline v1  http://{}  {} requests/s", stage.baseline.addr, plan.baseline_rps);
    println!("  canary   v2  http://{}  {} requests/s", stage.canary.addr, plan.canary_rps);
    let opened = open(&service, &stage).await?;
    println!("  page         http://{}/#/analyses/{}\n", service.addr, opened.id);
    let report = follow(&service, &opened).await?;
    let delivery = receiver.next(DELIVERY_TIMEOUT).await;
    let right = print_end(scenario, &report, &stage, delivery.as_ref(), &receiver);
    stage.stop().await;
    service.stop().await;
    receiver.stop().await;
    Ok(right)
}

/// Records one story instead of judging it.
async fn keep(scenario: Scenario, dir: &Path, args: &DemoArgs) -> anyhow::Result<()> {
    if !(args.traffic > 0.0 && args.traffic <= 10.0) {
        let fault = format!("--traffic {}: expected a factor up to 10", args.traffic);
        return Err(UsageError(fault).into());
    }
    let plan = scenario.plan().stretched(args.length, args.traffic);
    let stage = Stage::play(plan, args.seed).await?;
    let target = |addr: std::net::SocketAddr| Target::parse(&format!("http://{addr}"));
    let options = RecordOptions {
        targets: vec![
            (Arm::Canary, target(stage.canary.addr)?),
            (Arm::Baseline, target(stage.baseline.addr)?),
        ],
        health: vec!["/health".to_owned()],
        interval: Duration::from_secs(1),
        length: args.length,
        timeout: Duration::from_secs(1),
        limits: SourceLimits::default(),
    };
    let client = Client::new().context("the http client cannot be set up")?;
    let recorded = super::record::keep(&client, &options, dir).await?;
    let first_bad = stage.first_bad_unix_secs();
    stage.stop().await;
    // A fault that heals, or that harms nobody, has no onset from which to count.
    let is_bad = scenario.expected().contains(&"rollback");
    let expect = match scenario.expected() {
        [verdict] => verdict,
        _ => "hold_or_promote",
    };
    let meta = serde_json::json!({
        "scenario": scenario.name(),
        "what": scenario.description(),
        "expect": expect,
        "t_record_start": recorded.start.as_secs_f64(),
        "t_record_end": recorded.end.as_secs_f64(),
        "onset": first_bad.filter(|_| is_bad),
        "rps": {"baseline": plan.baseline_rps, "canary": plan.canary_rps},
        "seed": args.seed,
    });
    Ok(write_meta(dir, &meta)?)
}

/// The recommended rules with the demo's times.
fn demo_rules(plan: &Plan) -> String {
    let mut text = RECOMMENDED.to_owned();
    for (from, to) in shortened(plan) {
        text = text.replace(from, &to);
    }
    let (before, _) = text.split_once("\npromote:").unwrap_or((&text, ""));
    format!(
        "{before}\npromote: {{ after: {}s, deadline: {}s, otherwise: hold }}\n",
        plan.hold.as_secs(),
        plan.deadline.as_secs()
    )
}

/// A receiver that takes only what is signed with this key.
async fn receiver(key: &Secret) -> anyhow::Result<Receiver> {
    let keys = Keys::new(std::slice::from_ref(key))?;
    let now = system_clock();
    let verify = move |headers: &hyper::HeaderMap, body: &[u8]| {
        let header = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.ok_or_else(|| format!("no {name} header"))
        };
        let signed = Signed {
            id: header("webhook-id")?,
            timestamp: header("webhook-timestamp")?,
            signature: header("webhook-signature")?,
        };
        keys.verify(signed, body, now()).map_err(|error| error.to_string())
    };
    Ok(Receiver::start(verify).await?)
}

async fn start_service(
    dir: &Path,
    receiver: &Receiver,
    key: Secret,
    port: u16,
) -> anyhow::Result<Service> {
    let webhook = Webhook::new(
        WebhookOptions {
            name: MECHANISM.to_owned(),
            url: Secret::new(receiver.url()),
            secrets: vec![key],
            headers: Vec::new(),
            timeout: Duration::from_secs(5),
            tls: TlsOptions::default(),
            shape: Shape::default(),
            mapping: webhook::MAPPING,
        },
        &Setting::live(system_clock()),
    )?;
    let webhook: Arc<dyn Mechanism> = Arc::new(webhook);
    let store = SqliteStore::open(&dir.join("demo.db"), SqliteOptions::default()).await?;
    service::start(ServiceOptions {
        listen: ([127, 0, 0, 1], port).into(),
        store: Arc::new(store),
        rules_dir: dir.to_owned(),
        mechanisms: BTreeMap::from([(MECHANISM.to_owned(), webhook)]),
        prometheus: BTreeMap::new(),
        watch: Vec::new(),
        services: BTreeMap::new(),
        client: Client::new().context("the http client cannot be set up")?,
        limits: SourceLimits::default(),
        timeout: Duration::from_secs(1),
        api: ApiOptions { shutdown_timeout: Duration::from_secs(1), ..ApiOptions::default() },
        telemetry: Telemetry::new(),
    })
    .await
}

/// Opens the analysis over HTTP, as a deploy pipeline would.
async fn open(service: &Service, stage: &Stage) -> anyhow::Result<AnalysisView> {
    let arm = |version: &str, addr: std::net::SocketAddr| ArmOrder {
        version: version.to_owned(),
        targets: vec![format!("http://{addr}")],
        ..ArmOrder::default()
    };
    let order = OpenAnalysis {
        service: "shop".to_owned(),
        rules: "demo".to_owned(),
        canary: arm("v2", stage.canary.addr),
        baseline: Some(arm("v1", stage.baseline.addr)),
        mechanisms: vec![MECHANISM.to_owned()],
        ..OpenAnalysis::default()
    };
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}/v1/analyses", service.addr);
    let answer = client.post(url).json(&order).send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    if !status.is_success() {
        bail!("the analysis was refused with {status}: {text}");
    }
    Ok(serde_json::from_str(&text)?)
}

/// Shows every look until the verdict is final.
async fn follow(service: &Service, opened: &AnalysisView) -> anyhow::Result<Report> {
    let mut views = service.desk.follow(&opened.id).context("the analysis does not run")?;
    let mut display = Display::stdout();
    loop {
        let view = views.borrow_and_update().clone();
        if let Some(report) = &view.report {
            display.look(report, view.hold_secs, view.deadline_secs)?;
            if report.is_final {
                display.verdict(report)?;
                return Ok(report.clone());
            }
        }
        views.changed().await.context("the analysis ended without a verdict")?;
    }
}

/// Prints how it ended; whether that is right.
fn print_end(
    scenario: Scenario,
    report: &Report,
    stage: &Stage,
    delivery: Option<&Delivery>,
    receiver: &Receiver,
) -> bool {
    if let (Some(decided), Some(first_bad)) = (report.decided_at, stage.first_bad_unix_secs()) {
        let secs = format::duration((decided - first_bad).max(0.0));
        println!(" decided {secs} after the first bad request");
    }
    let counts = receiver.counts();
    let delivered = match delivery {
        Some(delivery) => {
            let times = match counts.duplicates {
                0 => "once".to_owned(),
                duplicates => format!("{} times", 1 + duplicates),
            };
            println!(" webhook {} arrived {times}, signature verified", delivery.id);
            true
        }
        None => {
            println!(" no verified webhook arrived within {} s", DELIVERY_TIMEOUT.as_secs());
            false
        }
    };
    let expected = scenario.expected();
    let right = delivered && expected.contains(&report.verdict.as_str());
    if right {
        println!("{} {} ended as it should: {}\n", "✓".green(), scenario.name(), report.verdict);
    } else {
        println!(
            "{} {} ended with {}, expected {}\n",
            "✗".red(),
            scenario.name(),
            report.verdict,
            expected.join(" or ")
        );
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shortened_line_is_there_and_the_rules_load() {
        for (from, _) in shortened(&Scenario::Healthy.plan()) {
            assert!(RECOMMENDED.contains(from), "rules/recommended.yaml lost {from:?}");
        }
        for scenario in Scenario::ALL {
            let plan = scenario.plan();
            let text = demo_rules(&plan);
            let file = crate::rulefile::load("demo.yaml", &text).expect("the demo's rules");
            assert_eq!(file.rules.promote.after, plan.hold);
            assert_eq!(file.rules.observe.interval, Duration::from_secs(1));
        }
    }
}
