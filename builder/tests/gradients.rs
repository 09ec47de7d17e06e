//! Every kernel, forward and backward by candle's autograd, against naive loops in f64 over random shapes: on the CPU and,
//! where there is one, on a GPU.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod reference;

use std::cell::RefCell;

use candle_core::{Device, Tensor, Var};
use reference::{Map, Reference};
use tallow_builder::Rng;
use tallow_builder::graph::{Activation, Pads, Window};
use tallow_builder::kernels::{
    ActivationKernel, AvgPool2d, BatchNormKernel, ChannelScale, Conv2dKernel, GlobalAvgPool, MaxPool2d,
};
use tallow_cuda::testing;

const CASES: u64 = 250;
/// On a GPU, where cuDNN measures every new shape.
const GPU_CASES: u64 = 25;
const TOLERANCE: f64 = 1e-4;

thread_local! {
    /// Where this thread's test computes.
    static DEVICE: RefCell<Device> = const { RefCell::new(Device::Cpu) };
}

fn device() -> Device {
    DEVICE.with_borrow(Clone::clone)
}

/// The cases of a test, on the CPU and then on a GPU.
fn cases(test: &str) -> impl Iterator<Item = u64> {
    let gpu = testing::gpu(test).map(|gpu| (gpu, GPU_CASES));
    [(Device::Cpu, CASES)].into_iter().chain(gpu).flat_map(|(device, cases)| {
        DEVICE.set(device);
        0..cases
    })
}

fn random(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.normal() as f32).collect()
}

fn var(values: &[f32], dims: &[usize]) -> Var {
    Var::from_slice(values, dims, &device()).unwrap()
}

/// The largest difference, relative to the largest expected value.
fn assert_close(what: &str, case: &str, actual: &Tensor, expected: &[f64]) {
    let actual: Vec<f32> = actual.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(actual.len(), expected.len(), "{what} of {case}: number of elements");
    let scale = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(*a) - e).abs() / scale;
        assert!(
            error <= TOLERANCE,
            "{what} of {case}: element {i} is {a}, should be {e} (error {error:.1e})"
        );
    }
}

/// Runs `kernel` on candle's autograd with the upstream gradient `grad` and returns the output and the gradients.
fn backward(output: &Tensor, grad: &[f32], vars: &[&Var]) -> Vec<Tensor> {
    let grad = Tensor::from_slice(grad, output.dims(), output.device()).unwrap();
    let store = (output * grad).unwrap().sum_all().unwrap().backward().unwrap();
    vars.iter().map(|v| store.get(v).expect("a gradient for every argument").clone()).collect()
}

/// A window that fits: odd and even kernels, strides beyond the kernel, kernels beyond the image, dilation.
fn random_window(rng: &mut Rng, size: [usize; 2], pool: bool) -> Window {
    loop {
        let mut pair = |n: usize| [1 + rng.below(n), 1 + rng.below(n)];
        let (kernel, stride) = (pair(5), pair(4));
        let dilation = if pool { [1, 1] } else { pair(3) };
        let mut pad = |axis: usize| rng.below(if pool { kernel[axis] } else { 5 });
        let pads = Pads { top: pad(0), bottom: pad(0), left: pad(1), right: pad(1) };
        let window = Window { kernel, stride, dilation, pads };
        if window.output(size[0], size[1]).is_some() {
            return window;
        }
    }
}

fn random_map(rng: &mut Rng, channels: usize) -> Map {
    Map { images: 1 + rng.below(4), channels, height: 1 + rng.below(13), width: 1 + rng.below(13) }
}

fn check_conv(rng: &mut Rng, groups: usize, group_in: usize, group_out: usize) {
    let map = random_map(rng, groups * group_in);
    let window = random_window(rng, [map.height, map.width], false);
    check_conv_at(rng, map, window, groups, group_out);
}

