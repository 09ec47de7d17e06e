//! Sums by one communicator have to come in the same order on all ranks, also where rank 0 looks into its
//! pass and therefore keeps more of it than the others.

use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Tensor};
use tallow_builder::exec::Keep;
use tallow_builder::kernels::BatchReduce;
use tallow_builder::{Network, Rng, Weights};

/// Writes down what is summed.
#[derive(Clone, Debug, Default)]
struct Sums(Arc<Mutex<Vec<String>>>);

impl Sums {
    fn add(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
}

impl BatchReduce for Sums {
    fn all_reduce(&self, values: &mut [f64]) -> candle_core::Result<()> {
        self.add(format!("{} moments", values.len()));
        Ok(())
    }
}

#[test]
fn moments_and_gradients_are_summed_in_one_order_whatever_a_pass_keeps() {
    let options = tallow_models::Options::new(4, 32);
    for name in ["resnet20", "resnet18", "resnet50", "efficientnet_b0", "efficientnet_lite0", "plain_cnn"] {
        let graph = tallow_models::build(name, &options).unwrap();
        let weights = Weights::init(&graph, 1, &Device::Cpu).unwrap();
        let network = Network::new(graph, weights);
        let images = Tensor::randn(0f32, 1.0, (2, 3, 32, 32), &Device::Cpu).unwrap();
        let order = |keep| {
            let sums = Sums::default();
            let reduce = Some(Arc::new(sums.clone()) as Arc<dyn BatchReduce>);
            let tape = network.record_keeping(&images, &mut Rng::new(1), &|_| false, keep, reduce).unwrap();
            let grad = Tensor::ones((2, 4), DType::F32, &Device::Cpu).unwrap();
            let watch = |name: &str, _| -> tallow_builder::Result<()> {
                sums.add(name.to_owned());
                Ok(())
            };
            tape.backward_watched(&network, &grad, |_| true, watch).unwrap();
            sums.0.lock().unwrap().clone()
        };
        let everything = order(Keep::Everything);
        assert!(everything.len() > network.graph().parameters().len() / 2);
        assert_eq!(order(Keep::Needed), everything, "{name}");
        assert_eq!(order(Keep::Checkpoints), everything, "{name}");
    }
}
