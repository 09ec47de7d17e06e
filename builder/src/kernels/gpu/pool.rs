//! Launches of `pool.cu`.

use candle_core::{Result, Tensor, bail};
use tallow_cuda::{Launch, Source, Variant, pointer, run};

use super::{Map, count, dense, empty_like, over, packs};
use crate::graph::Window;

pub(super) static SOURCE: Source = Source { name: "pool.cu", text: include_str!("pool.cu") };

/// A pool's input and output.
struct Planes {
    input: Map,
    output: Map,
    window: Window,
}

impl Planes {
    fn new(window: Window, input: Map) -> Result<Self> {
        let Some([height, width]) = window.output(input.height, input.width) else {
            bail!("pool: the window {window:?} does not fit into {}×{} pixels", input.height, input.width);
        };
        Ok(Self { input, output: Map { height, width, ..input }, window })
    }

    /// A launch over the places of `map`, with all but the tensors' addresses.
    fn launch(&self, variant: Variant, kernel: &'static str, map: Map) -> Launch {
        let Self { input, output, window } = self;
        let launch = over(&SOURCE, variant, kernel, map.elements()).arg(count(variant, map.elements()));
        let sizes = [
            input.channels,
            input.height,
            input.width,
            output.height,
            output.width,
            window.kernel[0],
            window.kernel[1],
            window.stride[0],
            window.stride[1],
            window.pads.top,
            window.pads.left,
        ];
        sizes.into_iter().fold(launch, |launch, size| launch.arg(size as i32))
    }

    fn forward(&self, kernel: &'static str, x: &Tensor) -> Result<Tensor> {
        let x = dense(x)?;
        let y = self.output.empty(x.dtype(), x.device())?;
        let launch = self.launch(packs(self.input.channels, &[&x]), kernel, self.output);
        run(x.device(), &launch.arg(pointer(&x)?).arg(pointer(&y)?))?;
        Ok(y)
    }
}

/// The largest value of each window.
pub fn max_pool(window: Window, x: &Tensor) -> Result<Tensor> {
    Planes::new(window, Map::of(x)?)?.forward("max_pool", x)
}

/// The mean of each window, padding counted as zeros.
pub fn avg_pool(window: Window, x: &Tensor) -> Result<Tensor> {
    Planes::new(window, Map::of(x)?)?.forward("avg_pool", x)
}

/// The gradient of [`max_pool`]'s input.
pub fn max_pool_gradient(window: Window, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let planes = Planes::new(window, Map::of(x)?)?;
    check(&planes, grad)?;
    let [x, y, grad] = [dense(x)?, dense(y)?, dense(grad)?];
    let dx = empty_like(&x, x.dtype())?;
    let launch =
        planes.launch(packs(planes.input.channels, &[&x, &y, &grad]), "max_pool_gradient", planes.input);
    run(x.device(), &launch.arg(pointer(&x)?).arg(pointer(&y)?).arg(pointer(&grad)?).arg(pointer(&dx)?))?;
    Ok(dx)
}

/// The gradient of [`avg_pool`]'s input of [height, width].
pub fn avg_pool_gradient(window: Window, grad: &Tensor, [height, width]: [usize; 2]) -> Result<Tensor> {
    let planes = Planes::new(window, Map { height, width, ..Map::of(grad)? })?;
    check(&planes, grad)?;
    let grad = dense(grad)?;
    let dx = planes.input.empty(grad.dtype(), grad.device())?;
    let launch = planes.launch(packs(planes.input.channels, &[&grad]), "avg_pool_gradient", planes.input);
    run(grad.device(), &launch.arg(pointer(&grad)?).arg(pointer(&dx)?))?;
    Ok(dx)
}

fn check(planes: &Planes, grad: &Tensor) -> Result<()> {
    if Map::of(grad)? != planes.output {
        bail!("pool: a gradient of {:?} does not fit an output of {:?}", grad.dims(), planes.output);
    }
    Ok(())
}
