//! The accepted credentials of each sender, and that nothing else is accepted.

use base64::Engine as _;
use hmac::{KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use tagrelay_secret::Secret;
use tagrelay_webhook::{InvalidReceiver, Kind, Receiver, ReceiverSettings, Request, Unauthorized};

/// A way to send a secret.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Query(&'static str),
    Verbatim,
    Bearer,
    Basic,
    Header(&'static str),
    /// Header, prefix, whether it is SHA-1.
    Hmac(&'static str, &'static str, bool),
}

use Form::{Basic, Bearer, Header, Hmac, Query, Verbatim};

const BODY: &[u8] = b"{}";

/// All ways of all senders, and one that no sender uses.
const FORMS: &[Form] = &[
    Query("token"),
    Query("access_token"),
    Query("key"),
    Verbatim,
    Bearer,
    Basic,
    Header("X-Api-Key"),
    Header("X-Webhook-Secret"),
    Header("Api-Key"),
    Header("X-JFrog-Event-Auth"),
    Header("X-Gitlab-Token"),
    Header("User-Agent"),
    Hmac("X-JFrog-Event-Auth", "", false),
    Hmac("X-Hub-Signature-256", "sha256=", false),
    Hmac("X-Hub-Signature", "sha1=", true),
    Hmac("X-Tagrelay-Signature", "sha256=", false),
    Hmac("X-Gitea-Signature", "", false),
    Hmac("X-Forgejo-Signature", "", false),
    Hmac("X-Nexus-Webhook-Signature", "", true),
];

/// The only ways that a sender may use.
fn accepted(kind: Kind) -> Vec<Form> {
    let authorization = [Verbatim, Bearer, Basic];
    let custom = [
        Header("X-Api-Key"),
        Header("X-Webhook-Secret"),
        Header("Api-Key"),
        Header("X-JFrog-Event-Auth"),
        Header("X-Gitlab-Token"),
    ];
    let query = [Query("token")];
    match kind.name() {
        "docker-hub" | "quay" | "gar" | "aliyun-acr" | "mirantis-msr" => query.to_vec(),
        "harbor" => authorization.to_vec(),
        "zot" | "tencent-tcr" | "huawei-swr" => [&authorization[..], &custom].concat(),
        "distribution" | "gitlab-registry" | "acr" | "ecr" => [&query[..], &authorization, &custom].concat(),
        "cloudevents" | "cdevents" => [&query[..], &[Query("access_token")], &authorization, &custom].concat(),
        "ghcr" => vec![Hmac("X-Hub-Signature-256", "sha256=", false)],
        "gitea" => vec![Hmac("X-Hub-Signature-256", "sha256=", false), Hmac("X-Gitea-Signature", "", false)],
        "forgejo" => vec![
            Hmac("X-Hub-Signature-256", "sha256=", false),
            Hmac("X-Gitea-Signature", "", false),
            Hmac("X-Forgejo-Signature", "", false),
        ],
        "git-github" => vec![Hmac("X-Hub-Signature-256", "sha256=", false)],
        "git-gitlab" => vec![Header("X-Gitlab-Token")],
        "git-gitea" => vec![Hmac("X-Hub-Signature-256", "sha256=", false), Hmac("X-Gitea-Signature", "", false)],
        "nexus" => vec![Hmac("X-Nexus-Webhook-Signature", "", true)],
        "artifactory" => vec![Header("X-JFrog-Event-Auth"), Hmac("X-JFrog-Event-Auth", "", false)],
        "generic" => vec![Bearer, Hmac("X-Tagrelay-Signature", "sha256=", false)],
        other => panic!("say here what {other} may show"),
    }
}

fn mac(secret: &str, body: &[u8], sha1: bool) -> String {
    if sha1 {
        let mac = hmac::Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).unwrap();
        hex::encode(mac.chain_update(body).finalize().into_bytes())
    } else {
        let mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        hex::encode(mac.chain_update(body).finalize().into_bytes())
    }
}

/// The credential for a secret.
fn shown(form: Form, secret: &str, body: &[u8]) -> String {
    match form {
        Query(_) | Verbatim | Header(_) => secret.to_owned(),
        Bearer => format!("Bearer {secret}"),
        Basic => format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("user:{secret}"))),
        Hmac(_, prefix, sha1) => format!("{prefix}{}", mac(secret, body, sha1)),
    }
}

