//! A minimal HTTP client, so that benchmarks measure the server.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::with_capacity(4096) }
    }

    /// Sends the request bytes, reads the whole response and returns its status.
    pub async fn send(&mut self, request: &[u8]) -> u16 {
        self.stream.write_all(request).await.unwrap();
        self.buffer.clear();
        let end_of_head = loop {
            if let Some(place) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break place + 4;
            }
            self.more().await;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end_of_head]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).expect("the answer is whole");
        let length: usize = length.trim().parse().unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        while self.buffer.len() < end_of_head + length {
            self.more().await;
        }
        status
    }

    async fn more(&mut self) {
        let count = self.stream.read_buf(&mut self.buffer).await.unwrap();
        assert!(count > 0, "the server closed the connection");
    }
}

/// The bytes of a signed webhook for the receiver `ci`.
pub fn webhook(image: &str) -> Vec<u8> {
    webhook_of_size(image, 0)
}

/// The same, padded with irrelevant members to at least this many bytes.
pub fn webhook_of_size(image: &str, bytes: usize) -> Vec<u8> {
    let bare = format!("{{\"image\":\"{image}\",\"padding\":\"\"}}").len();
    let padding = "x".repeat(bytes.saturating_sub(bare));
    let body = format!("{{\"image\":\"{image}\",\"padding\":\"{padding}\"}}");
    let signature = crate::fleet::signature(&body);
    let length = body.len();
    format!(
        "POST /webhooks/ci HTTP/1.1\r\nhost: tagrelay\r\ncontent-type: application/json\r\n\
         x-tagrelay-signature: {signature}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
