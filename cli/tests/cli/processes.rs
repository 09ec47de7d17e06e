//! Several processes that train together, as `--processes` and as a launcher's variables start them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Run, command, typed, workplace};

const TRAIN: &str = "train --data digits --model plain_cnn --size 8 --batch-size 32 --run run";

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until the run has a checkpoint of a whole epoch.
fn wait_for_an_epoch(folder: &Path) {
    let start = Instant::now();
    while !folder.join("run/checkpoints/best/state.json").exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "no epoch within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_processes_train_one_run_that_any_command_takes() {
    let folder = tempfile::tempdir().unwrap();
    let run =
        typed(folder.path(), &format!("{TRAIN} --processes 2 --sync-bn --epochs 2 --bucket-mb 0.05 --json"));
    assert!(run.err.contains("2 processes train together: 64 images in a batch"), "{run:#?}");
    assert_eq!(run.err.matches("images to train on").count(), 1, "{run:#?}");
    let json = run.json();
    assert_eq!((&json["epochs"], &json["interrupted"]), (&2.into(), &false.into()));
    let config = std::fs::read_to_string(folder.path().join("run/config.toml")).unwrap();
    for part in ["[distributed]\nsync_batch_norm = true\nbucket_mb = 0.05\nworld_size = 2\n", "\n[split]\n"] {
        assert!(config.contains(part), "{config}");
    }
    assert!(config.rfind("\n[split]") > config.rfind("\n[distributed]"), "{config}");
    let metrics = std::fs::read_to_string(folder.path().join("run/metrics.csv")).unwrap();
    // 1437 images in batches of 64, the last one left out.
    assert!(metrics.lines().nth(2).is_some_and(|row| row.starts_with("2,44,")), "{metrics}");
    // One process measures what two have: the same counts.
    let eval = typed(folder.path(), "eval run --json").json();
    assert_eq!(eval["top1"], json["best"]["validation"]["top1"]);
    // Going on alone keeps the batches.
    typed(folder.path(), "train --resume run --epochs 3").ok();
    let metrics = std::fs::read_to_string(folder.path().join("run/metrics.csv")).unwrap();
    assert!(metrics.lines().nth(3).is_some_and(|row| row.starts_with("3,66,")), "{metrics}");
}

#[test]
fn what_is_wrong_is_said_once_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let line = TRAIN.replace("--batch-size 32", "--batch-size 0");
    typed(folder.path(), &format!("{line} --processes 2")).fails(2, &["a batch needs"]);
    typed(folder.path(), &format!("{TRAIN} --processes 2 --bucket-mb 0"))
        .fails(2, &["bucket_mb = 0", "above 0"]);
    typed(folder.path(), "train --processes 2 --data nowhere").fails(1, &["no such folder: nowhere"]);
    std::fs::create_dir(folder.path().join("run")).unwrap();
    std::fs::write(folder.path().join("run/mine.txt"), "mine").unwrap();
    typed(folder.path(), &format!("{TRAIN} --processes 2")).fails(1, &["run is not empty"]);
    let with = |variables: &[(&str, &str)], line: &str| -> Run {
        let mut command = command(folder.path());
        command.args(line.split(' ')).envs(variables.iter().copied()).output().unwrap().into()
    };
    with(&[("RANK", "0"), ("WORLD_SIZE", "2")], TRAIN).fails(2, &["MASTER_ADDR is not set", "torchrun"]);
    with(&[("WORLD_SIZE", "2")], TRAIN).fails(2, &["RANK is not set", "--processes"]);
    with(&[("RANK", "0")], &format!("{TRAIN} --processes 2")).fails(2, &["RANK is set", "leave out"]);
    with(
        &[
            ("RANK", "1"),
            ("WORLD_SIZE", "2"),
            ("MASTER_ADDR", "127.0.0.1"),
            ("MASTER_PORT", "9"),
            ("TALLOW_TIMEOUT", "1"),
        ],
        TRAIN,
    )
    .fails(1, &["rank 1 cannot join the other processes at 127.0.0.1:9", "MASTER_PORT"]);
}

#[test]
fn one_process_of_a_launcher_trains_alone_without_an_address() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path());
    command.args(format!("{TRAIN} --epochs 1").split(' ')).env("RANK", "0").env("WORLD_SIZE", "1");
    let run = Run::from(command.output().unwrap());
    assert!(!run.err.contains("processes train together"), "{run:#?}");
    run.ok();
}

#[test]
fn the_error_of_any_process_is_said_once() {
    let folder = workplace();
    std::fs::write(folder.path().join("data/train/red/broken.png"), "no image").unwrap();
    // Which process meets it is up to the order.
    for seed in [0, 1] {
        let flags = "--model plain_cnn --size 8 --batch-size 2 --epochs 2 --warmup 0 --workers 1 --strict";
        let line = format!("train --data data --run run{seed} --seed {seed} {flags} --processes 2");
        let ended = typed(folder.path(), &line);
        assert_eq!(ended.err.matches("broken.png").count(), 1, "{ended:#?}");
        ended.fails(1, &["broken.png"]);
    }
}

