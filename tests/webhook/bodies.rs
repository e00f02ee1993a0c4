//! Bodies beyond the samples, valid and invalid, with their results.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tagrelay_webhook::{Delivery, Kind, Receiver, ReceiverSettings, Request};

const A: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const B: &str = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

fn receive(kind: &str, registry: Option<&str>, headers: &[(&str, &str)], body: &[u8]) -> Delivery {
    let receiver = Receiver::new(ReceiverSettings {
        secret: None,
        previous_secret: None,
        unauthenticated: true,
        registry: registry.map(str::to_owned),
        ..ReceiverSettings::new("test", kind.parse::<Kind>().unwrap())
    })
    .unwrap();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    receiver.receive(&Request { headers: &map, query: None, body }).unwrap()
}

/// Renders a delivery: the events as references, then the classes of ignored parts.
fn outcome(delivery: &Delivery) -> Vec<String> {
    let events = delivery.events.iter().map(|event| match &event.digest {
        Some(digest) => format!("{}:{}@{digest}", event.repository, event.tag),
        None => format!("{}:{}", event.repository, event.tag),
    });
    events.chain(delivery.ignored.iter().map(|ignored| ignored.class.name().to_owned())).collect()
}

fn check(kind: &str, headers: &[(&str, &str)], body: &Value, expected: &[&str]) {
    let delivery = receive(kind, None, headers, body.to_string().as_bytes());
    assert_eq!(outcome(&delivery), expected, "{kind} {body}: {delivery:?}");
}

fn reason(kind: &str, body: &[u8]) -> String {
    let delivery = receive(kind, Some("registry.example.com"), &[], body);
    assert!(delivery.events.is_empty(), "{delivery:?}");
    delivery.ignored.first().unwrap_or_else(|| panic!("{kind}: nothing is said")).reason.clone()
}

#[test]
fn invalid_body_is_explained_by_every_sender() {
    for kind in Kind::ALL {
        for body in [
            "",
            " ",
            "{",
            "[",
            "null",
            "0",
            "\"x\"",
            "[]",
            "{}",
            "[{}]",
            "[[]]",
            "\u{0}",
            "{\"a\":1}{}",
            "payload={}",
            "[null]",
            "{\"events\":{}}",
            "{\"type\":[]}",
            "{\"type\":\"PUSH_ARTIFACT\"}",
            "{\"action\":\"push\"}",
        ] {
            let reason = reason(kind.name(), body.as_bytes());
            assert!(!reason.is_empty(), "{kind} {body}");
        }
    }
    assert_eq!(reason("harbor", b"{\"x\": tru"), "the body is not JSON: EOF while parsing a value at line 1 column 9");
    assert_eq!(reason("harbor", b"\xff"), "the body is not JSON: expected value at line 1 column 1");
    assert_eq!(reason("harbor", b"{}"), "the body has no `type`");
}

#[test]
fn thousands_of_ignored_parts_are_counted_not_listed() {
    let body = format!("{{\"events\": [{}{{}}]}}", "{},".repeat(5000));
    let delivery = receive("distribution", None, &[], body.as_bytes());
    assert_eq!(delivery.ignored.len(), 101);
    assert_eq!(delivery.ignored[100].reason, "and 4901 more parts of the request");
}

#[test]
fn reasons_are_short_and_without_control_characters() {
    let long = "x\n".repeat(100_000);
    for (kind, body) in [
        ("harbor", json!({"type": long})),
        ("generic", json!({"repository": long, "tag": "1"})),
        ("generic", json!({"repository": "a/b", "tag": long})),
        ("docker-hub", json!({"push_data": {"tag": "1"}, "repository": {"repo_name": long}})),
        ("ghcr", json!({"package": {"package_type": long}})),
    ] {
        let reason = reason(kind, body.to_string().as_bytes());
        assert!(reason.chars().count() <= 301 && !reason.contains(char::is_control), "{kind}: {reason}");
    }
}

