//! A training step: forward, cross-entropy, backward, SGD with momentum, running moments; images and weights lie on the
//! device, and nothing waits for its end.

use anyhow::Result;
use candle_core::{Device, Tensor};
use tallow_builder::exec::Keep;
use tallow_builder::kernels::{CrossEntropy, MixedLabels};
use tallow_builder::{Graph, Network, Rng, Weights};
use tallow_models::Options;
use tallow_trainer::optim::{Optimizer, OptimizerKind};

use tallow_cuda::Precision;

use crate::target::Target;

/// He et al. 2015, section 3.4.
const SGD: OptimizerKind = OptimizerKind::Sgd { momentum: 0.9, nesterov: false, weight_decay: 1e-4 };
const RATE: f64 = 1e-3;
/// The gradients of f16 are small; a power of two changes none of their bits.
const LOSS_SCALE: f32 = 1024.0;

/// A network as it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub name: &'static str,
    pub classes: usize,
    pub size: usize,
    /// In `--quick`.
    pub quick_size: usize,
}

/// The networks that are measured by default.
pub const SETUPS: [Setup; 3] = [
    Setup { name: "resnet50", classes: 1000, size: 224, quick_size: 32 },
    Setup { name: "efficientnet_b0", classes: 1000, size: 224, quick_size: 32 },
    Setup { name: "resnet18_cifar", classes: 10, size: 32, quick_size: 16 },
];

impl Setup {
    pub fn size(&self, quick: bool) -> usize {
        if quick { self.quick_size } else { self.size }
    }

    pub fn graph(&self, quick: bool) -> Result<Graph> {
        Ok(tallow_models::build(self.name, &Options::new(self.classes, self.size(quick)))?)
    }
}

/// A network that trains.
pub struct Training {
    target: Target,
    network: Network,
    optimizer: Optimizer,
    images: Tensor,
    labels: Vec<u32>,
    /// What the gradients of the loss are multiplied by, and divided by again in the step of the weights.
    scale: Option<Tensor>,
    rng: Rng,
}

impl Training {
    pub fn new(
        graph: &Graph,
        classes: usize,
        batch: usize,
        precision: Precision,
        target: Target,
        device: &Device,
    ) -> Result<Self> {
        let weights = Weights::init(graph, 1, device)?;
        let optimizer = Optimizer::new(SGD, graph, &weights)?;
        let shape = graph.input_shape().with_batch(batch);
        let images = normal(shape, device)?.to_dtype(precision.dtype())?;
        let labels = (0..batch).map(|i| (i % classes) as u32).collect();
        let scale = match precision {
            Precision::F16 => Some(Tensor::new(&[LOSS_SCALE], device)?),
            _ => None,
        };
        let network = Network::new(graph.clone(), weights);
        Ok(Self { target, network, optimizer, images, labels, scale, rng: Rng::new(1) })
    }

    /// One step. On a GPU it has hardly begun when this returns.
    pub fn step(&mut self) -> Result<()> {
        self.target.on(|| self.take_step())
    }

    fn take_step(&mut self) -> Result<()> {
        let network = &mut self.network;
        let tape = network.record_keeping(&self.images, &mut self.rng, &|_| false, Keep::Needed, None)?;
        let logits = tape.value(network.graph().output());
        let loss = CrossEntropy { smoothing: 0.0 };
        let gradient = if tallow_cuda::is_on_gpu(logits) {
            let labels = MixedLabels { first: &self.labels, second: &self.labels, share: 1.0 };
            loss.on_device(logits, labels, self.scale.as_ref())?.gradient
        } else {
            loss.loss_and_gradient(logits, &self.labels)?.1
        };
        let statistics = tape.statistics(network);
        let gradients = tape.backward(network, &gradient, |_| true)?;
        let factor = if self.scale.is_some() { 1.0 / f64::from(LOSS_SCALE) } else { 1.0 };
        self.optimizer.step(network.weights_mut(), &gradients, |_| RATE, factor)?;
        network.track(&statistics)?;
        Ok(())
    }

    /// Whether the steps so far have left finite weights: a benchmark of NaN measures nothing.
    pub fn is_sound(&self) -> Result<bool> {
        for (_, tensor) in self.network.weights().iter().filter(|(_, tensor)| tensor.dtype().is_float()) {
            let total = tensor.abs()?.sum_all()?.to_device(&Device::Cpu)?.to_scalar::<f32>()?;
            if !total.is_finite() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Values of a normal distribution: on zeros a GPU draws less power, and is faster than it ever is in training.
pub fn normal(shape: Vec<usize>, device: &Device) -> Result<Tensor> {
    // As many as are needed to look random; the rest repeats them, made on the device.
    const DRAWN: usize = 1 << 16;
    let mut rng = Rng::new(2);
    let elements: usize = shape.iter().product();
    let drawn: Vec<f32> = (0..DRAWN.min(elements)).map(|_| rng.normal() as f32).collect();
    let drawn = Tensor::new(drawn, device)?;
    let repeats = elements.div_ceil(drawn.elem_count());
    let values = drawn.unsqueeze(0)?.repeat((repeats, 1))?.flatten_all()?;
    Ok(values.narrow(0, 0, elements)?.reshape(shape)?)
}
