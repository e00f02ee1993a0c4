//! Tencent Container Registry, Enterprise edition: the format of Harbor 1
//! (<https://cloud.tencent.com/document/product/1051/37254>), with the headers that the trigger is given.

use super::harbor;
use crate::webhook::sender::{Credential, Sender};

pub(super) const SENDER: Sender = Sender {
    name: "tencent-tcr",
    title: "Tencent Container Registry",
    credentials: &[Credential::Authorization, Credential::CustomHeader],
    ..harbor::SENDER
};
