//! Finds images that kustomizations inherit from bases outside of their environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::folder::{MAX_FILE_BYTES, read_bounded};
use super::management::environments_of;
use super::{Found, FoundSite, UnreadFile};
use crate::config_repo::Territory;
use tagrelay_image::Repository;
use tagrelay_manifest::{Beside, Format, Overlays, Surroundings, read_overlay};

/// Adds them to the sites of the folder `root`, for every environment.
pub(super) fn add(root: &Path, territory: &Territory, found: &mut Found) {
    let mut sites = Vec::new();
    for environment in territory.names() {
        let folder = Folder { root, territory, environment };
        let mut overlays = Overlays::default();
        let mut touched = BTreeSet::new();
        for (path, bytes) in found.kustomizations.iter().filter(|(path, _)| folder.is_own(path)) {
            let overlay = read_overlay(path, bytes, &folder);
            let problem = |note: &tagrelay_manifest::Note| UnreadFile {
                path: path.clone(),
                reason: format!("line {}: {}", note.line, note.reason),
            };
            found.problems.extend(overlay.notes.iter().map(problem));
            touched.append(&mut overlays.put(path, Some(overlay)));
        }
        let mut places: BTreeMap<&Repository, Vec<(Arc<str>, Format)>> = BTreeMap::new();
        for site in found.sites.iter().filter(|site| touched.contains(&site.repository) && folder.is_own(&site.path)) {
            places.entry(&site.repository).or_default().push((site.path.as_str().into(), site.format));
        }
        for repository in &touched {
            for (path, image) in overlays.sites_of(repository, places.get(repository).map_or(&[], Vec::as_slice)) {
                let site = &image.site;
                sites.push(FoundSite::new(path, site.line, site.format, repository, &site.version));
            }
        }
    }
    found.sites.append(&mut sites);
    found.drop_repeated();
}

/// The files of the folder that belong to one environment.
struct Folder<'a> {
    root: &'a Path,
    territory: &'a Territory,
    environment: &'a str,
}

impl Surroundings for Folder<'_> {
    fn at(&self, path: &str) -> Beside {
        let mut place = self.root.to_path_buf();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            place.push(part);
            // Links may lead out of the folder, or in circles.
            if fs::symlink_metadata(&place).is_ok_and(|found| found.is_symlink()) {
                return Beside::Nothing;
            }
        }
        match fs::metadata(&place) {
            Ok(found) if found.is_dir() => Beside::Folder,
            Ok(found) if found.is_file() => match fs::File::open(&place).and_then(read_bounded) {
                Ok(bytes) if bytes.len() as u64 <= MAX_FILE_BYTES => Beside::File(bytes),
                _ => Beside::Nothing,
            },
            _ => Beside::Nothing,
        }
    }

    fn is_own(&self, path: &str) -> bool {
        environments_of(self.territory, path).iter().any(|name| name == self.environment)
    }
}
