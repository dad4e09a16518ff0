//! `rollgate serve`: the service, until it is told to stop.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;

use super::{PROMOTE, UsageError};
use crate::{
    api::{
        ApiOptions,
        access::Access,
        tls::{Certificates, LOOK_EVERY},
    },
    config::{self, Config, MetricsServer, mechanisms::MechanismOptions, targets::TargetOptions},
    deliver::{
        Mechanism, Setting, alertmanager::Alertmanager, argo_rollouts::ArgoRollouts,
        cloudevents::CloudEvents, flagger::Flagger, github::Github, gitlab::Gitlab,
        kubernetes_service::KubernetesService, kubernetes_undo::KubernetesUndo, peer::SetupError,
        slack::Slack, webhook::Webhook,
    },
    kubernetes::Cluster,
    service::{self, ServiceOptions, system_clock},
    source::{
        client::{Client, ClientError, ClientOptions},
        limits::SourceLimits,
        prometheus::PrometheusServer,
    },
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
themselves, within two seconds; SIGHUP reads all of them at once, and the tokens of the
configuration. Certificates that change are taken up by themselves, within five seconds. SIGTERM or Ctrl-C stops in order:
running analyses are committed and go on at the next start. `RUST_LOG=debug` says more.")]
pub struct ServeArgs {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "rollgate.yaml")]
    config: PathBuf,
}

/// Runs the command.
pub fn main(args: ServeArgs) -> anyhow::Result<u8> {
    super::init_logging("info");
    let config = read(&args.config)?;
    super::runtime()?.block_on(serve(config, &args.config))
}

fn read(path: &Path) -> Result<Config, UsageError> {
    config::read(path, |name| std::env::var(name).ok())
        .map_err(|error| UsageError(error.to_string()))
}

async fn serve(config: Config, path: &Path) -> anyhow::Result<u8> {
    let mechanisms = mechanisms(config.mechanisms, &Setting::live(system_clock()))?;
    let prometheus = metrics_servers(config.prometheus)?;
    let TargetOptions { networks, tls, headers } = config.targets;
    let options =
        ClientOptions { networks: Some(networks), tls, headers, ..ClientOptions::default() };
    let client = Client::with(options).map_err(|error| unsendable("targets", error))?;
    let certificates = config.tls.map(|files| Certificates::open(files, LOOK_EVERY)).transpose();
    let certificates = certificates.map_err(|fault| UsageError(fault.to_string()))?;
    let scheme = if certificates.is_some() { "https" } else { "http" };
    let access = Access::new(config.access, system_clock());
    let mut clusters = BTreeMap::new();
    for (name, options) in config.clusters {
        let cluster = Cluster::new(options, None)
            .map_err(|error| UsageError(format!("clusters.{name}: {error}")))?;
        clusters.insert(name, Arc::new(cluster));
    }
    let store = SqliteStore::open(&config.store, SqliteOptions::default());
    let store = store.await.map_err(unopened)?;
    let _lock = held(&config.store)?;
    let service = service::start(ServiceOptions {
        listen: config.listen,
        store: Arc::new(store),
        rules_dir: config.rules,
        mechanisms,
        prometheus,
        clusters,
        discovery: config.discovery,
        services: config.services,
        client,
        limits: SourceLimits::default(),
        timeout: config.timeout,
        watch: config.watch,
        api: ApiOptions { access: access.clone(), certificates, ..ApiOptions::default() },
        telemetry: Telemetry::new(),
    })
    .await?;
    println!("rollgate serves {scheme}://{}", service.addr);
    if scheme == "http" && !config::is_loopback(service.addr) {
        tracing::warn!(
            "tokens come to this listener unencrypted: configure `tls`, or let only a proxy reach it"
        );
    }
    until_stopped(&service, || reload_access(path, &access, service.addr)).await?;
    service.stop().await;
    Ok(PROMOTE)
}

