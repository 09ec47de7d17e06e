//! Whole runs' event files: what is in them, what a resumption forgets, what a full disk leaves.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use tallow_tensorflow::event::hparams::{SESSION_END, SESSION_START, Status};
use tallow_tensorflow::event::{Event, EventReader, SessionStatus, is_event_file};

use super::TensorboardConfig;
use crate::config::InputConfig;
use crate::progress::Progress;
use crate::schedule::Schedule;
use crate::{Config, Trainer};

/// A run of seconds; every step and every epoch is recorded.
fn config(epochs: u64) -> Config {
    Config {
        model: "plain_cnn".into(),
        data: "digits".into(),
        epochs,
        batch_size: 360,
        diagnose: true,
        input: InputConfig { size: Some(8), ..InputConfig::default() },
        tensorboard: TensorboardConfig { scalar_steps: 1, picture_epochs: 1, ..TensorboardConfig::default() },
        ..Config::default()
    }
}

fn train(trainer: &mut Trainer, stop: bool) {
    trainer.train(&mut Progress::hidden(), &AtomicBool::new(stop)).unwrap();
}

/// All events of a folder's files, in the order in which TensorBoard reads them.
fn events(folder: &Path) -> Vec<Event> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| is_event_file(path));
    files.sort();
    files.iter().flat_map(|path| EventReader::open(path).unwrap().map(Result::unwrap)).collect()
}

/// Tag, step and value of everything in a folder. Speeds differ from run to run and are left out.
fn values(folder: &Path) -> Vec<(String, i64, Vec<u8>)> {
    let mut found = vec![];
    for event in events(folder) {
        for value in event.summary.into_iter().flat_map(|summary| summary.value) {
            let tensor = value.tensor.unwrap();
            let mut bytes = [tensor.tensor_content, tensor.string_val.concat()].concat();
            if value.tag.ends_with("per_second") {
                bytes.clear();
            }
            found.push((value.tag, event.step, bytes));
        }
    }
    found
}

#[test]
fn a_resumed_run_has_the_events_of_one_that_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    train(&mut Trainer::create(&whole, config(2)).unwrap(), false);
    // Steps are 3 an epoch. A crash: what came after the first step's checkpoint is written but not kept.
    let mut trainer = Trainer::create(&parts, config(2)).unwrap();
    train(&mut trainer, true);
    let checkpoint = parts.join("checkpoints/last");
    let kept = folder.path().join("kept");
    std::fs::rename(&checkpoint, &kept).unwrap();
    train(&mut trainer, true);
    train(&mut trainer, true);
    train(&mut trainer, true);
    drop(trainer);
    std::fs::remove_dir_all(parts.join("checkpoints")).unwrap();
    std::fs::create_dir(parts.join("checkpoints")).unwrap();
    std::fs::rename(&kept, &checkpoint).unwrap();
    // Another at the end of an epoch: its events are there, the checkpoint is that of its last batch.
    let mut trainer = Trainer::resume(&parts, None).unwrap();
    train(&mut trainer, true);
    train(&mut trainer, true);
    let copy = folder.path().join("copy");
    std::fs::rename(&checkpoint, &copy).unwrap();
    train(&mut trainer, true);
    drop(trainer);
    std::fs::remove_dir_all(parts.join("checkpoints")).unwrap();
    std::fs::create_dir(parts.join("checkpoints")).unwrap();
    std::fs::rename(&copy, &checkpoint).unwrap();
    train(&mut Trainer::resume(&parts, None).unwrap(), false);

    for part in ["", "train", "validation"] {
        let [whole, parts] = [&whole, &parts].map(|run| values(&run.join(part)));
        let names = |values: &[(String, i64, Vec<u8>)]| -> Vec<_> {
            values.iter().map(|(tag, step, _)| (tag.clone(), *step)).collect()
        };
        assert_eq!(names(&whole), names(&parts), "{part}");
        // The hyperparameters hold times.
        assert!(part.is_empty() || whole == parts, "{part} differs");
    }
    let restarts = events(&parts.join("train")).into_iter().filter_map(|event| {
        event.session_log.map(|log| (log.status == i32::from(SessionStatus::Start), event.step))
    });
    assert_eq!(restarts.collect::<Vec<_>>(), [(true, 2), (true, 4)]);
}

