//! Sites that somebody names: by a marker in a comment, by a rule of the settings.
//!
//! What is named may be a site already, found by its keys. Then a name that is known says whose it is, and an unknown
//! one changes nothing: a repository that was made for Flux works as it is.

use std::collections::{BTreeMap, BTreeSet};

use super::embedded::Rule;
use super::find::{Finder, Found, Part, Role, Task, Written};
use super::markers::{self, Marker, Name, Says, markers};
use super::prefilter::may_hold_markers;
use super::settings::RulePart;
use super::site::{Format, Note};
use super::site_path::{Place, select};
use super::slots::Slot;
use super::tree::{NodeId, Tree};
use crate::image::{ImageReference, Repository};

/// Which sites a scalar is part of, and what markers exclude.
struct Claims<'text> {
    /// The sites (by their places in the list) of each node through which one is reached.
    sites: BTreeMap<NodeId, Vec<usize>>,
    ignored: BTreeSet<NodeId>,
    policies: Policies<'text>,
}

impl<'task> Finder<'_, '_, 'task> {
    /// Adds what markers and rules name, and takes away what a marker excludes.
    pub(super) fn take_claims(&mut self, task: &Task<'task>) {
        let markers = match may_hold_markers(self.tree.text().as_bytes()) {
            true => markers(self.tree),
            false => Vec::new(),
        };
        if markers.is_empty() && task.rules.is_empty() {
            return;
        }
        let policies = Policies::of(self.tree, &markers);
        let mut claims = Claims { sites: BTreeMap::new(), ignored: BTreeSet::new(), policies };
        for (place, found) in self.found.iter().enumerate() {
            for part in found.parts() {
                part.reached_by.iter().chain([&part.node]).for_each(|node| claims.note(*node, place));
            }
        }
        for marker in &markers {
            self.take_marker(marker, task, &mut claims);
        }
        let mut met = vec![false; task.rules.len()];
        for document in &self.tree.documents {
            for (rule, met) in task.rules.iter().zip(&mut met) {
                for place in select(self.tree, document.root, rule.steps) {
                    *met |= self.take_rule(place, rule, task.role, &mut claims);
                }
            }
        }
        for (_, rule) in met.iter().zip(&task.rules).filter(|(met, _)| !**met) {
            let whose = rule.repository.map_or("an image".to_owned(), Repository::to_string);
            self.note(1, format!("no version stands where an [[environment.site]] looks for that of {whose}"));
        }
        if !claims.ignored.is_empty() {
            let is_ignored = |part: &Part| {
                claims.ignored.contains(&part.node) || { part.reached_by.iter().any(|at| claims.ignored.contains(at)) }
            };
            self.found.retain(|found| !found.parts().any(is_ignored));
            self.embedded.retain(|node, embedded| {
                !claims.ignored.contains(node) && !embedded.reached_by.iter().any(|at| claims.ignored.contains(at))
            });
        }
        self.found.sort_by_key(Found::place);
    }

    fn note(&mut self, line: u32, reason: String) {
        self.notes.push(Note { line, reason });
    }

    fn take_marker(&mut self, marker: &Marker<'_>, task: &Task<'task>, claims: &mut Claims<'_>) {
        let Some(at) = marker.at else {
            return self
                .note(marker.line, "a marker stands behind no value: write it at the end of its line".to_owned());
        };
        let (name, part) = match marker.says {
            Says::Unclear => {
                let reason = "a marker is not understood: write `# tagrelay: <image>`, `:tag`, `:digest` or `ignore`";
                return self.note(marker.line, reason.to_owned());
            }
            Says::Ignore => {
                claims.ignored.insert(at);
                return;
            }
            Says::Is(name, part) => (name, part),
        };
        let known = match name {
            Name::Own(name) => task.names.of_marker(name),
            Name::Policy(policy) => task.names.of_policy(policy).or_else(|| claims.policies.repository_of(policy)),
        };
        if self.is_claimed(at, known.as_ref(), claims) {
            return;
        }
        let by_last_part = || match name {
            Name::Policy(policy) => policy.split_once(':').and_then(|(_, name)| task.names.of_marker(name)),
            Name::Own(_) => None,
        };
        let part = match part {
            // It never changes; what it says was read before.
            Some(markers::Part::Name) => return,
            Some(markers::Part::Tag) => Some(RulePart::Tag),
            Some(markers::Part::Digest) => Some(RulePart::Digest),
            None => None,
        };
        match self.take_scalar(at, part, known.or_else(by_last_part).as_ref(), Format::Marker) {
            Ok(()) => claims.note(at, self.found.len() - 1),
            Err(reason) => {
                let (Name::Own(name) | Name::Policy(name)) = name;
                self.note(marker.line, reason.of_marker(name));
            }
        }
    }

