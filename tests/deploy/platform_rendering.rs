//! The rendered platform: valid for every supported Kubernetes, hardened, and without dangling references.

use std::collections::{BTreeMap, BTreeSet};

use serde_yaml::Value;
use tagrelay_image::ImageReference;
use tagrelay_test_support::peer::tool;

use super::platform_tree::{
    ENVIRONMENTS, EXAMPLE, containers, documents, kind, list, name, named, of_kind, output, path, pod, read, rendered,
    rendered_at, selects, text,
};

/// The supported versions.
const KUBERNETES: [&str; 9] = ["1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"];

/// Custom resources, which the schemas of Kubernetes do not have.
const CUSTOM: [&str; 10] = [
    "HTTPRoute",
    "AppProject",
    "ApisixGlobalRule",
    "ApisixRoute",
    "ApisixUpstream",
    "ExternalSecret",
    "ServiceMonitor",
    "PrometheusRule",
    "Application",
    "ApplicationSet",
];

/// Pods of the gateway's chart, by their label `app.kubernetes.io/name`, with their container ports.
const CHART_PODS: [(&str, &[u64]); 2] = [("apisix", &[9080, 9180, 9091]), ("ingress-controller", &[8080])];

/// Services of the gateway's chart, with their ports.
const CHART_SERVICES: [(&str, u64); 1] = [("apisix-gateway", 80)];

fn every_environment() -> impl Iterator<Item = (&'static str, Vec<Value>)> {
    ENVIRONMENTS.into_iter().filter_map(|environment| Some((environment, rendered(environment)?)))
}

#[test]
fn manifests_are_valid_for_every_supported_kubernetes() {
    if tool("kubernetes-validate").is_none() || tool("kubectl").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let environments = ENVIRONMENTS.map(|environment| format!("{EXAMPLE}/environments/{environment}"));
    let others = ["deploy/kubernetes", "deploy/monitoring", "deploy/argocd"].map(str::to_owned);
    let built = environments.iter().chain(&others).map(|built| (built.clone(), rendered_at(&path(built)).unwrap()));
    let charts = super::chart_rendering::renderings();
    let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
    for (called, resources) in built.chain(charts.into_iter().map(|(name, found)| (format!("chart {name}"), found))) {
        assert!(!resources.is_empty(), "{called}");
        let builtin = resources.iter().filter(|found| !CUSTOM.contains(&kind(found)));
        // JSON: the validator reads YAML 1.1, where an unquoted `yes` is a boolean.
        let texts = builtin.map(|found| serde_json::to_string(found).unwrap());
        // Many objects are the same in several places, and the validator takes a while for each.
        let documents: Vec<String> = texts.filter(|text| seen.insert(text.clone())).collect();
        if !documents.is_empty() {
            let file = folder.path().join(format!("{}.yaml", called.replace('/', "-")));
            std::fs::write(&file, documents.join("\n---\n")).unwrap();
            files.push(file);
        }
    }
    assert!(seen.len() >= 70, "{} objects", seen.len());
    for version in KUBERNETES {
        let said = output(tool("kubernetes-validate").unwrap().args(["--strict", "-k", version]).args(&files));
        assert!(!said.contains("Couldn't find schema"), "{said}");
        for file in &files {
            assert!(said.contains(&*file.to_string_lossy()), "{version}: {} was not checked", file.display());
        }
    }
}

