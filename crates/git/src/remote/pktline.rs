//! Pkt-lines: the framing of Git's protocol.
//!
//! Four hexadecimal digits give the length, including themselves; then come the bytes:
//! <https://git-scm.com/docs/protocol-common#_pkt_line_format>.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::limits::SILENCE_LIMIT;
use super::server_text::one_line;

/// The longest pkt-line, including the digits of its length.
const MAX_BYTES: usize = 65_520;

/// The bytes of a server, in chunks as they arrive.
pub(super) type Incoming = BoxStream<'static, io::Result<Bytes>>;

/// One unit of the framing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    /// `0000`: the end of a message.
    Flush,
    /// `0001`: between the parts of a message of protocol version 2.
    Delimiter,
    /// `0002`: the end of a response of protocol version 2 over a stateless connection.
    ResponseEnd,
    /// A line, or a piece of a binary stream.
    Data(Bytes),
}

/// Splits arriving bytes into pkt-lines.
pub(super) struct PacketReader {
    incoming: Incoming,
    buffer: BytesMut,
    /// The longest silence of the server.
    silence_limit: Duration,
}

impl PacketReader {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self { incoming, buffer: BytesMut::new(), silence_limit: SILENCE_LIMIT }
    }

    /// Sets the longest silence of the server, for a large upload before its answer.
    pub(super) fn set_silence_limit(&mut self, limit: Duration) {
        self.silence_limit = limit;
    }

    /// Returns the next packet, or `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> io::Result<Option<Packet>> {
        if !self.fill(4).await? {
            return if self.buffer.is_empty() { Ok(None) } else { Err(self.not_a_packet()) };
        }
        let length = std::str::from_utf8(&self.buffer[..4]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let length = length.ok_or_else(|| self.not_a_packet())?;
        match length {
            0..=2 => {
                self.buffer.advance(4);
                Ok(Some([Packet::Flush, Packet::Delimiter, Packet::ResponseEnd][length].clone()))
            }
            4..=MAX_BYTES => {
                if !self.fill(length).await? {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the answer ended in the middle of a line",
                    ));
                }
                let mut packet = self.buffer.split_to(length);
                packet.advance(4);
                Ok(Some(Packet::Data(packet.freeze())))
            }
            _ => Err(self.not_a_packet()),
        }
    }

    /// Reads and discards the rest of the stream.
    pub(super) async fn drain(mut self) {
        while let Ok(Some(Ok(_))) = tokio::time::timeout(SILENCE_LIMIT, self.incoming.next()).await {}
    }

    async fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        while self.buffer.len() < bytes {
            let next = tokio::time::timeout(self.silence_limit, self.incoming.next()).await.map_err(|_| {
                let reason = format!("no answer in {} seconds", self.silence_limit.as_secs());
                io::Error::new(io::ErrorKind::TimedOut, reason)
            })?;
            match next.transpose()? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Returns an error with the beginning of the bytes, for example of a proxy's page or a login banner.
    fn not_a_packet(&self) -> io::Error {
        let start = one_line(&self.buffer[..self.buffer.len().min(200)]);
        io::Error::new(io::ErrorKind::InvalidData, format!("this is not the Git protocol: `{start}`"))
    }
}

/// Appends a line and its newline.
pub(super) fn put_line(out: &mut Vec<u8>, line: &str) {
    put_length(out, line.len() + 5);
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
}

/// Appends bytes without a newline.
pub(super) fn put_data(out: &mut Vec<u8>, data: &[u8]) {
    put_length(out, data.len() + 4);
    out.extend_from_slice(data);
}

/// Appends the end of a message.
pub(super) fn put_flush(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0000");
}

/// Appends the delimiter between two parts of a message.
pub(super) fn put_delimiter(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0001");
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(format!("{length:04x}").as_bytes());
}

/// Returns a line without its newline, if it has one.
pub(super) fn line(data: &[u8]) -> &[u8] {
    data.strip_suffix(b"\n").unwrap_or(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(chunks: &[&'static [u8]]) -> PacketReader {
        let chunks: Vec<io::Result<Bytes>> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk))).collect();
        PacketReader::new(futures_util::stream::iter(chunks).boxed())
    }

    #[tokio::test]
    async fn packets_are_reassembled_from_chunks() {
        let mut reader = reader(&[b"00", b"09he", b"llo0000000100020", b"004"]);
        assert_eq!(reader.next().await.unwrap(), Some(Packet::Data(Bytes::from_static(b"hello"))));
        assert_eq!(reader.next().await.unwrap(), Some(Packet::Flush));
        assert_eq!(reader.next().await.unwrap(), Some(Packet::Delimiter));
        assert_eq!(reader.next().await.unwrap(), Some(Packet::ResponseEnd));
        assert_eq!(reader.next().await.unwrap(), Some(Packet::Data(Bytes::new())));
        assert_eq!(reader.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn error_shows_bytes_that_are_not_a_packet() {
        for wrong in [b"<html>\nno".as_slice(), b"0003", b"fff9x", b"00"] {
            assert!(reader(&[wrong]).next().await.unwrap_err().to_string().contains("not the Git protocol"));
        }
        assert!(reader(&[b"0009he"]).next().await.unwrap_err().to_string().contains("middle of a line"));
    }

    #[test]
    fn length_includes_itself() {
        let mut out = Vec::new();
        put_line(&mut out, "done");
        put_data(&mut out, b"\x01\x02");
        put_delimiter(&mut out);
        put_flush(&mut out);
        assert_eq!(out, b"0009done\n0006\x01\x0200010000");
    }
}
