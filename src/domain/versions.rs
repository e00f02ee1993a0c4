use tagrelay_image::Version;

/// Returns the distinct versions that sites name, in the order in which they are found.
///
/// For example, one site has `tag`, another `tag@digest` and a third only the digest. These are one version, and the parts are
/// joined.
pub fn versions_of<'a>(named: impl IntoIterator<Item = &'a Version>) -> Vec<Version> {
    let mut versions: Vec<Version> = Vec::new();
    for version in named {
        let mut joined = version.clone();
        let mut apart = Vec::with_capacity(versions.len() + 1);
        let mut position = None;
        for known in versions {
            match join(&known, &joined) {
                Some(both) => {
                    joined = both;
                    position.get_or_insert(apart.len());
                }
                None => apart.push(known),
            }
        }
        apart.insert(position.unwrap_or(apart.len()), joined);
        versions = apart;
    }
    versions
}

/// Joins two descriptions of one version; `None`: they describe different versions.
fn join(one: &Version, other: &Version) -> Option<Version> {
    fn both<T: PartialEq + Clone>(one: Option<&T>, other: Option<&T>) -> (Option<T>, bool, bool) {
        let agree = one.is_some() && one == other;
        let contradict = one.is_some() && other.is_some() && one != other;
        (one.or(other).cloned(), agree, contradict)
    }
    let (tag, tags_agree, tags_contradict) = both(one.tag(), other.tag());
    let (digest, digests_agree, digests_contradict) = both(one.digest(), other.digest());
    let is_one = (tags_agree || digests_agree) && !tags_contradict && !digests_contradict;
    if is_one { Version::from_parts(tag, digest) } else { None }
}

/// Whether two descriptions mean the same version. Each may lack the tag or the digest.
pub fn is_same(one: &Version, other: &Version) -> bool {
    join(one, other).is_some()
}

/// Whether this version runs, and no other.
pub fn runs(running: &[Version], version: &Version) -> bool {
    matches!(running, [one] if is_same(one, version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tagrelay_image::ImageReference;

    fn joined(written: &[&str]) -> Vec<String> {
        let named: Vec<Version> = written
            .iter()
            .map(|text| format!("a{text}").parse::<ImageReference>().unwrap().version().unwrap())
            .collect();
        versions_of(&named).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_version_may_be_written_in_several_ways() {
        let (one, two) = (format!("@sha256:{}", "1".repeat(64)), format!("@sha256:{}", "2".repeat(64)));
        let (tagged, other) = (format!(":v1{one}"), format!(":v1{two}"));
        assert_eq!(joined(&[":v1", &tagged]), [&tagged[1..]]);
        assert_eq!(joined(&[":v1", &one, ":v2", &tagged]), [&tagged[1..], "v2"]);
        assert_eq!(joined(&[":v1", &one]), ["v1", one.as_str()]);
        assert_eq!(joined(&[&tagged, &other]), [&tagged[1..], &other[1..]]);
        assert_eq!(joined(&[":v1", ":v1"]), ["v1"]);
    }
}
