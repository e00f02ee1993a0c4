use super::problem::Problem;
use tagrelay_image::{Digest, Repository, Tag};

/// The target of a path below `/v2/`. Repository names may contain slashes, so the end of the path decides.
pub(crate) enum Target {
    Manifest { repository: String, reference: Reference },
    Blob { repository: String, digest: Digest },
    Uploads { repository: String },
    Upload { repository: String, id: String },
    Tags { repository: String },
}

/// The reference to a manifest.
pub(crate) enum Reference {
    Tag(Tag),
    Digest(Digest),
}

impl Target {
    pub(crate) fn parse(path: &str) -> Result<Self, Problem> {
        let unknown = || Problem::unsupported(format!("there is nothing at /v2/{path}"));
        let (before, last) = path.rsplit_once('/').ok_or_else(unknown)?;
        let (name, kind) = before.rsplit_once('/').ok_or_else(unknown)?;
        Ok(match (kind, last) {
            ("manifests", reference) => {
                Self::Manifest { repository: name_of(name)?, reference: reference_of(reference)? }
            }
            ("tags", "list") => Self::Tags { repository: name_of(name)? },
            ("uploads", id) => {
                let (name, blobs) = name.rsplit_once('/').ok_or_else(unknown)?;
                match (blobs, id) {
                    ("blobs", "") => Self::Uploads { repository: name_of(name)? },
                    ("blobs", id) => Self::Upload { repository: name_of(name)?, id: id.to_owned() },
                    _ => return Err(unknown()),
                }
            }
            // Clients often omit the trailing slash of `/blobs/uploads/`.
            ("blobs", "uploads") => Self::Uploads { repository: name_of(name)? },
            ("blobs", digest) => Self::Blob { repository: name_of(name)?, digest: digest_of(digest)? },
            _ => return Err(unknown()),
        })
    }
}

fn name_of(text: &str) -> Result<String, Problem> {
    // Any host but Docker Hub's, which would add `library/`.
    let repository = Repository::new("localhost", text).map_err(|error| Problem::name_invalid(error.to_string()))?;
    Ok(repository.path().to_owned())
}

fn reference_of(text: &str) -> Result<Reference, Problem> {
    if text.contains(':') {
        return digest_of(text).map(Reference::Digest);
    }
    text.parse()
        .map(Reference::Tag)
        .map_err(|error: tagrelay_image::InvalidTag| Problem::tag_invalid(error.to_string()))
}

pub(crate) fn digest_of(text: &str) -> Result<Digest, Problem> {
    text.parse().map_err(|error: tagrelay_image::InvalidDigest| Problem::digest_invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> String {
        match Target::parse(path) {
            Ok(Target::Manifest { repository, reference: Reference::Tag(tag) }) => format!("{repository} tag {tag}"),
            Ok(Target::Manifest { repository, reference: Reference::Digest(digest) }) => {
                format!("{repository} manifest {}", digest.short())
            }
            Ok(Target::Blob { repository, digest }) => format!("{repository} blob {}", digest.short()),
            Ok(Target::Uploads { repository }) => format!("{repository} uploads"),
            Ok(Target::Upload { repository, id }) => format!("{repository} upload {id}"),
            Ok(Target::Tags { repository }) => format!("{repository} tags"),
            Err(_) => "nothing".to_owned(),
        }
    }

    #[test]
    fn end_of_a_path_decides() {
        let digest = Digest::of(b"");
        for (path, expected) in [
            ("a/manifests/1.0", "a tag 1.0".to_owned()),
            ("a/b/blobs/manifests/latest", "a/b/blobs tag latest".to_owned()),
            (&format!("a/manifests/{digest}"), format!("a manifest {}", digest.short())),
            (&format!("a/b/c/blobs/{digest}"), format!("a/b/c blob {}", digest.short())),
            ("a/b/blobs/uploads/", "a/b uploads".to_owned()),
            ("a/b/blobs/uploads", "a/b uploads".to_owned()),
            ("a/b/blobs/uploads/01J", "a/b upload 01J".to_owned()),
            ("a/b/tags/list", "a/b tags".to_owned()),
        ] {
            assert_eq!(parsed(path), expected);
        }
    }

    #[test]
    fn other_paths_are_unsupported() {
        for path in [
            "",
            "a",
            "_catalog",
            "a/tags",
            "manifests/1.0",
            "A/manifests/1",
            "a/../b/tags/list",
            "a/blobs/x",
            "a/manifests/.x",
        ] {
            assert_eq!(parsed(path), "nothing", "{path}");
        }
    }
}
