//! Sets the sites of a file to the versions that are wanted.

use std::collections::BTreeMap;

use crate::image::{Repository, Version};

use super::find::{Found, Part, Sites};
use super::notation::{self, Replacement};
use super::prefilter::may_hold_sites;
use super::proof::proof;
use super::sharing::stray_use;
use super::site::{Format, Unreadable};
use super::tree::{NodeId, Tree};

/// The version that every site of a repository shall name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The repository whose sites are set.
    pub repository: Repository,
    /// The version that they get.
    pub version: Version,
}

/// A file after an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The bytes of the whole file. Without changes they are those that came in.
    pub bytes: Vec<u8>,
    /// What the edit did, in the order of the text. Sites that named the wanted version already are not in it.
    pub changes: Vec<SiteChange>,
}

/// What an edit did to one site.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SiteChange {
    /// The repository whose version changed.
    pub repository: Repository,
    /// The form of the site.
    pub format: Format,
    /// The line of the tag, or of the digest where there is no tag, counted from 1.
    pub line: u32,
    /// What the site said.
    pub old: Version,
    /// What the site says now: a tag, a digest or both, just as before.
    pub new: Version,
}

/// Why a file was left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The file could not be read.
    #[error("{0}")]
    Unreadable(#[from] Unreadable),
    /// Two different versions of one repository were asked for at once.
    #[error("two different versions of {repository} are wanted at once")]
    Contradiction {
        /// The repository of both.
        repository: Repository,
    },
    /// The site names a digest and none is known for the wanted version.
    #[error(
        "line {line}: {repository} is named by its digest here, and no digest is known for the wanted version: tag \
         and digest would disagree"
    )]
    DigestUnknown {
        /// The repository of the site.
        repository: Repository,
        /// The line of the site.
        line: u32,
    },
    /// The site names a tag and the wanted version is only a digest.
    #[error("line {line}: {repository} is named by a tag here, and the wanted version has only a digest")]
    TagUnknown {
        /// The repository of the site.
        repository: Repository,
        /// The line of the site.
        line: u32,
    },
    /// The scalar is anchored, and an alias would carry the change to something that shall not change.
    #[error(
        "line {line}: the version of {repository} is shared through an anchor, and a change would reach line {other_line} \
         too, where it would change something else: write the version out in both places"
    )]
    Shared {
        /// The repository of the site.
        repository: Repository,
        /// The line of the site.
        line: u32,
        /// The line that would change as well.
        other_line: u32,
    },
    /// The scalar is written in a way in which the new value has no place.
    #[error("line {line}: the version of {repository} is written in a way that cannot be edited: write it in one line")]
    Notation {
        /// The repository of the site.
        repository: Repository,
        /// The line of the site.
        line: u32,
    },
    /// The new bytes did not pass the proof. This is a defect of the editor; the file is left alone.
    #[error("the edit could not be proven to change only the version: {reason}")]
    Unprovable {
        /// What the proof found.
        reason: String,
    },
}

impl Refused {
    /// Returns the repository to blame, without which the rest of an edit may go on; `None` when it is the file.
    pub fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Unreadable(_) | Self::Unprovable { .. } => None,
            Self::Contradiction { repository }
            | Self::DigestUnknown { repository, .. }
            | Self::TagUnknown { repository, .. }
            | Self::Shared { repository, .. }
            | Self::Notation { repository, .. } => Some(repository),
        }
    }
}

