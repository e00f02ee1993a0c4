//! The files of `deploy/config-repository`, embedded so that the demo needs no source tree.

/// The path of a file from the root of the config repository, and its text.
pub(super) type ExampleFile = (&'static str, &'static str);

macro_rules! example_files {
    ($($path:literal),+ $(,)?) => {
        [$(($path, include_str!(concat!("../../../deploy/config-repository/", $path)))),+]
    };
}

/// Every file of the example. A test compares the list with the folder.
pub(super) const FILES: [ExampleFile; 44] = example_files![
    "README.md",
    "base/apisix/values.yaml",
    "base/data/databases.sql",
    "base/data/etcd-auth.sh",
    "base/data/etcd-auth.yaml",
    "base/data/etcd.yaml",
    "base/data/kustomization.yaml",
    "base/data/postgres.yaml",
    "base/data/redis.yaml",
    "base/gateway/ingress.yaml",
    "base/gateway/kustomization.yaml",
    "base/gateway/plugins.yaml",
    "base/gateway/routes.yaml",
    "base/kustomization.yaml",
    "base/namespace.yaml",
    "base/network-policies.yaml",
    "base/order-service/deployment.yaml",
    "base/order-service/horizontalpodautoscaler.yaml",
    "base/order-service/kustomization.yaml",
    "base/order-service/poddisruptionbudget.yaml",
    "base/order-service/service.yaml",
    "base/servicemonitor.yaml",
    "base/user-service/cronjob.yaml",
    "base/user-service/deployment.yaml",
    "base/user-service/horizontalpodautoscaler.yaml",
    "base/user-service/kustomization.yaml",
    "base/user-service/poddisruptionbudget.yaml",
    "base/user-service/service.yaml",
    "components/external-secrets/externalsecrets.yaml",
    "components/external-secrets/kustomization.yaml",
    "components/managed-data/kustomization.yaml",
    "components/managed-data/network-policy.yaml",
    "components/managed-data/services.yaml",
    "components/sealed-secrets/kustomization.yaml",
    "components/sealed-secrets/sealedsecrets.yaml",
    "environments/development/apisix/values.yaml",
    "environments/development/kustomization.yaml",
    "environments/development/size.yaml",
    "environments/production/apisix/values.yaml",
    "environments/production/kustomization.yaml",
    "environments/production/size.yaml",
    "environments/staging/apisix/values.yaml",
    "environments/staging/kustomization.yaml",
    "environments/staging/size.yaml",
];

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }

    #[test]
    fn list_matches_the_folder() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/config-repository");
        let mut found = Vec::new();
        walk(&root, &mut found);
        found.sort();
        let found: Vec<_> = found.iter().map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap()).collect();
        let listed: Vec<_> = FILES.iter().map(|(path, _)| *path).collect();
        assert_eq!(listed, found);
    }
}
