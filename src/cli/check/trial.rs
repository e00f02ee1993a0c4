//! Whether managed sites would take a new version: the edit is made, on a copy that is thrown away.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config_repo::{
    ConfigRepository, EditOutcome, EnvironmentPlan, IndexedSite, Plan, PrepareError, Snapshot, WantedVersion,
};
use crate::image::{Digest, Repository, Tag, Version};
use crate::policy::{ImageRule, rule_for};

/// The most repositories that are tried on one branch. Each costs reading the files that name it once.
const MAX_TRIALS: usize = 2000;

/// Why sites of managed repositories would refuse an edit, by environment; each reason names file and line.
pub(super) type Refusals = BTreeMap<String, Vec<String>>;

/// Tries an edit of each managed repository in each environment, alone, as a push would make it.
///
/// # Errors
///
/// When the mirror cannot be read.
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

/// Returns a version that no site names. It has a digest, so that sites of either shape can take it.
fn another(places: &[IndexedSite]) -> Version {
    let digest = Digest::of(b"a trial");
    match places.iter().find_map(|place| place.version.tag()).and_then(other_tag) {
        Some(tag) => Version::tagged(tag, Some(digest)),
        None => Version::pinned(digest),
    }
}

/// Returns a tag that looks like this one: its last letter or digit is another.
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
    fn another_tag_has_the_same_shape() {
        for (tag, other) in
            [("v1.2.3", "v1.2.1"), ("9f8e7d1", "9f8e7d2"), ("cafe", "cafa"), ("a", "b"), ("main-", "maina")]
        {
            assert_eq!(other_tag(&tag.parse().unwrap()).unwrap().as_str(), other);
        }
    }
}
