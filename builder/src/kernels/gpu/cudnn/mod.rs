//! Convolutions by cuDNN: channels last, real groups, each shape with the algorithm that was the fastest when it was
//! first met.
//!
//! A handle belongs to a thread (cuDNN's rule), and with it the room that algorithms work in and their choice.

mod choice;
mod descriptors;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::cuda_backend::cudarc::cudnn::{result, sys};
use candle_core::{DType, Device, Error, Result, Tensor, bail};
use tallow_cuda::pointer;

use super::conv::{Direction, Problem};
use crate::graph::Window;
use choice::{Algorithm, Choice};
use descriptors::Descriptors;

/// Whether f32 convolutions may round their inputs to TF32's 10 bits.
static TF32: AtomicBool = AtomicBool::new(false);

/// Lets f32 convolutions round their inputs to TF32, or not.
pub(super) fn allow_tf32(allowed: bool) {
    TF32.store(allowed, Ordering::Relaxed);
}

/// What decides which algorithm is the fastest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    direction: Direction,
    dtype: DType,
    input: [usize; 4],
    weight: [usize; 4],
    window: Window,
    groups: usize,
    tf32: bool,
}

/// Addresses of the three tensors, one of which is written.
#[derive(Clone, Copy)]
struct Operands {
    x: u64,
    weight: u64,
    y: u64,
}

/// cuDNN on one GPU for one thread.
struct Context {
    handle: sys::cudnnHandle_t,
    workspace: RefCell<Option<Tensor>>,
    choices: RefCell<HashMap<Shape, Choice>>,
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: nobody else has the handle. A failure at a thread's end has nobody to be told to.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

fn failed(what: &str) -> impl Fn(result::CudnnError) -> Error {
    move |error| Error::Msg(format!("cuDNN could not {what}: {error}"))
}

impl Context {
    /// This thread's context on a device.
    fn of(device: &Device) -> Result<Rc<Self>> {
        thread_local! {
            static CONTEXTS: RefCell<HashMap<(usize, usize), Rc<Context>>> = RefCell::default();
        }
        let stream = device.as_cuda_device()?.cuda_stream();
        // A handle is bound to the stream of its device.
        let key = (stream.context().ordinal(), stream.cu_stream() as usize);
        CONTEXTS.with_borrow_mut(|contexts| {
            if let Some(context) = contexts.get(&key) {
                return Ok(context.clone());
            }
            stream.context().bind_to_thread().map_err(Error::wrap)?;
            let handle = result::create_handle().map_err(failed("start"))?;
            let context = Self { handle, workspace: RefCell::default(), choices: RefCell::default() };
            // SAFETY: the handle is new, and candle keeps the stream as long as the device lives.
            unsafe { result::set_stream(handle, stream.cu_stream().cast()) }
                .map_err(failed("take a stream"))?;
            Ok(contexts.entry(key).or_insert(Rc::new(context)).clone())
        })
    }

    /// As much room to measure in as there is, up to `most` bytes: its address and size.
    fn most_workspace(&self, most: usize, device: &Device) -> Result<(u64, usize)> {
        let mut bytes = most;
        loop {
            match self.workspace(bytes, device) {
                Ok(address) => return Ok((address, bytes)),
                // Below this, all that is left is algorithms that need none.
                Err(error) if bytes < 16 << 20 => return Err(error),
                Err(_) => bytes /= 2,
            }
        }
    }

    /// The address of `bytes` of room to work in, which is kept for the next convolution.
    fn workspace(&self, bytes: usize, device: &Device) -> Result<u64> {
        let mut workspace = self.workspace.borrow_mut();
        if workspace.as_ref().is_none_or(|room| room.elem_count() < bytes) {
            // The smaller one is freed first: the two need not fit side by side.
            *workspace = None;
            *workspace = Some(tallow_cuda::empty(bytes.max(1), DType::U8, device)?);
        }
        workspace.as_ref().map_or(Ok(0), pointer)
    }

    /// Computes by the algorithm that was chosen for the shape, or chooses: the first of the candidates that runs.
    fn run(&self, shape: Shape, operands: Operands, device: &Device) -> Result<()> {
        let mut descriptors = Descriptors::new(&shape)?;
        let known = self.choices.borrow().get(&shape).copied();
        if let Some(choice) = known {
            return self.attempt(choice, &mut descriptors, operands, device);
        }
        let candidates = self.candidates(shape, &descriptors, operands, device)?;
        // What runs may take less room than what was measured, now and from here on.
        *self.workspace.borrow_mut() = None;
        let mut failure = None;
        for choice in candidates {
            let attempt = self.sized(choice, &mut descriptors);
            match attempt
                .and_then(|choice| self.attempt(choice, &mut descriptors, operands, device).map(|()| choice))
            {
                Ok(choice) => {
                    self.choices.borrow_mut().insert(shape, choice);
                    return Ok(());
                }
                Err(error) => failure = Some(error),
            }
        }
        let none = || {
            Error::Msg(format!(
                "cuDNN has no algorithm for the convolution ({:?}) of {:?} {:?} with {:?}, {:?} and {} groups",
                shape.direction, shape.dtype, shape.input, shape.weight, shape.window, shape.groups
            ))
        };
        Err(failure.unwrap_or_else(none))
    }

