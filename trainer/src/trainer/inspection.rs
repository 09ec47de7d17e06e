//! What is written down of a step: its numbers, and at an epoch's first step what can be seen inside the network.

use candle_core::Tensor;
use tallow_builder::exec::{Gradients, Keep, Tape};
use tallow_builder::{Rng, Weights};

use super::Trainer;
use crate::data::Batch;
use crate::diagnose::{Activations, GradientFlow};
use crate::error::Result;
use crate::plot;
use crate::progress::Progress;
use crate::tensorboard::StepRecord;

/// Images of a batch whose activations are looked at where the batch's own pass does not keep them.
const INSPECTED_IMAGES: usize = 16;

/// The inside of a network in one step.
pub(super) struct Inspection {
    activations: Activations,
    gradients: Gradients,
    before: Weights,
}

impl Inspection {
    /// With the gradients of the backward pass and the weights before the update.
    pub fn new(activations: Activations, gradients: Gradients, before: Weights) -> Self {
        Self { activations, gradients, before }
    }
}

impl Trainer {
    /// Whether the batch at hand is looked at: the first of an epoch, if anybody asks for it.
    pub(super) fn inspects(&self) -> bool {
        let Self { config, position, .. } = self;
        let asked = config.diagnose || config.tensorboard.histograms_due(position.epoch);
        position.batch == 0 && asked
    }

    /// What the layers give, where this step is inspected and its pass keeps it all.
    pub(super) fn activations(&self, tape: &Tape) -> Result<Option<Activations>> {
        let kept = self.inspects() && self.keep() == Keep::Everything;
        kept.then(|| Activations::of_pass(self.network.graph(), tape)).transpose()
    }

    /// What the layers give for some of a batch's images, where this step is inspected and its pass does not keep it all:
    /// they go through the network for this alone, so that looking takes no more memory than training.
    pub(super) fn activations_apart(&self, images: &Tensor, rng: &Rng) -> Result<Option<Activations>> {
        if !self.inspects() || self.keep() == Keep::Everything {
            return Ok(None);
        }
        let some = images.narrow(0, 0, images.dim(0)?.min(INSPECTED_IMAGES))?;
        let frozen = |layer: &str| self.tuning.freezes_moments(self.position.epoch, layer);
        let (network, mut rng) = (&self.network, rng.clone());
        let pass = network.record_keeping(&some, &mut rng, &frozen, Keep::Everything, None)?;
        Activations::of_pass(network.graph(), &pass).map(Some)
    }

    /// Writes down a step that has been done; `first` says whether it was the epoch's first.
    pub(super) fn record(
        &mut self,
        batch: &Batch,
        first: bool,
        (step, inspection): (StepRecord, Option<Inspection>),
        progress: &mut Progress,
    ) -> Result<()> {
        let at = (self.position.steps, self.position.epoch);
        self.recorder.step(at.0, &step)?;
        if first && !batch.is_empty() {
            self.recorder.samples(at, batch)?;
        }
        let Some(inspection) = inspection else { return Ok(()) };
        let Inspection { activations, gradients, before } = &inspection;
        self.recorder.histograms(at, activations, gradients, before)?;
        if self.config.diagnose {
            self.diagnose(&inspection, step.learning_rate / self.config.learning_rate()?, progress)?;
        }
        Ok(())
    }

    /// Reports how gradients flow: the whole table the first time, then the verdict.
    fn diagnose(&mut self, inspection: &Inspection, rate_share: f64, progress: &mut Progress) -> Result<()> {
        let Inspection { activations, gradients, before } = inspection;
        let (graph, after) = (self.network.graph(), self.network.weights());
        let flow = GradientFlow::measure(graph, activations, gradients, before, after)?;
        let flow = GradientFlow { rate_share, ..flow };
        let verdict = flow.verdict().to_string();
        let epoch = self.position.epoch + 1;
        if !self.diagnosed {
            progress.message(&format!("{flow}"));
        }
        self.diagnosed = true;
        verdict.lines().for_each(|line| progress.message(&format!("epoch {epoch}, gradient flow: {line}")));
        let title = format!("Gradient flow of {} on {}", self.config.model, self.config.data);
        let picture = plot::gradient_flow(&title, &[(format!("epoch {epoch}, first step"), &flow)])?;
        plot::save(&picture, &self.run.file("gradient_flow.png"))?;
        self.run.write("gradient_flow.txt", &format!("epoch {epoch}, first step\n{flow}\n\n{verdict}\n"))?;
        self.recorder.gradient_flow(self.position.steps, &flow, &picture)
    }
}
