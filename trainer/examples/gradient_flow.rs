//! Why initialisation, batch normalisation and skip connections exist: how gradients flow through twenty layers with
//! and without them.
//!
//!     cargo run --release -p tallow-trainer --example gradient_flow [FOLDER]
//!
//! Each network does one training step on the same batch of digits. The tables go to the terminal, the pictures to
//! FOLDER (`runs/gradient_flow` by default).

use std::error::Error;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use tallow_builder::graph::{Activation, BatchNorm, ConvSpec, GraphBuilder, Linear, Shape};
use tallow_builder::init::{Distribution, Fan};
use tallow_builder::kernels::CrossEntropy;
use tallow_builder::{Graph, Init, Network, Rng, Weights};
use tallow_trainer::Config;
use tallow_trainer::augment::EvalTransform;
use tallow_trainer::config::InputConfig;
use tallow_trainer::data::{Batch, Loader, LoaderOptions, Splits};
use tallow_trainer::diagnose::{Activations, GradientFlow};
use tallow_trainer::optim::{Optimizer, OptimizerKind};
use tallow_trainer::plot;

const DEPTH: usize = 20;
const CHANNELS: usize = 16;
const SIDE: usize = 16;
const CLASSES: usize = 10;
const RATE: f64 = 0.05;

/// Twenty convolutions in a row, and what they are made of.
struct Plan {
    name: &'static str,
    lesson: &'static str,
    activation: Activation,
    init: Init,
    batch_norm: bool,
    /// Whether every second convolution's input is added to its output.
    skip: bool,
}

/// He et al. 2015, equation 10, for what a unit takes in.
fn he() -> Init {
    Init::he(Distribution::Normal, Fan::In)
}

fn plans() -> [Plan; 7] {
    let plain = Plan {
        name: "",
        lesson: "",
        activation: Activation::Relu,
        init: he(),
        batch_norm: false,
        skip: false,
    };
    [
        Plan {
            name: "sigmoid, Xavier",
            lesson: "A sigmoid's slope is at most 1/4, so each layer takes three quarters of the gradient away, \
                     whatever the initialisation. This is why deep networks once could not be trained.",
            activation: Activation::SIGMOID,
            init: Init::xavier(Distribution::Normal),
            ..plain
        },
        Plan {
            name: "tanh, Xavier",
            lesson: "tanh has a slope of 1 at 0, and Xavier keeps activations there: the gradient arrives.",
            activation: Activation::Tanh,
            init: Init::xavier(Distribution::Normal),
            ..plain
        },
        Plan {
            name: "ReLU, weights 3 times too large",
            lesson: "Each layer multiplies activations and gradients by three: 3^20 is 3.5 thousand million.",
            init: Init::Kaiming {
                distribution: Distribution::Normal,
                fan: Fan::In,
                gain: 3.0 * std::f64::consts::SQRT_2,
            },
            ..plain
        },
        Plan {
            name: "ReLU, weights 3 times too small",
            lesson: "The same the other way round: nothing of the image reaches the output, and nothing comes back.",
            init: Init::Kaiming {
                distribution: Distribution::Normal,
                fan: Fan::In,
                gain: std::f64::consts::SQRT_2 / 3.0,
            },
            ..plain
        },
        Plan {
            name: "ReLU, He",
            lesson: "He initialisation has just the variance, 2 / fan, that keeps what ReLU halves.",
            ..plain
        },
        Plan {
            name: "ReLU, weights 3 times too large, batch normalisation",
            lesson: "Batch normalisation divides by the scale of what it sees, so that the initialisation's no longer \
                     matters.",
            init: Init::Kaiming {
                distribution: Distribution::Normal,
                fan: Fan::In,
                gain: 3.0 * std::f64::consts::SQRT_2,
            },
            batch_norm: true,
            ..plain
        },
        Plan {
            name: "ReLU, He, batch normalisation, skip connections",
            lesson: "A skip connection hands the gradient on as it is: depth costs nothing. This is a ResNet.",
            batch_norm: true,
            skip: true,
            ..plain
        },
    ]
}

