//! Data that cannot be trained on: one line, nothing written; single broken images are left out.

use std::fs;
use std::path::Path;

use crate::support::{QUICK, cut, typed, workplace};

/// Training on `data` must fail with `parts`, and make no run.
#[track_caller]
fn refused(folder: &Path, data: &str, parts: &[&str]) {
    typed(folder, &format!("{QUICK} --data {data} --run run")).fails(1, parts);
    assert!(!folder.join("run").exists());
}

#[test]
fn broken_images_are_left_out_and_counted() {
    let folder = workplace();
    let red = folder.path().join("data/train/red");
    cut(&red.join("1.jpg"));
    fs::write(red.join("text.jpg"), "no image").unwrap();
    fs::write(red.join("empty.png"), "").unwrap();
    cut(&folder.path().join("data/validation/green/0.png"));

    let out = typed(folder.path(), &format!("{QUICK} --data data --run run")).ok();
    assert!(out.contains("4 images could not be used:"), "{out}");
    for line in [
        "data/train/red/1.jpg: the image is cut short",
        "data/train/red/text.jpg: not an image in a supported format",
        "data/train/red/empty.png: the file is empty",
        "data/validation/green/0.png: the image is cut short",
    ] {
        assert!(out.contains(line), "{line} in {out}");
    }
    let found = typed(folder.path(), "eval run --json").json();
    assert!(found["skipped"][0]["origin"].as_str().unwrap().ends_with("/data/validation/green/0.png"));

    typed(folder.path(), &format!("{QUICK} --data data --run strict --strict"))
        .fails(1, &["data/train/red/"]);
    typed(folder.path(), "eval run --strict")
        .fails(1, &["data/validation/green/0.png: the image is cut short"]);
}

#[test]
fn a_class_without_images() {
    let folder = workplace();
    let class = folder.path().join("data/train/yellow");
    fs::create_dir(&class).unwrap();
    refused(
        folder.path(),
        "data",
        &["no images in the class folder", "data/train/yellow", "remove the folder"],
    );
    fs::write(class.join("moving.gif"), "GIF89a").unwrap();
    refused(folder.path(), "data", &["data/train/yellow", ".gif", "add jpg"]);
}

#[test]
fn a_class_of_broken_images() {
    let folder = workplace();
    for entry in fs::read_dir(folder.path().join("data/train/red")).unwrap() {
        fs::write(entry.unwrap().path(), "no image").unwrap();
    }
    typed(folder.path(), &format!("{QUICK} --data data --run run")).fails(
        1,
        &["none of the 8 images of class red could be used", "data/train/red/", "remove the class"],
    );
}

#[test]
fn a_run_that_failed_before_its_first_checkpoint_is_begun_anew() {
    let folder = workplace();
    let broken = folder.path().join("data/train/red/text.jpg");
    fs::write(&broken, "no image").unwrap();
    let line = format!("{QUICK} --data data --run run --strict");
    typed(folder.path(), &line).fails(1, &["data/train/red/text.jpg"]);
    fs::remove_file(&broken).unwrap();
    typed(folder.path(), &line).ok();
}

#[test]
fn one_class_is_not_enough() {
    let folder = workplace();
    for class in ["green", "blue sky"] {
        fs::remove_dir_all(folder.path().join("data/train").join(class)).unwrap();
    }
    refused(folder.path(), "data", &["only one class (red)", "data/train", "at least two"]);
}

#[test]
fn classes_that_differ_between_training_and_validation() {
    let folder = workplace();
    let validation = folder.path().join("data/validation");
    fs::rename(validation.join("red"), validation.join("rot")).unwrap();
    refused(
        folder.path(),
        "data",
        &["data/train", "data/validation", "only in training: red", "only in validation: rot"],
    );
}

#[test]
fn no_folder_and_no_classes() {
    let folder = workplace();
    refused(folder.path(), "nowhere", &["no such folder: nowhere", "train/<class>/<image>"]);
    fs::write(folder.path().join("file"), "").unwrap();
    refused(folder.path(), "file", &["no such folder: file"]);
    fs::create_dir(folder.path().join("empty")).unwrap();
    refused(folder.path(), "empty", &["no class folders in empty", "<class>/<image>"]);
}

#[test]
fn evaluation_needs_the_classes_of_the_model() {
    let folder = workplace();
    typed(folder.path(), &format!("{QUICK} --data data --run run")).ok();
    typed(folder.path(), "eval run --data digits").fails(1, &["0, 1, 2, …, 9 (10)", "blue sky, green, red"]);
    typed(folder.path(), "eval run --data nowhere").fails(1, &["no such folder: nowhere"]);
    typed(folder.path(), "eval nowhere").fails(1, &["nowhere does not exist"]);
    typed(folder.path(), "eval data")
        .fails(1, &["data is neither a run directory nor a SavedModel of Tallow's"]);
}

#[cfg(unix)]
#[test]
fn names_that_are_not_unicode() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use crate::support::tallow;

    let folder = workplace();
    let at = folder.path();
    let name = |bytes: &'static [u8]| OsStr::from_bytes(bytes);
    // Files, runs and models may be called anything.
    fs::rename(at.join("data/train/red/0.png"), at.join("data/train/red").join(name(b"\xff.png"))).unwrap();
    let train = || QUICK.split(' ').map(OsStr::new);
    let run = name(b"run-\xff");
    let flags = [OsStr::new("--data"), OsStr::new("data"), OsStr::new("--run"), run, OsStr::new("--json")];
    tallow(at, train().chain(flags)).ok();
    tallow(at, [OsStr::new("export"), run]).ok();
    let image = Path::new("data/train/red").join(name(b"\xff.png"));
    let predict = ["predict", "--engine", "tract", "--json"].map(OsStr::new);
    let json = tallow(at, predict.into_iter().chain([run, image.as_os_str()])).json();
    assert_eq!(json[0]["predictions"].as_array().unwrap().len(), 3);
    // Labels and settings are text.
    fs::rename(at.join("data/train/red"), at.join("data/train").join(name(b"r\xff"))).unwrap();
    refused(at, "data", &["not valid UTF-8", "rename it"]);
    fs::rename(at.join("data"), at.join(name(b"data-\xff"))).unwrap();
    let flags = [OsStr::new("--data"), name(b"data-\xff")];
    tallow(at, train().chain(flags)).fails(2, &["not valid UTF-8", "rename"]);
}
