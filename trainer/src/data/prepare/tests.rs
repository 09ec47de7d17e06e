use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use image::{ImageFormat, Rgb, RgbImage};
use tallow_tensorflow::example::Example;
use tallow_tensorflow::record::RecordReader;
use tempfile::TempDir;

use super::*;
use crate::data::folder::FLAT_LABELS;
use crate::data::tfrecord::{RecordOptions, locate};

fn write(path: &Path, format: ImageFormat, level: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let image = RgbImage::from_fn(9, 6, |x, y| Rgb([level, (x * 20) as u8, (y * 30) as u8]));
    image.save_with_format(path, format).unwrap();
}

/// Three classes with seven training images each; a validation part that is flat or in class folders.
fn images(flat: bool) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let mut classes = String::new();
    for i in 0..21u8 {
        let class = format!("n0000000{}", i % 3);
        write(&root.path().join(format!("train/{class}/{class}_{i}.JPEG")), ImageFormat::Jpeg, i);
    }
    for i in 0..6u8 {
        let class = format!("n0000000{}", i / 2);
        let folder = if flat { "validation".into() } else { format!("validation/{class}") };
        write(&root.path().join(format!("{folder}/val_{i}.JPEG")), ImageFormat::Jpeg, 100 + i);
        classes += &format!("{class}\n");
    }
    if flat {
        fs::write(root.path().join(FLAT_LABELS), classes).unwrap();
    }
    root
}

fn options() -> Options {
    Options { train_shards: Some(4), validation_shards: Some(2), ..Options::default() }
}

fn run(source: &Path, out: &Path, options: &Options) -> Result<Prepared> {
    prepare(source, out, options, Show::Nothing, &AtomicBool::new(false))
}

/// Every file below a folder with its bytes.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(content(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

#[test]
fn both_layouts_give_the_same_labels_and_all_bytes_are_kept() {
    for flat in [true, false] {
        let (root, out) = (images(flat), tempfile::tempdir().unwrap());
        let prepared = run(root.path(), out.path(), &options()).unwrap();
        assert_eq!(prepared.classes, ["n00000000", "n00000001", "n00000002"]);
        assert!(prepared.skipped.is_empty() && prepared.reencoded.is_empty());
        let files = content(root.path());
        let mut order = vec![];
        for name in ["train-00000-of-00004", "train-00003-of-00004", "validation-00001-of-00002"] {
            for record in RecordReader::open(&out.path().join(name)).unwrap() {
                let record = record.unwrap();
                let example = Example::parse(&record).unwrap();
                let file = example.text("image/filename").unwrap();
                let synset = example.text("image/class/synset").unwrap();
                let below = match (name.starts_with('t'), flat) {
                    (true, _) => format!("train/{synset}/{file}"),
                    (false, false) => format!("validation/{synset}/{file}"),
                    (false, true) => format!("validation/{file}"),
                };
                assert_eq!(example.bytes("image/encoded").unwrap(), files[&below]);
                assert_eq!(example.int("image/class/label").unwrap().to_string(), next(synset));
                assert_eq!((example.int("image/width"), example.int("image/height")), (Some(9), Some(6)));
                order.push(file.to_owned());
            }
        }
        assert_eq!(order[order.len() - 3..], ["val_3.JPEG", "val_4.JPEG", "val_5.JPEG"]);
        let mut sorted = order.clone();
        sorted.sort();
        assert_ne!(order, sorted, "training images are shuffled");
    }
}

/// The label of a synset that ends with its class: one more.
fn next(synset: &str) -> String {
    (synset[8..].parse::<u32>().unwrap() + 1).to_string()
}

