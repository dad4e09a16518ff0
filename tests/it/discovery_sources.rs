//! Discoveries against the servers they ask: a list over HTTP, an API server with pods.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rollgate::{
    kubernetes::{
        Cluster, ClusterOptions,
        credentials::{Credentials, Held},
        object::Name,
    },
    source::discovery::{
        Ask, HttpList, MetricsPlace, PodPort, Pods, http_sd::HttpAsk, kubernetes::PodsAsk,
    },
    telemetry::secret::Secret,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::kube_api::{KubeApi, TOKEN, world::key};

/// A list over HTTP: what it is asked, what it may say, and how large it may be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_over_http_is_asked_as_prometheus_asks_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/lists/shop", listener.local_addr().unwrap());
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 63\r\nContent-Type: application/json\r\n\r\n\
         [{\"targets\":[\"10.0.0.1:80\"],\"labels\":{\"version\":\"hunter2-v1\"}}]",
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 7\r\n\r\nhunter2",
        "HTTP/1.1 302 Found\r\nLocation: http://other/\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n[{\"targets\":[\"10.0.0.1:80\"]}",
        "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    ];
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = asked.clone();
    tokio::spawn(async move {
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 4096];
            let read = socket.read(&mut bytes).await.unwrap();
            kept.lock().unwrap().push(String::from_utf8_lossy(&bytes[..read]).into_owned());
            let _ = socket.write_all(answer.as_bytes()).await;
            if answer.contains("104857600") {
                while socket.write_all(&[b' '; 65536]).await.is_ok() {}
            }
        }
    });
    let list = HttpList {
        url: url.parse().unwrap(),
        headers: vec![("authorization".to_owned(), Secret::new("Bearer hunter2"))],
        tls: Default::default(),
    };
    let mut ask = HttpAsk::new(list, Duration::from_secs(30), Duration::from_secs(5)).unwrap();
    let found = ask.ask().await.unwrap();
    assert_eq!(&**found[0].target.name(), "10.0.0.1:80");
    let mut faults = Vec::new();
    for words in ["503", "302", "no whole answer", "no whole answer", "not a list of targets"] {
        let fault = ask.ask().await.unwrap_err();
        assert!(fault.contains(words) && !fault.contains("hunter2"), "{fault}\nlacks {words}");
        faults.push(fault);
    }
    let first = asked.lock().unwrap()[0].to_lowercase();
    assert!(first.starts_with("get /lists/shop http/1.1\r\n"), "{first}");
    for header in [
        "accept: application/json\r\n",
        "x-prometheus-refresh-interval-seconds: 30\r\n",
        "authorization: bearer hunter2\r\n",
    ] {
        assert!(first.contains(header), "{first}\nlacks {header}");
    }
}

/// Pods: which of them are instances, how the API server is asked, and what its refusal says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_instances_while_they_run() {
    let api = KubeApi::start().await;
    let pod = |name: &str, ip: &str, version: &str| {
        json!({
            "metadata": { "name": name, "namespace": "prod",
                          "labels": { "app": "shop", "version": version } },
            "spec": { "nodeName": "n1", "containers": [{ "name": "app", "ports": [
                { "name": "metrics", "containerPort": 9090 }] }] },
            "status": { "phase": "Running", "podIP": ip,
                        "conditions": [{ "type": "Ready", "status": "False" }] },
        })
    };
    api.world(|world| {
        world.has_controllers = false;
        for (name, ip, version) in
            [("a-x", "10.0.0.1", "v1"), ("b-0", "10.0.0.2", "v2"), ("c-x", "fd00::3", "v2")]
        {
            world.create("api/v1", "pods", pod(name, ip, version));
        }
        let mut waiting = pod("d-x", "", "v2");
        waiting["status"]["phase"] = json!("Pending");
        world.create("api/v1", "pods", waiting);
        let mut ending = pod("e-x", "10.0.0.5", "v2");
        ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        world.create("api/v1", "pods", ending);
        let mut other = pod("f-x", "10.0.0.6", "v2");
        other["metadata"]["labels"]["app"] = json!("mail");
        world.create("api/v1", "pods", other);
    });
    let token = Some(Held::Text(Secret::new(TOKEN)));
    let options = ClusterOptions {
        server: api.url(),
        credentials: Credentials { token, ..Credentials::default() },
        namespace: None,
        timeout: Duration::from_secs(5),
    };
    let pods = |port: PodPort| Pods {
        cluster: Arc::new(Cluster::new(options.clone(), None).unwrap()),
        namespace: Name::new("prod").unwrap(),
        selector: "app=shop".to_owned(),
        port,
        metrics: MetricsPlace::default(),
    };
    let mut ask = PodsAsk(pods(PodPort::Named("metrics".to_owned())));
    let found = ask.ask().await.unwrap();
    let urls: Vec<(&str, &str)> =
        found.iter().map(|one| (&**one.target.name(), one.target.metrics_url().as_str())).collect();
    assert_eq!(
        urls,
        [
            ("a-x", "http://10.0.0.1:9090/metrics"),
            ("b-0@uid-pods", "http://10.0.0.2:9090/metrics"),
            ("c-x", "http://[fd00::3]:9090/metrics"),
        ]
    );
    assert_eq!(found[1].labels["version"], "v2");
    assert_eq!(found[1].labels["__meta_kubernetes_pod_ready"], "false");
    let line = &api.asked()[0].line;
    assert!(
        line.starts_with("GET /api/v1/namespaces/prod/pods?") && line.contains("app%3Dshop"),
        "{line}"
    );
    let fault = PodsAsk(pods(PodPort::Named("web".to_owned()))).ask().await.unwrap_err();
    assert_eq!(fault, "pod a-x has no port \"web\", known are: metrics");
    api.world(|world| {
        world.change(&key("api/v1", "prod", "pods", "a-x"), |pod| {
            pod["status"]["phase"] = json!("Succeeded");
        });
    });
    assert_eq!(PodsAsk(pods(PodPort::Number(80))).ask().await.unwrap().len(), 2);
    api.forbids("list", "pods");
    let fault = ask.ask().await.unwrap_err();
    assert!(fault.contains("403"), "{fault}");
}