/// Sets metrics servers up; nothing is asked. They are the operator's own words, so they may be
/// anywhere.
fn metrics_servers(
    options: BTreeMap<String, MetricsServer>,
) -> anyhow::Result<BTreeMap<String, Arc<PrometheusServer>>> {
    let mut servers = BTreeMap::new();
    for (name, MetricsServer { options, tls }) in options {
        let at = format!("prometheus {name}");
        let client = Client::with(ClientOptions { tls, ..ClientOptions::default() })
            .map_err(|error| unsendable(&at, error))?;
        let server = PrometheusServer::new(client, options)
            .map_err(|error| UsageError(format!("{at}: {error}")))?;
        servers.insert(name, Arc::new(server));
    }
    Ok(servers)
}

/// Certificates and headers that cannot be used are the configuration's fault.
fn unsendable(at: &str, error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Build(_) => error.into(),
        ClientError::Tls(_) | ClientError::Header(_) => UsageError(format!("{at}: {error}")).into(),
    }
}

/// Tokens are taken from the configuration as it is now; of the rest of it nothing.
fn reload_access(path: &Path, access: &Access, addr: SocketAddr) {
    let read = read(path).and_then(|config| match config.access.tokens.is_empty() {
        true if !config::is_loopback(addr) => {
            Err(UsageError(format!("{} has no tokens and others reach {addr}", path.display())))
        }
        true | false => Ok(config.access),
    });
    match read {
        Ok(policy) => {
            tracing::info!(tokens = policy.tokens.len(), "tokens are taken from the configuration");
            access.replace(policy);
        }
        Err(error) => tracing::error!(%error, "the tokens before stay in use"),
    }
}

/// Sets mechanisms up; nothing is sent.
pub fn mechanisms(
    options: BTreeMap<String, MechanismOptions>,
    setting: &Setting,
) -> Result<BTreeMap<String, Arc<dyn Mechanism>>, UsageError> {
    let set_up = |(name, options)| {
        let mechanism =
            mechanism(options, setting).map_err(|error| UsageError(error.to_string()))?;
        Ok((name, mechanism))
    };
    options.into_iter().map(set_up).collect()
}

/// Sets one mechanism up; nothing is sent.
pub fn mechanism(
    options: MechanismOptions,
    setting: &Setting,
) -> Result<Arc<dyn Mechanism>, SetupError> {
    Ok(match options {
        MechanismOptions::Webhook(options) => Arc::new(Webhook::new(options, setting)?),
        MechanismOptions::CloudEvents(options) => Arc::new(CloudEvents::new(options, setting)?),
        MechanismOptions::KubernetesUndo(options) => {
            Arc::new(KubernetesUndo::new(options, setting)?)
        }
        MechanismOptions::KubernetesService(options) => {
            Arc::new(KubernetesService::new(options, setting)?)
        }
        MechanismOptions::ArgoRollouts(options) => Arc::new(ArgoRollouts::new(options, setting)?),
        MechanismOptions::Flagger(options) => Arc::new(Flagger::new(options, setting)?),
        MechanismOptions::Github(options) => Arc::new(Github::new(options, setting)?),
        MechanismOptions::Gitlab(options) => Arc::new(Gitlab::new(options, setting)?),
        MechanismOptions::Alertmanager(options) => Arc::new(Alertmanager::new(options, setting)?),
        MechanismOptions::Slack(options) => Arc::new(Slack::new(options, setting)?),
    })
}

/// Keeps a second service from the same store: each would judge the other's analyses, and lose them.
/// The lock ends with the process, however it ends.
fn held(store: &Path) -> Result<std::fs::File, UsageError> {
    let mut name = store.as_os_str().to_owned();
    name.push(".lock");
    let fault = |what: String| UsageError(format!("store: {}: {what}", store.display()));
    let lock = std::fs::File::create(Path::new(&name))
        .map_err(|error| fault(format!("its lock cannot be made: {error}")))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(fault("another rollgate serves it, expected one service for each store".to_owned()))
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(fault(format!("its lock cannot be held: {error}")))
        }
    }
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

/// Waits for SIGTERM or Ctrl-C; at each SIGHUP rule files and tokens are read again.
async fn until_stopped(service: &service::Service, reload: impl Fn()) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(()),
            result = tokio::signal::ctrl_c() => return Ok(result?),
            _ = hangup.recv() => {
                reload();
                service.reload_rules().await;
            }
        }
    }
}
