//! What the controllers of Deployments, Argo Rollouts and Flagger do when objects change.

use serde_json::{Value, json};

use super::world::{Key, World, key};

const APPS: &str = "apis/apps/v1";
const ARGO: &str = "apis/argoproj.io/v1alpha1";
const FLAGGER: &str = "apis/flagger.app/v1beta1";

/// Where a kind keeps revisions.
struct Marks {
    hash: &'static str,
    number: &'static str,
    before: &'static str,
}

const DEPLOYMENT: Marks = Marks {
    hash: "pod-template-hash",
    number: "deployment.kubernetes.io/revision",
    before: "deployment.kubernetes.io/revision-history",
};
const ROLLOUT: Marks = Marks {
    hash: "rollouts-pod-template-hash",
    number: "rollout.argoproj.io/revision",
    before: "rollout.argoproj.io/revision-history",
};

/// Lets every controller look at everything once.
pub fn settle(world: &mut World) {
    let keys: Vec<Key> = world.objects.keys().cloned().collect();
    for key in keys {
        match (key.0.as_str(), key.2.as_str()) {
            (APPS, "deployments") => deployment(world, &key),
            (ARGO, "rollouts") => rollout(world, &key),
            (FLAGGER, "canaries") => canary(world, &key),
            _ => {}
        }
    }
}

fn put(world: &mut World, key: &Key, object: Value) {
    if world.objects[key] != object {
        world.store(key.clone(), object);
    }
}

/// The hash that stands for a template.
pub fn hash(template: &Value) -> String {
    let bytes = template.to_string().into_bytes();
    let fnv = bytes
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("{fnv:x}")
}

/// Makes the revision of a template, or takes it up again; gives its hash and number.
fn revision(world: &mut World, owner: &Key, marks: &Marks) -> (String, String) {
    let object = world.objects[owner].clone();
    let template = &object["spec"]["template"];
    let hash = hash(template);
    let uid = &object["metadata"]["uid"];
    let number = |set: &Value| -> u64 {
        let text = set["metadata"]["annotations"][marks.number].as_str();
        text.expect("a revision").parse().expect("a number")
    };
    let owned = |set: &Value| set["metadata"]["ownerReferences"][0]["uid"] == *uid;
    let sets = world.objects.iter().filter(|(key, set)| key.2 == "replicasets" && owned(set));
    let highest = sets.map(|(_, set)| number(set)).max().unwrap_or(0);
    let set_key = key(APPS, &owner.1, "replicasets", &format!("{}-{hash}", owner.3));
    let mut set = match world.objects.get(&set_key) {
        Some(set) => set.clone(),
        None => {
            let mut template = template.clone();
            template["metadata"]["labels"][marks.hash] = json!(hash);
            template["metadata"]["creationTimestamp"] = Value::Null;
            let mut labels = template["metadata"]["labels"].clone();
            labels[marks.hash] = json!(hash);
            json!({ "metadata": { "name": set_key.3, "namespace": owner.1, "labels": labels,
                        "annotations": { marks.number: "0" },
                        "ownerReferences": [{ "uid": uid, "controller": true, "name": owner.3 }] },
                    "spec": { "template": template } })
        }
    };
    let now = number(&set);
    if now < highest || now == 0 {
        let annotations = &mut set["metadata"]["annotations"];
        if now > 0 {
            let before = annotations[marks.before].as_str().map(|text| format!("{text},"));
            annotations[marks.before] = json!(format!("{}{now}", before.unwrap_or_default()));
        }
        annotations[marks.number] = json!((highest + 1).to_string());
        world.store(set_key, set.clone());
    }
    (hash, number(&set).to_string())
}

fn deployment(world: &mut World, key: &Key) {
    let mut object = world.objects[key].clone();
    if object["spec"]["paused"] == true {
        return;
    }
    let (_, number) = revision(world, key, &DEPLOYMENT);
    object["metadata"]["annotations"][DEPLOYMENT.number] = json!(number);
    let replicas = object["spec"]["replicas"].clone();
    object["status"] = json!({
        "observedGeneration": object["metadata"]["generation"],
        "replicas": replicas, "readyReplicas": replicas,
    });
    put(world, key, object);
}

