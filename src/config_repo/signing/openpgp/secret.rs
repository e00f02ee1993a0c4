//! The secret half of a key, unlocked (<https://www.rfc-editor.org/rfc/rfc9580#section-5.5.3>).

use aes::cipher::{Array, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use sha1::{Digest as _, Sha1};
use subtle::ConstantTimeEq as _;

use super::packets::Reader;

/// How the secret half is protected.
pub(super) enum Locked<'a> {
    /// Not at all.
    Open(&'a [u8]),
    /// By a passphrase.
    Passphrase(Protection<'a>),
    /// It is not here: on a card, or taken out.
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

/// How a passphrase becomes a key.
struct Derivation<'a> {
    hash: Hash,
    salt: &'a [u8],
    /// How many bytes are hashed at least.
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

/// Reads how the secret half of a key is protected.
///
/// # Errors
///
/// What is not supported, or makes no sense.
pub(super) fn read(secret: &[u8]) -> Result<Locked<'_>, String> {
    let mut reader = Reader::new(secret);
    let damaged = || "the OpenPGP key is damaged".to_owned();
    let usage = reader.byte().ok_or_else(damaged)?;
    match usage {
        0 => return Ok(Locked::Open(reader.rest())),
        254 | 255 => {}
        other => return Err(format!("the OpenPGP key is protected in a way that is not supported ({other})")),
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
        // GnuPG's own: the secret half was not exported, or is on a card.
        101 => return Ok(Locked::Absent),
        other => return Err(format!("the OpenPGP key derives its key in a way that is not supported ({other})")),
    };
    let cipher = match cipher {
        7 => Cipher::Aes128,
        8 => Cipher::Aes192,
        9 => Cipher::Aes256,
        other => return Err(format!("the OpenPGP key is encrypted by a cipher that is not supported ({other})")),
    };
    let hash = match hash {
        2 => Hash::Sha1,
        8 => Hash::Sha256,
        9 => Hash::Sha384,
        10 => Hash::Sha512,
        other => return Err(format!("the OpenPGP key uses a hash that is not supported ({other})")),
    };
    let initial = reader.take(BLOCK).ok_or_else(damaged)?;
    let derivation = Derivation { hash, salt, count };
    let has_hash = usage == 254;
    Ok(Locked::Passphrase(Protection { cipher, derivation, initial, encrypted: reader.rest(), has_hash }))
}

impl Locked<'_> {
    /// Returns the numbers of the secret half. `None` where they are not here.
    ///
    /// # Errors
    ///
    /// When the passphrase is missing or wrong.
    pub(super) fn unlock(&self, passphrase: Option<&str>) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::Absent => Ok(None),
            Self::Open(numbers) => match split_sum(numbers) {
                Some(numbers) => Ok(Some(numbers.to_vec())),
                None => Err("the OpenPGP key is damaged".to_owned()),
            },
            Self::Passphrase(protection) => {
                let Some(passphrase) = passphrase else {
                    return Err("the OpenPGP key is encrypted; give its passphrase as `passphrase`".to_owned());
                };
                let numbers = protection.decrypt(passphrase.as_bytes());
                let numbers = if protection.has_hash { split_hash(&numbers) } else { split_sum(&numbers) };
                let wrong = || "the OpenPGP key cannot be unlocked with this passphrase".to_owned();
                numbers.map(|numbers| Some(numbers.to_vec())).ok_or_else(wrong)
            }
        }
    }
}

/// Takes the sum of the bytes off their end, if it is right.
fn split_sum(numbers: &[u8]) -> Option<&[u8]> {
    let (numbers, sum) = numbers.split_at_checked(numbers.len().checked_sub(2)?)?;
    let expected = numbers.iter().fold(0_u16, |sum, byte| sum.wrapping_add(u16::from(*byte)));
    (sum == expected.to_be_bytes()).then_some(numbers)
}

fn split_hash(numbers: &[u8]) -> Option<&[u8]> {
    let (numbers, hash) = numbers.split_at_checked(numbers.len().checked_sub(20)?)?;
    bool::from(hash.ct_eq(Sha1::digest(numbers).as_slice())).then_some(numbers)
}

impl Protection<'_> {
    fn decrypt(&self, passphrase: &[u8]) -> Vec<u8> {
        let key = |size: usize| self.derivation.key(passphrase, size);
        // The sizes are those of the ciphers, so no key can be refused.
        let decrypted = match self.cipher {
            Cipher::Aes128 => aes::Aes128::new_from_slice(&key(16)).map(|cipher| self.feed_back(&cipher)),
            Cipher::Aes192 => aes::Aes192::new_from_slice(&key(24)).map(|cipher| self.feed_back(&cipher)),
            Cipher::Aes256 => aes::Aes256::new_from_slice(&key(32)).map(|cipher| self.feed_back(&cipher)),
        };
        decrypted.unwrap_or_default()
    }

    /// Cipher feedback: each block is hidden by the encrypted block before it.
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
    /// Hashes the passphrase behind its salt again and again; where the hash is too short, once more with a zero in
    /// front for each time (<https://www.rfc-editor.org/rfc/rfc9580#section-3.7.1>).
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
