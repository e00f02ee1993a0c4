//! Decryption of the secret part of a key (<https://www.rfc-editor.org/rfc/rfc9580#section-5.5.3>).

use aes::cipher::{Array, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use sha1::{Digest as _, Sha1};
use subtle::ConstantTimeEq as _;

use super::packets::Reader;

/// The secret part of a key and its protection.
pub(super) enum Locked<'a> {
    /// Not encrypted.
    Open(&'a [u8]),
    /// Encrypted with a passphrase.
    Passphrase(Protection<'a>),
    /// Not in the block: on a smart card, or removed.
    Absent,
}

pub(super) struct Protection<'a> {
    cipher: Cipher,
    derivation: Derivation<'a>,
    initial: &'a [u8],
    encrypted: &'a [u8],
    has_hash: bool,
}

#[derive(Clone, Copy)]
enum Cipher {
    Aes128,
    Aes192,
    Aes256,
}

/// The derivation of a key from a passphrase.
struct Derivation<'a> {
    hash: Hash,
    salt: &'a [u8],
    /// The minimum number of hashed bytes.
    count: usize,
}

#[derive(Clone, Copy)]
enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

const BLOCK: usize = 16;

/// Parses the secret part of a key.
///
/// # Errors
///
/// If it is damaged or its protection is not supported.
pub(super) fn read(secret: &[u8]) -> Result<Locked<'_>, String> {
    let mut reader = Reader::new(secret);
    let damaged = || "the OpenPGP key is damaged".to_owned();
    let usage = reader.byte().ok_or_else(damaged)?;
    match usage {
        0 => return Ok(Locked::Open(reader.rest())),
        254 | 255 => {}
        other => return Err(format!("the protection {other} of the OpenPGP key is not supported")),
    }
    let cipher = reader.byte().ok_or_else(damaged)?;
    let derivation = reader.byte().ok_or_else(damaged)?;
    let hash = reader.byte().ok_or_else(damaged)?;
    let (salt, count) = match derivation {
        0 => (&[][..], 0),
        1 => (reader.take(8).ok_or_else(damaged)?, 0),
        3 => {
            let salt = reader.take(8).ok_or_else(damaged)?;
            let code = usize::from(reader.byte().ok_or_else(damaged)?);
            (salt, (16 + (code & 15)) << ((code >> 4) + 6))
        }
        // A GnuPG extension: the secret part was not exported, or is on a smart card.
        101 => return Ok(Locked::Absent),
        other => return Err(format!("the key derivation {other} of the OpenPGP key is not supported")),
    };
    let cipher = match cipher {
        7 => Cipher::Aes128,
        8 => Cipher::Aes192,
        9 => Cipher::Aes256,
        other => return Err(format!("the cipher {other} of the OpenPGP key is not supported")),
    };
    let hash = match hash {
        2 => Hash::Sha1,
        8 => Hash::Sha256,
        9 => Hash::Sha384,
        10 => Hash::Sha512,
        other => return Err(format!("the hash {other} of the OpenPGP key is not supported")),
    };
    let initial = reader.take(BLOCK).ok_or_else(damaged)?;
    let derivation = Derivation { hash, salt, count };
    let has_hash = usage == 254;
    Ok(Locked::Passphrase(Protection { cipher, derivation, initial, encrypted: reader.rest(), has_hash }))
}

impl Locked<'_> {
    /// Returns the numbers of the secret part; `None` if the block does not contain it.
    ///
    /// # Errors
    ///
    /// If the passphrase is missing or wrong.
    pub(super) fn unlock(&self, passphrase: Option<&str>) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::Absent => Ok(None),
            Self::Open(numbers) => match split_sum(numbers) {
                Some(numbers) => Ok(Some(numbers.to_vec())),
                None => Err("the OpenPGP key is damaged".to_owned()),
            },
            Self::Passphrase(protection) => {
                let Some(passphrase) = passphrase else {
                    return Err("the OpenPGP key is encrypted; set `passphrase`".to_owned());
                };
                let numbers = protection.decrypt(passphrase.as_bytes());
                let numbers = if protection.has_hash { split_hash(&numbers) } else { split_sum(&numbers) };
                let wrong = || "the OpenPGP key cannot be decrypted with this passphrase".to_owned();
                numbers.map(|numbers| Some(numbers.to_vec())).ok_or_else(wrong)
            }
        }
    }
}

