//! Batch normalisation's moments between processes: summed in the pass, or handed on after it.

use std::sync::Arc;

use candle_core::Tensor;
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
        let sums = if self.takes_part { values.copy()? } else { values.zeros_like()? };
        nccl.all_reduce(&sums).map_err(candle_core::Error::wrap)?;
        Ok(sums)
    }
}

/// The moments of all layers in a row: count, means, variances.
pub(super) fn encode(statistics: &[BatchStatistics]) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    for BatchStatistics { moments, .. } in statistics {
        bytes.extend((moments.count as u64).to_le_bytes());
        for tensor in [&moments.mean, &moments.var] {
            tensor.to_vec1::<f32>()?.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        }
    }
    Ok(bytes)
}

/// Replaces the moments of the same layers. `None` where the bytes are of others.
pub(super) fn decode(bytes: &[u8], statistics: &mut [BatchStatistics]) -> Result<Option<()>> {
    let mut rest = bytes;
    let mut take = |count: usize| rest.split_off(..count);
    for BatchStatistics { moments, .. } in statistics {
        let Some(count) = take(8).and_then(|bytes| bytes.try_into().ok()) else { return Ok(None) };
        moments.count = u64::from_le_bytes(count) as usize;
        for tensor in [&mut moments.mean, &mut moments.var] {
            let Some(bytes) = take(4 * tensor.elem_count()) else { return Ok(None) };
            let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            *tensor = Tensor::from_vec(values.collect(), tensor.shape(), tensor.device())?;
        }
    }
    Ok(rest.is_empty().then_some(()))
}

#[cfg(test)]
mod tests {
    use tallow_builder::kernels::Moments;

    use super::*;

    #[test]
    fn moments_read_back_to_the_bit_and_other_layers_are_refused() {
        let layer = |channels: usize, start: f32| {
            let values = |by: f32| {
                let values: Vec<f32> = (0..channels).map(|c| start + by * c as f32).collect();
                Tensor::from_vec(values, channels, &candle_core::Device::Cpu).unwrap()
            };
            let moments = Moments { mean: values(0.1), var: values(0.3), count: channels * 7 };
            BatchStatistics { layer: "bn".into(), momentum: 0.1, moments }
        };
        let encode = |statistics: &[BatchStatistics]| encode(statistics).unwrap();
        let sent = [layer(3, 1.0), layer(5, -2.0)];
        let mut received = [layer(3, 0.0), layer(5, 0.0)];
        decode(&encode(&sent), &mut received).unwrap().unwrap();
        assert_eq!(encode(&received), encode(&sent));
        assert!(decode(&encode(&sent), &mut received[..1]).unwrap().is_none());
        assert!(decode(&encode(&sent[..1]), &mut received).unwrap().is_none());
    }
}
