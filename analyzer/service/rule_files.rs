//! Rule files of the configured directory, read with a bound.

use std::path::Path;

use tokio::io::AsyncReadExt;

use crate::rulefile;

/// Reads no more of a file than tells that it is too large for a rule file.
pub async fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(rulefile::MAX_FILE_BYTES as u64 + 1).read_to_string(&mut text).await?;
    Ok(text)
}
