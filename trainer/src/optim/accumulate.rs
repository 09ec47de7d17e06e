//! Gradients of several batches as one: steps over more images than fit into memory at once.

use tallow_builder::exec::Gradients;

use tallow_cuda::is_on_gpu;

use super::gpu;
use super::rule::combine2;
use crate::error::Result;

/// The gradient of the mean over all images of two sets of batches, given the gradient of the mean over each and how
/// many images it is over. Without batch normalisation, it is that of one batch of all of them.
///
/// # Errors
/// Where the two are not of the same parameters' shapes.
pub fn merged(
    (mut mean, images): (Gradients, usize),
    (other, more): (Gradients, usize),
) -> Result<Gradients> {
    let share = (more as f64 / (images + more) as f64) as f32;
    if other.values().next().is_some_and(is_on_gpu) {
        let (mut names, mut pairs) = (vec![], vec![]);
        for (name, new) in other {
            match mean.remove(&name) {
                Some(old) => {
                    names.push(name);
                    pairs.push((old.contiguous()?, new.contiguous()?));
                }
                None => drop(mean.insert(name, new)),
            }
        }
        mean.extend(names.into_iter().zip(gpu::lerp(&pairs, share)?));
        return Ok(mean);
    }
    for (name, new) in other {
        let gradient = match mean.remove(&name) {
            Some(old) => combine2(&old, &new, move |a, b| a + share * (b - a))?,
            None => new,
        };
        mean.insert(name, gradient);
    }
    Ok(mean)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    fn gradients(values: &[f32]) -> Gradients {
        [("w".to_owned(), Tensor::new(values, &Device::Cpu).unwrap())].into()
    }

    #[test]
    fn the_mean_is_over_all_images_however_many_a_batch_has() {
        let batches = [(vec![1.0, -2.0], 32), (vec![4.0, 0.5], 32), (vec![-7.0, 3.0], 5)];
        let total: usize = batches.iter().map(|(_, images)| images).sum();
        let expected = [0, 1].map(|i| {
            batches.iter().map(|(g, images)| f64::from(g[i]) * *images as f64).sum::<f64>() / total as f64
        });
        let mut mean = (gradients(&batches[0].0), batches[0].1);
        for (values, images) in &batches[1..] {
            mean = (merged(mean.clone(), (gradients(values), *images)).unwrap(), mean.1 + images);
        }
        for (found, expected) in mean.0["w"].to_vec1::<f32>().unwrap().iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }
}