impl Plan {
    fn graph(&self) -> tallow_builder::Result<Graph> {
        let mut g = GraphBuilder::new(self.name, Shape::map(3, SIDE, SIDE));
        let mut x = g.input();
        let mut kept = x;
        for layer in 1..=DEPTH {
            let spec = ConvSpec::new(CHANNELS, 3).padding(1).weight_init(self.init);
            let bias = !self.batch_norm;
            x = g.conv2d(&format!("conv{layer}"), x, if bias { spec.bias() } else { spec })?;
            if self.batch_norm {
                x = g.batch_norm(&format!("bn{layer}"), x, BatchNorm::default())?;
            }
            if self.skip && layer > 1 && layer % 2 == 1 {
                x = g.sum(&format!("add{layer}"), x, kept)?;
            }
            x = g.activation(&format!("act{layer}"), x, self.activation)?;
            if layer % 2 == 1 {
                kept = x;
            }
        }
        x = g.global_avg_pool("pool", x)?;
        x = g.flatten("flatten", x)?;
        x = g.linear("fc", x, Linear::uniform(CLASSES, 1.0 / (CHANNELS as f64).sqrt()))?;
        g.finish(x)
    }
}

/// 128 digits.
fn batch() -> Result<Batch, Box<dyn Error>> {
    let grey = Some([0.5; 3]);
    let input = InputConfig { size: Some(SIDE as u32), mean: grey, std: grey, ..InputConfig::default() };
    let config = Config { model: "plain_cnn".into(), input, ..Config::default() };
    let data = Splits::open(&config.data, config.split, None, None)?;
    let transform = EvalTransform::new(config.preprocess()?)?;
    let options = LoaderOptions { batch_size: 128, shuffle: true, ..LoaderOptions::default() };
    let loader = Loader::new(data.train, std::sync::Arc::new(transform), options)?;
    Ok(loader.epoch(0, 0)?.next().ok_or("the digits have a first batch")??)
}

/// One training step, and what it shows.
fn step(plan: &Plan, batch: &Batch) -> Result<GradientFlow, Box<dyn Error>> {
    let graph = plan.graph()?;
    let weights = Weights::init(&graph, 0, &Device::Cpu)?;
    let kind = OptimizerKind::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
    let mut optimizer = Optimizer::new(kind, &graph, &weights)?;
    let mut network = Network::new(graph, weights);

    let images =
        Tensor::from_slice(&batch.floats(), (batch.len(), 3, batch.height, batch.width), &Device::Cpu)?;
    let tape = network.record(&images, &mut Rng::new(0))?;
    let activations = Activations::of_pass(network.graph(), &tape)?;
    let logits = tape.value(network.graph().output()).clone();
    let (_, gradient) = CrossEntropy { smoothing: 0.0 }.loss_and_gradient(&logits, &batch.labels)?;
    let gradients = tape.backward(&network, &gradient, |_| true)?;
    let before = network.weights().clone();
    optimizer.step(network.weights_mut(), &gradients, |_| RATE, 1.0)?;
    Ok(GradientFlow::measure(network.graph(), &activations, &gradients, &before, network.weights())?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or("runs/gradient_flow".into()));
    std::fs::create_dir_all(&folder)?;
    let batch = batch()?;
    let mut flows = vec![];
    for plan in plans() {
        let flow = step(&plan, &batch)?;
        println!("── {}\n{}\n\n{flow}\n\n{}\n", plan.name, plan.lesson, flow.verdict());
        let file = plan.name.to_lowercase().replace(", ", "-").replace(' ', "_") + ".png";
        plot::save(&plot::gradient_flow(plan.name, &[(plan.name.to_owned(), &flow)])?, &folder.join(file))?;
        flows.push((plan.name.to_owned(), flow));
    }
    let all: Vec<(String, &GradientFlow)> = flows.iter().map(|(name, flow)| (name.clone(), flow)).collect();
    let title = format!("One training step of {DEPTH} convolutions, seven ways");
    plot::save(&plot::gradient_flow(&title, &all)?, &folder.join("all.png"))?;
    println!("pictures: {}", folder.display());
    Ok(())
}
