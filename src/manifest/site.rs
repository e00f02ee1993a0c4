use serde::{Deserialize, Serialize};

use crate::image::{Repository, Version};

use super::find::Sites;
use super::prefilter::may_hold_sites;
use super::tree::Tree;

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
    /// `repository`, `tag` and `digest` beside each other, or `image` in a document that is no Kubernetes object.
    HelmValues,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Kubernetes => "kubernetes",
            Self::Kustomization => "kustomization",
            Self::HelmValues => "helm-values",
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

/// Returns every site of a file, in the order of the text.
///
/// `path` is used for its last component only: `kustomization.yaml` is a kustomization without saying so.
/// A file that [`may_hold_sites`] denies is not parsed, so nothing is said about whether it could be.
///
/// # Errors
///
/// When the bytes are no UTF-8, no YAML, beyond a limit, or ambiguous (a key twice where a site would be).
pub fn scan(path: &str, bytes: &[u8]) -> Result<Vec<Site>, Unreadable> {
    if !may_hold_sites(bytes) {
        return Ok(Vec::new());
    }
    let tree = Tree::parse(bytes)?;
    let sites = Sites::find(path, &tree)?;
    Ok(sites.found.into_iter().map(|found| found.site).collect())
}
