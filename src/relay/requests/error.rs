use crate::store::StoreError;
use tagrelay_image::{Repository, Tag};

/// Why a request is rejected.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The settings have no such environment.
    #[error("there is no environment `{name}`; there are {known}")]
    UnknownEnvironment {
        name: String,
        /// The nearest environments.
        known: String,
    },
    /// The glob cannot be read.
    #[error("`{0}` is not a valid glob: `*` stands for any text without `/`, `?` for one character")]
    BadGlob(String),
    /// The name of a repository cannot be read.
    #[error("`repository`: {0}")]
    BadRepository(tagrelay_image::InvalidRepository),
    /// The settings do not allow promotions from this source.
    #[error("`{to}` does not accept promotions from `{from}`; promote_from allows {allowed}")]
    SourceNotAllowed {
        /// The target.
        to: String,
        /// The source.
        from: String,
        /// The allowed sources.
        allowed: String,
    },
    /// The request names no source, and the settings allow none.
    #[error(
        "`{to}` accepts no promotions from other environments, because its promote_from is empty: name `repositories` and a `tag`, \
         or roll back"
    )]
    NoSource {
        /// The target.
        to: String,
    },
    /// The request names no source, and the settings do not allow exactly one.
    #[error("name the environment to promote from with `from`: `{to}` allows {allowed}")]
    SourceMissing {
        /// The target.
        to: String,
        /// The allowed sources.
        allowed: String,
    },
    /// A tag needs named repositories: most repositories do not have the tag.
    #[error("a `tag` needs `repositories`: name the repositories that have the tag")]
    TagWithoutRepositories,
    /// The environment does not name the repository, or no rule manages it.
    #[error("`{environment}` runs no managed repository `{repository}`; it runs {known}")]
    UnknownRepository {
        environment: String,
        repository: String,
        /// The nearest managed repositories of the environment.
        known: String,
    },
    /// The target names none of the repositories that the source runs.
    #[error("`{to}` and `{from}` have no repository in common: `{to}` names {target}; `{from}` runs {offered}")]
    NothingInCommon {
        /// The target.
        to: String,
        /// The source.
        from: String,
        /// The repositories of the target.
        target: String,
        /// The repositories of the source.
        offered: String,
    },
    /// Several repositories have this last component.
    #[error("`{repository}` is ambiguous in `{environment}`: it may be {candidates}")]
    AmbiguousRepository {
        environment: String,
        repository: String,
        /// The matching repositories.
        candidates: String,
    },
    /// The rule of the image rejects the tag.
    #[error(transparent)]
    TagRefused(#[from] crate::policy::TagRefused),
    /// The sites of a repository in the source name several versions.
    #[error("`{environment}` runs several versions of {repository} ({versions}): choose one with `tag`")]
    SeveralVersions {
        environment: String,
        repository: Repository,
        /// The versions that the sites name.
        versions: String,
    },
    /// The environment does not run the version that the caller expects.
    #[error("`{environment}` runs {running} of {repository}, and {expected} was expected")]
    Unexpected {
        environment: String,
        repository: Repository,
        /// The version that the caller expects.
        expected: Tag,
        /// The versions that the environment runs.
        running: String,
    },
    /// The source is not as healthy as the settings require.
    #[error(
        "the gate of `{to}` is closed:\n{reason}\n(with the permission `override:{to}`, set `override` and a `reason` to pass it)"
    )]
    GateClosed {
        /// The target.
        to: String,
        /// Why the gate is closed.
        reason: String,
    },
    /// The override has no reason.
    #[error("`override` needs a `reason`: it goes into the commit")]
    OverrideWithoutReason,
    /// The history has no earlier version.
    #[error("no earlier version of {repository} in `{environment}` is known: give the tag to go back to with `to`")]
    NoEarlierVersion {
        environment: String,
        /// The repository to roll back.
        repository: Repository,
    },
    /// The end of the hold cannot be represented as a time.
    #[error("`hold_for` reaches beyond the end of the calendar")]
    HoldTooLong,
    /// The key belongs to an earlier, different request.
    #[error("the Idempotency-Key was used for another request before: use a new key for a new request")]
    KeyReused,
    /// The branch cannot be read, so the running versions are unknown.
    #[error("the config repository cannot be read: {0}")]
    Unreachable(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}
