//! Tagrelay relays image tags from a container registry to the Git repository that Argo CD watches.
//!
//! The rooms, in the order in which an event passes through them (`docs/architecture.md` has a picture):
//!
//! | room | takes -> gives |
//! |---|---|
//! | [`image`] | text -> repositories, tags, digests, references. Pure |
//! | [`manifest`] | YAML bytes -> sites; sites and versions -> new bytes and changes, with proof. Pure |
//! | [`policy`] | tag rules, the order of two builds, freeze windows. Pure |
//! | [`secret`] | a place named in the settings -> a secret that no log can show |
//! | [`clock`] | the current time |
//! | [`settings`] | `tagrelay.toml` -> typed settings for each room |
//! | [`webhook`] | authenticated request -> push events |
//! | [`registry`] | unverified image -> verified image |
//! | `tagrelay_git` | Git over the wire and as objects |
//! | [`config_repo`] | versions wanted -> commit -> pushed branch |
//! | [`source_repo`] | two commits -> which of them is the newer one |
//! | [`argocd`] | commit -> applications refreshed, rollouts observed |
//! | [`store`] | durable events, updates, promotions, holds, history |
//! | [`relay`] | the pipeline that joins them: intake, writer |
//! | `api` | the wire types of the HTTP API, for `http` and `cli` |
//! | [`telemetry`] | logs and metrics |
//! | [`http`] | routes: webhooks, API, operations |
//! | [`cli`] | commands |

// The tests see the inside of the daemon; nothing else depends on it.
#![allow(missing_docs)]

mod api;
pub mod argocd;
pub mod cli;
pub mod clock;
pub mod config_repo;
pub mod http;
pub mod policy;
pub mod registry;
pub mod relay;
pub mod settings;
pub mod source_repo;
pub mod store;
pub mod telemetry;

pub use tagrelay_image as image;
pub use tagrelay_manifest as manifest;
pub use tagrelay_secret as secret;
pub use tagrelay_webhook as webhook;
