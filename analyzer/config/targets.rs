//! `targets:` of the configuration: where what orders name may be, whom we trust there, and as whom
//! we come.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::reading::{Place, Reading, Tls};
use crate::{
    outward::{
        networks::{self, Networks},
        tls::TlsOptions,
    },
    telemetry::secret::Secret,
};

/// Networks that may be listed, in each of the two lists.
const NETWORKS_MAX: usize = 256;

/// How targets are asked.
#[derive(Clone, Debug, Default)]
pub struct TargetOptions {
    /// Where they may be.
    pub networks: Networks,
    /// Trust and identity.
    pub tls: TlsOptions,
    /// Headers of every request to them.
    pub headers: Vec<(String, Secret)>,
}

/// The section as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Targets {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
    #[serde(default)]
    tls: Option<Tls>,
    #[serde(default)]
    headers: BTreeMap<String, Place>,
}

impl Reading<'_> {
    pub(super) fn targets(&mut self, targets: Targets) -> TargetOptions {
        let Targets { allow, deny, tls, headers } = targets;
        let networks =
            Networks { allow: self.networks("allow", &allow), deny: self.networks("deny", &deny) };
        let tls = self.tls("targets.tls", tls.as_ref());
        // Orders say where the targets are, so whoever may order could have the secret sent to
        // themselves.
        if !headers.is_empty() && allow.is_empty() {
            self.fault(
                "targets.headers would be sent wherever an order says; expected targets.allow, the \
                 networks that may see them",
            );
        }
        let headers = self.headers("targets", &headers);
        TargetOptions { networks, tls, headers }
    }

    fn networks(&mut self, key: &str, texts: &[String]) -> Vec<ipnet::IpNet> {
        if texts.len() > NETWORKS_MAX {
            let count = texts.len();
            self.fault(format!("targets.{key} names {count} networks, at most {NETWORKS_MAX}"));
        }
        let read = texts.iter().map(|text| networks::network(text));
        let mut found = Vec::new();
        for network in read {
            match network {
                Ok(network) => found.push(network),
                Err(fault) => self.fault(format!("targets.{key}: {fault}")),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::Secrets, *};

    #[test]
    fn lists_are_read_and_secrets_only_go_where_they_may() {
        let check = |yaml: &str, expected: &[&str]| {
            let env = |name: &str| (name == "KEY").then(|| "hunter2".to_owned());
            let mut reading = Reading::new(Path::new("."), &env, Secrets::Read);
            let options = reading.targets(serde_saphyr::from_str(yaml).expect("the shape"));
            let faults = reading.faults.join("\n");
            for word in expected {
                assert!(faults.contains(word), "{yaml}\n{faults}\nlacks {word:?}");
            }
            assert_eq!(faults.is_empty(), expected.is_empty(), "{yaml}\n{faults}");
            options
        };
        let options = check("{ allow: [10.0.0.0/8, '::1'], deny: [10.0.0.1] }", &[]);
        assert_eq!((options.networks.allow.len(), options.networks.deny.len()), (2, 1));
        check("{}", &[]);
        check(
            "{ allow: [10.0.0.1/8, nowhere], deny: ['::ffff:10.0.0.0/104'] }",
            &["targets.allow: \"10.0.0.1/8\"", "targets.allow: \"nowhere\"", "targets.deny"],
        );
        check("{ headers: { a: { env: KEY } } }", &["expected targets.allow"]);
        let options = check("{ allow: [10.0.0.0/8], headers: { a: { env: KEY } } }", &[]);
        assert_eq!(options.headers.len(), 1);
        check("{ tls: { cert: none.pem } }", &["targets.tls.cert", "both cert and key"]);
    }
}
