//! Batches as tensors, sent ahead: while a GPU computes on one, the bytes of the next are on their way to it. What
//! `input.cu` does to them there (mirror, normalise, blend) is launched when their turn comes.

use std::borrow::Borrow;

use candle_core::{DType, Tensor};
use tallow_cuda::{Launch, Sent, Source, Uploader, Variant, pointer, run};

use super::Compute;
use crate::data::{Batch, Bytes, Images};
use crate::error::Result;

static SOURCE: Source = Source { name: "input.cu", text: include_str!("input.cu") };

/// A batch, and its images where they are computed with.
pub(crate) struct Input {
    pub batch: Batch,
    /// `[N · views, 3, H, W]`; those of the stand-in where the batch is empty.
    pub images: Tensor,
}

impl Borrow<Batch> for Input {
    fn borrow(&self) -> &Batch {
        &self.batch
    }
}

/// The inputs of an epoch.
pub(crate) struct Inputs<'a, I> {
    compute: Compute,
    uploader: &'a mut Uploader,
    batches: I,
    /// The next one, on a GPU: on a CPU nothing would be gained.
    ahead: Option<Result<(Batch, Option<Sent>)>>,
}

impl<'a, I: Iterator<Item = Result<Batch>>> Inputs<'a, I> {
    /// Of these batches, of which one more than was asked for is taken on a GPU. The uploader serves one
    /// epoch after the other: page-locked memory takes the driver long to give.
    pub fn new(compute: &Compute, uploader: &'a mut Uploader, batches: I) -> Self {
        Self { compute: compute.clone(), uploader, batches, ahead: None }
    }

    /// The next batch, its bytes sent off.
    fn fetch(&mut self) -> Option<Result<(Batch, Option<Sent>)>> {
        let batch = match self.batches.next()? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(error)),
        };
        let sent = match &batch.images {
            Images::Bytes(bytes) if self.compute.is_gpu() && !batch.is_empty() => {
                Some(send(self.uploader, bytes))
            }
            _ => None,
        };
        Some(sent.transpose().map(|sent| (batch, sent)))
    }

    fn input(&mut self, batch: Batch, sent: Option<Sent>) -> Result<Input> {
        let images = match (&batch.images, sent) {
            (Images::Bytes(bytes), Some(sent)) => {
                let dtype = self.compute.dtype();
                self.uploader.receive(sent, |there| normalised(there, bytes, &batch, dtype))?
            }
            _ if batch.is_empty() => self.compute.images(&batch.stand_in())?,
            _ => self.compute.images(&batch)?,
        };
        Ok(Input { batch, images })
    }
}

impl<I: Iterator<Item = Result<Batch>>> Iterator for Inputs<'_, I> {
    type Item = Result<Input>;

    fn next(&mut self) -> Option<Result<Input>> {
        let due = self.ahead.take().or_else(|| self.fetch())?;
        Some(due.and_then(|(batch, sent)| {
            if self.compute.is_gpu() {
                self.ahead = self.fetch();
            }
            self.input(batch, sent)
        }))
    }
}

/// A batch's bytes as the network's input; nothing is done meanwhile.
pub(super) fn at_once(compute: &Compute, bytes: &Bytes, batch: &Batch) -> Result<Tensor> {
    let mut uploader = Uploader::new(compute.device())?;
    let sent = send(&mut uploader, bytes)?;
    uploader.receive(sent, |there| normalised(there, bytes, batch, compute.dtype()))
}

fn send(uploader: &mut Uploader, bytes: &Bytes) -> Result<Sent> {
    Ok(uploader.send(&[&bytes.pixels, &bytes.mirrored])?)
}

