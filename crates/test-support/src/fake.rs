//! A fake of a service: a function answers each request, and all requests are kept.

use std::future::IntoFuture as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use tokio::task::JoinHandle;

/// A request to a fake.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// The `Host` header, without a port.
    pub host: String,
    /// The path with the query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Asked {
    /// A header's text; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// A field of a form; empty if it is absent.
    pub fn field(&self, name: &str) -> String {
        let mut pairs = url::form_urlencoded::parse(self.body.as_bytes());
        pairs.find(|(found, _)| found == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    }

    /// `POST sts.example.com/token`.
    pub fn line(&self) -> String {
        format!("{} {}{}", self.method, self.host, self.target)
    }
}

/// The answer of a fake.
#[derive(Debug, Clone)]
pub enum Answer {
    Json(u16, String),
    With(u16, Vec<(&'static str, String)>, String),
    /// Leaves the connection open without an answer.
    Hang,
}

impl Answer {
    fn respond(self) -> Option<Response> {
        let (status, headers, body) = match self {
            Self::Json(status, body) => (status, vec![("content-type", "application/json".to_owned())], body),
            Self::With(status, headers, body) => (status, headers, body),
            Self::Hang => return None,
        };
        let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
        for (name, value) in headers {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        Some(response)
    }
}

pub struct Fake {
    /// `http://127.0.0.1:41873`.
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Fake {
    /// Starts a service that answers each request with this function.
    pub async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (kept, answer) = (Arc::clone(&asked), Arc::new(answer));
        let routes = Router::new().fallback(move |request: Request| {
            let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                let host = parts.headers.get("host").map(|host| host.to_str().unwrap()).unwrap_or_default();
                let asked = Asked {
                    method: parts.method.to_string(),
                    host: host.split(':').next().unwrap().to_owned(),
                    target: parts.uri.to_string(),
                    headers: parts.headers.clone(),
                    body: String::from_utf8(body.to_vec()).unwrap(),
                };
                kept.lock().unwrap().push(asked.clone());
                match answer(&asked).respond() {
                    Some(response) => response,
                    None => std::future::pending().await,
                }
            }
        });
        let task = tokio::spawn(axum::serve(listener, routes).into_future());
        Self { url, asked, task }
    }

    /// The requests since the last call.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// [`Asked::line`] of each request since the last call.
    pub fn lines(&self) -> Vec<String> {
        self.take().iter().map(Asked::line).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}
