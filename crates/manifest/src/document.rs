//! The kind of a document, which determines its sites and their format.

use super::file_name::{is_argocd_source, is_json, is_kustomization, is_values_json};
use super::json_patch::is_json_patch;
use super::site::Format;
use super::task::Role;
use super::tree::{Kind, NodeId, Tree};

/// The kind of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DocumentKind {
    /// Any other object with `apiVersion` and `kind`.
    Kubernetes,
    /// A kustomization or component, or Flux's objects of the kind `Kustomization`.
    Kustomization,
    /// An Application or an ApplicationSet of Argo CD, or `.argocd-source-*.yaml`.
    Argocd,
    /// Flux's HelmRelease, with values below `spec.values`.
    HelmRelease,
    /// The HelmChart and HelmChartConfig of K3s, with values in a string (<https://docs.k3s.io/helm>).
    HelmChart,
    /// A Compose file.
    Compose,
    /// Helm values, and documents without a recognisable kind.
    Values,
    /// A patch of a kustomization: a partial object, or operations.
    Patch,
    /// A document in which only rules find sites.
    Foreign,
}

impl DocumentKind {
    /// The format of a reference.
    pub(crate) fn format(self) -> Format {
        match self {
            Self::Kubernetes | Self::HelmChart | Self::Patch => Format::Kubernetes,
            Self::Argocd => Format::Argocd,
            Self::Compose => Format::Compose,
            Self::Kustomization | Self::HelmRelease | Self::Values | Self::Foreign => Format::HelmValues,
        }
    }

    /// The format of `repository` with `tag`.
    pub(crate) fn values_format(self) -> Format {
        if self == Self::Argocd { Format::Argocd } else { Format::HelmValues }
    }

    /// Returns whether the document may contain Helm values in any position.
    pub(crate) fn holds_values(self) -> bool {
        matches!(self, Self::Argocd | Self::HelmRelease | Self::Values)
    }

    /// Returns whether the document may contain operations of JSON Patch.
    pub(crate) fn has_operations(self) -> bool {
        matches!(self, Self::Patch | Self::HelmRelease)
    }

    /// Returns whether a list `images` has the entries of a kustomization.
    pub(crate) fn has_image_entries(self) -> bool {
        matches!(self, Self::Kustomization | Self::HelmRelease)
    }
}

/// Returns the objects of a document with their kinds.
///
/// These are the items of a `List` or of a list of one kind (`ApplicationList`), recursively, or else the document itself.
pub(crate) fn objects(tree: &Tree<'_>, root: NodeId, role: Role<'_>) -> Vec<(NodeId, DocumentKind)> {
    let mut found = Vec::new();
    // Each item is nested in its list, so the nesting limit of the file bounds that of the lists.
    let mut pending = vec![(root, document_kind(tree, root, role))];
    while let Some((root, kind)) = pending.pop() {
        let Some((items, of_items)) = list(tree, root, kind) else {
            found.push((root, kind));
            continue;
        };
        let of_item = |item| match type_of(tree, item) {
            (Some("Kustomization"), _) => DocumentKind::Kustomization,
            (Some(kind), Some(api_version)) => of_object(kind, api_version),
            _ => of_items,
        };
        let before = pending.len();
        pending.extend(tree.children(items).map(|item| (item, of_item(item))));
        pending[before..].reverse();
    }
    found
}

/// Returns the items of a list of objects, and the default kind of the items.
fn list(tree: &Tree<'_>, root: NodeId, kind: DocumentKind) -> Option<(NodeId, DocumentKind)> {
    if kind != DocumentKind::Kubernetes {
        return None;
    }
    let (name, api_version) = type_of(tree, root);
    let of_items = match (name?, api_version?) {
        ("List", "v1") => kind,
        (list, api_version) => {
            let of_items = of_object(list.strip_suffix("List")?, api_version);
            (of_items != kind).then_some(of_items)?
        }
    };
    let items = tree.value_of(root, "items")?;
    matches!(tree.node(items).kind, Kind::Sequence(_)).then_some((items, of_items))
}

/// Returns `kind` and `apiVersion` of an object.
fn type_of<'tree>(tree: &'tree Tree<'_>, root: NodeId) -> (Option<&'tree str>, Option<&'tree str>) {
    let (mut kind, mut api_version) = (None, None);
    if matches!(tree.node(root).kind, Kind::Mapping(_)) {
        for (key, value) in tree.entries(root) {
            match &*tree.node(key).value {
                "kind" => kind = Some(&*tree.node(value).value),
                "apiVersion" => api_version = Some(&*tree.node(value).value),
                _ => {}
            }
        }
    }
    (kind, api_version)
}

/// Determines the kind of a document by its root and by the kind of text that contains it.
fn document_kind(tree: &Tree<'_>, root: NodeId, role: Role<'_>) -> DocumentKind {
    let path = match role {
        Role::File(path) => path,
        Role::Values => return DocumentKind::Values,
        Role::Patch => return DocumentKind::Patch,
        Role::Argocd => return DocumentKind::Argocd,
        Role::Unknown => return DocumentKind::Foreign,
    };
    if is_json_patch(tree, root) {
        return DocumentKind::Patch;
    }
    let (kind, api_version) = type_of(tree, root);
    match (kind, api_version) {
        (Some("Kustomization"), _) => DocumentKind::Kustomization,
        // Kind and API version are optional in a kustomization.
        (Some("Component") | None, _) if is_kustomization(path) => DocumentKind::Kustomization,
        (Some(kind), Some(api_version)) => of_object(kind, api_version),
        _ if is_json(path) && !is_values_json(path) => DocumentKind::Foreign,
        (None, None) if is_argocd_source(path) => DocumentKind::Argocd,
        _ if is_compose(tree, root) => DocumentKind::Compose,
        _ => DocumentKind::Values,
    }
}

fn of_object(kind: &str, api_version: &str) -> DocumentKind {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match (group, kind) {
        ("argoproj.io", "Application" | "ApplicationSet") => DocumentKind::Argocd,
        ("kustomize.toolkit.fluxcd.io", "Kustomization") => DocumentKind::Kustomization,
        ("helm.toolkit.fluxcd.io", "HelmRelease") => DocumentKind::HelmRelease,
        ("helm.cattle.io", "HelmChart" | "HelmChartConfig") => DocumentKind::HelmChart,
        _ => DocumentKind::Kubernetes,
    }
}

/// Returns whether a document has `services` and otherwise only keys of a Compose file.
///
/// Source: <https://github.com/compose-spec/compose-spec/blob/main/spec.md>.
fn is_compose(tree: &Tree<'_>, root: NodeId) -> bool {
    let is_mapping = |id: NodeId| matches!(tree.node(tree.resolve(id)).kind, Kind::Mapping(_));
    let is_known = |key: &str| {
        key.starts_with("x-")
            || matches!(
                key,
                "version" | "name" | "include" | "services" | "networks" | "volumes" | "configs" | "secrets"
            )
    };
    tree.value_of(root, "services").is_some_and(is_mapping)
        && tree.entries(root).all(|(key, _)| is_known(&tree.node(key).value))
}
