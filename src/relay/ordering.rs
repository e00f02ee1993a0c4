//! Is a build newer than what an environment runs, and than what is on its way there?
//!
//! The criteria are asked one after the other (`policy::Criterion`), and the first that can tell decides. One that
//! could tell if only its source answered postpones the event: going on without it might go backwards.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use ulid::Ulid;

use super::Relay;
use super::branch::sites;
use super::matrix::{is_same, runs, versions};
use crate::image::{Digest, Repository, Version};
use crate::policy::{Criterion, ImageRule, TagFacts, TagRule, Verification, compare};
use crate::registry::{BuildTime, Confirmation, UnverifiedImage};
use crate::source_repo::{Membership, Relation, SourceError};
use crate::store::{Cause, Event, Party, PlannedUpdate, StoreError, Update, Verdict};
use crate::telemetry::{SpanKind, TraceContext};

/// How long after an event came a commit that the source repository does not have is looked for: the source may be a
/// replica that is a moment behind, or the branch moves only once the build is done. The same for the config of an
/// image.
const PATIENCE: SignedDuration = SignedDuration::from_secs(10);

/// The pause before a build is compared again that came while the registry was asked about a promotion of its place.
const PROMOTION_IS_ASKED: Duration = Duration::from_millis(500);

/// How old what is known of a branch may be when it is said for good that something else runs there. It must have been read
/// since the event came in any case.
const TIP_AGE: Duration = Duration::from_secs(1);

/// How a reason begins for which nobody knows when something was built.
const UNREADABLE: &str = "nobody can see when it was built:";

/// What comparing came to.
pub(super) enum Judged {
    Plans(Vec<PlannedUpdate>),
    Refused { reason: String, asked: Party },
    NotNow { reason: String, ask_again_after: Option<Duration>, asked: Party },
}

/// Turns at deciding, one at a time for each repository. Some share theirs.
pub(super) struct Turns([Mutex<()>; 32]);

impl Turns {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }

    pub(super) async fn take(&self, repository: &Repository) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        repository.as_str().hash(&mut hasher);
        self.0[(hasher.finish() % 32) as usize].lock().await
    }
}

/// Why there is no comparison now.
enum Setback {
    Store(StoreError),
    NotNow { reason: String, ask_again_after: Option<Duration>, asked: Party },
    Refused { reason: String, asked: Party },
}

impl Setback {
    /// Somebody has asked for another version before, and nobody knows yet whether there is one.
    fn unconfirmed(promotion: &Update) -> Self {
        let (version, environment, id) = (promotion.version.short(), &promotion.environment, &promotion.cause_id);
        let mut reason =
            format!("{version} was asked for in {environment} before (promotion {id}) and is not confirmed yet");
        if let Some(why) = &promotion.reason {
            reason.push_str(&format!(": {why}"));
        }
        let asked_now = promotion.attempts == 0;
        let ask_again_after = asked_now.then_some(PROMOTION_IS_ASKED);
        Self::NotNow { reason, ask_again_after, asked: Party::Registry }
    }
}

impl From<StoreError> for Setback {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<SourceError> for Setback {
    fn from(error: SourceError) -> Self {
        Self::NotNow { reason: error.to_string(), ask_again_after: error.ask_again_after(), asked: Party::Source }
    }
}

/// The build that an event announces.
pub(super) struct Candidate<'a> {
    pub(super) event: &'a Event,
    pub(super) rule: &'a ImageRule,
    pub(super) facts: TagFacts,
    pub(super) version: Version,
    /// The span that what is asked for it is a child of.
    pub(super) trace: TraceContext,
    built_at: OnceCell<Option<Timestamp>>,
}

impl<'a> Candidate<'a> {
    pub(super) fn new(event: &'a Event, rule: &'a ImageRule, facts: TagFacts, version: Version) -> Self {
        Self { event, rule, facts, version, trace: event.trace, built_at: OnceCell::new() }
    }

    /// Returns for how long what it needs may still be on its way at `now`; `None`: it was announced too long ago.
    fn patience(&self, now: Timestamp) -> Option<Duration> {
        let left = PATIENCE - now.duration_since(self.event.received_at);
        Duration::try_from(left).ok().filter(|left| !left.is_zero())
    }
}

/// A version that the candidate must not be older than.
struct Other {
    version: Version,
    /// What brought it, where that is ours.
    cause_id: Option<String>,
    /// Why it came, where that is ours.
    cause: Option<Cause>,
    digest: Option<Digest>,
    /// "which staging runs".
    place: String,
    runs: bool,
}

