//! The rooms that read what others have written, and nothing else of the program: they build in a minute, all of it in
//! ten.

#[path = "../../src/image/mod.rs"]
pub mod image;
#[path = "../../src/manifest/mod.rs"]
pub mod manifest;
#[path = "../../src/secret/mod.rs"]
pub mod secret;
#[path = "../../src/webhook/mod.rs"]
pub mod webhook;

/// A file out of an input: the first byte chooses its name and the settings, the rest are its bytes.
pub fn file(input: &[u8]) -> Option<(&'static str, manifest::ManifestSettings, &[u8])> {
    const NAMES: [&str; 8] = [
        "a.yaml",
        "kustomization.yaml",
        "values.json",
        ".argocd-source-a.yaml",
        "values.yaml",
        "a.json",
        "compose.yaml",
        "x/Kustomization",
    ];
    let (choice, bytes) = input.split_first()?;
    let mut settings = manifest::ManifestSettings::default();
    if choice & 8 != 0 {
        settings.pin = manifest::Pin::Digest;
    }
    if choice & 16 != 0 {
        let mut names = manifest::ImageNames::default();
        names.pattern("docker.io/library/*");
        names.flux_policy("ns:b", &"b".parse().ok()?);
        settings.names = std::sync::Arc::new(names);
        let rules = [("$.a[?b=='c'].d", Some("a"), manifest::RulePart::Tag), ("$.*.*", None, manifest::RulePart::Reference)];
        let rule = |(path, repository, part): (&str, Option<&str>, _)| {
            let repository = repository.and_then(|repository| repository.parse().ok());
            manifest::SiteRule::new("**", path, repository, part).ok()
        };
        settings.rules.extend(rules.into_iter().filter_map(rule));
    }
    Some((NAMES[usize::from(choice & 7)], settings, bytes))
}
