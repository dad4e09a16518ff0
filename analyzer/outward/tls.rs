//! Trust and identity of outgoing connections: a private authority, a client certificate.

use reqwest::{Certificate, ClientBuilder, Identity};

use crate::telemetry::secret::Secret;

/// Whom we trust and as whom we come, as PEM texts. The default trusts what the machine trusts and
/// shows no certificate.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Certificates of the only authorities that are trusted; the machine's when none.
    pub ca: Option<String>,
    /// Our certificate chain and its key, one after the other.
    pub identity: Option<Secret>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authorities.
    #[error("tls.ca: {0}, expected certificates as PEM")]
    Authority(String),
    /// Our own certificate.
    #[error("tls.cert and tls.key: {0}, expected a certificate chain and its key as PEM")]
    Identity(String),
}

impl TlsOptions {
    /// Puts trust and identity into a client. `is_plain` is for clients that only speak `http://`:
    /// they need no certificates of the machine, which a bare container image does not have.
    ///
    /// # Errors
    /// When a PEM text is none.
    pub fn apply(&self, client: ClientBuilder, is_plain: bool) -> Result<ClientBuilder, TlsError> {
        install();
        let mut client = client;
        if let Some(ca) = &self.ca {
            let found = Certificate::from_pem_bundle(ca.as_bytes());
            let found = found.map_err(|error| TlsError::Authority(error.to_string()))?;
            if found.is_empty() {
                return Err(TlsError::Authority("no certificate was found".to_owned()));
            }
            client = client.tls_certs_only(found);
        } else if is_plain {
            client = client.tls_certs_only([]);
        }
        if let Some(identity) = &self.identity {
            let found = Identity::from_pem(identity.expose().as_bytes());
            client = client.identity(found.map_err(|error| TlsError::Identity(error.to_string()))?);
        }
        Ok(client)
    }
}

/// Chooses the process's TLS implementation; without one no client can be made.
pub fn install() {
    // Fails when another part has installed it already, which is just as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
