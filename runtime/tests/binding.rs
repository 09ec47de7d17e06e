//! IO binding on the CPU gives the bits that plain runs give, whatever shapes come in which order; options that do not
//! fit an engine are errors; a profile says which provider takes which node.
//! What of it needs a GPU is skipped with a message where there is none, and fails with `TALLOW_REQUIRE_CUDA=1`.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod tiny;

use ndarray::ArrayD;
use tallow_runtime::{
    Classifier, ConvSearch, EngineChoice, EngineKind, EngineOptions, GpuOptions, Network, Placement,
    find_library, runtime_report,
};
use tiny::{bytes, card, images};

fn ort_is_there() -> bool {
    let there = find_library(None).found.is_some();
    assert!(there || std::env::var_os("TALLOW_REQUIRE_ORT").is_none(), "libonnxruntime is needed");
    if !there {
        eprintln!("NOT RUN: there is no libonnxruntime");
    }
    there
}

fn cuda_is_there() -> bool {
    let missing = runtime_report(None, 0).cuda_missing;
    // A machine may have a GPU and the library for CPUs alone.
    let is_set = |name| std::env::var_os(name).is_some_and(|value| value == "1");
    let required = is_set("TALLOW_REQUIRE_CUDA") && is_set("TALLOW_REQUIRE_ORT");
    assert!(missing.is_none() || !required, "CUDA is needed: {missing:?}");
    if let Some(missing) = &missing {
        eprintln!("NOT RUN: {missing}");
    }
    missing.is_none()
}

fn open(kind: EngineKind, batch: Option<usize>, options: EngineOptions) -> Network {
    Network::from_bytes(bytes(batch, None), EngineChoice::Named(kind), &options).unwrap()
}

fn bound(on: bool) -> EngineOptions {
    EngineOptions { binding: Some(on), ..EngineOptions::default() }
}

fn bits(outputs: &[ArrayD<f32>]) -> Vec<Vec<u32>> {
    outputs.iter().map(|output| output.iter().map(|value| value.to_bits()).collect()).collect()
}

#[test]
fn bound_and_plain_runs_give_the_same_bits() {
    if !ort_is_there() {
        return;
    }
    for batch in [None, Some(4)] {
        let (plain, binding) =
            (open(EngineKind::Ort, batch, bound(false)), open(EngineKind::Ort, batch, bound(true)));
        assert!(binding.selection().description.contains("IO binding"), "{}", binding.selection());
        // More sizes than are kept, each of them again later, so that memory is made, used, given up and made anew.
        for (seed, n) in (1..=10).chain([3, 3, 10, 1, 2]).enumerate() {
            let images = images(seed as u64, n);
            let (a, b) = (plain.run(images.view()).unwrap(), binding.run(images.view()).unwrap());
            assert_eq!(bits(&a), bits(&b), "{n} images");
            assert_eq!(a[0].shape(), b[0].shape());
            // Images that do not lie one after another in memory.
            let turned = images.view().permuted_axes([0, 1, 3, 2]);
            let (a, b) = (plain.run(turned).unwrap(), binding.run(turned).unwrap());
            assert_eq!(bits(&a), bits(&b), "{n} images, turned");
        }
    }
}

#[test]
fn bound_sessions_are_shared_by_threads() {
    if !ort_is_there() {
        return;
    }
    let options = EngineOptions { sessions: 2, threads: Some(1), ..bound(true) };
    let (network, plain) = (open(EngineKind::Ort, None, options), open(EngineKind::Ort, None, bound(false)));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (network, plain) = (&network, &plain);
            scope.spawn(move || {
                for n in [1, 2, 3, 2] {
                    let images = images(thread, n);
                    let found = network.run(images.view()).unwrap();
                    assert_eq!(bits(&found), bits(&plain.run(images.view()).unwrap()));
                }
            });
        }
    });
}