#[test]
fn what_is_no_rgb_jpeg_is_encoded_anew_and_what_is_broken_left_out() {
    let (root, out) = (images(false), tempfile::tempdir().unwrap());
    let class = root.path().join("train/n00000001");
    write(&class.join("really_a_png.JPEG"), ImageFormat::Png, 50);
    write(&class.join("bitmap.bmp"), ImageFormat::Bmp, 60);
    RgbImage::new(3, 3).save(class.join("grey.png")).unwrap();
    image::GrayImage::new(8, 8).save(class.join("grey.jpg")).unwrap();
    fs::write(class.join("text.jpg"), "no image").unwrap();
    let strict = Options { strict: true, ..options() };
    let error = run(root.path(), out.path(), &strict).err().unwrap().to_string();
    assert!(error.contains("text.jpg: not an image"), "{error}");
    let prepared = run(root.path(), out.path(), &options()).unwrap();
    let mut reencoded: Vec<&str> =
        prepared.reencoded.iter().map(|path| path.rsplit('/').next().unwrap()).collect();
    reencoded.sort_unstable();
    assert_eq!(reencoded, ["bitmap.bmp", "grey.png", "really_a_png.JPEG"]);
    assert!(prepared.skipped[0].origin.ends_with("text.jpg"));
    assert_eq!(prepared.parts[0].images, 21 + 4);

    let back = tempfile::tempdir().unwrap();
    let located = locate(out.path().to_str().unwrap()).unwrap().unwrap();
    let unpack = |layout, stop: bool| {
        let stop = AtomicBool::new(stop);
        unpack(&located, back.path(), layout, &RecordOptions::default(), Show::Nothing, &stop).unwrap()
    };
    assert!(unpack(Layout::Classes, true).interrupted);
    assert_eq!(unpack(Layout::Classes, false).written, 31);
    let again = unpack(Layout::Classes, false);
    assert_eq!((again.written, again.kept), (0, 31));
    let (before, after) = (content(root.path()), content(back.path()));
    let original = |name: &&String| before.get(*name) == after.get(*name);
    assert_eq!(after.keys().filter(original).count(), 28);
    let difference = |name: &str| {
        let pixels = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().into_rgb8();
        let (one, other) = (pixels(&before[name]), pixels(&after[&name.replace(".bmp", ".bmp.jpg")]));
        one.as_raw().iter().zip(other.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    };
    for name in ["train/n00000001/really_a_png.JPEG", "train/n00000001/bitmap.bmp"] {
        assert!(difference(name) <= 4, "{name}: {}", difference(name));
    }
    fs::write(back.path().join("train/n00000001/grey.jpg"), "changed").unwrap();
    let stop = AtomicBool::new(false);
    let options = RecordOptions::default();
    let error = super::unpack(&located, back.path(), Layout::Classes, &options, Show::Nothing, &stop);
    assert!(error.err().unwrap().to_string().contains("grey.jpg: is there already, with other bytes"));
}

#[test]
fn a_flat_part_comes_back_with_its_labels() {
    let (root, out, back) = (images(true), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for schema in Schema::ALL {
        let (out, back) = (out.path().join(schema.to_string()), back.path().join(schema.to_string()));
        run(root.path(), &out, &Options { schema, ..options() }).unwrap();
        let located = locate(out.to_str().unwrap()).unwrap().unwrap();
        let stop = AtomicBool::new(false);
        unpack(&located, &back, Layout::Flat, &RecordOptions::default(), Show::Nothing, &stop).unwrap();
        assert_eq!(content(&back), content(root.path()), "{schema}");
    }
}

#[test]
fn an_interrupted_run_goes_on_and_gives_the_same_bytes() {
    let (root, whole, parts) = (images(false), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(root.path(), whole.path(), &options()).unwrap();
    let stop = AtomicBool::new(true);
    let stopped = prepare(root.path(), parts.path(), &options(), Show::Nothing, &stop).unwrap();
    assert!(stopped.interrupted);
    assert_eq!(content(parts.path()).keys().collect::<Vec<_>>(), ["prepare.jsonl"]);
    run(root.path(), parts.path(), &options()).unwrap();
    // As a kill leaves it: a shard is missing, one is half written, and a line of the journal is cut short.
    fs::remove_file(parts.path().join("train-00001-of-00004")).unwrap();
    fs::write(parts.path().join(".unfinished-train-00001-of-00004"), "half").unwrap();
    let journal = parts.path().join("prepare.jsonl");
    let lines = fs::read(&journal).unwrap();
    fs::write(&journal, &lines[..lines.len() - 9]).unwrap();
    let kept = fs::metadata(parts.path().join("train-00000-of-00004")).unwrap().modified().unwrap();
    let prepared = run(root.path(), parts.path(), &options()).unwrap();
    let counts: Vec<_> = prepared.parts.iter().map(|part| (part.shards, part.done, part.kept)).collect();
    assert_eq!(counts, [(4, 4, 3), (2, 2, 1)]);
    assert_eq!(fs::metadata(parts.path().join("train-00000-of-00004")).unwrap().modified().unwrap(), kept);
    let (mut one, mut other) = (content(whole.path()), content(parts.path()));
    for files in [&mut one, &mut other] {
        files.remove("prepare.jsonl");
    }
    assert_eq!(one, other);
}

#[test]
fn shards_that_were_made_otherwise_are_not_mixed() {
    let (root, out) = (images(false), tempfile::tempdir().unwrap());
    run(root.path(), out.path(), &options()).unwrap();
    let refused = |options: &Options| run(root.path(), out.path(), options).err().unwrap().to_string();
    for (options, difference) in [
        (Options { seed: 1, ..options() }, "with --seed 0, not 1"),
        (Options { schema: Schema::Inception, ..options() }, "with --schema imagenet, not inception"),
        (Options { label_offset: Some(0), ..options() }, "with --label-offset 1, not 0"),
        (Options { train_shards: Some(5), ..options() }, "with other numbers of shards"),
    ] {
        let error = refused(&options);
        assert!(error.contains(difference) && error.contains("choose another folder"), "{error}");
    }
    let image = root.path().join("train/n00000000/n00000000_0.JPEG");
    write(&image, ImageFormat::Jpeg, 77);
    assert!(refused(&options()).contains("from other files"));
    fs::remove_file(&image).unwrap();
    assert!(refused(&options()).contains("from 27 images, there are 26 now"));
    fs::remove_file(out.path().join("prepare.jsonl")).unwrap();
    assert!(refused(&options()).contains("holds shards already"));
}

#[test]
fn two_runs_at_once_do_not_write_into_one_folder() {
    let out = tempfile::tempdir().unwrap();
    let header = Header::new(Schema::Imagenet, 1, 0);
    let _first = Journal::open(out.path(), &header).unwrap();
    let error = Journal::open(out.path(), &header).err().unwrap().to_string();
    assert!(error.contains("another `tallow data prepare` is writing here"), "{error}");
}

#[test]
fn names_in_shards_cannot_lead_out_of_the_folder() {
    let out = tempfile::tempdir().unwrap();
    let image = fs::read(images(false).path().join("train/n00000000/n00000000_0.JPEG")).unwrap();
    let mut file = vec![];
    for (name, class) in
        [("../../evil.jpg", ".."), ("/etc/evil.jpg", "a/../../b"), ("", "a/../../b"), ("..", "..")]
    {
        let label = i64::from(class != "..");
        let features = [
            ("image/encoded", tallow_tensorflow::example::Feature::bytes(&image)),
            ("image/class/label", tallow_tensorflow::example::Feature::int(label + 1)),
            ("image/class/synset", tallow_tensorflow::example::Feature::bytes(class)),
            ("image/filename", tallow_tensorflow::example::Feature::bytes(name)),
        ];
        tallow_tensorflow::record::write_record(&mut file, &Example::from_iter(features).encode()).unwrap();
    }
    fs::write(out.path().join("x.tfrecord"), file).unwrap();
    let located = locate(out.path().join("x.tfrecord").to_str().unwrap()).unwrap().unwrap();
    let back = out.path().join("deep/er");
    let stop = AtomicBool::new(false);
    unpack(&located, &back, Layout::Classes, &RecordOptions::default(), Show::Nothing, &stop).unwrap();
    let names: Vec<String> = content(out.path()).into_keys().collect();
    assert_eq!(
        names,
        [
            "deep/er/x/_../_...jpg",
            "deep/er/x/_../evil.jpg",
            "deep/er/x/a_.._.._b/00000002.jpg",
            "deep/er/x/a_.._.._b/evil.jpg",
            "x.tfrecord"
        ]
    );
}

#[test]
fn bytes_that_nothing_can_decode_are_unpacked_and_counted() {
    use tallow_tensorflow::example::Feature;

    let folder = tempfile::tempdir().unwrap();
    let image = fs::read(images(false).path().join("train/n00000000/n00000000_0.JPEG")).unwrap();
    let mut file = vec![];
    for (name, bytes) in [("a.jpg", &image[..]), ("b.jpg", b"no image"), ("c", b"no image")] {
        let features = [
            ("image/encoded", Feature::bytes(bytes)),
            ("image/class/label", Feature::int(1)),
            ("image/filename", Feature::bytes(name)),
        ];
        tallow_tensorflow::record::write_record(&mut file, &Example::from_iter(features).encode()).unwrap();
    }
    fs::write(folder.path().join("validation.tfrecord"), file).unwrap();
    let located = locate(folder.path().to_str().unwrap()).unwrap().unwrap();
    let (back, stop) = (folder.path().join("back"), AtomicBool::new(false));
    let unpacked =
        unpack(&located, &back, Layout::Flat, &RecordOptions::default(), Show::Nothing, &stop).unwrap();
    assert_eq!((unpacked.written, unpacked.skipped.len(), unpacked.undecodable.len()), (3, 0, 2));
    assert!(unpacked.undecodable[0].origin.ends_with("back/validation/b.jpg"));
    assert_eq!(fs::read(back.join("validation/b.jpg")).unwrap(), b"no image");
    // One line for each file that is called as an image is.
    assert_eq!(fs::read_to_string(back.join(FLAT_LABELS)).unwrap(), "class 1\nclass 1\n");
}

#[test]
fn ctrl_c_between_images_leaves_no_half_written_shard() {
    let (root, out) = (images(false), tempfile::tempdir().unwrap());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !out.path().join("prepare.jsonl").exists() {
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
        });
        prepare(root.path(), out.path(), &options(), Show::Nothing, &stop).unwrap();
    });
    assert!(content(out.path()).keys().all(|name| !name.starts_with('.')));
}

