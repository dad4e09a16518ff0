//! Start and stop order, the driver, every spawned task, and the only clock.
//!
//! Start: resume what was running, then deliver, then listen. Stop: no new requests, no new looks,
//! commit what is queued, finish deliveries under way, close the store. Every task has an owner
//! here and a time within which it has to end.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::{self, ApiOptions, desk::Desk},
    config::{services::KnownService, watch::WatchOptions},
    deliver::{Clock, Mechanism, worker::Worker},
    engine::observation::Time,
    source::{client::Client, limits::SourceLimits, prometheus::PrometheusServer},
    store::{RETENTION_DEFAULT, Store},
    telemetry::Telemetry,
};

pub mod archive;
pub mod case;
pub mod desk;
pub mod driver;
pub mod keeper;
pub mod known;
pub mod lag;
pub mod live;
pub mod order_past;
pub mod order_targets;
pub mod outbox;
pub mod past;
pub mod rule_files;
pub mod rule_reload;
pub mod rule_shelf;
pub mod stand_in;
pub mod standing;
pub mod watcher;

/// Time each stage of a shutdown has.
const STAGE_TIMEOUT: Duration = Duration::from_secs(15);

/// Time between two counts of the outbox for `/metrics`.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// Time between two clean-ups of what is older.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);

/// What a service is made of.
pub struct ServiceOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where analyses live.
    pub store: Arc<dyn Store>,
    /// The directory of rule files.
    pub rules_dir: PathBuf,
    /// Mechanisms by name.
    pub mechanisms: BTreeMap<String, Arc<dyn Mechanism>>,
    /// Metrics servers by name.
    pub prometheus: BTreeMap<String, Arc<PrometheusServer>>,
    /// What is known of services, by name.
    pub services: BTreeMap<String, KnownService>,
    /// The client that scrapes.
    pub client: Client,
    /// Limits of the sources.
    pub limits: SourceLimits,
    /// Time one look's sources have.
    pub timeout: Duration,
    /// Services that are watched between releases.
    pub watch: Vec<WatchOptions>,
    /// Limits of the API, and who may use it.
    pub api: ApiOptions,
    /// What happens is reported here.
    pub telemetry: Telemetry,
}

/// A running service.
pub struct Service {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What its API asks.
    pub desk: Arc<dyn Desk>,
    rules: RuleFilesHandle,
    requests: CancellationToken,
    watchers: CancellationToken,
    driving: CancellationToken,
    delivering: CancellationToken,
    watcher_tasks: TaskTracker,
    store: Arc<dyn Store>,
    server: JoinHandle<std::io::Result<()>>,
    driver: JoinHandle<()>,
    worker: JoinHandle<()>,
    upkeep: JoinHandle<()>,
}

/// What it takes to read all rule files again, and to say what came of it.
struct RuleFilesHandle {
    shelf: rule_shelf::RuleShelf,
    ask: rule_reload::RuleAsker,
    telemetry: Telemetry,
}

/// The wall clock, in milliseconds.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    })
}

