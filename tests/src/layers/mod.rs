//! Every intermediate value in every engine: which layer is the first that differs, and how much its inputs do.
//! Engines give intermediates because a copy of the model has them all as outputs. candle runs the graph that the
//! export lowered, so that layer stands beside layer; with f64, a value's own rounding stands there, too.

mod every_value;
mod keep;
mod npy;
mod report;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use prost::Message;
use tallow_builder::Network;
use tallow_builder::cam::class_activation_maps;
use tallow_exporter::onnx::CAM;
use tallow_runtime::{Dtype, ModelInfo};

use crate::engines::{Engine, Source, engines};
use crate::error::Error;
use crate::file::OnnxFile;
use crate::images::{Images, sample_shape};
use crate::outputs::Distance;
use crate::tensors::{to_array, to_tensor};
use crate::verify::VerifyOptions;
use crate::{candle_side, double};
use every_value::Value;
use keep::Keeper;
pub use report::{Culprit, Differences, LayerDifference, LayerEngine, LayerReport, LayerRow, Origin};

/// What [`verify_layers`] does besides comparing.
#[derive(Clone, Debug, Default)]
pub struct LayerOptions {
    /// An empty or new folder that takes the tensors of all engines as `.npy` files.
    pub keep_tensors: Option<PathBuf>,
}

impl LayerOptions {
    /// Refuses, before any engine runs, a file whose layers cannot be compared, and a folder for tensors that holds
    /// something.
    ///
    /// # Errors
    /// [`Error::HalfLayers`], [`Error::NotEmpty`], and where the file or the folder cannot be read.
    pub fn check(&self, path: &Path) -> Result<(), Error> {
        self.keep_tensors.as_deref().map_or(Ok(()), keep::check)?;
        refuse_half(&ModelInfo::read(path)?)
    }
}

fn refuse_half(info: &ModelInfo) -> Result<(), Error> {
    match info.dtype {
        Dtype::F32 => Ok(()),
        Dtype::F16 => Err(Error::HalfLayers { file: info.file.clone() }),
    }
}

/// Compares every float32 value of the graph. The reference is candle for what the layer graph has, else the first
/// engine that runs; its tensors are held for all batches, those of the others for one batch at a time.
///
/// # Errors
/// As [`verify`](crate::verify), and where tensors that are to be kept cannot be written.
pub fn verify_layers(
    path: &Path,
    network: Option<&Network>,
    options: &VerifyOptions,
    layers: &LayerOptions,
) -> Result<LayerReport, Error> {
    if options.batches.is_empty() || options.batches.contains(&0) {
        return Err(Error::Option("batches must hold at least one image each, and there must be one"));
    }
    let file = OnnxFile::read(path)?;
    refuse_half(&file.info)?;
    let sample = sample_shape(&file.info, options.size)?;
    let candle = match network {
        Some(network) => {
            candle_side::check(&file, sample, network)?;
            Some(candle_side::as_exported(&file, network)?)
        }
        None => None,
    };
    let (model, values) = every_value::expose(&file.model, &file.info.input.name);
    let bytes = model.encode_to_vec();
    let exposed = ModelInfo::parse(&file.info.file, &bytes)?;
    let keeper = match &layers.keep_tensors {
        Some(folder) => Some(Keeper::new(folder, &values)?),
        None => None,
    };
    // A value that is no batch of rows cannot be put together from pieces.
    let batches = match file.info.fixed_batch() {
        Some(batch) => vec![batch],
        None => options.batches.clone(),
    };
    let images = Images::random(&file.info, options.seed, &batches, sample);

    let mut comparison = Comparison::new(&values, keeper);
    if let Some(network) = &candle {
        comparison.candle(&file, network, &images)?;
    }
    for engine in engines(Source::Bytes(&bytes), &exposed, &model, options) {
        comparison.engine(&engine, &exposed, &images)?;
    }
    if let Some(network) =
        candle.filter(|_| options.noise || comparison.differs(options.tolerance(file.info.dtype)))
    {
        comparison.double(&file, &network, &images)?;
    }
    Ok(comparison.finish(file.info.file, options, batches))
}

/// What is known of each value so far.
struct Comparison<'a> {
    values: &'a [Value],
    keeper: Option<Keeper>,
    /// The engine that a value is compared with, and its tensors, one a batch.
    references: HashMap<String, (String, Vec<ArrayD<f32>>)>,
    differences: HashMap<String, BTreeMap<String, Difference>>,
    noise: HashMap<String, Distance>,
    engines: Vec<LayerEngine>,
}

/// A value of one engine against the reference's.
#[derive(Clone, Copy, Default)]
struct Difference {
    distance: Distance,
    other_shape: bool,
}

impl<'a> Comparison<'a> {
    fn new(values: &'a [Value], keeper: Option<Keeper>) -> Self {
        let (references, differences, noise) = Default::default();
        Self { values, keeper, references, differences, noise, engines: vec![] }
    }

