use std::cmp::Ordering;

use jiff::Timestamp;
use semver::{BuildMetadata, Prerelease, VersionReq};

use super::calendar::{self, CalendarFormat};
use super::range;
use super::shape::{InvalidTagRule, Shape, affix};
use tagrelay_image::Tag;

/// Which tags of a repository are versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagRule {
    /// The commit that the image was built from, as in `sha-860c190` or 40 digits alone.
    CommitSha {
        /// Text before the digits.
        prefix: String,
        /// Text after the digits.
        suffix: String,
        /// The minimum number of digits, 7 to 40.
        min_length: usize,
        /// The compiled form.
        shape: Shape,
    },
    /// A regular expression with the groups `sha`, `number`, `time` and `version`.
    Regex {
        /// The expression as written. It must match the whole tag.
        pattern: String,
        /// The compiled form.
        shape: Shape,
    },
    /// A semantic version of three numbers, with or without a `v` in front (<https://semver.org>).
    Semver {
        /// Text before the version.
        prefix: String,
        /// Text after the version.
        suffix: String,
        /// The accepted range; `None`: every version.
        range: Option<VersionReq>,
        /// Whether versions such as `1.2.3-rc.1` are accepted.
        prereleases: bool,
        /// The compiled form.
        shape: Shape,
    },
    /// A calendar version (<https://calver.org>), with or without a `v` in front.
    Calver {
        /// Text before the version.
        prefix: String,
        /// Text after the version.
        suffix: String,
        /// The parts; `None`: year, month, and up to two numbers.
        format: Option<CalendarFormat>,
        /// The compiled form.
        shape: Shape,
    },
    /// Every tag.
    Any,
    /// One moving tag. Its versions are digests.
    Digest {
        /// The moving tag.
        name: Tag,
    },
}

/// The facts that a tag contains about its build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagFacts {
    /// The commit, or its first 7 to 40 hexadecimal digits, in lower case.
    pub sha: Option<String>,
    /// A number that grows from build to build.
    pub number: Option<u128>,
    /// The time of the build or commit.
    pub time: Option<Timestamp>,
    /// The semantic or calendar version.
    pub version: Option<TagVersion>,
}

/// A version with its own order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagVersion {
    Semantic(semver::Version),
    /// The parts of a calendar version, in the order in which they are compared.
    Calendar(Vec<u64>),
}

impl TagVersion {
    /// Compares two versions; `None`: one is semantic and the other a calendar version.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Semantic(a), Self::Semantic(b)) => Some(a.cmp_precedence(b)),
            (Self::Calendar(a), Self::Calendar(b)) => Some(a.cmp(b)),
            (Self::Semantic(_), Self::Calendar(_)) | (Self::Calendar(_), Self::Semantic(_)) => None,
        }
    }
}

/// The groups that a `regex` rule may have.
const GROUPS: [&str; 4] = ["sha", "number", "time", "version"];

impl TagRule {
    /// Digits of a full commit id (SHA-1).
    pub const FULL_SHA_LENGTH: usize = 40;

    /// Returns whether the rule follows one moving tag.
    pub fn moves(&self) -> bool {
        matches!(self, Self::Digest { .. })
    }

    /// Creates the rule for tags that contain the commit of the build.
    ///
    /// In `prefix` and `suffix`, `*` matches any text, `{number}` captures a number that orders builds, and `{time}`
    /// captures a time.
    ///
    /// # Errors
    ///
    /// Other braces, or `{number}` or `{time}` twice.
    pub fn commit_sha(prefix: &str, suffix: &str, min_length: usize) -> Result<Self, InvalidTagRule> {
        let digits = format!("(?<sha>[0-9a-f]{{{min_length},{}}})", Self::FULL_SHA_LENGTH);
        let shape = between(prefix, &digits, suffix)?;
        Ok(Self::CommitSha { prefix: prefix.to_owned(), suffix: suffix.to_owned(), min_length, shape })
    }

    /// Creates the rule for tags that a regular expression matches as a whole.
    ///
    /// # Errors
    ///
    /// An invalid expression, or a group with another name than `sha`, `number`, `time` and `version`.
    pub fn regex(pattern: &str) -> Result<Self, InvalidTagRule> {
        let shape = Shape::new(pattern)?;
        if let Some(group) = shape.groups().find(|group| !GROUPS.contains(group)) {
            let known = GROUPS.map(|group| format!("`{group}`")).join(", ");
            return Err(InvalidTagRule(format!("unknown group `{group}`; the known groups are {known}")));
        }
        Ok(Self::Regex { pattern: pattern.to_owned(), shape })
    }

