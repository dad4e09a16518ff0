//! `rollgate hook`: the small receiver for hosts without an API, until it is told to stop.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{PROMOTE, UsageError};
use crate::{
    config::{self, Secrets},
    deliver::mapping::DECISIONS,
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
    let (options, keys) =
        config::hook::read(&args.config, |name| std::env::var(name).ok(), Secrets::Read)
            .map_err(|error| UsageError(error.to_string()))?;
    if args.check {
        io::stdout().lock().write_all(described(&args.config, &options).as_bytes())?;
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
pub fn described(path: &Path, options: &HookOptions) -> String {
    let HookOptions { listen, service, memory, commands, check, setting, .. } = options;
    let service = service.as_deref().unwrap_or("any service");
    let at = format!("{}://{listen}/hook", scheme(options));
    let mut text = format!("{}  good: a hook for {service} on {at}\n\n", path.display());
    for action in DECISIONS {
        let does = commands.of(action).map_or("nothing".to_owned(), shown);
        text += &format!("  {:<10}{does}\n", action.to_string());
    }
    text += "\n";
    text += &match check {
        Some(check) => {
            format!("  Before each, {} must print the version that was judged.\n", shown(check))
        }
        None => "  Nothing checks that the version judged is still what runs.\n".to_owned(),
    };
    let (secs, directory) = (setting.timeout.as_secs(), setting.directory.display());
    let tries = match options.tries {
        1 => "once".to_owned(),
        tries => format!("{tries} times"),
    };
    let interrupted = match options.interrupted {
        Interrupted::Refuse => "refused",
        Interrupted::Run => "run again",
    };
    text += &format!("  A command runs in {directory} for {secs} s at most,\n");
    text += &format!("  and an event is refused when it has failed {tries}.\n");
    text += &format!("  What the end of the hook cut off is {interrupted}.\n");
    text += &format!("  Events are remembered in {}.\n", memory.display());
    text
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
