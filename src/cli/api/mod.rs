//! Shared by the commands that call the API: the client, and waiting for promotions and rollbacks.

mod client;
mod order;

pub(super) use client::{Answer, Api, ServerOptions};
pub(super) use order::{FollowOptions, follow, state_style};
