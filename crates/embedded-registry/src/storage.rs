use std::collections::{BTreeMap, HashMap};

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use sha2::Digest as _;

use super::MAX_BLOB_BYTES;
use super::problem::Problem;
use tagrelay_image::{Digest, Tag};

/// Limit of all stored bytes, including uploads.
const MAX_TOTAL_BYTES: usize = 512 << 20;

/// Limit of unfinished uploads.
const MAX_UPLOADS: usize = 256;

/// The content of the registry.
#[derive(Default)]
pub(crate) struct Storage {
    repositories: HashMap<String, Content>,
    uploads: HashMap<String, Upload>,
    total_bytes: usize,
}

#[derive(Default)]
struct Content {
    blobs: HashMap<Digest, Bytes>,
    manifests: HashMap<Digest, Manifest>,
    tags: BTreeMap<Tag, Digest>,
}

/// A stored manifest.
#[derive(Clone)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    pub(crate) bytes: Bytes,
}

struct Upload {
    repository: String,
    data: BytesMut,
}

/// The digests that a manifest or index refers to.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct References {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
}

impl Storage {
    pub(crate) fn blob(&self, repository: &str, digest: &Digest) -> Result<Bytes, Problem> {
        let content = self.repositories.get(repository).ok_or_else(|| Problem::name_unknown(repository))?;
        content.blobs.get(digest).cloned().ok_or_else(|| Problem::blob_unknown(digest.as_str()))
    }

    /// Starts an upload and returns its id.
    pub(crate) fn begin_upload(&mut self, repository: &str) -> Result<String, Problem> {
        if self.uploads.len() >= MAX_UPLOADS {
            return Err(Problem::too_many_uploads());
        }
        let id = new_id();
        self.uploads.insert(id.clone(), Upload { repository: repository.to_owned(), data: BytesMut::new() });
        Ok(id)
    }

    /// Appends to an upload and returns its length in bytes. `start`, if given, must be the previous length.
    pub(crate) fn append(
        &mut self,
        repository: &str,
        id: &str,
        start: Option<usize>,
        bytes: &[u8],
    ) -> Result<usize, Problem> {
        let upload = self.uploads.get_mut(id).filter(|upload| upload.repository == repository);
        let upload = upload.ok_or_else(|| Problem::upload_unknown(id))?;
        let length = upload.data.len();
        if start.is_some_and(|start| start != length) {
            return Err(Problem::upload_out_of_order(format!("the next chunk begins at byte {length}")));
        }
        if length + bytes.len() > MAX_BLOB_BYTES {
            return Err(Problem::too_large(MAX_BLOB_BYTES));
        }
        reserve(&mut self.total_bytes, bytes.len())?;
        upload.data.extend_from_slice(bytes);
        Ok(upload.data.len())
    }

    /// Ends an upload. It becomes the blob `digest` if its bytes have that hash; otherwise it is discarded.
    pub(crate) fn finish(&mut self, repository: &str, id: &str, digest: &Digest) -> Result<usize, Problem> {
        if self.uploads.get(id).is_none_or(|upload| upload.repository != repository) {
            return Err(Problem::upload_unknown(id));
        }
        let Some(Upload { data, .. }) = self.uploads.remove(id) else { return Err(Problem::upload_unknown(id)) };
        let length = data.len();
        if let Err(problem) = check_digest(digest, &data) {
            self.total_bytes -= length;
            return Err(problem);
        }
        let content = self.repositories.entry(repository.to_owned()).or_default();
        if content.blobs.insert(digest.clone(), data.freeze()).is_some() {
            self.total_bytes -= length;
        }
        Ok(length)
    }

    pub(crate) fn cancel(&mut self, repository: &str, id: &str) -> Result<(), Problem> {
        match self.uploads.get(id) {
            Some(upload) if upload.repository == repository => {
                self.total_bytes -= upload.data.len();
                self.uploads.remove(id);
                Ok(())
            }
            _ => Err(Problem::upload_unknown(id)),
        }
    }

    pub(crate) fn by_tag(&self, repository: &str, tag: &Tag) -> Result<(Digest, Manifest), Problem> {
        let content = self.repositories.get(repository).ok_or_else(|| Problem::name_unknown(repository))?;
        let digest = content.tags.get(tag).ok_or_else(|| Problem::manifest_unknown(tag.as_str()))?;
        self.by_digest(repository, digest)
    }

