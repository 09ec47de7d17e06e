//! Every kernel for GPUs, forward and backward, against naive loops in f64: on a GPU where this build can use one, and
//! on the host's C++ compiler in any case.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod reference;

use candle_core::{DType, Device, Tensor};
use reference::{Map, Reference};
use tallow_builder::Rng;
use tallow_builder::graph::{Activation, Pads, Window};
use tallow_builder::kernels::{
    ActivationKernel, AvgPool2d, BatchNormKernel, ChannelScale, Conv2dKernel, CrossEntropy, GlobalAvgPool,
    MaxPool2d, MixedLabels, Normed, Then, add, linear, linear_bias_gradient, linear_input_gradient,
    linear_weight_gradient, multiply, scale_images,
};
use tallow_cuda::DeviceSpec;
use tallow_cuda::emulator::emulated;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Runs `body` on every kind of GPU there is, for every element type.
fn everywhere(cases: u64, body: impl Fn(&Device, DType, &mut Rng)) {
    let gpu = DeviceSpec::Cuda(0).open(0);
    if let Err(error) = &gpu {
        eprintln!("emulated only: {error}");
    }
    for (kind, dtype) in DTYPES.into_iter().enumerate() {
        for case in 0..cases {
            let rng = || Rng::stream(31, &[kind as u64, case]);
            emulated(|| body(&Device::Cpu, dtype, &mut rng()));
            if let Ok(gpu) = &gpu {
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

fn check_conv(
    rng: &mut Rng,
    device: &Device,
    dtype: DType,
    map: Map,
    window: Window,
    groups: usize,
    filters: usize,
) {
    let case = format!("conv {dtype:?} {map:?} {window:?} groups {groups} filters {filters}");
    let dims = [filters, map.channels / groups, window.kernel[0], window.kernel[1]];
    let (x, w, b) = (
        random(rng, map.len(), dtype),
        random(rng, dims.iter().product(), dtype),
        random(rng, filters, DType::F32),
    );
    let reference = Reference { map, window };
    let [rows, columns] = reference.output();
    let grad = random(rng, map.images * filters * rows * columns, dtype);
    let expected = reference.conv(&x, &w, Some(&b), filters, groups, &grad);

    let kernel = Conv2dKernel { window, groups };
    let (xt, wt) = (tensor(&x, &map.dims(), dtype, device), tensor(&w, &dims, DType::F32, device));
    let grad = tensor(&grad, &[map.images, filters, rows, columns], dtype, device);
    let y = kernel.forward(&xt, &wt, Some(&parameter(&b, device))).unwrap();
    assert_eq!(y.dtype(), dtype);
    close("y", &case, &y, &expected.y, tolerance(dtype));
    let dx = kernel.input_gradient(&wt, &grad, [map.height, map.width]).unwrap();
    close("dx", &case, &dx, &expected.dx, tolerance(dtype));
    let dw = kernel.weight_gradient(&xt, &grad).unwrap();
    assert_eq!((dw.dtype(), dw.is_contiguous()), (DType::F32, true));
    close("dw", &case, &dw, &expected.dw, tolerance(dtype));
    close("db", &case, &kernel.bias_gradient(&grad).unwrap(), &expected.db, 1e-5);
}

#[test]
fn convolution() {
    everywhere(12, |device, dtype, rng| {
        let groups = 1 + rng.below(3);
        let (inputs, outputs) = (groups * (2 + rng.below(7)), groups * (1 + rng.below(8)));
        let map = map(rng, inputs);
        let window = window(rng, map, false);
        check_conv(rng, device, dtype, map, window, groups, outputs);
    });
}

#[test]
fn depthwise_convolution() {
    // Each window is compiled for itself: few windows, many shapes.
    let windows = [
        ([3, 3], [1, 1], [1, 1]),
        ([3, 3], [2, 2], [1, 1]),
        ([5, 5], [1, 1], [1, 1]),
        ([2, 3], [3, 1], [1, 2]),
    ];
    everywhere(12, |device, dtype, rng| {
        let (kernel, stride, dilation) = windows[rng.below(windows.len())];
        let channels = channels(rng);
        let (map, window) = loop {
            let map = map(rng, channels);
            let mut pad = |most: usize| rng.below(most);
            let pads = Pads { top: pad(4), bottom: pad(4), left: pad(4), right: pad(4) };
            let window = Window { kernel, stride, dilation, pads };
            if window.output(map.height, map.width).is_some() {
                break (map, window);
            }
        };
        check_conv(rng, device, dtype, map, window, channels, channels);
    });
}

#[test]
fn pools() {
    everywhere(16, |device, dtype, rng| {
        let channels = channels(rng);
        let map = map(rng, channels);
        let window = window(rng, map, true);
        let case = format!("pool {dtype:?} {map:?} {window:?}");
        let reference = Reference { map, window };
        let [rows, columns] = reference.output();
        // Equal values, so that ties are met.
        let x: Vec<f32> = (0..map.len()).map(|_| rng.below(7) as f32 - 3.0).collect();
        let dims = [map.images, channels, rows, columns];
        let grad = random(rng, dims.iter().product(), dtype);
        let (xt, gt) = (tensor(&x, &map.dims(), dtype, device), tensor(&grad, &dims, dtype, device));

        let expected = reference.max_pool(&x, &grad);
        let y = MaxPool2d(window).forward(&xt).unwrap();
        close("max", &case, &y, &expected.0, 0.0);
        let dx = MaxPool2d(window).input_gradient(&xt, &y, &gt).unwrap();
        close("dx of max", &case, &dx, &expected.1, tolerance(dtype));

        let expected = reference.avg_pool(&x, &grad);
        close("mean", &case, &AvgPool2d(window).forward(&xt).unwrap(), &expected.0, tolerance(dtype));
        let dx = AvgPool2d(window).input_gradient(&gt, [map.height, map.width]).unwrap();
        close("dx of mean", &case, &dx, &expected.1, tolerance(dtype));
    });
}

#[test]
fn a_pool_keeps_nan() {
    everywhere(1, |device, dtype, _| {
        let window = Window { kernel: [2; 2], stride: [2; 2], dilation: [1; 2], pads: Pads::default() };
        let mut values = vec![1.0; 16 * 8];
        values[8] = f32::NAN;
        let x = tensor(&values, &[1, 8, 4, 4], dtype, device);
        let y = MaxPool2d(window).forward(&x).unwrap();
        let y: Vec<f32> = y.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(y.iter().filter(|v| v.is_nan()).count(), 1);
    });
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
fn batch_norm_alone() {
    everywhere(10, |device, dtype, rng| {
        let channels = channels(rng);
        let map = map(rng, channels);
        let offset = rounded(&[3.0 * rng.normal() as f32], dtype)[0];
        let x: Vec<f32> = random(rng, map.len(), dtype).iter().map(|v| v + offset).collect();
        let x = rounded(&x, dtype);
        let (scale, shift) = (random(rng, channels, DType::F32), random(rng, channels, DType::F32));
        let grad = random(rng, map.len(), dtype);
        let case = format!("batch norm {dtype:?} {map:?}");
        let [xt, gt] = [&x, &grad].map(|values| tensor(values, &map.dims(), dtype, device));
        let (st, bt) = (parameter(&scale, device), parameter(&shift, device));
        // One value has no variance: what is computed there is the rounding of 0/√eps.
        let alone = map.images * map.height * map.width == 1;

        let expected = reference::batch_norm(map, &x, &scale, &shift, 1e-3, None, &grad);
        let kernel = BatchNormKernel::training(1e-3);
        let y = kernel.forward(&xt, &st, &bt).unwrap();
        close("y", &case, &y, &expected.y, tolerance(dtype));
        let moments = kernel.moments().unwrap();
        close("mean", &case, &moments.mean, &expected.mean, 1e-5);
        close("variance", &case, &moments.var, &expected.var, 1e-5);
        if !alone {
            let [dx, ds, db] = kernel.gradients(&xt, &st, &gt).unwrap();
            close("dx", &case, &dx, &expected.dx, 2.0 * tolerance(dtype));
            close("dγ", &case, &ds, &expected.dw, 2e-5);
            close("dβ", &case, &db, &expected.db, 1e-5);
        }

        let mean = random(rng, channels, DType::F32);
        let var: Vec<f32> = random(rng, channels, DType::F32).iter().map(|v| v * v + 0.1).collect();
        let running = [parameter(&mean, device), parameter(&var, device)];
        let moved = moments.track([&running[0], &running[1]], 0.1).unwrap();
        let n = moments.count as f64;
        let correction = if n > 1.0 { n / (n - 1.0) } else { 0.0 };
        let moved_by = |old: &[f32], new: &[f64], factor: f64| -> Vec<f64> {
            old.iter().zip(new).map(|(&o, n)| 0.9 * f64::from(o) + 0.1 * factor * n).collect()
        };
        close("running mean", &case, &moved[0], &moved_by(&mean, &expected.mean, 1.0), 1e-5);
        close("running variance", &case, &moved[1], &moved_by(&var, &expected.var, correction), 1e-5);

        let expected = reference::batch_norm(map, &x, &scale, &shift, 1e-3, Some((&mean, &var)), &grad);
        let kernel = BatchNormKernel::inference(1e-3, &running[0], &running[1]);
        close(
            "y at inference",
            &case,
            &kernel.forward(&xt, &st, &bt).unwrap(),
            &expected.y,
            tolerance(dtype),
        );
        let [dx, ds, db] = kernel.gradients(&xt, &st, &gt).unwrap();
        close("dx at inference", &case, &dx, &expected.dx, tolerance(dtype));
        close("dγ at inference", &case, &ds, &expected.dw, 2e-5);
        close("dβ at inference", &case, &db, &expected.db, 1e-5);
    });
}

/// The fused form against its parts in f64: the gradient that reaches the normalisation is the activation's.
#[test]
fn batch_norm_with_what_comes_behind() {
    everywhere(2, |device, dtype, rng| {
        for (number, activation) in ACTIVATIONS.into_iter().map(Some).chain([None]).enumerate() {
            let channels = channels(rng);
            let map = Map { images: 2, ..map(rng, channels) };
            let case = format!("batch norm and {activation:?} {dtype:?} {map:?}");
            let [x, grad] = [0, 0].map(|_| random(rng, map.len(), dtype));
            let residual = (number % 2 == 0).then(|| random(rng, map.len(), dtype));
            let (scale, shift) = (random(rng, channels, DType::F32), random(rng, channels, DType::F32));
            let zeros = vec![0.0; map.len()];
            let plain = reference::batch_norm(map, &x, &scale, &shift, 1e-3, None, &zeros);
            let z: Vec<f64> = plain
                .y
                .iter()
                .enumerate()
                .map(|(i, y)| y + residual.as_ref().map_or(0.0, |r| f64::from(r[i])))
                .collect();
            let at = |z: f64| activation.map_or((z, 1.0), |kind| activate(kind, z));
            // Where the derivative jumps, rounding decides.
            let jumps = |z: f64| [0.0, 6.0, 3.0, -3.0].iter().any(|edge| (z - edge).abs() < 1e-4);
            let grad: Vec<f32> = grad.iter().zip(&z).map(|(&g, &z)| if jumps(z) { 0.0 } else { g }).collect();
            let dz: Vec<f32> = grad.iter().zip(&z).map(|(&g, &z)| (f64::from(g) * at(z).1) as f32).collect();
            let expected = reference::batch_norm(map, &x, &scale, &shift, 1e-3, None, &dz);

            let [xt, gt] = [&x, &grad].map(|values| tensor(values, &map.dims(), dtype, device));
            let (st, bt) = (parameter(&scale, device), parameter(&shift, device));
            let residual = residual.map(|values| tensor(&values, &map.dims(), dtype, device));
            let then = Then { residual: residual.as_ref(), activation };
            let kernel = BatchNormKernel::training(1e-3);
            let y = kernel.forward_then(&xt, &st, &bt, then).unwrap();
            close("y", &case, &y, &z.iter().map(|&z| at(z).0).collect::<Vec<_>>(), tolerance(dtype));
            let pass = Normed { x: &xt, y: &y, scale: &st, shift: &bt, then };
            let found = kernel.gradients_then(&pass, &gt).unwrap();
            // An output that is rounded to 0 or 6 or has a rounded derivative moves a gradient by its own size.
            let loose = if dtype == DType::F32 { 4e-5 } else { 3.0 * tolerance(dtype) };
            close("dx", &case, &found.x, &expected.dx, loose);
            close("dγ", &case, &found.scale, &expected.dw, loose);
            close("dβ", &case, &found.shift, &expected.db, loose);
            assert_eq!(found.residual.is_some(), residual.is_some());
            if let Some(found) = found.residual {
                close(
                    "d residual",
                    &case,
                    &found,
                    &dz.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(),
                    loose,
                );
            }
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
        let mask = tensor(&b, &map.dims(), DType::F32, device);
        close("masked", &case, &multiply(&at, &mask).unwrap(), &each(&|i| a64[i] * b64[i]), tolerance(dtype));
        let factors = random(rng, map.images, DType::F32);
        let per_image = tensor(&factors, &[map.images, 1, 1, 1], DType::F32, device);
        let expected = each(&|i| a64[i] * f64::from(factors[i / (pixels * channels)]));
        close("image scale", &case, &scale_images(&at, &per_image).unwrap(), &expected, tolerance(dtype));

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

        let totals = tallow_cuda::zeros(4, DType::F64, device).unwrap();
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
