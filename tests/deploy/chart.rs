//! The Helm chart: valid with both versions of Helm, the same pod as `deploy/kubernetes`, and clear messages.

use std::collections::BTreeSet;

use serde_yaml::Value;
use tagrelay_test_support::docker_registry::{self, DockerRegistry};

use super::chart_rendering::{CHART, Helm, SETTINGS, matrix, renderings, with_settings};
use super::cluster_settings::Place;
use super::platform_tree::{document, kind, list, name, named, of_kind, path, pod, read, rendered_at, selects};

fn strings(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn both_versions_of_helm_render_the_same() {
    let rendered: Vec<Vec<Vec<Value>>> = Helm::all()
        .iter()
        .map(|helm| {
            let version = helm.run(&["version", "--short"]).expect_code(0).stdout;
            assert!(version.starts_with(if helm.program == "helm" { "v4." } else { "v3." }), "{version}");
            matrix()
                .values()
                .map(|arguments| {
                    let arguments = strings(arguments);
                    helm.run(&[&["lint", "--strict", CHART], &arguments[..]].concat()).expect_code(0);
                    helm.rendered(&arguments)
                })
                .collect()
        })
        .collect();
    if let [four, three] = &rendered[..] {
        let sorted = |resources: &[Value]| {
            let key = |resource: &Value| format!("{} {}", kind(resource), name(resource));
            resources.iter().map(|resource| (key(resource), resource.clone())).collect::<Vec<_>>()
        };
        for (four, three) in four.iter().zip(three) {
            let (mut four, mut three) = (sorted(four), sorted(three));
            four.sort_by(|left, right| left.0.cmp(&right.0));
            three.sort_by(|left, right| left.0.cmp(&right.0));
            assert_eq!(four, three);
        }
    }
}

#[test]
fn chart_and_kustomization_have_the_same_pod() {
    let (charts, Some(kustomized)) = (renderings(), rendered_at(&path("deploy/kubernetes"))) else { return };
    let Some(chart) = charts.get("default") else { return };
    let spec = |resources: &[Value]| named(resources, "Deployment", "tagrelay")["spec"].clone();
    let (mut ours, mut theirs) = (spec(chart), spec(&kustomized));
    for spec in [&mut ours, &mut theirs] {
        let image = std::mem::take(&mut spec["template"]["spec"]["containers"][0]["image"]);
        assert!(image.as_str().unwrap().ends_with(&format!("tagrelay:{}", env!("CARGO_PKG_VERSION"))), "{image:?}");
        // The chart's labels distinguish releases.
        let labels = std::mem::take(&mut spec["template"]["metadata"]["labels"]);
        assert!(selects(&std::mem::take(&mut spec["selector"]["matchLabels"]), &labels));
        assert_eq!(labels["app.kubernetes.io/name"], "tagrelay");
    }
    assert_eq!(ours, theirs);
    for (kind, fields) in [
        ("ServiceAccount", &["automountServiceAccountToken"][..]),
        ("PersistentVolumeClaim", &["spec"]),
        ("ConfigMap", &["data"]),
    ] {
        for field in fields {
            assert_eq!(named(chart, kind, "tagrelay")[*field], named(&kustomized, kind, "tagrelay")[*field], "{kind}");
        }
    }
}

#[test]
fn objects_of_a_release_fit_together() {
    for (called, resources) in renderings() {
        let [deployment] = of_kind(&resources, "Deployment")[..] else { panic!("{called}: one Deployment") };
        let template = pod(deployment).unwrap();
        let labels = &template["metadata"]["labels"];
        assert!(selects(&deployment["spec"]["selector"]["matchLabels"], labels), "{called}");
        let [service] = of_kind(&resources, "Service")[..] else { panic!("{called}: one Service") };
        assert!(selects(&service["spec"]["selector"], labels), "{called}");
        let ports: BTreeSet<&str> = list(&service["spec"]["ports"]).iter().map(name_of).collect();
        assert_eq!(ports, BTreeSet::from(["http", "operations"]), "{called}");
        for policy in of_kind(&resources, "NetworkPolicy") {
            assert!(selects(&policy["spec"]["podSelector"]["matchLabels"], labels), "{called}");
        }
        for budget in of_kind(&resources, "PodDisruptionBudget") {
            assert!(selects(&budget["spec"]["selector"]["matchLabels"], labels), "{called}");
        }
        for monitor in of_kind(&resources, "ServiceMonitor") {
            assert!(selects(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]), "{called}");
            assert!(ports.contains(monitor["spec"]["endpoints"][0]["port"].as_str().unwrap()), "{called}");
            assert!(template["metadata"]["annotations"]["prometheus.io/scrape"].is_null(), "scraped twice");
        }
        // The Service must not send webhooks to the pod that checks settings.
        for job in of_kind(&resources, "Job") {
            assert!(!selects(&service["spec"]["selector"], &pod(job).unwrap()["metadata"]["labels"]), "{called}");
        }
        // Every volume is mounted, and every mount has a volume.
        for (resource, pod) in resources.iter().filter_map(|resource| Some((resource, pod(resource)?))) {
            let names = |list: &'_ [Value]| list.iter().map(|one| name_of(one).to_owned()).collect::<BTreeSet<_>>();
            let mounts = names(list(&pod["spec"]["containers"][0]["volumeMounts"]));
            assert_eq!(mounts, names(list(&pod["spec"]["volumes"])), "{called}: {}", name(resource));
        }
        if let Some(claim) =
            list(&template["spec"]["volumes"]).iter().find_map(|v| v["persistentVolumeClaim"].as_mapping())
            && !["full", "numbers"].contains(&called.as_str())
        {
            named(&resources, "PersistentVolumeClaim", claim["claimName"].as_str().unwrap());
        }
    }
}

