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
//! One file in `senders/` with its [`Sender`](sender::Sender), one row in the table of `senders/mod.rs`, and its
//! sample requests below `tests/fixtures/webhooks/`. The table gives [`Kind`], its name in the settings, and the
//! words for the documentation.
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

mod authentication;
mod cloud_event;
mod delivery;
mod findings;
mod identity;
mod json;
mod receiver;
mod sender;
mod senders;
mod settings;
mod sns;
mod time;

pub use authentication::Unauthorized;
pub use delivery::{Delivery, Errand, Ignored, IgnoredClass, PushEvent, Reply};
pub use identity::{IdentityTokens, InvalidKeys, SigningKeys};
pub use receiver::{InvalidReceiver, Receiver, Request};
pub use senders::{Kind, UnknownKind};
pub use settings::ReceiverSettings;
pub use sns::InvalidCertificate;
