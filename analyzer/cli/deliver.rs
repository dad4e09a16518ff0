//! `rollgate deliver`: what mechanisms would be sent on a decision, or a marked test event for them.
//!
//! A dry run asks what is read before anything is written, so that it tells what would come of it
//! in the world as it is; it writes nothing. A test event asks for nothing, and is only sent to
//! who cannot take it for a decision: of the others what they read is asked.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::{Args, ValueEnum};

use super::{FAILURE, Output, PROMOTE, UsageError, display, print_json, serve};
use crate::{
    config::{self, Config, mechanisms::MechanismOptions},
    deliver::{
        Attempt, Mechanism, Parcel, Setting,
        mapping::DECISIONS,
        payload::DeployAction,
        sample::{self, Release},
    },
    outward::exchange::Rehearsal,
    service::system_clock,
    store::{Store, StoreError, StoredDelivery, sqlite::SqliteStore},
};

mod shape;
mod text;

use shape::{Deliveries, Delivery, Outcome, Request, SCHEMA};

/// Longest that one delivery may take, whatever its own time-outs are.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Arguments of `deliver`.
#[derive(Args)]
#[command(after_help = "\
A dry run prints every request as it would be sent, without secrets. What a mechanism reads first, to
see that the world is still the one that was judged, is really asked; nothing is written.

A test sends an event of the type `rollgate.test.v1` with `data.test: true`, which asks for nothing.
Mechanisms whose receiver could take it for a decision (workflows, pipelines, bodies of a receiver's
own shape) are sent nothing; what they read is asked. Of a cluster the object is only read.

Exit codes: 0 all would be (or was) delivered, 1 something was refused or failed, 2 bad usage or
configuration.

  rollgate deliver --dry-run --verdict rollback --service shop --canary-version v2
  rollgate deliver --dry-run --analysis 019f3c4e-8d2b-7a10-9c55-0d5f1b7e2a41
  rollgate deliver --test --mechanism chat")]
pub struct DeliverArgs {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "rollgate.yaml")]
    config: PathBuf,
    #[command(flatten)]
    mode: ModeArgs,
    /// Only this mechanism; may be given several times.
    #[arg(long = "mechanism", value_name = "NAME")]
    mechanisms: Vec<String>,
    /// What was decided; rollback unless it is said.
    #[arg(long, value_enum, value_name = "VERDICT", conflicts_with = "test")]
    verdict: Option<Verdict>,
    /// The service.
    #[arg(long, value_name = "NAME", default_value = "example")]
    service: String,
    /// Its new version.
    #[arg(long, value_name = "VERSION", default_value = "v2")]
    canary_version: String,
    /// Its old version.
    #[arg(long, value_name = "VERSION", default_value = "v1")]
    baseline_version: String,
    /// Take what an analysis of the store has decided, by its id.
    #[arg(long, value_name = "ID", conflicts_with_all = ["service", "canary_version",
        "baseline_version", "test"])]
    analysis: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct ModeArgs {
    /// Print what would be sent.
    #[arg(long)]
    dry_run: bool,
    /// Send a marked test event.
    #[arg(long)]
    test: bool,
}

/// A decision, as it is given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verdict {
    /// Go back to the old version.
    Rollback,
    /// Go on to the new version.
    Promote,
    /// Go on to the next step.
    Advance,
    /// Leave everything as it is.
    Hold,
}

impl From<Verdict> for DeployAction {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Rollback => Self::Rollback,
            Verdict::Promote => Self::Promote,
            Verdict::Advance => Self::Advance,
            Verdict::Hold => Self::Hold,
        }
    }
}

/// Runs the command.
pub fn main(args: &DeliverArgs) -> anyhow::Result<u8> {
    super::init_logging("warn");
    let config = config::read(&args.config, |name| std::env::var(name).ok())
        .map_err(|error| UsageError(error.to_string()))?;
    super::runtime()?.block_on(deliver(args, config))
}

