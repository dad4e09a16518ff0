//! An API server behind TLS: a private authority, a service account whose files are renewed, and a
//! kubeconfig whose user shows a certificate.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rollgate::{
    kubernetes::{Cluster, in_cluster, kubeconfig, object::Name},
    outward::tls::install,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::kube_api::{KubeApi, TOKEN, templates::NAMESPACE};

const TIMEOUT: Duration = Duration::from_secs(5);

/// An authority of one's own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

/// A certificate that it has signed, and its key.
struct Signed {
    pem: String,
    key_pem: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let own = params.self_signed(&key).expect("a certificate");
        let (pem, der) = (own.pem(), own.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    fn sign(&self, purpose: ExtendedKeyUsagePurpose) -> Signed {
        let names = vec!["127.0.0.1".to_owned(), "kubernetes.default.svc".to_owned()];
        let mut params = CertificateParams::new(names).expect("parameters");
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Signed {
            pem: cert.pem(),
            key_pem: key.serialize_pem(),
            der: cert.der().clone(),
            key_der: key.serialize_der(),
        }
    }
}

/// Takes TLS off and hands on to the API server.
struct Front {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Front {
    async fn start(api: &KubeApi, authority: &Authority, of_clients: Option<&Authority>) -> Self {
        install();
        let own = authority.sign(ExtendedKeyUsagePurpose::ServerAuth);
        let config = ServerConfig::builder();
        let config = match of_clients {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der.clone()).expect("an authority");
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
                config.with_client_cert_verifier(verifier.expect("a verifier"))
            }
        };
        let key = PrivateKeyDer::try_from(own.key_der).expect("a key");
        let config = config.with_single_cert(vec![own.der], key).expect("a pair");
        let (acceptor, behind) = (TlsAcceptor::from(Arc::new(config)), api.address);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                open.spawn(async move {
                    let mut front = acceptor.accept(stream).await?;
                    let mut back = TcpStream::connect(behind).await?;
                    tokio::io::copy_bidirectional(&mut front, &mut back).await
                });
            }
        });
        Self { address, task }
    }
}

async fn asks(cluster: &Cluster) -> Result<usize, String> {
    let namespace = Name::new(NAMESPACE).expect("a name");
    let found = cluster.list_pods(&namespace, "").await;
    found.map(|pods| pods.len()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_pod_trusts_its_own_cluster_and_takes_up_what_is_renewed() {
    let (api, dir) = (KubeApi::start().await, tempfile::tempdir().expect("a directory"));
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let front = Front::start(&api, &authority, None).await;
    let write = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).expect("written");
    };
    write("token", TOKEN);
    write("ca.crt", &stranger.pem);
    write("namespace", NAMESPACE);
    let port = front.address.port().to_string();
    let env = |name: &str| match name {
        "KUBERNETES_SERVICE_HOST" => Some("127.0.0.1".to_owned()),
        "KUBERNETES_SERVICE_PORT" => Some(port.clone()),
        _ => None,
    };
    let options = in_cluster::options(env, dir.path(), TIMEOUT).expect("a cluster");
    let cluster = Cluster::new(options, None).expect("good options");
    assert_eq!(cluster.namespace(), Some(NAMESPACE));
    let words = asks(&cluster).await.expect_err("a stranger's authority");
    assert!(words.contains("certificate") && api.asked().is_empty(), "{words}");
    write("ca.crt", &authority.pem);
    assert_eq!(asks(&cluster).await, Ok(0));
    api.takes(&["renewed"]);
    assert!(asks(&cluster).await.is_err_and(|words| words.starts_with("401")));
    write("token", "renewed\n");
    assert_eq!(asks(&cluster).await, Ok(0));
    write("ca.crt", "no certificate");
    let words = asks(&cluster).await.expect_err("no authority");
    assert!(words.starts_with("credentials: tls.ca: "), "{words}");
}

#[tokio::test]
async fn a_user_shows_a_certificate() {
    let (api, dir) = (KubeApi::start().await, tempfile::tempdir().expect("a directory"));
    let (authority, users) = (Authority::new("cluster"), Authority::new("users"));
    let front = Front::start(&api, &authority, Some(&users)).await;
    let own = users.sign(ExtendedKeyUsagePurpose::ClientAuth);
    let data = |text: &str| STANDARD.encode(text);
    let write = |user: serde_json::Value| {
        let path = dir.path().join("config");
        let config = json!({
            "current-context": "c",
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
            "clusters": [{ "name": "c", "cluster": {
                "server": format!("https://{}", front.address),
                "certificate-authority-data": data(&authority.pem) } }],
            "users": [{ "name": "u", "user": user }],
        });
        std::fs::write(&path, config.to_string()).expect("written");
        path
    };
    let open = |path: &Path| {
        let options = kubeconfig::options(path, None, TIMEOUT).expect("a kubeconfig");
        Cluster::new(options, None)
    };
    // The server behind takes a token besides, as it stands behind no certificate itself.
    let shown = json!({ "token": TOKEN, "client-certificate-data": data(&own.pem),
                        "client-key-data": data(&own.key_pem) });
    assert_eq!(asks(&open(&write(shown)).expect("good options")).await, Ok(0));
    std::fs::write(dir.path().join("c.pem"), &own.pem).expect("written");
    std::fs::write(dir.path().join("k.pem"), &own.key_pem).expect("written");
    let files = json!({ "token": TOKEN, "client-certificate": "c.pem", "client-key": "k.pem" });
    assert_eq!(asks(&open(&write(files)).expect("good options")).await, Ok(0));
    let none = open(&write(json!({ "token": TOKEN }))).expect("good options");
    assert!(asks(&none).await.is_err());
    let broken = json!({ "client-certificate-data": data("x"), "client-key-data": data("y") });
    let words = open(&write(broken)).expect_err("no certificate");
    assert!(words.contains("tls.cert and tls.key"), "{words}");
    assert_eq!(api.asked().len(), 2);
}
