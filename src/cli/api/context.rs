//! The client's file with contexts: servers and their tokens.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tagrelay_secret::Secret;

/// Selects a context by its name.
const CONTEXT_VARIABLE: &str = "TAGRELAY_CONTEXT";

static ASKED: OnceLock<String> = OnceLock::new();

/// Selects the context of `--context`. The first call counts.
pub(in crate::cli) fn select_context(name: String) {
    let _ = ASKED.set(name);
}

/// `~/.config/tagrelay/config.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The context without `--context`.
    context: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, ContextSettings>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContextSettings {
    server: String,
    token: Option<TokenSettings>,
}

/// Where the token is. The file itself never contains one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenSettings {
    file: Option<PathBuf>,
    env: Option<String>,
    command: Option<Vec<String>>,
}

/// A server and its token.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) name: String,
    /// Whether the caller named it; otherwise it is the default of the file.
    pub(super) is_asked: bool,
    pub(super) server: String,
    token: Option<TokenSettings>,
}

impl Context {
    /// Returns the selected context; `None`: there is no file, or it has no default.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or has no such context.
    pub(super) fn selected() -> anyhow::Result<Option<Self>> {
        let variable = std::env::var(CONTEXT_VARIABLE).ok().filter(|name| !name.is_empty());
        let asked = ASKED.get().cloned().or(variable);
        let Some(path) = path() else {
            return match asked {
                Some(name) => bail!("there is no context `{name}`: neither HOME nor XDG_CONFIG_HOME is set"),
                None => Ok(None),
            };
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => match asked {
                Some(name) => bail!("there is no context `{name}`: {} does not exist", path.display()),
                None => return Ok(None),
            },
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        Self::find(&text, asked).with_context(|| format!("{}", path.display()))
    }

    fn find(text: &str, asked: Option<String>) -> anyhow::Result<Option<Self>> {
        let File { context, contexts } = toml::from_str(text).map_err(|error| {
            // Only the message: the text with the line may show a secret that does not belong there.
            let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            anyhow::anyhow!("line {}: {}", line.unwrap_or(1), error.message())
        })?;
        let is_asked = asked.is_some();
        let Some(name) = asked.or(context) else { return Ok(None) };
        let Some(found) = contexts.get(&name) else {
            let known: Vec<&str> = contexts.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            bail!("there is no context `{name}`; there are: {known}");
        };
        Ok(Some(Self { name, is_asked, server: found.server.clone(), token: found.token.clone() }))
    }

    /// Reads the token; `None`: the context has none.
    ///
    /// # Errors
    ///
    /// If the file, variable or command yields no token.
    pub(super) fn token(&self) -> anyhow::Result<Option<Secret>> {
        let Some(TokenSettings { file, env, command }) = &self.token else { return Ok(None) };
        let place = format!("the token of context `{}`", self.name);
        let secret = match (file, env, command) {
            (Some(file), None, None) => Secret::from_file(expanded(file)).context(place)?,
            (None, Some(variable), None) => Secret::from_environment(variable).context(place)?,
            (None, None, Some(words)) => run(words).context(place)?,
            _ => bail!("{place}: name exactly one of file, env and command"),
        };
        Ok(Some(secret))
    }
}

/// Returns the path of the file: `$XDG_CONFIG_HOME/tagrelay/config.toml` or `~/.config/tagrelay/config.toml`.
fn path() -> Option<PathBuf> {
    let folder = |variable: &str| std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let folder = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(folder.join("tagrelay/config.toml"))
}

fn expanded(path: &std::path::Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => path.to_owned(),
    }
}

/// Runs a command without a shell. Its standard output is the token.
fn run(words: &[String]) -> anyhow::Result<Secret> {
    let (program, arguments) = words.split_first().context("`command` is empty")?;
    let output = Command::new(program)
        .args(arguments)
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("`{program}` cannot be started"))?;
    anyhow::ensure!(output.status.success(), "`{program}` failed: {}", output.status);
    let text = String::from_utf8(output.stdout).map_err(|_| anyhow::anyhow!("`{program}` printed no text"))?;
    anyhow::ensure!(!text.trim().is_empty(), "`{program}` printed nothing");
    let secret = Secret::inline(text.trim_end_matches(['\r', '\n']).to_owned())?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use tagrelay_secret::ExposeSecret as _;

    use super::*;

    const FILE: &str = "context = \"test\"\n[contexts.test]\nserver = \"http://127.0.0.1:8080\"\n\
        [contexts.prod]\nserver = \"https://t.example.com\"\ntoken = { command = [\"printf\", \"abc\\n\"] }\n";

    #[test]
    fn context_is_the_asked_one_or_the_default() {
        let default = Context::find(FILE, None).unwrap().unwrap();
        assert_eq!((default.name.as_str(), default.is_asked), ("test", false));
        assert!(default.token().unwrap().is_none());
        let asked = Context::find(FILE, Some("prod".to_owned())).unwrap().unwrap();
        assert_eq!((asked.server.as_str(), asked.is_asked), ("https://t.example.com", true));
        assert_eq!(asked.token().unwrap().unwrap().reveal().unwrap().expose_secret(), "abc");
        assert!(Context::find("", None).unwrap().is_none());
        let error = Context::find(FILE, Some("qa".to_owned())).unwrap_err().to_string();
        assert_eq!(error, "there is no context `qa`; there are: prod, test");
    }

    #[test]
    fn fault_names_its_line_and_not_its_text() {
        let error =
            Context::find("context = \"a\"\n[contexts.a]\ntoken = \"hunter2\"\n", None).unwrap_err().to_string();
        assert!(error.starts_with("line 3: ") && !error.contains("server = "), "{error}");
        let several = "context = \"a\"\n[contexts.a]\nserver = \"http://a\"\ntoken = { env = \"A\", file = \"b\" }\n";
        let error = Context::find(several, None).unwrap().unwrap().token().unwrap_err().to_string();
        assert!(error.contains("exactly one of file, env and command"), "{error}");
    }
}
