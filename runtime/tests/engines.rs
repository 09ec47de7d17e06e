//! Both engines against plain loops, over batch sizes, threads and fixed-batch graphs.
//! Where no libonnxruntime is found the ort half says that it did not run; TALLOW_REQUIRE_ORT=1 makes that a failure.
//! `tallow runtime install` provides the library.

#![allow(clippy::unwrap_used)] // a test's helpers fail by panicking, as the test does

mod tiny;

use std::io::Write;
use std::path::PathBuf;

use ndarray::{ArrayD, ArrayView4};
use tallow_runtime::{
    Classifier, EngineChoice, EngineKind, EngineOptions, Network, RuntimeError, find_library, runtime_report,
};
use tiny::{CLASSES, SIDE, bytes, card, expected, images};

/// The engines that can run here.
fn engines() -> Vec<EngineChoice> {
    let mut engines = vec![EngineChoice::Named(EngineKind::Tract)];
    let search = find_library(None);
    if search.found.is_some() {
        engines.push(EngineChoice::Named(EngineKind::Ort));
    } else {
        let required = std::env::var("TALLOW_REQUIRE_ORT").is_ok_and(|value| value == "1");
        assert!(!required, "TALLOW_REQUIRE_ORT is set: {}", search.reason());
        // Past the test harness, which shows what a passing test prints only when asked.
        let note = format!("NOT RUN: the ort half of a test ({})\n", search.reason());
        std::io::stderr().write_all(note.as_bytes()).unwrap();
    }
    engines
}

fn check(outputs: &[ArrayD<f32>], input: ArrayView4<'_, f32>, what: &str) {
    let (features, logits) = expected(input);
    for (ours, exact) in [(&outputs[0], features.into_dyn()), (&outputs[1], logits.into_dyn())] {
        assert_eq!(ours.shape(), exact.shape(), "{what}");
        let largest = exact.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
        let worst = ours.iter().zip(&exact).fold(0.0, |a: f64, (o, e)| a.max((f64::from(*o) - e).abs()));
        assert!(worst <= 1e-6 * largest, "{what}: {worst:e} of {largest}");
    }
}

#[test]
fn every_batch_size_gives_what_plain_loops_give() {
    for engine in engines() {
        let network = Network::from_bytes(bytes(None, None), engine, &EngineOptions::default()).unwrap();
        // More sizes than plans are kept, and the first again at the end.
        for n in [1, 3, 2, 5, 8, 13, 4, 6, 7, 9, 1, 3] {
            let input = images(n as u64, n);
            check(&network.run(input.view()).unwrap(), input.view(), &format!("{engine} batch {n}"));
        }
    }
}

#[test]
fn a_view_that_is_not_contiguous_gives_the_same() {
    for engine in engines() {
        let network = Network::from_bytes(bytes(None, None), engine, &EngineOptions::default()).unwrap();
        let all = images(3, 6);
        let every_second = all.slice(ndarray::s![..;2, .., .., ..]);
        check(&network.run(every_second).unwrap(), every_second, &engine.to_string());
        let turned = all.view().permuted_axes([0, 1, 3, 2]);
        check(&network.run(turned).unwrap(), turned, &engine.to_string());
    }
}

#[test]
fn a_graph_with_a_fixed_batch_runs_any_number_of_images() {
    for engine in engines() {
        let network = Network::from_bytes(bytes(Some(4), None), engine, &EngineOptions::default()).unwrap();
        assert_eq!(network.info().fixed_batch(), Some(4));
        for n in [1, 3, 4, 5, 8, 11] {
            let input = images(100 + n as u64, n);
            check(
                &network.run(input.view()).unwrap(),
                input.view(),
                &format!("{engine}, {n} images in fours"),
            );
        }
    }
}

#[test]
fn four_threads_share_one_network() {
    for engine in engines() {
        for sessions in [1, 3] {
            let options = EngineOptions { sessions, threads: Some(1), ..EngineOptions::default() };
            let network = Network::from_bytes(bytes(None, None), engine, &options).unwrap();
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let network = &network;
                    scope.spawn(move || {
                        for round in 0..25 {
                            let input = images(1000 * thread + round, 1 + (thread + round) as usize % 4);
                            check(
                                &network.run(input.view()).unwrap(),
                                input.view(),
                                &format!("{engine} {thread}"),
                            );
                        }
                    });
                }
            });
        }
    }
}

