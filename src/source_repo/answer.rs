/// Whether a commit is on a branch that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    OnBranch,
    Elsewhere {
        /// Names the commit and the branches.
        reason: String,
    },
}

/// The relation of a commit to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    Same,
    /// It descends from the other, so it is newer.
    Descendant,
    /// The other descends from it, so it is older.
    Ancestor,
    /// The history cannot order them.
    Unknown {
        reason: String,
    },
}
