//! Checks that the source repositories of managed images can be read.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt as _};

use super::remotes::Read;
use super::report::Report;
use crate::policy::rule_for;
use crate::settings::Settings;
use crate::source_repo::Sources;
use tagrelay_image::Repository;

/// How many repositories are read at once: one rule may match hundreds on the same server.
const TOGETHER: usize = 8;

/// Lists the branches of each source repository of a managed image.
pub(super) async fn check(settings: &Settings, read: &Read, report: &mut Report) {
    let sources = Sources::new(settings.sources.clone());
    let sources = &sources;
    let asking = images(settings, read)
        .into_iter()
        .map(|(repository, source)| async move { (repository, sources.branches(source, repository).await) });
    let answers: Vec<_> = stream::iter(asking).buffered(TOGETHER).collect().await;
    let mut told = BTreeMap::new();
    for (repository, answer) in answers {
        match answer {
            Ok((url, branches)) => {
                told.entry(url).or_insert((repository, branches));
            }
            Err(error) => report.fault(&subject(repository), error.to_string()),
        }
    }
    for (url, (repository, branches)) in told {
        match branches.as_slice() {
            [] => report.warning(
                &subject(repository),
                format!("{url} has none of the `source_branches`: every build is refused"),
            ),
            [one] => report.ok(&subject(repository), format!("{url} can be read: branch {one}")),
            several => report.ok(&subject(repository), format!("{url} can be read: {} branches", several.len())),
        }
    }
}

fn subject(repository: &Repository) -> String {
    format!("source of {repository}")
}

/// Returns the managed images with a source repository, with the index of its settings.
fn images<'a>(settings: &Settings, read: &'a Read) -> BTreeMap<&'a Repository, usize> {
    let named = read.environments.values().flat_map(|sites| sites.sites.keys());
    named.filter_map(|repository| Some((repository, rule_for(&settings.images, repository)?.source?))).collect()
}
