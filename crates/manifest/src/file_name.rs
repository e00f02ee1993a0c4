//! Predicates over file names.

/// Returns whether a file with this name may have sites: `.yaml`, `.yml`, `.json` and `Kustomization`.
///
/// Case matters, as for Argo CD and kustomize, which do not read `Deployment.YAML`.
pub fn is_manifest_path(path: &str) -> bool {
    let name = file_name(path);
    let stem = [".yaml", ".yml", ".json"].iter().find_map(|suffix| name.strip_suffix(suffix));
    stem.is_some_and(|stem| !stem.is_empty()) || name == "Kustomization"
}

/// Returns whether a file is JSON, by its name.
pub(crate) fn is_json(path: &str) -> bool {
    path.ends_with(".json")
}

/// Returns whether a JSON file has Helm values, by its name.
///
/// Examples: `values.json`, `values-staging.json`, `api.values.json`.
pub(crate) fn is_values_json(path: &str) -> bool {
    let stem = file_name(path).strip_suffix(".json").unwrap_or_default();
    stem.starts_with("values") || stem.ends_with("values")
}

/// Returns whether a file is a kustomization, by its name.
pub(crate) fn is_kustomization(path: &str) -> bool {
    matches!(file_name(path), "kustomization.yaml" | "kustomization.yml" | "Kustomization")
}

/// Returns whether a file is a lock file, by its name: `kbld.lock.yml`, `images-lock.yaml`.
pub(crate) fn is_lock_file(path: &str) -> bool {
    let stem = file_name(path).rsplit_once('.').map_or("", |(stem, _)| stem);
    [".lock", "-lock", "_lock"].iter().any(|suffix| stem.ends_with(suffix))
}

/// Returns whether a file has parameters of an Application, by its name.
pub(crate) fn is_argocd_source(path: &str) -> bool {
    file_name(path).starts_with(".argocd-source")
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_recognised_by_name() {
        for path in ["a.yaml", "a/b.yml", "x/Kustomization", "a/.argocd-source-x.yaml", "a.json"] {
            assert!(is_manifest_path(path), "{path}");
        }
        for path in ["", "a.toml", "a/.json", "a/.yaml", "yaml", "a.yaml.gz", "A.YAML", "kustomization", "a.yaml/b"] {
            assert!(!is_manifest_path(path), "{path}");
        }
    }
}
