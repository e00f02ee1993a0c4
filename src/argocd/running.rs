//! Which versions of a repository an application runs.

use tagrelay_image::{ImageReference, Repository, Version};

use super::{Application, LivePods};

/// The versions of one repository in the pods of an application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunningImages {
    /// Those of pods that run until they are replaced, each once.
    pub lasting: Vec<Version>,
    /// Those that only pods of jobs and ended pods have.
    pub ended: Vec<Version>,
}

impl RunningImages {
    /// Whether no pod has a version of the repository.
    pub fn is_empty(&self) -> bool {
        self.lasting.is_empty() && self.ended.is_empty()
    }
}

/// Returns the versions of a repository among images.
///
/// An image of another name counts as `version` if it has its digest: a mirror or an admission webhook may rename images.
pub fn running(images: &[String], repository: &Repository, version: Option<&Version>) -> Vec<Version> {
    let digest = version.and_then(Version::digest);
    let mut found: Vec<Version> = Vec::new();
    for image in images {
        let Ok(reference) = image.parse::<ImageReference>() else { continue };
        let is_renamed = digest.is_some() && reference.digest.as_ref() == digest;
        let named = if reference.repository == *repository {
            reference.version()
        } else {
            version.filter(|_| is_renamed).cloned()
        };
        if let Some(named) = named.filter(|named| !found.contains(named)) {
            found.push(named);
        }
    }
    found
}

impl Application {
    /// Returns the versions of a repository that it runs. `pods`: from its resource tree; `None`: all pods count as lasting.
    pub fn runs(&self, repository: &Repository, version: Option<&Version>, pods: Option<&LivePods>) -> RunningImages {
        let all = running(self.images.as_deref().unwrap_or_default(), repository, version);
        let Some(pods) = pods else { return RunningImages { lasting: all, ended: Vec::new() } };
        let lasting = running(&pods.lasting, repository, version);
        let ended = running(&pods.ended, repository, version);
        // The tree may be newer than the list of images, and it is whole.
        RunningImages { ended: ended.into_iter().filter(|one| !lasting.contains(one)).collect(), lasting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        format!("a{text}").parse::<ImageReference>().unwrap().version().unwrap()
    }

    #[test]
    fn images_are_compared_by_repository_and_by_digest() {
        let digest = format!("@sha256:{}", "1".repeat(64));
        let images = [
            "docker.io/uyou/web:1".to_owned(),
            "uyou/web:1".to_owned(),
            "mirror.test/uyou/web:9".to_owned(),
            format!("mirror.test/renamed{digest}"),
            "not an image".to_owned(),
        ];
        let repository: Repository = "docker.io/uyou/web".parse().unwrap();
        let wanted = version(&format!(":2{digest}"));
        assert_eq!(running(&images, &repository, None), [version(":1")]);
        assert_eq!(running(&images, &repository, Some(&wanted)), [version(":1"), wanted]);
    }
}
