//! Launches of `norm.cu`: batch normalisation with what comes behind it.

use candle_core::{DType, Result, Tensor, bail};
use tallow_cuda::{Launch, Row, Source, Table, Variant, pointer, run};

use super::activation::code;
use super::reduce::finish_sums;
use super::{Map, Split, check_vector, count, dense, empty_like, optional, over, packs, same_shape, vector};
use crate::graph::Activation;
use crate::kernels::{BatchReduce, Moments, RunningMoments};

pub(super) static SOURCE: Source =
    Source { name: "norm.cu", text: concat!(include_str!("activation.cu"), include_str!("norm.cu")) };

/// What happens to a normalised value: a residual is added, then an activation applied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Then<'a> {
    /// A map of the same shape.
    pub residual: Option<&'a Tensor>,
    /// None means none.
    pub activation: Option<Activation>,
}

/// Normalisation as factor · x + offset, each `[C]`.
#[derive(Clone, Debug)]
pub struct Affine {
    pub(super) factor: Tensor,
    pub(super) offset: Tensor,
}

/// Mean and biased variance of each channel of `[N, C, H, W]`, each f32 `[C]`.
pub fn moments(x: &Tensor) -> Result<[Tensor; 2]> {
    let map = Map::of(x)?;
    let x = dense(x)?;
    let variant = packs(map.channels, &[&x]);
    let split = Split::new(map.rows(), map.channels, variant);
    let partial = vector(split.count() * 2 * map.channels, x.device())?;
    let (rows, channels) = (map.rows() as i64, map.channels as i32);
    let launch =
        Launch::blocks(&SOURCE, variant, "moments", split.grid).arg(rows).arg(channels).arg(split.lanes);
    run(x.device(), &launch.arg(pointer(&x)?).arg(pointer(&partial)?))?;
    let [mean, var] = [vector(map.channels, x.device())?, vector(map.channels, x.device())?];
    let blocks = [map.channels.div_ceil(32) as u32, 1, 1];
    let launch = Launch::blocks(&SOURCE, variant, "finish_moments", blocks)
        .arg(split.count() as i32)
        .arg(rows)
        .arg(channels)
        .arg(pointer(&x)?)
        .arg(pointer(&partial)?)
        .arg(pointer(&mean)?)
        .arg(pointer(&var)?);
    run(x.device(), &launch)?;
    Ok([mean, var])
}

/// The factor and the offset that moments, scale and shift make.
pub fn affine([mean, var]: [&Tensor; 2], eps: f64, scale: &Tensor, shift: &Tensor) -> Result<Affine> {
    let channels = mean.elem_count();
    for parameter in [mean, var, scale, shift] {
        check_vector("batch-norm", parameter, channels)?;
    }
    let device = mean.device();
    let affine = Affine { factor: vector(channels, device)?, offset: vector(channels, device)? };
    let launch = Launch::over(&SOURCE, Variant::new(DType::F32, 1), "affine", channels)
        .arg(channels as i32)
        .arg(eps as f32)
        .arg(pointer(mean)?)
        .arg(pointer(var)?)
        .arg(pointer(scale)?)
        .arg(pointer(shift)?)
        .arg(pointer(&affine.factor)?)
        .arg(pointer(&affine.offset)?);
    run(device, &launch)?;
    Ok(affine)
}

/// activation(factor · x + offset + residual).
pub fn norm(x: &Tensor, affine: &Affine, then: Then<'_>) -> Result<Tensor> {
    let map = Map::of(x)?;
    check_vector("batch-norm", &affine.factor, map.channels)?;
    if let Some(residual) = then.residual {
        same_shape("batch-norm's residual", x, residual)?;
    }
    let (x, residual) = (dense(x)?, then.residual.map(dense).transpose()?);
    let y = empty_like(&x, x.dtype())?;
    let tensors: Vec<&Tensor> = std::iter::once(&x).chain(&residual).collect();
    let variant = packs(map.channels, &tensors);
    let (kind, slope) = code(then.activation);
    let launch = over(&SOURCE, variant, "normalise", map.elements())
        .arg(kind)
        .arg(slope)
        .arg(count(variant, map.elements()))
        .arg(map.channels as i32)
        .arg(pointer(&x)?)
        .arg(pointer(&affine.factor)?)
        .arg(pointer(&affine.offset)?)
        .arg(optional(residual.as_ref())?)
        .arg(pointer(&y)?);
    run(x.device(), &launch)?;
    Ok(y)
}