#[test]
fn members_may_be_absent_null_unknown_or_of_another_type() {
    check(
        "docker-hub",
        &[],
        &json!({"push_data": {"tag": 20250821, "pushed_at": null, "images": {}}, "repository":
            {"repo_name": null, "namespace": "uyou", "name": "a", "comment_count": []}, "x": [{}]}),
        &["docker.io/uyou/a:20250821"],
    );
    check("docker-hub", &[], &json!({"push_data": {"tag": 1.5}, "repository": {"repo_name": "a/b"}}), &["untagged"]);
    check("docker-hub", &[], &json!({"push_data": {"tag": "1"}, "repository": []}), &["malformed"]);
    check("docker-hub", &[], &json!({"push_data": {"tag": "1"}, "repository": {"repo_name": "A/b"}}), &["malformed"]);
    check(
        "harbor",
        &[],
        &json!({"type": "PUSH_ARTIFACT", "occur_at": "1755772861", "event_data": {"resources": [
            {"tag": "1", "digest": null, "resource_url": "h.example.com:8443/a/b/c:1"}], "repository": []}}),
        &["h.example.com:8443/a/b/c:1"],
    );
    check(
        "distribution",
        &[],
        &json!({"events": [null, [], {"action": "push"}, {"action": "push", "target": {"repository": "a/b", "tag": "1",
            "digest": "sha256:short", "url": "http://r.example.com:5000/v2/a/b/manifests/x"}, "request": []}]}),
        &["r.example.com:5000/a/b:1", "malformed", "malformed", "untagged"],
    );
}

#[test]
fn harbor_names_its_events_in_three_ways() {
    for (kind, expected) in [
        ("PUSH_ARTIFACT", "h.example.com/p/a:1"),
        ("pushImage", "h.example.com/p/a:1"),
        ("deleteImage", "delete"),
        ("pullImage", "pull"),
        ("uploadChart", "chart"),
        ("DELETE_CHART", "chart"),
        ("scanningFailed", "scan"),
        ("SCANNING_STOPPED", "scan"),
        ("QUOTA_EXCEED", "quota"),
        ("REPLICATION", "replication"),
        ("TAG_RETENTION", "other"),
        ("SOMETHING_NEW", "other"),
    ] {
        let body = json!({"type": kind, "occur_at": 1755772861, "event_data": {"resources": [{"tag": "1",
            "resource_url": "h.example.com/p/a:1"}], "repository": {}}});
        check("harbor", &[], &body, &[expected]);
    }
    for (kind, expected) in [
        ("harbor.artifact.pushed", "h.example.com/p/a:1"),
        ("harbor.artifact.deleted", "delete"),
        ("harbor.quota.warned", "quota"),
        ("harbor.scan.completed", "scan"),
        ("harbor.replication.status.changed", "replication"),
        ("harbor.tag_retention.finished", "other"),
    ] {
        let body = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": kind, "data": {"resources": [
            {"tag": "1", "resource_url": "h.example.com/p/a:1"}]}});
        check("harbor", &[], &body, &[expected]);
    }
}

#[test]
fn repeated_push_in_one_body_is_one_event() {
    let event = |id: &str, tag: &str, digest: &str| {
        json!({"id": id, "action": "push", "target": {"repository": "a/b", "tag": tag, "digest": digest},
            "request": {"host": "r.example.com"}})
    };
    let body = json!({"events": [event("1", "x", A), event("2", "x", A), event("3", "y", A), event("4", "x", B)]});
    let delivery = receive("distribution", None, &[], body.to_string().as_bytes());
    let ids: Vec<_> = delivery.events.iter().map(|event| event.delivery.as_deref().unwrap()).collect();
    assert_eq!(ids, ["1", "3", "4"]);
}

