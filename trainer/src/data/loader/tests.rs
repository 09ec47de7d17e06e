use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::data::Sample;

/// Sample i is a grey 1x1 image of level i; some are broken, some panic, and each may take a while.
struct Fake {
    len: usize,
    classes: Vec<String>,
    broken: fn(usize) -> bool,
    panics: fn(usize) -> bool,
    delay: Duration,
    loads: AtomicUsize,
}

fn never(_: usize) -> bool {
    false
}

fn fake(len: usize) -> Fake {
    let classes = (0..3).map(|c| c.to_string()).collect();
    Fake { len, classes, broken: never, panics: never, delay: Duration::ZERO, loads: AtomicUsize::new(0) }
}

impl Dataset for Fake {
    fn len(&self) -> usize {
        self.len
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn load(&self, index: usize) -> Result<Sample> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.delay);
        assert!(!(self.panics)(index), "sample {index} is cursed");
        if (self.broken)(index) {
            return Err(Error::Image { origin: self.origin(index), reason: "cut short".into() });
        }
        Ok(Sample {
            image: RgbImage::from_pixel(1, 1, image::Rgb([index as u8; 3])),
            label: index as u32 % 3,
        })
    }
    fn origin(&self, index: usize) -> String {
        format!("fake/{index}.jpg")
    }
}

/// Writes level, a random number, and their sum, so that a mixed-up sample or generator shows.
struct Mark;

impl Transform for Mark {
    fn output_size(&self) -> (usize, usize) {
        (1, 1)
    }
    fn apply(&self, image: RgbImage, rng: &mut Rng, out: &mut [f32]) -> Result<()> {
        let (level, random) = (f32::from(image.get_pixel(0, 0).0[0]), rng.uniform() as f32);
        out.copy_from_slice(&[level, random, level + random]);
        Ok(())
    }
}

fn loader(dataset: Fake, options: LoaderOptions) -> Loader {
    Loader::new(Arc::new(dataset), Arc::new(Mark), options).unwrap()
}

fn shuffled(batch_size: usize, workers: usize) -> LoaderOptions {
    LoaderOptions { batch_size, shuffle: true, workers, seed: 5, ..LoaderOptions::default() }
}

fn batches(loader: &Loader, epoch: u64, first: usize) -> Vec<Batch> {
    loader.epoch(epoch, first).unwrap().map(Result::unwrap).collect()
}

#[test]
fn batches_do_not_depend_on_workers_prefetch_or_timing() {
    let reference = batches(&loader(fake(101), shuffled(8, 1)), 3, 0);
    for (workers, prefetch) in [(2, 1), (3, 2), (16, 7)] {
        let mut dataset = fake(101);
        dataset.delay = Duration::from_micros(200);
        let options = LoaderOptions { prefetch, ..shuffled(8, workers) };
        assert_eq!(batches(&loader(dataset, options), 3, 0), reference, "{workers} workers");
    }
    assert_ne!(batches(&loader(fake(101), shuffled(8, 2)), 4, 0), reference, "epochs differ");
}

