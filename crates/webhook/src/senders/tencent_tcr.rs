//! Tencent Container Registry, Enterprise Edition: Harbor 1's format
//! (<https://cloud.tencent.com/document/product/1051/37254>), with the headers configured in the trigger.

use super::harbor;
use crate::credential::Credential;
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::Sender;

pub(super) const SENDER: Sender = Sender {
    name: "tencent-tcr",
    title: "Tencent Container Registry",
    credentials: &[Credential::Authorization, Credential::CustomHeader],
    events: "Push image",
    sample,
    ..harbor::SENDER
};

/// A sample body.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    harbor::sample_of("pushImage", push)
}