#[test]
fn bad_sources_are_refused() {
    let out = tempfile::tempdir().unwrap();
    let refused = |root: &Path| run(root, &out.path().join("out"), &options()).err().unwrap().to_string();
    assert!(refused(Path::new("nowhere")).contains("no such folder: nowhere"));
    let root = images(true);
    fs::write(root.path().join(FLAT_LABELS), "n00000000\n").unwrap();
    assert!(refused(root.path()).contains("synset_labels.txt: 1 lines for 6 images"));
    // A slip in one line must not become a class that shifts the labels of all that follow.
    fs::write(root.path().join(FLAT_LABELS), "n00000000\n".repeat(5) + "n0000001\n").unwrap();
    let error = refused(root.path());
    assert!(
        error.contains("synset_labels.txt: line 6: the class n0000001 has no training images"),
        "{error}"
    );
    assert!(error.contains("did you mean n00000001?"), "{error}");
    fs::remove_file(root.path().join(FLAT_LABELS)).unwrap();
    assert!(refused(root.path()).contains("images without class folders"));
    fs::create_dir(root.path().join("train/empty")).unwrap();
    assert!(refused(root.path()).contains("no images in the class folder"));
    let root = images(false);
    let validation = root.path().join("validation");
    fs::rename(validation.join("n00000001"), validation.join("n0000001")).unwrap();
    let error = refused(root.path());
    assert!(error.contains("validation/n0000001: the class n0000001 has no training images"), "{error}");
    let share = Options { validation_share: Some(0.2), ..options() };
    let error = run(images(false).path(), &out.path().join("out"), &share).err().unwrap().to_string();
    assert!(error.contains("validation-share = 0.2: has no effect"), "{error}");
    assert!(!out.path().join("out").exists());
}

