//! Patterns, and how lists, maps and long values are told.

use super::pattern::Pattern;
use super::*;

#[test]
fn patterns_match_whole_texts_as_the_model_writes_them() {
    let cases: [(Pattern, &[&str], &[&str]); 7] = [
        (Pattern::Name, &["a", "A_b-c.9"], &["", "a b", "é"]),
        (
            Pattern::HashKey,
            &["0", "1", "340282366920938463463374607431768211456"],
            &["", "00", "01", "-1", "x"],
        ),
        (
            Pattern::SequenceNumber,
            &["0", "49646437577175378652512468275250536580403374760793210930"],
            &["", "0x", "1 "],
        ),
        (
            Pattern::StreamArn,
            &[
                "arn:aws:kinesis:us-east-1:123456789012:stream/s",
                "arn:aws-cn:kinesis::000000000000:stream/x/y",
            ],
            &[
                "",
                "arn:aws:kinesis:us-east-1:1:stream/s",
                "arn:aws:s3:r:123456789012:stream/s",
                "arn:aws:kinesis:r:123456789012:stream/",
            ],
        ),
        (
            Pattern::ConsumerArn,
            &["arn:aws:kinesis:us-east-1:123456789012:stream/s.1/consumer/c:17"],
            &[
                "arn:aws:kinesis:us-east-1:123456789012:stream/s/consumer/c",
                "arn:aws:kinesis:us-east-1:123456789012:stream/s/consumer/c:",
                "arn:aws:kinesis:us-east-1:1234:stream/s/consumer/c:17",
                "arn:aws:kinesis:us-east-1:123456789012:stream/s",
            ],
        ),
        (
            Pattern::ResourceArn,
            &[
                "arn:aws:kinesis:us-east-1:123456789012:stream/s",
                "arn:aws:kinesis:us-east-1:123456789012:stream/s/consumer/c:17",
                "arn:aws:kinesis:us-east-1:123456789012:queue/q",
            ],
            &["arn:aws:kinesis:us-east-1:123456789012:topic/t", "stream/s", "arn:aws:kinesis:r:1:stream/s"],
        ),
        (Pattern::StreamId, &["abcdefghij0123456789-a1b"], &["abcdefghij0123456789_a1b", "a-b", ""]),
    ];
    for (pattern, good, bad) in cases {
        for text in good {
            assert!(pattern.matches(text), "{pattern:?} refused {text:?}");
        }
        for text in bad {
            assert!(!pattern.matches(text), "{pattern:?} took {text:?}");
        }
    }
    assert!(!Pattern::HashKey.matches(&"9".repeat(40)));
    assert!(Pattern::SequenceNumber.matches(&"9".repeat(129)));
    assert!(!Pattern::SequenceNumber.matches(&"9".repeat(130)));
}

fn told(judge: impl Fn(&mut Check)) -> String {
    let mut check = Check::default();
    judge(&mut check);
    check.finish().map_or_else(|error| error.message().to_owned(), |()| String::new())
}

#[test]
fn lists_of_texts_are_judged_by_length_and_by_member() {
    let judge = |values: Option<&[&str]>| {
        let values = values.map(|values| values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
        told(|check| check.texts("tagKeys", Presence::Required, values.as_deref(), (1, 2), &sized(1, 3)))
    };
    let found = "1 validation error detected: Value";
    let constraint = "at 'tagKeys' failed to satisfy constraint: Member must";
    assert_eq!(judge(Some(&["a", "abc"])), "");
    assert_eq!(judge(None), format!("{found} null {constraint} not be null"));
    assert_eq!(judge(Some(&[])), format!("{found} '[]' {constraint} have length greater than or equal to 1"));
    assert_eq!(
        judge(Some(&["a", "b", "c"])),
        format!("{found} '[a, b, c]' {constraint} have length less than or equal to 2")
    );
    let lengths = "[Member must have length less than or equal to 3, Member must have length greater than or \
                   equal to 1]";
    assert_eq!(
        judge(Some(&["a", ""])),
        format!("{found} '[a, ]' {constraint} satisfy constraint: {lengths}")
    );
    let long = "x".repeat(5000);
    assert!(judge(Some(&[&long, &long, &long])).len() < 5000);
}

#[test]
fn maps_are_judged_by_keys_and_by_values() {
    let judge = |entries: &[(&str, &str)]| {
        let entries = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let rules = (&sized(1, 2), &sized(0, 3));
        told(|check| check.text_map("tags", Presence::Required, Some(&entries), (1, 50), rules))
    };
    assert_eq!(judge(&[("k", "")]), "");
    let keys = "Map keys must satisfy constraint: [Member must have length less than or equal to 2, Member must \
                have length greater than or equal to 1]";
    let values = "Map value must satisfy constraint: [Member must have length less than or equal to 3, Member \
                  must have length greater than or equal to 0]";
    let of =
        |shown, constraint| format!("Value '{shown}' at 'tags' failed to satisfy constraint: {constraint}");
    let shown = "{=long, k=v}";
    assert_eq!(
        judge(&[("", "long"), ("k", "v")]),
        format!("2 validation errors detected: {}; {}", of(shown, keys), of(shown, values))
    );
}

#[test]
fn long_values_are_cut_in_messages() {
    let mut check = Check::default();
    check.text("partitionKey", Presence::Required, Some(&"k".repeat(1 << 20)), &PARTITION_KEY);
    assert!(check.finish().unwrap_err().message().len() < 2000);
}