async fn deliver(args: &DeliverArgs, config: Config) -> anyhow::Result<u8> {
    let chosen = chosen(&config.mechanisms, &args.mechanisms)?;
    let deliveries = match (&args.analysis, args.mode.test) {
        (Some(id), _) => stored(&config, id, args, chosen).await?,
        (None, true) => tests(args, chosen).await?,
        (None, false) => {
            let action = args.verdict.unwrap_or(Verdict::Rollback).into();
            let body = sample::rehearsal(action, &release(args), system_clock()());
            let mut deliveries = Vec::new();
            for (name, options) in chosen {
                let parcel = parcel(&name, "dry-run", body.clone());
                deliveries.push(rehearse(&name, options, &parcel).await?);
            }
            deliveries
        }
    };
    let is_good = deliveries.iter().all(|delivery| delivery.outcome.is_good());
    let mode = if args.mode.test { "test" } else { "dry_run" };
    let deliveries = Deliveries { schema: SCHEMA, mode, good: is_good, deliveries };
    let mut out = io::stdout().lock();
    if args.output.json {
        print_json(&mut out, &deliveries)?;
    } else {
        let (color, _) = display::stdout_style();
        write!(out, "{}", text::whole(&deliveries, color))?;
    }
    out.flush()?;
    Ok(if is_good { PROMOTE } else { FAILURE })
}

/// The mechanisms that are meant, in the order of their names.
fn chosen(
    configured: &BTreeMap<String, MechanismOptions>,
    wanted: &[String],
) -> Result<Vec<(String, MechanismOptions)>, UsageError> {
    let names = || configured.keys().cloned().collect::<Vec<_>>().join(", ");
    if configured.is_empty() {
        return Err(UsageError("the configuration has no mechanisms".to_owned()));
    }
    if let Some(unknown) = wanted.iter().find(|name| !configured.contains_key(*name)) {
        let names = names();
        return Err(UsageError(format!(
            "--mechanism {unknown}: there is none of that name, expected one of {names}"
        )));
    }
    let is_wanted = |name: &String| wanted.is_empty() || wanted.contains(name);
    let pairs = configured.iter().filter(|(name, _)| is_wanted(name));
    Ok(pairs.map(|(name, options)| (name.clone(), options.clone())).collect())
}

fn release(args: &DeliverArgs) -> Release<'_> {
    Release {
        service: &args.service,
        canary_version: &args.canary_version,
        baseline_version: &args.baseline_version,
    }
}

fn parcel(mechanism: &str, analysis: &str, body: String) -> Parcel {
    Parcel {
        key: format!("{analysis}.{mechanism}"),
        analysis: analysis.to_owned(),
        mechanism: mechanism.to_owned(),
        body,
        attempts: 0,
        created: system_clock()(),
    }
}

/// What an analysis of the store has decided, for each mechanism that it told.
async fn stored(
    config: &Config,
    id: &str,
    args: &DeliverArgs,
    chosen: Vec<(String, MechanismOptions)>,
) -> anyhow::Result<Vec<Delivery>> {
    let unreadable = |error: StoreError| match error {
        StoreError::Unusable { .. } => UsageError(error.to_string()).into(),
        StoreError::Database { .. }
        | StoreError::Unreadable { .. }
        | StoreError::Unwritable { .. }
        | StoreError::OutOfOrder { .. } => anyhow::Error::from(error),
    };
    let store = SqliteStore::open_to_read(&config.store).await.map_err(unreadable)?;
    if store.analysis(id).await.map_err(unreadable)?.is_none() {
        return Err(UsageError(format!("no analysis has the id {id:?}")).into());
    }
    let rows = store.deliveries(id).await.map_err(unreadable)?;
    let wanted = args.verdict.map(DeployAction::from);
    let mut deliveries = Vec::new();
    for (name, options) in chosen {
        let is_meant = |row: &&StoredDelivery| {
            let action =
                || parcel(&name, id, row.new.body.clone()).event().ok()?.data.action.into();
            row.new.mechanism == name && (wanted.is_none() || wanted == action())
        };
        let Some(row) = rows.iter().filter(is_meant).max_by_key(|row| row.created) else {
            continue;
        };
        let mut parcel = parcel(&name, id, row.new.body.clone());
        parcel.key = row.new.key.clone();
        deliveries.push(rehearse(&name, options, &parcel).await?);
    }
    if deliveries.is_empty() {
        let what = match wanted {
            Some(action) => format!("analysis {id} has told nobody of these to {action}"),
            None => format!("analysis {id} has told nobody of these anything"),
        };
        return Err(UsageError(what).into());
    }
    Ok(deliveries)
}

