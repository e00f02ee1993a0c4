//! A byte search that excludes files without sites before they are parsed.

use memchr::memmem;

use super::file_name::{is_json, is_values_json};
use super::markers;
use super::settings::ManifestSettings;

/// The longest YAML escape after its backslash: `U0000000a`.
const MAX_ESCAPE: usize = 10;

/// Returns whether a file must be parsed: the settings name it, or its bytes may have a site.
///
/// JSON is considered only if it is a Kubernetes object, a JSON Patch, or named `values`: repositories contain many
/// dashboards, packages and schemas.
pub(crate) fn must_be_read(path: &str, bytes: &[u8], settings: &ManifestSettings) -> bool {
    if settings.rules.iter().any(|rule| rule.takes(path)) {
        return true;
    }
    let says_what_it_is = || [&b"\"apiVersion\""[..], b"\"op\""].iter().any(|key| memmem::find(bytes, key).is_some());
    (!is_json(path) || is_values_json(path) || says_what_it_is()) && may_hold_sites(bytes)
}

/// Returns whether these bytes may have a site.
///
/// That is a key `image`, `images` or `repository`, a list of Helm parameters with one of these words, a patch of an image, or a
/// marker.
///
/// The search runs at the speed of memory. It may return true for a file without sites (the word in a comment), and returns false
/// only for files without sites. Keys with an escaped letter (`"im\u0061ge"`) are not considered.
pub fn may_hold_sites(bytes: &[u8]) -> bool {
    // UTF-16 is YAML, too. The parser reports an error for it.
    bytes.starts_with(b"\xff\xfe")
        || bytes.starts_with(b"\xfe\xff")
        || has_key(bytes, b"image")
        || has_key(bytes, b"repository")
        || may_hold_parameters(bytes)
        || may_hold_operations(bytes)
        || may_hold_markers(bytes)
}

/// Returns whether the bytes may have Helm parameters of Argo CD with an image: `name: image.tag`.
fn may_hold_parameters(bytes: &[u8]) -> bool {
    has_key(bytes, b"parameter")
        && ["image", "repository", "name"].iter().any(|word| memmem::find(bytes, word.as_bytes()).is_some())
}

/// Returns whether the bytes may have a JSON Patch that sets an image: `path: /spec/…/image`.
fn may_hold_operations(bytes: &[u8]) -> bool {
    // The word need not be a separate part: `/spec/values/webImage/tag`.
    memmem::find(bytes, b"mage").is_some() && has_key(bytes, b"op")
}

/// Returns whether the bytes may have a marker.
pub(crate) fn may_hold_markers(bytes: &[u8]) -> bool {
    // The quotes of Flux's marker are left out, because they are escaped in a quoted text.
    memmem::find(bytes, markers::OWN).is_some() || memmem::find(bytes, b"$imagepolicy").is_some()
}

/// Returns whether `word` or its plural is in `bytes` in the position of a key.
fn has_key(bytes: &[u8], word: &[u8]) -> bool {
    memmem::find_iter(bytes, word).any(|start| {
        let rest = &bytes[start + word.len()..];
        let rest = rest.strip_prefix(b"s").unwrap_or(rest);
        may_begin_key(&bytes[..start]) && may_end_key(rest)
    })
}

/// Returns whether a key may begin after these bytes.
///
/// A key begins after a character that cannot belong to the word, or after an escape in a double-quoted text (`\n`, `\u000a`) that
/// begins a line.
fn may_begin_key(before: &[u8]) -> bool {
    match before.iter().rev().take(MAX_ESCAPE).find(|byte| !is_word_byte(**byte)) {
        Some(byte) if *byte == b'\\' => true,
        _ => before.last().is_none_or(|byte| !is_word_byte(*byte)),
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/')
}

/// Returns whether a key may end before these bytes.
///
/// A key ends before a colon, or before the end of the line in the explicit form (`? image`), after quotes and blanks. In quoted
/// texts, quotes and line breaks are escaped.
fn may_end_key(rest: &[u8]) -> bool {
    match rest.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'"' | b'\'')) {
        Some(byte) => matches!(byte, b':' | b'\n' | b'\r' | b'#' | b'\\'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_are_found() {
        for text in [
            "image: a",
            "- image: a",
            "{image: a}",
            "{\"image\":\"a\"}",
            "'image' : a",
            "? image\n: a",
            "? image # why\n: a",
            "images:\r\n",
            "repository: a",
            "imagePullPolicy: x\nimage:\t a",
            "\u{feff}image: a",
            "parameters:\n- name: image.tag\n  value: v1",
            "values: \"foo: 1\\nimage: a\"",
            "values: \"foo: 1\\x0Aimage: a\"",
            "values: \"foo: 1\\U0000000Aimage: a\"",
            "values: \"{\\\"image\\\": 1}\"",
            "values: \"? image\\n: a\"",
            "values: '{''image'': 1}'",
            "values: \"v: v1 # {\\\"$imagepolicy\\\": \\\"ns:a\\\"}\"",
            "patches:\n- patch: |\n    - op: add\n      path: /x/image\n      value: a:1",
            "patches:\n- patch: \"[{\\\"op\\\": \\\"add\\\", \\\"path\\\": \\\"/image\\\"}]\"",
            "- op: add\n  path: /x/image\n  value: a:1",
            "[{\"op\":\"add\",\"path\":\"/x/image\"}]",
            "version: v1 # tagrelay: a:tag",
            "version: v1 # {\"$imagepolicy\": \"ns:a:tag\"}",
        ] {
            assert!(may_hold_sites(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "image",
            "imagePullPolicy: Always",
            "myimage: a",
            "an image of it",
            "a.image: b",
            "x-images: a",
            "tagrelay",
            "parameters: []",
            "path: /x/image",
            "op: add\npath: /x/imag",
            "op: add\npath: /x/y",
        ] {
            assert!(!may_hold_sites(text.as_bytes()), "{text}");
        }
    }
}
