//! What can be said about a file before a parser sees it.

use memchr::memmem;

use super::file_name::{is_json, is_values_json};
use super::markers;
use super::settings::ManifestSettings;

/// The longest escape of YAML behind its backslash: `U0000000a`.
const MAX_ESCAPE: usize = 10;

/// Returns whether a file has to be read: whether the settings name it, or its bytes can hold a site.
///
/// Of JSON only what says that it is a Kubernetes object, a JSON Patch, or is called `values`, can hold any: a repository is
/// full of dashboards, packages and schemas.
pub(crate) fn must_be_read(path: &str, bytes: &[u8], settings: &ManifestSettings) -> bool {
    if settings.rules.iter().any(|rule| rule.takes(path)) {
        return true;
    }
    let says_what_it_is = || [&b"\"apiVersion\""[..], b"\"op\""].iter().any(|key| memmem::find(bytes, key).is_some());
    (!is_json(path) || is_values_json(path) || says_what_it_is()) && may_hold_sites(bytes)
}

/// Returns whether these bytes can hold a site: whether a key `image`, `images` or `repository` may be there, a list of
/// Helm parameters that name one of them, a patch of an image, or a marker.
///
/// A byte search at the speed of memory, so that only files which may hold a site meet the parser. It may
/// say yes for a file without sites (the word in a comment), and says no only for files that have none.
/// A key of which a letter is escaped (`"im\u0061ge"`) is not looked for; nobody has been seen writing one.
pub fn may_hold_sites(bytes: &[u8]) -> bool {
    // UTF-16 is YAML too; the parser's answer is better than silence.
    bytes.starts_with(b"\xff\xfe")
        || bytes.starts_with(b"\xfe\xff")
        || has_key(bytes, b"image")
        || has_key(bytes, b"repository")
        || may_hold_parameters(bytes)
        || may_hold_operations(bytes)
        || may_hold_markers(bytes)
}

/// Returns whether Helm parameters of Argo CD that name an image may be there: `name: image.tag`.
fn may_hold_parameters(bytes: &[u8]) -> bool {
    has_key(bytes, b"parameter")
        && ["image", "repository", "name"].iter().any(|word| memmem::find(bytes, word.as_bytes()).is_some())
}

/// Returns whether a JSON Patch may be there that sets an image: `path: /spec/…/image`.
fn may_hold_operations(bytes: &[u8]) -> bool {
    // In `/spec/values/webImage/tag` it is no part of its own.
    memmem::find(bytes, b"mage").is_some() && has_key(bytes, b"op")
}

/// Returns whether a marker may be there.
pub(crate) fn may_hold_markers(bytes: &[u8]) -> bool {
    // Without the quotes of Flux's, which are escaped in a text between quotes.
    memmem::find(bytes, markers::OWN).is_some() || memmem::find(bytes, b"$imagepolicy").is_some()
}

/// Returns whether `word`, or its plural, stands in `bytes` where a key could be.
fn has_key(bytes: &[u8], word: &[u8]) -> bool {
    memmem::find_iter(bytes, word).any(|start| {
        let rest = &bytes[start + word.len()..];
        let rest = rest.strip_prefix(b"s").unwrap_or(rest);
        may_begin_key(&bytes[..start]) && may_end_key(rest)
    })
}

/// Returns whether what is before the word lets it be a key: nothing that belongs to the word, or an escape of a text
/// between double quotes (`\n`, `\u000a`), in which the key begins a line.
fn may_begin_key(before: &[u8]) -> bool {
    match before.iter().rev().take(MAX_ESCAPE).find(|byte| !is_word_byte(**byte)) {
        Some(byte) if *byte == b'\\' => true,
        _ => before.last().is_none_or(|byte| !is_word_byte(*byte)),
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/')
}

/// Returns whether what follows the word lets it be a key: a colon, or the end of the line for the explicit form
/// (`? image`), behind quotes and blanks. Inside a text between quotes, these are escaped.
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
    fn finds_keys_and_nothing_else() {
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