#[test]
fn shards_that_lost_records_are_found_and_made_again() {
    use crate::data::tfrecord::verify::verify;

    let (source, out) = (images(true), tempfile::tempdir().unwrap());
    run(source.path(), out.path(), &options()).unwrap();
    let whole = content(out.path());
    let damaged = out.path().join("train-00001-of-00004");
    let first = RecordReader::open(&damaged).unwrap().next().unwrap().unwrap().len();
    let one = tallow_tensorflow::record::framed_len(first);
    fs::OpenOptions::new().write(true).open(&damaged).unwrap().set_len(one).unwrap();
    let problems = || {
        let located = locate(out.path().to_str().unwrap()).unwrap().unwrap();
        let stop = AtomicBool::new(false);
        verify(&located, &RecordOptions::default(), false, Show::Nothing, &stop).problems
    };
    let found = problems();
    assert!(found.len() == 1 && found[0].contains("train-00001-of-00004: 1 records, "), "{found:?}");
    run(source.path(), out.path(), &options()).unwrap();
    assert!(problems().is_empty());
    let shards = |content: BTreeMap<String, Vec<u8>>| -> Vec<_> {
        content.into_iter().filter(|(name, _)| name.contains("-of-")).collect()
    };
    assert!(shards(content(out.path())) == shards(whole));
}

#[test]
fn nothing_of_others_is_overwritten() {
    let source = images(true);
    let refused = |names: &[&str]| {
        let out = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| fs::write(out.path().join(name), "theirs").unwrap());
        let error = run(source.path(), out.path(), &options()).err().unwrap().to_string();
        assert!(content(out.path()).values().all(|bytes| bytes == b"theirs"));
        error
    };
    assert!(refused(&["labels.txt"]).contains("holds a labels.txt of another's"));
    assert!(refused(&["features.json"]).contains("holds a features.json of another's"));
    assert!(refused(&["train-00000-of-00001"]).contains("holds shards already"));
    let error = refused(&["config.toml", "network.json", "labels.txt"]);
    assert!(error.contains("is the folder of a training run: choose another folder"), "{error}");
    let notes = tempfile::tempdir().unwrap();
    fs::write(notes.path().join("README.md"), "theirs").unwrap();
    run(source.path(), notes.path(), &options()).unwrap();
}
