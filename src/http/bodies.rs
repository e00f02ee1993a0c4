//! Reads the bodies of one receiver's requests: bounded in their number, their bytes and their time.
//!
//! Nobody has shown a signature before the body has been read, so this is the part that anybody can use. Each receiver
//! has its own bounds, so that a flood on one leaves the others alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use futures_util::StreamExt as _;
use http::{HeaderMap, StatusCode, header};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Problem;

/// How long a body may take.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// In any case.
    any: Duration,
    /// While others wait for its place.
    in_a_crowd: Duration,
    /// How often it is looked whether others wait.
    look_again: Duration,
}

const TIMES: Times =
    Times { any: Duration::from_secs(15), in_a_crowd: Duration::from_secs(2), look_again: Duration::from_millis(250) };

/// How many bodies are read at once.
const AT_ONCE: usize = 64;

/// How many more requests may wait for that, or for memory: as many as a busy registry sends at once. Those beyond are
/// turned away at once: every one that waits keeps one of the connections that all receivers have together.
const MAX_WAITING: usize = 256;

/// How many bytes the bodies that are being read may have together, unless one alone may have half as many.
const MEMORY: usize = 8 * 1024 * 1024;

/// The bodies of one receiver.
pub(super) struct Bodies {
    max_bytes: usize,
    times: Times,
    room: Semaphore,
    memory: Semaphore,
    waiting: AtomicUsize,
}

/// A body, which gives its place and its memory back when it goes.
pub(super) struct Held<'b> {
    pub(super) bytes: Bytes,
    _room: SemaphorePermit<'b>,
    _memory: SemaphorePermit<'b>,
}

impl Bodies {
    /// `max_bytes` is the largest body that is read.
    pub(super) fn new(max_bytes: usize) -> Self {
        let memory = MEMORY.max(max_bytes.saturating_mul(2)).min(Semaphore::MAX_PERMITS);
        let room = Semaphore::new(AT_ONCE);
        Self { max_bytes, times: TIMES, room, memory: Semaphore::new(memory), waiting: AtomicUsize::new(0) }
    }

    /// Refuses a body that says of itself that it is longer than it may be.
    pub(super) fn check_length(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > self.max_bytes as u64) { Err(self.too_large()) } else { Ok(()) }
    }

    /// Reads a body that is no longer than it may be.
    pub(super) async fn read(&self, body: Body) -> Result<Held<'_>, Problem> {
        let read = async {
            let room = self.take(&self.room, 1).await?;
            tokio::select! {
                held = self.collect(body, room) => held,
                () = self.crowd() => Err(busy()),
            }
        };
        tokio::time::timeout(self.times.any, read)
            .await
            .unwrap_or_else(|_| Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took longer than 15 seconds")))
    }

    async fn collect<'b>(&'b self, body: Body, room: SemaphorePermit<'b>) -> Result<Held<'b>, Problem> {
        let mut chunks = body.into_data_stream();
        let mut memory = self.take(&self.memory, 0).await?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            // Nobody reads this answer, but the log and the metrics tell it from a body that is too large.
            let chunk = chunk.map_err(|_| Problem::bad_request("the body broke off"))?;
            if chunk.len() > self.max_bytes - bytes.len() {
                return Err(self.too_large());
            }
            memory.merge(self.take(&self.memory, chunk.len()).await?);
            bytes.extend_from_slice(&chunk);
        }
        Ok(Held { bytes: bytes.freeze(), _room: room, _memory: memory })
    }

    /// Takes a part of what there is, and waits for it where it has to.
    async fn take<'b>(&self, what: &'b Semaphore, amount: usize) -> Result<SemaphorePermit<'b>, Problem> {
        // A chunk is no longer than a body, so that this always fits.
        let amount = u32::try_from(amount).map_err(|_| self.too_large())?;
        if let Ok(permit) = what.try_acquire_many(amount) {
            return Ok(permit);
        }
        let _waiting = Waiting::begin(&self.waiting).ok_or_else(busy)?;
        // The semaphores are never closed.
        what.acquire_many(amount).await.map_err(|_| busy())
    }

    /// Returns when a body that has been read since now has had its time and others wait.
    async fn crowd(&self) {
        tokio::time::sleep(self.times.in_a_crowd).await;
        while self.waiting.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(self.times.look_again).await;
        }
    }

    fn too_large(&self) -> Problem {
        let detail = format!("the body is larger than max_body_bytes, which is {}", self.max_bytes);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }
}

