//! The flags that say what is done to training images, and how they change what the settings file or the data say.

use anyhow::Result;
use clap::ValueEnum;
use tallow_trainer::Config;
use tallow_trainer::augment::{
    AffineFilter, Augment, AutoAugment, ColorJitter, Mix, Policy, RandAugment, RandomErasing,
    RandomResizedCrop,
};

use super::settings::take;

const AUGMENTATION: &str = "Augmentation [default: what suits the data and the size]";

/// Flags of augmentation.
#[derive(Default, PartialEq, clap::Args)]
pub struct Augmentation {
    /// Train on images as validation sees them, without anything random but --mixup and --cutmix, where they are said
    #[arg(help_heading = AUGMENTATION, long)]
    no_augment: bool,
    /// Probability of a mirror image
    #[arg(help_heading = AUGMENTATION, long, value_name = "P")]
    hflip: Option<f64>,
    /// Cut out and resize a random part of the image, of at least this share of its area; torchvision's is 0.08
    #[arg(help_heading = AUGMENTATION, long, value_name = "SHARE")]
    random_crop: Option<f64>,
    /// Pad by so many pixels on each side and crop at a random place
    #[arg(help_heading = AUGMENTATION, long, value_name = "PIXELS")]
    pad_crop: Option<u32>,
    /// How far brightness, contrast and saturation may stray, such as 0.4
    #[arg(help_heading = AUGMENTATION, long, value_name = "SPREAD")]
    color_jitter: Option<f64>,
    /// RandAugment: N operations drawn at random, each of magnitude M (0 to 30), such as 2,9
    #[arg(help_heading = AUGMENTATION, long, value_name = "N,M", value_parser = two, conflicts_with = "auto_augment")]
    rand_augment: Option<(u32, u32)>,
    /// AutoAugment: a pair of operations from a learned policy
    #[arg(help_heading = AUGMENTATION, long, value_enum, value_name = "POLICY")]
    auto_augment: Option<Learned>,
    /// Probability that a random box of the image is overwritten with noise
    #[arg(help_heading = AUGMENTATION, long, value_name = "P")]
    random_erasing: Option<f64>,
    /// Show each image K times an epoch, each time augmented differently; an epoch is K times longer
    #[arg(help_heading = AUGMENTATION, long, value_name = "K")]
    repeated_augment: Option<u32>,
    /// Mixup: add two images and their labels in shares drawn from Beta(α, α), such as 0.2; 0 for none
    #[arg(help_heading = AUGMENTATION, long, value_name = "ALPHA")]
    mixup: Option<f64>,
    /// CutMix: put a box of another image, of an area drawn from Beta(α, α), into each, such as 1; 0 for none. With
    /// --mixup, each batch has one of the two
    #[arg(help_heading = AUGMENTATION, long, value_name = "ALPHA")]
    cutmix: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Learned {
    #[value(name = "imagenet")]
    ImageNet,
    Cifar10,
}

impl Augmentation {
    /// What is said changes what would be done otherwise: by the file, or by default for this data and size.
    pub fn apply(&self, config: &mut Config) -> Result<()> {
        if self.no_augment {
            config.augment = Some(Augment::default());
            config.mix = None;
        }
        self.mix(config);
        if self.says_nothing_of_images() {
            return Ok(());
        }
        let mut augment = config.augmentation(&config.preprocess()?);
        take(&mut augment.horizontal_flip, &self.hflip);
        if let Some(least) = self.random_crop {
            let crop = augment.random_resized_crop.unwrap_or_default();
            augment.random_resized_crop = Some(RandomResizedCrop { scale: (least, crop.scale.1), ..crop });
        }
        if let Some(pad) = self.pad_crop {
            augment.pad_and_crop = (pad > 0).then_some(pad);
        }
        if let Some(spread) = self.color_jitter {
            let hue = augment.color_jitter.map_or(0.0, |jitter| jitter.hue);
            let jitter = ColorJitter { brightness: spread, contrast: spread, saturation: spread, hue };
            augment.color_jitter = Some(jitter);
        }
        self.policy(&mut augment);
        if let Some(probability) = self.random_erasing {
            let erasing = augment.random_erasing.unwrap_or_default();
            augment.random_erasing = Some(RandomErasing { probability, ..erasing });
        }
        augment.repeated_augment = self.repeated_augment.or(augment.repeated_augment);
        config.augment = Some(augment);
        Ok(())
    }

    fn says_nothing_of_images(&self) -> bool {
        let Self { no_augment, mixup, cutmix, .. } = *self;
        *self == Self { no_augment, mixup, cutmix, ..Self::default() }
    }

    /// One policy takes the place of the other.
    fn policy(&self, augment: &mut Augment) {
        if let Some((operations, magnitude)) = self.rand_augment {
            let policy = augment.rand_augment.unwrap_or_default();
            augment.rand_augment = Some(RandAugment { operations, magnitude, ..policy });
            augment.auto_augment = None;
        }
        if let Some(learned) = self.auto_augment {
            let policy = match learned {
                Learned::ImageNet => Policy::ImageNet,
                Learned::Cifar10 => Policy::Cifar10,
            };
            let filter = augment.auto_augment.map_or(AffineFilter::default(), |policy| policy.filter);
            augment.auto_augment = Some(AutoAugment { policy, filter });
            augment.rand_augment = None;
        }
    }

    fn mix(&self, config: &mut Config) {
        if self.mixup.is_none() && self.cutmix.is_none() {
            return;
        }
        let mut mix = config.mix.unwrap_or_default();
        take(&mut mix.mixup, &self.mixup);
        take(&mut mix.cutmix, &self.cutmix);
        config.mix = (mix != Mix { mixup: 0.0, cutmix: 0.0, ..mix }).then_some(mix);
    }
}

fn two(text: &str) -> Result<(u32, u32), String> {
    let numbers: Result<Vec<u32>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    match numbers.as_deref() {
        Ok([n, m]) => Ok((*n, *m)),
        _ => Err("two whole numbers are needed, such as 2,9".into()),
    }
}
