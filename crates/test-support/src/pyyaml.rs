//! PyYAML, an independent YAML parser.

use std::process::{Command, Stdio};

use crate::peer;

/// Whether PyYAML is skipped. Fails if it is required and missing.
pub fn is_left_out() -> bool {
    if peer::is_left_out("pyyaml") {
        return true;
    }
    let found = Command::new("python3").args(["-c", "import yaml"]).stderr(Stdio::null()).status();
    let is_found = found.is_ok_and(|status| status.success());
    assert!(is_found, "python3 cannot import yaml: {}", peer::advice("pyyaml", "python3-yaml"));
    false
}
