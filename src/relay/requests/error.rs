use crate::store::StoreError;
use tagrelay_image::{Repository, Tag};

/// Why a request is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// An environment that the settings do not have.
    #[error("there is no environment `{name}`; there are {known}")]
    UnknownEnvironment {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The settings do not allow promotions from there.
    #[error("`{to}` takes no promotion from `{from}`; its promote_from allows {allowed}")]
    SourceNotAllowed {
        /// The environment that would change.
        to: String,
        /// The environment that was named.
        from: String,
        /// What is allowed.
        allowed: String,
    },
    /// No source was named, and the settings do not give exactly one.
    #[error("name the environment to promote from: `{to}` allows {allowed}")]
    SourceMissing {
        /// The environment that would change.
        to: String,
        /// What is allowed.
        allowed: String,
    },
    /// A tag without repositories would move everything to a tag that most do not have.
    #[error("a `tag` needs `repositories`: name what it is a tag of")]
    TagWithoutRepositories,
    /// A repository that an environment does not name, or that no rule manages.
    #[error("`{environment}` runs no managed repository `{repository}`; it runs {known}")]
    UnknownRepository {
        /// The environment.
        environment: String,
        /// What was asked for.
        repository: String,
        /// What there is.
        known: String,
    },
    /// The target names none of the repositories that the source runs.
    #[error("`{to}` and `{from}` have no repository in common: `{to}` names {target}; `{from}` runs {offered}")]
    NothingInCommon {
        /// The environment that would change.
        to: String,
        /// The environment whose versions it would take.
        from: String,
        /// What the target names.
        target: String,
        /// What the source runs.
        offered: String,
    },
    /// A last component that several repositories have.
    #[error("`{repository}` is ambiguous in `{environment}`: it may be {candidates}")]
    AmbiguousRepository {
        /// The environment.
        environment: String,
        /// What was asked for.
        repository: String,
        /// What it may be.
        candidates: String,
    },
    /// The rule of the image does not take the tag.
    #[error(transparent)]
    TagRefused(#[from] crate::policy::TagRefused),
    /// Sites of one repository are apart in the source.
    #[error("`{environment}` runs several versions of {repository} ({versions}): name one with `tag`")]
    SeveralVersions {
        /// The environment.
        environment: String,
        /// The repository.
        repository: Repository,
        /// What runs.
        versions: String,
    },
    /// The environment runs something else than the caller believes.
    #[error("`{environment}` runs {running} of {repository}, and {expected} was expected")]
    Unexpected {
        /// The environment.
        environment: String,
        /// The repository.
        repository: Repository,
        /// What the caller believes.
        expected: Tag,
        /// What runs.
        running: String,
    },
    /// The source is not as healthy as the settings want it.
    #[error(
        "`{to}` takes promotions from a healthy environment only: {reason} (whoever has `override:{to}` may set `override` \
         and a `reason`)"
    )]
    GateClosed {
        /// The environment that would change.
        to: String,
        /// What is missing.
        reason: String,
    },
    /// Whoever overrides has to say why.
    #[error("`override` needs a `reason`: it goes into the commit")]
    OverrideWithoutReason,
    /// Nothing is known of an earlier version.
    #[error("no earlier version of {repository} in `{environment}` is known: name one with `to`")]
    NoEarlierVersion {
        /// The environment.
        environment: String,
        /// The repository.
        repository: Repository,
    },
    /// A time that does not exist.
    #[error("`hold_for` reaches beyond the end of the calendar")]
    HoldTooLong,
    /// The key came with another request before.
    #[error("the Idempotency-Key was used for another request before: use a new key for a new request")]
    KeyReused,
    /// The branch cannot be read, so nobody knows what runs.
    #[error("the config repository cannot be read: {0}")]
    Unreachable(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
