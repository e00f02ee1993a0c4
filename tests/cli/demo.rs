//! `tagrelay demo` as a new user runs it, without configuration.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use jiff::Timestamp;
use tagrelay_embedded_registry::push::{TinyImage, push};
use tagrelay_image::Repository;
use tempfile::TempDir;

/// Time limit on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs programs with their own home and temporary folder. PATH is the only other variable.
struct Newcomer {
    home: TempDir,
}

impl Newcomer {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", self.home.path()).env("TMPDIR", self.home.path());
        command.env("GIT_CONFIG_NOSYSTEM", "1").current_dir(self.home.path()).stdin(Stdio::null());
        command
    }

    fn demo(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(crate::PROGRAM);
        command.arg("demo").args(arguments);
        command
    }

    /// Fails if files are left in the temporary folder.
    fn assert_nothing_is_left(&self) {
        let left: Vec<_> = std::fs::read_dir(self.home.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Returns the text after `before` in the first line that contains it.
fn behind<'a>(text: &'a str, before: &str) -> &'a str {
    let line = text.lines().find_map(|line| Some(line.split_once(before)?.1));
    line.unwrap_or_else(|| panic!("no `{before}` in:\n{text}")).trim()
}

/// Checks the output of a successful tour and returns the pushed tag.
fn check_tour(output: &Output) -> String {
    let shown = text(&output.stdout);
    let complaints = text(&output.stderr);
    assert!(output.status.success(), "{shown}\n{complaints}");
    assert_eq!(complaints, "");
    assert!(!shown.contains('\u{1b}'), "colours without a terminal:\n{shown}");

    // Push, registry and commit report the same tag and digest.
    let pushed = shown.lines().find(|line| line.trim_start().starts_with("127.0.0.1:") && line.contains(":")).unwrap();
    let (repository, tag) = pushed.trim().rsplit_once(':').unwrap();
    assert!(repository.ends_with("/uyou/user-service"), "{pushed}");
    assert!(tag.len() == 40 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()), "{pushed}");
    let digest = shown.lines().find(|line| line.trim_start().starts_with("sha256:")).unwrap().trim();
    assert!(behind(&shown, "the registry has it: ").starts_with(&digest[..19]), "{shown}");
    assert_eq!(behind(&shown, "Tagrelay-Image: "), format!("{repository}:{tag}@{digest}"));
    for moment in ["received", "confirmed", "committed"] {
        assert!(shown.lines().any(|line| line.contains(" ms") && line.contains(moment)), "no {moment} in:\n{shown}");
    }

    // The branch: staging changed once, production twice.
    let (old, new) = ("690879c8fa1a8a8147d87324bf52cabf9f4fceee", tag);
    let moved = |environment: &str, from: &str, to: &str| format!("{environment}: user-service {from:.7} -> {to:.7}");
    let log: Vec<&str> = shown.lines().rev().take_while(|line| !line.is_empty()).collect();
    let subjects: Vec<&str> = log.iter().rev().map(|line| line.trim().split_once(' ').unwrap().1).collect();
    // The trials add two images to staging, and the commit of a colleague.
    let latest = subjects[0].rsplit(' ').next().unwrap();
    assert!(subjects[0].starts_with("staging: user-service ") && subjects[1].starts_with("staging: "), "{subjects:?}");
    let subjects: Vec<&str> = subjects[2..].to_vec();
    let expected = [
        "Add a note".to_owned(),
        moved("production", new, old),
        moved("production", old, new),
        moved("staging", old, new),
        "Describe the environments".to_owned(),
    ];
    assert_eq!(subjects, expected);

    // The diff of staging, then the dry run of production; each has its own style.
    for (line, mark) in [(old, '-'), (new, '+')] {
        for scalar in [format!("    newTag: {line} # the commit that CI built"), format!("    newTag: \"{line}\"")] {
            assert!(shown.contains(&format!("\n   {mark}{scalar}\n")), "no {mark}{scalar} in:\n{shown}");
        }
    }
    assert!(shown.contains("Its diff is that of the dry run."));
    assert!(shown.contains("Every file is byte for byte as it was in "));
    let row = shown.lines().rfind(|line| line.trim_start().starts_with("user-service ")).unwrap();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>().join(" "),
        format!("user-service dev-0b5e1d2 {latest} by push {old:.7} by rollback, held")
    );
    // Commands are shown as they are typed, with what they answer.
    for (command, answer) in [
        ("$ tagrelay promote production user-service", "held by "),
        ("$ tagrelay events show ", "is newer by build"),
        ("$ tagrelay freeze staging --reason 'load test' --until 2h", "frozen  staging  in "),
        ("$ tagrelay status --waiting", " waits"),
        ("$ tagrelay thaw staging", "thawed  staging  load test"),
    ] {
        let (_, rest) = shown.split_once(command).unwrap_or_else(|| panic!("no `{command}` in:\n{shown}"));
        let said = rest.split("$ tagrelay").next().unwrap();
        assert!(said.contains(answer), "`{command}` does not say `{answer}`:\n{said}");
    }
    tag.to_owned()
}

