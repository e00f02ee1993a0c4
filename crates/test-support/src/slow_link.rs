//! A network link with latency and limited bandwidth.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A link to a server. It lives as long as the test's runtime.
pub struct SlowLink {
    pub address: SocketAddr,
    passed: Arc<AtomicUsize>,
}

impl SlowLink {
    /// Opens a link to `server` with a delay in each direction.
    pub async fn start(server: SocketAddr, bytes_per_second: usize, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&passed);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let (client_reads, client_writes) = client.into_split();
                let (server_reads, server_writes) = server.into_split();
                pass(client_reads, server_writes, bytes_per_second, delay, Arc::clone(&count));
                pass(server_reads, client_writes, bytes_per_second, delay, Arc::clone(&count));
            }
        });
        Self { address, passed }
    }

    /// Number of bytes so far, in both directions.
    pub fn passed(&self) -> usize {
        self.passed.load(Ordering::Relaxed)
    }
}

fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    bytes_per_second: usize,
    delay: Duration,
    passed: Arc<AtomicUsize>,
) {
    // Bytes in flight; a faster sender waits.
    let (send, mut on_its_way) = mpsc::channel::<(Instant, Vec<u8>)>(32);
    tokio::spawn(async move {
        let mut buffer = vec![0; 1024];
        while let Ok(count) = from.read(&mut buffer).await {
            if count == 0 || send.send((Instant::now() + delay, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((at, bytes)) = on_its_way.recv().await {
            tokio::time::sleep_until(at.into()).await;
            tokio::time::sleep(Duration::from_secs_f64(bytes.len() as f64 / bytes_per_second as f64)).await;
            passed.fetch_add(bytes.len(), Ordering::Relaxed);
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
}
