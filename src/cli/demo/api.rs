//! A client of the demo's server, with the stream, which no other command uses.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::Response;
use url::Url;

use super::workspace::{API_TOKEN, Workspace};
use crate::api::{
    EnvironmentView, EventDetailView, EventView, Matrix, PreviewView, PromotionBody, RequestView, RollbackBody,
    StreamMessage,
};
use crate::cli::api::{Api, ServerOptions};

/// A client with the requests of the tour.
pub(super) struct Client {
    api: Api,
    base: Url,
}

impl Client {
    pub(super) fn new(base: Url, workspace: &Workspace) -> anyhow::Result<Self> {
        let api = Api::new(ServerOptions::at(base.clone(), workspace.secret(API_TOKEN)))?;
        Ok(Self { api, base })
    }

    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    pub(super) async fn environments(&self) -> anyhow::Result<Vec<EnvironmentView>> {
        Ok(self.api.get(&["environments"], &[]).await?.read::<Matrix>()?.environments)
    }

    pub(super) async fn event(&self, id: &str) -> anyhow::Result<EventView> {
        Ok(self.api.get(&["events", id], &[]).await?.read::<EventDetailView>()?.event)
    }

    /// Sends a dry run.
    pub(super) async fn preview(&self, body: &PromotionBody) -> anyhow::Result<PreviewView> {
        self.api.post(&["promotions"], body).await?.read()
    }

    pub(super) async fn promote(&self, body: &PromotionBody) -> anyhow::Result<RequestView> {
        self.api.post(&["promotions"], body).await?.read()
    }

    pub(super) async fn roll_back(&self, body: &RollbackBody) -> anyhow::Result<RequestView> {
        self.api.post(&["rollbacks"], body).await?.read()
    }

    /// Returns a promotion or rollback once it has ended, or its state after `wait`.
    pub(super) async fn wait(&self, id: &str, wait: Duration) -> anyhow::Result<RequestView> {
        self.api.get_when_done(&["promotions", id], wait).await?.read()
    }

    /// Opens the stream.
    pub(super) async fn stream(&self) -> anyhow::Result<MessageStream> {
        Ok(MessageStream { response: self.api.open(&["stream"]).await?, unread: Vec::new() })
    }
}

/// Reads server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
pub(super) struct MessageStream {
    response: Response,
    unread: Vec<u8>,
}

impl MessageStream {
    /// Returns the next message. Cancelling the call loses no message.
    ///
    /// # Errors
    ///
    /// If the server closes the stream.
    pub(super) async fn next(&mut self) -> anyhow::Result<StreamMessage> {
        loop {
            while let Some(block) = take_block(&mut self.unread) {
                if let Some(message) = parse(&block)? {
                    return Ok(message);
                }
            }
            let chunk = self.response.chunk().await.context("the server's stream broke off")?;
            self.unread.extend_from_slice(&chunk.context("the server closed its stream")?);
        }
    }
}

/// Removes and returns the text before the next blank line. `None`: there is no blank line yet.
fn take_block(unread: &mut Vec<u8>) -> Option<String> {
    let end = unread.windows(2).position(|pair| pair == b"\n\n")?;
    let block = unread.drain(..end + 2).collect::<Vec<u8>>();
    Some(String::from_utf8_lossy(&block).into_owned())
}

/// Returns `None` for keep-alive comments, and for the event `missed`.
fn parse(block: &str) -> anyhow::Result<Option<StreamMessage>> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    match (field("event"), field("data")) {
        (None, _) | (_, None) | (Some("missed"), _) => Ok(None),
        (Some(_), Some(data)) => serde_json::from_str(data).map(Some).context("the stream has an unexpected message"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::StreamSubject;

    #[test]
    fn messages_are_read_and_other_blocks_skipped() {
        let message = StreamMessage {
            at: "2026-11-23T08:00:00Z".parse().unwrap(),
            subject: StreamSubject::Hold {
                id: "1".to_owned(),
                environment: "production".to_owned(),
                repository: "r/a".to_owned(),
                state: "made".to_owned(),
            },
        };
        let data = serde_json::to_string(&message).unwrap();
        let mut unread =
            format!(": alive\n\nevent: missed\ndata: 3\n\nevent: hold\ndata: {data}\n\nevent: ho").into_bytes();
        let blocks: Vec<_> = std::iter::from_fn(|| take_block(&mut unread)).collect();
        assert_eq!(unread, b"event: ho");
        let read: Vec<_> = blocks.iter().filter_map(|block| parse(block).unwrap()).collect();
        assert_eq!(read, [message]);
    }

    #[test]
    fn unknown_kind_is_accepted() {
        let block = "event: moon\ndata: {\"at\":\"2026-11-23T08:00:00Z\",\"kind\":\"moon\",\"until\":1}\n\n";
        assert_eq!(parse(block).unwrap().unwrap().subject, StreamSubject::Other);
    }
}