/// Sets every site of the wanted repositories, and proves that nothing else changed.
///
/// A site keeps its shape: one with a tag gets the new tag, one with a digest the new digest, one with both
/// gets both. `path` is used as in [`scan`](super::scan). All is done or nothing is.
///
/// # Errors
///
/// See [`Refused`].
pub fn edit(path: &str, bytes: &[u8], wanted: &[Wanted]) -> Result<Edited, Refused> {
    let wanted = by_repository(wanted)?;
    let unchanged = || Edited { bytes: bytes.to_vec(), changes: Vec::new() };
    if !may_hold_sites(bytes) {
        return Ok(unchanged());
    }
    let tree = Tree::parse(bytes)?;
    let sites = Sites::find(path, &tree)?;
    let mut plan = Plan { tree: &tree, sites: &sites, wanted, values: BTreeMap::new(), changes: Vec::new() };
    for found in &sites.found {
        plan.set(found)?;
    }
    if plan.changes.is_empty() {
        return Ok(unchanged());
    }
    plan.refuse_shared()?;
    let replacements = plan.replacements()?;
    let new = splice(tree.text(), &replacements);
    proof(&tree, &new, &replacements).map_err(|reason| Refused::Unprovable { reason })?;
    Ok(Edited { bytes: new.into_bytes(), changes: plan.changes })
}

fn by_repository(wanted: &[Wanted]) -> Result<BTreeMap<&Repository, &Version>, Refused> {
    let mut versions = BTreeMap::new();
    for Wanted { repository, version } in wanted {
        if versions.insert(repository, version).is_some_and(|other| other != version) {
            return Err(Refused::Contradiction { repository: repository.clone() });
        }
    }
    Ok(versions)
}

fn splice(text: &str, replacements: &[Replacement]) -> String {
    let mut new = String::with_capacity(text.len() + 64 * replacements.len());
    let mut position = 0;
    for Replacement { span, token, .. } in replacements {
        new.push_str(&text[position..span.start]);
        new.push_str(token);
        position = span.end;
    }
    new.push_str(&text[position..]);
    new
}

/// What an edit will do.
struct Plan<'tree, 'text> {
    tree: &'tree Tree<'text>,
    sites: &'tree Sites,
    wanted: BTreeMap<&'tree Repository, &'tree Version>,
    /// The value that each scalar of a wanted site shall have, whether it has it already or not, and the site.
    values: BTreeMap<NodeId, (String, &'tree Found)>,
    changes: Vec<SiteChange>,
}

impl<'tree> Plan<'tree, '_> {
    /// Plans that a site shall name the wanted version of its repository, if there is one.
    fn set(&mut self, found: &'tree Found) -> Result<(), Refused> {
        let site = &found.site;
        let Some(version) = self.wanted.get(&site.repository) else { return Ok(()) };
        let new = shaped_like(&site.version, version).map_err(|missing| missing.at(found))?;
        for (node, value) in self.new_values(found, &new)? {
            let (planned, first) = self.values.entry(node).or_insert_with(|| (value.clone(), found));
            if *planned != value {
                return Err(shared(first, site.line));
            }
        }
        if new != site.version {
            self.changes.push(SiteChange {
                repository: site.repository.clone(),
                format: site.format,
                line: site.line,
                old: site.version.clone(),
                new,
            });
        }
        Ok(())
    }

    /// Returns the values of the one or two scalars of a site when it names `version`.
    fn new_values(&self, found: &Found, version: &Version) -> Result<Vec<(NodeId, String)>, Refused> {
        let mut values: Vec<(NodeId, String)> = Vec::with_capacity(2);
        let tag = version.tag().map(|tag| tag.as_str());
        let digest = version.digest().map(|digest| digest.as_str());
        // From the back, so that the range of the tag still holds when the digest behind it was written.
        for (part, text) in [(&found.digest, digest), (&found.tag, tag)] {
            let (Some(part), Some(text)) = (part, text) else { continue };
            let text = part.text_of(text).ok_or_else(|| notation_of(found))?;
            let index = values.iter().position(|(node, _)| *node == part.node).unwrap_or_else(|| {
                values.push((part.node, self.tree.node(part.node).value.clone().into_owned()));
                values.len() - 1
            });
            values[index].1.replace_range(part.range.clone(), text);
        }
        Ok(values)
    }