/// How the candidate relates to one of the others.
struct Comparison {
    ordering: Ordering,
    by: Criterion,
    /// "newer than 1111111, which staging runs".
    text: String,
}

impl Relay {
    /// Compares a confirmed build with what each of the environments runs and is about to run.
    pub(super) async fn judge(&self, candidate: &Candidate<'_>, environments: &[String]) -> Result<Judged, StoreError> {
        let judged = async {
            if let Some(reason) = self.refused_by_source(candidate).await? {
                return Ok(Judged::Refused { reason, asked: Party::Source });
            }
            let mut plans = Vec::with_capacity(environments.len());
            for environment in environments {
                plans.push(self.plan(candidate, environment).await?);
            }
            Ok(Judged::Plans(plans))
        };
        match judged.await {
            Ok(judged) => Ok(judged),
            Err(Setback::Store(error)) => Err(error),
            Err(Setback::NotNow { reason, ask_again_after, asked }) => {
                Ok(Judged::NotNow { reason, ask_again_after, asked })
            }
            Err(Setback::Refused { reason, asked }) => Ok(Judged::Refused { reason, asked }),
        }
    }

    /// Returns why the source repository speaks against the commit, if it does.
    async fn refused_by_source(&self, candidate: &Candidate<'_>) -> Result<Option<String>, Setback> {
        let (Some(source), Some(sha)) = (candidate.rule.source, &candidate.facts.sha) else { return Ok(None) };
        let mut span = self.0.traces.begin(SpanKind::Client, "source branches", Some(&candidate.trace));
        span.set("tagrelay.commit", sha);
        let membership = self.0.sources.membership(source, &candidate.event.repository, sha).await;
        let reason = match membership.inspect_err(|error| span.fail(&error.to_string()))? {
            Membership::OnBranch => return Ok(None),
            Membership::Elsewhere { reason } => reason,
        };
        drop(span);
        if let Some(left) = candidate.patience(self.now()) {
            let reason = format!("{reason}; it is looked for again");
            // The last look is when the time is over, and no later.
            let next = Duration::from_secs(1 << candidate.event.attempts.min(4));
            let ask_again_after = (left < next).then_some(left);
            return Err(Setback::NotNow { reason, ask_again_after, asked: Party::Source });
        }
        Ok(Some(reason))
    }

    /// Decides about one environment. What is final because of what runs is decided on what the branch says now: whoever
    /// has gone back by hand wants to hear of the next build.
    async fn plan(&self, candidate: &Candidate<'_>, environment: &str) -> Result<PlannedUpdate, Setback> {
        let Some(branch) = self.branch_of(environment) else { return self.compare_all(candidate, environment).await };
        let tip = branch.tip();
        let planned = self.compare_all(candidate, environment).await?;
        let is_final = match &planned.verdict {
            Verdict::Refuse { .. } | Verdict::Unchanged { .. } => true,
            // The writer will find that there is nothing to write.
            Verdict::Go => runs(&self.running(environment, &candidate.event.repository), &candidate.version),
        };
        if !is_final || tip.is_none() {
            return Ok(planned);
        }
        branch.read_if_older_than(self.age_for_final(candidate.event)).await.map_err(|error| Setback::NotNow {
            reason: format!("it is not known what {environment} runs now: {error}"),
            ask_again_after: None,
            asked: Party::Branch,
        })?;
        if branch.tip() == tip { Ok(planned) } else { self.compare_all(candidate, environment).await }
    }

    /// Returns how old what is known of a branch may be for a final answer to an event: not older than that, and never more
    /// than a second.
    pub(super) fn age_for_final(&self, event: &Event) -> Duration {
        let age = self.now().duration_since(event.received_at);
        TIP_AGE.min(Duration::try_from(age).unwrap_or_default())
    }

