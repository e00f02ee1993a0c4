//! The commit message: a subject for people, a body that says what moved, trailers for programs.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::config_repo::{Change, EnvironmentCommit};
use crate::image::{ImageReference, Version};
use crate::store::{Cause, Update};

/// Returns the message of one environment's commit. `updates` are looked up by the keys of the changes.
pub(super) fn render(commit: &EnvironmentCommit, updates: &HashMap<String, Update>) -> String {
    let moved: Vec<Moved<'_>> = commit
        .changes
        .iter()
        .filter_map(|(key, changes)| Some(Moved { update: updates.get(key)?, first: changes.first()?, changes }))
        .collect();
    let mut text = subject(&commit.environment, &moved);
    text.push_str("\n\n");
    for one in &moved {
        one.describe(&mut text);
        text.push('\n');
    }
    for one in &moved {
        one.trailers(&mut text);
    }
    text
}

struct Moved<'a> {
    update: &'a Update,
    first: &'a Change,
    changes: &'a [Change],
}

fn subject(environment: &str, moved: &[Moved<'_>]) -> String {
    match moved {
        [one] => format!(
            "{environment}: {} {} -> {}",
            one.update.repository.name(),
            one.first.old.short_beside(&one.update.version),
            one.update.version.short_beside(&one.first.old)
        ),
        many => format!("{environment}: {} images", many.len()),
    }
}

impl Moved<'_> {
    fn describe(&self, text: &mut String) {
        let (old, new) = (&self.first.old, &self.update.version);
        let old = if old.tag() == new.tag() { old.to_string() } else { name(old) };
        let _ = write!(text, "{}\n  from {old} to ", self.update.repository);
        let _ = match (new.tag(), new.digest()) {
            (Some(tag), Some(digest)) => writeln!(text, "{tag} ({digest})"),
            _ => writeln!(text, "{}", name(new)),
        };
        let mut last = "";
        for change in self.changes {
            if change.path != last {
                let _ = writeln!(text, "  {}", change.path);
                last = &change.path;
            }
        }
    }

    fn trailers(&self, text: &mut String) {
        let Update { environment, repository, version, cause, cause_id, actor, trace, .. } = self.update;
        let image = ImageReference {
            repository: repository.clone(),
            tag: version.tag().cloned(),
            digest: version.digest().cloned(),
        };
        let by = match cause {
            Cause::Push => "via",
            Cause::Promotion | Cause::Rollback => "by",
        };
        let _ = write!(
            text,
            "Tagrelay-Environment: {environment}\nTagrelay-Image: {image}\nTagrelay-Cause: {cause} {cause_id} {by} {actor}\n",
        );
        let _ = writeln!(text, "Tagrelay-Trace: {}", trace.trace_id());
    }
}

/// Returns the tag, or the digest where there is no tag, whole.
fn name(version: &Version) -> String {
    match (version.tag(), version.digest()) {
        (Some(tag), _) => tag.to_string(),
        (None, Some(digest)) => digest.to_string(),
        (None, None) => String::new(),
    }
}
