//! RSA keys of OpenPGP, converted for `ring`, which needs two more numbers.

use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{RSA_PKCS1_SHA512, RsaKeyPair};

use super::packets::trim;

/// Returns the key pair. `secret` holds the private exponent d, the primes p < q, and the inverse of p modulo q.
///
/// `None` if the numbers do not match or have an unsupported size.
pub(super) fn pair(modulus: &[u8], exponent: &[u8], secret: [&[u8]; 4]) -> Option<RsaKeyPair> {
    let [d, p, q, p_inverse] = secret.map(trim);
    let (d_mod_p, d_mod_q) = (remainder(d, &less_one(p)?), remainder(d, &less_one(q)?));
    // The primes are swapped, because OpenPGP stores the inverse of p and `ring` expects that of its `q`.
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n: trim(modulus), e: trim(exponent) },
        d,
        p: q,
        q: p,
        dP: trim(&d_mod_q),
        dQ: trim(&d_mod_p),
        qInv: p_inverse,
    };
    RsaKeyPair::from_components(&components).ok()
}

/// Signs the SHA-512 hash of a message.
pub(super) fn sign(pair: &RsaKeyPair, message: &[u8]) -> Result<Vec<u8>, String> {
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA512, &SystemRandom::new(), message, &mut signature)
        .map_err(|_| "signing with the RSA key failed".to_owned())?;
    Ok(signature)
}

/// Subtracts one from an odd number; `None` for an even one.
fn less_one(number: &[u8]) -> Option<Vec<u8>> {
    let mut number = number.to_vec();
    let last = number.last_mut().filter(|last| **last & 1 == 1)?;
    *last -= 1;
    Some(number)
}

/// Returns the remainder of a division of big numbers. Slow, but needed only when a key is read.
fn remainder(number: &[u8], divisor: &[u8]) -> Vec<u8> {
    // One extra byte for the carry of the doubling.
    let divisor = [&[0], divisor].concat();
    let mut rest = vec![0_u8; divisor.len()];
    for bit in number.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            let over = *byte >> 7;
            *byte = *byte << 1 | carry;
            carry = over;
        }
        if rest >= divisor {
            let mut borrow = false;
            for (byte, less) in rest.iter_mut().zip(&divisor).rev() {
                let (once, under) = byte.overflowing_sub(*less);
                let (twice, again) = once.overflowing_sub(u8::from(borrow));
                (*byte, borrow) = (twice, under || again);
            }
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainder_equals_that_of_integers() {
        for (number, divisor) in
            [(0_u64, 7_u64), (6, 7), (7, 7), (u64::MAX, 255), (u64::MAX, 65_521), (12_345_678_901, 4_294_967_291)]
        {
            let divisor_bytes = divisor.to_be_bytes();
            let rest = remainder(&number.to_be_bytes(), trim(&divisor_bytes));
            let rest = trim(&rest).iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
            assert_eq!(rest, number % divisor, "{number} % {divisor}");
        }
    }
}