#[test]
fn signatures_and_attestations_are_tags_like_any_other() {
    let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for suffix in ["", ".sig", ".att", ".sbom"] {
        let tag = format!("sha256-{hex}{suffix}");
        check("generic", &[], &json!({"image": format!("ghcr.io/a/b:{tag}")}), &[&format!("ghcr.io/a/b:{tag}")]);
    }
}

#[test]
fn configured_registry_wins_over_the_body() {
    let distribution = json!({"events": [{"action": "push", "target": {"repository": "a/b", "tag": "1"},
        "request": {"host": "10.0.0.7:5000"}}]});
    let generic = json!({"image": "other.example.com/a/b:1"});
    let hub = json!({"push_data": {"tag": "1"}, "repository": {"repo_name": "a/b"}});
    for (kind, body) in [("distribution", distribution), ("generic", generic), ("docker-hub", hub)] {
        let delivery = receive(kind, Some("registry.example.com"), &[], body.to_string().as_bytes());
        assert_eq!(outcome(&delivery), ["registry.example.com/a/b:1"], "{kind}");
    }
    check("generic", &[], &json!({"repository": "nginx", "tag": "1"}), &["docker.io/library/nginx:1"]);
    check(
        "generic",
        &[],
        &json!({"image": "localhost:5000/a", "tag": "1", "digest": A}),
        &[&format!("localhost:5000/a:1@{A}")],
    );
}

#[test]
fn body_without_host_names_the_setting() {
    let body = json!({"domain": "docker", "event_type": "pushed", "data": {"repo_key": "local", "path": "a/1/manifest.json", "tag": "1"}});
    let delivery = receive("artifactory", None, &[], body.to_string().as_bytes());
    assert_eq!(delivery.ignored[0].reason, "data names no registry host: set `registry` of the receiver");
}

#[test]
fn distribution_charts_and_other_actions_are_not_images() {
    let event = |action: &str, references: Value| {
        json!({"events": [{"action": action, "target": {"repository": "a/b", "tag": "1", "references": references},
            "request": {"host": "r.example.com"}}]})
    };
    let helm = json!([{"mediaType": "application/vnd.cncf.helm.config.v1+json"}]);
    check("distribution", &[], &event("push", helm), &["chart"]);
    check("distribution", &[], &event("push", json!([{"mediaType": "x"}])), &["r.example.com/a/b:1"]);
    check("distribution", &[], &event("mount", json!(null)), &["other"]);
    check("distribution", &[], &json!({"events": []}), &["other"]);
    let project_hook = receive("gitlab-registry", None, &[("X-Gitlab-Event", "Push Hook")], b"{\"ref\": \"main\"}");
    assert_eq!(outcome(&project_hook), ["other"]);
}

#[test]
fn event_grid_comes_in_both_schemas_and_with_data_as_text() {
    let data = json!({"id": "x", "action": "push", "target": {"repository": "a/b", "tag": "1", "digest": A},
        "request": {"host": "uyou.azurecr.io"}});
    let expected = format!("uyou.azurecr.io/a/b:1@{A}");
    let pushed = "Microsoft.ContainerRegistry.ImagePushed";
    let text = json!([{"id": "1", "eventType": pushed, "data": data.to_string()}]);
    check("acr", &[], &text, &[&expected]);
    check("acr", &[], &json!([{"id": "1", "eventType": pushed, "data": "{"}]), &["malformed"]);
    let cloud_event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": pushed, "data": data});
    check("acr", &[], &cloud_event, &[&expected]);
    check("acr", &[], &json!([cloud_event, cloud_event]), &[&expected]);
    let validation = json!([{"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": {"validationCode": "512d38b6"}}]);
    let delivery = receive("acr", None, &[], validation.to_string().as_bytes());
    assert_eq!(delivery.reply.unwrap().json, json!({"validationResponse": "512d38b6"}));
    assert_eq!(delivery.ignored[0].class.name(), "handshake");
}

