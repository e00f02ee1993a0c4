//! Sets the sites of a file to the wanted versions.

use std::collections::BTreeMap;

use granit_parser::ScalarStyle;

use tagrelay_image::{Repository, Version};

use super::embedded::{Embedded, line_in_file};
use super::file_name::is_json;
use super::find::Sites;
use super::found::{Found, Part};
use super::notation::{self, Quotes, Replacement};
use super::plain::reads_as_string;
use super::prefilter::must_be_read;
use super::proof::{Unproven, proof};
use super::read::{Contents, Inside, parse};
use super::refused::{Blamed, Refused};
use super::settings::ManifestSettings;
use super::shape::{Wanted, WantedVersions};
use super::sharing::stray_use;
use super::site::{Format, Reading, Unreadable};
use super::task::Task;
use super::tree::{Kind, NodeId, Tree};

/// A file after an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The bytes of the whole file; without changes, the original bytes.
    pub bytes: Vec<u8>,
    /// The changes, in the order of the text. Sites that had the wanted version already are not included.
    pub changes: Vec<SiteChange>,
    /// The content of the file before the edit.
    pub before: Reading,
    /// The nodes after the edit; `None`: entries were added.
    pub after: Option<Reading>,
}

/// The edit of one site.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SiteChange {
    /// The repository whose version changed.
    pub repository: Repository,
    /// The format of the site.
    pub format: Format,
    /// The line of the tag, or else of the digest, from 1.
    pub line: u32,
    /// The version before.
    pub old: Version,
    /// The version after, in the same form: a tag, a digest or both.
    pub new: Version,
}

/// Sets every site of the wanted repositories, with default settings.
///
/// # Errors
///
/// See [`edit_with`].
pub fn edit(path: &str, bytes: &[u8], wanted: &[Wanted]) -> Result<Edited, Refused> {
    edit_with(path, bytes, wanted, &ManifestSettings::default())
}

/// Sets every site of the wanted repositories, and proves that no other part of the file changed.
///
/// A site keeps its form: tag, digest or both. With `pin`, a tag becomes `tag@digest`. `path` is used as in
/// [`read`](super::read). Either all sites are set or none.
///
/// # Errors
///
/// See [`Refused`].
pub fn edit_with(path: &str, bytes: &[u8], wanted: &[Wanted], settings: &ManifestSettings) -> Result<Edited, Refused> {
    let wanted_versions = WantedVersions::new(wanted, settings)?;
    let unchanged =
        |before: Reading| Edited { bytes: bytes.to_vec(), changes: Vec::new(), after: Some(before.clone()), before };
    if !must_be_read(path, bytes, settings) {
        return Ok(unchanged(Reading::default()));
    }
    let tree = parse(path, bytes)?;
    let task = Task::of_file(path, settings);
    let contents = Contents::of(&tree, &task)?;
    let quotes = if is_json(path) { Quotes::JSON } else { Quotes::of(&tree) };
    let Some(Rewritten { text, replacements, changes }) =
        rewrite(&tree, &contents.sites, &contents.inside, &wanted_versions, quotes)?
    else {
        return Ok(unchanged(contents.reading(&tree)));
    };
    let after = proof(&tree, &contents, &task, &wanted_versions, &text, &replacements);
    let after = Some(after.map_err(|unproven| unproven.refused(&changes))?);
    Ok(Edited { bytes: text.into_bytes(), changes, before: contents.reading(&tree), after })
}

impl Unproven {
    /// Returns the refusal, naming one of the sites to be changed if possible.
    fn refused(self, changes: &[SiteChange]) -> Refused {
        match self {
            Self::Defect(reason) => Refused::Unprovable { reason },
            Self::OtherSites(repository) => {
                let is_there = |change: &&SiteChange| Some(&change.repository) == repository.as_ref();
                match changes.iter().find(is_there).or(changes.first()) {
                    Some(SiteChange { repository, line, .. }) => {
                        Refused::OtherSites { repository: repository.clone(), line: *line }
                    }
                    None => Refused::Unprovable { reason: "sites changed, and none was to change".to_owned() },
                }
            }
        }
    }
}

