//! The registry client and the embedded registry.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod cloud;
mod confirm;
mod docker;
mod docker_config;
mod embedded;
mod tags;

use tagrelay::registry::UnverifiedImage;
use tagrelay_image::Repository;

fn image(host: &str, path: &str, tag: &str) -> UnverifiedImage {
    UnverifiedImage { repository: Repository::new(host, path).unwrap(), tag: tag.parse().unwrap() }
}