    /// Returns whether a node is part of a site already, which then belongs to the repository, if one is known.
    fn is_claimed(&mut self, at: NodeId, repository: Option<&Repository>, claims: &Claims<'_>) -> bool {
        let Some(places) = claims.sites.get(&at) else { return false };
        for place in places {
            if let (Some(found), Some(repository)) = (self.found.get_mut(*place), repository) {
                found.site.repository = repository.clone();
            }
        }
        true
    }

    /// Returns whether a version stands where a rule leads to.
    fn take_rule(&mut self, place: Place<'task>, rule: &Rule<'task>, role: Role<'_>, claims: &mut Claims<'_>) -> bool {
        match place {
            Place::Node(at) => {
                if self.is_claimed(at, rule.repository, claims) {
                    return true;
                }
                let is_taken = self.take_scalar(at, Some(rule.part), rule.repository, Format::Rule).is_ok();
                if is_taken {
                    claims.note(at, self.found.len() - 1);
                }
                is_taken
            }
            // A text inside a text inside a text is out of reach.
            Place::Inside(at, steps) => match self.reader.slot(Some(at)) {
                Slot::Text(at, node, _) if matches!(role, Role::File(_)) => {
                    self.note_embedded(at, node).rules.push(Rule { steps, ..*rule });
                    true
                }
                _ => false,
            },
        }
    }

    /// Makes a scalar a site. Without a part, a text with a version in it is a reference and any other a tag.
    fn take_scalar(
        &mut self,
        at: NodeId,
        part: Option<RulePart>,
        repository: Option<&Repository>,
        format: Format,
    ) -> Result<(), NotTaken> {
        let Slot::Text(at, node, text) = self.reader.slot(Some(at)) else { return Err(NotTaken::NoText) };
        let (name, tag, digest) = ImageReference::split(text);
        let is_reference = match part {
            Some(part) => part == RulePart::Reference,
            None => tag.is_some() || digest.is_some(),
        };
        let whole = (text, Part::whole(at, node, text));
        let (name, tag, digest): (_, Option<Written<'_>>, Option<Written<'_>>) = match part {
            _ if is_reference => {
                let behind = name.len() + 1;
                let tag = tag.map(|tag| (tag, Part::inside(at, node, behind..behind + tag.len())));
                let start = |digest: &str| text.len() - digest.len();
                let digest = digest.map(|digest| (digest, Part::inside(at, node, start(digest)..text.len())));
                (Some(name), tag, digest)
            }
            Some(RulePart::Digest) => (None, None, Some(whole)),
            // A marker that says `tag` means a tag and nothing behind it; without it there may be a digest.
            _ if text.contains('@') => {
                let (tag, digest) = Part::tag_and_digest(at, node, text);
                (None, Some(tag), digest)
            }
            _ => (None, Some(whole), None),
        };
        let Some(repository) = repository.map(Repository::as_str).or(name) else { return Err(NotTaken::NameUnknown) };
        if !self.add(node, format, tag, digest, repository) {
            return Err(NotTaken::NoVersion);
        }
        if let Some(found) = self.found.last_mut() {
            found.is_pinnable &= is_reference;
        }
        Ok(())
    }
}

impl Claims<'_> {
    fn note(&mut self, node: NodeId, place: usize) {
        let places = self.sites.entry(node).or_default();
        if places.last() != Some(&place) {
            places.push(place);
        }
    }
}

/// Why a scalar is no site.
enum NotTaken {
    NoText,
    NoVersion,
    NameUnknown,
}

impl NotTaken {
    fn of_marker(&self, name: &str) -> String {
        match self {
            Self::NoText | Self::NoVersion => format!("what is marked as `{name}` is no version: it is left alone"),
            Self::NameUnknown => format!(
                "the marker names `{name}`, and no one managed repository is called so: give an [[image]] this `name` or \
                 write the repository"
            ),
        }
    }
}

/// What the markers of a file say of Flux's policies: the repository stands where one marks a name.
struct Policies<'text> {
    named: Vec<(&'text str, Repository)>,
}

impl<'text> Policies<'text> {
    fn of(tree: &Tree<'_>, markers: &[Marker<'text>]) -> Self {
        let named = markers.iter().filter_map(|marker| match (marker.at, marker.says) {
            (Some(at), Says::Is(Name::Policy(policy), Some(markers::Part::Name))) => {
                let text = &tree.node(tree.resolve(at)).value;
                Some((policy, text.parse().ok()?))
            }
            _ => None,
        });
        Self { named: named.collect() }
    }

    fn repository_of(&self, policy: &str) -> Option<Repository> {
        self.named.iter().find(|(named, _)| *named == policy).map(|(_, repository)| repository.clone())
    }
}
