//! Sites that are named explicitly, by a marker in a comment or a rule in the settings.
//!
//! A named scalar may already be a site because of its keys. A known name then sets its repository. An unknown name changes
//! nothing, so a repository with Flux's markers works unchanged.

use std::collections::{BTreeMap, BTreeSet};

use super::embedded::Rule;
use super::finder::Finder;
use super::found::{Found, Part, Written};
use super::markers::{Ignored, Marked, Marker, Name, Says, markers};
use super::prefilter::may_hold_markers;
use super::settings::RulePart;
use super::site::{Format, Note};
use super::site_path::{Reached, select};
use super::slots::Slot;
use super::task::{Role, Task};
use super::tree::{Kind, NodeId, Tree};
use tagrelay_image::{ImageReference, Repository};

/// The sites of each scalar, and the scalars that markers exclude.
struct Claims<'text> {
    /// For each node, the sites (by index) that are reached through the node.
    sites: BTreeMap<NodeId, Vec<usize>>,
    ignored: BTreeSet<NodeId>,
    policies: Policies<'text>,
}

impl<'task> Finder<'_, '_, 'task> {
    /// Adds sites from markers and rules, and removes sites that a marker excludes.
    pub(crate) fn apply_claims(&mut self, task: &Task<'task>) {
        let mut markers = match may_hold_markers(self.tree.text().as_bytes()) {
            true => markers(self.tree),
            false => Vec::new(),
        };
        if task.role == Role::Unknown {
            // A rule that leads into a text names one position in the text. The rest of the text is not searched.
            markers.retain(|marker| marker.says == Says::Ignore);
        }
        if markers.is_empty() && task.rules.is_empty() {
            return;
        }
        self.remove_ignored(&markers);
        let policies = Policies::of(self.tree, &markers);
        let mut claims = Claims { sites: BTreeMap::new(), ignored: BTreeSet::new(), policies };
        for (place, found) in self.found.iter().enumerate() {
            for part in found.parts() {
                part.reached_by.iter().chain([&part.node]).for_each(|node| claims.note(*node, place));
            }
        }
        for marker in &markers {
            self.find_marker(marker, task, &mut claims);
        }
        let mut met = vec![false; task.rules.len()];
        for document in &self.tree.documents {
            for (rule, met) in task.rules.iter().zip(&mut met) {
                for place in select(self.tree, document.root, rule.steps) {
                    *met |= self.find_rule(place, rule, task.role, &mut claims);
                }
            }
        }
        for (_, rule) in met.iter().zip(&task.rules).filter(|(met, _)| !**met) {
            let whose = rule.repository.map_or("an image".to_owned(), Repository::to_string);
            self.note(1, format!("an [[environment.site]] finds no version at its path for {whose}"));
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

    /// Removes sites with `# tagrelay: ignore`.
    ///
    /// The marker is on the line of the site, after the name of its repository, or after the key of a value that contains the site.
    fn remove_ignored(&mut self, markers: &[Marker<'_>]) {
        let tree = self.tree;
        let ignored = Ignored::of(tree, markers);
        if ignored.is_nothing() {
            return;
        }
        let is_beside = |node: NodeId| ignored.takes(tree, node);
        let names_it = |home: &NodeId| {
            let named = |key: NodeId| matches!(&*tree.node(key).value, "repository" | "registry" | "name" | "newName");
            tree.entries(*home).any(|(key, value)| named(key) && ignored.takes_line_of(tree, value))
        };
        let parameters = self.ignored_parameters(&ignored);
        let is_taken = |node: NodeId| is_beside(node) || parameters.contains(&node);
        self.found.retain(|found| {
            let is_ignored = |part: &Part| is_taken(part.node) || part.reached_by.iter().any(|at| is_taken(*at));
            let is_named = found.is_beside_its_name() && found.homes.iter().any(names_it);
            // A merge key may provide the version of the site.
            let is_held = !found.homes.is_empty() && found.homes.iter().all(|home| ignored.holds(*home));
            !is_named && !is_held && !found.parts().any(is_ignored)
        });
        self.embedded
            .retain(|node, embedded| !is_beside(*node) && !embedded.reached_by.iter().any(|at| is_beside(*at)));
        self.unclear.exclude(is_beside);
        self.ignored_aliases = tree.aliases.iter().copied().filter(|alias| is_beside(*alias)).collect();
    }

    /// Returns the values of Helm parameters whose `name` has a marker.
    fn ignored_parameters(&self, ignored: &Ignored) -> BTreeSet<NodeId> {
        let tree = self.tree;
        let lists: BTreeSet<NodeId> = self.found.iter().flat_map(|found| &found.homes).copied().collect();
        let lists = lists.into_iter().filter(|list| matches!(tree.node(*list).kind, Kind::Sequence(_)));
        let entries = lists.flat_map(|list| tree.children(list)).map(|entry| tree.resolve(entry));
        let is_named = |entry: &NodeId| {
            tree.value_of(*entry, "name").is_some_and(|name| ignored.takes_line_of(tree, tree.resolve(name)))
        };
        entries.filter(is_named).filter_map(|entry| tree.value_of(entry, "value")).collect()
    }

    fn find_marker(&mut self, marker: &Marker<'_>, task: &Task<'task>, claims: &mut Claims<'_>) {
        let Some(at) = marker.at else {
            if marker.says == Says::Ignore && marker.around.is_some() {
                return;
            }
            return self
                .note(marker.line, "the marker has no value before it: write it at the end of its line".to_owned());
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
        // An unknown Flux policy usually has the name of the image. A reference contains the name of its image.
        let guess = match name {
            Name::Policy(policy) => policy.split_once(':').and_then(|(_, name)| task.names.of_marker(name)),
            Name::Own(_) => None,
        };
        let owner = Owner { known: known.as_ref(), guess: guess.as_ref() };
        let part = match part {
            // The value never changes. `Policies` has used it.
            Some(Marked::Name) => return,
            Some(Marked::Tag) => Some(RulePart::Tag),
            Some(Marked::Digest) => Some(RulePart::Digest),
            None => None,
        };
        match self.find_scalar(at, part, owner, Format::Marker) {
            Ok(()) => claims.note(at, self.found.len() - 1),
            Err(reason) => {
                let (Name::Own(name) | Name::Policy(name)) = name;
                self.note(marker.line, reason.of_marker(name));
            }
        }
    }

    /// Returns whether a node belongs to a site already. A known repository becomes the repository of the site.
    fn is_claimed(&mut self, at: NodeId, repository: Option<&Repository>, claims: &Claims<'_>) -> bool {
        let Some(places) = claims.sites.get(&at) else { return false };
        for place in places {
            if let (Some(found), Some(repository)) = (self.found.get_mut(*place), repository) {
                found.site.repository = repository.clone();
            }
        }
        true
    }

    /// Returns whether there is a version at the end of a rule's path.
    fn find_rule(
        &mut self,
        place: Reached<'task>,
        rule: &Rule<'task>,
        role: Role<'_>,
        claims: &mut Claims<'_>,
    ) -> bool {
        match place {
            Reached::Node(at) => {
                if self.is_claimed(at, rule.repository, claims) {
                    return true;
                }
                let owner = Owner { known: rule.repository, guess: None };
                let is_taken = self.find_scalar(at, Some(rule.part), owner, Format::Rule).is_ok();
                if is_taken {
                    claims.note(at, self.found.len() - 1);
                }
                is_taken
            }
            // Three levels of texts are not supported.
            Reached::Inside(at, steps) => match self.reader.slot(Some(at)) {
                Slot::Text(at, node, _) if matches!(role, Role::File(_)) => {
                    self.embedded_entry(at, node).rules.push(Rule { steps, ..*rule });
                    true
                }
                _ => false,
            },
        }
    }

    /// Makes a scalar a site. Without a part, a text with a version is a reference, and any other text is a tag.
    fn find_scalar(
        &mut self,
        at: NodeId,
        part: Option<RulePart>,
        owner: Owner<'_>,
        format: Format,
    ) -> Result<(), NotTaken> {
        let Slot::Text(at, node, text) = self.reader.slot(Some(at)) else { return Err(NotTaken::NoText) };
        let (name, tag, digest) = ImageReference::split(text);
        let is_reference = match part {
            Some(part) => part == RulePart::Reference,
            // `v1@sha256:…` is a tag, `nginx@sha256:…` is a reference.
            None => tag.is_some() || (digest.is_some() && owner.may_be_called(name)),
        };
        let whole = (text, Part::whole(at, node, text));
        let (name, tag, digest): (_, Option<Written<'_>>, Option<Written<'_>>) = match part {
            _ if is_reference => {
                let (name, tag, digest) = Part::of_reference(at, node, text, 0);
                (Some(name), tag, digest)
            }
            Some(RulePart::Digest) => (None, None, Some(whole)),
            // A marker with `:tag` means only a tag. Without `:tag`, a digest may follow.
            _ if text.contains('@') => {
                let (tag, digest) = Part::tag_and_digest(at, node, text);
                (None, Some(tag), digest)
            }
            _ => (None, Some(whole), None),
        };
        let Owner { known, guess } = owner;
        let Some(repository) = known.map(Repository::as_str).or(name).or(guess.map(Repository::as_str)) else {
            return Err(NotTaken::NameUnknown);
        };
        if !self.add(node, format, tag, digest, repository) {
            return Err(NotTaken::NoVersion);
        }
        if let Some(found) = self.found.last_mut() {
            found.is_pinnable &= is_reference;
            // Only this position is named, not copies of the surrounding value.
            found.homes.clear();
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

/// The repository of a scalar.
#[derive(Debug, Clone, Copy)]
struct Owner<'a> {
    /// The named repository.
    known: Option<&'a Repository>,
    /// The repository to use if neither a name nor the scalar determines one.
    guess: Option<&'a Repository>,
}

impl Owner<'_> {
    /// Returns whether a name without a tag can be the repository's name and not a tag.
    fn may_be_called(&self, name: &str) -> bool {
        let is_name_of = |repository: &Repository| repository.name() == name;
        name.contains('/') || self.known.or(self.guess).is_none_or(is_name_of)
    }
}

/// Why a scalar is not a site.
enum NotTaken {
    NoText,
    NoVersion,
    NameUnknown,
}

impl NotTaken {
    fn of_marker(&self, name: &str) -> String {
        match self {
            Self::NoText | Self::NoVersion => {
                format!("the value marked as `{name}` is not a version: it is left alone")
            }
            Self::NameUnknown => format!(
                "the marker names `{name}`, and no one managed repository is called so: give an [[image]] this `name` or \
                 write the repository"
            ),
        }
    }
}

/// Maps Flux policies to repositories by the markers of names in the file.
struct Policies<'text> {
    named: BTreeMap<&'text str, Repository>,
}

impl<'text> Policies<'text> {
    fn of(tree: &Tree<'_>, markers: &[Marker<'text>]) -> Self {
        let mut named = BTreeMap::new();
        for marker in markers {
            if let (Some(at), Says::Is(Name::Policy(policy), Some(Marked::Name))) = (marker.at, marker.says)
                && let Ok(repository) = tree.node(tree.resolve(at)).value.parse()
            {
                // The first repository of a policy applies.
                named.entry(policy).or_insert(repository);
            }
        }
        Self { named }
    }

    fn repository_of(&self, policy: &str) -> Option<Repository> {
        self.named.get(policy).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{ImageNames, ManifestSettings, Pin, Reading, SiteRule, Wanted, edit_with, read};
    use super::*;

    const OLD: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const NEW: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn settings() -> ManifestSettings {
        let mut names = ImageNames::default();
        names.pattern("docker.io/uyou/*");
        names.name("web", &"ghcr.io/x/web".parse().unwrap());
        names.flux_policy("ns:api", &"ghcr.io/x/api".parse().unwrap());
        ManifestSettings { names: Arc::new(names), ..ManifestSettings::default() }
    }

    fn rule(path: &str, repository: Option<&str>, part: RulePart) -> ManifestSettings {
        let repository = repository.map(|repository| repository.parse().unwrap());
        let rules = vec![SiteRule::new("*.yaml", path, repository, part).unwrap()];
        ManifestSettings { rules, ..ManifestSettings::default() }
    }

    /// Returns the sites as `line format repository version`, then the notes as `line: reason`.
    fn found(text: &str, settings: &ManifestSettings) -> Vec<String> {
        let Reading { sites, notes } = read("a.yaml", text.as_bytes(), settings).unwrap();
        let site = |site: &super::super::Site| {
            format!("{} {} {} {}", site.line, site.format, site.repository, site.version).replace(OLD, "D")
        };
        let notes = notes.iter().map(|note| format!("{}: {}", note.line, note.reason));
        sites.iter().map(site).chain(notes).collect()
    }

    /// Sets every image to `v2` with the new digest.
    fn set(text: &str, settings: &ManifestSettings) -> String {
        let sites = read("a.yaml", text.as_bytes(), settings).unwrap().sites;
        let version = tagrelay_image::Version::tagged("v2".parse().unwrap(), Some(NEW.parse().unwrap()));
        let wanted =
            |site: &super::super::Site| Wanted { repository: site.repository.clone(), version: version.clone() };
        let wanted: Vec<Wanted> = sites.iter().map(wanted).collect();
        String::from_utf8(edit_with("a.yaml", text.as_bytes(), &wanted, settings).unwrap().bytes).unwrap()
    }

    #[test]
    fn marker_determines_the_repository() {
        for (text, expected) in [
            ("v: v1 # tagrelay: api", "1 marker docker.io/uyou/api v1"),
            ("v: v1 # tagrelay: web:tag", "1 marker ghcr.io/x/web v1"),
            ("v: v1 # tagrelay: r.io:5000/a/b", "1 marker r.io:5000/a/b v1"),
            ("v: a/b:v1 # {\"$imagepolicy\": \"ns:x\"}", "1 marker docker.io/a/b v1"),
            ("v: v1 # {\"$imagepolicy\": \"ns:api:tag\"}", "1 marker ghcr.io/x/api v1"),
            ("v: v1 # {\"$imagepolicy\": \"other:web:tag\"}", "1 marker ghcr.io/x/web v1"),
            ("v: v1@OLD # tagrelay: web", "1 marker ghcr.io/x/web v1@D"),
            // A marker with a known name overrides the repository of an existing site.
            ("image: mirror.io/web:v1 # tagrelay: web", "1 helm-values ghcr.io/x/web v1"),
            ("image: q.io/a:v1 # {\"$imagepolicy\": \"ns:x\"}", "1 helm-values q.io/a v1"),
            ("{repository: a/b, tag: v1} # {\"$imagepolicy\": \"ns:x:tag\"}", "1 helm-values docker.io/a/b v1"),
        ] {
            assert_eq!(found(&text.replace("OLD", OLD), &settings()), [expected], "{text}");
        }
        let ignored = "image: a:1 # tagrelay: ignore\nb: {image: &x a:1}\nc: {image: *x} # tagrelay: ignore\n";
        assert_eq!(found(ignored, &settings()), [""; 0]);
        for ignored in [
            "f: {tag: v1, repository: a/b} # tagrelay: ignore",
            "r: {a: {image: a:v1}, b: {image: b:v2}} # tagrelay: ignore",
            "repository: a/b # tagrelay: ignore\ntag: v1",
            "d: # tagrelay: ignore\n  image: a:1\n  e: [{repository: b, tag: v1}]\n",
            "image: |- # tagrelay: ignore\n  a:1\n",
            // A value in brackets over several lines may have the marker at its first or last line.
            "f: {repository: a/b, tag: v1,\n  x: y} # tagrelay: ignore",
            "f: {\n  repository: a/b,\n  tag: v1, # why\n} # tagrelay: ignore",
            "f: { # tagrelay: ignore\n  repository: a/b,\n  tag: v1\n}",
            "f: [{ # tagrelay: ignore\n  image: a:1}, {image: b:1}]",
            "- # tagrelay: ignore\n  image: a:1\n  b: [{repository: b, tag: v1}]\n",
            "f:\n  - # tagrelay: ignore\n    # why\n    - a: {image: a:1}\n  - x\n",
            "f: [{image: a:1,\n x: []\n # }\n}, [y: {image: b:1\n}]\n] # tagrelay: ignore",
        ] {
            assert_eq!(found(ignored, &settings()), [""; 0], "{ignored}");
        }
        let parameters = "apiVersion: argoproj.io/v1alpha1\nkind: Application\nhelm:\n  parameters:\n  \
                          - {name: image.repository, value: a}\n  - name: image.tag # tagrelay: ignore\n    value: v1\n  \
                          - {name: b.image, value: 'b:v2'}\n";
        assert_eq!(found(parameters, &settings()), ["8 argocd docker.io/library/b v2"]);
        assert_eq!(found(&parameters.replace(" # tagrelay: ignore", ""), &settings()).len(), 2);
        let one_of_two = "a: {image: a:1} # tagrelay: ignore\nb: {image: a:2}\n";
        assert_eq!(found(one_of_two, &settings()), ["2 helm-values docker.io/library/a 2"]);
        let inner = "f: [{image: a:1}, {image: a:2,\n x: y}, # tagrelay: ignore\n {image: a:3}]";
        let kept = ["1 helm-values docker.io/library/a 1", "3 helm-values docker.io/library/a 3"];
        assert_eq!(found(inner, &settings()), kept);
        let items = "- # tagrelay: ignore\n  image: a:1\n- image: a:2\n- # tagrelay: ignore\n- image: a:3\n";
        let told = "4: the marker has no value before it: write it at the end of its line";
        let kept = ["3 helm-values docker.io/library/a 2", "5 helm-values docker.io/library/a 3", told];
        assert_eq!(found(items, &settings()), kept);
        // Versions from a merge key are excluded with the map that they make a site.
        for merged in [
            "x: &x {repository: a, tag: v1}\ny: {<<: *x, repository: U} # tagrelay: ignore",
            "x: &x {repository: a, tag: v1}\ny: {<<: *x, repository: b} # tagrelay: ignore",
            "x: &x {repository: a, tag: v1}\ny: {<<: *x, repository: b,\n z: 1} # tagrelay: ignore",
            "x: &x {repository: a, tag: v1}\ny: # tagrelay: ignore\n  <<: *x\n  repository: b\n",
            "x: &x {repository: a, tag: v1}\nl:\n- # tagrelay: ignore\n  repository: b\n  <<: *x\n",
        ] {
            assert_eq!(found(merged, &settings()), ["1 helm-values docker.io/library/a v1"], "{merged}");
        }
        let by_name = "b: {image: a:2} # tagrelay: ignored";
        assert!(found(by_name, &settings()).iter().any(|note| note.contains("is not understood")));
    }

    #[test]
    fn rules_name_sites() {
        let tag = |path| rule(path, Some("a/b"), RulePart::Tag);
        for (text, settings, expected) in [
            ("a: {b: [{name: x, v: v1}, {name: y, v: v2}]}", tag("$.a.b[?name=='y'].v"), "1 rule docker.io/a/b v2"),
            ("a: q.io/c:v1", rule("$.a", None, RulePart::Reference), "1 rule q.io/c v1"),
            ("a: v1\n---\nb: v1", tag("$.b"), "3 rule docker.io/a/b v1"),
            ("x: |\n  image:\n    v: v1\n", tag("$.x.image.v"), "3 rule docker.io/a/b v1"),
            ("image: q.io/c:v1", tag("$.image"), "1 helm-values docker.io/a/b v1"),
            ("a: [v1]", tag("$.a"), "1: an [[environment.site]] finds no version at its path for docker.io/a/b"),
        ] {
            assert_eq!(found(text, &settings), [expected], "{text}");
        }
        let settings = tag("$.x.image.v");
        assert_eq!(set("x: |\n  image:\n    v: v1 # c\n", &settings), "x: |\n  image:\n    v: v2 # c\n");
        let settings = rule("$.pin", Some("a/b"), RulePart::Digest);
        assert_eq!(set(&format!("pin: {OLD}"), &settings), format!("pin: {NEW}"));
    }

    #[test]
    fn pinned_sites_get_a_digest_after_the_tag() {
        let settings = ManifestSettings { pin: Pin::Digest, ..settings() };
        for (before, after) in [
            ("image: a:1", "image: a:v2@NEW"),
            ("image: a:1@OLD", "image: a:v2@NEW"),
            ("image: a@OLD", "image: a@NEW"),
            ("{repository: a, tag: v1}", "{repository: a, tag: v2@NEW}"),
            ("{repository: a, tag: v1, digest: OLD}", "{repository: a, tag: v2, digest: NEW}"),
            (
                "kind: Kustomization\nimages: [{name: a, newTag: v1}]",
                "kind: Kustomization\nimages: [{name: a, newTag: v2@NEW}]",
            ),
            ("v: v1 # tagrelay: web:tag", "v: v2 # tagrelay: web:tag"),
            ("v: a/b:v1 # {\"$imagepolicy\": \"ns:x\"}", "v: a/b:v2@NEW # {\"$imagepolicy\": \"ns:x\"}"),
        ] {
            let (before, after) = (before.replace("OLD", OLD), after.replace("NEW", NEW));
            assert_eq!(set(&before, &settings), after);
            // A pinned site stays pinned.
            assert_eq!(set(&after, &ManifestSettings::default()), after);
        }
    }
}
