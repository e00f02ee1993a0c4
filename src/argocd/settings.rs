use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::ApplicationName;
use tagrelay_secret::Secret;

/// `[argocd]`: the Argo CD that rolls out our commits.
#[derive(Debug, Clone)]
pub struct ArgoCdSettings {
    /// URL of the API server, without `/api`.
    pub url: Url,
    /// API token or webhook.
    pub access: Access,
    /// PEM file of CA certificates to trust in addition to the system's.
    pub ca_bundle: Option<PathBuf>,
    /// The webhook of the ApplicationSet controller, which does not share the one of the API server.
    pub set_webhook: Option<Webhook>,
    /// Time limit of a rollout, from the refresh of the application.
    pub timeout: Duration,
}

/// How Tagrelay reaches Argo CD.
#[derive(Debug, Clone)]
pub enum Access {
    /// Calls Argo CD's API, as an account that may `get` applications.
    Token(Secret),
    /// Only sends a push event to Argo CD's webhook for each commit.
    Webhook(Webhook),
}

/// A webhook that receives a push event for each commit.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// For example `https://argocd.example.com/api/webhook`.
    pub url: Url,
    /// Argo CD's `webhook.github.secret`, if it is set.
    pub secret: Option<Secret>,
}

impl ArgoCdSettings {
    /// Default of [`Self::timeout`].
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
}

/// Which applications belong to an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Selection {
    /// The applications that read files below its paths on its branch.
    #[default]
    Paths,
    /// The applications with these names.
    Named(Vec<ApplicationName>),
    /// The applications that match this Kubernetes label selector.
    Labels(String),
}
