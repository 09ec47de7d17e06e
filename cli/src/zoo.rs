//! A network of the zoo for commands that need no data: named, or as a settings file has it, and changed by flags.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tallow_models::{Architecture, Options};
use tallow_trainer::{Config, network};

use crate::factors::Factors;
use crate::failure::usage;
use crate::image_size::ImageSize;

/// What a network is built with.
#[derive(Default, PartialEq, clap::Args)]
pub struct Args {
    /// The network of a settings file instead, such as a run's config.toml or a search's best.toml; flags override it
    #[arg(long, value_name = "TOML")]
    config: Option<PathBuf>,
    /// Classes of the last layer [default: the network's own]
    #[arg(long)]
    classes: Option<usize>,
    /// Side of the square images, pixels, or HEIGHTxWIDTH [default: the network's own]
    #[arg(long, value_name = "PIXELS", visible_alias = "resolution")]
    size: Option<ImageSize>,
    #[command(flatten)]
    factors: Factors,
}

impl Args {
    /// Whether anything is said.
    pub fn is_some(&self) -> bool {
        *self != Self::default()
    }

    /// The settings file, if one is named.
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The network `name`, or that of the settings file, and what it is to be built with.
    pub fn resolve(&self, name: Option<&str>) -> Result<(&'static Architecture, Options)> {
        let (name, mut options) = match (name, &self.config) {
            (Some(_), Some(file)) => {
                let file = file.display();
                return Err(usage(format!(
                    "{file} names the network: leave out either --config or the network"
                )));
            }
            (Some(name), None) => (name.to_owned(), Options::default()),
            (None, Some(file)) => {
                let config = Config::read(file)?;
                let options = network::options(&config, &config.preprocess()?, None);
                (config.model, options)
            }
            (None, None) => return Err(usage("name a network, or a settings file with --config")),
        };
        options.classes = self.classes.or(options.classes);
        options.scaling = self.factors.over(options.scaling);
        if let Some(ImageSize { height, width }) = self.size {
            (options.height, options.width) = (Some(height as usize), Some(width as usize));
        }
        Ok((tallow_models::find(&name)?, options))
    }
}
