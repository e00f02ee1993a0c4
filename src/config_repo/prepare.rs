//! From a plan to commits that exist only here: edits, blobs, trees along the paths, commits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tagrelay_git::tree::{self, ReadObject, Unreadable};
use tagrelay_git::{CommitDraft, CommitId, Kind, Mirror, NewObject, ObjectId};

use super::error::PrepareError;
use super::files::{Known, MAX_FILE_BYTES};
use super::index::{EnvironmentSites, Snapshot};
use super::paths::Territory;
use super::plan::{Change, ChangedFile, EnvironmentPlan, Outcome, Plan, PlannedCommit, Prepared, WantedVersion};
use super::settings::{CommitSettings, Grouping};
use super::surroundings::Around;
use crate::image::Repository;
use crate::manifest::{self, Format, Inherited, ManifestSettings, Reading, SiteChange, Wanted, edit_overlay};

/// Writes the message of a commit.
pub(super) type Render = dyn Fn(&PlannedCommit) -> String + Send + Sync;

/// Builds what a plan asks for on top of the commit of `snapshot`.
pub(super) fn prepare(
    mirror: &Mirror,
    territory: &Territory,
    snapshot: &Snapshot,
    settings: &CommitSettings,
    plan: &Plan,
    render: &Render,
) -> Result<Prepared, PrepareError> {
    let mut draft = Draft::new(mirror, snapshot.tip)?;
    let mut outcomes = Vec::new();
    let mut commits = Vec::new();
    let mut group = Group::default();
    for (index, environment) in plan.environments.iter().enumerate() {
        let sites = snapshot
            .environments
            .get(&environment.environment)
            .ok_or_else(|| PrepareError::UnknownEnvironment(environment.environment.clone()))?;
        let number = territory
            .number_of(&environment.environment)
            .ok_or_else(|| PrepareError::UnknownEnvironment(environment.environment.clone()))?;
        let edits = Edits::of(environment, sites, territory, number, &mut draft)?;
        group.add(environment, number, edits, &mut draft);
        if settings.grouping == Grouping::PerEnvironment || index + 1 == plan.environments.len() {
            let (judged, commit) = std::mem::take(&mut group).commit(&mut draft, settings, render)?;
            outcomes.extend(judged);
            commits.extend(commit);
        }
    }
    Ok(Prepared {
        parent: snapshot.tip,
        tip: draft.tip,
        outcomes,
        commits,
        files: draft.changed_files(),
        known: draft.known,
        objects: draft.objects,
    })
}

/// What goes into one commit.
#[derive(Default)]
struct Group {
    environments: Vec<String>,
    judged: Vec<(String, Judgement)>,
    changes: Vec<(String, Vec<Change>)>,
}

impl Group {
    fn add(&mut self, environment: &EnvironmentPlan, number: usize, edits: Edits, draft: &mut Draft<'_>) {
        let (judged, changes) = edits.judge(environment);
        self.judged.extend(judged);
        if !changes.is_empty() {
            self.environments.push(environment.environment.clone());
            self.changes.extend(changes);
            draft.stage(edits.results, number);
        }
    }

    /// Commits what is staged. Returns what became of each update, and the commit where there is anything to commit.
    #[allow(clippy::type_complexity)]
    fn commit(
        self,
        draft: &mut Draft<'_>,
        settings: &CommitSettings,
        render: &Render,
    ) -> Result<(Vec<(String, Outcome)>, Option<PlannedCommit>), PrepareError> {
        let mut commit = PlannedCommit { environments: self.environments, id: None, changes: self.changes };
        if !commit.changes.is_empty() {
            commit.id = draft.commit(settings, || render(&commit))?;
        }
        let id = commit.id;
        let outcomes = self.judged.into_iter().map(|(key, judgement)| (key, judgement.into_outcome(id)));
        Ok((outcomes.collect(), id.map(|_| commit)))
    }
}

/// What is being built: the tip as it would be, and the objects that it needs.
struct Draft<'a> {
    mirror: &'a Mirror,
    tip: CommitId,
    tree: ObjectId,
    objects: Vec<NewObject>,
    /// Where each of `objects` is.
    made: HashMap<ObjectId, usize>,
    /// The files that were read, as they were and as they are in the draft.
    files: BTreeMap<Arc<str>, DraftFile>,
    /// The files of the next commit.
    staged: BTreeMap<Arc<str>, NewObject>,
    /// What the files hold that were edited.
    known: Known,
}

