//! Files for controllers, ready to apply, with our own address in them.
//!
//! What is filled in comes from a query, so only plain words are taken: nothing that could end a
//! string or begin a member of its own.

use super::{
    super::{
        input::{duration, query},
        problem::Problem,
    },
    one_line, own_address,
};
use axum::{
    http::{HeaderMap, Uri, header},
    response::{IntoResponse, Response},
};

mod asked;

use asked::{ArgoQuery, FlaggerQuery};

/// Media type of what is served (RFC 9512).
const YAML: &str = "application/yaml";
/// Characters of anything that is filled in.
const WORD_CHARS_MAX: usize = 200;
/// Inconclusive measurements that are suffered where no deadline is named: at 10 s apart, 11 days.
const INCONCLUSIVE_MAX: u64 = 100_000;
/// Measurements beyond the deadline before a rollout is paused.
const INCONCLUSIVE_SPARE: u64 = 30;

const TEMPLATE: &str = include_str!("samples/argo_template.yaml");
const ROLLOUT: &str = include_str!("samples/argo_rollout.yaml");
const CANARY: &str = include_str!("samples/flagger_canary.yaml");

/// An AnalysisTemplate and a ClusterAnalysisTemplate for Argo Rollouts, ready to apply.
#[utoipa::path(
    get, path = "/v1/integrations/argo/template.yaml", tag = "controllers", params(ArgoQuery),
    responses((status = 200, description = "Both", body = serde_json::Value, content_type = YAML))
)]
pub(super) async fn argo_template(uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let asked: ArgoQuery = query(&uri)?;
    let mut fill = Fill::new(&headers, asked.address)?;
    if asked.service.is_some() {
        fill.word("service", asked.service, "")?;
    }
    fill.word("name", asked.name, "rollgate")?;
    let rules = fill.optional("rules", asked.rules)?;
    fill.put("rules", rules.map_or_else(String::new, |rules| format!("&rules={rules}")));
    let interval = asked.interval.unwrap_or_else(|| "10s".to_owned());
    let (every, deadline) = (secs(&interval)?, asked.deadline.as_deref().map(secs).transpose()?);
    fill.word("interval", Some(interval), "")?;
    let enough = |deadline: f64| (deadline / every).ceil() as u64 + INCONCLUSIVE_SPARE;
    let limit = deadline.map_or(INCONCLUSIVE_MAX, |deadline| enough(deadline).min(1_000_000));
    fill.put("inconclusive_limit", limit.to_string());
    let token = asked.token.unwrap_or_else(|| "rollgate".to_owned());
    if !token.is_empty() {
        fill.word("token", Some(token), "")?;
    }
    let ends_by_success = asked.argo.is_none_or(|version| knows_success_limit(&version));
    fill.put(if ends_by_success { "success" } else { "background" }, String::new());
    let one = |kind: &str| fill.filled(&TEMPLATE.replace("@kind@", kind));
    Ok(yaml(format!("{}---\n{}", one("AnalysisTemplate"), one("ClusterAnalysisTemplate"))))
}

/// An example of a Rollout that uses the template.
#[utoipa::path(
    get, path = "/v1/integrations/argo/rollout.yaml", tag = "controllers", params(ArgoQuery),
    responses((status = 200, description = "The example", body = serde_json::Value, content_type = YAML))
)]
pub(super) async fn argo_rollout(uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let asked: ArgoQuery = query(&uri)?;
    let mut fill = Fill::new(&headers, asked.address)?;
    fill.word("service", asked.service, "shop")?;
    fill.word("name", asked.name, "rollgate")?;
    Ok(yaml(fill.filled(ROLLOUT)))
}

/// An example of a Canary whose hooks ask rollgate.
#[utoipa::path(
    get, path = "/v1/integrations/flagger/canary.yaml", tag = "controllers", params(FlaggerQuery),
    responses((status = 200, description = "The example", body = serde_json::Value, content_type = YAML))
)]
pub(super) async fn flagger_canary(uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let asked: FlaggerQuery = query(&uri)?;
    let mut fill = Fill::new(&headers, asked.address)?;
    let name = asked.name.unwrap_or_else(|| "shop".to_owned());
    fill.word("service", asked.service, &name)?;
    fill.word("name", Some(name), "")?;
    fill.word("namespace", asked.namespace, "default")?;
    if let Some(rules) = fill.optional("rules", asked.rules)? {
        fill.put("rules", rules);
    }
    let own = fill.value("address");
    let token = if asked.path_token == Some(true) { "/t/TOKEN" } else { "" };
    fill.put("address", format!("{own}{token}"));
    fill.put("own", own);
    Ok(yaml(fill.filled(CANARY)))
}

