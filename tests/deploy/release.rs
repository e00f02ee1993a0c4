//! The scripts of a release: image, Debian package, SBOM, chart and notes, with stand-ins for the static programs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;
use tagrelay_test_support::command::{Answer, run};
use tagrelay_test_support::docker_registry::{self, DockerRegistry};
use tagrelay_test_support::peer::tool;
use tempfile::TempDir;

use super::platform_tree::{document, list, path, read, text};

const WORKFLOW: &str = ".github/workflows/release.yml";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The time of the files.
const EPOCH: &str = "1767225600";

fn script(name: &str) -> Command {
    let mut command = Command::new(path("scripts/release").join(name));
    command.current_dir(path(".")).env("SOURCE_DATE_EPOCH", EPOCH);
    command
}

/// A folder with a stand-in for the program of each platform.
struct Programs {
    folder: TempDir,
}

impl Programs {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for arch in ["amd64", "arm64"] {
            std::fs::write(folder.path().join(arch), format!("the program for {arch}")).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `ARCH=FILE` of each platform.
    fn pairs(&self) -> [String; 2] {
        ["amd64", "arm64"].map(|arch| format!("{arch}={}", self.path(arch).display()))
    }

    /// Assembles the image in the folder `name`.
    fn image(&self, name: &str) -> Answer {
        let certificates = self.path("certificates.pem");
        std::fs::write(&certificates, "certificates").unwrap();
        let mut command = script("image.py");
        command.args([
            "--version",
            VERSION,
            "--revision",
            "0123abc",
            "--source",
            "https://git.example.com/uyou/tagrelay",
        ]);
        command.arg("--certificates").arg(certificates).arg("--out").arg(self.path(name));
        for pair in self.pairs() {
            command.args(["--platform", &pair]);
        }
        run(&mut command).expect_code(0)
    }
}

/// A blob of an OCI layout.
fn blob(layout: &Path, descriptor: &Json) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let content = std::fs::read(layout.join("blobs/sha256").join(digest)).unwrap();
    assert_eq!(content.len() as u64, descriptor["size"].as_u64().unwrap());
    content
}

fn json(layout: &Path, descriptor: &Json) -> Json {
    serde_json::from_slice(&blob(layout, descriptor)).unwrap()
}

/// What `tar` lists of a layer: mode, owner and name of each entry.
fn entries(programs: &Programs, layer: &[u8]) -> Vec<String> {
    let file = programs.path("layer.tar.gz");
    std::fs::write(&file, layer).unwrap();
    let listed = run(Command::new("tar").args(["--list", "--verbose", "--numeric-owner", "--file"]).arg(file));
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        format!("{} {} {}", words[0], words[1], words.last().unwrap())
    };
    listed.expect_code(0).stdout.lines().map(line).collect()
}

#[test]
fn image_has_both_platforms_and_no_root() {
    let programs = Programs::new();
    let digest = programs.image("image").stdout;
    let layout = programs.path("image");
    let top: Json = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(top["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], VERSION);
    assert_eq!(top["manifests"][0]["digest"], digest.trim());
    let index = json(&layout, &top["manifests"][0]);
    let mut platforms = BTreeSet::new();
    for descriptor in index["manifests"].as_array().unwrap() {
        let arch = descriptor["platform"]["architecture"].as_str().unwrap();
        platforms.insert(arch.to_owned());
        let manifest = json(&layout, descriptor);
        let config = json(&layout, &manifest["config"]);
        assert_eq!(config["architecture"], arch);
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"][0], "/usr/local/bin/tagrelay");
        assert_eq!(config["config"]["Labels"]["org.opencontainers.image.revision"], "0123abc");
        assert_eq!(config["config"]["Labels"]["org.opencontainers.image.licenses"], "Apache-2.0");
        assert_eq!(config["created"], "2026-01-01T00:00:00Z");
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), config["rootfs"]["diff_ids"].as_array().unwrap().len());
        let base = entries(&programs, &blob(&layout, &layers[0]));
        for expected in [
            "drwxrwxrwt 0/0 tmp/",
            "drwxr-xr-x 65532/65532 var/lib/tagrelay/",
            "-rw-r--r-- 0/0 etc/ssl/certs/ca-certificates.crt",
        ] {
            assert!(base.iter().any(|entry| entry == expected), "{expected}: {base:#?}");
        }
        let own = entries(&programs, &blob(&layout, &layers[1]));
        assert_eq!(own, ["-rwxr-xr-x 0/0 usr/local/bin/tagrelay"]);
        let content =
            run(Command::new("tar").args(["--extract", "--to-stdout", "--file"]).arg(programs.path("layer.tar.gz")));
        assert_eq!(content.stdout, format!("the program for {arch}"));
    }
    assert_eq!(platforms, BTreeSet::from(["amd64".to_owned(), "arm64".to_owned()]));

    assert_eq!(programs.image("again").stdout, digest, "the same input gives the same image");
}

