//! What the parts of a configuration have in common: secrets and certificates by place, lengths of
//! time, and every fault put down with where it is.

use std::{
    collections::BTreeMap,
    fmt,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::Secrets;
use crate::{
    deliver::names::NAMES,
    outward::{pattern::Pattern, tls::TlsOptions},
    telemetry::secret::Secret,
};

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

/// A text that may be a secret: as it is, or where it is.
pub(super) enum TextOrPlace {
    Text(String),
    Place(Place),
}

impl<'de> Deserialize<'de> for TextOrPlace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrPlaceVisitor)
    }
}

struct TextOrPlaceVisitor;

impl<'de> Visitor<'de> for TextOrPlaceVisitor {
    type Value = TextOrPlace;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, `{ env: NAME }` or `{ file: PATH }`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<TextOrPlace, E> {
        Ok(TextOrPlace::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TextOrPlace, A::Error> {
        Place::deserialize(MapAccessDeserializer::new(map)).map(TextOrPlace::Place)
    }
}

/// What stands for a secret that is not read. It is long enough to sign with, and signs nothing.
const STAND_IN: &str = "this stands for a secret that was not read";

/// What stands for a URL that is not read.
const URL_STAND_IN: &str = "https://not-read.invalid";

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
    /// Whether secrets are read at all.
    pub(super) secrets: Secrets,
    /// Files with secrets that everybody on the machine may read, by where they are named.
    pub(super) readable: Vec<(String, PathBuf)>,
}

impl<'a> Reading<'a> {
    /// Nothing is read yet, and nothing wrong.
    pub(super) fn new(
        base: &'a Path,
        env: &'a dyn Fn(&str) -> Option<String>,
        secrets: Secrets,
    ) -> Self {
        Self { base, env, faults: Vec::new(), secrets, readable: Vec::new() }
    }
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

    /// A URL that may be a secret.
    pub(super) fn url(&mut self, at: &str, url: &TextOrPlace) -> Secret {
        match url {
            TextOrPlace::Text(text) => Secret::new(text.as_str()),
            TextOrPlace::Place(place) => {
                match (self.secret(&format!("{at}.url"), place), self.secrets) {
                    (Some(url), Secrets::Read) => url,
                    (Some(_), Secrets::StandIn) | (None, _) => Secret::new(URL_STAND_IN),
                }
            }
        }
    }

    /// A text with names in braces that an event fills in.
    pub(super) fn pattern(&mut self, at: &str, text: &str) -> Pattern {
        Pattern::parse(text, &NAMES).unwrap_or_else(|error| {
            self.fault(format!("{at}: {error}"));
            Pattern::empty()
        })
    }

    pub(super) fn secret(&mut self, at: &str, place: &Place) -> Option<Secret> {
        let is_one_place = place.env.is_some() != place.file.is_some();
        if self.secrets == Secrets::StandIn && is_one_place {
            return Some(Secret::new(STAND_IN));
        }
        if let Some(file) = place.file.as_ref().map(|file| self.base.join(file))
            && std::fs::metadata(&file).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
        {
            self.readable.push((at.to_owned(), file));
        }
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
        // A certificate cannot be tried without its key.
        let key = key.filter(|_| self.secrets == Secrets::Read);
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