#[test]
fn workloads_roll_out_without_interruption() {
    for (environment, resources) in every_environment() {
        let deployments = of_kind(&resources, "Deployment");
        assert_eq!(deployments.len(), 2, "{environment}");
        for deployment in deployments {
            let called = name(deployment);
            let spec = &deployment["spec"];
            assert_eq!(spec["strategy"]["type"], "RollingUpdate");
            assert_eq!(spec["strategy"]["rollingUpdate"]["maxUnavailable"], 0, "{environment}: {called}");
            let pod = &spec["template"];
            let [container] = list(&pod["spec"]["containers"]) else { panic!("{called} has one container") };
            let grpc = port_named(container, "grpc");
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                assert_eq!(&container[probe]["grpc"]["port"], grpc, "{called}: {probe}");
            }
            let pause = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
            let grace = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
            assert!((5..=grace - 20).contains(&pause), "{called}: {pause} s of {grace} s");
            let spread = &pod["spec"]["topologySpreadConstraints"][0];
            assert!(selects(&spread["labelSelector"]["matchLabels"], &pod["metadata"]["labels"]));

            let scaler = named(&resources, "HorizontalPodAutoscaler", called);
            assert_eq!(scaler["spec"]["scaleTargetRef"]["name"], called);
            let (least, most) = (scaler["spec"]["minReplicas"].as_u64(), scaler["spec"]["maxReplicas"].as_u64());
            assert!(least < most, "{called}: {least:?} to {most:?}");
            assert_eq!(spec["replicas"].as_u64(), least, "{environment}: {called} starts with the least replicas");
            let budget = named(&resources, "PodDisruptionBudget", called);
            assert_eq!(budget["spec"]["maxUnavailable"], 1);
            assert!(selects(&budget["spec"]["selector"]["matchLabels"], &pod["metadata"]["labels"]));
        }
        let production = named(&resources, "Deployment", "user-service")["spec"]["replicas"].as_u64().unwrap();
        assert_eq!(production >= 3, environment == "production", "{environment}");
    }
}

#[test]
fn stateful_sets_keep_their_data() {
    for (_, resources) in every_environment() {
        let sets = of_kind(&resources, "StatefulSet");
        assert_eq!(sets.iter().map(|set| name(set)).collect::<Vec<_>>(), ["etcd", "postgres", "redis"]);
        for set in sets {
            let spec = &set["spec"];
            named(&resources, "Service", text(&spec["serviceName"]));
            let volume = &spec["volumeClaimTemplates"][0];
            assert!(volume["spec"]["resources"]["requests"]["storage"].is_string());
            let mounts = list(&spec["template"]["spec"]["containers"][0]["volumeMounts"]);
            assert!(mounts.iter().any(|mount| mount["name"] == volume["metadata"]["name"]), "{}", name(set));
            assert_eq!(spec["replicas"], if name(set) == "etcd" { 3 } else { 1 });
        }
        // etcd lists exactly its replicas as members.
        let etcd = &named(&resources, "StatefulSet", "etcd")["spec"]["template"]["spec"]["containers"][0];
        let variable = list(&etcd["env"]).iter().find(|variable| variable["name"] == "ETCD_INITIAL_CLUSTER").unwrap();
        let members: Vec<String> =
            (0..3).map(|number| format!("etcd-{number}=http://etcd-{number}.etcd-peers:2380")).collect();
        assert_eq!(text(&variable["value"]), members.join(","));
    }
}

