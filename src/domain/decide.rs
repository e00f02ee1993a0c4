use jiff::Timestamp;

use super::block::Blocks;
use super::compare::{CatchUpDoubt, Comparison, Fact, Facts, Missing, Other, Subject, compare};
use super::explain;
use super::update::{Cause, Update, UpdateState};
use super::versions::is_same;
use super::wait::{Wait, WaitCause, gate_wait, may_go};
use crate::policy::{Criterion, ImageRule, TagFacts, TagRule};
use tagrelay_image::{Digest, Repository, Version};

/// One repository in one environment, as the branch's tip and the store show it.
pub struct Place<'a> {
    pub environment: &'a str,
    pub repository: &'a Repository,
    /// The image rule that manages the repository; `None`: the settings no longer have one.
    pub rule: Option<&'a ImageRule>,
    /// The versions that the manifests at the tip name.
    pub running: Vec<Running>,
    pub candidates: Vec<Candidate<'a>>,
    pub blocks: &'a Blocks,
    pub now: Timestamp,
    /// `None`: catch-up is off.
    pub catch_up: Option<CatchUpDoubt>,
}

/// A running version, and our last update that brought it.
#[derive(Debug, Clone)]
pub struct Running {
    pub version: Version,
    /// `None`: the version was written by hand.
    pub landed: Option<Landed>,
}

impl Running {
    fn is_rollback(&self) -> bool {
        self.landed.as_ref().is_some_and(|landed| landed.cause == Cause::Rollback)
    }
}

/// The update that brought a version.
#[derive(Debug, Clone)]
pub struct Landed {
    pub cause: Cause,
    pub cause_id: String,
    pub digest: Option<Digest>,
    pub finished_at: Option<Timestamp>,
}

impl Landed {
    pub fn by(update: &Update) -> Self {
        Self {
            cause: update.cause,
            cause_id: update.cause_id.clone(),
            digest: update.version.digest().cloned(),
            finished_at: update.finished_at,
        }
    }
}

/// A version that an event or request wants at the place.
pub struct Candidate<'a> {
    pub update: &'a Update,
    /// Whether a push attempt with this update is unconfirmed. Such an update may be written again, but is not ended.
    pub unconfirmed: bool,
}

/// The decision on a candidate, with its basis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub decision: Decision,
    /// The criterion that decided about the order, and the comparison in words; `None` for requests.
    pub basis: Option<(Criterion, String)>,
}

/// The decision on a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The candidate is written with the next push.
    Write,
    /// The candidate waits for these causes.
    Wait(Vec<Wait>),
    /// A fact is missing. The intake fetches it, and the candidate is decided again.
    Ask(Missing),
    /// The candidate ends.
    End { state: UpdateState, reason: String, ground: Ground },
    /// The candidate keeps its state until its unconfirmed push is settled.
    Keep,
}

/// The basis for the end of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ground {
    /// The settings.
    Rule,
    /// A running version. The end is valid only if the branch was read after the cause arrived.
    Tip,
    /// The candidate that is written instead, by its update id.
    ///
    /// The end takes effect only when the other candidate has landed, because its push may be rejected.
    Rival(String),
}

/// Decides about all candidates of a place, in the order of `place.candidates`. At most one is written.
///
/// Candidates of events are decided in the order of arrival. Each is compared with the running versions and with the candidate
/// chosen so far, and replaces that candidate unless it is older. A promotion or rollback is not compared: the later request wins.
pub fn decide(place: &Place<'_>, facts: &dyn Facts) -> Vec<Decided> {
    let mut order: Vec<usize> = (0..place.candidates.len()).collect();
    order.sort_by(|a, b| {
        let key = |index: usize| place.candidates.get(index).map(|one| (&one.update.cause_id, &one.update.id));
        key(*a).cmp(&key(*b))
    });
    let mut decided: Vec<Option<Decided>> = vec![None; place.candidates.len()];
    let mut target: Option<usize> = None;
    for index in order {
        let Some(candidate) = place.candidates.get(index) else { continue };
        let rival = target.and_then(|target| place.candidates.get(target)).map(|one| one.update);
        let new = if candidate.update.cause.is_automatic() {
            place.event(candidate.update, rival, facts)
        } else {
            Decided { decision: place.request(candidate.update), basis: None }
        };
        if new.decision == Decision::Write
            && let Some(before) = target.replace(index)
            && let Some(Some(before)) = decided.get_mut(before)
        {
            let reason = explain::outdone(&candidate.update.cause_id);
            let ground = Ground::Rival(candidate.update.id.clone());
            before.decision = Decision::End { state: UpdateState::Superseded, reason, ground };
        }
        if let Some(slot) = decided.get_mut(index) {
            *slot = Some(new);
        }
    }
    let written = target.and_then(|target| place.candidates.get(target)).map(|one| &one.update.id);
    let settled = place.candidates.iter().zip(decided).map(|(candidate, decided)| {
        let mut decided = decided.unwrap_or(Decided { decision: Decision::Keep, basis: None });
        // A third candidate may have replaced the rival.
        if let (Decision::End { ground: Ground::Rival(rival), .. }, Some(written)) = (&mut decided.decision, written) {
            rival.clone_from(written);
        }
        if candidate.unconfirmed && matches!(decided.decision, Decision::End { .. }) {
            decided.decision = Decision::Keep;
        }
        decided
    });
    settled.collect()
}

