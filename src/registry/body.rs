use bytes::{Bytes, BytesMut};

/// Reads the body of an answer; `None`: the body is longer than `max_bytes`.
pub(super) async fn read_at_most(
    mut response: reqwest::Response,
    max_bytes: usize,
) -> Result<Option<Bytes>, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max_bytes {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}
