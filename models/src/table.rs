//! A network of inverted residual blocks as data: what table 1 of Tan & Le 2019 says of B0, for any network. A search
//! writes such tables, a settings file holds them, and [`EfficientNet`](crate::EfficientNet) builds them.

use serde::{Deserialize, Serialize};

/// A stage of inverted residual blocks (MBConv: Sandler et al. 2018, "MobileNetV2", with the gates of Tan et al. 2019,
/// "MnasNet").
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Side of the depthwise convolutions' windows, odd.
    pub kernel: usize,
    /// Stride of the first block; the others have 1.
    #[serde(default = "one")]
    pub stride: usize,
    /// Channels inside a block over those of its input; with 1 the block has no expansion.
    pub expand: usize,
    /// Channels of the blocks' outputs.
    pub channels: usize,
    /// Blocks.
    #[serde(default = "one")]
    pub repeats: usize,
    /// Width of the squeeze-and-excitation over that of a block's input, 0 for none; by default the network's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub se: Option<f64>,
}

/// What a network is made of, from its input to its classifier. The default is EfficientNet-B0's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Channels of the 3×3 convolution before the stages.
    pub stem: usize,
    /// Stride of that convolution.
    pub stem_stride: usize,
    /// Channels of the 1×1 convolution after the stages.
    pub head: usize,
    /// The stages, in order.
    pub stages: Vec<Stage>,
}

const fn one() -> usize {
    1
}

/// Beyond what any network has; keeps sizes within what a machine can count.
const MOST_CHANNELS: usize = 65_536;
const MOST: usize = 64;

impl Table {
    /// Side of a square image over that of the last stage's map.
    pub fn total_stride(&self) -> usize {
        self.stages.iter().map(|stage| stage.stride).product::<usize>() * self.stem_stride
    }

    /// The same network for images of so many pixels: strides become 1, from the first on, until the last map has at
    /// least `map` pixels a side. What a network for large photos shrinks to one pixel has nothing left to tell.
    pub fn for_size(mut self, size: usize, map: usize) -> Self {
        let is_too_small = |table: &Self| size.div_ceil(table.total_stride()) < map;
        if is_too_small(&self) {
            self.stem_stride = 1;
        }
        for i in 0..self.stages.len() {
            if is_too_small(&self) {
                self.stages[i].stride = 1;
            }
        }
        self
    }

    /// What no network can be built with, if there is anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let range = |of: &str, what, value: usize, most: usize| {
            let wrong = !(1..=most).contains(&value);
            wrong.then(|| format!("{of} need {what} of 1 to {most}, not {value}"))
        };
        if self.stages.is_empty() || self.stages.len() > MOST {
            return Some(format!("must be 1 to {MOST}, are {}", self.stages.len()));
        }
        let ends = range("before them", "stem", self.stem, MOST_CHANNELS)
            .or_else(|| range("before them", "stem_stride", self.stem_stride, MOST))
            .or_else(|| range("after them", "head", self.head, MOST_CHANNELS));
        let inside = self.stages.iter().zip(1..).find_map(|(stage, nth)| {
            let of = format!("(number {nth})");
            if let Some(se) = stage.se.filter(|se| !(0.0..=1.0).contains(se)) {
                return Some(format!("{of} need se in [0, 1], not {se}"));
            }
            if stage.kernel.is_multiple_of(2) {
                return Some(format!("{of} need an odd kernel, not {}", stage.kernel));
            }
            range(&of, "kernel", stage.kernel, MOST)
                .or_else(|| range(&of, "stride", stage.stride, MOST))
                .or_else(|| range(&of, "expand", stage.expand, MOST))
                .or_else(|| range(&of, "channels", stage.channels, MOST_CHANNELS))
                .or_else(|| range(&of, "repeats", stage.repeats, MOST))
        });
        ends.or(inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_go_from_the_front_where_images_are_small() {
        let strides = |size, map| {
            let table = Table::default().for_size(size, map);
            let stages: Vec<usize> = table.stages.iter().map(|stage| stage.stride).collect();
            (table.stem_stride, stages)
        };
        assert_eq!(strides(224, 4), (2, vec![1, 2, 2, 2, 1, 2, 1]));
        assert_eq!(strides(64, 4), (1, vec![1, 2, 2, 2, 1, 2, 1]));
        assert_eq!(strides(16, 4), (1, vec![1, 1, 1, 2, 1, 2, 1]));
        assert_eq!(strides(4, 4), (1, vec![1; 7]));
    }
}
