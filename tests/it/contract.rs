//! Every answer of the API that a test sees is held against the OpenAPI document: its path, its
//! status, its content type, and every member of its body.

use std::{collections::BTreeMap, sync::LazyLock};

use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

use crate::wire::Answer;

/// The document, and what was made of it.
struct Contract {
    document: Value,
    /// By reference or inline schema, as text.
    validators: std::sync::Mutex<BTreeMap<String, std::sync::Arc<Validator>>>,
}

static CONTRACT: LazyLock<Contract> = LazyLock::new(|| {
    let mut document: Value = serde_json::from_str(&rollgate::api::document()).unwrap();
    close(&mut document["components"]);
    Contract { document, validators: Default::default() }
});

/// Holds an answer against the document. `request` is what was sent, from its first line.
///
/// # Panics
/// When the document does not say that this request may be answered so.
pub fn check(request: &str, answer: &Answer) {
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let path = target.split('?').next().unwrap_or(target);
    // A token in the path is no part of it.
    let routed = path.strip_prefix("/t/").map(|rest| rest.find('/').map_or("/", |at| &rest[at..]));
    let path = routed.unwrap_or(path);
    let well_formed = path.starts_with('/') && answer.status != 0;
    if well_formed && let Err(fault) = CONTRACT.check(method, path, answer) {
        panic!("{method} {path}: {fault}\n{}\n{:.2000}", answer.head, answer.body);
    }
}

impl Contract {
    fn check(&self, method: &str, path: &str, answer: &Answer) -> Result<(), String> {
        let paths = self.document["paths"].as_object().unwrap();
        // What is fixed goes before what is named by a parameter, as in the router.
        let mut found: Vec<_> = paths.iter().filter(|(known, _)| matches(known, path)).collect();
        found.sort_by_key(|(known, _)| known.matches('{').count());
        let Some((_, item)) = found.first() else { return unknown(answer, &[404]) };
        let Some(operation) = item.get(method.to_ascii_lowercase()) else {
            // HEAD is answered as GET without its body.
            return if method == "HEAD" { Ok(()) } else { unknown(answer, &[405]) };
        };
        let answers = operation["responses"].as_object().unwrap();
        let Some(documented) = answers.get(&answer.status.to_string()) else {
            let known: Vec<&String> = answers.keys().collect();
            return Err(format!("the status is not documented, known are {known:?}"));
        };
        let kind = answer.header("content-type").unwrap_or("");
        let kind = kind.split(';').next().unwrap_or(kind).trim();
        let Some(content) = documented.get("content").and_then(Value::as_object) else {
            return if answer.body.is_empty() {
                Ok(())
            } else {
                Err("a body was not expected".into())
            };
        };
        let essence = |known: &String| known.split(';').next() == Some(kind);
        let Some((_, media)) = content.iter().find(|(known, _)| essence(known)) else {
            let known: Vec<&String> = content.keys().collect();
            return Err(format!("content type {kind} is not documented, known are {known:?}"));
        };
        let is_json = kind == "application/json" || kind.ends_with("+json");
        if is_json { self.check_body(&media["schema"], &answer.json()) } else { Ok(()) }
    }

    fn check_body(&self, schema: &Value, body: &Value) -> Result<(), String> {
        let mut validators = self.validators.lock().unwrap();
        let validator = validators.entry(schema.to_string()).or_insert_with(|| {
            let whole = json!({ "allOf": [schema], "components": self.document["components"] });
            let made = jsonschema::options().with_draft(Draft::Draft202012).build(&whole);
            std::sync::Arc::new(made.unwrap_or_else(|error| panic!("{error}: {schema}")))
        });
        let validator = validator.clone();
        drop(validators);
        let faults: Vec<String> = validator
            .iter_errors(body)
            .take(5)
            .map(|error| format!("{}: {error:.300}", error.instance_path()))
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
    }
}

/// What no route answers is still a problem; whoever may not ask is not told that there is none.
fn unknown(answer: &Answer, expected: &[u16]) -> Result<(), String> {
    let is_problem = answer.header("content-type") == Some("application/problem+json");
    if is_problem && (expected.contains(&answer.status) || [401, 403].contains(&answer.status)) {
        return Ok(());
    }
    Err(format!("expected a problem with status {expected:?}: the document knows no such path"))
}

fn matches(template: &str, path: &str) -> bool {
    let (mut known, mut found) = (template.split('/'), path.split('/'));
    loop {
        match (known.next(), found.next()) {
            (None, None) => return true,
            (Some(known), Some(found)) => {
                let is_name = known.starts_with('{') && !found.is_empty();
                if !is_name && known != found {
                    return false;
                }
            }
            (Some(_), None) | (None, Some(_)) => return false,
        }
    }
}

/// Forbids members that are not described: what is answered and not written down is a fault too.
fn close(schema: &mut Value) {
    if let Value::Object(members) = schema {
        let is_plain = members.get("type") == Some(&json!("object"))
            && members.contains_key("properties")
            && !members.contains_key("additionalProperties");
        if is_plain {
            members.insert("additionalProperties".to_owned(), json!(false));
        }
        // Members of an `allOf` are closed by nobody: each sees those of the others.
        for (name, member) in members.iter_mut() {
            if name != "allOf" && name != "anyOf" {
                close(member);
            }
        }
    } else if let Value::Array(items) = schema {
        items.iter_mut().for_each(close);
    }
}

#[test]
fn the_document_is_openapi_3_1_and_describes_every_route() {
    let document = &CONTRACT.document;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let mut names = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let at = format!("{method} {path}");
            let words = operation["summary"].as_str().or(operation["description"].as_str());
            assert!(words.is_some_and(|words| words.len() > 5), "{at} has no words");
            assert!(operation["tags"][0].is_string(), "{at} has no tag");
            let name =
                operation["operationId"].as_str().unwrap_or_else(|| panic!("{at} has no id"));
            assert!(names.insert(name), "{at}: the id {name} is there twice");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for name in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let name = name.trim_end_matches('}');
                let found =
                    parameters.iter().any(|known| known["name"] == name && known["in"] == "path");
                assert!(found, "{at}: {name} is not described");
            }
        }
    }
    // Routes that are added beside the described ones would be missing above.
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("analyzer/api");
    for file in crate::architecture::sources(&root) {
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|line| line.contains(".route(")) {
            assert!(line.contains("openapi::PATH"), "{}: {line}: use routes!", file.display());
        }
    }
}

#[test]
fn a_wrong_answer_is_noticed() {
    let answer = |status, kind: &str, body: &str| {
        let head = format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}");
        Answer { status, head, body: body.to_owned() }
    };
    let check = |path: &str, answer: &Answer, expected: &str| {
        let found = CONTRACT.check("GET", path, answer).unwrap_err();
        assert!(found.contains(expected), "{path}: {found}");
    };
    let json = "application/json";
    assert_eq!(
        CONTRACT.check("GET", "/healthz", &answer(200, json, r#"{"status":"pass"}"#)),
        Ok(())
    );
    check("/healthz", &answer(202, json, "{}"), "status is not documented");
    check("/healthz", &answer(200, "text/html", "{}"), "content type text/html");
    check("/healthz", &answer(200, json, "{}"), "status");
    check("/healthz", &answer(200, json, r#"{"status":"pass","more":1}"#), "more");
    check("/nowhere", &answer(200, json, "{}"), "knows no such path");
}
