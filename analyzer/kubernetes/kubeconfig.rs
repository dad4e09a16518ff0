//! A kubeconfig: one context of it becomes the options of a cluster.
//!
//! What kubectl would do and we do not is refused by name: to run a plugin, to trust anybody, to
//! act as somebody else. Files that a kubeconfig names are read again for every request.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use base64::Engine;
use serde::Deserialize;

use super::{
    cluster::ClusterOptions,
    credentials::{Credentials, Held},
};
use crate::telemetry::secret::Secret;

/// Largest kubeconfig.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: Option<String>,
    #[serde(default)]
    contexts: Option<Vec<Named>>,
    #[serde(default)]
    clusters: Option<Vec<Named>>,
    #[serde(default)]
    users: Option<Vec<Named>>,
}

/// One entry of any of the three lists.
#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    context: Option<Context>,
    #[serde(default)]
    cluster: Option<ClusterEntry>,
    #[serde(default)]
    user: Option<User>,
}

#[derive(Clone, Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    #[serde(default)]
    certificate_authority: Option<PathBuf>,
    #[serde(default)]
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    #[serde(default)]
    tls_server_name: Option<String>,
    #[serde(default)]
    proxy_url: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    username: Option<String>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
    #[serde(rename = "as")]
    acts_as: Option<String>,
}

/// Reads a context of a kubeconfig, the current one when none is named.
///
/// # Errors
/// In words, when the file is none, the context is not in it, or it asks for what we do not do.
pub fn options(
    path: &Path,
    context: Option<&str>,
    timeout: Duration,
) -> Result<ClusterOptions, String> {
    let shown = path.display();
    let bytes = std::fs::metadata(path).map_err(|error| format!("{shown} cannot be read: {error}"));
    if bytes?.len() > FILE_BYTES_MAX {
        return Err(format!("{shown} has more than {FILE_BYTES_MAX} bytes"));
    }
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let file: File = serde_saphyr::from_str(&text)
        .map_err(|error| format!("{shown} is no kubeconfig: {}", first_line(&error.to_string())))?;
    file.options(context, base, timeout).map_err(|fault| format!("{shown}: {fault}"))
}

/// Where a fault lies, without the lines around it: they may hold a token.
fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}

impl File {
    fn options(
        self,
        context: Option<&str>,
        base: &Path,
        timeout: Duration,
    ) -> Result<ClusterOptions, String> {
        let current = self.current_context.filter(|name| !name.is_empty());
        let name = context.map(str::to_owned).or(current).ok_or_else(|| {
            "there is no current-context, expected a `context: NAME` beside `kubeconfig`".to_owned()
        })?;
        let contexts = self.contexts.unwrap_or_default();
        let context = find("context", &contexts, &name, |entry| entry.context.clone())?;
        let clusters = self.clusters.unwrap_or_default();
        let cluster = find("cluster", &clusters, &context.cluster, |entry| entry.cluster.clone())?;
        let users = self.users.unwrap_or_default();
        let user = match context.user.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => find("user", &users, name, |entry| entry.user.clone())?,
            None => User::default(),
        };
        cluster.check()?;
        user.check(context.user.as_deref().unwrap_or_default())?;
        let ca = held(
            base,
            "certificate-authority-data",
            cluster.certificate_authority_data.as_deref(),
            cluster.certificate_authority.as_deref(),
        )?;
        let credentials = Credentials { ca, ..user.credentials(base)? };
        let namespace = context.namespace.filter(|name| !name.is_empty());
        Ok(ClusterOptions { server: cluster.server, credentials, namespace, timeout })
    }
}