#[test]
fn every_pod_meets_the_restricted_standard() {
    for (environment, resources) in every_environment() {
        let [namespace] = of_kind(&resources, "Namespace")[..] else { panic!("{environment} has one namespace") };
        assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
        let mut pods = 0;
        for (resource, pod) in resources.iter().filter_map(|resource| Some((resource, pod(resource)?))) {
            let called = format!("{environment}: {} {}", kind(resource), name(resource));
            pods += 1;
            let spec = &pod["spec"];
            assert_eq!(spec["automountServiceAccountToken"], false, "{called}");
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{called}");
            assert!(spec["securityContext"]["runAsUser"].as_u64().unwrap() > 0, "{called}");
            assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{called}");
            for host in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(spec[host].is_null(), "{called}");
            }
            for container in containers(pod) {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false, "{called}");
                assert_eq!(security["readOnlyRootFilesystem"], true, "{called}");
                assert_eq!(list(&security["capabilities"]["drop"]), ["ALL"], "{called}");
                for amount in
                    [&container["resources"]["requests"]["cpu"], &container["resources"]["requests"]["memory"]]
                {
                    assert!(!amount.is_null(), "{called}: a request is missing");
                }
                assert!(container["resources"]["limits"]["memory"].is_string(), "{called}: the limit is missing");
            }
        }
        assert_eq!(pods, 7, "{environment}");
    }
    let values = super::platform_tree::document(&format!("{EXAMPLE}/base/apisix/values.yaml"));
    for chart in [&values, &values["ingress-controller"]] {
        assert_eq!(chart["podSecurityContext"]["runAsNonRoot"], true);
        assert_eq!(chart["podSecurityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(chart["securityContext"]["allowPrivilegeEscalation"], false);
        assert_eq!(list(&chart["securityContext"]["capabilities"]["drop"]), ["ALL"]);
    }
    assert_eq!(values["updateStrategy"]["rollingUpdate"]["maxUnavailable"], 0);
    assert_eq!(values["podDisruptionBudget"]["enabled"], true);
}

fn port_named<'a>(container: &'a Value, called: &str) -> &'a Value {
    let port = list(&container["ports"]).iter().find(|port| port["name"] == called);
    &port.unwrap_or_else(|| panic!("no port {called} in {}", text(&container["name"])))["containerPort"]
}

/// The labels and container ports of every pod, with those of the gateway's chart.
fn pods(resources: &[Value]) -> Vec<(Value, Vec<(String, u64)>)> {
    let mut pods: Vec<_> = resources
        .iter()
        .filter_map(pod)
        .map(|pod| {
            let ports = containers(pod).flat_map(|container| list(&container["ports"]));
            let ports = ports.map(|port| (text(&port["name"]).to_owned(), port["containerPort"].as_u64().unwrap()));
            (pod["metadata"]["labels"].clone(), ports.collect())
        })
        .collect();
    for (called, ports) in CHART_PODS {
        let labels = serde_yaml::from_str(&format!("{{app.kubernetes.io/name: {called}}}")).unwrap();
        pods.push((labels, ports.iter().map(|port| (String::new(), *port)).collect()));
    }
    pods
}

#[test]
fn selectors_match_pods_and_ports() {
    for (environment, resources) in every_environment() {
        let pods = pods(&resources);
        let chosen = |selector: &Value| pods.iter().filter(|(labels, _)| selects(selector, labels)).collect::<Vec<_>>();
        for service in of_kind(&resources, "Service") {
            let chosen = chosen(&service["spec"]["selector"]);
            assert!(!chosen.is_empty(), "{environment}: Service {} selects no pod", name(service));
            for port in list(&service["spec"]["ports"]) {
                let target = &port["targetPort"];
                let fits = |ports: &[(String, u64)]| {
                    ports.iter().any(|(called, number)| target == called.as_str() || target.as_u64() == Some(*number))
                };
                assert!(chosen.iter().all(|(_, ports)| fits(ports)), "{}: {target:?}", name(service));
            }
        }
        for budget in of_kind(&resources, "PodDisruptionBudget") {
            assert!(!chosen(&budget["spec"]["selector"]["matchLabels"]).is_empty(), "{}", name(budget));
        }
        for policy in of_kind(&resources, "NetworkPolicy") {
            check_policy(policy, &pods);
        }
        for scaler in of_kind(&resources, "HorizontalPodAutoscaler") {
            let target = &scaler["spec"]["scaleTargetRef"];
            named(&resources, text(&target["kind"]), text(&target["name"]));
        }
    }
}