/// On a terminal of 80 columns and 24 lines, each step waits for Enter.
#[test]
fn tour_on_a_terminal_waits_for_enter() {
    use std::io::Write as _;
    let newcomer = Newcomer::new();
    let mut command = newcomer.command("script");
    let inner = format!("stty cols 80 rows 24; exec {} demo", crate::PROGRAM);
    command.args(["-qefc", &inner, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut terminal = child.stdin.take().unwrap();
    let (mut stdout, (sender, parts)) = (child.stdout.take().unwrap(), mpsc::channel());
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(read) = stdout.read(&mut bytes) {
            if read == 0 || sender.send(String::from_utf8_lossy(&bytes[..read]).into_owned()).is_err() {
                break;
            }
        }
    });
    let mut shown = String::new();
    let until = |words: &str, shown: &mut String| {
        let from = shown.len();
        while !shown[from..].contains(words) {
            let part = parts.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("no `{words}` after:\n{shown}"));
            shown.push_str(&part);
        }
        shown[from..].to_owned()
    };
    let first = until("Enter: the next step", &mut shown);
    assert!(first.contains("1. A small platform") && !first.contains("2. "), "{first}");
    for step in 2..=11 {
        // Nothing goes on by itself.
        assert!(!shown.contains(&format!("{step}. ")), "step {step} came without Enter:\n{shown}");
        terminal.write_all(b"\n").unwrap();
        let words = if step < 11 { "Enter: the next step" } else { "Changes appear here" };
        let part = until(words, &mut shown);
        assert!(part.contains(&format!("{step}. ")), "step {step} is not in:\n{part}");
    }
    // Ctrl-C.
    terminal.write_all(b"\x03").unwrap();
    assert!(child.wait().unwrap().success());
    newcomer.assert_nothing_is_left();
}

#[test]
fn tour_ends_and_leaves_no_files() {
    let newcomer = Newcomer::new();
    let first = check_tour(&newcomer.demo(&["--once"]).output().unwrap());
    let second = check_tour(&newcomer.demo(&["--once"]).output().unwrap());
    assert_ne!(first, second, "nothing of it is written down in advance");
    newcomer.assert_nothing_is_left();
}

#[test]
fn tour_works_with_docker_registry() {
    let without = std::env::var("TAGRELAY_TEST_WITHOUT").unwrap_or_default();
    if without.split([',', ' ']).any(|name| name == "docker-registry") {
        eprintln!("left out: the tour with docker-registry, because TAGRELAY_TEST_WITHOUT names it");
        return;
    }
    let newcomer = Newcomer::new();
    check_tour(&newcomer.demo(&["--once", "--registry", "docker-registry"]).output().unwrap());
    newcomer.assert_nothing_is_left();
}

/// A folder for PATH with only these programs.
fn path_with(newcomer: &Newcomer, programs: &[&str]) -> PathBuf {
    let folder = newcomer.home.path().join("bin");
    std::fs::create_dir(&folder).unwrap();
    for program in programs {
        std::os::unix::fs::symlink(find_in_path(program), folder.join(program)).unwrap();
    }
    folder
}

fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    text(&output.stderr)
}

#[test]
fn missing_program_is_named() {
    let newcomer = Newcomer::new();
    let nothing = path_with(&newcomer, &[]);
    let said = refused(newcomer.demo(&["--once"]).env("PATH", &nothing));
    assert!(said.starts_with("error: git cannot be run ("), "{said}");
    assert!(said.contains("apt-get install git"), "{said}");
    std::fs::remove_dir_all(&nothing).unwrap();

    let git_only = path_with(&newcomer, &["git"]);
    let said = refused(newcomer.demo(&["--once", "--registry", "docker-registry"]).env("PATH", &git_only));
    assert!(said.contains("apt-get install docker-registry"), "{said}");
    std::fs::remove_dir_all(&git_only).unwrap();
    newcomer.assert_nothing_is_left();

    let said = refused(newcomer.demo(&["--once"]).env("TMPDIR", "/no/such/folder"));
    assert!(said.contains("set TMPDIR"), "{said}");
}

#[test]
fn port_in_use_is_named() {
    let newcomer = Newcomer::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for option in ["--port", "--registry-port"] {
        let said = refused(&mut newcomer.demo(&["--once", option, &address.port().to_string()]));
        assert!(said.contains(&format!("cannot listen on {address}")), "{option}: {said}");
    }
    newcomer.assert_nothing_is_left();
}

/// A hook of the remote refuses every push.
#[test]
fn failed_step_fails_the_run() {
    let newcomer = Newcomer::new();
    let bin = path_with(&newcomer, &[]);
    let git = find_in_path("git");
    let write = |name: &str, script: String| {
        std::fs::write(bin.join(name), script).unwrap();
        std::fs::set_permissions(bin.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    write("pre-receive", "#!/bin/sh\necho 'not on a Friday' >&2\nexit 1\n".to_owned());
    write("git", format!("#!/bin/sh\nexec {} -c core.hooksPath={} \"$@\"\n", git.display(), bin.display()));
    let path = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths(std::iter::once(bin.clone()).chain(std::env::split_paths(&path))).unwrap();
    let said = refused(newcomer.demo(&["--once"]).env("PATH", path));
    assert!(said.contains("error: staging did not get it (waiting): "), "{said}");
    assert!(said.contains("not on a Friday"), "{said}");
    std::fs::remove_dir_all(&bin).unwrap();
    newcomer.assert_nothing_is_left();
}

fn find_in_path(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file()).unwrap()
}

/// A running demo and its output.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    shown: String,
}

