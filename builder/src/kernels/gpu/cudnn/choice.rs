//! Which of cuDNN's algorithms computes a convolution: each that fits is measured once a shape.

use candle_core::cuda_backend::cudarc::cudnn::sys;
use candle_core::{DType, Device, Result, bail};

use super::{Context, Descriptors, Direction, Operands, Shape, failed};

/// Room at most that an algorithm may take: what the fastest ones want at the sizes of ResNets, with some to spare.
const WORKSPACE: usize = 512 << 20;
/// As many as cuDNN has for any direction.
const ALGORITHMS: usize = 8;

/// One of cuDNN's.
#[derive(Clone, Copy, Debug)]
pub(super) enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    InputGradient(sys::cudnnConvolutionBwdDataAlgo_t),
    WeightGradient(sys::cudnnConvolutionBwdFilterAlgo_t),
}

/// How a convolution is computed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub algorithm: Algorithm,
    pub math: sys::cudnnMathType_t,
    /// Bytes.
    pub workspace: usize,
}

/// What cuDNN found out about an algorithm.
struct Candidate {
    choice: Choice,
    deterministic: bool,
}

macro_rules! candidates {
    ($name:ident, $results:ty, $algorithm:path) => {
        /// Those that can be used, the fastest first.
        fn $name(results: &[$results], count: i32) -> Vec<Candidate> {
            let usable = results.iter().take(count as usize).filter(|result| {
                result.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS && result.memory <= WORKSPACE
            });
            usable
                .map(|result| Candidate {
                    choice: Choice {
                        algorithm: $algorithm(result.algo),
                        math: result.mathType,
                        workspace: result.memory,
                    },
                    deterministic: result.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC,
                })
                .collect()
        }
    };
}
candidates!(forward, sys::cudnnConvolutionFwdAlgoPerf_t, Algorithm::Forward);
candidates!(input_gradient, sys::cudnnConvolutionBwdDataAlgoPerf_t, Algorithm::InputGradient);
candidates!(weight_gradient, sys::cudnnConvolutionBwdFilterAlgoPerf_t, Algorithm::WeightGradient);

/// The arithmetic that a precision allows: tensor cores for halves, and for f32 only where TF32 is allowed.
fn math(shape: &Shape) -> sys::cudnnMathType_t {
    match (shape.dtype, shape.tf32) {
        (DType::F32, false) => sys::cudnnMathType_t::CUDNN_FMA_MATH,
        _ => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
    }
}

/// Whether arithmetic may round f32 factors to fewer bits.
fn rounds(math: sys::cudnnMathType_t) -> bool {
    use sys::cudnnMathType_t::{CUDNN_TENSOR_OP_MATH, CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION};
    matches!(math, CUDNN_TENSOR_OP_MATH | CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION)
}

impl Context {
    /// Measures the algorithms on the operands, whose result is written over, and takes the fastest one that gives the
    /// same bits every time; only where there is none, any.
    pub(super) fn choose(
        &self,
        shape: Shape,
        descriptors: &Descriptors,
        operands: Operands,
        device: &Device,
    ) -> Result<Choice> {
        let allowed = math(&shape);
        let found = self.measure(shape.direction, allowed, descriptors, operands, device)?;
        // Find tries arithmetic that was not asked for, too. What it calls the default is asked for as it is allowed.
        let is_fma = allowed == sys::cudnnMathType_t::CUDNN_FMA_MATH;
        let precise = |c: &&Candidate| !(is_fma && rounds(c.choice.math));
        let mut usable = found.iter().filter(precise);
        let deterministic = usable.clone().find(|candidate| candidate.deterministic);
        let Some(best) = deterministic.or_else(|| usable.next()) else {
            let Shape { direction, dtype, input, weight, window, groups, .. } = shape;
            bail!(
                "cuDNN has no algorithm for the convolution ({direction:?}) of {dtype:?} {input:?} with {weight:?}, \
                 {window:?} and {groups} groups"
            );
        };
        Ok(Choice { math: if is_fma { allowed } else { best.choice.math }, ..best.choice })
    }

    fn measure(
        &self,
        direction: Direction,
        math: sys::cudnnMathType_t,
        d: &Descriptors,
        Operands { x, weight, y }: Operands,
        device: &Device,
    ) -> Result<Vec<Candidate>> {
        let error = failed("measure a convolution");
        // SAFETY: the descriptor was created.
        unsafe { sys::cudnnSetConvolutionMathType(d.conv, math) }.result().map_err(&error)?;
        let (room, size) = (self.workspace(WORKSPACE, device)? as *mut _, WORKSPACE);
        let (wanted, mut count) = (ALGORITHMS as i32, 0i32);
        // SAFETY: the descriptors describe the tensors at these addresses, which live on the handle's device; the
        // results are plain numbers, for which zeros are valid.
        unsafe {
            Ok(match direction {
                Direction::Forward => {
                    let mut results = [std::mem::zeroed(); ALGORITHMS];
                    sys::cudnnFindConvolutionForwardAlgorithmEx(
                        self.handle,
                        d.x,
                        x as _,
                        d.weight,
                        weight as _,
                        d.conv,
                        d.y,
                        y as _,
                        wanted,
                        &mut count,
                        results.as_mut_ptr(),
                        room,
                        size,
                    )
                    .result()
                    .map_err(&error)?;
                    forward(&results, count)
                }
                Direction::InputGradient => {
                    let mut results = [std::mem::zeroed(); ALGORITHMS];
                    sys::cudnnFindConvolutionBackwardDataAlgorithmEx(
                        self.handle,
                        d.weight,
                        weight as _,
                        d.y,
                        y as _,
                        d.conv,
                        d.x,
                        x as _,
                        wanted,
                        &mut count,
                        results.as_mut_ptr(),
                        room,
                        size,
                    )
                    .result()
                    .map_err(&error)?;
                    input_gradient(&results, count)
                }
                Direction::WeightGradient => {
                    let mut results = [std::mem::zeroed(); ALGORITHMS];
                    sys::cudnnFindConvolutionBackwardFilterAlgorithmEx(
                        self.handle,
                        d.x,
                        x as _,
                        d.y,
                        y as _,
                        d.conv,
                        d.weight,
                        weight as _,
                        wanted,
                        &mut count,
                        results.as_mut_ptr(),
                        room,
                        size,
                    )
                    .result()
                    .map_err(&error)?;
                    weight_gradient(&results, count)
                }
            })
        }
    }
}
