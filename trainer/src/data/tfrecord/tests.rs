use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};
use tallow_tensorflow::example::Feature;
use tallow_tensorflow::record::write_record;
use tempfile::TempDir;

use super::*;
use crate::data::loader::{Batch, Loader, LoaderOptions, Transform};

/// A PNG image of 2x2 pixels of one level.
pub(super) fn png(level: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    RgbImage::from_pixel(2, 2, Rgb([level; 3])).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// An example with ImageNet's keys.
pub(super) fn example(image: &[u8], label: i64, synset: &str) -> Vec<u8> {
    Example::from_iter([
        ("image/encoded", Feature::bytes(image)),
        ("image/class/label", Feature::int(label)),
        ("image/class/synset", Feature::bytes(synset)),
    ])
    .encode()
}

pub(super) fn write_shard(path: &Path, examples: &[Vec<u8>]) {
    let mut bytes = vec![];
    examples.iter().for_each(|example| write_record(&mut bytes, example).unwrap());
    fs::write(path, bytes).unwrap();
}

/// Two training shards of 20 records and a validation shard of 6, with classes a, b and c, labels from 1. Record i has
/// level i and class i modulo 3.
pub(super) fn shards() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let record = |i: usize| example(&png(i as u8), 1 + i as i64 % 3, ["a", "b", "c"][i % 3]);
    let write = |name: &str, records: std::ops::Range<usize>| {
        write_shard(&folder.path().join(name), &records.map(record).collect::<Vec<_>>());
    };
    write("train-00000-of-00002", 0..20);
    write("train-00001-of-00002", 20..40);
    write("validation-00000-of-00001", 40..46);
    folder
}

pub(super) fn opened(source: &str, options: &RecordOptions) -> Result<Splits> {
    Splits::open(source, SplitOptions::default(), Some(options), None)
}

pub(super) fn text(folder: &TempDir) -> &str {
    folder.path().to_str().unwrap()
}

pub(super) fn problem(source: &str, options: &RecordOptions) -> String {
    let error = opened(source, options).err().expect("it must be refused").to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

/// Levels and labels of all samples.
fn contents(set: &dyn Dataset) -> Vec<(u8, u32)> {
    let one =
        |index| set.load(index).map(|sample| (sample.image.get_pixel(0, 0).0[0], sample.label)).unwrap();
    (0..set.len()).map(one).collect()
}

struct Level;

impl Transform for Level {
    fn output_size(&self) -> (usize, usize) {
        (1, 1)
    }
    fn apply(&self, image: RgbImage, _: &mut Rng, out: &mut [f32]) -> Result<()> {
        out.fill(f32::from(image.get_pixel(0, 0).0[0]));
        Ok(())
    }
}

pub(super) fn loader(set: Arc<dyn Dataset>, workers: usize, strict: bool) -> Loader {
    let options =
        LoaderOptions { batch_size: 7, shuffle: true, workers, strict, seed: 3, ..LoaderOptions::default() };
    Loader::new(set, Arc::new(Level), options).unwrap()
}

#[test]
fn a_folder_of_shards_is_a_data_set_with_the_classes_that_its_records_name() {
    let folder = shards();
    let splits = opened(text(&folder), &RecordOptions::default()).unwrap();
    assert_eq!(splits.train.classes(), ["a", "b", "c"]);
    assert_eq!(splits.label_offset, Some(1));
    let expected = |levels: std::ops::Range<u8>| levels.map(|i| (i, u32::from(i) % 3)).collect::<Vec<_>>();
    assert_eq!(contents(&*splits.train), expected(0..40));
    assert_eq!(contents(&*splits.validation), expected(40..46));
    let origin = splits.train.origin(20);
    assert!(origin.ends_with("train-00001-of-00002: record at byte 0"), "{origin}");
}

#[test]
fn a_resumed_epoch_goes_on_where_it_stopped_whatever_the_number_of_workers() {
    let folder = shards();
    let options = RecordOptions { cycle: 2, buffer: 5, ..RecordOptions::default() };
    let open = || opened(text(&folder), &options).unwrap().train;
    let batches = |loader: Loader, epoch, first| -> Vec<Batch> {
        loader.epoch(epoch, first).unwrap().map(Result::unwrap).collect()
    };
    let whole = batches(loader(open(), 1, true), 4, 0);
    let levels: Vec<f32> = whole.iter().flat_map(|batch| batch.floats().into_owned()).step_by(3).collect();
    let mut sorted = levels.clone();
    sorted.sort_by(f32::total_cmp);
    assert_eq!(sorted, (0..40).map(|i| i as f32).collect::<Vec<_>>());
    assert_ne!(levels, sorted);
    for first in 0..=whole.len() {
        assert_eq!(batches(loader(open(), 3, true), 4, first), whole[first..]);
    }
    assert_ne!(batches(loader(open(), 1, true), 5, 0), whole);
}

#[test]
fn patterns_name_shards_and_validation_lies_beside_them() {
    let folder = shards();
    let at = |pattern: &str| format!("{}/{pattern}", text(&folder));
    let lengths = |pattern: &str| {
        let splits = opened(&at(pattern), &RecordOptions::default()).unwrap();
        (splits.train.len(), splits.validation.len())
    };
    assert_eq!(lengths("train-*"), (40, 6));
    assert_eq!(lengths("*"), (40, 6));
    assert_eq!(lengths("train-00001-of-00002"), (20, 6));
    assert_eq!(lengths("train-0000[0]-*"), (20, 6));
    let none = problem(&at("x-*"), &RecordOptions::default());
    assert!(none.contains("x-*: no shards fit"), "{none}");
    let located = locate(&at("validation-*")).unwrap().unwrap();
    assert_eq!(Records::open(&located, &RecordOptions::default(), None).unwrap().len(), 6);
}

#[test]
fn a_share_is_held_out_where_there_is_no_validation() {
    let folder = shards();
    fs::remove_file(folder.path().join("validation-00000-of-00001")).unwrap();
    let splits = opened(text(&folder), &RecordOptions::default()).unwrap();
    let (train, held_out) = (contents(&*splits.train), contents(&*splits.validation));
    assert_eq!((train.len(), held_out.len()), (32, 8));
    let mut all = [train, held_out.clone()].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 40);
    assert_eq!(contents(&*opened(text(&folder), &RecordOptions::default()).unwrap().validation), held_out);
}

