//! Delivery over loopback: the worker over a real store, webhooks against receivers that behave as
//! badly as receivers do.

mod cluster;
mod kubernetes_service;
mod kubernetes_undo;
mod order;
mod progressive;
mod receiver;
mod rights;
mod webhook;
mod worker;
