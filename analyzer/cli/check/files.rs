//! Which rule files are meant, and their text.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::rulefile::MAX_FILE_BYTES;

/// Rule files of one directory.
pub const MAX_FILES: usize = 1_000;

/// The files that paths name, in the order given: of a directory every `*.yaml` and `*.yml` in it
/// but tests of rules, by name. What cannot be listed stands in its place with the reason.
pub fn named(paths: &[PathBuf]) -> Vec<(PathBuf, anyhow::Result<()>)> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push((path.clone(), Ok(())));
            continue;
        }
        match list(path) {
            Ok(found) => files.extend(found.into_iter().map(|file| (file, Ok(())))),
            Err(error) => files.push((path.clone(), Err(error))),
        }
    }
    files
}

/// The rule files of a directory, by name.
///
/// # Errors
/// When it cannot be listed, holds none, or too many.
pub fn list(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = directory
        .read_dir()
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
        .with_context(|| format!("read directory {}", directory.display()))?;
    let mut files: Vec<PathBuf> =
        entries.into_iter().filter(|path| is_rule_file(path) && path.is_file()).collect();
    if files.is_empty() {
        anyhow::bail!("directory {} holds no rule file: no `*.yaml`", directory.display());
    }
    if files.len() > MAX_FILES {
        anyhow::bail!(
            "directory {} holds {} rule files, and at most {MAX_FILES} are read",
            directory.display(),
            files.len()
        );
    }
    files.sort();
    Ok(files)
}

/// Whether a file of a directory is a rule file, by its name.
fn is_rule_file(path: &Path) -> bool {
    stem(path).is_some_and(|stem| !stem.ends_with(".test") && !stem.starts_with('.'))
}

/// Whether a file holds tests of rules, by its name.
pub fn is_test(path: &Path) -> bool {
    stem(path).is_some_and(|stem| stem.ends_with(".test"))
}

/// The name of a YAML file, without its ending.
pub fn stem(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let stem = name.strip_suffix(".yaml").or(name.strip_suffix(".yml"))?;
    Some(stem.to_owned())
}

/// Reads a rule file's text; never more of it than a rule file may have, and one byte to tell.
///
/// # Errors
/// When the file cannot be opened or read, is larger, or is not UTF-8.
pub fn read(file: &Path) -> anyhow::Result<String> {
    let limit = MAX_FILE_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(limit).read_to_end(&mut bytes))
        .with_context(|| format!("read rule file {}", file.display()))?;
    if bytes.len() > MAX_FILE_BYTES {
        anyhow::bail!(
            "rule file {} is larger than {} KiB, the most that a rule file may have",
            file.display(),
            MAX_FILE_BYTES / 1024
        );
    }
    String::from_utf8(bytes)
        .with_context(|| format!("rule file {} is not text: UTF-8 is expected", file.display()))
}
