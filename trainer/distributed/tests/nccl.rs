//! Sums by NCCL on one GPU: with a single process they are what was given. Skipped where there is no GPU.
#![cfg(feature = "nccl")]
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use tallow_distributed::{BesideComputing, Buckets, NcclCommunicator, Options, Place, TcpCommunicator};

/// A communicator of one process on the first GPU; says that `test` did not run where there is none.
fn alone(test: &str) -> Option<(Device, NcclCommunicator)> {
    let device = match Device::new_cuda_with_stream(0) {
        Ok(device) => device,
        Err(error) => {
            let required = std::env::var_os("TALLOW_REQUIRE_CUDA").is_some_and(|value| value == "1");
            assert!(!required, "{test}: TALLOW_REQUIRE_CUDA is set, but there is no CUDA device ({error})");
            // Past the test harness, which shows what passing tests print to nobody.
            let _ = writeln!(std::io::stderr(), "{test}: NOT RUN, there is no CUDA device ({error})");
            return None;
        }
    };
    // As a training opens it: streams are ordered by what the communicator does, not by cudarc.
    // SAFETY: every tensor here is made and used on the device's stream.
    unsafe { device.as_cuda_device().unwrap().disable_event_tracking() };
    let place = Place {
        rank: 0,
        local_rank: 0,
        world_size: 1,
        local_world_size: 1,
        master: "127.0.0.1".into(),
        ports: vec![1],
    };
    let options = Options { fingerprint: [0; 32], timeout: Duration::from_secs(60), channels: 1 };
    let host = TcpCommunicator::connect(&place, &options).unwrap().remove(0);
    let communicator = NcclCommunicator::new(device.as_cuda_device().unwrap(), &host).unwrap();
    Some((device, communicator))
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