fn yaml(text: String) -> Response {
    ([(header::CONTENT_TYPE, YAML)], text).into_response()
}

/// Whether a metric may end at its first success: `consecutiveSuccessLimit`, since 1.8.
fn knows_success_limit(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map(|part| part.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (1, 8),
        _ => true,
    }
}

fn secs(text: &str) -> Result<f64, Problem> {
    let secs = duration(text)?.as_secs_f64();
    if (1.0..=86_400.0 * 14.0).contains(&secs) {
        return Ok(secs);
    }
    Err(Problem::bad_request(format!("query: {text:?} found, expected 1s to 14 days")))
}

/// What stands for the placeholders of a file.
struct Fill {
    values: Vec<(&'static str, String)>,
}

impl Fill {
    fn new(headers: &HeaderMap, address: Option<String>) -> Result<Self, Problem> {
        let address = match address {
            Some(address) => address.trim_end_matches('/').to_owned(),
            None => own_address(headers).unwrap_or_else(|| "http://rollgate:8750".to_owned()),
        };
        if !address.starts_with("http://") && !address.starts_with("https://") {
            let found = one_line(&address, 60);
            let detail = format!("query: address is {found:?}, expected http://... or https://...");
            return Err(Problem::bad_request(detail));
        }
        let mut fill = Self { values: Vec::new() };
        fill.word("address", Some(address), "")?;
        Ok(fill)
    }

    fn put(&mut self, name: &'static str, value: String) {
        self.values.retain(|(known, _)| *known != name);
        self.values.push((name, value));
    }

    fn value(&self, name: &str) -> String {
        let found = self.values.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    fn word(
        &mut self,
        name: &'static str,
        value: Option<String>,
        otherwise: &str,
    ) -> Result<(), Problem> {
        let value = self.optional(name, value)?.unwrap_or_else(|| otherwise.to_owned());
        self.put(name, value);
        Ok(())
    }

    /// A word that may stand in a YAML file as it is.
    fn optional(&self, name: &str, value: Option<String>) -> Result<Option<String>, Problem> {
        let Some(value) = value else { return Ok(None) };
        let is_plain = |c: char| {
            c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/' | '[' | ']')
        };
        let begins = |c: char| c.is_ascii_alphanumeric();
        let is_word = value.starts_with(begins)
            && value.len() <= WORD_CHARS_MAX
            && value.chars().all(is_plain)
            && !value.ends_with(':');
        if is_word {
            return Ok(Some(value));
        }
        let found = one_line(&value, 60);
        let detail = format!("query: {name} is {found:?}, expected letters, digits, . - and _");
        Err(Problem::bad_request(detail))
    }

    /// A file with everything filled in; lines of what is not filled in are left out.
    fn filled(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        for line in text.lines() {
            let (line, wanted) = match line.split_once("#?") {
                Some((line, name)) => {
                    (line.trim_end(), self.values.iter().any(|(known, _)| *known == name))
                }
                None => (line, true),
            };
            if wanted {
                filled.push_str(line);
                filled.push('\n');
            }
        }
        for (name, value) in &self.values {
            filled = filled.replace(&format!("@{name}@"), value);
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_argo_rollouts() {
        let check = |version: &str, expected: bool| {
            assert_eq!(knows_success_limit(version), expected, "{version}");
        };
        check("1.7", false);
        check("v1.7.2", false);
        check("1.8", true);
        check("1.10.0", true);
        check("2.0", true);
        check("latest", true);
    }

    #[test]
    fn only_plain_words_are_filled_in() {
        let check = |word: &str, expected: bool| {
            let fill = Fill { values: Vec::new() };
            let found = fill.optional("service", Some(word.to_owned()));
            assert_eq!(found.is_ok(), expected, "{word:?}");
        };
        check("shop", true);
        check("shop-api.v2", true);
        for bad in [
            "", "a b", "a: b", "a:", "a\nb", "\"", "{", "*a", "&a", "!x", "- a", "#", "@name@", "ä",
        ] {
            check(bad, false);
        }
        check(&"x".repeat(WORD_CHARS_MAX + 1), false);
    }
}
