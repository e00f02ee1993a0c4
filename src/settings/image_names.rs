use super::reader::Section;
use tagrelay_image::Repository;
use tagrelay_manifest::ImageNames;

/// Returns the names by which markers in manifests refer to images: `name` and `flux_policy` of each `[[image]]`, and
/// the last components of the repositories.
pub(super) fn read(images: &[Section<'_>]) -> ImageNames {
    let mut names = ImageNames::default();
    let mut known: Vec<(&str, &str)> = Vec::new();
    for section in images {
        // Faults in it are reported by `image::read`.
        let pattern = section.value("repository").and_then(|value| value.value.as_str()).unwrap_or_default();
        names.pattern(pattern);
        let only = pattern.parse::<Repository>().ok().filter(|only| only.as_str() == pattern);
        for key in ["name", "flux_policy"] {
            let Some(text) = section.text(key) else { continue };
            let shown = text.value.escape_debug();
            let fault = |message: String, hint: &str| {
                section.report().fault_with_hint(text.offset, message, hint.to_owned());
            };
            if known.contains(&(key, text.value)) {
                fault(format!("`{key}`: `{shown}` is already another image"), "each name must be unique");
                continue;
            }
            known.push((key, text.value));
            match (&only, key) {
                (None, _) => fault(
                    format!("`{key}`: `{shown}` would name every repository that the pattern matches"),
                    "give it to an [[image]] whose `repository` has no wildcard",
                ),
                (Some(_), "name") if !is_name(text.value) => {
                    fault(format!("`{shown}` cannot be the name of an image"), "use letters, digits, `.`, `_` and `-`");
                }
                (Some(_), "flux_policy") if !is_policy(text.value) => {
                    fault(format!("`{shown}` is not a Flux image policy"), "write `namespace:name`");
                }
                (Some(only), "name") => names.name(text.value, only),
                (Some(only), _) => names.flux_policy(text.value, only),
            }
        }
    }
    names
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn is_policy(text: &str) -> bool {
    text.split_once(':').is_some_and(|(namespace, name)| {
        !namespace.is_empty() && !name.is_empty() && is_name(namespace) && is_name(name)
    })
}
