use serde::{Deserialize, Serialize};

use crate::image::{Repository, Version};

use super::document::is_json;
use super::embedded::{Embedded, line_in_file};
use super::find::{Sites, Task};
use super::prefilter::must_be_read;
use super::settings::{ImageNames, ManifestSettings};
use super::tree::{Node, NodeId, Tree};

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

/// Returns every site of a file, in the order of the text, where the settings say nothing about it.
///
/// # Errors
///
/// See [`read`].
pub fn scan(path: &str, bytes: &[u8]) -> Result<Vec<Site>, Unreadable> {
    read(path, bytes, &ManifestSettings::default()).map(|reading| reading.sites)
}

/// Returns what a file holds.
///
/// Of `path` the last component counts (`kustomization.yaml` is a kustomization without saying so), and all of it for
/// the rules of the settings. A file that the byte search of [`may_hold_sites`](super::may_hold_sites) denies is not parsed, so nothing is said
/// about whether it could be.
///
/// # Errors
///
/// When the bytes are no UTF-8, no YAML, beyond a limit, or ambiguous (a key twice where a site would be).
pub fn read(path: &str, bytes: &[u8], settings: &ManifestSettings) -> Result<Reading, Unreadable> {
    if !must_be_read(path, bytes, settings) {
        return Ok(Reading::default());
    }
    let tree = parse(path, bytes)?;
    let sites = Sites::find(&tree, &Task::of_file(path, settings))?;
    let mut found: Vec<(NodeId, Site)> = sites.found.into_iter().map(|found| (found.place().0, found.site)).collect();
    let mut notes = sites.notes;
    for embedded in &sites.embedded {
        let scalar = tree.node(embedded.node);
        match read_embedded(scalar, embedded, &settings.names) {
            Ok(inner) => {
                found.extend(inner.sites.into_iter().map(|site| (embedded.node, site)));
                notes.extend(inner.notes);
            }
            Err(Unreadable { line, reason }) => {
                let line = line_in_file(scalar, line.unwrap_or(1));
                notes.push(Note { line, reason: format!("the text that begins here {reason}") });
            }
        }
    }
    if !sites.embedded.is_empty() {
        found.sort_by_key(|(node, _)| *node);
        notes.sort_by_key(|note| note.line);
    }
    Ok(Reading { sites: found.into_iter().map(|(_, site)| site).collect(), notes })
}

/// Parses a file; one that is JSON by its name has to be JSON.
pub(super) fn parse<'text>(path: &str, bytes: &'text [u8]) -> Result<Tree<'text>, Unreadable> {
    if is_json(path)
        && let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(bytes)
    {
        let line = u32::try_from(error.line()).ok().filter(|line| *line > 0);
        return Err(Unreadable { line, reason: format!("is not JSON: {error}") });
    }
    Tree::parse(bytes)
}

fn read_embedded(scalar: &Node<'_>, embedded: &Embedded<'_>, names: &ImageNames) -> Result<Reading, Unreadable> {
    let tree = Tree::parse(scalar.value.as_bytes())?;
    let sites = Sites::find(&tree, &Task::of_embedded(embedded, names))?;
    let in_file = |site: Site| Site { line: line_in_file(scalar, site.line), ..site };
    let note_in_file = |note: Note| Note { line: line_in_file(scalar, note.line), ..note };
    Ok(Reading {
        sites: sites.found.into_iter().map(|found| in_file(found.site)).collect(),
        notes: sites.notes.into_iter().map(note_in_file).collect(),
    })
}