/// Starts everything and resumes what was running.
pub async fn start(options: ServiceOptions) -> anyhow::Result<Service> {
    let listen = options.listen;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}; is another rollgate running?"))?;
    let addr = listener.local_addr()?;
    let now = system_clock();
    let (requests, watchers) = (CancellationToken::new(), CancellationToken::new());
    let (driving, delivering) = (CancellationToken::new(), CancellationToken::new());
    let (wake, watcher_tasks) = (Arc::new(Notify::new()), TaskTracker::new());
    let (messages, queue) = mpsc::channel(driver::QUEUE_MAX);
    let (store, telemetry) = (options.store, options.telemetry);
    let board = live::Board::default();
    let opened =
        rule_reload::open(options.rules_dir, store.clone(), telemetry.clone(), now.clone());
    let (shelf, ask_rules, reload) = opened.await.context("the rule files cannot be read")?;
    let (keeper, kept) = mpsc::channel(keeper::QUEUE_MAX);
    let standing = standing::StandingParts {
        store: store.clone(),
        keeper,
        shelf: shelf.clone(),
        client: options.client.clone(),
        limits: options.limits.clone(),
        timeout: options.timeout,
        now: now.clone(),
        board: standing::StandingBoard::default(),
        telemetry: telemetry.clone(),
    };
    let driver = driver::Driver {
        store: store.clone(),
        board: board.clone(),
        telemetry: telemetry.clone(),
        wake: wake.clone(),
    };
    let driver = tokio::spawn(driver.run(queue, driving.clone()));
    let desk = Arc::new(desk::ServiceDesk {
        store: store.clone(),
        board,
        standing: standing.board.clone(),
        driver: messages,
        shelf: shelf.clone(),
        ask_rules: ask_rules.clone(),
        mechanisms: options.mechanisms.keys().cloned().collect(),
        prometheus: options.prometheus,
        services: Arc::new(options.services),
        client: options.client,
        limits: options.limits,
        timeout: options.timeout,
        now: now.clone(),
        telemetry: telemetry.clone(),
        stop: watchers.clone(),
        tasks: watcher_tasks.clone(),
    });
    let resumed = desk.resume().await.context("running analyses cannot be taken up")?;
    let (board, known, reported) = (standing.board.clone(), telemetry.clone(), telemetry.clone());
    watcher_tasks.spawn(keeper::keep(kept, store.clone(), board, known, watchers.clone()));
    watcher_tasks.spawn(reload.run(watchers.clone()));
    for watch in options.watch {
        watcher_tasks.spawn(standing::watch(watch, standing.clone(), watchers.clone()));
    }
    tracing::info!(%addr, resumed, "listening");
    let outbox = Arc::new(outbox::StoreOutbox { store: store.clone(), now: now.clone() });
    let worker = Worker::new(outbox, options.mechanisms, telemetry.clone(), now.clone());
    let worker = tokio::spawn(worker.run(delivering.clone(), wake));
    let upkeep = tokio::spawn(upkeep(store.clone(), telemetry.clone(), now, delivering.clone()));
    let desk: Arc<dyn Desk> = desk;
    let router =
        api::router(desk.clone(), telemetry.clone(), options.api.clone(), requests.clone());
    let serving = api::serve(listener, router, telemetry, options.api, requests.clone());
    let server = tokio::spawn(serving);
    Ok(Service {
        addr,
        desk,
        rules: RuleFilesHandle { shelf, ask: ask_rules, telemetry: reported },
        requests,
        watchers,
        driving,
        delivering,
        watcher_tasks,
        store,
        server,
        driver,
        worker,
        upkeep,
    })
}

impl Service {
    /// Reads every rule file again now, whatever its times say.
    pub async fn reload_rules(&self) {
        self.rules.ask.reload().await;
        let files = self.rules.shelf.view().rules;
        let count = |state: &str| files.iter().filter(|file| file.state == state).count();
        self.rules.telemetry.rules().reloaded(count("good"), count("bad"));
    }

    /// Stops in order; what is queued is committed first.
    pub async fn stop(self) {
        self.requests.cancel();
        ended("requests", timeout(STAGE_TIMEOUT, self.server).await.is_ok());
        self.watchers.cancel();
        self.watcher_tasks.close();
        ended("watchers", timeout(STAGE_TIMEOUT, self.watcher_tasks.wait()).await.is_ok());
        self.driving.cancel();
        ended("driver", timeout(STAGE_TIMEOUT, self.driver).await.is_ok());
        self.delivering.cancel();
        ended("deliveries", timeout(STAGE_TIMEOUT, self.worker).await.is_ok());
        ended("upkeep", timeout(STAGE_TIMEOUT, self.upkeep).await.is_ok());
        self.store.close().await;
        tracing::info!("stopped; running analyses go on at the next start");
    }
}

fn ended(what: &str, in_time: bool) {
    if !in_time {
        tracing::warn!(what, "did not end in time and is left behind");
    }
}

/// Keeps `/metrics` true about the outbox, and the store bounded.
async fn upkeep(store: Arc<dyn Store>, telemetry: Telemetry, now: Clock, stop: CancellationToken) {
    let mut counts = tokio::time::interval(COUNT_INTERVAL);
    let mut prune = tokio::time::interval(PRUNE_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = counts.tick() => {
                if let Ok(counts) = store.delivery_counts().await {
                    telemetry.deliveries_counted(counts.pending, counts.dead);
                }
            }
            _ = prune.tick() => {
                let before = Time((now)().0 - RETENTION_DEFAULT.as_millis() as i64);
                if let Err(error) = store.prune(before).await {
                    tracing::warn!(error = %driver::chain(&error), "old analyses cannot be removed");
                }
                if let Err(error) = store.prune_notes(before).await {
                    tracing::warn!(error = %driver::chain(&error), "old notes cannot be removed");
                }
                if let Err(error) = store.prune_history((now)()).await {
                    tracing::warn!(error = %driver::chain(&error), "old history cannot be removed");
                }
            }
        }
    }
}
