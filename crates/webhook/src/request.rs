/// A request to a receiver.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The headers, as received.
    pub headers: &'a http::HeaderMap,
    /// The query of the URL, still encoded.
    pub query: Option<&'a str>,
    /// The body. The caller limits its length.
    pub body: &'a [u8],
}