fn name_of(item: &Value) -> &str {
    item["name"].as_str().unwrap_or_else(|| panic!("the name is no text: {item:?}"))
}

#[test]
fn values_reach_their_objects() {
    let charts = renderings();
    let Some(full) = charts.get("full") else { return };
    let kinds: BTreeSet<&str> = full.iter().map(kind).collect();
    let expected = [
        "ConfigMap",
        "Deployment",
        "Ingress",
        "Job",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
    ];
    assert_eq!(kinds, BTreeSet::from(expected), "the existing claim replaces that of the chart");
    let rule = &of_kind(full, "PrometheusRule")[0]["spec"]["groups"];
    assert_eq!(rule, &document("deploy/monitoring/prometheus-rules.yaml")["groups"]);
    let dashboard = &named(full, "ConfigMap", "relay-dashboard");
    assert_eq!(dashboard["data"]["grafana-dashboard.json"], read("deploy/monitoring/grafana-dashboard.json"));
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    named(full, "ConfigMap", "tagrelay-text");
    let deployment = named(full, "Deployment", "relay");
    let spec = &pod(deployment).unwrap()["spec"];
    assert!(
        spec["containers"][0]["image"]
            .as_str()
            .unwrap()
            .ends_with(&format!("@sha256:{}", "0123456789abcdef".repeat(4)))
    );
    assert_eq!(spec["priorityClassName"], "platform");
    assert!(spec["tolerations"][0]["key"] == "platform" && spec["affinity"].is_mapping());
    assert_eq!(spec["topologySpreadConstraints"][0]["maxSkew"], 1);
    assert!(pod(deployment).unwrap()["metadata"]["annotations"]["checksum/settings"].is_string());
    let account = named(full, "ServiceAccount", "relay");
    assert_eq!(
        account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"],
        "arn:aws:iam::111122223333:role/tagrelay"
    );
    let rules = list(&named(full, "NetworkPolicy", "relay")["spec"]["egress"]);
    let to =
        |cidr: &str| rules.iter().find(|rule| list(&rule["to"]).iter().any(|peer| peer["ipBlock"]["cidr"] == cidr));
    assert_eq!(list(&to("10.0.0.0/16").unwrap()["ports"]).len(), 2, "registries");
    assert_eq!(to("169.254.170.23/32").unwrap()["ports"][0]["port"], 80, "EKS Pod Identity");
    assert!(to("10.1.0.0/16").is_some(), "extra");
    let google = serde_json::to_string(of_kind(&charts["openshift"], "NetworkPolicy")[0]).unwrap();
    assert!(google.contains("169.254.169.252/32") && google.contains("988"), "GKE's metadata server: {google}");
    let none = serde_json::to_string(of_kind(&charts["default"], "NetworkPolicy")[0]).unwrap();
    assert!(!none.contains("169.254.169.254/32"), "without a cloud login, the metadata service is closed: {none}");

    // Without networks of their own, registries may be anywhere but at the metadata service.
    let rules = list(&of_kind(&charts["gateway"], "NetworkPolicy")[0]["spec"]["egress"]);
    let everywhere =
        rules.iter().flat_map(|rule| list(&rule["to"])).find(|peer| peer["ipBlock"]["cidr"] == "0.0.0.0/0");
    assert_eq!(everywhere.unwrap()["ipBlock"]["except"][0], "169.254.0.0/16");

    let gateway = &charts["gateway"];
    let [route] = of_kind(gateway, "HTTPRoute")[..] else { panic!("one HTTPRoute") };
    assert_eq!(route["spec"]["rules"][0]["matches"][0]["path"]["value"], "/webhooks");
    assert_eq!(route["spec"]["rules"][0]["backendRefs"][0]["port"], 8080);
    let template = pod(of_kind(gateway, "Deployment")[0]).unwrap();
    assert_eq!(template["metadata"]["labels"]["azure.workload.identity/use"], "true");
    let mounts = list(&template["spec"]["containers"][0]["volumeMounts"]);
    assert!(mounts.iter().any(|mount| mount["name"] == "tls" && mount["mountPath"] == "/run/tls"));
    assert_eq!(of_kind(gateway, "Service")[0]["spec"]["ports"][0]["appProtocol"], "https");
    let policy = &of_kind(gateway, "NetworkPolicy")[0]["spec"];
    assert_eq!(list(&policy["ingress"]).len(), 1, "no namespace may read metrics");
    assert_eq!(policy["ingress"][0]["from"][0]["namespaceSelector"].as_mapping().unwrap().len(), 0);

    let bare: BTreeSet<&str> = charts["bare"].iter().map(kind).collect();
    assert_eq!(bare, BTreeSet::from(["Deployment", "Service"]));
    let openshift = &pod(of_kind(&charts["openshift"], "Deployment")[0]).unwrap()["spec"]["securityContext"];
    assert!(openshift.get("runAsUser").is_none_or(Value::is_null), "{openshift:?}");
}