#[test]
fn image_matches_the_container_image_of_docker() {
    let programs = Programs::new();
    programs.image("image");
    let layout = programs.path("image");
    let top: Json = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifest = json(&layout, &json(&layout, &top["manifests"][0])["manifests"][0]);
    let config = json(&layout, &manifest["config"])["config"].clone();
    let dockerfile = read("Dockerfile");
    let user = config["User"].as_str().unwrap();
    let quoted = |list: &Json| serde_json::to_string(list).unwrap().replace(',', ", ");
    for line in [
        format!("USER {user}"),
        format!("WORKDIR {}", config["WorkingDir"].as_str().unwrap()),
        format!("ENTRYPOINT {}", quoted(&config["Entrypoint"])),
        format!("CMD {}", quoted(&config["Cmd"])),
        "EXPOSE 8080 9090".to_owned(),
    ] {
        assert!(dockerfile.lines().any(|found| found == line), "Dockerfile: {line}");
    }
}

#[test]
fn make_image_pushes_without_docker() {
    if tool("skopeo").is_none() {
        return;
    }
    let Some(registry) = DockerRegistry::start(docker_registry::Options::default()) else { return };
    let programs = Programs::new();
    let image = format!("{}/platform/tagrelay", registry.host);
    let mut command = Command::new("make");
    command.current_dir(path(".")).args([
        "--silent",
        "image",
        &format!("IMAGE={image}:1.2.3"),
        "PUSH=yes",
        "DOCKER=no",
    ]);
    command.arg(format!("PROGRAMS={}", programs.pairs().join(" ")));
    command.arg(format!("OUT={}", programs.path("pushed").display()));
    run(&mut command).expect_code(0);
    for arch in ["amd64", "arm64"] {
        let mut inspect = tool("skopeo").unwrap();
        inspect.args(["--override-os", "linux", "--override-arch", arch, "inspect", "--tls-verify=false", "--config"]);
        let config = run(inspect.arg(format!("docker://{image}:1.2.3"))).expect_code(0).json();
        assert_eq!(config["architecture"], arch);
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], "1.2.3");
    }
    let nameless = run(Command::new(path("scripts/release/make-image.sh")).arg("127.0.0.1:5000/tagrelay"));
    assert!(nameless.stderr.contains("has no tag"), "{nameless:?}");
}

#[test]
fn debian_package_has_program_unit_pages_and_completions() {
    if tool("dpkg-deb").is_none() {
        return;
    }
    let programs = Programs::new();
    let documents = programs.path("documents");
    let mut command = script("documents.sh");
    run(command.arg(env!("CARGO_BIN_EXE_tagrelay")).arg(&documents)).expect_code(0);
    let package = |out: &str| {
        let mut command = script("package-deb.sh");
        command.arg("arm64").arg(programs.path("arm64")).arg(&documents).arg(programs.path(out));
        run(&mut command).expect_code(0);
        programs.path(out).join(format!("tagrelay_{VERSION}_arm64.deb"))
    };
    let made = package("one");
    assert!(
        std::fs::read(&made).unwrap() == std::fs::read(package("two")).unwrap(),
        "the same input, the same package"
    );
    let field = |name: &str| run(Command::new("dpkg-deb").arg("--field").arg(&made).arg(name)).expect_code(0).stdout;
    assert_eq!((field("Package").trim(), field("Version").trim()), ("tagrelay", VERSION));
    assert_eq!(field("Architecture").trim(), "arm64");
    let tree = programs.path("tree");
    run(Command::new("dpkg-deb").arg("--extract").arg(&made).arg(&tree)).expect_code(0);
    assert_eq!(std::fs::read_to_string(tree.join("usr/bin/tagrelay")).unwrap(), "the program for arm64");
    for file in [
        "usr/lib/systemd/system/tagrelay.service",
        "usr/share/man/man1/tagrelay.1.gz",
        "usr/share/man/man1/tagrelay-promote.1.gz",
        "usr/share/bash-completion/completions/tagrelay",
        "usr/share/zsh/vendor-completions/_tagrelay",
        "usr/share/fish/vendor_completions.d/tagrelay.fish",
        "usr/share/doc/tagrelay/copyright",
        "usr/share/doc/tagrelay/changelog.gz",
        "usr/share/doc/tagrelay/config.example.toml",
    ] {
        assert!(std::fs::metadata(tree.join(file)).is_ok_and(|found| found.len() > 0), "{file}");
    }
    let listed = run(Command::new("dpkg-deb").arg("--contents").arg(&made)).expect_code(0).stdout;
    assert!(listed.lines().all(|line| line.contains(" root/root ")), "{listed}");
}