#[test]
fn an_option_that_does_not_fit_is_an_error_and_auto_passes_over_what_does_not_take_it() {
    let error = |engine, options: &EngineOptions| {
        Network::from_bytes(bytes(None, None), engine, options).unwrap_err().to_string()
    };
    let named = EngineChoice::Named;
    let text = error(named(EngineKind::Tract), &bound(true));
    assert_eq!(text, "the engine tract does not take the option io-binding: it is for ONNX Runtime");
    let gpu = |gpu: GpuOptions| EngineOptions { gpu, ..EngineOptions::default() };
    let searching = gpu(GpuOptions::default().conv_search(ConvSearch::Heuristic));
    let text = error(named(EngineKind::Ort), &searching);
    assert_eq!(text, "the engine ort does not take the option conv-search: it is for --engine ort-cuda");
    let unbound = EngineOptions { binding: Some(false), ..gpu(GpuOptions::default().cuda_graph(true)) };
    let text = error(named(EngineKind::OrtCuda), &unbound);
    assert!(text.contains("cuda-graph") && text.contains("fixed addresses"), "{text}");
    let several = EngineOptions { sessions: 2, ..gpu(GpuOptions::default().cuda_graph(true)) };
    let text = error(named(EngineKind::OrtCuda), &several);
    assert!(text.contains("cuda-graph") && text.contains("use one session"), "{text}");
    let builder = Classifier::builder().engine(named(EngineKind::Tract)).gpu(GpuOptions::default().device(0));
    let text = builder.from_bytes(bytes(None, Some(&card()))).unwrap_err().to_string();
    assert!(text.contains("does not take the option cuda-device: it runs on no GPU"), "{text}");
    if runtime_report(None, 0).cuda_missing.is_some() {
        let text = error(EngineChoice::Auto, &searching);
        assert!(text.contains("no engine can load it: ort-cuda: not available"), "{text}");
        assert!(text.contains("tract: does not take conv-search"), "{text}");
    }
}

#[test]
fn a_profile_says_which_provider_takes_which_node() {
    if !ort_is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.onnx");
    std::fs::write(&path, bytes(None, None)).unwrap();
    let options = EngineOptions::default();
    let placement = Placement::of(&path, EngineChoice::Named(EngineKind::Ort), &options).unwrap();
    assert_eq!(placement.providers.keys().collect::<Vec<_>>(), ["CPUExecutionProvider"]);
    let operators = &placement.providers["CPUExecutionProvider"];
    // The convolution is fused with its activation, so counts are of the graph as it runs.
    assert_eq!(operators["Gemm"], 1, "{placement}");
    assert!(operators.keys().any(|operator| operator.contains("Conv")), "{placement}");
    let text =
        Placement::of(&path, EngineChoice::Named(EngineKind::Tract), &options).unwrap_err().to_string();
    assert!(text.contains("providers are ONNX Runtime's"), "{text}");
}

#[test]
fn cuda_gives_the_same_bits_bound_recorded_and_plain() {
    if !ort_is_there() || !cuda_is_there() {
        return;
    }
    // One algorithm, so that what is measured cannot choose another.
    let gpu = GpuOptions::default().conv_search(ConvSearch::Default);
    let with =
        |gpu: GpuOptions, binding| EngineOptions { binding: Some(binding), gpu, ..EngineOptions::default() };
    let plain = open(EngineKind::OrtCuda, None, with(gpu.clone(), false));
    let binding = open(EngineKind::OrtCuda, None, with(gpu.clone(), true));
    let graph = open(EngineKind::OrtCuda, None, with(gpu.cuda_graph(true), true));
    // More sizes than graphs are kept for, and each often enough to be recorded and replayed.
    for round in 0..4 {
        for n in 1..=10 {
            let images = images(10 * round + n as u64, n);
            let expected = bits(&plain.run(images.view()).unwrap());
            assert_eq!(expected, bits(&binding.run(images.view()).unwrap()), "bound, {n} images");
            assert_eq!(expected, bits(&graph.run(images.view()).unwrap()), "recorded, {n} images");
        }
    }
}
