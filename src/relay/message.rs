//! The commit message: a subject, a body that lists the changes, and trailers for programs.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::config_repo::{Change, PlannedCommit};
use crate::domain::{Cause, Request, Update, note_in};
use crate::settings::{ChangeFields, Fields, MessageSettings, MessageTemplate};
use tagrelay_image::{ImageReference, Version};

/// Renders the message of a commit. `updates` are by the keys of the changes, `requests` by their cause ids.
pub(super) fn render(
    commit: &PlannedCommit,
    updates: &HashMap<String, Update>,
    requests: &HashMap<String, Request>,
    settings: &MessageSettings,
) -> String {
    let entries: Vec<MessageChange<'_>> = commit
        .changes
        .iter()
        .filter_map(|(key, changes)| {
            let update = updates.get(key)?;
            let reason = requests.get(&update.cause_id).and_then(|request| request.reason.as_deref());
            Some(MessageChange { update, reason, first: changes.first()?, changes })
        })
        .collect();
    let text_above = Text::of(commit, &entries, settings);
    let mut text = text_above.subject;
    text.push_str("\n\n");
    if !text_above.body.is_empty() {
        text.push_str(&text_above.body);
        text.push_str("\n\n");
    }
    for environment in &commit.environments {
        let of_environment = entries.iter().filter(|entry| entry.update.environment == *environment);
        text.push_str(&trailers(environment, &of_environment.collect::<Vec<_>>()));
    }
    if let Some(person) = &settings.signed_off_by {
        let _ = writeln!(text, "Signed-off-by: {person}");
    }
    text
}

/// The text above the trailers.
struct Text {
    subject: String,
    body: String,
}

impl Text {
    fn of(commit: &PlannedCommit, entries: &[MessageChange<'_>], settings: &MessageSettings) -> Self {
        let summary = summary(entries);
        let environment = commit.environments.join(", ");
        let fields = || Fields {
            environment: environment.clone(),
            environments: commit.environments.clone(),
            summary: summary.clone(),
            changes: entries.iter().map(MessageChange::fields).collect(),
        };
        let subject = settings.subject.as_ref().and_then(|template| rendered(template, &fields()));
        let subject = subject.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        let body = settings.body.as_ref().and_then(|template| rendered(template, &fields()));
        let body = body.unwrap_or_else(|| entries.iter().map(MessageChange::describe).collect::<Vec<_>>().join("\n\n"));
        Self { subject: subject.unwrap_or_else(|| format!("{environment}: {summary}")), body: cut(body) }
    }
}

/// Cuts a body at a line, if it is longer than [`MAX_BODY`]. The trailers still name every image.
fn cut(mut body: String) -> String {
    if body.len() > MAX_BODY {
        let end = (0..=MAX_BODY).rev().find(|index| body.is_char_boundary(*index)).unwrap_or(0);
        let end = body.get(..end).and_then(|text| text.rfind('\n')).unwrap_or(end);
        body.truncate(end);
        body.push_str("\n[the rest is left out]");
    }
    body
}

/// Renders a template; `None`: the text is empty, or the template failed.
fn rendered(template: &MessageTemplate, fields: &Fields) -> Option<String> {
    match template.render(fields) {
        Ok(text) => {
            let text = text.replace("\r\n", "\n").replace(|c: char| c.is_control() && c != '\n', " ");
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        }
        Err(error) => {
            tracing::warn!(%error, "a template of the commit message failed; the default text is used");
            None
        }
    }
}

struct MessageChange<'a> {
    update: &'a Update,
    /// The reason of the promotion or rollback.
    reason: Option<&'a str>,
    first: &'a Change,
    changes: &'a [Change],
}