#[test]
fn unit_is_accepted_by_systemd() {
    let Some(mut command) = tool("systemd-analyze") else { return };
    // The program is not installed here.
    let unit = read("deploy/systemd/tagrelay.service").replace("/usr/bin/tagrelay", "/bin/true");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tagrelay.service");
    std::fs::write(&file, unit.replace("Documentation=man:tagrelay(1)\n", "")).unwrap();
    let answer = run(command.args(["verify", "--man=no"]).arg(&file));
    let about_ours: Vec<&str> = answer.stderr.lines().filter(|line| line.contains("tagrelay.service")).collect();
    assert_eq!(about_ours, Vec::<&str>::new());
}

#[test]
fn sbom_lists_the_crates_of_the_program_and_is_valid() {
    let written = run(&mut script("sbom.py")).expect_code(0);
    let bom = written.json();
    assert_eq!(bom["metadata"]["component"]["purl"], format!("pkg:cargo/tagrelay@{VERSION}"));
    let names: BTreeSet<&str> =
        bom["components"].as_array().unwrap().iter().map(|component| component["name"].as_str().unwrap()).collect();
    for contained in ["tokio", "rustls", "git2", "libgit2-sys", "libsqlite3-sys", "tagrelay-git"] {
        assert!(names.contains(contained), "{contained}");
    }
    for other in ["insta", "proptest", "cc", "tagrelay-test-support"] {
        assert!(!names.contains(other), "{other} is not part of the program");
    }
    let lock: toml::Table = read("Cargo.lock").parse().unwrap();
    let locked: BTreeSet<&str> =
        lock["package"].as_array().unwrap().iter().map(|package| package["name"].as_str().unwrap()).collect();
    assert!(names.is_subset(&locked));
    let references: BTreeSet<&str> =
        bom["dependencies"].as_array().unwrap().iter().map(|one| one["ref"].as_str().unwrap()).collect();
    assert_eq!(references.len(), names_and_versions(&bom) + 1, "each crate and the program once");
    assert_eq!(run(&mut script("sbom.py")).stdout, written.stdout);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bom.json");
    let Some(mut validator) = tool("validate-cyclonedx") else { return };
    std::fs::write(&file, &written.stdout).unwrap();
    run(validator.arg(&file)).expect_code(0);
    std::fs::write(&file, written.stdout.replace("\"type\": \"library\"", "\"type\": \"crate\"")).unwrap();
    run(tool("validate-cyclonedx").unwrap().arg(&file)).expect_code(1);
}

fn names_and_versions(bom: &Json) -> usize {
    bom["components"].as_array().unwrap().iter().map(|one| one["purl"].as_str().unwrap()).collect::<BTreeSet<_>>().len()
}

#[test]
fn packaged_chart_has_the_name_of_the_image() {
    let Some(helm) = tool("helm") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut command = script("package-chart.sh");
    command.env("HELM", helm.get_program()).arg("ghcr.io/someone/tagrelay").arg(folder.path());
    run(&mut command).expect_code(0);
    let chart = folder.path().join(format!("tagrelay-{VERSION}.tgz"));
    let settings = path("deploy/kubernetes/tagrelay.toml");
    let mut template = tool("helm").unwrap();
    template
        .args(["template", "tagrelay"])
        .arg(&chart)
        .arg("--set-file")
        .arg(format!("settings={}", settings.display()));
    let rendered = run(&mut template).expect_code(0).stdout;
    let images: BTreeSet<&str> = rendered.lines().map(str::trim).filter(|line| line.starts_with("image: ")).collect();
    assert_eq!(images, BTreeSet::from([format!("image: \"ghcr.io/someone/tagrelay:{VERSION}\"").as_str()]));
}

