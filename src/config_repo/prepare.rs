//! From a plan to local commits: edits, blobs, trees along the paths, commits.

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
use super::plan::{Change, ChangedFile, EditOutcome, EnvironmentPlan, Plan, PlannedCommit, Prepared, WantedVersion};
use super::settings::{CommitSettings, Grouping};
use super::surroundings::Around;
use tagrelay_image::Repository;
use tagrelay_manifest::{Format, Inherited, ManifestSettings, Reading, SiteChange, Wanted, edit_overlay};

/// Writes the message of a commit.
pub(super) type Render = dyn Fn(&PlannedCommit) -> String + Send + Sync;

/// Builds the commits of a plan on top of the commit of `snapshot`.
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
            let (group_outcomes, commit) = std::mem::take(&mut group).commit(&mut draft, settings, render)?;
            outcomes.extend(group_outcomes);
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

/// The content of one commit.
#[derive(Default)]
struct Group {
    environments: Vec<String>,
    results: Vec<(String, EditResult)>,
    changes: Vec<(String, Vec<Change>)>,
}

impl Group {
    fn add(&mut self, environment: &EnvironmentPlan, number: usize, edits: Edits, draft: &mut Draft<'_>) {
        let (results, changes) = edits.results(environment);
        self.results.extend(results);
        if !changes.is_empty() {
            self.environments.push(environment.environment.clone());
            self.changes.extend(changes);
            draft.stage(edits.files, number);
        }
    }

    /// Commits the staged files. Returns the outcome of each update, and the commit unless it would be empty.
    #[allow(clippy::type_complexity)]
    fn commit(
        self,
        draft: &mut Draft<'_>,
        settings: &CommitSettings,
        render: &Render,
    ) -> Result<(Vec<(String, EditOutcome)>, Option<PlannedCommit>), PrepareError> {
        let mut commit = PlannedCommit { environments: self.environments, id: None, changes: self.changes };
        if !commit.changes.is_empty() {
            commit.id = draft.commit(settings, || render(&commit))?;
        }
        let id = commit.id;
        let outcomes = self.results.into_iter().map(|(key, result)| (key, result.into_outcome(id)));
        Ok((outcomes.collect(), id.map(|_| commit)))
    }
}

/// The commits under construction: their tip, tree and objects.
struct Draft<'a> {
    mirror: &'a Mirror,
    tip: CommitId,
    tree: ObjectId,
    objects: Vec<NewObject>,
    /// The position of each object in `objects`.
    positions: HashMap<ObjectId, usize>,
    /// All files that were read.
    files: BTreeMap<Arc<str>, DraftFile>,
    /// The changed files of the next commit.
    staged: BTreeMap<Arc<str>, NewObject>,
    /// The sites of the edited files.
    known: Known,
}

struct DraftFile {
    /// The bytes at the parent.
    old: Bytes,
    new: Bytes,
    /// The blob of `new`.
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
            positions: HashMap::new(),
            files: BTreeMap::new(),
            staged: BTreeMap::new(),
            known: Known::default(),
        })
    }

    /// Reads the files that were not read before.
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
        if !self.positions.contains_key(&id) {
            self.positions.insert(id, self.objects.len());
            self.objects.push(object);
        }
        id
    }

    /// Adds the edits of an environment, given by its number, to the next commit.
    fn stage(&mut self, edits: BTreeMap<Arc<str>, FileEdit>, owner: usize) {
        for (path, edit) in edits {
            let Some(edited) = edit.edited.filter(|edited| !edited.changes.is_empty()) else { continue };
            let blob = NewObject::new(Kind::Blob, edited.bytes.clone());
            if let Some(file) = self.files.get_mut(&path) {
                self.known.add(file.id, &path, owner, edited.before);
                // A file that became too large is skipped from now on.
                if let Some(after) = edited.after.filter(|_| edited.bytes.len() <= MAX_FILE_BYTES) {
                    self.known.add(blob.id, &path, owner, after);
                }
                (file.new, file.id) = (edited.bytes, blob.id);
            }
            self.staged.insert(path, blob);
        }
    }

    /// Commits the staged files; `None` if the tree did not change.
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
        match self.positions.get(&id) {
            Some(position) => Ok(self.objects[*position].data.clone()),
            None => self.mirror.read(id, kind),
        }
    }

    fn size(&self, id: ObjectId) -> Result<usize, Unreadable> {
        match self.positions.get(&id) {
            Some(position) => Ok(self.objects[*position].data.len()),
            None => self.mirror.size(id),
        }
    }
}

/// The edits of one environment. An update is identified by its number: its position in the plan.
struct Edits {
    files: BTreeMap<Arc<str>, FileEdit>,
    /// The reasons of refused updates, by number.
    refused: BTreeMap<usize, String>,
}

struct FileEdit {
    /// The updates with sites in the file, by number.
    updates: Vec<usize>,
    /// The wanted images that the kustomization takes from elsewhere and has no entry for yet.
    inherited: Vec<Inherited>,
    edited: Option<Edited>,
}