/// Processes started as torchrun would.
fn launched(folder: &Path, line: impl Fn(usize) -> String) -> Vec<Child> {
    let port = tallow_distributed::free_port().unwrap().to_string();
    let start = |rank: usize| {
        let mut command = command(folder);
        command.args(line(rank).split(' ')).env("RANK", rank.to_string()).env("LOCAL_RANK", rank.to_string());
        command.env("WORLD_SIZE", "2").env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", &port);
        spawn(&mut command)
    };
    [0, 1].map(start).into()
}

#[test]
fn processes_of_different_settings_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let children = launched(folder.path(), |rank| format!("{TRAIN} --epochs {}", rank + 1));
    for child in children {
        Run::from(child.wait_with_output().unwrap())
            .fails(1, &["`epochs` is 1 on rank 0 and 2 on rank 1: start all with the same settings"]);
    }
}

#[cfg(unix)]
mod ends {
    use super::*;

    fn interrupt(child: &Child) {
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    }

    #[test]
    fn a_ctrl_c_ends_all_after_a_checkpoint_from_which_they_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let line = format!("{TRAIN} --processes 2 --epochs 10000");
        let child = spawn(command(folder.path()).args(line.split(' ')));
        wait_for_an_epoch(folder.path());
        interrupt(&child);
        let ended = Run::from(child.wait_with_output().unwrap());
        assert_eq!(ended.code, Some(130), "{ended:#?}");
        assert!(ended.out.contains("stopped; go on with: tallow train --resume run"), "{ended:#?}");
        let state = std::fs::read_to_string(folder.path().join("run/checkpoints/last/state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        let epochs = state["epoch"].as_u64().unwrap() + 1;
        let line = format!("train --resume run --processes 2 --epochs {epochs} --json");
        assert_eq!(typed(folder.path(), &line).json()["epochs"], epochs);
    }

    /// One rank alone is asked to stop, as by a scheduler that takes its host away.
    #[test]
    fn one_that_is_asked_to_stop_stops_all() {
        let folder = tempfile::tempdir().unwrap();
        let children = launched(folder.path(), |_| format!("{TRAIN} --epochs 10000"));
        wait_for_an_epoch(folder.path());
        interrupt(&children[1]);
        for child in children {
            let ended = Run::from(child.wait_with_output().unwrap());
            assert_eq!(ended.code, Some(130), "{ended:#?}");
        }
    }

    /// The processes that a training has started.
    #[cfg(target_os = "linux")]
    fn started_by(child: &Child) -> Vec<String> {
        let id = child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        children.split_whitespace().map(str::to_owned).collect()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn where_one_is_killed_all_end_and_one_line_says_which_and_how_to_go_on() {
        let folder = tempfile::tempdir().unwrap();
        for sync in ["", " --sync-bn"] {
            let _ = std::fs::remove_dir_all(folder.path().join("run"));
            let line = format!("{TRAIN} --processes 3 --epochs 10000{sync}");
            let child = spawn(command(folder.path()).args(line.split(' ')));
            wait_for_an_epoch(folder.path());
            let is_rank_1 = |id: &&String| {
                let variables = std::fs::read(format!("/proc/{id}/environ")).unwrap();
                variables.split(|byte| *byte == 0).any(|variable| variable == b"RANK=1")
            };
            let victim = started_by(&child).iter().find(is_rank_1).unwrap().clone();
            assert!(Command::new("kill").args(["-KILL", &victim]).status().unwrap().success());
            let start = Instant::now();
            let ended = Run::from(child.wait_with_output().unwrap());
            assert!(!ended.err.contains("lost rank"), "{ended:#?}");
            ended.fails(
                1,
                &[
                    "rank 1 was ended by signal 9 (SIGKILL), most often by the kernel for want of memory",
                    "--batch-size",
                    "tallow train --resume run --processes 3",
                ],
            );
            assert!(start.elapsed() < Duration::from_secs(30));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_second_ctrl_c_ends_all_at_once() {
        let folder = tempfile::tempdir().unwrap();
        // Steps of many seconds.
        let line = "train --data digits --model resnet20 --size 32 --batch-size 512 --run run --processes 2";
        let child = spawn(command(folder.path()).args(line.split(' ')));
        let start = Instant::now();
        while !folder.path().join("run/metrics.csv").exists() {
            assert!(start.elapsed() < Duration::from_secs(60), "no run within a minute");
            std::thread::sleep(Duration::from_millis(20));
        }
        let ranks = started_by(&child);
        interrupt(&child);
        std::thread::sleep(Duration::from_millis(200));
        interrupt(&child);
        let asked = Instant::now();
        let ended = Run::from(child.wait_with_output().unwrap());
        assert_eq!(ended.code, Some(130), "{ended:#?}");
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?} to the end", asked.elapsed());
        assert!(!ended.err.contains("error"), "{ended:#?}");
        assert!(ranks.len() == 2 && !ranks.iter().any(|id| Path::new("/proc").join(id).exists()));
        assert!(!folder.path().join("run/checkpoints").exists());
    }
}