    /// Creates the rule for semantic versions.
    ///
    /// # Errors
    ///
    /// As [`TagRule::commit_sha`], or a range that contains no version.
    pub fn semver(
        prefix: &str,
        suffix: &str,
        range: Option<VersionReq>,
        prereleases: bool,
    ) -> Result<Self, InvalidTagRule> {
        if let Some(range) = range.as_ref().filter(|range| range::is_empty(range)) {
            return Err(InvalidTagRule(format!("the range `{range}` contains no version")));
        }
        let version = "v?(?<version>[0-9]+\\.[0-9]+\\.[0-9]+(?:-[0-9A-Za-z.-]+)?)";
        let shape = between(prefix, version, suffix)?;
        Ok(Self::Semver { prefix: prefix.to_owned(), suffix: suffix.to_owned(), range, prereleases, shape })
    }

    /// Creates the rule for calendar versions.
    ///
    /// # Errors
    ///
    /// As [`TagRule::commit_sha`].
    pub fn calver(prefix: &str, suffix: &str, format: Option<CalendarFormat>) -> Result<Self, InvalidTagRule> {
        let shape = calendar::shape(&affix(prefix)?, format.as_ref(), &affix(suffix)?)?;
        Ok(Self::Calver { prefix: prefix.to_owned(), suffix: suffix.to_owned(), format, shape })
    }

    /// Returns the rule's name in the settings.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CommitSha { .. } => "commit-sha",
            Self::Regex { .. } => "regex",
            Self::Semver { .. } => "semver",
            Self::Calver { .. } => "calver",
            Self::Any => "any",
            Self::Digest { .. } => "digest",
        }
    }

    /// Returns whether tags under the rule contain a commit.
    pub fn names_commits(&self) -> bool {
        match self {
            Self::CommitSha { .. } => true,
            Self::Regex { shape, .. } => shape.groups().any(|group| group == "sha"),
            Self::Semver { .. } | Self::Calver { .. } | Self::Any | Self::Digest { .. } => false,
        }
    }

    /// Returns whether the tag is a version under the rule.
    pub fn accepts(&self, tag: &Tag) -> bool {
        self.read(tag).is_ok()
    }

    /// Returns the facts in the tag, if it is a version under the rule.
    ///
    /// # Errors
    ///
    /// `None` if the tag has another form, else the reason.
    pub fn read(&self, tag: &Tag) -> Result<TagFacts, Option<String>> {
        if is_attachment(tag) {
            return Err(Some("it is the tag of a signature, an attestation or an SBOM".to_owned()));
        }
        match self {
            Self::CommitSha { shape, .. } | Self::Regex { shape, .. } => {
                read_groups(&shape.captures(tag.as_str()).ok_or(None)?)
            }
            Self::Semver { range, prereleases, shape, .. } => {
                let captures = shape.captures(tag.as_str()).ok_or(None)?;
                let facts = read_groups(&captures)?;
                match &facts.version {
                    Some(TagVersion::Semantic(version)) => check_range(version, range.as_ref(), *prereleases)?,
                    Some(TagVersion::Calendar(_)) | None => return Err(None),
                }
                Ok(facts)
            }
            Self::Calver { format, shape, .. } => {
                let captures = shape.captures(tag.as_str()).ok_or(None)?;
                let parts = calendar::read(format.as_ref(), &captures).map_err(|error| Some(error.to_string()))?;
                Ok(TagFacts { version: Some(TagVersion::Calendar(parts)), ..read_groups(&captures)? })
            }
            Self::Any => Ok(TagFacts::default()),
            Self::Digest { name } if name == tag => Ok(TagFacts::default()),
            Self::Digest { .. } => Err(None),
        }
    }
}

fn between(prefix: &str, version: &str, suffix: &str) -> Result<Shape, InvalidTagRule> {
    let shape = Shape::new(&format!("{}{version}{}", affix(prefix)?, affix(suffix)?));
    shape.map_err(|InvalidTagRule(reason)| {
        // The user's text is escaped, so a duplicate group is the only possible error.
        let twice = reason.contains("duplicate").then(|| "`{number}` and `{time}` may occur once each".to_owned());
        InvalidTagRule(twice.unwrap_or(reason))
    })
}

