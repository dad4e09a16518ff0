//! The API server of the cluster that we run in, as the service account of our pod.

use std::{path::Path, time::Duration};

use super::{
    cluster::ClusterOptions,
    credentials::{Credentials, Held},
};

/// Where a pod finds its service account.
pub const ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Options for the cluster around us. `env` looks up environment variables, `account` is the
/// directory of the service account. The token is read again for every request: it expires.
///
/// # Errors
/// In words, when there is no cluster around us.
pub fn options(
    env: impl Fn(&str) -> Option<String>,
    account: &Path,
    timeout: Duration,
) -> Result<ClusterOptions, String> {
    let var = |name: &str| {
        let found = env(name).filter(|value| !value.is_empty());
        found.ok_or_else(|| {
            format!(
                "environment variable {name} is not set, which every pod has; outside of a \
                 cluster give a `kubeconfig`"
            )
        })
    };
    let (host, port) = (var("KUBERNETES_SERVICE_HOST")?, var("KUBERNETES_SERVICE_PORT")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let file = |name: &str| Some(Held::File(account.join(name)));
    let namespace = std::fs::read_to_string(account.join("namespace"));
    let credentials =
        Credentials { token: file("token"), ca: file("ca.crt"), cert: None, key: None };
    // Read once at the start, so that an account that is not mounted is a fault then.
    for held in [&credentials.token, &credentials.ca].into_iter().flatten() {
        held.read().map_err(|error| {
            format!("{error}; does the pod set automountServiceAccountToken: false?")
        })?;
    }
    Ok(ClusterOptions {
        server: format!("https://{host}:{port}"),
        credentials,
        namespace: namespace.ok().map(|text| text.trim().to_owned()).filter(|it| !it.is_empty()),
        timeout,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_finds_its_cluster() {
        let dir = tempfile::tempdir().expect("a directory");
        let read = |host: &'static str| {
            let env = move |name: &str| match name {
                "KUBERNETES_SERVICE_HOST" => Some(host.to_owned()),
                "KUBERNETES_SERVICE_PORT" => Some("443".to_owned()),
                _ => None,
            };
            options(env, dir.path(), Duration::from_secs(1))
        };
        assert!(read("").expect_err("no cluster").contains("KUBERNETES_SERVICE_HOST is not set"));
        assert!(read("10.0.0.1").expect_err("no token").contains("automountServiceAccountToken"));
        std::fs::write(dir.path().join("token"), "t").expect("written");
        std::fs::write(dir.path().join("ca.crt"), "pem").expect("written");
        let found = read("10.0.0.1").expect("a cluster");
        assert_eq!((found.server.as_str(), found.namespace), ("https://10.0.0.1:443", None));
        std::fs::write(dir.path().join("namespace"), "prod\n").expect("written");
        let found = read("fd00::1").expect("a cluster");
        assert_eq!(found.server, "https://[fd00::1]:443");
        assert_eq!(found.namespace.as_deref(), Some("prod"));
    }
}
