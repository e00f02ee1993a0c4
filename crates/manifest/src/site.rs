//! What is found in a file, and why one cannot be read.

use serde::{Deserialize, Serialize};

use tagrelay_image::{Repository, Version};

/// One place in a file that names a version of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Site {
    /// The repository whose version stands here.
    pub repository: Repository,
    /// The version as the file says it.
    pub version: Version,
    /// The form in which the file says it.
    pub format: Format,
    /// The line of the tag, or of the digest where there is no tag, counted from 1.
    pub line: u32,
}

/// The form of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `image: repository:tag@digest` in a Kubernetes object of any kind.
    Kubernetes,
    /// An entry of `images` in a kustomization.
    Kustomization,
    /// An image of a kustomization's base outside of the environment; the kustomization has no entry for it yet.
    Inherited,
    /// `repository`, `tag` and `digest` beside each other, or `image` in a document that is no Kubernetes object.
    HelmValues,
    /// Anything in an Application, an ApplicationSet or parameters of Argo CD.
    Argocd,
    /// `image` in a Compose file.
    Compose,
    /// A scalar that a comment marks.
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

/// Why a file could not be read. The file is left alone; it stops no other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Unreadable {
    /// The line, counted from 1, where one is to blame.
    pub line: Option<u32>,
    /// What is wrong and what to do, as the rest of a sentence that begins with the file's name.
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

/// Something in a file that is left alone although somebody may count on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The line, counted from 1.
    pub line: u32,
    /// Why it is left alone and what to do, as a sentence without its end.
    pub reason: String,
}

/// What was found in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Every site, in the order of the text.
    pub sites: Vec<Site>,
    /// What is left alone.
    pub notes: Vec<Note>,
}
