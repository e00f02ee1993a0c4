//! `tagrelay sites --set`: prints a diff or writes the files, without a server.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tagrelay_test_support::command::{Answer, Workplace, run};
use tagrelay_test_support::settings::COMMANDS;

use crate::workplace;

const SHA: &str = "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432";
const POD: &str = "apiVersion: v1\r\nkind: Pod\r\nspec:\r\n  containers: # both\r\n  - image: uyou/api:1.0 # c\r\n  - image: redis:7\r\n";

/// A folder `manifests` with a pod, Helm values and a chart template.
fn folder_with_manifests() -> Workplace {
    let workplace = workplace();
    let folder = workplace.path("manifests");
    std::fs::create_dir_all(folder.join("chart/templates")).unwrap();
    std::fs::write(folder.join("pod.yaml"), POD).unwrap();
    std::fs::write(folder.join("chart/values.yaml"), "image:\n  repository: uyou/api\n  tag: \"1.0\"\n").unwrap();
    std::fs::write(folder.join("chart/templates/a.yaml"), "{{- if .Values.x }}\nimage: uyou/api:1.0\n{{- end }}\n")
        .unwrap();
    workplace
}

fn text(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn filter(workplace: &Workplace, arguments: &str, input: &str) -> Answer {
    let mut command = workplace.tagrelay(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Answer::of(child.wait_with_output().unwrap())
}

#[test]
fn diff_is_printed_and_no_file_written() {
    let workplace = folder_with_manifests();
    let answer = run(&mut workplace.tagrelay("sites --set docker.io/uyou/api=123e456 manifests")).expect_code(0);
    let changed: Vec<&str> = answer
        .stdout
        .split_inclusive('\n')
        .filter(|line| line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---"))
        .collect();
    assert_eq!(
        changed,
        [
            "-  tag: \"1.0\"\n",
            "+  tag: \"123e456\"\n",
            "-  - image: uyou/api:1.0 # c\r\n",
            "+  - image: uyou/api:123e456 # c\r\n"
        ],
        "line ends are in the diff"
    );
    assert!(answer.stdout.contains("--- a/chart/values.yaml\n+++ b/chart/values.yaml\n"), "{}", answer.stdout);
    assert!(answer.stderr.contains("ignored: chart/templates/a.yaml: line 1:"), "{}", answer.stderr);
    assert!(answer.stderr.contains("sites to change: 2, in files: 2; --write changes them"), "{}", answer.stderr);
    assert_eq!(text(workplace.path("manifests/pod.yaml")), POD);

    // The output is a patch that does the same as `--write`.
    std::fs::write(workplace.path("a.patch"), &answer.stdout).unwrap();
    let copied = Command::new("cp").arg("-r").args([workplace.path("manifests"), workplace.path("copy")]).status();
    assert!(copied.unwrap().success());
    workplace.git(&["init", "-q", "copy"]);
    workplace.git(&["-C", "copy", "apply", "../a.patch"]);
    run(&mut workplace.tagrelay("sites --set docker.io/uyou/api=123e456 manifests --write")).expect_code(0);
    for file in ["pod.yaml", "chart/values.yaml", "chart/templates/a.yaml"] {
        assert_eq!(text(workplace.path("copy").join(file)), text(workplace.path("manifests").join(file)), "{file}");
    }
}

#[test]
fn files_are_written_with_their_mode_and_once() {
    let workplace = folder_with_manifests();
    let pod = workplace.path("manifests/pod.yaml");
    std::fs::set_permissions(&pod, std::fs::Permissions::from_mode(0o640)).unwrap();
    let command = format!("sites --set uyou/api={SHA} --set redis=8 manifests --write --json");
    let outcome = run(&mut workplace.tagrelay(&command)).expect_code(0).json();
    assert_eq!(text(&pod), POD.replace("api:1.0", &format!("api:{SHA}")).replace("redis:7", "redis:8"));
    assert_eq!(std::fs::metadata(&pod).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(std::fs::read_dir(workplace.path("manifests")).unwrap().count(), 2, "nothing is left beside it");
    assert_eq!(outcome["written"], true);
    let paths: Vec<_> = outcome["files"].as_array().unwrap().iter().map(|file| &file["path"]).collect();
    assert_eq!(paths, ["chart/values.yaml", "pod.yaml"]);
    assert_eq!(outcome["files"][1]["changes"][1]["old"]["tag"], "7");
    assert_eq!(outcome["problems"][0]["path"], "chart/templates/a.yaml");

    let before = std::fs::metadata(&pod).unwrap().modified().unwrap();
    let again = run(&mut workplace.tagrelay(&command.replace(" --json", ""))).expect_code(0);
    assert!(again.stdout.is_empty() && again.stderr.contains("nothing to change"), "{again:?}");
    assert_eq!(std::fs::metadata(&pod).unwrap().modified().unwrap(), before);
}

#[test]
fn missing_or_refused_site_fails_and_no_file_is_written() {
    let workplace = folder_with_manifests();
    let absent =
        run(&mut workplace.tagrelay("sites --set uyou/api=2 --set uyou/ghost=2 manifests --write")).expect_code(1);
    assert!(absent.stderr.contains("not found: no file here names docker.io/uyou/ghost"), "{absent:?}");
    assert!(
        absent.stderr.contains("nothing was written") && absent.stdout.contains("+  - image: uyou/api:2"),
        "{absent:?}"
    );
    assert_eq!(text(workplace.path("manifests/pod.yaml")), POD);

    let pinned = format!("image: uyou/api@sha256:{}\n", "ab".repeat(32));
    std::fs::write(workplace.path("manifests/pinned.yaml"), pinned).unwrap();
    let refused = run(&mut workplace.tagrelay("sites --set uyou/api=2 manifests --write --json")).expect_code(1).json();
    assert_eq!((&refused["written"], &refused["refused"][0]["path"]), (&false.into(), &"pinned.yaml".into()));
    assert!(refused["refused"][0]["reason"].as_str().unwrap().contains("digest"), "{refused}");
    assert_eq!(text(workplace.path("manifests/pod.yaml")), POD);
    let digest = format!("sha256:{}", "cd".repeat(32));
    run(&mut workplace.tagrelay(&format!("sites --set uyou/api=2@{digest} manifests --write"))).expect_code(0);
    assert_eq!(text(workplace.path("manifests/pinned.yaml")), format!("image: uyou/api@{digest}\n"));
    assert_eq!(text(workplace.path("manifests/pod.yaml")), POD.replace("api:1.0", "api:2"));

    // The other sites of the refused file were found.
    let both = format!("image: uyou/api@sha256:{}\nb: {{image: uyou/web:1}}\n", "ab".repeat(32));
    std::fs::write(workplace.path("manifests/pinned.yaml"), both).unwrap();
    let one = run(&mut workplace.tagrelay("sites --set uyou/api=2 --set uyou/web=2 manifests")).expect_code(1);
    assert!(one.stderr.contains("refused: pinned.yaml") && !one.stderr.contains("not found"), "{one:?}");

    let template =
        run(&mut workplace.tagrelay("sites --set uyou/api=2 manifests/chart/templates/a.yaml")).expect_code(1);
    assert!(template.stderr.contains("template"), "{template:?}");
}

#[test]
fn settings_define_markers_and_pinning() {
    let workplace = workplace();
    let settings = COMMANDS.replacen("name = \"production\"", "name = \"production\"\npin = \"digest\"", 1);
    workplace.write_settings(&settings);
    let text = "image: uyou/api:1.0\nrelease: v1 # tagrelay: api\n";
    let files =
        ["environments/staging/a.yaml", "environments/production/a.yaml"].map(|file| workplace.path("work").join(file));
    for file in &files {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    // The marker names an image of the settings. Without settings it is left alone, with a message.
    let digest = format!("sha256:{}", "cd".repeat(32));
    let command = format!("sites --set uyou/api=v2@{digest} work");
    let without = run(&mut workplace.tagrelay(&command)).expect_code(0);
    assert!(
        without.stderr.contains("ignored: environments/staging/a.yaml: line 2: the marker names `api`"),
        "{without:?}"
    );
    assert!(!without.stdout.contains("+release"), "{without:?}");
    run(&mut workplace.tagrelay(&format!("{command} --config tagrelay.toml --write"))).expect_code(0);
    let set = text.replace("1.0", "v2").replace(" v1", " v2");
    let written = files.map(|file| std::fs::read_to_string(file).unwrap());
    assert_eq!(written, [set.clone(), set.replace("api:v2", &format!("api:v2@{digest}"))]);
}

#[test]
fn links_are_not_followed() {
    let workplace = folder_with_manifests();
    let outside = workplace.path("outside.yaml");
    std::fs::write(&outside, POD).unwrap();
    std::os::unix::fs::symlink(&outside, workplace.path("manifests/link.yaml")).unwrap();
    std::os::unix::fs::symlink(workplace.path("."), workplace.path("manifests/folder")).unwrap();
    run(&mut workplace.tagrelay("sites --set redis=8 manifests --write")).expect_code(0);
    assert_eq!(text(&outside), POD);
    assert!(text(workplace.path("manifests/pod.yaml")).contains("redis:8"));
    let named = run(&mut workplace.tagrelay("sites --set redis=8 manifests/link.yaml --write")).expect_code(1);
    assert!(named.stderr.contains("it is a link"), "{named:?}");
    assert_eq!(text(&outside), POD);
    // The file itself can be named.
    run(&mut workplace.tagrelay("sites --set redis=8 outside.yaml --write")).expect_code(0);
    assert_eq!(text(&outside), POD.replace("redis:7", "redis:8"));
}

#[test]
fn standard_input_is_edited_as_a_file() {
    let workplace = workplace();
    let sites = filter(&workplace, "sites - --json", POD).expect_code(0).json();
    assert_eq!((&sites["sites"][0]["path"], &sites["sites"][0]["line"]), (&"-".into(), &5.into()));
    let diff = filter(&workplace, "sites --set uyou/api=2 -", POD).expect_code(0);
    assert!(diff.stdout.contains("+  - image: uyou/api:2 # c\r\n"), "{diff:?}");
    let new = filter(&workplace, "sites --set uyou/api=2 --write -", POD).expect_code(0);
    assert_eq!(new.stdout, POD.replace("api:1.0", "api:2"));
    let same = filter(&workplace, "sites --set uyou/api=1.0 --write -", POD).expect_code(0);
    assert_eq!(same.stdout, POD);
    let absent = filter(&workplace, "sites --set uyou/ghost=1.0 --write -", POD).expect_code(1);
    assert!(absent.stdout.is_empty() && absent.stderr.contains("not found"), "{absent:?}");
    let broken = filter(&workplace, "sites --set redis=8 --write -", "image: redis:7\na: [\n").expect_code(1);
    assert!(broken.stdout.is_empty() && broken.stderr.contains("is not YAML"), "{broken:?}");
}

#[test]
fn contradictory_options_are_usage_errors() {
    let workplace = folder_with_manifests();
    for arguments in [
        "--set uyou/api manifests",
        "--set uyou/api= manifests",
        "--set uyou/api=1@sha256:0 manifests",
        "--write manifests",
        "--set uyou/api=2 --branch main manifests",
    ] {
        let answer = run(&mut workplace.tagrelay(&format!("sites {arguments}"))).expect_code(2);
        assert!(answer.stdout.is_empty() && answer.stderr.contains("--help"), "{arguments}: {answer:?}");
    }
    let twice = run(&mut workplace.tagrelay("sites --set uyou/api=2 --set uyou/api=3 manifests")).expect_code(1);
    assert!(twice.stderr.contains("two different versions of docker.io/uyou/api"), "{twice:?}");
    let remote = run(&mut workplace.tagrelay("sites --set uyou/api=2 https://git.example.com/x.git")).expect_code(1);
    assert!(remote.stderr.contains("clone the repository"), "{remote:?}");
}
