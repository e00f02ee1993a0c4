//! Connections: how many, and how long one may take to say what it wants.
//!
//! Who has sent no request for too long, or sends one byte a second, is cut off. When all connections are in use, the
//! one that has been without a request for the longest makes room, so that nobody who only opens connections can
//! keep others out.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::CurrentRoutes;

/// What a listener allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// How many connections are open at once.
    pub connections: usize,
    /// From the first byte of a request to the end of its headers.
    pub header_time: Duration,
    /// Without a request. Longer than the proxies in front of us keep theirs (60 seconds), so that it is them who close:
    /// a request that meets a closing connection is lost.
    pub idle_time: Duration,
}

impl ConnectionLimits {
    /// Returns the limits for so many connections, with the usual times.
    pub fn new(connections: usize) -> Self {
        Self { connections, header_time: Duration::from_secs(10), idle_time: Duration::from_secs(75) }
    }
}

/// The largest headers that are read, in bytes, and the most that one connection buffers beside a body.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// How often the log tells that connections are refused.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Serves connections until `stopped` is true and the answers that are under way have been sent.
pub async fn serve(
    listener: TcpListener,
    routes: CurrentRoutes,
    limits: ConnectionLimits,
    mut stopped: watch::Receiver<bool>,
) {
    let all = Arc::new(Connections { limits, open: Mutex::default() });
    let mut tasks = JoinSet::new();
    let mut refusal_logged: Option<Instant> = None;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            },
            Some(_) = tasks.join_next() => continue,
            () = stop(&mut stopped) => break,
        };
        match all.admit() {
            Some(place) => {
                // Answers are small and whole: waiting for more to send only delays them.
                let _ = stream.set_nodelay(true);
                tasks.spawn(run(stream, place, routes.clone(), stopped.clone()));
            }
            None => {
                refuse(&stream);
                if refusal_logged.is_none_or(|when| when.elapsed() > REFUSAL_LOG_INTERVAL) {
                    refusal_logged = Some(Instant::now());
                    let connections = limits.connections;
                    tracing::warn!(
                        connections,
                        "connections are refused: all of max_connections have requests running"
                    );
                }
            }
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// Returns when nothing more is to be accepted.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    // Fails when whoever could say it has gone, which says it too.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Without file handles left every attempt fails at once.
async fn pause_after(error: &io::Error) {
    let of_one_connection =
        [io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
    if !of_one_connection.contains(&error.kind()) {
        tracing::error!(%error, "a connection cannot be accepted");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Says so where it fits into the socket's buffer; nobody waits for a peer here.
fn refuse(stream: &TcpStream) {
    let answer =
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let _ = stream.try_write(answer);
}

/// The open connections of a listener.
struct Connections {
    limits: ConnectionLimits,
    open: Mutex<(u64, HashMap<u64, Arc<Connection>>)>,
}

/// What is known of one.
struct Connection {
    phase: Mutex<Phase>,
    displaced: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No byte of a request has come since then.
    Idle(Instant),
    /// The headers of a request began to come then.
    Header(Instant),
    /// A request is being answered.
    Busy,
    /// It has to make room.
    Displaced,
}

/// A connection's place among the open ones, which it leaves when it ends.
struct Place {
    all: Arc<Connections>,
    id: u64,
    connection: Arc<Connection>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    /// Returns a place for a new connection, if need be that of the one that has been without a request for the longest,
    /// or `None` when all have a request running.
    fn admit(self: &Arc<Self>) -> Option<Place> {
        let mut open = lock(&self.open);
        let (next, connections) = &mut *open;
        if connections.len() >= self.limits.connections {
            let waiting = connections.iter().filter_map(|(id, connection)| Some((connection.waits_since()?, *id)));
            let (_, longest) = waiting.min()?;
            // It may have got a request since it was looked at; then the next one in its place is refused.
            if !connections.get(&longest)?.displace() {
                return None;
            }
            connections.remove(&longest);
        }
        let connection =
            Arc::new(Connection { phase: Mutex::new(Phase::Idle(Instant::now())), displaced: Notify::new() });
        let id = *next;
        *next += 1;
        connections.insert(id, Arc::clone(&connection));
        Some(Place { all: Arc::clone(self), id, connection })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.all.open).1.remove(&self.id);
    }
}

impl Connection {
    fn waits_since(&self) -> Option<Instant> {
        match *lock(&self.phase) {
            Phase::Idle(since) | Phase::Header(since) => Some(since),
            Phase::Busy | Phase::Displaced => None,
        }
    }

    /// Returns whether it waits, and so can be closed without anybody losing an answer.
    fn displace(&self) -> bool {
        let mut phase = lock(&self.phase);
        let waits = matches!(*phase, Phase::Idle(_) | Phase::Header(_));
        if waits {
            *phase = Phase::Displaced;
            self.displaced.notify_one();
        }
        waits
    }

    fn bytes_came(&self) {
        let mut phase = lock(&self.phase);
        if let Phase::Idle(_) = *phase {
            *phase = Phase::Header(Instant::now());
        }
    }

    fn request_came(self: &Arc<Self>) -> Answering {
        let mut phase = lock(&self.phase);
        if *phase != Phase::Displaced {
            *phase = Phase::Busy;
        }
        Answering(Arc::clone(self))
    }

    /// Returns when it has waited for too long, or `None` while it need not hurry.
    fn deadline(&self, limits: &ConnectionLimits) -> Option<Instant> {
        match *lock(&self.phase) {
            Phase::Idle(since) => Some(since + limits.idle_time),
            Phase::Header(since) => Some(since + limits.header_time),
            Phase::Busy | Phase::Displaced => None,
        }
    }
}

/// Lives while a request is answered.
struct Answering(Arc<Connection>);

impl Drop for Answering {
    fn drop(&mut self) {
        let mut phase = lock(&self.0.phase);
        if *phase == Phase::Busy {
            *phase = Phase::Idle(Instant::now());
        }
    }
}

/// Serves one connection until it ends, is too slow, or has to make room.
async fn run(stream: TcpStream, place: Place, routes: CurrentRoutes, mut stopped: watch::Receiver<bool>) {
    let connection = Arc::clone(&place.connection);
    let limits = place.all.limits;
    let answering = Arc::clone(&connection);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let answering = answering.request_came();
        // A connection that is kept gets the routes that are there when its next request comes.
        let response = TowerToHyperService::new(routes.get()).call(request);
        async move {
            let response = response.await?;
            Ok::<_, Infallible>(response.map(|body| Answer { body, _answering: answering }))
        }
    });
    let stream = TokioIo::new(Watched { stream, connection: Arc::clone(&connection) });
    let mut serving = pin!(
        http1::Builder::new()
            .max_buf_size(MAX_HEADER_BYTES)
            // The clock below is for that: it also knows how long there was no byte at all.
            .header_read_timeout(None)
            .serve_connection(stream, service)
    );
    let mut displaced = pin!(connection.displaced.notified());
    let mut stop = pin!(stop(&mut stopped));
    let mut stopping = false;
    let mut clock = pin!(tokio::time::sleep(limits.idle_time));
    std::future::poll_fn(|context| {
        if !stopping && stop.as_mut().poll(context).is_ready() {
            stopping = true;
            serving.as_mut().graceful_shutdown();
        }
        if serving.as_mut().poll(context).is_ready() || displaced.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some(deadline) = connection.deadline(&limits) else { return Poll::Pending };
        if clock.deadline() != deadline {
            clock.as_mut().reset(deadline);
        }
        clock.as_mut().poll(context)
    })
    .await;
    drop(place);
}

/// The body of an answer, which is under way as long as this lives.
struct Answer {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that tells when bytes come.
struct Watched {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.connection.bytes_came();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(number: usize) -> Arc<Connections> {
        Arc::new(Connections { limits: ConnectionLimits::new(number), open: Mutex::default() })
    }

    /// Lets the clock go on.
    fn pass() {
        std::thread::sleep(Duration::from_millis(2));
    }

    #[test]
    fn the_one_that_waits_longest_makes_room() {
        let all = connections(2);
        let first = all.admit().unwrap();
        pass();
        let second = all.admit().unwrap();
        let running = first.connection.request_came();
        let third = all.admit().unwrap();
        assert_eq!(*lock(&second.connection.phase), Phase::Displaced);
        drop(second);
        let also_running = third.connection.request_came();
        assert!(all.admit().is_none(), "both have a request running");
        drop(running);
        assert!(all.admit().is_some());
        assert_eq!(*lock(&first.connection.phase), Phase::Displaced);
        drop(also_running);
        assert_eq!(lock(&all.open).1.len(), 1);
    }

    #[test]
    fn a_request_begins_with_its_first_byte() {
        let all = connections(1);
        let place = all.admit().unwrap();
        let limits = all.limits;
        let idle_since = place.connection.waits_since().unwrap();
        assert_eq!(place.connection.deadline(&limits), Some(idle_since + limits.idle_time));
        pass();
        place.connection.bytes_came();
        let first_byte = place.connection.waits_since().unwrap();
        assert!(first_byte > idle_since);
        pass();
        place.connection.bytes_came();
        assert_eq!(place.connection.deadline(&limits), Some(first_byte + limits.header_time));
        let answering = place.connection.request_came();
        assert_eq!(place.connection.deadline(&limits), None);
        place.connection.bytes_came();
        assert_eq!(place.connection.deadline(&limits), None);
        drop(answering);
        let idle_again = place.connection.waits_since().unwrap();
        assert!(idle_again > first_byte);
        assert_eq!(place.connection.deadline(&limits), Some(idle_again + limits.idle_time));
    }
}
