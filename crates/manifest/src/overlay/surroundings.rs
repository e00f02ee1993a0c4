//! Access to the repository around a kustomization.

/// The object at a path of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    /// A folder.
    Folder,
    /// A file with its bytes.
    File(Vec<u8>),
    /// Nothing, or an object that is not followed: a link, a submodule, a file that is too large.
    Nothing,
}

/// The repository around a kustomization, from the view of one environment.
///
/// Paths are relative to the repository. The empty path is its top folder.
pub trait Surroundings {
    /// Returns the object at a path.
    fn at(&self, path: &str) -> Beside;

    /// Returns whether a file is in the environment's own paths.
    fn is_own(&self, path: &str) -> bool;
}

/// Returns the folder of a file; the top folder is empty.
pub(super) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
