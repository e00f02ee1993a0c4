//! The demo's config repository: the example, with its images moved to the demo's registry.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use git2::build::TreeUpdateBuilder;
use git2::{FileMode, RepositoryInitOptions, Signature};

use super::example::FILES;
use tagrelay_image::{Repository, Tag};

/// The branch of the config repository.
pub(super) const BRANCH: &str = "main";

/// The registry of the example's images, replaced by the demo's.
const PUBLIC: &str = "docker.io/uyou/";

/// The content of the config repository.
pub(super) struct Platform {
    /// The first commit.
    pub(super) commit: String,
    /// The number of files.
    pub(super) files: usize,
    /// The images in its manifests that are in the demo's registry.
    pub(super) images: BTreeSet<(Repository, Tag)>,
}

/// Creates a bare repository at `path` with the example in one commit and its images in the registry `host`.
pub(super) fn create(path: &Path, host: &str) -> anyhow::Result<Platform> {
    let mut images = BTreeSet::new();
    for (file, text) in files(host) {
        images.extend(images_of(file, &text, host)?);
    }
    let commit = commit_all(path, host).with_context(|| format!("{} cannot be created", path.display()))?;
    Ok(Platform { commit, files: FILES.len(), images })
}

fn files(host: &str) -> impl Iterator<Item = (&'static str, String)> {
    FILES.into_iter().map(move |(path, text)| (path, text.replace(PUBLIC, &format!("{host}/uyou/"))))
}

fn images_of(path: &str, text: &str, host: &str) -> anyhow::Result<Vec<(Repository, Tag)>> {
    if !tagrelay_manifest::is_manifest_path(path) {
        return Ok(Vec::new());
    }
    let sites = tagrelay_manifest::scan(path, text.as_bytes()).with_context(|| format!("{path} of the example"))?;
    let ours = sites.into_iter().filter(|site| site.repository.registry() == host);
    Ok(ours.filter_map(|site| Some((site.repository, site.version.tag()?.clone()))).collect())
}

fn commit_all(path: &Path, host: &str) -> Result<String, git2::Error> {
    let repository = git2::Repository::init_opts(
        path,
        RepositoryInitOptions::new().bare(true).external_template(false).initial_head(BRANCH),
    )?;
    let mut update = TreeUpdateBuilder::new();
    for (path, text) in files(host) {
        update.upsert(path, repository.blob(text.as_bytes())?, FileMode::Blob);
    }
    let empty = repository.find_tree(repository.treebuilder(None)?.write()?)?;
    let tree = repository.find_tree(update.create_updated(&repository, &empty)?)?;
    let person = Signature::now("Platform team", "platform@example.com")?;
    let message = "Describe the environments\n";
    let reference = format!("refs/heads/{BRANCH}");
    Ok(repository.commit(Some(&reference), &person, &person, message, &tree, &[])?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_in_the_registry_of_the_demo() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("platform-config.git");
        let platform = create(&path, "127.0.0.1:5000").unwrap();
        let images: Vec<_> =
            platform.images.iter().map(|(repository, tag)| format!("{} {}", repository.path(), tag.short())).collect();
        let expected = [
            "uyou/order-service 483219d",
            "uyou/order-service 516de5f",
            "uyou/order-service dev-5dc0ff3",
            "uyou/user-service 690879c",
            "uyou/user-service dev-0b5e1d2",
        ];
        assert_eq!(images, expected);

        let repository = git2::Repository::open_bare(&path).unwrap();
        let tip = repository.find_reference("HEAD").unwrap().resolve().unwrap().peel_to_commit().unwrap();
        assert_eq!(tip.id().to_string(), platform.commit);
        let file = Path::new("environments/staging/kustomization.yaml");
        let blob = tip.tree().unwrap().get_path(file).unwrap().to_object(&repository).unwrap();
        let text = String::from_utf8(blob.as_blob().unwrap().content().to_vec()).unwrap();
        assert!(text.contains(
            "name: 127.0.0.1:5000/uyou/user-service\n    newTag: 690879c8fa1a8a8147d87324bf52cabf9f4fceee #"
        ));
        let other = files("127.0.0.1:5000").find(|(path, _)| *path == "base/data/postgres.yaml").unwrap();
        assert!(other.1.contains("image: docker.io/library/postgres:"), "other images stay where they are");
    }
}
