//! Sites, and why a file cannot be read.

use serde::{Deserialize, Serialize};

use tagrelay_image::{Repository, Version};

/// A position in a file that names a version of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Site {
    /// The repository of the version.
    pub repository: Repository,
    /// The version as written.
    pub version: Version,
    /// The format of the site.
    pub format: Format,
    /// The line of the tag, or else of the digest, from 1.
    pub line: u32,
}

/// The format of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `image: repository:tag@digest` in a Kubernetes object of any kind.
    Kubernetes,
    /// An entry of `images` in a kustomization.
    Kustomization,
    /// An image of a base outside the environment, without an entry in the kustomization yet.
    Inherited,
    /// `repository`, `tag` and `digest`, or `image` in a document that is not a Kubernetes object.
    HelmValues,
    /// A site in an Application, an ApplicationSet or parameters of Argo CD.
    Argocd,
    /// `image` in a Compose file.
    Compose,
    /// A scalar with a marker.
    Marker,
    /// A scalar that an `[[environment.site]]` of the settings names.
    Rule,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Kubernetes => "kubernetes",
            Self::Kustomization => "kustomization",
            Self::Inherited => "inherited",
            Self::HelmValues => "helm-values",
            Self::Argocd => "argocd",
            Self::Compose => "compose",
            Self::Marker => "marker",
            Self::Rule => "rule",
        })
    }
}

/// Why a file cannot be read. Other files are not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Unreadable {
    /// The line, from 1; `None`: the fault concerns the whole file.
    pub line: Option<u32>,
    /// The fault and what to do, without the file's name.
    pub reason: String,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.reason)
    }
}

/// A position that is left alone although a version may be expected there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The line, from 1.
    pub line: u32,
    /// The reason and what to do, as a sentence without final period.
    pub reason: String,
}

/// The content of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// All sites, in the order of the text.
    pub sites: Vec<Site>,
    /// The positions that are left alone.
    pub notes: Vec<Note>,
}
