//! A model in an engine: tensors in, every output out. Knows nothing of labels or images.
//! Checks shapes before the engine sees them, and lets a graph with a fixed batch run any number of images.

use std::path::{Path, PathBuf};

use ndarray::{ArrayD, Axis, Slice};

use crate::batch::Batch;
use crate::engines::{Engine, EngineChoice, EngineOptions};
use crate::error::RuntimeError;
use crate::onnx::ModelInfo;
use crate::select::{Selection, open_engine};

/// Where an engine loads the model from. A file may bring weights in files beside it.
pub(crate) enum ModelSource {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// An `.onnx` model loaded into an engine.
///
/// Can be shared between threads.
pub struct Network {
    info: ModelInfo,
    engine: Box<dyn Engine>,
    selection: Selection,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("info", &self.info).field("selection", &self.selection).finish()
    }
}

impl Network {
    /// Loads a model file.
    ///
    /// # Errors
    /// [`RuntimeError::Read`] and [`RuntimeError::Model`] for a bad file; [`RuntimeError::Unavailable`] and
    /// [`RuntimeError::Engine`] where a named engine cannot run it; [`RuntimeError::NoEngine`] where none can.
    pub fn open(
        path: impl AsRef<Path>,
        choice: EngineChoice,
        options: &EngineOptions,
    ) -> Result<Network, RuntimeError> {
        let path = path.as_ref();
        let info = ModelInfo::read(path)?;
        Network::load(info, &ModelSource::File(path.to_owned()), choice, options)
    }

    /// Loads a model held in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open); errors call it `model data`.
    pub fn from_bytes(
        bytes: Vec<u8>,
        choice: EngineChoice,
        options: &EngineOptions,
    ) -> Result<Network, RuntimeError> {
        let info = ModelInfo::parse("model data", &bytes)?;
        Network::load(info, &ModelSource::Bytes(bytes), choice, options)
    }

    fn load(
        info: ModelInfo,
        source: &ModelSource,
        choice: EngineChoice,
        options: &EngineOptions,
    ) -> Result<Network, RuntimeError> {
        let (engine, selection) = open_engine(choice, &info, source, options)?;
        Ok(Network { info, engine, selection })
    }

    /// What the file says about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Which engine runs it, and why.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The index among the outputs of the one with this name.
    pub fn output_index(&self, name: &str) -> Option<usize> {
        self.info.outputs.iter().position(|output| output.name == name)
    }

    /// Runs a batch: floats `[N, C, H, W]`, or bytes `[N, H, W, 3]` where [`ModelInfo::element`] says so. Returns the outputs
    /// in the order of [`ModelInfo::outputs`], N rows each.
    ///
    /// A graph whose batch is fixed runs in pieces of that size, the last one filled up with zeros.
    ///
    /// # Errors
    /// [`RuntimeError::Shape`] for an input the graph does not take, [`RuntimeError::Engine`] if the run fails.
    pub fn run<'a>(&self, input: impl Into<Batch<'a>>) -> Result<Vec<ArrayD<f32>>, RuntimeError> {
        let input = input.into();
        self.check(input)?;
        match self.info.fixed_batch() {
            Some(batch) if batch != input.shape()[0] => self.run_in_pieces(input, batch),
            _ => self.engine.run(input),
        }
    }

    fn check(&self, input: Batch<'_>) -> Result<(), RuntimeError> {
        let actual = input.shape();
        let free = |at: usize| at == 0; // any number of images can be run
        let fits = match &self.info.input.dims {
            Some(dims) => dims
                .iter()
                .zip(&actual)
                .enumerate()
                .all(|(at, (dim, length))| free(at) || dim.fixed().is_none_or(|fixed| fixed == *length)),
            None => true,
        };
        let same = input.element() == self.info.element;
        if fits && same && !actual.contains(&0) {
            return Ok(());
        }
        Err(RuntimeError::Shape {
            file: self.info.file.clone(),
            input: self.info.input.name.clone(),
            expected: format!("{} {}", self.info.element, self.info.input.shape_text()),
            actual: format!("{} {actual:?}", input.element()),
        })
    }

    fn run_in_pieces(&self, input: Batch<'_>, batch: usize) -> Result<Vec<ArrayD<f32>>, RuntimeError> {
        let mut pieces: Vec<Vec<ArrayD<f32>>> = vec![Vec::new(); self.info.outputs.len()];
        input.in_pieces(batch, |piece, rows| {
            for ((kept, result), output) in
                pieces.iter_mut().zip(self.engine.run(piece)?).zip(&self.info.outputs)
            {
                if result.ndim() == 0 || result.shape()[0] != batch {
                    return Err(self.bad_output(&output.name, result.shape(), batch));
                }
                kept.push(result.slice_axis(Axis(0), Slice::from(..rows)).to_owned());
            }
            Ok(())
        })?;
        let join = |(kept, output): (Vec<ArrayD<f32>>, &crate::onnx::TensorInfo)| {
            let views: Vec<_> = kept.iter().map(|piece| piece.view()).collect();
            ndarray::concatenate(Axis(0), &views).map_err(|_| self.bad_output(&output.name, &[], batch))
        };
        pieces.into_iter().zip(&self.info.outputs).map(join).collect()
    }

    fn bad_output(&self, name: &str, shape: &[usize], batch: usize) -> RuntimeError {
        RuntimeError::Model {
            file: self.info.file.clone(),
            reason: format!("its output `{name}` has the shape {shape:?} for a batch of {batch}"),
        }
    }
}