/// The event file of a folder that TensorBoard reads first.
fn first_file(folder: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| is_event_file(path)).min().unwrap()
}

#[test]
fn event_files_cut_short_are_told_of_once_and_keep_what_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    train(&mut Trainer::create(&run, config(1)).unwrap(), false);
    let [file, gone] = ["train", "validation"].map(|part| first_file(&run.join(part)));
    let before = events(&run.join("train")).len();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 5]).unwrap();
    std::fs::write(&gone, "").unwrap();

    let mut trainer = Trainer::resume(&run, Some(2)).unwrap();
    let [train_, validation] = trainer.cut_event_files() else { panic!("{:?}", trainer.cut_event_files()) };
    assert_eq!((&train_.path, train_.sound, train_.resumed), (&file, Some(3), 3));
    assert_eq!((&validation.path, validation.sound), (&gone, None));
    assert!(train_.to_string().contains("what it said after step 3 is lost"), "{train_}");
    // The empty one is gone; within one second the new one takes its name.
    assert_eq!(std::fs::read_dir(run.join("validation")).unwrap().count(), 1);
    assert_eq!(EventReader::open(&file).unwrap().map(Result::unwrap).count(), before - 1);
    train(&mut trainer, true);
    drop(trainer);
    assert!(Trainer::resume(&run, None).unwrap().cut_event_files().is_empty());
}

#[test]
fn a_run_made_longer_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    train(&mut Trainer::create(&run, config(1)).unwrap(), false);
    train(&mut Trainer::resume(&run, Some(2)).unwrap(), false);
    let own = events(&run).into_iter().flat_map(|event| event.summary).flat_map(|summary| summary.value);
    let starts: Vec<_> = own.filter(|value| value.tag == SESSION_START).collect();
    let [start] = &starts[..] else { panic!("{starts:?}") };
    let content = &start.metadata.as_ref().unwrap().plugin_data.as_ref().unwrap().content;
    // An entry of a map of names to `google.protobuf.Value`s.
    let entry = [&b"\x06epochs\x12\x09\x11"[..], &2f64.to_le_bytes()].concat();
    assert!(content.windows(entry.len()).any(|bytes| bytes == entry), "{content:?}");
    let texts = values(&run.join("train"));
    let settings: Vec<_> = texts.iter().filter(|(tag, ..)| tag == "settings").collect();
    assert_eq!(settings.iter().map(|(_, step, _)| *step).collect::<Vec<_>>(), [0, 3]);
    assert!(String::from_utf8_lossy(&settings[1].2).contains("epochs = 2"));
    // Nothing is left to do, but the files say so.
    let mut trainer = Trainer::create(&folder.path().join("shorter"), config(2)).unwrap();
    (0..4).for_each(|_| train(&mut trainer, true));
    drop(trainer);
    train(&mut Trainer::resume(&folder.path().join("shorter"), Some(1)).unwrap(), false);
    assert!(values(&folder.path().join("shorter")).iter().any(|(tag, ..)| tag == SESSION_END));
}

#[test]
fn a_run_begun_anew_has_no_events_of_the_attempt_before() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    drop(Trainer::create(&run, config(1)).unwrap());
    train(&mut Trainer::create(&run, config(1)).unwrap(), false);
    for part in ["", "train", "validation"] {
        let versions = events(&run.join(part)).iter().filter(|event| event.file_version.is_some()).count();
        assert_eq!(versions, 1, "{part}");
    }
}

#[test]
fn nothing_is_written_without_it_and_the_training_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let [with, without] = ["with", "without"].map(|name| folder.path().join(name));
    train(&mut Trainer::create(&with, config(1)).unwrap(), false);
    let off = TensorboardConfig { enabled: false, ..TensorboardConfig::default() };
    train(
        &mut Trainer::create(&without, Config { tensorboard: off, diagnose: false, ..config(1) }).unwrap(),
        false,
    );
    let weights = |run: &Path| std::fs::read(run.join("checkpoints/last/weights.safetensors")).unwrap();
    assert!(weights(&with) == weights(&without));
    assert!(events(&without).is_empty() && !without.join("train").exists());
    for file in ["gradient_flow.png", "gradient_flow.txt"] {
        assert!(with.join(file).is_file() && !without.join(file).exists());
    }
}

