//! No byte of what a signature covers can be changed.

use super::refusals::Draft;
use super::*;
use proptest::prelude::*;

/// Every place in what a signature covers, and the signature.
#[derive(Debug, Clone, Copy)]
enum Place {
    Method(usize),
    Uri(usize),
    Header(usize, usize),
    Body(usize),
}

fn places(sent: &Sent) -> Vec<Place> {
    let parts = sent.parts().unwrap();
    let claim = Claim::of(&parts).unwrap();
    let mut places: Vec<Place> = (0..sent.method.len()).map(Place::Method).collect();
    places.extend((1..sent.uri.len()).map(Place::Uri));
    for (i, (name, value)) in sent.headers.iter().enumerate() {
        let first = match name.as_str() {
            "authorization" => value.find("Signature=").unwrap() + "Signature=".len(),
            name if claim.signed_headers.split(';').any(|signed| signed == name) => 0,
            _ => continue,
        };
        places.extend((first..value.len()).map(|at| Place::Header(i, at)));
    }
    places.extend((0..sent.body().len()).map(Place::Body));
    places
}

/// Puts another letter or digit to the place: not one that differs in its case only, which in an escape means the same.
fn changed(sent: &Sent, place: Place, byte: u8) -> Option<Sent> {
    let mut changed = sent.clone();
    if let Place::Body(at) = place {
        let mut body = sent.body();
        body[at] = if body[at] == byte { !byte } else { byte };
        changed.body = STANDARD.encode_to_string(body);
        return Some(changed);
    }
    let (text, at) = match place {
        Place::Method(at) => (&mut changed.method, at),
        Place::Uri(at) => (&mut changed.uri, at),
        Place::Header(i, at) => (&mut changed.headers[i].1, at),
        Place::Body(_) => unreachable!("handled above"),
    };
    let old = text.as_bytes()[at];
    if old.eq_ignore_ascii_case(&byte) {
        return None;
    }
    text.replace_range(at..=at, char::from(byte).encode_utf8(&mut [0]));
    // what the listener would not even take is refused too
    changed.parts().is_some().then_some(changed)
}

/// Requests of which every byte counts: in a path with dot segments some mean nothing.
fn exact() -> Vec<Sent> {
    botocore().into_iter().filter(|sent| sent.name != "path").collect()
}

#[test]
fn no_byte_of_a_signed_request_can_be_changed() {
    let mut tried = 0;
    for sent in exact().iter().filter(|sent| sent.name != "large") {
        let gate = keyed_gate(&sent.token);
        for (i, place) in places(sent).into_iter().enumerate() {
            let byte = b"x7Qf0"[i % 5];
            for byte in [byte, if byte == b'7' { b'8' } else { b'7' }] {
                let Some(changed) = changed(sent, place, byte) else { continue };
                let result = gate.verify(&changed.parts().unwrap(), &changed.body(), NOW);
                assert!(result.is_err(), "{}: {place:?} {byte}: {changed:?}", sent.name);
                tried += 1;
            }
        }
    }
    assert!(tried > 5000, "{tried}");
}

proptest! {
    #[test]
    fn no_random_change_of_a_signed_request_passes(which in 0usize..14, at in 0usize..10_000, byte in any::<u8>()) {
        let sent = &exact()[which];
        let places = places(sent);
        let place = places[at % places.len()];
        let byte = if matches!(place, Place::Body(_)) { byte } else { b'0' + byte % 10 };
        if let Some(changed) = changed(sent, place, byte) {
            prop_assert!(check(&changed).is_err(), "{place:?} {byte}");
        }
    }

    #[test]
    fn no_header_value_panics(authorization in "[ -~]{0,200}", date in "[ -~]{0,30}", query in "[!-~]{0,80}") {
        let mut draft = Draft::new();
        draft.set("authorization", &authorization);
        draft.set("x-amz-date", &date);
        if let Ok(uri) = format!("/?{query}").parse() {
            draft.parts.uri = uri;
        }
        let result = keyed_gate("").verify(&draft.parts, b"{}", NOW);
        prop_assert!(result.is_err());
    }
}