    /// Refuses the plan when a scalar that changes is also something that shall not change.
    fn refuse_shared(&self) -> Result<(), Refused> {
        if self.tree.aliases.is_empty() {
            return Ok(());
        }
        let changing = self.changing().map(|(node, ..)| node).collect();
        let is_wanted = |repository: &Repository| self.wanted.contains_key(repository);
        match stray_use(self.tree, self.sites, &changing, is_wanted) {
            Some(stray) => Err(shared(self.values[&stray.node].1, self.tree.node(stray.place).line)),
            None => Ok(()),
        }
    }

    /// Returns the scalars that do not have their value yet, in the order of the text.
    fn changing(&self) -> impl Iterator<Item = (NodeId, &str, &'tree Found)> {
        let values = self.values.iter().map(|(node, (value, found))| (*node, value.as_str(), *found));
        values.filter(|(node, value, _)| *value != self.tree.node(*node).value)
    }

    fn replacements(&self) -> Result<Vec<Replacement>, Refused> {
        let quote = notation::preferred_quote(self.tree);
        let written = self.changing().map(|(node, value, found)| {
            let written = notation::write(self.tree.text(), self.tree.node(node), value.to_owned(), quote);
            written.ok_or_else(|| notation_of(found))
        });
        written.collect()
    }
}

impl Part {
    /// Returns how the part writes a tag or a digest; `None` when a bare digest is not of the one algorithm
    /// that needs no name.
    fn text_of<'version>(&self, text: &'version str) -> Option<&'version str> {
        if self.is_bare { text.strip_prefix("sha256:") } else { Some(text) }
    }
}

/// What the wanted version lacks.
enum Missing {
    Tag,
    Digest,
}

impl Missing {
    fn at(self, found: &Found) -> Refused {
        let (repository, line) = (found.site.repository.clone(), found.site.line);
        match self {
            Self::Tag => Refused::TagUnknown { repository, line },
            Self::Digest => Refused::DigestUnknown { repository, line },
        }
    }
}

/// Returns the parts of `version` that a site which says `old` says.
fn shaped_like(old: &Version, version: &Version) -> Result<Version, Missing> {
    let tag = match old.tag() {
        Some(_) => Some(version.tag().cloned().ok_or(Missing::Tag)?),
        None => None,
    };
    let digest = match old.digest() {
        Some(_) => Some(version.digest().cloned().ok_or(Missing::Digest)?),
        None => None,
    };
    Version::from_parts(tag, digest).ok_or(Missing::Tag)
}

fn shared(found: &Found, other_line: u32) -> Refused {
    Refused::Shared { repository: found.site.repository.clone(), line: found.site.line, other_line }
}

fn notation_of(found: &Found) -> Refused {
    Refused::Notation { repository: found.site.repository.clone(), line: found.site.line }
}

#[cfg(test)]
mod tests {
    use super::super::scan;
    use super::*;

    const OLD: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const NEW: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn version(text: &str) -> Version {
        let (_, tag, digest) = crate::image::ImageReference::split(text);
        Version::from_parts(tag.map(|tag| tag.parse().unwrap()), digest.map(|digest| digest.parse().unwrap())).unwrap()
    }

    /// Sets the version of each `name:tag@digest`.
    fn set_in(path: &str, text: &str, wanted: &[&str]) -> Result<String, Refused> {
        let wanted: Vec<Wanted> = wanted
            .iter()
            .map(|text| Wanted {
                repository: crate::image::ImageReference::split(text).0.parse().unwrap(),
                version: version(text),
            })
            .collect();
        let edited = edit(path, text.as_bytes(), &wanted)?;
        let after = scan(path, &edited.bytes).unwrap();
        for change in &edited.changes {
            let is_new = |site: &crate::manifest::Site| site.line == change.line && site.version == change.new;
            assert!(after.iter().any(is_new), "{change:?} is not in {after:?}");
        }
        assert_eq!(edited.changes.is_empty(), edited.bytes == text.as_bytes());
        Ok(String::from_utf8(edited.bytes).unwrap())
    }

