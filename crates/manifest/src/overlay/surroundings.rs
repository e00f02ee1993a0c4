//! The repository around a kustomization.

/// What stands at a path of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    /// A folder.
    Folder,
    /// A file with these bytes.
    File(Vec<u8>),
    /// Nothing, or something that is never followed: a link, a submodule, a file that is too large.
    Nothing,
}

/// The repository around a kustomization, as one environment sees it. Paths begin at the top; that of the top is empty.
pub trait Surroundings {
    /// Returns what stands at a path.
    fn at(&self, path: &str) -> Beside;

    /// Returns whether a file is in the environment's own paths.
    fn is_own(&self, path: &str) -> bool;
}

/// Returns the folder of a file; the top folder is empty.
pub(super) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