    async fn compare_all(&self, candidate: &Candidate<'_>, environment: &str) -> Result<PlannedUpdate, Setback> {
        let repository = &candidate.event.repository;
        // The store first: what is no longer open by the time the snapshot is read is in the snapshot.
        let standing = self.0.store.standing(environment, repository).await?;
        if let Some(promotion) = standing.unconfirmed.first() {
            return Err(Setback::unconfirmed(promotion));
        }
        let running = self.running(environment, repository);
        let mut others = Vec::new();
        for version in &running {
            let brought = match standing.brought(version) {
                Some(known) => known.cloned(),
                None => self.0.store.brought(environment, repository, version).await?,
            };
            others.push(Other::running(environment, version, brought));
        }
        others.extend(standing.open.iter().map(Other::open));

        let mut comparisons = Vec::new();
        for other in others.iter().filter(|other| !is_same(&candidate.version, &other.version)) {
            comparisons.push(self.compare(candidate, other).await?);
        }
        let older = comparisons.iter().find(|comparison| comparison.ordering.is_lt());
        let decisive = older.or(comparisons.last());
        let verdict = match (older, nothing_to_do(candidate, environment, &running, &others)) {
            (Some(older), _) => Verdict::Refuse { reason: format!("older: {}", older.text) },
            (None, Some(verdict)) => verdict,
            (None, None) => Verdict::Go,
        };
        Ok(PlannedUpdate {
            environment: environment.to_owned(),
            mark: standing.mark,
            verdict,
            decided_by: decisive.map_or(Criterion::Arrival, |decisive| decisive.by).as_str(),
            decided_because: decisive.map_or_else(
                || format!("{environment} runs nothing else that it could be older than"),
                |decisive| decisive.text.clone(),
            ),
            compared: others.into_iter().map(|other| other.version).collect(),
        })
    }

    fn running(&self, environment: &str, repository: &Repository) -> Vec<Version> {
        let snapshot = self.branch_of(environment).and_then(super::Branch::snapshot);
        let places = snapshot.as_ref().and_then(|snapshot| sites(snapshot, environment)?.sites.get(repository));
        places.map(|places| versions(places)).unwrap_or_default()
    }

    async fn compare(&self, candidate: &Candidate<'_>, other: &Other) -> Result<Comparison, Setback> {
        let later = other.cause_id.as_ref().is_some_and(|cause_id| *cause_id > candidate.event.id);
        // What was announced before somebody went back must not come back.
        if later && other.cause == Some(Cause::Rollback) {
            let text = format!("{}, {}, was gone back to after it was announced", other.version.short(), other.place);
            return Ok(Comparison { ordering: Ordering::Less, by: Criterion::Arrival, text });
        }
        // What could not tell, for the explanation.
        let mut silent = Vec::new();
        if !candidate.rule.allow_older {
            let facts = other.version.tag().and_then(|tag| candidate.rule.tag.read(tag).ok()).unwrap_or_default();
            if let Some(ordering) = self.by_ancestry(candidate, &facts, &mut silent).await? {
                return Ok(told(candidate, (ordering, Criterion::Ancestry), other, &[]));
            }
            if let Some((ordering, by)) = compare::by_tag(&candidate.facts, &facts) {
                return Ok(told(candidate, (ordering, by), other, &silent));
            }
            if let Some(ordering) = self.by_build_time(candidate, other, &mut silent).await? {
                return Ok(told(candidate, (ordering, Criterion::BuildTime), other, &silent));
            }
        }
        if !later && !candidate.rule.allow_older && self.may_have_come_before(candidate, other) {
            let text = format!(
                "{}, {}, came while nobody had looked, and nothing tells which of the two is newer ({}): promote it if it is",
                other.version.short(),
                other.place,
                silent.join("; ")
            );
            return Ok(Comparison { ordering: Ordering::Less, by: Criterion::Arrival, text });
        }
        // What somebody else has written was there before the event came.
        let ordering = if later { Ordering::Less } else { Ordering::Greater };
        Ok(told(candidate, (ordering, Criterion::Arrival), other, &silent))
    }

    /// Returns whether what catch-up has found may have been pushed before the other was announced to this process: the
    /// look before may have been two rounds ago, and the id of what is found says when it was found. Of what catch-up
    /// found both times, the later look found the later one.
    fn may_have_come_before(&self, candidate: &Candidate<'_>, other: &Other) -> bool {
        if other.cause == Some(Cause::CatchUp) {
            return false;
        }
        let Some(every) = self.0.catch_up.every.filter(|_| candidate.event.cause == Cause::CatchUp) else {
            return false;
        };
        let at = |id: &str| Ulid::from_string(id).map(|id| Duration::from_millis(id.timestamp_ms())).ok();
        let (found, announced) = (at(&candidate.event.id), other.cause_id.as_deref().and_then(at));
        let begun = Duration::from_millis(u64::try_from(self.0.lineage.begun.as_millisecond()).unwrap_or_default());
        let is_late = |(found, announced): (Duration, Duration)| {
            announced >= begun && found.saturating_sub(announced) < every * 2
        };
        found.zip(announced).is_some_and(is_late)
    }