    /// candle, whose values are the references.
    fn candle(&mut self, file: &OnnxFile, network: &Network, images: &[Images]) -> Result<(), Error> {
        let names = candle_side::layers(file, network);
        for (batch, images) in images.iter().enumerate() {
            self.keep("images", batch, "images", &images.floats.clone().into_dyn())?;
            let tensor = to_tensor(&images.floats).map_err(tallow_exporter::Error::from)?;
            let mut seen = vec![];
            let run = network.forward_watched(&tensor, |id, value| {
                if let Some(name) = &names[id.index()] {
                    seen.push(to_array(value).map(|value| (name.clone(), value)));
                }
            });
            run.map_err(tallow_exporter::Error::from)?;
            for value in seen {
                let (name, value) = value.map_err(tallow_exporter::Error::from)?;
                self.value("candle", batch, &name, value)?;
            }
            if file.info.outputs.iter().any(|output| output.name == CAM)
                && let Some((_, maps)) =
                    class_activation_maps(network, &tensor).map_err(tallow_exporter::Error::from)?
            {
                let maps = to_array(&maps).map_err(tallow_exporter::Error::from)?;
                self.value("candle", batch, CAM, maps)?;
            }
        }
        self.engines.push(LayerEngine { engine: "candle".into(), problem: None, note: None });
        Ok(())
    }

    /// Whether any value lies beyond the tolerance.
    fn differs(&self, tolerance: f64) -> bool {
        let mut differences = self.differences.values().flat_map(BTreeMap::values);
        differences.any(|d| d.other_shape || d.distance.max_rel() > tolerance)
    }

    /// candle's graph in f64, and how far candle is from it.
    fn double(&mut self, file: &OnnxFile, network: &Network, images: &[Images]) -> Result<(), Error> {
        let names = candle_side::layers(file, network);
        for (batch, images) in images.iter().enumerate() {
            let mut kept = Ok(());
            let run = double::forward(network, &images.floats, |id, exact| {
                let Some(name) = &names[id.index()] else { return };
                if let Some((_, tensors)) = self.references.get(name) {
                    self.noise.entry(name.clone()).or_default().add_all(exact, &tensors[batch]);
                }
                if kept.is_ok() {
                    kept = self.keep("f64", batch, name, exact);
                }
            });
            run.map_err(tallow_exporter::Error::from)?;
            kept?;
        }
        Ok(())
    }

    fn engine(&mut self, engine: &Engine, info: &ModelInfo, images: &[Images]) -> Result<(), Error> {
        let mut problem = None;
        for (batch, images) in images.iter().enumerate() {
            match engine.run(images) {
                Ok(outputs) => {
                    for (output, value) in info.outputs.iter().zip(outputs) {
                        self.value(engine.name, batch, &output.name, value)?;
                    }
                }
                Err(outcome) => problem = Some(outcome.in_words()),
            }
        }
        let engine = LayerEngine { engine: engine.name.into(), problem, note: engine.note.clone() };
        self.engines.push(engine);
        Ok(())
    }

    /// Takes in a value: as the reference if it is the first, else compared with that.
    fn value(&mut self, engine: &str, batch: usize, name: &str, value: ArrayD<f32>) -> Result<(), Error> {
        self.keep(engine, batch, name, &value)?;
        let (reference, tensors) =
            self.references.entry(name.to_owned()).or_insert_with(|| (engine.to_owned(), vec![]));
        if reference == engine {
            tensors.push(value);
            return Ok(());
        }
        let Some(expected) = tensors.get(batch) else { return Ok(()) };
        let differences = self.differences.entry(name.to_owned()).or_default();
        let difference = differences.entry(engine.to_owned()).or_default();
        if expected.shape() == value.shape() {
            difference.distance.add_all(expected, &value);
        } else {
            difference.other_shape = true;
        }
        Ok(())
    }

    fn keep<T: npy::Number>(
        &self,
        engine: &str,
        batch: usize,
        name: &str,
        value: &ArrayD<T>,
    ) -> Result<(), Error> {
        self.keeper.as_ref().map_or(Ok(()), |keeper| keeper.keep(engine, batch, name, value))
    }

    fn finish(mut self, file: String, options: &VerifyOptions, batches: Vec<usize>) -> LayerReport {
        let mut rows = vec![];
        for value in self.values {
            let Some((reference, tensors)) = self.references.get(&value.name) else { continue };
            let differences = self.differences.remove(&value.name).unwrap_or_default();
            let difference = |Difference { distance, other_shape }: Difference| match other_shape {
                true => LayerDifference { max_abs: f64::INFINITY, max_rel: f64::INFINITY },
                false => LayerDifference { max_abs: distance.max_abs, max_rel: distance.max_rel() },
            };
            rows.push(LayerRow {
                layer: value.layer.clone(),
                value: value.name.clone(),
                op: value.op.clone(),
                attributes: value.attributes.clone(),
                shape: tensors.first().map_or(vec![], |tensor| tensor.shape().to_vec()),
                inputs: value.inputs.clone(),
                reference: reference.clone(),
                differences: differences.into_iter().map(|(engine, d)| (engine, difference(d))).collect(),
                noise: self.noise.get(&value.name).map(Distance::max_rel),
            });
        }
        LayerReport::new(file, options, batches, self.engines, rows)
    }
}
