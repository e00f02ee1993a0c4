//! Prometheus' own tool, which reads rules, runs their cases and judges metrics.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs promtool in `deploy/monitoring`, or says that this was left out. Panics when it objects to something.
pub fn promtool(arguments: &[&str], input: &str) -> Option<()> {
    let without = std::env::var("TAGRELAY_TEST_WITHOUT").unwrap_or_default();
    if without.split([',', ' ']).any(|name| name == "promtool") {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        // Not `eprintln!`: the test harness would swallow it.
        let line = format!("left out: {test}, because TAGRELAY_TEST_WITHOUT names promtool\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    }
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/monitoring"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "promtool cannot be started ({error}): install it with `make setup` (Debian: apt-get install \
                 prometheus), or leave these tests out with TAGRELAY_TEST_WITHOUT=promtool"
            )
        });
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
    Some(())
}