#[test]
fn cloud_event_senders_validate_by_options() {
    let receiver = |kind| {
        let settings = ReceiverSettings { unauthenticated: true, ..ReceiverSettings::new("test", kind) };
        Receiver::new(settings).unwrap()
    };
    let mut headers = HeaderMap::new();
    assert_eq!(receiver(Kind::Acr).allow_sender(&headers), None);
    headers.insert("webhook-request-origin", HeaderValue::from_static("eventgrid.azure.net"));
    assert_eq!(receiver(Kind::Harbor).allow_sender(&headers), None);
    let answer = receiver(Kind::Acr).allow_sender(&headers).unwrap();
    assert_eq!(answer["webhook-allowed-origin"], "eventgrid.azure.net");
    assert_eq!(answer["webhook-allowed-rate"], "*");
}

#[test]
fn cloud_events_are_read_structured_binary_and_in_batches() {
    let data = json!({"repository": "a/b", "tag": "1", "registryUrl": "https://r.example.com/"});
    let event = |kind: &str, source: &str, data: &Value| json!({"specversion": "1.0", "id": "7", "source": source, "type": kind, "data": data});
    let structured = event("container.image.push", "/ci", &data);
    check("cloudevents", &[], &structured, &["r.example.com/a/b:1"]);
    check(
        "cloudevents",
        &[],
        &json!([structured, event("x", "/", &data), {}]),
        &["r.example.com/a/b:1", "other", "malformed"],
    );
    let headers = [
        ("CE-Type", "container.pushed"),
        ("ce-source", "//r.example.com/x"),
        ("ce-id", "1"),
        ("ce-specversion", "1.0"),
    ];
    check("cloudevents", &headers, &data, &["r.example.com/a/b:1"]);
    for (kind, expected) in [
        ("image.pulled", "pull"),
        ("container.image.deleted", "delete"),
        ("image.scan.completed", "scan"),
        ("chart.pushed", "other"),
    ] {
        check("cloudevents", &[], &event(kind, "/ci", &data), &[expected]);
    }
    for (source, data, expected) in [
        ("https://r.example.com:5000/x", json!({"repositoryName": "a/b", "imageTag": "1"}), "r.example.com:5000/a/b:1"),
        ("r.example.com/a", json!({"repository": "a/b", "tag": "1"}), "r.example.com/a/b:1"),
        (
            "/ci",
            json!({"repository": "r.example.com/a/b", "tag": 12, "digest": A}),
            &format!("r.example.com/a/b:12@{A}"),
        ),
        ("/ci", json!({"image": format!("r.example.com/a/b:1@{A}")}), &format!("r.example.com/a/b:1@{A}")),
        (
            "urn:aws:ecr:cn-north-1:123456789012:repository/a",
            json!({"repository": "a", "tag": "1"}),
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/a:1",
        ),
        ("/ci", json!({"repository": "a/b", "tag": "1"}), "malformed"),
        ("/ci", json!("{\"repository\":\"r.example.com/a/b\",\"tag\":\"1\"}"), "r.example.com/a/b:1"),
    ] {
        check("cloudevents", &[], &event("image.push", source, &data), &[expected]);
    }
    let delivery = receive("cloudevents", None, &[], structured.to_string().as_bytes());
    assert_eq!(delivery.events[0].delivery.as_deref(), Some("/ci 7"));
}

#[test]
fn ecr_reports_more_than_pushes() {
    let event = |detail_type: &str, detail: Value| json!({"detail-type": detail_type, "id": "1", "account": "123456789012", "region": "cn-north-1", "detail": detail});
    let push = json!({"result": "SUCCESS", "action-type": "PUSH", "repository-name": "a/b", "image-tag": "1"});
    let host = "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn";
    check("ecr", &[], &event("ECR Image Action", push), &[&format!("{host}/a/b:1")]);
    check("ecr", &[], &event("ECR Image Action", json!({"result": "FAILURE", "action-type": "PUSH"})), &["failed"]);
    check("ecr", &[], &event("ECR Image Scan", json!({"image-tags": ["1"]})), &["scan"]);
    check("ecr", &[], &event("ECR Replication Action", json!({})), &["replication"]);
    check("ecr", &[], &event("ECR Pull Through Cache Action", json!({})), &["other"]);
    let chart = json!({"result": "SUCCESS", "action-type": "PUSH", "image-tag": "1",
        "artifact-media-type": "application/vnd.cncf.helm.config.v1+json"});
    check("ecr", &[], &event("ECR Image Action", chart), &["chart"]);
}

