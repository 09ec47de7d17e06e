//! Class activation maps, and passes that are differentiated without training: against the definitions.

#![allow(clippy::unwrap_used)] // a test's helpers fail by panicking, as the test does

use candle_core::{DType, Device, Tensor};
use tallow_builder::cam::{class_activation_maps, grad_cam, last_feature_map};
use tallow_builder::graph::{Activation, BatchNorm, ConvSpec, Linear, Shape};
use tallow_builder::{CamHead, Graph, GraphBuilder, Network, Rng, Weights};
use tallow_cuda::emulator::emulated;
use tallow_cuda::testing;

const SIZE: [usize; 2] = [9, 7];
const CLASSES: usize = 4;

/// A residual block with batch normalisation; `pooled` decides how the network ends.
fn graph(pooled: bool) -> Graph {
    let mut g = GraphBuilder::new("net", Shape::map(3, SIZE[0], SIZE[1]));
    let x = g.conv2d("conv1", g.input(), ConvSpec::new(6, 3)).unwrap();
    let x = g.batch_norm("bn1", x, BatchNorm::default()).unwrap();
    let x = g.activation("silu", x, Activation::Silu).unwrap();
    let y = g.conv2d("conv2", x, ConvSpec::new(6, 3).padding(1)).unwrap();
    let y = g.batch_norm("bn2", y, BatchNorm::default()).unwrap();
    let y = g.dropout("dropout2", y, 0.5).unwrap();
    let x = g.sum("add", x, y).unwrap();
    let x = if pooled { g.global_avg_pool("pool", x).unwrap() } else { x };
    let x = g.flatten("flatten", x).unwrap();
    let x = g.linear("fc", x, Linear::uniform(CLASSES, 0.3)).unwrap();
    g.finish(x).unwrap()
}

fn network(pooled: bool) -> Network {
    let graph = graph(pooled);
    let mut weights = Weights::init(&graph, 1, &Device::Cpu).unwrap();
    let mut rng = Rng::new(2);
    for parameter in graph.parameters().iter().filter(|p| p.shape.len() == 1) {
        let values: Vec<f32> = (0..parameter.elements()).map(|_| rng.uniform_in(0.5, 1.5) as f32).collect();
        weights.set(&parameter.name, Tensor::new(values, &Device::Cpu).unwrap());
    }
    Network::new(graph, weights)
}