#[test]
fn contradictory_values_fail_with_a_message() {
    let settings = format!("settings={SETTINGS}");
    let cases: &[(&[&str], &str)] = &[
        (&[], "there are no settings: use --set-file settings=tagrelay.toml, or existingConfigMap"),
        (
            &["--set-file", &settings, "--set", "existingConfigMap=a"],
            "settings and existingConfigMap exclude each other",
        ),
        (&["--set-file", &settings, "--set", "replicas=2"], "replicas is 2, but store.kind is sqlite"),
        (&["--set-file", &settings, "--set", "store.kind=postgres"], "sqlite"),
        (&["--set", "existingConfigMap=a,restartOnChange=true"], "restartOnChange needs settings"),
        (
            &["--set-file", &settings, "--set", "ingress.enabled=true,ingress.host=a.b,gateway.enabled=true"],
            "ingress.enabled and gateway.enabled exclude each other",
        ),
        (&["--set-file", &settings, "--set", "ingress.enabled=true"], "ingress.enabled needs ingress.host"),
        (&["--set-file", &settings, "--set", "gateway.enabled=true"], "gateway.enabled needs gateway.parentRefs"),
        (
            &["--set-file", &settings, "--set", "persistence.enabled=false,persistence.existingClaim=a"],
            "persistence.existingClaim is set, but persistence.enabled is false",
        ),
        (
            &["--set-file", &settings, "--set", "service.operationsPort=8080"],
            "service.port and service.operationsPort are equal",
        ),
        (
            &["--set-file", &settings, "--set", "service.port=8081"],
            "the settings must have listen = \"0.0.0.0:8081\" in [server]",
        ),
        (
            &["--set-file", &settings, "--set", "secrets.files=null"],
            "the settings read /run/secrets/tagrelay/git-password, but secrets.files mounts no Secret there",
        ),
        (
            &["--set-file", &settings, "--set", "secrets.files[0].name=a,secrets.files[0].mountPath=/tmp"],
            "secrets.files: /tmp is mounted twice",
        ),
        (
            &["--set-file", &settings, "--set", "tls.secretName=a"],
            "tls.secretName is set, but the settings do not use it",
        ),
        (
            &["--values", "tests/fixtures/chart/gateway.yaml", "--set", "tls.secretName="],
            "the settings read /run/tls, but tls.secretName is empty",
        ),
        (
            &["--values", "tests/fixtures/chart/full.yaml", "--set", "extraEnv=null"],
            "the settings have { env = \"HARBOR_WEBHOOK_SECRET\" }, but neither secrets.env nor extraEnv has this name",
        ),
        // By the schema.
        (&["--set-file", &settings, "--set", "repliacs=1"], "repliacs"),
        (&["--set-file", &settings, "--set", "ingress.hots=a"], "hots"),
        (&["--set-file", &settings, "--set", "image.digest=abc"], "digest"),
        (&["--set-file", &settings, "--set", "cloudLogin=ibm"], "cloudLogin"),
    ];
    for helm in Helm::all() {
        for (arguments, message) in cases {
            let answer = helm.run(&[&["template", "tagrelay", CHART], *arguments].concat()).expect_code(1);
            assert!(answer.stderr.contains(message), "{}: {message}:\n{}", helm.program, answer.stderr);
        }
    }
}

