//! The network that a run's settings ask for.

use tallow_builder::Graph;
use tallow_input::Preprocess;
use tallow_models::Options;

use crate::config::Config;
use crate::error::{Error, Result};

/// Builds the network for images as `preprocess` makes them.
///
/// # Errors
/// Where the zoo cannot build it, and for images smaller than its first window.
pub(crate) fn build(config: &Config, preprocess: &Preprocess, classes: usize) -> Result<Graph> {
    let options = Options {
        classes: Some(classes),
        width: Some(preprocess.width as usize),
        height: Some(preprocess.height as usize),
        dropout: config.dropout,
        stochastic_depth: config.stochastic_depth,
        ..Options::default()
    };
    let graph = tallow_models::build(&config.model, &options)?;
    // Padding lets a window run over a smaller image, but most of what it sees then is the padding.
    let (width, height) = (preprocess.width as usize, preprocess.height as usize);
    let first = graph.costs().into_iter().find_map(|layer| Some((layer.name, layer.kernel?)));
    match first {
        Some((layer, [kh, kw])) if height < kh || width < kw => Err(Error::SmallImages {
            size: format!("{width}×{height}"),
            network: config.model.clone(),
            layer,
            kernel: format!("{kw}×{kh}"),
        }),
        _ => Ok(graph),
    }
}
