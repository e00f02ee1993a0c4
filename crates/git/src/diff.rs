use std::path::Path;

/// Returns what `git diff` shows for one file.
///
/// # Errors
///
/// Only if libgit2 runs out of memory.
pub fn unified_diff(path: &str, old: &[u8], new: &[u8]) -> Result<String, git2::Error> {
    let path = Path::new(path);
    let mut patch = git2::Patch::from_buffers(old, Some(path), new, Some(path), None)?;
    Ok(String::from_utf8_lossy(&patch.to_buf()?).into_owned())
}
