//! `tallow data`: shards of a folder and back, what they hold, what is wrong with them, and training on them.

use std::fs;
use std::path::Path;

use crate::support::{QUICK, content, cut, images, typed, workplace};

/// The shards of `data/` in `shards/`.
fn with_shards() -> tempfile::TempDir {
    let folder = workplace();
    let out = typed(folder.path(), "data prepare data shards --train-shards 3 --seed 4").ok();
    assert!(out.contains("train: 24 images") && out.contains("in 3 shards"), "{out}");
    assert!(out.contains("validation: 9 images"), "{out}");
    assert!(out.contains("24 images re-encoded"), "{out}");
    assert!(out.contains("3 classes, labels 1 to 3"), "{out}");
    folder
}

#[test]
fn shards_train_evaluate_and_resume_as_the_folder_does() {
    let folder = with_shards();
    let at = folder.path();
    let run = typed(at, &format!("{QUICK} --data shards --run run"));
    assert!(run.err.contains("labels 1 to 3 are the classes"), "{run:#?}");
    run.ok();
    let config = fs::read_to_string(at.join("run/config.toml")).unwrap();
    assert!(config.contains("[records]") && config.contains("label_offset = 1"), "{config}");
    assert_eq!(fs::read_to_string(at.join("run/labels.txt")).unwrap(), "blue sky\ngreen\nred\n");
    let found = typed(at, "eval run --json").json();
    assert_eq!(found["images"], 9);
    for data in ["shards", "shards/validation-*", "shards/validation-00000-of-00001"] {
        assert_eq!(typed(at, &format!("eval run --data {data} --json")).json()["top1"], found["top1"]);
    }
    // Re-encoding moves pixels by a level or two, so the folder's loss is near but not the same.
    let folder_loss = typed(at, "eval run --data data --json").json()["loss"].as_f64().unwrap();
    assert!((folder_loss - found["loss"].as_f64().unwrap()).abs() < 0.05);
    typed(at, "train --resume run --epochs 3").ok();

    typed(at, &format!("{QUICK} --data shards --label-offset 0 --run background")).ok();
    let labels = fs::read_to_string(at.join("background/labels.txt")).unwrap();
    assert_eq!(labels, "background\nblue sky\ngreen\nred\n");
    assert_eq!(typed(at, "eval background --data shards --json").json()["images"], 9);
    typed(at, "eval run --data shards --label-offset 0").fails(1, &["background, blue sky, green, red"]);
}

#[test]
fn other_shards_are_read_from_where_they_say_that_labels_start() {
    let folder = with_shards();
    let at = folder.path();
    typed(at, "data prepare data zero --schema tfds").ok();
    typed(at, &format!("{QUICK} --data shards --run from-one")).ok();
    typed(at, &format!("{QUICK} --data zero --run from-zero")).ok();
    typed(at, &format!("{QUICK} --data shards --run background --label-offset 0")).ok();
    let images = |line: &str| typed(at, &format!("{line} --json")).json()["images"].clone();
    assert_eq!(images("eval from-one --data zero"), 9);
    assert_eq!(images("eval from-zero --data shards"), 9);
    assert_eq!(images("eval background --data shards/validation-*"), 9);
    // Shards that do not say are read as those that the run has learned from, unless a flag says otherwise.
    for told in ["prepare.jsonl", "labels.txt"] {
        fs::remove_file(at.join("shards").join(told)).unwrap();
    }
    assert_eq!(images("eval from-one --data shards/validation-*"), 9);
    typed(at, "eval from-zero --data shards").fails(1, &["its class is called blue sky, not green"]);
    assert_eq!(images("eval from-zero --data shards --label-offset 1"), 9);
}

#[test]
fn a_flat_validation_folder_trains_and_evaluates_as_its_shards_do() {
    let folder = with_shards();
    let at = folder.path();
    typed(at, "data unpack shards flat --flat").ok();
    typed(at, &format!("{QUICK} --data flat --run run")).ok();
    let top1 = |data: &str| typed(at, &format!("eval run --data {data} --json")).json()["top1"].clone();
    assert_eq!(top1("flat"), top1("shards"));
    fs::write(at.join("flat/synset_labels.txt"), "red\n".repeat(8) + "rde\n").unwrap();
    for line in
        [&*format!("{QUICK} --data flat --run other"), "eval run --data flat", "data prepare flat out"]
    {
        typed(at, line).fails(1, &["flat/synset_labels.txt: line 9: the class rde", "did you mean red?"]);
    }
}

#[test]
fn a_run_on_shards_that_is_stopped_and_resumed_gives_the_same_weights() {
    let folder = with_shards();
    let at = folder.path();
    let train = |epochs: u32, run| {
        let quick = QUICK.replace("--epochs 2", &format!("--epochs {epochs}"));
        format!("{quick} --data shards --schedule constant --seed 2 --run {run}")
    };
    typed(at, &train(4, "whole")).ok();
    typed(at, &train(2, "parts")).ok();
    typed(at, "train --resume parts --epochs 4").ok();
    let weights = |run: &str| fs::read(at.join(run).join("checkpoints/last/weights.safetensors")).unwrap();
    assert!(weights("whole") == weights("parts"));
}

