//! What a training keeps on a GPU, so that no step waits for it: counts, loss scale, and the loss of a step.

use candle_core::{DType, Device, Tensor};
use tallow_builder::exec::Gradients;
use tallow_builder::kernels::Loss;

use super::Precision;
use crate::distributed::Counts;
use crate::error::Result;
use crate::metrics::Running;
use crate::optim::{Control, LossScale};

/// Steps after which the counts are read.
const READ_EVERY: u64 = 50;
/// The name of the loss scale's state among an optimiser's.
pub(crate) const LOSS_SCALE: &str = "loss_scale";

/// A training's numbers on the device.
pub(crate) struct OnDevice {
    /// Sum of losses, first, among the first five, images since the last reading.
    totals: Tensor,
    /// Steps that were skipped since the last reading.
    skipped: Tensor,
    scale: Option<LossScale>,
    /// Batches since the last reading.
    unread: usize,
}

/// What a reading finds.
pub(crate) struct Read {
    pub running: Running,
    /// Steps that were skipped for a gradient that was no number.
    pub skipped: u64,
    /// The loss scale after them.
    pub scale: Option<f32>,
}

impl OnDevice {
    pub fn new(precision: Precision, device: &Device) -> Result<Self> {
        let scale = (precision == Precision::F16).then(|| LossScale::new(device)).transpose()?;
        let (totals, skipped) =
            (Tensor::zeros(4, DType::F64, device)?, Tensor::zeros(1, DType::F64, device)?);
        Ok(Self { totals, skipped, scale, unread: 0 })
    }

    /// Goes on with the loss scale of a checkpoint.
    pub fn restore(&mut self, scale: Option<Tensor>) {
        if let (Some(current), Some(kept)) = (&mut self.scale, scale) {
            *current = LossScale::restored(kept);
        }
    }

    pub fn scale(&self) -> Option<&LossScale> {
        self.scale.as_ref()
    }

    pub fn skipped(&self) -> &Tensor {
        &self.skipped
    }

    /// Counts a batch; a stand-in for one without images is not.
    pub fn count(&mut self, loss: &Loss, stand_in: bool) -> Result<()> {
        if !stand_in {
            loss.tally(&self.totals)?;
        }
        self.unread += 1;
        Ok(())
    }

    /// Gradients without the loss scale.
    pub fn unscaled(&self, gradients: &Gradients) -> Result<Gradients> {
        let Some(scale) = &self.scale else { return Ok(gradients.clone()) };
        let inverse = scale.state().narrow(0, 0, 1)?.recip()?;
        let unscaled =
            |(name, gradient): (&String, &Tensor)| Ok((name.clone(), gradient.broadcast_mul(&inverse)?));
        gradients.iter().map(unscaled).collect()
    }

    /// Adapts the loss scale to what became of a step.
    pub fn adapt(&self, control: &Control) -> Result<()> {
        self.scale.as_ref().map_or(Ok(()), |scale| scale.adapt(control))
    }

    /// Whether the counts are read after so many steps: the same in every process.
    pub fn is_due(steps: u64, first: bool) -> bool {
        first || steps.is_multiple_of(READ_EVERY)
    }

    /// Whether all that was counted has been read.
    pub fn is_read(&self) -> bool {
        self.unread == 0
    }

    /// Waits for the device and takes the counts.
    pub fn read(&mut self, classes: usize) -> Result<Read> {
        let totals: Vec<f64> = self.totals.to_vec1()?;
        let skipped: Vec<f64> = self.skipped.to_vec1()?;
        let scale = self.scale.as_ref().map(|scale| scale.state().to_vec1::<f32>()).transpose()?;
        (self.totals, self.skipped) = (self.totals.zeros_like()?, self.skipped.zeros_like()?);
        self.unread = 0;
        let running = Running::of_sums(classes, [totals[3], totals[0], totals[1], totals[2]]);
        Ok(Read { running, skipped: skipped[0] as u64, scale: scale.map(|state| state[0]) })
    }
}

/// The mean loss of a step.
pub(crate) enum StepLoss {
    /// Over the images of all processes.
    Known(f64),
    /// Over this process's own; it is on the device until somebody asks. Where there are none it is a
    /// stand-in's, and may be no number.
    OnDevice(Tensor),
}

impl StepLoss {
    pub fn of(loss: &Loss) -> Result<Self> {
        Ok(Self::OnDevice(loss.losses.mean_all()?))
    }

    /// The mean together with that of later images, each by its number of images.
    pub fn and(self, images: Counts, later: Self, later_images: Counts) -> Result<Self> {
        let both = images.and(later_images);
        Ok(match (self, later) {
            (Self::Known(a), Self::Known(b)) => {
                Self::Known(a + (b - a) * (later_images.total as f64 / both.total as f64))
            }
            (Self::OnDevice(a), Self::OnDevice(b)) if images.own > 0 && later_images.own > 0 => {
                let share = later_images.own as f64 / both.own as f64;
                Self::OnDevice(((a * (1.0 - share))? + (b * share)?)?)
            }
            // A stand-in's is left out.
            (before, later) => {
                if later_images.own == 0 {
                    before
                } else {
                    later
                }
            }
        })
    }

    /// The number; waits for the device.
    pub fn read(&self) -> Result<f64> {
        match self {
            Self::Known(loss) => Ok(*loss),
            Self::OnDevice(loss) => Ok(f64::from(loss.to_scalar::<f32>()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_weigh_by_their_images_and_those_of_stand_ins_nothing() {
        let counts = |own, total| Counts { total, ..Counts::alone(own) };
        let there = |loss: f32| StepLoss::OnDevice(Tensor::new(loss, &Device::Cpu).unwrap());
        // What comes first, its images of this process and of all, what comes later, and its own.
        let cases = [
            (there(1.0), [1, 100], there(5.0), [3, 4], 4.0),
            (there(f32::NAN), [0, 8], there(5.0), [3, 8], 5.0),
            (there(1.0), [2, 8], there(f32::INFINITY), [0, 8], 1.0),
            (StepLoss::Known(1.0), [0, 6], StepLoss::Known(5.0), [2, 2], 2.0),
        ];
        for (before, images, later, later_images, expected) in cases {
            let [images, later_images] = [images, later_images].map(|[own, total]| counts(own, total));
            assert_eq!(before.and(images, later, later_images).unwrap().read().unwrap(), expected);
        }
    }
}