/// Returns whether a tag belongs to a signature, attestation or SBOM of another image.
///
/// Registries without the referrers API store these under the image's digest, written with a dash, perhaps followed by
/// `.sig`, `.att` or `.sbom` (<https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#referrers-tag-schema>).
pub fn is_attachment(tag: &Tag) -> bool {
    // The schema truncates longer digests to this length.
    const DIGITS: usize = 64;
    let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    ["sha256-", "sha512-"].iter().any(|algorithm| {
        let rest = tag.as_str().strip_prefix(algorithm);
        rest.is_some_and(|rest| rest.bytes().take_while(hex).count() >= DIGITS)
    })
}

fn read_groups(captures: &regex::Captures<'_>) -> Result<TagFacts, Option<String>> {
    let group = |name: &str| captures.name(name).map(|group| group.as_str());
    let wrong = |name: &str, text: &str, expected: &str| Some(format!("`{name}` is `{text}`, not {expected}"));
    let sha = group("sha").map(|text| {
        let digits =
            text.bytes().all(|byte| byte.is_ascii_hexdigit()) && (7..=TagRule::FULL_SHA_LENGTH).contains(&text.len());
        digits.then(|| text.to_ascii_lowercase()).ok_or_else(|| wrong("sha", text, "7 to 40 hexadecimal digits"))
    });
    let number =
        group("number").map(|text| text.parse().map_err(|_| wrong("number", text, "a number of up to 38 digits")));
    let time = group("time").map(|text| {
        captured_time(text).ok_or_else(|| wrong("time", text, "a date, a date with a time, or Unix seconds"))
    });
    let version = group("version").map(|text| {
        let version = text.trim_start_matches(['v', 'V']).parse();
        version.map(TagVersion::Semantic).map_err(|_| wrong("version", text, "a version of three numbers"))
    });
    Ok(TagFacts {
        sha: sha.transpose()?,
        number: number.transpose()?,
        time: time.transpose()?,
        version: version.transpose()?,
    })
}

/// Parses a date with or without time of day (UTC), Unix seconds (10 digits) or Unix milliseconds (13 digits).
fn captured_time(text: &str) -> Option<Timestamp> {
    let separator = |c: char| matches!(c, '-' | '_' | '.' | ':' | 'T' | 't' | 'Z' | 'z');
    let digits: String = text.chars().filter(|c| !separator(*c)).collect();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match digits.len() {
        10 => Timestamp::from_second(digits.parse().ok()?).ok(),
        13 => Timestamp::from_millisecond(digits.parse().ok()?).ok(),
        8 | 12 | 14 => {
            let number = |range: std::ops::Range<usize>| digits.get(range).unwrap_or("0").parse::<i8>().ok();
            let year = digits.get(..4)?.parse().ok()?;
            let (hour, minute) = (number(8..10)?, number(10..12)?);
            let at = jiff::civil::DateTime::new(year, number(4..6)?, number(6..8)?, hour, minute, number(12..14)?, 0);
            at.ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|at| at.timestamp())
        }
        _ => None,
    }
}

/// Checks a version against a range. A pre-release is in the range if its release is: `prereleases = true` asks for the
/// pre-releases of the accepted versions.
fn check_range(version: &semver::Version, range: Option<&VersionReq>, prereleases: bool) -> Result<(), Option<String>> {
    if !version.pre.is_empty() && !prereleases {
        return Err(Some("it is a pre-release, and `prereleases` is not set".to_owned()));
    }
    let release = semver::Version { pre: Prerelease::EMPTY, build: BuildMetadata::EMPTY, ..version.clone() };
    match range {
        Some(range) if !range.matches(&release) && !range.matches(version) => {
            Err(Some(format!("it is not in the range `{range}`")))
        }
        _ => Ok(()),
    }
}

