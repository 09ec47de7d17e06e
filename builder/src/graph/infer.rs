//! Shape inference: what a layer makes of its inputs' shapes, or why it refuses them.

use super::op::{Conv2d, Op};
use super::shape::{Pads, Shape, Window};
use crate::error::{Error, Result, ShapeList};

/// The shape that `op` gives for `inputs`.
pub(super) fn infer(layer: &str, op: &Op, inputs: &[Shape]) -> Result<Shape> {
    let check = Check { layer, op, inputs };
    match (op, inputs) {
        (Op::Conv2d(conv), &[Shape::Map { channels, height, width }]) => {
            check.conv(conv, channels)?;
            let [height, width] = check.window(&conv.window(), height, width)?;
            Ok(Shape::map(conv.out_channels, height, width))
        }
        (Op::MaxPool(pool) | Op::AvgPool(pool), &[Shape::Map { channels, height, width }]) => {
            let Pads { top, bottom, left, right } = pool.padding;
            if top.max(bottom) >= pool.kernel[0] || left.max(right) >= pool.kernel[1] {
                let [kh, kw] = pool.kernel;
                return Err(check.attribute(format!(
                    "padding {:?} (top, left, bottom, right) must be smaller than the kernel {kh}×{kw}",
                    pool.padding.onnx()
                )));
            }
            let [height, width] = check.window(&pool.window(), height, width)?;
            Ok(Shape::map(channels, height, width))
        }
        (Op::BatchNorm(bn), &[shape @ Shape::Map { .. }]) => {
            check.require(bn.eps > 0.0, || format!("eps must be above 0, is {}", bn.eps))?;
            check.probability("momentum", bn.momentum)?;
            Ok(shape)
        }
        (Op::Activation(_), &[shape]) => Ok(shape),
        (Op::Dropout { p } | Op::StochasticDepth { p }, &[shape]) => {
            check.require((0.0..1.0).contains(p), || format!("p must lie in [0, 1), is {p}"))?;
            Ok(shape)
        }
        (Op::GlobalAvgPool, &[Shape::Map { channels, .. }]) => Ok(Shape::map(channels, 1, 1)),
        (Op::Flatten, &[shape @ Shape::Map { .. }]) => Ok(Shape::vector(shape.elements())),
        (Op::Linear(linear), &[Shape::Vector { .. }]) => {
            check.require(linear.out_features > 0, || "out_features must be at least 1".into())?;
            Ok(Shape::vector(linear.out_features))
        }
        (Op::Softmax, &[shape @ Shape::Vector { .. }]) => Ok(shape),
        (Op::Add, &[a, b]) if a == b => Ok(a),
        (Op::Add, &[_, _]) => Err(check.shape("both shapes must be equal")),
        (Op::Mul, &[x @ Shape::Map { channels, .. }, scale]) if scale == Shape::map(channels, 1, 1) => Ok(x),
        (Op::Mul, &[_, _]) => Err(check.shape("it multiplies C×H×W with C×1×1")),
        (Op::Input, _) => Err(check.attribute("only a network's first node can be its input".into())),
        (Op::Add | Op::Mul, _) => Err(check.shape("it takes two inputs")),
        (Op::Linear(_) | Op::Softmax, &[_]) => Err(check.shape("it takes a vector; put a flatten before it")),
        (_, &[_]) => Err(check.shape("it takes a feature map C×H×W")),
        (_, _) => Err(check.shape("it takes one input")),
    }
}

/// The layer under inspection, for messages.
struct Check<'a> {
    layer: &'a str,
    op: &'a Op,
    inputs: &'a [Shape],
}

impl Check<'_> {
    fn attribute(&self, problem: String) -> Error {
        Error::Attribute { layer: self.layer.into(), op: self.op.kind(), problem }
    }

    fn shape(&self, expected: impl Into<String>) -> Error {
        Error::Shape {
            layer: self.layer.into(),
            op: self.op.kind(),
            actual: ShapeList(self.inputs.to_vec()),
            expected: expected.into(),
        }
    }

    fn require(&self, holds: bool, problem: impl FnOnce() -> String) -> Result<()> {
        if holds { Ok(()) } else { Err(self.attribute(problem())) }
    }

    fn probability(&self, name: &str, value: f64) -> Result<()> {
        self.require((0.0..=1.0).contains(&value), || format!("{name} must lie in [0, 1], is {value}"))
    }

    fn conv(&self, conv: &Conv2d, channels: usize) -> Result<()> {
        let Conv2d { out_channels, groups, .. } = *conv;
        self.require(out_channels > 0, || "out_channels must be at least 1".into())?;
        self.require(groups > 0, || "groups must be at least 1".into())?;
        self.require(out_channels.is_multiple_of(groups), || {
            format!("its {out_channels} filters cannot be split into {groups} groups")
        })?;
        if !channels.is_multiple_of(groups) {
            return Err(self.shape(format!("{channels} channels cannot be split into {groups} groups")));
        }
        Ok(())
    }

    fn window(&self, window: &Window, height: usize, width: usize) -> Result<[usize; 2]> {
        let Window { kernel, stride, dilation, pads } = *window;
        for (name, pair) in [("kernel", kernel), ("stride", stride), ("dilation", dilation)] {
            self.require(!pair.contains(&0), || format!("{name} must be at least 1, is {pair:?}"))?;
        }
        window.output(height, width).ok_or_else(|| {
            let [rows, columns] = [window.extent(0), window.extent(1)];
            let padded = [height + pads.top + pads.bottom, width + pads.left + pads.right];
            self.shape(format!(
                "its {rows}×{columns} window does not fit into {}×{} pixels (padding included); \
                 use a larger image or a smaller stride before it",
                padded[0], padded[1]
            ))
        })
    }
}