/// `cargo binstall` finds the archives that package.sh makes and the workflow publishes.
#[test]
fn binstall_metadata_names_the_archives() {
    let cargo: toml::Table = read("Cargo.toml").parse().unwrap();
    let repository = cargo["workspace"]["package"]["repository"].as_str().unwrap();
    let metadata = &cargo["package"]["metadata"]["binstall"];
    let target = "aarch64-unknown-linux-musl";
    let filled = |key: &str| {
        let text = metadata[key].as_str().unwrap();
        let text = text.replace("{ repo }", repository).replace("{ version }", VERSION).replace("{ target }", target);
        text.replace("{ bin }", "tagrelay").replace("{ binary-ext }", "")
    };
    let name = format!("tagrelay-{VERSION}-{target}");
    assert_eq!(filled("pkg-url"), format!("{repository}/releases/download/v{VERSION}/{name}.tar.gz"));
    assert_eq!(filled("bin-dir"), format!("{name}/tagrelay"));
    assert_eq!(filled("pkg-fmt"), "tgz");
    let package = read("scripts/release/package.sh");
    assert!(package.contains(r#"local name="tagrelay-$version-$(triple "$1")""#) && package.contains(target));
    assert!(read(WORKFLOW).contains("target/dist/tagrelay-*.tar.gz"));
}

#[test]
fn notes_are_the_section_of_the_version() {
    let notes = run(script("notes.sh").arg("0.1.0")).expect_code(0).stdout;
    assert!(notes.starts_with("### Added\n"), "{notes}");
    assert!(!notes.contains("\n## ") && read("CHANGELOG.md").contains(notes.trim_end()));
    let missing = run(script("notes.sh").arg("9.9.9")).expect_code(1);
    assert!(missing.stderr.contains("CHANGELOG.md has no section \"## 9.9.9\""), "{missing:?}");
}

#[test]
fn program_check_finds_each_fault() {
    let check = |program: &Path, arch: &str, forbidden: &str| {
        let answer = run(script("check-program.py").args(["--arch", arch, "--forbid", forbidden]).arg(program));
        (answer.code, answer.stderr)
    };
    // The program of the tests has all these faults.
    let program = Path::new(env!("CARGO_BIN_EXE_tagrelay"));
    let other = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };
    let (code, said) = check(program, other, env!("CARGO_MANIFEST_DIR"));
    assert_eq!(code, 1);
    for fault in [
        format!("is not for {other}"),
        "is linked dynamically".to_owned(),
        "is not stripped".to_owned(),
        "has no list of dependencies".to_owned(),
        "contains the path".to_owned(),
    ] {
        assert!(said.contains(&fault), "{fault}: {said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "text").unwrap();
    assert!(check(&text, "amd64", "/nowhere").1.contains("is no 64-bit ELF file"));
}

#[test]
fn workflow_fits_the_schema_of_github() {
    let Some(mut command) = tool("check-jsonschema") else { return };
    let answer = run(command.args(["--builtin-schema", "vendor.github-workflows"]).arg(path(WORKFLOW)));
    answer.expect_code(0);
}

#[test]
fn workflow_pins_actions_and_has_few_permissions() {
    let workflow = document(WORKFLOW);
    assert_eq!(workflow["permissions"].as_mapping().unwrap().len(), 0);
    let jobs = workflow["jobs"].as_mapping().unwrap();
    let commit = regex::Regex::new(r"^[a-z]+/[a-z-]+@[0-9a-f]{40}$").unwrap();
    for (name, job) in jobs {
        let permissions = job["permissions"].as_mapping().unwrap();
        let may_write = permissions.values().any(|value| value == "write");
        assert_eq!(may_write, name == "publish", "{name:?}");
        for step in list(&job["steps"]) {
            if let Some(action) = step["uses"].as_str() {
                assert!(commit.is_match(action), "{action} is not pinned by its commit");
            }
            // An expression in a script could be text of an attacker.
            assert!(!step["run"].as_str().unwrap_or_default().contains("${{"), "{step:?}");
        }
    }
    assert_eq!(list(&workflow["jobs"]["publish"]["needs"]), ["build", "try"]);
    // The name of the image is set once.
    let all = read(WORKFLOW);
    assert_eq!(all.matches("repository_owner }}/tagrelay").count(), 1);
    assert_eq!(text(&workflow["env"]["IMAGE"]), "ghcr.io/${{ github.repository_owner }}/tagrelay");
}

#[test]
fn workflow_uses_scripts_that_exist() {
    let all = read(WORKFLOW);
    let mut used = BTreeSet::new();
    for found in regex::Regex::new(r"scripts/release/[a-z-]+\.(?:sh|py)").unwrap().find_iter(&all) {
        assert!(path(found.as_str()).exists(), "{}", found.as_str());
        used.insert(found.as_str().to_owned());
    }
    assert!(used.len() >= 3, "{used:?}");
    // The commands with which a release is tried.
    let commands = regex::Regex::new(r#""\$PROGRAM" ([a-z]+(?: --[a-z]+)?)"#).unwrap();
    let tried: Vec<&str> = commands.captures_iter(&all).map(|found| found.get(1).unwrap().as_str()).collect();
    assert_eq!(tried, ["sites", "demo --once"]);
    for command in tried {
        let help = format!("{command} --help");
        run(&mut tagrelay_test_support::command::program(env!("CARGO_BIN_EXE_tagrelay"), &help)).expect_code(0);
    }
    let rust = text(&document(WORKFLOW)["env"]["RUST"]).to_owned();
    let cargo: toml::Table = read("Cargo.toml").parse().unwrap();
    let wanted = cargo["workspace"]["package"]["rust-version"].as_str().unwrap();
    assert!(rust.starts_with(wanted), "{rust} and {wanted}");
}
