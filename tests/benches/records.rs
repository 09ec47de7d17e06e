//! How fast records come out of TFRecord shards, beside `tf.data` on the same shards, in turn, in one run.
//!
//!     TALLOW_TENSORFLOW_PYTHON=python cargo bench --bench records
//!
//! Two rows: `raw` reads every record in an epoch's order, checks its sums and parses its example; `images` also
//! decodes, resizes to 224×224 and normalises, into batches of 64. The images are made here: 500×375 pixels of waves
//! and noise. Without a Python that has TensorFlow, Tallow's numbers stand alone. `TALLOW_BENCH_SHARDS` names a folder
//! of other shards, `TALLOW_BENCH_ROUNDS` how often each is measured. Processor time is what one record costs on all
//! cores together; unlike the pace, it hardly depends on what else the machine does.
#![allow(clippy::unwrap_used)] // A benchmark ends where something fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use rayon::prelude::*;
use tallow_builder::Rng;
use tallow_input::Preprocess;
use tallow_trainer::augment::EvalTransform;
use tallow_trainer::data::prepare::{Options, prepare};
use tallow_trainer::data::tfrecord::{RecordOptions, Records, locate};
use tallow_trainer::data::{Dataset, Loader, LoaderOptions};
use tallow_trainer::tally::Show;

const IMAGES: u64 = 2000;
const SHARDS: usize = 32;
const SECONDS: f64 = 3.0;
const SIDE: u32 = 224;

/// A pace.
#[derive(Clone, Copy, Default)]
struct Pace {
    records: f64,
    bytes: f64,
    /// Seconds of processor time for a record; not known on every system.
    cpu: f64,
}

fn main() {
    let made = tempfile::tempdir().unwrap();
    let shards = match std::env::var_os("TALLOW_BENCH_SHARDS") {
        Some(folder) => PathBuf::from(folder),
        None => make_shards(made.path()),
    };
    let pattern = shards.join("train-*");
    let located = locate(pattern.to_str().unwrap()).unwrap().expect("shards to read");
    let records = Arc::new(Records::open(&located, &RecordOptions::default(), None).unwrap());
    let mean = records.index().bytes() as f64 / records.len() as f64;
    println!(
        "{} records of {:.0} kB in {} shards, {} cores",
        records.len(),
        mean / 1e3,
        records.index().paths().len(),
        std::thread::available_parallelism().unwrap(),
    );
    let rounds: usize = std::env::var("TALLOW_BENCH_ROUNDS").map_or(3, |text| text.parse().unwrap());
    println!(
        "{:<8} {:<32} {:>10} {:>9} {:>16}",
        "work", "reader (best of rounds)", "records/s", "MB/s", "CPU µs/record"
    );
    for work in ["raw", "images"] {
        let (mut tallow, mut peers) = (Pace { cpu: f64::INFINITY, ..Pace::default() }, vec![]);
        for _ in 0..rounds {
            let pace = if work == "raw" { raw(&records) } else { images(&records) };
            tallow = better(tallow, pace);
            for (i, (name, pace)) in tf_data(work, records.index().paths()).into_iter().enumerate() {
                match peers.get_mut(i) {
                    None => peers.push((name, pace)),
                    Some((_, best)) => *best = better(*best, pace),
                }
            }
        }
        row(work, "tallow", tallow);
        peers.iter().for_each(|(name, pace)| row(work, &format!("tf.data, {name}"), *pace));
        let best = peers.iter().map(|(_, pace)| *pace).reduce(better);
        if let Some(best) = best {
            let (pace, cpu) = (tallow.records / best.records, best.cpu / tallow.cpu);
            println!(
                "{work}: {pace:.2} times the pace of tf.data's best, {cpu:.2} times as many in the same CPU time"
            );
        }
    }
}

fn row(work: &str, reader: &str, pace: Pace) {
    let (mb, cpu) = (pace.bytes / 1e6, pace.cpu * 1e6);
    println!("{work:<8} {reader:<32} {:>10.0} {mb:>9.1} {cpu:>16.1}", pace.records);
}

