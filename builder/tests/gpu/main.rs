//! Every kernel for GPUs, forward and backward, against naive loops in f64: on a GPU where this build can use one, and
//! on the host's C++ compiler in any case.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod convolution;
mod norm;
mod pool;
#[path = "../reference/mod.rs"]
mod reference;

use candle_core::{DType, Device, Tensor};
use reference::Map;
use tallow_builder::Rng;
use tallow_builder::graph::{Activation, Pads, Window};
use tallow_builder::kernels::{
    ActivationKernel, BatchNormKernel, ChannelScale, CrossEntropy, Dropout, DropoutUnit, GlobalAvgPool,
    MaxPool2d, MixedLabels, add, linear, linear_bias_gradient, linear_input_gradient, linear_weight_gradient,
};
use tallow_cuda::emulator::{emulated, suspended};
use tallow_cuda::testing;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Runs `body` on every kind of GPU there is, for every element type.
fn everywhere(cases: u64, body: impl Fn(&Device, DType, &mut Rng)) {
    let gpu = testing::gpu("kernels");
    for (kind, dtype) in DTYPES.into_iter().enumerate() {
        for case in 0..cases {
            let rng = || Rng::stream(31, &[kind as u64, case]);
            emulated(|| body(&Device::Cpu, dtype, &mut rng()));
            if let Some(gpu) = &gpu {
                body(gpu, dtype, &mut rng());
            }
        }
    }
}

/// The largest error that rounding to a type explains, relative to the largest value: sums are in f32.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-5,
        DType::F16 => 2e-3,
        _ => 1.6e-2,
    }
}

/// Random values that the type holds exactly, so that reference and kernel see the same.
fn random(rng: &mut Rng, n: usize, dtype: DType) -> Vec<f32> {
    let values: Vec<f32> = (0..n).map(|_| rng.normal() as f32).collect();
    rounded(&values, dtype)
}

fn rounded(values: &[f32], dtype: DType) -> Vec<f32> {
    let tensor = Tensor::new(values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    tensor.to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

fn tensor(values: &[f32], dims: &[usize], dtype: DType, device: &Device) -> Tensor {
    let tensor = Tensor::from_slice(values, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    tensor.to_device(device).unwrap()
}

fn parameter(values: &[f32], device: &Device) -> Tensor {
    tensor(values, &[values.len()], DType::F32, device)
}

fn close(what: &str, case: &str, actual: &Tensor, expected: &[f64], tolerance: f64) {
    let actual = actual.to_device(&Device::Cpu).unwrap().contiguous().unwrap();
    let actual: Vec<f32> = actual.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(actual.len(), expected.len(), "{what} of {case}: number of elements");
    let scale = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(*a) - e).abs() / scale;
        assert!(
            error <= tolerance,
            "{what} of {case}: element {i} is {a}, should be {e} (error {error:.1e})"
        );
    }
}

fn map(rng: &mut Rng, channels: usize) -> Map {
    Map { images: 1 + rng.below(4), channels, height: 1 + rng.below(13), width: 1 + rng.below(13) }
}

/// Channels that packs of every width divide, and some that none does.
fn channels(rng: &mut Rng) -> usize {
    [1, 3, 8, 24, 40, 72][rng.below(6)]
}

fn window(rng: &mut Rng, map: Map, pool: bool) -> Window {
    loop {
        let mut pair = |n: usize| [1 + rng.below(n), 1 + rng.below(n)];
        let (kernel, stride) = (pair(5), pair(3));
        let dilation = if pool { [1, 1] } else { pair(2) };
        let mut pad = |axis: usize| rng.below(if pool { kernel[axis] } else { 4 });
        let pads = Pads { top: pad(0), bottom: pad(0), left: pad(1), right: pad(1) };
        let window = Window { kernel, stride, dilation, pads };
        if window.output(map.height, map.width).is_some() {
            return window;
        }
    }
}

const ACTIVATIONS: [Activation; 8] = [
    Activation::Relu,
    Activation::Relu6,
    Activation::LeakyRelu { slope: 0.1 },
    Activation::SIGMOID,
    Activation::Sigmoid { slope: 1.7 },
    Activation::Tanh,
    Activation::Silu,
    Activation::HardSwish,
];

/// Value and derivative in f64.
fn activate(kind: Activation, x: f64) -> (f64, f64) {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match kind {
        Activation::Relu => (x.max(0.0), f64::from(u8::from(x > 0.0))),
        Activation::Relu6 => (x.clamp(0.0, 6.0), f64::from(u8::from(x > 0.0 && x < 6.0))),
        Activation::LeakyRelu { slope } => {
            if x > 0.0 {
                (x, 1.0)
            } else {
                (slope * x, slope)
            }
        }
        Activation::Sigmoid { slope } => {
            let y = sigmoid(slope * x);
            (y, slope * y * (1.0 - y))
        }
        Activation::Tanh => (x.tanh(), 1.0 - x.tanh().powi(2)),
        Activation::Silu => (x * sigmoid(x), sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)))),
        Activation::HardSwish => {
            let slope = if x <= -3.0 {
                0.0
            } else if x >= 3.0 {
                1.0
            } else {
                (2.0 * x + 3.0) / 6.0
            };
            (x * (x + 3.0).clamp(0.0, 6.0) / 6.0, slope)
        }
    }
}

