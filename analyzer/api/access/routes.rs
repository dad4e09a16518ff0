//! What each route needs: one table. A route that is not in it needs the most.

use super::policy::Scope;

/// What a request must bring, where tokens are configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: whether we live, and the files of the page, which hold no data.
    Nothing,
    /// A token, unless `/metrics` is open.
    Metrics,
    /// A token of this scope or a higher one.
    Token(Scope),
}

/// What a route needs, and how it may be brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What must be brought.
    pub need: Need,
    /// Whether the token may stand in the path: only where controllers ask that cannot send
    /// headers. Paths end up in logs of proxies and in other people's configuration.
    pub by_path: bool,
}

const READ: Need = Need::Token(Scope::Read);
const CONTROL: Need = Need::Token(Scope::Control);
const OPERATE: Need = Need::Token(Scope::Operate);

/// Method and pattern as the router has it; `*` at the end stands for anything, `*` as the method
/// for every one. The first line that fits counts.
const TABLE: &[(&str, &str, Need)] = &[
    ("GET", "/", Need::Nothing),
    ("GET", "/assets/{name}", Need::Nothing),
    ("GET", "/healthz", Need::Nothing),
    ("GET", "/readyz", Need::Nothing),
    ("GET", "/metrics", Need::Metrics),
    ("GET", "/v1/analyses", READ),
    ("POST", "/v1/analyses", CONTROL),
    ("GET", "/v1/analyses/{id}", READ),
    ("GET", "/v1/analyses/{id}/history", READ),
    ("GET", "/v1/analyses/{id}/timeline", READ),
    ("GET", "/v1/analyses/{id}/rules", READ),
    ("GET", "/v1/analyses/{id}/verdict", READ),
    ("GET", "/v1/analyses/{id}/events", READ),
    ("POST", "/v1/analyses/{id}/cancel", OPERATE),
    ("GET", "/v1/services", READ),
    ("GET", "/v1/rules", READ),
    ("GET", "/v1/rules/{name}", READ),
    ("GET", "/v1/access", READ),
    ("GET", "/v1/openapi.json", Need::Nothing),
    ("POST", "/v1/analyses/{id}/override", OPERATE),
    ("GET", "/v1/deliveries", READ),
    ("GET", "/v1/deliveries/{key}", READ),
    ("POST", "/v1/deliveries/{key}/resend", OPERATE),
];

/// Routes that controllers ask, with the token in the path where they have no headers. They open
/// analyses by GET too, and end those that they opened.
const FOR_CONTROLLERS: &[(&str, &str, Need)] = &[
    ("GET", "/v1/integrations/argo/template.yaml", READ),
    ("GET", "/v1/integrations/argo/rollout.yaml", READ),
    ("GET", "/v1/integrations/flagger/canary.yaml", READ),
    ("*", "/v1/integrations/*", CONTROL),
    ("*", "/api/v1/query", READ),
    ("GET", "/canaryConfig", READ),
    ("GET", "/canaryConfig/{id}", READ),
    ("*", "/canary/*", CONTROL),
    ("*", "/standalone_canary_analysis", CONTROL),
    ("*", "/standalone_canary_analysis/*", CONTROL),
    ("PUT", "/pipelines/{executionId}/cancel", OPERATE),
    ("POST", "/judge", CONTROL),
];

/// What a request needs by its method and the pattern of the route that it matched.
pub fn needed(method: &str, pattern: Option<&str>) -> Entry {
    // Nothing is there, which any token may be told.
    let Some(pattern) = pattern else { return Entry { need: READ, by_path: true } };
    // Whatever answers GET answers HEAD.
    let method = if method == "HEAD" { "GET" } else { method };
    let fits = |&(of, path, need): &(&str, &str, Need)| {
        let is_path = match path.strip_suffix('*') {
            Some(start) => pattern.starts_with(start),
            None => pattern == path,
        };
        (is_path && (of == method || of == "*")).then_some(need)
    };
    if let Some(need) = FOR_CONTROLLERS.iter().find_map(fits) {
        return Entry { need, by_path: true };
    }
    Entry { need: TABLE.iter().find_map(fits).unwrap_or(OPERATE), by_path: false }
}

/// Whether a route has a line of its own.
pub fn is_listed(method: &str, pattern: &str) -> bool {
    let fits = |&(of, path, _): &(&str, &str, Need)| {
        (of == method || of == "*")
            && path.strip_suffix('*').map_or(pattern == path, |start| pattern.starts_with(start))
    };
    TABLE.iter().chain(FOR_CONTROLLERS).any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_needs_the_most() {
        let check = |method: &str, pattern, need, by_path| {
            assert_eq!(needed(method, pattern), Entry { need, by_path }, "{method} {pattern:?}");
        };
        check("GET", Some("/"), Need::Nothing, false);
        check("HEAD", Some("/v1/rules"), READ, false);
        check("POST", Some("/v1/rules"), OPERATE, false);
        check("GET", Some("/v1/unheard-of"), OPERATE, false);
        check("DELETE", Some("/v1/analyses"), OPERATE, false);
        check("GET", Some("/v1/integrations/argo"), CONTROL, true);
        check("POST", Some("/v1/integrations/flagger/{hook}"), CONTROL, true);
        check("GET", Some("/v1/integrationsx"), OPERATE, false);
        check("GET", None, READ, true);
    }
}