impl std::fmt::Display for TagRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let around = |prefix: &str, what: String, suffix: &str| {
            let before = if prefix.is_empty() { String::new() } else { format!("`{prefix}`, then ") };
            let behind = if suffix.is_empty() { String::new() } else { format!(", then `{suffix}`") };
            format!("{before}{what}{behind}")
        };
        let text = match self {
            Self::CommitSha { prefix, suffix, min_length, .. } => {
                let longest = Self::FULL_SHA_LENGTH;
                let length =
                    if *min_length == longest { longest.to_string() } else { format!("{min_length} to {longest}") };
                around(prefix, format!("{length} lower-case hexadecimal digits"), suffix)
            }
            Self::Regex { pattern, .. } => format!("`{pattern}`"),
            Self::Semver { prefix, suffix, range, prereleases, .. } => {
                let range = range.as_ref().map(|range| format!(" in `{range}`")).unwrap_or_default();
                let which = if *prereleases { ", pre-releases too" } else { ", no pre-releases" };
                around(prefix, format!("a version of three numbers{range}{which}"), suffix)
            }
            Self::Calver { prefix, suffix, format, .. } => {
                let form = format.as_ref().map_or_else(
                    || "year.month, and up to two numbers".to_owned(),
                    |format| format!("`{}`", format.as_str()),
                );
                around(prefix, form, suffix)
            }
            Self::Any => "every tag".to_owned(),
            Self::Digest { name } => format!("the tag `{name}`, by its digest"),
        };
        write!(f, "{} ({text})", self.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432";

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    fn reads(rule: &TagRule, text: &str) -> Option<TagFacts> {
        rule.read(&tag(text)).ok()
    }

    fn semantic(text: &str) -> Option<TagVersion> {
        Some(TagVersion::Semantic(text.parse().unwrap()))
    }

    #[test]
    fn commit_sha_has_a_minimum_length() {
        let strict = TagRule::commit_sha("", "", 40).unwrap();
        assert_eq!(reads(&strict, FULL).unwrap().sha.as_deref(), Some(FULL));
        for text in ["latest", &FULL[..39], &FULL.to_uppercase(), &format!("{FULL}.sig"), &format!("sha256-{FULL}")] {
            assert_eq!(reads(&strict, text), None, "{text}");
        }
        let short = TagRule::commit_sha("sha-", "-ci", 7).unwrap();
        assert_eq!(reads(&short, "sha-860c190-ci").unwrap().sha.as_deref(), Some("860c190"));
        assert_eq!(reads(&short, "sha-860c19-ci"), None);
        assert_eq!(reads(&short, "860c190"), None);
        assert_eq!(strict.to_string(), "commit-sha (40 lower-case hexadecimal digits)");
        assert_eq!(short.to_string(), "commit-sha (`sha-`, then 7 to 40 lower-case hexadecimal digits, then `-ci`)");
    }

    #[test]
    fn tags_of_common_ci_actions_are_read() {
        let flux = TagRule::commit_sha("main-", "-{number}", 7).unwrap();
        let facts = reads(&flux, "main-860c190-1718").unwrap();
        assert_eq!((facts.sha.as_deref(), facts.number), (Some("860c190"), Some(1718)));
        assert_eq!(reads(&flux, "dev-860c190-1718"), None);
        let any_branch = TagRule::commit_sha("*-", "-{time}", 7).unwrap();
        let facts = reads(&any_branch, "feature-x-860c190-20261123T081500Z").unwrap();
        assert_eq!(facts.sha.as_deref(), Some("860c190"));
        assert_eq!(facts.time.unwrap().to_string(), "2026-11-23T08:15:00Z");
        for (prefix, suffix) in [("{sha}", ""), ("{", ""), ("}", ""), ("{number}", "{number}")] {
            assert!(TagRule::commit_sha(prefix, suffix, 7).is_err(), "{prefix} {suffix}");
        }
    }

    #[test]
    fn groups_of_expressions_are_read() {
        let rule = TagRule::regex(r"(?<number>\d+)\.(?<sha>[0-9a-f]{7,})(?:-v(?<version>.+))?").unwrap();
        let facts = reads(&rule, "42.860c190-v1.2.3").unwrap();
        assert_eq!((facts.number, facts.sha.as_deref(), facts.version), (Some(42), Some("860c190"), semantic("1.2.3")));
        assert!(rule.names_commits());
        assert_eq!(rule.read(&tag("x42.860c190")), Err(None), "the whole tag counts");
        let reason = rule.read(&tag("42.860c190-v1.2")).unwrap_err().unwrap();
        assert_eq!(reason, "`version` is `1.2`, not a version of three numbers");
        assert!(rule.read(&tag(&format!("{}.860c190", "9".repeat(39)))).is_err());
        assert!(rule.read(&tag(&format!("1.{}", "a".repeat(41)))).is_err());
        assert!(TagRule::regex("(?<build>.*)").unwrap_err().to_string().contains("`number`"));
        assert!(TagRule::regex("(").unwrap_err().to_string().contains("unclosed group"));
        assert!(TagRule::regex("(?:.{1000}){1000}").unwrap_err().to_string().contains("too large"));
        assert!(!TagRule::regex("release-.*").unwrap().names_commits());
    }

    #[test]
    fn times_are_read_in_the_common_forms() {
        let at = |text: &str| captured_time(text).map(|at| at.to_string());
        for text in ["20261123", "2026-11-23", "2026.11.23"] {
            assert_eq!(at(text).unwrap(), "2026-11-23T00:00:00Z", "{text}");
        }
        for text in
            ["20261123081500", "20261123-081500", "20261123T081500Z", "202611230815", "1795421700", "1795421700000"]
        {
            assert_eq!(at(text).unwrap(), "2026-11-23T08:15:00Z", "{text}");
        }
        for text in ["", "2026", "20261323", "now", "20261123x", "2026112308150"[..11].as_ref()] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    #[test]
    fn semantic_versions_have_three_numbers() {
        let rule = TagRule::semver("", "", None, false).unwrap();
        assert_eq!(reads(&rule, "1.2.3").unwrap().version, semantic("1.2.3"));
        assert_eq!(reads(&rule, "v1.2.3").unwrap().version, semantic("1.2.3"));
        // A tag such as `1.2` moves with each release, so it is not a version.
        for text in ["1.2", "1", "V1.2.3", "1.2.3-rc.1", "01.2.3", "1.2.3.4", "latest", "vv1.2.3"] {
            assert_eq!(reads(&rule, text), None, "{text}");
        }
        let reason = rule.read(&tag("1.2.3-rc.1")).unwrap_err().unwrap();
        assert!(reason.contains("prereleases"), "{reason}");
    }

    #[test]
    fn range_applies_to_the_release_of_a_pre_release() {
        let range = || Some(">=1.2, <2".parse().unwrap());
        let releases = TagRule::semver("", "", range(), false).unwrap();
        assert!(reads(&releases, "1.2.0").is_some() && reads(&releases, "v1.99.0").is_some());
        assert!(reads(&releases, "1.1.9").is_none() && reads(&releases, "2.0.0").is_none());
        let all = TagRule::semver("", "", range(), true).unwrap();
        assert!(reads(&all, "1.3.0-rc.1").is_some());
        assert!(reads(&all, "2.0.0-rc.1").is_none(), "its release is outside the range");
        let variant = TagRule::semver("app-", "-alpine", None, true).unwrap();
        assert_eq!(reads(&variant, "app-1.2.3-rc.1-alpine").unwrap().version, semantic("1.2.3-rc.1"));
        assert_eq!(reads(&variant, "app-1.2.3-alpine").unwrap().version, semantic("1.2.3"));
        assert_eq!(all.to_string(), "semver (a version of three numbers in `>=1.2, <2`, pre-releases too)");
    }

    #[test]
    fn calendar_versions_and_moving_tags() {
        let rule = TagRule::calver("", "", None).unwrap();
        assert_eq!(reads(&rule, "2026.11.2").unwrap().version, Some(TagVersion::Calendar(vec![2026, 11, 2])));
        assert_eq!(rule.to_string(), "calver (year.month, and up to two numbers)");
        let rule = TagRule::Digest { name: tag("latest") };
        assert!(rule.accepts(&tag("latest")) && !rule.accepts(&tag("main")));
        assert_eq!(rule.to_string(), "digest (the tag `latest`, by its digest)");
        assert_eq!(TagRule::Any.to_string(), "any (every tag)");
    }

    #[test]
    fn signatures_attestations_and_sboms_are_not_versions() {
        let digest = format!("sha256-{}", "0a".repeat(32));
        let long = format!("sha512-{}", "0a".repeat(32));
        let rules = [TagRule::Any, TagRule::regex(".*").unwrap(), TagRule::Digest { name: tag(&digest) }];
        for text in [&digest, &format!("{digest}.sig"), &format!("{digest}.att"), &format!("{digest}.sbom"), &long] {
            for rule in &rules {
                let reason = rule.read(&tag(text)).unwrap_err().unwrap();
                assert!(reason.contains("signature"), "{rule}: {text}");
            }
        }
        assert!(TagRule::Any.accepts(&tag("sha256-of-something")));
        assert!(TagRule::Any.accepts(&tag("anything")));
    }
}
