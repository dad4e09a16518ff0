//! A Kubernetes API server over plain HTTPS: who we are, single objects, whole lists, patches.
//!
//! Nothing is watched and nothing is cached: what deploys is read just before it is changed, and a
//! list is asked for when it is needed. Answers are bounded in bytes, pages and time; tokens and
//! certificates that lie in files are read again for every request, because those of a service
//! account expire within the hour. It knows no verdicts: what is done to an object is decided in
//! `deliver`.

pub mod cluster;
pub mod credentials;
pub mod error;
pub mod in_cluster;
pub mod kubeconfig;
pub mod object;
pub mod pod;

pub use cluster::{Cluster, ClusterOptions};
pub use error::ClusterError;
pub use pod::Pod;