#[test]
fn curves_overlay_and_every_kind_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    train(&mut Trainer::create(&run, config(1)).unwrap(), false);
    let tags =
        |part: &str| -> Vec<String> { values(&run.join(part)).into_iter().map(|value| value.0).collect() };
    let (training, validation) = (tags("train"), tags("validation"));
    for tag in ["epoch/loss", "epoch/top1", "epoch/top5"] {
        assert!(training.iter().any(|t| t == tag) && validation.iter().any(|t| t == tag), "{tag}");
    }
    for tag in [
        "settings",
        "step/loss",
        "step/learning_rate",
        "step/gradient_norm",
        "step/images_per_second",
        "images/augmented",
        "weights/stage1.0.conv.weight",
        "gradients/stage1.0.conv.weight",
        "activations/stage1.0.conv",
        "flow_update_ratio/stage1.0.conv",
        "gradient_flow",
        "images/gradient_flow",
    ] {
        assert!(training.iter().any(|found| found == tag), "{tag} is not in {training:?}");
    }
    for tag in ["confusion", "precision_recall/all classes", "precision_recall/class 7"] {
        assert!(validation.iter().any(|found| found == tag), "{tag} is not in {validation:?}");
    }
    assert!(events(&run.join("train")).iter().any(|event| event.graph_def.is_some()));
    let own = [
        "_hparams_/experiment",
        "_hparams_/session_start_info",
        "best/top1",
        "best/top5",
        "best/loss",
        "best/epoch",
    ];
    assert_eq!(tags(""), [&own[..], &["_hparams_/session_end_info"]].concat());
}

#[test]
fn a_run_that_ends_with_an_error_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let schedule = Schedule { learning_rate: Some(1e38), warmup_epochs: 0.0, ..Schedule::default() };
    let mut trainer = Trainer::create(&run, Config { schedule, ..config(2) }).unwrap();
    trainer.train(&mut Progress::hidden(), &AtomicBool::new(false)).unwrap_err();
    let mut values =
        events(&run).into_iter().flat_map(|event| event.summary).flat_map(|summary| summary.value);
    let end = values.find(|value| value.tag == SESSION_END).unwrap();
    let content = end.metadata.unwrap().plugin_data.unwrap().content;
    // The status is the first field of the only message in it.
    assert_eq!(content[2..4], [8, Status::Failure as u8]);
}

#[test]
fn lost_hyperparameters_are_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    train(&mut Trainer::create(&run, config(2)).unwrap(), true);
    std::fs::remove_file(first_file(&run)).unwrap();
    for _ in 0..2 {
        Trainer::resume(&run, None).unwrap();
        let starts = values(&run).iter().filter(|value| value.0 == SESSION_START).count();
        assert_eq!(starts, 1);
    }
}

/// Linux has a device on which every write finds the disk full.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one_clear_error_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, run] = ["whole", "run"].map(|name| folder.path().join(name));
    train(&mut Trainer::create(&whole, config(2)).unwrap(), false);
    let mut trainer = Trainer::create(&run, config(2)).unwrap();
    trainer.recorder.fill_disk();
    let error = trainer.train(&mut Progress::hidden(), &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(error.contains("full: No space left on device") && error.contains("--resume"), "{error}");
    assert_eq!(error.lines().count(), 1);
    drop(trainer);
    let mut trainer = Trainer::resume(&run, None).unwrap();
    train(&mut trainer, false);
    let weights = |run: &Path| std::fs::read(run.join("checkpoints/last/weights.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&run));
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let mut trainer = Trainer::create(&run, config(2)).unwrap();
    train(&mut trainer, true);
    drop(trainer);
    std::fs::remove_dir_all(run.join("train")).unwrap();
    std::fs::write(run.join("train"), "in the way").unwrap();
    let error = Trainer::resume(&run, None).err().unwrap().to_string();
    assert!(error.contains("train: ") && error.contains("enabled = false"), "{error}");
}

#[test]
fn settings_of_before_there_were_events_still_read() {
    let mut settings: toml::Table = Config::default().to_toml().parse().unwrap();
    assert!(settings.remove("tensorboard").is_some() && settings.remove("diagnose").is_some());
    let old = settings.to_string();
    assert_eq!(toml::from_str::<Config>(&old).unwrap(), Config::default());
}
