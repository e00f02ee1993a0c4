//! The table of senders. A new sender needs a file and a row.

mod acr;
mod aliyun_acr;
mod artifactory;
mod cdevents;
mod cloudevents;
mod distribution;
mod docker_hub;
mod ecr;
mod forgejo;
mod gar;
mod generic;
mod ghcr;
mod git_gitea;
mod git_github;
mod git_gitlab;
mod gitea;
mod gitlab_registry;
mod harbor;
mod huawei_swr;
mod mirantis_msr;
mod nexus;
mod quay;
mod tencent_tcr;
mod zot;

use super::authentication;
use super::credential::Credential;
use super::sender::{Host, Sender};

macro_rules! senders {
    ($($(#[$doc:meta])* $kind:ident => $file:ident,)*) => {
        /// The sender: the `kind` of a `[[receiver]]`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// Every sender, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            pub(crate) fn sender(self) -> &'static Sender {
                match self {
                    $(Self::$kind => &$file::SENDER,)*
                }
            }
        }
    };
}
senders! {
    /// Docker Hub.
    DockerHub => docker_hub,
    /// Harbor, in its own format and as CloudEvents.
    Harbor => harbor,
    /// CNCF Distribution, the `registry` image.
    Distribution => distribution,
    /// GitHub's container registry.
    Ghcr => ghcr,
    /// Quay, hosted and self-hosted.
    Quay => quay,
    /// Azure Container Registry, by its webhook or Event Grid.
    Acr => acr,
    /// AWS ECR, by EventBridge or SNS.
    Ecr => ecr,
    /// Google Artifact Registry and Container Registry, by Pub/Sub.
    Gar => gar,
    /// JFrog Artifactory.
    Artifactory => artifactory,
    /// Sonatype Nexus Repository.
    Nexus => nexus,
    /// Gitea.
    Gitea => gitea,
    /// Forgejo.
    Forgejo => forgejo,
    /// zot.
    Zot => zot,
    /// The registry of a self-managed GitLab.
    GitlabRegistry => gitlab_registry,
    /// Alibaba Cloud Container Registry.
    AliyunAcr => aliyun_acr,
    /// Tencent Container Registry.
    TencentTcr => tencent_tcr,
    /// Huawei Cloud SWR.
    HuaweiSwr => huawei_swr,
    /// Mirantis Secure Registry.
    MirantisMsr => mirantis_msr,
    /// CloudEvents of any sender.
    Cloudevents => cloudevents,
    /// CDEvents.
    Cdevents => cdevents,
    /// A CI job that announces its images.
    Generic => generic,
    /// GitHub's repositories, which announce commits.
    GitGithub => git_github,
    /// GitLab's repositories, which announce commits.
    GitGitlab => git_gitlab,
    /// Gitea's or Forgejo's repositories, which announce commits.
    GitGitea => git_gitea,
}

/// The name is not a known sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no sender called `{0}`")]
pub struct UnknownKind(pub String);

impl Kind {
    /// Returns its name in the settings.
    pub fn name(self) -> &'static str {
        self.sender().name
    }

    /// Returns its name for users.
    pub fn title(self) -> &'static str {
        self.sender().title
    }

    /// Returns its credentials in words.
    pub fn credentials(self) -> String {
        authentication::words(self.sender().credentials)
    }

    /// Returns whether the sender can send an OpenID Connect token.
    pub fn sends_identity_tokens(self) -> bool {
        self.sender().credentials.contains(&Credential::IdentityToken)
    }

    /// Returns the default host of the registry, for a sender whose requests name none.
    pub fn default_registry(self) -> Option<&'static str> {
        match self.sender().host {
            Host::Default(host) => Some(host),
            Host::Body | Host::Setting | Host::None => None,
        }
    }

    /// Returns whether the sender announces images; otherwise it announces commits.
    pub fn announces_images(self) -> bool {
        self.sender().host != Host::None
    }

    /// Returns whether the receiver's `registry` is required.
    pub fn needs_registry(self) -> bool {
        self.sender().host == Host::Setting
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.iter().copied().find(|kind| kind.name() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_parse_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
            assert_eq!(Kind::ALL.iter().filter(|other| other.name() == kind.name()).count(), 1);
        }
        assert_eq!("docker hub".parse::<Kind>(), Err(UnknownKind("docker hub".to_owned())));
    }

    #[test]
    fn documented_table_matches_the_code() {
        let documentation = include_str!("../lib.rs");
        for kind in Kind::ALL {
            let host = match kind.sender().host {
                Host::Body => "in the body",
                Host::Default(host) => host,
                Host::Setting => "`registry`",
                Host::None => "none",
            };
            let row = format!("//! | `{kind}` | {} | {host} | {} |", kind.title(), kind.credentials());
            assert!(documentation.contains(&row), "the row of the table should be:\n{row}");
        }
    }
}
