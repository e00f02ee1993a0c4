//! Small settings and what is said about them.
// Each test file uses a part of this.
#![allow(dead_code)]

use std::env::VarError;

use tagrelay::settings::{Faults, Settings};

/// Settings with nothing in them that could be left out.
pub const SMALLEST: &str = r#"[[config_repository]]
name = "platform"
url = "file:///srv/git/platform.git"

[[environment]]
name = "staging"
paths = ["environments/staging/**"]
update = "automatic"

[[environment]]
name = "production"
paths = ["environments/production/**"]
promote_from = ["staging"]

[[image]]
repository = "docker.io/uyou/*"
"#;

pub fn environment(name: &str) -> Result<String, VarError> {
    match name {
        "TOKEN" => Ok("hunter2".to_owned()),
        "KEY" => Ok("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY-----\n".to_owned()),
        "EMPTY" => Ok(String::new()),
        _ => Err(VarError::NotPresent),
    }
}

pub fn parse(text: &str) -> Result<Settings, Faults> {
    Settings::parse("t.toml", text, &environment)
}

/// Returns the faults of a text, which never show the secret.
pub fn faults(text: &str) -> String {
    let faults = match parse(text) {
        Ok(_) => return "none".to_owned(),
        Err(faults) => faults,
    };
    let shown = faults.to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!format!("{faults:?}").contains("hunter2"), "{faults:?}");
    shown
}
