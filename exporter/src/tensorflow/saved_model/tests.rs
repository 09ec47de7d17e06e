use tallow_builder::GraphBuilder;
use tallow_builder::graph::{BatchNorm, ConvSpec, Linear, Shape};
use tallow_input::Preprocess;

use super::*;

fn model() -> (Graph, Weights, ModelCard) {
    let mut g = GraphBuilder::new("tiny", Shape::map(3, 6, 8));
    let x = g.conv2d("conv", g.input(), ConvSpec::new(4, 3)).unwrap();
    let x = g.batch_norm("bn", x, BatchNorm::default()).unwrap();
    let x = g.global_avg_pool("pool", x).unwrap();
    let x = g.flatten("flatten", x).unwrap();
    let x = g.linear("fc", x, Linear::uniform(2, 0.1)).unwrap();
    let graph = g.finish(x).unwrap();
    let weights = Weights::init(&graph, 1, &Device::Cpu).unwrap();
    let card = ModelCard::new("tiny", vec!["Ä b".into(), "猫 \\n".into()], Preprocess::imagenet(8, 6));
    (graph, weights, card)
}

#[test]
fn what_was_written_opens_with_the_same_network_weights_and_card() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let (graph, weights, card) = model();
    let onnx = OnnxOptions { softmax: true, ..Default::default() };
    let options = SavedModelOptions { version: 7, onnx, ..Default::default() };
    let dir = SavedModel::write(&path, &graph, &weights, &card, &options, Existing::Keep).unwrap();
    assert_eq!(dir.path(), path.join("7"));
    assert_eq!(dir.graph(), &graph);
    assert_eq!(dir.labels(), card.labels);
    assert_eq!(dir.card().output, tallow_input::OutputKind::Probabilities);
    let read = dir.load_weights(&Device::Cpu).unwrap();
    for ((name, a), (other, b)) in weights.iter().zip(read.iter()) {
        assert_eq!(name, other);
        assert_eq!(a.to_string(), b.to_string());
    }
    let text = SavedModel::write(&path, &graph, &weights, &card, &options, Existing::Keep);
    assert!(matches!(text, Err(Error::Exists { .. })));
    SavedModel::write(&path, &graph, &weights, &card, &options, Existing::Replace).unwrap();
}

#[test]
fn only_a_saved_model_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious/1");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("thesis.txt"), "years of work").unwrap();
    let (graph, weights, card) = model();
    let parent = path.parent().unwrap();
    let result =
        SavedModel::write(parent, &graph, &weights, &card, &SavedModelOptions::default(), Existing::Replace);
    assert!(result.unwrap_err().to_string().contains("is no SavedModel of Tallow's"));
    assert!(path.join("thesis.txt").exists());
}

#[test]
fn a_label_with_a_line_break_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (graph, weights, mut card) = model();
    card.labels[1] = "two\nlines".into();
    let path = folder.path().join("model");
    let result =
        SavedModel::write(&path, &graph, &weights, &card, &SavedModelOptions::default(), Existing::Keep);
    assert!(result.unwrap_err().to_string().contains(r#"label "two\nlines" has a line break"#));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn damage_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (graph, weights, card) = model();
    for (file, damage, expected) in [
        (NETWORK, "{", "cannot be understood"),
        (ONNX, "\u{7}", "not a readable ONNX model"),
        ("assets/labels.txt", "a\nb\n", "differs from what assets.extra/model.onnx says"),
        (PREPROCESS, "[]", "cannot be understood"),
    ] {
        let path = folder.path().join(file.replace('/', "_"));
        let options = SavedModelOptions::default();
        SavedModel::write(&path, &graph, &weights, &card, &options, Existing::Keep).unwrap();
        fs::write(path.join("1").join(file), damage).unwrap();
        let text = SavedModel::open(&path).unwrap_err().to_string();
        assert!(text.starts_with(&path.join("1").join(file).display().to_string()), "{text}");
        assert!(text.contains(expected) && !text.contains('\n'), "{text}");
    }
    assert!(
        SavedModel::open(folder.path()).unwrap_err().to_string().contains("is no SavedModel of Tallow's")
    );
}

#[test]
fn the_newest_version_is_opened_and_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (graph, weights, card) = model();
    for version in [9, 10] {
        let options = SavedModelOptions { version, ..Default::default() };
        SavedModel::write(folder.path(), &graph, &weights, &card, &options, Existing::Keep).unwrap();
    }
    let newest = SavedModel::open(folder.path()).unwrap();
    assert_eq!(newest.path(), folder.path().join("10"));
    assert_eq!(SavedModel::open(&folder.path().join("9")).unwrap().path(), folder.path().join("9"));
    assert_eq!(SavedModel::around(&newest.onnx_path()).unwrap(), newest.path());
    assert_eq!(SavedModel::around(&folder.path().join("model.onnx")), None);
}

#[test]
fn the_same_network_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (graph, weights, card) = model();
    let write = |name: &str| {
        let path = folder.path().join(name);
        let options = SavedModelOptions::default();
        let model = SavedModel::write(&path, &graph, &weights, &card, &options, Existing::Keep).unwrap();
        let files = [GRAPH, "variables/variables.index", "variables/variables.data-00000-of-00001"];
        files.map(|file| fs::read(model.path().join(file)).unwrap())
    };
    assert_eq!(write("a"), write("b"));
}
