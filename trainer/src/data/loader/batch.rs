//! One step's input.

use std::borrow::Cow;

use tallow_builder::kernels::MixedLabels;
use tallow_input::Views;

use super::Images;
use crate::augment::Mixed;

/// One step's input.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The batch's place in the epoch, from 0. To resume after it, start at `index + 1`.
    pub index: usize,
    /// N · views images.
    pub images: Images,
    /// How each sample is looked at.
    pub views: Views,
    /// N labels; of mixed images the dominant ones.
    pub labels: Vec<u32>,
    /// What the images were mixed with, if they were.
    pub mixed: Option<Mixed>,
    /// N sample indices in the data set.
    pub indices: Vec<usize>,
    /// Height of the images.
    pub height: usize,
    /// Width of the images.
    pub width: usize,
}

impl Batch {
    /// Number of samples, N. Smaller than the batch size if images had to be left out, and in a last batch.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The images as the network sees them: (N · views, 3, height, width), normalised.
    pub fn floats(&self) -> Cow<'_, [f32]> {
        self.images.floats(self.height, self.width)
    }

    /// What a loss compares with.
    pub fn targets(&self) -> MixedLabels<'_> {
        let first = &self.labels;
        match &self.mixed {
            Some(Mixed { others, share }) => MixedLabels { first, second: others, share: *share },
            None => MixedLabels { first, second: first, share: 1.0 },
        }
    }

    /// True if every sample had to be left out, or belongs to other processes. The loader never hands such a batch out.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// A batch without images of (height, width).
    pub(crate) fn empty(index: usize, (height, width): (usize, usize)) -> Self {
        let (images, views) = (Images::Floats(vec![]), Views::One);
        let (labels, indices) = (vec![], vec![]);
        Self { index, images, views, labels, mixed: None, indices, height, width }
    }

    /// A batch of one black image, for a process that has none and goes through the network with the others.
    pub(crate) fn stand_in(&self) -> Self {
        let images = Images::Floats(vec![0.0; 3 * self.height * self.width]);
        Self {
            images,
            labels: vec![0],
            indices: vec![0],
            ..Self::empty(self.index, (self.height, self.width))
        }
    }
}