/// Reads what is left of a refused request, so that the sender sees the answer and no broken connection: for a moment
/// only, and nothing of it is kept.
pub(super) async fn discard(body: Body) {
    const MAX_BYTES: usize = 1024 * 1024;
    let read = async {
        let mut chunks = body.into_data_stream();
        let mut bytes = 0;
        while let Some(Ok(chunk)) = chunks.next().await {
            bytes += chunk.len();
            if bytes > MAX_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(250), read).await;
}

fn busy() -> Problem {
    let detail = "the receiver has too many requests at once: try again later";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(Duration::from_secs(1))
}

/// One who waits, counted as long as it lives.
struct Waiting<'c>(&'c AtomicUsize);

impl<'c> Waiting<'c> {
    fn begin(count: &'c AtomicUsize) -> Option<Self> {
        let waiting = Self(count);
        // It counts itself, and goes again where it is one too many.
        (count.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// With times that a test can wait for, in the same proportions.
    fn bodies(max_bytes: usize) -> Bodies {
        let times = Times {
            any: Duration::from_millis(1500),
            in_a_crowd: Duration::from_millis(200),
            look_again: Duration::from_millis(25),
        };
        Bodies { times, ..Bodies::new(max_bytes) }
    }

    fn pending() -> Body {
        Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>())
    }

    fn first_of(bytes: usize) -> Body {
        let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; bytes]))]);
        Body::from_stream(first.chain(stream::pending()))
    }

    async fn outcome(bodies: &Bodies, body: Body) -> &'static str {
        bodies.read(body).await.map_or_else(|problem| problem.outcome(), |_| "read")
    }

    #[tokio::test]
    async fn a_slow_body_has_its_time_as_long_as_nobody_waits() {
        let bodies = bodies(1000);
        // Two timers of one clock: that of the test is the shorter one.
        let shorter = bodies.times.any - Duration::from_millis(100);
        let reading = outcome(&bodies, pending());
        tokio::pin!(reading);
        tokio::select! {
            biased;
            () = tokio::time::sleep(shorter) => {}
            outcome = &mut reading => panic!("{outcome} before its time"),
        }
        assert_eq!(reading.await, "too_slow");
    }

    #[tokio::test]
    async fn slow_bodies_make_room_for_those_who_wait_and_the_rest_is_turned_away() {
        let bodies = bodies(1000);
        let ended = std::sync::Mutex::new(Vec::new());
        let slow = futures_util::future::join_all((0..AT_ONCE).map(|_| async {
            let outcome = outcome(&bodies, pending()).await;
            ended.lock().unwrap().push("slow");
            outcome
        }));
        let waiting = futures_util::future::join_all((0..MAX_WAITING).map(|_| outcome(&bodies, Body::from("{}"))));
        let beyond = async {
            tokio::task::yield_now().await;
            let outcome = outcome(&bodies, Body::from("{}")).await;
            ended.lock().unwrap().push("beyond");
            outcome
        };
        let (slow, waiting, beyond) = tokio::join!(slow, waiting, beyond);
        assert!(slow.contains(&"unavailable"));
        assert!(waiting.iter().all(|outcome| *outcome == "read"), "{waiting:?}");
        assert_eq!(beyond, "unavailable");
        assert_eq!(ended.lock().unwrap()[0], "beyond", "it is turned away before any of the slow bodies ends");
        assert_eq!(bodies.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn bodies_have_so_much_memory_together_and_no_more() {
        let bodies = bodies(1024 * 1024);
        let large = futures_util::future::join_all((0..20).map(|_| outcome(&bodies, first_of(1_000_000))));
        let looking = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(bodies.memory.available_permits() < 1_000_000);
            assert_eq!(bodies.waiting.load(Ordering::Relaxed), 12);
        };
        let _ = tokio::join!(large, looking);
        assert_eq!(bodies.memory.available_permits(), MEMORY);
        assert_eq!(outcome(&bodies, Body::from(vec![b'x'; 1024 * 1024])).await, "read");
        assert_eq!(outcome(&bodies, Body::from(vec![b'x'; 1024 * 1024 + 1])).await, "too_large");
    }
}