fn check_conv_at(rng: &mut Rng, map: Map, window: Window, groups: usize, group_out: usize) {
    let group_in = map.channels / groups;
    let case = format!("conv {map:?} {window:?} groups {groups} filters {}", groups * group_out);
    let filters = groups * group_out;
    let weight_dims = [filters, group_in, window.kernel[0], window.kernel[1]];
    let x = random(rng, map.len());
    let w = random(rng, weight_dims.iter().product());
    let b = random(rng, filters);
    let reference = Reference { map, window };
    let [rows, columns] = reference.output();
    let grad = random(rng, map.images * filters * rows * columns);

    let expected = reference.conv(&x, &w, Some(&b), filters, groups, &grad);
    let (xv, wv, bv) = (var(&x, &map.dims()), var(&w, &weight_dims), var(&b, &[filters]));
    let kernel = Conv2dKernel { window, groups };
    let y = kernel.forward(&xv, &wv, Some(&bv)).unwrap();
    assert_close("y", &case, &y, &expected.y);
    let grads = backward(&y, &grad, &[&xv, &wv, &bv]);
    assert_close("dx", &case, &grads[0], &expected.dx);
    assert_close("dw", &case, &grads[1], &expected.dw);
    assert_close("db", &case, &grads[2], &expected.db);

    let plain = kernel.forward(&xv, &wv, None).unwrap();
    assert_close("y without bias", &case, &plain, &reference.conv(&x, &w, None, filters, groups, &grad).y);
}

#[test]
fn convolution_matches_the_naive_loops() {
    for case in cases("convolution_matches_the_naive_loops") {
        let rng = &mut Rng::stream(11, &[case]);
        let (groups, inputs, outputs) = (1 + rng.below(4), 2 + rng.below(5), 1 + rng.below(6));
        check_conv(rng, groups, inputs, outputs);
    }
}

#[test]
fn depthwise_convolution_matches_the_naive_loops() {
    for case in cases("depthwise_convolution_matches_the_naive_loops") {
        let rng = &mut Rng::stream(12, &[case]);
        let (groups, multiplier) = (1 + rng.below(9), 1 + rng.below(3));
        check_conv(rng, groups, 1, multiplier);
    }
}

#[test]
fn convolutions_of_real_networks_match_the_naive_loops() {
    // (channels, filters, groups, kernel, stride, padding, size, images): tiles that span images, tiles within one.
    let cases = [
        (64, 64, 1, 3, 1, 1, 56, 1),
        (128, 64, 1, 3, 2, 1, 29, 3),
        (256, 96, 1, 3, 1, 1, 4, 9),
        (3, 16, 1, 7, 2, 3, 65, 2),
        (64, 32, 1, 1, 1, 0, 14, 5),
        (96, 24, 1, 1, 1, 0, 1, 7),
        (48, 96, 1, 1, 2, 0, 15, 3),
        (72, 72, 72, 5, 2, 2, 28, 2),
        (40, 40, 40, 3, 1, 1, 33, 1),
    ];
    for (i, (channels, filters, groups, kernel, stride, padding, size, images)) in
        cases.into_iter().enumerate()
    {
        let rng = &mut Rng::stream(13, &[i as u64]);
        let map = Map { images, channels, height: size, width: size + 1 };
        let pads = Pads::all(padding);
        let window = Window { kernel: [kernel; 2], stride: [stride; 2], dilation: [1; 2], pads };
        check_conv_at(rng, map, window, groups, filters / groups);
    }
}

#[test]
fn max_pool_matches_the_naive_loops() {
    for case in cases("max_pool_matches_the_naive_loops") {
        let rng = &mut Rng::stream(14, &[case]);
        let channels = 1 + rng.below(4);
        let map = random_map(rng, channels);
        let window = random_window(rng, [map.height, map.width], true);
        let mut x = random(rng, map.len());
        if case % 3 == 0 {
            // Ties: the first of equal maxima takes the gradient.
            x.iter_mut().for_each(|v| *v = v.round());
        }
        let reference = Reference { map, window };
        let [rows, columns] = reference.output();
        let grad = random(rng, map.images * map.channels * rows * columns);
        let (y, dx) = reference.max_pool(&x, &grad);
        let xv = var(&x, &map.dims());
        let output = MaxPool2d(window).forward(&xv).unwrap();
        let name = format!("max pool {map:?} {window:?}");
        assert_close("y", &name, &output, &y);
        assert_close("dx", &name, &backward(&output, &grad, &[&xv])[0], &dx);
    }
}

