use super::block::Blocks;
use super::update::Update;
use super::wait::{Wait, WaitCause, may_go};
use crate::policy::Criterion;

/// Returns the reason of an update that a later one of its place replaced.
///
/// `newer` is the tag or digest of the later update.
pub fn overtaken(newer: &str, environment: &str) -> String {
    format!("older: {newer} was written to {environment} later")
}

/// Returns the reason of an update that another candidate of its place replaced.
///
/// `cause_id` is the cause of that candidate.
pub(super) fn outdone(cause_id: &str) -> String {
    format!("{cause_id} is newer and is written instead")
}

/// The beginning of the note of a rollback that is written although the registry did not answer.
const UNCONFIRMED: &str = "not confirmed by the registry: ";

/// Separates the note from a later reason.
const NOW: &str = "; now: ";

/// Returns the note of a rollback that is written although the registry did not answer.
///
/// `why` is the registry's error.
pub fn unconfirmed(why: &str) -> String {
    format!("{UNCONFIRMED}{why}")
}

/// Returns the note of [`unconfirmed`] in a reason.
pub fn note_in(reason: Option<&str>) -> Option<&str> {
    let reason = reason.filter(|reason| reason.starts_with(UNCONFIRMED))?;
    Some(reason.split_once(NOW).map_or(reason, |(note, _)| note))
}

/// Returns a new reason that keeps the note of the old reason.
pub fn with_note(before: Option<&str>, reason: Option<String>) -> Option<String> {
    match (note_in(before), reason) {
        (Some(note), Some(reason)) => Some(format!("{note}{NOW}{reason}")),
        (Some(note), None) => Some(note.to_owned()),
        (None, reason) => reason,
    }
}

/// Returns the criterion in words.
pub(super) fn criterion(by: Criterion) -> &'static str {
    match by {
        Criterion::Ancestry => "ancestry in the source repository",
        Criterion::Number => "the number in the tag",
        Criterion::Time => "the time in the tag",
        Criterion::Version => "version",
        Criterion::BuildTime => "build time",
        Criterion::Arrival => "arrival",
    }
}

/// Returns the wait causes of an update as text; `None`: there are no causes.
///
/// Blocks that were made since the wait began are also named, because the update would wait for them next.
pub fn waiting(update: &Update, waits: &[Wait], blocks: &Blocks, now: jiff::Timestamp) -> Option<String> {
    let reason = |wait: &Wait| -> String {
        let detail = wait.detail.clone();
        match wait.cause {
            WaitCause::Hold => blocks
                .hold(&update.environment, &update.repository, now)
                .map_or_else(|| "held".to_owned(), |hold| hold.explanation()),
            WaitCause::Freeze => blocks
                .frozen(&update.environment, now)
                .map_or_else(|| "frozen".to_owned(), |frozen| frozen.explanation()),
            WaitCause::RejectedPush => {
                let said = detail.unwrap_or_default();
                let until = wait.until.map(|until| format!("; next try at {until:.0}")).unwrap_or_default();
                format!("the remote rejected the push: {said}{until}")
            }
            WaitCause::MissingFact => detail.unwrap_or_else(|| "a fact is missing".to_owned()),
            WaitCause::Gate => detail.unwrap_or_else(|| "its gate is closed".to_owned()),
            WaitCause::Soak => detail.unwrap_or_else(|| "the soak time has not passed".to_owned()),
        }
    };
    let mut waits = waits.to_vec();
    if !waits.is_empty() {
        let known: Vec<WaitCause> = waits.iter().map(|wait| wait.cause).collect();
        waits.extend(may_go(update, blocks, now).into_iter().filter(|wait| !known.contains(&wait.cause)));
        waits.sort_by_key(|wait| wait.cause);
    }
    let reasons: Vec<String> = waits.iter().map(reason).collect();
    (!reasons.is_empty()).then(|| reasons.join("; and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn note_outlives_later_reasons() {
        let note = unconfirmed("503");
        let once = with_note(Some(&note), Some("the remote cannot be reached".to_owned())).unwrap();
        let twice = with_note(Some(&once), Some("it timed out".to_owned())).unwrap();
        assert_eq!(twice, "not confirmed by the registry: 503; now: it timed out");
        assert_eq!(with_note(Some(&twice), None), Some(note));
        assert_eq!(with_note(Some("it timed out"), None), None);
        assert_eq!(with_note(None, Some("it timed out".to_owned())).as_deref(), Some("it timed out"));
    }
}