#[test]
fn a_missing_shard_is_named() {
    let folder = shards();
    fs::rename(folder.path().join("train-00000-of-00002"), folder.path().join("away")).unwrap();
    for source in [text(&folder).to_owned(), format!("{}/train-*", text(&folder))] {
        let error = problem(&source, &RecordOptions::default());
        assert!(error.contains("1 of the 2 train shards are missing: train-00000-of-00002"), "{error}");
    }
    let some = format!("{}/train-00001-of-*", text(&folder));
    assert_eq!(opened(&some, &RecordOptions::default()).unwrap().train.len(), 20);
}

#[test]
fn labels_may_start_at_0_or_1_and_it_is_said_which() {
    let folder = shards();
    let classes = |options: &RecordOptions| opened(text(&folder), options).unwrap().train.classes().to_vec();
    let offset = |offset| RecordOptions { label_offset: Some(offset), ..RecordOptions::default() };
    assert_eq!(classes(&offset(0)), ["background", "a", "b", "c"]);
    // Names beside the shards are those of the labels from 1 on, too.
    fs::write(folder.path().join(LABELS_FILE), "x\ny\nz\n").unwrap();
    assert_eq!(classes(&RecordOptions::default()), ["x", "y", "z"]);
    assert_eq!(classes(&offset(0)), ["background", "x", "y", "z"]);
    // A file that is named by the user is taken as it is.
    let names = folder.path().join("names");
    fs::write(&names, "0:p\n1:q\n2:r\n3:s\n").unwrap();
    assert_eq!(classes(&RecordOptions { labels: Some(names), ..offset(0) }), ["p", "q", "r", "s"]);
    // Labels that start at 0 where 1 is usual: nothing is guessed, and then names count from 0.
    write_shard(&folder.path().join("train-00000-of-00002"), &[example(&png(1), 0, "a")]);
    let error = problem(text(&folder), &RecordOptions::default());
    assert!(error.contains("it has the label 0") && error.contains("--label-offset 0"), "{error}");
    assert_eq!(classes(&offset(0)), ["x", "y", "z"]);
}

#[test]
fn classes_that_contradict_themselves_are_refused() {
    let folder = shards();
    write_shard(&folder.path().join("train-00001-of-00002"), &[example(&png(1), 2, "other")]);
    let error = problem(text(&folder), &RecordOptions::default());
    assert!(error.contains("label 2 is named") && error.contains("--labels"), "{error}");
    let known = ["a", "q", "c"].map(String::from);
    let split = SplitOptions::default();
    let known = Known { classes: &known, label_offset: None };
    let error = Splits::open(text(&folder), split, None, Some(known)).err().unwrap().to_string();
    assert!(error.contains("its class is called b, not q"), "{error}");
}

