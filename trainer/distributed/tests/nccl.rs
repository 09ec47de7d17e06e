//! Sums by NCCL on one GPU: with a single process they are what was given. Skipped where there is no GPU.
#![cfg(feature = "nccl")]
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod support;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use support::{on_ranks, options, place};
use tallow_cuda::{device::DeviceSpec, testing};
use tallow_distributed::{
    BesideComputing, Buckets, Communicator, Error, NcclCommunicator, TcpCommunicator, free_port,
};

/// A communicator of one process on the first GPU; says that `test` did not run where there is none.
fn alone(test: &str) -> Option<(Device, NcclCommunicator)> {
    let device = testing::gpu(test)?;
    let communicator = on_ranks(1, |mut host| join(&device, &mut host)).remove(0);
    Some((device, communicator))
}

/// The communicator of a process on its GPU; the last of the host's watches.
fn join(device: &Device, host: &mut Vec<TcpCommunicator>) -> NcclCommunicator {
    let watched = Arc::new(host.pop().unwrap());
    NcclCommunicator::new(device.as_cuda_device().unwrap(), &host[0], watched).unwrap()
}

#[test]
fn a_sum_over_one_process_is_what_was_given() {
    let Some((device, communicator)) = alone("a_sum_over_one_process_is_what_was_given") else { return };
    for dtype in [DType::F32, DType::F64] {
        let values = Tensor::arange(0f64, 100_003.0, &device).unwrap().to_dtype(dtype).unwrap();
        let doubled = (&values + &values).unwrap();
        communicator.all_reduce(&doubled).unwrap();
        let difference = (doubled - (&values * 2.0).unwrap()).unwrap().abs().unwrap().sum_all().unwrap();
        assert_eq!(difference.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap(), 0.0);
    }
    let halves = Tensor::zeros(4, DType::F16, &device).unwrap();
    assert!(communicator.all_reduce(&halves).unwrap_err().to_string().contains("only f32 and f64"));
    let host = Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap();
    assert!(communicator.all_reduce(&host).unwrap_err().to_string().contains("lies on the CPU"));
}

#[test]
fn buckets_sum_beside_the_stream_that_computes() {
    let Some((device, communicator)) = alone("buckets_sum_beside_the_stream_that_computes") else { return };
    let communicator = Arc::new(communicator);
    let mut buckets = Buckets::new(Box::new(BesideComputing::new(communicator.clone())), 1 << 20);
    let names: Vec<String> = (0..30).map(|layer| format!("layer{layer}.weight")).collect();
    for pass in 0..3 {
        buckets.begin(names.iter().map(|name| (name.clone(), (300, 300).into())), &device);
        for (layer, name) in names.iter().enumerate() {
            // Work that a sum begun too early would not have seen.
            let factor = Tensor::full((layer + pass) as f32 / 300.0, (300, 300), &device).unwrap();
            let ones = Tensor::ones((300, 300), DType::F32, &device).unwrap();
            if layer != 7 {
                buckets.add(name, factor.matmul(&ones).unwrap()).unwrap();
            }
            // Between two buckets, as batch normalisation's sums come, by the same communicator.
            let moments = Tensor::full(layer as f64, 64, &device).unwrap();
            communicator.all_reduce(&moments).unwrap();
            let sum: f64 = moments.sum_all().unwrap().to_scalar().unwrap();
            assert_eq!(sum, 64.0 * layer as f64);
        }
        let gradients = buckets.finish().unwrap();
        for (layer, name) in names.iter().enumerate() {
            let expected = if layer == 7 { 0.0 } else { (layer + pass) as f32 };
            let values = gradients[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(values.iter().all(|value| (value - expected).abs() < 1e-3), "{name}: {}", values[0]);
        }
    }
}

#[test]
fn a_rank_whose_gpu_waits_for_one_that_fails_ends_with_its_reason() {
    let test = "a_rank_whose_gpu_waits_for_one_that_fails_ends_with_its_reason";
    if testing::gpu(test).is_none() {
        return;
    }
    if tallow_cuda::device::count() < 2 {
        return eprintln!("{test}: NOT RUN, for it needs two GPUs");
    }
    on_ranks(2, |mut host| {
        let rank = host[0].rank();
        let device = DeviceSpec::Cuda(rank).open(rank).unwrap();
        let communicator = join(&device, &mut host);
        let ones = Tensor::ones(1 << 20, DType::F32, &device).unwrap();
        communicator.all_reduce(&ones).unwrap();
        assert_eq!(ones.mean_all().unwrap().to_scalar::<f32>().unwrap(), 2.0);
        communicator.require_all().unwrap();
        host[0].barrier().unwrap();
        if rank == 1 {
            return communicator.abort(1, "the disk is full");
        }
        let start = Instant::now();
        // Whatever comes: it comes, and is not used.
        let _ = communicator.all_reduce(&ones).map(|()| ones.mean_all().unwrap().to_scalar::<f32>());
        assert!(start.elapsed() < Duration::from_secs(10));
        assert!(communicator.cause().is_some());
        let reason = Error::Aborted { origin: 1, reason: "the disk is full".into() };
        assert_eq!(communicator.require_all().unwrap_err().to_string(), reason.to_string());
        assert_eq!(communicator.all_reduce(&ones).unwrap_err().to_string(), reason.to_string());
    });
}

/// Where the process of the test below meets its peer.
const PORT: &str = "TALLOW_TEST_PORT";

/// Not a test by itself: rank 0 of two, which waits inside of NCCL for the other.
#[test]
fn one_that_waits() {
    let Some(port) = std::env::var_os(PORT) else { return };
    let port = port.to_str().unwrap().parse().unwrap();
    let device = testing::gpu("one_that_waits").unwrap();
    let mut host = TcpCommunicator::connect(&place(0, 2, port), &options(2)).unwrap();
    join(&device, &mut host);
}

#[test]
fn a_rank_that_is_lost_while_all_meet_in_nccl_ends_the_others() {
    if testing::gpu("a_rank_that_is_lost_while_all_meet_in_nccl_ends_the_others").is_none() {
        return;
    }
    let port = free_port().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["one_that_waits", "--exact", "--nocapture"]).env(PORT, port.to_string());
    let waiting = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let host = TcpCommunicator::connect(&place(1, 2, port), &options(2)).unwrap();
    // As far as to NCCL, and no further.
    host[0].broadcast(&mut vec![], 0).unwrap();
    host[0].barrier().unwrap();
    drop(host);
    let ended = waiting.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{errors}");
    assert!(errors.lines().any(|line| line.starts_with("error: rank 0 lost rank 1 (")), "{errors}");
}
