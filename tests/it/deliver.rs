//! Delivery over loopback: the worker over a real store, webhooks against receivers that behave as
//! badly as receivers do.

mod alertmanager;
mod cloudevents;
mod github;
mod gitlab;
mod hostile;
mod own_shape;
mod receiver;
mod slack;
mod webhook;
mod worker;
