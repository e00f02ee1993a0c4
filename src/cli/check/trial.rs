//! Checks that managed sites would accept a new version, by editing a copy.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config_repo::{
    ConfigRepository, EditOutcome, EnvironmentPlan, IndexedSite, Plan, PrepareError, Snapshot, WantedVersion,
};
use crate::policy::{ImageRule, rule_for};
use tagrelay_image::{Digest, Repository, Tag, Version};

/// How many repositories are tried on one branch at most. Each reads the files that name it.
const MAX_TRIALS: usize = 2000;

/// The reasons why managed sites would refuse an edit, by environment. Each names file and line.
pub(super) type Refusals = BTreeMap<String, Vec<String>>;

/// Tries the edit that a push would make, separately for each managed repository in each environment.
///
/// # Errors
///
/// If the mirror cannot be read.
pub(super) async fn refusals(
    repository: &ConfigRepository,
    snapshot: &Snapshot,
    rules: &[ImageRule],
) -> Result<Refusals, PrepareError> {
    let mut refusals = Refusals::new();
    let managed = snapshot.environments.iter().flat_map(|(environment, sites)| {
        let managed = sites.sites.iter().filter(|(image, _)| rule_for(rules, image).is_some());
        managed.map(move |(image, places)| (environment, image, places))
    });
    for (environment, image, places) in managed.take(MAX_TRIALS) {
        let prepared = repository.prepare(plan(environment, image, places), Arc::new(|_| String::new())).await?;
        for (_, outcome) in prepared.outcomes() {
            if let EditOutcome::Refused { reason } = outcome {
                refusals.entry(environment.clone()).or_default().push(reason.clone());
            }
        }
    }
    Ok(refusals)
}

fn plan(environment: &str, image: &Repository, places: &[IndexedSite]) -> Plan {
    let wanted = WantedVersion { key: String::new(), repository: image.clone(), version: another(places) };
    Plan { environments: vec![EnvironmentPlan { environment: environment.to_owned(), wanted: vec![wanted] }] }
}

/// Returns a version that no site names. It has tag and digest, so it fits every kind of site.
fn another(places: &[IndexedSite]) -> Version {
    let digest = Digest::of(b"a trial");
    match places.iter().find_map(|place| place.version.tag()).and_then(other_tag) {
        Some(tag) => Version::tagged(tag, Some(digest)),
        None => Version::pinned(digest),
    }
}

/// Returns a tag of the same form: the last letter or digit differs.
fn other_tag(tag: &Tag) -> Option<Tag> {
    let mut text = tag.as_str().to_owned();
    let last = match text.pop()? {
        '1' => '2',
        digit if digit.is_ascii_digit() => '1',
        'a' => 'b',
        _ => 'a',
    };
    text.push(last);
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_tag_has_the_same_form() {
        for (tag, other) in
            [("v1.2.3", "v1.2.1"), ("9f8e7d1", "9f8e7d2"), ("cafe", "cafa"), ("a", "b"), ("main-", "maina")]
        {
            assert_eq!(other_tag(&tag.parse().unwrap()).unwrap().as_str(), other);
        }
    }
}
