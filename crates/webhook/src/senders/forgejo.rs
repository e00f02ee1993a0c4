//! Forgejo: like Gitea, with its own additional headers
//! (<https://forgejo.org/docs/latest/user/webhooks/>).

use super::gitea;
use crate::credential::{Credential, Hash, Signed};
use crate::sample::{SampleMessage, SamplePush};
use crate::sender::Sender;

pub(super) const SENDER: Sender = Sender {
    name: "forgejo",
    title: "Forgejo",
    credentials: &[
        Credential::Hmac { header: "X-Forgejo-Signature", prefix: "", hash: Hash::Sha256, signed: Signed::Payload },
        gitea::OWN_SIGNATURE,
        gitea::HUB_SIGNATURE,
    ],
    events: "Custom Events: Package",
    sample,
    ..gitea::SENDER
};

/// A sample event.
fn sample(push: &SamplePush) -> Result<SampleMessage, String> {
    let message = gitea::sample_of(push, "Forgejo")?;
    let message = message.header("x-forgejo-event", "package").header("x-forgejo-delivery", &push.id);
    Ok(message.header("x-gitea-event", "package").header("x-gitea-delivery", &push.id))
}
