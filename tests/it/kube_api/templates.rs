//! Objects as people apply them.

use serde_json::{Value, json};

use super::{
    KubeApi,
    world::{Key, World, key},
};

pub const NAMESPACE: &str = "production";

const APPS: &str = "apis/apps/v1";
const ARGO: &str = "apis/argoproj.io/v1alpha1";
const FLAGGER: &str = "apis/flagger.app/v1beta1";

pub fn deployment_key(name: &str) -> Key {
    key(APPS, NAMESPACE, "deployments", name)
}

pub fn service_key(name: &str) -> Key {
    key("api/v1", NAMESPACE, "services", name)
}

pub fn rollout_key(name: &str) -> Key {
    key(ARGO, NAMESPACE, "rollouts", name)
}

pub fn canary_key(name: &str) -> Key {
    key(FLAGGER, NAMESPACE, "canaries", name)
}

/// A pod template of one container.
pub fn template(app: &str, image: &str, labels: &Value) -> Value {
    let mut all = json!({ "app": app });
    for (name, value) in labels.as_object().into_iter().flatten() {
        all[name] = value.clone();
    }
    json!({ "metadata": { "labels": all },
            "spec": { "containers": [{ "name": app, "image": image,
                      "ports": [{ "name": "http", "containerPort": 8080 }] }] } })
}

impl World {
    /// A Deployment of this image; `labels` are in its template besides `app`.
    pub fn deploy(&mut self, name: &str, image: &str, labels: Value) {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": name, "namespace": NAMESPACE, "annotations": {} },
            "spec": { "replicas": 3, "selector": { "matchLabels": { "app": name } },
                      "template": template(name, image, &labels) },
        });
        self.create(APPS, "deployments", object);
    }

    /// `kubectl set image`.
    pub fn set_image(&mut self, key: &Key, image: &str) {
        self.change(key, |object| {
            object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        });
    }

    /// The image that an object runs.
    pub fn image(&self, key: &Key) -> &str {
        let template = &self.objects[key]["spec"]["template"];
        template["spec"]["containers"][0]["image"].as_str().expect("an image")
    }

    /// A Service that selects by `app` and `version`.
    pub fn serve(&mut self, name: &str, version: &str) {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": { "selector": { "app": name, "version": version }, "ports": [{ "port": 80 }] },
        });
        self.create("api/v1", "services", object);
    }

    /// Which version a Service selects.
    pub fn selected(&self, name: &str) -> &str {
        let selector = &self.objects[&service_key(name)]["spec"]["selector"];
        selector["version"].as_str().expect("a version")
    }

    /// How many pods a Deployment is to have.
    pub fn replicas(&self, name: &str) -> u64 {
        self.objects[&deployment_key(name)]["spec"]["replicas"].as_u64().expect("a number")
    }

    /// A Rollout in three steps, at its end.
    pub fn roll_out(&mut self, name: &str, image: &str) {
        let object = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
            "metadata": { "name": name, "namespace": NAMESPACE, "annotations": {} },
            "spec": { "replicas": 3, "selector": { "matchLabels": { "app": name } },
                "template": template(name, image, &Value::Null),
                "strategy": { "canary": { "steps": [
                    { "setWeight": 10 }, { "pause": { "duration": "5m" } },
                    { "setWeight": 50 }, { "pause": { "duration": "10m" } },
                    { "setWeight": 100 }] } } },
            "status": {},
        });
        self.create(ARGO, "rollouts", object);
    }

    /// A Canary whose target has just been given a new image.
    pub fn watch_canary(&mut self, name: &str, image: &str) {
        self.deploy(name, image, Value::Null);
        let object = json!({
            "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": { "targetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": name },
                      "analysis": { "interval": "30s", "threshold": 5, "maxWeight": 50 } },
            "status": { "phase": "Progressing", "failedChecks": 1, "canaryWeight": 10,
                        "lastAppliedSpec": "7d9f8c6b5" },
        });
        self.create(FLAGGER, "canaries", object);
    }
}

impl KubeApi {
    /// The images of a workload, one after the other; the last one is the newest.
    pub fn release(&self, key: &Key, images: &[&str]) {
        for image in images {
            self.world(|world| world.set_image(key, image));
        }
    }
}
