//! Turns webhook requests into push events: authentication, and one file per sender.
//!
//! [`Receiver::receive`] checks the credential over the raw body in constant time before anything is parsed. The sender's
//! file then turns the body into [`PushEvent`]s and [`Ignored`] entries. Anything that is not a push of a tag is listed with
//! a reason, including invalid bodies: after a 4xx, Distribution would retry forever and Quay would disable the webhook.
//!
//! A push event is only a hint. Half of the senders name no digest, and several support only a token in the URL, so the
//! registry must confirm every event.
//!
//! # Adding a sender
//!
//! Add one file in `senders/` with its `Sender`, one row in the table of `senders/mod.rs`, and sample requests in
//! `tests/fixtures/webhooks/`. The table defines [`Kind`], its name in the settings, and the words for the documentation.
//!
//! # Credentials of each sender
//!
//! Any one of the forms suffices. If a sender can sign, an unsigned request is refused, and a token never compensates for a
//! wrong signature. HMAC-SHA1 is only for senders that support nothing better. A token in the URL is for senders that
//! support nothing else; access logs must omit the query.
//!
//! | `kind` | sender | registry's host | credential |
//! |---|---|---|---|
//! | `docker-hub` | Docker Hub | docker.io | `?token=` with the secret in the URL |
//! | `harbor` | Harbor | in the body | `Authorization` with the secret as it is, as `Bearer` or as the `Basic` password |
//! | `distribution` | Distribution | in the body | `Authorization` with the secret as it is, as `Bearer` or as the `Basic` password, or the secret in a header of your choice whose name begins with `X-`, or `?token=` with the secret in the URL |
//! | `ghcr` | GitHub | ghcr.io | HMAC-SHA256 of the body, keyed with the secret, in `X-Hub-Signature-256: sha256=<hex>` |
//! | `quay` | Quay | in the body | `?token=` with the secret in the URL |
//! | `acr` | Azure Container Registry | in the body | `Authorization` with the secret as it is, as `Bearer` or as the `Basic` password, or the secret in a header of your choice whose name begins with `X-`, or `?token=` with the secret in the URL, or an OpenID Connect token, if one is configured |
//! | `ecr` | AWS ECR | in the body | the secret in a header of your choice whose name begins with `X-`, or `Authorization` with the secret as it is, as `Bearer` or as the `Basic` password, or `?token=` with the secret in the URL |
//! | `gar` | Google Artifact Registry | in the body | `?token=` with the secret in the URL, or an OpenID Connect token, if one is configured |
//! | `artifactory` | Artifactory | in the body | HMAC-SHA256 of the body, keyed with the secret, in `X-JFrog-Event-Auth: <hex>`, or the secret in `X-JFrog-Event-Auth` |
//! | `nexus` | Nexus Repository | `registry` | HMAC-SHA1 of the body, keyed with the secret, in `X-Nexus-Webhook-Signature: <hex>` |
//! | `gitea` | Gitea | in the body | HMAC-SHA256 of the body, keyed with the secret, in `X-Gitea-Signature: <hex>`, or HMAC-SHA256 of the body, keyed with the secret, in `X-Hub-Signature-256: sha256=<hex>` |
//! | `forgejo` | Forgejo | in the body | HMAC-SHA256 of the body, keyed with the secret, in `X-Forgejo-Signature: <hex>`, or HMAC-SHA256 of the body, keyed with the secret, in `X-Gitea-Signature: <hex>`, or HMAC-SHA256 of the body, keyed with the secret, in `X-Hub-Signature-256: sha256=<hex>` |
//! | `zot` | zot | `registry` | `Authorization` with the secret as it is, as `Bearer` or as the `Basic` password, or the secret in a header of your choice whose name begins with `X-` |
//! | `gitlab-registry` | GitLab's registry | in the body | `Authorization` with the secret as it is, as `Bearer` or as the `Basic` password, or the secret in a header of your choice whose name begins with `X-`, or `?token=` with the secret in the URL |
//! | `aliyun-acr` | Alibaba Cloud Container Registry | in the body | `?token=` with the secret in the URL |
//! | `tencent-tcr` | Tencent Container Registry | in the body | `Authorization` with the secret as it is, as `Bearer` or as the `Basic` password, or the secret in a header of your choice whose name begins with `X-` |
//! | `huawei-swr` | Huawei SWR | in the body | `Authorization` with the secret as it is, as `Bearer` or as the `Basic` password, or the secret in a header of your choice whose name begins with `X-` |
//! | `mirantis-msr` | Mirantis Secure Registry | in the body | `?token=` with the secret in the URL |
//! | `cloudevents` | a sender of CloudEvents | in the body | `Authorization` with the secret as it is, as `Bearer` or as the `Basic` password, or the secret in a header of your choice whose name begins with `X-`, or `?token=` with the secret in the URL, or `?access_token=` with the secret in the URL |
//! | `cdevents` | a sender of CDEvents | in the body | `Authorization` with the secret as it is, as `Bearer` or as the `Basic` password, or the secret in a header of your choice whose name begins with `X-`, or `?token=` with the secret in the URL, or `?access_token=` with the secret in the URL |
//! | `generic` | a CI job | in the body | HMAC-SHA256 of the body, keyed with the secret, in `X-Tagrelay-Signature: sha256=<hex>`, or `Authorization: Bearer` with the secret, or an OpenID Connect token, if one is configured |
//! | `git-github` | GitHub's repositories | none | HMAC-SHA256 of the body, keyed with the secret, in `X-Hub-Signature-256: sha256=<hex>` |
//! | `git-gitlab` | GitLab's repositories | none | the secret in `X-Gitlab-Token` |
//! | `git-gitea` | Gitea's or Forgejo's repositories | none | HMAC-SHA256 of the body, keyed with the secret, in `X-Gitea-Signature: <hex>`, or HMAC-SHA256 of the body, keyed with the secret, in `X-Hub-Signature-256: sha256=<hex>` |
//!
//! Senders whose name begins with `git-` announce commits in a config repository: a [`MovedBranch`] and no push event.
//!
//! # The registry's host
//!
//! The receiver's `registry` overrides the host in the body, which may be the name that the *pushing client* used
//! (Distribution) or the sender's own idea of its address (Artifactory, Gitea). Without `registry`, the body's host counts,
//! else the default of the kind ([`Kind::default_registry`]). If there is neither, `registry` is required
//! ([`Kind::needs_registry`]).
//!
//! # Tags that are not deployable images
//!
//! For senders, signatures and attestations (`sha256-<hex>`, `….sig`, `….att`, `….sbom`) are ordinary tags. They become
//! events here, and the tag rules refuse them with a reason. So do charts that a sender does not mark.

#![warn(unreachable_pub)]

mod authentication;
mod cloud_event;
mod credential;
mod delivery;
mod findings;
mod identity;
mod json;
mod receiver;
mod request;
mod sample;
mod sample_request;
mod sender;
mod senders;
mod settings;
mod sns;
mod time;

pub use authentication::Unauthorized;
pub use delivery::{Delivery, Errand, Ignored, IgnoredClass, MovedBranch, PushEvent, Reply};
pub use identity::{IdentityTokens, InvalidKeys, SigningKeys};
pub use receiver::{InvalidReceiver, Receiver};
pub use request::Request;
pub use sample::SamplePush;
pub use sample_request::{NoSample, SampleRequest};
pub use senders::{Kind, UnknownKind};
pub use settings::{DEFAULT_DUPLICATE_WINDOW, InvalidRateLimit, RateLimit, ReceiverSettings};
pub use sns::InvalidCertificate;
