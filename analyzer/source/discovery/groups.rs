//! Lists of targets with labels, in the shape of Prometheus' file and HTTP discovery.
//!
//! A list is believed whole or not at all: an entry that was dropped in silence would be an instance
//! that nobody looks at.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{LISTED_MAX, Listed, MetricsPlace};

/// Labels of one group; bytes of one label's name and value together.
const LABELS_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 4096;

#[derive(Deserialize)]
pub(super) struct Group {
    #[serde(default)]
    targets: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Reads JSON.
pub(super) fn of_json(text: &[u8]) -> Result<Vec<Group>, String> {
    serde_json::from_slice(text).map_err(|error| format!("is not a list of targets: {error}"))
}

/// Reads YAML. An empty file is no list: it is one that is being written.
pub(super) fn of_yaml(text: &str) -> Result<Vec<Group>, String> {
    let found: Option<Vec<Group>> = serde_saphyr::from_str(text).map_err(|error| {
        let words = error.to_string();
        let first = words.lines().next().unwrap_or_default();
        format!("is not a list of targets: {first}")
    })?;
    found.ok_or_else(|| "is empty, expected a list of targets".to_owned())
}

/// The instances of all groups. `more` are labels that every one of them gets.
pub(super) fn listed(groups: Vec<Group>, more: &[(&str, &str)]) -> Result<Vec<Listed>, String> {
    let mut all = Vec::new();
    for Group { targets, labels } in groups {
        let mut labels = labels.unwrap_or_default();
        let long = labels.iter().any(|(name, value)| name.len() + value.len() > LABEL_BYTES_MAX);
        if labels.len() > LABELS_MAX || long {
            return Err(format!(
                "a group has {} labels or a long one, expected at most {LABELS_MAX}, of at most \
                 {LABEL_BYTES_MAX} bytes",
                labels.len()
            ));
        }
        labels.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        for address in targets.unwrap_or_default() {
            if all.len() == LISTED_MAX {
                return Err(format!("it names more than {LISTED_MAX} targets"));
            }
            let target = place(&labels)?.target(&address)?;
            let mut labels = labels.clone();
            labels.insert("__address__".to_owned(), address);
            all.push(Listed { target, labels });
        }
    }
    Ok(all)
}

/// Scheme, path and parameters, as Prometheus' own labels say them.
fn place(labels: &BTreeMap<String, String>) -> Result<MetricsPlace, String> {
    let scheme = labels.get("__scheme__").map_or("http", String::as_str);
    if !["http", "https"].contains(&scheme) {
        let found = crate::source::excerpt::excerpt(scheme);
        return Err(format!("found __scheme__ {found:?}, expected http or https"));
    }
    let path = labels.get("__metrics_path__").map_or("/metrics", String::as_str);
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut path = format!("{slash}{path}");
    let parameters =
        labels.iter().filter_map(|(name, value)| Some((name.strip_prefix("__param_")?, value)));
    let mut query = reqwest::Url::parse("http://h/").map_err(|error| error.to_string())?;
    query.query_pairs_mut().extend_pairs(parameters);
    if let Some(query) = query.query().filter(|query| !query.is_empty()) {
        let and = if path.contains('?') { '&' } else { '?' };
        path.push_str(&format!("{and}{query}"));
    }
    Ok(MetricsPlace { scheme: scheme.to_owned(), path })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"[
        {"targets": ["10.0.0.1:81", "10.0.0.2:81"], "labels": {"version": "v1"}},
        {"targets": ["h:1"], "labels": {"__scheme__": "https", "__metrics_path__": "m",
                                        "__param_a": "b c"}},
        {"targets": null}, {"labels": {"x": "y"}}, {"targets": [], "source": "s"}]"#;

    fn urls(listed: &[Listed]) -> Vec<&str> {
        listed.iter().map(|listed| listed.target.metrics_url().as_str()).collect()
    }

    #[test]
    fn both_notations_say_the_same() {
        let yaml = "- targets: ['10.0.0.1:81', '10.0.0.2:81']\n  labels: { version: v1 }\n\
                    - targets:\n  - h:1\n  labels:\n    __scheme__: https\n    \
                    __metrics_path__: m\n    __param_a: b c\n";
        let more = [("__meta_filepath", "f.json")];
        let json = listed(of_json(JSON.as_bytes()).expect("a list"), &more).expect("targets");
        let yaml = listed(of_yaml(yaml).expect("a list"), &more).expect("targets");
        assert_eq!(json, yaml);
        assert_eq!(
            urls(&json),
            ["http://10.0.0.1:81/metrics", "http://10.0.0.2:81/metrics", "https://h:1/m?a=b+c"]
        );
        assert_eq!(json[1].labels["version"], "v1");
        assert_eq!(json[1].labels["__meta_filepath"], "f.json");
        assert_eq!(json[1].labels["__address__"], "10.0.0.2:81");
    }

    #[test]
    fn what_is_no_list_is_refused_whole() {
        let check = |text: &str, expected: &str| {
            let found = of_json(text.as_bytes()).and_then(|groups| listed(groups, &[]));
            let fault = found.expect_err("a fault");
            assert!(fault.contains(expected), "{fault}\nlacks {expected}");
        };
        check("", "not a list of targets");
        check(&JSON[..60], "not a list of targets");
        check("{}", "not a list of targets");
        check(r#"[{"targets": [7]}]"#, "not a list of targets");
        check(r#"[{"targets": ["a:1", "b/c"]}]"#, "\"b/c\", expected host:port");
        check(
            r#"[{"targets": ["a:1"], "labels": {"__scheme__": "ftp"}}]"#,
            "expected http or https",
        );
        let long = "x".repeat(5000);
        check(&format!(r#"[{{"labels": {{"a": "{long}"}}}}]"#), "a long one");
        let many = vec!["\"h:1\""; LISTED_MAX + 1].join(",");
        check(&format!(r#"[{{"targets": [{many}]}}]"#), "more than 10000 targets");
        for text in ["", "a", "- x", "- targets: 7", "- targets: [a", "&a [*a]"] {
            assert!(of_yaml(text).and_then(|groups| listed(groups, &[])).is_err(), "{text}");
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 0x5eed_u64;
        let mut random = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize
        };
        for round in 0..3000 {
            let mut bytes = JSON.as_bytes().to_vec();
            for _ in 0..1 + random() % 4 {
                let at = random() % bytes.len();
                match random() % 3 {
                    0 => bytes[at] = (random() % 256) as u8,
                    1 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, b"[]{}\",:- \n&*#"[random() % 13]),
                }
            }
            let _ = of_json(&bytes).and_then(|groups| listed(groups, &[]));
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let _ = of_yaml(&text).and_then(|groups| listed(groups, &[]));
            assert!(round < 3000);
        }
    }
}
