//! Which layer made the loss or a gradient stop being a number.

use tallow_builder::exec::{Gradients, Tape};

use super::Trainer;
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
        Ok(self.not_finite("loss", batch, place))
    }

    /// The error for gradients that are no numbers: the last layer where it shows, which backward is the first.
    pub(super) fn exploded(&self, batch: &Batch, gradients: &Gradients) -> Result<Error> {
        for parameter in self.network.graph().parameters().iter().rev() {
            let Some(gradient) = gradients.get(&parameter.name) else { continue };
            let one = Gradients::from([(parameter.name.clone(), gradient.clone())]);
            if !global_norm(&one)?.is_finite() {
                let place = format!("first in the gradient of `{}`", parameter.name);
                return Ok(self.not_finite("gradient", batch, place));
            }
        }
        Ok(self.not_finite("gradient", batch, "in the norm of all gradients".into()))
    }

    fn not_finite(&self, what: &'static str, batch: &Batch, place: String) -> Error {
        let kept = match self.run.has_checkpoint() {
            true => "the checkpoint before it is kept",
            false => "there is no checkpoint yet",
        };
        Error::NotFinite { what, epoch: self.position.epoch + 1, batch: batch.index + 1, place, kept }
    }
}
