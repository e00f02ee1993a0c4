//! Huawei Cloud SWR, Enterprise edition: taken for the format of Harbor 2, whose API it has
//! (<https://support.huaweicloud.com/intl/en-us/api-swr/swr_03_0901.html>). Its bodies are not documented.

use super::harbor;
use crate::credential::Credential;
use crate::sender::Sender;

pub(super) const SENDER: Sender = Sender {
    name: "huawei-swr",
    title: "Huawei SWR",
    credentials: &[Credential::Authorization, Credential::CustomHeader],
    events: "PUSH_ARTIFACT",
    ..harbor::SENDER
};