fn send(receiver: &Receiver, form: Form, shown: &str, body: &[u8]) -> Result<(), Unauthorized> {
    let mut headers = HeaderMap::new();
    let mut query = None;
    match form {
        Query(name) => {
            query = Some(url::form_urlencoded::Serializer::new(String::new()).append_pair(name, shown).finish());
        }
        Verbatim | Bearer | Basic => {
            headers.insert(http::header::AUTHORIZATION, HeaderValue::from_str(shown).unwrap());
        }
        Header(name) | Hmac(name, _, _) => {
            headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(shown).unwrap());
        }
    }
    receiver.receive(&Request { headers: &headers, query: query.as_deref(), body }).map(|_| ())
}

fn settings(kind: Kind, secret: &str) -> ReceiverSettings {
    ReceiverSettings {
        secret: Some(Secret::inline(secret.to_owned()).unwrap()),
        registry: Some("registry.example.com".to_owned()),
        ..ReceiverSettings::new("test", kind)
    }
}

#[test]
fn sender_is_accepted_only_with_its_own_credential_forms() {
    for kind in Kind::ALL {
        let receiver = Receiver::new(settings(*kind, "the-secret")).unwrap();
        for form in FORMS {
            let outcome = send(&receiver, *form, &shown(*form, "the-secret", BODY), BODY);
            assert_eq!(outcome.is_ok(), accepted(*kind).contains(form), "{kind} {form:?}: {outcome:?}");
        }
    }
}

#[test]
fn partial_secrets_are_refused() {
    let secret = "the-secret";
    for kind in Kind::ALL {
        let receiver = Receiver::new(settings(*kind, secret)).unwrap();
        for form in accepted(*kind) {
            let right = shown(form, secret, BODY);
            let half = &right[..right.len() / 2];
            let mut wrong = vec![
                String::new(),
                shown(form, "the-secre", BODY),
                shown(form, "the-secret2", BODY),
                shown(form, "THE-SECRET", BODY),
                shown(form, "", BODY),
                half.to_owned(),
                right[..right.len() - 1].to_owned(),
                format!("{right}0"),
                format!("{right}{right}"),
            ];
            if let Hmac(_, prefix, sha1) = form {
                wrong.push(prefix.to_owned());
                wrong.push(format!("{prefix}{}", "0".repeat(64)));
                wrong.push(format!("{prefix}{}", mac(secret, b"another body", sha1)));
                wrong.push(format!("{prefix}{}", mac("", BODY, sha1)));
                wrong.push(format!("{prefix}zz"));
            }
            for text in wrong {
                let refused = send(&receiver, form, &text, BODY).expect_err(&format!("{kind} {form:?} {text}"));
                assert!(!refused.to_string().contains(secret), "{refused}");
            }
        }
    }
}

#[test]
fn request_without_credential_is_refused_before_its_body_is_read() {
    for kind in Kind::ALL {
        let receiver = Receiver::new(settings(*kind, "the-secret")).unwrap();
        for body in [&b"{}"[..], b"", b"no json", b"\xff\xfe"] {
            let refused = receiver.receive(&Request { headers: &HeaderMap::new(), query: None, body }).unwrap_err();
            assert!(refused.to_string().starts_with("no credential: "), "{refused}");
        }
    }
}

#[test]
fn both_secrets_of_a_rotation_are_valid_in_every_form() {
    for kind in Kind::ALL {
        let previous = Some(Secret::inline("the-old-one".to_owned()).unwrap());
        let receiver = Receiver::new(ReceiverSettings { previous_secret: previous, ..settings(*kind, "new") }).unwrap();
        for form in accepted(*kind) {
            for (secret, right) in [("new", true), ("the-old-one", true), ("older", false)] {
                assert_eq!(send(&receiver, form, &shown(form, secret, BODY), BODY).is_ok(), right, "{kind} {form:?}");
            }
        }
    }
}

#[test]
fn wrong_signature_is_refused_despite_a_valid_token() {
    let receiver = Receiver::new(settings(Kind::Generic, "the-secret")).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer the-secret"));
    headers.insert("x-tagrelay-signature", HeaderValue::from_static("sha256=00"));
    assert!(receiver.receive(&Request { headers: &headers, query: None, body: BODY }).is_err());
}