struct DraftFile {
    old: Bytes,
    new: Bytes,
    /// The object with the bytes of `new`.
    id: ObjectId,
}

impl<'a> Draft<'a> {
    fn new(mirror: &'a Mirror, tip: CommitId) -> Result<Self, Unreadable> {
        let tree = mirror.tree_of(tip)?;
        Ok(Self {
            mirror,
            tip,
            tree,
            objects: Vec::new(),
            made: HashMap::new(),
            files: BTreeMap::new(),
            staged: BTreeMap::new(),
            known: Known::default(),
        })
    }

    /// Reads those of the files that were not read before.
    fn read_files(&mut self, paths: &BTreeSet<Arc<str>>) -> Result<(), Unreadable> {
        let missing: Vec<&Arc<str>> = paths.iter().filter(|path| !self.files.contains_key(*path)).collect();
        let names: Vec<&[u8]> = missing.iter().map(|path| path.as_bytes()).collect();
        let ids = tree::find_blobs(self, self.tree, &names)?;
        for (path, id) in missing.into_iter().zip(ids) {
            let old = self.mirror.read(id, Kind::Blob)?;
            self.files.insert(path.clone(), DraftFile { new: old.clone(), old, id });
        }
        Ok(())
    }

    fn add(&mut self, object: NewObject) -> ObjectId {
        let id = object.id;
        if !self.made.contains_key(&id) {
            self.made.insert(id, self.objects.len());
            self.objects.push(object);
        }
        id
    }

    /// Takes new bytes of files of an environment into the next commit.
    fn stage(&mut self, results: BTreeMap<Arc<str>, FileEdit>, owner: usize) {
        for (path, edit) in results {
            let Some(edited) = edit.edited.filter(|edited| !edited.changes.is_empty()) else { continue };
            let blob = NewObject::new(Kind::Blob, edited.bytes.clone());
            if let Some(file) = self.files.get_mut(&path) {
                self.known.note(file.id, &path, owner, edited.before);
                // What has become too large to be read is left alone from now on.
                if let Some(after) = edited.after.filter(|_| edited.bytes.len() <= MAX_FILE_BYTES) {
                    self.known.note(blob.id, &path, owner, after);
                }
                (file.new, file.id) = (edited.bytes, blob.id);
            }
            self.staged.insert(path, blob);
        }
    }

    /// Commits what is staged; `None` where the tree comes out as it was.
    fn commit(
        &mut self,
        settings: &CommitSettings,
        message: impl FnOnce() -> String,
    ) -> Result<Option<CommitId>, PrepareError> {
        let staged = std::mem::take(&mut self.staged);
        let blobs: Vec<(Arc<str>, ObjectId)> = staged.into_iter().map(|(path, blob)| (path, self.add(blob))).collect();
        let blobs: BTreeMap<&[u8], ObjectId> = blobs.iter().map(|(path, id)| (path.as_bytes(), *id)).collect();
        let edited = tree::replace_blobs(self, self.tree, &blobs)?;
        if edited.id == self.tree {
            return Ok(None);
        }
        for tree in edited.trees {
            self.add(tree);
        }
        self.tree = edited.id;
        let draft = CommitDraft {
            tree: self.tree,
            parent: self.tip,
            author: &settings.author,
            committer: settings.committer(),
            time: Timestamp::now(),
            message: &message(),
        };
        let commit = draft.write(settings.signer.as_ref())?;
        self.tip = self.add(commit).into();
        Ok(Some(self.tip))
    }

    fn changed_files(&self) -> Vec<ChangedFile> {
        let changed = self.files.iter().filter(|(_, file)| file.old != file.new);
        changed
            .map(|(path, file)| ChangedFile { path: path.clone(), old: file.old.clone(), new: file.new.clone() })
            .collect()
    }
}

impl ReadObject for Draft<'_> {
    fn read(&self, id: ObjectId, kind: Kind) -> Result<Bytes, Unreadable> {
        match self.made.get(&id) {
            Some(place) => Ok(self.objects[*place].data.clone()),
            None => self.mirror.read(id, kind),
        }
    }

    fn size(&self, id: ObjectId) -> Result<usize, Unreadable> {
        match self.made.get(&id) {
            Some(place) => Ok(self.objects[*place].data.len()),
            None => self.mirror.size(id),
        }
    }
}

/// The edits of one environment: each file with the updates that touch it.
struct Edits {
    results: BTreeMap<Arc<str>, FileEdit>,
    /// Why an update (by its number in the plan) cannot be done.
    refused: BTreeMap<usize, String>,
}

