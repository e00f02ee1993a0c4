//! Tencent Container Registry, Enterprise edition: the format of Harbor 1
//! (<https://cloud.tencent.com/document/product/1051/37254>), with the headers that the trigger is given.

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

/// The body that a trigger sends for a push.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    harbor::sample_of("pushImage", push)
}