#[test]
fn scheme_case_is_ignored_and_secrets_may_hold_any_character() {
    let secret = "pä+ss/w%rd=& x";
    let receiver = Receiver::new(settings(Kind::Distribution, secret)).unwrap();
    send(&receiver, Query("token"), secret, BODY).unwrap();
    send(&receiver, Basic, &shown(Basic, secret, BODY).replace("Basic", "bASIC"), BODY).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_bytes(format!("BEARER {secret}").as_bytes()).unwrap());
    receiver.receive(&Request { headers: &headers, query: None, body: BODY }).unwrap();
    // An unescaped base64 secret in the URL.
    let receiver = Receiver::new(settings(Kind::DockerHub, "a+b/c==")).unwrap();
    let headers = HeaderMap::new();
    receiver.receive(&Request { headers: &headers, query: Some("x=1&token=a+b/c=="), body: BODY }).unwrap();
}

#[test]
fn signature_over_a_form_covers_the_field_of_gitea_and_the_body_of_github() {
    let json = r#"{"action":"created","package":{"type":"npm","package_type":"npm"}}"#;
    let form = url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", json).finish();
    let outcome = |kind: Kind, signed: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
        let signature = format!("sha256={}", mac("the-secret", signed.as_bytes(), false));
        headers.insert("x-hub-signature-256", HeaderValue::from_str(&signature).unwrap());
        let receiver = Receiver::new(settings(kind, "the-secret")).unwrap();
        receiver.receive(&Request { headers: &headers, query: None, body: form.as_bytes() })
    };
    let read = outcome(Kind::Gitea, json).unwrap();
    assert_eq!(read.ignored[0].reason, "the package type is `npm`");
    assert!(outcome(Kind::Gitea, &form).is_err());
    assert!(outcome(Kind::Ghcr, json).is_err());
    let read = outcome(Kind::Ghcr, &form).unwrap();
    assert_eq!(read.ignored[0].reason, "the package type is `npm`");
}

#[test]
fn unreadable_secret_refuses_all_requests() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "the-secret\n").unwrap();
    let secret = Some(Secret::from_file(&path).unwrap());
    let receiver = Receiver::new(ReceiverSettings { secret, ..settings(Kind::Harbor, "x") }).unwrap();
    send(&receiver, Verbatim, "the-secret", BODY).unwrap();
    for text in ["", "\n"] {
        std::fs::write(&path, text).unwrap();
        for shown in ["the-secret", "", "\t"] {
            let refused = send(&receiver, Verbatim, shown, BODY).unwrap_err();
            assert!(refused.to_string().starts_with("the receiver's secret cannot be read: "), "{refused}");
        }
    }
    std::fs::write(&path, "rotated").unwrap();
    send(&receiver, Verbatim, "rotated", BODY).unwrap();
}

#[test]
fn receiver_without_secret_needs_explicit_setting() {
    for kind in Kind::ALL {
        let none = ReceiverSettings { secret: None, ..settings(*kind, "x") };
        let refused = Receiver::new(none.clone()).unwrap_err();
        assert!(matches!(refused, InvalidReceiver::NoSecret { .. }), "{refused}");
        assert!(refused.to_string().contains("set `secret` ("), "{refused}");
        let previous = Some(Secret::inline("x".to_owned()).unwrap());
        let only_previous = ReceiverSettings { previous_secret: previous, ..none.clone() };
        assert!(matches!(Receiver::new(only_previous), Err(InvalidReceiver::NoSecret { .. })));
        let open = Receiver::new(ReceiverSettings { unauthenticated: true, ..none }).unwrap();
        open.receive(&Request { headers: &HeaderMap::new(), query: None, body: BODY }).unwrap();
        let both = ReceiverSettings { unauthenticated: true, ..settings(*kind, "x") };
        assert!(matches!(Receiver::new(both), Err(InvalidReceiver::SecretAndUnauthenticated { .. })));
    }
}

#[test]
fn senders_without_host_need_a_registry() {
    for kind in Kind::ALL {
        let outcome = Receiver::new(ReceiverSettings { registry: None, ..settings(*kind, "x") });
        let refused = matches!(outcome, Err(InvalidReceiver::NoRegistry { .. }));
        assert_eq!(refused, kind.needs_registry(), "{kind}");
        assert_eq!(kind.needs_registry(), matches!(kind.name(), "nexus" | "zot"), "{kind}");
        let strange = ReceiverSettings { registry: Some("https://x".to_owned()), ..settings(*kind, "x") };
        assert!(matches!(Receiver::new(strange), Err(InvalidReceiver::Registry { .. })));
    }
}
