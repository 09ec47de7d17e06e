//! Gradients of several batches as one: steps over more images than fit into memory at once.

use candle_core::Tensor;
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
        mean.extend(names.into_iter().zip(gpu::lerp(&pairs, share(images, more))?));
        return Ok(mean);
    }
    for (name, new) in other {
        let gradient = merged_one((&mut mean, images), &name, (new, more))?;
        mean.insert(name, gradient);
    }
    Ok(mean)
}

/// As [`merged`], of one parameter, whose gradient over the batches before is taken out of `mean`.
///
/// # Errors
/// As [`merged`].
pub fn merged_one(
    (mean, images): (&mut Gradients, usize),
    name: &str,
    (new, more): (Tensor, usize),
) -> Result<Tensor> {
    let Some(old) = mean.remove(name) else { return Ok(new) };
    let share = share(images, more);
    if is_on_gpu(&new) {
        let pair = (old.contiguous()?, new.contiguous()?);
        return Ok(gpu::lerp(&[pair], share)?.remove(0));
    }
    combine2(&old, &new, move |a, b| a + share * (b - a))
}

/// The later images' share in the mean over all.
fn share(images: usize, more: usize) -> f32 {
    (more as f64 / (images + more) as f64) as f32
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

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
        let mut one_by_one = mean.clone();
        for (values, images) in &batches[1..] {
            let (name, before) = ("w", (&mut one_by_one.0, one_by_one.1));
            let new = (gradients(values).remove(name).unwrap(), *images);
            let merged_alone = merged_one(before, name, new).unwrap();
            one_by_one = ([(name.to_owned(), merged_alone)].into(), one_by_one.1 + images);
            mean = (merged(mean.clone(), (gradients(values), *images)).unwrap(), mean.1 + images);
        }
        let values = |mean: &Gradients| mean["w"].to_vec1::<f32>().unwrap();
        assert_eq!(values(&mean.0), values(&one_by_one.0));
        for (found, expected) in values(&mean.0).iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }
}
