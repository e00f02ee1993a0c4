//! Packs of the objects that we made (<https://git-scm.com/docs/pack-format>).
//!
//! libgit2's pack builder needs the objects in a database and searches for deltas. We know the base of each new tree, so
//! the pack is written directly: blobs and commits deflated, trees as deltas of a few bytes.

use std::io::Write;

use flate2::{Compress, Compression, FlushCompress, Status};
use sha1::{Digest as _, Sha1};

use crate::object::{Delta, Kind, NewObject};

const REF_DELTA: u8 = 7;

/// Whether a pack may contain deltas against objects that only the receiver has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deltas {
    Allowed,
    /// Every object is written completely.
    Whole,
}

/// Returns the pack of `objects`, trailer included.
pub(crate) fn write(objects: &[NewObject], deltas: Deltas) -> std::io::Result<Vec<u8>> {
    let size = objects.iter().map(|object| object.data.len() / 2 + 32).sum::<usize>().min(1 << 22);
    let mut pack = PackWriter::begin(Vec::with_capacity(size), objects.len())?;
    for object in objects {
        match &object.delta {
            Some(delta) if deltas == Deltas::Allowed => pack.add_delta(delta)?,
            _ => pack.add(object.kind, &object.data)?,
        }
    }
    pack.finish()
}

/// Writes a pack object by object.
pub(crate) struct PackWriter<W> {
    out: W,
    hash: Sha1,
    /// The current entry. Reused, to save an allocation per object.
    entry: Vec<u8>,
    /// Reused, because a compressor allocates some hundred kilobytes.
    compress: Compress,
}

impl<W: Write> PackWriter<W> {
    /// Begins a pack of `count` objects.
    pub(crate) fn begin(out: W, count: usize) -> std::io::Result<Self> {
        let count = u32::try_from(count).map_err(|_| std::io::Error::other("too many objects for one pack"))?;
        // Fast compression: packs have a few kilobytes, and a round trip costs more than the bytes.
        let compress = Compress::new(Compression::fast(), true);
        let mut writer = Self { out, hash: Sha1::new(), entry: Vec::new(), compress };
        writer.entry.extend_from_slice(b"PACK\0\0\0\x02");
        writer.entry.extend_from_slice(&count.to_be_bytes());
        writer.flush_entry()?;
        Ok(writer)
    }

    /// Adds a complete object.
    pub(crate) fn add(&mut self, kind: Kind, data: &[u8]) -> std::io::Result<()> {
        put_header(&mut self.entry, type_number(kind), data.len());
        self.deflate(data)
    }

    fn add_delta(&mut self, delta: &Delta) -> std::io::Result<()> {
        put_header(&mut self.entry, REF_DELTA, delta.instructions.len());
        self.entry.extend_from_slice(delta.base.as_bytes());
        self.deflate(&delta.instructions)
    }

    fn deflate(&mut self, data: &[u8]) -> std::io::Result<()> {
        self.compress.reset();
        let mut rest = data;
        loop {
            // `compress_vec` writes only into the reserved capacity.
            self.entry.reserve(rest.len() / 2 + 64);
            let before = self.compress.total_in();
            let status = self.compress.compress_vec(rest, &mut self.entry, FlushCompress::Finish)?;
            rest = rest.get((self.compress.total_in() - before) as usize..).unwrap_or_default();
            if status == Status::StreamEnd {
                return self.flush_entry();
            }
        }
    }

    fn flush_entry(&mut self) -> std::io::Result<()> {
        self.hash.update(&self.entry);
        self.out.write_all(&self.entry)?;
        self.entry.clear();
        Ok(())
    }

    /// Ends the pack with its checksum.
    pub(crate) fn finish(mut self) -> std::io::Result<W> {
        let checksum = self.hash.finalize();
        self.out.write_all(&checksum)?;
        Ok(self.out)
    }
}

fn type_number(kind: Kind) -> u8 {
    match kind {
        Kind::Commit => 1,
        Kind::Tree => 2,
        Kind::Blob => 3,
    }
}

/// Writes type and size of an entry: the lowest four bits of the size beside the type, then seven bits per byte.
fn put_header(pack: &mut Vec<u8>, type_number: u8, size: usize) {
    let mut rest = size >> 4;
    let low_bits = (size & 0x0f) as u8;
    let mut byte = (type_number << 4) | low_bits;
    while rest > 0 {
        pack.push(byte | 0x80);
        byte = (rest & 0x7f) as u8;
        rest >>= 7;
    }
    pack.push(byte);
}

