//! `clusters:` of the configuration: Kubernetes API servers by name.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::reading::{Place, Reading, Tls};
use crate::{
    kubernetes::{
        Cluster, ClusterOptions,
        credentials::{Credentials, Held},
        in_cluster, kubeconfig,
    },
    telemetry::secret::Secret,
};

/// One entry as it is written: where we run, a kubeconfig, or an address.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// The cluster that we run in.
    #[serde(default)]
    in_cluster: bool,
    #[serde(default)]
    kubeconfig: Option<PathBuf>,
    /// Of the kubeconfig; its current one when left out.
    #[serde(default)]
    context: Option<String>,
    #[serde(default)]
    server: Option<String>,
    #[serde(default)]
    token: Option<Place>,
    #[serde(default)]
    tls: Option<Tls>,
    /// Where mechanisms say none.
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    timeout: Option<String>,
}

impl Reading<'_> {
    /// Checks every cluster as far as that can be done without asking it.
    pub(super) fn clusters(
        &mut self,
        entries: BTreeMap<String, Entry>,
    ) -> BTreeMap<String, ClusterOptions> {
        let mut clusters = BTreeMap::new();
        for (name, entry) in entries {
            let at = format!("clusters.{name}");
            let Some(options) = self.cluster(&at, entry) else { continue };
            match Cluster::new(options.clone(), None) {
                Ok(_) => {
                    clusters.insert(name, options);
                }
                Err(why) => self.fault(format!("{at}: {why}")),
            }
        }
        clusters
    }

    fn cluster(&mut self, at: &str, entry: Entry) -> Option<ClusterOptions> {
        let Entry { in_cluster, kubeconfig, context, server, token, tls, namespace, timeout } =
            entry;
        let timeout = self.duration(&format!("{at}.timeout"), timeout.as_deref());
        let has_credentials = token.is_some() || tls.is_some();
        if context.is_some() && kubeconfig.is_none() {
            self.fault(format!("{at}.context is there without kubeconfig"));
        }
        if has_credentials && server.is_none() {
            self.fault(format!("{at} has token or tls without server, which brings its own"));
        }
        let options = match (in_cluster, kubeconfig, server) {
            (true, None, None) => {
                in_cluster::options(self.env, Path::new(in_cluster::ACCOUNT_DIR), timeout)
            }
            (false, Some(path), None) => {
                kubeconfig::options(&self.home(&path), context.as_deref(), timeout)
            }
            (false, None, Some(server)) => {
                let credentials = self.credentials(at, token.as_ref(), tls)?;
                Ok(ClusterOptions { server, credentials, namespace: None, timeout })
            }
            _ => {
                Err("expected one of `in_cluster: true`, `kubeconfig: PATH`, `server: URL`".into())
            }
        };
        match options {
            Ok(options) => {
                Some(ClusterOptions { namespace: namespace.or(options.namespace), ..options })
            }
            Err(why) => {
                self.fault(format!("{at}: {why}"));
                None
            }
        }
    }

    /// A token in a file is left there, to be read again: it may be renewed.
    fn credentials(
        &mut self,
        at: &str,
        token: Option<&Place>,
        tls: Option<Tls>,
    ) -> Option<Credentials> {
        let held = |text: String| Held::Text(Secret::new(text));
        let token = match token {
            None => None,
            Some(place) => {
                let read = self.secret(&format!("{at}.token"), place)?;
                Some(self.file_of(place).map_or(Held::Text(read), Held::File))
            }
        };
        let tls = self.tls(&format!("{at}.tls"), tls.as_ref());
        let (ca, cert) = (tls.ca.map(held), tls.identity.map(Held::Text));
        Some(Credentials { token, ca, cert, key: None })
    }

    /// A path as people write it: `~/` is the home directory.
    fn home(&self, path: &Path) -> PathBuf {
        let home = (self.env)("HOME").filter(|home| !home.is_empty());
        match (path.strip_prefix("~"), home) {
            (Ok(rest), Some(home)) => Path::new(&home).join(rest),
            _ => self.base.join(path),
        }
    }
}
