//! A run whose numbers are no longer finite ends with where that first shows, and keeps its last good checkpoint.

use tallow_builder::exec::{Gradients, Tape};

use super::Trainer;
use crate::checkpoint::Checkpoint;
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::optim::global_norm;

impl Trainer {
    /// The error for a loss that is no number: the layer where it first shows.
    pub(super) fn diverged(&self, batch: &Batch, tape: &Tape) -> Result<Error> {
        let place = match tape.first_non_finite()? {
            Some(id) => {
                let node = self.network.graph().node(id);
                format!("first in the output of layer `{}` ({})", node.name, node.op.kind())
            }
            None => "in the loss itself".into(),
        };
        Ok(self.not_finite("loss", batch.index + 1, place))
    }

    /// The error for gradients that are no numbers: the last layer where it shows, which backward is the first.
    pub(super) fn exploded(&self, batch: &Batch, gradients: &Gradients) -> Result<Error> {
        for parameter in self.network.graph().parameters().iter().rev() {
            let Some(gradient) = gradients.get(&parameter.name) else { continue };
            let one = Gradients::from([(parameter.name.clone(), gradient.clone())]);
            if !global_norm(&one)?.is_finite() {
                let place = format!("first in the gradient of `{}`", parameter.name);
                return Ok(self.not_finite("gradient", batch.index + 1, place));
            }
        }
        Ok(self.not_finite("gradient", batch.index + 1, "in the norm of all gradients".into()))
    }

    /// An evaluation's error as the validation of this epoch meets it.
    pub(super) fn in_validation(&self, error: Error) -> Error {
        match error {
            Error::NotFiniteOutput { batch, place } => self.not_finite("validation loss", batch, place),
            other => other,
        }
    }

    /// Refuses to write down what nothing could go on from: an update can overflow after the last loss was computed.
    pub(super) fn check_finite(&self, checkpoint: &Checkpoint) -> Result<()> {
        match checkpoint.first_non_finite()? {
            None => Ok(()),
            Some(name) => Err(self.not_finite("state", self.position.batch, format!("first in `{name}`"))),
        }
    }

    pub(super) fn not_finite(&self, what: &'static str, batch: usize, place: String) -> Error {
        let kept = match self.run.has_checkpoint() {
            true => "the checkpoint before it is kept",
            false => "there is no checkpoint yet",
        };
        Error::NotFinite { what, epoch: self.position.epoch + 1, batch, place, kept }
    }
}
