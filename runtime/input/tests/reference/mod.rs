//! Reads the Pillow reference values that `make_fixtures.py` wrote.
//! The files are JSON with base64 inside, so that no binary file is committed.
//! Shared by the tests of this folder.

use serde_json::Value;

/// The cases of one fixture file.
pub fn cases(text: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(text).unwrap();
    file["cases"].as_array().unwrap().clone()
}

/// A base64 field's bytes.
pub fn bytes(value: &Value) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("not a base64 digit: {c}"),
    };
    let text = value.as_str().unwrap().trim_end_matches('=');
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for c in text.bytes() {
        bits = (bits << 6) | u32::from(digit(c));
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    out
}

/// A number field.
pub fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

/// The largest and the mean absolute difference of two images' bytes.
pub fn difference(a: &[u8], b: &[u8]) -> (u8, f64) {
    assert_eq!(a.len(), b.len());
    let each = || a.iter().zip(b).map(|(x, y)| x.abs_diff(*y));
    (each().max().unwrap(), each().map(f64::from).sum::<f64>() / a.len() as f64)
}
