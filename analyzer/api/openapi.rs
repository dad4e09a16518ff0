//! The API's own description: an OpenAPI 3.1 document, served at `/v1/openapi.json`.
//!
//! Paths and shapes are collected from the routes themselves, so that no route is without its
//! description; what every route may answer is added here. Tests hold real answers against it.

use std::collections::BTreeMap;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::{
    OpenApi, ToSchema,
    openapi::{
        Content, ContentBuilder, Ref, RefOr, Response as Answer, ResponseBuilder,
        link::Link,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use super::problem::Problem;

/// Media type of every error answer (RFC 9457).
pub(super) const PROBLEM: &str = "application/problem+json";

/// Where the document is served.
pub(super) const PATH: &str = "/v1/openapi.json";

/// Where analyses are opened and listed, and where one of them is.
const ANALYSES: &str = "/v1/analyses";
const ANALYSIS: &str = "/v1/analyses/{id}";

/// Name of the security scheme.
const BEARER: &str = "bearer";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "rollgate",
        description = "Judges a release while it happens: roll back, promote, or not enough \
                       evidence. Errors are problems by RFC 9457.",
    ),
    components(schemas(Problem)),
    tags(
        (name = "analyses", description = "Releases being judged, and their verdicts"),
        (name = "deliveries", description = "Verdicts on their way to deploy systems"),
        (name = "integrations", description = "Controllers that ask"),
        (name = "services", description = "Services between releases"),
        (name = "controllers", description = "Deploy controllers that ask in their own way"),
        (name = "kayenta", description = "Kayenta's API, as far as its users ask it"),
        (name = "prometheus", description = "The verdict as a metric"),
        (name = "access", description = "Who asks, and what the asker may do"),
        (name = "rules", description = "Rule files in use"),
        (name = "probes", description = "What machines ask about us"),
        (name = "page", description = "The page for people"),
    )
)]
struct Head;

/// The document before any route is known.
pub(super) fn head() -> utoipa::openapi::OpenApi {
    Head::openapi()
}

/// Adds what every route may answer and how it is asked.
pub(super) fn finished(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token of `access.tokens`; not asked for where there are none."))
        .build();
    if let Some(components) = &mut document.components {
        components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    }
    // An empty requirement beside the other: without configured tokens none is asked for.
    document.security = Some(vec![
        SecurityRequirement::new(BEARER, Vec::<String>::new()),
        SecurityRequirement::default(),
    ]);
    for (path, item) in &mut document.paths.paths {
        let operations = [
            ("get", &mut item.get),
            ("put", &mut item.put),
            ("post", &mut item.post),
            ("delete", &mut item.delete),
            ("patch", &mut item.patch),
            ("head", &mut item.head),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            // Handlers of one name in two files would share an id.
            operation.operation_id = Some(operation_id(method, path));
            add_common(operation);
        }
    }
    link(&mut document);
    document
}

/// Says where ids come from: what is opened can be asked for.
fn link(document: &mut utoipa::openapi::OpenApi) {
    let with_id = |path: &&String| path.starts_with(ANALYSIS);
    let of_one: Vec<(String, String)> = document
        .paths
        .paths
        .iter()
        .filter(|(path, _)| with_id(path))
        .flat_map(|(_, item)| [&item.get, &item.post].into_iter().flatten())
        .filter_map(|operation| operation.operation_id.clone())
        .map(|id| (id.clone(), id))
        .collect();
    let Some(item) = document.paths.paths.get_mut(ANALYSES) else { return };
    let answers = item.post.iter_mut().flat_map(|open| &mut open.responses.responses);
    for (_, answer) in answers.filter(|(status, _)| status.starts_with('2')) {
        let RefOr::T(answer) = answer else { continue };
        let links = of_one.iter().map(|(name, id)| {
            let link = Link::builder().operation_id(id).parameter("id", "$response.body#/id");
            (name.clone(), link.build().into())
        });
        answer.links.extend(links);
    }
}

/// Answers with the document.
pub(super) fn deliver(document: &str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document.to_owned()).into_response()
}

/// `get_analyses_id_verdict` for `get /v1/analyses/{id}/verdict`.
fn operation_id(method: &str, path: &str) -> String {
    let path = path.strip_prefix("/v1").unwrap_or(path);
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    [method].into_iter().chain(words).collect::<Vec<_>>().join("_")
}

fn add_common(operation: &mut Operation) {
    let common = [
        (400, "The path, the query or a header cannot be read"),
        (401, "No token, or none that is known"),
        (403, "The token's scope does not reach so far, or a foreign page asks"),
        (500, "A defect of rollgate"),
        (503, "Not now: starting, stopping, or the store does not answer"),
    ];
    for (status, words) in common {
        operation.responses.responses.entry(status.to_string()).or_insert_with(|| problem(words));
    }
    for (status, answer) in &mut operation.responses.responses {
        // An error is a problem unless its route says otherwise.
        if let RefOr::T(answer) = answer
            && answer.content.is_empty()
            && status.starts_with(['4', '5'])
        {
            answer.content.insert(PROBLEM.to_owned(), problem_content().into());
        }
    }
    // Said by the server's own reader of heads, which knows no problems.
    let large = ResponseBuilder::new().description("The request's head is too large").build();
    operation.responses.responses.insert("431".to_owned(), large.into());
}

fn problem(words: &str) -> RefOr<Answer> {
    ResponseBuilder::new().description(words).content(PROBLEM, problem_content()).build().into()
}

fn problem_content() -> Content {
    ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build()
}

/// Answers by their status.
type Answers = BTreeMap<String, RefOr<Answer>>;

fn problems<const N: usize>(answers: [(u16, &str); N]) -> Answers {
    answers.into_iter().map(|(status, words)| (status.to_string(), problem(words))).collect()
}

macro_rules! answers {
    ($(#[$doc:meta])* $name:ident: $answers:expr) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> Answers {
                problems($answers)
            }
        }
    };
}

answers! {
    /// The path names no analysis.
    UnknownAnalysis: [(404, "There is no such analysis")]
}

answers! {
    /// A limit is reached.
    Full: [(429, "A limit is reached")]
}

answers! {
    /// What can be wrong with a body.
    Bodies: [
        (400, "The body is not the JSON that is expected"),
        (408, "The body did not arrive in time"),
        (413, "The body is too large"),
        (415, "The body is not declared as JSON"),
        (422, "Understood, and it cannot be carried out; `errors` says why"),
    ]
}
