//! When an image was built, as it says itself.

use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use super::body::read_at_most;
use super::one::{MAX_MANIFEST_BYTES, Registry};
use super::setback::Setback;
use crate::image::Digest;
use crate::policy::compare::plausible_build_time;

/// The annotation and the label (<https://github.com/opencontainers/image-spec/blob/v1.1.0/annotations.md>).
const CREATED: &str = "org.opencontainers.image.created";

/// Configs hold the history of the image; this is far above what anybody has seen.
const MAX_CONFIG_BYTES: usize = 8 << 20;

/// What an image says about its making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Saying {
    /// The registry does not have it any more.
    NotThere,
    /// The registry has its manifest, and not the config that the manifest names: nobody can pull it.
    Incomplete(Digest),
    /// It says nothing that could be true, and never will: a digest names its content.
    Nothing,
    At(Timestamp),
}

impl Registry {
    /// Returns when the image of a digest was built: one request where an annotation says so, two where its config
    /// does, one more for an image of several platforms.
    pub(super) async fn built_at(&self, path: &str, digest: &Digest, now: Timestamp) -> Result<Saying, Setback> {
        let Some(manifest) = self.document(path, "manifests", digest.as_str(), MAX_MANIFEST_BYTES).await? else {
            return Ok(Saying::NotThere);
        };
        let annotated = |document: &Value| time_at(document, "/annotations", now);
        if let Some(at) = annotated(&manifest) {
            return Ok(Saying::At(at));
        }
        let manifest = match first_image(&manifest) {
            None => manifest,
            Some(image) => {
                if let Some(at) = annotated(image) {
                    return Ok(Saying::At(at));
                }
                let Some(digest) = digest_of(image) else { return Ok(Saying::Nothing) };
                let Some(manifest) = self.document(path, "manifests", digest.as_str(), MAX_MANIFEST_BYTES).await?
                else {
                    return Ok(Saying::NotThere);
                };
                manifest
            }
        };
        if let Some(at) = annotated(&manifest) {
            return Ok(Saying::At(at));
        }
        let Some(digest) = manifest.get("config").and_then(digest_of) else { return Ok(Saying::Nothing) };
        let Some(config) = self.document(path, "blobs", digest.as_str(), MAX_CONFIG_BYTES).await? else {
            return Ok(Saying::Incomplete(digest));
        };
        let labelled = time_at(&config, "/config/Labels", now);
        let created = || plausible(config.get("created"), now);
        Ok(labelled.or_else(created).map_or(Saying::Nothing, Saying::At))
    }

    /// Returns a JSON document of the registry, or `None` when it is not there.
    async fn document(&self, path: &str, kind: &str, digest: &str, max: usize) -> Result<Option<Value>, Setback> {
        let place = format!("{path}/{kind}/{digest}");
        let response = self.ask(Method::GET, path, &place).await?;
        let status = response.status();
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(match self.storage_behind(&response) {
                Some(storage) => Setback::not_now(format!(
                    "{storage}, where registry {} keeps its blobs, answered {status} when asked for {digest}: it is \
                     asked again; check that it can be reached from here if this lasts",
                    self.host()
                )),
                None => self.unexpected(status, response.headers(), &place),
            });
        }
        let body = read_at_most(response, max).await.map_err(|error| self.unanswered(error))?;
        // What is no JSON says nothing, whatever else it is: an artifact that only looks like an image.
        Ok(Some(body.and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default()))
    }
}

/// Returns the first image of an index that is no attestation; `None` for what is no index.
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
    fn attestations_are_no_images() {
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
    fn only_times_that_can_be_true_are_read() {
        let now = "2026-11-23T08:00:00Z".parse().unwrap();
        let read = |text: &str| time_at(&json!({"annotations": {CREATED: text}}), "/annotations", now);
        assert_eq!(read("2026-11-23T08:15:00.5+01:00").unwrap().to_string(), "2026-11-23T07:15:00.5Z");
        for text in ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "today", "", "2027-01-01T00:00:00Z"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(time_at(&json!({}), "/annotations", now), None);
    }
}
