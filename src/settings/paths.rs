use globset::GlobBuilder;

use super::reader::Section;

const EXAMPLE: &str = "paths = [\"environments/staging/**\"]";

/// Returns the `paths` of an environment, without trailing slashes.
pub(super) fn read(section: Section<'_>) -> Option<Vec<String>> {
    let texts = section.required_texts("paths", EXAMPLE)?;
    let mut paths: Vec<String> = Vec::new();
    for text in texts {
        match check(text.value) {
            Ok(path) if paths.contains(&path) => {
                section.report().fault(text.offset, format!("`paths` names `{}` twice", path.escape_debug()));
            }
            Ok(path) => paths.push(path),
            Err((message, hint)) => {
                let message = format!("`paths`: `{}` {message}", text.value.escape_debug());
                section.report().fault_with_hint(text.offset, message, hint);
            }
        }
    }
    Some(paths)
}

/// Returns the path without a trailing slash, or a message with an optional hint.
pub(super) fn check(path: &str) -> Result<String, (String, Option<String>)> {
    let wrong = |message: &str, hint: &str| {
        let hint = if hint.is_empty() { None } else { Some(hint.to_owned()) };
        Err((message.to_owned(), hint))
    };
    if path.starts_with('/') {
        return wrong("begins with `/`", "paths begin at the top of the repository");
    }
    if path.contains('\\') {
        return wrong("has a `\\`", "write `/` between folders");
    }
    if path.starts_with('!') {
        return wrong("begins with `!`, but exclusions are not supported", "list the paths of the environment");
    }
    if matches!(path, "." | "./") {
        return wrong("is not a path inside the repository", "for the whole repository write `**`");
    }
    let folder = path.strip_suffix('/').unwrap_or(path);
    if folder.split('/').any(str::is_empty) {
        return wrong("has two `/` in a row", "");
    }
    if folder.split(['/', '{', '}', ',']).any(|component| component == "..") {
        return wrong("leaves the repository by `..`", "");
    }
    if folder.split('/').any(|component| component == ".") {
        return wrong("has a component `.`", "leave it out");
    }
    match GlobBuilder::new(folder).literal_separator(true).build() {
        Ok(_) => Ok(folder.to_owned()),
        Err(error) => wrong(&format!("is not a glob: {}", error.kind()), ""),
    }
}

/// Returns a path of `b` that overlaps a path of `a`. Recognises equal globs and globs for whole folders only, because
/// the repository's files are not known here.
pub(super) fn overlap<'a>(a: &[String], b: &'a [String]) -> Option<&'a str> {
    let inside = |outer: &str, inner: &str| {
        let (Some(outer), Some(inner)) = (whole_folder(outer), whole_folder(inner)) else { return outer == inner };
        outer.is_empty() || inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
    };
    let touches = |path: &&str| a.iter().any(|outer| inside(outer, path) || inside(path, outer));
    b.iter().map(String::as_str).find(touches)
}

/// Returns the folder of `folder` and `folder/**`, and an empty string for `**`; `None`: any other glob.
fn whole_folder(path: &str) -> Option<&str> {
    let folder = if path == "**" { "" } else { path.strip_suffix("/**").unwrap_or(path) };
    (!folder.contains(['*', '?', '[', '{'])).then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_repository() {
        for (path, expected) in [
            ("environments/staging/**", "environments/staging/**"),
            ("environments/staging/", "environments/staging"),
            ("**", "**"),
            ("apps/*/overlays/{staging,qa}", "apps/*/overlays/{staging,qa}"),
            ("a..b/c", "a..b/c"),
        ] {
            assert_eq!(check(path).unwrap(), expected);
        }
        for (path, reason) in [
            ("/environments", "begins with `/`"),
            ("../other", "leaves"),
            ("environments/../..", "leaves"),
            ("{..,a}/b", "leaves"),
            ("./environments", "component `.`"),
            (".", "not a path"),
            ("a//b", "in a row"),
            ("a\\b", "has a `\\`"),
            ("!a", "exclusions"),
            ("a/[", "not a glob"),
            ("a/{b", "not a glob"),
        ] {
            let (message, _) = check(path).unwrap_err();
            assert!(message.contains(reason), "{path}: {message}");
        }
    }

    #[test]
    fn overlap_of_whole_folders_is_recognised() {
        let overlap = |a: &str, b: &str| overlap(&[a.to_owned()], &[b.to_owned()]).is_some();
        assert!(overlap("environments/**", "environments/production"));
        assert!(overlap("environments/production/**", "environments"));
        assert!(overlap("**", "a/b"));
        assert!(overlap("apps/*/staging", "apps/*/staging"));
        assert!(!overlap("environments/staging", "environments/staging2/**"));
        assert!(!overlap("environments/staging/**", "environments/production/**"));
        assert!(!overlap("apps/*/staging/**", "apps/*/production/**"));
    }
}
