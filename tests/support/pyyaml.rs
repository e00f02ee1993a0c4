//! PyYAML, a reader of YAML that has nothing to do with ours.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Returns whether PyYAML is left out, because `TAGRELAY_TEST_WITHOUT` names it, and says so. Panics where it is wanted and
/// not there.
pub fn is_left_out() -> bool {
    let without = std::env::var("TAGRELAY_TEST_WITHOUT").unwrap_or_default();
    if without.split([',', ' ']).any(|name| name == "pyyaml") {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        // Not `eprintln!`: the test harness would swallow it.
        let line = format!("left out: {test}, because TAGRELAY_TEST_WITHOUT names pyyaml\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return true;
    }
    let is_there = Command::new("python3").args(["-c", "import yaml"]).stderr(Stdio::null()).status();
    assert!(
        is_there.is_ok_and(|status| status.success()),
        "python3 cannot import yaml: install it with `make setup` (Debian: apt-get install python3-yaml), or leave these \
         tests out with TAGRELAY_TEST_WITHOUT=pyyaml"
    );
    false
}
