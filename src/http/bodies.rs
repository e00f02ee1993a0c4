//! Reads the bodies of a receiver's requests, with bounds on their number, size and time.
//!
//! A signature can only be checked after the body has been read, so strangers reach this code. Each receiver has its own
//! bounds, so a flood on one does not affect the others.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use futures_util::StreamExt as _;
use http::{HeaderMap, StatusCode, header};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Problem;

/// How long reading a body may take.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// The upper limit.
    limit: Duration,
    /// The limit while other requests wait.
    limit_if_busy: Duration,
    /// How often to check whether other requests wait.
    poll_interval: Duration,
}

const TIMES: Times = Times {
    limit: Duration::from_secs(15),
    limit_if_busy: Duration::from_secs(2),
    poll_interval: Duration::from_millis(250),
};

/// How many bodies are read at once.
const MAX_READING: usize = 64;

/// How many more requests may wait for their turn or for memory: as many as a busy registry sends at once. Further ones are
/// rejected at once, because each waiting request occupies one of the connections that all receivers share.
const MAX_WAITING: usize = 256;

/// How many bytes all bodies that are being read may have together; at least twice `max_body_bytes`.
const MEMORY: usize = 8 * 1024 * 1024;

/// The limits of one receiver.
pub(super) struct Bodies {
    max_bytes: usize,
    times: Times,
    slots: Semaphore,
    memory: Semaphore,
    waiting: AtomicUsize,
}

/// A body. Dropping it releases its slot and its memory.
pub(super) struct Held<'b> {
    pub(super) bytes: Bytes,
    _slot: SemaphorePermit<'b>,
    _memory: SemaphorePermit<'b>,
}

impl Bodies {
    /// `max_bytes` is the size of the largest accepted body.
    pub(super) fn new(max_bytes: usize) -> Self {
        let memory = MEMORY.max(max_bytes.saturating_mul(2)).min(Semaphore::MAX_PERMITS);
        let slots = Semaphore::new(MAX_READING);
        Self { max_bytes, times: TIMES, slots, memory: Semaphore::new(memory), waiting: AtomicUsize::new(0) }
    }

    /// Rejects a body whose `Content-Length` is too large.
    pub(super) fn check_length(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > self.max_bytes as u64) { Err(self.too_large()) } else { Ok(()) }
    }

    /// Reads a body of at most `max_bytes`.
    pub(super) async fn read(&self, body: Body) -> Result<Held<'_>, Problem> {
        let read = async {
            let slot = self.acquire(&self.slots, 1).await?;
            tokio::select! {
                held = self.collect(body, slot) => held,
                () = self.overdue() => Err(busy()),
            }
        };
        tokio::time::timeout(self.times.limit, read)
            .await
            .unwrap_or_else(|_| Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took longer than 15 seconds")))
    }

    async fn collect<'b>(&'b self, body: Body, slot: SemaphorePermit<'b>) -> Result<Held<'b>, Problem> {
        let mut chunks = body.into_data_stream();
        let mut memory = self.acquire(&self.memory, 0).await?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            // The client is gone, but log and metrics need an outcome other than `too_large`.
            let chunk = chunk.map_err(|_| Problem::bad_request("the body is incomplete"))?;
            if chunk.len() > self.max_bytes - bytes.len() {
                return Err(self.too_large());
            }
            memory.merge(self.acquire(&self.memory, chunk.len()).await?);
            bytes.extend_from_slice(&chunk);
        }
        Ok(Held { bytes: bytes.freeze(), _slot: slot, _memory: memory })
    }

    /// Acquires permits, waiting if none are free. Fails if too many requests wait already.
    async fn acquire<'b>(&self, what: &'b Semaphore, amount: usize) -> Result<SemaphorePermit<'b>, Problem> {
        // A chunk is never larger than a body, so this always succeeds.
        let amount = u32::try_from(amount).map_err(|_| self.too_large())?;
        if let Ok(permit) = what.try_acquire_many(amount) {
            return Ok(permit);
        }
        let _waiting = Waiting::begin(&self.waiting).ok_or_else(busy)?;
        // The semaphores are never closed.
        what.acquire_many(amount).await.map_err(|_| busy())
    }

    /// Returns once `limit_if_busy` is over and other requests wait.
    async fn overdue(&self) {
        tokio::time::sleep(self.times.limit_if_busy).await;
        while self.waiting.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(self.times.poll_interval).await;
        }
    }

    fn too_large(&self) -> Problem {
        let detail = format!("the body is larger than max_body_bytes ({})", self.max_bytes);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }
}

/// Reads and drops the rest of a rejected request, for at most 250 ms. Otherwise the sender would see a broken connection
/// instead of the response.
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

/// A waiting request. Counted until it is dropped.
struct Waiting<'c>(&'c AtomicUsize);

impl<'c> Waiting<'c> {
    fn begin(count: &'c AtomicUsize) -> Option<Self> {
        let waiting = Self(count);
        // If it is one too many, dropping `waiting` takes it out of the count again.
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

    /// Returns limits with short times in the same proportions.
    fn bodies(max_bytes: usize) -> Bodies {
        let times = Times {
            limit: Duration::from_millis(1500),
            limit_if_busy: Duration::from_millis(200),
            poll_interval: Duration::from_millis(25),
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
    async fn slow_body_has_its_full_time_unless_requests_wait() {
        let bodies = bodies(1000);
        // Two timers of one clock: that of the test is the shorter one.
        let shorter = bodies.times.limit - Duration::from_millis(100);
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
    async fn slow_bodies_make_room_for_waiting_requests_and_further_ones_are_rejected() {
        let bodies = bodies(1000);
        let ended = std::sync::Mutex::new(Vec::new());
        let slow = futures_util::future::join_all((0..MAX_READING).map(|_| async {
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
        assert_eq!(ended.lock().unwrap()[0], "beyond", "it is rejected before any of the slow bodies ends");
        assert_eq!(bodies.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn memory_of_all_bodies_is_bounded() {
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