/// An edited text before its proof.
struct Rewritten {
    text: String,
    replacements: Vec<Replacement>,
    changes: Vec<SiteChange>,
}

/// Sets the sites of a text and of the texts inside it; `None`: the text stays the same.
fn rewrite(
    tree: &Tree<'_>,
    sites: &Sites<'_>,
    inside: &[Result<Inside<'_, '_>, Unreadable>],
    wanted_versions: &WantedVersions<'_>,
    quotes: Quotes,
) -> Result<Option<Rewritten>, Refused> {
    let mut plan = Plan { tree, sites, wanted_versions, values: BTreeMap::new(), changes: Vec::new() };
    for found in &sites.found {
        plan.set(found)?;
    }
    for (embedded, inside) in sites.embedded.iter().zip(inside) {
        // An unreadable text has no sites; it was reported when the file was read.
        if let Ok(inside) = inside {
            plan.set_inside(embedded, inside)?;
        }
    }
    if plan.changes.is_empty() {
        return Ok(None);
    }
    plan.refuse_shared()?;
    let replacements = plan.replacements(quotes)?;
    plan.changes.sort_by_key(|change| change.line);
    Ok(Some(Rewritten { text: splice(tree.text(), &replacements), replacements, changes: plan.changes }))
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

/// The plan of an edit.
struct Plan<'plan> {
    tree: &'plan Tree<'plan>,
    sites: &'plan Sites<'plan>,
    wanted_versions: &'plan WantedVersions<'plan>,
    /// The wanted value of each scalar, changed or not.
    values: BTreeMap<NodeId, Value>,
    changes: Vec<SiteChange>,
}

/// The wanted value of a scalar.
struct Value {
    text: String,
    /// The changes inside the scalar, if it is a text with sites.
    inside: Vec<Replacement>,
    /// The site that is set. If the scalar has several sites, the first one.
    site: Blamed,
}

