mod policies;

use serde_json::Value;

use super::color::{adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation};
use super::*;
use crate::data::{Dataset, digits::Digits};

const WIDTH: u32 = 13;
const HEIGHT: u32 = 9;

/// The image of `fixtures/make_fixtures.py`.
fn source() -> RgbImage {
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        image::Rgb([x * 37 + y * 11 + 5, x * x * 3 + y * 29, x * y * 7 + 200].map(|v| (v % 256) as u8))
    })
}

fn fixture(list: &str) -> Vec<Value> {
    let text = include_str!("fixtures/torchvision.json");
    serde_json::from_str::<Value>(text).unwrap()[list].as_array().unwrap().clone()
}

fn adjust(image: &mut RgbImage, case: &Value) {
    let factor = case["factor"].as_f64().unwrap();
    match case["op"].as_str().unwrap() {
        "brightness" => adjust_brightness(image, factor as f32),
        "contrast" => adjust_contrast(image, factor as f32),
        "saturation" => adjust_saturation(image, factor as f32),
        "hue" => adjust_hue(image, factor),
        other => panic!("{other}"),
    }
}

#[test]
fn colors_and_flip_equal_torchvision_to_the_bit_and_resized_crop_to_one_level() {
    for case in fixture("cases") {
        let mut image = source();
        match case["op"].as_str().unwrap() {
            "hflip" => imageops::flip_horizontal_in_place(&mut image),
            "resized_crop" => {
                let [left, top, width, height, side] =
                    std::array::from_fn(|i| case["crop"][i].as_u64().unwrap() as u32);
                let region = tallow_input::Region { left, top, width, height };
                let filter = serde_json::from_value(case["interpolation"].clone()).unwrap();
                image = resized_crop(&image, region, side, side, filter).unwrap();
            }
            _ => adjust(&mut image, &case),
        }
        let expected: Vec<u8> = serde_json::from_value(case["pixels"].clone()).unwrap();
        // The resizer's weights have fewer bits than Pillow's, so a sum near a half may round the other way.
        let most = if case["op"] == "resized_crop" { 1 } else { 0 };
        assert_eq!(image.as_raw().len(), expected.len());
        let far = image.as_raw().iter().zip(&expected).map(|(&a, &b)| a.abs_diff(b)).max().unwrap();
        assert!(far <= most, "{} {}: {far} levels", case["op"], case["factor"]);
    }
}

#[test]
fn every_color_is_adjusted_as_torchvision_does() {
    for case in fixture("every_color") {
        let mut image = RgbImage::from_fn(4096, 4096, |x, y| {
            let color = y * 4096 + x;
            image::Rgb([color >> 16, color >> 8, color].map(|v| v as u8))
        });
        adjust(&mut image, &case);
        let weight = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        let sum = image.as_raw().iter().zip(0..).fold(0u64, |sum, (&value, index)| {
            sum.wrapping_add(u64::from(value).wrapping_mul(weight(index)))
        });
        assert_eq!(format!("{sum:016x}"), case["checksum"].as_str().unwrap(), "{case}");
    }
}

#[test]
fn random_regions_keep_to_scale_and_ratio_and_spread_over_them() {
    let crop = RandomResizedCrop { scale: (0.2, 0.8), ratio: (0.5, 2.0) };
    let mut rng = Rng::new(11);
    let (mut scales, mut log_ratios, mut lefts) = (0.0, 0.0, 0.0);
    let n = 4_000;
    for _ in 0..n {
        let region = crop.region(500, 500, &mut rng);
        assert!(region.left + region.width <= 500 && region.top + region.height <= 500);
        let (w, h) = (f64::from(region.width), f64::from(region.height));
        let (scale, ratio) = (w * h / 250_000.0, w / h);
        // Rounding to whole pixels moves both a little.
        assert!((0.195..=0.805).contains(&scale), "{region:?}");
        assert!((0.49..=2.04).contains(&ratio), "{region:?}");
        scales += scale;
        log_ratios += ratio.ln();
        lefts += f64::from(region.left) / f64::from(500 - region.width).max(1.0);
    }
    let n = f64::from(n);
    // Large areas with extreme aspects do not fit and are drawn again, so the mean is somewhat below 0.5.
    assert!((0.44..0.5).contains(&(scales / n)), "{}", scales / n);
    assert!((log_ratios / n).abs() < 0.02, "{}", log_ratios / n);
    assert!((lefts / n - 0.5).abs() < 0.02, "{}", lefts / n);
}

