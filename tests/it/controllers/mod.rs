//! Deploy controllers that ask: what each of their questions is answered, and whole releases driven by
//! scripted controllers, written after the sources of Argo Rollouts and Flagger, through a `kill -9`
//! of the service in the middle.

use serde_json::Value;

mod argo;
mod argo_answers;
mod flagger;
mod flagger_answers;
mod releases;

/// The documents of a YAML file.
fn documents(text: &str) -> Vec<Value> {
    let read = |part: &str| serde_saphyr::from_str(part).unwrap_or_else(|e| panic!("{e}\n{part}"));
    text.split("\n---\n").map(read).collect()
}

/// A member by its path: `spec.metrics.0.name`.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, part| match part.parse::<usize>() {
        Ok(index) => &value[index],
        Err(_) => &value[part],
    })
}
