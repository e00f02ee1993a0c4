//! Armour and packets of OpenPGP (<https://www.rfc-editor.org/rfc/rfc9580>).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A cursor over untrusted bytes.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// Reads a big-endian number of up to four bytes.
    pub(super) fn number(&mut self, bytes: usize) -> Option<u32> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    /// Reads a multiprecision integer: its length in bits, then its bytes.
    pub(super) fn integer(&mut self) -> Option<&'a [u8]> {
        let bits = self.number(2)? as usize;
        self.take(bits.div_ceil(8))
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Appends a multiprecision integer: its length in bits, then its bytes.
pub(super) fn put_integer(out: &mut Vec<u8>, integer: &[u8]) {
    let significant = trim(integer);
    let bits = significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize);
    out.extend_from_slice(&(bits as u16).to_be_bytes());
    out.extend_from_slice(significant);
}

/// Returns an integer without leading zeros.
pub(super) fn trim(integer: &[u8]) -> &[u8] {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    &integer[zeros..]
}

/// Returns the tag and the body of the next packet; `None` if it is incomplete or invalid.
pub(super) fn next_packet<'a>(reader: &mut Reader<'a>) -> Option<(u8, &'a [u8])> {
    let first = reader.byte()?;
    if first & 0x80 == 0 {
        return None;
    }
    if first & 0x40 != 0 {
        return Some((first & 0x3f, new_body(reader)?));
    }
    let length = match first & 0x03 {
        0 => reader.number(1)?,
        1 => reader.number(2)?,
        2 => reader.number(4)?,
        _ => u32::try_from(reader.rest().len()).ok()?,
    };
    Some(((first >> 2) & 0x0f, reader.take(length as usize)?))
}

/// Reads the body of a packet in the new format. Partial bodies are for streams and not supported.
fn new_body<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = match reader.byte()? {
        short @ 0..192 => u32::from(short),
        first @ 192..224 => (u32::from(first) - 192) * 256 + u32::from(reader.byte()?) + 192,
        255 => reader.number(4)?,
        224..255 => return None,
    };
    reader.take(length as usize)
}

/// Returns type and body of each subpacket.
pub(super) fn subpackets(area: &[u8]) -> Vec<(u8, &[u8])> {
    let mut reader = Reader::new(area);
    let mut found = Vec::new();
    // Lengths are encoded as those of packets, except partial ones.
    while let Some((first, body)) = new_body(&mut reader).and_then(|body| body.split_first()) {
        // The highest bit marks a critical subpacket.
        found.push((first & 0x7f, body));
    }
    found
}

/// Decodes an armoured block; `None` if there is no such block.
pub(super) fn unarmour(text: &str, title: &str) -> Option<Vec<u8>> {
    let begin = format!("-----BEGIN {title}-----");
    let mut lines = text.lines().map(str::trim).skip_while(|line| *line != begin).skip(1);
    // Headers such as `Comment:` end with an empty line.
    lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
    let body: String = lines.take_while(|line| !line.starts_with(['=', '-'])).collect();
    STANDARD.decode(body).ok().filter(|bytes| !bytes.is_empty())
}

/// Encodes an armoured block.
pub(super) fn armour(bytes: &[u8], title: &str) -> String {
    let body = STANDARD.encode(bytes);
    let mut text = format!("-----BEGIN {title}-----\n\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    let checksum = STANDARD.encode(&crc24(bytes).to_be_bytes()[1..]);
    text.push_str(&format!("={checksum}\n-----END {title}-----\n"));
    text
}

/// The checksum of armour (<https://www.rfc-editor.org/rfc/rfc9580#section-6.1.1>).
fn crc24(bytes: &[u8]) -> u32 {
    let mut crc: u32 = 0x00b7_04ce;
    for byte in bytes {
        crc ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x0100_0000 != 0 {
                crc ^= 0x0186_4cfb;
            }
        }
    }
    crc & 0x00ff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn armour_round_trips() {
        for bytes in [vec![1], (0..=255).collect::<Vec<u8>>()] {
            let text = armour(&bytes, "PGP SIGNATURE");
            assert_eq!(unarmour(&text, "PGP SIGNATURE").unwrap(), bytes);
            assert_eq!(unarmour(&text.replace("\n\n", "\nComment: x\n\n"), "PGP SIGNATURE").unwrap(), bytes);
            assert!(unarmour(&text, "PGP PRIVATE KEY BLOCK").is_none());
        }
        // The check value of CRC-24/OPENPGP in catalogues.
        assert_eq!(crc24(b"123456789"), 0x0021_cf02);
    }

    #[test]
    fn integers_start_with_their_length_in_bits() {
        for (integer, written) in
            [(&[0, 0, 1, 0xff][..], &[0, 9, 1, 0xff][..]), (&[0x80], &[0, 8, 0x80]), (&[0, 0], &[0, 0])]
        {
            let mut out = Vec::new();
            put_integer(&mut out, integer);
            assert_eq!(out, written);
            assert_eq!(Reader::new(&out).integer().unwrap(), trim(integer));
        }
    }

    #[test]
    fn incomplete_packets_are_none() {
        for bytes in [&[0x00, 1][..], &[0xc5], &[0xc5, 5, 1], &[0xc5, 230, 1, 2], &[0x95, 0, 4, 1], &[0xc5, 255, 0, 0]]
        {
            assert!(next_packet(&mut Reader::new(bytes)).is_none(), "{bytes:?}");
        }
        assert_eq!(
            next_packet(&mut Reader::new(&[0xc5, 192, 0].into_iter().chain([7; 192]).collect::<Vec<u8>>()))
                .unwrap()
                .1
                .len(),
            192
        );
        assert_eq!(next_packet(&mut Reader::new(&[0x94, 1, 9])), Some((5, &[9][..])));
    }
}