impl Place<'_> {
    fn event(&self, update: &Update, rival: Option<&Update>, facts: &dyn Facts) -> Decided {
        let Some(rule) = self.rule else {
            let reason = format!("no [[image]] rule manages {}", self.repository);
            return Decided { decision: refused(reason, Ground::Rule), basis: None };
        };
        let tag = update.version.tag().and_then(|tag| rule.tag.read(tag).ok()).unwrap_or_default();
        let subject = self.subject(update, rule, &tag);
        let others: Vec<Other> = self.running.iter().map(|running| self.other(running)).collect();
        let compared = match compare_all(&subject, others.iter(), facts) {
            Ok(compared) => compared,
            Err(missing) => return Decided { decision: Decision::Ask(missing), basis: None },
        };
        if let Some(older) = compared.iter().find(|comparison| comparison.ordering.is_lt()) {
            // The update waited while a newer build landed, so it is superseded and not refused. A rollback gives its own reason.
            let is_rolled_back = self.running.iter().any(Running::is_rollback);
            return match self.overtaken(update).filter(|_| !is_rolled_back) {
                Some(reason) => Decided {
                    decision: Decision::End { state: UpdateState::Superseded, reason, ground: Ground::Tip },
                    basis: Some((older.by, older.text.clone())),
                },
                None => older_than(older, Ground::Tip),
            };
        }
        let basis = |last: Option<&Comparison>| {
            let text = || format!("{} runs no other version", self.environment);
            Some(last.map_or_else(|| (Criterion::Arrival, text()), |last| (last.by, last.text.clone())))
        };
        if rival.is_none()
            && let Some(decision) = self.nothing_to_do(update, rule, &others)
        {
            return Decided { decision, basis: basis(compared.last()) };
        }
        let waits = self.waits(update);
        if !waits.is_empty() {
            return Decided { decision: Decision::Wait(waits), basis: basis(compared.last()) };
        }
        let on_its_way = rival.map(|rival| Other {
            version: rival.version.clone(),
            cause: Some((rival.cause, rival.cause_id.clone())),
            digest: None,
            runs: false,
            environment: self.environment.to_owned(),
        });
        match compare_all(&subject, on_its_way.iter(), facts) {
            Err(missing) => Decided { decision: Decision::Ask(missing), basis: None },
            Ok(with_rival) => match with_rival.first() {
                Some(older) if older.ordering.is_lt() => {
                    older_than(older, rival.map_or(Ground::Tip, |rival| Ground::Rival(rival.id.clone())))
                }
                newer => Decided { decision: Decision::Write, basis: basis(newer.or(compared.last())) },
            },
        }
    }

    /// Returns the reason for the end of an update, if another version whose cause is later has landed.
    fn overtaken(&self, update: &Update) -> Option<String> {
        let is_later = |landed: &Landed| landed.cause_id > update.cause_id;
        let later = self.running.iter().find(|running| running.landed.as_ref().is_some_and(is_later));
        let later = later.filter(|later| !is_same(&later.version, &update.version))?;
        Some(explain::overtaken(&later.version.short(), self.environment))
    }

    fn request(&self, update: &Update) -> Decision {
        if let Some(reason) = self.overtaken(update) {
            return Decision::End { state: UpdateState::Superseded, reason, ground: Ground::Tip };
        }
        if update.cause == Cause::Promotion
            && let Some(foreign) = self.running.iter().find(|running| is_foreign(running, update))
        {
            let reason = format!(
                "{} was changed to {} by another commit after the request: promote again if it is still wanted",
                self.environment,
                foreign.version.short()
            );
            return Decision::End { state: UpdateState::Superseded, reason, ground: Ground::Tip };
        }
        match self.waits(update) {
            waits if waits.is_empty() => Decision::Write,
            waits => Decision::Wait(waits),
        }
    }

    /// Returns the blocks and the gate for which an update has to wait.
    fn waits(&self, update: &Update) -> Vec<Wait> {
        let mut waits = may_go(update, self.blocks, self.now);
        waits.extend(gate_wait(update));
        waits
    }

    fn subject<'s>(&'s self, update: &'s Update, rule: &'s ImageRule, tag: &'s TagFacts) -> Subject<'s> {
        Subject {
            repository: self.repository,
            version: &update.version,
            rule,
            tag,
            cause: update.cause,
            cause_id: &update.cause_id,
            catch_up: self.catch_up,
        }
    }

    fn other(&self, running: &Running) -> Other {
        let landed = running.landed.as_ref();
        Other {
            version: running.version.clone(),
            cause: landed.map(|landed| (landed.cause, landed.cause_id.clone())),
            digest: landed.and_then(|landed| landed.digest.clone()),
            runs: true,
            environment: self.environment.to_owned(),
        }
    }

    /// Returns the end of an update without effect.
    ///
    /// The digest of the update runs under another tag, or the manifests cannot hold its change.
    fn nothing_to_do(&self, update: &Update, rule: &ImageRule, others: &[Other]) -> Option<Decision> {
        let first = self.running.first()?;
        let digest = update.version.digest();
        let runs_digest = |other: &Other| other.version.digest().or(other.digest.as_ref()) == digest;
        if digest.is_some() && others.iter().all(runs_digest) {
            // If the tag is the same, the edit compares every site and decides.
            let is_other_tag = self.running.iter().all(|running| running.version.tag() != update.version.tag());
            let reason = format!("{} runs the same digest as {}", self.environment, first.version.short());
            return is_other_tag.then_some(Decision::End {
                state: UpdateState::Unchanged,
                reason,
                ground: Ground::Tip,
            });
        }
        let names_no_digest = || self.running.iter().all(|running| running.version.digest().is_none());
        if matches!(rule.tag, TagRule::Digest { .. }) && names_no_digest() {
            let reason = format!(
                "the manifests of {} name {} without a digest, so that it cannot be followed; write it as `{}`",
                self.environment,
                first.version.short(),
                update.version
            );
            return Some(refused(reason, Ground::Tip));
        }
        None
    }
}

