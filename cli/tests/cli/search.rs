//! `tallow search`: what it finds, that it goes on after any end, and that its winner is a network like any other.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{command, typed};

/// Three candidates that take a moment.
const SCALING: &str =
    "search scaling --data digits --model plain_cnn --size 8 --epochs 1 --step 0.4 --output s --json";

/// A search around two stages, with settings of its own.
const ARCHITECTURE: &str = "search architecture --config two.toml --candidates 5 --population 3 --sample 2 --lag 2 --output a --json";
const TWO: &str = "\
model = \"efficientnet_b0\"
data = \"digits\"
epochs = 1
[input]
size = 8
[network]
stem = 8
stem_stride = 1
head = 32
[[network.stages]]
kernel = 3
expand = 1
channels = 8
[[network.stages]]
kernel = 3
stride = 2
expand = 3
channels = 16
se = 0.25
";

/// The same without what a clock decides.
fn timeless(mut report: Value) -> Value {
    let clear = |row: &mut Value| row["seconds"] = Value::Null;
    report["rows"].as_array_mut().unwrap().iter_mut().for_each(clear);
    for key in ["start", "best"] {
        if report[key].is_object() {
            clear(&mut report[key]);
        }
    }
    report
}

fn start(folder: &Path, line: &str) -> Child {
    let mut search = command(folder);
    search.args(line.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped());
    search.spawn().unwrap()
}

/// Waits until a search has written down the result of a candidate.
fn wait_for_a_result(search: &Path) {
    let start = Instant::now();
    while !std::fs::read_to_string(search.join("results.jsonl")).is_ok_and(|text| text.contains('\n')) {
        assert!(start.elapsed() < Duration::from_secs(120), "no result within two minutes");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_killed_grid_search_goes_on_to_the_same_table() {
    let folder = tempfile::tempdir().unwrap();
    let whole = typed(folder.path(), &SCALING.replace("output s", "output whole")).json();
    let rows = whole["rows"].as_array().unwrap();
    let points: Vec<_> = rows.iter().map(|row| [&row["alpha"], &row["beta"], &row["gamma"]]).collect();
    assert_eq!(points.len(), 2, "{points:?}");
    assert!(rows.iter().all(|row| row["top1"].as_f64().unwrap() > 0.0));

    let mut killed = start(folder.path(), SCALING);
    wait_for_a_result(&folder.path().join("s"));
    killed.kill().unwrap();
    killed.wait().unwrap();
    let results = std::fs::read_to_string(folder.path().join("s/results.jsonl")).unwrap();
    let again = typed(folder.path(), &format!("{SCALING} --jobs 2")).json();
    assert_eq!(timeless(again), timeless(whole));
    // What was trained is not trained again.
    let after = std::fs::read_to_string(folder.path().join("s/results.jsonl")).unwrap();
    assert!(after.starts_with(&results) && after.lines().count() == 3, "{after}");

    typed(folder.path(), &SCALING.replace("epochs 1", "epochs 2"))
        .fails(2, &["s holds another search", "config.epochs 1, not 2"]);
    assert!(image::open(folder.path().join("s/pareto.png")).unwrap().width() > 1000);
    typed(folder.path(), "train --config s/best.toml --run winner").ok();
    typed(folder.path(), "summary winner").ok();
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_search_with_its_trainings() {
    let folder = tempfile::tempdir().unwrap();
    let line = SCALING.replace("epochs 1", "epochs 2000");
    let child = start(folder.path(), &line);
    let run = folder.path().join("s/candidates/000");
    let begun = Instant::now();
    while !run.join("checkpoints/last/state.json").exists() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no checkpoint within two minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let ended = crate::support::Run::from(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{ended:#?}");
    // Nobody trains there any more, and what was learned is kept.
    let state: Value =
        serde_json::from_str(&std::fs::read_to_string(run.join("checkpoints/last/state.json")).unwrap())
            .unwrap();
    let epochs = state["epoch"].as_u64().unwrap() + 1;
    typed(folder.path(), &format!("train --resume s/candidates/000 --epochs {epochs}")).ok();
}

#[test]
fn an_evolution_is_the_same_with_more_jobs_and_its_winner_is_a_network() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("two.toml"), TWO).unwrap();
    let one = typed(folder.path(), ARCHITECTURE).json();
    let two =
        typed(folder.path(), &format!("{} --jobs 2", ARCHITECTURE.replace("output a", "output b"))).json();
    assert_eq!(timeless(one.clone()), timeless(two));
    assert_eq!(one["rows"].as_array().unwrap().len(), 5);
    assert_eq!(one["exponent"], -0.07);
    assert!(one["rows"][4]["parent"].is_u64() && one["rows"][2]["parent"].is_null());

    typed(folder.path(), "train --config a/best.toml --epochs 2 --run w").ok();
    let trained = typed(folder.path(), "summary w --json").json();
    assert_eq!(trained["network"], "efficientnet_b0_stages");
    assert_eq!(trained["totals"]["macs"], one["best"]["macs"]);
    typed(folder.path(), "export w").ok();
    typed(folder.path(), "verify w/model.onnx").ok();
    let eval = typed(folder.path(), "eval w --json").json();
    assert!(eval["top1"].as_f64().unwrap() > 0.0, "{eval}");
    typed(folder.path(), "train --resume w --epochs 3").ok();
    let printed = typed(folder.path(), "train --config a/best.toml --print-config").ok();
    assert_eq!(printed.matches("[[network.stages]]").count(), 3, "{printed}");
}

#[test]
fn a_search_that_makes_no_sense_is_refused_before_any_training() {
    let folder = tempfile::tempdir().unwrap();
    let fails =
        |line: &str, code, parts: &[&str]| typed(folder.path(), &format!("search {line}")).fails(code, parts);
    fails("scaling", 2, &["say what to train on"]);
    fails("scaling --data nowhere", 1, &["no such folder: nowhere"]);
    fails("scaling --data digits --step 0.3 --tolerance 0.001", 2, &["leaves no α, β, γ", "lessen --step"]);
    fails("scaling --data digits --phi 0", 2, &["--phi must lie above 0"]);
    fails("scaling --data digits --size 10x20", 2, &["square images"]);
    fails("scaling --data digits --weights w.safetensors", 2, &["--weights fit one network"]);
    fails("architecture --data digits --model resnet20", 2, &["resnet20 has no stages", "efficientnet"]);
    fails("architecture --data digits --sample 11", 2, &["--sample must lie in 1 to 10, is 11"]);
    fails("architecture --data digits --exponent 1", 2, &["--exponent must lie in -1 to 0"]);
    std::fs::write(folder.path().join("bad.toml"), TWO.replace("kernel = 3", "kernel = 4")).unwrap();
    fails("architecture --config bad.toml", 2, &["odd kernel, not 4"]);
    assert!(!folder.path().join("runs").exists());
}