    fn set(text: &str, wanted: &str) -> String {
        set_in("a.yaml", text, &[wanted]).unwrap()
    }

    fn refused(text: &str, wanted: &str) -> Refused {
        set_in("a.yaml", text, &[wanted]).unwrap_err()
    }

    #[test]
    fn sets_references_in_every_style() {
        for (before, after) in [
            ("image: a:1", "image: a:2"),
            ("image: 'a:1' # c", "image: 'a:2' # c"),
            ("image: \"a:1\"\n", "image: \"a:2\"\n"),
            ("image: \"\\x61:\\u0031\"\r\nb: c\r\n", "image: \"a:2\"\r\nb: c\r\n"),
            ("image: >-\n  a:1\n\nb: c", "image: >-\n  a:2\n\nb: c"),
            ("image: |-\n     a:1\n", "image: |-\n     a:2\n"),
            (
                "{image: a:1, b: [{image: a:1},{\"image\":\"a:0\"}]}",
                "{image: a:2, b: [{image: a:2},{\"image\":\"a:2\"}]}",
            ),
            ("ä: {ö: ü, image: !!str a:1}", "ä: {ö: ü, image: !!str a:2}"),
            (
                "\u{feff}%YAML 1.2\n---\nimage: a:1\n...\n---\nimage: a:9\n",
                "\u{feff}%YAML 1.2\n---\nimage: a:2\n...\n---\nimage: a:2\n",
            ),
            ("? image\n: docker.io/library/a:1", "? image\n: docker.io/library/a:2"),
        ] {
            assert_eq!(set(before, "a:2"), after);
        }
    }

    #[test]
    fn quotes_what_would_not_be_a_string() {
        assert_eq!(set("repository: a\ntag: v1 # c\n", "a:123e456"), "repository: a\ntag: \"123e456\" # c\n");
        assert_eq!(set("repository: a\ntag: 1.27\n", "a:1.28"), "repository: a\ntag: \"1.28\"\n");
        assert_eq!(set("repository: 'a'\ntag: v1\n", "a:0b1"), "repository: 'a'\ntag: '0b1'\n");
        assert_eq!(set("repository: a\ntag: 1.27\n", "a:v2"), "repository: a\ntag: v2\n");
        assert_eq!(set("image: 12:v1", "12:34"), "image: \"12:34\"");
        assert_eq!(set("image: a:v1", "a:1234567"), "image: a:1234567");
    }

    #[test]
    fn moves_tag_and_digest_together() {
        let both = format!("a:2@{NEW}");
        assert_eq!(set(&format!("image: a:1@{OLD}"), &both), format!("image: a:2@{NEW}"));
        assert_eq!(set(&format!("image: a@{OLD}"), &both), format!("image: a@{NEW}"));
        assert_eq!(set("image: a:1", &both), "image: a:2");
        assert_eq!(set(&format!("image: a@{OLD}"), &format!("a@{NEW}")), format!("image: a@{NEW}"));
        assert_eq!(
            set(&format!("{{repository: a, tag: 1, digest: {OLD}}}"), &both),
            format!("{{repository: a, tag: \"2\", digest: {NEW}}}")
        );
        assert_eq!(set(&format!("{{repository: a, tag: 1@{OLD}}}"), &both), format!("{{repository: a, tag: 2@{NEW}}}"));
        assert_eq!(
            set(&format!("{{repository: a, tag: x, sha: {}}}", &OLD[7..]), &format!("a:z@{NEW}")),
            format!("{{repository: a, tag: z, sha: {}}}", &NEW[7..])
        );
        assert!(matches!(refused(&format!("image: a:1@{OLD}"), "a:2"), Refused::DigestUnknown { line: 1, .. }));
        assert!(matches!(refused(&format!("\nimage: a@{OLD}"), "a:2"), Refused::DigestUnknown { line: 2, .. }));
        assert!(matches!(refused("image: a:1", &format!("a@{NEW}")), Refused::TagUnknown { line: 1, .. }));
    }

