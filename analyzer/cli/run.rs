//! `rollgate run`: one analysis from a CI job, without a store; the exit code is the verdict.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use clap::Args;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    FAILURE, Output, UsageError, conclude, display::Display, load_rules, parse_duration, rules_ref,
};
use crate::{
    engine::{analysis::Analysis, rule::Baseline},
    report::{build, shape::RulesRef},
    rulefile::RuleFile,
    service::{
        discoveries::{Discoveries, DiscoveryParts},
        past::Gathering,
        stand_in::{Source, StandIn},
        system_clock,
    },
    signal::{carry::Carry, reduce::Reducer, spec::SignalSpec},
    source::{
        client::Client,
        collector::{ArmSource, Collector, CollectorOptions},
        discovery::{Matches, dns},
        found_arm::FoundArm,
        limits::SourceLimits,
        prometheus::{PrometheusLimits, PrometheusOptions, PrometheusServer},
        target::Target,
    },
    telemetry::{Telemetry, secret::Secret},
};

/// Arguments of `run`.
#[derive(Args)]
#[command(after_help = "\
A target is the base URL of an instance (http://10.0.0.7:8080, scraped at /metrics), or the full URL
of its metrics. Give several by repeating the option. `dns+http://shop-canary:8080` stands for every
address of a name, now and later. Exit codes: 0 promote, 3 rollback,
4 inconclusive, 2 bad usage or configuration, 1 any other failure. A rule file with `steps` says
`advance` at each step, and goes on.

  rollgate run --rules rules/recommended.yaml --canary http://new:8080 --baseline http://old:8080
  rollgate run --rules rules/recommended.yaml --prometheus http://prometheus:9090 \\
      --canary-selector 'job=\"shop\",version=\"v2\"' --baseline-selector 'job=\"shop\",version=\"v1\"'")]
pub struct RunArgs {
    /// Rule file.
    #[arg(long, value_name = "FILE")]
    rules: PathBuf,
    /// An instance of the new version; repeat for more.
    #[arg(long, value_name = "URL", conflicts_with = "canary_selector")]
    canary: Vec<String>,
    /// An instance of the old version; repeat for more.
    #[arg(long, value_name = "URL", conflicts_with = "baseline_selector")]
    baseline: Vec<String>,
    /// A Prometheus-compatible server, for arms given by selector.
    #[arg(long, value_name = "URL")]
    prometheus: Option<String>,
    /// Environment variable that holds the server's `authorization` header.
    #[arg(long, value_name = "ENV", requires = "prometheus")]
    prometheus_authorization: Option<String>,
    /// Label matchers of the new version's series.
    #[arg(long, value_name = "MATCHERS", requires = "prometheus")]
    canary_selector: Option<String>,
    /// Label matchers of the old version's series.
    #[arg(long, value_name = "MATCHERS", requires = "prometheus")]
    baseline_selector: Option<String>,
    /// Watch at least this long instead of what the rule file says.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    hold: Option<Duration>,
    /// Time the targets have to answer one look.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    timeout: Duration,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub fn main(args: &RunArgs) -> anyhow::Result<u8> {
    super::init_logging("warn");
    let file = load_rules(&args.rules, args.hold.map(|hold| hold.as_secs_f64()))?;
    let client = Client::new().context("the http client cannot be set up")?;
    let server = args.server(&client)?;
    let runtime = super::runtime()?;
    let _inside = runtime.enter(); // names are resolved by a task of their own
    let canary = arm("canary", &args.canary, args.canary_selector.as_ref(), server.as_ref())?;
    let canary = canary.ok_or_else(|| {
        UsageError("no canary: give --canary URL, or --prometheus and --canary-selector".into())
    })?;
    let baseline =
        arm("baseline", &args.baseline, args.baseline_selector.as_ref(), server.as_ref())?;
    let past = past_arm(baseline.as_ref().unwrap_or(&canary));
    if file.rules.needs_baseline() {
        let fault = match file.rules.baseline {
            Baseline::Concurrent => baseline.is_none().then_some(
                "compares with a baseline: give --baseline URL, or --prometheus and \
                 --baseline-selector",
            ),
            Baseline::Before | Baseline::Offset(_) => past.is_none().then_some(
                "compares with the service's own past, which only a metrics server knows here: \
                 give --prometheus and --canary-selector or --baseline-selector",
            ),
        };
        if let Some(fault) = fault {
            return Err(UsageError(format!("{} {fault}", args.rules.display())).into());
        }
    }
    let beside = file.rules.baseline == Baseline::Concurrent;
    let collector = |canary, baseline| {
        let options = CollectorOptions {
            specs: file.specs.clone().into(),
            canary,
            baseline,
            timeout: args.timeout.min(file.rules.observe.interval),
            limits: SourceLimits::default(),
        };
        Collector::new(client.clone(), options, Telemetry::new())
    };
    let past = past.map(|arm| collector(ArmSource::Targets(Vec::new()), Some(arm)));
    let collector = collector(canary, baseline.filter(|_| beside));
    let by = rules_ref(&args.rules, &file);
    runtime.block_on(judge(collector, past, (file, by), args.output))
}

/// The arm whose past a metrics server knows.
fn past_arm(arm: &ArmSource) -> Option<ArmSource> {
    match arm {
        ArmSource::Selector { .. } => Some(arm.clone()),
        ArmSource::Targets(_) | ArmSource::Found(_) => None,
    }
}

impl RunArgs {
    fn server(&self, client: &Client) -> anyhow::Result<Option<Arc<PrometheusServer>>> {
        let Some(url) = &self.prometheus else { return Ok(None) };
        let mut headers = Vec::new();
        if let Some(name) = &self.prometheus_authorization {
            let value = std::env::var(name)
                .map_err(|_| UsageError(format!("environment variable {name} is not set")))?;
            headers.push(("authorization".to_owned(), Secret::new(value)));
        }
        let limits = PrometheusLimits::default();
        let options =
            PrometheusOptions { url: url.clone(), headers, timeout: self.timeout, limits };
        let server = PrometheusServer::new(client.clone(), options);
        Ok(Some(Arc::new(server.map_err(|error| UsageError(error.to_string()))?)))
    }
}

fn arm(
    name: &str,
    targets: &[String],
    selector: Option<&String>,
    server: Option<&Arc<PrometheusServer>>,
) -> anyhow::Result<Option<ArmSource>> {
    if let (Some(matchers), Some(server)) = (selector, server) {
        let prometheus = server.clone();
        return Ok(Some(ArmSource::Selector { prometheus, matchers: matchers.clone() }));
    }
    if targets.is_empty() {
        return Ok(None);
    }
    if targets.iter().any(|target| target.starts_with(dns::PREFIX)) {
        let [target] = targets else {
            let fault = format!("{name}: expected one name with {}, and nothing else", dns::PREFIX);
            return Err(UsageError(fault).into());
        };
        let finder = names().dns(target);
        let finder = finder.map_err(|fault| UsageError(format!("{name}: {fault}")))?;
        return Ok(Some(ArmSource::Found(FoundArm::new(finder, Matches::default()))));
    }
    let parsed: Result<Vec<Target>, _> = targets.iter().map(|url| Target::parse(url)).collect();
    Ok(Some(ArmSource::Targets(parsed.map_err(|error| UsageError(format!("{name}: {error}")))?)))
}

/// Resolves names, and finds nothing else.
fn names() -> Discoveries {
    Discoveries::new(DiscoveryParts {
        options: BTreeMap::new(),
        clusters: BTreeMap::new(),
        resolver: Arc::new(dns::SystemResolver),
        telemetry: Telemetry::new(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    })
}

async fn judge(
    collector: Collector,
    past: Option<Collector>,
    (file, by): (RuleFile, RulesRef),
    output: Output,
) -> anyhow::Result<u8> {
    let rules = Arc::new(file.rules);
    let specs: Arc<[SignalSpec]> = file.specs.into();
    let now = system_clock();
    let started = now();
    let gathering = Gathering {
        service: &rules.service,
        rules: &rules,
        specs: specs.clone(),
        started,
        store: None,
        server: past.clone(),
        now: now.clone(),
        telemetry: &Telemetry::new(),
    };
    let gathered = gathering.gather().await;
    let warmup = rules.observe.warmup;
    let server = |_| past.map(|past| Source::server(past, specs.clone(), warmup, Carry::default()));
    let mut past = StandIn::by(Some(&gathered.plan), &rules, server, None);
    let mut analysis = Analysis::calibrated(rules.clone(), started, &gathered.calibration);
    let mut reducer = Reducer::new(specs.clone(), warmup, Carry::default());
    let (hold, deadline) =
        (rules.promote.after.as_secs_f64(), rules.promote.deadline.as_secs_f64());
    let mut display = (!output.json).then(Display::stdout);
    let mut ticks = interval(rules.observe.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = tokio::signal::ctrl_c() => {
                eprintln!("interrupted: no verdict");
                return Ok(FAILURE);
            }
        }
        let mut observation = reducer.reduce(&collector.gather(now()).await);
        if let Some(past) = &mut past {
            past.stand_in(&mut observation).await;
        }
        let step = analysis.step(&observation);
        let report = build::report(&rules, &step).by(by.clone());
        if let Some(display) = &mut display {
            display.look(&report, hold, deadline)?;
        }
        if step.verdict.advance_to().is_some() {
            match &mut display {
                Some(display) => display.verdict(&report)?,
                // Standard output is for the one object at the end.
                None => eprintln!("advance: {}", report.reason),
            }
        }
        if report.is_final {
            if let Some(display) = &mut display {
                display.verdict(&report)?;
            }
            return conclude(&report, output);
        }
    }
}