impl Running {
    fn start(newcomer: &Newcomer, arguments: &[&str]) -> Self {
        let mut child = newcomer.demo(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines, shown: String::new() }
    }

    /// Reads until a line contains all these words, and returns it.
    fn until(&mut self, words: &[&str]) -> String {
        loop {
            let line = self.lines.recv_timeout(LIMIT);
            let line = line.unwrap_or_else(|_| panic!("no line with {words:?} came after:\n{}", self.shown));
            self.shown.push_str(&line);
            self.shown.push('\n');
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
        }
    }

    /// Sends SIGINT and returns the exit code.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let mut complaints = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
        (self.child.wait().unwrap().code(), complaints)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the commands below the comment that begins with `comment`.
fn commands(shown: &str, comment: &str) -> String {
    let from = shown.find(comment).unwrap_or_else(|| panic!("no `{comment}` in:\n{shown}"));
    let lines = shown[from..].lines().skip_while(|line| line.trim_start().starts_with('#'));
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

fn paste(newcomer: &Newcomer, commands: &str) -> String {
    let output = newcomer.command("sh").arg("-ec").arg(commands).output().unwrap();
    assert!(output.status.success(), "{commands}\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// What `make run` starts.
#[tokio::test]
async fn branch_build_pushed_to_a_demo_without_tour_reaches_development_only() {
    let newcomer = Newcomer::new();
    let mut demo = Running::start(&newcomer, &["--no-tour"]);
    demo.until(&["Changes appear here"]);
    let shown = demo.shown.clone();
    assert!(!shown.contains("A small platform"), "there is no tour:\n{shown}");
    assert!(shown.contains("docker push"), "{shown}");
    let registry = shown.lines().find(|line| line.ends_with("/v2/")).unwrap();
    let host = registry.rsplit_once("http://").unwrap().1.trim_end_matches("/v2/");
    let repository = Repository::new(host, "uyou/user-service").unwrap();
    let tag = format!("dev-{}", "ab".repeat(20));
    let image = TinyImage { revision: None, created: Timestamp::now(), text: "a branch build".to_owned() };
    push(&repository, &tag.parse().unwrap(), &image, None).await.unwrap();
    demo.until(&["committed", "development: user-service dev-ababab"]);
    let config = shown.lines().rfind(|line| line.contains("config repository")).unwrap();
    let config = config.trim().trim_start_matches("config repository").trim();
    let grep = format!("git --git-dir={config} grep -l {tag} main");
    assert_eq!(paste(&newcomer, &grep).trim(), "main:environments/development/kustomization.yaml");
    let (code, complaints) = demo.interrupt();
    assert_eq!((code, complaints.as_str()), (Some(0), ""));
    newcomer.assert_nothing_is_left();
}

#[test]
fn demo_stays_up_and_its_printed_commands_work() {
    let newcomer = Newcomer::new();
    let mut demo = Running::start(&newcomer, &[]);
    demo.until(&["Changes appear here"]);
    let shown = demo.shown.clone();
    let repository = PathBuf::from(
        shown
            .lines()
            .rfind(|line| line.contains("config repository"))
            .unwrap()
            .trim()
            .strip_prefix("config repository")
            .unwrap()
            .trim(),
    );
    let tip = |repository: &Path| {
        let log = format!("git --git-dir={} log -1 --format=%s main", repository.display());
        paste(&newcomer, &log).trim().to_owned()
    };
    assert!(tip(&repository).starts_with("staging: user-service "), "the commits are in Git itself");

    if find_curl() {
        let answer = paste(&newcomer, &commands(&shown, "# CI has built order-service"));
        assert!(answer.contains("\"state\":\"queued\""), "{answer}");
        demo.until(&["received", "order-service"]);
        demo.until(&["committed", "staging: order-service"]);
        assert!(tip(&repository).starts_with("staging: order-service 516de5f -> "));
    }
    paste(&newcomer, &commands(&shown, "# Production follows."));
    demo.until(&["promotion", "for production"]);
    demo.until(&["committed", "production: order-service"]);
    assert!(tip(&repository).starts_with("production: order-service 483219d -> "));
    let log = paste(&newcomer, &commands(&shown, "# Git has every change."));
    assert!(log.contains("Tagrelay-Cause: promotion "), "{log}");

    let (code, complaints) = demo.interrupt();
    assert_eq!((code, complaints.as_str()), (Some(0), ""));
    newcomer.assert_nothing_is_left();
}

/// If curl is missing, the promotion is still tested.
fn find_curl() -> bool {
    let is_there = Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !is_there {
        eprintln!("left out: the curl command of the demo, because there is no curl");
    }
    is_there
}