    #[test]
    fn sets_entries_of_kustomizations() {
        let text = format!(
            "images:\n- name: x\n  newName: a\n  newTag: v1\n- name: a\n  digest: {OLD}\n- name: a\n- name: b\n  newTag: v1\n"
        );
        let expected = text.replacen("v1", "v2", 1).replace(OLD, NEW);
        let wanted = format!("a:v2@{NEW}");
        assert_eq!(set_in("x/kustomization.yaml", &text, &[&wanted]).unwrap(), expected);
        // By its kind, too; and elsewhere a list of that name is nothing.
        let typed = format!("kind: Kustomization\n{text}");
        assert_eq!(set(&typed, &wanted), format!("kind: Kustomization\n{expected}"));
        assert_eq!(set(&text, &wanted), text);
    }

    #[test]
    fn edits_an_anchored_scalar_once() {
        let text = "x-image: &i a:1\nb: {image: *i}\nc: {image: *i}\n";
        assert_eq!(set(text, "a:2"), text.replace("a:1", "a:2"));
        let text = "b: {image: &i a:1}\nc: {image: *i}\n";
        assert_eq!(set(text, "a:2"), text.replace("a:1", "a:2"));
        for text in [
            "b: &b {repository: a, tag: v1}\nc: *b\nd: {<<: *b, x: y}\n",
            "b: &b {x: [{repository: a, tag: v1}]}\nc: *b\nd: [*b]\n",
            ".anchors: {t: [&t v1]}\na: {repository: a, tag: *t}\n",
            "x-common: &b {tag: v1}\nc: {<<: *b, repository: a}\nd: {<<: [*b], repository: index.docker.io/library/a}\n",
            "c: {repository: a, tag: &t v1}\nd: {repository: docker.io/a, tag: *t}\n",
        ] {
            assert_eq!(set(text, "a:2"), text.replace("v1", "\"2\""));
        }
    }

    #[test]
    fn refuses_to_change_something_else_through_an_anchor() {
        for (text, other) in [
            ("b: {image: &i a:1}\nc:\n  label: *i\n", 3),
            ("label: &i a:1\nc: {image: *i}\n", 1),
            ("b: {repository: a, tag: &t v1}\nc:\n  {repository: z, tag: *t}\n", 3),
            ("b: &b {repository: a, tag: v1}\nc:\n  <<: *b\n  repository: z\n", 3),
            ("b: &b {tag: v1}\nc: {<<: *b, repository: a}\n", 1),
            ("x-b: &b {tag: v1}\nc: {<<: *b, repository: a}\nd:\n  e: *b\n", 4),
            ("x-t: &t v1\nc: {repository: a, tag: *t}\nd: {\n  *t : e}\n", 4),
            ("x-t: &t v1\nc: {repository: a, tag: *t}\nd: {repository: a,\n  tag: [*t]}\n", 4),
        ] {
            let refused = refused(text, "a:2");
            assert!(matches!(refused, Refused::Shared { other_line, .. } if other_line == other), "{text}: {refused}");
        }
        // Both wanted, and they agree.
        let text = "b: {repository: a, tag: &t v1}\nc: {repository: z, tag: *t}\n";
        assert_eq!(set_in("a.yaml", text, &["a:v2", "z:v2"]).unwrap(), text.replace("v1", "v2"));
        assert!(set_in("a.yaml", text, &["a:v2", "z:v3"]).is_err());
    }

    #[test]
    fn refuses_two_versions_at_once() {
        assert!(matches!(set_in("a.yaml", "image: a:1", &["a:2", "a:3"]), Err(Refused::Contradiction { .. })));
        assert_eq!(set_in("a.yaml", "image: a:1", &["a:2", "a:2"]).unwrap(), "image: a:2");
    }
}
