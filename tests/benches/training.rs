//! Training speed beside plain candle: one step (forward, cross-entropy, backward, SGD with momentum) of ResNet-18 in
//! its CIFAR form at 3×32×32, batch 64, in one process and in turn.
//!
//!     cargo bench --bench training -- [seconds] [batch]
//!
//! Set RAYON_NUM_THREADS to compare at another number of threads.
#![allow(clippy::unwrap_used, missing_docs)] // A benchmark fails by panicking, and nobody imports it.

use std::collections::HashMap;
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{
    BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, Linear, Module, ModuleT, VarBuilder, VarMap,
};
use tallow_builder::kernels::CrossEntropy;
use tallow_builder::{Network, Rng, Weights};
use tallow_models::Options;
use tallow_trainer::optim::{Optimizer, OptimizerKind};

const CLASSES: usize = 10;
const RATE: f64 = 1e-3;
const MOMENTUM: f64 = 0.9;

fn main() {
    // cargo passes flags of its own, such as --bench.
    let numbers: Vec<f64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let seconds = numbers.first().copied().unwrap_or(20.0);
    let batch = numbers.get(1).map_or(64, |&n| n as usize);
    let mut rng = Rng::new(1);
    let pixels: Vec<f32> = (0..batch * 3 * 32 * 32).map(|_| rng.normal() as f32).collect();
    let images = Tensor::from_vec(pixels, (batch, 3, 32, 32), &Device::Cpu).unwrap();
    let labels: Vec<u32> = (0..batch).map(|i| (i % CLASSES) as u32).collect();

    let mut ours = Ours::new();
    let mut candle = Candle::new().unwrap();
    ours.step(&images, &labels);
    candle.step(&images, &labels).unwrap();
    let (mut our_times, mut candle_times) = (vec![], vec![]);
    let start = Instant::now();
    while our_times.len() < 3 || start.elapsed().as_secs_f64() < seconds {
        our_times.push(timed(|| ours.step(&images, &labels)));
        candle_times.push(timed(|| candle.step(&images, &labels).unwrap()));
    }
    let speed = |times: &mut [f64]| {
        times.sort_by(f64::total_cmp);
        batch as f64 / times[times.len() / 2]
    };
    let (ours, candle) = (speed(&mut our_times), speed(&mut candle_times));
    println!("resnet18_cifar, 3×32×32, batch {batch}, {} threads", rayon::current_num_threads());
    println!("tallow        {ours:>7.1} images/s (median of {})", our_times.len());
    println!("plain candle  {candle:>7.1} images/s");
    println!("ratio         {:>7.2}", ours / candle);
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

struct Ours {
    network: Network,
    optimizer: Optimizer,
}

impl Ours {
    fn new() -> Self {
        let graph = tallow_models::build("resnet18_cifar", &Options::new(CLASSES, 32)).unwrap();
        let weights = Weights::init(&graph, 1, &Device::Cpu).unwrap();
        let kind = OptimizerKind::Sgd { momentum: MOMENTUM, nesterov: false, weight_decay: 0.0 };
        let optimizer = Optimizer::new(kind, &graph, &weights).unwrap();
        Self { network: Network::new(graph, weights), optimizer }
    }

    fn step(&mut self, images: &Tensor, labels: &[u32]) {
        let tape = self.network.record(images, &mut Rng::new(0)).unwrap();
        let logits = tape.value(self.network.graph().output()).clone();
        let (_, grad) = CrossEntropy { smoothing: 0.0 }.loss_and_gradient(&logits, labels).unwrap();
        let statistics = tape.statistics(&self.network);
        let gradients = tape.backward(&self.network, &grad, |_| true).unwrap();
        self.optimizer.step(self.network.weights_mut(), &gradients, |_| RATE, 1.0).unwrap();
        self.network.track(&statistics).unwrap();
    }
}

/// The same network in candle's own layers, on candle's autograd.
struct Candle {
    variables: VarMap,
    velocity: HashMap<String, Tensor>,
    stem: (Conv2d, BatchNorm),
    blocks: Vec<Block>,
    fc: Linear,
}

struct Block {
    first: (Conv2d, BatchNorm),
    second: (Conv2d, BatchNorm),
    shortcut: Option<(Conv2d, BatchNorm)>,
}

fn conv_bn(
    vb: &VarBuilder,
    name: &str,
    from: usize,
    to: usize,
    kernel: usize,
    stride: usize,
) -> Result<(Conv2d, BatchNorm)> {
    let config = Conv2dConfig { padding: kernel / 2, stride, ..Conv2dConfig::default() };
    let conv = candle_nn::conv2d_no_bias(from, to, kernel, config, vb.pp(format!("{name}.conv")))?;
    Ok((conv, candle_nn::batch_norm(to, BatchNormConfig::default(), vb.pp(format!("{name}.bn")))?))
}

fn run((conv, bn): &(Conv2d, BatchNorm), x: &Tensor) -> Result<Tensor> {
    bn.forward_t(&conv.forward(x)?, true)
}

impl Candle {
    fn new() -> Result<Self> {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let stem = conv_bn(&vb, "stem", 3, 64, 3, 1)?;
        let mut blocks = vec![];
        let mut from = 64;
        for (stage, planes) in [64, 128, 256, 512].into_iter().enumerate() {
            for block in 0..2 {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let name = format!("layer{stage}.{block}");
                let shortcut = (stride != 1 || from != planes)
                    .then(|| conv_bn(&vb, &format!("{name}.shortcut"), from, planes, 1, stride));
                blocks.push(Block {
                    first: conv_bn(&vb, &format!("{name}.first"), from, planes, 3, stride)?,
                    second: conv_bn(&vb, &format!("{name}.second"), planes, planes, 3, 1)?,
                    shortcut: shortcut.transpose()?,
                });
                from = planes;
            }
        }
        let fc = candle_nn::linear(512, CLASSES, vb.pp("fc"))?;
        Ok(Self { variables, velocity: HashMap::new(), stem, blocks, fc })
    }

    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let mut x = run(&self.stem, images)?.relu()?;
        for block in &self.blocks {
            let y = run(&block.first, &x)?.relu()?;
            let y = run(&block.second, &y)?;
            let shortcut = match &block.shortcut {
                Some(layers) => run(layers, &x)?,
                None => x,
            };
            x = (y + shortcut)?.relu()?;
        }
        self.fc.forward(&x.mean((2, 3))?)
    }

    fn step(&mut self, images: &Tensor, labels: &[u32]) -> Result<()> {
        let labels = Tensor::new(labels, &Device::Cpu)?;
        let loss = candle_nn::loss::cross_entropy(&self.forward(images)?, &labels)?;
        let gradients = loss.backward()?;
        let variables: Vec<(String, Var)> = self
            .variables
            .data()
            .lock()
            .unwrap()
            .iter()
            .map(|(name, var)| (name.clone(), var.clone()))
            .collect();
        for (name, var) in variables {
            let Some(gradient) = gradients.get(&var) else { continue };
            let velocity = match self.velocity.get(&name) {
                Some(velocity) => ((velocity * MOMENTUM)? + gradient)?,
                None => gradient.clone(),
            };
            var.set(&(var.as_tensor() - (&velocity * RATE)?)?)?;
            self.velocity.insert(name, velocity);
        }
        Ok(())
    }
}
