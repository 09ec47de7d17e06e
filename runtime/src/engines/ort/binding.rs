//! IO binding: a session's inputs and outputs in memory that is allocated once for each shape of a batch.
//!
//! On the CPU the session reads and writes that memory itself. On a GPU each tensor is there twice, on the device, where
//! the session has it, and in pinned memory of the host, which the device reads and writes by itself: a batch goes over
//! once and its outputs come back once. Addresses never change, which is what a CUDA graph needs: it replays kernels with
//! the addresses that they had when it was recorded.

use std::fmt::Debug;

use ndarray::{ArrayD, ArrayView4};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, NoSelectedOutputs, RunOptions, Session};
use ort::value::{PrimitiveTensorElementType, Tensor};

use super::plain;
use crate::batch::Batch;
use crate::cuda::driver::{Context, Driver};
use crate::engines::{EngineKind, EngineOptions};
use crate::error::one_line;

/// Shapes whose memory is kept. A server meets few batch sizes: the full one and the rests.
const SHAPES_KEPT: usize = 8;

/// The run's option that names a CUDA graph, and the name that stands for none.
const GRAPH: &str = "gpu_graph_id";
const NO_GRAPH: &str = "-1";

/// The names of a session's input and outputs.
pub(super) struct Names {
    pub(super) input: String,
    pub(super) outputs: Vec<String>,
}

/// Where a session has its inputs and outputs.
enum Place {
    Host,
    Device { id: i32, context: Context },
}

/// The bound memory of one session.
pub(super) struct Bindings {
    place: Place,
    /// Whether runs are recorded and replayed as CUDA graphs.
    graphs: bool,
    /// Most recently used last.
    kept: Vec<([usize; 4], Bound)>,
}

impl Bindings {
    /// # Errors
    /// Where the driver does not give the device's context.
    pub(super) fn new(engine: EngineKind, options: &EngineOptions) -> Result<Bindings, String> {
        let place = match engine.is_gpu() {
            true => {
                let id = options.gpu.device_id();
                Place::Device { id, context: Driver::get()?.context(id)? }
            }
            false => Place::Host,
        };
        Ok(Bindings { place, graphs: options.gpu.cuda_graph, kept: vec![] })
    }

    /// Runs a batch through bound memory. The first batch of a shape runs without, and tells the outputs' shapes.
    ///
    /// # Errors
    /// The engine's or the driver's reason.
    pub(super) fn run(
        &mut self,
        session: &mut Session,
        names: &Names,
        batch: Batch<'_>,
    ) -> Result<Vec<ArrayD<f32>>, String> {
        let shape = batch.shape();
        if let Some(at) = self.kept.iter().position(|(kept, _)| *kept == shape) {
            self.kept[at..].rotate_left(1);
            let last = self.kept.len() - 1;
            return self.kept[last].1.run(session, batch, &self.place);
        }
        let no_graph = if self.graphs { Some(graph(NO_GRAPH)?) } else { None };
        let outputs = plain::run(session, names, batch, no_graph.as_ref())?;
        if self.kept.len() == SHAPES_KEPT {
            if self.graphs {
                // The session keeps each graph that it has recorded, with its addresses: none is given up for another.
                return Ok(outputs);
            }
            self.kept.remove(0);
        }
        // Graphs are numbered from 1; 0 is ONNX Runtime's own.
        let graph = if self.graphs { Some(graph(&(self.kept.len() + 1).to_string())?) } else { None };
        let shapes = outputs.iter().map(|output| output.shape().to_vec()).collect();
        let bound = Bound::new(session, names, batch, shapes, &self.place, graph);
        self.kept.push((shape, bound.map_err(one_line)?));
        Ok(outputs)
    }
}

fn graph(name: &str) -> Result<RunOptions<NoSelectedOutputs>, String> {
    let mut options = RunOptions::new().map_err(one_line)?;
    options.set(GRAPH, name).map_err(one_line)?;
    Ok(options)
}

/// Inputs and outputs of one shape.
struct Bound {
    binding: IoBinding,
    input: Input,
    outputs: Vec<Mirrored<f32>>,
    /// The number of the CUDA graph, where runs are recorded.
    graph: Option<RunOptions<NoSelectedOutputs>>,
}

enum Input {
    Floats(Mirrored<f32>),
    Pixels(Mirrored<u8>),
}

