//! The flags of fine-tuning.

use tallow_trainer::fine_tune::FineTune;

const HEADING: &str = "Fine-tuning";

#[derive(Default, PartialEq, clap::Args)]
pub struct Args {
    /// Never train the layers or parameters that fit this pattern, such as 'features.[0-4]' or 'layer[1-3]*'; their
    /// batch normalisations use their running moments. May be given more than once
    #[arg(help_heading = HEADING, long, value_name = "PATTERN")]
    freeze: Vec<String>,
    /// Let every batch normalisation use its running moments, and leave them as they are
    #[arg(help_heading = HEADING, long)]
    freeze_batch_norm: bool,
    /// Multiply the learning rate by this from each stage to the one below it, from the head down [default: 0.75 with
    /// --weights, else 1]
    #[arg(help_heading = HEADING, long, value_name = "FACTOR")]
    layer_decay: Option<f64>,
    /// Train the head alone for so many epochs first
    #[arg(help_heading = HEADING, long, value_name = "EPOCHS")]
    head_epochs: Option<u64>,
    /// Train the head first, and one stage more from the top down after each of so many epochs
    #[arg(help_heading = HEADING, long, value_name = "EPOCHS")]
    unfreeze_every: Option<u64>,
}

impl Args {
    /// Puts the flags on top of the settings file.
    pub fn apply(&self, settings: &mut FineTune) {
        if !self.freeze.is_empty() {
            settings.freeze.clone_from(&self.freeze);
        }
        settings.freeze_batch_norm |= self.freeze_batch_norm;
        settings.layer_decay = self.layer_decay.or(settings.layer_decay);
        settings.head_epochs = self.head_epochs.unwrap_or(settings.head_epochs);
        settings.unfreeze_every = self.unfreeze_every.unwrap_or(settings.unfreeze_every);
    }
}
