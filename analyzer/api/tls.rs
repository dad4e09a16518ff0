//! TLS on our listener: certificates from files, read again when the files change.
//!
//! Whoever renews certificates (a cert-manager, an ACME client) writes files and tells nobody, so the
//! files are read every few seconds and compared. A pair that does not fit, half written or wrong,
//! is not used; the one before stays, and that is said. HTTP/1.1 only is agreed on.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};

use super::validity;
use crate::telemetry::{Telemetry, tls::EXPIRES_SOON_SECS};

/// Time between two looks at the files.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Largest certificate, key or authorities file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Time between two warnings of a certificate that ends.
const WARN_EVERY: Duration = Duration::from_secs(12 * 3600);

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate and the chain above it, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Authorities that clients' certificates must come from, PEM. Without them clients show none.
    pub client_ca: Option<PathBuf>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A file cannot be read.
    #[error("tls.{key}: {path} cannot be read: {source}")]
    Unreadable {
        /// `cert`, `key` or `client_ca`.
        key: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("tls.{key}: {path} {found}, expected {expected}")]
    Unusable {
        /// `cert`, `key` or `client_ca`.
        key: &'static str,
        /// The file.
        path: String,
        /// What is wrong.
        found: String,
        /// What should be there.
        expected: &'static str,
    },
}

/// The certificate in use. Clones share it.
#[derive(Clone)]
pub struct Certificates {
    files: TlsFiles,
    current: Arc<RwLock<Current>>,
    look_every: Duration,
}

#[derive(Clone)]
struct Current {
    config: Arc<ServerConfig>,
    digest: [u8; 32],
    /// End of our certificate in unix seconds, where it could be read.
    not_after: Option<i64>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read, or they do not fit together.
    pub fn open(files: TlsFiles, look_every: Duration) -> Result<Self, TlsFault> {
        let current = Arc::new(RwLock::new(Texts::read(&files)?.current(&files)?));
        Ok(Self { files, current, look_every })
    }

    /// What handshakes begin with now.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.current().config
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files for as long as it is polled.
    pub(super) async fn keep_fresh(self, telemetry: Telemetry) {
        let tls = telemetry.http().tls();
        tls.in_use(false, self.current().not_after);
        let mut refused: Option<[u8; 32]> = None;
        let mut looks = tokio::time::interval(self.look_every);
        let mut warned: Option<tokio::time::Instant> = None;
        loop {
            looks.tick().await;
            let is_due = warned.is_none_or(|at| at.elapsed() >= WARN_EVERY);
            if let (Some(not_after), true) = (self.current().not_after, is_due) {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
                if not_after - now < EXPIRES_SOON_SECS {
                    tls.expires(not_after, now);
                    warned = Some(tokio::time::Instant::now());
                }
            }
            let files = self.files.clone();
            let known = self.current().digest;
            // A file on a dead network mount must not hold up anything else.
            let looked = tokio::task::spawn_blocking(move || look(&files, known)).await;
            match looked.unwrap_or(Ok(None)) {
                Ok(None) => refused = None,
                Ok(Some(current)) => {
                    tls.in_use(true, current.not_after);
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
                    (refused, warned) = (None, None);
                }
                // Each state of the files is told once.
                Err((digest, _)) if refused == Some(digest) => {}
                Err((digest, fault)) => {
                    tls.reload_failed(&fault.to_string());
                    refused = Some(digest);
                }
            }
        }
    }
}

/// What became of the files: nothing new, another certificate, or a fault of that state of them.
fn look(files: &TlsFiles, known: [u8; 32]) -> Result<Option<Current>, ([u8; 32], TlsFault)> {
    let texts = Texts::read(files).map_err(|fault| ([0; 32], fault))?;
    let digest = texts.digest();
    if digest == known {
        return Ok(None);
    }
    texts.current(files).map(Some).map_err(|fault| (digest, fault))
}

/// The files as they are.
struct Texts {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Texts {
    fn read(files: &TlsFiles) -> Result<Self, TlsFault> {
        let read = |key: &'static str, path: &PathBuf| {
            let unreadable =
                |source| TlsFault::Unreadable { key, path: path.display().to_string(), source };
            let file = std::fs::File::open(path).map_err(unreadable)?;
            let mut bytes = Vec::new();
            let mut file = io::Read::take(file, FILE_BYTES_MAX + 1);
            io::Read::read_to_end(&mut file, &mut bytes).map_err(unreadable)?;
            match bytes.len() as u64 > FILE_BYTES_MAX {
                true => Err(TlsFault::Unusable {
                    key,
                    path: path.display().to_string(),
                    found: format!("has more than {FILE_BYTES_MAX} bytes"),
                    expected: "PEM",
                }),
                false => Ok(bytes),
            }
        };
        Ok(Self {
            cert: read("cert", &files.cert)?,
            key: read("key", &files.key)?,
            client_ca: files.client_ca.as_ref().map(|path| read("client_ca", path)).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let none = Vec::new();
        for part in [&self.cert, &self.key, self.client_ca.as_ref().unwrap_or(&none)] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn current(&self, files: &TlsFiles) -> Result<Current, TlsFault> {
        let unusable = |key, path: &PathBuf, found: String, expected| TlsFault::Unusable {
            key,
            path: path.display().to_string(),
            found,
            expected,
        };
        const CERTS: &str = "certificates as PEM";
        let certs = |key, path: &PathBuf, text: &[u8]| {
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
            let found = found.map_err(|why| unusable(key, path, why.to_string(), CERTS))?;
            match found.is_empty() {
                true => Err(unusable(key, path, "holds no certificate".to_owned(), CERTS)),
                false => Ok(found),
            }
        };
        let chain = certs("cert", &files.cert, &self.cert)?;
        let not_after = chain.first().and_then(|cert| validity::not_after(cert));
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| {
            let found = "holds no key".to_owned();
            unusable("key", &files.key, found, "one private key as PEM, not encrypted")
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("ring speaks both versions");
        let verified = match (&self.client_ca, &files.client_ca) {
            (Some(text), Some(path)) => {
                let mut roots = RootCertStore::empty();
                for cert in certs("client_ca", path, text)? {
                    let fault = |why: rustls::Error| {
                        unusable("client_ca", path, why.to_string(), "certificates of authorities")
                    };
                    roots.add(cert).map_err(fault)?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = verifier.build().map_err(|why| {
                    unusable("client_ca", path, why.to_string(), "certificates of authorities")
                })?;
                versions.with_client_cert_verifier(verifier)
            }
            _ => versions.with_no_client_auth(),
        };
        let mut config = verified.with_single_cert(chain, key).map_err(|why| {
            let expected = "the key of the certificate in tls.cert";
            unusable("key", &files.key, format!("does not fit ({why})"), expected)
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Current { config: Arc::new(config), digest: self.digest(), not_after })
    }
}