/// Every pod that a policy names exists, and has the ports that the policy opens.
fn check_policy(policy: &Value, pods: &[(Value, Vec<(String, u64)>)]) {
    let called = name(policy);
    let chosen = |selector: &Value| -> Vec<&Vec<(String, u64)>> {
        let everything = serde_yaml::Mapping::new();
        let labels = selector.get("matchLabels").cloned().unwrap_or(Value::Mapping(everything));
        pods.iter().filter(|(found, _)| selects(&labels, found)).map(|(_, ports)| ports).collect()
    };
    let own = chosen(&policy["spec"]["podSelector"]);
    assert!(!own.is_empty(), "{called} selects no pod");
    let has = |pods: &[&Vec<(String, u64)>], rule: &Value| {
        for port in list(&rule["ports"]) {
            let port = port["port"].as_u64().unwrap();
            assert!(pods.iter().any(|ports| ports.iter().any(|(_, number)| *number == port)), "{called}: {port}");
        }
    };
    for rule in list(&policy["spec"]["ingress"]) {
        has(&own, rule);
        for peer in list(&rule["from"]).iter().filter(|peer| peer["namespaceSelector"].is_null()) {
            assert!(!chosen(&peer["podSelector"]).is_empty(), "{called} admits no pod: {peer:?}");
        }
    }
    for rule in list(&policy["spec"]["egress"]) {
        let inside = list(&rule["to"]).iter().filter(|peer| peer["podSelector"].is_mapping());
        for peer in inside.filter(|peer| peer["namespaceSelector"].is_null()) {
            has(&chosen(&peer["podSelector"]), rule);
        }
    }
}

#[test]
fn every_pod_is_closed_but_for_listed_connections() {
    for (environment, resources) in every_environment() {
        let policies = of_kind(&resources, "NetworkPolicy");
        let default = policies.iter().find(|policy| name(policy) == "default-deny").unwrap();
        assert_eq!(default["spec"]["podSelector"].as_mapping().unwrap().len(), 0, "{environment}");
        assert_eq!(list(&default["spec"]["policyTypes"]), ["Ingress", "Egress"]);
        // The gateway reaches the services, and the services their stores: both ends have a policy.
        for (from, to, port) in [
            ("apisix", "user-service", 50051),
            ("apisix", "order-service", 50051),
            ("apisix", "etcd", 2379),
            ("user-service", "postgres", 5432),
            ("order-service", "redis", 6379),
            ("etcd-auth", "etcd", 2379),
            ("etcd", "etcd", 2380),
            ("ingress-controller", "apisix", 9180),
        ] {
            let pods = pods(&resources);
            let labels = |called: &str| {
                pods.iter().map(|(labels, _)| labels).find(|labels| labels["app.kubernetes.io/name"] == called).unwrap()
            };
            let (from, to) = (labels(from), labels(to));
            assert!(allows(&policies, "egress", "to", from, to, port), "{from:?} may not send to {to:?} {port}");
            assert!(allows(&policies, "ingress", "from", to, from, port), "{to:?} does not admit {from:?} {port}");
        }
    }
}

/// Whether a policy of `own` has a rule for `other` and the port.
fn allows(policies: &[&Value], direction: &str, peers: &str, own: &Value, other: &Value, port: u64) -> bool {
    let matches =
        |selector: &Value, labels: &Value| selector.get("matchLabels").is_none_or(|wanted| selects(wanted, labels));
    policies.iter().filter(|policy| matches(&policy["spec"]["podSelector"], own)).any(|policy| {
        list(&policy["spec"][direction]).iter().any(|rule| {
            list(&rule["ports"]).iter().any(|open| open["port"].as_u64() == Some(port))
                && list(&rule[peers]).iter().any(|peer| {
                    peer["namespaceSelector"].is_null()
                        && peer["podSelector"].is_mapping()
                        && matches(&peer["podSelector"], other)
                })
        })
    })
}

