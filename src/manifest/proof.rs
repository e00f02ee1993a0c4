//! The proof that an edit changed the addressed scalars and nothing else.
//!
//! It trusts nothing that came before it: not the places that were found, not the quoting, not the splicing.

use granit_parser::{Event, ScalarStyle};

use super::notation::Replacement;
use super::tree::parser;

/// Proves that `new` is `old` with the scalars of `replacements` (in the order of the text) set to their
/// values, and with not another byte changed.
///
/// # Errors
///
/// The first thing that is not so, as a sentence.
pub(super) fn proof(old: &str, new: &str, replacements: &[Replacement]) -> Result<(), String> {
    // 1. Around the replaced spans, every byte is equal.
    let (mut old_rest, mut new_rest, mut position) = (old, new, 0);
    for Replacement { span, token, .. } in replacements {
        let kept = span.start.checked_sub(position).and_then(|length| old_rest.get(..length));
        let behind = kept.and_then(|kept| new_rest.strip_prefix(kept)?.strip_prefix(token.as_str()));
        new_rest = behind.ok_or_else(|| format!("bytes before byte {} changed", span.start))?;
        old_rest = old.get(span.end..).ok_or("a scalar ends behind the file")?;
        position = span.end;
    }
    if old_rest != new_rest {
        return Err(format!("bytes behind byte {position} changed"));
    }

    // 2. Both texts are the same sequence of YAML events, but for the addressed scalars.
    let mut addressed = replacements.iter().peekable();
    let mut new_events = parser(new);
    for old_event in parser(old) {
        let (old_event, span) = old_event.map_err(|error| format!("the old text is not YAML: {error}"))?;
        let new_event = new_events.next().ok_or("the new text ends early")?;
        let (new_event, _) = new_event.map_err(|error| format!("the new text is not YAML: {error}"))?;
        let is_addressed = |event: &Event<'_>, next: &&Replacement| {
            matches!(event, Event::Scalar(..)) && span.byte_range().as_ref() == Some(&next.span)
        };
        match addressed.next_if(|next| is_addressed(&old_event, next)) {
            Some(replacement) => set_as_wanted(&old_event, &new_event, replacement)?,
            None if old_event == new_event => {}
            None => return Err(format!("line {} reads differently", span.start.line())),
        }
    }
    if new_events.next().is_some() {
        return Err("the new text has more in it than the old one".to_owned());
    }
    match addressed.next() {
        Some(missed) => Err(format!("there is no scalar at the bytes {:?}", missed.span)),
        None => Ok(()),
    }
}

/// Checks one addressed scalar: the wanted string, in the style it had or in quotes, with its anchor and its
/// tag, and a string to a second reader as well.
fn set_as_wanted(
    old: &Event<'_>,
    new: &Event<'_>,
    Replacement { token, value, .. }: &Replacement,
) -> Result<(), String> {
    let (Event::Scalar(_, old_style, old_anchor, old_tag), Event::Scalar(text, style, anchor, tag)) = (old, new) else {
        return Err(format!("`{token}` is no scalar any more"));
    };
    let is_quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
    let keeps_style = style == old_style || (*old_style == ScalarStyle::Plain && is_quoted);
    if text != value || !keeps_style || anchor != old_anchor || tag != old_tag {
        return Err(format!("`{token}` reads back as something else than the string `{value}`"));
    }
    let alone = match style {
        ScalarStyle::Literal | ScalarStyle::Folded => format!("|-\n {}", token.trim()),
        ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => token.clone(),
    };
    match serde_yaml::from_str(&alone) {
        Ok(serde_yaml::Value::String(second)) if second == *value => Ok(()),
        _ => Err(format!("`{token}` is not the string `{value}` to a second reader")),
    }
}
