use super::keys;
use super::nearest::hint;
use super::reader::Section;
use super::remote_url::is_loopback;
use super::report::At;
use crate::registry::{
    Cloud, CloudEnvironment, Credentials, RegistriesSettings, RegistrySettings, docker_config_helpers,
};
use std::path::PathBuf;
use tagrelay_image::Repository;

/// Reads `[registries]` and each `[[registry]]`.
pub(super) fn read_all(top: Section<'_>, sections: &[Section<'_>]) -> RegistriesSettings {
    let environment = CloudEnvironment::read(top.context.environment);
    let read = |section: &Section<'_>| read(*section, &environment);
    RegistriesSettings {
        sections: sections.iter().filter_map(read).collect(),
        docker_config: read_docker_config(top),
        environment,
    }
}

/// Reads `[registries]`; returns the Docker config file.
fn read_docker_config(top: Section<'_>) -> Option<PathBuf> {
    let section = top.table("registries", &keys::REGISTRIES, "[registries]")?;
    let path = section.text("docker_config")?.map(PathBuf::from);
    match docker_config_helpers(&path.value) {
        Ok(helpers) => {
            for helper in helpers {
                let message = format!("`docker_config`: the credential helper `{}` is not run", helper.escape_debug());
                let hint =
                    "write the account to `auths`, or to a [[registry]]; AWS, Google and Azure need only `login` there";
                section.report().warning(path.offset, message, hint.to_owned());
            }
            Some(path.value)
        }
        Err(error) => {
            section.report().fault(path.offset, format!("`docker_config`: {error}"));
            None
        }
    }
}

fn read(section: Section<'_>, environment: &CloudEnvironment) -> Option<RegistrySettings> {
    let host = section.required_text("host", "host = \"registry.example.com\"").and_then(|host| {
        match host.value.contains('*') {
            true => check_pattern(section, host),
            false => check_host(section, host),
        }
    });
    let plain_http = section.boolean("plain_http").is_some_and(|plain| plain.value);
    let ca_bundle = section.ca_bundle();
    if plain_http && section.has("ca_bundle") {
        section.report().fault(section.offset_of("ca_bundle"), "`ca_bundle` has no effect with plain_http = true");
    }
    let username = section.text("username");
    let password = section.secret("password");
    let credentials = match (section.has("username"), section.has("password")) {
        (false, false) => None,
        (true, true) => Some(Credentials { username: username?.value.to_owned(), password: password? }),
        (true, false) => {
            let hint = "write password = { env = \"NAME\" }".to_owned();
            section.report().fault_with_hint(section.offset_of("username"), "`username` has no `password`", hint);
            return None;
        }
        (false, true) => {
            section.report().fault(section.offset_of("password"), "`password` has no `username`");
            return None;
        }
    };
    let login = section.text("login").and_then(|login| read_login(section, login));
    let host = host?;
    let login = login.filter(|login| check_login(section, *login, &host.value, environment));
    if plain_http && host.value.contains('*') {
        let hint = "write a [[registry]] for each host without TLS".to_owned();
        section.report().fault_with_hint(
            section.offset_of("plain_http"),
            "`plain_http` needs one host, not a pattern",
            hint,
        );
        return None;
    }
    if plain_http && credentials.is_some() && !is_loopback_host(&host.value) {
        let message = format!("the password for `{}` is sent unencrypted over http", host.value);
        section.report().warning(section.offset_of("plain_http"), message, "use https".to_owned());
    }
    Some(RegistrySettings { host: host.value, plain_http, credentials, login, ca_bundle })
}

fn read_login(section: Section<'_>, text: At<&str>) -> Option<Cloud> {
    let login = text.value.parse().ok();
    if login.is_none() {
        let known = Cloud::ALL.iter().map(|cloud| cloud.as_str());
        let message = format!("`login`: unknown value `{}`", text.value.escape_debug());
        section.report().fault_with_hint(text.offset, message, hint(text.value, known));
    }
    login
}

