//! Reads the build time that an image states.

use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use super::body::read_at_most;
use super::failure::RegistryFailure;
use super::one::{MAX_MANIFEST_BYTES, Registry};
use crate::policy::compare::plausible_build_time;
use tagrelay_image::Digest;

/// Annotation and label of the build time (<https://github.com/opencontainers/image-spec/blob/v1.1.0/annotations.md>).
const CREATED: &str = "org.opencontainers.image.created";

/// Configs contain the image's history, usually some kilobytes.
const MAX_CONFIG_BYTES: usize = 8 << 20;

/// The result of looking for a build time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stated {
    /// The registry does not have the manifest.
    NoManifest,
    /// The registry does not have the config with this digest, which the manifest names.
    NoConfig(Digest),
    /// The image states no plausible time.
    NoTime,
    /// The image states this time.
    At(Timestamp),
}

impl Registry {
    /// Reads the build time of a digest. Takes one request if an annotation states it, two if the config does, and one
    /// more for an image of several platforms.
    pub(super) async fn built_at(
        &self,
        path: &str,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<Stated, RegistryFailure> {
        let manifest = match self.take_manifest(path, digest) {
            Some(body) => serde_json::from_slice(&body).unwrap_or_default(),
            None => match self.document(path, "manifests", digest.as_str(), MAX_MANIFEST_BYTES).await? {
                Some(manifest) => manifest,
                None => return Ok(Stated::NoManifest),
            },
        };
        let annotated = |document: &Value| time_at(document, "/annotations", now);
        if let Some(at) = annotated(&manifest) {
            return Ok(Stated::At(at));
        }
        let manifest = match first_image(&manifest) {
            None => manifest,
            Some(image) => {
                if let Some(at) = annotated(image) {
                    return Ok(Stated::At(at));
                }
                let Some(digest) = digest_of(image) else { return Ok(Stated::NoTime) };
                let Some(manifest) = self.document(path, "manifests", digest.as_str(), MAX_MANIFEST_BYTES).await?
                else {
                    return Ok(Stated::NoManifest);
                };
                manifest
            }
        };
        if let Some(at) = annotated(&manifest) {
            return Ok(Stated::At(at));
        }
        let Some(digest) = manifest.get("config").and_then(digest_of) else { return Ok(Stated::NoTime) };
        let Some(config) = self.document(path, "blobs", digest.as_str(), MAX_CONFIG_BYTES).await? else {
            return Ok(Stated::NoConfig(digest));
        };
        let labelled = time_at(&config, "/config/Labels", now);
        let created = || plausible(config.get("created"), now);
        Ok(labelled.or_else(created).map_or(Stated::NoTime, Stated::At))
    }

    /// Fetches a manifest or blob as JSON; `None`: it does not exist. A body that is not JSON is returned as `null`.
    async fn document(
        &self,
        path: &str,
        kind: &str,
        digest: &str,
        max: usize,
    ) -> Result<Option<Value>, RegistryFailure> {
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
        // An artifact of another kind may have a body that is not JSON. It states no time.
        Ok(Some(body.and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default()))
    }
}

/// Returns the first image of an index, skipping attestations; `None`: not an index, or an empty one.
fn first_image(manifest: &Value) -> Option<&Value> {
    let manifests = manifest.get("manifests")?.as_array()?;
    let is_image = |entry: &&Value| entry.pointer("/platform/architecture").and_then(Value::as_str) != Some("unknown");
    manifests.iter().find(is_image)
}

fn digest_of(descriptor: &Value) -> Option<Digest> {
    descriptor.get("digest")?.as_str()?.parse().ok()
}

fn time_at(document: &Value, pointer: &str, now: Timestamp) -> Option<Timestamp> {
    plausible(document.pointer(pointer)?.get(CREATED), now)
}

fn plausible(value: Option<&Value>, now: Timestamp) -> Option<Timestamp> {
    plausible_build_time(value?.as_str()?.trim().parse().ok()?, now)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn attestations_are_skipped() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let index = json!({"manifests": [
            {"digest": "sha256:1", "platform": {"architecture": "unknown", "os": "unknown"}},
            {"digest": digest, "platform": {"architecture": "amd64", "os": "linux"}},
        ]});
        assert_eq!(digest_of(first_image(&index).unwrap()).unwrap().as_str(), digest);
        assert!(first_image(&json!({"config": {}})).is_none());
        assert!(first_image(&json!({"manifests": []})).is_none());
    }

    #[test]
    fn only_plausible_times_are_read() {
        let now = "2026-11-23T08:00:00Z".parse().unwrap();
        let read = |text: &str| time_at(&json!({"annotations": {CREATED: text}}), "/annotations", now);
        assert_eq!(read("2026-11-23T08:15:00.5+01:00").unwrap().to_string(), "2026-11-23T07:15:00.5Z");
        for text in ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "today", "", "2027-01-01T00:00:00Z"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(time_at(&json!({}), "/annotations", now), None);
    }
}
