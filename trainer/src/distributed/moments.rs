//! Batch normalisation's moments between processes: summed in the pass, or handed on after it. What is handed
//! on is read from the device as one tensor, because each reading waits for all that a GPU has been given to
//! do.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use tallow_builder::exec::BatchStatistics;
use tallow_builder::kernels::BatchReduce;
use tallow_distributed::Communicator;

use crate::error::Result;

/// Sums moments over all processes.
pub(super) struct Synchronised {
    pub communicator: Arc<dyn Communicator>,
    /// Whether this process has images; a stand-in's moments count as zeros.
    pub takes_part: bool,
    /// Images of this process and of all; a stand-in counts as one here, to know its pixels.
    pub images: [usize; 2],
    /// Sums on the GPU.
    #[cfg(feature = "nccl")]
    pub nccl: Option<Arc<tallow_distributed::NcclCommunicator>>,
}

impl std::fmt::Debug for Synchronised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Synchronised(rank {} of {})", self.communicator.rank(), self.communicator.world_size())
    }
}

impl BatchReduce for Synchronised {
    fn all_reduce(&self, values: &mut [f64]) -> candle_core::Result<()> {
        if !self.takes_part {
            values.fill(0.0);
        }
        self.communicator.all_reduce_f64(values).map_err(candle_core::Error::wrap)
    }

    fn total_count(&self, own: usize) -> Option<usize> {
        let [here, total] = self.images;
        Some(own / here.max(1) * total)
    }

    #[cfg(feature = "nccl")]
    fn all_reduce_on_device(&self, values: &Tensor) -> candle_core::Result<Tensor> {
        let Some(nccl) = &self.nccl else {
            let mut host: Vec<f64> = values.to_vec1()?;
            self.all_reduce(&mut host)?;
            return Tensor::from_vec(host, values.shape(), values.device());
        };
        // A copy, which is summed in place.
        let sums = if self.takes_part { values.force_contiguous()? } else { values.zeros_like()? };
        nccl.all_reduce(&sums).map_err(candle_core::Error::wrap)?;
        Ok(sums)
    }
}

/// Tensors in a row, in f64: it holds f32 and counts exactly.
pub(super) fn encode(tensors: &[&Tensor]) -> Result<Vec<u8>> {
    let flat = tensors.iter().map(|tensor| tensor.flatten_all()?.to_dtype(DType::F64));
    let flat: Vec<Tensor> = flat.collect::<candle_core::Result<_>>()?;
    let values: Vec<f64> = Tensor::cat(&flat, 0)?.to_vec1()?;
    Ok(values.into_iter().flat_map(f64::to_le_bytes).collect())
}

/// What [`encode`] was given, in the types and shapes of `like` and where they lie. `None` where the bytes
/// are of others.
pub(super) fn decode(bytes: &[u8], like: &[&Tensor]) -> Result<Option<Vec<Tensor>>> {
    let (values, rest) = bytes.as_chunks::<8>();
    let length: usize = like.iter().map(|tensor| tensor.elem_count()).sum();
    let Some(first) = like.first().filter(|_| values.len() == length && rest.is_empty()) else {
        return Ok(None);
    };
    let values = values.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    let flat = Tensor::from_vec(values, length, first.device())?;
    let mut start = 0;
    let part = |tensor: &&Tensor| {
        let part = flat.narrow(0, start, tensor.elem_count())?;
        start += tensor.elem_count();
        part.to_dtype(tensor.dtype())?.reshape(tensor.shape())
    };
    Ok(Some(like.iter().map(part).collect::<candle_core::Result<_>>()?))
}

/// The moments of all layers: counts, then means and variances.
pub(super) fn encode_moments(statistics: &[BatchStatistics]) -> Result<Vec<u8>> {
    let counts = statistics.iter().flat_map(|layer| (layer.moments.count as u64).to_le_bytes());
    let values = encode(&tensors(statistics))?;
    Ok(counts.chain(values).collect())
}

/// Replaces the moments of the same layers. `None` where the bytes are of others.
pub(super) fn decode_moments(bytes: &[u8], statistics: &mut [BatchStatistics]) -> Result<Option<()>> {
    let Some((counts, values)) = bytes.split_at_checked(8 * statistics.len()) else { return Ok(None) };
    let Some(values) = decode(values, &tensors(statistics))? else { return Ok(None) };
    let values = values.as_chunks::<2>().0.iter().zip(counts.as_chunks::<8>().0);
    for (BatchStatistics { moments, .. }, ([mean, var], count)) in statistics.iter_mut().zip(values) {
        (moments.mean, moments.var) = (mean.clone(), var.clone());
        moments.count = u64::from_le_bytes(*count) as usize;
    }
    Ok(Some(()))
}

fn tensors(statistics: &[BatchStatistics]) -> Vec<&Tensor> {
    statistics.iter().flat_map(|layer| [&layer.moments.mean, &layer.moments.var]).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use tallow_builder::kernels::Moments;

    use super::*;

    fn row(channels: usize, start: f32, by: f32) -> Tensor {
        let values: Vec<f32> = (0..channels).map(|c| start + by * c as f32).collect();
        Tensor::from_vec(values, channels, &Device::Cpu).unwrap()
    }

    #[test]
    fn moments_read_back_to_the_bit_and_other_layers_are_refused() {
        let layer = |channels: usize, start: f32| {
            let moments = Moments {
                mean: row(channels, start, 0.1),
                var: row(channels, start, 0.3),
                count: channels * 7,
            };
            BatchStatistics { layer: "bn".into(), momentum: 0.1, moments }
        };
        let encoded = |statistics: &[BatchStatistics]| encode_moments(statistics).unwrap();
        let sent = [layer(3, 1.0), layer(5, -2.0)];
        let mut received = [layer(3, 0.0), layer(5, 0.0)];
        decode_moments(&encoded(&sent), &mut received).unwrap().unwrap();
        assert_eq!(encoded(&received), encoded(&sent));
        assert!(decode_moments(&encoded(&sent), &mut received[..1]).unwrap().is_none());
        assert!(decode_moments(&encoded(&sent[..1]), &mut received).unwrap().is_none());
    }

    #[test]
    fn averages_and_counts_keep_their_bits_types_and_shapes() {
        let count = |n: i64| Tensor::new(n, &Device::Cpu).unwrap();
        let sent = [row(3, f32::MIN_POSITIVE / 3.0, 1e-8), count((1 << 53) - 1), row(2, -3e38, 1e37)];
        let like = [row(3, 0.0, 0.0), count(0), row(2, 0.0, 0.0)];
        let refer = |tensors: &[Tensor; 3]| encode(&tensors.each_ref()).unwrap();
        let found = decode(&refer(&sent), &like.each_ref()).unwrap().unwrap();
        for (found, sent) in found.iter().zip(&sent) {
            assert_eq!((found.dtype(), found.shape()), (sent.dtype(), sent.shape()));
        }
        assert_eq!(found[0].to_vec1::<f32>().unwrap(), sent[0].to_vec1::<f32>().unwrap());
        assert_eq!(found[1].to_scalar::<i64>().unwrap(), (1 << 53) - 1);
        assert_eq!(found[2].to_vec1::<f32>().unwrap(), sent[2].to_vec1::<f32>().unwrap());
        assert!(decode(&refer(&sent)[8..], &like.each_ref()).unwrap().is_none());
    }
}
