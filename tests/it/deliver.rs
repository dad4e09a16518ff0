//! Delivery over loopback: the worker over a real store, webhooks against receivers that behave as
//! badly as receivers do.

mod order;
mod receiver;
mod webhook;
mod worker;