/// Compares the subject with every other version; `Err`: the first missing fact.
fn compare_all<'o>(
    subject: &Subject<'_>,
    others: impl Iterator<Item = &'o Other>,
    facts: &dyn Facts,
) -> Result<Vec<Comparison>, Missing> {
    let different = others.filter(|other| !is_same(subject.version, &other.version));
    different
        .map(|other| match compare(subject, other, facts) {
            Fact::Known(comparison) => Ok(comparison),
            Fact::Missing(missing) => Err(missing),
        })
        .collect()
}

fn older_than(older: &Comparison, ground: Ground) -> Decided {
    Decided { decision: refused(format!("older: {}", older.text), ground), basis: Some((older.by, older.text.clone())) }
}

fn refused(reason: String, ground: Ground) -> Decision {
    Decision::End { state: UpdateState::Refused, reason, ground }
}

/// Whether the requester of a promotion did not know a running version.
///
/// The version did not run when the promotion was requested, and no update of ours brought it since.
fn is_foreign(running: &Running, update: &Update) -> bool {
    let Some(expected) = &update.expected else { return false };
    let is_known = is_same(&running.version, &update.version)
        || expected.iter().any(|expected| is_same(&running.version, expected));
    let is_ours = || {
        let finished_at = running.landed.as_ref().and_then(|landed| landed.finished_at);
        finished_at.is_some_and(|at| at >= update.received_at)
    };
    !is_known && !is_ours()
}

/// The causes of a decision to wait, for tests and logs.
impl Decision {
    pub fn wait_causes(&self) -> Vec<WaitCause> {
        match self {
            Self::Wait(waits) => waits.iter().map(|wait| wait.cause).collect(),
            Self::Ask(_) => vec![WaitCause::MissingFact],
            Self::Write | Self::End { .. } | Self::Keep => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