#[test]
fn a_wrong_shape_is_an_error_with_both_shapes() {
    for engine in engines() {
        let network = Network::from_bytes(bytes(None, None), engine, &EngineOptions::default()).unwrap();
        for shape in [(2, 1, SIDE, SIDE), (2, 3, SIDE, 8), (0, 3, SIDE, SIDE)] {
            let error = network.run(ndarray::Array4::<f32>::zeros(shape).view()).unwrap_err();
            assert!(matches!(error, RuntimeError::Shape { .. }));
            let (n, c, h, w) = shape;
            let expected = format!(
                "model data: the input `images` takes float32 [N, 3, 9, 9], not float32 [{n}, {c}, {h}, {w}]"
            );
            assert_eq!(error.to_string(), expected);
        }
    }
}

#[test]
fn an_engine_asked_for_by_name_never_becomes_another() {
    let nowhere =
        EngineOptions { library: Some("/nowhere/libonnxruntime.so".into()), ..EngineOptions::default() };
    for kind in [EngineKind::Ort, EngineKind::OrtCuda, EngineKind::OrtTensorrt] {
        let error = Network::from_bytes(bytes(None, None), EngineChoice::Named(kind), &nowhere).unwrap_err();
        assert!(matches!(error, RuntimeError::Unavailable { engine, .. } if engine == kind), "{error}");
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("the engine {kind} is not available: no libonnxruntime (")),
            "{text}"
        );
        assert!(text.contains("/nowhere/libonnxruntime.so: does not exist"), "{text}");
        assert!(text.ends_with("run `tallow runtime install`, or name one in TALLOW_ONNXRUNTIME"), "{text}");
    }
    let text = "gpu".parse::<EngineChoice>().unwrap_err().to_string();
    assert_eq!(text, "unknown engine `gpu`: choose auto, ort-cuda, ort-tensorrt, ort or tract");
    for (short, name) in [("cuda", "ort-cuda"), ("tensorrt", "ort-tensorrt")] {
        assert_eq!(short.parse::<EngineChoice>().unwrap().to_string(), name);
    }
    for name in ["auto", "ort-cuda", "ort-tensorrt", "ort", "tract"] {
        assert_eq!(name.parse::<EngineChoice>().unwrap().to_string(), name);
    }
}

#[test]
fn a_file_that_is_no_library_is_an_error_and_not_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let fake = dir.path().join("libonnxruntime.so");
    std::fs::write(&fake, b"not a library").unwrap();
    let options = EngineOptions { library: Some(fake), ..EngineOptions::default() };
    let choice = EngineChoice::Named(EngineKind::Ort);
    let text = Network::from_bytes(bytes(None, None), choice, &options).unwrap_err().to_string();
    assert!(
        text.starts_with("the engine ort is not available: ") && text.contains("libonnxruntime.so"),
        "{text}"
    );
    assert!(!text.contains('\n'), "{text}");
}

#[test]
fn auto_takes_tract_where_there_is_no_library_and_says_why() {
    let nowhere = EngineOptions { library: Some("/nowhere".into()), ..EngineOptions::default() };
    let network = Network::from_bytes(bytes(None, None), EngineChoice::Auto, &nowhere).unwrap();
    let selection = network.selection();
    assert_eq!(selection.engine, EngineKind::Tract);
    let kinds: Vec<EngineKind> = selection.passed_over.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [EngineKind::OrtCuda, EngineKind::Ort]);
    let text = selection.to_string();
    assert!(text.starts_with("engine tract: tract 0."), "{text}");
    assert!(
        text.contains("\n  ort not taken: not available: no libonnxruntime (EngineOptions::library /nowhere"),
        "{text}"
    );
}