fn images(n: usize) -> Tensor {
    let mut rng = Rng::new(3);
    let values: Vec<f32> = (0..n * 3 * SIZE[0] * SIZE[1]).map(|_| rng.uniform_in(-1.0, 1.0) as f32).collect();
    Tensor::from_vec(values, (n, 3, SIZE[0], SIZE[1]), &Device::Cpu).unwrap()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn a_maps_mean_and_the_bias_make_the_logit() {
    let network = network(true);
    let images = images(2);
    let (logits, maps) = class_activation_maps(&network, &images).unwrap().unwrap();
    assert_eq!(maps.dims(), [2, CLASSES, 7, 5]);
    let sums = maps.mean((2, 3)).unwrap().broadcast_add(network.weights().get("fc.bias")).unwrap();
    assert!(largest_difference(&sums, &logits) < 1e-6);
    assert_eq!(largest_difference(&logits, &network.forward(&images).unwrap()), 0.0);
}

#[test]
fn grad_cam_of_a_pooled_network_is_the_positive_part_of_its_map() {
    let network = network(true);
    let images = images(2);
    let head = CamHead::of(network.graph()).unwrap();
    assert_eq!(last_feature_map(network.graph()), Some(head.features));
    let (_, maps) = class_activation_maps(&network, &images).unwrap().unwrap();
    for class in 0..CLASSES {
        let found = grad_cam(&network, &images, class, head.features).unwrap();
        // dlogit/df_k is w_k over the number of pixels, everywhere.
        let expected =
            (maps.narrow(1, class, 1).unwrap().squeeze(1).unwrap().relu().unwrap() / 35.0).unwrap();
        assert!(largest_difference(&found, &expected) < 1e-7);
    }
}

/// Of bf16 the emulator has no matrix product.
#[test]
fn kernels_for_gpus_give_the_same_maps_in_every_precision() {
    let network = network(true);
    let layers = ["silu", "add"].map(|name| network.graph().find(name).unwrap());
    let maps = |network: &Network, images: &Tensor| {
        let (_, maps) = class_activation_maps(network, images).unwrap().unwrap();
        // Of all classes, for what is left of one may be little beside what is summed.
        let grads = layers.map(|layer| {
            let map = |class| grad_cam(network, images, class, layer).unwrap();
            Tensor::cat(&(0..CLASSES).map(map).collect::<Vec<_>>(), 0).unwrap()
        });
        [&[maps][..], &grads].concat().iter().map(|map| map.to_device(&Device::Cpu).unwrap()).collect()
    };
    let expected: Vec<Tensor> = maps(&network, &images(2));
    let agree = |found: Vec<Tensor>, tolerance: f32| {
        for (found, expected) in found.iter().zip(&expected) {
            let largest: f32 = expected.abs().unwrap().max_all().unwrap().to_scalar().unwrap();
            let difference = largest_difference(found, expected);
            assert!(difference <= tolerance * largest, "{difference} of {largest}, {tolerance}");
        }
    };
    let cases = [(DType::F32, 1e-5), (DType::F16, 1e-2), (DType::BF16, 8e-2)];
    for (dtype, tolerance) in &cases[..2] {
        let images = images(2).to_dtype(*dtype).unwrap();
        agree(emulated(|| maps(&network, &images)), *tolerance);
    }
    if let Some(gpu) = testing::gpu("class activation maps") {
        let weights = network.weights().to_device(&gpu).unwrap();
        let network = Network::new(network.graph().clone(), weights);
        for (dtype, tolerance) in cases {
            agree(maps(&network, &images(2).to_dtype(dtype).unwrap().to_device(&gpu).unwrap()), tolerance);
        }
    }
}

#[test]
fn a_network_that_ends_otherwise_has_grad_cam_alone() {
    let network = network(false);
    assert_eq!(CamHead::of(network.graph()), None);
    assert!(class_activation_maps(&network, &images(1)).unwrap().is_none());
    let layer = last_feature_map(network.graph()).unwrap();
    assert_eq!(network.graph().node(layer).name, "add");
    let map = grad_cam(&network, &images(1), 1, layer).unwrap();
    assert_eq!(map.dims(), [1, 7, 5]);
    let text = grad_cam(&network, &images(1), CLASSES, layer).unwrap_err().to_string();
    assert!(text.contains("no class 4: they are 0 to 3"), "{text}");
    let flat = network.graph().find("flatten").unwrap();
    let text = grad_cam(&network, &images(1), 0, flat).unwrap_err().to_string();
    assert!(text.contains("`flatten` gives no feature map"), "{text}");
}

#[test]
fn the_gradient_at_inference_is_that_of_finite_differences() {
    let network = network(false);
    let x = images(1);
    let one_hot = Tensor::new(&[[0f32, 0.0, 1.0, 0.0]], &Device::Cpu).unwrap();
    let tape = network.record_inference(&x).unwrap();
    let logits = network.forward(&x).unwrap();
    assert_eq!(largest_difference(tape.value(network.graph().output()), &logits), 0.0);
    assert!(tape.statistics(&network).is_empty());
    let gradient = tape.gradient_of(&network, &one_hot, network.graph().find("input").unwrap()).unwrap();
    let gradient: Vec<f32> = gradient.flatten_all().unwrap().to_vec1().unwrap();
    let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    for i in (0..values.len()).step_by(11) {
        let logit = |step: f32| {
            let mut moved = values.clone();
            moved[i] += step;
            let logits = network.forward(&Tensor::from_vec(moved, x.dims(), &Device::Cpu).unwrap()).unwrap();
            logits.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()[2]
        };
        let expected = (logit(1e-2) - logit(-1e-2)) / 2e-2;
        assert!((f64::from(gradient[i]) - expected).abs() < 2e-4, "{i}: {} and {expected}", gradient[i]);
    }
}

#[test]
fn frozen_batch_norms_are_those_of_inference_and_keep_their_moments() {
    let network = network(true);
    let tape = network.record_frozen(&images(2), &mut Rng::new(1), &|name| name == "bn1").unwrap();
    let statistics = tape.statistics(&network);
    assert_eq!(statistics.iter().map(|s| s.layer.as_str()).collect::<Vec<_>>(), ["bn2"]);
    let bn1 = network.graph().find("bn1").unwrap();
    let mut inference = None;
    network
        .forward_watched(&images(2), |id, value| {
            inference = inference.take().or((id == bn1).then(|| value.clone()))
        })
        .unwrap();
    assert_eq!(largest_difference(tape.value(bn1), &inference.unwrap()), 0.0);
    let gradients =
        tape.backward(&network, &Tensor::ones((2, CLASSES), DType::F32, &Device::Cpu).unwrap(), |_| true);
    assert_eq!(gradients.unwrap().len(), 8);
}