impl Bound {
    fn new(
        session: &Session,
        names: &Names,
        batch: Batch<'_>,
        shapes: Vec<Vec<usize>>,
        place: &Place,
        graph: Option<RunOptions<NoSelectedOutputs>>,
    ) -> ort::Result<Bound> {
        let mut binding = session.create_binding()?;
        let (name, shape) = (names.input.as_str(), batch.shape().to_vec());
        let input = match batch {
            Batch::Floats(_) => {
                let input = Mirrored::new(session, shape, place, MemoryType::CPUInput)?;
                binding.bind_input(name, input.bound())?;
                Input::Floats(input)
            }
            Batch::Pixels(_) => {
                let input = Mirrored::new(session, shape, place, MemoryType::CPUInput)?;
                binding.bind_input(name, input.bound())?;
                Input::Pixels(input)
            }
        };
        let mut outputs = vec![];
        for (name, shape) in names.outputs.iter().zip(shapes) {
            let mut output = Mirrored::new(session, shape, place, MemoryType::CPUOutput)?;
            binding.bind_output(name.as_str(), output.bound_mut())?;
            outputs.push(output);
        }
        Ok(Bound { binding, input, outputs, graph })
    }

    fn run(
        &mut self,
        session: &mut Session,
        batch: Batch<'_>,
        place: &Place,
    ) -> Result<Vec<ArrayD<f32>>, String> {
        match (&mut self.input, batch) {
            (Input::Floats(input), Batch::Floats(images)) => input.write(images, place)?,
            (Input::Pixels(input), Batch::Pixels(images)) => input.write(images, place)?,
            // A graph takes images of one kind, which was checked before.
            _ => return Err("the batch is not of the kind that its memory was made for".into()),
        }
        match &self.graph {
            Some(graph) => session.run_binding_with_options(&self.binding, graph),
            None => session.run_binding(&self.binding),
        }
        .map_err(one_line)?;
        self.outputs.iter_mut().map(|output| output.read(place)).collect()
    }
}

/// A tensor of the host, and its counterpart on the device where the session has it there.
struct Mirrored<T: PrimitiveTensorElementType + Debug> {
    host: Tensor<T>,
    device: Option<Tensor<T>>,
}

impl<T: PrimitiveTensorElementType + Debug + Clone + Copy> Mirrored<T> {
    fn new(session: &Session, shape: Vec<usize>, place: &Place, side: MemoryType) -> ort::Result<Self> {
        match place {
            Place::Host => Ok(Self { host: Tensor::new(&Allocator::default(), shape)?, device: None }),
            Place::Device { id, .. } => {
                let allocator = |device, id, memory| {
                    let info = MemoryInfo::new(device, id, AllocatorType::Device, memory)?;
                    Allocator::new(session, info)
                };
                // Pinned memory is registered under its device's number, by older releases under 0.
                let pinned = |id| allocator(AllocationDevice::CUDA_PINNED, id, side);
                let host = Tensor::new(&pinned(*id).or_else(|_| pinned(0))?, shape.clone())?;
                let memory = allocator(AllocationDevice::CUDA, *id, MemoryType::Default)?;
                Ok(Self { host, device: Some(Tensor::new(&memory, shape)?) })
            }
        }
    }

    /// The tensor that the session has.
    fn bound(&self) -> &Tensor<T> {
        self.device.as_ref().unwrap_or(&self.host)
    }

    fn bound_mut(&mut self) -> &mut Tensor<T> {
        self.device.as_mut().unwrap_or(&mut self.host)
    }

    /// Puts images where the session reads them.
    fn write(&mut self, images: ArrayView4<'_, T>, place: &Place) -> Result<(), String> {
        self.host.extract_array_mut().assign(&images.into_dyn());
        match (&mut self.device, place) {
            (Some(device), Place::Device { context, .. }) => {
                let (_, values) = self.host.extract_tensor();
                // SAFETY: both tensors are of one shape and type; the session runs under the same lock, so not now.
                unsafe { context.copy_to_device(bytes(values), device.data_ptr_mut()) }
            }
            _ => Ok(()),
        }
    }

    /// What the session has written, once its run is over: runs end with the device's stream.
    fn read(&mut self, place: &Place) -> Result<ArrayD<T>, String> {
        if let (Some(device), Place::Device { context, .. }) = (&self.device, place) {
            let (_, values) = self.host.extract_tensor_mut();
            // SAFETY: as above.
            unsafe { context.copy_to_host(device.data_ptr(), bytes_mut(values)) }?;
        }
        Ok(self.host.extract_array().to_owned())
    }
}

/// The bytes of numbers, which have no padding.
fn bytes<T: PrimitiveTensorElementType>(values: &[T]) -> &[u8] {
    // SAFETY: any memory can be read as bytes, and the length is that of the slice.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_mut<T: PrimitiveTensorElementType>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and any bytes are numbers.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}
