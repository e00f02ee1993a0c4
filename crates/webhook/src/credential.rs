//! The ways in which a sender shows that it knows the secret.

/// A way in which a sender shows that it knows the secret.
///
/// Where a body can be signed, nothing else is accepted: [`Credential::Hmac`] comes alone, or with a token form
/// that the same sender has instead of the signature. A signature that is present and wrong is never made good by
/// a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential {
    /// A parameter of the URL's query: for senders that can neither sign nor add a header.
    Query(&'static str),
    /// `Authorization`, with the secret as the whole value, behind `Bearer `, or as the password of `Basic`.
    Authorization,
    /// `Authorization: Bearer` with the secret.
    Bearer,
    /// Any header whose name begins with `X-`, or `Api-Key`, with the secret as the whole value: for senders where
    /// the operator names the header.
    CustomHeader,
    /// This header, with the secret as the whole value.
    Header(&'static str),
    /// An OpenID Connect token in `Authorization: Bearer`, where the receiver is told what it must say. It is asked
    /// for beside the secret, not in its place.
    IdentityToken,
    /// A signature over the body, in hexadecimal digits.
    Hmac {
        /// The header that holds it.
        header: &'static str,
        /// What stands before the digits.
        prefix: &'static str,
        /// The hash function.
        hash: Hash,
        /// Which bytes are signed.
        signed: Signed,
    },
}

/// The hash function of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    /// HMAC-SHA1: only for senders that can do no better. As a MAC it is not known to be broken.
    Sha1,
    /// HMAC-SHA256.
    Sha256,
}

/// What a signature covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signed {
    /// The bytes of the body.
    Body,
    /// The bytes of the body, or those of the form field `payload` where the body is a form.
    Payload,
}

impl std::fmt::Display for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Query(parameter) => write!(f, "`?{parameter}=` with the secret in the URL"),
            Self::Authorization => {
                f.write_str("`Authorization` with the secret as it is, as `Bearer` or as the `Basic` password")
            }
            Self::Bearer => f.write_str("`Authorization: Bearer` with the secret"),
            Self::CustomHeader => f.write_str("the secret in a header of your choice whose name begins with `X-`"),
            Self::IdentityToken => f.write_str("an OpenID Connect token, where one is configured"),
            Self::Header(header) => write!(f, "the secret in `{header}`"),
            Self::Hmac { header, prefix, hash, .. } => {
                let hash = match hash {
                    Hash::Sha1 => "SHA1",
                    Hash::Sha256 => "SHA256",
                };
                write!(f, "HMAC-{hash} of the body, keyed with the secret, in `{header}: {prefix}<hex>`")
            }
        }
    }
}
