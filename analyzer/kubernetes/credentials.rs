//! As whom we come to an API server, and whom we trust: texts, or files that are read again for
//! every request.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use super::error::ClusterError;
use crate::{outward::tls::TlsOptions, telemetry::secret::Secret};

/// Largest token or certificate file.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// A credential, or where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// The credential itself.
    Text(Secret),
    /// A file that holds it, and may hold another one tomorrow.
    File(PathBuf),
}

/// What a connection to an API server is made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The bearer token; none where a certificate says who we are.
    pub token: Option<Held>,
    /// The authorities that are trusted, as PEM; the machine's when none.
    pub ca: Option<Held>,
    /// Our certificate chain, as PEM; its key may stand below it.
    pub cert: Option<Held>,
    /// Its key, as PEM, when it stands somewhere else.
    pub key: Option<Held>,
}

/// Credentials as they are at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) token: Option<Secret>,
    ca: Option<Secret>,
    identity: Option<Secret>,
}

impl Held {
    /// The credential as it is now, without white space around it.
    ///
    /// # Errors
    /// When the file cannot be read, is empty or too large.
    pub fn read(&self) -> Result<Secret, ClusterError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => file(path)
                .map_err(|why| ClusterError::Credentials(format!("{} {why}", path.display()))),
        }
    }
}

impl Credentials {
    /// Reads what lies in files. Files are small and local, so that this may stand between two
    /// requests.
    pub(super) fn read(&self) -> Result<Shown, ClusterError> {
        let read = |held: &Option<Held>| held.as_ref().map(Held::read).transpose();
        let identity = match (read(&self.cert)?, read(&self.key)?) {
            (Some(cert), Some(key)) => {
                Some(Secret::new(format!("{}\n{}\n", cert.expose(), key.expose())))
            }
            (cert, _) => cert,
        };
        Ok(Shown { token: read(&self.token)?, ca: read(&self.ca)?, identity })
    }
}

impl Shown {
    pub(super) fn tls(&self) -> TlsOptions {
        let ca = self.ca.as_ref().map(|ca| ca.expose().to_owned());
        TlsOptions { ca, identity: self.identity.clone() }
    }
}

fn file(path: &Path) -> Result<Secret, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("has more than {FILE_BYTES_MAX} bytes"));
    }
    match text.trim() {
        "" => Err("is empty".to_owned()),
        text => Ok(Secret::new(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_is_now() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let held = Held::File(path.clone());
        assert!(held.read().expect_err("none yet").to_string().contains("cannot be read"));
        for (text, expected) in [("one\n", "one"), (" two ", "two")] {
            std::fs::write(&path, text).expect("written");
            assert_eq!(held.read().expect("read").expose(), expected);
        }
        std::fs::write(&path, "\n").expect("written");
        assert!(held.read().expect_err("nothing in it").to_string().contains("is empty"));
        std::fs::write(&path, "x".repeat(300_000)).expect("written");
        assert!(held.read().expect_err("too much").to_string().contains("more than 262144"));
    }
}