#[test]
fn auto_takes_ort_where_its_library_is() {
    if engines().len() < 2 {
        return;
    }
    let network =
        Network::from_bytes(bytes(None, None), EngineChoice::Auto, &EngineOptions::default()).unwrap();
    let selection = network.selection();
    if selection.engine == EngineKind::Ort {
        let (kind, reason) = &selection.passed_over[0];
        assert_eq!(*kind, EngineKind::OrtCuda);
        assert!(reason.starts_with("not available: "), "{reason}");
    } else {
        assert_eq!(selection.engine, EngineKind::OrtCuda, "{selection}");
    }
    let report = runtime_report(None, 0);
    assert!(report.onnxruntime.as_ref().is_some_and(|version| version.starts_with("1.")), "{report}");
    assert!(report.providers.contains(&"CPUExecutionProvider".to_string()), "{report}");
}

#[test]
fn the_environment_variable_decides_in_a_process_of_its_own() {
    const CHILD: &str = "TALLOW_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let network =
            Network::from_bytes(bytes(None, None), EngineChoice::Auto, &EngineOptions::default()).unwrap();
        let selection = network.selection().to_string();
        assert!(selection.starts_with("engine tract"), "{selection}");
        assert!(selection.contains("TALLOW_ONNXRUNTIME /nowhere/lib.so: does not exist"), "{selection}");
        return;
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_environment_variable_decides_in_a_process_of_its_own"])
        .env(CHILD, "1")
        .env("TALLOW_ONNXRUNTIME", "/nowhere/lib.so")
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_file_that_is_no_model_is_one_clear_error_naming_it() {
    let dir = tempfile::tempdir().unwrap();
    let whole = bytes(None, Some(&card()));
    let file = |name: &str, contents: &[u8]| -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    };
    let cases = [
        (file("empty.onnx", b""), "the file is empty"),
        (file("text.onnx", b"<html>404</html>"), "not an ONNX model"),
        (file("cut.onnx", &whole[..whole.len() / 2]), "not an ONNX model, or damaged"),
        (dir.path().join("none.onnx"), "cannot read the model"),
        (dir.path().to_owned(), "cannot read the model"),
    ];
    for engine in engines().into_iter().chain([EngineChoice::Auto]) {
        for (path, expected) in &cases {
            let text = Network::open(path, engine, &EngineOptions::default()).unwrap_err().to_string();
            assert!(text.starts_with(&format!("{}: {expected}", path.display())), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }
}

#[test]
fn damaged_models_are_errors_or_run_but_never_panic() {
    let whole = bytes(None, Some(&card()));
    let options = EngineOptions { threads: Some(1), ..EngineOptions::default() };
    for engine in engines() {
        for at in (0..whole.len()).step_by(7) {
            let mut broken = whole.clone();
            broken[at] ^= 0x55;
            if let Err(error) =
                Classifier::builder().engine(engine).options(options.clone()).from_bytes(broken)
            {
                assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
    }
}

#[test]
fn models_of_another_form_say_what_is_expected() {
    let mut grey = tiny::model(None, None);
    let graph = grey.graph.as_mut().unwrap();
    graph.input[0].kind.as_mut().unwrap().tensor.as_mut().unwrap().elem = 2;
    let text = network_error(&grey);
    let expected = "expected float32 [N, C, H, W] or uint8 [N, H, W, 3]";
    assert_eq!(text, format!("model data: the input `images` is uint8 [N, 3, 9, 9], {expected}"));

    let mut two = tiny::model(None, None);
    let graph = two.graph.as_mut().unwrap();
    graph.input.push(graph.input[0].clone());
    assert_eq!(network_error(&two), "model data: the graph has 2 inputs, expected one of images");

    let mut unknown = tiny::model(None, None);
    unknown.graph.as_mut().unwrap().node[1].op_type = "Relux".into();
    let text = network_error(&unknown);
    assert!(text.starts_with("model data: no engine can load it: ort-cuda: "), "{text}");
    assert!(text.contains("; tract: cannot load this model: ") && text.contains("Relux"), "{text}");
    assert_eq!(CLASSES, 3);
}

fn network_error(model: &tiny::Model) -> String {
    let bytes = prost::Message::encode_to_vec(model);
    Network::from_bytes(bytes, EngineChoice::Auto, &EngineOptions::default()).unwrap_err().to_string()
}
