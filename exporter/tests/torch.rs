//! PyTorch's files, as PyTorch wrote them (`torch/make_fixtures.py`), and damaged ones.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use tallow_builder::graph::{BatchNorm, ConvSpec, Linear, Shape};
use tallow_builder::{Graph, GraphBuilder, Weights};
use tallow_exporter::torch::read_state_dict;
use tallow_exporter::{Head, read_weights};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(name)
}

/// The network that the fixtures hold.
fn graph() -> Graph {
    let mut g = GraphBuilder::new("net", Shape::map(3, 8, 8));
    let x = g.conv2d("conv", g.input(), ConvSpec::new(4, 3)).unwrap();
    let x = g.batch_norm("bn", x, BatchNorm::default()).unwrap();
    let x = g.global_avg_pool("pool", x).unwrap();
    let x = g.flatten("flatten", x).unwrap();
    let x = g.linear("fc", x, Linear::uniform(2, 0.1)).unwrap();
    g.finish(x).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn counting(indices: impl IntoIterator<Item = usize>) -> Vec<f32> {
    indices.into_iter().map(|i| i as f32 / 8.0).collect()
}

#[test]
fn a_state_dict_loads_from_both_layouts_and_out_of_a_checkpoint() {
    for name in ["state_dict.pth", "legacy.pth", "checkpoint.pth"] {
        let weights = read_weights(&graph(), &fixture(name), None, Head::Kept, &Device::Cpu).unwrap().weights;
        assert_eq!(floats(weights.get("conv.weight")), counting(0..108), "{name}");
        assert_eq!(weights.get("fc.weight").dims(), [2, 4]);
        assert_eq!(floats(weights.get("bn.running_var")), counting(0..4));
        assert_eq!(weights.get("bn.num_batches_tracked").dtype(), DType::I64);
    }
    read_weights(&graph(), &fixture("checkpoint.pth"), Some("state_dict"), Head::Kept, &Device::Cpu).unwrap();
    let wrong = read_weights(&graph(), &fixture("checkpoint.pth"), Some("ema"), Head::Kept, &Device::Cpu)
        .unwrap_err();
    assert!(
        wrong.to_string().contains("no dictionary `ema`; it has epoch, arch, best, state_dict"),
        "{wrong}"
    );
}

#[test]
fn a_key_leads_into_dictionaries_within_dictionaries() {
    for key in ["model.state_dict", "ema"] {
        let tensors = read_state_dict(&fixture("nested.pth"), Some(key)).unwrap();
        assert_eq!(floats(&tensors["conv.weight"]), counting(0..108), "{key}");
    }
    for (key, reason) in [
        ("model", "`model`: no tensors where a state dict usually is, but under ema, model.state_dict"),
        ("model.arch", "it has no dictionary `model.arch`; it has epoch, model, ema"),
    ] {
        let text = read_state_dict(&fixture("nested.pth"), Some(key)).unwrap_err().to_string();
        assert!(text.contains(reason), "{text}");
    }
}

#[test]
fn a_key_is_refused_where_it_would_be_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    Weights::init(&graph(), 1, &Device::Cpu).unwrap().save(&path).unwrap();
    let text =
        read_weights(&graph(), &path, Some("state_dict"), Head::Kept, &Device::Cpu).unwrap_err().to_string();
    assert!(text.contains("w.safetensors: a key names") && text.contains("leave --key out"), "{text}");
}

