use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode};

use super::Problem;

/// Sees a request that changes something through to its end, also when whoever sent it goes away meanwhile. What it has put
/// into the store would otherwise lie there until somebody looks: nobody would have been woken for it.
pub(super) async fn detach(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        // What is only read is for whoever waits for it.
        return next.run(request).await;
    }
    let ended = tokio::spawn(next.run(request)).await;
    // Panics are caught inside, so that this says only that the runtime ends.
    ended.unwrap_or_else(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the service is ending").into_response())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use axum::Router;
    use axum::routing::post;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Notify;

    use super::*;

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
        let routes = Router::new().route("/", post(handler)).layer(axum::middleware::from_fn(detach));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let mut sender = TcpStream::connect(address).await.unwrap();
        sender.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        begun.notified().await;
        drop(sender);
        // The server notices that nobody is there any more.
        tokio::time::sleep(Duration::from_millis(200)).await;
        go.notify_one();
        tokio::time::timeout(Duration::from_secs(10), done.notified()).await.unwrap();
    }
}
