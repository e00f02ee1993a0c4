//! Renders the Helm chart with Helm 3 and Helm 4, for the tests of the other files.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_yaml::Value;
use tagrelay_test_support::command::{Answer, run};
use tagrelay_test_support::peer;
use tempfile::TempDir;

use super::platform_tree::{documents, path};

pub const CHART: &str = "deploy/helm/tagrelay";
pub const SETTINGS: &str = "deploy/kubernetes/tagrelay.toml";

/// Values files in `tests/fixtures/chart`.
pub const VALUES: [&str; 5] = ["bare", "full", "gateway", "numbers", "openshift"];

/// A version of Helm, with folders of its own.
pub struct Helm {
    pub program: &'static str,
    home: TempDir,
}

impl Helm {
    /// Helm 4 and Helm 3. Empty, with a message: one of them is missing.
    pub fn all() -> Vec<Self> {
        let programs = ["helm", "helm-3"];
        if programs.iter().any(|program| peer::tool(program).is_none()) {
            return Vec::new();
        }
        programs.map(|program| Self { program, home: tempfile::tempdir().unwrap() }).into()
    }

    /// A command whose caches and settings are in a temporary folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = peer::tool(self.program).unwrap();
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HOME"] {
            command.env(variable, self.home.path());
        }
        command.args(arguments).current_dir(path("."));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Answer {
        run(&mut self.command(arguments))
    }

    /// The objects of the release `tagrelay` in the namespace `tagrelay`.
    pub fn rendered(&self, arguments: &[&str]) -> Vec<Value> {
        self.rendered_chart(&path(CHART), arguments)
    }

    pub fn rendered_chart(&self, chart: &Path, arguments: &[&str]) -> Vec<Value> {
        let chart = chart.to_str().unwrap();
        let all = [&["template", "tagrelay", chart, "--namespace", "tagrelay"], arguments].concat();
        documents(self.program, &self.run(&all).expect_code(0).stdout)
    }
}

/// The arguments of each rendering, by name.
pub fn matrix() -> BTreeMap<String, Vec<String>> {
    let mut matrix = BTreeMap::from([("default".to_owned(), with_settings())]);
    for name in VALUES {
        let file = format!("tests/fixtures/chart/{name}.yaml");
        matrix.insert(name.to_owned(), vec!["--values".to_owned(), file]);
    }
    matrix
}

/// Arguments with the settings of `deploy/kubernetes`.
pub fn with_settings() -> Vec<String> {
    vec!["--set-file".to_owned(), format!("settings={SETTINGS}")]
}

/// Every rendering of the matrix, by Helm 4. Empty: Helm is missing.
pub fn renderings() -> BTreeMap<String, Vec<Value>> {
    let Some(helm) = Helm::all().into_iter().next() else { return BTreeMap::new() };
    let render = |arguments: &[String]| helm.rendered(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    matrix().iter().map(|(name, arguments)| (name.clone(), render(arguments))).collect()
}
