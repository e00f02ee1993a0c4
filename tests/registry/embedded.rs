//! The embedded registry with other clients.

use http::{HeaderMap, StatusCode, header};
use oci_distribution::client::{ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_distribution::manifest::{IMAGE_LAYER_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE};
use oci_distribution::secrets::RegistryAuth;
use serde_json::{Value, json};
use tagrelay_embedded_registry::push::{TinyImage, push};
use tagrelay_embedded_registry::{EmbeddedRegistry, NotifyEndpoint};
use tagrelay_image::{Digest, Repository, Tag};
use tagrelay_test_support::collector::Collector;

async fn registry() -> EmbeddedRegistry {
    EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), None).await.unwrap()
}

fn http() -> reqwest::Client {
    tagrelay::registry::install_tls_provider();
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

fn tiny(text: &str) -> TinyImage {
    TinyImage {
        revision: Some("9f8e7d6c5b4a39281706f5e4d3c2b1a098765432".to_owned()),
        created: "2026-11-23T08:00:00Z".parse().unwrap(),
        text: text.to_owned(),
    }
}

async fn push_tiny(registry: &EmbeddedRegistry, path: &str, tag: &str) -> Digest {
    let repository = Repository::new(&registry.host(), path).unwrap();
    push(&repository, &tag.parse::<Tag>().unwrap(), &tiny(tag), None).await.unwrap()
}

#[tokio::test]
async fn another_client_pushes_and_pulls() {
    tagrelay::registry::install_tls_provider();
    let registry = registry().await;
    for use_monolithic_push in [false, true] {
        let config = ClientConfig { protocol: ClientProtocol::Http, use_monolithic_push, ..ClientConfig::default() };
        let client = oci_distribution::Client::try_from(config).unwrap();
        let reference = format!("{}/uyou/a:{use_monolithic_push}", registry.host());
        let reference: oci_distribution::Reference = reference.parse().unwrap();
        let layers = [ImageLayer::new(vec![7; 5 << 20], IMAGE_LAYER_MEDIA_TYPE.to_owned(), None)];
        let config = Config::oci_v1(b"{}".to_vec(), None);
        let auth = RegistryAuth::Anonymous;
        client.push(&reference, &layers, config, &auth, None).await.unwrap();
        let pulled = client.pull(&reference, &auth, vec![IMAGE_LAYER_MEDIA_TYPE]).await.unwrap();
        assert_eq!(pulled.layers[0].data, layers[0].data);
    }
}

#[tokio::test]
async fn pushed_image_is_complete() {
    let registry = registry().await;
    let digest = push_tiny(&registry, "uyou/a", "1").await;
    let base = format!("http://{}/v2/uyou/a", registry.host());
    let manifest = http().get(format!("{base}/manifests/1")).send().await.unwrap();
    assert_eq!(manifest.headers()["docker-content-digest"], digest.as_str());
    assert_eq!(manifest.headers()[header::CONTENT_TYPE], OCI_IMAGE_MEDIA_TYPE);
    let bytes = manifest.bytes().await.unwrap();
    assert_eq!(Digest::of(&bytes), digest);
    let manifest: Value = serde_json::from_slice(&bytes).unwrap();
    let blob = async |descriptor: &Value| {
        let address = format!("{base}/blobs/{}", descriptor["digest"].as_str().unwrap());
        let blob = http().get(address).send().await.unwrap().bytes().await.unwrap();
        assert_eq!(descriptor["size"], blob.len());
        blob
    };
    let layer = blob(&manifest["layers"][0]).await;
    let config: Value = serde_json::from_slice(&blob(&manifest["config"]).await).unwrap();
    assert_eq!(config["created"], "2026-11-23T08:00:00Z");
    assert_eq!(config["rootfs"]["diff_ids"], json!([Digest::of(&layer)]));
    let labels = &config["config"]["Labels"];
    assert_eq!(labels["org.opencontainers.image.revision"], "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432");
    // The same image has the same digest; another text has another one.
    assert_eq!(push_tiny(&registry, "uyou/a", "1").await, digest);
    assert_ne!(push_tiny(&registry, "uyou/a", "2").await, digest);
}

/// Sends one request and returns its status, headers and error code.
async fn ask(request: reqwest::RequestBuilder) -> (StatusCode, HeaderMap, String) {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
    (status, headers, body["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn errors_have_the_codes_of_the_specification() {
    let registry = registry().await;
    push_tiny(&registry, "a", "1").await;
    let base = format!("http://{}/v2", registry.host());
    let nothing = Digest::of(b"nothing");
    let client = http();
    let manifest = |body: Value| client.put(format!("{base}/a/manifests/2")).body(body.to_string());
    let oci = |request: reqwest::RequestBuilder| request.header(header::CONTENT_TYPE, OCI_IMAGE_MEDIA_TYPE);
    let missing = json!({ "schemaVersion": 2, "config": { "digest": nothing }, "layers": [] });
    let child = json!({ "schemaVersion": 2, "manifests": [{ "digest": nothing }] });
    let cases = [
        (client.get(format!("{base}/a/manifests/2")), 404, "MANIFEST_UNKNOWN"),
        (client.get(format!("{base}/b/manifests/1")), 404, "NAME_UNKNOWN"),
        (client.get(format!("{base}/A/manifests/1")), 400, "NAME_INVALID"),
        (client.get(format!("{base}/a/manifests/-1")), 400, "TAG_INVALID"),
        (client.get(format!("{base}/a/manifests/sha256:12")), 400, "DIGEST_INVALID"),
        (client.get(format!("{base}/a/blobs/{nothing}")), 404, "BLOB_UNKNOWN"),
        (client.get(format!("{base}/b/tags/list")), 404, "NAME_UNKNOWN"),
        (client.get(format!("{base}/a/tags/list?n=x")), 400, "PAGINATION_NUMBER_INVALID"),
        (client.get(format!("{base}/a")), 404, "UNSUPPORTED"),
        (client.delete(format!("{base}/a/manifests/1")), 405, "UNSUPPORTED"),
        (client.patch(format!("{base}/a/blobs/uploads/none")), 404, "BLOB_UPLOAD_UNKNOWN"),
        (manifest(json!({})), 400, "MANIFEST_INVALID"),
        (oci(manifest(json!({}))), 400, "MANIFEST_INVALID"),
        (oci(manifest(json!({ "schemaVersion": 1 }))), 400, "MANIFEST_INVALID"),
        (oci(manifest(json!({ "schemaVersion": 2, "mediaType": "x" }))), 400, "MANIFEST_INVALID"),
        (oci(manifest(missing)), 400, "MANIFEST_BLOB_UNKNOWN"),
        (oci(manifest(child)), 400, "MANIFEST_BLOB_UNKNOWN"),
        (
            oci(client.put(format!("{base}/a/manifests/{nothing}")).body(r#"{"schemaVersion":2}"#)),
            400,
            "DIGEST_INVALID",
        ),
        (oci(client.put(format!("{base}/a/manifests/2")).body(vec![b' '; (4 << 20) + 1])), 413, "SIZE_INVALID"),
        (client.post(format!("{base}/a/blobs/uploads/?digest={nothing}")).body("something"), 400, "DIGEST_INVALID"),
        (client.post(format!("{base}/a/blobs/uploads/?digest=x")), 400, "DIGEST_INVALID"),
    ];
    for (number, (request, status, code)) in cases.into_iter().enumerate() {
        let (answered, headers, found) = ask(request).await;
        assert_eq!((answered.as_u16(), found.as_str()), (status, code), "case {number}");
        assert_eq!(headers["docker-distribution-api-version"], "registry/2.0");
    }
    let (_, _, none) = ask(client.get(format!("{base}/a/manifests/2"))).await;
    assert_eq!(none, "MANIFEST_UNKNOWN", "nothing that was refused was kept");
}

#[tokio::test]
async fn blob_can_be_uploaded_in_chunks() {
    let registry = registry().await;
    let host = format!("http://{}", registry.host());
    let client = http();
    let (_, headers, _) = ask(client.post(format!("{host}/v2/a/blobs/uploads/"))).await;
    let place = format!("{host}{}", headers[header::LOCATION].to_str().unwrap());
    let chunk = |range: &str, bytes: &'static str| {
        ask(client.patch(&place).header(header::CONTENT_RANGE, range.to_owned()).body(bytes))
    };
    let (status, headers, _) = chunk("0-4", "hello").await;
    assert_eq!((status.as_u16(), headers[header::RANGE].to_str().unwrap()), (202, "0-4"));
    assert_eq!(chunk("0-4", "hello").await.0.as_u16(), 416, "the same chunk again");
    assert_eq!(chunk("x", "hello").await.0.as_u16(), 416);
    let (status, headers, _) = ask(client.get(&place)).await;
    assert_eq!((status.as_u16(), headers[header::RANGE].to_str().unwrap()), (204, "0-4"));
    assert_eq!(chunk("5-6", ", ").await.0.as_u16(), 202);

    let whole = Digest::of(b"hello, world");
    let (status, headers, _) = ask(client.put(format!("{place}?digest={whole}")).body("world")).await;
    assert_eq!((status.as_u16(), headers["docker-content-digest"].to_str().unwrap()), (201, whole.as_str()));
    let blob = client.get(format!("{host}/v2/a/blobs/{whole}")).send().await.unwrap();
    assert_eq!(blob.text().await.unwrap(), "hello, world");
    let (status, headers, _) = ask(client.head(format!("{host}/v2/a/blobs/{whole}"))).await;
    assert_eq!((status.as_u16(), headers[header::CONTENT_LENGTH].to_str().unwrap()), (200, "12"));
    assert_eq!(ask(client.put(format!("{place}?digest={whole}"))).await.0.as_u16(), 404, "the upload has ended");
    // Blobs belong to a repository.
    assert_eq!(ask(client.head(format!("{host}/v2/b/blobs/{whole}"))).await.0.as_u16(), 404);
}

#[tokio::test]
async fn sha512_and_indexes_are_accepted() {
    use sha2::Digest as _;
    let registry = registry().await;
    let base = format!("http://{}/v2/a", registry.host());
    let digest = format!("sha512:{}", hex::encode(sha2::Sha512::digest(b"x")));
    let (status, ..) = ask(http().post(format!("{base}/blobs/uploads/?digest={digest}")).body("x")).await;
    assert_eq!(status.as_u16(), 201);

    let child = push_tiny(&registry, "a", "1").await;
    let index =
        json!({ "schemaVersion": 2, "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE, "manifests": [{ "digest": child }] });
    let put = http().put(format!("{base}/manifests/multi")).header(header::CONTENT_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE);
    assert_eq!(ask(put.body(index.to_string())).await.0.as_u16(), 201);
    let (status, headers, _) = ask(http().head(format!("{base}/manifests/multi"))).await;
    assert_eq!((status.as_u16(), &headers[header::CONTENT_TYPE]), (200, &OCI_IMAGE_INDEX_MEDIA_TYPE.parse().unwrap()));
}

#[tokio::test]
async fn tags_come_in_pages() {
    let registry = registry().await;
    for tag in ["b", "a", "d", "c", "e"] {
        push_tiny(&registry, "x/y", tag).await;
    }
    let host = format!("http://{}", registry.host());
    let mut next = Some("/v2/x/y/tags/list?n=2".to_owned());
    let mut pages = Vec::new();
    while let Some(place) = next {
        let response = http().get(format!("{host}{place}")).send().await.unwrap();
        let link = response.headers().get(header::LINK).map(|link| link.to_str().unwrap().to_owned());
        next = link.map(|link| link.split_once("; rel=\"next\"").unwrap().0.trim_matches(['<', '>']).to_owned());
        pages.push(response.json::<Value>().await.unwrap()["tags"].clone());
    }
    assert_eq!(pages, [json!(["a", "b"]), json!(["c", "d"]), json!(["e"])]);
    let all = http().get(format!("{host}/v2/x/y/tags/list")).send().await.unwrap();
    assert_eq!(all.json::<Value>().await.unwrap(), json!({ "name": "x/y", "tags": ["a", "b", "c", "d", "e"] }));
}

#[tokio::test]
async fn notifications_are_repeated_in_order_until_accepted() {
    let collector = Collector::start(2).await;
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, "Bearer webhook-secret".parse().unwrap())]);
    let endpoint = NotifyEndpoint { url: collector.url().parse().unwrap(), headers };
    assert!(!format!("{endpoint:?}").contains("webhook-secret"));
    let registry = EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), Some(endpoint)).await.unwrap();
    let digests = [push_tiny(&registry, "uyou/a", "1").await, push_tiny(&registry, "uyou/a", "2").await];

    // The config differs too, because it names the layer: two blobs and a manifest each.
    let received = collector.wait(|events| events.len() >= 6).await;
    for request in &received {
        assert_eq!(request.headers[header::AUTHORIZATION], "Bearer webhook-secret");
        assert_eq!(request.headers[header::CONTENT_TYPE], "application/vnd.docker.distribution.events.v2+json");
        assert!(request.body.starts_with(b"{\n   \"events\": [\n      {\n         \"id\": \""));
        assert_eq!(request.events().len(), 1);
    }
    let events: Vec<Value> = received.iter().flat_map(tagrelay_test_support::collector::Received::events).collect();
    let tags: Vec<_> = events.iter().map(|event| event["target"]["tag"].as_str()).collect();
    assert_eq!(tags, [None, None, Some("1"), None, None, Some("2")]);
    let event = &events[2];
    assert_eq!(event["action"], "push");
    assert_eq!(event["request"]["host"], registry.host());
    assert_eq!(event["request"]["method"], "PUT");
    assert!(event["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    let target = &event["target"];
    assert_eq!(target["mediaType"], OCI_IMAGE_MEDIA_TYPE);
    assert_eq!(target["digest"], digests[0].as_str());
    assert_eq!(target["repository"], "uyou/a");
    assert_eq!(target["size"], target["length"]);
    assert_eq!(target["url"], format!("http://{}/v2/uyou/a/manifests/{}", registry.host(), digests[0]));
    let ids: std::collections::HashSet<_> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), events.len());
}

#[tokio::test]
async fn registry_stops_on_request_and_on_drop() {
    let (told, dropped) = (registry().await, registry().await);
    let addresses = [told.address(), dropped.address()];
    told.stop().await;
    drop(dropped);
    for address in addresses {
        let gone = async {
            while tokio::net::TcpStream::connect(address).await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.unwrap();
    }
    let taken = registry().await;
    let error = EmbeddedRegistry::start(taken.address(), None).await.unwrap_err();
    assert_eq!(error.to_string(), format!("The registry cannot listen on {}", taken.address()));
}
