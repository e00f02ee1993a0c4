//! What the controllers of Argo CD do: compare, hydrate, sync.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{App, FakeArgoCd, Inside};

impl FakeArgoCd {
    /// Makes the branch readable. Readable applications are compared with the tip and run what it names.
    pub fn reads(&self, upstream: PathBuf) {
        let mut inside = self.inside.lock().unwrap();
        let tip = tip(&upstream);
        inside.upstream = Some(upstream);
        let names: Vec<String> = inside.apps.keys().cloned().collect();
        for name in names {
            let images = inside.apps.get(&name).map(|app| (tip.clone(), path_of(app)));
            let images = images.map(|(commit, path)| inside.render(&commit, &path)).unwrap_or_default();
            let is_passive = inside.is_passive(&name);
            let app = inside.apps.get_mut(&name).unwrap();
            app.running = images;
            if app.is_stuck {
                continue;
            }
            app.revision.clone_from(&tip);
            if is_passive {
                app.deploys = Some(tip.clone());
            }
            if app.spec.get("sourceHydrator").is_some() {
                app.hydrated = Some(("Hydrated".to_owned(), tip.clone(), hydrated(&tip)));
                app.revision = hydrated(&tip);
                app.deploys = Some(tip.clone());
            }
        }
        drop(inside);
        self.notify();
    }
}

impl Inside {
    /// Compares an application with the tip of the branch.
    pub(super) fn refresh(&mut self, name: &str) {
        let upstream = self.upstream.clone().expect("the test has not set the branch of a refreshed application");
        let (tip, is_passive) = (tip(&upstream), self.is_passive(name));
        let app = self.apps.get_mut(name).unwrap();
        if app.is_stuck {
            return;
        }
        if app.spec.get("sourceHydrator").is_some() {
            if app.hydrated.as_ref().is_none_or(|(_, dry, _)| *dry != tip) {
                app.phases = app.hydration.0.clone();
                app.hydrated = Some((String::new(), tip.clone(), hydrated(&tip)));
            }
        } else if tip != app.revision {
            app.revision = tip;
            if !is_passive {
                app.steps = app.script.clone();
            }
        }
    }

    /// Whether its manifests come from elsewhere: from a parent or an ApplicationSet.
    fn is_passive(&self, name: &str) -> bool {
        let is_child = |app: &App| app.children.iter().any(|child| child == name);
        self.apps.get(name).is_some_and(|app| app.set.is_some()) || self.apps.values().any(is_child)
    }

    /// Takes the next step of an application.
    pub(super) fn advance(&mut self, name: &str) -> bool {
        let app = self.apps.get_mut(name).unwrap();
        if !app.phases.is_empty() {
            let phase = app.phases.remove(0);
            let Some((current, dry, hydrated)) = &mut app.hydrated else { return false };
            phase.clone_into(current);
            if phase == "Hydrated" {
                (app.revision, app.deploys) = (hydrated.clone(), Some(dry.clone()));
                app.steps = app.script.clone();
            }
            return true;
        }
        if app.steps.is_empty() {
            return false;
        }
        let (sync, health) = app.steps.remove(0);
        (app.sync, app.health) = (sync.to_owned(), health.to_owned());
        if sync == "Synced" {
            app.deploys = app.next.take().or(app.deploys.take());
            let (children, revision) = (app.children.clone(), app.revision.clone());
            for child in children {
                self.deploy(&child, &revision);
            }
        }
        true
    }

    /// Gives an application new manifests from outside of its source.
    pub(super) fn deploy(&mut self, name: &str, commit: &str) {
        let Some(app) = self.apps.get(name) else { return };
        let (path, before) = (path_of(app), app.deploys.clone());
        let old = before.map(|before| self.render(&before, &path)).unwrap_or_default();
        let new = self.render(commit, &path);
        let app = self.apps.get_mut(name).unwrap();
        if old == new {
            app.deploys = Some(commit.to_owned());
        } else {
            app.next = Some(commit.to_owned());
            app.steps = app.script.clone();
        }
    }

    /// Returns the images of the pods of an application.
    pub(super) fn images(&mut self, name: &str) -> Vec<String> {
        let app = self.apps.get(name).unwrap();
        if let Some(images) = &app.images {
            return images.clone();
        }
        let (commit, path) = (app.deploys.clone().unwrap_or_else(|| app.revision.clone()), path_of(app));
        let is_applied = app.sync == "Synced" && app.steps.first().is_none_or(|(sync, _)| *sync == "Synced");
        let (is_applied, is_done) = (is_applied, app.health == "Healthy" || app.health == "Suspended");
        let mut images = app.running.clone();
        if !is_applied {
            return images;
        }
        let wanted = self.render(&commit, &path);
        if is_done && !wanted.is_empty() {
            self.apps.get_mut(name).unwrap().running.clone_from(&wanted);
            return wanted;
        }
        images.extend(wanted.into_iter().filter(|image| !self.apps[name].running.contains(image)));
        images
    }

    /// Returns the images below a path at a commit; empty if there is none.
    fn render(&mut self, commit: &str, path: &str) -> Vec<String> {
        let key = (commit.to_owned(), path.to_owned());
        if let Some(known) = self.rendered.get(&key) {
            return known.clone();
        }
        let Some(upstream) = &self.upstream else { return Vec::new() };
        let found = git(upstream, &["grep", "-h", "-E", "(image:|^ *- .*/.*:)", commit, "--", path]);
        let mut images: Vec<String> = Vec::new();
        for line in found.lines() {
            let text = line.trim().trim_start_matches("- ").trim_start_matches("image: ");
            let text = text.split(" #").next().unwrap_or_default().trim().trim_matches('"');
            let is_image = text.rsplit_once('/').is_some_and(|(_, name)| name.contains(':')) && !text.contains(' ');
            if is_image && !images.iter().any(|known| known == text) {
                images.push(text.to_owned());
            }
        }
        self.rendered.insert(key, images.clone());
        images
    }
}

fn path_of(app: &App) -> String {
    let dry = &app.spec["sourceHydrator"]["drySource"]["path"];
    let path = app.renders.as_deref().or(app.spec["source"]["path"].as_str()).or(dry.as_str());
    path.unwrap_or(".").to_owned()
}

/// The commit that the hydrator makes of another one.
fn hydrated(dry: &str) -> String {
    dry.chars().rev().collect()
}

pub(super) fn tip(upstream: &Path) -> String {
    git(upstream, &["rev-parse", "main"]).trim().to_owned()
}

fn git(upstream: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).current_dir(upstream).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
