//! Folder of images to batches, as training uses it: decoding, augmentation, the loader, broken files.

#![allow(clippy::unwrap_used)] // clippy knows test functions, not what they call

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use tallow_builder::Rng;
use tallow_input::{Preprocess, Views};
use tallow_trainer::augment::{Augment, ColorJitter, EvalTransform, Mix, RandomErasing, TrainTransform};
use tallow_trainer::data::{Batch, Images, Loader, LoaderOptions, SplitOptions, Splits, Transform, folder};

/// A picture with texture, so that it compresses like a photo; its class shows in its mean colour.
fn picture(class: usize, number: u64, side: u32) -> RgbImage {
    let mut rng = Rng::stream(1, &[class as u64, number]);
    let (fx, fy) = (rng.uniform_in(0.02, 0.3), rng.uniform_in(0.02, 0.3));
    RgbImage::from_fn(side, side, |x, y| {
        let wave = (f64::from(x) * fx).sin() + (f64::from(y) * fy).cos();
        let level = 60.0 + 15.0 * wave + rng.uniform_in(-10.0, 10.0);
        let mut color = [level as u8; 3];
        color[class] = (level + 120.0) as u8;
        Rgb(color)
    })
}

/// Writes `count` JPEGs of each of three classes.
fn write_folder(root: &Path, count: u64, side: u32) {
    for (class, name) in ["blue", "green", "red"].into_iter().enumerate() {
        let folder = root.join("train").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for number in 0..count {
            picture(2 - class, number, side).save(folder.join(format!("{number:03}.jpg"))).unwrap();
        }
    }
}

fn open(root: &Path) -> Splits {
    folder::open(root, SplitOptions { fraction: 0.25, seed: 0, fold: None }).unwrap()
}

fn everything() -> Augment {
    let jitter = ColorJitter { brightness: 0.2, contrast: 0.2, saturation: 0.2, hue: 0.02 };
    Augment { color_jitter: Some(jitter), ..Augment::imagenet() }
}

fn epoch(loader: &Loader) -> Vec<Batch> {
    loader.epoch(0, 0).unwrap().map(Result::unwrap).collect()
}

#[test]
fn training_batches_are_the_same_for_any_number_of_workers_and_keep_class_and_picture_together() {
    let root = tempfile::tempdir().unwrap();
    write_folder(root.path(), 8, 64);
    let splits = open(root.path());
    assert_eq!((splits.train.len(), splits.validation.len()), (18, 6));
    let preprocess = Preprocess::imagenet(32, 24);
    let run = |workers| {
        let transform = TrainTransform::new(everything(), preprocess).unwrap();
        let options = LoaderOptions { batch_size: 5, shuffle: true, workers, seed: 3, ..Default::default() };
        epoch(&Loader::new(splits.train.clone(), Arc::new(transform), options).unwrap())
    };
    let batches = run(1);
    assert_eq!(run(3), batches);
    assert_eq!(batches.iter().map(Batch::len).collect::<Vec<_>>(), [5, 5, 5, 3]);
    for batch in &batches {
        assert_eq!((batch.height, batch.width), (24, 32));
        for (image, &label) in batch.floats().chunks(3 * 24 * 32).zip(&batch.labels) {
            let means: Vec<f32> = image.chunks(24 * 32).map(|plane| plane.iter().sum::<f32>()).collect();
            let brightest = (0..3).max_by(|&a, &b| means[a].total_cmp(&means[b])).unwrap();
            assert_eq!(brightest, 2 - label as usize, "blue, green, red are labels 0, 1, 2");
        }
    }
}

#[test]
fn truncated_and_mislabelled_images_are_left_out_by_path_or_an_error_when_strict() {
    let root = tempfile::tempdir().unwrap();
    write_folder(root.path(), 8, 64);
    let red = root.path().join("train/red");
    let whole = std::fs::read(red.join("000.jpg")).unwrap();
    std::fs::write(red.join("cut.jpg"), &whole[..whole.len() * 2 / 3]).unwrap();
    std::fs::write(red.join("page.png"), b"<html>not found</html>").unwrap();
    std::fs::write(red.join("empty.webp"), b"").unwrap();
    // A PNG called .jpg is a whole image all the same.
    picture(0, 99, 64).save_with_format(red.join("png.jpg"), image::ImageFormat::Png).unwrap();
    std::fs::rename(root.path().join("train"), root.path().join("all")).unwrap();
    let set = Arc::new(folder::ImageFolder::open(&root.path().join("all")).unwrap());
    let load = |strict| {
        let transform = Arc::new(EvalTransform::new(Preprocess::imagenet(16, 16)).unwrap());
        let options = LoaderOptions { batch_size: 10, strict, ..Default::default() };
        Loader::new(set.clone(), transform, options).unwrap()
    };
    let loader = load(false);
    assert_eq!(epoch(&loader).iter().map(Batch::len).sum::<usize>(), 25);
    let skipped = loader.skipped();
    let names: Vec<&str> =
        skipped.iter().map(|s| Path::new(&s.origin).file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["cut.jpg", "empty.webp", "page.png"], "{skipped:?}");
    assert!(skipped.iter().all(|s| s.origin.contains("all/red/") && !s.reason.is_empty()));

    let error = load(true).epoch(0, 0).unwrap().find_map(Result::err).unwrap().to_string();
    assert!(error.contains("cut.jpg: the image is cut short"), "{error}");
}

