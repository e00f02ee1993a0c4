//! Optional programs of some tests. `TAGRELAY_TEST_WITHOUT` names those that are missing.

use std::io::Write as _;
use std::process::Command;

use crate::folder;

/// Whether `TAGRELAY_TEST_WITHOUT` names this program; if so, standard error gets a note that the test is skipped.
pub fn is_left_out(program: &str) -> bool {
    let names = std::env::var("TAGRELAY_TEST_WITHOUT").unwrap_or_default();
    let is_left_out = names.split([',', ' ']).any(|name| name == program);
    if is_left_out {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        // Not `eprintln!`: the test harness captures it.
        let line = format!("left out: {test}, because TAGRELAY_TEST_WITHOUT names {program}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    is_left_out
}

/// A command of a program that `make setup` installs into `target/test-tools`, or of one in `PATH`. `None`, with a message:
/// it is missing.
pub fn tool(name: &str) -> Option<Command> {
    if is_left_out(name) {
        return None;
    }
    let installed = folder::root().join("target/test-tools/bin").join(name);
    let program = if installed.exists() { installed.into_os_string() } else { name.into() };
    let is_there = Command::new(&program).arg("--help").output().is_ok();
    if !is_there {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        // Not `eprintln!`: the test harness captures it.
        let line = format!("left out: {test}, because there is no {name} (`make setup` installs it)\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    is_there.then(|| Command::new(program))
}

/// How to install a program that could not be started.
pub fn advice(program: &str, package: &str) -> String {
    format!(
        "install it with `make setup` (Debian: apt-get install {package}), or leave these tests out with \
         TAGRELAY_TEST_WITHOUT={program}"
    )
}
