//! The directory of rule files: which files are there, whether one changed, and its text.
//!
//! Plain looks at the file system and nothing else: no notifications, since they do not come from
//! network mounts, from bind mounts of single files, or from the directory that Kubernetes swaps
//! under a ConfigMap. Nothing is read through a name that came from outside: an order names a rule
//! file, and only files that were listed here are known by a name.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::rulefile::MAX_FILE_BYTES;

/// Rule files of a directory; further ones, by name, are left out and named.
pub const FILES_MAX: usize = 1000;

/// Entries of the directory that are looked at; one with more is no directory of rule files.
pub const ENTRIES_MAX: usize = 10_000;

/// Files that are left out and named; further ones are left out without.
const IGNORED_MAX: usize = 100;

/// Longest name of a rule file.
const NAME_BYTES_MAX: usize = 200;

/// What is in the directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// Rule files by the name that orders give.
    pub files: BTreeMap<String, Listed>,
    /// Files that look like rule files and cannot be ordered by, with the reason.
    pub ignored: Vec<(String, String)>,
}

/// One file of the directory.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name with its ending.
    pub file: String,
    /// Where it lies.
    pub path: PathBuf,
    /// What changes when the file does.
    pub stamp: Stamp,
}

/// What a file system says of a file without its bytes being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    bytes: u64,
    inode: (u64, u64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            modified: (file.mtime(), file.mtime_nsec()),
            // A file whose time of writing was put back has been changed all the same.
            changed: (file.ctime(), file.ctime_nsec()),
            bytes: file.len(),
            inode: (file.dev(), file.ino()),
        }
    }
}

/// Lists the rule files of a directory: `NAME.yaml` and `NAME.yml`, but neither tests of rules
/// (`NAME.test.yaml`) nor hidden files. Links are followed.
///
/// # Errors
/// When the directory cannot be listed, or has too many entries.
pub fn list(directory: &Path) -> io::Result<Listing> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (count, entry) in fs::read_dir(directory)?.enumerate() {
        if count >= ENTRIES_MAX {
            let words = format!("it has more than {ENTRIES_MAX} entries");
            return Err(io::Error::other(words));
        }
        let Ok(file) = entry?.file_name().into_string() else { continue };
        if let Some(name) = name_of(&file) {
            found.push((name.to_owned(), file));
        }
    }
    // `shop.yaml` before `shop.yml`: of two files with one name the first is taken.
    found.sort();
    let mut listing = Listing::default();
    for (name, file) in found {
        let path = directory.join(&file);
        // What vanished meanwhile, or is a link to nothing, is not there. Directories and pipes are
        // no files, and a pipe would never end.
        let Some(metadata) = fs::metadata(&path).ok().filter(Metadata::is_file) else { continue };
        let why = if !is_plain(&name) {
            Some("its name may have letters, digits, - and _ only".to_owned())
        } else if let Some(taken) = listing.files.get(&name) {
            Some(format!("{} has the same name", taken.file))
        } else if listing.files.len() >= FILES_MAX {
            Some(format!("there are more than {FILES_MAX} rule files"))
        } else {
            None
        };
        match why {
            None => {
                let stamp = Stamp::of(&metadata);
                listing.files.insert(name, Listed { file, path, stamp });
            }
            Some(why) if listing.ignored.len() < IGNORED_MAX => listing.ignored.push((file, why)),
            Some(_) => {}
        }
    }
    Ok(listing)
}

/// The name by which orders know a file of this name; none when it is no rule file.
fn name_of(file: &str) -> Option<&str> {
    let name = file.strip_suffix(".yaml").or_else(|| file.strip_suffix(".yml"))?;
    let is_rules = !name.is_empty() && !name.starts_with('.') && !name.ends_with(".test");
    is_rules.then_some(name)
}

/// Whether a rule file can have this name.
pub fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(plain)
}

/// Reads a file, and no more of it than tells that it is too large for a rule file.
///
/// # Errors
/// In words, when it cannot be read or is no text.
pub fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("it cannot be read: {error}"))?;
    // The cut may go through a letter; such a file is refused for its size.
    if bytes.len() > MAX_FILE_BYTES {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        format!("it is no text: byte {} is not UTF-8", place + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rule_files_are_listed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path();
        for file in [
            "shop.yaml",
            "till.yml",
            "shop.yml",
            "shop.test.yaml",
            ".hidden.yaml",
            "..data",
            "a b.yaml",
            "notes.txt",
            "yaml",
            ".yaml",
            "my.rules.yaml",
        ] {
            fs::write(path.join(file), "version: 1\n").expect("writes");
        }
        fs::create_dir(path.join("folder.yaml")).expect("a folder");
        std::os::unix::fs::symlink("nowhere", path.join("broken.yaml")).expect("a link");
        std::os::unix::fs::symlink("till.yml", path.join("linked.yaml")).expect("a link");
        let listing = list(path).expect("lists");
        let names: Vec<&str> = listing.files.keys().map(String::as_str).collect();
        assert_eq!(names, ["linked", "shop", "till"]);
        assert_eq!(listing.files["shop"].file, "shop.yaml");
        let ignored: Vec<&str> = listing.ignored.iter().map(|(file, _)| file.as_str()).collect();
        assert_eq!(ignored, ["a b.yaml", "my.rules.yaml", "shop.yml"]);
        assert!(list(&path.join("shop.yaml")).is_err());
    }

    #[test]
    fn files_beyond_the_limit_are_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for number in 0..FILES_MAX + 2 {
            fs::write(dir.path().join(format!("r{number:04}.yaml")), "").expect("writes");
        }
        let listing = list(dir.path()).expect("lists");
        assert_eq!((listing.files.len(), listing.ignored.len()), (FILES_MAX, 2));
        assert!(listing.ignored[0].1.contains("more than 1000"), "{:?}", listing.ignored);
        for number in 0..ENTRIES_MAX {
            fs::write(dir.path().join(number.to_string()), "").expect("writes");
        }
        let refused = list(dir.path()).expect_err("too many entries");
        assert!(refused.to_string().contains("more than 10000 entries"), "{refused}");
    }

    #[test]
    fn a_file_is_read_with_a_bound_and_must_be_text() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("r.yaml");
        fs::write(&path, "ü".repeat(MAX_FILE_BYTES)).expect("writes");
        let text = read(&path).expect("is cut and not refused");
        assert!(text.len() > MAX_FILE_BYTES && text.len() < MAX_FILE_BYTES + 8);
        fs::write(&path, b"version: 1\n\xff").expect("writes");
        assert_eq!(read(&path), Err("it is no text: byte 12 is not UTF-8".to_owned()));
        assert!(
            read(&dir.path().join("none.yaml")).is_err_and(|why| why.contains("cannot be read"))
        );
    }
}
