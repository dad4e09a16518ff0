//! Objects with versions, and how patches change them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::controllers;

/// Group and version, namespace, plural, name.
pub type Key = (String, String, String, String);

pub fn key(api: &str, namespace: &str, plural: &str, name: &str) -> Key {
    (api.to_owned(), namespace.to_owned(), plural.to_owned(), name.to_owned())
}

/// What a `Status` says.
#[derive(Debug)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }
}

/// All objects.
pub struct World {
    pub objects: BTreeMap<Key, Value>,
    /// Whether controllers react to what is written. Without, they lag for ever.
    pub has_controllers: bool,
    version: u64,
}

impl Default for World {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), has_controllers: true, version: 100 }
    }
}

impl World {
    /// Makes an object, as `kubectl create` does, and lets its controller see it.
    pub fn create(&mut self, api: &str, plural: &str, mut object: Value) {
        let namespace = object["metadata"]["namespace"].as_str().expect("a namespace").to_owned();
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{plural}-{name}"));
        }
        object["metadata"]["generation"] = json!(1);
        self.store(key(api, &namespace, plural, &name), object);
        self.settle();
    }

    /// Changes an object as somebody else does, and lets its controller see it.
    pub fn change(&mut self, key: &Key, change: impl FnOnce(&mut Value)) {
        let mut object = self.objects[key].clone();
        change(&mut object);
        self.replace(key, object);
    }

    /// Lets controllers do what they would.
    pub fn settle(&mut self) {
        if self.has_controllers {
            controllers::settle(self);
        }
    }

    /// Puts an object in its place under a new version.
    pub fn store(&mut self, key: Key, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key, object);
    }

    pub fn get(
        &self,
        api: &str,
        namespace: &str,
        plural: &str,
        name: &str,
    ) -> Result<&Value, Refusal> {
        self.find(&key(api, namespace, plural, name))
    }

    fn find(&self, key: &Key) -> Result<&Value, Refusal> {
        let message = || format!("{} \"{}\" not found", key.2, key.3);
        self.objects.get(key).ok_or_else(|| Refusal::new(404, "NotFound", message()))
    }

    /// A page of a list.
    pub fn list(
        &self,
        api: &str,
        namespace: &str,
        plural: &str,
        query: &BTreeMap<String, String>,
    ) -> Result<Value, Refusal> {
        let selector = query.get("labelSelector").map_or("", String::as_str);
        let is_in = |key: &Key| key.0 == api && key.1 == namespace && key.2 == plural;
        let found: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(key, object)| is_in(key) && selects(selector, &object["metadata"]["labels"]))
            .map(|(_, object)| object)
            .collect();
        let number = |name: &str, default: usize| {
            query.get(name).map_or(default, |text| text.parse().expect("a number"))
        };
        let (from, limit) = (number("continue", 0), number("limit", usize::MAX));
        let end = from.saturating_add(limit).min(found.len());
        let next = if end < found.len() { end.to_string() } else { String::new() };
        let metadata = json!({ "resourceVersion": self.version.to_string(), "continue": next });
        Ok(json!({ "kind": "List", "metadata": metadata, "items": found[from..end] }))
    }

    /// Patches an object or a part of it.
    pub fn patch(
        &mut self,
        key: &Key,
        part: Option<&str>,
        content_type: &str,
        patch: &Value,
    ) -> Result<Value, Refusal> {
        let before = self.find(key)?.clone();
        let is_built_in = key.0 == "api/v1" || key.0 == "apis/apps/v1";
        let mut after = match (part, content_type) {
            (Some("scale"), _) if key.2 == "deployments" => scale(&before),
            (Some("status") | None, _) => before.clone(),
            _ => return Err(Refusal::new(404, "NotFound", "no such part")),
        };
        let now = before["metadata"]["resourceVersion"].clone();
        match content_type {
            "application/json-patch+json" => operations(&mut after, patch)?,
            "application/merge-patch+json" => merge(&mut after, patch),
            "application/strategic-merge-patch+json" if is_built_in => merge(&mut after, patch),
            _ => {
                let message = "the body of the request was in an unknown format";
                return Err(Refusal::new(415, "UnsupportedMediaType", message));
            }
        }
        if after["metadata"]["resourceVersion"] != now {
            let message = format!(
                "Operation cannot be fulfilled on {} \"{}\": the object has been modified; please \
                 apply your changes to the latest version and try again",
                key.2, key.3
            );
            return Err(Refusal::new(409, "Conflict", message));
        }
        let mut object = before.clone();
        match part {
            Some("scale") => object["spec"]["replicas"] = after["spec"]["replicas"].clone(),
            Some(_) => object["status"] = after["status"].clone(),
            // What has a part `status` changes it only there.
            None => {
                object = after;
                object["status"] = before["status"].clone();
            }
        }
        valid(key, &object)?;
        self.replace(key, object);
        Ok(self.objects[key].clone())
    }

    fn replace(&mut self, key: &Key, mut object: Value) {
        let before = &self.objects[key];
        if *before == object {
            return;
        }
        if before["spec"] != object["spec"] {
            let generation = before["metadata"]["generation"].as_u64().unwrap_or(1);
            object["metadata"]["generation"] = json!(generation + 1);
        }
        self.store(key.clone(), object);
        self.settle();
    }
}

