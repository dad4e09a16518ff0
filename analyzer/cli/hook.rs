//! `rollgate hook`: the small receiver for hosts without an API, until it is told to stop.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{PROMOTE, UsageError};
use crate::{
    config,
    deliver::payload::DeployAction,
    hook::{Argv, Hook, HookError, HookOptions, Interrupted},
    service::system_clock,
};

/// Arguments of `hook`.
#[derive(Args)]
#[command(after_help = "\
A hook takes signed events at /hook, and runs the one command that its file names for the decision:
never anything that a request says. The event is on the command's stdin, and plain words of it are
in its environment (ROLLGATE_ACTION, ROLLGATE_CANARY_VERSION, ...). rules/deploy/ has examples for
docker compose, systemd with git, and a blue-green script. SIGTERM or Ctrl-C ends it once the
command that runs has ended.")]
pub struct HookArgs {
    /// The hook's file.
    #[arg(long, value_name = "FILE", default_value = "hook.yaml")]
    config: PathBuf,
    /// Only say what would be run on which decision, or every fault of the file.
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub fn main(args: HookArgs) -> anyhow::Result<u8> {
    super::init_logging("info");
    let (options, keys) = config::hook::read(&args.config, |name| std::env::var(name).ok())
        .map_err(|error| UsageError(error.to_string()))?;
    if args.check {
        describe(&args.config, &options, &mut io::stdout().lock())?;
        return Ok(PROMOTE);
    }
    let scheme = scheme(&options);
    super::runtime()?.block_on(async {
        let opened = Hook::open(options, keys, system_clock()).await;
        let hook = opened.map_err(|error| match error {
            HookError::Memory(_) | HookError::Tls(_) => UsageError(error.to_string()).into(),
            HookError::Listen { .. } => anyhow::Error::from(error),
        })?;
        println!("rollgate hook listens on {scheme}://{}/hook", hook.addr);
        let stop = CancellationToken::new();
        let serving = tokio::spawn(hook.serve(stop.clone()));
        until_stopped().await?;
        stop.cancel();
        serving.await??;
        Ok(PROMOTE)
    })
}

async fn until_stopped() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = term.recv() => Ok(()),
        result = tokio::signal::ctrl_c() => result,
    }
}

fn scheme(options: &HookOptions) -> &'static str {
    if options.tls.is_some() { "https" } else { "http" }
}

/// What a hook does, for people.
fn describe(path: &Path, options: &HookOptions, out: &mut impl Write) -> io::Result<()> {
    let HookOptions { listen, service, memory, commands, check, setting, .. } = options;
    let service = service.as_deref().unwrap_or("any service");
    let at = format!("{}://{listen}/hook", scheme(options));
    writeln!(out, "{}  good: a hook for {service} on {at}\n", path.display())?;
    let actions =
        [DeployAction::Rollback, DeployAction::Promote, DeployAction::Advance, DeployAction::Hold];
    for action in actions {
        let does = commands.of(action).map_or("nothing".to_owned(), shown);
        writeln!(out, "  {:<10}{does}", action.to_string())?;
    }
    writeln!(out)?;
    match check {
        Some(check) => {
            writeln!(
                out,
                "  Before each, {} must print the version that was judged.",
                shown(check)
            )?;
        }
        None => writeln!(out, "  Nothing checks that the version judged is still what runs.")?,
    }
    let secs = setting.timeout.as_secs();
    writeln!(out, "  A command runs in {} for {secs} s at most,", setting.directory.display())?;
    let tries = match options.tries {
        1 => "once".to_owned(),
        tries => format!("{tries} times"),
    };
    writeln!(out, "  and an event is refused when it has failed {tries}.")?;
    let interrupted = match options.interrupted {
        Interrupted::Refuse => "refused",
        Interrupted::Run => "run again",
    };
    writeln!(out, "  What the end of the hook cut off is {interrupted}.")?;
    writeln!(out, "  Events are remembered in {}.", memory.display())
}

/// Words as they could be typed.
fn shown(argv: &Argv) -> String {
    let is_plain = |word: &str| !word.is_empty() && !word.contains([' ', '\'', '"', '\n', '\t']);
    let word = |word: &String| match is_plain(word) {
        true => word.clone(),
        false => format!("'{}'", word.escape_debug()),
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}
