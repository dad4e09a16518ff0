//! What the parts of a configuration have in common: secrets and certificates by place, lengths of
//! time, and every fault put down with where it is.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{outward::tls::TlsOptions, telemetry::secret::Secret};

/// Time that an answer has when nothing else is configured.
pub(super) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Where a secret is.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    #[serde(default)]
    env: Option<String>,
    #[serde(default)]
    file: Option<PathBuf>,
}

/// Trust and identity of connections that we make.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    /// Authorities, as a PEM file.
    #[serde(default)]
    ca: Option<PathBuf>,
    /// Our certificate chain, as a PEM file.
    #[serde(default)]
    cert: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    key: Option<Place>,
}

/// Reads one configuration: where it lies, where the environment is, and what is wrong so far.
pub(super) struct Reading<'a> {
    pub(super) base: &'a Path,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) faults: Vec<String>,
}

impl Reading<'_> {
    /// Puts a fault down.
    pub(super) fn fault(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    pub(super) fn headers(
        &mut self,
        at: &str,
        headers: &BTreeMap<String, Place>,
    ) -> Vec<(String, Secret)> {
        headers
            .iter()
            .filter_map(|(name, place)| {
                Some((name.clone(), self.secret(&format!("{at}.headers.{name}"), place)?))
            })
            .collect()
    }

    pub(super) fn secret(&mut self, at: &str, place: &Place) -> Option<Secret> {
        let read = match (&place.env, &place.file) {
            (Some(name), None) => {
                (self.env)(name).ok_or_else(|| format!("environment variable {name} is not set"))
            }
            (None, Some(file)) => {
                self.text(file).map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            }
            _ => Err("expected either `env: NAME` or `file: PATH`".to_owned()),
        };
        let read = read.and_then(|secret| match secret.is_empty() {
            true => Err("the secret is empty".to_owned()),
            false => Ok(secret),
        });
        read.map(Secret::new).map_err(|fault| self.fault(format!("{at}: {fault}"))).ok()
    }

    /// The file that a secret lies in, if it does.
    pub(super) fn file_of(&self, place: &Place) -> Option<PathBuf> {
        place.file.as_ref().map(|file| self.base.join(file))
    }

    /// Certificates are only read here; whether they can be used is said where they are.
    pub(super) fn tls(&mut self, at: &str, tls: Option<&Tls>) -> TlsOptions {
        let Some(tls) = tls else { return TlsOptions::default() };
        let mut file = |key: &str, path: &PathBuf| {
            let text = self.text(path);
            text.map_err(|fault| self.faults.push(format!("{at}.{key}: {fault}"))).ok()
        };
        let ca = tls.ca.as_ref().and_then(|path| file("ca", path));
        let cert = tls.cert.as_ref().and_then(|path| file("cert", path));
        let key = tls.key.as_ref().and_then(|place| self.secret(&format!("{at}.key"), place));
        if tls.cert.is_some() != tls.key.is_some() {
            self.fault(format!("{at}: expected both cert and key, or neither"));
        }
        let identity =
            cert.zip(key).map(|(cert, key)| Secret::new(format!("{cert}\n{}\n", key.expose())));
        TlsOptions { ca, identity }
    }

    fn text(&self, file: &Path) -> Result<String, String> {
        let file = self.base.join(file);
        std::fs::read_to_string(&file)
            .map_err(|error| format!("{} cannot be read: {error}", file.display()))
    }

    pub(super) fn duration(&mut self, at: &str, text: Option<&str>) -> Duration {
        let Some(text) = text else { return TIMEOUT_DEFAULT };
        let seconds = |text: &str| match text.strip_suffix("ms") {
            Some(millis) => millis.trim().parse::<f64>().ok().map(|millis| millis / 1000.0),
            None => text.strip_suffix('s').and_then(|secs| secs.trim().parse::<f64>().ok()),
        };
        match seconds(text) {
            Some(secs) if secs > 0.0 && secs <= 300.0 => Duration::from_secs_f64(secs),
            Some(_) | None => {
                self.fault(format!("{at} is {text:?}, expected 1ms to 300s, such as `10s`"));
                TIMEOUT_DEFAULT
            }
        }
    }
}
