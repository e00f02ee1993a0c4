//! Detached signatures of OpenPGP (<https://www.rfc-editor.org/rfc/rfc9580>), as `gpg --detach-sign --armor` makes them.
//!
//! Implements only what signing needs, with `ring`: version 4 keys with Ed25519 or RSA, as exported by
//! `gpg --export-secret-keys --armor`. The complete OpenPGP library for Rust depends on the `rsa` crate, which has an open
//! timing side channel (RUSTSEC-2023-0071).

mod packets;
mod rsa;
mod secret;

use ring::signature::{Ed25519KeyPair, RsaKeyPair};
use sha1::{Digest as _, Sha1};
use sha2::Sha512;

use packets::{Reader, next_packet, put_integer, subpackets};

const SECRET_KEY: u8 = 5;
const SECRET_SUBKEY: u8 = 7;
const SIGNATURE: u8 = 2;

const RSA: u8 = 1;
const RSA_SIGN_ONLY: u8 = 3;
const EDDSA: u8 = 22;
const ED25519: u8 = 27;

const SHA512: u8 = 10;

/// The object identifier of Ed25519 in legacy EdDSA keys.
const ED25519_OID: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

const MAY_SIGN: u8 = 0x02;

/// A key that can sign.
pub(super) struct SigningKey {
    algorithm: u8,
    fingerprint: [u8; 20],
    pair: Pair,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
}

/// A key or subkey of the block, with the properties that its signatures state.
struct KeyCandidate<'a> {
    is_subkey: bool,
    body: &'a [u8],
    /// Seconds since 1970.
    created: u64,
    /// The key flags; `None` if no signature states them.
    usage: Option<u8>,
    expires: Option<u64>,
    revoked: bool,
}

impl SigningKey {
    /// Reads an armoured block and decrypts the key that `gpg` would sign with: the newest subkey for signing, otherwise
    /// the primary key. `now` is in seconds since 1970.
    ///
    /// # Errors
    ///
    /// If no key can be used. The message says what to do.
    pub(super) fn read(text: &str, passphrase: Option<&str>, now: u64) -> Result<Self, String> {
        let bytes = packets::unarmour(text, "PGP PRIVATE KEY BLOCK").ok_or(
            "the OpenPGP key is not an armoured private key: use the output of `gpg --export-secret-keys --armor KEY`",
        )?;
        let mut candidates = candidates(&bytes)?;
        candidates.retain(|key| key.usage.is_none_or(|usage| usage & MAY_SIGN != 0));
        if candidates.is_empty() {
            return Err("no key in the OpenPGP block is for signing: add a signing subkey".to_owned());
        }
        candidates.retain(|key| !key.revoked && key.expires.is_none_or(|expires| expires > now));
        candidates.sort_by_key(|key| std::cmp::Reverse((key.is_subkey, key.created)));
        let mut problem = "the OpenPGP key has expired or is revoked".to_owned();
        for key in &candidates {
            match key.unlock(passphrase) {
                Ok(Some(key)) => return Ok(key),
                Ok(None) => problem = "the OpenPGP block contains no secret part of a signing key".to_owned(),
                Err(reason) => return Err(reason),
            }
        }
        Err(problem)
    }

    pub(super) fn fingerprint(&self) -> String {
        hex::encode_upper(self.fingerprint)
    }

    /// Returns the armoured signature of a document. `now` is in seconds since 1970.
    ///
    /// # Errors
    ///
    /// If the system provides no random numbers.
    pub(super) fn sign(&self, document: &[u8], now: u32) -> Result<String, String> {
        // Version, type of the signature (binary document), algorithms.
        let mut hashed = vec![4, 0x00, self.algorithm, SHA512];
        let mut area = vec![5, 2];
        area.extend_from_slice(&now.to_be_bytes());
        area.extend_from_slice(&[22, 33, 4]);
        area.extend_from_slice(&self.fingerprint);
        put_area(&mut hashed, &area);
        let mut signed = [document, &hashed].concat();
        signed.extend_from_slice(&[4, 0xff]);
        signed.extend_from_slice(&(hashed.len() as u32).to_be_bytes());
        let digest = Sha512::digest(&signed);

        let mut packet = hashed;
        let mut unhashed = vec![9, 16];
        unhashed.extend_from_slice(&self.fingerprint[12..]);
        put_area(&mut packet, &unhashed);
        packet.extend_from_slice(&digest[..2]);
        match &self.pair {
            Pair::Ed25519(pair) => {
                let signature = pair.sign(&digest);
                let signature = signature.as_ref();
                if self.algorithm == ED25519 {
                    packet.extend_from_slice(signature);
                } else {
                    let (r, s) = signature.split_at(signature.len() / 2);
                    put_integer(&mut packet, r);
                    put_integer(&mut packet, s);
                }
            }
            Pair::Rsa(pair) => put_integer(&mut packet, &rsa::sign(pair, &signed)?),
        }
        let mut out = vec![0xc0 | SIGNATURE, 255];
        out.extend_from_slice(&(packet.len() as u32).to_be_bytes());
        out.append(&mut packet);
        Ok(packets::armour(&out, "PGP SIGNATURE"))
    }
}

fn put_area(out: &mut Vec<u8>, area: &[u8]) {
    out.extend_from_slice(&(area.len() as u16).to_be_bytes());
    out.extend_from_slice(area);
}

