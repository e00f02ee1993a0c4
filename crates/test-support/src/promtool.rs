//! Prometheus' promtool: checks rules, runs their tests, and checks the format of metrics.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::{folder, peer};

/// Runs promtool in `deploy/monitoring` and fails if it reports an error. `None`: promtool is skipped.
pub fn promtool(arguments: &[&str], input: &str) -> Option<()> {
    if peer::is_left_out("promtool") {
        return None;
    }
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(folder::root().join("deploy/monitoring"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start promtool ({error}): {}", peer::advice("promtool", "prometheus")));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
    Some(())
}
