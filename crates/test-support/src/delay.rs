//! A network link with latency.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// Opens a link to `server` (`http://<address>` or `https://<address>`) and returns the same URL with the link's address.
///
/// Bytes arrive half a round trip after they were sent. A new connection takes one round trip, like TCP's handshake.
pub async fn link(server: &str, round_trip: Duration) -> String {
    let (scheme, address) = server.split_once("://").unwrap();
    let address = address.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let address = address.clone();
            tokio::spawn(async move {
                sleep(round_trip).await;
                let far = TcpStream::connect(address).await.unwrap();
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                tokio::spawn(carry(near_read, far_write, round_trip / 2));
                carry(far_read, near_write, round_trip / 2).await;
            });
        }
    });
    url
}

/// Copies bytes in one direction, all with the same delay.
async fn carry(mut from: impl AsyncRead + Unpin + Send + 'static, mut to: impl AsyncWrite + Unpin, delay: Duration) {
    let (sender, mut under_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    while let Some((due, bytes)) = under_way.recv().await {
        sleep_until(due).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
