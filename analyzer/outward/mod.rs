//! HTTP from us to others: whom we trust, as whom we come, and answers that are bounded in bytes and
//! time and shown without secrets.
//!
//! Shared by what scrapes, asks and delivers. It knows no verdicts and retries nothing.

pub mod exchange;
pub mod networks;
pub mod pattern;
pub mod tls;