#[test]
fn avg_pool_matches_the_naive_loops() {
    for case in cases("avg_pool_matches_the_naive_loops") {
        let rng = &mut Rng::stream(15, &[case]);
        let channels = 1 + rng.below(4);
        let map = random_map(rng, channels);
        let window = random_window(rng, [map.height, map.width], true);
        let x = random(rng, map.len());
        let reference = Reference { map, window };
        let [rows, columns] = reference.output();
        let grad = random(rng, map.images * map.channels * rows * columns);
        let (y, dx) = reference.avg_pool(&x, &grad);
        let xv = var(&x, &map.dims());
        let output = AvgPool2d(window).forward(&xv).unwrap();
        let name = format!("average pool {map:?} {window:?}");
        assert_close("y", &name, &output, &y);
        assert_close("dx", &name, &backward(&output, &grad, &[&xv])[0], &dx);
    }
}

#[test]
fn batch_norm_matches_the_naive_loops() {
    for case in cases("batch_norm_matches_the_naive_loops") {
        let rng = &mut Rng::stream(16, &[case]);
        let channels = 1 + rng.below(5);
        let mut map = random_map(rng, channels);
        if map.images * map.height * map.width < 3 {
            // Two values normalise to ±1 whatever they are: their gradient is all rounding.
            map.images += 2;
        }
        let shift_by = 5.0 * rng.normal() as f32;
        let x: Vec<f32> = random(rng, map.len()).iter().map(|v| v + shift_by).collect();
        let (scale, shift) = (random(rng, channels), random(rng, channels));
        let grad = random(rng, map.len());
        let eps = [1e-5, 1e-3][case as usize % 2];
        let name = format!("batch norm {map:?} eps {eps}");
        let (xv, sv, bv) = (var(&x, &map.dims()), var(&scale, &[channels]), var(&shift, &[channels]));

        let expected = reference::batch_norm(map, &x, &scale, &shift, eps, None, &grad);
        let op = BatchNormKernel::training(eps);
        let y = op.forward(&xv, &sv, &bv).unwrap();
        assert_close("y", &name, &y, &expected.y);
        let grads = backward(&y, &grad, &[&xv, &sv, &bv]);
        assert_close("dx", &name, &grads[0], &expected.dx);
        assert_close("dγ", &name, &grads[1], &expected.dw);
        assert_close("dβ", &name, &grads[2], &expected.db);
        let moments = op.moments().unwrap();
        let vector = |v: &[f32]| Tensor::from_slice(v, v.len(), &device()).unwrap();
        assert_close("mean", &name, &moments.mean, &expected.mean);
        assert_close("variance", &name, &moments.var, &expected.var);
        let n = (map.images * map.height * map.width) as f64;
        let unbiased: Vec<f64> = expected.var.iter().map(|v| v * n / (n - 1.0)).collect();
        assert_close("unbiased variance", &name, &moments.unbiased_var().unwrap(), &unbiased);

        let mean = random(rng, channels);
        let variance: Vec<f32> = random(rng, channels).iter().map(|v| v * v + 0.1).collect();
        let running = Some((mean.as_slice(), variance.as_slice()));
        let expected = reference::batch_norm(map, &x, &scale, &shift, eps, running, &grad);
        let op = BatchNormKernel::inference(eps, &vector(&mean), &vector(&variance));
        let y = op.forward(&xv, &sv, &bv).unwrap();
        assert_close("y at inference", &name, &y, &expected.y);
        let grads = backward(&y, &grad, &[&xv, &sv, &bv]);
        assert_close("dx at inference", &name, &grads[0], &expected.dx);
        assert_close("dγ at inference", &name, &grads[1], &expected.dw);
        assert_close("dβ at inference", &name, &grads[2], &expected.db);
    }
}

#[test]
fn channel_scale_and_global_pool_match_the_naive_loops() {
    for case in cases("channel_scale_and_global_pool_match_the_naive_loops") {
        let rng = &mut Rng::stream(17, &[case]);
        let channels = 1 + rng.below(6);
        let map = random_map(rng, channels);
        let name = format!("{map:?}");
        let pixels = map.height * map.width;
        let maps = map.images * channels;
        let (x, scale) = (random(rng, map.len()), random(rng, maps));
        let grad = random(rng, map.len());
        let (xv, sv) = (var(&x, &map.dims()), var(&scale, &[map.images, channels, 1, 1]));
        let y = ChannelScale.forward(&xv, &sv).unwrap();
        let times = |a: &[f32], f: &dyn Fn(usize) -> f32| -> Vec<f64> {
            a.iter().enumerate().map(|(i, &v)| f64::from(v) * f64::from(f(i))).collect()
        };
        let per_map = |v: Vec<f64>| -> Vec<f64> { v.chunks(pixels).map(|c| c.iter().sum()).collect() };
        assert_close("scaled", &name, &y, &times(&x, &|i| scale[i / pixels]));
        let grads = backward(&y, &grad, &[&xv, &sv]);
        assert_close("dx of scale", &name, &grads[0], &times(&grad, &|i| scale[i / pixels]));
        assert_close("ds of scale", &name, &grads[1], &per_map(times(&x, &|i| grad[i])));

        let y = GlobalAvgPool.forward(&xv).unwrap();
        let share = 1.0 / pixels as f32;
        let mean: Vec<f64> = per_map(times(&x, &|_| 1.0)).iter().map(|v| v / pixels as f64).collect();
        assert_close("global pool", &name, &y, &mean);
        let spread: Vec<f64> =
            (0..map.len()).map(|i| f64::from(grad[i / pixels]) * f64::from(share)).collect();
        assert_close("dx of global pool", &name, &backward(&y, &grad[..maps], &[&xv])[0], &spread);
    }
}

