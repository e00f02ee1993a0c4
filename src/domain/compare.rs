use std::cmp::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use ulid::Ulid;

use super::explain;
use super::update::Cause;
use crate::policy::compare::{by_build_time, by_tag};
use crate::policy::{Criterion, ImageRule, TagFacts, Verification};
use tagrelay_image::{Digest, Repository, Version};

/// A fact that a comparison needs: known, or missing and to be requested from the intake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact<T> {
    Known(T),
    Missing(Missing),
}

/// Returns a known fact, or returns from the function with the missing one.
macro_rules! known {
    ($fact:expr) => {
        match $fact {
            Fact::Known(value) => value,
            Fact::Missing(missing) => return Fact::Missing(missing),
        }
    };
}

/// Names the missing fact.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Missing {
    /// The relation of two commits of a source repository. `source` is its index in the settings.
    Descent { source: usize, repository: Repository, new: String, old: String },
    /// The build time of an image.
    BuildTime { repository: Repository, digest: Digest },
    /// The digest of a tag.
    TagDigest { repository: Repository, tag: tagrelay_image::Tag },
    /// Whether a digest was announced before under another tag.
    AnnouncedBefore { event_id: String, repository: Repository, digest: Digest, tag: tagrelay_image::Tag },
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Descent { new, old, .. } => write!(f, "it is not known yet how commit {new} relates to {old}"),
            Self::BuildTime { repository, digest } => {
                write!(f, "it is not known yet when {repository}@{digest} was built")
            }
            Self::TagDigest { repository, tag } => write!(f, "the digest of {repository}:{tag} is not known yet"),
            Self::AnnouncedBefore { repository, digest, .. } => {
                write!(f, "it is not known yet whether {repository}@{digest} was announced before")
            }
        }
    }
}

/// How a commit relates to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Descent {
    Same,
    /// The commit descends from the other one, so it is newer.
    Descendant,
    /// The other commit descends from this one, so this one is older.
    Ancestor,
    /// The history does not show a relation.
    Unknown {
        reason: String,
    },
}

/// The build time of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildTime {
    At(Timestamp),
    /// The image has no plausible build time.
    NotStated,
    /// The registry does not return the build time.
    Unreadable {
        reason: String,
    },
}

/// The facts that are known without a network. The intake stores them, the branch writer reads them.
pub trait Facts {
    fn descent(&self, source: usize, repository: &Repository, new: &str, old: &str) -> Fact<Descent>;
    fn build_time(&self, repository: &Repository, digest: &Digest) -> Fact<BuildTime>;
    /// `None`: the registry no longer has the tag.
    fn tag_digest(&self, repository: &Repository, tag: &tagrelay_image::Tag) -> Fact<Option<Digest>>;
    fn announced_before(
        &self,
        event_id: &str,
        repository: &Repository,
        digest: &Digest,
        tag: &tagrelay_image::Tag,
    ) -> Fact<bool>;
}

/// The build of an event, to be compared.
pub struct Subject<'a> {
    pub repository: &'a Repository,
    pub version: &'a Version,
    pub rule: &'a ImageRule,
    pub tag: &'a TagFacts,
    pub cause: Cause,
    /// The event: its ULID is the order of arrival.
    pub cause_id: &'a str,
    /// The uncertainty that catch-up causes about arrivals; `None`: catch-up is off.
    pub catch_up: Option<CatchUpDoubt>,
}

/// How long the order of arrival is uncertain for a tag that catch-up found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatchUpDoubt {
    /// When this process began to receive webhooks.
    pub begun: Timestamp,
    /// The period of catch-up.
    pub every: Duration,
}

/// A version that the subject must not be older than.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    pub version: Version,
    /// The cause of the update that brought the version, and its id; `None`: written by hand.
    pub cause: Option<(Cause, String)>,
    /// The digest of the update that brought the version. Used if `version` has no digest.
    pub digest: Option<Digest>,
    /// Whether the version runs; otherwise it is a candidate that will be written.
    pub runs: bool,
    pub environment: String,
}

impl Other {
    fn place(&self) -> String {
        if self.runs {
            format!("which {} runs", self.environment)
        } else {
            format!("which was taken for {}", self.environment)
        }
    }
}

/// How the subject relates to another version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    pub ordering: Ordering,
    pub by: Criterion,
    /// For example "newer than 1111111, which staging runs, by build time".
    pub text: String,
}

/// Compares a build with another version of its place, by the first criterion that separates the two.
pub fn compare(subject: &Subject<'_>, other: &Other, facts: &dyn Facts) -> Fact<Comparison> {
    let later = other.cause.as_ref().is_some_and(|(_, cause_id)| cause_id.as_str() > subject.cause_id);
    // A version that was announced before a rollback must not come back.
    if later && matches!(other.cause, Some((Cause::Rollback, _))) {
        let text = format!("a rollback to {} was requested after this build was announced", other.version.short());
        return Fact::Known(Comparison { ordering: Ordering::Less, by: Criterion::Arrival, text });
    }
    // The reasons why earlier criteria did not decide.
    let mut silent = Vec::new();
    if !subject.rule.allow_older {
        let read = |tag| subject.rule.tag.read(tag).ok();
        let old = other.version.tag().and_then(read).unwrap_or_default();
        if let Some(ordering) = known!(ancestry(subject, &old, facts, &mut silent)) {
            return Fact::Known(result(subject, other, (ordering, Criterion::Ancestry), &[]));
        }
        if let Some(decided) = by_tag(subject.tag, &old) {
            return Fact::Known(result(subject, other, decided, &silent));
        }
        if let Some(ordering) = known!(build_time(subject, other, facts, &mut silent)) {
            return Fact::Known(result(subject, other, (ordering, Criterion::BuildTime), &silent));
        }
        if !later && may_have_come_before(subject, other) {
            let text = format!(
                "{}, {}, was announced between two catch-up rounds, and no criterion shows which of the two is newer ({}): \
                 promote it if it is",
                other.version.short(),
                other.place(),
                silent.join("; ")
            );
            return Fact::Known(Comparison { ordering: Ordering::Less, by: Criterion::Arrival, text });
        }
    }
    // A version that was written by hand counts as earlier than the event.
    let ordering = if later { Ordering::Less } else { Ordering::Greater };
    Fact::Known(result(subject, other, (ordering, Criterion::Arrival), &silent))
}

