//! Policies, their operations, erasing and mixing, against torchvision and timm (`fixtures/make_policy_fixtures.py`).

use candle_core::{Device, Tensor};
use image::Rgb;
use serde_json::Value;
use tallow_builder::kernels::CrossEntropy;

use super::super::erasing::Area;
use super::super::mix::{Cut, Draw};
use super::super::operation::Operation;
use super::super::*;
use super::{HEIGHT, WIDTH, source};
use crate::data::{Batch, Images};

fn fixture(list: &str) -> Vec<Value> {
    let text = include_str!("../fixtures/policies.json");
    serde_json::from_str::<Value>(text).unwrap()[list].as_array().unwrap().clone()
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn sum_of(values: impl Iterator<Item = u64>) -> String {
    let weight = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let sum = values.zip(0..).fold(0u64, |sum, (v, i)| sum.wrapping_add(v.wrapping_mul(weight(i))));
    format!("{sum:016x}")
}

fn named(name: &str) -> RgbImage {
    match name {
        "small" => source(),
        "large" => RgbImage::from_fn(331, 227, |x, y| {
            let red = (x * 3 + y * 5 + x * y / 17) % 200 + 20;
            Rgb([red, (x * x / 31 + y * 2) % 256, (x + y * y / 13) % 90 + 100].map(|v| v as u8))
        }),
        _ => {
            RgbImage::from_fn(
                40,
                30,
                |x, y| Rgb([77, (x + y) % 2 * 255, (x * 30 + y) % 251].map(|v| v as u8)),
            )
        }
    }
}

#[test]
fn every_operation_equals_torchvision_to_the_bit() {
    let mut wrong = vec![];
    for case in fixture("operations") {
        let mut image = named(case["source"].as_str().unwrap());
        let operation: Operation = read(&case["op"]);
        let (width, height) = image.dimensions();
        let magnitude = operation.magnitude(read(&case["level"]), 31, width, height);
        let sign = if case["negative"] == true { -1.0 } else { 1.0 };
        operation.apply(&mut image, sign * magnitude, read(&case["filter"]));
        if sum_of(image.as_raw().iter().map(|&v| u64::from(v))) != case["sum"].as_str().unwrap() {
            wrong.push(case);
        }
    }
    assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
}

#[test]
fn every_magnitude_equals_torchvision_to_the_bit() {
    for table in fixture("magnitudes") {
        let operation: Operation = read(&table["op"]);
        let [levels, width, height] = ["levels", "width", "height"].map(|key| read::<u32>(&table[key]));
        assert_eq!(operation.is_signed(), table["signed"].as_bool().unwrap());
        for (level, expected) in read::<Vec<f64>>(&table["values"]).into_iter().enumerate() {
            let magnitude = operation.magnitude(level as u32, levels, width, height);
            assert_eq!(magnitude, expected, "{operation:?} {level} of {levels} at {width}x{height}");
        }
    }
}

#[test]
fn random_augmentation_draws_every_operation_and_both_signs() {
    let image = named("small");
    let policy = RandAugment { operations: 1, magnitude: 9, ..RandAugment::default() };
    let results: std::collections::BTreeSet<Vec<u8>> = (0..2000)
        .map(|sample| {
            let mut image = image.clone();
            policy.apply(&mut image, &mut Rng::stream(1, &[sample]));
            image.into_raw()
        })
        .collect();
    let mut expected = std::collections::BTreeSet::new();
    for operation in policy::RANDOM {
        let magnitude = operation.magnitude(9, 31, WIDTH, HEIGHT);
        for magnitude in [magnitude, -magnitude].into_iter().take(1 + usize::from(operation.is_signed())) {
            let mut image = image.clone();
            operation.apply(&mut image, magnitude, AffineFilter::Nearest);
            expected.insert(image.into_raw());
        }
    }
    assert_eq!(results, expected);
}

#[test]
fn a_learned_policy_draws_pairs_with_their_probabilities() {
    let image = named("extreme");
    for policy in [Policy::ImageNet, Policy::Cifar10] {
        let policy = AutoAugment { policy, filter: AffineFilter::Nearest };
        let apply = |sample: u64| {
            let mut image = image.clone();
            policy.apply(&mut image, &mut Rng::stream(2, &[sample]));
            image
        };
        assert_eq!(apply(7), apply(7));
        let n = 4000;
        let kept = (0..n).filter(|&sample| apply(sample) == image).count() as f64 / n as f64;
        // Most pairs change something: of ImageNet's, 16 % on average have neither operation on, and of CIFAR-10's
        // 20 %; some operations keep this image as it is.
        assert!((0.1..0.45).contains(&kept), "{policy:?}: {kept}");
    }
}

#[test]
fn erased_boxes_keep_to_scale_and_ratio_and_hold_what_is_asked() {
    let (height, width) = (60, 50);
    let erasing = RandomErasing { probability: 0.25, ..RandomErasing::default() };
    let mut erased = 0;
    for sample in 0..2000 {
        let mut rng = Rng::stream(5, &[sample]);
        let Area { rows, columns } = erasing.area(height, width, &mut rng).unwrap();
        assert!(rows.1 <= height && columns.1 <= width);
        let (h, w) = ((rows.1 - rows.0) as f64, (columns.1 - columns.0) as f64);
        assert!((0.015..0.345).contains(&(h * w / 3000.0)), "{h}x{w}");
        assert!((0.27..3.7).contains(&(h / w)), "{h}x{w}");

        let mut image = vec![9.0; 3 * height * width];
        erasing.apply(&mut image, height, width, &mut Rng::stream(5, &[sample]));
        let inside = image.iter().filter(|v| **v != 9.0).count();
        erased += usize::from(inside > 0);
        assert_eq!(inside % 3, 0, "every channel alike");
    }
    assert!((440..560).contains(&erased), "{erased}");

    let values = |fill| {
        let erasing = RandomErasing { probability: 1.0, scale: (0.3, 0.33), fill, ..erasing };
        let mut image = vec![f32::NAN; 3 * 200 * 200];
        erasing.apply(&mut image, 200, 200, &mut Rng::new(1));
        image.into_iter().filter(|v| !v.is_nan()).collect::<Vec<f32>>()
    };
    assert!(values(Fill::Const).iter().all(|v| *v == 0.0));
    let mut colors = values(Fill::Rand);
    colors.dedup();
    assert_eq!(colors.len(), 3);
    let noise = values(Fill::Pixel);
    let moment = |k: i32| noise.iter().map(|v| f64::from(*v).powi(k)).sum::<f64>() / noise.len() as f64;
    assert!(moment(1).abs() < 0.02 && (moment(2) - 1.0).abs() < 0.03, "{} {}", moment(1), moment(2));
}

/// The batch of the fixtures' formula.
fn batch(labels: Vec<u32>, height: usize, width: usize) -> Batch {
    let image = |i: u64| ((i * i * 7 + i * 13) % 1009) as f32 / 500.0 - 1.0;
    let n = labels.len();
    Batch {
        index: 0,
        images: Images::Floats((0..(n * 3 * height * width) as u64).map(image).collect()),
        views: tallow_input::Views::One,
        labels,
        mixed: None,
        indices: (0..n).collect(),
        height,
        width,
    }
}

#[test]
fn mixup_and_cutmix_equal_timm_to_the_bit_and_so_do_their_targets() {
    for case in fixture("mixes") {
        let [height, width, classes] = ["height", "width", "classes"].map(|key| read::<usize>(&case[key]));
        let mut batch = batch(read(&case["labels"]), height, width);
        let share = read(&case["share"]);
        let draw = match read::<Option<(usize, usize)>>(&case["center"]) {
            Some(center) => Draw::CutMix(Cut::around(center, share, height, width)),
            None => Draw::Mixup(share),
        };
        draw.apply(&mut batch);
        let bits = sum_of(batch.floats().iter().map(|v| u64::from(v.to_bits())));
        assert_eq!(bits, case["bits"].as_str().unwrap(), "{case}");
        assert!(batch.targets().share >= 0.5, "labels are the dominant ones");

        // With equal logits the gradient is (1/K − target)/N: it shows the targets that the loss compares with.
        let n = batch.len();
        let zeros = Tensor::zeros((n, classes), candle_core::DType::F32, &Device::Cpu).unwrap();
        let loss = CrossEntropy { smoothing: 0.1 };
        let (_, gradient) = loss.mixed_loss_and_gradient(&zeros, batch.targets()).unwrap();
        let expected: Vec<Vec<f64>> = read(&case["targets"]);
        for (row, expected) in gradient.to_vec2::<f32>().unwrap().iter().zip(expected) {
            for (gradient, target) in row.iter().zip(expected) {
                let found = 1.0 / classes as f64 - f64::from(*gradient) * n as f64;
                assert!((found - target).abs() < 1e-6, "{found} should be {target}: {case}");
            }
        }
    }
}

#[test]
fn the_loss_of_mixed_labels_and_its_gradient_equal_the_naive_ones() {
    let mut rng = Rng::new(9);
    for (share, smoothing) in [(0.5, 0.0), (0.73, 0.1), (1.0, 0.2), (0.6, 0.0)] {
        let (n, k) = (5, 7);
        let logits: Vec<f32> = (0..n * k).map(|_| (3.0 * rng.normal()) as f32).collect();
        let mut draw = || (0..n).map(|_| rng.below(k) as u32).collect::<Vec<u32>>();
        let (first, second) = (draw(), draw());
        let loss = |logits: &[f64]| {
            let rows = logits.chunks(k).zip(first.iter().zip(&second));
            let of = |(row, (&a, &b)): (&[f64], (&u32, &u32))| {
                let total: f64 = row.iter().map(|z| z.exp()).sum();
                let nll = |class: usize| -(row[class].exp() / total).ln();
                let uniform = (0..k).map(nll).sum::<f64>() / k as f64;
                let mixed = share * nll(a as usize) + (1.0 - share) * nll(b as usize);
                (1.0 - smoothing) * mixed + smoothing * uniform
            };
            rows.map(of).sum::<f64>() / n as f64
        };
        let exact: Vec<f64> = logits.iter().map(|&z| f64::from(z)).collect();
        let tensor = Tensor::from_vec(logits, (n, k), &Device::Cpu).unwrap();
        let labels = tallow_builder::kernels::MixedLabels { first: &first, second: &second, share };
        let (value, gradient) = CrossEntropy { smoothing }.mixed_loss_and_gradient(&tensor, labels).unwrap();
        assert!((value - loss(&exact)).abs() < 1e-12, "{value} should be {}", loss(&exact));
        for (i, gradient) in gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().enumerate() {
            let moved = |by: f64| {
                let mut moved = exact.clone();
                moved[i] += by;
                loss(&moved)
            };
            let naive = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((f64::from(*gradient) - naive).abs() < 1e-7, "{gradient} should be {naive}");
        }
    }
}

#[test]
fn a_batch_is_mixed_as_often_and_by_what_is_asked() {
    let count = |mix: Mix| {
        let (mut mixed, mut cut) = (0, 0);
        for i in 0..2000 {
            let mut batch = batch(vec![0, 1], 4, 4);
            let before = batch.floats().into_owned();
            mix.apply(&mut batch, &mut Rng::stream(3, &[i]));
            mixed += usize::from(batch.mixed.is_some());
            cut += usize::from(batch.mixed.is_some() && batch.floats().iter().all(|v| before.contains(v)));
        }
        (mixed, cut)
    };
    assert_eq!(count(Mix::default()), (0, 0));
    assert_eq!(count(Mix { cutmix: 1.0, ..Mix::default() }), (2000, 2000));
    let both = Mix { mixup: 1.0, cutmix: 1.0, probability: 0.5, switch: 0.25 };
    let (mixed, cut) = count(both);
    assert!((900..1100).contains(&mixed) && (190..310).contains(&cut), "{mixed} {cut}");
    for (mix, name) in [
        (Mix { mixup: -1.0, ..Mix::default() }, "mixup = -1"),
        (Mix { cutmix: f64::NAN, ..Mix::default() }, "cutmix = NaN"),
        (Mix { probability: 1.5, ..Mix::default() }, "mix.probability = 1.5"),
        (Mix { switch: -0.1, ..Mix::default() }, "mix.switch = -0.1"),
    ] {
        let text = mix.validate().unwrap_err().to_string();
        assert!(text.starts_with(name), "{text}");
    }
}

#[test]
fn policies_and_erasing_that_make_no_sense_are_errors_that_name_them() {
    let random = |operations, magnitude| RandAugment { operations, magnitude, ..RandAugment::default() };
    let erasing = RandomErasing::default();
    let none = Augment::default();
    for (augment, name) in [
        (Augment { rand_augment: Some(random(0, 9)), ..none }, "rand_augment.operations = 0"),
        (Augment { rand_augment: Some(random(2, 31)), ..none }, "rand_augment.magnitude = 31"),
        (
            Augment { random_erasing: Some(RandomErasing { probability: 1.5, ..erasing }), ..none },
            "random_erasing.probability = 1.5",
        ),
        (
            Augment { random_erasing: Some(RandomErasing { scale: (0.5, 0.1), ..erasing }), ..none },
            "random_erasing.scale",
        ),
        (Augment { repeated_augment: Some(0), ..none }, "repeated_augment = 0"),
        (
            Augment {
                rand_augment: Some(random(2, 9)),
                auto_augment: Some(AutoAugment { policy: Policy::ImageNet, filter: AffineFilter::Nearest }),
                ..none
            },
            "rand_augment = on: takes the place of auto_augment",
        ),
    ] {
        let text = augment.validate().unwrap_err().to_string();
        assert!(text.starts_with(name), "{text}");
    }
}