#[test]
fn an_epoch_holds_every_sample_once_with_its_own_label_and_pixels() {
    let batches = batches(&loader(fake(50), shuffled(8, 3)), 0, 0);
    assert_eq!(batches.len(), 7);
    assert_eq!(batches.iter().map(|b| b.index).collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
    let mut seen: Vec<usize> = batches.iter().flat_map(|b| b.indices.clone()).collect();
    for batch in &batches {
        for (n, &index) in batch.indices.iter().enumerate() {
            assert_eq!(batch.labels[n], index as u32 % 3);
            assert_eq!(batch.floats()[3 * n], index as f32);
            assert_eq!(batch.floats()[3 * n + 2], batch.floats()[3 * n] + batch.floats()[3 * n + 1]);
        }
    }
    assert_ne!(seen, (0..50).collect::<Vec<_>>(), "shuffled");
    seen.sort_unstable();
    assert_eq!(seen, (0..50).collect::<Vec<_>>());
}

#[test]
fn resuming_at_any_batch_gives_the_rest_of_the_epoch() {
    let whole = batches(&loader(fake(40), shuffled(7, 2)), 9, 0);
    for first in 0..=whole.len() + 1 {
        let rest = batches(&loader(fake(40), shuffled(7, 3)), 9, first);
        assert_eq!(rest, whole[first.min(whole.len())..]);
    }
}

#[test]
fn repeated_samples_come_in_a_row_and_each_time_with_another_generator() {
    let once = batches(&loader(fake(20), shuffled(20, 2)), 3, 0);
    let repeated = |workers| {
        let loader = loader(fake(20), LoaderOptions { repeats: 3, ..shuffled(7, workers) });
        assert_eq!(loader.batches(), 9);
        batches(&loader, 3, 0)
    };
    let three = repeated(4);
    assert_eq!(three, repeated(1), "workers do not matter");
    let indices: Vec<usize> = three.iter().flat_map(|batch| batch.indices.clone()).collect();
    let expected: Vec<usize> = once[0].indices.iter().flat_map(|&index| [index; 3]).collect();
    assert_eq!(indices, expected);
    let drawn: Vec<f32> =
        three.iter().flat_map(|batch| batch.floats().into_owned()).skip(1).step_by(3).collect();
    for (of_one, first) in drawn.chunks(3).zip(once[0].floats().chunks(3)) {
        assert_eq!(of_one[0], first[1], "the first time is as where nothing is repeated");
        assert!(of_one[0] != of_one[1] && of_one[1] != of_one[2] && of_one[0] != of_one[2]);
    }
}

#[test]
fn mixed_batches_depend_on_nothing_but_their_number() {
    let mix = Mix { mixup: 0.4, cutmix: 1.0, ..Mix::default() };
    let mixed = |workers, first| {
        let mut dataset = fake(60);
        dataset.broken = |i| i == 8;
        batches(&loader(dataset, shuffled(8, workers)).mixing(Some(mix)), 2, first)
    };
    let whole = mixed(1, 0);
    assert_eq!(mixed(5, 0), whole);
    assert_eq!(mixed(2, 3), whole[3..]);
    let shares: Vec<f64> = whole.iter().map(|batch| batch.mixed.as_ref().unwrap().share).collect();
    assert!(shares.iter().all(|share| (0.5..=1.0).contains(share)), "{shares:?}");
    assert!(shares.windows(2).any(|pair| pair[0] != pair[1]), "{shares:?}");
    for batch in &whole {
        let others = &batch.mixed.as_ref().unwrap().others;
        assert!(batch.labels.iter().rev().eq(others), "partners are each other's");
    }
}

#[test]
fn drop_last_leaves_out_only_a_batch_that_is_not_full() {
    for (samples, expected) in [(15, 3), (19, 3), (20, 4)] {
        let options = LoaderOptions { drop_last: true, ..shuffled(5, 2) };
        let loader = loader(fake(samples), options);
        assert_eq!(loader.batches(), expected);
        let batches = batches(&loader, 0, 0);
        assert_eq!(batches.len(), expected);
        assert!(batches.iter().all(|b| b.len() == 5));
    }
}

#[test]
fn broken_images_are_left_out_and_remembered_once() {
    let mut dataset = fake(30);
    // All of batch 2 (unshuffled: 8..12), and some more.
    dataset.broken = |i| (8..12).contains(&i) || i == 3 || i == 29;
    let loader = loader(dataset, LoaderOptions { shuffle: false, ..shuffled(4, 3) });
    for epoch in 0..2 {
        let batches = batches(&loader, epoch, 0);
        assert_eq!(batches.iter().map(|b| b.index).collect::<Vec<_>>(), [0, 1, 3, 4, 5, 6, 7]);
        assert_eq!(batches[0].indices, [0, 1, 2]);
        assert_eq!(batches[0].floats().len(), 9);
        assert_eq!(batches[6].indices, [28]);
        for batch in &batches {
            let levels: Vec<usize> = batch.floats().chunks(3).map(|p| p[0] as usize).collect();
            assert_eq!(levels, batch.indices);
        }
    }
    let skipped = loader.skipped();
    assert_eq!(skipped.len(), 6);
    assert!(skipped.contains(&Skipped { origin: "fake/29.jpg".into(), reason: "cut short".into() }));
}

#[test]
fn strict_stops_at_the_batch_of_the_broken_image() {
    let mut dataset = fake(40);
    dataset.broken = |i| i == 21 || i == 23;
    let options = LoaderOptions { strict: true, shuffle: false, ..shuffled(4, 4) };
    let mut epoch = loader(dataset, options).epoch(0, 0).unwrap();
    for _ in 0..5 {
        epoch.next().unwrap().unwrap();
    }
    assert_eq!(epoch.next().unwrap().unwrap_err().to_string(), "fake/21.jpg: cut short");
    assert!(epoch.next().is_none());
}

#[test]
fn a_panic_in_a_worker_is_an_error_and_no_hang() {
    for workers in [1, 4] {
        let mut dataset = fake(12);
        dataset.panics = |i| i == 6;
        let options = LoaderOptions { shuffle: false, ..shuffled(4, workers) };
        let mut epoch = loader(dataset, options).epoch(0, 0).unwrap();
        assert_eq!(epoch.next().unwrap().unwrap().len(), 4);
        let message = epoch.next().unwrap().unwrap_err().to_string();
        assert!(message.contains("fake/6.jpg") && message.contains("sample 6 is cursed"), "{message}");
        assert!(epoch.next().is_none());
    }
}

#[test]
fn an_epoch_without_a_usable_image_is_an_error() {
    let mut dataset = fake(9);
    dataset.broken = |_| true;
    let mut epoch = loader(dataset, shuffled(4, 2)).epoch(0, 0).unwrap();
    let message = epoch.next().unwrap().unwrap_err().to_string();
    assert_eq!(message, "none of the 9 images could be used; the first: fake/0.jpg: cut short");
    assert!(epoch.next().is_none());
}

#[test]
fn dropping_an_epoch_early_stops_its_threads() {
    let mut dataset = fake(10_000);
    dataset.delay = Duration::from_millis(1);
    let dataset = Arc::new(dataset);
    let loader = Loader::new(dataset.clone(), Arc::new(Mark), shuffled(10, 4)).unwrap();
    let mut epoch = loader.epoch(0, 0).unwrap();
    epoch.next().unwrap().unwrap();
    let start = Instant::now();
    drop(epoch);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let loads = dataset.loads.load(Ordering::SeqCst);
    assert!(loads <= 10 * 5, "{loads} loads: prefetch is bounded");
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(dataset.loads.load(Ordering::SeqCst), loads, "no thread goes on");
}

#[test]
fn prefetch_bounds_what_is_prepared_ahead() {
    let dataset = Arc::new(fake(1_000));
    let options = LoaderOptions { prefetch: 2, ..shuffled(10, 4) };
    let loader = Loader::new(dataset.clone(), Arc::new(Mark), options).unwrap();
    let mut epoch = loader.epoch(0, 0).unwrap();
    epoch.next().unwrap().unwrap();
    // The batch taken and two ahead.
    let start = Instant::now();
    while dataset.loads.load(Ordering::SeqCst) < 30 && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(dataset.loads.load(Ordering::SeqCst), 30);
}

#[test]
fn senseless_settings_are_errors() {
    let new = |len, options| Loader::new(Arc::new(fake(len)), Arc::new(Mark), options).err().unwrap();
    assert!(matches!(new(0, shuffled(4, 1)), Error::NoSamples));
    assert!(matches!(new(5, shuffled(0, 1)), Error::Setting { .. }));
    assert!(matches!(new(5, LoaderOptions { drop_last: true, ..shuffled(6, 1) }), Error::Setting { .. }));
}

/// Each image takes a while to load, and a training step takes longer than its batch does on two threads: from the
/// second batch on, every one must lie ready.
#[test]
fn the_training_thread_is_kept_fed() {
    let data = Fake { delay: Duration::from_millis(4), ..fake(80) };
    let loader =
        Loader::new(Arc::new(data), Arc::new(Mark), LoaderOptions { workers: 4, ..shuffled(8, 1) }).unwrap();
    let mut batches = loader.epoch(0, 0).unwrap();
    batches.next().unwrap().unwrap();
    let first = batches.waited();
    for batch in batches.by_ref() {
        batch.unwrap();
        std::thread::sleep(Duration::from_millis(40));
    }
    let waited = batches.waited() - first;
    // Without preparing ahead, each of the nine would have been waited for, for 8 ms at the least.
    assert!(waited < Duration::from_millis(9 * 4), "waited {waited:?} for nine batches");
}