impl ClusterEntry {
    fn check(&self) -> Result<(), String> {
        if self.insecure_skip_tls_verify {
            return Err(
                "insecure-skip-tls-verify is set: anybody on the way could read the token; \
                        expected certificate-authority-data, the cluster's own authority (`kubectl \
                        config view --raw` of a cluster that is set up whole shows one)"
                    .to_owned(),
            );
        }
        if self.tls_server_name.as_deref().is_some_and(|name| !name.is_empty()) {
            return Err(
                "tls-server-name is not supported, expected a server whose certificate has \
                        its own name"
                    .to_owned(),
            );
        }
        if self.proxy_url.as_deref().is_some_and(|url| !url.is_empty()) {
            return Err(
                "proxy-url is not supported, expected a server that can be reached directly"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

impl User {
    fn check(&self, name: &str) -> Result<(), String> {
        let refused = if self.exec.is_some() {
            "runs a plugin (exec)"
        } else if self.auth_provider.is_some() {
            "has an auth-provider"
        } else if self.username.as_deref().is_some_and(|name| !name.is_empty()) {
            "has a username and a password"
        } else if self.acts_as.as_deref().is_some_and(|name| !name.is_empty()) {
            "acts as somebody else (as)"
        } else {
            return Ok(());
        };
        Err(format!(
            "user {name:?} {refused}, which is not supported; expected a token, a tokenFile or a \
             client certificate, such as those of a service account of its own"
        ))
    }

    fn credentials(&self, base: &Path) -> Result<Credentials, String> {
        let token = match (&self.token_file, &self.token) {
            (Some(file), _) => Some(Held::File(base.join(file))),
            (None, Some(token)) if !token.is_empty() => Some(Held::Text(Secret::new(&**token))),
            (None, _) => None,
        };
        let cert = held(
            base,
            "client-certificate-data",
            self.client_certificate_data.as_deref(),
            self.client_certificate.as_deref(),
        )?;
        let key = held(
            base,
            "client-key-data",
            self.client_key_data.as_deref(),
            self.client_key.as_deref(),
        )?;
        if cert.is_some() != key.is_some() {
            return Err("expected both a client certificate and its key, or neither".to_owned());
        }
        Ok(Credentials { token, ca: None, cert, key })
    }
}

fn find<T>(
    what: &str,
    entries: &[Named],
    name: &str,
    part: impl Fn(&Named) -> Option<T>,
) -> Result<T, String> {
    let found = entries.iter().find(|entry| entry.name == name);
    found.and_then(part).ok_or_else(|| {
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        format!("there is no {what} {name:?}, expected one of: {}", names.join(", "))
    })
}

/// Data wins over a file, as in kubectl.
fn held(
    base: &Path,
    key: &str,
    data: Option<&str>,
    file: Option<&Path>,
) -> Result<Option<Held>, String> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let bytes = base64::engine::general_purpose::STANDARD.decode(data.trim());
        let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(|| format!("{key} is not base64 of a PEM text"))?;
        return Ok(Some(Held::Text(Secret::new(text.trim()))));
    }
    let file = file.filter(|file| !file.as_os_str().is_empty());
    Ok(file.map(|file| Held::File(base.join(file))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
apiVersion: v1
kind: Config
preferences: {}
current-context: lab
contexts:
  - name: lab
    context: { cluster: lab, user: deployer, namespace: shop }
  - name: prod
    context: { cluster: prod, user: certified }
clusters:
  - name: lab
    cluster: { server: 'https://10.0.0.1:6443', certificate-authority-data: LS1wZW0tLQ== }
  - name: prod
    cluster: { server: 'https://prod', certificate-authority: ca.crt }
  - { name: open, cluster: { server: 'https://open', insecure-skip-tls-verify: true } }
users:
  - { name: deployer, user: { token: hunter2 } }
  - { name: rotated, user: { token: hunter2, tokenFile: token } }
  - { name: certified, user: { client-certificate: c.pem, client-key-data: LS1wZW0tLQ== } }
  - { name: half, user: { client-certificate: c.pem } }
  - { name: plugged, user: { exec: { command: aws, args: [eks] } } }
  - { name: broken, user: { client-certificate-data: '!', client-key: k } }
"#;

    fn read(text: &str, context: Option<&str>) -> Result<ClusterOptions, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config");
        std::fs::write(&path, text).expect("written");
        options(&path, context, Duration::from_secs(1))
    }

    #[test]
    fn a_context_becomes_a_cluster() {
        let lab = read(WHOLE, None).expect("the current one");
        assert_eq!(
            (lab.server.as_str(), lab.namespace.as_deref()),
            ("https://10.0.0.1:6443", Some("shop"))
        );
        assert_eq!(lab.credentials.token, Some(Held::Text(Secret::new("hunter2"))));
        assert_eq!(lab.credentials.ca, Some(Held::Text(Secret::new("--pem--"))));
        let prod = read(WHOLE, Some("prod")).expect("a named one").credentials;
        let Some(Held::File(ca)) = &prod.ca else { panic!("{prod:?}") };
        assert!(ca.is_absolute() && ca.ends_with("ca.crt"), "beside the kubeconfig: {ca:?}");
        assert_eq!((prod.token, prod.key), (None, Some(Held::Text(Secret::new("--pem--")))));
        let rotated = read(&WHOLE.replace("user: deployer", "user: rotated"), None);
        let Some(Held::File(_)) = rotated.expect("read").credentials.token else {
            panic!("the file")
        };
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        let check = |from: &str, to: &str, expected: &str| {
            let fault = read(&WHOLE.replace(from, to), None).expect_err(expected);
            assert!(fault.contains(expected), "{fault}");
            assert!(!fault.contains("hunter2"), "a secret is shown: {fault}");
        };
        check("cluster: lab,", "cluster: open,", "insecure-skip-tls-verify is set");
        check("user: deployer", "user: plugged", "user \"plugged\" runs a plugin (exec)");
        check("user: deployer", "user: half", "both a client certificate and its key");
        check("user: deployer", "user: broken", "client-certificate-data is not base64");
        check(
            "user: deployer",
            "user: gone",
            "no user \"gone\", expected one of: deployer, rotated",
        );
        check("current-context: lab", "current-context: ''", "no current-context");
        check("current-context: lab", "current-context: moon", "one of: lab, prod");
        check("{ token: hunter2 }", "{ token: hunter2, as: root }", "acts as somebody else");
        check(
            "{ token: hunter2 }",
            "{ username: u, password: hunter2 }",
            "a username and a password",
        );
        check(
            "{ token: hunter2 }",
            "{ token: hunter2, auth-provider: { name: gcp } }",
            "auth-provider",
        );
        check("{ token: hunter2 }", "{ token: [hunter2] }", "is no kubeconfig");
        let proxy = "https://10.0.0.1:6443', proxy-url: 'http://p";
        check("https://10.0.0.1:6443", proxy, "proxy-url is not supported");
        let none = options(Path::new("/nowhere/config"), None, Duration::from_secs(1));
        assert!(none.expect_err("no file").contains("/nowhere/config cannot be read"));
    }
}