struct FileEdit {
    /// The updates that touch the file, by their numbers.
    updates: Vec<usize>,
    /// The images that a kustomization has no entry for yet.
    inherited: Vec<Inherited>,
    edited: Option<Edited>,
}

struct Edited {
    bytes: Bytes,
    changes: Vec<SiteChange>,
    /// What the file held and holds.
    before: Reading,
    after: Option<Reading>,
}

impl Edits {
    fn of(
        plan: &EnvironmentPlan,
        sites: &EnvironmentSites,
        territory: &Territory,
        owner: usize,
        draft: &mut Draft<'_>,
    ) -> Result<Self, PrepareError> {
        let mut edits = Self { results: BTreeMap::new(), refused: BTreeMap::new() };
        let mut inherited: BTreeMap<Arc<str>, BTreeSet<&Repository>> = BTreeMap::new();
        let mut last: HashMap<&Repository, usize> = HashMap::new();
        for (number, wanted) in plan.wanted.iter().enumerate() {
            last.insert(&wanted.repository, number);
        }
        for (number, wanted) in plan.wanted.iter().enumerate() {
            let winner = last[&wanted.repository];
            let Some(places) = sites.sites.get(&wanted.repository) else {
                edits.refused.insert(number, no_site(&wanted.repository, &plan.environment, sites));
                continue;
            };
            if plan.wanted[winner].version != wanted.version {
                let version = &plan.wanted[winner].version;
                edits.refused.insert(number, format!("a later update sets {} to {version}", wanted.repository));
            } else if winner == number {
                for place in places.iter() {
                    let file = edits.results.entry(place.path.clone());
                    let new = || FileEdit { updates: Vec::new(), inherited: Vec::new(), edited: None };
                    let file = file.or_insert_with(new);
                    if place.format == Format::Inherited {
                        inherited.entry(place.path.clone()).or_default().insert(&wanted.repository);
                    }
                    if file.updates.last() != Some(&number) {
                        file.updates.push(number);
                    }
                }
            }
        }
        draft.read_files(&edits.results.keys().cloned().collect())?;
        let written = |path: &str| draft.files.get(path).map(|file| file.new.clone());
        edits.find_inherited(&inherited, &Around::new(draft, territory, draft.tree, &written), owner)?;
        while edits.round(plan, territory.manifests(owner), draft) {}
        Ok(edits)
    }

    /// Finds out once more what kustomizations take from elsewhere: earlier environments of the plan may have changed it.
    fn find_inherited(
        &mut self,
        wanted: &BTreeMap<Arc<str>, BTreeSet<&Repository>>,
        around: &Around<'_>,
        owner: usize,
    ) -> Result<(), Unreadable> {
        for (path, repositories) in wanted {
            let Some(file) = self.results.get_mut(path) else { continue };
            let overlay = around.overlay(owner, path)?.unwrap_or_default();
            file.inherited = overlay.inherited;
            file.inherited.retain(|image| repositories.contains(&image.site.repository));
        }
        Ok(())
    }

    /// Edits each file that is not edited yet. Returns whether an update was refused on the way, so that files
    /// which it touched have to be edited again without it: an update is done in all of its files or in none.
    fn round(&mut self, plan: &EnvironmentPlan, manifests: &ManifestSettings, draft: &Draft<'_>) -> bool {
        let mut refused = BTreeMap::new();
        for (path, file) in self.results.iter_mut().filter(|(_, file)| file.edited.is_none()) {
            let bytes = draft.files.get(path).map(|file| file.new.clone()).unwrap_or_default();
            let edit = |wanted: Vec<&WantedVersion>| edit(path, &bytes, &wanted, manifests, &file.inherited);
            match edit(file.updates.iter().map(|number| &plan.wanted[*number]).collect()) {
                Ok(edited) => file.edited = Some(edited),
                Err(reason) => {
                    let trial = |wanted: &WantedVersion| edit(vec![wanted]).map(|_| ());
                    blame(path, &trial, plan, &file.updates, &reason, &mut refused);
                }
            }
        }
        for file in self.results.values_mut() {
            let count = file.updates.len();
            file.updates.retain(|number| !refused.contains_key(number));
            if file.updates.len() != count {
                file.edited = None;
            }
        }
        let again = !refused.is_empty();
        self.refused.append(&mut refused);
        again
    }

