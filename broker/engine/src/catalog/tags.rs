//! What tags may say, and how they are added and taken away. Streams and consumers share the rules.

use super::settings::Tags;
use crate::error::{Error, ErrorKind, Result};
use tidemill_types::limits::{TAG_KEY_CHARS_MAX, TAG_VALUE_CHARS_MAX, TAGS_MAX};

/// Keys that AWS keeps for itself begin so.
const RESERVED_PREFIX: &str = "aws:";

fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new(ErrorKind::Invalid, message))
}

fn check_characters<'a>(mut texts: impl Iterator<Item = &'a String>) -> Result<()> {
    let known = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_./=+-%@:".contains(c);
    if texts.all(|text| text.chars().all(known)) {
        return Ok(());
    }
    invalid(
        "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . / = + - % @.",
    )
}

/// Whether these may be tags of `what`, all of them together.
pub(super) fn check(what: &str, tags: &Tags) -> Result<()> {
    check_characters(tags.iter().flat_map(|(key, value)| [key, value]))?;
    for (key, value) in tags {
        if !(1..=TAG_KEY_CHARS_MAX).contains(&key.chars().count()) {
            return invalid(format!("The key of a tag must have 1 to {TAG_KEY_CHARS_MAX} characters."));
        }
        if value.chars().count() > TAG_VALUE_CHARS_MAX {
            return invalid(format!("The value of a tag must have 0 to {TAG_VALUE_CHARS_MAX} characters."));
        }
        // in any case: AWS compares without regard to it
        if key.get(..RESERVED_PREFIX.len()).is_some_and(|head| head.eq_ignore_ascii_case(RESERVED_PREFIX)) {
            return invalid(format!(
                "Tag keys that begin with {RESERVED_PREFIX} are reserved and cannot be set: {key}"
            ));
        }
    }
    if tags.len() > TAGS_MAX {
        return invalid(format!(
            "Failed to add tags to {what} because a given resource cannot have more than {TAGS_MAX} tags associated with it."
        ));
    }
    Ok(())
}

/// The tags with `more` added; equal keys get the new value.
pub(super) fn merged(what: &str, tags: &Tags, more: &Tags) -> Result<Tags> {
    check(what, more)?;
    let merged = tags.iter().chain(more).map(|(key, value)| (key.clone(), value.clone())).collect();
    check(what, &merged)?;
    Ok(merged)
}

/// The tags without `keys`; unknown ones are ignored.
pub(super) fn without(tags: &Tags, keys: &[String]) -> Result<Tags> {
    check_characters(keys.iter())?;
    let mut left = tags.clone();
    keys.iter().for_each(|key| drop(left.remove(key)));
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags<const N: usize>(given: [(&str, &str); N]) -> Tags {
        given.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn tags_take_what_kinesis_takes() {
        let long = ("k".repeat(128), "é".repeat(256));
        let good = tags([("a", ""), ("Ünï 1", "_ . / = + - % @ :"), (&long.0, &long.1)]);
        check("stream s", &good).unwrap();
        for bad in [("", "v"), (&"k".repeat(129), ""), ("k", &"v".repeat(257)), ("aws:k", ""), ("AWS:k", "")]
        {
            assert_eq!(check("stream s", &tags([bad])).unwrap_err().kind(), ErrorKind::Invalid, "{bad:?}");
        }
        let told = check("stream s", &tags([("k", "#")])).unwrap_err().to_string();
        assert!(told.starts_with("Some tags contain invalid characters."), "{told}");
    }

    #[test]
    fn fifty_tags_are_counted_after_merging() {
        let numbered = |range: std::ops::Range<u32>| -> Tags {
            range.map(|n| (format!("key-{n}"), n.to_string())).collect()
        };
        let merged_tags = merged("s", &numbered(0..30), &numbered(10..50)).unwrap();
        assert_eq!(merged_tags.len(), 50);
        let over = merged("s", &merged_tags, &tags([("one", "more")])).unwrap_err();
        assert!(over.to_string().contains("more than 50 tags"), "{over}");
        let renamed = merged("s", &merged_tags, &tags([("key-1", "other")])).unwrap();
        assert_eq!((renamed.len(), renamed["key-1"].as_str()), (50, "other"));
        let left = without(&renamed, &["key-1".to_owned(), "unknown".to_owned()]).unwrap();
        assert_eq!(left.len(), 49);
        assert!(without(&renamed, &["<".to_owned()]).is_err());
    }
}
