/// Returns the candidate most similar to `text`; `None`: none is similar.
///
/// Similar means at most a third of the letters added, dropped, changed or swapped with a neighbour.
pub(super) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text = folded(text);
    let allowed = (text.len() / 3).max(1);
    let distances = candidates.into_iter().map(|candidate| (distance(&text, &folded(candidate)), candidate));
    distances.filter(|(distance, _)| *distance <= allowed).min_by_key(|(distance, _)| *distance).map(|(_, near)| near)
}

/// Returns the candidates most similar to `text`, nearest first. Only the part after the last `/` of each counts, unless `text`
/// has one.
pub(crate) fn nearest_names<'a>(text: &str, candidates: impl Iterator<Item = &'a str>, count: usize) -> Vec<&'a str> {
    let is_whole = text.contains('/');
    let text = folded(text);
    let part = |name: &'a str| if is_whole { name } else { name.rsplit('/').next().unwrap_or(name) };
    let mut distances: Vec<(usize, &str)> =
        candidates.map(|name| (distance(&text, &folded(part(name))), name)).collect();
    // Stable: names at the same distance keep their order.
    distances.sort_by_key(|(distance, _)| *distance);
    distances.into_iter().take(count).map(|(_, name)| name).collect()
}

/// Returns the hint for an unknown name: the most similar known name, else all known names. `None`: there are none.
pub(super) fn hint<'a>(text: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(near) = nearest(text, known.clone()) {
        return Some(format!("did you mean `{near}`?"));
    }
    // A repeated name is reported elsewhere; list it once here.
    let mut all: Vec<String> = Vec::new();
    for name in known.into_iter().map(|name| format!("`{name}`")) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    if all.is_empty() { None } else { Some(format!("known: {}", all.join(", "))) }
}

/// Normalises case and dashes. Truncates, because the distance costs the product of both lengths.
fn folded(text: &str) -> Vec<char> {
    text.chars().take(64).flat_map(char::to_lowercase).map(|c| if c == '-' { '_' } else { c }).collect()
}

/// The optimal string alignment distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut current = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let changed = previous[j] + usize::from(from != to);
            let mut best = changed.min(previous[j + 1] + 1).min(current[j] + 1);
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                best = best.min(before[j - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        let count = |a: &str, b: &str| distance(&folded(a), &folded(b));
        assert_eq!(count("reposotory", "repository"), 1);
        assert_eq!(count("brnach", "branch"), 1);
        assert_eq!(count("config-repository", "Config_Repository"), 0);
        assert_eq!(count("", "abc"), 3);
        assert_eq!(count("kitten", "sitting"), 3);
    }

    #[test]
    fn hint_is_the_nearest_name_or_all_names() {
        assert_eq!(nearest("stagin", ["production", "staging"]), Some("staging"));
        assert_eq!(nearest("qa", ["production", "staging"]), None);
        assert_eq!(hint("qa", ["production", "staging"]).unwrap(), "known: `production`, `staging`");
        assert_eq!(hint("qa", ["platform", "platform"]).unwrap(), "known: `platform`");
        assert_eq!(hint("prodution", ["production"]).unwrap(), "did you mean `production`?");
        assert_eq!(hint("qa", []), None);
    }
}