/// Checks and removes the trailing checksum.
fn split_sum(numbers: &[u8]) -> Option<&[u8]> {
    let (numbers, sum) = numbers.split_at_checked(numbers.len().checked_sub(2)?)?;
    let expected = numbers.iter().fold(0_u16, |sum, byte| sum.wrapping_add(u16::from(*byte)));
    (sum == expected.to_be_bytes()).then_some(numbers)
}

/// Checks and removes the trailing SHA-1 hash.
fn split_hash(numbers: &[u8]) -> Option<&[u8]> {
    let (numbers, hash) = numbers.split_at_checked(numbers.len().checked_sub(20)?)?;
    bool::from(hash.ct_eq(Sha1::digest(numbers).as_slice())).then_some(numbers)
}

impl Protection<'_> {
    fn decrypt(&self, passphrase: &[u8]) -> Vec<u8> {
        let key = |size: usize| self.derivation.key(passphrase, size);
        // Cannot fail: the keys have the sizes of the ciphers.
        let decrypted = match self.cipher {
            Cipher::Aes128 => aes::Aes128::new_from_slice(&key(16)).map(|cipher| self.feed_back(&cipher)),
            Cipher::Aes192 => aes::Aes192::new_from_slice(&key(24)).map(|cipher| self.feed_back(&cipher)),
            Cipher::Aes256 => aes::Aes256::new_from_slice(&key(32)).map(|cipher| self.feed_back(&cipher)),
        };
        decrypted.unwrap_or_default()
    }

    /// Decrypts in cipher feedback mode.
    fn feed_back<C>(&self, cipher: &C) -> Vec<u8>
    where
        C: BlockCipherEncrypt + BlockSizeUser,
    {
        let mut plain = Vec::with_capacity(self.encrypted.len());
        let mut before = self.initial;
        for part in self.encrypted.chunks(BLOCK) {
            let Ok(block) = Array::<u8, C::BlockSize>::try_from(before) else { break };
            let mut mask = block;
            cipher.encrypt_block(&mut mask);
            plain.extend(part.iter().zip(&mask).map(|(hidden, mask)| hidden ^ mask));
            before = part;
        }
        plain
    }
}

impl Derivation<'_> {
    /// Hashes salt and passphrase repeatedly. If the hash is shorter than the key, further hashes with leading zeros are
    /// appended (<https://www.rfc-editor.org/rfc/rfc9580#section-3.7.1>).
    fn key(&self, passphrase: &[u8], size: usize) -> Vec<u8> {
        let seed = [self.salt, passphrase].concat();
        let mut key = Vec::new();
        let mut zeros = 0;
        while key.len() < size {
            key.extend(match self.hash {
                Hash::Sha1 => self.round::<Sha1>(&seed, zeros),
                Hash::Sha256 => self.round::<sha2::Sha256>(&seed, zeros),
                Hash::Sha384 => self.round::<sha2::Sha384>(&seed, zeros),
                Hash::Sha512 => self.round::<sha2::Sha512>(&seed, zeros),
            });
            zeros += 1;
        }
        key.truncate(size);
        key
    }

    fn round<D: sha1::Digest>(&self, seed: &[u8], zeros: usize) -> Vec<u8> {
        let mut hash = D::new();
        hash.update(vec![0; zeros]);
        let mut left = self.count.max(seed.len());
        while left > 0 && !seed.is_empty() {
            let part = &seed[..seed.len().min(left)];
            hash.update(part);
            left -= part.len();
        }
        hash.finalize().to_vec()
    }
}
