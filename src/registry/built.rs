//! Reads the build time that an image states.

use http::{Method, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;

use super::body::read_at_most;
use super::failure::RegistryFailure;
use super::lenient::{List, Object, Text, Wanted};
use super::one::{MAX_MANIFEST_BYTES, Registry};
use crate::policy::compare::plausible_build_time;
use tagrelay_image::Digest;

/// Configs contain the image's history, usually some kilobytes.
const MAX_CONFIG_BYTES: usize = 4 << 20;

/// The result of looking for a build time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stated {
    /// The registry does not have the manifest.
    NoManifest,
    /// The registry does not have the config that the manifest names by this digest.
    NoConfig(Digest),
    /// The image states no plausible time.
    NoTime,
    /// The image states this time.
    At(Timestamp),
}

impl Registry {
    /// Reads the build time of a digest.
    ///
    /// Takes one request if an annotation states the time, two if the config does, and one more for an image of several platforms.
    pub(super) async fn built_at(
        &self,
        path: &str,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<Stated, RegistryFailure> {
        let manifest = match self.take_manifest(path, digest) {
            Some(body) => read(&body),
            None => match self.document(path, "manifests", digest.as_str(), MAX_MANIFEST_BYTES).await? {
                Some(manifest) => manifest,
                None => return Ok(Stated::NoManifest),
            },
        };
        if let Some(at) = manifest.annotated(now) {
            return Ok(Stated::At(at));
        }
        let manifest = match manifest.first_image() {
            None => manifest,
            Some(image) => {
                if let Some(at) = image.annotations.0.at(now) {
                    return Ok(Stated::At(at));
                }
                let Some(digest) = digest_of(&image.digest) else { return Ok(Stated::NoTime) };
                let Some(manifest) = self.document(path, "manifests", digest.as_str(), MAX_MANIFEST_BYTES).await?
                else {
                    return Ok(Stated::NoManifest);
                };
                manifest
            }
        };
        if let Some(at) = manifest.annotated(now) {
            return Ok(Stated::At(at));
        }
        let Some(digest) = digest_of(&manifest.config.0.digest) else { return Ok(Stated::NoTime) };
        let Some(config) = self.document(path, "blobs", digest.as_str(), MAX_CONFIG_BYTES).await? else {
            return Ok(Stated::NoConfig(digest));
        };
        let labelled = config.config.0.labels.0.at(now);
        let created = || plausible(&config.created, now);
        Ok(labelled.or_else(created).map_or(Stated::NoTime, Stated::At))
    }

    /// Fetches a manifest or blob; `None`: not found. A body that is too long or not JSON is an empty document.
    async fn document(
        &self,
        path: &str,
        kind: &str,
        digest: &str,
        max: usize,
    ) -> Result<Option<Document>, RegistryFailure> {
        let place = format!("{path}/{kind}/{digest}");
        let response = self.ask(Method::GET, path, &place).await?;
        let status = response.status();
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(match self.storage_behind(&response) {
                Some(storage) => RegistryFailure::not_now(format!(
                    "the blob storage {storage} of registry {} answered {status} for {digest}; retrying; if this \
                     lasts, check that Tagrelay can reach the storage",
                    self.host()
                )),
                None => self.unexpected(status, response.headers(), &place),
            });
        }
        let body = read_at_most(response, max).await.map_err(|error| self.no_answer(error))?;
        // An artifact of another kind may have a body that is not JSON. Such a body states no time.
        Ok(Some(body.map(|body| read(&body)).unwrap_or_default()))
    }
}

/// The members of a manifest, index or config that state a build time, or lead to one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    annotations: Object<Labels>,
    manifests: List<FirstImage>,
    config: Object<Config>,
    created: Text,
}

/// In a manifest the descriptor of the config, in a config the settings of the container.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    digest: Text,
    #[serde(rename = "Labels")]
    labels: Object<Labels>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Labels {
    #[serde(rename = "org.opencontainers.image.created")]
    created: Text,
}

/// The first image of an index, skipping attestations.
#[derive(Debug, Default)]
struct FirstImage(Option<Descriptor>);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Descriptor {
    digest: Text,
    platform: Object<Platform>,
    annotations: Object<Labels>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Platform {
    architecture: Text,
}

impl Wanted for FirstImage {
    type Element = Object<Descriptor>;

    fn add(&mut self, Object(descriptor): Object<Descriptor>) -> bool {
        let is_image = descriptor.platform.0.architecture.0.as_deref() != Some("unknown");
        if is_image {
            self.0 = Some(descriptor);
        }
        !is_image
    }
}

impl Document {
    fn annotated(&self, now: Timestamp) -> Option<Timestamp> {
        self.annotations.0.at(now)
    }

    /// Returns the first image; `None`: not an index, or an empty one.
    fn first_image(&self) -> Option<&Descriptor> {
        self.manifests.0.as_ref()?.0.as_ref()
    }
}

impl Labels {
    fn at(&self, now: Timestamp) -> Option<Timestamp> {
        plausible(&self.created, now)
    }
}

fn read(body: &[u8]) -> Document {
    serde_json::from_slice::<Object<Document>>(body).map(|Object(document)| document).unwrap_or_default()
}

fn digest_of(digest: &Text) -> Option<Digest> {
    digest.0.as_deref()?.parse().ok()
}

fn plausible(text: &Text, now: Timestamp) -> Option<Timestamp> {
    plausible_build_time(text.0.as_deref()?.trim().parse().ok()?, now)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The label and annotation of the build time.
    ///
    /// Source: <https://github.com/opencontainers/image-spec/blob/v1.1.0/annotations.md>.
    const CREATED: &str = "org.opencontainers.image.created";

    fn document(json: &serde_json::Value) -> Document {
        read(json.to_string().as_bytes())
    }

    #[test]
    fn attestations_are_skipped() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let index = document(&json!({"manifests": [
            {"digest": "sha256:1", "platform": {"architecture": "unknown", "os": "unknown"}},
            {"digest": digest, "platform": {"architecture": "amd64", "os": "linux"}},
            {"digest": "sha256:2", "platform": {"architecture": "arm64", "os": "linux"}},
        ]}));
        assert_eq!(digest_of(&index.first_image().unwrap().digest).unwrap().as_str(), digest);
        assert!(document(&json!({"config": {}})).first_image().is_none());
        assert!(document(&json!({"manifests": []})).first_image().is_none());
    }

    #[test]
    fn only_plausible_times_are_read() {
        let now = "2026-11-23T08:00:00Z".parse().unwrap();
        let read = |text: &str| document(&json!({"annotations": {CREATED: text}})).annotated(now);
        assert_eq!(read("2026-11-23T08:15:00.5+01:00").unwrap().to_string(), "2026-11-23T07:15:00.5Z");
        for text in ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "today", "", "2027-01-01T00:00:00Z"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(document(&json!({})).annotated(now), None);
    }

    #[test]
    fn config_states_its_time_by_label_or_member() {
        let now = "2026-11-23T08:00:00Z".parse().unwrap();
        let config = document(&json!({
            "created": "2026-11-22T00:00:00Z", "config": {"Labels": {CREATED: "2026-11-21T00:00:00Z"}}, "history": [{}, 1],
        }));
        assert_eq!(config.config.0.labels.0.at(now).unwrap().to_string(), "2026-11-21T00:00:00Z");
        assert_eq!(plausible(&config.created, now).unwrap().to_string(), "2026-11-22T00:00:00Z");
        assert!(read(b"<html></html>").first_image().is_none());
        assert!(read(b"[1]").first_image().is_none());
    }
}