/// Run with `cargo test --release -p tallow-trainer --test data_pipeline -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    let root = tempfile::tempdir().unwrap();
    write_folder(root.path(), 200, 256);
    let splits = open(root.path());
    let cores = std::thread::available_parallelism().unwrap().get();
    for workers in [1, cores] {
        for (name, augment) in [("crop and flip", Augment::imagenet()), ("and colours", everything())] {
            let transform = Arc::new(TrainTransform::new(augment, Preprocess::imagenet(224, 224)).unwrap());
            let options = LoaderOptions { batch_size: 32, shuffle: true, workers, ..Default::default() };
            let loader = Loader::new(splits.train.clone(), transform, options).unwrap();
            let start = Instant::now();
            let images: usize = epoch(&loader).iter().map(Batch::len).sum();
            let speed = images as f64 / start.elapsed().as_secs_f64();
            println!("{workers} workers, 256x256 JPEG to 224x224, {name}: {speed:.0} images/s");
        }
    }
    // A training step that leaves the cores idle must find its next batch waiting.
    let transform =
        Arc::new(TrainTransform::new(Augment::imagenet(), Preprocess::imagenet(224, 224)).unwrap());
    let options = LoaderOptions { batch_size: 32, shuffle: true, ..Default::default() };
    let loader = Loader::new(splits.train.clone(), transform, options).unwrap();
    let mut batches = loader.epoch(0, 0).unwrap();
    batches.next().unwrap().unwrap();
    let first = batches.waited();
    let mut steps = 0;
    for batch in batches.by_ref() {
        batch.unwrap();
        std::thread::sleep(Duration::from_millis(100));
        steps += 1;
    }
    let waited = batches.waited() - first;
    println!("first batch after {first:?}; {steps} steps of 100 ms waited {waited:?} in all");
    assert!(waited < Duration::from_millis(10 * steps), "starved: {waited:?}");
}

#[test]
fn bytes_come_to_the_same_numbers_whatever_is_left_to_a_gpu() {
    let root = tempfile::tempdir().unwrap();
    write_folder(root.path(), 8, 64);
    let data = open(root.path()).train;
    let preprocess = Preprocess::imagenet(31, 24);
    let batches = |transform: Arc<dyn Transform>, mix, bytes| {
        let options = LoaderOptions { batch_size: 5, shuffle: true, seed: 3, ..Default::default() };
        epoch(&Loader::new(data.clone(), transform, options).unwrap().mixing(mix).as_bytes(bytes))
    };
    let check = |transform: Arc<dyn Transform>, mix: Option<Mix>| -> Vec<Images> {
        let (floats, bytes) = (batches(transform.clone(), mix, false), batches(transform, mix, true));
        for (floats, bytes) in floats.iter().zip(&bytes) {
            assert!(matches!(floats.images, Images::Floats(_)));
            assert_eq!(floats.floats(), bytes.floats());
            assert_eq!((&floats.labels, &floats.mixed), (&bytes.labels, &bytes.mixed));
        }
        bytes.into_iter().map(|batch| batch.images).collect()
    };
    let training = |augment| Arc::new(TrainTransform::new(augment, preprocess).unwrap());
    let mirrored = |images: &[Images]| -> usize {
        let of = |images: &Images| match images {
            Images::Bytes(bytes) => bytes.mirrored.iter().filter(|&&flag| flag != 0).count(),
            Images::Floats(_) => panic!("no bytes"),
        };
        images.iter().map(of).sum()
    };
    let cutmix = Mix { cutmix: 1.0, ..Mix::default() };
    let mixup = Mix { mixup: 1.0, ..Mix::default() };
    for mix in [None, Some(cutmix), Some(mixup)] {
        let found = check(training(Augment::cifar()), mix);
        assert!((1..18).contains(&mirrored(&found)), "some of 18 are mirrored on the device");
        let blended = |images: &Images| matches!(images, Images::Bytes(bytes) if bytes.share.is_some());
        assert_eq!(found.iter().all(blended), mix == Some(mixup));
    }
    assert_eq!(mirrored(&check(training(everything()), None)), 0, "colours come after the flip");
    let erasing = Augment { random_erasing: Some(RandomErasing::default()), ..Augment::imagenet() };
    assert!(check(training(erasing), None).iter().all(|images| matches!(images, Images::Floats(_))));
    let views = EvalTransform::with_views(preprocess, Views::TenCrop).unwrap();
    assert_eq!(mirrored(&check(Arc::new(views), None)), 0);
}
