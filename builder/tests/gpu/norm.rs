//! Batch normalisation, alone and with what comes behind it.

use candle_core::{DType, Tensor};
use tallow_builder::kernels::{BatchNormKernel, GatedNorm, Normed, RunningMoments, Then};

use super::reference::{self, Map};
use super::{
    ACTIVATIONS, activate, channels, close, everywhere, map, parameter, random, rounded, tensor, tolerance,
};

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
        let before = || RunningMoments {
            mean: running[0].clone(),
            var: running[1].clone(),
            batches: Tensor::new(41i64, device).unwrap(),
        };
        let layers = [(before(), moments, 0.5), (before(), moments, 0.1)];
        let moved = RunningMoments::moved(&layers).unwrap().pop().unwrap();
        assert_eq!(moved.batches.to_scalar::<i64>().unwrap(), 42);
        let n = moments.count as f64;
        let correction = if n > 1.0 { n / (n - 1.0) } else { 0.0 };
        let moved_by = |old: &[f32], new: &[f64], factor: f64| -> Vec<f64> {
            old.iter().zip(new).map(|(&o, n)| 0.9 * f64::from(o) + 0.1 * factor * n).collect()
        };
        close("running mean", &case, &moved.mean, &moved_by(&mean, &expected.mean, 1.0), 1e-5);
        close("running variance", &case, &moved.var, &moved_by(&var, &expected.var, correction), 1e-5);

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

/// Squeeze and excitation of a normalised and activated map against their parts in f64.
#[test]
fn batch_norm_behind_a_gate() {
    everywhere(2, |device, dtype, rng| {
        for activation in ACTIVATIONS {
            let channels = channels(rng);
            let map = Map { images: 3, ..map(rng, channels) };
            let case = format!("gated {activation:?} {dtype:?} {map:?}");
            let pixels = map.height * map.width;
            let [x, grad] = [0, 0].map(|_| random(rng, map.len(), dtype));
            let (scale, shift) = (random(rng, channels, DType::F32), random(rng, channels, DType::F32));
            let [gate, squeezed] = [0, 0].map(|_| random(rng, 3 * channels, dtype));
            let zeros = vec![0.0; map.len()];
            let z = reference::batch_norm(map, &x, &scale, &shift, 1e-3, None, &zeros).y;
            // Where the derivative jumps, rounding decides.
            let jumps = |z: f64| [0.0, 6.0, 3.0, -3.0].iter().any(|edge| (z - edge).abs() < 1e-4);
            let of_map = |i: usize, grad: f32| {
                f64::from(grad) * f64::from(gate[i / pixels])
                    + f64::from(squeezed[i / pixels]) / pixels as f64
            };
            if z.iter().any(|&z| jumps(z)) {
                continue;
            }
            let y: Vec<f64> = z.iter().map(|&z| activate(activation, z).0).collect();
            let per_image = |f: &dyn Fn(usize) -> f64| -> Vec<f64> {
                (0..3 * channels).map(|c| (c * pixels..(c + 1) * pixels).map(f).sum()).collect()
            };
            let dz: Vec<f32> =
                (0..map.len()).map(|i| (of_map(i, grad[i]) * activate(activation, z[i]).1) as f32).collect();
            let expected = reference::batch_norm(map, &x, &scale, &shift, 1e-3, None, &dz);

            let [xt, gt] = [&x, &grad].map(|values| tensor(values, &map.dims(), dtype, device));
            let one = [3, channels, 1, 1];
            let [gate_tensor, squeezed] =
                [&gate, &squeezed].map(|values| tensor(values, &one, dtype, device));
            let (st, bt) = (parameter(&scale, device), parameter(&shift, device));
            let kernel = BatchNormKernel::training(1e-3);
            let norm = GatedNorm { kernel: &kernel, activation, x: &xt, scale: &st, shift: &bt };
            let mean = per_image(&|i| y[i] / pixels as f64);
            close("squeezed", &case, &norm.squeeze().unwrap(), &mean, 2.0 * tolerance(dtype));
            let product: Vec<f64> =
                y.iter().enumerate().map(|(i, y)| y * f64::from(gate[i / pixels])).collect();
            close("excited", &case, &norm.excite(&gate_tensor).unwrap(), &product, tolerance(dtype));
            let of_gate = per_image(&|i| y[i] * f64::from(grad[i]));
            close("d gate", &case, &norm.gate_gradient(&gt).unwrap(), &of_gate, 2.0 * tolerance(dtype));
            let found = norm.gradients(&gate_tensor, &gt, &squeezed).unwrap();
            let loose = if dtype == DType::F32 { 4e-5 } else { 3.0 * tolerance(dtype) };
            close("dx", &case, &found.x, &expected.dx, loose);
            close("dγ", &case, &found.scale, &expected.dw, loose);
            close("dβ", &case, &found.shift, &expected.db, loose);
            assert!(found.residual.is_none());
        }
    });
}