    async fn by_ancestry(
        &self,
        candidate: &Candidate<'_>,
        other: &TagFacts,
        silent: &mut Vec<String>,
    ) -> Result<Option<Ordering>, Setback> {
        let (Some(source), Some(new)) = (candidate.rule.source, &candidate.facts.sha) else { return Ok(None) };
        let Some(old) = &other.sha else {
            silent.push("it names no commit".to_owned());
            return Ok(None);
        };
        let mut span = self.0.traces.begin(SpanKind::Client, "source ancestry", Some(&candidate.trace));
        span.set("tagrelay.commit", new);
        span.set("tagrelay.commit.running", old);
        let relation = self.0.sources.relation(source, &candidate.event.repository, new, old).await;
        Ok(match relation.inspect_err(|error| span.fail(&error.to_string()))? {
            Relation::Descendant => Some(Ordering::Greater),
            Relation::Ancestor => Some(Ordering::Less),
            Relation::Same => None,
            Relation::Untold { reason } => {
                silent.push(reason);
                None
            }
        })
    }

    async fn by_build_time(
        &self,
        candidate: &Candidate<'_>,
        other: &Other,
        silent: &mut Vec<String>,
    ) -> Result<Option<Ordering>, Setback> {
        if candidate.rule.verify == Verification::Nothing {
            return Ok(None);
        }
        let new = candidate.built_at.get_or_try_init(|| self.own_build_time(candidate)).await?;
        let old = match new {
            Some(_) => self.build_time_of(candidate, other, silent).await?,
            None => None,
        };
        if (new.is_none() || old.is_none()) && !silent.iter().any(|why| why.starts_with(UNREADABLE)) {
            silent.push("no build time is known".to_owned());
        }
        Ok(compare::by_build_time(*new, old))
    }

    /// Returns when the candidate was built. As long as its registry does not let us see that, it is not known whether
    /// it is older, and nothing goes on.
    async fn own_build_time(&self, candidate: &Candidate<'_>) -> Result<Option<Timestamp>, Setback> {
        let Some(digest) = candidate.version.digest() else { return Ok(None) };
        match self.built_at(candidate, digest).await? {
            BuildTime::At(at) => Ok(Some(at)),
            BuildTime::Unsaid | BuildTime::Gone { .. } => Ok(None),
            BuildTime::NotNow { reason, ask_again_after } => {
                Err(Setback::NotNow { reason, ask_again_after, asked: Party::Registry })
            }
            BuildTime::Incomplete { reason } if candidate.patience(self.now()).is_none() => {
                let reason = format!("the image cannot be pulled: {reason}");
                Err(Setback::Refused { reason, asked: Party::Registry })
            }
            BuildTime::NotAllowed { reason } | BuildTime::Incomplete { reason } => {
                let reason = format!("{UNREADABLE} {reason}");
                Err(Setback::NotNow { reason, ask_again_after: None, asked: Party::Registry })
            }
        }
    }

    /// Returns when what runs, or is on its way, was built. That its registry does not have it any more, or does not
    /// let anybody pull it any more, must not stop what comes after it.
    async fn build_time_of(
        &self,
        candidate: &Candidate<'_>,
        other: &Other,
        silent: &mut Vec<String>,
    ) -> Result<Option<Timestamp>, Setback> {
        let repository = &candidate.event.repository;
        let confirmed = match (&other.digest, other.version.tag()) {
            (None, Some(tag)) => {
                let image = UnverifiedImage { repository: repository.clone(), tag: tag.clone() };
                self.digest_of(&image, &candidate.trace).await?
            }
            _ => None,
        };
        let Some(digest) = other.digest.as_ref().or(confirmed.as_ref()) else { return Ok(None) };
        match self.built_at(candidate, digest).await? {
            BuildTime::At(at) => Ok(Some(at)),
            BuildTime::Unsaid => Ok(None),
            BuildTime::NotNow { reason, ask_again_after } => {
                Err(Setback::NotNow { reason, ask_again_after, asked: Party::Registry })
            }
            BuildTime::Gone { reason } | BuildTime::Incomplete { reason } | BuildTime::NotAllowed { reason } => {
                silent.push(format!("{UNREADABLE} {reason}"));
                Ok(None)
            }
        }
    }

    /// Returns the digest of what runs, where the manifest names none.
    async fn digest_of(&self, image: &UnverifiedImage, trace: &TraceContext) -> Result<Option<Digest>, Setback> {
        match self.confirm("registry running digest", image, trace).await {
            Confirmation::There(image) => Ok(image.digest().cloned()),
            Confirmation::NotThere | Confirmation::NotAllowed { .. } => Ok(None),
            Confirmation::NotNow { reason, ask_again_after } => {
                Err(Setback::NotNow { reason, ask_again_after, asked: Party::Registry })
            }
        }
    }

