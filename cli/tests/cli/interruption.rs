//! Ctrl-C: the training writes a checkpoint, says how to go on, and ends with 130.
#![cfg(unix)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Run, command, content, typed};

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

/// Waits until the training has done an epoch.
fn wait_for_an_epoch(run: &Path) {
    let start = Instant::now();
    let rows = || std::fs::read_to_string(run.join("metrics.csv")).map_or(0, |text| text.lines().count());
    while rows() < 2 || !run.join("checkpoints/last/state.json").exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "no epoch within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_interrupted_training_can_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let mut train = command(folder.path());
    train.args([
        "train",
        "--data",
        "digits",
        "--model",
        "plain_cnn",
        "--size",
        "8",
        "--epochs",
        "10000",
        "--run",
        "run",
    ]);
    let child = train.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_an_epoch(&run);
    interrupt(&child);
    let ended = Run::from(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{ended:#?}");
    assert!(ended.out.contains("stopped; go on with: tallow train --resume run"), "{ended:#?}");
    assert!(ended.err.contains("stopping after this batch"), "{ended:#?}");
    assert!(content(&run.join("checkpoints")).len() >= 6);

    let state = std::fs::read_to_string(run.join("checkpoints/last/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let epochs = state["epoch"].as_u64().unwrap() + 1;
    let json = typed(folder.path(), &format!("train --resume run --epochs {epochs} --json")).json();
    assert_eq!(json["epochs"], epochs);
    assert_eq!(json["interrupted"], false);
    let metrics = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    assert_eq!(metrics.lines().count() as u64, epochs + 1, "{metrics}");
}

/// The command, with its output kept from the terminal.
fn training(folder: &Path, line: &str) -> Child {
    let mut train = command(folder);
    train.args(line.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped());
    train.spawn().unwrap()
}

#[test]
fn a_validation_ends_at_once_and_a_second_training_is_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    // Two steps an epoch, and a validation of half a minute.
    let line =
        "train --data digits --model resnet20 --size 128 --validation-share 0.95 --batch-size 32 --run run";
    let child = training(folder.path(), line);
    let start = Instant::now();
    while !folder.path().join("run/metrics.csv").exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "no run within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
    typed(folder.path(), "train --data digits --model plain_cnn --size 8 --run run")
        .fails(1, &["run: another process trains in it", "--run"]);
    std::thread::sleep(Duration::from_secs(5));
    interrupt(&child);
    let asked = Instant::now();
    let ended = Run::from(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{ended:#?}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?} to the end", asked.elapsed());
    let state = std::fs::read_to_string(folder.path().join("run/checkpoints/last/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["epoch"], 0);
}