#[test]
fn records_that_are_no_labelled_images_are_left_out_and_counted() {
    let folder = shards();
    let no_image = Example::from_iter([("image/class/label", Feature::int(1))]).encode();
    let no_label = Example::from_iter([("image/encoded", Feature::bytes("x"))]).encode();
    let odd = [
        example(&png(1), 1, "a"),
        no_image,
        no_label,
        example(&png(2), 4, ""),
        example(&png(2), -1, ""),
        example(b"text", 1, "a"),
        b"no example at all".to_vec(),
        vec![],
    ];
    write_shard(&folder.path().join("train-00001-of-00002"), &odd);
    fs::write(folder.path().join(LABELS_FILE), "a\nb\nc\n").unwrap();
    let train = opened(text(&folder), &RecordOptions::default()).unwrap().train;
    let loader = |strict| loader(train.clone(), 2, strict);
    let tolerant = loader(false);
    let count: usize = tolerant.epoch(0, 0).unwrap().map(|batch| batch.unwrap().len()).sum();
    assert_eq!(count, 21);
    let skipped = tolerant.skipped();
    let reasons: Vec<&str> = skipped.iter().map(|skipped| skipped.reason.as_str()).collect();
    for reason in [
        "it has no image `image/encoded`",
        "it has no label `image/class/label`",
        "its label 4 is out of range: the classes are 1 to 3",
        "its label -1 is out of range: the classes are 1 to 3",
        "not an image in a supported format (JPEG, PNG, WebP, BMP)",
        "no example: a wire type that is not in use at its byte 1",
    ] {
        assert!(reasons.contains(&reason), "{reason}: {reasons:?}");
    }
    assert_eq!(reasons.len(), 7, "{reasons:?}");
    assert!(skipped.iter().all(|skipped| skipped.origin.contains("train-00001-of-00002: record at byte ")));
    assert!(loader(true).epoch(0, 0).unwrap().any(|batch| matches!(batch, Err(Error::Image { .. }))));
}

#[test]
fn a_broken_frame_is_an_error_with_its_place_strict_or_not() {
    let folder = shards();
    let path = folder.path().join("train-00001-of-00002");
    let sound = fs::read(&path).unwrap();
    let name = path.display().to_string();
    // A flipped bit of the first length, and a cut: found when the data is opened.
    for (bytes, what) in [
        ([&[sound[0] ^ 1], &sound[1..]].concat(), "the checksum of a record's length is wrong"),
        (sound[..sound.len() - 1].to_vec(), "the file ends within a record of"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = problem(text(&folder), &RecordOptions::default());
        assert!(error.contains(&format!("{name}: damaged at byte ")) && error.contains(what), "{error}");
    }
    // A flipped bit of the last record's data: found when it is read.
    let mut flipped = sound.clone();
    let at = sound.len() - 8;
    flipped[at] ^= 4;
    fs::write(&path, flipped).unwrap();
    let train = opened(text(&folder), &RecordOptions::default()).unwrap().train;
    let error = loader(train, 2, false).epoch(0, 0).unwrap().find_map(Result::err).unwrap();
    assert!(matches!(error, Error::Records(_)), "{error}");
    assert!(error.to_string().contains("the checksum of a record of"), "{error}");
}

#[test]
fn tensorflow_datasets_tells_features_and_classes_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let version = folder.path().join("birds/1.0.0");
    fs::create_dir_all(&version).unwrap();
    let record = |i: u8| {
        let png = png(i);
        let features = [("photo", Feature::bytes(&png)), ("kind", Feature::int(i64::from(i % 2)))];
        Example::from_iter(features).encode()
    };
    write_shard(&version.join("birds-train.tfrecord-00000-of-00001"), &[record(0), record(1), record(2)]);
    write_shard(&version.join("birds-test.tfrecord-00000-of-00001"), &[record(3)]);
    fs::write(version.join("dataset_info.json"), "{}").unwrap();
    let feature = |class: &str| format!("\"pythonClassName\": \"tensorflow_datasets.core.features.{class}\"");
    let json = format!(
        r#"{{{}, "featuresDict": {{"features": {{"photo": {{{}, "image": {{}}}},
        "kind": {{{}, "classLabel": {{"numClasses": "2"}}}}}}}}}}"#,
        feature("features_dict.FeaturesDict"),
        feature("image_feature.Image"),
        feature("class_label_feature.ClassLabel"),
    );
    fs::write(version.join("features.json"), json).unwrap();
    for source in [folder.path().join("birds"), version.clone()] {
        let splits = opened(source.to_str().unwrap(), &RecordOptions::default()).unwrap();
        assert_eq!(splits.train.classes(), ["0", "1"]);
        assert_eq!((splits.label_offset, splits.validation.len()), (Some(0), 1));
        assert_eq!(contents(&*splits.train), [(0, 0), (1, 1), (2, 0)]);
    }
    fs::write(version.join("kind.labels.txt"), "great tit\nwren\n").unwrap();
    let splits = opened(version.to_str().unwrap(), &RecordOptions::default()).unwrap();
    assert_eq!(splits.train.classes(), ["great tit", "wren"]);
    fs::write(version.join("features.json"), "{}").unwrap();
    let error = problem(version.to_str().unwrap(), &RecordOptions::default());
    assert!(error.contains("features.json: missing field `featuresDict`"), "{error}");
}

