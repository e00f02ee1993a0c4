//! Checks that the registries of managed images answer.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::remotes::Read;
use super::report::Report;
use crate::policy::{ImageRule, Verification, rule_for};
use crate::registry::{Confirmation, Registries, UnverifiedImage};
use crate::settings::Settings;
use tagrelay_image::Tag;

/// Verifies one image of each registry that an environment runs.
pub(super) async fn check(settings: &Settings, registries: &Registries, read: &Read, report: &mut Report) {
    let samples = samples(settings, read);
    for host in settings.registry_hosts().into_iter().filter(|host| !samples.contains_key(host)) {
        report.skipped(&format!("registry {host}"), skipped_because(settings, host));
    }
    let asking = samples.into_iter().map(|(registry, (image, environment))| async move {
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

/// Returns why no image of a registry is verified.
fn skipped_because(settings: &Settings, host: &str) -> &'static str {
    let of_host = |rule: &&ImageRule| rule.pattern.as_str().split('/').next() == Some(host);
    let mut rules = settings.images.iter().filter(of_host).peekable();
    if rules.peek().is_some() && rules.all(|rule| rule.verify != Verification::Exists) {
        "its [[image]] rules have `verify = { exists = false }`"
    } else {
        "no manifest that was read names a tag of a managed image there"
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
