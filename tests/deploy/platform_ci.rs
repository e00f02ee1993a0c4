//! The three CI examples do the same, and fit the schemas of GitHub and GitLab.

use regex::Regex;
use serde_yaml::Value;
use tagrelay_image::Repository;
use tagrelay_test_support::peer::tool;

use super::platform_tree::{ENVIRONMENTS, EXAMPLE, document, list, output, path, read, text};

const GITHUB: &str = "deploy/ci/github-actions.yml";
const GITLAB: &str = "deploy/ci/gitlab-ci.yml";
const JENKINS: &str = "deploy/ci/Jenkinsfile";

#[test]
fn github_and_gitlab_examples_fit_their_schemas() {
    for (schema, transform, file) in
        [("vendor.github-workflows", None, GITHUB), ("vendor.gitlab-ci", Some("gitlab-ci"), GITLAB)]
    {
        let Some(mut command) = tool("check-jsonschema") else { return };
        command.args(["--builtin-schema", schema]);
        if let Some(transform) = transform {
            command.args(["--data-transform", transform]);
        }
        output(command.arg(path(file)));
    }
}

/// The steps of a job of the GitHub example.
fn steps(job: &str) -> Vec<Value> {
    list(&document(GITHUB)["jobs"][job]["steps"]).to_vec()
}

fn step_of(action: &str) -> Value {
    let is_it = |step: &Value| step["uses"].as_str().is_some_and(|uses| uses.starts_with(&format!("{action}@")));
    steps("image").into_iter().find(is_it).unwrap_or_else(|| panic!("no step uses {action}"))
}

/// The image that an example pushes.
fn images() -> [String; 3] {
    let github = text(&document(GITHUB)["env"]["IMAGE"]).to_owned();
    let gitlab = text(&document(GITLAB)["variables"]["IMAGE"]).to_owned();
    let jenkins = Regex::new(r"IMAGE = '([^']+)'").unwrap().captures(&read(JENKINS)).unwrap()[1].to_owned();
    [github, gitlab, jenkins]
}

#[test]
fn every_example_pushes_the_image_that_the_manifests_use() {
    for image in images() {
        assert_eq!(image.parse::<Repository>().unwrap().as_str(), image);
        for environment in ENVIRONMENTS {
            let kustomization = document(&format!("{EXAMPLE}/environments/{environment}/kustomization.yaml"));
            assert!(list(&kustomization["images"]).iter().any(|found| found["name"] == image.as_str()));
        }
    }
}

#[test]
fn commit_is_the_only_tag_and_branch_builds_have_a_prefix() {
    let github = document(GITHUB);
    assert_eq!(
        github["env"]["TAG"],
        "${{ github.ref_name == github.event.repository.default_branch && github.sha || format('dev-{0}', github.sha) }}"
    );
    assert_eq!(step_of("docker/build-push-action")["with"]["tags"], "${{ env.IMAGE }}:${{ env.TAG }}");

    let gitlab = document(GITLAB);
    let rules = list(&gitlab["build-image"]["rules"]);
    let tags: Vec<(&str, &str)> =
        rules.iter().map(|rule| (text(&rule["if"]), text(&rule["variables"]["TAG"]))).collect();
    assert_eq!(
        tags,
        [("$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH", "$CI_COMMIT_SHA"), ("$CI_COMMIT_BRANCH", "dev-$CI_COMMIT_SHA")]
    );
    let jenkins = read(JENKINS);
    assert!(
        jenkins.contains(r#"TAG = "${env.BRANCH_IS_PRIMARY == 'true' ? env.GIT_COMMIT : 'dev-' + env.GIT_COMMIT}""#)
    );
    let tag = Regex::new("--tag |-t ").unwrap();
    for example in [read(GITLAB), jenkins] {
        assert_eq!(tag.find_iter(&example).count(), 1, "one tag: {example}");
        assert!(example.contains(r#"--tag "$IMAGE:$TAG""#));
    }
    // The environment of branch builds takes this prefix.
    let settings: toml::Table = read("deploy/kubernetes/tagrelay.toml").parse().unwrap();
    let development = settings["environment"].as_array().unwrap();
    let development = development.iter().find(|found| found["name"].as_str() == Some("development")).unwrap();
    assert_eq!(development["tag"]["prefix"].as_str(), Some("dev-"));
}

#[test]
fn every_example_tests_labels_describes_and_signs() {
    let build = step_of("docker/build-push-action");
    let github = text(&build["with"]["labels"]).to_owned();
    for (example, name) in [(github, GITHUB), (read(GITLAB), GITLAB), (read(JENKINS), JENKINS)] {
        for label in ["revision", "source", "created"] {
            assert!(example.contains(&format!("org.opencontainers.image.{label}=")), "{name}: {label}");
        }
    }
    assert_eq!(build["with"]["sbom"], true);
    let password = Regex::new(r"(?i)--password[ =](?:[^-]|$)").unwrap();
    for (file, sign) in [
        (GITHUB, r#"cosign sign --yes --key env://COSIGN_PRIVATE_KEY "$IMAGE@$DIGEST""#),
        (GITLAB, r#"cosign sign --yes --key env://COSIGN_PRIVATE_KEY "$IMAGE@$DIGEST""#),
        (JENKINS, r#"cosign sign --yes --key "$COSIGN_KEY" "$IMAGE@$(jq"#),
    ] {
        let example = read(file);
        assert!(example.contains(sign), "{file}: signed by digest");
        assert!(example.contains("go test -race ./..."), "{file}");
        if file != GITHUB {
            assert!(example.contains("--sbom=true"), "{file}");
        }
        assert!(example.contains("notify.py"), "{file}");
        // Passwords reach programs over standard input or the environment.
        assert!(!password.is_match(&example), "{file}");
    }
}

#[test]
fn github_example_has_few_permissions_and_pinned_actions() {
    let workflow = document(GITHUB);
    assert_eq!(workflow["permissions"], serde_yaml::from_str::<Value>("{ contents: read }").unwrap());
    assert_eq!(workflow["jobs"]["image"]["needs"], "test");
    for step in steps("test").iter().chain(&steps("image")) {
        let Some(action) = step["uses"].as_str() else { continue };
        let (_, version) = action.split_once('@').unwrap();
        assert!(version.strip_prefix('v').is_some_and(|major| major.parse::<u32>().is_ok()), "{action}");
    }
    let gitlab = read(GITLAB);
    for image in Regex::new(r"docker\.io/library/\S+").unwrap().find_iter(&gitlab) {
        assert!(image.as_str().rsplit_once(':').is_some_and(|(_, tag)| tag != "latest"), "{}", image.as_str());
    }
}

/// The Jenkinsfile has no schema here: at least its brackets and quotes are in pairs.
#[test]
fn jenkinsfile_is_balanced() {
    let text = read(JENKINS);
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    for (open, close) in [('{', '}'), ('(', ')'), ('[', ']')] {
        assert_eq!(code.matches(open).count(), code.matches(close).count(), "{open} {close}");
    }
    assert_eq!(code.matches("'''").count() % 2, 0);
    for stage in ["Test", "Image", "Sign"] {
        assert!(code.contains(&format!("stage('{stage}')")));
    }
}