/// Checks a login against the other keys. Returns whether it can be used.
fn check_login(section: Section<'_>, login: Cloud, host: &str, environment: &CloudEnvironment) -> bool {
    let offset = section.offset_of("login");
    for key in ["username", "password"] {
        if section.has(key) {
            let message = format!("`login` and `{key}` contradict each other");
            section.report().fault_with_hint(section.offset_of(key), message, "keep one of them".to_owned());
            return false;
        }
    }
    if section.boolean("plain_http").is_some_and(|plain| plain.value) {
        section.report().fault(section.offset_of("plain_http"), "`login` needs HTTPS: remove `plain_http`");
        return false;
    }
    // A digit fits both an account of AWS and a name.
    if Cloud::of_host(&host.replace('*', "0")) != Some(login) {
        let message = format!("login = \"{login}\" cannot be used for the host `{}`", host.escape_debug());
        section.report().fault_with_hint(offset, message, format!("its hosts are {}", login.example_hosts()));
        return false;
    }
    // The others can have an identity without variables, at the metadata server.
    if login == Cloud::Aws && environment.identity_variables(login).is_empty() {
        let message = "login = \"aws\": the environment has no AWS identity".to_owned();
        let hint = "run it in a pod whose ServiceAccount has the annotation eks.amazonaws.com/role-arn or an EKS Pod Identity \
                    association";
        section.report().warning(offset, message, hint.to_owned());
    }
    true
}

/// Returns a pattern of hosts. Its last two labels are literal, so that a password is not sent to unrelated hosts.
fn check_pattern(section: Section<'_>, host: At<&str>) -> Option<At<String>> {
    let shown = host.value.escape_debug();
    let sample = host.value.replace('*', "x");
    let fault = if Repository::new(&sample, "a/b").is_ok_and(|repository| repository.registry() == sample) {
        let literal = host.value.rsplit('.').take_while(|label| !label.contains('*')).count();
        if literal >= 2 {
            return Some(host.map(str::to_owned));
        }
        format!("the pattern `{shown}` matches hosts of unrelated owners")
    } else {
        format!("`{shown}` is not a pattern of registry hosts")
    };
    let hint = "write \"*.registry.example.com\": `*` stands for one label or a part of it".to_owned();
    section.report().fault_with_hint(host.offset, fault, hint);
    None
}

/// Returns a host in the form of normalised references. Any other form would never match.
pub(super) fn check_host(section: Section<'_>, host: At<&str>) -> Option<At<String>> {
    let shown = host.value.escape_debug();
    let refuse = |message: String, hint: String| {
        section.report().fault_with_hint(host.offset, message, hint);
        None
    };
    if let Some((_, rest)) = host.value.split_once("://") {
        let rest = rest.split('/').next().unwrap_or(rest);
        // The text before an `@` may be a password.
        let only = rest.rsplit('@').next().unwrap_or(rest).escape_debug();
        return refuse("a registry is named by its host, not by a URL".to_owned(), format!("write \"{only}\""));
    }
    let bare = !host.value.contains(['.', ':']) && host.value != "localhost";
    if bare && Repository::new(&format!("{}:80", host.value), "a/b").is_ok() {
        return refuse(
            format!("no image reference can name the registry `{shown}`: it has neither a dot nor a port"),
            format!("write \"{shown}:80\" or \"{shown}:443\", as the references do"),
        );
    }
    let sample = match Repository::new(host.value, "a/b") {
        Ok(sample) => sample,
        Err(_) => {
            return refuse(format!("`{shown}` is not a registry host"), "write \"host\" or \"host:port\"".to_owned());
        }
    };
    if sample.registry() != host.value {
        return refuse(
            format!("image references name the registry `{shown}` differently"),
            format!("write \"{}\"", sample.registry()),
        );
    }
    Some(host.map(str::to_owned))
}

fn is_loopback_host(host: &str) -> bool {
    url::Url::parse(&format!("http://{host}/")).is_ok_and(|url| is_loopback(url.host()))
}
