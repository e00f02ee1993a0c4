//! Requests for promotions, rollbacks, holds and freezes.
//!
//! Invalid requests are rejected at once, valid ones become updates and blocks.
//!
//! Files: `promotion` and `rollback` plan updates, `preview` is the dry run, `difference` compares two environments, `blocks` are
//! holds and freezes.

mod blocks;
mod difference;
mod error;
mod preview;
mod promotion;
mod rollback;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Relay;
use super::branch::Branch;
use super::names::{unknown_environment, unknown_repository};
use crate::config_repo::IndexedSite;
use crate::domain::{Request, Update, runs};
use crate::store::{Cancelled, NewRequest, RequestMade, StoreError};
use crate::telemetry::TraceContext;
use tagrelay_image::Repository;

pub use blocks::{FreezeRequest, HoldRequest};
pub use difference::{Difference, Row as DiffRow, RowKind as DiffRowKind};
pub use error::RequestError;
pub use preview::{Preview, PreviewState, PreviewedUpdate};
pub use promotion::PromotionRequest;
pub use rollback::RollbackRequest;

/// The caller of a request.
#[derive(Debug, Clone)]
pub struct Requester {
    /// The name of the API token.
    pub actor: String,
    /// The caller's key: repeated requests with one key make one request.
    pub idempotency_key: Option<String>,
    /// The span of the request.
    pub trace: TraceContext,
}

impl Relay {
    /// Finds a managed repository that an environment runs.
    pub(super) async fn repository_in(&self, environment: &str, text: &str) -> Result<Repository, RequestError> {
        let branch = self.branch(environment)?;
        if branch.snapshot().is_none() {
            // A hold right after the start must not fail.
            refresh(branch).await?;
        }
        resolve(&self.managed(branch, environment), environment, text)
    }

    /// Checks that there is an environment of this name.
    ///
    /// # Errors
    ///
    /// With the nearest environments.
    pub fn check_environment(&self, name: &str) -> Result<(), RequestError> {
        self.branch(name).map(|_| ())
    }

    /// Finds a repository for a filter, by its whole name or by its last component. With a whole name it need not run any more.
    ///
    /// # Errors
    ///
    /// If a last component belongs to no repository of the environment (`None`: of any environment), or to several.
    pub fn repository_of(&self, environment: Option<&str>, text: &str) -> Result<Repository, RequestError> {
        if text.contains('/') {
            return text.parse().map_err(RequestError::BadRepository);
        }
        let mut managed = Sites::new();
        let mut place = Vec::new();
        for name in self.environment_names().filter(|name| environment.is_none_or(|wanted| wanted == *name)) {
            managed.extend(self.managed(self.branch(name)?, name));
            place.push(name);
        }
        resolve(&managed, &place.join(", "), text)
    }

    /// Whether a rollback can name the version of this change with `to`.
    pub fn can_roll_back_to(&self, change: &Update) -> bool {
        let accepts = |tag| self.0.rules.accepts(&change.environment, &change.repository, tag);
        let is_version = change.version.tag().is_some_and(accepts);
        is_version && !runs(&self.running(&change.environment, &change.repository), &change.version)
    }

    /// Returns the earlier request of the caller with the same key.
    async fn repeated(&self, by: &Requester, fingerprint: &str) -> Result<Option<RequestMade>, RequestError> {
        let Some(key) = &by.idempotency_key else { return Ok(None) };
        match self.0.store.request_by_key(&by.actor, key).await? {
            Some(earlier) if earlier.fingerprint == fingerprint => Ok(Some(RequestMade::Repeated(earlier))),
            Some(_) => Err(RequestError::KeyReused),
            None => Ok(None),
        }
    }

    /// Cancels the updates of a request that have not ended.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn cancel(&self, request: &Request, actor: &str) -> Result<Cancelled, StoreError> {
        let outcome = self.0.store.cancel_request(&request.id, format!("cancelled by {actor}")).await?;
        if outcome == Cancelled::Now {
            tracing::info!(request = %request.id, kind = %request.kind, environment = %request.environment, actor, "request cancelled");
        }
        Ok(outcome)
    }

    async fn make(&self, request: NewRequest) -> Result<RequestMade, RequestError> {
        let fingerprint = request.fingerprint.clone();
        let made = self.0.store.make_request(request).await?;
        match &made {
            RequestMade::New { request, .. } => {
                tracing::info!(request = %request.id, kind = %request.kind, environment = %request.environment, actor = %request.actor, trace_id = %request.trace.trace_id(), "request stored");
            }
            // Two concurrent requests with one key both passed the first check.
            RequestMade::Repeated(earlier) if earlier.fingerprint != fingerprint => {
                return Err(RequestError::KeyReused);
            }
            RequestMade::Repeated(_) => {}
        }
        Ok(made)
    }

    pub(in crate::relay) fn branch(&self, environment: &str) -> Result<&Branch, RequestError> {
        self.branch_of(environment).ok_or_else(|| unknown_environment(environment, self.environment_names()))
    }
}

type Sites = BTreeMap<Repository, Vec<IndexedSite>>;

/// Reads the branch, because a request refers to the versions that run now.
///
/// Costs one round trip, and no fetch if the branch has not moved. Concurrent callers share a reading that began after their
/// calls.
async fn refresh(branch: &Branch) -> Result<(), RequestError> {
    branch.read_if_older_than(Duration::ZERO).await.map_err(|error| RequestError::Unreachable(error.to_string()))
}

/// Finds a repository by its whole name or, if that is unambiguous, by its last component.
fn resolve(managed: &Sites, environment: &str, text: &str) -> Result<Repository, RequestError> {
    if let Ok(repository) = text.parse::<Repository>()
        && managed.contains_key(&repository)
    {
        return Ok(repository);
    }
    let candidates: Vec<&Repository> = managed.keys().filter(|repository| repository.name() == text).collect();
    match candidates.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(unknown_repository(environment, text, managed.keys())),
        many => Err(RequestError::AmbiguousRepository {
            environment: environment.to_owned(),
            repository: text.to_owned(),
            candidates: list(many.iter().map(|repository| repository.as_str())),
        }),
    }
}

fn fingerprint(kind: &str, order: &impl Serialize) -> String {
    // Plain data with string keys: writing it as JSON cannot fail.
    let json = serde_json::to_string(order).unwrap_or_default();
    tagrelay_image::Digest::of(format!("{kind} {json}").as_bytes()).to_string()
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
