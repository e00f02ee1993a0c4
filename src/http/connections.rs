//! Limits connections: their number, their idle time, and the time to send the headers of a request.
//!
//! A connection that is idle for too long, or sends its headers too slowly, is closed. When all connections are in use, a
//! new one replaces the connection that has waited for a request the longest, so idle connections cannot lock others out.

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

use super::slots::{Class, Slot, Slots};
use super::tls::Tls;
use super::{CurrentRoutes, Problem};

/// The limits of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// How many connections are open at once.
    pub connections: usize,
    /// The time from the first byte of a request to the end of its headers.
    pub header_time: Duration,
    /// The time without a request. Longer than the idle time of usual proxies (60 seconds), so that the proxy closes the
    /// connection first: a request that meets a closing connection is lost.
    pub idle_time: Duration,
}

impl ConnectionLimits {
    /// Returns the limits for a number of connections, with 10 s for headers and 75 s idle time.
    pub fn new(connections: usize) -> Self {
        Self { connections, header_time: Duration::from_secs(10), idle_time: Duration::from_secs(75) }
    }
}

/// The largest headers, and the largest buffer of a connection besides a body, in bytes.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// How often refused connections are logged.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Serves connections until `stopped` is true and all running requests are answered.
pub async fn serve(
    listener: TcpListener,
    routes: CurrentRoutes,
    limits: ConnectionLimits,
    tls: Option<Tls>,
    mut stopped: watch::Receiver<bool>,
) {
    let slots = Arc::new(Slots::new(limits.connections));
    let all = Arc::new(Connections { limits, open: Mutex::default(), slots });
    let mut tasks = JoinSet::new();
    if let Some(tls) = &tls {
        tasks.spawn(tls.clone().watch(stopped.clone()));
    }
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
                // Responses are sent in one write; Nagle's algorithm would only delay them.
                let _ = stream.set_nodelay(true);
                let (routes, stopped) = (routes.clone(), stopped.clone());
                match tls.clone() {
                    None => tasks.spawn(run(stream, place, routes, stopped)),
                    Some(tls) => tasks.spawn(run_over_tls(tls, stream, place, routes, stopped)),
                };
            }
            None => {
                // Over TLS there is no time for a handshake: the connection is closed.
                if tls.is_none() {
                    refuse(&stream);
                }
                if refusal_logged.is_none_or(|when| when.elapsed() > REFUSAL_LOG_INTERVAL) {
                    refusal_logged = Some(Instant::now());
                    let connections = limits.connections;
                    tracing::warn!(connections, "connections refused: all of max_connections have running requests");
                }
            }
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// Returns when the listener is to be closed.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    // An error means that the sender was dropped, so the server is gone.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Waits a second unless the error concerns only one connection: without free file handles, every attempt fails at once.
async fn pause_after(error: &io::Error) {
    let of_one_connection =
        [io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
    if !of_one_connection.contains(&error.kind()) {
        tracing::error!(%error, "connections cannot be accepted");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Sends a 503 without waiting: if it does not fit into the socket's buffer, the connection is closed without it.
fn refuse(stream: &TcpStream) {
    let answer =
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let _ = stream.try_write(answer);
}

/// The open connections of a listener.
struct Connections {
    limits: ConnectionLimits,
    open: Mutex<(u64, HashMap<u64, Arc<Connection>>)>,
    slots: Arc<Slots>,
}

/// The state of a connection.
struct Connection {
    phase: Mutex<Phase>,
    displaced: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No byte of a request has arrived since this time.
    Idle(Instant),
    /// The first byte of a request arrived at this time.
    Header(Instant),
    /// A request is running.
    Busy,
    /// Replaced by a new connection; to be closed.
    Displaced,
}

/// An open connection's entry in the list. Dropping it removes the entry.
struct Place {
    all: Arc<Connections>,
    id: u64,
    connection: Arc<Connection>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    /// Returns a place for a new connection. If all places are taken, it replaces the connection that has waited for a
    /// request the longest. `None`: all have a running request.
    fn admit(self: &Arc<Self>) -> Option<Place> {
        let mut open = lock(&self.open);
        let (next, connections) = &mut *open;
        if connections.len() >= self.limits.connections {
            let waiting = connections.iter().filter_map(|(id, connection)| Some((connection.waits_since()?, *id)));
            let (_, longest) = waiting.min()?;
            // A request may have arrived since; then the new connection is refused.
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

    /// Marks the connection as replaced and returns true, unless a request is running.
    fn displace(&self) -> bool {
        let mut phase = lock(&self.phase);
        let waits = matches!(*phase, Phase::Idle(_) | Phase::Header(_));
        if waits {
            *phase = Phase::Displaced;
            self.displaced.notify_one();
        }
        waits
    }

    fn bytes_arrived(&self) {
        let mut phase = lock(&self.phase);
        if let Phase::Idle(_) = *phase {
            *phase = Phase::Header(Instant::now());
        }
    }

    fn request_arrived(self: &Arc<Self>) -> Answering {
        let mut phase = lock(&self.phase);
        if *phase != Phase::Displaced {
            *phase = Phase::Busy;
        }
        Answering(Arc::clone(self))
    }

    /// Returns when the connection is closed for being idle or slow. `None`: a request is running.
    fn deadline(&self, limits: &ConnectionLimits) -> Option<Instant> {
        match *lock(&self.phase) {
            Phase::Idle(since) => Some(since + limits.idle_time),
            Phase::Header(since) => Some(since + limits.header_time),
            Phase::Busy | Phase::Displaced => None,
        }
    }
}

/// Marks a connection as busy until the response is sent.
struct Answering(Arc<Connection>);

impl Drop for Answering {
    fn drop(&mut self) {
        let mut phase = lock(&self.0.phase);
        if *phase == Phase::Busy {
            *phase = Phase::Idle(Instant::now());
        }
    }
}

/// Serves a connection after its handshake. One that is too slow, or is replaced meanwhile, is closed.
async fn run_over_tls(
    tls: Tls,
    stream: TcpStream,
    place: Place,
    routes: CurrentRoutes,
    mut stopped: watch::Receiver<bool>,
) {
    let connection = Arc::clone(&place.connection);
    let stream = tokio::select! {
        stream = tls.accept(stream) => stream,
        () = tokio::time::sleep(place.all.limits.header_time) => return,
        () = connection.displaced.notified() => return,
        () = stop(&mut stopped) => return,
    };
    match stream {
        Ok(stream) => run(stream, place, routes, stopped).await,
        Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
    }
}

/// Serves one connection until it ends, is too slow, or is replaced.
async fn run<S>(stream: S, place: Place, routes: CurrentRoutes, mut stopped: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Arc::clone(&place.connection);
    let limits = place.all.limits;
    let answering = Arc::clone(&connection);
    let slots = Arc::clone(&place.all.slots);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let answering = answering.request_arrived();
        // Looked up for each request, so that a kept connection uses the new routes after a reload.
        let (router, receivers) = routes.get();
        let class = Class::of(request.uri().path(), &receivers);
        let response = slots.enter(class.clone(), &receivers).ok_or(class).map(|slot| {
            let response = TowerToHyperService::new(router).call(request);
            (response, slot)
        });
        async move {
            let (response, slot) = match response {
                Ok((response, slot)) => (response.await?, Some(slot)),
                Err(class) => (crowded(&class), None),
            };
            Ok::<_, Infallible>(response.map(|body| Answer { body, _answering: answering, _slot: slot }))
        }
    });
    let stream = TokioIo::new(Watched { stream, connection: Arc::clone(&connection) });
    let mut serving = pin!(
        http1::Builder::new()
            .max_buf_size(MAX_HEADER_BYTES)
            // The clock below replaces it: it also measures the idle time.
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

/// The answer to a request of a class whose share is used up. It closes the connection, whose place others can use.
fn crowded(class: &Class) -> http::Response<Body> {
    tracing::debug!(?class, "request refused: the rest of max_connections is kept for others");
    let detail = "too many requests of this kind at once: try again later";
    let problem = Problem::new(http::StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(Duration::from_secs(1));
    let mut response = axum::response::IntoResponse::into_response(problem);
    response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    response
}

/// The body of a response. The request counts as running until it is dropped.
struct Answer {
    body: Body,
    _answering: Answering,
    _slot: Option<Slot>,
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

/// A stream that reports arriving bytes to its connection.
struct Watched<S> {
    stream: S,
    connection: Arc<Connection>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.connection.bytes_arrived();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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
        Arc::new(Connections {
            limits: ConnectionLimits::new(number),
            open: Mutex::default(),
            slots: Arc::new(Slots::new(number)),
        })
    }

    /// Makes later times differ from earlier ones.
    fn pass() {
        std::thread::sleep(Duration::from_millis(2));
    }

    #[test]
    fn longest_idle_connection_is_replaced() {
        let all = connections(2);
        let first = all.admit().unwrap();
        pass();
        let second = all.admit().unwrap();
        let running = first.connection.request_arrived();
        let third = all.admit().unwrap();
        assert_eq!(*lock(&second.connection.phase), Phase::Displaced);
        drop(second);
        let also_running = third.connection.request_arrived();
        assert!(all.admit().is_none(), "both have a request running");
        drop(running);
        assert!(all.admit().is_some());
        assert_eq!(*lock(&first.connection.phase), Phase::Displaced);
        drop(also_running);
        assert_eq!(lock(&all.open).1.len(), 1);
    }

    #[test]
    fn header_time_starts_at_the_first_byte() {
        let all = connections(1);
        let place = all.admit().unwrap();
        let limits = all.limits;
        let idle_since = place.connection.waits_since().unwrap();
        assert_eq!(place.connection.deadline(&limits), Some(idle_since + limits.idle_time));
        pass();
        place.connection.bytes_arrived();
        let first_byte = place.connection.waits_since().unwrap();
        assert!(first_byte > idle_since);
        pass();
        place.connection.bytes_arrived();
        assert_eq!(place.connection.deadline(&limits), Some(first_byte + limits.header_time));
        let answering = place.connection.request_arrived();
        assert_eq!(place.connection.deadline(&limits), None);
        place.connection.bytes_arrived();
        assert_eq!(place.connection.deadline(&limits), None);
        drop(answering);
        let idle_again = place.connection.waits_since().unwrap();
        assert!(idle_again > first_byte);
        assert_eq!(place.connection.deadline(&limits), Some(idle_again + limits.idle_time));
    }
}
