//! What the files for controllers are made for, as their queries say.

use serde::Deserialize;
use utoipa::IntoParams;

/// What a file for Argo Rollouts is made for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct ArgoQuery {
    /// The service, as rollgate knows it; `shop` when left out.
    pub service: Option<String>,
    /// Name of a rule file, without `.yaml`; the service's own when left out.
    pub rules: Option<String>,
    /// Where rollgate is reached from the cluster; where it was asked for this file when left out.
    pub address: Option<String>,
    /// Name of the template; `rollgate` when left out.
    pub name: Option<String>,
    /// Name of the secret that holds the bearer token, under `token`; `rollgate` when left out, no
    /// token at all when empty.
    pub token: Option<String>,
    /// Time between two questions; `10s` when left out.
    pub interval: Option<String>,
    /// The rule file's deadline, after which the rollout is paused when nothing is decided.
    pub deadline: Option<String>,
    /// Version of Argo Rollouts, such as `1.7`; a present one when left out.
    pub argo: Option<String>,
}

/// What a file for Flagger is made for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct FlaggerQuery {
    /// Name of the canary; `shop` when left out.
    pub name: Option<String>,
    /// Its namespace; `default` when left out.
    pub namespace: Option<String>,
    /// The service, as rollgate knows it; the canary's name when left out.
    pub service: Option<String>,
    /// Name of a rule file, without `.yaml`; the service's own when left out.
    pub rules: Option<String>,
    /// Where rollgate is reached from the cluster; where it was asked for this file when left out.
    pub address: Option<String>,
    /// Whether the hooks carry a token in their path: `true` writes `/t/TOKEN`.
    pub path_token: Option<bool>,
}
