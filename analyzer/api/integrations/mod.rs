//! Controllers that ask: their own requests become orders, and a verdict becomes the answer that they
//! understand.
//!
//! One file per controller. None of them decides anything: what is asked is the [`super::desk::Desk`],
//! and what is answered is its verdict in another shape.

use utoipa_axum::{router::OpenApiRouter, routes};

use super::Api;

mod judge;

/// The routes of every controller.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(judge::judge))
}