#[test]
fn other_odd_bodies_are_read() {
    let gar = json!({"action": "INSERT", "tag": "eu.gcr.io/example.com/p/a:1", "digest": format!("eu.gcr.io/example.com/p/a@{A}")});
    check("gar", &[], &gar, &[&format!("eu.gcr.io/example.com/p/a:1@{A}")]);
    check("gar", &[], &json!({"message": {"data": "!"}}), &["malformed"]);
    check("gar", &[], &json!({"message": {"data": "e30="}}), &["other"]);
    let quay = json!({"docker_url": "q.example.com:8443/a/b", "updated_tags": {"1": "id", "2": "id"}});
    check("quay", &[], &quay, &["q.example.com:8443/a/b:1", "q.example.com:8443/a/b:2"]);
    check("quay", &[], &json!({"docker_url": "quay.io/a/b", "updated_tags": []}), &["other"]);
    check(
        "quay",
        &[],
        &json!({"docker_url": "quay.io/a/b", "updated_tags": [null, 7]}),
        &["quay.io/a/b:7", "untagged"],
    );
    let artifactory = |domain: &str, event: &str, kind: &str| {
        json!({"domain": domain, "event_type": event, "jpd_origin": "https://uyou.jfrog.io/artifactory",
            "data": {"repo_key": "local", "path": "team/a/1/list.manifest.json", "image_name": "a", "tag": "1", "image_type": kind}})
    };
    check("artifactory", &[], &artifactory("docker", "pushed", "docker"), &["uyou.jfrog.io/local/team/a:1"]);
    check("artifactory", &[], &artifactory("docker", "pushed", "oci"), &["chart"]);
    check("artifactory", &[], &artifactory("docker", "promoted", "docker"), &["other"]);
    check("artifactory", &[], &artifactory("artifact", "deployed", "docker"), &["other"]);
    let gitea = json!({"action": "created", "package": {"type": "container", "owner": {"login": "UYou"}, "name": "Team/A",
        "version": "V1", "html_url": "https://git.example.com:3000/UYou/-/packages/container/Team%2FA/V1"}});
    check("gitea", &[("X-Gitea-Event", "package")], &gitea, &["git.example.com:3000/uyou/team/a:V1"]);
    check("forgejo", &[("X-Forgejo-Event", "package")], &gitea, &["git.example.com:3000/uyou/team/a:V1"]);
    check("gitea", &[("X-Gitea-Event", "push")], &json!({"ref": "refs/heads/main"}), &["other"]);
    let msr = |name: &str| json!({"type": "TAG_PUSH", "contents": {"namespace": "a", "repository": "b", "tag": "1", "imageName": name}});
    check("mirantis-msr", &[], &msr("msr.example.com/a/b:1"), &["msr.example.com/a/b:1"]);
    check("mirantis-msr", &[], &msr("a/b:1"), &["malformed"]);
    for (kind, expected) in
        [("SCAN_COMPLETED", "scan"), ("TAG_PULL", "pull"), ("PUSH_MIRRORING", "replication"), ("REPO_CREATED", "other")]
    {
        check("mirantis-msr", &[], &json!({"type": kind, "contents": {}}), &[expected]);
    }
    let zot = json!({"name": "a/b", "reference": "1", "manifest": "{\"config\":{\"mediaType\":\"application/vnd.cncf.helm.config.v1+json\"}}"});
    let updated =
        receive("zot", Some("z.example.com"), &[("ce-type", "zotregistry.image.updated")], zot.to_string().as_bytes());
    assert_eq!(outcome(&updated), ["chart"]);
    let lint = receive("zot", Some("z.example.com"), &[("ce-type", "zotregistry.image.lint_failed")], b"{}");
    assert_eq!(outcome(&lint), ["failed"]);
    let purl = |id: &str| json!({"context": {"type": "dev.cdevents.artifact.published.0.2.0"}, "subject": {"id": id}});
    check("cdevents", &[], &purl("pkg:docker/a@1?repository_url=r.example.com/a"), &["other"]);
    check("cdevents", &[], &purl("no purl"), &["malformed"]);
    let wrapped = json!({"specversion": "1.0", "type": "dev.cdevents.artifact.published.0.2.0", "id": "1", "source": "/s",
        "data": purl("pkg:oci/a?tag=1&repository_url=https://r.example.com/x/a")});
    check("cdevents", &[], &wrapped, &["r.example.com/x/a:1"]);
}

