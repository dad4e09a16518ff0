//! The embedded page: a fixed set of files, served from the binary itself.
//!
//! No file is ever read from disk here. The page may load nothing from anywhere else and run no
//! inline script, whatever text an analysis puts on it.

use axum::{
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use super::{openapi::PROBLEM, problem::Problem};

/// One embedded file.
struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! asset {
    ($name:literal, $kind:literal) => {
        Asset {
            name: $name,
            kind: $kind,
            bytes: include_bytes!(concat!("../../dashboards/web/", $name)),
        }
    };
}

const INDEX: Asset = asset!("index.html", "text/html; charset=utf-8");

const ASSETS: [Asset; 9] = [
    asset!("access.js", "text/javascript; charset=utf-8"),
    asset!("app.js", "text/javascript; charset=utf-8"),
    asset!("dom.js", "text/javascript; charset=utf-8"),
    asset!("format.js", "text/javascript; charset=utf-8"),
    asset!("matrix.js", "text/javascript; charset=utf-8"),
    asset!("plot.js", "text/javascript; charset=utf-8"),
    asset!("rules.js", "text/javascript; charset=utf-8"),
    asset!("style.css", "text/css; charset=utf-8"),
    asset!("icon.svg", "image/svg+xml"),
];

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The page.
#[utoipa::path(
    get, path = "/", tag = "page",
    responses((status = 200, description = "HTML", body = String, content_type = "text/html"),
              (status = 304, description = "Unchanged"))
)]
pub(super) async fn index(headers: HeaderMap) -> Response {
    deliver(&INDEX, &headers)
}

/// A file of the page.
#[utoipa::path(
    get, path = "/assets/{name}", tag = "page",
    params(("name" = String, Path, description = "Name of the file", example = "app.js")),
    responses(
        (status = 200, description = "The file", content(
            (String = "text/javascript"), (String = "text/css"), (String = "image/svg+xml"))),
        (status = 304, description = "Unchanged"),
        (status = 404, description = "No such file", body = Problem, content_type = PROBLEM),
    )
)]
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => deliver(asset, &headers),
        None => Problem::unknown_path("no such asset").into_response(),
    }
}

fn deliver(asset: &Asset, request: &HeaderMap) -> Response {
    let tag = tag(asset.bytes);
    let mut response = if is_known(request, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, asset.kind)], asset.bytes).into_response()
    };
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        // Asked for again each time and answered 304: a new binary shows its new page at once.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let tag = HeaderValue::from_str(&tag).expect("hex digits in quotes are a header value");
    headers.insert(header::ETAG, tag);
    response
}

/// Whether the client has the bytes of this tag already.
pub(super) fn is_known(request: &HeaderMap, tag: &str) -> bool {
    request
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes().windows(tag.len()).any(|part| part == tag.as_bytes()))
}

fn tag(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}
