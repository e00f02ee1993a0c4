use jiff::Timestamp;

use crate::object::{CommitId, Kind, NewObject, ObjectId};
use crate::signing::{Signer, SigningError};

/// A person or program in a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name before the address.
    pub name: String,
    /// The address, without angle brackets.
    pub email: String,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} <{}>", self.name, self.email)
    }
}

/// A commit that is about to be written.
#[derive(Debug)]
pub struct CommitDraft<'a> {
    /// The tree of the commit.
    pub tree: ObjectId,
    /// The only parent.
    pub parent: CommitId,
    /// Who made the change.
    pub author: &'a Identity,
    /// Who made the commit.
    pub committer: &'a Identity,
    /// The time of both, in whole seconds, written in UTC.
    pub time: Timestamp,
    /// The message. Trailing white space and NUL characters are removed.
    pub message: &'a str,
}

impl CommitDraft<'_> {
    /// Writes the object as `git commit-tree` does, or as `git commit-tree -S` does with a signer.
    ///
    /// # Errors
    ///
    /// If no signature can be made.
    pub fn write(&self, signer: Option<&Signer>) -> Result<NewObject, SigningError> {
        let time = self.time.as_second();
        let person = |who: &Identity| format!("{} <{}> {time} +0000", clean(&who.name), clean(&who.email));
        let message = self.message.replace('\0', "");
        let message = message.trim_end();
        let (author, committer) = (person(self.author), person(self.committer));
        let head = format!("tree {}\nparent {}\nauthor {author}\ncommitter {committer}\n", self.tree, self.parent);
        let text = format!("{head}\n{message}\n");
        let Some(signer) = signer else { return Ok(NewObject::new(Kind::Commit, text)) };
        // The signature covers the commit without its `gpgsig` header. A header continues on lines that start with a blank.
        let signature = signer.sign(text.as_bytes())?;
        let signature = signature.trim_end().replace('\n', "\n ");
        Ok(NewObject::new(Kind::Commit, format!("{head}gpgsig {signature}\n\n{message}\n")))
    }
}

/// Removes the characters that would end a name or its line, as Git does.
fn clean(text: &str) -> String {
    text.replace(|c: char| c.is_control() || c == '<' || c == '>', "").trim().to_owned()
}