fn rollout(world: &mut World, key: &Key) {
    let (hash, number) = revision(world, key, &ROLLOUT);
    let mut object = world.objects[key].clone();
    object["metadata"]["annotations"][ROLLOUT.number] = json!(number);
    let steps = object["spec"]["strategy"]["canary"]["steps"].as_array().cloned();
    let steps = steps.unwrap_or_default();
    let is_paused = object["spec"]["paused"] == true;
    let generation = object["metadata"]["generation"].to_string();
    let status = &mut object["status"];
    status["observedGeneration"] = json!(generation);
    if status["currentPodHash"] != hash {
        status["currentPodHash"] = json!(hash);
        status["currentStepIndex"] = json!(0);
        for name in ["abort", "promoteFull"] {
            status[name] = json!(false);
        }
        status["pauseConditions"] = Value::Null;
        if status["stableRS"].is_null() {
            status["stableRS"] = json!(hash);
        }
    }
    let is_full = status["stableRS"] == hash;
    if is_full {
        // An abort has nothing to abort, and is dropped without a word.
        status["abort"] = json!(false);
        status["promoteFull"] = json!(false);
        status["currentStepIndex"] = json!(steps.len());
        status["phase"] = json!("Healthy");
    } else if is_paused {
        status["phase"] = json!("Paused");
    } else if status["abort"] == true {
        status["phase"] = json!("Degraded");
        status["currentStepIndex"] = json!(0);
        status["pauseConditions"] = Value::Null;
    } else if status["promoteFull"] == true {
        status["stableRS"] = json!(hash);
        status["promoteFull"] = json!(false);
        status["currentStepIndex"] = json!(steps.len());
        status["pauseConditions"] = Value::Null;
        status["phase"] = json!("Healthy");
    } else if status["pauseConditions"].is_null() {
        walk(status, &steps, &hash);
    }
    put(world, key, object);
}

/// Goes on to the next pause, past the one that was just ended.
fn walk(status: &mut Value, steps: &[Value], hash: &str) {
    let mut index = status["currentStepIndex"].as_u64().unwrap_or(0) as usize;
    let was_paused = status["phase"] == "Paused";
    if was_paused && steps.get(index).is_some_and(|step| step.get("pause").is_some()) {
        index += 1;
    }
    while steps.get(index).is_some_and(|step| step.get("pause").is_none()) {
        index += 1;
    }
    status["currentStepIndex"] = json!(index);
    if index < steps.len() {
        status["phase"] = json!("Paused");
        status["pauseConditions"] = json!([{ "reason": "CanaryPauseStep" }]);
    } else {
        status["stableRS"] = json!(hash);
        status["phase"] = json!("Healthy");
    }
}

fn canary(world: &mut World, at: &Key) {
    let mut object = world.objects[at].clone();
    let target = object["spec"]["targetRef"]["name"].as_str().expect("a target").to_owned();
    let target = key(APPS, &at.1, "deployments", &target);
    let phase = object["status"]["phase"].as_str().unwrap_or_default().to_owned();
    if phase != "Progressing" && phase != "WaitingPromotion" {
        return;
    }
    let threshold = object["spec"]["analysis"]["threshold"].as_u64().unwrap_or(1);
    let ended = if object["status"]["failedChecks"].as_u64() >= Some(threshold) {
        "Failed"
    } else if object["spec"]["skipAnalysis"] == true {
        "Succeeded"
    } else {
        return;
    };
    object["status"]["phase"] = json!(ended);
    object["status"]["canaryWeight"] = json!(0);
    let template = world.objects[&target]["spec"]["template"].clone();
    let primary = key(APPS, &at.1, "deployments", &format!("{}-primary", target.3));
    if ended == "Succeeded" && world.objects.contains_key(&primary) {
        let mut promoted = world.objects[&primary].clone();
        let labels = promoted["spec"]["template"]["metadata"]["labels"].clone();
        promoted["spec"]["template"] = template;
        promoted["spec"]["template"]["metadata"]["labels"] = labels;
        put(world, &primary, promoted);
    }
    let mut down = world.objects[&target].clone();
    down["spec"]["replicas"] = json!(0);
    put(world, &target, down);
    put(world, at, object);
}