fn ancestry(
    subject: &Subject<'_>,
    old: &TagFacts,
    facts: &dyn Facts,
    silent: &mut Vec<String>,
) -> Fact<Option<Ordering>> {
    let (Some(source), Some(new)) = (subject.rule.source, &subject.tag.sha) else { return Fact::Known(None) };
    let Some(old) = &old.sha else {
        silent.push("its tag contains no commit id".to_owned());
        return Fact::Known(None);
    };
    Fact::Known(match known!(facts.descent(source, subject.repository, new, old)) {
        Descent::Descendant => Some(Ordering::Greater),
        Descent::Ancestor => Some(Ordering::Less),
        Descent::Same => None,
        Descent::Unknown { reason } => {
            silent.push(reason);
            None
        }
    })
}

fn build_time(
    subject: &Subject<'_>,
    other: &Other,
    facts: &dyn Facts,
    silent: &mut Vec<String>,
) -> Fact<Option<Ordering>> {
    if subject.rule.verify == Verification::Nothing {
        return Fact::Known(None);
    }
    let repository = subject.repository;
    // The build time belongs to the digest, not to the push: an image that was rebuilt from a cache keeps its old time.
    if let (Some(digest), Some(tag)) = (subject.version.digest(), subject.version.tag())
        && known!(facts.announced_before(subject.cause_id, repository, digest, tag))
    {
        silent.push("its digest was announced before under another tag, so its build time is not used".to_owned());
        return Fact::Known(None);
    }
    let new = match subject.version.digest() {
        Some(digest) => known!(facts.build_time(repository, digest)),
        None => BuildTime::NotStated,
    };
    let BuildTime::At(new) = new else {
        silent.push(unreadable(&new));
        return Fact::Known(None);
    };
    let digest = match (other.version.digest().or(other.digest.as_ref()), other.version.tag()) {
        (Some(digest), _) => Some(digest.clone()),
        (None, Some(tag)) => known!(facts.tag_digest(repository, tag)),
        (None, None) => None,
    };
    let old = match digest {
        Some(digest) => known!(facts.build_time(repository, &digest)),
        None => BuildTime::NotStated,
    };
    match old {
        BuildTime::At(old) => {
            let ordering = by_build_time(Some(new), Some(old));
            if ordering.is_none() {
                silent.push("both have one build time".to_owned());
            }
            Fact::Known(ordering)
        }
        BuildTime::NotStated | BuildTime::Unreadable { .. } => {
            silent.push(unreadable(&old));
            Fact::Known(None)
        }
    }
}

fn unreadable(time: &BuildTime) -> String {
    match time {
        BuildTime::Unreadable { reason } => format!("the build time cannot be read: {reason}"),
        BuildTime::At(_) | BuildTime::NotStated => "no build time is known".to_owned(),
    }
}

/// Returns whether the subject may have been pushed before `other`, although its event is later.
///
/// The id of an event of catch-up has the time at which the tag was found, which can be long after the push. So the order is
/// uncertain if a webhook announced `other` less than two periods before catch-up found the subject. If catch-up found both, the
/// order of their events counts.
fn may_have_come_before(subject: &Subject<'_>, other: &Other) -> bool {
    let Some(doubt) = subject.catch_up.filter(|_| subject.cause == Cause::CatchUp) else { return false };
    let Some((cause, other_id)) = &other.cause else { return false };
    if *cause == Cause::CatchUp {
        return false;
    }
    let at = |id: &str| Ulid::from_string(id).map(|id| Duration::from_millis(id.timestamp_ms())).ok();
    let begun = Duration::from_millis(u64::try_from(doubt.begun.as_millisecond()).unwrap_or_default());
    let is_doubtful = |(found, announced): (Duration, Duration)| {
        announced >= begun && found.saturating_sub(announced) < doubt.every * 2
    };
    at(subject.cause_id).zip(at(other_id)).is_some_and(is_doubtful)
}

fn result(
    subject: &Subject<'_>,
    other: &Other,
    (ordering, by): (Ordering, Criterion),
    silent: &[String],
) -> Comparison {
    let (version, place) = (other.version.short_beside(subject.version), other.place());
    let mut text = match (by, ordering.is_lt()) {
        (Criterion::Arrival, true) => format!("{version}, {place}, arrived later"),
        (_, true) => format!("{version}, {place}, is newer by {}", explain::criterion(by)),
        (_, false) => format!("newer than {version}, {place}, by {}", explain::criterion(by)),
    };
    if !silent.is_empty() {
        text.push_str(&format!(" ({})", silent.join("; ")));
    }
    Comparison { ordering, by, text }
}