    /// Returns what is to be said of each update, and the changes for the commit.
    #[allow(clippy::type_complexity)]
    fn judge(&self, plan: &EnvironmentPlan) -> (Vec<(String, Judgement)>, Vec<(String, Vec<Change>)>) {
        let mut by_repository: HashMap<&Repository, Vec<Change>> = HashMap::new();
        for (path, file) in &self.results {
            for change in file.edited.iter().flat_map(|edited| &edited.changes) {
                by_repository.entry(&change.repository).or_default().push(Change {
                    environment: plan.environment.clone(),
                    path: path.to_string(),
                    line: change.line,
                    format: change.format,
                    repository: change.repository.clone(),
                    old: change.old.clone(),
                    new: change.new.clone(),
                });
            }
        }
        let mut judged = Vec::new();
        let mut committed = Vec::new();
        let winners: BTreeSet<usize> = self.results.values().flat_map(|file| file.updates.iter().copied()).collect();
        for (number, wanted) in plan.wanted.iter().enumerate() {
            let key = wanted.key.clone();
            let judgement = match (self.refused_reason(number, plan), by_repository.get(&wanted.repository)) {
                (Some(reason), _) => Judgement::Refused(reason),
                (None, None) => Judgement::Unchanged,
                (None, Some(changes)) => {
                    // Updates that ask for the same thing share its changes; the commit lists them once.
                    if winners.contains(&number) {
                        committed.push((key.clone(), changes.clone()));
                    }
                    Judgement::Changed(changes.clone())
                }
            };
            judged.push((key, judgement));
        }
        (judged, committed)
    }

    /// An update that asks for the same as a later one fares as that one does.
    fn refused_reason(&self, number: usize, plan: &EnvironmentPlan) -> Option<String> {
        let wanted = &plan.wanted[number];
        let same = |other: &WantedVersion| other.repository == wanted.repository && other.version == wanted.version;
        let number_of_last = plan.wanted.iter().rposition(same).unwrap_or(number);
        self.refused.get(&number).or_else(|| self.refused.get(&number_of_last)).cloned()
    }
}

enum Judgement {
    Changed(Vec<Change>),
    Unchanged,
    Refused(String),
}

impl Judgement {
    fn into_outcome(self, commit: Option<CommitId>) -> Outcome {
        match (self, commit) {
            (Self::Changed(changes), Some(commit)) => Outcome::Changed { commit, changes },
            // The bytes came out as they were.
            (Self::Changed(_), None) | (Self::Unchanged, _) => Outcome::Unchanged,
            (Self::Refused(reason), _) => Outcome::Refused { reason },
        }
    }
}

fn edit(
    path: &str,
    bytes: &Bytes,
    wanted: &[&WantedVersion],
    manifests: &ManifestSettings,
    inherited: &[Inherited],
) -> Result<Edited, String> {
    let wanted: Vec<Wanted> = wanted
        .iter()
        .map(|wanted| Wanted { repository: wanted.repository.clone(), version: wanted.version.clone() })
        .collect();
    match edit_overlay(path, bytes, &wanted, manifests, inherited) {
        Ok(manifest::Edited { bytes: new, changes, before, after }) => {
            let bytes = if changes.is_empty() { bytes.clone() } else { new.into() };
            Ok(Edited { bytes, changes, before, after })
        }
        Err(refused) => Err(refused.to_string()),
    }
}

/// Finds out which of several updates a file refuses, by a trial of each.
fn blame(
    path: &str,
    trial: &dyn Fn(&WantedVersion) -> Result<(), String>,
    plan: &EnvironmentPlan,
    updates: &[usize],
    reason: &str,
    refused: &mut BTreeMap<usize, String>,
) {
    let explained = |reason: &str| format!("{path}: {reason}");
    let mut found = false;
    for number in updates.iter().filter(|_| updates.len() > 1) {
        if let Err(reason) = trial(&plan.wanted[*number]) {
            refused.insert(*number, explained(&reason));
            found = true;
        }
    }
    if !found {
        refused.extend(updates.iter().map(|number| (*number, explained(reason))));
    }
}

fn no_site(repository: &Repository, environment: &str, sites: &EnvironmentSites) -> String {
    let reason = format!("no manifest of {environment} names {repository}");
    match sites.problems.as_slice() {
        [] => reason,
        [first, ..] => format!(
            "{reason} ({} left alone, the first is {}: {})",
            match sites.problems.len() {
                1 => "1 file or place is".to_owned(),
                count => format!("{count} files or places are"),
            },
            first.path,
            first.reason
        ),
    }
}