#[test]
fn scraped_ports_exist() {
    for (environment, resources) in every_environment() {
        let monitors = of_kind(&resources, "ServiceMonitor");
        assert_eq!(monitors.len(), 2, "{environment}");
        let mut scraped = BTreeSet::new();
        for monitor in monitors {
            assert!(monitor["metadata"]["labels"]["release"].is_string(), "the operator selects by this label");
            let selector = &monitor["spec"]["selector"]["matchLabels"];
            let services = of_kind(&resources, "Service").into_iter();
            let chosen: Vec<_> = services.filter(|service| selects(selector, &service["metadata"]["labels"])).collect();
            assert!(!chosen.is_empty(), "{} selects no Service", name(monitor));
            for (service, endpoint) in
                chosen.iter().flat_map(|s| list(&monitor["spec"]["endpoints"]).iter().map(move |e| (s, e)))
            {
                let port = list(&service["spec"]["ports"]).iter().find(|port| port["name"] == endpoint["port"]);
                let port = port.unwrap_or_else(|| panic!("{} has no port {:?}", name(service), endpoint["port"]));
                let number = port["port"].as_u64().unwrap();
                let metrics = named(&resources, "NetworkPolicy", "metrics");
                let open = list(&metrics["spec"]["ingress"][0]["ports"]).iter();
                assert!(open.clone().any(|open| open["port"].as_u64() == Some(number)), "{number} is closed");
                scraped.insert(name(service).to_owned());
            }
        }
        assert_eq!(scraped.into_iter().collect::<Vec<_>>(), ["etcd", "order-service", "user-service"]);
    }
}

/// The keys of each Secret, as the variant for Sealed Secrets lists them.
fn secrets() -> BTreeMap<String, BTreeSet<String>> {
    let file = format!("{EXAMPLE}/components/sealed-secrets/sealedsecrets.yaml");
    let keys = |secret: &Value| {
        secret["spec"]["encryptedData"].as_mapping().unwrap().keys().map(|key| text(key).to_owned()).collect()
    };
    documents(&file, &read(&file)).iter().map(|secret| (name(secret).to_owned(), keys(secret))).collect()
}

#[test]
fn references_to_secrets_and_config_maps_resolve() {
    let secrets = secrets();
    for (environment, resources) in every_environment() {
        let external: BTreeSet<&str> = of_kind(&resources, "ExternalSecret")
            .into_iter()
            .map(|found| text(&found["spec"]["target"]["name"]))
            .collect();
        assert_eq!(external, secrets.keys().map(String::as_str).collect(), "{environment}");
        let mut seen = 0;
        for (resource, pod) in resources.iter().filter_map(|resource| Some((resource, pod(resource)?))) {
            let called = format!("{environment}: {}", name(resource));
            let map = |reference: &Value| &named(&resources, "ConfigMap", text(&reference["name"]))["data"];
            for container in containers(pod) {
                for variable in list(&container["env"]) {
                    let from = &variable["valueFrom"];
                    if let Some(reference) = from.get("secretKeyRef") {
                        let keys =
                            secrets.get(text(&reference["name"])).unwrap_or_else(|| panic!("{called}: {reference:?}"));
                        assert!(keys.contains(text(&reference["key"])), "{called}: {reference:?}");
                        seen += 1;
                    }
                    if let Some(reference) = from.get("configMapKeyRef") {
                        assert!(map(reference).get(text(&reference["key"])).is_some(), "{called}: {reference:?}");
                        seen += 1;
                    }
                }
                for source in list(&container["envFrom"]) {
                    assert!(map(&source["configMapRef"]).is_mapping());
                }
                for mount in list(&container["volumeMounts"]) {
                    let volumes = list(&pod["spec"]["volumes"]).iter().map(|volume| &volume["name"]);
                    let claims =
                        list(&resource["spec"]["volumeClaimTemplates"]).iter().map(|claim| &claim["metadata"]["name"]);
                    assert!(volumes.chain(claims).any(|volume| volume == &mount["name"]), "{called}: {mount:?}");
                }
            }
            for volume in list(&pod["spec"]["volumes"]).iter().filter(|volume| volume["configMap"].is_mapping()) {
                assert!(map(&volume["configMap"]).is_mapping(), "{called}");
            }
        }
        assert!(seen >= 9, "{environment}: {seen} references");
    }
}

