use serde::Serialize;
use sha1::{Digest as _, Sha1};

/// The id of a Git object: the SHA-1 of its header and content.
///
/// Half the size of `git2::Oid`, because an index keeps many of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; 20]);

impl ObjectId {
    /// The id that the protocol uses for a missing object.
    pub const ZERO: Self = Self([0; 20]);

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 20];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    pub(crate) fn to_git2(self) -> Result<git2::Oid, git2::Error> {
        git2::Oid::from_bytes(&self.0)
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ObjectId({self})")
    }
}

/// The id of a commit, 40 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub(crate) ObjectId);

/// Why a text is not the id of a commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a commit (40 hexadecimal digits)")]
pub struct InvalidCommitId(String);

impl CommitId {
    /// The id of the object.
    pub fn object(self) -> ObjectId {
        self.0
    }

    /// The first seven digits, for messages.
    pub fn short(&self) -> String {
        let mut digits = self.to_string();
        digits.truncate(7);
        digits
    }
}

impl std::fmt::Display for CommitId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for CommitId {
    type Err = InvalidCommitId;

    fn from_str(text: &str) -> Result<Self, InvalidCommitId> {
        ObjectId::from_hex(text).map(Self).ok_or_else(|| InvalidCommitId(text.to_owned()))
    }
}

impl From<ObjectId> for CommitId {
    fn from(id: ObjectId) -> Self {
        Self(id)
    }
}

impl Serialize for CommitId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The kind of an object. A branch contains no tag objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A commit.
    Commit,
    /// A folder.
    Tree,
    /// The content of a file.
    Blob,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
        }
    }

    pub(crate) fn from_git2(kind: git2::ObjectType) -> Option<Self> {
        match kind {
            git2::ObjectType::Commit => Some(Self::Commit),
            git2::ObjectType::Tree => Some(Self::Tree),
            git2::ObjectType::Blob => Some(Self::Blob),
            git2::ObjectType::Any | git2::ObjectType::Tag => None,
        }
    }
}

/// An object that we made and that no server has yet.
#[derive(Debug, Clone)]
pub struct NewObject {
    /// Its id.
    pub id: ObjectId,
    /// Its kind.
    pub kind: Kind,
    /// Its content, without the header.
    pub data: bytes::Bytes,
    /// The difference to an object that the server has, if that is much smaller than the object.
    pub(crate) delta: Option<Delta>,
}

/// A Git delta (<https://git-scm.com/docs/pack-format#_deltified_representation>) and the object it applies to.
#[derive(Debug, Clone)]
pub(crate) struct Delta {
    pub(crate) base: ObjectId,
    pub(crate) instructions: Vec<u8>,
}

impl NewObject {
    /// Computes the id of the content.
    pub fn new(kind: Kind, data: impl Into<bytes::Bytes>) -> Self {
        let data = data.into();
        let mut hash = Sha1::new();
        hash.update(format!("{} {}\0", kind.name(), data.len()));
        hash.update(&data);
        Self { id: ObjectId(hash.finalize().into()), kind, data, delta: None }
    }
}

/// Returns the tree of a commit, from its first line.
pub(crate) fn commit_tree(commit: &[u8]) -> Option<ObjectId> {
    let line = commit.strip_prefix(b"tree ")?.get(..40)?;
    ObjectId::from_hex(std::str::from_utf8(line).ok()?)
}

/// Returns the parents of a commit, from the lines after its tree.
pub(crate) fn commit_parents(commit: &[u8]) -> Vec<CommitId> {
    let lines = commit.split(|byte| *byte == b'\n').skip(1);
    let parent = |line: &[u8]| std::str::from_utf8(line.strip_prefix(b"parent ")?).ok()?.parse().ok();
    lines.map_while(parent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_equal_those_of_git() {
        // `git hash-object -t blob /dev/null`, `git hash-object -t tree /dev/null`, `printf hello | git hash-object --stdin`.
        for (kind, data, expected) in [
            (Kind::Blob, "", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
            (Kind::Tree, "", "4b825dc642cb6eb9a060e54bf8d69288fbee4904"),
            (Kind::Blob, "hello", "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"),
        ] {
            assert_eq!(NewObject::new(kind, data).id.to_string(), expected);
        }
    }

    #[test]
    fn commit_id_needs_40_hexadecimal_digits() {
        let text = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";
        let id: CommitId = text.parse().unwrap();
        assert_eq!((id.to_string().as_str(), id.short().as_str()), (text, "b6fc4c6"));
        assert!("b6fc4c6".parse::<CommitId>().is_err());
        assert!("zzfc4c620b67d95f953a5c1c1230aaab5db5a1b0".parse::<CommitId>().is_err());
    }
}
