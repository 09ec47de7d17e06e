//! Convolutions, depthwise ones among them.

use candle_core::{DType, Device};
use tallow_builder::Rng;
use tallow_builder::graph::{Pads, Window};
use tallow_builder::kernels::Conv2dKernel;

use super::reference::{Map, Reference};
use super::{channels, close, everywhere, map, parameter, random, tensor, tolerance, window};

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
