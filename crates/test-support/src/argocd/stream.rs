//! The stream of applications.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::FakeArgoCd;
use super::answers::{filtered, is_selected, obstacle};

/// How the stream behaves. The default has none, as a server behind a proxy that cuts streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Streaming {
    is_on: bool,
    /// Delivers each line in two halves, the second one after a pause.
    is_halved: bool,
    /// Counts up to end all streams.
    epoch: u64,
}

/// The time between two steps of the applications while a stream is open.
const STEP: Duration = Duration::from_millis(50);

impl FakeArgoCd {
    /// Turns the stream on or off. Off ends open streams.
    pub fn streams(&self, is_on: bool) {
        let mut inside = self.inside.lock().unwrap();
        inside.streaming.is_on = is_on;
        inside.streaming.epoch += 1;
        drop(inside);
        self.notify();
    }

    /// Delivers lines of streams in halves.
    pub fn halves_lines(&self) {
        self.inside.lock().unwrap().streaming.is_halved = true;
    }

    /// Ends all open streams.
    pub fn cuts_streams(&self) {
        self.inside.lock().unwrap().streaming.epoch += 1;
        self.notify();
    }
}

pub(super) async fn stream(
    State(fake): State<FakeArgoCd>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
    uri: http::Uri,
) -> Response {
    if let Some(refusal) = obstacle(&fake, &headers, format!("GET {uri}")) {
        return refusal;
    }
    let begun = fake.inside.lock().unwrap().streaming;
    if !begun.is_on {
        return (StatusCode::NOT_IMPLEMENTED, "streams are cut").into_response();
    }
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, Infallible>>(16);
    tokio::spawn(async move {
        let mut changed = fake.changed.subscribe();
        let mut sent: BTreeMap<String, Value> = BTreeMap::new();
        let mut version = 5000;
        loop {
            changed.borrow_and_update();
            let (streaming, documents) = {
                let mut inside = fake.inside.lock().unwrap();
                let names: Vec<String> = inside
                    .apps
                    .iter()
                    .filter(|(_, app)| is_selected(app, &query))
                    .map(|(name, _)| name.clone())
                    .collect();
                let documents: BTreeMap<String, Value> =
                    names.into_iter().map(|name| (name.clone(), inside.document(&name))).collect();
                (inside.streaming, documents)
            };
            if streaming.epoch != begun.epoch || !streaming.is_on {
                return;
            }
            let gone: Vec<String> = sent.keys().filter(|name| !documents.contains_key(*name)).cloned().collect();
            let mut events: Vec<(&str, Value)> =
                gone.iter().map(|name| ("DELETED", sent.remove(name).unwrap())).collect();
            for (name, document) in documents {
                let kind = match sent.get(&name) {
                    Some(known) if *known == document => continue,
                    Some(_) => "MODIFIED",
                    None => "ADDED",
                };
                sent.insert(name, document.clone());
                events.push((kind, document));
            }
            for (kind, mut document) in events {
                version += 1;
                document["metadata"]["resourceVersion"] = json!(version.to_string());
                let whole = json!({"result": {"type": kind, "application": document}});
                let fields: Vec<&str> =
                    query.get("fields").map(|fields| fields.split(',').collect()).unwrap_or_default();
                let shown = if fields.is_empty() { whole } else { filtered(&whole, &fields) };
                let line = format!("{shown}\n");
                let (first, second) = line.split_at(if streaming.is_halved { line.len() / 2 } else { 0 });
                for part in [first, second] {
                    if streaming.is_halved {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    if sender.send(Ok(Bytes::copy_from_slice(part.as_bytes()))).await.is_err() {
                        return;
                    }
                }
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(STEP) => fake.step(),
                () = sender.closed() => return,
            }
        }
    });
    Body::from_stream(futures_util::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|part| (part, receiver))
    }))
    .into_response()
}

impl FakeArgoCd {
    /// Takes the next step of every application.
    fn step(&self) {
        let moved = {
            let mut inside = self.inside.lock().unwrap();
            let names: Vec<String> = inside.apps.keys().cloned().collect();
            names.iter().fold(false, |moved, name| inside.advance(name) | moved)
        };
        if moved {
            self.notify();
        }
    }
}
