/// A request to a receiver, as it came in.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The headers.
    pub headers: &'a http::HeaderMap,
    /// What follows the `?` of the URL, still encoded.
    pub query: Option<&'a str>,
    /// The bytes of the body. The caller limits their number.
    pub body: &'a [u8],
}
