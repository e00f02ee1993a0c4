//! Huawei Cloud SWR, Enterprise Edition. Its format is not documented; Harbor 2's is assumed, because SWR has Harbor's API
//! (<https://support.huaweicloud.com/intl/en-us/api-swr/swr_03_0901.html>).

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