struct Edited {
    bytes: Bytes,
    changes: Vec<SiteChange>,
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
        let mut edits = Self { files: BTreeMap::new(), refused: BTreeMap::new() };
        let mut inherited: BTreeMap<Arc<str>, BTreeSet<&Repository>> = BTreeMap::new();
        let mut last: HashMap<&Repository, usize> = HashMap::new();
        for (number, wanted) in plan.wanted.iter().enumerate() {
            last.insert(&wanted.repository, number);
        }
        for (number, wanted) in plan.wanted.iter().enumerate() {
            let winner = last[&wanted.repository];
            let Some(indexed) = sites.sites.get(&wanted.repository) else {
                edits.refused.insert(number, no_site(&wanted.repository, &plan.environment, sites));
                continue;
            };
            if plan.wanted[winner].version != wanted.version {
                let version = &plan.wanted[winner].version;
                edits.refused.insert(number, format!("a later update sets {} to {version}", wanted.repository));
            } else if winner == number {
                for site in indexed.iter() {
                    let file = edits.files.entry(site.path.clone());
                    let new = || FileEdit { updates: Vec::new(), inherited: Vec::new(), edited: None };
                    let file = file.or_insert_with(new);
                    if site.format == Format::Inherited {
                        inherited.entry(site.path.clone()).or_default().insert(&wanted.repository);
                    }
                    if file.updates.last() != Some(&number) {
                        file.updates.push(number);
                    }
                }
            }
        }
        draft.read_files(&edits.files.keys().cloned().collect())?;
        let written = |path: &str| draft.files.get(path).map(|file| file.new.clone());
        edits.find_inherited(&inherited, &Around::new(draft, territory, draft.tree, &written), owner)?;
        while edits.edit_files(plan, territory.manifests(owner), draft) {}
        Ok(edits)
    }

    /// Reads the inherited images of kustomizations again.
    ///
    /// An earlier environment of the plan may have changed a base.
    fn find_inherited(
        &mut self,
        wanted: &BTreeMap<Arc<str>, BTreeSet<&Repository>>,
        around: &Around<'_>,
        owner: usize,
    ) -> Result<(), Unreadable> {
        for (path, repositories) in wanted {
            let Some(file) = self.files.get_mut(path) else { continue };
            let overlay = around.overlay(owner, path)?.unwrap_or_default();
            file.inherited = overlay.inherited;
            file.inherited.retain(|image| repositories.contains(&image.site.repository));
        }
        Ok(())
    }

    /// Edits the files that are not edited yet. Returns whether an update was refused.
    ///
    /// The files of a refused update must then be edited again, because an update changes all of its files or none.
    fn edit_files(&mut self, plan: &EnvironmentPlan, manifests: &ManifestSettings, draft: &Draft<'_>) -> bool {
        let mut refused = BTreeMap::new();
        for (path, file) in self.files.iter_mut().filter(|(_, file)| file.edited.is_none()) {
            let bytes = draft.files.get(path).map(|file| file.new.clone()).unwrap_or_default();
            let edit = |wanted: Vec<&WantedVersion>| edit(path, &bytes, &wanted, manifests, &file.inherited);
            match edit(file.updates.iter().map(|number| &plan.wanted[*number]).collect()) {
                Ok(edited) => file.edited = Some(edited),
                Err(reason) => {
                    let trial = |wanted: &WantedVersion| edit(vec![wanted]).map(|_| ());
                    refuse_culprits(path, &trial, plan, &file.updates, &reason, &mut refused);
                }
            }
        }
        for file in self.files.values_mut() {
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

    /// Returns the result of each update, and the changes for the commit.
    #[allow(clippy::type_complexity)]
    fn results(&self, plan: &EnvironmentPlan) -> (Vec<(String, EditResult)>, Vec<(String, Vec<Change>)>) {
        let mut by_repository: HashMap<&Repository, Vec<Change>> = HashMap::new();
        for (path, file) in &self.files {
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
        let mut results = Vec::new();
        let mut committed = Vec::new();
        let winners: BTreeSet<usize> = self.files.values().flat_map(|file| file.updates.iter().copied()).collect();
        for (number, wanted) in plan.wanted.iter().enumerate() {
            let key = wanted.key.clone();
            let result = match (self.refused_reason(number, plan), by_repository.get(&wanted.repository)) {
                (Some(reason), _) => EditResult::Refused(reason),
                (None, None) => EditResult::Unchanged,
                (None, Some(changes)) => {
                    // Equal updates share their changes. The commit lists them once.
                    if winners.contains(&number) {
                        committed.push((key.clone(), changes.clone()));
                    }
                    EditResult::Changed(changes.clone())
                }
            };
            results.push((key, result));
        }
        (results, committed)
    }

    /// Returns why an update is refused. An update has the result of the last equal one.
    fn refused_reason(&self, number: usize, plan: &EnvironmentPlan) -> Option<String> {
        let wanted = &plan.wanted[number];
        let same = |other: &WantedVersion| other.repository == wanted.repository && other.version == wanted.version;
        let number_of_last = plan.wanted.iter().rposition(same).unwrap_or(number);
        self.refused.get(&number).or_else(|| self.refused.get(&number_of_last)).cloned()
    }
}

enum EditResult {
    Changed(Vec<Change>),
    Unchanged,
    Refused(String),
}

impl EditResult {
    fn into_outcome(self, commit: Option<CommitId>) -> EditOutcome {
        match (self, commit) {
            (Self::Changed(changes), Some(commit)) => EditOutcome::Changed { commit, changes },
            // The tree did not change.
            (Self::Changed(_), None) | (Self::Unchanged, _) => EditOutcome::Unchanged,
            (Self::Refused(reason), _) => EditOutcome::Refused { reason },
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
        Ok(tagrelay_manifest::Edited { bytes: new, changes, before, after }) => {
            let bytes = if changes.is_empty() { bytes.clone() } else { new.into() };
            Ok(Edited { bytes, changes, before, after })
        }
        Err(refused) => Err(refused.to_string()),
    }
}

/// Finds the updates that a file refuses, by trying each update alone. If none fails alone, all are refused.
fn refuse_culprits(
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
            "{reason} ({} skipped, the first is {}: {})",
            match sites.problems.len() {
                1 => "1 file or line was".to_owned(),
                count => format!("{count} files or lines were"),
            },
            first.path,
            first.reason
        ),
    }
}