#[test]
fn views_and_every_type_are_read_as_pytorch_shows_them() {
    let tensors = read_state_dict(&fixture("odd.pth"), None).unwrap();
    let by_columns = (0..4).flat_map(|column| (0..6).map(move |row| 4 * row + column));
    assert_eq!(tensors["transposed"].dims(), [4, 6]);
    assert_eq!(floats(&tensors["transposed"]), counting(by_columns));
    assert_eq!(floats(&tensors["rows"]), counting(8..16));
    assert_eq!(floats(&tensors["columns"]), counting((0..6).flat_map(|row| [4 * row + 1, 4 * row + 2])));
    assert_eq!(floats(&tensors["shared"]), counting(0..24));
    assert_eq!(floats(&tensors["parameter"]), counting(0..3));
    for name in ["half", "bfloat16", "double"] {
        assert_eq!(floats(&tensors[name]), counting(0..5), "{name}");
    }
    assert_eq!(tensors["int32"].to_vec1::<i64>().unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(tensors["bool"].to_vec1::<i64>().unwrap(), [1, 0]);
    assert_eq!(tensors["scalar"].to_scalar::<f32>().unwrap(), 2.5);
    assert_eq!(tensors["empty"].dims(), [0, 3]);
}

#[test]
fn what_is_no_state_dict_is_refused_with_a_reason() {
    for (name, reason) in [
        ("module.pth", "pickled module, which is code and is not executed: save its state_dict() instead"),
        ("expanded.pth", "it repeats its elements, as expand() does: save it with .contiguous()"),
        ("list.pth", "it holds a list and no tensors by name: save the model's state_dict()"),
        ("tensor.pth", "it holds a single tensor and no tensors by name"),
        ("empty.pth", "there are no tensors by name in it: save the model's state_dict()"),
        ("no_tensors.pth", "there are no tensors by name in it"),
        ("nested.pth", "but under ema, model.state_dict: name the right one with --key"),
    ] {
        let text = read_state_dict(&fixture(name), None).unwrap_err().to_string();
        assert!(text.contains(name) && text.contains(reason) && !text.contains('\n'), "{text}");
    }
    let mut g = GraphBuilder::new("other", Shape::map(3, 8, 8));
    let x = g.conv2d("stem", g.input(), ConvSpec::new(4, 3)).unwrap();
    let other = g.finish(x).unwrap();
    let error = read_weights(&other, &fixture("state_dict.pth"), None, Head::Kept, &Device::Cpu)
        .unwrap_err()
        .to_string();
    assert!(error.contains("1 missing: stem.weight; 8 unexpected: bn.bias"), "{error}");
}

#[test]
fn a_flipped_bit_of_a_tensor_is_found_by_the_archives_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let sound = std::fs::read(fixture("state_dict.pth")).unwrap();
    // 13.375, the last number of the convolution's filters, stands once in the file.
    let number = (107f32 / 8.0).to_le_bytes();
    let place = sound.windows(4).position(|bytes| bytes == number).unwrap();
    let mut damaged = sound.clone();
    damaged[place] ^= 1;
    let path = folder.path().join("flipped.pth");
    std::fs::write(&path, damaged).unwrap();
    let text = read_weights(&graph(), &path, None, Head::Kept, &Device::Cpu).unwrap_err().to_string();
    assert!(text.contains("flipped.pth") && text.contains("checksum"), "{text}");
}

#[test]
fn cut_and_flipped_files_are_errors_or_other_numbers_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = folder.path().join("damaged.pth");
    // A new file each time: some file systems wait for the disk where one is overwritten.
    let write = |bytes: &[u8]| {
        let _ = std::fs::remove_file(&damaged);
        std::fs::write(&damaged, bytes).unwrap();
    };
    for name in ["state_dict.pth", "legacy.pth"] {
        let sound = std::fs::read(fixture(name)).unwrap();
        for i in 0..sound.len() {
            write(&sound[..i]);
            let text =
                read_weights(&graph(), &damaged, None, Head::Kept, &Device::Cpu).unwrap_err().to_string();
            assert!(text.contains("damaged.pth"), "{text}");
            for bit in [1, 0x80] {
                let mut bytes = sound.clone();
                bytes[i] ^= bit;
                write(&bytes);
                if let Err(error) = read_weights(&graph(), &damaged, None, Head::Kept, &Device::Cpu) {
                    assert!(error.to_string().contains("damaged.pth"), "{error}");
                }
            }
        }
    }
}
