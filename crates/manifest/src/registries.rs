//! Registries that Helm values set for all images.

use super::finder::Finder;
use super::site::Unreadable;
use super::slots::Slot;
use super::tree::NodeId;

/// The registry of `global.imageRegistry` or `global.image.registry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GlobalRegistry<'tree> {
    registry: &'tree str,
    /// Whether the global registry overrides the registry of an image.
    ///
    /// `global.imageRegistry` overrides it (<https://github.com/bitnami/charts/blob/main/bitnami/common/templates/_images.tpl>).
    /// `global.image.registry` applies only to images without a registry.
    overrides: bool,
}

impl<'tree> GlobalRegistry<'tree> {
    /// Returns the registry of an image with registry `own` and name `name`.
    pub(crate) fn over<'a>(self, own: Option<&'a str>, name: &str) -> Option<&'a str>
    where
        'tree: 'a,
    {
        match own {
            Some(own) if !self.overrides => Some(own),
            None if has_host(name) => None,
            _ => Some(self.registry),
        }
    }
}

/// Returns whether a repository contains its registry.
pub(crate) fn has_host(name: &str) -> bool {
    name.split_once('/').is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost")
}

impl<'tree> Finder<'tree, '_, '_> {
    /// Returns the registry that the values under a key `global` set; `None`: no registry is set.
    ///
    /// # Errors
    ///
    /// If aliases are used too often.
    pub(crate) fn global_registry(&mut self, global: NodeId) -> Result<Option<GlobalRegistry<'tree>>, Unreadable> {
        let tree = self.tree;
        let global = self.reader.follow(global)?;
        if let Slot::Text(_, _, registry) = self.reader.slot(tree.value_of(global, "imageRegistry")) {
            return Ok(Some(GlobalRegistry { registry, overrides: true }));
        }
        let Some(image) = tree.value_of(global, "image") else { return Ok(None) };
        let image = self.reader.follow(image)?;
        Ok(match self.reader.slot(tree.value_of(image, "registry")) {
            Slot::Text(_, _, registry) => Some(GlobalRegistry { registry, overrides: false }),
            Slot::Absent | Slot::Other => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan;

    #[test]
    fn global_registry_applies_as_in_charts() {
        for (text, expected) in [
            ("global: {imageRegistry: r.io}\na: {repository: x/a, tag: v1}", "r.io/x/a"),
            ("global: {imageRegistry: r.io}\na: {b: [{registry: q.io, repository: x/a, tag: v1}]}", "r.io/x/a"),
            ("global: {imageRegistry: r.io}\na: {repository: q.io/x/a, tag: v1}", "q.io/x/a"),
            ("global: {imageRegistry: ''}\na: {repository: x/a, tag: v1}", "docker.io/x/a"),
            ("global: {image: {registry: r.io}}\na: {repository: x/a, tag: v1}", "r.io/x/a"),
            ("global: {image: {registry: r.io}}\na: {registry: q.io, repository: x/a, tag: v1}", "q.io/x/a"),
            ("global: {image: {registry: r.io, tag: v1, repository: x/a}}", "r.io/x/a"),
            ("b: {global: {imageRegistry: r.io}}\na: {repository: x/a, tag: v1}", "docker.io/x/a"),
            ("kind: A\napiVersion: v1\nglobal: {imageRegistry: r.io}\na: {repository: x/a, tag: v1}", "docker.io/x/a"),
        ] {
            let sites = scan("values.yaml", text.as_bytes()).unwrap();
            let repositories: Vec<_> = sites.iter().map(|site| site.repository.as_str()).collect();
            assert_eq!(repositories, [expected], "{text}");
        }
    }
}
