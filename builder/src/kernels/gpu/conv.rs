//! Convolution: depthwise by our own kernels, all else by cuDNN; where GPUs are emulated, by the CPU's kernels in
//! cuDNN's place.

use candle_core::{DType, Device, Result, Tensor, bail};
use tallow_cuda::emulator;

use super::layout::{pack_filter, place, unpack_filter};
use super::{Map, add_bias, cast, check_vector, dense, depthwise};
use crate::graph::{Pads, Window};
use crate::kernels::Conv2dKernel;

/// Which of the three convolutions: what it computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    Forward,
    InputGradient,
    WeightGradient,
}

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Problem {
    pub conv: Conv2dKernel,
    pub input: Map,
    pub output: Map,
    /// `[O, C/groups, kh, kw]`.
    pub weight: [usize; 4],
}

impl Problem {
    fn new(conv: Conv2dKernel, input: Map, weight: [usize; 4]) -> Result<Self> {
        let Map { images, channels, height, width } = input;
        let geometry = conv.geometry([images, channels, height, width], weight)?;
        let [channels, height, width] = geometry.output;
        Ok(Self { conv, input, output: Map { images, channels, height, width }, weight })
    }

    fn of(conv: Conv2dKernel, input: Map, weight: &Tensor) -> Result<Self> {
        let (filters, inputs, height, width) = weight.dims4()?;
        Self::new(conv, input, [filters, inputs, height, width])
    }

    /// Whether each filter sees one channel, and each channel one filter of a size that fits into registers.
    fn is_depthwise(&self) -> bool {
        let [filters, inputs, height, width] = self.weight;
        inputs == 1 && filters == self.input.channels && height * width <= depthwise::MAX_TAPS
    }

    fn check_gradient(&self, grad: &Tensor) -> Result<()> {
        if Map::of(grad)? != self.output {
            bail!("conv2d: a gradient of {:?} does not fit {:?}", grad.dims(), self.output);
        }
        Ok(())
    }
}

/// cuDNN pads both sides of an axis alike. Where a window does not, the input is padded before.
struct Symmetric {
    problem: Problem,
    /// Rows and columns that are put above and to the left of the input.
    shift: Option<[i32; 2]>,
}

impl Symmetric {
    fn of(problem: Problem) -> Self {
        let pads = problem.conv.window.pads;
        if pads.top == pads.bottom && pads.left == pads.right {
            return Self { problem, shift: None };
        }
        let Map { height, width, .. } = problem.input;
        let [height, width] = [height + pads.top + pads.bottom, width + pads.left + pads.right];
        let window = Window { pads: Pads::default(), ..problem.conv.window };
        let conv = Conv2dKernel { window, ..problem.conv };
        let input = Map { height, width, ..problem.input };
        Self {
            problem: Problem { conv, input, ..problem },
            shift: Some([pads.top, pads.left].map(|pad| pad as i32)),
        }
    }

    /// x with its padding, where cuDNN cannot add it.
    fn pad(&self, x: &Tensor) -> Result<Tensor> {
        let Map { height, width, .. } = self.problem.input;
        self.shift.map_or_else(|| dense(x), |shift| place(x, [height, width], shift))
    }

    /// The part of a padded map of `input`'s sizes.
    fn crop(&self, x: Tensor, input: Map) -> Result<Tensor> {
        let Some([top, left]) = self.shift else { return Ok(x) };
        place(&x, [input.height, input.width], [-top, -left])
    }

    /// Computes one of x, weight and y, which are channels last in memory, from the two others.
    fn run(&self, direction: Direction, x: Tensor, weight: Tensor, y: Tensor) -> Result<Tensor> {
        match x.device() {
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => {
                let Problem { input, output, .. } = self.problem;
                // cuDNN counts elements in 32 bits.
                if input.elements().max(output.elements()) > i32::MAX as usize {
                    bail!(
                        "conv2d: {} images of {input:?} are {}: choose a smaller batch",
                        input.images,
                        tallow_cuda::device::BEYOND_CUDNN
                    );
                }
                super::cudnn::run(&self.problem, direction, &x, &weight, &y)?;
                Ok(match direction {
                    Direction::Forward => y,
                    Direction::InputGradient => x,
                    Direction::WeightGradient => weight,
                })
            }
            Device::Cpu => self.emulate(direction, &x, &weight, &y),
            other => bail!("no kernel computes on {:?}", other.location()),
        }
    }

