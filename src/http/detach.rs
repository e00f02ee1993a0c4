//! Requests that change something are seen through to their end, also when whoever sent them goes away meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode};

use super::Problem;

/// The most requests that go on at once with nobody there for the answer. Those with somebody are bounded by the
/// connections.
const MOST_ORPHANS: usize = 256;

/// How many requests go on with nobody there for the answer. Clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Orphans(Arc<AtomicUsize>);

impl Orphans {
    fn are_too_many(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= MOST_ORPHANS
    }
}

/// What a request is, for the two who count it.
const ATTENDED: u8 = 0;
const LEFT: u8 = 1;
const DONE: u8 = 2;

/// Whoever waits for the answer; dropped when nobody does any more.
struct Sender {
    orphans: Orphans,
    state: Arc<AtomicU8>,
}

impl Drop for Sender {
    fn drop(&mut self) {
        // Counted before it is said, so that whoever ends the work never takes away what is not there.
        self.orphans.0.fetch_add(1, Ordering::SeqCst);
        if self.state.compare_exchange(ATTENDED, LEFT, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            self.orphans.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The work on the request; dropped when it is done.
struct Work {
    orphans: Orphans,
    state: Arc<AtomicU8>,
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.state.swap(DONE, Ordering::SeqCst) == LEFT {
            self.orphans.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Sees a request that changes something through to its end, also when whoever sent it goes away meanwhile. What it has put
/// into the store would otherwise lie there until somebody looks: nobody would have been woken for it.
///
/// Where too many go on like that, further ones are answered with 503: somebody who sends and hangs up would fill the memory.
pub(super) async fn detach(State(orphans): State<Orphans>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        // What is only read is for whoever waits for it.
        return next.run(request).await;
    }
    if orphans.are_too_many() {
        tracing::warn!(most = MOST_ORPHANS, "a request is turned away: too many go on whose senders have hung up");
        let detail = "too many requests are being worked on whose senders have hung up";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    }
    let state = Arc::new(AtomicU8::new(ATTENDED));
    let _sender = Sender { orphans: orphans.clone(), state: Arc::clone(&state) };
    let work = Work { orphans, state };
    let ended = tokio::spawn(async move {
        let answer = next.run(request).await;
        drop(work);
        answer
    });
    // Panics are caught inside, so that this says only that the runtime ends.
    ended
        .await
        .unwrap_or_else(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the service is ending").into_response())
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
    async fn what_was_asked_for_is_done_though_nobody_waits_for_the_answer() {
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
        until("the server notices that nobody is there any more", || orphans.0.load(Ordering::SeqCst) == 1).await;
        go.notify_one();
        tokio::time::timeout(Duration::from_secs(10), done.notified()).await.unwrap();
        until("the work is counted no more", || orphans.0.load(Ordering::SeqCst) == 0).await;
    }

    #[tokio::test]
    async fn who_sends_and_hangs_up_again_and_again_is_turned_away() {
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
        assert!(!orphans.are_too_many(), "somebody waits for each of them");
        drop(senders);
        until("all have hung up", || orphans.are_too_many()).await;
        let turned_away = answer(send(address, "POST").await).await;
        assert!(turned_away.starts_with("HTTP/1.1 503 ") && turned_away.contains("\r\nretry-after: "), "{turned_away}");
        assert!(answer(send(address, "GET").await).await.starts_with("HTTP/1.1 200 "));

        // They end, and others have their turn.
        go.add_permits(MOST_ORPHANS + 1);
        until("all have ended", || orphans.0.load(Ordering::SeqCst) == 0).await;
        assert!(answer(send(address, "POST").await).await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn what_was_answered_or_has_failed_is_counted_no_more() {
        let orphans = Orphans::default();
        async fn defect() -> StatusCode {
            panic!("a defect")
        }
        let routes = Router::new().route("/", post(defect).put(|| async {}));
        let address = serve(routes, orphans.clone()).await;
        assert!(answer(send(address, "PUT").await).await.starts_with("HTTP/1.1 200 "));
        assert!(answer(send(address, "POST").await).await.starts_with("HTTP/1.1 503 "));
        until("nothing goes on", || orphans.0.load(Ordering::SeqCst) == 0).await;
    }
}
