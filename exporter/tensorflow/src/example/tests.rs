use super::*;

/// What TensorFlow 2.21 gives for [`everything`]: `Example.SerializeToString(deterministic=True)`.
const GOLDEN: &str = "\
        0ad6030a1a0a06666c6f6174731210120e0a0c0000003f0000a0bfe6b1617f0a1b0a11696d6167652f636c6173732f6c6162\
        656c12061a040a02e8070a230a12696d6167652f636c6173732f73796e736574120d0a0b0a096e30313434303736340ae201\
        0a0d696d6167652f656e636f64656412d0010acd010aca01ffd8000102030405060708090a0b0c0d0e0f1011121314151617\
        18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f40414243444546474849\
        4a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b\
        7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacad\
        aeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c70a160a0c696d6167652f68656967687412061a040a02f702\
        0a2d0a04696e747312251a230a21ffffffffffffffffff01007f8001ffffffffffffffff7f808080808080808080010a0e0a\
        086e6f20627974657312020a000a0d0a076e6f20696e747312021a000a0a0a046e6f6e65120212000a140a05746578747312\
        0b0a090a01610a000a02c3bc0a090a05756e7365741200";

fn golden() -> Vec<u8> {
    (0..GOLDEN.len()).step_by(2).map(|i| u8::from_str_radix(&GOLDEN[i..i + 2], 16).unwrap()).collect()
}

/// Two bytes that start a JPEG, then 0 to 199.
fn image() -> Vec<u8> {
    [0xff, 0xd8].into_iter().chain(0..200).collect()
}

fn everything(image: &[u8]) -> Example<'_> {
    Example::from_iter([
        ("unset", Feature::Unset),
        ("image/height", Feature::int(375)),
        ("image/encoded", Feature::bytes(image)),
        ("image/class/label", Feature::int(1000)),
        ("image/class/synset", Feature::bytes("n01440764")),
        ("none", Feature::Floats(vec![])),
        ("no bytes", Feature::Bytes(vec![])),
        ("no ints", Feature::Ints(vec![])),
        ("floats", Feature::Floats(vec![0.5, -1.25, 3e38])),
        ("ints", Feature::Ints(vec![-1, 0, 127, 128, i64::MAX, i64::MIN])),
        ("texts", Feature::Bytes(vec![b"a", b"", "ü".as_bytes()])),
    ])
}

#[test]
fn the_bytes_are_tensorflows_and_read_back() {
    let image = image();
    let example = everything(&image);
    assert_eq!(example.encode(), golden());
    let bytes = golden();
    let parsed = Example::parse(&bytes).unwrap();
    assert_eq!(parsed, example);
    assert_eq!(parsed.bytes("image/encoded").unwrap(), image);
    assert_eq!(parsed.int("image/class/label"), Some(1000));
    assert_eq!(parsed.text("image/class/synset"), Some("n01440764"));
    assert_eq!((parsed.int("texts"), parsed.text("ints"), parsed.int("no ints")), (None, None, None));
    assert_eq!(Example::parse(&[]).unwrap(), Example::default());
    assert_eq!(Example::default().encode(), [0x0a, 0]);
}

#[test]
fn the_start_of_an_example_holds_its_first_features() {
    let bytes = golden();
    let whole = Example::parse(&bytes).unwrap();
    for cut in 0..bytes.len() {
        let start = Example::parse_start(&bytes[..cut]);
        assert!(start.features.iter().all(|(key, feature)| whole.features[key] == *feature));
    }
    let start = Example::parse_start(&bytes[..100]);
    assert_eq!((start.features.len(), start.int("image/class/label")), (3, Some(1000)));
    assert_eq!(Example::parse_start(&bytes), whole);
}

#[test]
fn what_other_writers_may_do_is_understood() {
    // Numbers one by one instead of packed, an unknown field, and a key that comes twice.
    let feature = |list: &[u8]| [&[0x1a, list.len() as u8], list].concat();
    let entry = |key: &str, feature: &[u8]| {
        let key = [&[0x0a, key.len() as u8], key.as_bytes()].concat();
        let body = [&[0x28, 1], &key[..], &[0x12, feature.len() as u8], feature].concat();
        [&[0x0a, body.len() as u8], &body[..]].concat()
    };
    let features =
        [entry("a", &feature(&[8, 1])), entry("a", &feature(&[8, 2, 8, 0x80, 1, 0x0a, 1, 5]))].concat();
    let bytes = [&[0x15, 0, 0, 0, 0, 0x0a, features.len() as u8], &features[..]].concat();
    let parsed = Example::parse(&bytes).unwrap();
    assert_eq!(parsed, Example::from_iter([("a", Feature::Ints(vec![2, 128, 5]))]));
}

#[test]
fn damaged_bytes_never_panic_and_what_is_wrong_has_a_place() {
    let sound = golden();
    let mut malformed = 0;
    for at in 0..sound.len() {
        for mask in [0x01, 0x02, 0x40, 0x80, 0xff] {
            let mut bytes = sound.clone();
            bytes[at] ^= mask;
            match Example::parse(&bytes) {
                // What still parses, serialises; a flipped bit may well give another sound example.
                Ok(example) => assert!(Example::parse(&example.encode()).is_ok()),
                Err(error) => {
                    malformed += 1;
                    assert!(error.at <= bytes.len(), "{error}");
                }
            }
        }
        let cut = Example::parse(&sound[..at]);
        assert_eq!(cut.is_ok(), at == 0, "cut at {at}");
    }
    assert!(malformed > sound.len(), "{malformed}");
    // A field of 2^63 bytes.
    let absurd = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let error = Example::parse(&absurd).unwrap_err();
    assert_eq!(error.to_string(), "a field that is longer than what holds it at its byte 10");
}

/// Random bytes and random mixtures of sound pieces: a short fuzz run with numbers of a fixed seed.
#[test]
fn arbitrary_bytes_never_panic() {
    let sound = golden();
    let mut state = 1u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = (0..random(40)).map(|_| random(256) as u8).collect();
        for _ in 0..random(4) {
            let start = random(sound.len());
            bytes.extend(&sound[start..(start + random(60)).min(sound.len())]);
        }
        if let Ok(example) = Example::parse(&bytes) {
            let encoded = example.encode();
            let again = Example::parse(&encoded).unwrap();
            assert_eq!(again.encode(), encoded);
        }
    }
}
