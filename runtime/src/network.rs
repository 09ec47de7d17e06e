//! A model in an engine: tensors in, every output out. Knows nothing of labels or images.
//! Checks shapes before the engine sees them, and lets a graph with a fixed batch run any number of images.

use std::path::{Path, PathBuf};

use ndarray::{Array4, ArrayD, ArrayView4, Axis, Slice, s};

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

    /// Runs a batch `[N, C, H, W]`; returns the outputs in the order of [`ModelInfo::outputs`], N rows each.
    ///
    /// A graph whose batch is fixed runs in pieces of that size, the last one filled up with zeros.
    ///
    /// # Errors
    /// [`RuntimeError::Shape`] for an input the graph does not take, [`RuntimeError::Engine`] if the run fails.
    pub fn run(&self, input: ArrayView4<'_, f32>) -> Result<Vec<ArrayD<f32>>, RuntimeError> {
        self.check_shape(input.shape())?;
        match self.info.fixed_batch() {
            Some(batch) if batch != input.shape()[0] => self.run_in_pieces(input, batch),
            _ => self.engine.run(input),
        }
    }

    fn check_shape(&self, actual: &[usize]) -> Result<(), RuntimeError> {
        let free = |at: usize| at == 0; // any number of images can be run
        let fits = match &self.info.input.dims {
            Some(dims) => dims
                .iter()
                .zip(actual)
                .enumerate()
                .all(|(at, (dim, length))| free(at) || dim.fixed().is_none_or(|fixed| fixed == *length)),
            None => true,
        };
        if fits && !actual.contains(&0) {
            return Ok(());
        }
        Err(RuntimeError::Shape {
            file: self.info.file.clone(),
            input: self.info.input.name.clone(),
            expected: self.info.input.shape_text(),
            actual: format!("{actual:?}"),
        })
    }

    fn run_in_pieces(
        &self,
        input: ArrayView4<'_, f32>,
        batch: usize,
    ) -> Result<Vec<ArrayD<f32>>, RuntimeError> {
        let mut pieces: Vec<Vec<ArrayD<f32>>> = vec![Vec::new(); self.info.outputs.len()];
        for piece in input.axis_chunks_iter(Axis(0), batch) {
            let rows = piece.shape()[0];
            let results = if rows == batch {
                self.engine.run(piece)?
            } else {
                let (_, channels, height, width) = piece.dim();
                let mut full = Array4::zeros((batch, channels, height, width));
                full.slice_mut(s![..rows, .., .., ..]).assign(&piece);
                self.engine.run(full.view())?
            };
            for ((kept, result), output) in pieces.iter_mut().zip(results).zip(&self.info.outputs) {
                if result.ndim() == 0 || result.shape()[0] != batch {
                    return Err(self.bad_output(&output.name, result.shape(), batch));
                }
                kept.push(result.slice_axis(Axis(0), Slice::from(..rows)).to_owned());
            }
        }
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
