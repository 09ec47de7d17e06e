//! `tallow summary`, and what every command does about help and a reader that has gone.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use crate::support::{command, shared, typed};

#[test]
fn networks_runs_and_saved_models_have_a_summary() {
    let here = Path::new(".");
    let table = typed(here, "summary resnet50").ok();
    assert!(
        table.lines().any(|line| line.starts_with("parameters") && line.ends_with("25,557,032")),
        "{table}"
    );
    let json = typed(here, "summary resnet18 --classes 10 --size 64 --json").json();
    assert_eq!(json["input"], serde_json::json!([3, 64, 64]));
    assert_eq!(json["totals"]["parameters"], 11_689_512 - 990 * 513);
    let list = typed(here, "summary --json").json();
    assert!(list.as_array().unwrap().iter().any(|network| network["name"] == "efficientnet_b7"));
    assert!(list.as_array().unwrap().iter().any(|network| network["name"] == "timm/tf_efficientnet_b0"));
    assert!(typed(here, "summary").ok().contains("timm/… are timm's networks"));
    let wide = typed(here, "summary resnet18 --width 2 --depth 1.5 --resolution 64 --json").json();
    assert_eq!(
        (&wide["network"], &wide["input"]),
        (&"resnet18_w2_d1.5".into(), &serde_json::json!([3, 64, 64]))
    );
    typed(here, "summary resnet18 --width 0").fails(2, &["width factor must be above 0"]);
    for trained in ["run", "run/saved_model"] {
        assert!(
            typed(shared(), &format!("summary {trained}")).ok().contains("plain_cnn, input 3×8×8, output 3")
        );
        typed(shared(), &format!("summary {trained} --size 9")).fails(2, &["--size"]);
        typed(shared(), &format!("summary {trained} --width 2")).fails(2, &["--width"]);
    }
    typed(shared(), "summary restnet50").fails(2, &["no network is called `restnet50`", "`resnet50`"]);
    typed(shared(), "summary data").fails(1, &["data is neither a network", "tallow summary"]);
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let mut command = command(Path::new("."));
    command.args(["summary", "resnet152"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(said, "");
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_without_room_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command(Path::new(".")).args(["summary", "resnet18"]).stdout(full).output().unwrap();
    crate::support::Run::from(output).fails(1, &["cannot write to standard output", "No space left"]);
}

#[test]
fn every_command_has_help() {
    for name in [
        "",
        "quickstart",
        "train",
        "eval",
        "predict",
        "export",
        "verify",
        "info",
        "summary",
        "bench",
        "runtime",
    ] {
        let help = typed(Path::new("."), &format!("{name} --help")).ok();
        assert!(help.contains("Usage: tallow"), "{help}");
    }
    assert!(typed(Path::new("."), "--help").ok().contains("130  stopped by Ctrl-C"));
}