#[test]
fn where_no_region_fits_the_middle_is_taken() {
    let crop = RandomResizedCrop { scale: (1.0, 1.0), ratio: (0.75, 1.25) };
    let mut rng = Rng::new(0);
    for ((width, height), expected) in [((1000, 10), (12, 10)), ((10, 1000), (10, 13)), ((1, 400), (1, 1))] {
        let region = crop.region(width, height, &mut rng);
        assert_eq!((region.width, region.height), expected);
        assert_eq!((region.left, region.top), ((width - expected.0) / 2, (height - expected.1) / 2));
    }
    for side in 1..40 {
        let region = RandomResizedCrop::default().region(side, 41 - side, &mut rng);
        assert!(region.width >= 1 && region.left + region.width <= side, "{region:?}");
        assert!(region.height >= 1 && region.top + region.height <= 41 - side, "{region:?}");
    }
}

#[test]
fn flips_come_as_often_as_asked() {
    let image = source();
    let preprocess = Preprocess::imagenet(WIDTH, HEIGHT);
    for (probability, low, high) in [(0.0, 0, 0), (0.25, 200, 300), (1.0, 1000, 1000)] {
        let augment = Augment { horizontal_flip: probability, ..Augment::default() };
        let flips = (0..1000)
            .filter(|&sample| {
                let mut rng = Rng::stream(4, &[sample]);
                augment.pixels(&image, &preprocess, &mut rng).unwrap() != image
            })
            .count();
        assert!((low..=high).contains(&flips), "{probability}: {flips}");
    }
}

#[test]
fn pad_and_crop_shifts_by_every_offset_and_fills_with_black() {
    let image = RgbImage::from_pixel(6, 5, image::Rgb([200, 100, 50]));
    let augment = Augment { pad_and_crop: Some(2), ..Augment::default() };
    let mut seen = std::collections::BTreeSet::new();
    for sample in 0..500 {
        let mut rng = Rng::stream(1, &[sample]);
        let out = augment.pixels(&image, &Preprocess::imagenet(6, 5), &mut rng).unwrap();
        let kept: Vec<(u32, u32)> = out
            .enumerate_pixels()
            .filter(|(_, _, p)| p.0 == [200, 100, 50])
            .map(|(x, y, _)| (x, y))
            .collect();
        assert!(out.pixels().all(|p| p.0 == [200, 100, 50] || p.0 == [0, 0, 0]));
        let (left, right) =
            (kept.iter().map(|k| k.0).min().unwrap(), kept.iter().map(|k| k.0).max().unwrap());
        let (top, bottom) =
            (kept.iter().map(|k| k.1).min().unwrap(), kept.iter().map(|k| k.1).max().unwrap());
        assert_eq!(kept.len() as u32, (right - left + 1) * (bottom - top + 1), "one rectangle");
        let shift = |low: u32, high: u32, side: u32| low as i32 - (side - 1 - high) as i32;
        seen.insert((shift(left, right, 6), shift(top, bottom, 5)));
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.contains(&(-2, -2)) && seen.contains(&(2, 2)) && seen.contains(&(0, 0)));
}

#[test]
fn color_jitter_draws_factors_from_its_range_and_leaves_zeros_alone() {
    let grey = RgbImage::from_pixel(4, 4, image::Rgb([100; 3]));
    let jitter = ColorJitter { brightness: 0.4, ..ColorJitter::default() };
    let augment = Augment { color_jitter: Some(jitter), ..Augment::default() };
    let mut levels = Vec::new();
    for sample in 0..2000 {
        let mut rng = Rng::stream(2, &[sample]);
        let out = augment.pixels(&grey, &Preprocess::imagenet(4, 4), &mut rng).unwrap();
        levels.push(out.get_pixel(0, 0).0[0]);
    }
    let (low, high) = (*levels.iter().min().unwrap(), *levels.iter().max().unwrap());
    assert!((60..=61).contains(&low) && (138..=139).contains(&high), "{low} {high}");
    let still = Augment { color_jitter: Some(ColorJitter::default()), ..Augment::default() };
    let image = source();
    let mut rng = Rng::new(0);
    assert_eq!(still.pixels(&image, &Preprocess::imagenet(WIDTH, HEIGHT), &mut rng).unwrap(), image);
}

