//! Adds entries to `images` of a kustomization, in the file's style.

use std::collections::BTreeMap;
use std::ops::Range;

use granit_parser::{ScalarStyle, StructureStyle};

use tagrelay_image::Version;

use super::super::edit::{Edited, SiteChange, edit_with};
use super::super::find::Sites;
use super::super::lines::{count_ends, first_end, last_end, last_line, line_length};
use super::super::notation::{Quotes, token};
use super::super::plain::reads_as_string;
use super::super::protected::Protections;
use super::super::refused::{Blamed, Refused};
use super::super::settings::ManifestSettings;
use super::super::shape::{Wanted, WantedVersions};
use super::super::site::{Format, Site, Unreadable};
use super::super::task::{Role, Task};
use super::super::tree::{Kind, NodeId, Tree};
use super::addition::{Expected, Insertion, proof_of_insertion};
use super::entry::NewEntry;
use super::inherited::Inherited;

/// Sets every site of the wanted repositories, and adds entries for the wanted images of `inherited`.
///
/// Sites are set as [`edit_with`] does. An entry has the form of the base's reference: a tag, a digest or both; with `pin`, a tag
/// gets its digest. An image that already runs the wanted version gets no entry. The proof shows that the entries are the only
/// difference.
///
/// # Errors
///
/// See [`Refused`].
pub fn edit_overlay(
    path: &str,
    bytes: &[u8],
    wanted: &[Wanted],
    settings: &ManifestSettings,
    inherited: &[Inherited],
) -> Result<Edited, Refused> {
    let mut edited = edit_with(path, bytes, wanted, settings)?;
    let wanted_versions = WantedVersions::new(wanted, settings)?;
    let entries = new_entries(inherited, &wanted_versions)?;
    let Some(first) = entries.first() else { return Ok(edited) };
    let added = add(path, &edited.bytes, settings, &entries).map_err(|failure| failure.at(&first.place))?;
    for change in edited.changes.iter_mut().filter(|change| change.line >= added.new_lines.start) {
        change.line += added.new_lines.end - added.new_lines.start;
    }
    edited.bytes = added.text.into_bytes();
    edited.after = None;
    edited.changes.extend(entries.into_iter().zip(added.lines).map(|(entry, line)| SiteChange {
        repository: entry.place.repository,
        format: Format::Inherited,
        line,
        old: entry.old,
        new: entry.version,
    }));
    edited.changes.sort_by_key(|change| change.line);
    Ok(edited)
}

/// Returns the missing entries for the wanted versions, in the order of the images.
///
/// An entry applies to all images with its name, so it has every part (tag, digest) that one of the images has.
fn new_entries<'a>(
    inherited: &'a [Inherited],
    wanted_versions: &WantedVersions<'_>,
) -> Result<Vec<NewEntry<'a>>, Refused> {
    let mut entries: Vec<NewEntry<'a>> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for image in inherited {
        let Some(version) = wanted_versions.version_beside(&image.site.repository, &image.site.version) else {
            continue;
        };
        let place = Blamed { repository: image.site.repository.clone(), line: image.site.line };
        let version = version.map_err(|missing| missing.at(&place))?;
        let old = image.site.version.clone();
        let is_needed = old != version;
        let Some(index) = places.get(image.name.as_str()) else {
            places.insert(&image.name, entries.len());
            entries.push(NewEntry { name: &image.name, version, old, place, is_needed });
            continue;
        };
        let entry = &mut entries[*index];
        if is_needed && !entry.is_needed {
            (entry.old, entry.is_needed) = (old, true);
        }
        let tag = entry.version.tag().or(version.tag()).cloned();
        let digest = entry.version.digest().or(version.digest()).cloned();
        entry.version = Version::from_parts(tag, digest).unwrap_or(version);
    }
    entries.retain(|entry| entry.is_needed);
    Ok(entries)
}

/// A text with additional entries.
struct Added {
    text: String,
    /// The new lines.
    new_lines: Range<u32>,
    /// For each entry, the line of the tag, or else of the digest.
    lines: Vec<u32>,
}