fn scale(deployment: &Value) -> Value {
    json!({ "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": deployment["metadata"],
            "spec": { "replicas": deployment["spec"]["replicas"] } })
}

/// What the server itself checks: a template that its own selector does not select.
fn valid(key: &Key, object: &Value) -> Result<(), Refusal> {
    if key.2 != "deployments" && key.2 != "rollouts" {
        return Ok(());
    }
    let labels = &object["spec"]["template"]["metadata"]["labels"];
    let wanted = object["spec"]["selector"]["matchLabels"].as_object();
    if wanted.into_iter().flatten().all(|(name, value)| labels[name] == *value) {
        return Ok(());
    }
    let message = format!(
        "{} \"{}\" is invalid: spec.template.metadata.labels: Invalid value: `selector` does not \
         match template `labels`",
        key.2, key.3
    );
    Err(Refusal::new(422, "Invalid", message))
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, value) in members {
        match value {
            Value::Null => drop(object.as_object_mut().expect("an object").remove(name)),
            value => merge(&mut object[name], value),
        }
    }
}

fn operations(object: &mut Value, patch: &Value) -> Result<(), Refusal> {
    // So says a real one, without a word on which test it was.
    let failed = "the server rejected our request due to an error in our request";
    let failed = || Refusal::new(422, "Invalid", failed);
    for operation in patch.as_array().ok_or_else(failed)? {
        let path = operation["path"].as_str().ok_or_else(failed)?;
        let place = object.pointer_mut(path).ok_or_else(failed)?;
        match operation["op"].as_str() {
            Some("test") if *place == operation["value"] => {}
            Some("replace") => *place = operation["value"].clone(),
            _ => return Err(failed()),
        }
    }
    Ok(())
}

/// Whether a label selector selects these labels.
fn selects(selector: &str, labels: &Value) -> bool {
    let mut depth = 0;
    let split = |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    };
    selector.split(split).filter(|part| !part.is_empty()).all(|part| {
        let values = |list: &str| -> Vec<String> {
            list.trim_matches(['(', ')']).split(',').map(|word| word.trim().to_owned()).collect()
        };
        let label = |name: &str| labels[name].as_str().map(str::to_owned);
        if let Some((name, list)) = part.split_once(" notin ") {
            label(name).is_none_or(|label| !values(list).contains(&label))
        } else if let Some((name, list)) = part.split_once(" in ") {
            label(name).is_some_and(|label| values(list).contains(&label))
        } else if let Some((name, value)) = part.split_once("!=") {
            label(name).as_deref() != Some(value)
        } else if let Some((name, value)) = part.split_once('=') {
            label(name).as_deref() == Some(value)
        } else if let Some(name) = part.strip_prefix('!') {
            label(name).is_none()
        } else {
            label(part).is_some()
        }
    })
}