#[test]
fn activations() {
    everywhere(2, |device, dtype, rng| {
        for kind in ACTIVATIONS {
            let channels = channels(rng);
            let map = map(rng, channels);
            let x: Vec<f32> = random(rng, map.len(), dtype).iter().map(|v| v * 4.0).collect();
            let grad = random(rng, map.len(), dtype);
            let case = format!("{kind:?} {dtype:?} {map:?}");
            let (xt, gt) =
                (tensor(&x, &map.dims(), dtype, device), tensor(&grad, &map.dims(), dtype, device));
            let y = ActivationKernel(kind).forward(&xt).unwrap();
            let expected: Vec<f64> = x.iter().map(|&v| activate(kind, f64::from(v)).0).collect();
            close("y", &case, &y, &expected, tolerance(dtype));
            let dx = ActivationKernel(kind).input_gradient(&xt, &y, &gt).unwrap();
            let expected: Vec<f64> =
                x.iter().zip(&grad).map(|(&v, &g)| f64::from(g) * activate(kind, f64::from(v)).1).collect();
            close("dx", &case, &dx, &expected, tolerance(dtype));
        }
    });
}

#[test]
fn products_and_sums() {
    everywhere(6, |device, dtype, rng| {
        let channels = channels(rng);
        let map = map(rng, channels);
        let case = format!("{dtype:?} {map:?}");
        let pixels = map.height * map.width;
        let [a, b] = [0, 0].map(|_| random(rng, map.len(), dtype));
        let [at, bt] = [&a, &b].map(|values| tensor(values, &map.dims(), dtype, device));
        let each = |f: &dyn Fn(usize) -> f64| -> Vec<f64> { (0..map.len()).map(f).collect() };
        let sums = |v: Vec<f64>| -> Vec<f64> { v.chunks(pixels).map(|c| c.iter().sum()).collect() };
        let [a64, b64]: [Vec<f64>; 2] = [&a, &b].map(|v| v.iter().map(|&v| f64::from(v)).collect());

        close("sum", &case, &add(&at, &bt).unwrap(), &each(&|i| a64[i] + b64[i]), tolerance(dtype));
        let scale = random(rng, map.images * channels, dtype);
        let scale_tensor = tensor(&scale, &[map.images, channels, 1, 1], dtype, device);
        let expected = each(&|i| a64[i] * f64::from(scale[i / pixels]));
        close(
            "channel scale",
            &case,
            &ChannelScale.forward(&at, &scale_tensor).unwrap(),
            &expected,
            tolerance(dtype),
        );
        let expected = sums(each(&|i| a64[i] * b64[i]));
        close("d scale", &case, &ChannelScale.scale_gradient(&at, &bt).unwrap(), &expected, tolerance(dtype));

        let mean: Vec<f64> = sums(a64.clone()).iter().map(|v| v / pixels as f64).collect();
        close("global pool", &case, &GlobalAvgPool.forward(&at).unwrap(), &mean, tolerance(dtype));
        let expected = each(&|i| f64::from(scale[i / pixels]) / pixels as f64);
        let spread = GlobalAvgPool.input_gradient(&scale_tensor, [map.height, map.width]).unwrap();
        close("dx of global pool", &case, &spread, &expected, tolerance(dtype));
    });
}

/// A GPU drops what the CPU drops, on maps and on vectors, and as much of the gradient.
#[test]
fn dropout() {
    everywhere(6, |device, dtype, rng| {
        let channels = channels(rng);
        let map = map(rng, channels);
        for dims in [map.dims().to_vec(), vec![map.images, map.len() / map.images]] {
            for unit in [DropoutUnit::Element, DropoutUnit::Image] {
                let dropout = Dropout::draw(unit, 0.3, rng);
                let x = random(rng, map.len(), dtype);
                let on_host = Tensor::from_slice(&x, &*dims, &Device::Cpu).unwrap();
                let expected = suspended(|| dropout.forward(&on_host)).unwrap();
                let expected: Vec<f32> = expected.flatten_all().unwrap().to_vec1().unwrap();
                let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
                let case = format!("{dropout:?} {dtype:?} {dims:?}");
                let y = dropout.forward(&tensor(&x, &dims, dtype, device)).unwrap();
                close("dropout", &case, &y, &expected, tolerance(dtype));
            }
        }
    });
}

