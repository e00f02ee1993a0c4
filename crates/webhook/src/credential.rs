//! The credentials with which senders prove that they know the secret.

/// A form of credential.
///
/// If a sender can sign the body, only a signature is accepted: [`Credential::Hmac`] is alone, or with a token that the
/// same sender uses if signing is off. A token never compensates for a wrong signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential {
    /// A parameter of the query, for senders that can neither sign nor add a header.
    Query(&'static str),
    /// `Authorization` with the secret as the whole value, after `Bearer `, or as the password of `Basic`.
    Authorization,
    /// `Authorization: Bearer` with the secret.
    Bearer,
    /// Any header whose name begins with `X-`, or `Api-Key`, with the secret as the whole value. For senders with a header
    /// of the operator's choice.
    CustomHeader,
    /// This header, with the secret as the whole value.
    Header(&'static str),
    /// An OpenID Connect token in `Authorization: Bearer`, if the receiver is configured for it. Checked in addition to the
    /// secret.
    IdentityToken,
    /// A signature over the body in hexadecimal digits.
    Hmac {
        /// The header with the signature.
        header: &'static str,
        /// The text before the digits.
        prefix: &'static str,
        hash: Hash,
        /// The signed bytes.
        signed: Signed,
    },
}

/// The hash function of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    /// HMAC-SHA1, for senders that support nothing better. As a MAC it is not known to be broken.
    Sha1,
    Sha256,
}

/// The bytes that a signature covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signed {
    /// The body.
    Body,
    /// The body, or the form field `payload` if the body is a form.
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
            Self::IdentityToken => f.write_str("an OpenID Connect token, if one is configured"),
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