impl Plan<'_> {
    /// Plans that a site names the wanted version of its repository, if a version is wanted.
    fn set(&mut self, found: &Found) -> Result<(), Refused> {
        let site = &found.site;
        let Some(new) = self.wanted_versions.version_of(found) else { return Ok(()) };
        let place = Blamed { repository: site.repository.clone(), line: site.line };
        let new = new.map_err(|missing| missing.at(&place))?;
        if let Some(line) = self.line_of_overlap(found) {
            return Err(place.shared(line));
        }
        for (node, text) in self.new_values(found, &new).ok_or_else(|| place.notation())? {
            let value = Value { text, inside: Vec::new(), site: place.clone() };
            let planned = self.values.entry(node).or_insert(Value { text: value.text.clone(), ..value });
            if planned.text != value.text {
                return Err(planned.site.shared(site.line));
            }
        }
        if new != site.version || found.parts().any(|part| self.is_no_string(part.node)) {
            if let Some(protection) = self.sites.protections.of_site(found) {
                return Err(place.protected(protection));
            }
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

    /// Returns whether a plain scalar is not a string for some readers: `1.10` is the number 1.1.
    fn is_no_string(&self, node: NodeId) -> bool {
        let node = self.tree.node(node);
        node.kind == Kind::Scalar(ScalarStyle::Plain) && !reads_as_string(&node.value)
    }

    /// Returns the line of a scalar in which tag and digest overlap.
    ///
    /// A new tag would overwrite the digest.
    fn line_of_overlap(&self, found: &Found) -> Option<u32> {
        let (tag, digest) = (found.tag.as_ref()?, found.digest.as_ref()?);
        let overlaps = tag.range.start < digest.range.end && digest.range.start < tag.range.end;
        let places = tag.reached_by.iter().chain(&digest.reached_by);
        (tag.node == digest.node && overlaps).then(|| places.map(|place| self.tree.node(*place).line).max())?
    }

    /// Plans that the sites in a scalar's text name the wanted versions.
    fn set_inside(&mut self, embedded: &Embedded<'_>, inside: &Inside<'_, '_>) -> Result<(), Refused> {
        let scalar = self.tree.node(embedded.node);
        let rewritten = rewrite(&inside.tree, &inside.sites, &[], self.wanted_versions, Quotes::of(&inside.tree));
        let rewritten = rewritten.map_err(|refused| refused.at(|line| line_in_file(scalar, line)))?;
        let Some(rewritten) = rewritten else { return Ok(()) };
        let Rewritten { text, replacements: inside, changes } = rewritten;
        let in_file = |change: SiteChange| SiteChange { line: line_in_file(scalar, change.line), ..change };
        let changes: Vec<SiteChange> = changes.into_iter().map(in_file).collect();
        let Some(first) = changes.first() else { return Ok(()) };
        let site = Blamed { repository: first.repository.clone(), line: first.line };
        for change in &changes {
            if let Some(protection) = self.sites.protections.of_site_inside(embedded.node, change.format) {
                let place = Blamed { repository: change.repository.clone(), line: change.line };
                return Err(place.protected(protection));
            }
        }
        if self.values.insert(embedded.node, Value { text, inside, site: site.clone() }).is_some() {
            return Err(site.notation());
        }
        self.changes.extend(changes);
        Ok(())
    }

    /// Returns the values of the one or two scalars of a site with `version`.
    fn new_values(&self, found: &Found, version: &Version) -> Option<Vec<(NodeId, String)>> {
        let mut values: Vec<(NodeId, String)> = Vec::with_capacity(2);
        let digest = version.digest().map(|digest| digest.as_str());
        // A digest without a position of its own is written after the tag.
        let tag = match (version.tag(), digest) {
            (Some(tag), Some(digest)) if found.digest.is_none() => Some(format!("{tag}@{digest}")),
            (tag, _) => tag.map(|tag| tag.as_str().to_owned()),
        };
        // Replace from the end, so that the range of the tag stays valid.
        for (part, text) in [(&found.digest, digest), (&found.tag, tag.as_deref())] {
            let (Some(part), Some(text)) = (part, text) else { continue };
            let text = part.text_of(text)?;
            let index = values.iter().position(|(node, _)| *node == part.node).unwrap_or_else(|| {
                values.push((part.node, self.tree.node(part.node).value.clone().into_owned()));
                values.len() - 1
            });
            values[index].1.replace_range(part.range.clone(), text);
        }
        Some(values)
    }

    /// Refuses the plan if a scalar to be changed is also used as something other than a wanted site.
    fn refuse_shared(&self) -> Result<(), Refused> {
        if self.tree.aliases.is_empty() {
            return Ok(());
        }
        let changing = self.changing().map(|(node, _)| node).collect();
        match stray_use(self.tree, self.sites, &changing, |repository| self.wanted_versions.wants(repository)) {
            Some(stray) => Err(self.values[&stray.node].site.shared(self.tree.node(stray.place).line)),
            None => Ok(()),
        }
    }

    /// Returns the scalars whose value must change, in the order of the text.
    fn changing(&self) -> impl Iterator<Item = (NodeId, &Value)> {
        let values = self.values.iter().map(|(node, value)| (*node, value));
        let is_other = |(node, value): &(NodeId, &Value)| {
            value.text != self.tree.node(*node).value || (value.inside.is_empty() && self.is_no_string(*node))
        };
        values.filter(is_other)
    }

    fn replacements(&self, quotes: Quotes) -> Result<Vec<Replacement>, Refused> {
        let written = self.changing().map(|(node, value)| {
            let node = self.tree.node(node);
            let Value { text, inside, site } = value;
            if inside.is_empty() {
                let written = notation::write(self.tree.text(), node, text.clone(), quotes);
                return written.ok_or_else(|| site.notation());
            }
            let written = notation::write_text(self.tree.text(), node, text.clone(), inside.clone());
            written.ok_or_else(|| site.not_literal())
        });
        written.collect()
    }
}

impl Part {
    /// Returns the text of a tag or digest in this part; `None`: the digest is not SHA-256.
    ///
    /// A digest without its algorithm must be SHA-256.
    fn text_of<'version>(&self, text: &'version str) -> Option<&'version str> {
        if self.is_bare { text.strip_prefix("sha256:") } else { Some(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan;
    use super::*;

    const OLD: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const NEW: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn version(text: &str) -> Version {
        let (_, tag, digest) = tagrelay_image::ImageReference::split(text);
        Version::from_parts(tag.map(|tag| tag.parse().unwrap()), digest.map(|digest| digest.parse().unwrap())).unwrap()
    }

    /// Sets the version of each `name:tag@digest`.
    fn set_in(path: &str, text: &str, wanted: &[&str]) -> Result<String, Refused> {
        let wanted: Vec<Wanted> = wanted
            .iter()
            .map(|text| Wanted {
                repository: tagrelay_image::ImageReference::split(text).0.parse().unwrap(),
                version: version(text),
            })
            .collect();
        let edited = edit(path, text.as_bytes(), &wanted)?;
        let after = scan(path, &edited.bytes).unwrap();
        for change in &edited.changes {
            let is_new = |site: &crate::Site| site.line == change.line && site.version == change.new;
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
    fn references_are_set_in_every_style() {
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
    fn values_that_would_not_be_strings_are_quoted() {
        assert_eq!(set("repository: a\ntag: v1 # c\n", "a:123e456"), "repository: a\ntag: \"123e456\" # c\n");
        assert_eq!(set("repository: a\ntag: 1.27\n", "a:1.28"), "repository: a\ntag: \"1.28\"\n");
        assert_eq!(set("repository: 'a'\ntag: v1\n", "a:0b1"), "repository: 'a'\ntag: '0b1'\n");
        assert_eq!(set("repository: a\ntag: 1.27\n", "a:v2"), "repository: a\ntag: v2\n");
        assert_eq!(set("image: 12:v1", "12:34"), "image: \"12:34\"");
        assert_eq!(set("image: a:v1", "a:1234567"), "image: a:1234567");
        // The old value already has another type for some readers.
        assert_eq!(set("{repository: a, tag: 1.10}", "a:1.10"), "{repository: a, tag: \"1.10\"}");
        assert_eq!(set("repository: a\ntag: 0123\n", "a:0123"), "repository: a\ntag: \"0123\"\n");
        assert_eq!(set("{repository: a, tag: \"1.10\"}", "a:1.10"), "{repository: a, tag: \"1.10\"}");
    }

    #[test]
    fn tag_and_digest_change_together() {
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
    fn entries_of_kustomizations_are_set() {
        let text = format!(
            "images:\n- name: x\n  newName: a\n  newTag: v1\n- name: a\n  digest: {OLD}\n- name: a\n- name: b\n  newTag: v1\n"
        );
        let expected = text.replacen("v1", "v2", 1).replace(OLD, NEW);
        let wanted = format!("a:v2@{NEW}");
        assert_eq!(set_in("x/kustomization.yaml", &text, &[&wanted]).unwrap(), expected);
        // A kustomization is also recognised by its kind. In other documents, the list has no meaning.
        let typed = format!("kind: Kustomization\n{text}");
        assert_eq!(set(&typed, &wanted), format!("kind: Kustomization\n{expected}"));
        assert_eq!(set(&text, &wanted), text);
    }

    #[test]
    fn anchored_scalar_is_edited_once() {
        let text = "x-image: &i a:1\nb: {image: *i}\nc: {image: *i}\n";
        assert_eq!(set(text, "a:2"), text.replace("a:1", "a:2"));
        let text = "b: {image: &i a:1}\nc: {image: *i}\n";
        assert_eq!(set(text, "a:2"), text.replace("a:1", "a:2"));
        for text in [
            "b: &b {repository: a, tag: v1}\nc: *b\nd: {<<: *b, x: y}\n",
            "b: &b {x: [{repository: a, tag: v1}]}\nc: *b\nd: [*b]\n",
            ".anchors: {t: [&t v1]}\na: {repository: a, tag: *t}\n",
            "x-common: &b {tag: v1}\nc: {<<: *b, repository: a}\nd: {<<: [*b], repository: index.docker.io/library/a}\n",
            "x-common: &b {tag: v1}\nc: {<<: *b, repository: a}\nd: {<<: *b, name: z, tag: v9}\n",
            "x-a: &a {tag: v1}\nx-b: &b {<<: *a, x: y}\nc: {<<: *b, repository: a}\n",
            "b: &b {x: {repository: a, tag: v1}}\nc: {<<: *b, y: z}\n",
            "c: {repository: a, tag: &t v1}\nd: {repository: docker.io/a, tag: *t}\n",
        ] {
            assert_eq!(set(text, "a:2"), text.replace("v1", "\"2\""));
        }
    }

    #[test]
    fn change_of_another_value_through_an_anchor_is_refused() {
        for (text, other) in [
            ("b: {image: &i a:1}\nc:\n  label: *i\n", 3),
            ("label: &i a:1\nc: {image: *i}\n", 1),
            ("b: {repository: a, tag: &t v1}\nc:\n  {repository: z, tag: *t}\n", 3),
            ("b: &b {repository: a, tag: v1}\nc:\n  <<: *b\n  repository: z\n", 3),
            ("b: &b {tag: v1}\nc: {<<: *b, repository: a}\n", 1),
            ("x-b: &b {tag: v1}\nc: {<<: *b, repository: a}\nd:\n  e: *b\n", 4),
            ("x-t: &t v1\nc: {repository: a, tag: *t}\nd: {\n  *t : e}\n", 4),
            ("x-t: &t v1\nc: {repository: a, tag: *t}\nd: {repository: a,\n  tag: [*t]}\n", 4),
            // A merge key would carry the tag to a position with another meaning.
            ("a: &i {repository: a, tag: v1}\nf:\n  {<<: *i, repository: https://z.example}\n", 3),
            ("x-t: &m {tag: v1}\na: {<<: *m, repository: a}\nh:\n  {<<: *m, name: z}\n", 4),
            ("x-t: &m {tag: v1}\na: {<<: *m, repository: a}\nj: {labels:\n  {<<: *m}}\n", 4),
            ("x-t: &m {t: {repository: a, tag: &t v1}}\nb: {<<: *m}\nc:\n  {<<: *m, d: *t}\n", 4),
        ] {
            let refused = refused(text, "a:2");
            assert!(matches!(refused, Refused::Shared { other_line, .. } if other_line == other), "{text}: {refused}");
        }
        // Both positions want the same version.
        let text = "b: {repository: a, tag: &t v1}\nc: {repository: z, tag: *t}\n";
        assert_eq!(set_in("a.yaml", text, &["a:v2", "z:v2"]).unwrap(), text.replace("v1", "v2"));
        assert!(set_in("a.yaml", text, &["a:v2", "z:v3"]).is_err());
    }

    #[test]
    fn tag_over_a_digest_is_refused() {
        let both = format!("a:v2@{NEW}");
        let refused = refused(&format!("repository: a\ntag: &x {}\nsha: *x\n", &OLD[7..]), &both);
        assert!(matches!(refused, Refused::Shared { line: 2, other_line: 3, .. }), "{refused}");
    }

    #[test]
    fn edit_that_changes_the_sites_of_the_file_is_refused() {
        // The marked value determines the meaning of the keys around it.
        let text = "kind: Kustomization # tagrelay: docker.io/library/b:tag\nimages: [{name: a, newTag: v1}]\n";
        let refused = refused(text, "b:v2");
        assert!(
            matches!(&refused, Refused::OtherSites { line: 1, repository } if repository.name() == "b"),
            "{refused}"
        );
        assert_eq!(set(text, "a:v2"), text.replace("v1", "v2"));
    }

    #[test]
    fn two_versions_for_one_scalar_are_refused() {
        assert!(matches!(set_in("a.yaml", "image: a:1", &["a:2", "a:3"]), Err(Refused::Contradiction { .. })));
        assert_eq!(set_in("a.yaml", "image: a:1", &["a:2", "a:2"]).unwrap(), "image: a:2");
    }
}
