//! A training on noise, which needs no data: what benchmarks time. A step is forward, cross-entropy, backward, SGD with
//! momentum and the running moments; images and weights lie on the device, and nothing waits for its end.

use candle_core::{Device, Tensor};
use tallow_builder::exec::Keep;
use tallow_builder::kernels::{CrossEntropy, MixedLabels, dense};
use tallow_builder::{Graph, Network, Rng, Weights};
use tallow_cuda::{Precision, is_on_gpu};

use crate::error::Result;
use crate::optim::{Optimizer, OptimizerKind};

/// He et al. 2015, section 3.4.
const SGD: OptimizerKind = OptimizerKind::Sgd { momentum: 0.9, nesterov: false, weight_decay: 1e-4 };
const RATE: f64 = 1e-3;
/// The gradients of f16 are small; a power of two changes none of their bits.
const LOSS_SCALE: f32 = 1024.0;

/// A network that trains on one batch of noise, over and over.
pub struct Synthetic {
    network: Network,
    optimizer: Optimizer,
    images: Tensor,
    labels: Vec<u32>,
    /// What the gradients of the loss are multiplied by, and divided by again in the step of the weights.
    scale: Option<Tensor>,
    rng: Rng,
}

impl Synthetic {
    /// Random weights and a batch of `batch` images on a device.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn new(graph: &Graph, batch: usize, precision: Precision, device: &Device) -> Result<Self> {
        let weights = Weights::init(graph, 1, device)?;
        let optimizer = Optimizer::new(SGD, graph, &weights)?;
        let mut images =
            normal(graph.input_shape().with_batch(batch), device)?.to_dtype(precision.dtype())?;
        if is_on_gpu(&images) {
            // As batches of a training come there.
            images = dense(&images)?;
        }
        let classes = graph.output_shape().elements();
        let labels = (0..batch).map(|i| (i % classes) as u32).collect();
        let scale = match precision {
            Precision::F16 => Some(Tensor::new(&[LOSS_SCALE], device)?),
            Precision::F32 | Precision::Tf32 | Precision::Bf16 => None,
        };
        let network = Network::new(graph.clone(), weights);
        Ok(Self { network, optimizer, images, labels, scale, rng: Rng::new(1) })
    }

    /// One step. On a GPU it has hardly begun when this returns.
    ///
    /// # Errors
    /// Where the device fails or has no room.
    pub fn step(&mut self) -> Result<()> {
        let network = &mut self.network;
        let tape = network.record_keeping(&self.images, &mut self.rng, &|_| false, Keep::Needed, None)?;
        let logits = tape.value(network.graph().output());
        let loss = CrossEntropy { smoothing: 0.0 };
        let gradient = if is_on_gpu(logits) {
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
    ///
    /// # Errors
    /// Where the device fails.
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
///
/// # Errors
/// Where the device has no room.
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

#[cfg(test)]
mod tests {
    use tallow_cuda::emulator::emulated;
    use tallow_models::Options;

    use super::*;

    #[test]
    fn steps_leave_finite_weights_that_moved_by_either_kind_of_kernel() {
        let graph = tallow_models::build("plain_cnn", &Options::new(4, 8)).unwrap();
        let trained = |precision| {
            let mut training = Synthetic::new(&graph, 6, precision, &Device::Cpu).unwrap();
            let before = training.network.weights().get("fc.weight").clone();
            (0..2).for_each(|_| training.step().unwrap());
            assert!(training.is_sound().unwrap());
            let moved = (training.network.weights().get("fc.weight") - before).unwrap();
            assert!(moved.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() > 0.0);
            moved
        };
        let expected = trained(Precision::F32);
        for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::F16, 0.05)] {
            let found = emulated(|| trained(precision));
            let norm =
                |tensor: &Tensor| tensor.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
            let difference = norm(&(found - &expected).unwrap());
            assert!(difference <= tolerance * norm(&expected), "{precision}: {difference}");
        }
    }
}