/// Returns the delta that overwrites parts of `old`. `replacements` are offsets and new bytes, sorted, not overlapping.
pub(crate) fn splice_delta(old: &[u8], replacements: &[(usize, &[u8])]) -> Vec<u8> {
    let mut delta = Vec::with_capacity(replacements.len() * 32 + 16);
    put_delta_size(&mut delta, old.len());
    put_delta_size(&mut delta, old.len());
    let mut position = 0;
    for (offset, bytes) in replacements {
        put_copies(&mut delta, position, offset - position);
        for part in bytes.chunks(0x7f) {
            delta.push(part.len() as u8);
            delta.extend_from_slice(part);
        }
        position = offset + bytes.len();
    }
    put_copies(&mut delta, position, old.len() - position);
    delta
}

fn put_delta_size(delta: &mut Vec<u8>, size: usize) {
    let mut rest = size;
    while rest >= 0x80 {
        delta.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    delta.push(rest as u8);
}

/// Writes copy instructions: a byte encodes which of four offset and three size bytes follow, lowest first. One
/// instruction copies at most 0xffff bytes, which every reader of packs understands.
fn put_copies(delta: &mut Vec<u8>, mut offset: usize, mut size: usize) {
    while size > 0 {
        let part = size.min(0xffff);
        let start = delta.len();
        delta.push(0x80);
        for bit in 0..4 {
            put_copy_byte(delta, start, bit, (offset >> (8 * bit)) as u8);
        }
        for bit in 0..2 {
            put_copy_byte(delta, start, bit + 4, (part >> (8 * bit)) as u8);
        }
        offset += part;
        size -= part;
    }
}

fn put_copy_byte(delta: &mut Vec<u8>, start: usize, bit: usize, byte: u8) {
    if byte != 0 {
        delta[start] |= 1 << bit;
        delta.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies a delta, following <https://git-scm.com/docs/pack-format#_deltified_representation>.
    fn apply(base: &[u8], delta: &[u8]) -> Vec<u8> {
        let mut bytes = delta.iter().copied();
        let mut size = || {
            let (mut value, mut shift) = (0_usize, 0);
            loop {
                let byte = bytes.next().unwrap();
                value |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return value;
                }
            }
        };
        assert_eq!(size(), base.len());
        let expected = size();
        let mut out = Vec::new();
        while let Some(instruction) = bytes.next() {
            if instruction & 0x80 == 0 {
                out.extend((0..instruction).map(|_| bytes.next().unwrap()));
                continue;
            }
            let mut number = |bits: std::ops::Range<usize>| {
                let start = bits.start;
                bits.filter(|bit| instruction & (1 << bit) != 0)
                    .map(|bit| usize::from(bytes.next().unwrap()) << (8 * (bit - start)))
                    .sum::<usize>()
            };
            let offset = number(0..4);
            let length = number(4..7);
            out.extend_from_slice(&base[offset..offset + length]);
        }
        assert_eq!(out.len(), expected);
        out
    }

    #[test]
    fn delta_of_replacements_applies() {
        let old: Vec<u8> = (0..300_000_usize).map(|number| (number % 251) as u8).collect();
        let put = [0xee; 300];
        for places in [vec![0], vec![299_700], vec![1, 65_000, 70_000, 131_072], vec![]] {
            let replacements: Vec<(usize, &[u8])> = places.iter().map(|place| (*place, put.as_slice())).collect();
            let mut new = old.clone();
            places.iter().for_each(|place| new[*place..place + put.len()].fill(0xee));
            let delta = splice_delta(&old, &replacements);
            assert!(delta.len() < 2_000);
            assert_eq!(apply(&old, &delta), new);
        }
    }

    #[test]
    fn git_verifies_packs() {
        let objects = [
            NewObject::new(Kind::Blob, vec![b'x'; 100_000]),
            NewObject::new(Kind::Blob, "short"),
            NewObject::new(Kind::Blob, ""),
            NewObject::new(Kind::Tree, ""),
        ];
        let folder = tempfile::tempdir().unwrap();
        let mut indexer = git2::Indexer::new(None, folder.path(), 0, false).unwrap();
        indexer.write_all(&write(&objects, Deltas::Allowed).unwrap()).unwrap();
        indexer.commit().unwrap();
        let mut files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
        let index = files.find(|path| path.extension().is_some_and(|e| e == "idx")).unwrap();
        let verify = std::process::Command::new("git").args(["verify-pack", "-v"]).arg(index).output().unwrap();
        let listed = String::from_utf8(verify.stdout).unwrap();
        assert!(verify.status.success());
        for object in objects {
            let line = format!("{} {}", object.id, object.kind.name());
            assert!(listed.lines().any(|found| found.starts_with(&line)), "{line}\n{listed}");
        }
    }
}
