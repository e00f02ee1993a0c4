//! What the fuzz targets found, made small: one test for each find.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use tagrelay::manifest::{Beside, ManifestSettings, Refused, Surroundings, Wanted, edit_overlay, read_overlay};

/// A kustomization of an environment upon a base with the image `a:1`.
struct UponBase;

impl Surroundings for UponBase {
    fn at(&self, path: &str) -> Beside {
        match path {
            "base" => Beside::Folder,
            "base/kustomization.yaml" => Beside::File(b"resources: [a.yaml]".to_vec()),
            "base/a.yaml" => Beside::File(b"kind: Pod\ncontainers: [{image: a:1}]".to_vec()),
            _ => Beside::Nothing,
        }
    }

    fn is_own(&self, path: &str) -> bool {
        path.starts_with("env/")
    }
}

/// The byte search denied the file, so nobody saw the key that is there twice until the entry was there.
#[test]
fn no_entry_is_added_to_what_cannot_be_read_with_it() {
    let text = b"resources:\n- ../base\nname: x\nname: y\n";
    let path = "env/kustomization.yaml";
    let overlay = read_overlay(path, text, &UponBase);
    assert_eq!(overlay.inherited.len(), 1);
    let wanted = Wanted {
        repository: "a".parse().unwrap(),
        version: "a:v2".parse::<tagrelay::image::ImageReference>().unwrap().version().unwrap(),
    };
    let refused = edit_overlay(path, text, &[wanted], &ManifestSettings::default(), &overlay.inherited).unwrap_err();
    assert!(matches!(&refused, Refused::Unreadable(why) if why.line == Some(4)), "{refused}");
}
