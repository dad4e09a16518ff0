//! `rollgate schema`: the JSON Schema of what people write, for their editors.

use std::io::{self, Write};

use clap::{Args, ValueEnum};

use super::PROMOTE;
use crate::rulefile::json_schema;

/// How to use it, after the options.
const AFTER: &str = "\
Editors with the YAML language server (VS Code's YAML extension, Neovim, Helix and others) complete
and check a file whose first line names its schema:

  rollgate schema > rollgate.schema.json
  # yaml-language-server: $schema=rollgate.schema.json

The schema sees shapes, keys, words and units. Whether a unit fits its signal, and whether a rule can
fire at all, only `rollgate check` says.";

/// Arguments of `rollgate schema`.
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct SchemaArgs {
    /// Of which kind of file.
    #[arg(value_enum, default_value_t = Of::Rules, value_name = "KIND")]
    of: Of,
}

#[derive(Clone, Copy, ValueEnum)]
enum Of {
    /// A rule file.
    Rules,
}

/// Prints the schema.
///
/// # Errors
/// When stdout cannot be written.
pub fn main(args: &SchemaArgs) -> anyhow::Result<u8> {
    let schema = match args.of {
        Of::Rules => json_schema::rule_file(),
    };
    let mut out = io::stdout().lock();
    out.write_all(json_schema::text(&schema).as_bytes())?;
    out.flush()?;
    Ok(PROMOTE)
}