/// Gradients of a normalisation and what came behind it.
pub struct NormGradients {
    /// Of x.
    pub x: Tensor,
    /// Of the scale, `[C]`.
    pub scale: Tensor,
    /// Of the shift, `[C]`.
    pub shift: Tensor,
    /// Of the residual, where there is one.
    pub residual: Option<Tensor>,
}

/// What squeeze and excitation hand back to the activation.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// What it was multiplied with, `[N, C, 1, 1]`.
    pub factor: &'a Tensor,
    /// The gradient of its mean over pixels, `[N, C, 1, 1]`.
    pub squeezed: &'a Tensor,
}

/// What `norm_gradients` needs of the forward pass.
pub struct Normed<'a> {
    /// The input.
    pub x: &'a Tensor,
    /// The output; nobody reads it where no residual came behind.
    pub y: &'a Tensor,
    /// What came behind.
    pub then: Then<'a>,
    /// What came behind that, in place of a residual: the gradient is that of the product.
    pub gate: Option<Gate<'a>>,
    /// Mean and variance.
    pub moments: &'a Moments,
    /// Whether these are constants, running moments, and not the batch's.
    pub constant: bool,
    /// Added to the variance.
    pub eps: f64,
    /// γ.
    pub scale: &'a Tensor,
    /// β.
    pub shift: &'a Tensor,
    /// Sums over processes, where the moments are those of all.
    pub reduce: Option<&'a dyn BatchReduce>,
}

/// The gradients of [`norm`] with the affine form of `normed`'s moments.
pub fn norm_gradients(normed: &Normed<'_>, grad: &Tensor) -> Result<NormGradients> {
    let Normed { x, y, then, gate, moments, eps, scale, shift, .. } = *normed;
    same_shape("batch-norm-gradient", x, grad)?;
    let Moments { mean, var, .. } = moments;
    let affine = affine([mean, var], eps, scale, shift)?;
    let map = Map::of(x)?;
    let [x, y, grad] = [dense(x)?, dense(y)?, dense(grad)?];
    let residual = then.residual.map(dense).transpose()?;
    let gate = match gate {
        Some(Gate { factor, squeezed }) => {
            map.check_gate("batch-norm-gradient", factor, &x)?;
            map.check_gate("batch-norm-gradient", squeezed, &x)?;
            vec![dense(factor)?, dense(squeezed)?]
        }
        None => vec![],
    };
    // Where a residual and an activation are, the gradient before the activation is written once, for both.
    let dz = match (&residual, then.activation) {
        (Some(_), Some(_)) => Some(empty_like(&x, x.dtype())?),
        _ => None,
    };
    let variant = {
        let tensors: Vec<&Tensor> = [&x, &y, &grad].into_iter().chain(&residual).chain(&gate).collect();
        packs(map.channels, &tensors)
    };
    let split = Split::new(map.rows(), map.channels, variant);
    let partial = vector(split.count() * 2 * map.channels, x.device())?;
    let (kind, slope) = code(then.activation);
    let behind = |launch: Launch, kind: i32| -> Result<Launch> {
        let launch = launch.arg(kind).arg(slope).arg(map.pixels() as i32).arg(optional(residual.as_ref())?);
        Ok(launch.arg(optional(gate.first())?).arg(optional(gate.get(1))?))
    };
    let launch = behind(Launch::blocks(&SOURCE, variant, "gradient_sums", split.grid), kind)?
        .arg(map.rows() as i64)
        .arg(map.channels as i32)
        .arg(split.lanes)
        .arg(pointer(&x)?)
        .arg(pointer(&y)?)
        .arg(pointer(&grad)?)
        .arg(pointer(&affine.factor)?)
        .arg(pointer(&affine.offset)?)
        .arg(pointer(mean)?)
        .arg(optional(dz.as_ref())?)
        .arg(pointer(&partial)?);
    run(x.device(), &launch)?;
    let sums = finish_sums(&partial, split.count(), 2 * map.channels)?;
    let own = Coefficients::new(&sums, map.channels, normed)?;
    // The parameters' gradients are summed over processes with all others; to dx, all processes' gradients come through
    // the moments.
    let Coefficients { parameters, dx: coefficients } = match normed.reduce {
        Some(reduce) => {
            let sums = reduce.all_reduce_on_device(&sums.to_dtype(DType::F64)?)?.to_dtype(DType::F32)?;
            Coefficients { parameters: own.parameters, ..Coefficients::new(&sums, map.channels, normed)? }
        }
        None => own,
    };
    // What was computed before the activation needs no activation any more.
    let (grad, kind) = dz.as_ref().map_or((&grad, kind), |dz| (dz, code(None).0));
    let dx = empty_like(&x, x.dtype())?;
    let launch = behind(over(&SOURCE, variant, "input_gradient", map.elements()), kind)?
        .arg(count(variant, map.elements()))
        .arg(map.channels as i32)
        .arg(pointer(&x)?)
        .arg(pointer(&y)?)
        .arg(pointer(grad)?)
        .arg(pointer(&affine.factor)?)
        .arg(pointer(&affine.offset)?);
    run(x.device(), &launch.tensors(&coefficients)?.arg(pointer(&dx)?))?;
    // Without an activation, the residual's gradient is the output's.
    let residual = residual.map(|_| dz.clone().unwrap_or_else(|| grad.clone()));
    let [scale, shift] = parameters;
    Ok(NormGradients { x: dx, scale, shift, residual })
}

