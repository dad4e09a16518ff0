//! `rollgate serve`: the service, until it is told to stop.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::Args;

use super::{PROMOTE, UsageError};
use crate::{
    api::ApiOptions,
    config::{self, Config, mechanisms::MechanismOptions},
    deliver::{Mechanism, Setting, webhook::Webhook},
    service::{self, ServiceOptions, system_clock},
    source::{client::Client, limits::SourceLimits, prometheus::PrometheusServer},
    store::{
        StoreError,
        sqlite::{SqliteOptions, SqliteStore},
    },
    telemetry::Telemetry,
};

/// Arguments of `serve`.
#[derive(Args)]
#[command(after_help = "\
The configuration says where to listen, where the store and the rule files are, and which webhooks
and metrics servers there are; the README shows one. Rule files that change are taken up by
themselves, within two seconds; SIGHUP reads all of them at once. SIGTERM or Ctrl-C stops in order:
running analyses are committed and go on at the next start. `RUST_LOG=debug` says more.")]
pub struct ServeArgs {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "rollgate.yaml")]
    config: PathBuf,
}

/// Runs the command.
pub fn main(args: ServeArgs) -> anyhow::Result<u8> {
    super::init_logging("info");
    let config = config::read(&args.config, |name| std::env::var(name).ok())
        .map_err(|error| UsageError(error.to_string()))?;
    super::runtime()?.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<u8> {
    let client = Client::new().context("the http client cannot be set up")?;
    let mechanisms = mechanisms(config.mechanisms, &Setting::live(system_clock()))?;
    let mut prometheus = BTreeMap::new();
    for (name, options) in config.prometheus {
        let server = PrometheusServer::new(client.clone(), options)
            .map_err(|error| UsageError(format!("prometheus {name}: {error}")))?;
        prometheus.insert(name, Arc::new(server));
    }
    let store = SqliteStore::open(&config.store, SqliteOptions::default());
    let store = store.await.map_err(unopened)?;
    let service = service::start(ServiceOptions {
        listen: config.listen,
        store: Arc::new(store),
        rules_dir: config.rules,
        mechanisms,
        prometheus,
        services: config.services,
        client,
        limits: SourceLimits::default(),
        timeout: config.timeout,
        watch: config.watch,
        api: ApiOptions::default(),
        telemetry: Telemetry::new(),
    })
    .await?;
    println!("rollgate serves http://{}", service.addr);
    until_stopped(&service).await?;
    service.stop().await;
    Ok(PROMOTE)
}

/// Sets mechanisms up; nothing is sent.
pub fn mechanisms(
    options: BTreeMap<String, MechanismOptions>,
    setting: &Setting,
) -> Result<BTreeMap<String, Arc<dyn Mechanism>>, UsageError> {
    let set_up = |(name, options): (String, MechanismOptions)| {
        let mechanism: Arc<dyn Mechanism> = match options {
            MechanismOptions::Webhook(options) => Arc::new(
                Webhook::new(options, setting).map_err(|error| UsageError(error.to_string()))?,
            ),
        };
        Ok((name, mechanism))
    };
    options.into_iter().map(set_up).collect()
}

/// A path that cannot serve as a store is the configuration's fault; anything else is not.
fn unopened(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Unusable { .. } => UsageError(error.to_string()).into(),
        StoreError::Database { .. }
        | StoreError::Unreadable { .. }
        | StoreError::Unwritable { .. }
        | StoreError::OutOfOrder { .. } => error.into(),
    }
}

/// Waits for SIGTERM or Ctrl-C; at each SIGHUP rule files are read again.
async fn until_stopped(service: &service::Service) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(()),
            result = tokio::signal::ctrl_c() => return Ok(result?),
            _ = hangup.recv() => service.reload_rules().await,
        }
    }
}
