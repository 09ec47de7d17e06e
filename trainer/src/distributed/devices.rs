//! What the processes compute on: a GPU each, or the CPU all of them.

use std::collections::BTreeMap;

use candle_core::Device;
use tallow_cuda::device;
use tallow_distributed::{Communicator, Error, Result};

/// How gradients go from process to process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// From host to host; all compute on the CPU.
    Tcp,
    /// From GPU to GPU by NCCL.
    Nccl,
    /// From each GPU to its host, from host to host, and back: this build has no NCCL.
    GpusThroughHosts,
}

/// Compares the processes' devices.
///
/// # Errors
/// [`Error::Devices`] where some have a GPU and others none, or where NCCL would meet a GPU twice, which it cannot; those
/// of the communicator.
pub(super) fn agree(control: &dyn Communicator, own: &Device) -> Result<Transport> {
    let uuid = device::uuid(own)?.map_or(vec![], Vec::from);
    transport(&control.gather(&uuid)?, cfg!(feature = "nccl"))
}

/// How gradients go between processes with GPUs of these numbers, by rank; nothing stands for the CPU.
fn transport(uuids: &[Vec<u8>], nccl: bool) -> Result<Transport> {
    if let Some(peer) = uuids.iter().position(|uuid| uuid.is_empty() != uuids[0].is_empty()) {
        let problem =
            "one computes on a GPU and the other on the CPU: give each process a GPU, or all --device cpu";
        return Err(Error::Devices { rank: 0, peer, problem: problem.into() });
    }
    if uuids[0].is_empty() {
        return Ok(Transport::Tcp);
    }
    if !nccl {
        return Ok(Transport::GpusThroughHosts);
    }
    let mut ranks = BTreeMap::new();
    for (peer, uuid) in uuids.iter().enumerate() {
        if let Some(rank) = ranks.insert(uuid, peer) {
            let problem = "both compute on the same GPU, which NCCL does not allow: start one process for each GPU (see \
                 nvidia-smi -L and CUDA_VISIBLE_DEVICES), or all with --device cpu";
            return Err(Error::Devices { rank, peer, problem: problem.into() });
        }
    }
    Ok(Transport::Nccl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_for_each_process_or_none_for_any() {
        let (cpu, a, b) = (vec![], vec![1; 16], vec![2; 16]);
        let of = |uuids: &[&Vec<u8>], nccl| {
            let uuids: Vec<_> = uuids.iter().map(|uuid| (*uuid).clone()).collect();
            transport(&uuids, nccl).map_err(|error| error.to_string())
        };
        for nccl in [true, false] {
            assert_eq!(of(&[&cpu, &cpu], nccl), Ok(Transport::Tcp));
            let error = of(&[&a, &b, &cpu], nccl).unwrap_err();
            assert!(error.contains("rank 0 and rank 2") && error.contains("--device cpu"), "{error}");
        }
        assert_eq!(of(&[&a, &b], true), Ok(Transport::Nccl));
        assert_eq!(of(&[&a, &b, &a], false), Ok(Transport::GpusThroughHosts));
        let error = of(&[&b, &a, &a], true).unwrap_err();
        assert!(error.contains("rank 1 and rank 2") && error.contains("one process for each GPU"), "{error}");
    }
}