#[test]
fn every_schema_is_verified_inspected_and_unpacked() {
    let folder = workplace();
    let at = folder.path();
    for (schema, shard) in [
        ("imagenet", "train-00000-of-00001"),
        ("inception", "validation-00000-of-00001"),
        ("tfds", "data-train.tfrecord-00000-of-00001"),
    ] {
        typed(at, &format!("data prepare data {schema} --schema {schema}")).ok();
        assert!(at.join(schema).join(shard).is_file());
        // What is named twice is one set.
        let verified = typed(at, &format!("data verify {schema} {schema}/ --pixels")).ok();
        assert!(
            verified.contains("2 files, 33 sound records") && verified.contains("all is sound"),
            "{verified}"
        );
        let found = typed(at, &format!("data inspect {schema} --json --contact-sheet {schema}.png")).json();
        let original = typed(at, "data inspect data --json").json();
        assert_eq!(found[0]["classes"], original[0]["classes"]);
        assert_eq!(found[1]["width"], original[1]["width"]);
        let sheet = image::open(at.join(format!("{schema}.png"))).unwrap();
        assert!(sheet.width() > 800 && sheet.height() > 300);
        typed(at, &format!("data unpack {schema} {schema}-back")).ok();
        assert_eq!(content(&at.join(format!("{schema}-back"))).len(), 33);
    }
}