#[test]
fn activations_match_their_definitions_and_numeric_derivatives() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    type Function = Box<dyn Fn(f64) -> f64>;
    let functions: Vec<(Activation, Function)> = vec![
        (Activation::Relu, Box::new(|x| x.max(0.0))),
        (Activation::Relu6, Box::new(|x| x.clamp(0.0, 6.0))),
        (Activation::LeakyRelu { slope: 0.1 }, Box::new(|x| if x > 0.0 { x } else { 0.1 * x })),
        (Activation::SIGMOID, Box::new(sigmoid)),
        (Activation::Sigmoid { slope: 2.5 }, Box::new(move |x| sigmoid(2.5 * x))),
        (Activation::Tanh, Box::new(f64::tanh)),
        (Activation::Silu, Box::new(move |x| x * sigmoid(x))),
        (Activation::HardSwish, Box::new(|x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0)),
    ];
    for case in cases("activations_match_their_definitions_and_numeric_derivatives") {
        let rng = &mut Rng::stream(18, &[case]);
        let n = 1 + rng.below(300);
        // Keep clear of the kinks at −3, 0, 3 and 6, where a numeric derivative means nothing.
        let x: Vec<f32> = (0..n)
            .map(|_| {
                loop {
                    let x = 4.0 * rng.normal();
                    if [-3.0, 0.0, 3.0, 6.0].iter().all(|kink: &f64| (x - kink).abs() > 1e-3) {
                        break x as f32;
                    }
                }
            })
            .collect();
        let grad = random(rng, n);
        for (activation, f) in &functions {
            let name = format!("{activation:?}");
            let xv = var(&x, &[n]);
            let y = ActivationKernel(*activation).forward(&xv).unwrap();
            let expected: Vec<f64> = x.iter().map(|&x| f(f64::from(x))).collect();
            assert_close("y", &name, &y, &expected);
            let h = 1e-5;
            let slope = |x: f64| (f(x + h) - f(x - h)) / (2.0 * h);
            let dx: Vec<f64> =
                x.iter().zip(&grad).map(|(&x, &g)| slope(f64::from(x)) * f64::from(g)).collect();
            assert_close("dx", &name, &backward(&y, &grad, &[&xv])[0], &dx);
        }
    }
}

#[test]
fn the_derivative_of_relu_at_zero_is_zero() {
    let x = var(&[0.0, -0.0, 1.0], &[3]);
    let y = ActivationKernel(Activation::Relu).forward(&x).unwrap();
    assert_eq!(backward(&y, &[1.0; 3], &[&x])[0].to_vec1::<f32>().unwrap(), [0.0, 0.0, 1.0]);
}

#[test]
fn not_a_number_passes_through_every_kernel() {
    let x = Tensor::from_slice(&[f32::NAN, 1.0, 2.0, 3.0], (1, 1, 2, 2), &Device::Cpu).unwrap();
    let window = Window { kernel: [2; 2], stride: [1; 2], dilation: [1; 2], pads: Pads::default() };
    let first = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
    assert!(first(MaxPool2d(window).forward(&x).unwrap()).is_nan());
    assert!(first(AvgPool2d(window).forward(&x).unwrap()).is_nan());
    for activation in [Activation::Relu, Activation::Relu6, Activation::Silu, Activation::HardSwish] {
        assert!(first(ActivationKernel(activation).forward(&x).unwrap()).is_nan(), "{activation:?}");
    }
}
