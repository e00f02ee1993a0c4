//! Shared by the commands that call the API: the client, and waiting for promotions and rollbacks.

mod client;
mod follow;

pub(super) use client::{Answer, Api, ServerOptions};
pub(super) use follow::{FollowOptions, follow, state_style};
