//! Every sample request in `tests/fixtures/webhooks/` gives the result in its `*.meta.json`.

use std::path::{Path, PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tagrelay_secret::Secret;
use tagrelay_webhook::{
    Delivery, Errand, Kind, NoSample, Receiver, ReceiverSettings, Request, SamplePush, SampleRequest, Unauthorized,
};

/// A sample request with its expected result.
struct Sample {
    kind: Kind,
    meta: Value,
    headers: HeaderMap,
    query: Option<String>,
    body: Vec<u8>,
}

impl Sample {
    fn read(meta_path: &Path) -> Self {
        let folder = meta_path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        // Two senders have samples in two folders, one has another spelling.
        let kind = match folder {
            "dockerhub" => "docker-hub",
            "harbor-cloudevents" => "harbor",
            "acr-eventgrid" => "acr",
            name => name,
        };
        let meta: Value = serde_json::from_slice(&std::fs::read(meta_path).unwrap()).unwrap();
        let body_path = meta_path.to_str().unwrap().replace(".meta.json", ".json");
        let mut headers = HeaderMap::new();
        for (name, value) in meta["headers"].as_object().unwrap() {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value.as_str().unwrap()).unwrap());
        }
        let query = meta["path_hint"].as_str().unwrap().split_once('?').map(|(_, query)| query.to_owned());
        Self { kind: kind.parse().unwrap(), headers, query, body: std::fs::read(body_path).unwrap(), meta }
    }

    fn receiver(&self, secret: &str) -> Receiver {
        Receiver::new(ReceiverSettings {
            secret: Some(Secret::inline(secret.to_owned()).unwrap()),
            previous_secret: None,
            unauthenticated: false,
            registry: self.meta["config"]["registry"].as_str().map(str::to_owned),
            ..ReceiverSettings::new("sample", self.kind)
        })
        .unwrap()
    }

    fn secret(&self) -> &str {
        self.meta["secret"].as_str().unwrap()
    }

    fn deliver(&self, receiver: &Receiver) -> Result<Delivery, Unauthorized> {
        receiver.receive(&Request { headers: &self.headers, query: self.query.as_deref(), body: &self.body })
    }
}

fn samples() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/webhooks");
    let folders = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let mut found: Vec<_> = files.filter(|path| path.to_str().unwrap().ends_with(".meta.json")).collect();
    found.sort();
    found
}

fn images(delivery: &Delivery) -> Vec<Value> {
    let image = |event: &tagrelay_webhook::PushEvent| {
        serde_json::json!({
            "registry": event.repository.registry(),
            "repository": event.repository.path(),
            "tag": event.tag.as_str(),
            "digest": event.digest.as_ref().map(|digest| digest.as_str()),
        })
    };
    delivery.events.iter().map(image).collect()
}