#[test]
fn times_and_ids_of_the_senders_are_kept() {
    let sample =
        |path: &str| std::fs::read(format!("{}/tests/fixtures/webhooks/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    for (kind, path, header, time, id) in [
        ("docker-hub", "dockerhub/push.json", "", Some("2025-08-21T10:41:01Z"), None),
        (
            "harbor",
            "harbor-cloudevents/push.json",
            "",
            Some("2025-08-21T10:41:01Z"),
            Some("/projects/7/webhook/policies/3 04376241-"),
        ),
        ("harbor", "harbor/push.json", "", Some("2025-08-21T10:41:01Z"), Some("1755772861 uyou/user-service 64bcc86a")),
        ("distribution", "distribution/push.json", "", Some("2025-08-21T10:41:01.859222576Z"), Some("31ec08f3-")),
        ("ghcr", "ghcr/package-published.json", "X-GitHub-Delivery", Some("2025-08-21T10:41:01Z"), Some("an-id")),
        (
            "nexus",
            "nexus/component-created.json",
            "X-Nexus-Webhook-Delivery",
            Some("2025-08-21T10:41:01.664Z"),
            Some("an-id"),
        ),
        ("gitea", "gitea/container-created.json", "X-Gitea-Delivery", Some("2025-08-21T10:41:01Z"), Some("an-id")),
        ("gar", "gar/push.json", "", Some("2025-08-21T10:41:02.311Z"), Some("894166186469821")),
        ("aliyun-acr", "aliyun-acr/push-personal-edition.json", "", None, None),
        ("quay", "quay/push.json", "", None, None),
        ("acr", "acr-eventgrid/push.json", "", Some("2025-08-21T10:41:01.343145347Z"), Some("79b44ec7-")),
    ] {
        let headers: &[_] = if header.is_empty() { &[] } else { &[(header, "an-id")] };
        let delivery = receive(kind, Some("registry.example.com"), headers, &sample(path));
        let event = &delivery.events[0];
        assert_eq!(event.pushed_at.map(|time| time.to_string()).as_deref(), time, "{path}");
        match (&event.delivery, id) {
            (Some(found), Some(id)) => assert!(found.starts_with(id), "{path}: {found}"),
            (found, id) => assert_eq!(found.as_deref(), id, "{path}"),
        }
    }
    let long = "x".repeat(10_000);
    let delivery = receive("generic", None, &[], json!({"image": "a/b:1", "id": long}).to_string().as_bytes());
    assert!(delivery.events[0].delivery.as_ref().unwrap().len() < 300);
}

#[test]
fn compressed_bodies_are_named() {
    let delivery = receive("generic", None, &[("content-encoding", "gzip")], b"\x1f\x8b");
    assert_eq!(outcome(&delivery), ["malformed"]);
    assert!(delivery.ignored[0].reason.contains("compressed"));
}
