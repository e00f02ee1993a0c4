//! Tagrelay relays image tags from a container registry to the Git repository that Argo CD watches.
//!
//! The rooms. Each uses the crates, `telemetry` and rooms above it; `docs/architecture.md` has the picture.
//!
//! | room | takes -> gives |
//! |---|---|
//! | [`image`] | text -> repositories, tags, digests, references. Pure |
//! | [`manifest`] | YAML bytes -> sites; sites and versions -> new bytes and changes, with proof. Pure |
//! | [`secret`] | a place named in the settings -> a secret that is never printed |
//! | [`git`] | Git over the wire and as objects: fetch, push, mirror, history, signatures |
//! | [`webhook`] | authenticated request -> push events |
//! | [`clock`] | the current time |
//! | [`policy`] | tag rules, the order of two versions, calendars. Pure |
//! | [`access`] | API tokens, permissions -> may this token do that. Pure |
//! | [`settings`] | `tagrelay.toml` -> typed settings for each room |
//! | `api` | the wire types of the HTTP API, for `http` and `cli` |
//! | [`registry`] | unverified image -> verified image |
//! | [`source_repo`] | two commits -> the newer one |
//! | [`config_repo`] | wanted versions -> commit -> pushed branch |
//! | [`argocd`] | commit -> refreshed applications, and their rollout |
//! | [`store`] | durable events, updates, promotions, holds, history |
//! | [`relay`] | the pipeline: intake, writer, follow-up |
//! | [`http`] | routes: webhooks, API, operations |
//! | [`server`] | puts the daemon together |
//! | [`cli`] | commands |
//! | [`telemetry`] | logs, metrics, traces |

// The tests see the inside of the daemon; nothing else depends on it.
#![allow(missing_docs)]

pub mod access;
mod api;
pub mod argocd;
pub mod cli;
pub mod clock;
pub mod config_repo;
pub mod http;
pub mod policy;
pub mod registry;
pub mod relay;
pub mod server;
pub mod settings;
pub mod source_repo;
pub mod store;
pub mod telemetry;

pub use tagrelay_git as git;
pub use tagrelay_image as image;
pub use tagrelay_manifest as manifest;
pub use tagrelay_secret as secret;
pub use tagrelay_webhook as webhook;
