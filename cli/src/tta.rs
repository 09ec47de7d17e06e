//! The flag for test-time augmentation, wherever a command looks at images.

use tallow_input::{Preprocess, Views};

use crate::output::note;

/// How images are looked at.
#[derive(Clone, Copy, clap::Args)]
pub struct Args {
    /// Test-time augmentation: average the probabilities of several views of each image: flip (the middle and its mirror
    /// image), five (corners and middle of the resized image) or ten (those and their mirror images)
    #[arg(long, value_name = "VIEWS", num_args = 0..=1, require_equals = true, default_missing_value = "flip")]
    tta: Option<Views>,
}

impl Args {
    /// What is said, or one view.
    pub fn views(&self) -> Views {
        self.tta.unwrap_or_default()
    }

    /// Says so where crops cost time and change little.
    pub fn warn(&self, preprocess: &Preprocess) {
        if let Views::FiveCrop | Views::TenCrop = self.views()
            && preprocess.crop_fraction >= 1.0
        {
            note!(
                "note: this network's preprocessing leaves no margin around its crop, so that the five crops of an image \
                 of the input's shape are all the same"
            );
        }
    }
}
