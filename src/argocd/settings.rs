use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::ApplicationName;
use crate::secret::Secret;

/// `[argocd]`: the Argo CD that rolls out what we commit.
#[derive(Debug, Clone)]
pub struct ArgoCdSettings {
    /// Where its API server is, without `/api`.
    pub url: Url,
    /// What we may do there.
    pub access: Access,
    /// PEM certificates to trust besides the system's.
    pub ca_bundle: Option<PathBuf>,
    /// How long an application may take from its refresh to the end of the rollout.
    pub timeout: Duration,
}

/// What we may do at an Argo CD.
#[derive(Debug, Clone)]
pub enum Access {
    /// Ask its API, as an account that may `get` applications.
    Token(Secret),
    /// Tell its webhook of pushes, as a Git host does.
    Webhook {
        /// Where that is, `https://argocd.example.com/api/webhook`.
        url: Url,
        /// Argo CD's `webhook.github.secret`, where it has one.
        secret: Option<Secret>,
    },
}

impl ArgoCdSettings {
    /// How long a follow-up lasts unless the settings say something else.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
}

/// Which applications are an environment's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Selection {
    /// Those that read its files from its branch.
    #[default]
    Paths,
    /// Those with these names.
    Named(Vec<ApplicationName>),
    /// Those with these labels: a selector of Kubernetes.
    Labels(String),
}