#[test]
fn every_sample_gives_the_result_in_its_meta_file() {
    let paths = samples();
    assert!(paths.len() >= 20, "the samples are gone");
    let mut wrong = Vec::new();
    for path in &paths {
        let sample = Sample::read(path);
        let outcome = sample.deliver(&sample.receiver(sample.secret()));
        let right = match &outcome {
            Err(_) => sample.meta["rejected"] == 401,
            Ok(_) if sample.meta.get("rejected").is_some() => false,
            // With a dummy signature, nothing is accepted before the certificate is known. `signatures.rs` tests signed messages.
            Ok(delivery) if sample.meta["signature_checkable"] == false => {
                delivery.events.is_empty() && matches!(delivery.errand, Some(Errand::LearnCertificate(_)))
            }
            Ok(delivery) => match sample.meta["expect"]["images"].as_array() {
                Some(expected) => images(delivery) == *expected,
                None => {
                    let class = sample.meta["ignore_class"].as_str().unwrap();
                    delivery.events.is_empty()
                        && delivery.ignored.first().is_some_and(|first| first.class.name() == class)
                }
            },
        };
        if !right {
            wrong.push(format!("{}: {outcome:?}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{} of {} samples:\n{}", wrong.len(), paths.len(), wrong.join("\n"));
}

#[test]
fn no_sample_is_accepted_with_another_secret_or_without_its_credential() {
    for path in samples() {
        let mut sample = Sample::read(&path);
        let other = sample.receiver("another-secret");
        assert!(sample.deliver(&other).is_err(), "{}: accepted with another secret", path.display());
        let receiver = sample.receiver(sample.secret());
        sample.query = None;
        sample.headers = HeaderMap::new();
        let refused = sample.deliver(&receiver).expect_err("accepted without a credential");
        assert!(!refused.to_string().contains(sample.secret()), "{refused}");
    }
}

#[test]
fn previous_secret_is_also_valid() {
    for path in samples() {
        let sample = Sample::read(&path);
        let receiver = Receiver::new(ReceiverSettings {
            secret: Some(Secret::inline("the-new-secret".to_owned()).unwrap()),
            previous_secret: Some(Secret::inline(sample.secret().to_owned()).unwrap()),
            unauthenticated: false,
            registry: sample.meta["config"]["registry"].as_str().map(str::to_owned),
            ..ReceiverSettings::new("rotating", sample.kind)
        });
        let outcome = sample.deliver(&receiver.unwrap());
        assert_eq!(outcome.is_err(), sample.meta["rejected"] == 401, "{}", path.display());
    }
}

#[test]
fn every_kind_has_a_sample_with_an_image() {
    let with_image = |path: &PathBuf| {
        let sample = Sample::read(path);
        sample.meta["expect"]["images"].is_array().then_some(sample.kind)
    };
    let kinds: Vec<_> = samples().iter().filter_map(with_image).collect();
    for kind in Kind::ALL.iter().filter(|kind| kind.announces_images()) {
        assert!(kinds.contains(kind), "{kind} has no sample of a push");
    }
}

/// A push of an image that this sender can have, with a tag that looks like a number.
fn push(kind: Kind) -> SamplePush {
    let host = match kind.name() {
        "docker-hub" => "docker.io",
        "ghcr" => "ghcr.io",
        "ecr" => "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
        "aliyun-acr" => "registry.eu-central-1.aliyuncs.com",
        _ => "registry.example.com:5000",
    };
    SamplePush {
        repository: format!("{host}/uyou/team/user-service").parse().unwrap(),
        tag: "1234567".parse().unwrap(),
        digest: Some(format!("sha256:{}", "ab".repeat(32)).parse().unwrap()),
        pushed_at: "2026-11-20T12:00:00Z".parse().unwrap(),
        id: "sample-1".to_owned(),
    }
}

fn receive(kind: Kind, secret: &str, request: &SampleRequest) -> Result<Delivery, Unauthorized> {
    let settings = ReceiverSettings {
        secret: Some(Secret::inline(secret.to_owned()).unwrap()),
        registry: kind.needs_registry().then(|| "registry.example.com:5000".to_owned()),
        ..ReceiverSettings::new("sample", kind)
    };
    let query = request
        .query
        .as_ref()
        .map(|(name, value)| url::form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish());
    let request = Request { headers: &request.headers, query: query.as_deref(), body: &request.body };
    Receiver::new(settings).unwrap().receive_at(&request, "2026-11-20T12:00:01Z".parse().unwrap())
}

#[test]
fn generated_samples_are_accepted_by_their_receivers() {
    let secret = "s3cret with + & = and spaces";
    for kind in Kind::ALL.iter().filter(|kind| kind.announces_images()) {
        for digest in [push(*kind).digest, None] {
            let push = SamplePush { digest, ..push(*kind) };
            let request = kind.sample(&push, Some(secret)).unwrap();
            let delivery = receive(*kind, secret, &request).unwrap_or_else(|refused| panic!("{kind}: {refused}"));
            let [event] = &delivery.events[..] else { panic!("{kind}: {delivery:?}") };
            assert_eq!((&event.repository, &event.tag), (&push.repository, &push.tag), "{kind}");
            let tells_digest = !matches!(kind.name(), "docker-hub" | "quay" | "nexus" | "gitea" | "forgejo");
            assert_eq!(event.digest, push.digest.clone().filter(|_| tells_digest), "{kind}");
            assert!(delivery.ignored.is_empty() && delivery.errand.is_none(), "{kind}: {delivery:?}");
            assert!(!String::from_utf8(request.body.clone()).unwrap().contains("null"), "{kind}");
            assert!(receive(*kind, "another secret", &request).is_err(), "{kind}");
            let unsigned = kind.sample(&push, None).unwrap();
            assert!(receive(*kind, secret, &unsigned).is_err(), "{kind} without its credential");
        }
    }
}

#[test]
fn generated_samples_with_one_id_are_one_event() {
    for kind in Kind::ALL.iter().filter(|kind| kind.announces_images()) {
        let event = |id: &str| {
            let push = SamplePush { id: id.to_owned(), ..push(*kind) };
            let request = kind.sample(&push, Some("secret")).unwrap();
            receive(*kind, "secret", &request).unwrap().events.remove(0)
        };
        assert_eq!(event("a"), event("a"), "{kind}");
        let harbor = ["harbor", "tencent-tcr", "huawei-swr"].contains(&kind.name());
        if event("a").delivery.is_some() && !harbor {
            assert_ne!(event("a").delivery, event("b").delivery, "{kind}");
        }
    }
}

#[test]
fn samples_report_unsupported_parts() {
    let of = |kind: Kind, repository: &str| {
        let push = SamplePush { repository: repository.parse().unwrap(), ..push(kind) };
        kind.sample(&push, Some("secret"))
    };
    assert!(matches!(of(Kind::Ecr, "docker.io/uyou/a"), Err(NoSample::Image(_))));
    assert!(matches!(of(Kind::Harbor, "harbor.example.com/a"), Err(NoSample::Image(_))));
    let broken = Kind::Harbor.sample(&push(Kind::Harbor), Some("two\nlines"));
    assert_eq!(broken, Err(NoSample::Secret));
}

#[test]
fn signed_time_is_checked() {
    let request = Kind::Generic.sample(&push(Kind::Generic), Some("secret")).unwrap();
    let settings = ReceiverSettings {
        secret: Some(Secret::inline("secret".to_owned()).unwrap()),
        ..ReceiverSettings::new("ci", Kind::Generic)
    };
    let receiver = Receiver::new(settings).unwrap();
    let at = |now: &str| {
        let request = Request { headers: &request.headers, query: None, body: &request.body };
        receiver.receive_at(&request, now.parse().unwrap())
    };
    assert!(at("2026-11-20T12:09:59Z").is_ok());
    assert!(at("2026-11-20T11:50:01Z").is_ok());
    for now in ["2026-11-20T12:10:01Z", "2026-11-20T11:49:59Z", "2027-11-20T12:00:00Z"] {
        assert!(at(now).is_err(), "{now}");
    }
}
