//! Whether an environment is well enough for promotions from it.

use std::time::Duration;

use jiff::Timestamp;

use super::elapsed;
use crate::relay::Relay;
use crate::store::{ApplicationHealth, FollowUp, StoreError, Update};

/// The most applications and rollouts that a reason names.
const NAMED: usize = 3;

/// Why promotions from an environment have to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed(pub String);

/// What is still being rolled out in an environment.
pub type OpenFollowUps = [(FollowUp, Update)];

/// Decides whether promotions may come from an environment: everything that was committed has been rolled out, and every
/// application has been Synced and Healthy for `soak`. Zero asks for the moment only.
fn judge(
    environment: &str,
    open: &OpenFollowUps,
    applications: &[ApplicationHealth],
    soak: Duration,
    now: Timestamp,
) -> Result<(), Closed> {
    let closed = |reason: String| Err(Closed(reason));
    let rollouts = open.iter().map(|(row, update)| {
        let because = row.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("{} {} is being rolled out{because}", update.repository.name(), update.version.short())
    });
    if !open.is_empty() {
        return closed(format!("`{environment}` is not healthy yet: {}", name(rollouts)));
    }
    if applications.is_empty() {
        return closed(format!(
            "Argo CD shows no application of `{environment}`, so nobody knows whether it is healthy"
        ));
    }
    let ill = applications.iter().filter(|app| app.healthy_since.is_none()).map(|app| {
        let message = app.message.as_ref().map(|message| format!(" ({message})")).unwrap_or_default();
        format!("application {} is {} and {}{message}", app.application, app.sync, app.health)
    });
    if applications.iter().any(|app| app.healthy_since.is_none()) {
        return closed(format!("`{environment}` is not healthy: {}", name(ill)));
    }
    let since = applications.iter().filter_map(|app| app.healthy_since).max().unwrap_or(now);
    if elapsed(since, now) < soak {
        let until = jiff::SignedDuration::try_from(soak).ok().and_then(|soak| since.checked_add(soak).ok());
        let until = until.map(|until| format!(": try again at {until:.0}")).unwrap_or_default();
        return closed(format!(
            "`{environment}` has been healthy since {since:.0} only, and its soak time is {} s{until}",
            soak.as_secs()
        ));
    }
    Ok(())
}

fn name(things: impl Iterator<Item = String>) -> String {
    let mut named: Vec<String> = things.collect();
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    named.join("; ") + &more
}

impl Relay {
    /// Returns the environments that promotions want to be healthy.
    pub(super) fn gated_sources(&self) -> Vec<&str> {
        let environments = || self.0.branches.iter().flat_map(crate::relay::Branch::environments);
        let asked = environments().flat_map(|target| {
            let sources = target.promote_from.iter().map(String::as_str);
            sources.filter(|source| target.soak_of(self.environment(source)).is_some())
        });
        let mut sources: Vec<&str> = asked.collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    /// Asks whether promotions may come from an environment that has to have been healthy for `soak` at `now`. `None`: they
    /// may.
    ///
    /// # Errors
    ///
    /// When the store cannot be used.
    pub(in crate::relay) async fn gate(
        &self,
        environment: &str,
        soak: Duration,
        now: Timestamp,
    ) -> Result<Option<Closed>, StoreError> {
        let Some(following) = &self.0.following else {
            return Ok(Some(Closed("there is no Argo CD that knows whether it is healthy".to_owned())));
        };
        // What is just being pushed may be on the branch already, and nobody follows it yet.
        let pending = self.0.store.pending_updates(&[environment.to_owned()], 1).await?;
        if let Some(update) = pending.first() {
            let (name, version) = (update.repository.name(), update.version.short());
            return Ok(Some(Closed(format!("{name} {version} is just being written to `{environment}`"))));
        }
        let applications = match self.observe(following, environment, now).await? {
            Ok(applications) => applications,
            Err(error) => {
                return Ok(Some(Closed(format!("nobody knows whether `{environment}` is healthy: {error}"))));
            }
        };
        let open = self.0.store.open_follow_ups(super::MAX_OPEN).await?;
        let open: Vec<_> = open.into_iter().filter(|(row, _)| row.environment == environment).collect();
        Ok(judge(environment, &open, &applications, soak, now).err())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn app(name: &str, healthy_since: Option<i64>) -> ApplicationHealth {
        ApplicationHealth {
            environment: "staging".to_owned(),
            application: name.to_owned(),
            sync: "Synced".to_owned(),
            health: if healthy_since.is_some() { "Healthy" } else { "Degraded" }.to_owned(),
            message: None,
            healthy_since: healthy_since.map(at),
            observed_at: at(0),
        }
    }

    fn at_noon(applications: &[ApplicationHealth], soak_minutes: u64) -> Result<(), String> {
        let noon = "2026-11-23T12:00:00Z".parse().unwrap();
        judge("staging", &[], applications, Duration::from_secs(soak_minutes * 60), noon).map_err(|closed| closed.0)
    }

    #[test]
    fn the_application_that_recovered_last_counts() {
        let noon = "2026-11-23T12:00:00Z".parse::<Timestamp>().unwrap().as_second();
        let (long, short) = (app("a", Some(noon - 7200)), app("b", Some(noon - 600)));
        assert_eq!(at_noon(std::slice::from_ref(&long), 30), Ok(()));
        assert_eq!(at_noon(&[long.clone(), short.clone()], 0), Ok(()));
        assert_eq!(at_noon(&[long.clone(), short.clone()], 10), Ok(()));
        assert_eq!(
            at_noon(&[long, short], 30).unwrap_err(),
            "`staging` has been healthy since 2026-11-23T11:50:00Z only, and its soak time is 1800 s: try again at \
             2026-11-23T12:20:00Z"
        );
    }

    #[test]
    fn what_is_not_healthy_or_not_known_keeps_it_closed() {
        let noon = "2026-11-23T12:00:00Z".parse::<Timestamp>().unwrap().as_second();
        let fine = app("a", Some(noon - 7200));
        assert_eq!(
            at_noon(&[fine, app("argocd/b", None)], 0).unwrap_err(),
            "`staging` is not healthy: application argocd/b is Synced and Degraded"
        );
        assert!(at_noon(&[], 0).unwrap_err().contains("no application"));
    }
}
