//! Targets that are found and not typed: names, files, lists over HTTP, pods.
//!
//! A discovery is asked at its own pace, whoever looks and how often ([`finder`]); what it said last
//! stays true until it says otherwise, and for a stated time. It says where instances are and never
//! how they are: an instance that it no longer names is gone, not down, and a discovery that does not
//! answer makes nobody healthy or sick.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use reqwest::Url;

use super::target::Target;
use crate::{
    kubernetes::{Cluster, object::Name},
    outward::tls::TlsOptions,
    telemetry::secret::Secret,
};

pub mod dns;
pub mod file_sd;
pub mod finder;
mod groups;
pub mod http_sd;
pub mod kubernetes;

use dns::DnsName;

/// Instances of one discovery, of all arms that are found in it.
pub const LISTED_MAX: usize = 10_000;

/// Bytes of a file, and of an answer.
pub const LIST_BYTES_MAX: usize = 4 << 20;

/// Shortest time between two questions.
pub const REFRESH_MIN: Duration = Duration::from_secs(1);

/// Label tests of one arm.
pub const MATCHES_MAX: usize = 16;

/// One instance that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it is.
    pub target: Target,
    /// What is said of it.
    pub labels: BTreeMap<String, String>,
}

/// Asks once.
#[async_trait]
pub trait Ask: Send {
    /// Every instance there is now.
    ///
    /// # Errors
    /// In words, when there is no answer, or one that cannot be believed as a whole.
    async fn ask(&mut self) -> Result<Vec<Listed>, String>;
}

/// What to ask.
#[derive(Clone, Debug)]
pub enum Sought {
    /// Every address of a name.
    Dns(DnsName),
    /// Lists in files, as Prometheus' `file_sd_configs` reads them.
    Files(Vec<PathBuf>),
    /// A list over HTTP, as Prometheus' `http_sd_configs` reads it.
    Http(HttpList),
    /// Pods.
    Kubernetes(Pods),
}

/// A list over HTTP.
#[derive(Clone, Debug)]
pub struct HttpList {
    /// Where it is.
    pub url: Url,
    /// Headers of every question.
    pub headers: Vec<(String, Secret)>,
    /// Whom we trust, and as whom we come.
    pub tls: TlsOptions,
}

/// Pods of a cluster.
#[derive(Clone, Debug)]
pub struct Pods {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// Their namespace.
    pub namespace: Name,
    /// Which of them: `app=shop,version in (v1,v2)`.
    pub selector: String,
    /// Where they serve their metrics.
    pub port: PodPort,
    /// How they serve them.
    pub metrics: MetricsPlace,
}

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodPort {
    /// By number.
    Number(u16),
    /// By the name that a container gives it.
    Named(String),
}

/// Where an instance serves metrics, apart from its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsPlace {
    /// `http` or `https`.
    pub scheme: String,
    /// With a slash before it.
    pub path: String,
}

impl Default for MetricsPlace {
    fn default() -> Self {
        Self { scheme: "http".to_owned(), path: "/metrics".to_owned() }
    }
}

impl MetricsPlace {
    /// The instance at an address.
    pub(super) fn target(&self, address: &str) -> Result<Target, String> {
        let odd = |c: char| c.is_whitespace() || c.is_control() || "/?#@\\".contains(c);
        if address.is_empty() || address.contains(odd) {
            let found = super::excerpt::excerpt(address);
            return Err(format!("found the target {found:?}, expected host:port"));
        }
        let url = format!("{}://{address}{}", self.scheme, self.path);
        Target::parse(&url).map_err(|error| error.to_string())
    }
}

/// Which of the found instances belong to an arm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    tests: Vec<(String, String)>,
}

impl Matches {
    /// Each label has this value, or, where the value begins with `!`, another one. A label that is
    /// not there has the empty value, as in PromQL.
    pub fn new(tests: &BTreeMap<String, String>) -> Self {
        Self { tests: tests.iter().map(|(name, value)| (name.clone(), value.clone())).collect() }
    }

    /// Whether an instance passes every test.
    pub fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        self.tests.iter().all(|(name, expected)| {
            let found = labels.get(name).map_or("", String::as_str);
            match expected.strip_prefix('!') {
                Some(other) => found != other,
                None => found == expected,
            }
        })
    }

    /// For people: ` with version=v2, zone!=a`, or nothing.
    pub fn words(&self) -> String {
        let tests = self.tests.iter().map(|(name, value)| match value.strip_prefix('!') {
            Some(other) => format!("{name}!={other}"),
            None => format!("{name}={value}"),
        });
        let tests: Vec<String> = tests.collect();
        if tests.is_empty() { String::new() } else { format!(" with {}", tests.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_tell_the_arms_apart() {
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let found = labels(&[("version", "v2"), ("zone", "a")]);
        let check = |tests: &[(&str, &str)], expected: bool, words: &str| {
            let matches = Matches::new(&labels(tests));
            assert_eq!((matches.holds(&found), matches.words().as_str()), (expected, words));
        };
        check(&[], true, "");
        check(&[("version", "v2")], true, " with version=v2");
        check(&[("version", "!v2")], false, " with version!=v2");
        check(&[("version", "!v1"), ("zone", "a")], true, " with version!=v1, zone=a");
        check(&[("absent", "x")], false, " with absent=x");
        check(&[("absent", "!x")], true, " with absent!=x");
        check(&[("absent", "")], true, " with absent=");
    }

    #[test]
    fn an_address_is_no_more_than_that() {
        let place = MetricsPlace::default();
        assert_eq!(&**place.target("10.0.0.7:8080").expect("a target").name(), "10.0.0.7:8080");
        assert_eq!(&**place.target("[::1]:1").expect("a target").name(), "[::1]:1");
        for odd in ["", "a b", "a/b", "me@h:1", "h:1?x", "h#", "h:99999", "h\\x"] {
            assert!(place.target(odd).is_err(), "{odd}");
        }
    }
}