#[test]
fn a_repeated_call_redoes_nothing_and_a_changed_one_is_refused() {
    let folder = with_shards();
    let before = content(&folder.path().join("shards"));
    let again = typed(folder.path(), "data prepare data shards --train-shards 3 --seed 4").ok();
    assert!(again.contains("in 3 shards (3 kept from before)"), "{again}");
    assert!(before == content(&folder.path().join("shards")));
    typed(folder.path(), "data prepare data shards --train-shards 3 --seed 5")
        .fails(1, &["shards: holds shards that were made with --seed 4, not 5", "choose another folder"]);
    fs::remove_file(folder.path().join("data/train/red/0.png")).unwrap();
    typed(folder.path(), "data prepare data shards --train-shards 3 --seed 4")
        .fails(1, &["from 33 images, there are 32 now"]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_or_killed_call_goes_on() {
    use std::process::{Command, Stdio};

    use crate::support::command;

    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let class = |name: &str| at.join("data").join(name);
    for name in ["a", "b"] {
        fs::create_dir_all(class(name)).unwrap();
        let picture =
            image::RgbImage::from_fn(400, 300, |x, y| image::Rgb([(x ^ y) as u8, x as u8, y as u8]));
        picture.save(class(name).join("0.png")).unwrap();
        for i in 1..150 {
            fs::copy(class(name).join("0.png"), class(name).join(format!("{i}.png"))).unwrap();
        }
    }
    let args = "data prepare data shards --train-shards 50";
    for signal in ["-INT", "-KILL"] {
        let mut prepare = command(at);
        let child =
            prepare.args(args.split(' ')).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = std::time::Instant::now();
        let shards = || fs::read_dir(at.join("shards")).map_or(0, |entries| entries.count());
        let before = shards();
        while shards() < before + 4 && start.elapsed().as_secs() < 60 {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let code = child.wait_with_output().unwrap().status.code();
        assert_eq!(code, (signal == "-INT").then_some(130), "{signal}");
        let names: Vec<String> = content(&at.join("shards"))
            .iter()
            .map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert!(names.len() < 51, "it was over too soon");
        assert!(signal == "-KILL" || names.iter().all(|name| !name.starts_with('.')), "{names:?}");
    }
    let out = typed(at, args).ok();
    assert!(out.contains("train: 300 images") && out.contains("kept from before"), "{out}");
    assert!(typed(at, "data verify shards").ok().contains("50 files, 300 sound records"));
    assert!(
        content(&at.join("shards")).iter().all(|(path, _)| !path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with('.'))
    );
}

#[test]
fn damage_is_found_and_named() {
    let folder = with_shards();
    let at = folder.path();
    cut(&at.join("shards/train-00001-of-00003"));
    fs::rename(at.join("shards/train-00002-of-00003"), at.join("away")).unwrap();
    let verified = typed(at, "data verify shards");
    assert_eq!(verified.code, Some(1));
    assert!(verified.out.contains("train-00002-of-00003: missing, one of 3"), "{verified:#?}");
    assert!(verified.out.contains("shards/train-00001-of-00003: damaged at byte"), "{verified:#?}");
    assert!(verified.out.contains("2 problems"), "{verified:#?}");
    typed(at, &format!("{QUICK} --data shards --run run"))
        .fails(1, &["1 of the 3 train shards are missing: train-00002-of-00003"]);
    fs::rename(at.join("away"), at.join("shards/train-00002-of-00003")).unwrap();
    typed(at, &format!("{QUICK} --data shards --run run"))
        .fails(1, &["shards/train-00001-of-00003: damaged at byte", "ends within a record"]);
    assert!(!at.join("run").exists());
    typed(at, "data unpack shards back").fails(1, &["train-00001-of-00003: damaged"]);
}

#[test]
fn wrong_use_is_told_with_the_remedy() {
    let folder = workplace();
    let at = folder.path();
    typed(at, "data prepare nowhere out").fails(1, &["no such folder: nowhere"]);
    typed(at, "data prepare data out --schema torch").fails(2, &["torch", "imagenet, inception or tfds"]);
    typed(at, "data prepare data out --train-shards 0").fails(2, &["train-shards = 0"]);
    typed(at, "data prepare data out --label-offset 2").fails(2, &["label-offset = 2"]);
    typed(at, "data prepare data out --synset-texts t").fails(2, &["--schema inception"]);
    typed(at, "data prepare data out --schema inception --synset-texts t").fails(1, &["cannot read t"]);
    typed(at, "data prepare data out --validation-share 2").fails(2, &["fraction of 2", "between 0 and 1"]);
    typed(at, "data prepare data out --validation-share 0.2")
        .fails(2, &["there are validation images already"]);
    typed(at, "data prepare digits out").fails(1, &["digits: this data set is embedded", "--data digits"]);
    fs::write(at.join("file"), "").unwrap();
    typed(at, "data prepare data file").fails(1, &["cannot create file", "choose another path"]);
    for inside in ["data", "data/../data/shards", "data/train/red"] {
        typed(at, &format!("data prepare data {inside}"))
            .fails(1, &["among the images of data: choose another folder"]);
    }
    typed(at, "data inspect data --contact-sheet no/x.png").fails(1, &["there is no folder no, create it"]);
    typed(at, "data inspect data --contact-sheet x.jpg").fails(2, &["it is a PNG file, name it x.png"]);
    typed(at, &format!("{QUICK} --data data --run run --validation-share 0.3"))
        .fails(2, &["--validation-share 0.3 has no effect, data has validation images of its own"]);
    assert!(content(&at.join("data")).len() == 33 && !at.join("run").exists());
    typed(at, "data verify data").fails(1, &["no TFRecord shards in data", "train-00000-of-00004"]);
    typed(at, "data verify x/train-*").fails(1, &["x/train-* does not exist"]);
    typed(at, "data verify data/train-*").fails(1, &["data/train-*: no shards fit"]);
    typed(at, "data unpack data out").fails(1, &["no TFRecord shards"]);
    typed(at, "data inspect nowhere").fails(1, &["no such folder: nowhere"]);
    typed(at, "data inspect data --label-offset 1").fails(2, &["only TFRecord shards"]);
    typed(at, &format!("{QUICK} --data data --run run --label-offset 1")).fails(2, &["only TFRecord shards"]);
    assert!(!at.join("out").exists());
}

#[test]
fn a_folder_is_inspected_with_its_broken_and_empty_parts() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let data = at.join("Bilder mit Übermut");
    images(&data, true);
    cut(&data.join("train/red/1.jpg"));
    fs::create_dir(data.join("train/empty")).unwrap();
    let inspect = |more: &[&str]| {
        crate::support::tallow(at, [&["data", "inspect", "Bilder mit Übermut"], more].concat())
    };
    let out = inspect(&["--contact-sheet", "Blatt.png"]).ok();
    for line in
        ["empty         0", "red           7", "all          23", "1 image cannot be used:", "median 16×14"]
    {
        assert!(out.contains(line), "{line}: {out}");
    }
    assert!(at.join("Blatt.png").is_file());
    let json = inspect(&["--json"]).json();
    assert_eq!(json[0]["broken"][0]["reason"], "the image is cut short");
    assert_eq!(json[1]["images"], 9);
    let mean = json[0]["mean"][0].as_f64().unwrap();
    assert!(mean > 0.2 && mean < 0.6, "{mean}");
    let digits = typed(Path::new("."), "data inspect digits --json").json();
    assert_eq!((&digits[0]["images"], &digits[0]["height"]["max"]), (&1797.into(), &8.into()));
}

#[test]
fn flags_that_would_be_ignored_in_making_shards_are_refused() {
    let folder = workplace();
    let at = folder.path();
    let refused = |flags: &str, parts: &[&str]| {
        typed(at, &format!("data prepare {flags} shards")).fails(2, parts);
        assert!(!at.join("shards").exists(), "{flags}");
    };
    refused("data --name pets", &["name = pets", "--schema tfds"]);
    refused("data --validation-share 0.2", &["validation-share = 0.2", "validation images already"]);
    refused("data/train --validation-shards 2", &["validation-shards = 2", "no validation images"]);
    typed(at, "data prepare data/train shards --validation-share 0.2 --validation-shards 2").ok();
    let many = typed(at, "data prepare data/train other --validation-share 0.2 --validation-shards 99");
    assert!(
        many.code == Some(0) && many.err.contains("instead of 99: there are no more images"),
        "{many:#?}"
    );
}
