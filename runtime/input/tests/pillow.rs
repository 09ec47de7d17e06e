//! Resizing, cropping and normalising compared with Pillow's pixels.
//! The reference values are made by `make_fixtures.py`.
//! Every pixel must be equal, and every normalised number equal to the bit.

#![allow(clippy::unwrap_used)] // a test's helpers fail by panicking, as the test does

mod reference;

use reference::{bytes, cases, difference, number};
use tallow_input::{Interpolation, Preprocess, Region, RgbImage, decode, resize, resized_crop};

fn interpolation(name: &serde_json::Value) -> Interpolation {
    serde_json::from_value(name.clone()).unwrap()
}

#[test]
fn resized_pixels_equal_pillows() {
    let mut source = RgbImage::new(1, 1);
    for case in cases(include_str!("fixtures/resize.json")) {
        if !case["source"].is_null() {
            source = decode(&bytes(&case["source"])).unwrap();
        }
        let filter = interpolation(&case["interpolation"]);
        let (width, height) = (number(&case["width"]), number(&case["height"]));
        let r: Vec<u32> = case["region"].as_array().unwrap().iter().map(number).collect();
        let region = Region { left: r[0], top: r[1], width: r[2], height: r[3] };
        let whole = resize(&source, width, height, filter).unwrap();
        let cut = resized_crop(&source, region, width, height, filter).unwrap();
        for (ours, pillow) in [(whole, &case["rgb"]), (cut, &case["region_rgb"])] {
            let (max, mean) = difference(ours.as_raw(), &bytes(pillow));
            assert_eq!(
                max,
                0,
                "{:?} {region:?} -> {width}x{height} {filter:?}: mean {mean}",
                source.dimensions()
            );
        }
    }
}

#[test]
fn preprocessed_inputs_equal_torchvisions_pipeline() {
    for case in cases(include_str!("fixtures/preprocess.json")) {
        let source = decode(&bytes(&case["source"])).unwrap();
        let (size, short) = (number(&case["size"]), number(&case["short"]));
        let preprocess = Preprocess {
            crop_fraction: f64::from(size) / f64::from(short),
            interpolation: interpolation(&case["interpolation"]),
            ..Preprocess::imagenet(size, size)
        };
        let what = format!("{:?} -> {short} -> {size} {:?}", source.dimensions(), preprocess.interpolation);
        let cropped = preprocess.pixels(&source).unwrap();
        let pillow = RgbImage::from_raw(size, size, bytes(&case["rgb"])).unwrap();
        let (max, mean) = difference(cropped.as_raw(), pillow.as_raw());
        assert_eq!(max, 0, "{what}: mean {mean}");

        let expected: Vec<f32> =
            bytes(&case["chw"]).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(preprocess.apply(&source).unwrap(), expected, "{what}");
    }
}

#[test]
fn a_batch_is_its_images_one_after_the_other() {
    let preprocess = Preprocess { crop_fraction: 0.875, ..Preprocess::imagenet(14, 14) };
    let images = [(20, 31), (14, 14), (5, 9)].map(|(w, h)| {
        RgbImage::from_fn(w, h, |x, y| image::Rgb([(x * 9) as u8, (y * 7) as u8, (x * y) as u8]))
    });
    let batch = preprocess.apply_batch(&images).unwrap();
    let each: Vec<f32> = images.iter().flat_map(|image| preprocess.apply(image).unwrap()).collect();
    assert_eq!(batch.len(), 3 * preprocess.len());
    assert_eq!(batch, each);
}
