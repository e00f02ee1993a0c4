//! Checks that the registries of managed images answer.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::remotes::Read;
use super::report::Report;
use crate::policy::{Verification, rule_for};
use crate::registry::{Confirmation, Registries, UnverifiedImage};
use crate::settings::Settings;
use tagrelay_image::Tag;

/// Verifies one image of each registry that an environment runs.
pub(super) async fn check(settings: &Settings, registries: &Registries, read: &Read, report: &mut Report) {
    let asking = samples(settings, read).into_iter().map(|(registry, (image, environment))| async move {
        let confirmation = registries.confirm(&image).await;
        (registry, image, environment, confirmation)
    });
    for (registry, image, environment, confirmation) in join_all(asking).await {
        let subject = format!("registry {registry}");
        let name = format!("{}:{}", image.repository.path(), image.tag);
        match confirmation {
            Confirmation::There(_) => report.ok(&subject, format!("has {name}")),
            Confirmation::NotThere => {
                report.warning(&subject, format!("answers, but does not have {name}, which `{environment}` runs"));
            }
            Confirmation::NotAllowed { reason } => report.fault(&subject, format!("{name}: {reason}")),
            Confirmation::NotNow { reason, .. } => report.fault(&subject, format!("{name}: {reason}")),
        }
    }
}

/// Returns the first managed image with a tag of each registry, with the environment that runs it. Leaves out registries
/// whose images are not verified.
fn samples<'a>(settings: &Settings, read: &'a Read) -> BTreeMap<&'a str, (UnverifiedImage, &'a str)> {
    let mut samples = BTreeMap::new();
    for (environment, sites) in &read.environments {
        for (repository, places) in &sites.sites {
            let rule = rule_for(&settings.images, repository);
            let is_asked = rule.is_some_and(|rule| rule.verify == Verification::Exists);
            let tag: Option<&Tag> = places.iter().find_map(|place| place.version.tag());
            if let (true, Some(tag)) = (is_asked, tag) {
                let image = UnverifiedImage { repository: repository.clone(), tag: tag.clone() };
                samples.entry(repository.registry()).or_insert((image, environment.as_str()));
            }
        }
    }
    samples
}
