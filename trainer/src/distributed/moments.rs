//! Batch normalisation's moments between processes: summed in the pass, or handed on after it.

use std::sync::Arc;

use tallow_builder::exec::BatchStatistics;
use tallow_builder::kernels::BatchReduce;
use tallow_distributed::Communicator;

/// Sums moments over all processes.
pub(super) struct Synchronised {
    pub communicator: Arc<dyn Communicator>,
    /// Whether this process has images; a stand-in's moments count as zeros.
    pub takes_part: bool,
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
}

/// The moments of all layers in a row: count, means, variances.
pub(super) fn encode(statistics: &[BatchStatistics]) -> Vec<u8> {
    let mut bytes = vec![];
    for BatchStatistics { moments, .. } in statistics {
        bytes.extend((moments.count as u64).to_le_bytes());
        moments.mean.iter().chain(&moments.var).for_each(|value| bytes.extend(value.to_le_bytes()));
    }
    bytes
}

/// Replaces the moments of the same layers. `None` where the bytes are of others.
pub(super) fn decode(bytes: &[u8], statistics: &mut [BatchStatistics]) -> Option<()> {
    let mut rest = bytes;
    for BatchStatistics { moments, .. } in statistics {
        let count = rest.split_off(..8)?;
        moments.count = u64::from_le_bytes(count.try_into().ok()?) as usize;
        for value in moments.mean.iter_mut().chain(&mut moments.var) {
            *value = f32::from_le_bytes(rest.split_off(..4)?.try_into().ok()?);
        }
    }
    rest.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use tallow_builder::kernels::Moments;

    use super::*;

    #[test]
    fn moments_read_back_to_the_bit_and_other_layers_are_refused() {
        let layer = |channels: usize, start: f32| {
            let values = |by: f32| (0..channels).map(|c| start + by * c as f32).collect();
            let moments = Moments { mean: values(0.1), var: values(0.3), count: channels * 7 };
            BatchStatistics { layer: "bn".into(), momentum: 0.1, moments }
        };
        let sent = [layer(3, 1.0), layer(5, -2.0)];
        let mut received = [layer(3, 0.0), layer(5, 0.0)];
        decode(&encode(&sent), &mut received).unwrap();
        assert!(sent.iter().zip(&received).all(|(a, b)| a.moments == b.moments));
        assert!(decode(&encode(&sent), &mut received[..1]).is_none());
        assert!(decode(&encode(&sent[..1]), &mut received).is_none());
    }
}
