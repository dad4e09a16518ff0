//! Who may ask what: before a request reaches its route, the token it came with is looked up and
//! held against what the route needs.
//!
//! Without tokens whoever reaches us may do everything, and only loopback does; what browsers send
//! for other sites is refused then. With tokens every route but the page's files and the probes
//! needs one. A token in the path (`/t/TOKEN/v1/integrations/...`) is taken off before routing, so
//! that no handler, log line, metric or answer ever sees it.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{
    Json,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Uri, header, uri::PathAndQuery},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    Api,
    caller::Caller,
    input::{NoParameters, query},
    problem::Problem,
};
use crate::{engine::observation::Time, telemetry::secret::Secret};

mod browser;
pub mod policy;
pub mod routes;

use browser::Foreign;
use policy::{Denied, Policy, Presented, Scope, Token};
use routes::{Entry, Need, needed};

/// What a path with a token begins with.
const PATH_TOKEN: &str = "/t/";

/// Tells the time, for tokens that expire.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// The policy in use. Clones share it, and it may be replaced while requests are answered.
#[derive(Clone)]
pub struct Access {
    policy: Arc<RwLock<Arc<Policy>>>,
    now: Clock,
}

impl Default for Access {
    /// No tokens; were there any that expire, they would have.
    fn default() -> Self {
        Self::new(Policy::default(), Arc::new(|| Time(i64::MAX)))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("policy", &self.policy()).finish_non_exhaustive()
    }
}

impl Access {
    /// Begins with a policy.
    pub fn new(policy: Policy, now: Clock) -> Self {
        Self { policy: Arc::new(RwLock::new(Arc::new(policy))), now }
    }

    /// What holds now.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on another policy holds; requests under way end by the one they began with.
    pub fn replace(&self, policy: Policy) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }
}

/// A token that stood in the path.
#[derive(Clone)]
struct PathToken(Secret);

/// Takes the token off a path, before the path is routed.
pub(super) async fn strip(mut request: Request, next: Next) -> Response {
    if let Some((token, uri)) = taken_off(request.uri()) {
        *request.uri_mut() = uri;
        request.extensions_mut().insert(PathToken(token));
    }
    next.run(request).await
}

/// The token of a path, and the rest of it.
fn taken_off(uri: &Uri) -> Option<(Secret, Uri)> {
    let path = uri.path().strip_prefix(PATH_TOKEN)?;
    let (token, rest) = path.split_once('/').unwrap_or((path, ""));
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let rest = format!("/{rest}{query}");
    // What was part of a path can be one; should it not, the token still must not stay.
    let rest = rest.parse().unwrap_or_else(|_| PathAndQuery::from_static("/"));
    Some((Secret::new(token), Uri::from(rest)))
}

/// Lets a request through to its route, or answers it.
pub(super) async fn admit(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let policy = api.options.access.policy();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let entry = needed(request.method().as_str(), route.as_deref());
    let now = (api.options.access.now)();
    match judge(&policy, &entry, &request, now) {
        Ok(token) => {
            if let Some(token) = token {
                request.extensions_mut().insert(Caller(Some(token.name.clone())));
                request.extensions_mut().insert(token.scope);
            }
            if api.options.certificates.is_some() {
                // What a proxy would say of the way to us, for addresses of ours in answers.
                let spoken = request.headers_mut().entry("x-forwarded-proto");
                spoken.or_insert(HeaderValue::from_static("https"));
            }
            next.run(request).await
        }
        Err(refusal) => {
            api.telemetry.http().unauthorized(route.as_deref(), refusal.word());
            refusal.into_response()
        }
    }
}

/// Who asks, where that had to be said.
fn judge<'a>(
    policy: &'a Policy,
    entry: &Entry,
    request: &Request,
    now: Time,
) -> Result<Option<&'a Token>, Refusal> {
    let needed = match entry.need {
        Need::Nothing => None,
        Need::Metrics if policy.open_metrics => None,
        Need::Metrics => Some(Scope::Read),
        Need::Token(scope) => Some(scope),
    };
    if policy.tokens.is_empty() {
        let is_probe = entry.need == Need::Nothing;
        let is_read = needed.is_none_or(|scope| scope == Scope::Read);
        return match browser::check(request.uri(), request.headers(), &policy.hosts, is_read) {
            Err(foreign) if !is_probe => Err(Refusal::Foreign(foreign)),
            Err(_) | Ok(()) => Ok(None),
        };
    }
    let Some(needed) = needed else { return Ok(None) };
    let in_path = request.extensions().get::<PathToken>();
    let presented = presented(request.headers(), in_path);
    let token = policy.known(presented, now).map_err(Refusal::Denied)?;
    if presented.is_some_and(|presented| presented.in_path) && !entry.by_path {
        return Err(Refusal::NotHere);
    }
    if token.scope < needed {
        return Err(Refusal::Scope { needed, had: token.scope });
    }
    Ok(Some(token))
}

/// The token of a request: that of its header, else that of its path.
fn presented<'a>(headers: &'a HeaderMap, path: Option<&'a PathToken>) -> Option<Presented<'a>> {
    let mut bearers = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
    });
    let bearer = match (bearers.next(), bearers.next()) {
        // Two of them: neither counts.
        (Some(_), Some(_)) => Some([].as_slice()),
        (bearer, _) => bearer,
    };
    let bearer = bearer.map(|token| Presented { token, in_path: false });
    bearer
        .or_else(|| path.map(|path| Presented { token: path.0.expose().as_bytes(), in_path: true }))
}

