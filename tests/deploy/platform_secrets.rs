//! No file of `deploy` contains a secret.

use regex::Regex;
use serde_yaml::Value;

use super::platform_tree::{documents, files_below, leaves, read};

/// Forms of known credentials.
const FORMS: [(&str, &str); 8] = [
    ("a private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    ("a key of AWS", r"\bAKIA[0-9A-Z]{16}\b"),
    ("a token of GitHub", r"\bgh[opsur]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}"),
    ("a token of GitLab", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("a token of Slack", r"\bxox[abeprs]-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/T"),
    ("a token of Docker Hub", r"\bdckr_pat_[A-Za-z0-9_-]{20,}"),
    ("a JSON Web Token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\."),
    ("credentials in a URL", r"://[^/\s:@$<{]+:[^/\s:@$<{]+@"),
];

/// The well-known default keys of APISIX.
const WELL_KNOWN: [&str; 2] = ["edd1c9f034335f136f87ad84b625c8f1", "4054f7cf07e344346cd3f287985e76a2"];

/// Keys whose values are secrets, but for references to a Secret.
fn is_secret_key(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap().trim_matches('\'').to_lowercase();
    let ends = ["password", "passwd", "secret", "token", "apikey", "api_key", "privatekey", "private_key", "adminkey"];
    let is_reference = ["existingsecret", "configsecret", "secretname"].contains(&last.as_str());
    ends.iter().any(|end| last.ends_with(end)) && !is_reference
}

/// What is wrong with a text of the file.
fn findings(file: &str, content: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (what, form) in FORMS {
        if let Some(hit) = Regex::new(form).unwrap().find(content) {
            found.push(format!("{file}: {what}: {}", hit.as_str()));
        }
    }
    found.extend(WELL_KNOWN.iter().filter(|key| content.contains(**key)).map(|key| format!("{file}: {key}")));
    if !file.ends_with(".yaml") && !file.ends_with(".yml") {
        return found;
    }
    for document in documents(file, content) {
        let is_secret = ["Secret", "SealedSecret"].iter().any(|kind| document["kind"] == *kind);
        for values in [&document["data"], &document["stringData"], &document["spec"]["encryptedData"]] {
            for (key, value) in leaves(values).iter().filter(|_| is_secret) {
                if !is_empty(value) {
                    found.push(format!("{file}: {key} of a Secret has a value"));
                }
            }
        }
        for (key, value) in leaves(&document) {
            if is_secret_key(&key) && !is_empty(&value) && !is_reference(&value) {
                found.push(format!("{file}: {key} has a value"));
            }
        }
    }
    found
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value == "" || value.as_mapping().is_some_and(serde_yaml::Mapping::is_empty)
}

/// A variable or an expression, which is filled in elsewhere.
fn is_reference(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with("${{") || text.starts_with('$')) || value.is_bool()
}

#[test]
fn no_file_of_deploy_has_a_secret_value() {
    let files = files_below("deploy");
    assert!(files.len() > 60, "{}", files.len());
    let found: Vec<String> = files
        .iter()
        // Templates of Helm are no YAML.
        .filter(|file| !file.contains("/helm/"))
        .flat_map(|file| findings(file, &read(file)))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn secret_values_are_found() {
    for (file, content) in [
        ("a.yaml", "kind: Secret\ndata:\n  a: eA==\n"),
        ("a.yaml", "kind: Secret\nstringData: {a: b}\n"),
        ("a.yaml", "kind: SealedSecret\nspec:\n  encryptedData:\n    a: AgBy\n"),
        ("a.yaml", "kind: ConfigMap\ndata:\n  DB_PASSWORD: hunter2\n"),
        ("a.yaml", "externalEtcd:\n  password: hunter2\n"),
        ("a.yaml", "adminKey: edd1c9f034335f136f87ad84b625c8f1\n"),
        ("a.toml", "url = \"https://tagrelay:hunter2@git.example.com/x.git\"\n"),
        ("a.pem", "-----BEGIN EC PRIVATE KEY-----\n"),
        ("a.sh", "TOKEN=ghp_abcdefghijklmnopqrstuvwxyz0123456789\n"),
    ] {
        assert!(!findings(file, content).is_empty(), "{content}");
    }
    for content in ["kind: Secret\nstringData:\n  a: \"\"\n", "existingSecret: etcd\n", "password: ${{ secrets.A }}\n"]
    {
        assert!(findings("a.yaml", content).is_empty(), "{content}");
    }
}
