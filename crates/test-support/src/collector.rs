//! An HTTP endpoint that records requests, for notifications.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::sync::Notify;

#[derive(Clone, Debug)]
pub struct Received {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    /// Returns the events of the envelope.
    pub fn events(&self) -> Vec<Value> {
        let envelope: Value = serde_json::from_slice(&self.body).unwrap();
        envelope["events"].as_array().unwrap().clone()
    }
}

/// A running endpoint at `/events`.
pub struct Collector {
    address: SocketAddr,
    inbox: Arc<Inbox>,
}

#[derive(Default)]
struct Inbox {
    received: Mutex<Vec<Received>>,
    /// How many of the next requests are refused.
    refusals: Mutex<usize>,
    arrived: Notify,
}

impl Collector {
    /// Starts an endpoint that answers 503 to the first `refusals` requests and 202 to all others.
    pub async fn start(refusals: usize) -> Self {
        let inbox = Arc::new(Inbox { refusals: Mutex::new(refusals), ..Inbox::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/events", post(take)).with_state(Arc::clone(&inbox));
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, inbox }
    }

    pub fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// Waits up to 30 seconds until the accepted events satisfy `enough`, and returns the requests.
    pub async fn wait(&self, enough: impl Fn(&[Value]) -> bool) -> Vec<Received> {
        let waiting = async {
            loop {
                let arrived = self.inbox.arrived.notified();
                let received = self.inbox.received.lock().unwrap().clone();
                let events: Vec<Value> = received.iter().flat_map(Received::events).collect();
                if enough(&events) {
                    return received;
                }
                arrived.await;
            }
        };
        let limit = std::time::Duration::from_secs(30);
        let received = tokio::time::timeout(limit, waiting).await;
        received.unwrap_or_else(|_| panic!("too few events arrived: {:#?}", self.inbox.received.lock().unwrap()))
    }
}

async fn take(State(inbox): State<Arc<Inbox>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    {
        let mut refusals = inbox.refusals.lock().unwrap();
        if *refusals > 0 {
            *refusals -= 1;
            return StatusCode::SERVICE_UNAVAILABLE;
        }
    }
    inbox.received.lock().unwrap().push(Received { headers, body });
    inbox.arrived.notify_waiters();
    StatusCode::ACCEPTED
}
