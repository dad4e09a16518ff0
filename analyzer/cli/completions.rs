//! `rollgate completions SHELL`: a script that completes commands, options and file names.

use std::io::{self, Write};

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use super::PROMOTE;

/// Where the script goes, after the options.
const AFTER: &str = "\
  bash        rollgate completions bash > ~/.local/share/bash-completion/completions/rollgate
  zsh         rollgate completions zsh > ~/.zfunc/_rollgate       with ~/.zfunc in fpath
  fish        rollgate completions fish > ~/.config/fish/completions/rollgate.fish
  elvish      rollgate completions elvish >> ~/.config/elvish/rc.elv
  powershell  rollgate completions powershell >> $PROFILE

For this terminal only: source <(rollgate completions bash)";

/// Arguments of `rollgate completions`.
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct CompletionsArgs {
    /// Whose script.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for `command`.
///
/// # Errors
/// When stdout cannot be written.
pub fn main(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<u8> {
    let name = command.get_name().to_owned();
    // Into memory first: the generator knows no failing reader such as `head`.
    let mut script = Vec::new();
    generate(args.shell, &mut command, name, &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script)?;
    out.flush()?;
    Ok(PROMOTE)
}
