//! The CUDA driver: kernels compiled once a process, launched on candle's stream.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, Ptx, compile_ptx_with_opts};
use candle_core::cuda_backend::{CudaDType, CudaStorageSlice, WrapErr};
use candle_core::{CudaDevice, CudaStorage, DType, DeviceLocation, Result, bail};
use half::{bf16, f16};

use crate::launch::{Arg, Launch, Source, Variant};

/// By GPU, source and variant.
type Modules = Mutex<HashMap<(usize, &'static str, Variant), Arc<CudaModule>>>;

/// Which kernel of which module on which GPU.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    gpu: usize,
    source: &'static str,
    variant: Variant,
    kernel: &'static str,
}

pub(crate) fn run(device: &CudaDevice, launch: &Launch) -> Result<()> {
    let function = function(device, launch)?;
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&function);
    for argument in &launch.arguments {
        match argument {
            Arg::Pointer(value) => builder.arg(value),
            Arg::Long(value) => builder.arg(value),
            Arg::Int(value) => builder.arg(value),
            Arg::Float(value) => builder.arg(value),
        };
    }
    let [x, y, z] = launch.grid;
    let config = LaunchConfig { grid_dim: (x, y, z), block_dim: (launch.threads, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the arguments are the kernel's, in its order, and point to tensors that outlive the launch; memory that
    // is freed afterwards is freed on the same stream.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}

fn function(device: &CudaDevice, launch: &Launch) -> Result<CudaFunction> {
    static FUNCTIONS: LazyLock<Mutex<HashMap<Key, CudaFunction>>> = LazyLock::new(Mutex::default);
    let DeviceLocation::Cuda { gpu_id } = device.location() else { unreachable!("a CUDA device") };
    let key = Key { gpu: gpu_id, source: launch.source.name, variant: launch.variant, kernel: launch.kernel };
    let mut functions = FUNCTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(function) = functions.get(&key) {
        return Ok(function.clone());
    }
    let function = load(device, launch)?;
    Ok(functions.entry(key).or_insert(function).clone())
}

/// Compiles a source for GPUs of a compute capability, which takes no GPU.
///
/// # Errors
/// What the compiler says.
pub fn compile(source: &Source, variant: Variant, (major, minor): (i32, i32)) -> Result<Ptx> {
    let options = CompileOptions {
        name: Some(source.name.to_owned()),
        options: vec![format!("--gpu-architecture=compute_{major}{minor}"), "--std=c++17".to_owned()],
        ..CompileOptions::default()
    };
    compile_ptx_with_opts(variant.text(source)?, options).w()
}

fn load(device: &CudaDevice, launch: &Launch) -> Result<CudaFunction> {
    let Launch { source, variant, kernel, .. } = launch;
    let stream = device.cuda_stream();
    // The kernels of a source are compiled together.
    static MODULES: LazyLock<Modules> = LazyLock::new(Modules::default);
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (stream.context().ordinal(), source.name, *variant);
    let module = match modules.get(&key) {
        Some(module) => module.clone(),
        None => {
            let ptx = compile(source, *variant, stream.context().compute_capability().w()?)?;
            modules.entry(key).or_insert(stream.context().load_module(ptx).w()?).clone()
        }
    };
    module.load_function(kernel).w()
}

pub(crate) fn pointer(storage: &CudaStorage) -> Result<u64> {
    let stream = storage.device().cuda_stream();
    // The guards would record events for other streams; whoever uses such orders them, see `device::open`.
    Ok(match &storage.slice {
        CudaStorageSlice::U8(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::U32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::I64(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::BF16(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::F16(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::F32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::F64(slice) => slice.device_ptr(&stream).0,
        _ => bail!("no kernel computes on elements of type {:?}", storage.dtype()),
    })
}

pub(crate) fn empty(device: &CudaDevice, elements: usize, dtype: DType) -> Result<CudaStorage> {
    fn of<T: CudaDType + DeviceRepr>(device: &CudaDevice, elements: usize) -> Result<CudaStorage> {
        // SAFETY: the caller writes before it reads.
        let slice = unsafe { device.alloc::<T>(elements)? };
        Ok(CudaStorage::wrap_cuda_slice(slice, device.clone()))
    }
    match dtype {
        DType::U8 => of::<u8>(device, elements),
        DType::U32 => of::<u32>(device, elements),
        DType::I64 => of::<i64>(device, elements),
        DType::BF16 => of::<bf16>(device, elements),
        DType::F16 => of::<f16>(device, elements),
        DType::F32 => of::<f32>(device, elements),
        DType::F64 => of::<f64>(device, elements),
        other => bail!("no kernel computes on elements of type {other:?}"),
    }
}
