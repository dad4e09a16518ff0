//! The HTTP API: routes, handlers, JSON shapes, server-sent events and the embedded page.
//!
//! It knows nothing of stores and drivers; it speaks to a [`desk::Desk`].

pub mod desk;
