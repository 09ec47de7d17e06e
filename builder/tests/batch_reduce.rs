//! Batch normalisation over several processes against one over all of their images, and gradients as they come.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::sync::{Arc, Barrier, Mutex};

use candle_core::{Device, Result, Tensor};
use tallow_builder::graph::{Activation, ConvSpec, Linear, Shape};
use tallow_builder::kernels::{BatchNormKernel, BatchReduce};
use tallow_builder::{GraphBuilder, Network, Rng, Weights};
use tallow_cuda::emulator::emulated;

/// Threads that stand for processes.
#[derive(Debug)]
struct Threads {
    sums: Mutex<[Vec<f64>; 2]>,
    barrier: Barrier,
}

/// One of them, which counts as without images where it is `absent`.
#[derive(Debug, Clone)]
struct Process {
    all: Arc<Threads>,
    absent: bool,
}

impl BatchReduce for Process {
    fn all_reduce(&self, values: &mut [f64]) -> Result<()> {
        let share = |value: f64| if self.absent { 0.0 } else { value };
        let add = |sums: &mut Vec<f64>| {
            sums.resize(values.len(), 0.0);
            sums.iter_mut().zip(values.iter()).for_each(|(sum, value)| *sum += share(*value));
        };
        add(&mut self.all.sums.lock().unwrap()[0]);
        if self.all.barrier.wait().is_leader() {
            let mut sums = self.all.sums.lock().unwrap();
            sums[1] = std::mem::take(&mut sums[0]);
        }
        self.all.barrier.wait();
        values.copy_from_slice(&self.all.sums.lock().unwrap()[1]);
        self.all.barrier.wait();
        Ok(())
    }
}

fn random(rng: &mut Rng, shape: &[usize], mean: f32) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal() as f32 + mean).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, as a share of the largest value.
fn difference(a: &Tensor, b: &Tensor) -> f32 {
    let (a, b) = (flat(a), flat(b));
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(f32::MIN_POSITIVE, |most, v| most.max(v.abs()));
    a.iter().zip(&b).fold(0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn three_processes_normalise_as_one_with_all_their_images() {
    for (mean, gpu) in [(0.0, false), (30.0, false), (0.0, true), (30.0, true)] {
        let mut rng = Rng::new(3);
        let (x, grad) = (random(&mut rng, &[9, 5, 4, 3], mean), random(&mut rng, &[9, 5, 4, 3], 0.1));
        let (scale, shift) = (random(&mut rng, &[5], 1.0), random(&mut rng, &[5], 0.0));
        let whole = BatchNormKernel::training(1e-5);
        let y = whole.forward(&x, &scale, &shift).unwrap();
        let [dx, dscale, dshift] = whole.gradients(&x, &scale, &grad).unwrap();

        // Four images, five, and a stand-in that must not count.
        let all = Arc::new(Threads { sums: Mutex::default(), barrier: Barrier::new(3) });
        let parts = [(0, 4, false), (4, 5, false), (2, 1, true)];
        let found: Vec<_> = std::thread::scope(|scope| {
            let spawn = |(start, length, absent)| {
                let (x, grad) = (x.narrow(0, start, length).unwrap(), grad.narrow(0, start, length).unwrap());
                let (all, scale, shift) = (all.clone(), &scale, &shift);
                let pass = move || {
                    let kernel =
                        BatchNormKernel::training(1e-5).over(Some(Arc::new(Process { all, absent })));
                    let y = kernel.forward(&x, scale, shift).unwrap();
                    (y, kernel.gradients(&x, scale, &grad).unwrap(), kernel.moments().unwrap().clone())
                };
                scope.spawn(move || if gpu { emulated(pass) } else { pass() })
            };
            let threads = parts.map(spawn);
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let join = |part: &dyn Fn(usize) -> Tensor| Tensor::cat(&[part(0), part(1)], 0).unwrap();
        let sum = |part: usize| (&found[0].1[part] + &found[1].1[part]).unwrap();
        assert!(difference(&join(&|i| found[i].0.clone()), &y) < 1e-5);
        assert!(difference(&join(&|i| found[i].1[0].clone()), &dx) < 1e-5);
        assert!(difference(&sum(1), &dscale) < 1e-5 && difference(&sum(2), &dshift) < 1e-5);
        let moments = whole.moments().unwrap();
        for (_, _, other) in &found {
            assert_eq!(other.count, 9 * 12);
            for (a, b, first) in
                [(&other.var, &moments.var, &found[0].2.var), (&other.mean, &moments.mean, &found[0].2.mean)]
            {
                assert_eq!(flat(a), flat(first));
                for (a, b) in flat(a).iter().zip(flat(b)) {
                    assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{a} is not {b}");
                }
            }
        }
    }
}

#[test]
fn gradients_come_one_by_one_from_the_last_layer_to_the_first() {
    let mut g = GraphBuilder::new("small", Shape::map(3, 6, 6));
    let x = g.input();
    let x = g.conv2d("stem", x, ConvSpec::new(4, 3).bias()).unwrap();
    let x = g.activation("relu", x, Activation::Relu).unwrap();
    let x = g.global_avg_pool("pool", x).unwrap();
    let x = g.flatten("flatten", x).unwrap();
    let x = g.linear("fc", x, Linear::uniform(3, 0.3)).unwrap();
    let graph = g.finish(x).unwrap();
    let weights = Weights::init(&graph, 7, &Device::Cpu).unwrap();
    let network = Network::new(graph, weights);
    let images = random(&mut Rng::new(1), &[2, 3, 6, 6], 0.0);
    let grad = random(&mut Rng::new(2), &[2, 3], 0.0);
    let record = || network.record(&images, &mut Rng::new(0)).unwrap();
    let all = record().backward(&network, &grad, |_| true).unwrap();
    let mut names = vec![];
    let ready = |name: &str, gradient: Tensor| -> tallow_builder::Result<()> {
        assert_eq!(flat(&gradient), flat(&all[name]));
        names.push(name.to_owned());
        Ok(())
    };
    record().backward_watched(&network, &grad, |name| name != "stem.bias", ready).unwrap();
    assert_eq!(names, ["fc.weight", "fc.bias", "stem.weight"]);
    let stop = |_: &str, _: Tensor| Err(tallow_builder::Error::from(candle_core::Error::Msg("full".into())));
    let error = record().backward_watched(&network, &grad, |_| true, stop).unwrap_err();
    assert!(error.to_string().contains("full"));
}
