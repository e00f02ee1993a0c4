//! The environments are alike but for the listed differences, and no two applications own one cluster-scoped object.

use std::collections::{BTreeMap, BTreeSet};

use serde_yaml::Value;
use tagrelay::policy::RepositoryPattern;
use tagrelay_image::ImageReference;

use super::platform_tree::{
    ENVIRONMENTS, EXAMPLE, applications, containers, document, documents, files_below, kind, leaves, list, merged,
    name, named, of_kind, path, pod, read, rendered, text,
};

/// Differences between staging and production: the kind, the path (`*` is any text), and why.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("*", "metadata.namespace", "the namespace"),
    ("*", "metadata.labels.uyou.example/environment", "the label of the environment"),
    ("Namespace", "metadata.name", "the namespace"),
    ("Ingress", "spec.*.host*", "the host name"),
    ("ApisixRoute", "spec.http.*.match.hosts.0", "the host name"),
    ("Apisix*", "spec.ingressClassName", "the class of the gateway"),
    ("ExternalSecret", "spec.secretStoreRef.name", "the store of the secrets"),
    ("HorizontalPodAutoscaler", "spec.m*Replicas", "the size"),
    ("Deployment", "spec.replicas", "the size"),
    ("Deployment", "spec.template.spec.containers.0.resources.*", "the size"),
    ("StatefulSet", "spec.template.spec.containers.0.resources.*", "the size"),
    ("StatefulSet", "spec.volumeClaimTemplates.0.spec.resources.requests.storage", "the size"),
    ("Deployment", "spec.template.spec.containers.0.image", "the version"),
    ("CronJob", "spec.jobTemplate.spec.template.spec.containers.0.image", "the version"),
];

/// Differences between the values of the gateway.
const ALLOWED_VALUES: &[&str] = &[
    "autoscaling.m*Replicas",
    "resources.*",
    "ingress-controller.config.kubernetes.ingressClass",
    "ingress-controller.config.kubernetes.namespaceSelector.0",
    "ingress-controller.config.apisix.serviceNamespace",
];

fn fits(pattern: &str, text: &str) -> bool {
    let pattern = regex::escape(pattern).replace(r"\*", ".*");
    regex::Regex::new(&format!("^{pattern}$")).unwrap().is_match(text)
}

/// The objects of an environment, by kind and name.
fn objects(environment: &str) -> Option<BTreeMap<(String, String), Value>> {
    let called = |resource: &Value| match kind(resource) {
        "Namespace" => String::new(),
        _ => name(resource).to_owned(),
    };
    let key = |resource: Value| ((kind(&resource).to_owned(), called(&resource)), resource);
    Some(rendered(environment)?.into_iter().map(key).collect())
}

#[test]
fn staging_and_production_differ_as_listed() {
    let (Some(staging), Some(production)) = (objects("staging"), objects("production")) else { return };
    assert_eq!(staging.keys().collect::<Vec<_>>(), production.keys().collect::<Vec<_>>());
    let mut used = BTreeSet::new();
    for ((kind, called), staging) in &staging {
        let (here, there) = (leaves(staging), leaves(&production[&(kind.clone(), called.clone())]));
        for path in here.keys().chain(there.keys()).collect::<BTreeSet<_>>() {
            if here.get(path) == there.get(path) {
                continue;
            }
            let found = ALLOWED.iter().position(|(of, pattern, _)| fits(of, kind) && fits(pattern, path));
            let Some(found) = found else {
                panic!(
                    "{kind} {called}: {path} is {:?} in staging and {:?} in production",
                    here.get(path),
                    there.get(path)
                )
            };
            used.insert(found);
        }
    }
    // The versions may happen to be the same.
    let unused: Vec<_> = (0..ALLOWED.len()).filter(|index| !used.contains(index)).map(|index| ALLOWED[index]).collect();
    assert!(unused.iter().all(|(_, _, why)| *why == "the version"), "not needed: {unused:?}");
}

#[test]
fn values_of_staging_and_production_differ_as_listed() {
    let values = |environment: &str| {
        leaves(&merged(
            &["base", &format!("environments/{environment}")]
                .map(|folder| format!("{EXAMPLE}/{folder}/apisix/values.yaml")),
        ))
    };
    let (staging, production) = (values("staging"), values("production"));
    for path in staging.keys().chain(production.keys()).collect::<BTreeSet<_>>() {
        let is_allowed = ALLOWED_VALUES.iter().any(|pattern| fits(pattern, path));
        assert!(is_allowed || staging.get(path) == production.get(path), "{path}");
    }
}

#[test]
fn every_environment_has_the_same_objects() {
    let mut all = ENVIRONMENTS.iter().filter_map(|environment| Some((environment, objects(environment)?)));
    let Some((_, first)) = all.next() else { return };
    for (environment, objects) in all {
        assert_eq!(objects.keys().collect::<Vec<_>>(), first.keys().collect::<Vec<_>>(), "{environment}");
    }
}

