//! An append-only file of JSON lines with one writer.
//!
//! A line that a crash cut off is dropped when the file is opened: what it says had not been acted
//! on. A line that cannot be read anywhere else is a fault, since whatever it said would be
//! forgotten. Replacing the whole file is atomic.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// First line of every file: what it is, and in which version.
const HEAD: &str = "{\"rollgate_hook_memory\":1}\n";

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// It cannot be read or written.
    #[error("memory {path}: {doing}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What was tried.
        doing: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// Another hook uses it.
    #[error("memory {path} is in use; is another hook running?")]
    InUse {
        /// The file.
        path: String,
    },
    /// It holds what no hook wrote.
    #[error(
        "memory {path}:{line}: {found}\n  hint: to begin with an empty memory move the file away; \
         events of the last day may then be run again"
    )]
    Unreadable {
        /// The file.
        path: String,
        /// From 1.
        line: usize,
        /// What is wrong there.
        found: String,
    },
}

/// A file that is open for adding lines.
pub(super) struct MemoryFile {
    path: PathBuf,
    file: File,
    /// Bytes up to the end of the last whole line.
    bytes: u64,
    lines: usize,
    /// Held as long as this hook lives.
    _lock: File,
}

impl MemoryFile {
    /// Opens a file, or makes it, and gives what it holds.
    pub(super) fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>), MemoryError> {
        let fault = |doing, source| io_fault(path, doing, source);
        let lock = open(&beside(path, "lock")).map_err(|error| fault("its lock", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(MemoryError::InUse { path: path.display().to_string() });
            }
            Err(fs::TryLockError::Error(error)) => return Err(fault("its lock", error)),
        }
        let file = open(path).map_err(|error| fault("cannot be opened", error))?;
        let bytes = file.metadata().map_err(|error| fault("cannot be read", error))?.len();
        if bytes > FILE_BYTES_MAX {
            let error = io::Error::other(format!("it has {bytes} bytes"));
            return Err(fault("cannot be read", error));
        }
        let text = fs::read(path).map_err(|error| fault("cannot be read", error))?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let facts = read(path, &text[..whole])?;
        let lines = facts.len();
        let mut opened =
            Self { path: path.to_owned(), file, bytes: whole as u64, lines, _lock: lock };
        opened.cut().map_err(|error| fault("cannot be written", error))?;
        if whole == 0 {
            opened.write(HEAD.as_bytes()).map_err(|error| fault("cannot be written", error))?;
        }
        Ok((opened, facts))
    }

    /// How many facts it holds.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// Adds a fact, which the end of this process does not lose.
    pub(super) fn add(&mut self, fact: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(fact)?;
        line.push(b'\n');
        self.write(&line)?;
        self.lines += 1;
        Ok(())
    }

    /// All facts so far are on disk when this returns.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Puts these facts in place of all.
    pub(super) fn replace<T: Serialize>(&mut self, facts: &[T]) -> io::Result<()> {
        let new = beside(&self.path, "new");
        let _ = fs::remove_file(&new);
        let mut file = open(&new)?;
        let mut text = HEAD.as_bytes().to_vec();
        for fact in facts {
            serde_json::to_writer(&mut text, fact)?;
            text.push(b'\n');
        }
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        (self.file, self.bytes, self.lines) = (file, text.len() as u64, facts.len());
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        // What an earlier attempt left half written is cut off first.
        self.cut()?;
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        match self.file.metadata()?.len() == self.bytes {
            true => Ok(()),
            false => self.file.set_len(self.bytes),
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<Vec<T>, MemoryError> {
    let unreadable =
        |line, found| MemoryError::Unreadable { path: path.display().to_string(), line, found };
    let Some(rest) = text.strip_prefix(HEAD.as_bytes()) else {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        return Err(unreadable(
            1,
            "this is no memory of a hook, or one of another version".to_owned(),
        ));
    };
    let lines = rest.split_inclusive(|byte| *byte == b'\n').zip(2..);
    let read = |(line, number): (&[u8], usize)| {
        serde_json::from_slice(line).map_err(|error| unreadable(number, error.to_string()))
    };
    lines.map(read).collect()
}

pub(super) fn io_fault(path: &Path, doing: &'static str, source: io::Error) -> MemoryError {
    MemoryError::Io { path: path.display().to_string(), doing, source }
}

/// For reading and for adding, by us alone.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}
