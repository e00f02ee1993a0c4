//! Telemetry of the running program: spans, trace ids, logs, metrics.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use tagrelay_test_support::fleet::{API_TOKEN, Builder, Fleet, sha};
use tagrelay_test_support::otlp::{Collector, Span, tree};

/// The trace of the CI pipeline that pushed the image.
const CI_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CI_SPAN: &str = "00f067aa0ba902b7";

fn traceparent(trace_id: &str) -> String {
    format!("00-{trace_id}-{CI_SPAN}-01")
}

/// A fleet that exports its spans to the collector without delay.
fn traced(builder: Builder, collector: &Collector) -> Builder {
    builder
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", collector.http))
        .variable("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=uyou")
        .variable("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .variable("OTEL_BSP_SCHEDULE_DELAY", "50")
}

/// Waits until every branch has been read, so that no event waits for it.
async fn ready(fleet: &Fleet) {
    fleet
        .eventually("it is ready", async || {
            fleet.client.get(fleet.url("/readyz")).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
}

/// Pushes an image and sends a webhook with its trace. Returns the event's id.
async fn announce(fleet: &Fleet, service: &str, tag: &str, trace_id: &str) -> String {
    fleet.push_image(service, tag).await;
    let body = json!({ "image": format!("{}:{tag}", fleet.repository(service)) }).to_string();
    let (status, answer) = fleet.deliver_with(&body, &[("traceparent", &traceparent(trace_id))]).await;
    assert_eq!(status, 202, "{answer}");
    answer["events"][0]["id"].as_str().unwrap().to_owned()
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    let span = found.next().unwrap_or_else(|| panic!("no span is named {name}: {spans:#?}"));
    assert!(found.next().is_none(), "several spans are named {name}");
    span
}

/// The log lines with this id in a field.
fn lines(fleet: &Fleet, field: &str, id: &str) -> Vec<Value> {
    let log = fleet.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line[field] == id).collect()
}

fn messages(lines: &[Value]) -> Vec<(&str, &str)> {
    lines.iter().map(|line| (line["level"].as_str().unwrap(), line["message"].as_str().unwrap())).collect()
}

// The collector must answer while the test waits for the program's end.
#[tokio::test(flavor = "multi_thread")]
async fn webhook_and_push_are_one_trace() {
    let collector = Collector::start().await;
    let mut fleet = traced(crate::fleet().service("user-service"), &collector).start().await;
    ready(&fleet).await;
    let id = announce(&fleet, "user-service", &sha('1'), CI_TRACE).await;
    let event = fleet.settled(&id).await;
    let spans = collector.wait(CI_TRACE, "write update", 1).await;
    assert_eq!(
        tree(&spans, CI_SPAN),
        "POST /webhooks/{receiver}\n\
         \x20 process event\n\
         \x20   registry confirm\n\
         \x20   gather facts\n\
         \x20     registry build time\n\
         \x20     registry running digest\n\
         \x20 decide\n\
         \x20 write update\n\
         \x20   write branch\n\
         \x20     git commit\n\
         \x20     git push\n"
    );
    assert_eq!(spans.len(), 11, "{spans:#?}");
    for span in &spans {
        assert_eq!(span.failure, None, "{span:#?}");
        assert!(span.start <= span.end);
        assert_eq!(span.resource["service.name"], "tagrelay");
        assert_eq!(span.resource["service.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(span.resource["deployment.environment.name"], "test");
        assert_eq!(span.tenant.as_deref(), Some("uyou"));
        let parent = spans.iter().find(|parent| parent.id == span.parent);
        assert!(parent.is_none_or(|parent| parent.start <= span.start), "{span:#?} begins before its parent");
    }
    let commit = fleet.upstream.tip();
    let repository = fleet.repository("user-service");
    for (name, kind, attributes) in [
        (
            "POST /webhooks/{receiver}",
            SpanKind::Server,
            vec![("url.path", "/webhooks/ci"), ("http.response.status_code", "202")],
        ),
        (
            "process event",
            SpanKind::Consumer,
            vec![("tagrelay.event.id", id.as_str()), ("tagrelay.outcome", "confirmed")],
        ),
        (
            "registry confirm",
            SpanKind::Client,
            vec![("server.address", fleet.registry_host()), ("tagrelay.outcome", "there")],
        ),
        ("decide", SpanKind::Internal, vec![("tagrelay.decision", "write"), ("tagrelay.decided_by", "arrival")]),
        (
            "write update",
            SpanKind::Consumer,
            vec![("tagrelay.repository", &repository), ("tagrelay.outcome", "committed"), ("tagrelay.commit", &commit)],
        ),
        ("write branch", SpanKind::Internal, vec![("tagrelay.branch", "main"), ("tagrelay.updates", "1")]),
        ("git commit", SpanKind::Internal, vec![("tagrelay.commit", commit.as_str())]),
        ("git push", SpanKind::Client, vec![("tagrelay.outcome", "ok")]),
    ] {
        let span = named(&spans, name);
        assert_eq!(span.kind, kind, "{name}");
        for (key, value) in attributes {
            assert_eq!(span.attributes.get(key).map(String::as_str), Some(value), "{key} of {span:#?}");
        }
    }
    // The same trace id is in the API, in the commit and in every log line.
    assert_eq!(event["trace_id"], CI_TRACE);
    let trailer = fleet.upstream.git(&["log", "-1", "--format=%(trailers:key=Tagrelay-Trace,valueonly)", "main"]);
    assert_eq!(trailer.trim(), CI_TRACE);
    let mut told = lines(&fleet, "event", &id);
    fleet.eventually("the end is logged", async || !lines(&fleet, "cause_id", &id).is_empty()).await;
    told.extend(lines(&fleet, "cause_id", &id));
    assert_eq!(messages(&told), [("INFO", "event received"), ("INFO", "event confirmed"), ("INFO", "update finished")]);
    assert!(told.iter().all(|line| line["trace_id"] == CI_TRACE), "{told:#?}");
    // The exported metrics are well formed, too.
    let metrics = fleet.client.get(fleet.url("/metrics")).send().await.unwrap().text().await.unwrap();
    for line in ["tagrelay_oldest_pending_update_age_seconds 0.0", "tagrelay_config_is_current 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    tagrelay_test_support::promtool::promtool(&["check", "metrics"], &metrics);
    // Reads leave no spans, and the last spans are sent before the program ends.
    fleet.api("GET", "/environments", None).await;
    let (status, _) = fleet.deliver_body("{}").await;
    assert_eq!(status, 200);
    assert_eq!(fleet.terminate(), Some(0));
    let others: Vec<Span> = collector.spans().into_iter().filter(|span| span.trace_id != CI_TRACE).collect();
    assert_eq!(others.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), ["POST /webhooks/{receiver}"]);
}

#[tokio::test]
async fn trace_continues_after_crash() {
    let collector = Collector::start().await;
    let mut fleet = traced(crate::fleet().service("user-service"), &collector).start().await;
    ready(&fleet).await;
    let gate = fleet.upstream.gate("pre-receive");
    let id = announce(&fleet, "user-service", &sha('1'), CI_TRACE).await;
    // The decision has been exported and the push is running.
    collector.wait(CI_TRACE, "process event", 1).await;
    fleet.eventually("a push waits in the hook", async || gate.is_reached()).await;
    fleet.kill();
    gate.open();
    fleet.start().await;
    assert_eq!(fleet.settled(&id).await["state"], "committed");
    // The push of the first process may land after the second one has begun its own.
    let is_committed = |span: &&Span| {
        span.name == "write update" && span.attributes.get("tagrelay.outcome").is_some_and(|word| word == "committed")
    };
    let has_ended = async || collector.wait(CI_TRACE, "write update", 1).await.iter().any(|span| is_committed(&span));
    fleet.eventually("the committed update is exported", has_ended).await;
    let spans = collector.wait(CI_TRACE, "write update", 1).await;
    let request = named(&spans, "POST /webhooks/{receiver}");
    assert_eq!(request.parent, CI_SPAN);
    let update = spans.iter().find(is_committed).unwrap();
    assert_eq!(update.parent, request.id);
    // Only spans of the first process may lack their parent: spans that ended below one that it could
    // not end.
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).chain([CI_SPAN]).collect();
    let hanging = spans.iter().filter(|span| !ids.contains(span.parent.as_str()));
    assert!(hanging.clone().all(|span| span.name == "git commit" && span.start < update.start), "{spans:#?}");
    // If the first push landed before the second process read the branch, nothing is left to write.
    let drawing = tree(&spans, &update.id);
    assert!(drawing.is_empty() || drawing.starts_with("write branch\n  git refresh\n"), "{drawing}");
}

#[tokio::test]
async fn commit_of_several_events_links_all_traces() {
    let collector = Collector::start().await;
    let builder = crate::fleet().service("first").service("second").service("third");
    let fleet = traced(builder, &collector).start().await;
    ready(&fleet).await;
    for service in ["first", "second", "third"] {
        fleet.push_image(service, &sha('2')).await;
    }
    // Updates that arrive during this push are in the next one.
    let gate = fleet.upstream.gate("pre-receive");
    let traces = ["1", "2", "3"].map(|digit| digit.repeat(32));
    let mut ids = Vec::new();
    for (service, trace_id) in ["first", "second", "third"].iter().zip(&traces) {
        ids.push(announce(&fleet, service, &sha('2'), trace_id).await);
        collector.wait(trace_id, "process event", 1).await;
        fleet.eventually("a push waits in the hook", async || gate.is_reached()).await;
    }
    gate.open();
    for id in &ids {
        assert_eq!(fleet.settled(id).await["state"], "committed");
    }
    assert_eq!(fleet.upstream.subjects()[0], "staging: 2 images");
    for trace_id in &traces {
        collector.wait(trace_id, "write update", 1).await;
    }
    collector.wait(&traces[1], "write branch", 1).await;
    let (second, third) = (collector.trace(&traces[1]), collector.trace(&traces[2]));
    let round = named(&second, "write branch");
    let (leading, other) = (named(&second, "write update"), named(&third, "write update"));
    assert_eq!(round.parent, leading.id);
    assert_eq!(round.links, [(traces[2].clone(), other.id.clone())]);
    assert_eq!(other.links, [(traces[1].clone(), round.id.clone())]);
    assert_eq!(leading.attributes["tagrelay.commit"], other.attributes["tagrelay.commit"]);
    assert_eq!(round.attributes["tagrelay.updates"], "2");
    let trailers = fleet.upstream.git(&["log", "-1", "--format=%(trailers:key=Tagrelay-Trace,valueonly)", "main"]);
    assert_eq!(trailers.split_whitespace().collect::<Vec<_>>(), [&traces[1], &traces[2]]);
}

#[tokio::test]
async fn promotion_continues_the_trace_of_its_request() {
    let collector = Collector::start().await;
    let fleet = traced(crate::fleet().service("user-service"), &collector).start().await;
    ready(&fleet).await;
    fleet.settled(&announce(&fleet, "user-service", &sha('1'), CI_TRACE).await).await;
    let trace_id = "a".repeat(32);
    let header = traceparent(&trace_id);
    let body = json!({"to": "production", "repositories": ["user-service"]});
    let (status, taken) =
        fleet.api_as(API_TOKEN, "POST", "/promotions", Some(body.clone()), &[("traceparent", &header)]).await;
    assert_eq!((status, &taken["trace_id"]), (202, &json!(trace_id)));
    let id = taken["id"].as_str().unwrap();
    fleet.api("GET", &format!("/promotions/{id}?wait=60"), None).await;
    let spans = collector.wait(&trace_id, "write update", 1).await;
    assert_eq!(
        tree(&spans, CI_SPAN),
        "POST /api/v1/promotions\n\
         \x20 process update\n\
         \x20   registry confirm\n\
         \x20 decide\n\
         \x20 write update\n\
         \x20   write branch\n\
         \x20     git commit\n\
         \x20     git push\n"
    );
    let trailer = fleet.upstream.git(&["log", "-1", "--format=%(trailers:key=Tagrelay-Trace,valueonly)", "main"]);
    assert_eq!(trailer.trim(), trace_id);
    // `unchanged` is an outcome too, logged once.
    let (_, again) = fleet.api("POST", "/promotions", Some(body)).await;
    let again_id = again["id"].as_str().unwrap();
    fleet.eventually("the end is logged", async || !lines(&fleet, "cause_id", again_id).is_empty()).await;
    let told = lines(&fleet, "cause_id", again_id);
    assert_eq!(messages(&told), [("INFO", "update finished")]);
    assert_eq!((&told[0]["state"], &told[0]["trace_id"]), (&json!("unchanged"), &again["trace_id"]));
}

#[tokio::test]
async fn failure_is_in_trace_and_once_in_log() {
    let collector = Collector::start().await;
    let mut fleet = traced(crate::fleet().service("user-service"), &collector).start().await;
    ready(&fleet).await;
    fleet.upstream.hook("pre-receive", "echo 'no deployments on Fridays' >&2; exit 1");
    let refused = announce(&fleet, "user-service", &sha('1'), CI_TRACE).await;
    assert_eq!(fleet.settled(&refused).await["state"], "waiting");
    let spans = collector.wait(CI_TRACE, "write update", 1).await;
    assert!(named(&spans, "git push").failure.as_ref().unwrap().contains("no deployments on Fridays"));
    let update = named(&spans, "write update");
    assert_eq!((update.attributes["tagrelay.outcome"].as_str(), &update.failure), ("rejected", &None));
    assert!(update.attributes["tagrelay.reason"].contains("no deployments on Fridays"));
    // The log line follows shortly after the change in the store.
    fleet.eventually("the end is logged", async || !lines(&fleet, "cause_id", &refused).is_empty()).await;
    assert_eq!(messages(&lines(&fleet, "cause_id", &refused)), [("INFO", "update waits")]);

    // A missing tag, and then an unreachable registry.
    let body = json!({ "image": format!("{}:{}", fleet.repository("user-service"), sha('2')) }).to_string();
    let missing = "b".repeat(32);
    let (_, answer) = fleet.deliver_with(&body, &[("traceparent", &traceparent(&missing))]).await;
    let id = answer["events"][0]["id"].as_str().unwrap();
    assert_eq!(fleet.settled(id).await["state"], "refused");
    let spans = collector.wait(&missing, "process event", 1).await;
    let confirmations = spans.iter().filter(|span| span.name == "registry confirm");
    assert!(confirmations.clone().all(|span| span.attributes["tagrelay.outcome"] == "not_there"), "{spans:#?}");
    let logged = lines(&fleet, "event", id);
    let logged = messages(&logged);
    // The lookup is repeated for a while, because some registries announce images before they serve
    // them.
    // The intake may be faster than the log line of the receiver.
    for wanted in [("INFO", "event received"), ("WARN", "event refused")] {
        assert_eq!(logged.iter().filter(|line| **line == wanted).count(), 1, "{logged:?}");
    }

    fleet.stop_registry().await;
    let away = "c".repeat(32);
    let body = body.replace(&sha('2'), &sha('3'));
    let (_, answer) = fleet.deliver_with(&body, &[("traceparent", &traceparent(&away))]).await;
    let id = answer["events"][0]["id"].as_str().unwrap();
    let spans = collector.wait(&away, "process event", 2).await;
    let attempts: Vec<&str> = spans
        .iter()
        .filter(|span| span.name == "process event")
        .inspect(|span| assert!(span.failure.is_some() && span.attributes["tagrelay.outcome"] == "postponed"))
        .map(|span| span.attributes["tagrelay.attempt"].as_str())
        .collect();
    assert_eq!(attempts[..2], ["1", "2"]);
    let logged = lines(&fleet, "event", id);
    let logged = messages(&logged);
    for wanted in [("INFO", "event received"), ("WARN", "event postponed")] {
        assert!(logged.contains(&wanted), "{logged:?}");
    }
    let unsigned = fleet.client.post(fleet.url("/webhooks/ci")).body("{}");
    let answer = unsigned.header("traceparent", traceparent(&"d".repeat(32))).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let rejected = "d".repeat(32);
    fleet.eventually("the rejection is logged", async || !lines(&fleet, "trace_id", &rejected).is_empty()).await;
    assert_eq!(messages(&lines(&fleet, "trace_id", &rejected)), [("WARN", "webhook rejected")]);
    assert!(!fleet.log().contains("x-tenant=uyou"), "headers of the exporter hold tokens");
}

#[tokio::test]
async fn spans_are_exported_over_grpc() {
    let collector = Collector::start().await;
    let fleet = crate::fleet()
        .service("user-service")
        .variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &format!("http://{}", collector.grpc))
        .variable("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-tenant=uyou")
        .variable("OTEL_SERVICE_NAME", "tagrelay-staging")
        .variable("OTEL_BSP_SCHEDULE_DELAY", "50")
        .start()
        .await;
    ready(&fleet).await;
    fleet.settled(&announce(&fleet, "user-service", &sha('1'), CI_TRACE).await).await;
    let spans = collector.wait(CI_TRACE, "write update", 1).await;
    assert_eq!(tree(&spans, CI_SPAN).lines().count(), 11);
    assert!(spans.iter().all(|span| span.resource["service.name"] == "tagrelay-staging"));
    assert!(spans.iter().all(|span| span.tenant.as_deref() == Some("uyou")));
}

// The collector must answer while the test waits for the program's end.
#[tokio::test(flavor = "multi_thread")]
async fn trace_ids_exist_without_exporter() {
    let collector = Collector::start().await;
    let builder = traced(crate::fleet().service("user-service").service("order-service"), &collector);
    let mut fleet = builder.variable("OTEL_SDK_DISABLED", "true").start().await;
    let event = fleet.settled(&announce(&fleet, "user-service", &sha('1'), CI_TRACE).await).await;
    assert_eq!(event["trace_id"], CI_TRACE);
    let event = fleet.settled(&fleet.announce("order-service", &sha('1')).await).await;
    let trace_id = event["trace_id"].as_str().unwrap();
    assert!(trace_id.len() == 32 && trace_id != CI_TRACE, "{trace_id}");
    let trailers = fleet.upstream.git(&["log", "--format=%(trailers:key=Tagrelay-Trace,valueonly)", "main"]);
    assert_eq!(trailers.split_whitespace().collect::<Vec<_>>(), [trace_id, CI_TRACE]);
    assert_eq!(fleet.terminate(), Some(0));
    assert!(collector.spans().is_empty(), "{:#?}", collector.spans());
}

#[tokio::test]
async fn invalid_exporter_variables_are_reported_and_ignored() {
    let fleet = crate::fleet()
        .service("user-service")
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        .variable("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon")
        .start()
        .await;
    let event = fleet.settled(&fleet.announce("user-service", &sha('1')).await).await;
    assert_eq!(event["state"], "committed");
    assert!(fleet.log().contains("traces are not exported: OTEL_EXPORTER_OTLP_PROTOCOL is `carrier-pigeon`"));
}

/// The log lines about spans.
fn about_spans(fleet: &Fleet) -> Vec<String> {
    let log = fleet.log();
    let is_about = |line: &&str| line.contains("opentelemetry") || line.contains("spans ");
    log.lines().filter(is_about).map(str::to_owned).collect()
}

#[tokio::test]
async fn unreachable_collector_is_logged_once() {
    for protocol in ["http/protobuf", "grpc"] {
        let fleet = crate::fleet()
            .service("user-service")
            .variable("TAGRELAY_LOG", "info")
            .variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
            .variable("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .variable("OTEL_BSP_SCHEDULE_DELAY", "50")
            .start()
            .await;
        for digit in ['1', '2', '3'] {
            let event = fleet.settled(&fleet.announce("user-service", &sha(digit)).await).await;
            assert_eq!(event["state"], "committed");
            // Some batches.
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        fleet.eventually("it is logged", async || !about_spans(&fleet).is_empty()).await;
        let told = about_spans(&fleet);
        assert_eq!(told.len(), 1, "{protocol}: {told:#?}");
        assert!(told[0].contains("spans cannot be sent and are lost"), "{told:#?}");
    }
}

#[tokio::test]
async fn trace_continues_to_health_of_application() {
    let collector = Collector::start().await;
    let argocd = tagrelay_test_support::argocd::FakeArgoCd::start().await;
    argocd.add("platform-staging", "https://git.example.com/uyou/platform.git", "environments/staging");
    let builder = crate::fleet()
        .service("user-service")
        .repository_settings("argocd_url = \"https://git.example.com/uyou/platform.git\"")
        .settings(&argocd.settings());
    let fleet = traced(builder, &collector).start().await;
    argocd.reads(fleet.upstream.path());
    ready(&fleet).await;
    let id = announce(&fleet, "user-service", &sha('1'), CI_TRACE).await;
    let spans = collector.wait(CI_TRACE, "follow rollout", 1).await;
    let rollout = named(&spans, "follow rollout");
    let request = named(&spans, "POST /webhooks/{receiver}");
    assert_eq!((&rollout.parent, rollout.kind), (&request.id, SpanKind::Consumer));
    for (key, value) in [
        ("tagrelay.outcome", "healthy"),
        ("tagrelay.commit", &fleet.upstream.tip()),
        ("tagrelay.applications", "argocd/platform-staging"),
    ] {
        assert_eq!(rollout.attributes.get(key).map(String::as_str), Some(value), "{key}");
    }
    let refresh = named(&spans, "argocd refresh");
    assert_eq!((&refresh.parent, refresh.kind), (&rollout.id, SpanKind::Client));
    assert!(rollout.start <= refresh.start && refresh.end <= rollout.end);
    // Argo CD can continue the trace.
    assert_eq!(argocd.traceparents(), [format!("00-{CI_TRACE}-{}-01", refresh.id)]);
    let told = lines(&fleet, "cause_id", &id);
    let told: Vec<_> = told.iter().filter(|line| line["message"] == "rollout ended").collect();
    assert_eq!((told[0]["state"].as_str(), told[0]["trace_id"].as_str()), (Some("healthy"), Some(CI_TRACE)));
    assert_eq!(told.len(), 1);
}
