//! Kayenta's users, its remote judge, and those who ask for the verdict as a metric.

mod clients;
mod judge;
mod query;
mod requests;
mod series;
