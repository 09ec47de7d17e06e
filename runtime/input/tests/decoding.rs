//! Image files compared with the pixels Pillow reads from them, and what broken files give.
//! The reference values are made by `make_fixtures.py`.
//! They must be equal, JPEG's lossy transform included.

#![allow(clippy::unwrap_used)] // a test's helpers fail by panicking, as the test does

mod reference;

use reference::{bytes, cases, difference, number};
use tallow_input::{ImageFault, InputError, decode, decode_file};

fn files() -> Vec<(String, Vec<u8>)> {
    let cases = cases(include_str!("fixtures/decode.json"));
    let files = cases.iter().map(|case| (case["name"].as_str().unwrap().to_owned(), bytes(&case["file"])));
    files.filter(|(name, _)| name != ANIMATION).collect()
}

/// A file of which Pillow takes the first frame; here it is refused.
const ANIMATION: &str = "animated.webp";

fn fault(data: &[u8]) -> ImageFault {
    match decode(data) {
        Err(InputError::Image { fault, .. }) => fault,
        other => panic!("expected an image fault, got {other:?}"),
    }
}

#[test]
fn decoded_pixels_equal_pillows() {
    let mut wrong = Vec::new();
    for case in cases(include_str!("fixtures/decode.json")) {
        let name = case["name"].as_str().unwrap();
        if name == ANIMATION {
            assert_eq!(fault(&bytes(&case["file"])), ImageFault::Animated);
            continue;
        }
        let image = decode(&bytes(&case["file"])).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(image.dimensions(), (number(&case["width"]), number(&case["height"])), "{name}");
        let (max, mean) = difference(image.as_raw(), &bytes(&case["rgb"]));
        eprintln!("{name}: max {max} mean {mean:.3}");
        if max > 0 {
            wrong.push(format!("{name}: max {max}, mean {mean:.3}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_cut_file_is_an_error_or_the_same_picture() {
    for (name, data) in files() {
        let whole = decode(&data).unwrap();
        for length in 0..data.len() {
            // A cut that only loses trailing bytes which no pixel needs may decode, and then to the same picture.
            if let Ok(image) = decode(&data[..length]) {
                assert!(!name.ends_with(".jpg"), "{name} cut to {length} of {} bytes decoded", data.len());
                assert!(image == whole, "{name} cut to {length} of {} bytes is another picture", data.len());
            }
        }
    }
}

#[test]
fn a_damaged_byte_never_panics() {
    for (name, data) in files() {
        for at in 0..data.len() {
            for flip in [0xFF, 0x01, 0x80] {
                let mut broken = data.clone();
                broken[at] ^= flip;
                if let Err(error) = decode(&broken) {
                    let text = error.to_string();
                    assert!(!text.contains(['\n', '{']), "{name}: {text}");
                }
            }
        }
    }
}

#[test]
fn what_is_no_image_says_so() {
    assert_eq!(fault(b""), ImageFault::Empty);
    assert_eq!(fault(b"<html>not found</html>"), ImageFault::NotAnImage);
    assert!(matches!(fault(b"GIF89a\x01\x00\x01\x00"), ImageFault::OtherFormat { format: "GIF", .. }));
    let jpeg = files().into_iter().find(|(name, _)| name == "444.jpg").unwrap().1;
    assert_eq!(fault(&jpeg[..jpeg.len() - 2]), ImageFault::Truncated);
    assert_eq!(fault(&jpeg[..jpeg.len() / 2]), ImageFault::Truncated);
}

#[test]
fn a_decompression_bomb_is_refused_before_its_pixels_are_made() {
    let png = files().into_iter().find(|(name, _)| name == "rgb.png").unwrap().1;
    for (width, height) in [(60_000u32, 10u32), (10, 60_000), (16_000, 16_000), (u32::MAX / 2, u32::MAX / 2)]
    {
        let mut bomb = png.clone();
        bomb[16..20].copy_from_slice(&width.to_be_bytes());
        bomb[20..24].copy_from_slice(&height.to_be_bytes());
        let crc = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&crc.to_be_bytes());
        assert!(matches!(fault(&bomb), ImageFault::TooLarge(_)), "{width}x{height}: {:?}", fault(&bomb));
    }
    let mut jpeg = files().into_iter().find(|(name, _)| name == "444.jpg").unwrap().1;
    let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xFF, 0xFF, 0xFF, 0xFF]);
    assert!(matches!(fault(&jpeg), ImageFault::TooLarge(_)), "{:?}", fault(&jpeg));
}

#[test]
fn errors_name_the_file_and_a_wrong_extension_does_not_matter() {
    let dir = std::env::temp_dir().join(format!("tallow-input-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let missing = decode_file(dir.join("none.jpg")).unwrap_err().to_string();
    assert!(missing.contains("none.jpg: cannot read the file: "), "{missing}");

    let (broken, mislabelled) = (dir.join("broken.png"), dir.join("really_a_png.jpg"));
    std::fs::write(&broken, b"plain text").unwrap();
    let text = decode_file(&broken).unwrap_err().to_string();
    assert!(
        text.ends_with("broken.png: not an image in a supported format (JPEG, PNG, WebP, BMP)"),
        "{text}"
    );

    let png = files().into_iter().find(|(name, _)| name == "rgb.png").unwrap().1;
    std::fs::write(&mislabelled, &png).unwrap();
    assert_eq!(decode_file(&mislabelled).unwrap(), decode(&png).unwrap());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn an_animated_png_is_refused() {
    let mut png = files().into_iter().find(|(name, _)| name == "rgb.png").unwrap().1;
    let header = 8 + 12 + 13;
    let mut control = b"\0\0\0\x08acTL\0\0\0\x02\0\0\0\0".to_vec();
    let crc = crc32(&control[4..]);
    control.extend(crc.to_be_bytes());
    png.splice(header..header, control);
    assert_eq!(fault(&png), ImageFault::Animated);
}

/// The checksum of PNG chunks, bit by bit.
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xEDB8_8320 } else { c >> 1 })
    })
}
