//! The script that enables authentication in etcd, on a real etcd.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::platform_tree::{EXAMPLE, output, path};
use tagrelay_test_support::peer::tool;

/// A member of etcd on free ports. Killed on drop.
struct Etcd {
    process: Child,
    url: String,
    _folder: TempDir,
}

impl Etcd {
    fn start() -> Option<Self> {
        let mut command = tool("etcd")?;
        let folder = tempfile::tempdir().unwrap();
        let address = || format!("http://127.0.0.1:{}", tagrelay_test_support::fleet::free_port());
        let (url, peer) = (address(), address());
        command.arg(format!("--data-dir={}", folder.path().join("data").display()));
        for option in ["listen-client-urls", "advertise-client-urls"] {
            command.arg(format!("--{option}={url}"));
        }
        for option in ["listen-peer-urls", "initial-advertise-peer-urls"] {
            command.arg(format!("--{option}={peer}"));
        }
        command.arg(format!("--initial-cluster=default={peer}"));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let etcd = Self { process, url, _folder: folder };
        let begun = Instant::now();
        while !etcd.call("maintenance/status", json!({}), None).is_object() {
            assert!(begun.elapsed() < Duration::from_secs(30), "etcd did not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(etcd)
    }

    /// Calls etcd's JSON API. `null`: there was no answer.
    fn call(&self, method: &str, body: Value, token: Option<&str>) -> Value {
        let mut command = Command::new("curl");
        command.args(["--silent", "--data", &body.to_string(), &format!("{}/v3/{method}", self.url)]);
        if let Some(token) = token {
            command.args(["--header", &format!("Authorization: {token}")]);
        }
        serde_json::from_slice(&command.output().unwrap().stdout).unwrap_or_default()
    }

    fn script(&self) -> String {
        let mut command = Command::new("sh");
        command.arg(path(&format!("{EXAMPLE}/base/data/etcd-auth.sh")));
        command.env("ETCD_URL", &self.url).env("ROOT_PASSWORD", "aa11").env("APISIX_PASSWORD", "bb22");
        output(&mut command)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn script_enables_authentication_once_and_limits_the_gateway_to_its_keys() {
    if tool("curl").is_none() {
        return;
    }
    let Some(etcd) = Etcd::start() else { return };
    // An earlier run was interrupted after its first step.
    etcd.call("auth/user/add", json!({"name": "root", "password": "aa11"}), None);
    assert_eq!(etcd.script(), "authentication is enabled\n");
    assert_eq!(etcd.script(), "authentication is enabled already\n");

    // `foo`, and `/apisix/routes`, in base64.
    let (foreign, own) = ("Zm9v", "L2FwaXNpeC9yb3V0ZXM=");
    let put = |key: &str| json!({"key": key, "value": "YQ=="});
    let anonymous = etcd.call("kv/put", put(own), None);
    assert!(anonymous["error"].is_string(), "{anonymous}");
    let login = json!({"name": "apisix", "password": "bb22"});
    let token = etcd.call("auth/authenticate", login, None)["token"].as_str().unwrap().to_owned();
    let written = etcd.call("kv/put", put(own), Some(&token));
    assert!(written["header"].is_object(), "{written}");
    let refused = etcd.call("kv/put", put(foreign), Some(&token));
    assert!(refused["error"].as_str().unwrap().contains("permission denied"), "{refused}");
}
