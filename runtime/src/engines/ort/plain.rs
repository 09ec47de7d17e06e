//! A run without bound memory: ONNX Runtime reads the batch where it lies and allocates its outputs.

use ndarray::ArrayD;
use ort::session::{NoSelectedOutputs, RunOptions, Session};
use ort::value::TensorRef;

use super::binding::Names;
use crate::batch::Batch;
use crate::error::one_line;

/// Runs a batch and returns the named outputs.
///
/// # Errors
/// The engine's reason.
pub(super) fn run(
    session: &mut Session,
    names: &Names,
    batch: Batch<'_>,
    options: Option<&RunOptions<NoSelectedOutputs>>,
) -> Result<Vec<ArrayD<f32>>, String> {
    let (floats, pixels);
    let inputs = match &batch {
        Batch::Floats(images) => {
            floats = images.as_standard_layout();
            let tensor = TensorRef::from_array_view(floats.view()).map_err(one_line)?;
            ort::inputs![names.input.as_str() => tensor]
        }
        Batch::Pixels(images) => {
            pixels = images.as_standard_layout();
            let tensor = TensorRef::from_array_view(pixels.view()).map_err(one_line)?;
            ort::inputs![names.input.as_str() => tensor]
        }
    };
    let results = match options {
        Some(options) => session.run_with_options(inputs, options),
        None => session.run(inputs),
    }
    .map_err(one_line)?;
    let output = |name: &String| {
        let value = results.get(name).ok_or_else(|| format!("no output `{name}` came back"))?;
        Ok(value.try_extract_array::<f32>().map_err(one_line)?.to_owned())
    };
    names.outputs.iter().map(output).collect()
}