#[test]
fn one_generator_gives_one_result_and_eval_ignores_it() {
    let digits = Digits::new();
    let preprocess = Preprocess { mean: [0.5; 3], std: [0.25; 3], ..Preprocess::imagenet(32, 32) };
    let jitter = ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 };
    let augment = Augment { pad_and_crop: Some(4), color_jitter: Some(jitter), ..Augment::imagenet() };
    let run = |transform: &dyn Transform, seed| {
        let mut out = vec![f32::NAN; 3 * 32 * 32];
        transform.apply(digits.load(5).unwrap().image, &mut Rng::new(seed), &mut out).unwrap();
        assert!(out.iter().all(|v| (-2.0..=2.0).contains(v)));
        out
    };
    let train = TrainTransform::new(augment, preprocess).unwrap();
    assert_eq!(run(&train, 1), run(&train, 1));
    assert_ne!(run(&train, 1), run(&train, 2));
    let eval = EvalTransform::new(preprocess).unwrap();
    assert_eq!(run(&eval, 1), run(&eval, 2));
    assert_eq!(run(&eval, 1), preprocess.apply(&digits.load(5).unwrap().image).unwrap());
    let plain = TrainTransform::new(Augment::default(), preprocess).unwrap();
    assert_eq!(run(&plain, 1), run(&eval, 1));
}

#[test]
fn senseless_settings_are_errors_that_name_them() {
    let named = |augment: Augment| augment.validate().unwrap_err().to_string();
    let flip = Augment { horizontal_flip: 1.5, ..Augment::default() };
    assert!(named(flip).starts_with("horizontal_flip = 1.5"));
    for (scale, ratio, name) in [
        ((0.0, 1.0), (1.0, 1.0), "scale"),
        ((0.5, 0.4), (1.0, 1.0), "scale"),
        ((0.5, 1.1), (1.0, 1.0), "scale"),
        ((f64::NAN, 1.0), (1.0, 1.0), "scale"),
        ((0.5, 1.0), (0.0, 1.0), "ratio"),
        ((0.5, 1.0), (1.0, f64::INFINITY), "ratio"),
    ] {
        let crop = RandomResizedCrop { scale, ratio };
        let text = named(Augment { random_resized_crop: Some(crop), ..Augment::default() });
        assert!(text.starts_with(name), "{text}");
    }
    let jitter = ColorJitter { hue: 0.6, ..ColorJitter::default() };
    assert!(named(Augment { color_jitter: Some(jitter), ..Augment::default() }).starts_with("hue"));
    let jitter = ColorJitter { contrast: -1.0, ..ColorJitter::default() };
    assert!(named(Augment { color_jitter: Some(jitter), ..Augment::default() }).starts_with("contrast"));
}

#[test]
fn configuration_reads_back_from_toml() {
    let augment = Augment {
        interpolation: Some(Interpolation::Bicubic),
        color_jitter: Some(ColorJitter { hue: 0.1, ..ColorJitter::default() }),
        ..Augment::imagenet()
    };
    let text = toml::to_string(&augment).unwrap();
    assert_eq!(toml::from_str::<Augment>(&text).unwrap(), augment, "{text}");
    let partial: Augment = toml::from_str("[random_resized_crop]\nscale = [0.5, 1.0]").unwrap();
    let expected = RandomResizedCrop { scale: (0.5, 1.0), ..RandomResizedCrop::default() };
    assert_eq!(partial, Augment { random_resized_crop: Some(expected), ..Augment::default() });
    assert!(toml::from_str::<Augment>("horizontal_flop = 0.5").is_err());
}
