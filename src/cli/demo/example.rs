//! The files of `deploy/config-repository`, embedded so that the demo needs no source tree.

/// The path of a file from the root of the config repository, and its text.
pub(super) type ExampleFile = (&'static str, &'static str);

macro_rules! example_files {
    ($($path:literal),+ $(,)?) => {
        [$(($path, include_str!(concat!("../../../deploy/config-repository/", $path)))),+]
    };
}

/// Every file of the example. A test compares the list with the folder.
pub(super) const FILES: [ExampleFile; 34] = example_files![
    "README.md",
    "base/apisix/values.yaml",
    "base/data/etcd.yaml",
    "base/data/kustomization.yaml",
    "base/data/postgres.yaml",
    "base/data/redis.yaml",
    "base/order-service/deployment.yaml",
    "base/order-service/kustomization.yaml",
    "base/order-service/service.yaml",
    "environments/production/apisix/routes.yaml",
    "environments/production/apisix/values.yaml",
    "environments/production/data/kustomization.yaml",
    "environments/production/ingress.yaml",
    "environments/production/kustomization.yaml",
    "environments/production/namespace.yaml",
    "environments/production/order-service/kustomization.yaml",
    "environments/production/user-service/configmap.yaml",
    "environments/production/user-service/cronjob.yaml",
    "environments/production/user-service/deployment.yaml",
    "environments/production/user-service/poddisruptionbudget.yaml",
    "environments/production/user-service/secret.example.yaml",
    "environments/production/user-service/service.yaml",
    "environments/staging/apisix/routes.yaml",
    "environments/staging/apisix/values.yaml",
    "environments/staging/data/kustomization.yaml",
    "environments/staging/ingress.yaml",
    "environments/staging/kustomization.yaml",
    "environments/staging/namespace.yaml",
    "environments/staging/order-service/kustomization.yaml",
    "environments/staging/user-service/configmap.yaml",
    "environments/staging/user-service/cronjob.yaml",
    "environments/staging/user-service/deployment.yaml",
    "environments/staging/user-service/secret.example.yaml",
    "environments/staging/user-service/service.yaml",
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