/// The faster pace and the smaller cost, whichever round had them.
fn better(one: Pace, other: Pace) -> Pace {
    let faster = if other.records > one.records { other } else { one };
    Pace { cpu: one.cpu.min(other.cpu), ..faster }
}

/// Images like photos in size and weight, and shards of them.
fn make_shards(folder: &Path) -> PathBuf {
    let source = folder.join("images");
    for class in 0..4 {
        std::fs::create_dir_all(source.join(format!("train/class{class}"))).unwrap();
    }
    (0..IMAGES).into_par_iter().for_each(|i| {
        let mut rng = Rng::stream(1, &[i]);
        let (fx, fy) = (rng.uniform_in(0.02, 0.3), rng.uniform_in(0.02, 0.3));
        let picture = RgbImage::from_fn(500, 375, |x, y| {
            let wave = (f64::from(x) * fx).sin() + (f64::from(y) * fy).cos();
            let level =
                |shift: f64, rng: &mut Rng| (128.0 + 40.0 * wave + shift + rng.uniform_in(-24.0, 24.0)) as u8;
            Rgb([level(20.0, &mut rng), level(0.0, &mut rng), level(-20.0, &mut rng)])
        });
        let mut file = std::fs::File::create(source.join(format!("train/class{}/{i}.jpg", i % 4))).unwrap();
        JpegEncoder::new_with_quality(&mut file, 75).encode_image(&picture).unwrap();
    });
    let out = folder.join("shards");
    let options = Options { train_shards: Some(SHARDS), ..Options::default() };
    prepare(&source, &out, &options, Show::Nothing, &AtomicBool::new(false)).unwrap();
    out
}

/// Whole passes, after one to warm up, until the time is over; `pass` gives the records and bytes of an epoch.
fn measure(mut pass: impl FnMut(u64) -> (usize, u64)) -> Pace {
    pass(0);
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let (mut records, mut bytes, mut epoch) = (0.0, 0.0, 1);
    while epoch == 1 || start.elapsed().as_secs_f64() < SECONDS {
        let found = pass(epoch);
        records += found.0 as f64;
        bytes += found.1 as f64;
        epoch += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    Pace { records: records / seconds, bytes: bytes / seconds, cpu: (cpu_seconds() - cpu) / records }
}

/// Processor time of this process so far: fields 14 and 15 of proc_pid_stat(5), in hundredths of a second.
fn cpu_seconds() -> f64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/stat") else { return f64::NAN };
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// Records in an epoch's order by as many threads as a loader has.
fn raw(records: &Arc<Records>) -> Pace {
    measure(|epoch| {
        let order = records.shuffled(&mut Rng::new(epoch));
        let (next, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().unwrap().get() {
                scope.spawn(|| {
                    while let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let size = records.with(index, |image, _| Ok(image.len())).unwrap();
                        bytes.fetch_add(size, Ordering::Relaxed);
                    }
                });
            }
        });
        (order.len(), bytes.into_inner() as u64)
    })
}

/// Batches as training and validation get them.
fn images(records: &Arc<Records>) -> Pace {
    let transform = EvalTransform::new(Preprocess::imagenet(SIDE, SIDE)).unwrap();
    let options = LoaderOptions { shuffle: true, ..LoaderOptions::default() };
    let loader = Loader::new(records.clone(), Arc::new(transform), options).unwrap();
    measure(|epoch| {
        let count: usize = loader.epoch(epoch, 0).unwrap().map(|batch| batch.unwrap().len()).sum();
        (count, records.index().bytes())
    })
}

/// What `records.py` measures, if there is a Python that has TensorFlow.
fn tf_data(work: &str, shards: &[PathBuf]) -> Vec<(String, Pace)> {
    let Some(python) = std::env::var_os("TALLOW_TENSORFLOW_PYTHON") else { return vec![] };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/records.py");
    let output =
        Command::new(python).arg(script).args([work, &SECONDS.to_string()]).args(shards).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let parsed = text.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let number = |key: &str| line[key].as_f64().unwrap();
        let pace = Pace { records: number("records"), bytes: number("bytes"), cpu: number("cpu") };
        (line["pipeline"].as_str().unwrap().to_owned(), pace)
    });
    parsed.collect()
}