/// Why no entry can be added.
enum Failure {
    /// The notation of the file does not allow an entry.
    NoPlace(&'static str),
    Refused(Refused),
}

impl Failure {
    fn at(self, place: &Blamed) -> Refused {
        match self {
            Self::NoPlace(reason) => {
                Refused::NoPlace { repository: place.repository.clone(), line: place.line, reason }
            }
            Self::Refused(refused) => refused,
        }
    }
}

fn add(path: &str, bytes: &[u8], settings: &ManifestSettings, entries: &[NewEntry<'_>]) -> Result<Added, Failure> {
    let tree = Tree::parse(bytes).map_err(|unreadable| Failure::Refused(unreadable.into()))?;
    let [document] = tree.documents.as_slice() else {
        return Err(Failure::NoPlace("the file has several documents"));
    };
    if let Some(protection) = Protections::of(&tree, Role::File(path)).of_text() {
        return Err(Failure::NoPlace(protection.advice()));
    }
    let root = document.root;
    if tree.node(root).kind != Kind::Mapping(StructureStyle::Block) {
        return Err(Failure::NoPlace("the file is not written line by line"));
    }
    if tree.value_of(root, "<<").is_some() {
        return Err(Failure::NoPlace("its keys come through a merge key (`<<`): write them out"));
    }
    let gap = match tree.value_of(root, "images") {
        Some(images) => behind_the_last(&tree, root, images)?,
        None => at_the_end(&tree, root)?,
    };
    // Readers disagree whether such a text ends with a line break. With a line after the text, all readers agree.
    if gap.starts_line && ends_in_text(&tree, gap.before) {
        return Err(Failure::NoPlace("the file ends inside a text: end its last line"));
    }
    let lines = gap.lines(entries).ok_or(Failure::NoPlace("its name or version needs escapes"))?;
    let insertion = gap.insertion(&lines, entries);
    let text = insertion.applied_to(tree.text());
    let unprovable = |reason| Failure::Refused(Refused::Unprovable { reason });
    let (new, after) = proof_of_insertion(&tree, &text, &insertion, entries).map_err(unprovable)?;
    // If the file has no final line break, the insertion begins with one.
    let start = count_ends(&tree.text().as_bytes()[..gap.at]) + u32::from(gap.starts_line) + 1;
    let new_lines = start..start + lines.len() as u32;

    // The entries are sites from now on, so a file that could not be read again is refused now.
    let sites = Sites::find(&new, &Task::of_file(path, settings)).map_err(|Unreadable { line, reason }| {
        // Lines after the insertion differ from those of the file.
        Failure::Refused(Unreadable { line: line.filter(|line| *line < new_lines.start), reason }.into())
    })?;
    let inserted = gap.before..gap.before + insertion.expected.len() as NodeId;
    let mut found = sites.found.iter().filter(|found| inserted.contains(&found.place().0));
    let is_site = |entry: &NewEntry<'_>| {
        let is_it = |site: &Site| (&site.repository, &site.version) == (&entry.place.repository, &entry.version);
        found.next().is_some_and(|found| found.site.format == Format::Kustomization && is_it(&found.site))
    };
    if !entries.iter().all(is_site) {
        let reason =
            "an entry would not be a site of the image in this file, by its `kind` or by a rule of the settings";
        return Err(Failure::NoPlace(reason));
    }
    let lines = after.entries.iter().rev().take(entries.len()).rev().map(|entry| entry.version_line);
    Ok(Added { lines: lines.collect(), new_lines, text })
}

/// The position and style of new entries.
struct Gap {
    /// The byte position of the insertion.
    at: usize,
    /// Whether the line before the insertion has no line break yet.
    starts_line: bool,
    line_end: &'static str,
    /// The blanks before the dash.
    indentation: String,
    /// The blanks after the dash.
    distance: usize,
    is_flow: bool,
    /// If the key `images` is missing: the blanks before the key, and whether a blank line precedes it.
    key: Option<(String, bool)>,
    name_style: ScalarStyle,
    version_style: ScalarStyle,
    quotes: Quotes,
    /// The node after the entry, and the collections around it.
    before: NodeId,
    around: Vec<NodeId>,
}

/// Returns the position after the last entry of the list.
fn behind_the_last(tree: &Tree<'_>, root: NodeId, images: NodeId) -> Result<Gap, Failure> {
    match tree.node(images).kind {
        Kind::Sequence(StructureStyle::Block) => {}
        Kind::Sequence(StructureStyle::Flow) => {
            return Err(Failure::NoPlace("`images` is written between brackets: write one entry on each line"));
        }
        Kind::Alias(_) => return Err(Failure::NoPlace("`images` is an alias: write it out")),
        Kind::Scalar(_) | Kind::Mapping(_) => {
            return Err(Failure::NoPlace("`images` is not a list: remove it, or add an entry"));
        }
    }
    if tree.aliases.iter().any(|alias| matches!(tree.resolve(*alias), target if target == images || target == root)) {
        return Err(Failure::NoPlace(
            "`images` is also used elsewhere through its anchor: write it out in both places",
        ));
    }
    let last = tree.children(images).last().ok_or(Failure::NoPlace("`images` is an empty list"))?;
    let no_style = Failure::NoPlace("the last entry of `images` is not a mapping after a dash");
    let is_flow = match tree.node(last).kind {
        Kind::Mapping(style) => style == StructureStyle::Flow,
        Kind::Scalar(_) | Kind::Sequence(_) | Kind::Alias(_) => return Err(no_style),
    };
    let Some((indentation, distance)) = dash_before(tree, last) else { return Err(no_style) };
    if is_flow && !closes_in_line(tree, last) {
        return Err(Failure::NoPlace("the last entry of `images` is written over several lines: write it in one"));
    }
    // The end of a collection in brackets is unknown, and it cannot contain a block entry.
    let is_nested = |id: NodeId| matches!(tree.node(id).kind, Kind::Sequence(_) | Kind::Mapping(_));
    if (last + 1..tree.node(last).subtree_end).any(is_nested) {
        return Err(Failure::NoPlace("the last entry of `images` has a value that is a list or a mapping: remove it"));
    }
    // Only values that need no quotes show the author's preference.
    let style_of = |keys: &[&str]| {
        let values =
            tree.children(images).flat_map(|entry| keys.iter().filter_map(move |key| tree.value_of(entry, key)));
        let free = values.map(|value| tree.node(value)).filter(|node| reads_as_string(&node.value));
        match free.last().map(|node| node.kind) {
            Some(Kind::Scalar(style)) => style,
            _ => ScalarStyle::Plain,
        }
    };
    let end = (last..tree.node(last).subtree_end).map(|id| tree.node(id).span().end).max().unwrap_or_default();
    let text = tree.text();
    let at = end_of_line(text, end);
    Ok(Gap {
        at,
        starts_line: !ends_line(&text[..at]),
        line_end: line_end(text, at),
        indentation,
        distance,
        is_flow,
        key: None,
        name_style: style_of(&["name"]),
        version_style: style_of(&["newTag", "digest"]),
        quotes: Quotes::of(tree),
        before: tree.node(images).subtree_end,
        around: vec![root, images],
    })
}

/// Returns the position at the end of a file without `images`.
fn at_the_end(tree: &Tree<'_>, root: NodeId) -> Result<Gap, Failure> {
    let text = tree.text();
    let is_blank = |text: &str| text.bytes().all(|byte| byte == b' ');
    let before_key = |key: NodeId| last_line(&text[..tree.node(key).span().start]).trim_start_matches('\u{feff}');
    let indentation = before_key(root + 1);
    // After a question mark, the key begins at another position than its map, perhaps on its own line.
    let begins = |id: NodeId| tree.node(id).span().start;
    if !is_blank(indentation) || begins(root) != begins(root + 1) {
        return Err(Failure::NoPlace("its first key is not at the beginning of a line"));
    }
    let lists = tree.entries(root).map(|(_, value)| value);
    let lists = lists.filter(|list| tree.node(*list).kind == Kind::Sequence(StructureStyle::Block));
    let style = lists.filter_map(|list| dash_before(tree, tree.children(list).next()?)).next();
    let (dash, distance) = style.unwrap_or_else(|| (indentation.to_owned(), 1));
    if text.split(['\n', '\r']).any(|line| line.starts_with("...")) {
        return Err(Failure::NoPlace("the file ends with the line `...`: remove that line"));
    }
    // If keys are separated by blank lines, the new key is too.
    let is_apart = tree.entries(root).skip(1).last().is_some_and(|(key, _)| {
        let start = tree.node(key).span().start - before_key(key).len();
        ends_blank(&text[..start])
    });
    // A blank line after `|+` belongs to the text.
    let ends_in_text = ends_in_text(tree, tree.nodes.len() as NodeId);
    Ok(Gap {
        at: text.len(),
        starts_line: !ends_line(text),
        line_end: line_end(text, text.len()),
        indentation: dash,
        distance,
        is_flow: false,
        key: Some((indentation.to_owned(), is_apart && !ends_blank(text) && !ends_in_text)),
        name_style: ScalarStyle::Plain,
        version_style: ScalarStyle::Plain,
        quotes: Quotes::of(tree),
        before: tree.nodes.len() as NodeId,
        around: vec![root],
    })
}

/// Returns whether the last node before another one is a text over several lines.
///
/// Ignores implicit values, such as the value of a key after a question mark, which come after the text in the tree.
fn ends_in_text(tree: &Tree<'_>, before: NodeId) -> bool {
    let mut nodes = (0..before).rev().map(|id| tree.node(id));
    let last = nodes.find(|node| !node.span().is_empty());
    last.is_some_and(|node| matches!(node.kind, Kind::Scalar(ScalarStyle::Literal | ScalarStyle::Folded)))
}

impl Gap {
    /// Returns the new lines without line endings; `None`: a value cannot be written.
    fn lines(&self, entries: &[NewEntry<'_>]) -> Option<Vec<String>> {
        let mut lines = Vec::new();
        if let Some((indentation, has_blank_line)) = &self.key {
            lines.extend(has_blank_line.then(String::new));
            lines.push(format!("{indentation}images:"));
        }
        let dash = format!("{}-{}", self.indentation, " ".repeat(self.distance));
        let below = " ".repeat(dash.len());
        for entry in entries {
            let mut fields = Vec::new();
            for (key, value) in entry.fields() {
                let style = if key == "name" { self.name_style } else { self.version_style };
                fields.push(format!("{key}: {}", token(value, style, self.quotes)?));
            }
            if self.is_flow {
                lines.push(format!("{dash}{{{}}}", fields.join(", ")));
            } else {
                let starts = std::iter::once(&dash).chain(std::iter::repeat(&below));
                lines.extend(starts.zip(fields).map(|(start, field)| format!("{start}{field}")));
            }
        }
        Some(lines)
    }

    fn insertion<'a>(&self, lines: &[String], entries: &'a [NewEntry<'a>]) -> Insertion<'a> {
        let mut inserted = lines.join(self.line_end);
        if self.starts_line {
            // The file had no final line break, and the new file has none.
            inserted.insert_str(0, self.line_end);
        } else {
            inserted.push_str(self.line_end);
        }
        let mut expected = Vec::new();
        if self.key.is_some() {
            expected.extend([Expected::Scalar("images"), Expected::Sequence]);
        }
        for entry in entries {
            expected.push(Expected::Mapping(entry.fields().count() as NodeId));
            expected.extend(entry.fields().flat_map(|(key, value)| [Expected::Scalar(key), Expected::Scalar(value)]));
        }
        Insertion { at: self.at, text: inserted, before: self.before, around: self.around.clone(), expected }
    }
}

/// Returns whether a map in braces ends on the line on which it begins.
fn closes_in_line(tree: &Tree<'_>, mapping: NodeId) -> bool {
    let (text, start) = (tree.text(), tree.node(mapping).span().start);
    let end = (mapping..tree.node(mapping).subtree_end).map(|id| tree.node(id).span().end).max().unwrap_or(start);
    // After the last value, only the brace follows, perhaps after a comma.
    let behind = text[end..].find('}').map_or(text.len(), |length| end + length);
    !text[start..behind].contains(['\n', '\r'])
}

/// Returns the blanks before and after an item's dash, if nothing else precedes the item on its line.
fn dash_before(tree: &Tree<'_>, item: NodeId) -> Option<(String, usize)> {
    let first = match tree.node(item).kind {
        Kind::Mapping(StructureStyle::Block) => item + 1,
        Kind::Mapping(StructureStyle::Flow) | Kind::Scalar(_) => item,
        Kind::Sequence(_) | Kind::Alias(_) => return None,
    };
    let before = last_line(&tree.text()[..tree.node(first).span().start]);
    let (indentation, blanks) = before.split_once('-')?;
    let is_blank = |text: &str| text.bytes().all(|byte| byte == b' ');
    (is_blank(indentation) && is_blank(blanks) && !blanks.is_empty()).then(|| (indentation.to_owned(), blanks.len()))
}

fn ends_line(text: &str) -> bool {
    text.is_empty() || last_end(text).is_some()
}

/// Returns whether the last line is blank.
fn ends_blank(text: &str) -> bool {
    last_end(text).is_some_and(|end| ends_line(&text[..text.len() - end.len()]))
}

/// Returns the first byte after the line of `at`; `at` itself if a line ends there.
fn end_of_line(text: &str, at: usize) -> usize {
    if ends_line(&text[..at]) {
        return at;
    }
    let end = at + line_length(&text[at..]);
    end + first_end(&text[end..]).map_or(0, str::len)
}

/// Returns the line ending before `at`, or else the first one of the file.
fn line_end(text: &str, at: usize) -> &'static str {
    last_end(&text[..at]).or_else(|| first_end(&text[line_length(text)..])).unwrap_or("\n")
}
