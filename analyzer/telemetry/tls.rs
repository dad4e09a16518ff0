//! Facts about TLS on our own listener: handshakes that failed, and the certificate in use.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// Seconds before its end from which on a certificate is warned of.
pub const EXPIRES_SOON_SECS: i64 = 7 * 24 * 3600;

/// The group of TLS.
pub struct TlsMetrics {
    handshakes_failed: Family<[(&'static str, &'static str); 1], Counter>,
    reloads: Family<[(&'static str, &'static str); 1], Counter>,
    not_after: Family<[(&'static str, &'static str); 1], Gauge>,
}

impl TlsMetrics {
    /// Registers the group.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            handshakes_failed: Family::default(),
            reloads: Family::default(),
            not_after: Family::default(),
        };
        registry.register(
            "tls_handshakes_failed",
            "TLS handshakes with clients that did not come about, by what was wrong",
            metrics.handshakes_failed.clone(),
        );
        registry.register(
            "tls_reloads",
            "Certificate files that changed, by whether they could be taken",
            metrics.reloads.clone(),
        );
        registry.register_with_unit(
            "tls_not_after_timestamp",
            "When our own certificate ends, in unix time; absent without TLS",
            Unit::Seconds,
            metrics.not_after.clone(),
        );
        metrics
    }

    /// A handshake did not come about. `what` is one of a few words.
    pub fn handshake_failed(&self, what: &'static str, words: &str) {
        tracing::debug!(what, words, "TLS handshake failed");
        self.handshakes_failed.get_or_create(&[("reason", what)]).inc();
    }

    /// A certificate is in use from now on. Its end is in unix seconds, where it could be read.
    pub fn in_use(&self, is_new: bool, not_after: Option<i64>) {
        if is_new {
            tracing::info!(not_after, "another certificate is in use");
            self.reloads.get_or_create(&[("outcome", "ok")]).inc();
        }
        if let Some(not_after) = not_after {
            self.not_after.get_or_create(&[("certificate", "listener")]).set(not_after);
        }
    }

    /// Changed files could not be taken; the certificate before stays in use.
    pub fn reload_failed(&self, words: &str) {
        tracing::error!(words, "the changed certificate files are not used, the ones before are");
        self.reloads.get_or_create(&[("outcome", "failed")]).inc();
    }

    /// The certificate in use ends soon, or has ended.
    pub fn expires(&self, not_after: i64, now: i64) {
        let days = (not_after - now) / (24 * 3600);
        match not_after <= now {
            true => tracing::error!(not_after, "our certificate has expired, clients refuse it"),
            false => tracing::warn!(not_after, days, "our certificate expires soon"),
        }
    }
}
