//! What the tests against PyTorch share: fixtures, and networks whose tensors come from the formula.

#[path = "../../../tests/src/formula.rs"]
pub mod formula;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use tallow_builder::graph::Role;
use tallow_builder::{Network, Weights};
use tallow_models::{Options, PaddingStyle, build};

/// What a fixture's results were computed with.
#[derive(Deserialize)]
pub struct Setup {
    pub model: String,
    pub classes: usize,
    pub gain: f64,
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    /// SAME padding, and batch norm's eps 1e-3.
    #[serde(default)]
    pub tensorflow_form: bool,
}

impl Setup {
    pub fn network(&self, options: Options) -> Network {
        let options = Options {
            width: Some(self.width),
            height: Some(self.height),
            classes: Some(self.classes),
            padding: self.tensorflow_form.then_some(PaddingStyle::Same),
            batch_norm_eps: self.tensorflow_form.then_some(1e-3),
            ..options
        };
        let graph = build(&self.model, &options).expect("the fixture names a network");
        let tensors: BTreeMap<String, Tensor> = graph
            .parameters()
            .into_iter()
            .map(|p| {
                let tensor = if p.role == Role::BatchesTracked {
                    Tensor::zeros((), DType::I64, &Device::Cpu)
                } else {
                    Tensor::from_vec(formula::values(&p.name, &p.shape, self.gain), p.shape, &Device::Cpu)
                };
                (p.name, tensor.expect("the formula fills the shape"))
            })
            .collect();
        let weights = Weights::from_tensors(&graph, tensors, "the formula").expect("every tensor is there");
        Network::new(graph, weights)
    }

    pub fn images(&self) -> Tensor {
        let values = formula::images(self.batch, self.height, self.width);
        Tensor::from_vec(values, (self.batch, 3, self.height, self.width), &Device::Cpu)
            .expect("the formula fills the shape")
    }
}

/// The cases of a fixture file.
pub fn cases<T: for<'a> Deserialize<'a>>(text: &str) -> Vec<T> {
    #[derive(Deserialize)]
    struct Fixture<T> {
        cases: Vec<T>,
    }
    serde_json::from_str::<Fixture<T>>(text).expect("the fixture is valid").cases
}

/// All elements as f64.
pub fn values(tensor: &Tensor) -> Vec<f64> {
    let values = tensor.flatten_all().and_then(|t| t.to_dtype(DType::F64)).and_then(|t| t.to_vec1());
    values.expect("a tensor on the CPU can be read")
}
