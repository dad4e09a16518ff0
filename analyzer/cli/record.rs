//! `rollgate record DIR`: keeps what live targets say, for `replay` and for tests.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;

use super::{PROMOTE, UsageError, parse_duration, progress};
use crate::{
    engine::observation::Arm,
    report::format,
    service::system_clock,
    source::{
        client::Client,
        limits::SourceLimits,
        recorder::{RecordOptions, Recorded, record},
        target::Target,
    },
};

/// Arguments of `record`.
#[derive(Args)]
#[command(after_help = "\
Every target is asked for its metrics, in both text formats, and for its health; what it answers is
kept as it came. The directory can then be judged again, as often as one likes:

  rollgate record /tmp/friday --canary http://new:8080 --baseline http://old:8080 --for 10m
  rollgate replay /tmp/friday --rules rules/recommended.yaml --hold 5m

Ctrl-C ends the recording early; what was recorded until then is complete.")]
pub struct RecordArgs {
    /// Directory to write; it must not hold a recording yet.
    dir: PathBuf,
    /// An instance of the new version; repeat for more.
    #[arg(long, value_name = "URL", required = true)]
    canary: Vec<String>,
    /// An instance of the old version; repeat for more.
    #[arg(long, value_name = "URL")]
    baseline: Vec<String>,
    /// A health path that every instance is asked for; repeat for more.
    #[arg(long, value_name = "PATH", default_value = "/health")]
    health: Vec<String>,
    /// How long.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration, default_value = "3m")]
    length: Duration,
    /// Time between two rounds.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s")]
    interval: Duration,
}

/// Runs the command.
pub fn main(args: &RecordArgs) -> anyhow::Result<u8> {
    super::init_logging("warn");
    if let Some(path) = args.health.iter().find(|path| !path.starts_with('/')) {
        let fault = format!("--health {path:?}: expected a path, such as /health");
        return Err(UsageError(fault).into());
    }
    let mut targets = Vec::new();
    for (arm, urls) in [(Arm::Canary, &args.canary), (Arm::Baseline, &args.baseline)] {
        for url in urls {
            let target =
                Target::parse(url).map_err(|fault| UsageError(format!("{arm}: {fault}")))?;
            targets.push((arm, target));
        }
    }
    let options = RecordOptions {
        targets,
        health: args.health.clone(),
        interval: args.interval,
        length: args.length,
        timeout: args.interval,
        limits: SourceLimits::default(),
    };
    let client = Client::new().context("the http client cannot be set up")?;
    super::runtime()?.block_on(keep(&client, &options, &args.dir))?;
    Ok(PROMOTE)
}

/// Records with a line of progress, until the time is over or Ctrl-C, and says what it kept.
pub async fn keep(
    client: &Client,
    options: &RecordOptions,
    dir: &Path,
) -> anyhow::Result<Recorded> {
    let bar = progress::bar(options.length.as_secs(), "{pos} of {len} s, {msg}");
    let stop = async {
        // Without a signal handler the time ends it.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let each = |done: &Recorded| {
        bar.set_position(done.end.since(done.start).as_secs());
        bar.set_message(format!("{} answers, {} failed", done.scrapes + done.probes, done.failed));
    };
    let clock = system_clock();
    let recorded = record(client, options, dir, || clock(), stop, each).await;
    bar.finish_and_clear();
    let recorded =
        recorded.map_err(|fault| UsageError(format!("{:#}", anyhow::Error::from(fault))))?;
    println!(
        "{}: {} of {} targets, {} scrapes, {} health answers, {} failed",
        dir.display(),
        format::duration(recorded.end.since(recorded.start).as_secs_f64()),
        options.targets.len(),
        recorded.scrapes,
        recorded.probes,
        recorded.failed,
    );
    Ok(recorded)
}
