//! Reads a file: its sites, and the sites of the texts inside it.

use super::embedded::{Embedded, line_in_file};
use super::file_name::is_json;
use super::find::Sites;
use super::found::Found;
use super::prefilter::must_be_read;
use super::settings::{ImageNames, ManifestSettings};
use super::site::{Note, Reading, Site, Unreadable};
use super::task::Task;
use super::tree::{MAX_NODES, Node, NodeId, TEMPLATE_HINT, Tree};

/// Returns every site of a file, in the order of the text, with default settings.
///
/// # Errors
///
/// See [`read`].
pub fn scan(path: &str, bytes: &[u8]) -> Result<Vec<Site>, Unreadable> {
    read(path, bytes, &ManifestSettings::default()).map(|reading| reading.sites)
}

/// Reads a file.
///
/// The last component of `path` may determine the kind of the file (`kustomization.yaml`); rules of the settings match the
/// whole path. A file that [`may_hold_sites`](super::may_hold_sites) excludes is not parsed, so its faults are not reported.
///
/// # Errors
///
/// If the bytes are not UTF-8 or not YAML, exceed a limit, or are ambiguous (a duplicate key in the position of a site).
pub fn read(path: &str, bytes: &[u8], settings: &ManifestSettings) -> Result<Reading, Unreadable> {
    if !must_be_read(path, bytes, settings) {
        return Ok(Reading::default());
    }
    let tree = parse(path, bytes)?;
    Ok(Contents::of(&tree, &Task::of_file(path, settings))?.reading(&tree))
}

/// Parses a file. A file with the name of JSON must be JSON.
pub(crate) fn parse<'text>(path: &str, bytes: &'text [u8]) -> Result<Tree<'text>, Unreadable> {
    if is_json(path)
        && let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(bytes)
    {
        let line = u32::try_from(error.line()).ok().filter(|line| *line > 0);
        return Err(Unreadable { line, reason: format!("is not JSON: {error}") });
    }
    Tree::parse(bytes)
}

/// The content of a file.
pub(crate) struct Contents<'tree, 'task> {
    /// The sites in the file itself.
    pub(crate) sites: Sites<'task>,
    /// The content of each text in `sites.embedded`, or why it cannot be read.
    pub(crate) inside: Vec<Result<Inside<'tree, 'task>, Unreadable>>,
}

/// A text inside a file.
pub(crate) struct Inside<'tree, 'task> {
    pub(crate) tree: Tree<'tree>,
    pub(crate) sites: Sites<'task>,
}

impl<'tree, 'task> Contents<'tree, 'task> {
    /// Finds the sites of a file.
    ///
    /// # Errors
    ///
    /// The errors of [`Sites::find`]. An unreadable text inside the file does not affect other texts.
    pub(crate) fn of(tree: &'tree Tree<'_>, task: &Task<'task>) -> Result<Self, Unreadable> {
        let sites = Sites::find(tree, task)?;
        let mut nodes = 0;
        let inside = sites.embedded.iter().map(|embedded| {
            let inside = Inside::of(tree.node(embedded.node), embedded, task.names)?;
            // All these texts are in memory at the same time.
            nodes += inside.tree.nodes.len();
            if nodes > MAX_NODES {
                let reason = format!("has, with the texts before it, more than {MAX_NODES} keys and values");
                return Err(Unreadable { line: None, reason });
            }
            Ok(inside)
        });
        let inside = inside.collect();
        Ok(Self { sites, inside })
    }

    /// Returns every site: first those of the file, then those of the texts inside it.
    pub(crate) fn found(&self) -> impl Iterator<Item = &Found> {
        let inside = self.inside.iter().flatten().flat_map(|inside| &inside.sites.found);
        self.sites.found.iter().chain(inside)
    }

    /// Returns the notes about the file, in the order of its text.
    pub(crate) fn reading(self, tree: &Tree<'_>) -> Reading {
        let Sites { found, embedded, mut notes, protections, .. } = self.sites;
        let mut sites: Vec<(NodeId, Site)> = found.into_iter().map(|found| (found.place().0, found.site)).collect();
        for (embedded, inside) in embedded.iter().zip(self.inside) {
            let scalar = tree.node(embedded.node);
            match inside {
                Ok(Inside { sites: Sites { found, notes: noted, .. }, .. }) => {
                    let protected = found.iter().filter_map(|found| {
                        let protection = protections.of_site_inside(embedded.node, found.site.format)?;
                        Some(protection.note(found))
                    });
                    let noted = noted.into_iter().chain(protected.collect::<Vec<_>>());
                    let in_file = |site: Site| Site { line: line_in_file(scalar, site.line), ..site };
                    sites.extend(found.into_iter().map(|found| (embedded.node, in_file(found.site))));
                    let in_file = |note: Note| Note { line: line_in_file(scalar, note.line), ..note };
                    notes.extend(noted.map(in_file));
                }
                Err(Unreadable { line, reason }) => {
                    // The parser may report the line after the last one.
                    let lines = scalar.value.lines().count().max(1) as u32;
                    let line = line_in_file(scalar, line.unwrap_or(1).min(lines));
                    // A note about a text does not name the file.
                    let reason = reason.replace(TEMPLATE_HINT, ", so it may be a template: it is not searched");
                    notes.push(Note { line, reason: format!("the text that begins here {reason}") });
                }
            }
        }
        if !embedded.is_empty() {
            sites.sort_by_key(|(node, _)| *node);
            notes.sort_by_key(|note| note.line);
        }
        Reading { sites: sites.into_iter().map(|(_, site)| site).collect(), notes }
    }
}

impl<'tree, 'task> Inside<'tree, 'task> {
    fn of(scalar: &'tree Node<'_>, embedded: &Embedded<'task>, names: &'task ImageNames) -> Result<Self, Unreadable> {
        let mut tree = Tree::parse(scalar.value.as_bytes())?;
        // A file may have many texts, and most texts are small.
        tree.nodes.shrink_to_fit();
        let sites = Sites::find(&tree, &Task::of_embedded(embedded, names))?;
        Ok(Self { tree, sites })
    }
}
