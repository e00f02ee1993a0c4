//! Forgejo: as Gitea, with headers of its own beside Gitea's
//! (<https://forgejo.org/docs/latest/user/webhooks/>).

use super::gitea;
use crate::webhook::sender::{Credential, Hash, Sender, Signed};

pub(super) const SENDER: Sender = Sender {
    name: "forgejo",
    title: "Forgejo",
    credentials: &[
        Credential::Hmac { header: "X-Forgejo-Signature", prefix: "", hash: Hash::Sha256, signed: Signed::Payload },
        gitea::OWN_SIGNATURE,
        gitea::HUB_SIGNATURE,
    ],
    ..gitea::SENDER
};
