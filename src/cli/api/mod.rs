//! Shared by the commands that call the API: the client, and waiting for promotions and rollbacks.

mod client;
mod context;
mod follow;

pub(super) use client::{Answer, Api, ApiError, ServerOptions};
pub(super) use context::select_context;
pub(super) use follow::{FollowOptions, follow, render as render_request, state_style, state_word};
