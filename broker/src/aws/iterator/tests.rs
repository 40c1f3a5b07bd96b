//! Tokens open as they were sealed, and nothing else opens.

use super::*;
use proptest::prelude::*;

fn tokens() -> Tokens {
    Tokens::new(&[7; 32])
}

fn iterator(name: &str) -> ShardIterator {
    ShardIterator {
        stream: StreamKey::new(AccountId::new("000000000000").unwrap(), StreamName::new(name).unwrap()),
        incarnation: StreamIncarnation::new(u64::MAX),
        shard: ShardId::new(i32::MAX as u32).unwrap(),
        index: SequenceIndex::MAX,
        minted: TimestampMs::new(1_000_000),
    }
}

#[test]
fn an_iterator_opens_as_it_was_sealed_and_fits_512_characters() {
    let longest = iterator(&"x".repeat(128));
    let text = tokens().seal_iterator(&longest);
    assert!(text.len() <= 512, "{} characters", text.len());
    assert_eq!(tokens().open_iterator(&text, TimestampMs::new(1_000_000)), Ok(longest));
}

/// Two polls of an idle shard within one millisecond once got the same iterator, which clients take for a standstill.
#[test]
fn iterators_of_one_place_and_moment_differ_and_mean_the_same() {
    let tokens = tokens();
    let (one, two) = (tokens.seal_iterator(&iterator("s")), tokens.seal_iterator(&iterator("s")));
    assert_ne!(one, two);
    let now = TimestampMs::new(1_000_000);
    assert_eq!(tokens.open_iterator(&one, now), tokens.open_iterator(&two, now));
}

#[test]
fn an_iterator_expires_after_300_seconds_and_says_when() {
    let text = tokens().seal_iterator(&iterator("s"));
    assert!(tokens().open_iterator(&text, TimestampMs::new(1_300_000)).is_ok());
    let late = TimestampMs::new(1_300_001);
    let error = tokens().open_iterator(&text, late).unwrap_err();
    assert_eq!(error, TokenError::Expired(TimestampMs::new(1_000_000)));
    assert_eq!(
        error.of_iterator(late).message(),
        "Iterator expired. The iterator was created at time Thu Jan 01 00:16:40 UTC 1970 while right now it is \
         Thu Jan 01 00:21:40 UTC 1970 which is further in the future than the tolerated delay of 300000 milliseconds."
    );
}

#[test]
fn a_token_of_another_key_kind_or_shape_is_refused() {
    let now = TimestampMs::new(1_000_000);
    let text = tokens().seal_iterator(&iterator("s"));
    assert_eq!(Tokens::new(&[8; 32]).open_iterator(&text, now), Err(TokenError::Invalid));
    assert_eq!(tokens().open_stream_page(&text, now), Err(TokenError::Invalid));
    for bad in ["", "AAAA", "not base64!", &"A".repeat(513), &text[..text.len() - 4]] {
        assert_eq!(tokens().open_iterator(bad, now), Err(TokenError::Invalid), "{bad:?}");
    }
}

#[test]
fn dates_print_as_java_prints_them() {
    let cases = [
        (1_421_889_722, "Thu Jan 22 01:22:02 UTC 2015"),
        (951_782_400, "Tue Feb 29 00:00:00 UTC 2000"),
        (4_107_542_399, "Sun Feb 28 23:59:59 UTC 2100"),
        (4_107_542_400, "Mon Mar 01 00:00:00 UTC 2100"),
        (1_704_067_199, "Sun Dec 31 23:59:59 UTC 2023"),
    ];
    for (second, text) in cases {
        assert_eq!(java_date(TimestampMs::new(second * 1000)), text);
    }
    java_date(TimestampMs::new(u64::MAX));
}

proptest! {
    #[test]
    fn a_token_changed_in_one_place_is_refused(place: prop::sample::Index, with in 0u8..64) {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let text = tokens().seal_iterator(&iterator("stream"));
        let mut changed = text.clone().into_bytes();
        let place = place.index(changed.len());
        changed[place] = ALPHABET[usize::from(with)];
        let changed = String::from_utf8(changed).unwrap();
        prop_assume!(changed != text);
        prop_assert_eq!(tokens().open_iterator(&changed, TimestampMs::new(1_000_000)), Err(TokenError::Invalid));
    }

    #[test]
    fn page_tokens_open_as_they_were_sealed(stored in 0u8..6, argument in 0u64..1000, after in 0u32..1000) {
        let page = ShardPageToken {
            stream: iterator("s").stream,
            incarnation: StreamIncarnation::new(3),
            after: ShardId::new(after).unwrap(),
            filter: ShardFilter::from_stored(stored, argument).unwrap(),
            minted: TimestampMs::new(5),
        };
        let text = tokens().seal_shard_page(&page);
        prop_assert_eq!(tokens().open_shard_page(&text, TimestampMs::new(5)), Ok(page));
    }

    #[test]
    fn no_text_makes_opening_a_token_panic(text: String) {
        let _ = tokens().open_iterator(&text, TimestampMs::new(0));
    }
}