    pub(crate) fn by_digest(&self, repository: &str, digest: &Digest) -> Result<(Digest, Manifest), Problem> {
        let content = self.repositories.get(repository).ok_or_else(|| Problem::name_unknown(repository))?;
        let manifest = content.manifests.get(digest).ok_or_else(|| Problem::manifest_unknown(digest.as_str()))?;
        Ok((digest.clone(), manifest.clone()))
    }

    /// Stores a manifest, with `tag` if there is one, and returns its digest.
    ///
    /// Everything that it refers to must exist, and `expected`, if given, must be its digest.
    pub(crate) fn put_manifest(
        &mut self,
        repository: &str,
        tag: Option<Tag>,
        expected: Option<Digest>,
        manifest: Manifest,
    ) -> Result<Digest, Problem> {
        let references: References = serde_json::from_slice(&manifest.bytes)
            .map_err(|error| Problem::manifest_invalid(format!("the manifest cannot be read: {error}")))?;
        if references.schema_version != 2 {
            return Err(Problem::manifest_invalid("schemaVersion is not 2"));
        }
        if references.media_type.as_ref().is_some_and(|written| *written != manifest.media_type) {
            return Err(Problem::manifest_invalid("mediaType and Content-Type are not the same"));
        }
        let digest = match expected {
            Some(expected) => {
                check_digest(&expected, &manifest.bytes)?;
                expected
            }
            None => Digest::of(&manifest.bytes),
        };
        let content = self.repositories.get(repository);
        let has_blob = |digest: &Digest| content.is_some_and(|content| content.blobs.contains_key(digest));
        let has_manifest = |digest: &Digest| content.is_some_and(|content| content.manifests.contains_key(digest));
        let mut blobs = references.config.iter().chain(&references.layers);
        if let Some(missing) = blobs.find(|blob| !has_blob(&blob.digest)) {
            return Err(Problem::manifest_blob_unknown(missing.digest.as_str()));
        }
        if let Some(missing) = references.manifests.iter().find(|child| !has_manifest(&child.digest)) {
            return Err(Problem::manifest_blob_unknown(missing.digest.as_str()));
        }
        if !has_manifest(&digest) {
            reserve(&mut self.total_bytes, manifest.bytes.len())?;
        }
        let content = self.repositories.entry(repository.to_owned()).or_default();
        content.manifests.insert(digest.clone(), manifest);
        if let Some(tag) = tag {
            content.tags.insert(tag, digest.clone());
        }
        Ok(digest)
    }

    /// Returns up to `limit` tags after `last`, in order, and whether there are more.
    pub(crate) fn tags(&self, repository: &str, last: &str, limit: usize) -> Result<(Vec<Tag>, bool), Problem> {
        let content = self.repositories.get(repository).ok_or_else(|| Problem::name_unknown(repository))?;
        let mut rest = content.tags.keys().filter(|tag| tag.as_str() > last);
        let page = rest.by_ref().take(limit).cloned().collect();
        Ok((page, rest.next().is_some()))
    }
}

fn reserve(total_bytes: &mut usize, bytes: usize) -> Result<(), Problem> {
    if *total_bytes + bytes > MAX_TOTAL_BYTES {
        return Err(Problem::full(format!("the registry holds at most {MAX_TOTAL_BYTES} bytes")));
    }
    *total_bytes += bytes;
    Ok(())
}

fn check_digest(expected: &Digest, bytes: &[u8]) -> Result<(), Problem> {
    let actual = match expected.as_str().starts_with("sha512:") {
        true => format!("sha512:{}", hex::encode(sha2::Sha512::digest(bytes))),
        false => Digest::of(bytes).to_string(),
    };
    match actual == expected.as_str() {
        true => Ok(()),
        false => Err(Problem::digest_invalid(format!("the content has the digest {actual}, not {expected}"))),
    }
}

/// Returns an id in the form of a UUID, like Distribution's.
pub(crate) fn new_id() -> String {
    let digits = format!("{:032x}", ulid::Ulid::new().0);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