#[test]
fn job_before_an_upgrade_checks_the_new_settings() {
    let charts = renderings();
    let Some(chart) = charts.get("default") else { return };
    let [job] = of_kind(chart, "Job")[..] else { panic!("one Job") };
    let annotations = |resource: &Value| resource["metadata"]["annotations"]["helm.sh/hook"].clone();
    assert_eq!(annotations(job), "pre-upgrade");
    let template = &pod(job).unwrap()["spec"];
    assert_eq!(job["spec"]["backoffLimit"], 0);
    assert_eq!(template["restartPolicy"], "Never");
    assert!(template["serviceAccountName"].is_null(), "the account of the release may not exist yet");

    // The Job has the pod's mounts, and the new settings in a ConfigMap of its own.
    let deployment = &pod(named(chart, "Deployment", "tagrelay")).unwrap()["spec"];
    let mounts = |spec: &Value| spec["containers"][0]["volumeMounts"].clone();
    assert_eq!(mounts(template), mounts(deployment));
    let config = list(&template["volumes"]).iter().find(|volume| volume["name"] == "config").unwrap();
    let new = named(chart, "ConfigMap", config["configMap"]["name"].as_str().unwrap());
    assert_eq!(annotations(new), "pre-upgrade");
    assert_eq!(new["data"]["tagrelay.toml"], read(SETTINGS));
    assert!(list(&template["volumes"]).iter().all(|volume| volume["persistentVolumeClaim"].is_null()));

    // An existing ConfigMap has the new settings already.
    let [other] = of_kind(&charts["numbers"], "Job")[..] else { panic!("one Job") };
    let volumes = list(&pod(other).unwrap()["spec"]["volumes"]);
    assert_eq!(volumes.iter().find(|volume| volume["name"] == "config").unwrap()["configMap"]["name"], "1234");

    // The command of the Job, with the program.
    let arguments: Vec<&str> =
        list(&template["containers"][0]["args"]).iter().map(|argument| argument.as_str().unwrap()).collect();
    let command = arguments.join(" ").replace("/etc/tagrelay/tagrelay.toml", "{settings}");
    let good = new["data"]["tagrelay.toml"].as_str().unwrap();
    let checked = Place::new(good).run(&command).expect_code(0);
    assert!(checked.stdout.contains("as expected"), "{}", checked.stdout);
    for (from, to, message) in [
        ("update = \"manual\"", "update = \"manuel\"", "manuel"),
        ("git-password", "git-passwort", "git-passwort"),
        ("sqlite:/var/lib/tagrelay/tagrelay.db", "sqlite:/tmp/tagrelay.db", "it is lost with the pod"),
        ("sqlite:/var/lib/tagrelay/tagrelay.db", "postgres://db.internal/tagrelay", "sqlite"),
    ] {
        let faulty = good.replace(from, to);
        assert_ne!(faulty, good);
        let checked = Place::new(&faulty).run(&command).expect_code(1);
        assert!(checked.stdout.contains(message), "{message}: {}", checked.stdout);
    }
}

#[test]
fn packaged_chart_goes_through_a_registry() {
    let helms = Helm::all();
    let [four, three] = &helms[..] else { return };
    let Some(registry) = DockerRegistry::start(docker_registry::Options::default()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    four.run(&["package", CHART, "--destination", folder]).expect_code(0);
    let archive = format!("{folder}/tagrelay-{version}.tgz");
    let charts = format!("oci://{}/charts", registry.host);
    four.run(&["push", &archive, &charts, "--plain-http"]).expect_code(0);

    // Helm 3 pulls what Helm 4 pushed, and renders the same.
    let pulled = format!("{folder}/pulled");
    std::fs::create_dir(&pulled).unwrap();
    let chart = format!("{charts}/tagrelay");
    three
        .run(&["pull", &chart, "--version", version, "--plain-http", "--untar", "--destination", &pulled])
        .expect_code(0);
    let settings = with_settings();
    let from_registry = three.rendered_chart(format!("{pulled}/tagrelay").as_ref(), &strings(&settings));
    assert_eq!(from_registry, three.rendered(&strings(&settings)));
    let missing = three.run(&["pull", &chart, "--version", "9.9.9", "--plain-http", "--destination", &pulled]);
    assert_ne!(missing.code, 0);
}

#[test]
fn notes_name_the_webhooks() {
    // Helm 3 asks the cluster for its version even in a dry run.
    for helm in Helm::all().iter().filter(|helm| helm.program == "helm") {
        let mut command = helm.command(&["install", "relay", CHART, "--dry-run=client"]);
        command.args(["--values", "tests/fixtures/chart/full.yaml"]).env("KUBECONFIG", "/dev/null");
        let notes = tagrelay_test_support::command::run(&mut command).expect_code(0).stdout;
        let (_, notes) = notes.split_once("NOTES:").unwrap();
        let urls: Vec<&str> = notes.lines().map(str::trim).filter(|line| line.starts_with("https://")).collect();
        let host = "https://tagrelay.example.com/webhooks";
        assert_eq!(urls, [format!("{host}/hub"), format!("{host}/harbor")], "{}: {notes}", helm.program);
    }
}
