//! Pushes a tiny but complete image through the registry API, like `docker build` and `docker push`.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{StatusCode, header};
use jiff::Timestamp;
use reqwest::{RequestBuilder, Response};
use serde_json::json;
use tagrelay_image::{Digest, Repository, Tag};
use url::Url;

const OCI_IMAGE_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const IMAGE_CONFIG_MEDIA_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const IMAGE_LAYER_MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image with one file in one layer.
#[derive(Debug, Clone)]
pub struct TinyImage {
    /// The label `org.opencontainers.image.revision`.
    pub revision: Option<String>,
    /// The build time in the config and in the label `org.opencontainers.image.created`.
    pub created: Timestamp,
    /// The content of the file. Another content gives another digest.
    pub text: String,
}

/// Pushes the image to `repository` as `tag` over plain HTTP, and returns its digest.
///
/// `credentials`: user name and password, sent as Basic authentication with every request.
///
/// # Errors
///
/// If the registry cannot be reached or does not follow the specification.
pub async fn push(
    repository: &Repository,
    tag: &Tag,
    image: &TinyImage,
    credentials: Option<(&str, &str)>,
) -> anyhow::Result<Digest> {
    let base = format!("http://{}/v2/{}/", repository.registry(), repository.path());
    let pusher = Pusher {
        client: crate::notify::client().context("Failed to make an HTTP client")?,
        base: Url::parse(&base).with_context(|| format!("{base} is not an address"))?,
        credentials,
    };
    let layer = tar_of_one_file("message.txt", image.text.as_bytes());
    let config = image.config(&Digest::of(&layer));
    let descriptor = |media_type: &str, blob: &Bytes| json!({ "mediaType": media_type, "digest": Digest::of(blob), "size": blob.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE_MEDIA_TYPE,
        "config": descriptor(IMAGE_CONFIG_MEDIA_TYPE, &config),
        "layers": [descriptor(IMAGE_LAYER_MEDIA_TYPE, &layer)],
    });
    pusher.push_blob(layer).await?;
    pusher.push_blob(config).await?;
    pusher.push_manifest(tag, manifest.to_string().into()).await
}

impl TinyImage {
    /// The config blob (<https://github.com/opencontainers/image-spec/blob/v1.1.0/config.md>).
    fn config(&self, layer: &Digest) -> Bytes {
        let mut labels = serde_json::Map::new();
        labels.insert("org.opencontainers.image.created".to_owned(), json!(self.created));
        if let Some(revision) = &self.revision {
            labels.insert("org.opencontainers.image.revision".to_owned(), json!(revision));
        }
        let config = json!({
            "created": self.created,
            "architecture": "amd64",
            "os": "linux",
            "config": { "Cmd": ["/message.txt"], "Labels": labels },
            "rootfs": { "type": "layers", "diff_ids": [layer] },
            "history": [{ "created": self.created, "created_by": "tagrelay" }],
        });
        config.to_string().into()
    }
}

struct Pusher<'a> {
    client: reqwest::Client,
    base: Url,
    credentials: Option<(&'a str, &'a str)>,
}

impl Pusher<'_> {
    async fn push_blob(&self, blob: Bytes) -> anyhow::Result<()> {
        let digest = Digest::of(&blob);
        let there = self.base.join(&format!("blobs/{digest}"))?;
        if self.send(self.client.head(there)).await?.status() == StatusCode::OK {
            return Ok(());
        }
        let uploads = self.base.join("blobs/uploads/")?;
        let begun = self.send(self.client.post(uploads.clone()).header(header::CONTENT_LENGTH, 0)).await?;
        let begun = expect(begun, StatusCode::ACCEPTED, "beginning an upload").await?;
        let location = begun.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
        let location = location.context("The registry began an upload without a location")?;
        // The location may be relative and may have a query.
        let mut location = uploads.join(location).with_context(|| format!("{location} is not an address"))?;
        location.query_pairs_mut().append_pair("digest", digest.as_str());
        let request = self.client.put(location).header(header::CONTENT_TYPE, "application/octet-stream").body(blob);
        expect(self.send(request).await?, StatusCode::CREATED, "uploading a blob").await?;
        Ok(())
    }

    async fn push_manifest(&self, tag: &Tag, manifest: Bytes) -> anyhow::Result<Digest> {
        let digest = Digest::of(&manifest);
        let place = self.base.join(&format!("manifests/{tag}"))?;
        let request = self.client.put(place).header(header::CONTENT_TYPE, OCI_IMAGE_MEDIA_TYPE).body(manifest);
        let response = expect(self.send(request).await?, StatusCode::CREATED, "pushing the manifest").await?;
        let said = response.headers().get("docker-content-digest").and_then(|said| said.to_str().ok());
        match said {
            Some(said) if said != digest.as_str() => {
                bail!("The registry says that the manifest has the digest {said}, and it is {digest}")
            }
            _ => Ok(digest),
        }
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let request = match self.credentials {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        request.send().await.with_context(|| format!("The registry at {} cannot be reached", self.base))
    }
}

async fn expect(response: Response, status: StatusCode, what: &str) -> anyhow::Result<Response> {
    if response.status() == status {
        return Ok(response);
    }
    let answered = response.status();
    let body: String = response.text().await.unwrap_or_default().chars().take(500).collect();
    bail!("The registry answered {answered} to {what}, where {status} was expected: {body}")
}

/// Returns a tar archive with one file (<https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html>, ustar). The same
/// input gives the same bytes.
fn tar_of_one_file(name: &str, content: &[u8]) -> Bytes {
    const BLOCK: usize = 512;
    let mut header = [0u8; BLOCK];
    let mut put = |place: usize, field: &[u8]| header[place..place + field.len()].copy_from_slice(field);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"00000000000\0");
    // The checksum is computed with spaces in its own field.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let checksum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{checksum:06o}\0 ").as_bytes());

    let mut archive = header.to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    archive.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_is_a_valid_tar_archive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layer.tar");
        std::fs::write(&path, tar_of_one_file("message.txt", b"hello\n")).unwrap();
        let tar = std::process::Command::new("tar").arg("-xOf").arg(&path).output().unwrap();
        assert!(tar.status.success() && tar.stderr.is_empty(), "{}", String::from_utf8_lossy(&tar.stderr));
        assert_eq!(tar.stdout, b"hello\n");
    }
}