pub(super) fn verified(folder: &TempDir) -> verify::Verified {
    let located = locate(text(folder)).unwrap().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    verify::verify(&located, &RecordOptions::default(), true, crate::tally::Show::Nothing, &stop)
}

#[test]
fn verification_names_everything_that_is_wrong() {
    let folder = shards();
    let run = || verified(&folder);
    let sound = run();
    assert_eq!((sound.files, sound.records, sound.problems.len()), (3, 46, 0), "{sound:?}");
    fs::remove_file(folder.path().join("train-00000-of-00002")).unwrap();
    let path = folder.path().join("train-00001-of-00002");
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    bytes.truncate(bytes.len() - 3);
    fs::write(&path, bytes).unwrap();
    let odd = [example(b"text", 1, "a"), example(&png(0), 7, "z"), example(&png(0), 2, "b")];
    write_shard(&folder.path().join("validation-00000-of-00001"), &odd);
    fs::write(folder.path().join(LABELS_FILE), "a\nb\nc\n").unwrap();
    let found = run();
    for (problem, expected) in found.problems.iter().zip([
        "train-00000-of-00002: missing, one of 2",
        "train-00001-of-00002: damaged at byte 0: the checksum of a record of",
        "train-00001-of-00002: damaged at byte",
        "validation-00000-of-00001: record at byte 0: not an image",
        ": its label 7 is out of range: the classes are 1 to 3",
    ]) {
        assert!(problem.contains(expected), "{expected}: {problem}");
    }
    assert_eq!((found.problems.len(), found.records), (5, 19), "{found:?}");
}

#[test]
fn verification_knows_how_many_records_tensorflow_datasets_tells_of() {
    let folder = shards();
    let info = |train: &str| {
        let text = format!(
            r#"{{"splits": [{{"name": "train", "shardLengths": {train}}}, {{"name": "validation"}}]}}"#
        );
        fs::write(folder.path().join("dataset_info.json"), text).unwrap();
        verified(&folder).problems
    };
    assert_eq!(info(r#"["20", "20"]"#), <[String; 0]>::default());
    let [short] = &info(r#"["20", 21]"#)[..] else { panic!() };
    assert!(
        short.contains("train-00001-of-00002: 20 records, 21 were written, says dataset_info.json"),
        "{short}"
    );
    let [less] = &info(r#"["40"]"#)[..] else { panic!() };
    assert!(less.ends_with("1 train shards, says dataset_info.json, but the files say 2"), "{less}");
    assert!(info("7")[0].contains("dataset_info.json: damaged: "));
}

#[test]
fn verification_reports_two_sets_of_one_split_as_training_refuses_them() {
    let folder = shards();
    fs::copy(folder.path().join("train-00000-of-00002"), folder.path().join("train-00000-of-00001")).unwrap();
    let refused = problem(text(&folder), &RecordOptions::default());
    assert!(refused.contains("two sets of train shards"), "{refused}");
    assert_eq!(verified(&folder).problems, [refused]);
}

#[test]
fn a_broken_length_is_one_problem_and_what_lies_before_it_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-00000-of-00001");
    let first = [example(&png(0), 1, "a"), example(b"text", 2, "b")];
    for (records, found) in [(&first[..0], 0), (&first[..1], 1), (&first[..], 1)] {
        write_shard(&path, &[records, &[example(&png(1), 2, "b")]].concat());
        let mut bytes = fs::read(&path).unwrap();
        let start: u64 = records.iter().map(|r| tallow_tensorflow::record::framed_len(r.len())).sum();
        bytes[start as usize] ^= 1;
        fs::write(&path, bytes).unwrap();
        let verified = verified(&folder);
        assert_eq!(
            (verified.records, verified.problems.len()),
            (found, 1.max(records.len())),
            "{verified:?}"
        );
        let last = verified.problems.last().unwrap();
        assert!(
            last.contains(&format!("damaged at byte {start}: the checksum of a record's length")),
            "{last}"
        );
    }
}
