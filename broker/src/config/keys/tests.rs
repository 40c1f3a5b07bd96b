//! What the section may say, and what it may not; and that nobody is shown a key.

use super::*;
use std::os::unix::fs::PermissionsExt;
use tidemill_engine::{ErrorKind, KeyRing};

#[derive(Deserialize)]
struct Section {
    keys: Vec<KeyFile>,
}

fn ring(text: &str) -> Result<KeyRing> {
    let section: Section = toml::from_str(text).map_err(|e| Error::usage(e.message().to_owned()))?;
    KeyRing::new(compose(&section.keys)?).map_err(|e| Error::usage(e.to_string()))
}

const HEX: &str = "000102030405060708090a0B0C0D0E0f101112131415161718191a1b1c1d1e1f";
const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn a_key_may_be_given_in_hex_or_base64_and_is_the_same() {
    let expected: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    for text in [HEX, BASE64, &BASE64[..43]] {
        assert_eq!(*parse(text).unwrap(), expected, "{text}");
    }
    for text in ["", "00", &HEX[..62], &BASE64[..42], &HEX.replace('a', "g"), &format!("{HEX}00"), "=", "é"]
    {
        assert!(parse(text).is_none(), "{text}");
    }
}

#[test]
fn keys_are_known_by_all_their_names_and_a_disabled_one_needs_no_secret() {
    let ring = ring(&format!(
        "[[keys]]\nid = 'alias/a'\naliases = ['k-1']\nsecret = '{HEX}'\n\
         [[keys]]\nid = 'alias/off'\ndisabled = true\n[[keys]]\nid = 'alias/off-too'\nsecret = '{BASE64}'\ndisabled = true\n"
    ));
    let ring = ring.unwrap();
    let check = |name| ring.check(name).map_err(|error| error.kind());
    assert_eq!((check("alias/a"), check("k-1")), (Ok(()), Ok(())));
    assert_eq!(check("alias/off"), Err(ErrorKind::KeyDisabled));
    assert_eq!(check("alias/off-too"), Err(ErrorKind::KeyDisabled));
    assert_eq!(check("alias/none"), Err(ErrorKind::KeyNotFound));
}

#[test]
fn a_mistake_is_bad_usage_and_never_shows_a_secret() {
    for (text, word) in [
        ("[[keys]]\nid = 'a'\n".to_owned(), "secret or a file"),
        (format!("[[keys]]\nid = 'a'\nsecret = '{HEX}'\nfile = 'x'\n"), "either"),
        (format!("[[keys]]\nid = 'a'\nsecret = '{}'\n", &HEX[..60]), "32 bytes"),
        (format!("[[keys]]\nid = ''\nsecret = '{HEX}'\n"), "1 to 2048"),
        ("[[keys]]\nid = 'a'\nsecret = 1234567\n".to_owned(), "quotation marks"),
        (format!("[[keys]]\nid = 'a'\nsecrets = '{HEX}'\n"), "secrets"),
        (
            format!("[[keys]]\nid = 'a'\nsecret = '{HEX}'\n[[keys]]\nid = 'a'\nsecret = '{BASE64}'\n"),
            "two keys",
        ),
    ] {
        let error = ring(&text).unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
        assert!(!error.contains(&HEX[..60]) && !error.contains("1234567"), "{error}");
    }
    let section: Section = toml::from_str(&format!("[[keys]]\nid = 'a'\nsecret = '{HEX}'\n")).unwrap();
    assert!(!format!("{:?}", section.keys).contains(&HEX[..8]));
}

/// Who only reaches the API must not learn where files lie, or have others opened.
#[test]
fn a_key_file_must_be_private_and_a_name_is_never_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.key");
    let of = |id: &str| ring(&format!("[[keys]]\nid = '{id}'\nfile = '{}'\n", path.display())).unwrap();
    let told = |ring: &KeyRing, id: &str| {
        let error = ring.check(id).unwrap_err();
        assert!(!error.to_string().contains(path.to_str().unwrap()), "{error}");
        (error.kind(), error.to_string())
    };
    assert_eq!(told(&of("alias/a"), "alias/a").0, ErrorKind::KeyDenied);
    for (content, mode, good) in [
        (HEX.as_bytes(), 0o600, true),
        (format!("  {BASE64}\n").as_bytes(), 0o400, true),
        (&[0xFF; 32][..], 0o600, true),
        (&[0xFF; 33][..], 0o600, false),
        (b"".as_slice(), 0o600, false),
        (&[b' '; 1000][..], 0o600, false),
        (HEX.as_bytes(), 0o640, false),
        (HEX.as_bytes(), 0o604, false),
    ] {
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let ring = of("alias/a");
        match good {
            true => ring.check("alias/a").unwrap(),
            false => assert_eq!(told(&ring, "alias/a").0, ErrorKind::KeyDenied, "{content:?} {mode:o}"),
        }
        assert_eq!(ring.check(path.to_str().unwrap()).unwrap_err().kind(), ErrorKind::KeyNotFound);
    }
    let ring = ring(&format!("[[keys]]\nid = 'alias/dir'\nfile = '{}'\n", dir.path().display())).unwrap();
    assert_eq!(told(&ring, "alias/dir").0, ErrorKind::KeyDenied);
}