#[test]
fn no_cluster_scoped_object_has_two_applications() {
    const CLUSTER_SCOPED: [&str; 8] = [
        "Namespace",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "IngressClass",
        "StorageClass",
        "PriorityClass",
        "ClusterSecretStore",
    ];
    let mut owners: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut own = |kind: &str, called: &str, application: &Value| {
        let owner = name(application).to_owned();
        let before = owners.insert((kind.to_owned(), called.to_owned()), owner.clone());
        assert!(before.is_none(), "{kind} {called} belongs to {before:?} and {owner}");
    };
    let mut names = BTreeSet::new();
    for application in applications() {
        assert!(names.insert(name(&application).to_owned()), "{} is there twice", name(&application));
        let spec = &application["spec"];
        if let Some(folder) = spec["source"]["path"].as_str().filter(|path| path.starts_with("environments/")) {
            let Some(resources) = rendered(folder.trim_start_matches("environments/")) else { return };
            for resource in &resources {
                match CLUSTER_SCOPED.contains(&kind(resource)) {
                    true => own(kind(resource), name(resource), &application),
                    false => assert_eq!(resource["metadata"]["namespace"], spec["destination"]["namespace"]),
                }
            }
        } else if spec["sources"][0]["chart"] == "apisix" {
            // What the chart makes of its values: the names are in its templates.
            let helm = &spec["sources"][0]["helm"];
            let release = text(&helm["releaseName"]);
            own("ClusterRole", &format!("{release}-clusterrole"), &application);
            own("ClusterRoleBinding", &format!("{release}-clusterrolebinding"), &application);
            let files: Vec<String> =
                list(&helm["valueFiles"]).iter().map(|file| text(file).replace("$config", EXAMPLE)).collect();
            let values = merged(&files);
            own(
                "IngressClass",
                text(&values["ingress-controller"]["config"]["kubernetes"]["ingressClass"]),
                &application,
            );
            if helm["skipCrds"] != true {
                own("CustomResourceDefinition", "apisixroutes.apisix.apache.org", &application);
            }
        } else {
            assert_eq!(name(&application), "apisix-crds");
            own("CustomResourceDefinition", "apisixroutes.apisix.apache.org", &application);
        }
    }
    assert_eq!(names.len(), 7, "{names:?}");
}

#[test]
fn argo_cd_watches_the_folders_that_tagrelay_writes() {
    let settings: toml::Table = read("deploy/kubernetes/tagrelay.toml").parse().unwrap();
    let repository = &settings["config_repository"][0];
    let project = document("deploy/argocd/project.yaml");
    let applications = applications();
    let environments = settings["environment"].as_array().unwrap();
    assert_eq!(environments.len(), ENVIRONMENTS.len());
    for environment in environments {
        let called = environment["name"].as_str().unwrap();
        let wanted = format!("platform-{called}");
        let application = named(&applications, "Application", &wanted);
        let spec = &application["spec"];
        assert_eq!(spec["source"]["repoURL"], repository["url"].as_str().unwrap());
        assert_eq!(spec["source"]["targetRevision"], repository["branch"].as_str().unwrap());
        let watched = text(&spec["source"]["path"]);
        assert_eq!(environment["paths"][0].as_str().unwrap(), format!("{watched}/**"));
        assert!(path(&format!("{EXAMPLE}/{watched}/kustomization.yaml")).is_file());
    }
    for application in &applications {
        let spec = &application["spec"];
        assert_eq!(spec["project"], project["metadata"]["name"]);
        assert!(list(&project["spec"]["destinations"]).contains(&spec["destination"]), "{}", name(application));
        let sources = spec["source"].is_mapping().then_some(&spec["source"]);
        for source in sources.into_iter().chain(list(&spec["sources"])) {
            assert!(list(&project["spec"]["sourceRepos"]).contains(&source["repoURL"]), "{source:?}");
        }
        assert_eq!(spec["syncPolicy"]["automated"]["selfHeal"], true);
        if name(application) != "apisix-crds" {
            assert_eq!(spec["syncPolicy"]["automated"]["prune"], true);
            // Otherwise a sync sets the replicas of the autoscaler back.
            assert_eq!(list(&spec["ignoreDifferences"][0]["jsonPointers"]), ["/spec/replicas"]);
            assert!(
                list(&spec["syncPolicy"]["syncOptions"]).iter().any(|option| option == "RespectIgnoreDifferences=true")
            );
        }
    }
    let listed = document("deploy/argocd/kustomization.yaml");
    let listed: BTreeSet<&str> = list(&listed["resources"]).iter().map(text).collect();
    let files = files_below("deploy/argocd");
    let files: BTreeSet<&str> = files.iter().filter_map(|file| file.strip_prefix("deploy/argocd/")).collect();
    assert_eq!(listed, files.into_iter().filter(|file| *file != "kustomization.yaml").collect());
}

