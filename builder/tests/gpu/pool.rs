//! Pools.

use candle_core::DType;
use tallow_builder::graph::{Pads, Window};
use tallow_builder::kernels::{AvgPool2d, MaxPool2d};

use super::reference::Reference;
use super::{channels, close, everywhere, map, random, tensor, tolerance, window};

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
