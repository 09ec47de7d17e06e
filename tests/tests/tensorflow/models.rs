//! SavedModels and checkpoints of the whole zoo and of every operation, read by each of TensorFlow's loaders.

use std::ffi::OsStr;
use std::path::Path;

use candle_core::{Device, Tensor};
use libtest_mimic::{Failed, Trial};
use serde_json::json;
use tallow_builder::cam::class_activation_maps;
use tallow_builder::graph::Shape;
use tallow_builder::{Graph, GraphBuilder, Network, Rng, Weights};
use tallow_conformance::randomised;
use tallow_exporter::tensorflow::{SavedModel, SavedModelOptions, Step, write_checkpoint};
use tallow_exporter::{Existing, OnnxOptions};
use tallow_input::{ModelCard, Preprocess};
use tallow_models::Options;

use crate::environment::{Environment, Python};
use crate::op_cases;

/// Images in the batch that is compared.
const BATCH: usize = 4;

/// What the tests read; each is one run of Python over all its models.
pub fn trials(environment: &Environment) -> Vec<Trial> {
    let few = ["plain_cnn", "resnet18_cifar", "resnet50", "efficientnet_b0", "efficientnet_lite0"];
    vec![
        environment.trial("models::load_the_resnets", |python| {
            let names = tallow_models::names().filter(|name| !is_efficientnet(name));
            consume(python, "load", zoo(names, 33), &SavedModelOptions::default())
        }),
        environment.trial("models::load_the_efficientnets", |python| {
            let names = tallow_models::names().filter(is_efficientnet);
            consume(python, "load", zoo(names, 33), &SavedModelOptions::default())
        }),
        environment.trial("models::load_every_operation", |python| {
            consume(python, "load", operations(), &SavedModelOptions::default())
        }),
        environment.trial("models::load_folded", move |python| {
            consume(
                python,
                "load",
                zoo(few.into_iter(), 40),
                &SavedModelOptions { fold: true, ..Default::default() },
            )
        }),
        environment.trial("models::load_with_cam", move |python| {
            let onnx = OnnxOptions { cam: true, ..Default::default() };
            consume(
                python,
                "load",
                zoo(few.into_iter(), 40),
                &SavedModelOptions { onnx, ..Default::default() },
            )
        }),
        environment.trial("models::session", move |python| {
            consume(python, "session", zoo(few.into_iter(), 47), &SavedModelOptions::default())
        }),
        environment.trial("models::session_every_operation", |python| {
            consume(python, "session", operations(), &SavedModelOptions::default())
        }),
        environment.trial("models::c_api", move |python| {
            consume(python, "c_api", zoo(few.into_iter(), 47), &SavedModelOptions::default())
        }),
        environment.trial("models::command_line", |python| {
            consume(
                python,
                "command_line",
                zoo(["resnet18_cifar"].into_iter(), 16),
                &SavedModelOptions::default(),
            )
        }),
        environment.trial("models::tflite", move |python| {
            consume(python, "tflite", zoo(few.into_iter(), 33), &SavedModelOptions::default())
        }),
        environment.trial("models::tflite_every_operation", |python| {
            consume(python, "tflite", operations(), &SavedModelOptions::default())
        }),
        environment.trial("models::fine_tune", |python| {
            let options = Options { dropout: Some(0.0), stochastic_depth: Some(0.0), ..Options::new(7, 64) };
            let graphs = ["resnet18_cifar", "efficientnet_b0"]
                .map(|name| tallow_models::build(name, &options).unwrap());
            consume(python, "fine_tune", graphs.into(), &SavedModelOptions::default())
        }),
        environment.trial("models::dropout", |python| {
            let mut g = GraphBuilder::new("dropped", Shape::map(3, 8, 8));
            let x = g.stochastic_depth("drop_path", g.input(), 0.75).unwrap();
            let x = g.dropout("dropout", x, 0.2).unwrap();
            let x = g.flatten("flatten", x).unwrap();
            consume(python, "dropout", vec![g.finish(x).unwrap()], &SavedModelOptions::default())
        }),
    ]
}

fn is_efficientnet(name: &&str) -> bool {
    name.starts_with("efficientnet")
}

fn zoo<'a>(names: impl Iterator<Item = &'a str>, size: usize) -> Vec<Graph> {
    names.map(|name| tallow_models::build(name, &Options::new(7, size)).unwrap()).collect()
}

fn operations() -> Vec<Graph> {
    let cases = [op_cases::convolutions(3), op_cases::pools(3), op_cases::activations(3)].concat();
    let graphs = cases.into_iter().map(|(graph, _)| graph);
    graphs.chain([op_cases::unfoldable(3), op_cases::branches(3)]).collect()
}