    /// Returns what is known of when an image was built, from the store where it was asked for before.
    async fn built_at(&self, candidate: &Candidate<'_>, digest: &Digest) -> Result<BuildTime, StoreError> {
        let repository = &candidate.event.repository;
        if let Some(known) = self.0.store.build_time(repository, digest).await? {
            return Ok(known.map_or(BuildTime::Unsaid, BuildTime::At));
        }
        let mut span = self.0.traces.begin(SpanKind::Client, "registry build time", Some(&candidate.trace));
        span.set("server.address", repository.registry());
        span.set("tagrelay.repository", repository);
        span.set("tagrelay.version", digest);
        let answer = self.0.registries.build_time(repository, digest).await;
        span.set("tagrelay.outcome", answer.outcome());
        self.0.metrics.registry_request(repository.registry(), answer.outcome());
        // What may change when somebody acts is not kept.
        let said = match &answer {
            BuildTime::At(at) => Some(*at),
            BuildTime::Unsaid => None,
            BuildTime::Gone { reason }
            | BuildTime::Incomplete { reason }
            | BuildTime::NotAllowed { reason }
            | BuildTime::NotNow { reason, .. } => {
                span.fail(reason);
                return Ok(answer);
            }
        };
        drop(span);
        self.0.store.keep_build_time(repository, digest, said).await?;
        Ok(answer)
    }
}

impl Other {
    fn running(environment: &str, version: &Version, brought: Option<Update>) -> Self {
        let digest = version.digest().or_else(|| brought.as_ref()?.version.digest()).cloned();
        Self {
            version: version.clone(),
            cause: brought.as_ref().map(|update| update.cause),
            cause_id: brought.map(|update| update.cause_id),
            digest,
            place: format!("which {environment} runs"),
            runs: true,
        }
    }

    fn open(update: &Update) -> Self {
        Self {
            version: update.version.clone(),
            cause: Some(update.cause),
            cause_id: Some(update.cause_id.clone()),
            digest: update.version.digest().cloned(),
            place: format!("which was taken for {}", update.environment),
            runs: false,
        }
    }
}

fn told(
    candidate: &Candidate<'_>,
    (ordering, by): (Ordering, Criterion),
    other: &Other,
    silent: &[String],
) -> Comparison {
    let (version, place) = (other.version.short_beside(&candidate.version), &other.place);
    let mut text = match (by, ordering.is_lt()) {
        (Criterion::Arrival, true) => format!("{version}, {place}, arrived later"),
        (_, true) => format!("{version}, {place}, is newer by {}", words(by)),
        (_, false) => format!("newer than {version}, {place}, by {}", words(by)),
    };
    if !silent.is_empty() {
        text.push_str(&format!(" ({})", silent.join("; ")));
    }
    Comparison { ordering, by, text }
}

fn words(by: Criterion) -> &'static str {
    match by {
        Criterion::Ancestry => "ancestry in the source repository",
        Criterion::Number => "the number in the tag",
        Criterion::Time => "the time in the tag",
        Criterion::Version => "version",
        Criterion::BuildTime => "build time",
        Criterion::Arrival => "arrival",
    }
}

/// Returns the verdict on a build that changes nothing: it runs already under another tag, or its tag is all that the
/// manifests can hold.
fn nothing_to_do(
    candidate: &Candidate<'_>,
    environment: &str,
    running: &[Version],
    others: &[Other],
) -> Option<Verdict> {
    let nothing_open = others.iter().all(|other| other.runs);
    let first = running.first()?;
    let digest = candidate.version.digest();
    if nothing_open && digest.is_some() && others.iter().all(|other| other.digest.as_ref() == digest) {
        // The same tag is left to the writer, which looks at every site.
        let other_tag = running.iter().all(|version| version.tag() != candidate.version.tag());
        let reason = format!("{environment} runs the same digest as {}", first.short());
        return other_tag.then_some(Verdict::Unchanged { reason });
    }
    if matches!(candidate.rule.tag, TagRule::Digest { .. }) && running.iter().all(|version| version.digest().is_none())
    {
        let reason = format!(
            "the manifests of {environment} name {} without a digest, so that it cannot be followed; write it as `{}`",
            first.short(),
            candidate.version
        );
        return Some(Verdict::Refuse { reason });
    }
    None
}
