//! Launches of `depthwise.cu`.

use candle_core::{Result, Tensor};
use tallow_cuda::{Launch, Source, Variant, pointer, run};

use super::layout::{pack_depthwise, unpack_filter};
use super::reduce::finish_sums;
use super::{Map, Split, dense, optional, packs, vector};
use crate::graph::Window;

pub(super) static SOURCE: Source = Source { name: "depthwise.cu", text: include_str!("depthwise.cu") };

/// Neighbouring outputs that a thread computes, `STRIP` in the source.
const STRIP: usize = 4;
/// Weights at most that a filter may have to stay in registers; larger filters are cuDNN's.
pub(super) const MAX_TAPS: usize = 49;

/// A source knows its window's kernel, stride and dilation.
fn specialised(variant: Variant, window: &Window) -> Variant {
    let [kh, kw] = window.kernel;
    let ([sh, sw], [dh, dw]) = (window.stride, window.dilation);
    Variant { parameters: [kh, kw, sh, sw, dh, dw].map(|v| v as u16), ..variant }
}

/// The sizes and the offset of the window that all kernels take.
struct Plan {
    input: Map,
    output: Map,
    window: Window,
    /// Rows above and columns to the left of the input; negative where the window begins inside it.
    pads: [i32; 2],
}

impl Plan {
    fn new(window: Window, input: Map, output: Map) -> Self {
        Self { input, output, window, pads: [window.pads.top as i32, window.pads.left as i32] }
    }

    fn sizes(&self, launch: Launch) -> Launch {
        let Self { input, output, .. } = self;
        let sizes = [input.height, input.width, output.height, output.width, input.channels];
        sizes.into_iter().fold(launch, |launch, size| launch.arg(size as i32))
    }

    /// The convolution with a packed filter.
    fn forward(&self, x: &Tensor, packed: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let (x, Self { output, .. }) = (dense(x)?, self);
        let y = output.empty(x.dtype(), x.device())?;
        let variant = packs(output.channels, &[&x]);
        let strips = output.images * output.height * output.width.div_ceil(STRIP);
        let work = strips * (output.channels / usize::from(variant.vector));
        let launch =
            Launch::over(&SOURCE, specialised(variant, &self.window), "depthwise", work).arg(work as i64);
        let launch = self
            .sizes(launch)
            .arg(self.pads[0])
            .arg(self.pads[1])
            .arg(pointer(&x)?)
            .arg(pointer(packed)?)
            .arg(optional(bias)?)
            .arg(pointer(&y)?);
        run(x.device(), &launch)?;
        Ok(y)
    }
}

pub(super) fn forward(
    window: Window,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    output: Map,
) -> Result<Tensor> {
    let bias = bias.map(Tensor::contiguous).transpose()?;
    Plan::new(window, Map::of(x)?, output).forward(x, &pack_depthwise(weight, false)?, bias.as_ref())
}

pub(super) fn input_gradient(window: Window, weight: &Tensor, grad: &Tensor, input: Map) -> Result<Tensor> {
    let output = Map::of(grad)?;
    if window.stride == [1, 1] {
        // The gradient of stride 1 is a convolution of the gradient with the reversed filter.
        let pad = |axis: usize, pad: usize| (window.extent(axis) - 1) as i32 - pad as i32;
        let pads = [pad(0, window.pads.top), pad(1, window.pads.left)];
        let plan = Plan { input: output, output: input, window, pads };
        return plan.forward(grad, &pack_depthwise(weight, true)?, None);
    }
    let (grad, packed) = (dense(grad)?, pack_depthwise(weight, false)?);
    let dx = input.empty(grad.dtype(), grad.device())?;
    let variant = packs(input.channels, &[&grad]);
    let work = input.elements() / usize::from(variant.vector);
    let plan = Plan::new(window, input, output);
    let launch = Launch::over(&SOURCE, specialised(variant, &window), "depthwise_input_gradient", work);
    let launch = plan
        .sizes(launch.arg(work as i64))
        .arg(plan.pads[0])
        .arg(plan.pads[1])
        .arg(pointer(&grad)?)
        .arg(pointer(&packed)?)
        .arg(pointer(&dx)?);
    run(grad.device(), &launch)?;
    Ok(dx)
}

pub(super) fn weight_gradient(window: Window, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let (input, output) = (Map::of(x)?, Map::of(grad)?);
    let [x, grad] = [dense(x)?, dense(grad)?];
    let (channels, [kh, kw]) = (input.channels, window.kernel);
    // Each thread keeps every tap of its channels in registers: few channels a thread.
    let few = if kh * kw <= 25 && channels.is_multiple_of(2) && packs(channels, &[&x, &grad]).vector > 1 {
        2
    } else {
        1
    };
    let variant = Variant::new(x.dtype(), few);
    let rows = output.images * output.height;
    let split = Split::new(rows * 8, channels, variant);
    let partial = vector(split.count() * kh * kw * channels, x.device())?;
    let kernel = "depthwise_weight_gradient";
    let launch = Launch::blocks(&SOURCE, specialised(variant, &window), kernel, split.grid).arg(rows as i32);
    let plan = Plan::new(window, input, output);
    let launch = plan
        .sizes(launch)
        .arg(split.lanes)
        .arg(plan.pads[0])
        .arg(plan.pads[1])
        .arg(pointer(&x)?)
        .arg(pointer(&grad)?)
        .arg(pointer(&partial)?);
    run(x.device(), &launch)?;
    let packed = finish_sums(&partial, split.count(), kh * kw * channels)?;
    unpack_filter(&packed, [channels, 1, kh, kw], channels)
}