/// Returns the keys of a block with their properties.
///
/// The signatures are not verified: anyone who can change the block could also replace the key.
fn candidates(bytes: &[u8]) -> Result<Vec<KeyCandidate<'_>>, String> {
    let mut reader = Reader::new(bytes);
    let mut found: Vec<KeyCandidate<'_>> = Vec::new();
    while !reader.is_empty() {
        let (tag, body) = next_packet(&mut reader).ok_or("the OpenPGP key is damaged")?;
        match tag {
            SECRET_KEY | SECRET_SUBKEY => {
                let mut reader = Reader::new(body);
                let version = reader.byte().ok_or("the OpenPGP key is damaged")?;
                if version != 4 {
                    return Err(format!("the OpenPGP key has version {version}; only version 4 is supported"));
                }
                found.push(KeyCandidate {
                    is_subkey: tag == SECRET_SUBKEY,
                    body,
                    created: u64::from(reader.number(4).ok_or("the OpenPGP key is damaged")?),
                    usage: None,
                    expires: None,
                    revoked: false,
                });
            }
            SIGNATURE => {
                if let Some(key) = found.last_mut() {
                    // Malformed signatures are ignored.
                    let _ = key.apply(body);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

impl<'a> KeyCandidate<'a> {
    /// Applies the statements of a signature to the key. `None` if the signature is malformed.
    fn apply(&mut self, signature: &[u8]) -> Option<()> {
        const REVOKED_KEY: u8 = 0x20;
        const REVOKED_SUBKEY: u8 = 0x28;
        let mut reader = Reader::new(signature);
        let version = reader.byte()?;
        let kind = reader.byte()?;
        if matches!(kind, REVOKED_KEY | REVOKED_SUBKEY) {
            self.revoked = true;
        }
        // Certification of a user id, direct key signature, subkey binding.
        if version != 4 || !matches!(kind, 0x10..=0x13 | 0x1f | 0x18) {
            return Some(());
        }
        let _algorithms = reader.take(2)?;
        let length = reader.number(2)? as usize;
        for (kind, body) in subpackets(reader.take(length)?) {
            match kind {
                27 => self.usage = body.first().copied(),
                9 => {
                    let seconds = u64::from(Reader::new(body).number(4)?);
                    self.expires = (seconds > 0).then_some(self.created + seconds);
                }
                _ => {}
            }
        }
        Some(())
    }

    /// Decrypts the key; `None` if the block does not contain its secret part.
    fn unlock(&self, passphrase: Option<&str>) -> Result<Option<SigningKey>, String> {
        let damaged = || "the OpenPGP key is damaged".to_owned();
        let mut reader = Reader::new(self.body);
        let algorithm = reader.take(6).ok_or_else(damaged)?[5];
        let public = Public::read(algorithm, &mut reader).ok_or_else(damaged)?;
        if let Public::Unsupported(algorithm) = public {
            return Err(format!(
                "the algorithm {algorithm} of the OpenPGP key is not supported: create an Ed25519 or RSA key (2048 to 4096 \
                 bits)"
            ));
        }
        let length = self.body.len() - reader.rest().len();
        let Some(numbers) = secret::read(reader.rest())?.unlock(passphrase)? else { return Ok(None) };
        let pair = public.pair(&numbers).ok_or_else(|| {
            "the OpenPGP key is damaged, or is an RSA key with less than 2048 or more than 4096 bits".to_owned()
        })?;
        Ok(Some(SigningKey { algorithm, fingerprint: fingerprint(&self.body[..length]), pair }))
    }
}

/// The public part of a key.
enum Public<'a> {
    Ed25519(&'a [u8]),
    /// Legacy Ed25519, whose numbers are encoded as integers.
    EdDsa(&'a [u8]),
    Rsa {
        modulus: &'a [u8],
        exponent: &'a [u8],
    },
    Unsupported(u8),
}

impl<'a> Public<'a> {
    fn read(algorithm: u8, reader: &mut Reader<'a>) -> Option<Self> {
        Some(match algorithm {
            RSA | RSA_SIGN_ONLY => Self::Rsa { modulus: reader.integer()?, exponent: reader.integer()? },
            ED25519 => Self::Ed25519(reader.take(32)?),
            EDDSA => {
                let length = usize::from(reader.byte()?);
                if reader.take(length)? != ED25519_OID {
                    return Some(Self::Unsupported(algorithm));
                }
                // 0x40 marks a compressed point.
                Self::EdDsa(reader.integer()?.strip_prefix(&[0x40])?)
            }
            other => Self::Unsupported(other),
        })
    }

    fn pair(&self, numbers: &[u8]) -> Option<Pair> {
        let mut reader = Reader::new(numbers);
        match self {
            Self::Ed25519(public) => {
                Ed25519KeyPair::from_seed_and_public_key(reader.take(32)?, public).ok().map(Pair::Ed25519)
            }
            Self::EdDsa(public) => {
                let seed = reader.integer()?;
                let mut padded = [0; 32];
                padded.get_mut(32_usize.checked_sub(seed.len())?..)?.copy_from_slice(seed);
                Ed25519KeyPair::from_seed_and_public_key(&padded, public).ok().map(Pair::Ed25519)
            }
            Self::Rsa { modulus, exponent } => {
                let secret = [reader.integer()?, reader.integer()?, reader.integer()?, reader.integer()?];
                rsa::pair(modulus, exponent, secret).map(|pair| Pair::Rsa(Box::new(pair)))
            }
            Self::Unsupported(_) => None,
        }
    }
}

/// Computes the fingerprint (<https://www.rfc-editor.org/rfc/rfc9580#section-5.5.4.2>).
fn fingerprint(public: &[u8]) -> [u8; 20] {
    let mut hash = Sha1::new();
    hash.update([0x99]);
    hash.update((public.len() as u16).to_be_bytes());
    hash.update(public);
    hash.finalize().into()
}
