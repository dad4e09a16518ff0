//! Around every request: counted and timed, its panic caught, its answer given safe headers.

use std::{any::Any, panic::AssertUnwindSafe, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;

use super::{Api, problem::Problem};

/// Wraps all routes.
pub(super) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map(MatchedPath::as_str);
    // A panic poisons nothing here: the request's own state is dropped with it.
    let mut response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            api.telemetry.http().panicked(route, panic_text(&*panic));
            Problem::defect().into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let status = response.status().as_u16();
    api.telemetry.http().answered(route, method.as_str(), status, began.elapsed());
    response
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}

/// Answers every path that is not a route.
pub(super) async fn no_such_path(uri: Uri) -> Problem {
    let shown = shown(&uri);
    Problem::unknown_path(format!("no route {shown}"))
}

/// Answers a route's other methods; the router adds the `Allow` header.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let shown = shown(&uri);
    let method: String = method.as_str().chars().take(20).collect();
    Problem::method_not_allowed(format!("{shown} does not take {method}"))
}

/// A path as it is shown: short, and without a token that was put into it wrongly.
fn shown(uri: &Uri) -> String {
    let parts = uri.path().split('/');
    let parts = parts.map(|part| if part.contains("rgt_") { "[redacted]" } else { part });
    parts.collect::<Vec<_>>().join("/").chars().take(200).collect()
}