    /// What cuDNN would compute.
    fn emulate(&self, direction: Direction, x: &Tensor, weight: &Tensor, y: &Tensor) -> Result<Tensor> {
        let Problem { conv, input, weight: shape, .. } = self.problem;
        let (dtype, widened) = (x.dtype(), |t: &Tensor| cast(t, DType::F32));
        match direction {
            Direction::Forward => {
                let (x, weight) = (widened(x)?, unpack_filter(weight, shape, shape[1])?);
                cast(&emulator::suspended(|| conv.forward(&x, &weight, None))?, dtype)
            }
            Direction::InputGradient => {
                let (grad, weight) = (widened(y)?, unpack_filter(weight, shape, shape[1])?);
                let size = [input.height, input.width];
                cast(&emulator::suspended(|| conv.input_gradient(&weight, &grad, size))?, dtype)
            }
            Direction::WeightGradient => {
                let (x, grad) = (widened(x)?, widened(y)?);
                pack_filter(&emulator::suspended(|| conv.weight_gradient(&x, &grad))?, dtype)
            }
        }
    }
}

/// The convolution of x with f32 parameters.
pub fn conv2d(conv: Conv2dKernel, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let problem = Problem::of(conv, Map::of(x)?, weight)?;
    if let Some(bias) = bias {
        check_vector("conv2d", bias, problem.output.channels)?;
    }
    if problem.is_depthwise() {
        return depthwise::forward(conv.window, x, weight, bias, problem.output);
    }
    let symmetric = Symmetric::of(problem);
    let y = problem.output.empty(x.dtype(), x.device())?;
    let y = symmetric.run(Direction::Forward, symmetric.pad(x)?, pack_filter(weight, x.dtype())?, y)?;
    if let Some(bias) = bias {
        add_bias(&y, bias)?;
    }
    Ok(y)
}

/// The gradient of the input of [height, width].
pub fn conv2d_input_gradient(
    conv: Conv2dKernel,
    weight: &Tensor,
    grad: &Tensor,
    [height, width]: [usize; 2],
) -> Result<Tensor> {
    let channels = weight.dim(1)? * conv.groups;
    let problem = Problem::of(conv, Map { images: grad.dim(0)?, height, width, channels }, weight)?;
    problem.check_gradient(grad)?;
    if problem.is_depthwise() {
        return depthwise::input_gradient(conv.window, weight, grad, problem.input);
    }
    let symmetric = Symmetric::of(problem);
    let dx = symmetric.problem.input.empty(grad.dtype(), grad.device())?;
    let weight = pack_filter(weight, grad.dtype())?;
    let dx = symmetric.run(Direction::InputGradient, dx, weight, dense(grad)?)?;
    symmetric.crop(dx, problem.input)
}

/// The gradient of the weight, f32.
pub fn conv2d_weight_gradient(conv: Conv2dKernel, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let [height, width] = conv.window.kernel;
    let weight = [grad.dim(1)?, x.dim(1)? / conv.groups.max(1), height, width];
    let problem = Problem::new(conv, Map::of(x)?, weight)?;
    problem.check_gradient(grad)?;
    if problem.is_depthwise() {
        return depthwise::weight_gradient(conv.window, x, grad);
    }
    let symmetric = Symmetric::of(problem);
    let [filters, inputs, ..] = weight;
    let packed = tallow_cuda::empty((filters, height, width, inputs), x.dtype(), x.device())?;
    let packed = symmetric.run(Direction::WeightGradient, symmetric.pad(x)?, packed, dense(grad)?)?;
    unpack_filter(&packed, weight, inputs)
}
