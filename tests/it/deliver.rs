//! Delivery over loopback: the worker over a real store, webhooks against receivers that behave as
//! badly as receivers do.

mod alertmanager;
mod cloudevents;
mod cluster;
mod github;
mod gitlab;
mod hostile;
mod kubernetes_service;
mod kubernetes_undo;
mod order;
mod own_shape;
mod progressive;
mod receiver;
mod rights;
mod slack;
mod webhook;
mod worker;
