//! The rule files that the service holds: which version is in use, and what is wrong with a file
//! that is not.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api,
    analyses::ask,
    input::{AnalysisId, NoParameters, query},
    openapi::{PROBLEM, UnknownAnalysis},
    page::is_known,
    problem::Problem,
};

/// Media type of a rule file (RFC 9512).
const YAML: &str = "application/yaml";

/// The same for browsers, which would not show the other.
const TEXT: &str = "text/plain; charset=utf-8";

/// Answer to `GET /v1/rules`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RuleFiles {
    /// Why the directory cannot be read, in words; null when it can. What was known before stays
    /// in use.
    pub directory_fault: Option<String>,
    /// Every rule file, by name.
    pub rules: Vec<RuleFileView>,
    /// Files of the directory that look like rule files and are not taken, at most 100.
    pub ignored: Vec<IgnoredFile>,
}

/// One rule file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RuleFileView {
    /// Its name, as orders give it.
    pub name: String,
    /// Its file in the directory.
    pub file: String,
    /// `good`: what is on the disk is in use. `bad`: it does not load; the version before it is in
    /// use, if there is one. `gone`: the file is not there; new analyses are refused.
    pub state: String,
    /// Since when it is in that state, in unix seconds.
    pub since: f64,
    /// SHA-256 of the text that new analyses use; null when there is none.
    pub sha256: Option<String>,
    /// When that text was taken into use, in unix seconds.
    pub loaded_at: Option<f64>,
    /// SHA-256 of a text on the disk that does not load; null when it does, or cannot be read.
    pub refused_sha256: Option<String>,
    /// What is wrong with what is on the disk.
    pub faults: Vec<FaultView>,
    /// How many faults there are beyond those.
    pub more_faults: usize,
    /// What `rollgate check` warns of in the text in use.
    pub warnings: Vec<FaultView>,
}

/// One fault of a rule file, or one warning about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultView {
    /// Line, from 1; null when it is about the file as a whole.
    pub line: Option<usize>,
    /// Column in characters, from 1.
    pub column: Option<usize>,
    /// The lint that warns; null for a fault.
    pub lint: Option<String>,
    /// What was found.
    pub message: String,
    /// What comes of it for a release; said by warnings only.
    pub means: Option<String>,
    /// What was expected instead.
    pub expected: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A file that is not taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IgnoredFile {
    /// Its name.
    pub file: String,
    /// Why, in words.
    pub why: String,
}

/// A rule file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleText {
    /// The whole file.
    pub text: String,
    /// Its SHA-256, in hex.
    pub sha256: String,
}

/// Every rule file that the service holds: state, version in use, faults, warnings.
#[utoipa::path(
    get, path = "/v1/rules", tag = "rules",
    responses((status = 200, description = "All of them", body = RuleFiles))
)]
pub(super) async fn list(State(api): State<Api>, uri: Uri) -> Result<Json<RuleFiles>, Problem> {
    let NoParameters {} = query(&uri)?;
    ask(&api, api.desk.rules()).await.map(Json)
}

/// The text of a rule file that new analyses use.
#[utoipa::path(
    get, path = "/v1/rules/{name}", tag = "rules",
    params(("name" = String, Path, description = "Name of the file without its ending")),
    responses(
        (status = 200, description = "The text", content((serde_json::Value = YAML), (String = TEXT))),
        (status = 304, description = "The text is the one of `If-None-Match`"),
        (status = 404, description = "No such rule file is in use", body = Problem,
         content_type = PROBLEM),
    )
)]
pub(super) async fn text(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let NoParameters {} = query(&uri)?;
    let Path(name) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    Ok(deliver(ask(&api, api.desk.rule_text(&name)).await?, &headers))
}

/// The text of the rule file that an analysis began with.
#[utoipa::path(
    get, path = "/v1/analyses/{id}/rules", tag = "analyses", params(AnalysisId),
    responses(
        (status = 200, description = "The text", content((serde_json::Value = YAML), (String = TEXT))),
        (status = 304, description = "The text is the one of `If-None-Match`"),
        UnknownAnalysis,
    )
)]
pub(super) async fn text_of_analysis(
    State(api): State<Api>,
    AnalysisId(id): AnalysisId,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let NoParameters {} = query(&uri)?;
    Ok(deliver(ask(&api, api.desk.analysis_rules(&id)).await?, &headers))
}

fn deliver(rules: RuleText, request: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", rules.sha256);
    let accepted = request.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok());
    let is_browser = accepted.is_some_and(|accepted| accepted.contains("text/html"));
    let kind = if is_browser { TEXT } else { YAML };
    let mut response = if is_known(request, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, kind)], rules.text).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    let tag = HeaderValue::from_str(&tag).expect("hex digits in quotes are a header value");
    headers.insert(header::ETAG, tag);
    response
}
