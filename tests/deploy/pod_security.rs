//! Every workload that is shipped meets the Pod Security standard "restricted".

use serde_yaml::Value;

use super::chart_rendering;
use super::platform_tree::{ENVIRONMENTS, EXAMPLE, containers, kind, list, name, path, pod, rendered_at};

/// What a pod template does that "restricted" forbids, with the fields of the standard's page.
fn violations(pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    let mut found = Vec::new();
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec[host] == true {
            found.push(host.to_owned());
        }
    }
    let allowed = [
        "name",
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    for volume in list(&spec["volumes"]) {
        let keys = volume.as_mapping().unwrap().keys();
        found.extend(keys.filter(|key| !allowed.iter().any(|one| *key == one)).map(|key| format!("volume {key:?}")));
    }
    for container in containers(pod) {
        let called = container["name"].as_str().unwrap();
        found.extend(container_violations(container, &spec["securityContext"]).map(|what| format!("{called}: {what}")));
    }
    found
}

fn container_violations<'a>(container: &'a Value, pod: &'a Value) -> impl Iterator<Item = &'static str> {
    let own = &container["securityContext"];
    // The container's value takes precedence over the pod's.
    let effective = |key: &str| if own[key].is_null() { pod[key].clone() } else { own[key].clone() };
    let profile = &effective("seccompProfile")["type"];
    let is_empty = |value: &Value| value.is_null() || list(value).is_empty() && !value.is_mapping();
    let added = list(&own["capabilities"]["add"]);
    [
        (own["privileged"] == true, "privileged"),
        (own["allowPrivilegeEscalation"] != false, "allowPrivilegeEscalation"),
        (effective("runAsNonRoot") != true, "runAsNonRoot"),
        (effective("runAsUser") == 0, "runAsUser"),
        (profile != "RuntimeDefault" && profile != "Localhost", "seccompProfile"),
        (!list(&own["capabilities"]["drop"]).iter().any(|dropped| dropped == "ALL"), "capabilities.drop"),
        (added.iter().any(|capability| capability != "NET_BIND_SERVICE"), "capabilities.add"),
        (!own["procMount"].is_null() && own["procMount"] != "Default", "procMount"),
        (!is_empty(&effective("seLinuxOptions")), "seLinuxOptions"),
        (list(&container["ports"]).iter().any(|port| !port["hostPort"].is_null()), "hostPort"),
    ]
    .into_iter()
    .filter_map(|(is_violated, what)| is_violated.then_some(what))
}

#[test]
fn every_shipped_workload_is_restricted() {
    let charts = chart_rendering::renderings();
    let environments = ENVIRONMENTS.map(|environment| format!("{EXAMPLE}/environments/{environment}"));
    let folders = environments.into_iter().chain(["deploy/kubernetes".to_owned()]);
    let built = folders.filter_map(|folder| Some((folder.clone(), rendered_at(&path(&folder))?)));
    let mut workloads = 0;
    for (place, resources) in charts.into_iter().map(|(name, found)| (format!("chart, {name}"), found)).chain(built) {
        for (resource, pod) in resources.iter().filter_map(|resource| Some((resource, pod(resource)?))) {
            let called = format!("{place}: {} {}", kind(resource), name(resource));
            assert_eq!(violations(pod), Vec::<String>::new(), "{called}");
            for container in containers(pod) {
                assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{called}");
            }
            workloads += 1;
        }
    }
    let programs = ["helm", "helm-3", "kubectl"];
    if programs.iter().all(|program| tagrelay_test_support::peer::tool(program).is_some()) {
        // Of the chart, of the environments, of `deploy/kubernetes`.
        assert_eq!(workloads, 11 + 3 * 7 + 1);
    }
}

#[test]
fn each_forbidden_field_is_found() {
    let good = "spec:
  securityContext: { runAsNonRoot: true, seccompProfile: { type: RuntimeDefault } }
  volumes: [{ name: data, emptyDir: {} }]
  containers:
    - name: one
      securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: [ALL] } }
";
    let check = |text: &str| violations(&serde_yaml::from_str(text).unwrap());
    assert_eq!(check(good), Vec::<String>::new());
    for (from, to, expected) in [
        ("emptyDir: {}", "hostPath: { path: / }", "volume String(\"hostPath\")"),
        ("  volumes", "  hostNetwork: true\n  volumes", "hostNetwork"),
        ("runAsNonRoot: true, ", "", "one: runAsNonRoot"),
        ("runAsNonRoot: true", "runAsNonRoot: true, runAsUser: 0", "one: runAsUser"),
        ("type: RuntimeDefault", "type: Unconfined", "one: seccompProfile"),
        ("allowPrivilegeEscalation: false, ", "", "one: allowPrivilegeEscalation"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: false, privileged: true", "one: privileged"),
        ("drop: [ALL]", "drop: [NET_RAW]", "one: capabilities.drop"),
        ("drop: [ALL]", "drop: [ALL], add: [SYS_ADMIN]", "one: capabilities.add"),
        ("- name: one", "- name: one\n      ports: [{ containerPort: 1, hostPort: 1 }]", "one: hostPort"),
        (
            "allowPrivilegeEscalation: false",
            "allowPrivilegeEscalation: false, runAsNonRoot: false",
            "one: runAsNonRoot",
        ),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        assert_eq!(check(&bad), [expected], "{bad}");
    }
}