fn summary(entries: &[MessageChange<'_>]) -> String {
    match entries {
        [one] => {
            let (old, new) = one.short();
            format!("{} {old} -> {new}", one.update.repository.name())
        }
        many => format!("{} images", many.len()),
    }
}

impl MessageChange<'_> {
    fn files(&self) -> Vec<&str> {
        let mut files: Vec<&str> = self.changes.iter().map(|change| change.path.as_str()).collect();
        files.dedup();
        files
    }

    /// Returns both versions, as short as they remain distinct.
    fn short(&self) -> (String, String) {
        let (old, new) = (&self.first.old, &self.update.version);
        (old.short_beside(new), new.short_beside(old))
    }

    /// Returns the old version, with its digest if only the digest changed.
    fn old(&self) -> String {
        let (old, new) = (&self.first.old, &self.update.version);
        if old.tag() == new.tag() { old.to_string() } else { name(old) }
    }

    fn fields(&self) -> ChangeFields {
        let Update { environment, repository, version, cause, cause_id, actor, .. } = self.update;
        let (old_short, new_short) = self.short();
        ChangeFields {
            environment: environment.clone(),
            repository: repository.to_string(),
            name: repository.name().to_owned(),
            old: self.old(),
            old_short,
            new: name(version),
            new_short,
            digest: version.digest().map(ToString::to_string).unwrap_or_default(),
            cause: cause.to_string(),
            cause_id: cause_id.clone(),
            actor: actor.clone(),
            reason: self.reason.map(one_line).unwrap_or_default(),
            files: self.files().into_iter().map(str::to_owned).collect(),
        }
    }

    fn describe(&self) -> String {
        let new = &self.update.version;
        let mut text = format!("{}\n  from {} to {}", self.update.repository, self.old(), name(new));
        if let (Some(_), Some(digest)) = (new.tag(), new.digest()) {
            let line = text.lines().last().map_or(0, str::len);
            // With two whole commit ids the digest would make the line too long for most readers.
            let gap = if line + digest.as_str().len() > MAX_LINE { "\n  " } else { " " };
            let _ = write!(text, "{gap}({digest})");
        }
        for file in self.files() {
            let _ = write!(text, "\n  {file}");
        }
        if let Some(note) = note_in(self.update.reason.as_deref()) {
            let _ = write!(text, "\n  {}", one_line(note));
        }
        text
    }

    fn image(&self) -> String {
        let Update { repository, version, .. } = self.update;
        ImageReference {
            repository: repository.clone(),
            tag: version.tag().cloned(),
            digest: version.digest().cloned(),
        }
        .to_string()
    }

    fn cause(&self) -> String {
        let Update { repository, cause, cause_id, actor, .. } = self.update;
        let (by, whom) = match cause {
            Cause::Push => ("via", actor.as_str()),
            Cause::CatchUp => ("via", repository.registry()),
            Cause::Promotion | Cause::Rollback => ("by", actor.as_str()),
            // The actor is the environment that is followed.
            Cause::Follow => return format!("{cause} from {actor}"),
        };
        format!("{cause} {cause_id} {by} {whom}")
    }
}

/// The longest body, in bytes: hosts and Git clients show longer ones badly, and a commit is kept in memory.
const MAX_BODY: usize = 64 * 1024;

/// Longer lines of the body are broken.
const MAX_LINE: usize = 100;

/// Returns the trailers of an environment: one for each image, then one for each different cause, reason, override and trace.
fn trailers(environment: &str, entries: &[&MessageChange<'_>]) -> String {
    let mut text = format!("Tagrelay-Environment: {environment}\n");
    let mut add = |name: &str, values: Vec<String>| {
        let mut written: Vec<String> = Vec::new();
        for value in values.into_iter().filter(|value| !value.is_empty()) {
            if !written.contains(&value) {
                let _ = writeln!(text, "{name}: {value}");
                written.push(value);
            }
        }
    };
    let all = |value: &dyn Fn(&MessageChange<'_>) -> String| {
        entries.iter().map(|entry| value(entry)).collect::<Vec<String>>()
    };
    add("Tagrelay-Image", all(&|entry| entry.image()));
    add("Tagrelay-Cause", all(&|entry| entry.cause()));
    add("Tagrelay-Reason", all(&|entry| entry.reason.map(one_line).unwrap_or_default()));
    let overridden =
        |entry: &MessageChange<'_>| entry.update.override_reason.as_deref().map(one_line).unwrap_or_default();
    add("Tagrelay-Override", all(&overridden));
    add("Tagrelay-Trace", all(&|entry| entry.update.trace.trace_id().to_string()));
    text
}

/// Joins a foreign text into one line: a second line could pass for a trailer of ours.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control() || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns the whole tag, or the whole digest if there is no tag.
fn name(version: &Version) -> String {
    match (version.tag(), version.digest()) {
        (Some(tag), _) => tag.to_string(),
        (None, Some(digest)) => digest.to_string(),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_body_is_cut_at_a_line() {
        let line = "é".repeat(100);
        let short = vec![line.clone(); 10].join("\n");
        assert_eq!(cut(short.clone()), short);
        let long = cut(vec![line.clone(); 1000].join("\n"));
        assert!(long.len() <= MAX_BODY + 30, "{}", long.len());
        assert!(long.lines().rev().skip(1).all(|found| found == line));
        assert!(long.ends_with("\n[the rest is left out]"));
        assert!(cut("é".repeat(MAX_BODY)).len() <= MAX_BODY + 30);
    }
}
