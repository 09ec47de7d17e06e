//! The benchmark runs, on the CPU and by the kernels for GPUs on the host, and its lines hold what the tables need.
//! What its figures are is nobody's test.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tallow-gpu-bench");

fn typed(arguments: &str) -> Output {
    Command::new(PROGRAM).args(arguments.split(' ')).output().unwrap()
}

fn lines(arguments: &str) -> Vec<Value> {
    let output = typed(arguments);
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn refused(arguments: &str) -> String {
    let output = typed(arguments);
    assert!(!output.status.success() && output.stdout.is_empty(), "{arguments}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_network_trains_and_its_figures_are_sound() {
    let lines = lines("train --device cpu --quick");
    let networks: Vec<&str> = lines.iter().map(|line| line["network"].as_str().unwrap()).collect();
    assert_eq!(networks, ["resnet50", "efficientnet_b0", "resnet18_cifar"]);
    for line in &lines {
        assert_eq!(line["kind"], "training");
        assert_eq!(
            (&line["framework"], &line["precision"], &line["batch"]),
            (&"tallow".into(), &"f32".into(), &2.into())
        );
        assert_eq!((&line["out_of_memory"], &line["finite"]), (&false.into(), &true.into()));
        assert!(line["peak_bytes"].is_null(), "a CPU's memory is not counted");
        let figure = |name: &str| line[name].as_f64().unwrap();
        let step = figure("step_ms") / 1e3;
        assert!(figure("host_ms") > 0.0);
        assert!((figure("images_per_second") * step - 2.0).abs() < 1e-9);
        assert!((figure("flops") * step / (12.0 * figure("macs")) - 1.0).abs() < 1e-9);
        assert_eq!(line["matmul"]["precision"], line["precision"]);
        let peak = line["matmul"]["flops"].as_f64().unwrap();
        assert!((figure("matmul_share") * peak / figure("flops") - 1.0).abs() < 1e-9);
        assert_eq!(line["windows_ms"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn a_step_is_the_same_code_on_a_gpu_and_emulated() {
    let lines = lines("train --device emulated --quick --networks resnet18_cifar --precision f16");
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["device"], &lines[0]["finite"]), (&"emulated".into(), &true.into()));
    assert_eq!(lines[0]["matmul"]["precision"], "f16", "a share is of what can be had in the same numbers");
}

#[test]
fn what_cannot_be_measured_is_an_error_that_says_why() {
    assert!(refused("train --device cuda:4711").contains("cuda:4711"));
    assert!(refused("train --device cpu --precision bf16").contains("the CPU trains in f32"));
    assert!(refused("train --device cpu --networks alexnet").contains("none of resnet50"));
    assert!(refused("train --device cpu --precision fp8").contains("f32, tf32, f16 or bf16"));
    assert!(refused("serve --device cpu --precision bf16").contains("files are in f32 or f16"));
    assert!(refused("profile --device cpu").contains("a GPU's kernels"));
}

#[test]
fn the_runtime_is_measured_beside_bare_onnx_runtime() {
    if tallow_runtime::find_library(None).found.is_none() {
        assert!(std::env::var_os("TALLOW_REQUIRE_ORT").is_none(), "libonnxruntime is needed");
        eprintln!("NOT RUN: there is no libonnxruntime");
        return;
    }
    let lines = lines("serve --device cpu --quick --networks resnet18_cifar --batch 1,3");
    let files: Vec<&str> = lines.iter().map(|line| line["precision"].as_str().unwrap()).collect();
    assert_eq!(files, ["f32", "f32", "f16", "f16"]);
    for line in &lines {
        assert_eq!((&line["kind"], &line["engine"]), (&"serving".into(), &"ort".into()));
        assert!(line["ratio"].as_f64().unwrap() > 0.0 && line["bare_ms"].as_f64().unwrap() > 0.0);
    }

    let folder = tempfile::tempdir().unwrap();
    let output = driven(&["--no-training"], folder.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (_, tables) = written(folder.path());
    assert!(tables.contains("| resnet50 | f16 | 2 | ort |") && tables.contains("at most 1.02x"), "{tables}");
}

/// `run` on the CPU, without PyTorch.
fn driven(arguments: &[&str], out: &Path) -> Output {
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("run");
    let mut driven = Command::new("python3");
    driven.arg("-B").arg(driver).args(["--device", "cpu", "--quick", "--no-pytorch"]).args(arguments);
    driven.args(["--program", PROGRAM, "--out"]).arg(out).output().unwrap()
}

/// The lines and the tables that it leaves.
fn written(out: &Path) -> (Vec<Value>, String) {
    let lines = std::fs::read_to_string(out.join("results.jsonl")).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (lines, std::fs::read_to_string(out.join("results.md")).unwrap())
}

#[test]
fn a_side_that_failed_is_told_by_the_exit_status_and_the_tables_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let output = driven(&["--no-serving", "--networks", "alexnet,resnet18_cifar"], folder.path());
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.trim_end().ends_with("failed: Tallow, alexnet, batch swept"), "{errors}");
    let (_, tables) = written(folder.path());
    assert!(tables.contains("| resnet18_cifar | f32 | 2 | Tallow |"), "{tables}");
    assert!(tables.contains("none of resnet50"), "{tables}");
}

#[test]
fn the_driver_writes_the_tables_also_without_pytorch() {
    let folder = tempfile::tempdir().unwrap();
    let output = driven(&["--no-serving", "--networks", "resnet18_cifar"], folder.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (lines, tables) = written(folder.path());
    assert!(tables.contains("| resnet18_cifar | f32 | 2 | Tallow |"), "{tables}");
    assert!(tables.contains("PyTorch was left out"), "{tables}");
    assert_eq!(lines.len(), 1);
}
