use super::*;

/// What is said of a file with this name and content.
fn said(name: &str, content: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    match kind_of(&path).unwrap() {
        Kind::Safetensors => "safetensors".into(),
        Kind::Torch => "torch".into(),
        Kind::Other(text) => text,
    }
}

/// A zip archive with empty files of these names.
fn zip(names: &[&str]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(io::Cursor::new(vec![]));
    for name in names {
        archive.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn graph() -> GraphDef {
    let node =
        tallow_tensorflow::proto::NodeDef { name: "x".into(), op: "Const".into(), ..Default::default() };
    GraphDef { node: vec![node], ..Default::default() }
}

#[test]
fn what_holds_no_readable_weights_is_told_by_content() {
    let meta = MetaGraphDef {
        meta_info_def: Some(Default::default()),
        graph_def: Some(graph()),
        ..Default::default()
    };
    let saved = SavedModel { saved_model_schema_version: 1, meta_graphs: vec![meta.clone()] };
    let table = [&[0; 40][..], &TABLE].concat();
    let cases: [(&str, &[u8], &str); 19] = [
        ("m.h5", b"\x89HDF\r\n\x1a\n and more", "HDF5 file, such as Keras writes"),
        ("m.keras", &zip(&["config.json", "model.weights.h5"]), "model of Keras's (.keras)"),
        ("m.npz", &zip(&["a.npy", "b.npy"]), "NumPy's"),
        ("m.npy", b"\x93NUMPY\x01\0", "NumPy's"),
        ("m.pth", &zip(&["archive/data.pkl"]), "torch"),
        ("m.pkl", b"\x80\x04\x95\x0f\0\0\0", "torch.save did not write"),
        ("m.pkl", b"(dp0\nVa\np1\n", "torch.save did not write"),
        ("model.ckpt", &table, "TensorFlow's first format"),
        ("m.pb", &graph().encode_to_vec(), "graph of TensorFlow's (frozen"),
        ("model.ckpt.meta", &meta.encode_to_vec(), "graph of a checkpoint without its weights"),
        ("saved_model.pb", &saved.encode_to_vec(), "graph of a SavedModel"),
        ("m.onnx", b"\x08\x08\x12\x06tallow", "ONNX"),
        ("model.ckpt-1.data-00000-of-00001", &[0; 20], "copy model.ckpt-1.index beside it"),
        ("m.tflite", b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        ("m.safetensors", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("m.pth", b"<!DOCTYPE html><html>", "web page"),
        ("checkpoint", b"model_checkpoint_path: \"model.ckpt-1\"", "name the folder"),
        ("m.pth", b"", "is empty"),
        ("m.png", b"\x89PNG\r\n\x1a\n", "no file of weights that is known here"),
    ];
    for (name, content, expected) in cases {
        let text = said(name, content);
        assert!(text.contains(expected) && !text.contains('\n') && !text.contains("  "), "{name}: {text}");
    }
}

#[test]
fn safetensors_are_told_whatever_the_length_of_their_header_begins_with() {
    for length in [0x08, 0x0a, 0x28, 0x80] {
        assert_eq!(said("m", &[length, 2, 0, 0, 0, 0, 0, 0, b'{', b'"']), "safetensors");
    }
}