/// Why a request is not let through.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Denied(Denied),
    Scope { needed: Scope, had: Scope },
    NotHere,
    Foreign(Foreign),
}

impl Refusal {
    /// One word for the metric.
    fn word(&self) -> &'static str {
        match self {
            Refusal::Denied(Denied::Missing) => "missing",
            Refusal::Denied(Denied::Unknown) => "unknown",
            Refusal::Denied(Denied::Expired) => "expired",
            Refusal::Denied(Denied::NotInPath) | Refusal::NotHere => "path",
            Refusal::Scope { .. } => "scope",
            Refusal::Foreign(_) => "foreign",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (problem, challenge) = match self {
            Refusal::Denied(denied) => {
                let (detail, challenge) = match denied {
                    Denied::Missing => (
                        "this needs a token: `Authorization: Bearer TOKEN`",
                        "Bearer realm=\"rollgate\"",
                    ),
                    Denied::Unknown => (
                        "the token is none that is configured here",
                        "Bearer realm=\"rollgate\", error=\"invalid_token\"",
                    ),
                    Denied::Expired => (
                        "the token has expired",
                        "Bearer realm=\"rollgate\", error=\"invalid_token\"",
                    ),
                    Denied::NotInPath => (
                        "the token may not stand in a path: it is not configured with `path: true`",
                        "Bearer realm=\"rollgate\", error=\"invalid_token\"",
                    ),
                };
                (Problem::unauthorized(detail), Some(challenge.to_owned()))
            }
            Refusal::Scope { needed, had } => {
                let detail = format!("this needs the scope {needed}, the token has {had}");
                let challenge = format!(
                    "Bearer realm=\"rollgate\", error=\"insufficient_scope\", scope=\"{needed}\""
                );
                (Problem::forbidden(detail), Some(challenge))
            }
            Refusal::NotHere => {
                let detail = "a token in the path counts only where controllers ask, below \
                              /v1/integrations; send it as a header here";
                (Problem::forbidden(detail), None)
            }
            Refusal::Foreign(Foreign::Host(host)) => (
                Problem::forbidden(format!(
                    "{host:?} is no name of this host; where a proxy in front uses it, list it \
                     under `access.hosts`"
                )),
                None,
            ),
            Refusal::Foreign(Foreign::Site) => {
                (Problem::forbidden("a page of another site sent this"), None)
            }
        };
        let mut response = problem.into_response();
        if let Some(challenge) = challenge {
            let challenge = HeaderValue::from_str(&challenge).expect("words of ours are ASCII");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// What the asker may do, as `GET /v1/access` says it.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub(super) struct AccessView {
    /// Name of the token; null where none are configured.
    token: Option<String>,
    /// `read`, `control` or `operate`; each includes those before it.
    scope: &'static str,
}

/// Who asks, and what the asker may do.
#[utoipa::path(
    get, path = "/v1/access", tag = "access",
    responses((status = 200, description = "What the asker may do", body = AccessView))
)]
pub(super) async fn access(
    State(api): State<Api>,
    uri: Uri,
    request: Request,
) -> Result<Json<AccessView>, Problem> {
    let NoParameters {} = query(&uri)?;
    let had = request.extensions().get::<Scope>().copied();
    // Without tokens everything is open.
    let scope = match api.options.access.policy().tokens.is_empty() {
        true => Scope::Operate,
        false => had.unwrap_or(Scope::Read),
    };
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
    Ok(Json(AccessView { token: caller.0, scope: scope.word() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_taken_off_paths_whatever_is_behind_them() {
        let check = |uri: &str, expected: Option<(&str, &str)>| {
            let found = taken_off(&uri.parse().unwrap());
            let found = found.map(|(token, uri)| (token.expose().to_owned(), uri.to_string()));
            let expected = expected.map(|(token, uri)| (token.to_owned(), uri.to_owned()));
            assert_eq!(found, expected, "{uri}");
        };
        check("/t/abc/v1/x?y=1", Some(("abc", "/v1/x?y=1")));
        check("/t/abc", Some(("abc", "/")));
        check("/t/abc?y", Some(("abc", "/?y")));
        check("/t/", Some(("", "/")));
        check("/t//v1/x", Some(("", "/v1/x")));
        check("/t/a%2Fb//c", Some(("a%2Fb", "//c")));
        check("http://h:1/t/abc/v1/x", Some(("abc", "/v1/x")));
        check("/t", None);
        check("/v1/t/abc", None);
        check("/T/abc/v1", None);
    }

    #[test]
    fn one_bearer_counts_and_it_counts_more_than_the_path() {
        let check = |lines: &[&str], path: Option<&str>, expected: Option<(&str, bool)>| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::AUTHORIZATION, line.parse().unwrap());
            }
            let path = path.map(|token| PathToken(Secret::new(token)));
            let found = presented(&headers, path.as_ref());
            let found =
                found.map(|one| (String::from_utf8_lossy(one.token).into_owned(), one.in_path));
            let expected = expected.map(|(token, in_path)| (token.to_owned(), in_path));
            assert_eq!(found, expected, "{lines:?}");
        };
        check(&["Bearer abc"], None, Some(("abc", false)));
        check(&["bearer  abc "], Some("def"), Some(("abc", false)));
        check(&["Basic abc"], Some("def"), Some(("def", true)));
        check(&["Basic abc", "Bearer abc"], None, Some(("abc", false)));
        check(&["Bearer abc", "Bearer abc"], Some("def"), Some(("", false)));
        check(&["Bearer"], None, None);
        check(&["Bearer "], None, Some(("", false)));
        check(&["Bearerabc"], None, None);
        check(&[], None, None);
    }
}
