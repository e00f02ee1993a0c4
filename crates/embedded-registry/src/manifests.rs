use axum::body::Body;
use axum::response::Response;
use http::{Method, header};

use super::blobs::{content, created};
use super::notify::Pushed;
use super::problem::Problem;
use super::storage::Manifest;
use super::target::Reference;
use super::{Asked, MAX_MANIFEST_BYTES, Shared, read};

const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// `GET`, `HEAD` and `PUT` of a manifest by tag or digest.
pub(crate) async fn answer(
    shared: &Shared,
    asked: &Asked,
    repository: &str,
    reference: &Reference,
    body: Body,
) -> Result<Response, Problem> {
    match asked.method {
        Method::GET | Method::HEAD => {
            let storage = shared.storage();
            let (digest, manifest) = match reference {
                Reference::Tag(tag) => storage.by_tag(repository, tag)?,
                Reference::Digest(digest) => storage.by_digest(repository, digest)?,
            };
            Ok(content(asked, &manifest.media_type, &digest, manifest.bytes))
        }
        Method::PUT => {
            let bytes = read(body, MAX_MANIFEST_BYTES).await?;
            let media_type = asked.header(header::CONTENT_TYPE).unwrap_or_default().to_owned();
            if !MEDIA_TYPES.contains(&media_type.as_str()) {
                return Err(Problem::manifest_invalid(format!("`{media_type}` is not a supported type of manifest")));
            }
            let (tag, expected) = match reference {
                Reference::Tag(tag) => (Some(tag.clone()), None),
                Reference::Digest(digest) => (None, Some(digest.clone())),
            };
            let manifest = Manifest { media_type: media_type.clone(), bytes };
            let size = manifest.bytes.len();
            let digest = shared.storage().put_manifest(repository, tag.clone(), expected, manifest)?;
            let tag = tag.as_ref();
            let pushed = Pushed { media_type: &media_type, digest: &digest, size, repository, kind: "manifests", tag };
            shared.notify(asked, pushed);
            Ok(created(format!("/v2/{repository}/manifests/{digest}"), &digest))
        }
        _ => Err(Problem::method_not_allowed()),
    }
}
