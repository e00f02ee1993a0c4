//! Authenticated webhook request -> push events; one file per sender.
//!
//! [`Receiver::receive`] checks the credential over the raw bytes of the body, in constant time, before anything is
//! parsed. Then the sender's own file turns the body into [`PushEvent`]s and into [`Ignored`] entries: whatever is
//! not the push of a tagged image is named and explained, a body that makes no sense included, because a sender
//! that is told 4xx for an event repeats it for ever (Distribution) or switches the webhook off (Quay).
//!
//! A push event is a hint. Half of the senders tell no digest and several can do no better than a token in the URL,
//! so nothing here is believed before the registry has confirmed it.
//!
//! # Adding a sender
//!
//! One file in `senders/` with its `Sender`, one row in the table of `senders/mod.rs`, and its
//! sample requests below `tests/fixtures/webhooks/`. The table gives [`Kind`], its name in the settings, and the
//! words for the documentation.
//!
//! # What each sender shows
//!
//! Any one of the forms suffices. What is signed is never accepted unsigned, and a signature that is present and wrong
//! is not made good by a token. HMAC-SHA1 stands only where the sender can do no better. A token in the URL is for
//! senders that can do nothing else; access logs must leave the query out.
//!
//! | `kind` | sender | registry's host | credential |
//! |---|---|---|---|
//! | `docker-hub` | Docker Hub | docker.io | `?token=` with the secret in the URL |
//! | `harbor` | Harbor | in the body | `Authorization` with the secret as it is, as `Bearer` or as the `Basic` password |
//! | `distribution` | Distribution | in the body | `Authorization` with the secret as it is, as `Bearer` or as the `Basic` password, or the secret in a header of your choice whose name begins with `X-`, or `?token=` with the secret in the URL |
//! | `ghcr` | GitHub | ghcr.io | HMAC-SHA256 of the body, keyed with the secret, in `X-Hub-Signature-256: sha256=<hex>` |
//! | `quay` | Quay | in the body | `?token=` with the secret in the URL |
//! | `acr` | Azure Container Registry | in the body | `Authorization` with the secret as it is, as `Bearer` or as the `Basic` password, or the secret in a header of your choice whose name begins with `X-`, or `?token=` with the secret in the URL, or an OpenID Connect token, where one is configured |
//! | `ecr` | AWS ECR | in the body | the secret in a header of your choice whose name begins with `X-`, or `Authorization` with the secret as it is, as `Bearer` or as the `Basic` password, or `?token=` with the secret in the URL |
//! | `gar` | Google Artifact Registry | in the body | `?token=` with the secret in the URL, or an OpenID Connect token, where one is configured |
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
//! | `generic` | a CI job | in the body | HMAC-SHA256 of the body, keyed with the secret, in `X-Tagrelay-Signature: sha256=<hex>`, or `Authorization: Bearer` with the secret |
//! | `git-github` | GitHub's repositories | none | HMAC-SHA256 of the body, keyed with the secret, in `X-Hub-Signature-256: sha256=<hex>` |
//! | `git-gitlab` | GitLab's repositories | none | the secret in `X-Gitlab-Token` |
//! | `git-gitea` | Gitea's or Forgejo's repositories | none | HMAC-SHA256 of the body, keyed with the secret, in `X-Gitea-Signature: <hex>`, or HMAC-SHA256 of the body, keyed with the secret, in `X-Hub-Signature-256: sha256=<hex>` |
//!
//! Those whose name begins with `git-` tell of commits in a config repository: a [`MovedBranch`] and no push event.
//!
//! # Which registry
//!
//! Where the receiver's `registry` is set, it is the host of every image, whatever the body says: a body names the
//! host that the *pushing client* used (Distribution) or an address that the sender believes to have (Artifactory,
//! Gitea), and the cluster may pull by another name. Otherwise the body's host counts, and for senders whose bodies
//! name none the default of the kind ([`Kind::default_registry`]) or, without one, `registry` must be set
//! ([`Kind::needs_registry`]).
//!
//! # What is passed on although it is no deployable image
//!
//! Signatures and attestations (`sha256-<hex>`, `….sig`, `….att`, `….sbom`) are tags like any other to every sender,
//! so they become events here, and the tag rules of the policy refuse them with a reason that a person can look up.
//! The same goes for charts where the sender does not mark them.

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