/// What would be sent; what is only read is really asked.
async fn rehearse(
    name: &str,
    options: MechanismOptions,
    parcel: &Parcel,
) -> Result<Delivery, UsageError> {
    let rehearsal = Rehearsal::default();
    let setting = Setting { now: system_clock(), rehearsal: Some(rehearsal.clone()) };
    let mechanism = set_up(options, &setting)?;
    let kind = mechanism.about().kind;
    let action = match parcel.event() {
        Ok(event) => event.data.action,
        Err(error) => return Err(UsageError(format!("the stored event cannot be read: {error}"))),
    };
    let does = mechanism.does(action);
    let outcome = match &does {
        None => Outcome::Nothing,
        Some(_) => match once(&*mechanism, parcel).await {
            Attempt::Delivered { .. } => Outcome::WouldBeSent,
            Attempt::Nothing { .. } => Outcome::Nothing,
            Attempt::Refused { answer } => Outcome::WouldBeRefused { answer },
            Attempt::Failed { answer, .. } => Outcome::Failed { answer },
        },
    };
    let requests = rehearsal.take().into_iter().map(Request::from).collect();
    Ok(Delivery {
        mechanism: name.to_owned(),
        kind,
        action: action.to_string(),
        does,
        requests,
        outcome,
    })
}

/// A test event for whoever cannot take it for a decision.
async fn tests(
    args: &DeliverArgs,
    chosen: Vec<(String, MechanismOptions)>,
) -> Result<Vec<Delivery>, UsageError> {
    let now = system_clock();
    let mut deliveries = Vec::new();
    for (name, options) in chosen {
        let mechanism = set_up(options.clone(), &Setting::live(now.clone()))?;
        if !mechanism.about().takes_tests {
            deliveries.push(only_read(args, &name, options).await?);
            continue;
        }
        let id = format!("test-{}", uuid::Uuid::new_v4());
        let parcel = parcel(&name, &id, sample::test(&release(args), now()));
        let outcome = match once(&*mechanism, &parcel).await {
            Attempt::Delivered { answer } | Attempt::Nothing { answer } => {
                Outcome::Delivered { answer }
            }
            Attempt::Refused { answer } => Outcome::Refused { answer },
            Attempt::Failed { answer, .. } => Outcome::Failed { answer },
        };
        deliveries.push(Delivery {
            mechanism: name,
            kind: mechanism.about().kind,
            action: "test".to_owned(),
            does: Some(format!("send a test event to {}", mechanism.about().to)),
            requests: Vec::new(),
            outcome,
        });
    }
    Ok(deliveries)
}

/// Asks what a mechanism reads before the first decision that it does something on.
async fn only_read(
    args: &DeliverArgs,
    name: &str,
    options: MechanismOptions,
) -> Result<Delivery, UsageError> {
    let quiet = Setting { now: system_clock(), rehearsal: Some(Rehearsal::default()) };
    let mechanism = set_up(options.clone(), &quiet)?;
    let action = DECISIONS.into_iter().find(|action| mechanism.does(*action).is_some());
    let body = |action| sample::rehearsal(action, &release(args), system_clock()());
    let parcel = parcel(name, "test", body(action.unwrap_or(DeployAction::Hold)));
    let mut delivery = rehearse(name, options, &parcel).await?;
    delivery.requests.retain(|request| !request.is_write());
    delivery.outcome = match delivery.outcome {
        Outcome::Failed { answer } => Outcome::Failed { answer },
        Outcome::WouldBeRefused { answer } => Outcome::OnlyRead { answer: Some(answer) },
        Outcome::Nothing
        | Outcome::WouldBeSent
        | Outcome::Delivered { .. }
        | Outcome::Refused { .. }
        | Outcome::OnlyRead { .. } => Outcome::OnlyRead { answer: None },
    };
    Ok(delivery)
}

fn set_up(options: MechanismOptions, setting: &Setting) -> Result<Arc<dyn Mechanism>, UsageError> {
    serve::mechanism(options, setting).map_err(|error| UsageError(error.to_string()))
}

/// One attempt that ends in time.
async fn once(mechanism: &dyn Mechanism, parcel: &Parcel) -> Attempt {
    let attempt = tokio::time::timeout(TIME_MAX, mechanism.deliver(parcel)).await;
    attempt.unwrap_or_else(|_| {
        let answer = format!("no end after {} s", TIME_MAX.as_secs());
        Attempt::Failed { answer, retry_after: None }
    })
}