/// What the sums over the channels say.
struct Coefficients {
    /// Gradients of γ and β.
    parameters: [Tensor; 2],
    /// dx = a·dz + b·x + c.
    dx: [Tensor; 3],
}

impl Coefficients {
    fn new(sums: &Tensor, channels: usize, normed: &Normed<'_>) -> Result<Self> {
        let Normed { moments: Moments { mean, var, count }, constant, eps, scale, .. } = *normed;
        let device = sums.device();
        let new = || vector(channels, device);
        let found = Self { parameters: [new()?, new()?], dx: [new()?, new()?, new()?] };
        let launch = Launch::over(&SOURCE, Variant::new(DType::F32, 1), "coefficients", channels)
            .arg(channels as i32)
            .arg(*count as i64)
            .arg(eps as f32)
            .arg(i32::from(constant))
            .arg(pointer(sums)?)
            .arg(pointer(mean)?)
            .arg(pointer(var)?)
            .arg(pointer(scale)?);
        let results = found.parameters.iter().chain(&found.dx);
        run(device, &launch.tensors(results)?)?;
        Ok(found)
    }
}

/// Running moments of all layers moved towards a batch's, each with the share of the new ones.
pub fn track(layers: &[(RunningMoments, &Moments, f64)]) -> Result<Vec<RunningMoments>> {
    let Some((first, ..)) = layers.first() else { return Ok(vec![]) };
    let device = first.mean.device();
    let (mut rows, mut results) = (vec![], vec![]);
    for (running, batch, momentum) in layers {
        let channels = running.mean.elem_count();
        for tensor in [&running.mean, &running.var, &batch.mean, &batch.var] {
            check_vector("batch-norm", tensor, channels)?;
        }
        let moved = RunningMoments {
            mean: vector(channels, device)?,
            var: vector(channels, device)?,
            batches: tallow_cuda::empty((), DType::I64, device)?,
        };
        let mut tensors = [0; 8];
        let numbers = [*momentum as f32, batch.correction() as f32];
        let addresses = [
            &batch.mean,
            &batch.var,
            &running.mean,
            &running.var,
            &moved.mean,
            &moved.var,
            &running.batches,
            &moved.batches,
        ];
        for (address, tensor) in tensors.iter_mut().zip(addresses) {
            *address = pointer(tensor)?;
        }
        rows.push(Row { tensors, elements: channels, numbers, slot: 0 });
        results.push(moved);
    }
    Table::new(&rows, device)?.run(&SOURCE, "track", [])?;
    Ok(results)
}

/// The moments of all processes' batches together, from those of this one's: as on the CPU, by sums of x and x² in f64.
pub fn reduced_moments(reduce: &dyn BatchReduce, own: &Moments) -> Result<Moments> {
    let channels = own.mean.elem_count();
    let [mean, var] = [own.mean.to_dtype(DType::F64)?, own.var.to_dtype(DType::F64)?];
    let known = reduce.total_count(own.count);
    let count = own.count as f64;
    let [sum, square] = [(&mean * count)?, ((var + mean.sqr()?)? * count)?];
    let own = Tensor::new(&[count], mean.device())?;
    let sums = reduce.all_reduce_on_device(&Tensor::cat(&[&sum, &square, &own], 0)?)?;
    let total = sums.narrow(0, 2 * channels, 1)?;
    let mean = sums.narrow(0, 0, channels)?.broadcast_div(&total)?;
    let square = sums.narrow(0, channels, channels)?.broadcast_div(&total)?;
    // Rounding may leave a variance of nothing a little below 0.
    let var = (square - mean.sqr()?)?.maximum(0.0)?;
    let count = match known {
        Some(count) => count,
        None => total.to_vec1::<f64>()?[0] as usize,
    };
    if count == 0 {
        bail!("batch-norm: no process has an image in this batch")
    }
    Ok(Moments { mean: mean.to_dtype(DType::F32)?, var: var.to_dtype(DType::F32)?, count })
}
