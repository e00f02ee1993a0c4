//! The forms of versions in Argo CD's Applications: kustomize images, Helm parameters, Helm values.
//!
//! `.argocd-source-*.yaml`, which Argo CD Image Updater writes, has the same keys at its top level
//! (<https://argo-cd.readthedocs.io/en/stable/user-guide/parameters/#store-overrides-in-git>).

use std::collections::BTreeMap;

use super::embedded::Content;
use super::finder::Finder;
use super::found::Part;
use super::prefilter::may_hold_sites;
use super::site::{Format, Unreadable};
use super::slots::Slot;
use super::tree::{Kind, NodeId};

/// A Helm parameter: `name` and `value` of an entry.
struct Parameter<'tree> {
    at: NodeId,
    node: NodeId,
    text: &'tree str,
}

impl<'tree> Finder<'tree, '_, '_> {
    /// `kustomize.images`: `name=new:tag@digest`, `new:tag@digest`.
    pub(crate) fn find_kustomize_images(&mut self, kustomize: NodeId) -> Result<(), Unreadable> {
        let tree = self.tree;
        let Some(images) = tree.value_of(kustomize, "images") else { return Ok(()) };
        let images = tree.resolve(images);
        if !matches!(tree.node(images).kind, Kind::Sequence(_)) {
            return Ok(());
        }
        self.reader.revisit(images)?;
        for item in tree.children(images) {
            if let Slot::Text(at, node, text) = self.reader.slot(Some(item)) {
                // As in Argo CD, the first of `=`, `:` and `@` ends the name that is replaced.
                let start = match text.find(['=', ':', '@']) {
                    Some(end) if text[end..].starts_with('=') => end + 1,
                    _ => 0,
                };
                self.find_reference(images, at, node, text, start, None);
            }
        }
        Ok(())
    }

    /// `helm.parameters`, and `helm.values` with YAML inside. The general search finds `helm.valuesObject`.
    pub(crate) fn find_helm(&mut self, helm: NodeId) -> Result<(), Unreadable> {
        let tree = self.tree;
        let helm = self.reader.follow(helm)?;
        if let Some(values) = tree.value_of(helm, "values") {
            self.find_values_text(values);
        }
        let Some(list) = tree.value_of(helm, "parameters") else { return Ok(()) };
        let list = tree.resolve(list);
        if !matches!(tree.node(list).kind, Kind::Sequence(_)) {
            return Ok(());
        }
        self.reader.revisit(list)?;
        let mut parameters = BTreeMap::new();
        for entry in tree.children(list) {
            let entry = self.reader.follow(entry)?;
            let name = self.reader.slot(tree.value_of(entry, "name"));
            let value = self.reader.slot(tree.value_of(entry, "value"));
            if let (Slot::Text(_, _, name), Slot::Text(at, node, text)) = (name, value) {
                // The last of several parameters with the same name applies, as with `helm --set`.
                parameters.insert(name, Parameter { at, node, text });
            }
        }
        self.find_parameters(list, &parameters);
        Ok(())
    }

    fn find_parameters(&mut self, list: NodeId, parameters: &BTreeMap<&'tree str, Parameter<'tree>>) {
        for (name, parameter) in parameters {
            let (prefix, last) = name.split_at(name.rfind('.').map_or(0, |dot| dot + 1));
            let beside = |key: &str| parameters.get(format!("{prefix}{key}").as_str());
            match last {
                "image" => self.find_reference(list, parameter.at, parameter.node, parameter.text, 0, None),
                // Argo CD Image Updater's default name is `image.name`.
                "repository" => {}
                "name" if beside("repository").is_none() => {}
                _ => continue,
            }
            let registry = beside("registry").map(|registry| registry.text);
            let tag = beside("tag").map(|tag| Part::tag_and_digest(tag.at, tag.node, tag.text));
            let digest = beside("digest").map(|digest| (digest.text, Part::whole(digest.at, digest.node, digest.text)));
            let (tag, inner) = tag.map_or((None, None), |(tag, inner)| (Some(tag), inner));
            match (inner, digest) {
                // It is unclear which of two digests applies.
                (Some(_), Some((_, second))) => self.unclear.report_two_digests(parameter.text, second.node),
                (inner, digest) => {
                    self.add_below(list, Format::Argocd, tag, inner.or(digest), (registry, parameter.text));
                }
            }
        }
    }

    /// Records a scalar with a part of an ApplicationSet, if it can contain sites. Most parts are templates and not YAML.
    pub(crate) fn find_part_of_set(&mut self, at: Option<NodeId>) {
        if let Slot::Text(at, node, text) = self.reader.slot(at)
            && may_hold_sites(text.as_bytes())
        {
            self.embedded_entry(at, node).content = Content::Argocd;
        }
    }

    /// Records a scalar with Helm values.
    pub(crate) fn find_values_text(&mut self, at: NodeId) {
        if let Slot::Text(at, node, _) = self.reader.slot(Some(at)) {
            self.embedded_entry(at, node).content = Content::Values;
        }
    }
}