#[test]
fn routes_lead_to_services_and_are_the_same_that_probes_ask_for() {
    for (_, resources) in every_environment() {
        let has_port = |service: &str, port: u64| {
            CHART_SERVICES.contains(&(service, port))
                || list(&named(&resources, "Service", service)["spec"]["ports"])
                    .iter()
                    .any(|found| found["port"].as_u64() == Some(port))
        };
        let [ingress] = of_kind(&resources, "Ingress")[..] else { panic!("one Ingress") };
        let backend = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
        assert!(has_port(text(&backend["name"]), backend["port"]["number"].as_u64().unwrap()));
        let [route] = of_kind(&resources, "ApisixRoute")[..] else { panic!("one ApisixRoute") };
        let rules = list(&route["spec"]["http"]);
        assert_eq!(rules.len(), 3);
        for rule in rules {
            assert_eq!(rule["match"]["hosts"][0], ingress["spec"]["rules"][0]["host"]);
            let backend = &rule["backends"][0];
            let service = text(&backend["serviceName"]);
            assert!(has_port(service, backend["servicePort"].as_u64().unwrap()), "{backend:?}");
            assert_eq!(named(&resources, "ApisixUpstream", service)["spec"]["scheme"], "grpc");
            let path = text(&rule["match"]["paths"][0]);
            if rule["name"] != "health" {
                let container = &named(&resources, "Deployment", service)["spec"]["template"]["spec"]["containers"][0];
                let probed = text(&container["readinessProbe"]["grpc"]["service"]);
                assert_eq!(path, format!("/{probed}/*"), "the readiness of the routed service is probed");
            }
        }
        assert_eq!(list(&ingress["spec"]["tls"][0]["hosts"])[0], ingress["spec"]["rules"][0]["host"]);
    }
}

#[test]
fn images_are_pinned() {
    for (environment, resources) in every_environment() {
        let mut images: BTreeSet<String> = BTreeSet::new();
        for container in resources.iter().filter_map(pod).flat_map(containers) {
            let written = text(&container["image"]);
            let image: ImageReference = written.parse().unwrap();
            let tag = image.tag.as_ref().unwrap_or_else(|| panic!("{environment}: {written} has no tag"));
            assert!(
                tag.as_str() != "latest" && tag.as_str().contains(|digit: char| digit.is_ascii_digit()),
                "{written}"
            );
            assert!(written.starts_with(image.repository.registry()), "{written} names its registry");
            images.insert(written.to_owned());
        }
        assert_eq!(images.len(), 6, "{images:?}");
    }
}

#[test]
fn tagrelay_finds_no_problem_in_the_platform() {
    let place = super::cluster_settings::Place::new(&read("deploy/kubernetes/tagrelay.toml"));
    let checked = place.run("check --offline --config {settings}").expect_code(0);
    assert!(checked.stdout.contains("faults 0, warnings 0"), "{}", checked.stdout);
    let example = path(EXAMPLE);
    let found = place.run(&format!("sites {} --config {{settings}} --json", example.display())).expect_code(0).json();
    assert_eq!(found["problems"], serde_json::json!([]));
    let mut managed = BTreeMap::new();
    for site in found["sites"].as_array().unwrap().iter().filter(|site| !site["rule"].is_null()) {
        let environments = site["environments"].as_array().unwrap();
        let [environment] = environments.as_slice() else { panic!("{site:#}") };
        let versions: &mut BTreeSet<String> = managed.entry(environment.as_str().unwrap().to_owned()).or_default();
        versions.insert(format!("{} {}", site["repository"].as_str().unwrap(), site["tag"].as_str().unwrap()));
    }
    assert_eq!(managed.len(), ENVIRONMENTS.len(), "{managed:#?}");
    assert!(managed.values().all(|versions| versions.len() == 2), "{managed:#?}");
}
