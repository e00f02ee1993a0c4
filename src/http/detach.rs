//! Lets requests that change something finish even if their client disconnects.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode};

use super::Problem;

/// The largest number of running requests without a client. Those with a client are bounded by the number of connections.
const MOST_ORPHANS: usize = 256;

/// The number of running requests whose client has disconnected. Clones share one counter.
#[derive(Debug, Clone, Default)]
pub(super) struct Orphans(Arc<AtomicUsize>);

impl Orphans {
    fn are_too_many(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= MOST_ORPHANS
    }
}

// The state of a request, shared by its `Client` and its `Work`.
const CONNECTED: u8 = 0;
const DISCONNECTED: u8 = 1;
const DONE: u8 = 2;

/// The client that waits for the response. Dropped when it disconnects, or after the response.
struct Client {
    orphans: Orphans,
    state: Arc<AtomicU8>,
}

impl Drop for Client {
    fn drop(&mut self) {
        // Incremented before the state changes, so that `Work` never decrements first.
        self.orphans.0.fetch_add(1, Ordering::SeqCst);
        if self.state.compare_exchange(CONNECTED, DISCONNECTED, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            self.orphans.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The handler of the request. Dropped when it has finished.
struct Work {
    orphans: Orphans,
    state: Arc<AtomicU8>,
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.state.swap(DONE, Ordering::SeqCst) == DISCONNECTED {
            self.orphans.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Runs a request that changes something in a task of its own, so that it finishes even if the client disconnects. Otherwise
/// rows could be stored without waking the stages that process them.
///
/// Answers 503 while too many such requests run without a client: clients that send and disconnect would fill the memory.
pub(super) async fn detach(State(orphans): State<Orphans>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        // Reading has no effect beyond its response.
        return next.run(request).await;
    }
    if orphans.are_too_many() {
        tracing::warn!(most = MOST_ORPHANS, "request rejected: too many running requests have lost their client");
        let detail = "too many running requests have lost their client";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    }
    let state = Arc::new(AtomicU8::new(CONNECTED));
    let _client = Client { orphans: orphans.clone(), state: Arc::clone(&state) };
    let work = Work { orphans, state };
    let ended = tokio::spawn(async move {
        let answer = next.run(request).await;
        drop(work);
        answer
    });
    // Panics are caught by a layer below, so an error only means that the runtime ends.
    ended
        .await
        .unwrap_or_else(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the service is stopping").into_response())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use axum::Router;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::{Notify, Semaphore};

    use super::*;

    async fn serve(routes: Router, orphans: Orphans) -> SocketAddr {
        let routes = routes.layer(axum::middleware::from_fn_with_state(orphans, detach));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        address
    }

    async fn send(address: SocketAddr, method: &str) -> TcpStream {
        let mut sender = TcpStream::connect(address).await.unwrap();
        let request = format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        sender.write_all(request.as_bytes()).await.unwrap();
        sender
    }

    async fn answer(mut sender: TcpStream) -> String {
        let mut answer = String::new();
        sender.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn until(what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..1_000 {
            if is_so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}");
    }

    #[tokio::test]
    async fn request_finishes_after_its_client_disconnects() {
        let [begun, go, done] = [(); 3].map(|()| Arc::new(Notify::new()));
        let handler = {
            let (begun, go, done) = (begun.clone(), go.clone(), done.clone());
            move || async move {
                begun.notify_one();
                go.notified().await;
                done.notify_one();
            }
        };
        let orphans = Orphans::default();
        let address = serve(Router::new().route("/", post(handler)), orphans.clone()).await;
        let sender = send(address, "POST").await;
        begun.notified().await;
        drop(sender);
        until("the server notices the disconnect", || orphans.0.load(Ordering::SeqCst) == 1).await;
        go.notify_one();
        tokio::time::timeout(Duration::from_secs(10), done.notified()).await.unwrap();
        until("the request is no longer counted", || orphans.0.load(Ordering::SeqCst) == 0).await;
    }

    #[tokio::test]
    async fn requests_are_rejected_while_too_many_have_no_client() {
        let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let handler = {
            let (begun, go) = (begun.clone(), go.clone());
            move || async move {
                begun.add_permits(1);
                let _ = go.acquire().await;
            }
        };
        let orphans = Orphans::default();
        let routes = Router::new().route("/", post(handler).get(|| async {}));
        let address = serve(routes, orphans.clone()).await;
        let mut senders = Vec::new();
        for _ in 0..MOST_ORPHANS {
            senders.push(send(address, "POST").await);
        }
        let all = u32::try_from(MOST_ORPHANS).unwrap();
        begun.acquire_many(all).await.unwrap().forget();
        assert!(!orphans.are_too_many(), "every client is connected");
        drop(senders);
        until("all clients have disconnected", || orphans.are_too_many()).await;
        let turned_away = answer(send(address, "POST").await).await;
        assert!(turned_away.starts_with("HTTP/1.1 503 ") && turned_away.contains("\r\nretry-after: "), "{turned_away}");
        assert!(answer(send(address, "GET").await).await.starts_with("HTTP/1.1 200 "));

        // Once they have finished, requests are accepted again.
        go.add_permits(MOST_ORPHANS + 1);
        until("all have ended", || orphans.0.load(Ordering::SeqCst) == 0).await;
        assert!(answer(send(address, "POST").await).await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn answered_and_failed_requests_are_not_counted() {
        let orphans = Orphans::default();
        async fn defect() -> StatusCode {
            panic!("a defect")
        }
        let routes = Router::new().route("/", post(defect).put(|| async {}));
        let address = serve(routes, orphans.clone()).await;
        assert!(answer(send(address, "PUT").await).await.starts_with("HTTP/1.1 200 "));
        assert!(answer(send(address, "POST").await).await.starts_with("HTTP/1.1 503 "));
        until("no request is counted", || orphans.0.load(Ordering::SeqCst) == 0).await;
    }
}
