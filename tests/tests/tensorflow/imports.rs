//! What TensorFlow writes, Tallow reads: checkpoints of version 1 and 2, several data files, partitioned variables, a
//! SavedModel saved again after training.

use std::ffi::OsStr;

use candle_core::Device;
use libtest_mimic::{Failed, Trial};
use tallow_builder::Weights;
use tallow_builder::graph::Role;
use tallow_conformance::randomised;
use tallow_exporter::tensorflow::{SavedModel, SavedModelOptions};
use tallow_exporter::{Existing, Head, Imported, read_weights};
use tallow_input::{ModelCard, Preprocess};
use tallow_models::Options;

use crate::environment::{Environment, Python};

pub fn trials(environment: &Environment) -> Vec<Trial> {
    vec![environment.trial("imports::what_tensorflow_wrote", what_tensorflow_wrote)]
}

/// Python adds 1 to every variable and saves in each of TensorFlow's ways.
fn what_tensorflow_wrote(python: &Python) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let graph = tallow_models::build("efficientnet_lite0", &Options::new(5, 32))?;
    let weights = randomised(&graph, 6)?;
    let labels = (0..5).map(|class| class.to_string()).collect();
    let card = ModelCard::new(graph.name(), labels, Preprocess::imagenet(32, 32));
    let options = SavedModelOptions::default();
    SavedModel::write(&folder.path().join("model"), &graph, &weights, &card, &options, Existing::Keep)?;
    python.run("rewrite.py", &[folder.path().as_os_str(), OsStr::new("0.5")])?;

    for (name, extra) in [
        ("sharded", "global_step"),
        ("objects", "save_counter"),
        ("objects_alone", ""),
        ("resaved", ""),
        ("slots", "Momentum"),
    ] {
        let path = folder.path().join(name);
        let Imported { weights: read, left_out, .. } =
            read_weights(&graph, &path, None, Head::Kept, &Device::Cpu)?;
        let training = extra.is_empty() || left_out.iter().any(|name| name.contains(extra));
        if !training {
            return Err(format!("{name}: {extra} is not among what was left out: {left_out:?}").into());
        }
        compare(name, &graph.parameters(), &weights, &read)?;
    }
    Ok(())
}

fn compare(
    name: &str,
    parameters: &[tallow_builder::graph::Parameter],
    before: &Weights,
    after: &Weights,
) -> Result<(), Failed> {
    for parameter in parameters.iter().filter(|p| p.role != Role::BatchesTracked) {
        let values = |weights: &Weights| weights.get(&parameter.name).flatten_all()?.to_vec1::<f32>();
        let (before, after) = (values(before)?, values(after)?);
        if before.iter().zip(&after).any(|(before, after)| before + 0.5 != *after) {
            return Err(format!("{name}: {} differs", parameter.name).into());
        }
    }
    Ok(())
}