    fn attempt(
        &self,
        choice: Choice,
        d: &mut Descriptors,
        operands: Operands,
        device: &Device,
    ) -> Result<()> {
        d.set_math(choice.math)?;
        let workspace = self.workspace(choice.workspace, device)?;
        self.launch(choice, d, operands, workspace)
    }

    /// A choice with the room that it takes in its own arithmetic, which may not be the one it was measured in.
    fn sized(&self, choice: Choice, d: &mut Descriptors) -> Result<Choice> {
        d.set_math(choice.math)?;
        // SAFETY: the handle and the descriptors are there.
        let workspace = unsafe {
            match choice.algorithm {
                Algorithm::Forward(algorithm) => result::get_convolution_forward_workspace_size(
                    self.handle,
                    d.x,
                    d.weight,
                    d.conv,
                    d.y,
                    algorithm,
                ),
                Algorithm::InputGradient(algorithm) => result::get_convolution_backward_data_workspace_size(
                    self.handle,
                    d.weight,
                    d.y,
                    d.conv,
                    d.x,
                    algorithm,
                ),
                Algorithm::WeightGradient(algorithm) => {
                    result::get_convolution_backward_filter_workspace_size(
                        self.handle,
                        d.x,
                        d.y,
                        d.conv,
                        d.weight,
                        algorithm,
                    )
                }
            }
        };
        Ok(Choice { workspace: workspace.map_err(failed("size a convolution's room"))?, ..choice })
    }

    fn launch(&self, choice: Choice, d: &Descriptors, operands: Operands, workspace: u64) -> Result<()> {
        let Operands { x, weight, y } = operands;
        // cuDNN scales by f32 for every element type but f64.
        let (one, zero) = (1f32, 0f32);
        let (one, zero) = (std::ptr::from_ref(&one).cast(), std::ptr::from_ref(&zero).cast());
        let (room, size) = (workspace as *mut _, choice.workspace);
        // SAFETY: the descriptors describe the tensors at these addresses, which live on the handle's device.
        unsafe {
            match choice.algorithm {
                Algorithm::Forward(algorithm) => result::convolution_forward(
                    self.handle,
                    one,
                    d.x,
                    x as _,
                    d.weight,
                    weight as _,
                    d.conv,
                    algorithm,
                    room,
                    size,
                    zero,
                    d.y,
                    y as _,
                ),
                Algorithm::InputGradient(algorithm) => result::convolution_backward_data(
                    self.handle,
                    one,
                    d.weight,
                    weight as _,
                    d.y,
                    y as _,
                    d.conv,
                    algorithm,
                    room,
                    size,
                    zero,
                    d.x,
                    x as _,
                ),
                Algorithm::WeightGradient(algorithm) => result::convolution_backward_filter(
                    self.handle,
                    one,
                    d.x,
                    x as _,
                    d.y,
                    y as _,
                    d.conv,
                    algorithm,
                    room,
                    size,
                    zero,
                    d.weight,
                    weight as _,
                ),
            }
        }
        .map_err(failed("compute a convolution"))
    }
}

impl Shape {
    fn new(problem: &Problem, direction: Direction, dtype: DType) -> Result<Self> {
        let Problem { conv, input, weight, .. } = *problem;
        if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
            bail!("conv2d computes on f32, f16 and bf16, not on {dtype:?}");
        }
        Ok(Self {
            direction,
            dtype,
            input: [input.images, input.channels, input.height, input.width],
            weight,
            window: conv.window,
            groups: conv.groups,
            tf32: dtype == DType::F32 && TF32.load(Ordering::Relaxed),
        })
    }
}

/// Computes one of x, weight and y, which are channels last in memory, from the two others.
pub(super) fn run(
    problem: &Problem,
    direction: Direction,
    x: &Tensor,
    weight: &Tensor,
    y: &Tensor,
) -> Result<()> {
    let (shape, device) = (Shape::new(problem, direction, x.dtype())?, x.device());
    let operands = Operands { x: pointer(x)?, weight: pointer(weight)?, y: pointer(y)? };
    Context::of(device)?.run(shape, operands, device)
}