#[test]
fn fully_connected_layers() {
    everywhere(3, |device, dtype, rng| {
        // candle's CPU back end, which emulation leaves the matrix product to, has none for bf16.
        if device.is_cpu() && dtype == DType::BF16 {
            return;
        }
        let (images, features, classes) = (1 + rng.below(9), 1 + rng.below(40), 1 + rng.below(20));
        let case = format!("linear {dtype:?} {images} {features} {classes}");
        let x = random(rng, images * features, dtype);
        let (w, b) = (random(rng, classes * features, dtype), random(rng, classes, DType::F32));
        let g = random(rng, images * classes, dtype);
        let sum = |n: usize, f: &dyn Fn(usize) -> f64| -> f64 { (0..n).map(f).sum() };
        let product = |a: f32, b: f32| f64::from(a) * f64::from(b);
        let grid = |rows: usize, columns: usize, f: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
            (0..rows * columns).map(|i| f(i / columns, i % columns)).collect()
        };
        let (xt, gt) =
            (tensor(&x, &[images, features], dtype, device), tensor(&g, &[images, classes], dtype, device));
        let wt = tensor(&w, &[classes, features], DType::F32, device);
        let y = grid(images, classes, &|n, k| {
            sum(features, &|f| product(x[n * features + f], w[k * features + f])) + f64::from(b[k])
        });
        let loose = 2.0 * tolerance(dtype);
        close("y", &case, &linear(&xt, &wt, Some(&parameter(&b, device))).unwrap(), &y, loose);
        let dx = grid(images, features, &|n, f| {
            sum(classes, &|k| product(g[n * classes + k], w[k * features + f]))
        });
        close("dx", &case, &linear_input_gradient(&wt, &gt).unwrap(), &dx, loose);
        let dw = grid(classes, features, &|k, f| {
            sum(images, &|n| product(g[n * classes + k], x[n * features + f]))
        });
        close("dw", &case, &linear_weight_gradient(&xt, &gt).unwrap(), &dw, loose);
        let db = grid(1, classes, &|_, k| sum(images, &|n| f64::from(g[n * classes + k])));
        close("db", &case, &linear_bias_gradient(&gt).unwrap(), &db, 1e-5);
    });
}

#[test]
fn cross_entropy() {
    everywhere(6, |device, dtype, rng| {
        let (rows, classes) = (1 + rng.below(20), [2, 10, 300, 1000][rng.below(4)]);
        let case = format!("loss {dtype:?} {rows}x{classes}");
        let z: Vec<f32> = random(rng, rows * classes, dtype).iter().map(|v| v * 4.0).collect();
        let mut labels = || (0..rows).map(|_| rng.below(classes) as u32).collect::<Vec<_>>();
        let (first, second) = (labels(), labels());
        let mixed = MixedLabels { first: &first, second: &second, share: 0.7 };
        let loss = CrossEntropy { smoothing: 0.1 };
        let host = Tensor::from_slice(&z, (rows, classes), &Device::Cpu).unwrap();
        let (mean, gradient) = loss.mixed_loss_and_gradient(&host, mixed).unwrap();
        let expected: Vec<f64> = gradient
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
            .iter()
            .map(|&v| f64::from(v) * 64.0)
            .collect();
        let logits = tensor(&z, &[rows, classes], dtype, device);
        let scale = parameter(&[64.0], device);
        let found = loss.on_device(&logits, mixed, Some(&scale)).unwrap();
        close("gradient", &case, &found.gradient, &expected, tolerance(dtype));
        let losses: Vec<f32> = found.losses.to_vec1().unwrap();
        let found_mean = losses.iter().map(|&v| f64::from(v)).sum::<f64>() / rows as f64;
        assert!((found_mean - mean).abs() / mean < 2e-6, "{case}: {found_mean} is not {mean}");

        let totals = Tensor::zeros(4, DType::F64, device).unwrap();
        found.tally(&totals).unwrap();
        found.tally(&totals).unwrap();
        let totals = totals.to_vec1::<f64>().unwrap();
        let rank = |row: usize| {
            let own = z[row * classes + first[row] as usize];
            (0..classes)
                .filter(|&c| {
                    z[row * classes + c] > own || (z[row * classes + c] == own && c < first[row] as usize)
                })
                .count()
        };
        let below = |most: usize| 2.0 * (0..rows).filter(|&row| rank(row) < most).count() as f64;
        assert!((totals[0] / (2.0 * rows as f64) - found_mean).abs() < 1e-6 * found_mean);
        assert_eq!(totals[1..], [below(1), below(5), 2.0 * rows as f64]);
    });
}

#[test]
fn what_does_not_fit_is_an_error() {
    everywhere(1, |device, dtype, _| {
        let x = tensor(&[0.0; 32], &[1, 2, 4, 4], dtype, device);
        let y = tensor(&[0.0; 16], &[1, 1, 4, 4], dtype, device);
        assert!(add(&x, &y).is_err());
        let scale = parameter(&[1.0; 3], device);
        assert!(BatchNormKernel::training(1e-5).forward(&x, &scale, &scale).is_err());
        assert!(ChannelScale.forward(&x, &y).is_err());
        let window = Window { kernel: [9; 2], stride: [1; 2], dilation: [1; 2], pads: Pads::default() };
        assert!(MaxPool2d(window).forward(&x).is_err());
        let labels = MixedLabels { first: &[2], second: &[2], share: 1.0 };
        assert!(
            CrossEntropy { smoothing: 0.0 }
                .on_device(&tensor(&[0.0; 2], &[1, 2], dtype, device), labels, None)
                .is_err()
        );
    });
}
