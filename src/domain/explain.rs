use super::block::Blocks;
use super::update::Update;
use super::wait::{Wait, WaitCause};
use crate::policy::Criterion;

/// Returns why an update ends after a later one of its place has landed. `newer` is the tag or digest of the later one.
pub fn overtaken(newer: &str, environment: &str) -> String {
    format!("older: {newer} was written to {environment} later")
}

/// Returns why an update ends because another candidate of its place is written instead.
pub(super) fn outdone(cause_id: &str) -> String {
    format!("{cause_id} is newer and is written instead")
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

/// Returns why an update waits: its causes, joined. `None` without causes.
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
        }
    };
    let reasons: Vec<String> = waits.iter().map(reason).collect();
    (!reasons.is_empty()).then(|| reasons.join("; and "))
}