/// Launches what is still to be done to a batch's bytes, which are `there`; channels last in memory.
fn normalised(there: &Tensor, bytes: &Bytes, batch: &Batch, dtype: DType) -> Result<Tensor> {
    let (height, width) = (batch.height, batch.width);
    let images = batch.len() * batch.views.count();
    let input = tallow_cuda::empty((images, height, width, 3), dtype, there.device())?;
    let address = pointer(there)?;
    let (share, rest) = bytes.share.map_or((1.0, 0.0), |share| (share as f32, (1.0 - share) as f32));
    let pixels = images * height * width;
    let launch = Launch::over(&SOURCE, Variant::new(dtype, 1), "normalise", pixels)
        .arg(pixels as i64)
        .arg(images as i32)
        .arg((height * width) as i32)
        .arg(width as i32)
        .arg(batch.views.count() as i32)
        .arg(share)
        .arg(rest);
    let launch = bytes.scale.mean.into_iter().chain(bytes.scale.std).fold(launch, Launch::arg);
    let launch = launch.arg(address).arg(address + bytes.pixels.len() as u64).arg(pointer(&input)?);
    run(there.device(), &launch)?;
    Ok(input.permute((0, 3, 1, 2))?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use tallow_builder::Rng;
    use tallow_cuda::{emulator::emulated, testing};
    use tallow_input::Views;

    use super::*;
    use crate::compute::Precision;
    use crate::data::Scale;

    /// A batch of noise, some of it to be mirrored.
    fn batch(samples: usize, views: Views, (height, width): (usize, usize), share: Option<f64>) -> Batch {
        let mut rng = Rng::new(7);
        let mut bytes = |n: usize, below| (0..n).map(|_| rng.below(below) as u8).collect::<Vec<u8>>();
        let pixels = bytes(samples * views.count() * height * width * 3, 256);
        let mirrored = bytes(samples, 2);
        let scale = Scale { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
        Batch {
            images: Images::Bytes(Bytes { pixels, mirrored, scale, share }),
            labels: vec![0; samples],
            indices: (0..samples).collect(),
            views,
            ..Batch::empty(0, (height, width))
        }
    }

    #[test]
    fn a_gpu_does_to_bytes_what_the_host_does() {
        let device = testing::gpu("a_gpu_does_to_bytes_what_the_host_does").unwrap_or(Device::Cpu);
        let cases = [
            (5, Views::One, (7, 5), None),
            (4, Views::One, (8, 8), Some(0.3)),
            (5, Views::One, (3, 9), Some(0.8)),
            (3, Views::TenCrop, (4, 6), None),
            (1, Views::Flip, (1, 1), None),
        ];
        for (samples, views, size, share) in cases {
            let batch = batch(samples, views, size, share);
            for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
                let dtype = precision.dtype();
                let expected = Tensor::new(&*batch.floats(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
                let expected = Compute::cpu().to_host(&expected).unwrap();
                let found = emulated(|| {
                    let compute = Compute { device: device.clone(), precision };
                    let mut uploader = Uploader::new(compute.device()).unwrap();
                    let batches = [Ok(batch.clone()), Ok(batch.clone())].into_iter();
                    let inputs = Inputs::new(&compute, &mut uploader, batches);
                    let inputs: Vec<Input> = inputs.map(Result::unwrap).collect();
                    assert_eq!(inputs.len(), 2);
                    let images = compute.images(&batch).unwrap();
                    assert_eq!(images.dims(), [samples * views.count(), 3, size.0, size.1]);
                    assert!(images.permute((0, 2, 3, 1)).unwrap().is_contiguous(), "channels last");
                    let images = compute.to_host(&images).unwrap();
                    for input in &inputs {
                        assert_eq!(compute.to_host(&input.images).unwrap(), images);
                    }
                    images
                });
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(&expected) {
                    // Without a blend, whose sum a GPU rounds once, to the bit.
                    let tolerance =
                        share.map_or(0.0, |_| 1e-6 + 0.02 * f32::from(u8::from(dtype != DType::F32)));
                    let difference = (found - expected).abs();
                    assert!(difference <= tolerance, "{precision}: {found} instead of {expected}");
                }
            }
        }
    }

    #[test]
    fn a_cpu_gets_what_the_host_has_done_and_errors_come_in_their_place() {
        let compute = Compute::cpu();
        let batch = batch(3, Views::One, (4, 5), Some(0.6));
        let images = compute.images(&batch).unwrap();
        assert!(images.device().same_device(&Device::Cpu));
        assert_eq!(compute.to_host(&images).unwrap(), *batch.floats());
        let run = || {
            let batches = [Ok(batch.clone()), Ok(Batch::empty(1, (4, 5))), Err(crate::Error::NoSamples)];
            let mut uploader = Uploader::new(compute.device()).unwrap();
            let inputs = Inputs::new(&compute, &mut uploader, batches.into_iter());
            inputs.map(|input| input.map(|input| input.images.dims().to_vec()).ok()).collect::<Vec<_>>()
        };
        let expected = [Some(vec![3, 3, 4, 5]), Some(vec![1, 3, 4, 5]), None];
        assert_eq!(run(), expected);
        assert_eq!(emulated(run), expected);
    }

    /// NVRTC needs no GPU: that the source compiles is tested wherever its library is.
    #[cfg(feature = "cuda")]
    #[test]
    fn the_source_compiles() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for capability in [(8, 0), (9, 0)] {
                if let Err(error) = tallow_cuda::compile(&SOURCE, Variant::new(dtype, 1), capability) {
                    panic!("{dtype:?}: {error}");
                }
            }
        }
    }
}
