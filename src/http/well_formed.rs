//! Rejects requests whose host or path is ambiguous.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{Version, header};

use super::Problem;

/// Answers 400 to an HTTP/1.1 request without exactly one `Host` (RFC 9112, section 3.2), and to a path that is not UTF-8.
pub(super) async fn check(request: Request, next: Next) -> Response {
    match fault(&request) {
        Some(detail) => Problem::bad_request(detail).into_response(),
        None => next.run(request).await,
    }
}

fn fault(request: &Request) -> Option<&'static str> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if request.version() == Version::HTTP_11 && hosts != 1 {
        return Some(match hosts {
            0 => "the header `Host` is missing",
            _ => "the header `Host` is given more than once",
        });
    }
    let path = percent_encoding::percent_decode_str(request.uri().path());
    path.decode_utf8().is_err().then_some("the path is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault_of(path: &str, hosts: &[&str], version: Version) -> Option<&'static str> {
        let mut request = http::Request::builder().uri(path).version(version);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        fault(&request.body(axum::body::Body::empty()).unwrap())
    }

    #[test]
    fn host_must_be_given_once_and_the_path_must_be_utf8() {
        assert_eq!(fault_of("/a%C3%A4", &["x"], Version::HTTP_11), None);
        assert_eq!(fault_of("/a", &[], Version::HTTP_10), None, "HTTP/1.0 has no such header");
        assert_eq!(fault_of("/a", &[], Version::HTTP_11), Some("the header `Host` is missing"));
        let twice = fault_of("/a", &["x", "y"], Version::HTTP_11);
        assert_eq!(twice, Some("the header `Host` is given more than once"));
        assert_eq!(fault_of("/a%FF", &["x"], Version::HTTP_11), Some("the path is not UTF-8"));
    }
}