/// Writes each network as a model and as a checkpoint, with images and what candle gives for them, and has Python
/// compare.
fn consume(
    python: &Python,
    how: &str,
    graphs: Vec<Graph>,
    options: &SavedModelOptions,
) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    for graph in graphs {
        write_case(&folder.path().join(graph.name()), &graph, options)?;
    }
    python.run("models.py", &[OsStr::new(how), folder.path().as_os_str()])
}

fn write_case(folder: &Path, graph: &Graph, options: &SavedModelOptions) -> Result<(), Failed> {
    std::fs::create_dir(folder)?;
    let weights = randomised(graph, 1)?;
    let Shape::Map { channels, height, width } = graph.input_shape() else { unreachable!("images are maps") };
    let preprocess = Preprocess::imagenet(width as u32, height as u32);
    let classes = graph.output_shape().elements();
    let labels = (0..classes).map(|class| format!("class {class}")).collect();
    let card = ModelCard::new(graph.name(), labels, preprocess);
    SavedModel::write(&folder.join("model"), graph, &weights, &card, options, Existing::Keep)?;
    write_checkpoint(&folder.join("checkpoints"), graph, &weights, Step(42), Existing::Keep)?;

    let mut rng = Rng::new(3);
    let pixels = (0..BATCH * channels * height * width).map(|_| rng.normal() as f32).collect::<Vec<_>>();
    let images = Tensor::from_vec(pixels, (BATCH, channels, height, width), &Device::Cpu)?;
    write_floats(&folder.join("images.f32"), &images.permute((0, 2, 3, 1))?)?;
    let network = Network::new(graph.clone(), weights);
    write_floats(&folder.join("logits.f32"), &logits(&network, &images)?)?;
    let mut maps = None;
    if options.onnx.cam {
        let (_, found) = class_activation_maps(&network, &images)?.ok_or("the network has no maps")?;
        let found = found.permute((0, 2, 3, 1))?;
        write_floats(&folder.join("cam.f32"), &found)?;
        maps = Some(found.dims().to_vec());
    }
    let dropped = graph.nodes().iter().any(|node| matches!(node.op.kind(), "dropout" | "stochastic_depth"));
    if !dropped {
        write_training(folder, network, &images)?;
    }
    let case = json!({
        "images": [BATCH, height, width, channels],
        "logits": [BATCH, classes],
        "softmax": ends_in_softmax(graph),
        "trainable": graph.parameters().iter().filter(|p| p.role.is_trainable()).count(),
        "deterministic": !dropped,
        "folded": options.fold,
        "cam": maps,
    });
    Ok(std::fs::write(folder.join("case.json"), case.to_string())?)
}

fn ends_in_softmax(graph: &Graph) -> bool {
    graph.node(graph.output()).op.kind() == "softmax"
}

/// Softmax's input where the network ends in one.
fn logits(network: &Network, images: &Tensor) -> Result<Tensor, Failed> {
    let graph = network.graph();
    let output = graph.node(graph.output());
    let wanted = if ends_in_softmax(graph) { output.inputs[0] } else { graph.output() };
    let mut logits = None;
    network.forward_watched(images, |id, value| {
        if id == wanted {
            logits = Some(value.clone());
        }
    })?;
    Ok(logits.expect("every layer is shown"))
}

/// What a training pass gives, and the running moments after it.
fn write_training(folder: &Path, mut network: Network, images: &Tensor) -> Result<(), Failed> {
    let tape = network.record(images, &mut Rng::new(0))?;
    write_floats(&folder.join("training_logits.f32"), tape.value(network.graph().output()))?;
    let statistics = tape.statistics(&network);
    network.track(&statistics)?;
    let moments = |weights: &Weights| -> Result<(), Failed> {
        for (name, tensor) in weights.iter() {
            let scope = name.replace('.', "/");
            let Some(file) =
                scope.strip_suffix("/running_mean").map(|scope| format!("{scope}/moving_mean")).or_else(
                    || scope.strip_suffix("/running_var").map(|scope| format!("{scope}/moving_variance")),
                )
            else {
                continue;
            };
            write_floats(&folder.join("moments").join(file), tensor)?;
        }
        Ok(())
    };
    moments(network.weights())
}

fn write_floats(path: &Path, tensor: &Tensor) -> Result<(), Failed> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    std::fs::create_dir_all(path.parent().expect("a file lies in a folder"))?;
    Ok(std::fs::write(path, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?)
}