#[test]
fn objects_are_synced_after_those_that_they_need() {
    let order = ["ExternalSecret", "StatefulSet", "Job", "Deployment", "Ingress"];
    for environment in ENVIRONMENTS {
        let Some(resources) = rendered(environment) else { return };
        let wave = |resource: &Value| {
            let wave = &resource["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"];
            wave.as_str().map_or(0, |wave| wave.parse::<i32>().unwrap())
        };
        let waves = order.map(|kind| of_kind(&resources, kind).into_iter().map(wave).collect::<BTreeSet<_>>());
        for (pair, kinds) in waves.windows(2).zip(order.windows(2)) {
            assert!(pair[0].last().unwrap() < pair[1].first().unwrap(), "{environment}: {kinds:?}: {pair:?}");
        }
    }
}

#[test]
fn notifications_use_existing_triggers_and_templates() {
    let config = document("deploy/argocd/notifications.yaml");
    let data = config["data"].as_mapping().unwrap();
    let keys: BTreeSet<&str> = data.keys().map(text).collect();
    for application in applications() {
        for (annotation, _) in application["metadata"]["annotations"].as_mapping().into_iter().flatten() {
            let Some(subscription) = text(annotation).strip_prefix("notifications.argoproj.io/subscribe.") else {
                continue;
            };
            let (trigger, service) = subscription.split_once('.').unwrap();
            assert!(keys.contains(format!("trigger.{trigger}").as_str()), "{trigger}");
            assert!(keys.contains(format!("service.webhook.{service}").as_str()), "{service}");
        }
    }
    for (key, rules) in data.iter().filter(|(key, _)| text(key).starts_with("trigger.")) {
        let rules: Value = serde_yaml::from_str(text(rules)).unwrap();
        for template in list(&rules).iter().flat_map(|rule| list(&rule["send"])) {
            assert!(keys.contains(format!("template.{}", text(template)).as_str()), "{key:?}: {template:?}");
        }
    }
}

#[test]
fn versions_are_in_the_environments_only() {
    let settings: toml::Table = read("deploy/kubernetes/tagrelay.toml").parse().unwrap();
    let rules: Vec<RepositoryPattern> = settings["image"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["repository"].as_str().unwrap().parse().unwrap())
        .collect();
    let is_ours = |image: &ImageReference| rules.iter().any(|rule| rule.matches(&image.repository));
    for file in files_below(&format!("{EXAMPLE}/base")).into_iter().filter(|file| file.ends_with(".yaml")) {
        for document in documents(&file, &read(&file)) {
            let pods = document["kind"].is_string().then(|| pod(&document)).flatten();
            for image in pods.into_iter().flat_map(containers).map(|container| text(&container["image"])) {
                let image: ImageReference = image.parse().unwrap();
                assert_eq!(is_ours(&image), image.tag.is_none(), "{file}: {image}");
            }
        }
    }
    for environment in ENVIRONMENTS {
        let kustomization = document(&format!("{EXAMPLE}/environments/{environment}/kustomization.yaml"));
        let images = list(&kustomization["images"]);
        let names: Vec<&str> = images.iter().map(|image| text(&image["name"])).collect();
        assert_eq!(names, ["docker.io/uyou/order-service", "docker.io/uyou/user-service"]);
        for image in images {
            let tag = text(&image["newTag"]);
            let sha = match environment {
                "development" => tag.strip_prefix("dev-").unwrap_or_else(|| panic!("{tag}")),
                _ => tag,
            };
            assert!(sha.len() == 40 && hex::decode(sha).is_ok(), "{environment}: {tag}");
        }
    }
}

#[test]
fn managed_data_replaces_the_stateful_sets() {
    let folder = tempfile::tempdir().unwrap();
    for file in files_below(EXAMPLE) {
        let copy = folder.path().join(file.strip_prefix(EXAMPLE).unwrap().trim_start_matches('/'));
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        let text = read(&file);
        let component = "components:\n  - ../../components/external-secrets\n";
        let with = format!("{component}  - ../../components/managed-data\n");
        let text = match file.ends_with("environments/production/kustomization.yaml") {
            true => {
                assert!(text.contains(component), "{file}");
                // The sizes of removed objects go, too.
                let text = text.replace(component, &with);
                assert_eq!(text.matches("  - path: size.yaml\n").count(), 1);
                text
            }
            false if file.ends_with("environments/production/size.yaml") => without_postgres(&text),
            false => text,
        };
        std::fs::write(copy, text).unwrap();
    }
    let Some(resources) = super::platform_tree::rendered_at(&folder.path().join("environments/production")) else {
        return;
    };
    let sets: Vec<&str> = of_kind(&resources, "StatefulSet").into_iter().map(name).collect();
    assert_eq!(sets, ["etcd"]);
    for service in ["postgres", "redis"] {
        let service = named(&resources, "Service", service);
        assert_eq!(service["spec"]["type"], "ExternalName");
        assert!(service["spec"]["selector"].is_null() && service["spec"]["clusterIP"].is_null(), "{service:?}");
    }
    named(&resources, "NetworkPolicy", "managed-data");
}

fn without_postgres(sizes: &str) -> String {
    let kept: Vec<&str> = sizes.split("\n---\n").filter(|part| !part.contains("name: postgres")).collect();
    kept.join("\n---\n")
}
