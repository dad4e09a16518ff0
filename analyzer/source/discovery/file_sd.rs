//! Lists of targets in files, JSON or YAML, as whatever deploys writes them.
//!
//! Files are read whole each time, so that neither a clock nor a notification decides what is seen.
//! Half a YAML list is a YAML list, so one that has changed is believed when two readings agree; half
//! a JSON list is none.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use tokio::io::AsyncReadExt;

use super::{Ask, LIST_BYTES_MAX, LISTED_MAX, Listed, groups};

/// Files of one discovery.
pub const FILES_MAX: usize = 100;

/// Entries of a directory that are looked through for a pattern.
const ENTRIES_MAX: usize = 10_000;

/// Time between two readings of a changed YAML file.
const SETTLING: Duration = Duration::from_millis(500);

/// Asks files.
pub struct FilesAsk {
    patterns: Vec<PathBuf>,
    /// YAML texts that were believed.
    believed: BTreeMap<PathBuf, Vec<u8>>,
}

impl FilesAsk {
    /// Files by path; the last part may have `*` in it.
    pub fn new(patterns: Vec<PathBuf>) -> Self {
        Self { patterns, believed: BTreeMap::new() }
    }

    async fn settled(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        let bytes = read(path).await?;
        if is_json(path) || self.believed.get(path) == Some(&bytes) {
            return Ok(bytes);
        }
        tokio::time::sleep(SETTLING).await;
        if read(path).await? != bytes {
            return Err("is being written".to_owned());
        }
        self.believed.insert(path.to_owned(), bytes.clone());
        Ok(bytes)
    }
}

#[async_trait]
impl Ask for FilesAsk {
    async fn ask(&mut self) -> Result<Vec<Listed>, String> {
        let files = files(&self.patterns).await?;
        self.believed.retain(|path, _| files.contains(path));
        let mut all = Vec::new();
        for path in files {
            let name = path.display().to_string();
            let found = self.settled(&path).await.and_then(|bytes| {
                let groups = if is_json(&path) {
                    groups::of_json(&bytes)?
                } else {
                    let text = std::str::from_utf8(&bytes);
                    groups::of_yaml(text.map_err(|_| "is not UTF-8".to_owned())?)?
                };
                groups::listed(groups, &[("__meta_filepath", &name)])
            });
            all.extend(found.map_err(|fault| format!("{name}: {fault}"))?);
            if all.len() > LISTED_MAX {
                return Err(format!("the files name more than {LISTED_MAX} targets"));
            }
        }
        Ok(all)
    }
}

/// Whether a path can be read as a list: by its ending, as Prometheus has it.
pub fn is_list(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| ["json", "yml", "yaml"].contains(&ending))
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "json")
}

async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut bytes = Vec::new();
    let mut file = file.take(LIST_BYTES_MAX as u64 + 1);
    file.read_to_end(&mut bytes).await.map_err(unreadable)?;
    match bytes.len() > LIST_BYTES_MAX {
        true => Err(format!("has more than {LIST_BYTES_MAX} bytes")),
        false => Ok(bytes),
    }
}

/// Every file that the patterns name, in order, each once.
async fn files(patterns: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for pattern in patterns {
        let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.contains('*') {
            found.push(pattern.clone());
            continue;
        }
        let parent = pattern.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let unreadable =
            |error: io::Error| format!("{} cannot be listed: {error}", parent.display());
        let mut entries = tokio::fs::read_dir(parent).await.map_err(unreadable)?;
        let mut seen = 0;
        while let Some(entry) = entries.next_entry().await.map_err(unreadable)? {
            seen += 1;
            if seen > ENTRIES_MAX {
                return Err(format!("{} has more than {ENTRIES_MAX} entries", parent.display()));
            }
            if entry.file_name().to_str().is_some_and(|entry| is_like(name, entry)) {
                found.push(parent.join(entry.file_name()));
            }
        }
    }
    found.sort();
    found.dedup();
    match found.len() > FILES_MAX {
        true => Err(format!("{} files match, at most {FILES_MAX} are read", found.len())),
        false => Ok(found),
    }
}

/// Whether a name is like a pattern in which `*` stands for anything.
fn is_like(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match name.split_once(part) {
            Some((_, after)) => name = after,
            None => return false,
        }
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name, expected) in [
            ("a.json", "a.json", true),
            ("a.json", "b.json", false),
            ("*.json", "a.json", true),
            ("*.json", ".json", true),
            ("*.json", "a.json.tmp", false),
            ("shop-*-*.yml", "shop-a-b.yml", true),
            ("shop-*-*.yml", "shop-a.yml", false),
            ("a*a", "a", false),
            ("**", "", true),
        ] {
            assert_eq!(is_like(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[tokio::test]
    async fn files_come_and_go_and_half_of_one_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).expect("written");
        let mut ask = FilesAsk::new(vec![path("*.json"), path("more.yml"), path("*.json")]);
        let names = |found: Result<Vec<Listed>, String>| {
            let found = found.expect("targets");
            found.iter().map(|listed| listed.target.name().to_string()).collect::<Vec<_>>()
        };
        let fault = ask.ask().await.expect_err("a fault");
        assert!(fault.contains("more.yml: cannot be read"), "{fault}");
        write("more.yml", "- targets: [c:1]\n");
        assert_eq!(names(ask.ask().await), ["c:1"]);
        write("b.json", r#"[{"targets": ["b:1"]}]"#);
        write("a.json", r#"[{"targets": ["a:1", "a:2"]}]"#);
        write("a.json.tmp", "nothing yet");
        assert_eq!(names(ask.ask().await), ["a:1", "a:2", "b:1", "c:1"]);
        write("a.json", r#"[{"targets": ["a:1","#);
        let fault = ask.ask().await.expect_err("a fault");
        assert!(fault.contains("a.json: is not a list"), "{fault}");
        std::fs::remove_file(path("a.json")).expect("removed");
        assert_eq!(names(ask.ask().await), ["b:1", "c:1"]);

        // A YAML file that grows between two readings is not believed.
        write("more.yml", "- targets: [c:1, c:2]\n");
        let (found, ()) = tokio::join!(ask.ask(), async {
            tokio::time::sleep(SETTLING / 2).await;
            write("more.yml", "- targets: [c:1, c:2]\n- targets: [c:3]\n");
        });
        assert!(found.expect_err("a fault").contains("is being written"));
        assert_eq!(names(ask.ask().await), ["b:1", "c:1", "c:2", "c:3"]);
        write("b.json", &" ".repeat(LIST_BYTES_MAX + 1));
        assert!(ask.ask().await.expect_err("a fault").contains("more than 4194304 bytes"));
    }
}
