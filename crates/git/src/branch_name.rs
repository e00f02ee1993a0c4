const HEADS: &str = "refs/heads/";

/// The name of a branch that Git allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchName {
    /// The full name, with `refs/heads/`.
    reference: String,
}

/// Why a text is not a branch name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Git does not allow `{0}` as a branch name")]
pub struct InvalidBranchName(String);

impl BranchName {
    /// Parses a name without `refs/heads/`, by the rules of `git check-ref-format`.
    ///
    /// # Errors
    ///
    /// [`InvalidBranchName`] if Git does not allow the name.
    pub fn parse(name: &str) -> Result<Self, InvalidBranchName> {
        let reference = format!("{HEADS}{name}");
        if git2::Reference::is_valid_name(&reference) {
            Ok(Self { reference })
        } else {
            Err(InvalidBranchName(name.to_owned()))
        }
    }

    /// The name without `refs/heads/`.
    pub fn as_str(&self) -> &str {
        &self.reference[HEADS.len()..]
    }

    /// The full name, with `refs/heads/`.
    pub(crate) fn reference(&self) -> &str {
        &self.reference
    }
}
